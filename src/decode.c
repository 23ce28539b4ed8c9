/*
 * decode.c
 *		From a record's bytes to the values of a row.
 *
 * A decoder sorts the columns of a table by where their values come from:
 *
 *		metadata	kafka_partition, kafka_offset, ..., by their names
 *		blobs		kafka_key and payload as a whole, as bytes, text or JSON
 *		fields		all other columns, by name from a payload in JSON
 *
 * The first two are here; fields are decode_json_row.c's.  A renamed column
 * keeps its source, which MdStream.column_sources tells.
 *
 * Bad data is reported by return value wherever it is checked here or in the
 * readers of common types; the input functions of other types throw.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "decode.h"
#include "decode_json.h"
#include "decode_text.h"

#define US_BETWEEN_EPOCHS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Sources of a column, in the order of md_metadata_columns. */
typedef enum MdSource
{
	MD_SOURCE_PARTITION,
	MD_SOURCE_OFFSET,
	MD_SOURCE_TIMESTAMP,
	MD_SOURCE_INGESTED_AT,
	MD_SOURCE_TOPIC,
	MD_SOURCE_KEY,
	MD_SOURCE_HEADERS,
	MD_SOURCE_PAYLOAD,
	MD_SOURCE_RESCUED,
	MD_SOURCE_FIELD,			/* of the payload; also: not one of the above */
	MD_SOURCE_NONE				/* dropped, generated or identity */
} MdSource;

const MdMetadataColumn md_metadata_columns[] = {
	[MD_SOURCE_PARTITION] = {"kafka_partition", INT4OID, true},
	[MD_SOURCE_OFFSET] = {"kafka_offset", INT8OID, true},
	[MD_SOURCE_TIMESTAMP] = {"kafka_timestamp", TIMESTAMPTZOID, true},
	[MD_SOURCE_INGESTED_AT] = {"ingested_at", TIMESTAMPTZOID, true},
	[MD_SOURCE_TOPIC] = {"kafka_topic", TEXTOID, false},
	[MD_SOURCE_KEY] = {"kafka_key", InvalidOid, false},
	[MD_SOURCE_HEADERS] = {"kafka_headers", JSONBOID, false},
	[MD_SOURCE_PAYLOAD] = {"payload", InvalidOid, false},
	[MD_SOURCE_RESCUED] = {"rescued_data", JSONBOID, false},
	[MD_SOURCE_FIELD] = {NULL, InvalidOid, false}
};

/* A column that is not filled from a field of the payload. */
typedef struct MetadataColumn
{
	MdSource	source;
	Oid			type;
	int			index;
} MetadataColumn;

struct MdDecoder
{
	MemoryContext context;
	MdFormat	format;
	MdTextReader reader;
	int			natts;
	MdSource   *sources;		/* by column */

	MetadataColumn *columns;	/* but payload and rescued_data */
	int			n_columns;
	int			payload_index;	/* -1: not declared */
	Oid			payload_type;
	int			rescued_index;	/* -1: not declared */
	MdJsonRow  *row;			/* NULL: no columns from fields */
	bool		needs_headers;

	const char *part;			/* being read, for errors; NULL outside */
};

/* The name under which a column's value is looked for. */
static const char *
column_source_name(const MdStream *stream, const char *column_name)
{
	ListCell   *lc;

	foreach(lc, stream->column_sources)
	{
		MdColumnSource *source = lfirst(lc);

		if (strcmp(source->column_name, column_name) == 0)
			return source->source_name;
	}
	return column_name;
}

/* Which source a name means. */
static MdSource
source_by_name(const char *name)
{
	for (int i = 0; md_metadata_columns[i].name != NULL; i++)
	{
		if (strcmp(md_metadata_columns[i].name, name) == 0)
			return i;
	}
	return MD_SOURCE_FIELD;
}

