/*
 * decode_json_type.c
 *		One JSON value to a value of a Postgres type.
 *
 * Each type has a reader.  The types that records are made of have readers of
 * their own, which report bad data without throwing; what those do not know
 * (a string such as "NaN" for a number, "yesterday" for a time) and all other
 * types go to the type's input function, with the text of a string or the
 * JSON of any other value.  Input functions may throw.
 *
 * A record means the same in every session: settings that input functions
 * depend on are fixed while they run (TimeZone UTC, DateStyle MDY, IntervalStyle
 * postgres).  The mapping is described for users in doc/formats.md.
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/int.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "decode_json.h"
#include "decode_scalar.h"

#define NUMBER_BUFFER_BYTES	64

/* A smaller number in a date is days since 1970, a larger one a time. */
#define DATE_DAYS_END	10000000

/* Precision and scale in the type modifier of numeric; see numeric.c. */
#define NUMERIC_PRECISION(typmod)	((((typmod) - VARHDRSZ) >> 16) & 0xffff)
#define NUMERIC_SCALE(typmod)		(((((typmod) - VARHDRSZ) & 0x7ff) ^ 1024) - 1024)

/* "invalid input syntax for type integer: "abc"", as input functions say it. */
bool
md_json_fail_syntax(MdJsonType *type, const MdJsonValue *value, MdDecodeError *error)
{
	return md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
						  "invalid input syntax for type %s: \"%s\"",
						  format_type_be(type->oid), md_decode_clip(value->text));
}

/* A value that the type has no room for. */
static bool
fail_range(MdJsonType *type, const MdJsonValue *value, int sqlstate,
		   MdDecodeError *error)
{
	return md_decode_fail(error, sqlstate,
						  "value \"%s\" is out of range for type %s",
						  md_decode_clip(value->text), format_type_be(type->oid));
}

/*
 * Read by the type's input function, under fixed settings.  Throws what the
 * function throws.
 */
bool
md_json_read_by_input(MdJsonType *type, const MdJsonValue *value,
					  Datum *datum, MdDecodeError *error)
{
	char	   *text = pnstrdup(value->text.data, value->text.len);
	pg_tz	   *saved_timezone = session_timezone;
	int			saved_date_order = DateOrder;
	int			saved_interval_style = IntervalStyle;

	session_timezone = pg_tzset("UTC");
	DateOrder = DATEORDER_MDY;
	IntervalStyle = INTSTYLE_POSTGRES;
	PG_TRY();
	{
		*datum = InputFunctionCall(&type->input, text, type->input_param,
								   type->typmod);
	}
	PG_FINALLY();
	{
		session_timezone = saved_timezone;
		DateOrder = saved_date_order;
		IntervalStyle = saved_interval_style;
	}
	PG_END_TRY();
	pfree(text);
	return true;
}

/* The input function for strings only. */
static bool
read_string_by_input(MdJsonType *type, const MdJsonValue *value,
					 Datum *datum, MdDecodeError *error)
{
	if (value->kind != MD_JSON_STRING)
	{
		md_json_fail_syntax(type, value, error);
		error->detail = pstrdup("A JSON string is expected.");
		return false;
	}
	return md_json_read_by_input(type, value, datum, error);
}

/* smallint, integer, bigint, from numbers and from strings. */
static bool
read_integer(MdJsonType *type, const MdJsonValue *value,
			 Datum *datum, MdDecodeError *error)
{
	int64		number = 0;
	MdScalarResult result = md_scalar_int64(md_scalar_trim(value->text), &number);

	if (result == MD_SCALAR_OK)
	{
		switch (type->oid)
		{
			case INT2OID:
				*datum = Int16GetDatum((int16) number);
				if (number < PG_INT16_MIN || number > PG_INT16_MAX)
					result = MD_SCALAR_RANGE;
				break;
			case INT4OID:
				*datum = Int32GetDatum((int32) number);
				if (number < PG_INT32_MIN || number > PG_INT32_MAX)
					result = MD_SCALAR_RANGE;
				break;
			default:
				*datum = Int64GetDatum(number);
				break;
		}
	}

	switch (result)
	{
		case MD_SCALAR_OK:
			return true;
		case MD_SCALAR_RANGE:
			return fail_range(type, value, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error);
		case MD_SCALAR_FRACTION:
			md_json_fail_syntax(type, value, error);
			error->detail = pstrdup("The number has a fraction; it is not rounded.");
			return false;
		default:
			return md_json_fail_syntax(type, value, error);
	}
}

