/*
 * dead_letter.c
 *		Keeps records that could not be stored, with their error.
 *
 * A dead letter is written in the transaction of its batch, so that the
 * checkpoint never passes a record that is in neither place.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "dead_letter.h"
#include "decode.h"
#include "kafka_client.h"

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

void
md_dead_letter_write(Oid relid, MdRecord *record, int sqlstate, const char *message,
					 const char *detail)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[11] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, BYTEAOID, BYTEAOID,
	JSONBOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		args[11];
	char		nulls[12] = "           ";
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_kafka_fetch_headers(record);
	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(record->topic);
	args[2] = Int32GetDatum(record->partition);
	args[3] = Int64GetDatum(record->offset);
	args[4] = Int64GetDatum(record->timestamp_ms);
	args[5] = bytea_datum(record->key, record->key_len);
	args[6] = bytea_datum(record->payload, record->payload_len);
	args[7] = JsonbPGetDatum(md_decode_headers(record));
	args[8] = CStringGetTextDatum(unpack_sql_state(sqlstate));
	args[9] = md_dead_letter_text(message);
	args[10] = detail ? md_dead_letter_text(detail) : (Datum) 0;
	nulls[4] = record->timestamp_ms < 0 ? 'n' : ' ';
	nulls[5] = record->key == NULL ? 'n' : ' ';
	nulls[6] = record->payload == NULL ? 'n' : ' ';
	nulls[10] = detail == NULL ? 'n' : ' ';
	if (plan == NULL)
	{
		plan = SPI_prepare("INSERT INTO medallion.dead_letter (relid, topic, kafka_partition, kafka_offset,"
						   "   kafka_timestamp, kafka_key, payload, headers, sqlstate, message, detail)"
						   " VALUES ($1, $2, $3, $4, to_timestamp($5 / 1000.0::float8), $6, $7, $8, $9, $10, $11)",
						   11, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare the insertion of a dead letter: %s",
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}
	if (SPI_execute_plan(plan, args, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write a dead letter");
	SPI_finish();
	md_catalog_restore_user(&saved);
}