/* ERROR unless a metadata column has a type that can hold it. */
static void
check_metadata_type(Form_pg_attribute att, MdSource source)
{
	Oid			expected = md_metadata_columns[source].type;

	if (OidIsValid(expected))
	{
		if (att->atttypid != expected)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" must be of type %s, not %s",
							NameStr(att->attname), format_type_be(expected),
							format_type_be(att->atttypid)),
					 errdetail("It is filled with \"%s\" of each record.",
							   md_metadata_columns[source].name)));
	}
	else if (att->atttypid != BYTEAOID && att->atttypid != TEXTOID &&
			 att->atttypid != JSONOID && att->atttypid != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot be of type %s",
						NameStr(att->attname), format_type_be(att->atttypid)),
				 errhint("Types for it are bytea, text, json and jsonb.")));
}

/* ERROR unless the format can fill the column. */
static void
check_format(const MdStream *stream, Form_pg_attribute att, MdSource source)
{
	if (stream->format == MD_FORMAT_JSON)
		return;
	if (source == MD_SOURCE_RESCUED || source == MD_SOURCE_FIELD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" cannot be filled from records of format \"%s\"",
						NameStr(att->attname), md_format_name(stream->format)),
				 errhint("This format fills \"payload\" and the metadata columns. Use format \"json\" for columns by name.")));
}

/* ERROR when a payload as a whole, or its other fields, has a column already. */
static void
check_single(int index, Form_pg_attribute att, MdSource source)
{
	if (index >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_COLUMN),
				 errmsg("column \"%s\" cannot be filled with \"%s\", which another column is filled with",
						NameStr(att->attname), md_metadata_columns[source].name),
				 errhint("A renamed column keeps its source. Drop one of the two columns.")));
}

/* Sort one column in. */
static void
add_column(MdDecoder *decoder, const MdStream *stream, Form_pg_attribute att, int index)
{
	const char *name = column_source_name(stream, NameStr(att->attname));
	MdSource	source = source_by_name(name);
	MetadataColumn *column;

	check_format(stream, att, source);
	decoder->sources[index] = source;
	if (source == MD_SOURCE_FIELD)
	{
		if (decoder->row == NULL)
			decoder->row = md_json_row_create(decoder->natts, "column");
		md_json_row_add_field(decoder->row, name, index, att->atttypid, att->atttypmod);
		return;
	}

	check_metadata_type(att, source);
	switch (source)
	{
		case MD_SOURCE_PAYLOAD:
			check_single(decoder->payload_index, att, source);
			decoder->payload_index = index;
			decoder->payload_type = att->atttypid;
			return;
		case MD_SOURCE_RESCUED:
			check_single(decoder->rescued_index, att, source);
			decoder->rescued_index = index;
			return;
		case MD_SOURCE_HEADERS:
			decoder->needs_headers = true;
			break;
		default:
			break;
	}
	column = &decoder->columns[decoder->n_columns++];
	column->source = source;
	column->type = att->atttypid;
	column->index = index;
}

/* See decode.h. */
MdDecoder *
md_decoder_create(const MdStream *stream, TupleDesc desc, MemoryContext context)
{
	MemoryContext decoder_context = AllocSetContextCreate(CurrentMemoryContext,
														  "medallion decoder",
														  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(decoder_context);
	MdDecoder  *decoder = palloc0(sizeof(MdDecoder));

	decoder->context = decoder_context;
	decoder->format = stream->format;
	decoder->natts = desc->natts;
	decoder->sources = palloc(sizeof(MdSource) * Max(desc->natts, 1));
	decoder->columns = palloc0(sizeof(MetadataColumn) * Max(desc->natts, 1));
	decoder->payload_index = decoder->rescued_index = -1;
	md_text_reader_init(&decoder->reader);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated != '\0' || att->attidentity != '\0')
			decoder->sources[i] = MD_SOURCE_NONE;
		else
			add_column(decoder, stream, att, i);
	}
	if (decoder->rescued_index >= 0)
	{
		if (decoder->row == NULL)
			decoder->row = md_json_row_create(0, "column");
		decoder->row->rescue = true;
	}

	MemoryContextSwitchTo(old_context);
	MemoryContextSetParent(decoder_context, context);
	return decoder;
}

/* See decode.h. */
void
md_decoder_free(MdDecoder *decoder)
{
	MemoryContextDelete(decoder->context);
}

