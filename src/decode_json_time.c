/*
 * decode_json_time.c
 *		JSON strings and numbers to timestamp, timestamptz and date.
 *
 * Strings are ISO 8601, or what the input function takes.  Numbers are times
 * since 1970 in the unit that their size tells, see md_scalar_epoch().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "decode_json.h"
#include "decode_scalar.h"

/* A smaller number in a date is days since 1970, a larger one a time. */
#define DATE_DAYS_END	10000000

/* A string that no reader knows, as a time: the input function's, if not empty. */
static bool
read_time_by_input(MdJsonType *type, const MdJsonValue *value,
				   Datum *datum, MdDecodeError *error)
{
	if (md_scalar_trim(value->text).len == 0)
	{
		md_json_fail_syntax(type, value, error);
		error->sqlstate = ERRCODE_INVALID_DATETIME_FORMAT;
		return false;
	}
	return md_json_read_by_input(type, value, datum, error);
}

/* Round to the precision of timestamp(p), if one is declared. */
static Datum
scale_timestamp(MdJsonType *type, Timestamp timestamp)
{
	if (type->typmod >= 0 && type->typmod < MAX_TIMESTAMP_PRECISION)
		return DirectFunctionCall2(timestamp_scale, TimestampGetDatum(timestamp),
								   Int32GetDatum(type->typmod));
	return TimestampGetDatum(timestamp);
}

/*
 * timestamp and timestamptz: ISO 8601, or a number since 1970.  Without an
 * offset a timestamptz is in UTC; the offset of a timestamp is ignored, as
 * Postgres does.
 */
bool
md_json_read_timestamp(MdJsonType *type, const MdJsonValue *value,
					   Datum *datum, MdDecodeError *error)
{
	Timestamp	timestamp;

	if (value->kind == MD_JSON_STRING)
	{
		MdIsoTime	iso;

		if (md_scalar_iso_time(value->text, &iso) != MD_SCALAR_OK)
			return read_time_by_input(type, value, datum, error);
		timestamp = (Timestamp) iso.date * USECS_PER_DAY + iso.time_us;
		if (type->oid == TIMESTAMPTZOID && iso.has_offset)
			timestamp -= iso.offset_s * USECS_PER_SEC;
	}
	else
	{
		MdDecimal	decimal;

		if (value->kind != MD_JSON_NUMBER)
			return md_json_fail_syntax(type, value, error);
		if (md_scalar_decimal(value->text, &decimal) != MD_SCALAR_OK ||
			md_scalar_epoch(&decimal, &timestamp) != MD_SCALAR_OK)
			return md_json_fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	}
	*datum = scale_timestamp(type, timestamp);
	return true;
}

/* Day of a point in time, rounded towards the past. */
static DateADT
timestamp_day(Timestamp timestamp)
{
	int64		day = timestamp / USECS_PER_DAY;

	if (timestamp % USECS_PER_DAY < 0)
		day--;
	return (DateADT) day;
}

/* A number of days since 1970, without a fraction. */
static bool
read_day_number(MdJsonType *type, const MdJsonValue *value,
				Datum *datum, MdDecodeError *error)
{
	int64		days;

	if (md_scalar_int64(value->text, &days) != MD_SCALAR_OK)
	{
		md_json_fail_syntax(type, value, error);
		error->detail = pstrdup("A number of this size is days since 1970, which have no fraction.");
		return false;
	}
	days -= POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE;
	if (!IS_VALID_DATE(days))
		return md_json_fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	*datum = DateADTGetDatum((DateADT) days);
	return true;
}

/*
 * date: ISO 8601, a number of days since 1970 (below 10^7), or a time since
 * 1970 as for timestamps, whose day in UTC counts.
 */
bool
md_json_read_date(MdJsonType *type, const MdJsonValue *value,
				  Datum *datum, MdDecodeError *error)
{
	MdIsoTime	iso;
	MdDecimal	decimal;
	Timestamp	timestamp;

	if (value->kind == MD_JSON_STRING)
	{
		if (md_scalar_iso_time(value->text, &iso) != MD_SCALAR_OK)
			return read_time_by_input(type, value, datum, error);
		*datum = DateADTGetDatum(iso.date);
		return true;
	}
	if (value->kind != MD_JSON_NUMBER)
		return md_json_fail_syntax(type, value, error);

	if (md_scalar_decimal(value->text, &decimal) != MD_SCALAR_OK)
		return md_json_fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	if (md_scalar_is_below(&decimal, DATE_DAYS_END))
		return read_day_number(type, value, datum, error);
	if (md_scalar_epoch(&decimal, &timestamp) != MD_SCALAR_OK)
		return md_json_fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	*datum = DateADTGetDatum(timestamp_day(timestamp));
	return true;
}
