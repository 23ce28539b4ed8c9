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
#include "utils/resowner.h"

#include "catalog.h"
#include "decode.h"

PG_FUNCTION_INFO_V1(md_try_decode);

/* What came of the attempt; strings live in the caller's context. */
typedef struct Attempt
{
	Datum		row_json;
	bool		decoded;
	MdDecodeError error;
} Attempt;

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
				 errmsg("unknown format \"%s\"", name),
				 errhint("Formats are \"raw\", \"text\" and \"json\".")));
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

/* Decode one record; may throw. */
static void
decode_row(MdDecoder *decoder, const MdRecord *record, TupleDesc desc, Attempt *attempt)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *isnull = palloc(sizeof(bool) * Max(desc->natts, 1));

	attempt->decoded = md_decoder_decode(decoder, record, GetCurrentTransactionStartTimestamp(),
										 values, isnull, &attempt->error);
	if (attempt->decoded)
		attempt->row_json = row_as_json(desc, values, isnull);
}

/* Is it trouble of the server, or a cancellation, rather than of the record? */
static bool
is_transient(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return true;
		default:
			return false;
	}
}

/* Decode in a subtransaction and keep an error of the record. */
static void
try_decode(MdDecoder *decoder, const MdRecord *record, TupleDesc desc, Attempt *attempt)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		decode_row(decoder, record, desc, attempt);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *thrown;

		MemoryContextSwitchTo(context);
		thrown = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (is_transient(thrown->sqlerrcode))
			ReThrowError(thrown);

		attempt->decoded = false;
		md_decoder_describe_thrown(decoder, thrown, &attempt->error);
	}
	PG_END_TRY();
}

/*
 * SQL: try_decode(relation, payload, kafka_key, format) returns row_values,
 * sqlstate, message, detail: either the first or the other three are NULL.
 */
Datum
md_try_decode(PG_FUNCTION_ARGS)
{
	Attempt		attempt = {0};
	MdRecord	record = {.topic = "", .timestamp_ms = -1};
	MdStream   *stream;
	Relation	rel;
	MdDecoder  *decoder;
	MdSecurity	saved;
	Oid			owner;
	TupleDesc	result_desc;
	Datum		result[4] = {0};
	bool		isnull[4] = {true, true, true, true};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("relation must not be null")));
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
	record.payload = argument_bytes(fcinfo, 1, &record.payload_len);
	record.key = argument_bytes(fcinfo, 2, &record.key_len);
	if (stream->topic != NULL)
		record.topic = stream->topic;

	/*
	 * Checks of domains are functions of whoever made them.  Who may act as the
	 * owner does so, as ingest does, and not with more rights of his own.
	 */
	owner = rel->rd_rel->relowner;
	md_catalog_become(has_privs_of_role(GetUserId(), owner) ? owner : GetUserId(), &saved);
	decoder = md_decoder_create(stream, RelationGetDescr(rel), CurrentMemoryContext);
	try_decode(decoder, &record, RelationGetDescr(rel), &attempt);
	md_decoder_free(decoder);
	md_catalog_restore_user(&saved);
	relation_close(rel, AccessShareLock);

	if (attempt.decoded)
		result[0] = attempt.row_json;
	else
	{
		result[1] = CStringGetTextDatum(unpack_sql_state(attempt.error.sqlstate));
		result[2] = CStringGetTextDatum(attempt.error.message);
		if (attempt.error.detail != NULL)
			result[3] = CStringGetTextDatum(attempt.error.detail);
	}
	isnull[0] = !attempt.decoded;
	isnull[1] = isnull[2] = attempt.decoded;
	isnull[3] = attempt.decoded || attempt.error.detail == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(result_desc),
													  result, isnull)));
}