/* See decode.h. */
bool
md_decoder_needs_headers(const MdDecoder *decoder)
{
	return decoder->needs_headers;
}

/* Verified text, all of it JSON or not, as a value of one of four types. */
static bool
read_text_blob(MdSlice text, Oid type, bool is_json, Datum *value, MdDecodeError *error)
{
	if ((type == JSONOID || type == JSONBOID) && !is_json &&
		!md_json_check(text, false, error))
		return false;
	if (type == JSONBOID)
		return md_json_to_jsonb(text, value, error);
	*value = PointerGetDatum(cstring_to_text_with_len(text.data, text.len));
	return true;
}

/* A whole key or payload, as it is declared. */
static bool
read_blob(MdDecoder *decoder, const char *data, Size len, Oid type,
		  Datum *value, MdDecodeError *error)
{
	MdSlice		text;

	if (type == BYTEAOID)
	{
		*value = PointerGetDatum(cstring_to_text_with_len(data, (int) len));
		return true;
	}
	return md_text_read(&decoder->reader, data, len, &text, error) &&
		read_text_blob(text, type, false, value, error);
}

/* The record's timestamp; -1 is none. */
static bool
read_timestamp_ms(int64 timestamp_ms, Datum *value, bool *isnull, MdDecodeError *error)
{
	int64		timestamp;

	*isnull = timestamp_ms == -1;
	if (*isnull)
		return true;
	if (timestamp_ms > PG_INT64_MAX / 1000 || timestamp_ms < PG_INT64_MIN / 1000 / 2 ||
		(timestamp = timestamp_ms * 1000 - US_BETWEEN_EPOCHS,
		 !IS_VALID_TIMESTAMP(timestamp)))
		return md_decode_fail(error, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
							  "kafka_timestamp: %lld ms since 1970 is out of range",
							  (long long) timestamp_ms);
	*value = TimestampTzGetDatum(timestamp);
	return true;
}

/* Fill one metadata column. */
static bool
read_metadata(MdDecoder *decoder, const MetadataColumn *column,
			  const MdRecord *record, TimestampTz ingested_at,
			  Datum *value, bool *isnull, MdDecodeError *error)
{
	*isnull = false;
	switch (column->source)
	{
		case MD_SOURCE_PARTITION:
			*value = Int32GetDatum(record->partition);
			return true;
		case MD_SOURCE_OFFSET:
			*value = Int64GetDatum(record->offset);
			return true;
		case MD_SOURCE_TIMESTAMP:
			return read_timestamp_ms(record->timestamp_ms, value, isnull, error);
		case MD_SOURCE_INGESTED_AT:
			*value = TimestampTzGetDatum(ingested_at);
			return true;
		case MD_SOURCE_TOPIC:
			*value = CStringGetTextDatum(record->topic);
			return true;
		case MD_SOURCE_HEADERS:
			*value = JsonbPGetDatum(md_decode_headers(record));
			return true;
		case MD_SOURCE_KEY:
			*isnull = record->key == NULL;
			decoder->part = "kafka_key";
			if (!*isnull && !read_blob(decoder, record->key, record->key_len,
									   column->type, value, error))
				return md_decode_prefix(error, "kafka_key");
			return true;
		default:
			elog(ERROR, "unexpected source %d of a column", (int) column->source);
			return false;
	}
}

/* The fields of a payload, and those that have no column. */
static bool
read_fields(MdDecoder *decoder, MdSlice text, Datum *values, bool *isnull,
			MdDecodeError *error)
{
	int			rescued = decoder->rescued_index;

	if (!md_json_row_split(decoder->row, text, error))
		return md_decode_prefix(error, "payload");
	if (!md_json_row_read(decoder->row, values, isnull, error))
		return false;

	if (rescued >= 0 && decoder->row->any_rescued)
	{
		MdSlice		json = {decoder->row->rescued.data, decoder->row->rescued.len};

		decoder->part = "rescued_data";
		if (!md_json_to_jsonb(json, &values[rescued], error))
			return md_decode_prefix(error, "rescued_data");
		isnull[rescued] = false;
	}
	return true;
}

