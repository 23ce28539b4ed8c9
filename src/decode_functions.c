/*
 * decode_functions.c
 *		medallion.try_decode(): what would become of a record.
 *
 * The same decoder as in the workers, on bytes that the user gives, in a
 * subtransaction, so that an error of the record comes out as a row with the
 * sqlstate, message and detail that its dead letter would have.  Nothing is
 * stored: constraints of the table (NOT NULL, CHECK) are not looked at.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "attempt.h"
#include "catalog.h"
#include "decode.h"
#include "function_args.h"
#include "ingest.h"

PG_FUNCTION_INFO_V1(md_try_decode);

/* A record to be decoded, and what came of it, in the caller's context. */
typedef struct Decoding
{
	MdDecoder  *decoder;
	MdRecord	record;
	TupleDesc	desc;
	bool		decoded;
	Datum		row_json;
	MdDecodeError error;
} Decoding;

/* ERROR unless the relation is a table that the user may read. */
static void
check_relation(Relation rel)
{
	AclResult	acl = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel))));
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
}

/* The format that was asked for; without one the table's own, or json. */
static MdFormat
choose_format(const MdStream *stream, FunctionCallInfo fcinfo, int argument)
{
	char	   *name;
	int			format;

	if (PG_ARGISNULL(argument))
		return stream->format;
	name = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	format = md_format_by_name(name);
	if (format < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized format \"%s\"", name),
				 errdetail("Formats are raw, text and json.")));
	return format;
}

/* Bytes of a bytea argument, or NULL. */
static const char *
argument_bytes(FunctionCallInfo fcinfo, int argument, Size *len)
{
	bytea	   *bytes;

	*len = 0;
	if (PG_ARGISNULL(argument))
		return NULL;
	bytes = PG_GETARG_BYTEA_PP(argument);
	*len = VARSIZE_ANY_EXHDR(bytes);
	return VARDATA_ANY(bytes);
}

/*
 * The decoded values as a JSON object.  json, since what a column of type json
 * may hold is more than what jsonb may.
 */
static Datum
row_as_json(TupleDesc desc, Datum *values, bool *isnull)
{
	HeapTuple	tuple = heap_form_tuple(desc, values, isnull);

	return DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(tuple, desc));
}

/* Decode the record; may throw. */
static void
decode_row(void *arg)
{
	Decoding   *decoding = arg;
	int			natts = decoding->desc->natts;
	Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
	bool	   *isnull = palloc(sizeof(bool) * Max(natts, 1));

	decoding->decoded = md_decoder_decode(decoding->decoder, &decoding->record,
										  GetCurrentTransactionStartTimestamp(),
										  values, isnull, &decoding->error);
	if (decoding->decoded)
		decoding->row_json = row_as_json(decoding->desc, values, isnull);
}

/*
 * Decode in a subtransaction, and keep an error that would make a dead letter.
 * Input functions of some types have no code for what they do not like.
 */
static void
try_decode(Decoding *decoding)
{
	ErrorData  *error = md_attempt(decode_row, decoding);

	if (error == NULL)
		return;
	if (!md_ingest_is_data_error(error->sqlerrcode) &&
		error->sqlerrcode != ERRCODE_INTERNAL_ERROR)
		ReThrowError(error);
	decoding->decoded = false;
	md_decoder_describe_thrown(decoding->decoder, error, &decoding->error);
}

/*
 * SQL: try_decode(relation, payload, kafka_key, format) returns row_values,
 * sqlstate, message, detail: either the first or the other three are NULL.
 */
Datum
md_try_decode(PG_FUNCTION_ARGS)
{
	Decoding	decoding = {.record = {.topic = "",.timestamp_ms = -1}};
	MdRecord   *record = &decoding.record;
	MdStream   *stream;
	Relation	rel;
	MdSecurity	saved;
	Oid			owner;
	TupleDesc	result_desc;
	Datum		result[4] = {0};
	bool		isnull[4] = {true, true, true, true};

	md_require_argument(fcinfo, 0, "relation");
	if (get_call_result_type(fcinfo, NULL, &result_desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(0))));
	check_relation(rel);
	stream = md_catalog_stream(RelationGetRelid(rel), CurrentMemoryContext);
	if (stream == NULL)
	{
		stream = palloc0(sizeof(MdStream));
		stream->relid = RelationGetRelid(rel);
		stream->format = MD_FORMAT_JSON;
	}
	stream->format = choose_format(stream, fcinfo, 3);
	record->payload = argument_bytes(fcinfo, 1, &record->payload_len);
	record->key = argument_bytes(fcinfo, 2, &record->key_len);
	/* of those that a pattern matches, none more than another */
	if (stream->topic != NULL && !md_stream_is_pattern(stream))
		record->topic = stream->topic;

	/*
	 * Checks of domains are functions of whoever made them.  Who may act as the
	 * owner does so, as ingest does, and not with more rights of his own.
	 */
	owner = rel->rd_rel->relowner;
	md_catalog_become(has_privs_of_role(GetUserId(), owner) ? owner : GetUserId(), &saved);
	decoding.desc = RelationGetDescr(rel);
	decoding.decoder = md_decoder_create(stream, decoding.desc, CurrentMemoryContext);
	try_decode(&decoding);
	md_decoder_free(decoding.decoder);
	md_catalog_restore_user(&saved);
	relation_close(rel, AccessShareLock);

	if (decoding.decoded)
		result[0] = decoding.row_json;
	else
	{
		result[1] = CStringGetTextDatum(unpack_sql_state(decoding.error.sqlstate));
		result[2] = CStringGetTextDatum(decoding.error.message);
		if (decoding.error.detail != NULL)
			result[3] = CStringGetTextDatum(decoding.error.detail);
	}
	isnull[0] = !decoding.decoded;
	isnull[1] = isnull[2] = decoding.decoded;
	isnull[3] = decoding.decoded || decoding.error.detail == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(result_desc),
													  result, isnull)));
}
