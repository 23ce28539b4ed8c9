/*
 * key_dbt.c
 *		dbt_surrogate_key(): equal to generate_surrogate_key() of dbt_utils on
 *		Postgres.
 *
 * dbt writes md5(coalesce(cast(a as text), '_dbt_utils_surrogate_key_null_')
 * || '-' || ...).  What a cast to text gives depends on settings, so the
 * settings are fixed here at what a new server has: DateStyle ISO,
 * IntervalStyle postgres, extra_float_digits 1, bytea_output hex, and TimeZone
 * UTC.  None is looked at, none is changed: the text is made by functions that
 * take the style as an argument.  Types whose text depends on anything else
 * are refused.  Text counts as UTF-8.
 */
#include "postgres.h"

#include "common/md5.h"
#include "common/shortest_dec.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "key_hash.h"

PG_FUNCTION_INFO_V1(md_dbt_surrogate_key);

#define DBT_NULL "_dbt_utils_surrogate_key_null_"
#define DBT_SEPARATOR '-'

#define MD5_TEXT_LEN 32

typedef struct DbtKey
{
	MdKeyBuffer buffer;
	bool		first;
} DbtKey;

static void
append_cstring(MdKeyBuffer *buffer, const char *text)
{
	md_key_append_bytes(buffer, text, strlen(text));
}

/* Text of a type whose output function looks at no setting. */
static void
append_output(MdKeyBuffer *buffer, PGFunction output, Datum value)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(output, value));
	Size		len = strlen(text);
	const char *utf8 = md_key_utf8(text, &len);

	md_key_append_bytes(buffer, utf8, len);
	pfree(text);
}

/* The shortest decimal that reads back as the same float. */
static void
append_float4(MdKeyBuffer *buffer, float4 value)
{
	char		text[FLOAT_SHORTEST_DECIMAL_LEN];

	float_to_shortest_decimal_buf(value, text);
	append_cstring(buffer, text);
}

static void
append_float8(MdKeyBuffer *buffer, float8 value)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];

	double_to_shortest_decimal_buf(value, text);
	append_cstring(buffer, text);
}

static void
append_bytea(MdKeyBuffer *buffer, const bytea *bytes)
{
	Size		len = VARSIZE_ANY_EXHDR(bytes);

	append_cstring(buffer, "\\x");
	(void) hex_encode(VARDATA_ANY(bytes), len, md_key_reserve(buffer, 2 * len));
}

static void
append_date(MdKeyBuffer *buffer, DateADT date)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm;

	if (DATE_NOT_FINITE(date))
		EncodeSpecialDate(date, text);
	else
	{
		j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, text);
	}
	append_cstring(buffer, text);
}

static void
append_timestamp(MdKeyBuffer *buffer, Timestamp timestamp, bool with_zone)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(timestamp))
		EncodeSpecialTimestamp(timestamp, text);
	else if (timestamp2tm(timestamp, NULL, &tm, &fsec, NULL, NULL) == 0)
	{
		tm.tm_isdst = 0;
		EncodeDateTime(&tm, fsec, with_zone, 0, NULL, USE_ISO_DATES, text);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	append_cstring(buffer, text);
}

static void
append_interval(MdKeyBuffer *buffer, const Interval *interval)
{
	char		text[MAXDATELEN + 1];
	struct pg_itm itm;

	if (INTERVAL_NOT_FINITE(interval))
	{
		append_cstring(buffer, INTERVAL_IS_NOBEGIN(interval) ? EARLY : LATE);
		return;
	}
	interval2itm(*interval, &itm);
	EncodeInterval(&itm, INTSTYLE_POSTGRES, text);
	append_cstring(buffer, text);
}

/* Strings, and enums by their label. */
static void
append_string(MdKeyBuffer *buffer, const MdKeyType *type, Datum value)
{
	Size		len;
	const char *text = md_key_string(type, value, &len);

	md_key_append_bytes(buffer, text, len);
}

/* inet's cast to text always shows the network part; its output does not. */
static void
append_inet(MdKeyBuffer *buffer, Datum value)
{
	text	   *shown = DatumGetTextPP(DirectFunctionCall1(network_show, value));

	md_key_append_bytes(buffer, VARDATA_ANY(shown), VARSIZE_ANY_EXHDR(shown));
	pfree(shown);
}