/* real and double precision. */
static bool
read_float(MdJsonType *type, const MdJsonValue *value,
		   Datum *datum, MdDecodeError *error)
{
	char		buffer[NUMBER_BUFFER_BYTES];
	char	   *text = buffer;
	bool		out_of_range;

	if (value->kind == MD_JSON_STRING)
		return md_json_read_by_input(type, value, datum, error);
	if (value->kind != MD_JSON_NUMBER)
		return md_json_fail_syntax(type, value, error);

	if (value->text.len >= NUMBER_BUFFER_BYTES)
		text = palloc(value->text.len + 1);
	memcpy(text, value->text.data, value->text.len);
	text[value->text.len] = '\0';

	/* as float4in and float8in: an underflow to zero is an error, too */
	errno = 0;
	if (type->oid == FLOAT4OID)
	{
		float		number = strtof(text, NULL);

		*datum = Float4GetDatum(number);
		out_of_range = errno == ERANGE && (number == 0 || isinf(number));
	}
	else
	{
		double		number = strtod(text, NULL);

		*datum = Float8GetDatum(number);
		out_of_range = errno == ERANGE && (number == 0 || isinf(number));
	}
	if (out_of_range)
		return fail_range(type, value, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error);
	return true;
}

/*
 * numeric.  A number of up to 18 digits that its column does not round is
 * made from an integer; all others are left to numeric_in, which also rounds
 * to the declared scale.
 */
static bool
read_numeric(MdJsonType *type, const MdJsonValue *value,
			 Datum *datum, MdDecodeError *error)
{
	MdDecimal	decimal;
	int			scale;

	if (value->kind != MD_JSON_NUMBER && value->kind != MD_JSON_STRING)
		return md_json_fail_syntax(type, value, error);
	if (md_scalar_decimal(value->text, &decimal) != MD_SCALAR_OK || decimal.cut)
		return md_json_read_by_input(type, value, datum, error);

	scale = decimal.scale;
	if (type->typmod >= VARHDRSZ)
		scale = NUMERIC_SCALE(type->typmod);
	else if (scale < 0)
		scale = 0;
	if (scale < decimal.scale || scale - decimal.scale >= MD_POWERS_OF_TEN ||
		pg_mul_s64_overflow(decimal.mantissa, md_powers_of_ten[scale - decimal.scale],
							&decimal.mantissa))
		return md_json_read_by_input(type, value, datum, error);

	if (type->typmod >= VARHDRSZ)
	{
		int			precision = NUMERIC_PRECISION(type->typmod);

		if (precision < MD_POWERS_OF_TEN &&
			(decimal.mantissa >= md_powers_of_ten[precision] ||
			 decimal.mantissa <= -md_powers_of_ten[precision]))
		{
			md_decode_fail(error, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
						   "value \"%s\" is out of range for type numeric(%d,%d)",
						   md_decode_clip(value->text), precision, scale);
			error->detail = psprintf("The absolute value must be less than 10^%d.",
									 precision - scale);
			return false;
		}
	}
	if (scale < 0)
		return md_json_read_by_input(type, value, datum, error);
	*datum = NumericGetDatum(int64_div_fast_to_numeric(decimal.mantissa, scale));
	return true;
}

/* boolean, from true and false, and from the words that boolin knows. */
static bool
read_boolean(MdJsonType *type, const MdJsonValue *value,
			 Datum *datum, MdDecodeError *error)
{
	MdSlice		text = md_scalar_trim(value->text);
	bool		result;

	if (value->kind == MD_JSON_OBJECT || value->kind == MD_JSON_ARRAY ||
		!parse_bool_with_len(text.data, text.len, &result))
		return md_json_fail_syntax(type, value, error);
	*datum = BoolGetDatum(result);
	return true;
}

/* text, and varchar where nothing is too long. */
static bool
read_text(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	if (type->typmod >= VARHDRSZ &&
		value->text.len > type->typmod - VARHDRSZ &&
		pg_mbstrlen_with_len(value->text.data, value->text.len) > type->typmod - VARHDRSZ)
		return md_json_read_by_input(type, value, datum, error);
	*datum = PointerGetDatum(cstring_to_text_with_len(value->text.data, value->text.len));
	return true;
}

