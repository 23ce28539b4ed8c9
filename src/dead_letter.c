/*
 * dead_letter.c
 *		Keeps records that could not be stored, with their error.
 *
 * A dead letter is written in the transaction of its batch, so that the
 * checkpoint never passes a record that is in neither place.
 *
 * A topic may consist of nothing else, so they are written by one statement for
 * many, with a column of them in an array each.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "dead_letter.h"
#include "decode.h"
#include "kafka_client.h"
#include "sql_run.h"

/* Letters written by one statement, and the bytes after which no more wait. */
#define MAX_LETTERS	1000
#define MAX_BYTES	(4 * 1024 * 1024)

/* Columns as they are written, with the types of their values. */
typedef enum Column
{
	COL_TOPIC,
	COL_PARTITION,
	COL_OFFSET,
	COL_TIMESTAMP_MS,
	COL_KEY,
	COL_PAYLOAD,
	COL_HEADERS,
	COL_SQLSTATE,
	COL_MESSAGE,
	COL_DETAIL,
	N_COLUMNS
} Column;

static const struct
{
	Oid			type;
	Oid			array_type;
}			columns[N_COLUMNS] = {
	[COL_TOPIC] = {TEXTOID, TEXTARRAYOID},
	[COL_PARTITION] = {INT4OID, INT4ARRAYOID},
	[COL_OFFSET] = {INT8OID, INT8ARRAYOID},
	[COL_TIMESTAMP_MS] = {INT8OID, INT8ARRAYOID},
	[COL_KEY] = {BYTEAOID, BYTEAARRAYOID},
	[COL_PAYLOAD] = {BYTEAOID, BYTEAARRAYOID},
	[COL_HEADERS] = {JSONBOID, JSONBARRAYOID},
	[COL_SQLSTATE] = {TEXTOID, TEXTARRAYOID},
	[COL_MESSAGE] = {TEXTOID, TEXTARRAYOID},
	[COL_DETAIL] = {TEXTOID, TEXTARRAYOID},
};

struct MdDeadLetters
{
	Oid			relid;
	MemoryContext context;		/* of the values; reset when they are written */
	int			n;
	Size		bytes;
	Datum		values[N_COLUMNS][MAX_LETTERS];
	bool		nulls[N_COLUMNS][MAX_LETTERS];
};

static Datum
bytea_datum(const char *data, Size len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	if (len > 0)
		memcpy(VARDATA(result), data, len);
	return PointerGetDatum(result);
}

Datum
md_dead_letter_text(const char *message)
{
	int			len = (int) strlen(message);
	char	   *copy;

	if (pg_verify_mbstr(GetDatabaseEncoding(), message, len, true))
		return CStringGetTextDatum(message);
	copy = pstrdup(message);
	for (char *p = copy; *p; p++)
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	return CStringGetTextDatum(copy);
}

MdDeadLetters *
md_dead_letters_create(Oid relid, MemoryContext context)
{
	MdDeadLetters *letters = MemoryContextAlloc(context, sizeof(MdDeadLetters));

	letters->relid = relid;
	letters->context = AllocSetContextCreate(context, "dead letters", ALLOCSET_DEFAULT_SIZES);
	letters->n = 0;
	letters->bytes = 0;
	return letters;
}

static void
set_column(MdDeadLetters *letters, Column column, Datum value, bool isnull)
{
	letters->values[column][letters->n] = value;
	letters->nulls[column][letters->n] = isnull;
}

void
md_dead_letters_add(MdDeadLetters *letters, const MdRecord *record, const MdDecodeError *error)
{
	MemoryContext old = MemoryContextSwitchTo(letters->context);
	MdRecord	copy = *record;

	/* of a copy: these headers are gone when the letters are written */
	md_kafka_fetch_headers(&copy);
	set_column(letters, COL_TOPIC, CStringGetTextDatum(record->topic), false);
	set_column(letters, COL_PARTITION, Int32GetDatum(record->partition), false);
	set_column(letters, COL_OFFSET, Int64GetDatum(record->offset), false);
	set_column(letters, COL_TIMESTAMP_MS, Int64GetDatum(record->timestamp_ms), record->timestamp_ms < 0);
	set_column(letters, COL_KEY, bytea_datum(record->key, record->key_len), record->key == NULL);
	set_column(letters, COL_PAYLOAD, bytea_datum(record->payload, record->payload_len),
			   record->payload == NULL);
	set_column(letters, COL_HEADERS, JsonbPGetDatum(md_decode_headers(&copy)), false);
	set_column(letters, COL_SQLSTATE, CStringGetTextDatum(unpack_sql_state(error->sqlstate)), false);
	set_column(letters, COL_MESSAGE, md_dead_letter_text(error->message), false);
	set_column(letters, COL_DETAIL, error->detail ? md_dead_letter_text(error->detail) : (Datum) 0,
			   error->detail == NULL);
	MemoryContextSwitchTo(old);

	letters->n++;
	letters->bytes += record->key_len + record->payload_len;
	if (letters->n == MAX_LETTERS || letters->bytes >= MAX_BYTES)
		md_dead_letters_write(letters);
}

/* All values of a column as one array. */
static Datum
column_array(MdDeadLetters *letters, Column column)
{
	int			lower_bound = 1;
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(columns[column].type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(letters->values[column], letters->nulls[column],
											  1, &letters->n, &lower_bound,
											  columns[column].type, len, byval, align));
}

void
md_dead_letters_write(MdDeadLetters *letters)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};
	MdSecurity	saved;

	if (letters->n == 0)
		return;
	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(letters->relid), false);
	for (int i = 0; i < N_COLUMNS; i++)
		md_sql_arg(&args, columns[i].array_type, column_array(letters, i), false);
	if (md_sql_run_cached(&plan,
						  "INSERT INTO medallion.dead_letter (relid, topic, kafka_partition, kafka_offset,"
						  "   kafka_timestamp, kafka_key, payload, headers, sqlstate, message, detail)"
						  " SELECT $1, u.topic, u.part, u.off, to_timestamp(u.ms / 1000.0::float8),"
						  "        u.key, u.payload, u.headers, u.sqlstate, u.message, u.detail"
						  "   FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
						  "     AS u (topic, part, off, ms, key, payload, headers, sqlstate, message, detail)",
						  &args, InvalidSnapshot) != letters->n)
		elog(ERROR, "could not write dead letters");
	SPI_finish();
	md_catalog_restore_user(&saved);
	letters->n = 0;
	letters->bytes = 0;
	MemoryContextReset(letters->context);
}