/* A payload in JSON: checked once, then as a whole and by its fields. */
static bool
read_json_payload(MdDecoder *decoder, const MdRecord *record,
				  Datum *values, bool *isnull, MdDecodeError *error)
{
	int			index = decoder->payload_index;
	MdSlice		text;

	if (!md_text_read(&decoder->reader, record->payload, record->payload_len, &text, error))
		return md_decode_prefix(error, "payload");
	if (decoder->row != NULL)
	{
		if (!read_fields(decoder, text, values, isnull, error))
			return false;
	}
	else if (!md_json_check(text, false, error))
		return md_decode_prefix(error, "payload");

	if (index < 0)
		return true;
	decoder->part = "payload";
	isnull[index] = false;
	if (decoder->payload_type == BYTEAOID)
		return read_blob(decoder, record->payload, record->payload_len, BYTEAOID,
						 &values[index], error);
	if (!read_text_blob(text, decoder->payload_type, true, &values[index], error))
		return md_decode_prefix(error, "payload");
	return true;
}

/* The payload of a record, by the format of the table. */
static bool
read_payload(MdDecoder *decoder, const MdRecord *record,
			 Datum *values, bool *isnull, MdDecodeError *error)
{
	int			index = decoder->payload_index;

	if (record->payload == NULL)
	{
		/* a tombstone is a row of NULLs, if domains agree */
		if (decoder->row == NULL)
			return true;
		md_json_row_clear(decoder->row);
		return md_json_row_read(decoder->row, values, isnull, error);
	}
	if (decoder->format == MD_FORMAT_JSON)
		return read_json_payload(decoder, record, values, isnull, error);
	if (index < 0)
		return true;

	isnull[index] = false;
	decoder->part = "payload";
	if (!read_blob(decoder, record->payload, record->payload_len,
				   decoder->payload_type, &values[index], error))
		return md_decode_prefix(error, "payload");
	return true;
}

/* Nothing is being read. */
static void
forget_place(MdDecoder *decoder)
{
	decoder->part = NULL;
	if (decoder->row != NULL)
		decoder->row->current = NULL;
}

/* Name the column whose input function threw. */
static void
decode_error_context(void *arg)
{
	MdDecoder  *decoder = arg;

	if (decoder->row != NULL && decoder->row->current != NULL)
		errcontext("column \"%s\" of the record", decoder->row->current);
	else if (decoder->part != NULL)
		errcontext("%s of the record", decoder->part);
}

/* See decode.h. */
bool
md_decoder_decode(MdDecoder *decoder, const MdRecord *record,
				  TimestampTz ingested_at, Datum *values, bool *isnull,
				  MdDecodeError *error)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = decode_error_context,
		.arg = decoder
	};
	bool		ok = true;

	memset(isnull, true, decoder->natts * sizeof(bool));
	memset(values, 0, decoder->natts * sizeof(Datum));
	forget_place(decoder);
	error_context_stack = &callback;
	for (int i = 0; ok && i < decoder->n_columns; i++)
	{
		const MetadataColumn *column = &decoder->columns[i];

		ok = read_metadata(decoder, column, record, ingested_at,
						   &values[column->index], &isnull[column->index], error);
	}
	decoder->part = "payload";
	ok = ok && read_payload(decoder, record, values, isnull, error);
	error_context_stack = callback.previous;
	forget_place(decoder);
	return ok;
}

/* See decode.h. */
void
md_decoder_describe_thrown(const MdDecoder *decoder, const ErrorData *thrown,
						   MdDecodeError *error)
{
	error->sqlstate = thrown->sqlerrcode;
	error->message = pstrdup(thrown->message);
	error->detail = thrown->detail != NULL ? pstrdup(thrown->detail) : NULL;
	if (decoder->row != NULL && decoder->row->current != NULL)
		md_decode_prefix(error, "column \"%s\"", decoder->row->current);
	else if (decoder->part != NULL)
		md_decode_prefix(error, "%s", decoder->part);
}