/* uuid */
static bool
read_uuid(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	if (md_scalar_uuid(value->text, uuid) != MD_SCALAR_OK)
	{
		pfree(uuid);
		return read_string_by_input(type, value, datum, error);
	}
	*datum = UUIDPGetDatum(uuid);
	return true;
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
static bool
read_timestamp(MdJsonType *type, const MdJsonValue *value,
			   Datum *datum, MdDecodeError *error)
{
	Timestamp	timestamp;

	if (value->kind == MD_JSON_STRING)
	{
		MdIsoTime	iso;

		if (md_scalar_iso_time(value->text, &iso) != MD_SCALAR_OK)
			return md_json_read_by_input(type, value, datum, error);
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
			return fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
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
		return fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	*datum = DateADTGetDatum((DateADT) days);
	return true;
}

/*
 * date: ISO 8601, a number of days since 1970 (below 10^7), or a time since
 * 1970 as for timestamps, whose day in UTC counts.
 */
static bool
read_date(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	MdIsoTime	iso;
	MdDecimal	decimal;
	Timestamp	timestamp;

	if (value->kind == MD_JSON_STRING)
	{
		if (md_scalar_iso_time(value->text, &iso) != MD_SCALAR_OK)
			return md_json_read_by_input(type, value, datum, error);
		*datum = DateADTGetDatum(iso.date);
		return true;
	}
	if (value->kind != MD_JSON_NUMBER)
		return md_json_fail_syntax(type, value, error);

	if (md_scalar_decimal(value->text, &decimal) != MD_SCALAR_OK)
		return fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	if (md_scalar_is_below(&decimal, DATE_DAYS_END))
		return read_day_number(type, value, datum, error);
	if (md_scalar_epoch(&decimal, &timestamp) != MD_SCALAR_OK)
		return fail_range(type, value, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, error);
	*datum = DateADTGetDatum(timestamp_day(timestamp));
	return true;
}

/* bytea: base64 as JSON producers write bytes, or Postgres's \x form. */
static bool
read_bytea(MdJsonType *type, const MdJsonValue *value,
		   Datum *datum, MdDecodeError *error)
{
	bytea	   *bytes;
	int			len;

	if (value->kind != MD_JSON_STRING)
		return md_json_fail_syntax(type, value, error);
	if (value->text.len >= 2 && value->text.data[0] == '\\' && value->text.data[1] == 'x')
		return md_json_read_by_input(type, value, datum, error);

	len = pg_b64_dec_len(value->text.len);
	bytes = palloc(VARHDRSZ + len);
	len = pg_b64_decode(value->text.data, value->text.len,
						(void *) VARDATA(bytes), len);
	if (len < 0)
	{
		md_json_fail_syntax(type, value, error);
		error->detail = pstrdup("Bytes are expected in base64, or in hexadecimal after \"\\x\".");
		return false;
	}
	SET_VARSIZE(bytes, VARHDRSZ + len);
	*datum = PointerGetDatum(bytes);
	return true;
}

/* json: any value, as it was written. */
static bool
read_json(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	*datum = PointerGetDatum(cstring_to_text_with_len(value->json.data, value->json.len));
	return true;
}

/* jsonb: any value. */
static bool
read_jsonb(MdJsonType *type, const MdJsonValue *value,
		   Datum *datum, MdDecodeError *error)
{
	return md_json_to_jsonb(value->json, datum, error);
}

/* The reader of a type that is neither array, composite nor domain. */
static MdJsonReader
scalar_reader(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return read_integer;
		case FLOAT4OID:
		case FLOAT8OID:
			return read_float;
		case NUMERICOID:
			return read_numeric;
		case BOOLOID:
			return read_boolean;
		case TEXTOID:
		case VARCHAROID:
			return read_text;
		case UUIDOID:
			return read_uuid;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return read_timestamp;
		case DATEOID:
			return read_date;
		case TIMEOID:
		case TIMETZOID:
			/* time_in reads 101500 as a quarter past ten */
			return read_string_by_input;
		case BYTEAOID:
			return read_bytea;
		case JSONOID:
			return read_json;
		case JSONBOID:
			return read_jsonb;
		default:
			return md_json_read_by_input;
	}
}

/* Prepare to read a type; ERROR when it has no input function. */
MdJsonType *
md_json_type_create(Oid oid, int32 typmod)
{
	MdJsonType *type = palloc0(sizeof(MdJsonType));
	Oid			input;
	Oid			element = get_element_type(oid);

	type->oid = oid;
	type->typmod = typmod;
	type->context = CurrentMemoryContext;
	getTypeInputInfo(oid, &input, &type->input_param);
	fmgr_info_cxt(input, &type->input, CurrentMemoryContext);

	if (OidIsValid(element))
		md_json_array_init(type, element);
	else if (get_typtype(oid) == TYPTYPE_COMPOSITE)
		md_json_composite_init(type);
	else if (get_typtype(oid) == TYPTYPE_DOMAIN)
		md_json_domain_init(type);
	else
		type->read = scalar_reader(oid);
	type->keeps_json = type->read == read_json || type->read == read_jsonb ||
		(type->base != NULL && type->base->keeps_json);
	return type;
}

/* What kind of value begins here. */
static inline MdJsonKind
json_kind(char first)
{
	switch (first)
	{
		case '"':
			return MD_JSON_STRING;
		case '{':
			return MD_JSON_OBJECT;
		case '[':
			return MD_JSON_ARRAY;
		case 't':
		case 'f':
			return MD_JSON_BOOLEAN;
		default:
			return MD_JSON_NUMBER;
	}
}

/*
 * Read a slice that has been parsed as one JSON value, without white space
 * around it.  JSON null is NULL.
 */
bool
md_json_type_read(MdJsonType *type, MdSlice json, Datum *datum, bool *isnull,
				  MdDecodeError *error)
{
	MdJsonValue value = {.text = json, .json = json};

	if (json.data[0] == 'n')
	{
		*datum = (Datum) 0;
		*isnull = true;
		return type->base == NULL || md_json_domain_check(type, (Datum) 0, true);
	}

	value.kind = json_kind(json.data[0]);
	if (value.kind == MD_JSON_STRING && !type->keeps_json)
	{
		value.text.data++;
		value.text.len -= 2;
		if (memchr(value.text.data, '\\', value.text.len) != NULL &&
			!md_json_unescape(json, &value.text, error))
			return false;
	}
	*isnull = false;
	return type->read(type, &value, datum, error);
}