/* cast(value as text) */
static void
append_text(MdKeyBuffer *buffer, const MdKeyType *type, Datum value)
{
	switch (type->kind)
	{
		case MD_KEY_BOOL:
			append_cstring(buffer, DatumGetBool(value) ? "true" : "false");
			break;
		case MD_KEY_INT2:
			append_output(buffer, int2out, value);
			break;
		case MD_KEY_INT4:
			append_output(buffer, int4out, value);
			break;
		case MD_KEY_INT8:
			append_output(buffer, int8out, value);
			break;
		case MD_KEY_FLOAT4:
			append_float4(buffer, DatumGetFloat4(value));
			break;
		case MD_KEY_FLOAT8:
			append_float8(buffer, DatumGetFloat8(value));
			break;
		case MD_KEY_NUMERIC:
			append_output(buffer, numeric_out, value);
			break;
		case MD_KEY_BPCHAR:
		case MD_KEY_CSTRING:
		case MD_KEY_ENUM:
		case MD_KEY_NAME:
		case MD_KEY_TEXT:
			append_string(buffer, type, value);
			break;
		case MD_KEY_BYTEA:
			append_bytea(buffer, DatumGetByteaPP(value));
			break;
		case MD_KEY_UUID:
			append_output(buffer, uuid_out, value);
			break;
		case MD_KEY_DATE:
			append_date(buffer, DatumGetDateADT(value));
			break;
		case MD_KEY_TIMESTAMP:
			append_timestamp(buffer, DatumGetTimestamp(value), false);
			break;
		case MD_KEY_TIMESTAMPTZ:
			append_timestamp(buffer, DatumGetTimestampTz(value), true);
			break;
		case MD_KEY_TIME:
			append_output(buffer, time_out, value);
			break;
		case MD_KEY_TIMETZ:
			append_output(buffer, timetz_out, value);
			break;
		case MD_KEY_INTERVAL:
			append_interval(buffer, DatumGetIntervalP(value));
			break;
		case MD_KEY_INET:
			append_inet(buffer, value);
			break;
		case MD_KEY_MACADDR:
			append_output(buffer, macaddr_out, value);
			break;
		case MD_KEY_MACADDR8:
			append_output(buffer, macaddr8_out, value);
			break;
		case MD_KEY_BIT:
			append_output(buffer, varbit_out, value);
			break;
		case MD_KEY_JSONB:
			append_output(buffer, jsonb_out, value);
			break;
		default:
			elog(ERROR, "no text for type %u", type->type_oid);
	}
}

/* One field of the key. */
static void
append_field(const MdKeyCall *call, MdKeyType *type, Datum value, bool isnull, void *state)
{
	DbtKey	   *key = state;

	if (!key->first)
		md_key_append_byte(&key->buffer, DBT_SEPARATOR);
	key->first = false;
	if (isnull)
		append_cstring(&key->buffer, DBT_NULL);
	else
		append_text(&key->buffer, type, value);
}

/*
 * Scalars only: the text of a container is that of its elements, made by
 * functions that look at settings.
 */
static void
accept_castable(const MdKeyCall *call, const MdKeyType *type)
{
	switch (type->kind)
	{
		case MD_KEY_UNSUPPORTED:
			md_key_refuse(call, type,
						  "Its text may depend on settings or on the state of the server.",
						  "Write x::text where the settings are those that dbt ran with.");
			break;
		case MD_KEY_ARRAY:
		case MD_KEY_MULTIRANGE:
		case MD_KEY_RANGE:
		case MD_KEY_ROW:
			/* but the array after VARIADIC holds the fields themselves */
			if (!call->variadic || type != &call->args[0])
				md_key_refuse(call, type,
							  "Its text is made from the texts of its elements, which depend on settings.",
							  "Write x::text where the settings are those that dbt ran with.");
			break;
		default:
			break;
	}
}

/* SQL: dbt's surrogate key of the values, 32 hexadecimal digits. Never NULL. */
Datum
md_dbt_surrogate_key(PG_FUNCTION_ARGS)
{
	DbtKey		key;
	char		digits[MD5_TEXT_LEN + 1];
	const char *message = NULL;

	md_key_buffer_init(&key.buffer);
	key.first = true;
	md_key_visit_arguments(fcinfo, accept_castable, append_field, &key);

	if (!pg_md5_hash(key.buffer.data, key.buffer.len, digits, &message))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute MD5 hash: %s", message)));
	md_key_buffer_free(&key.buffer);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(digits, MD5_TEXT_LEN));
}
