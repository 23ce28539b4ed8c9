/*
 * dead_letter_record.c
 *		A dead letter as the record that it was.
 *
 * What md_dead_letters_write() keeps is enough to make the record again, byte
 * for byte: headers that are no text are kept in base64 (see decode_headers.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "catalog.h"
#include "compat.h"
#include "dead_letter_record.h"
#include "sql_run.h"

/* Bytes of a string in base64; NUL-terminated beside. */
static char *
decode_base64(const JsonbValue *value, Size *len)
{
	char	   *bytes = palloc(pg_b64_dec_len(value->val.string.len) + 1);
	int			n = pg_b64_decode(value->val.string.val, value->val.string.len, (void *) bytes,
								  pg_b64_dec_len(value->val.string.len));

	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid base64 in the headers of a dead letter")));
	bytes[n] = '\0';
	*len = n;
	return bytes;
}

static bool
is_key(const JsonbValue *key, const char *name)
{
	return key->val.string.len == strlen(name) &&
		memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

/* Take one member of a header's object over. */
static void
set_header(MdHeader *header, const JsonbValue *key, const JsonbValue *value)
{
	Size		len;

	if (value->type != jbvString)
		return;					/* null: a header without a value */
	if (is_key(key, "name"))
		header->name = pnstrdup(value->val.string.val, value->val.string.len);
	else if (is_key(key, "name_base64"))
		header->name = decode_base64(value, &len);
	else if (is_key(key, "value"))
	{
		header->value = pnstrdup(value->val.string.val, value->val.string.len);
		header->value_len = value->val.string.len;
	}
	else if (is_key(key, "value_base64"))
		header->value = decode_base64(value, &header->value_len);
}

/* The opposite of md_decode_headers(). */
static void
headers_from_jsonb(Jsonb *json, MdRecord *record)
{
	MdHeader   *headers = palloc0(sizeof(MdHeader) * Max(JB_ROOT_COUNT(json), 1));
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	key = {0};
	JsonbValue	value;
	int			n = 0;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_OBJECT)
			headers[n].name = "";
		else if (token == WJB_KEY)
			key = value;
		else if (token == WJB_VALUE)
			set_header(&headers[n], &key, &value);
		else if (token == WJB_END_OBJECT)
			n++;
	}
	record->headers = headers;
	record->n_headers = n;
}

/* Bytes of column attno of a row, copied; NULL for a null. */
static const char *
copy_bytes(uint64 row, int attno, Size *len)
{
	bool		isnull;
	Datum		value = md_sql_datum(row, attno, &isnull);
	bytea	   *bytes;
	char	   *copy;

	*len = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(value);
	*len = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*len + 1);
	memcpy(copy, VARDATA_ANY(bytes), *len);
	if ((Pointer) bytes != DatumGetPointer(value))
		pfree(bytes);
	return copy;
}

/* One row of the query below as a record. */
static void
read_record(uint64 row, MdRecord *record)
{
	bool		isnull;
	Datum		value;

	record->topic = md_sql_string(row, 2);
	record->partition = DatumGetInt32(md_sql_datum(row, 3, &isnull));
	record->offset = md_sql_int64(row, 4);
	value = md_sql_datum(row, 5, &isnull);
	record->timestamp_ms = isnull ? -1 : DatumGetInt64(value);
	record->key = copy_bytes(row, 6, &record->key_len);
	record->payload = copy_bytes(row, 7, &record->payload_len);
	value = md_sql_datum(row, 8, &isnull);
	record->n_headers = 0;
	if (!isnull)
		headers_from_jsonb(DatumGetJsonbPCopy(value), record);
}

int
md_dead_letter_read(ArrayType *ids, MdRecord **records, int64 **record_ids)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	int			n;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, INT8ARRAYOID, PointerGetDatum(ids), false);
	n = (int) md_sql_run_cached(&plan,
								"SELECT l.dead_letter_id, l.topic, l.kafka_partition, l.kafka_offset,"
								"       round(extract(epoch FROM l.kafka_timestamp) * 1000)::bigint,"
								"       l.kafka_key, l.payload, l.headers"
								"  FROM medallion.dead_letter l WHERE l.dead_letter_id = ANY ($1)"
								" ORDER BY l.topic, l.kafka_partition, l.kafka_offset",
								&args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	*records = palloc0(sizeof(MdRecord) * Max(n, 1));
	*record_ids = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		(*record_ids)[i] = md_sql_int64(i, 1);
		read_record(i, &(*records)[i]);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return n;
}
