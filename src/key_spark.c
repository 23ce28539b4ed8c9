/*
 * key_spark.c
 *		xxhash64(): equal to Spark's function of that name.
 *
 * Spark folds the values into one hash: each is hashed with the result so far
 * as the seed, which starts at 42, and a NULL leaves it as it is.  So
 * ('a', NULL) and (NULL, 'a') are one key there, and here too: this function
 * is for keys that exist already, hash_key() for new ones.
 *
 * A value is hashed as the bytes that Spark keeps it in: types of up to 32
 * bits as four bytes, of 64 bits as eight, both little-endian; strings as
 * UTF-8; a decimal by its declared precision, up to 18 digits as eight bytes,
 * above as the shortest big-endian integer.  The precision is part of the
 * argument's type, which is why a numeric without one is refused.
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "key_hash.h"

PG_FUNCTION_INFO_V1(md_xxhash64);

#define SPARK_SEED 42
#define SPARK_MAX_PRECISION 38
#define SPARK_MAX_LONG_DIGITS 18

/* 38 digits need 127 bits and a sign. */
#define SPARK_DECIMAL_BYTES 16

static uint64
fold_int32(int32 value, uint64 seed)
{
#ifdef WORDS_BIGENDIAN
	value = pg_bswap32(value);
#endif
	return md_key_xxh64(&value, sizeof(value), seed);
}

static uint64
fold_int64(int64 value, uint64 seed)
{
#ifdef WORDS_BIGENDIAN
	value = pg_bswap64(value);
#endif
	return md_key_xxh64(&value, sizeof(value), seed);
}

/* A float4: one zero, one NaN. */
static uint64
fold_float4(float4 value, uint64 seed)
{
	int32		bits;

	if (isnan(value))
		bits = 0x7fc00000;
	else if (value == 0)
		bits = 0;
	else
		memcpy(&bits, &value, sizeof(bits));
	return fold_int32(bits, seed);
}

/* A float8: one zero, one NaN. */
static uint64
fold_float8(float8 value, uint64 seed)
{
	int64		bits;

	if (isnan(value))
		bits = INT64CONST(0x7ff8000000000000);
	else if (value == 0)
		bits = 0;
	else
		memcpy(&bits, &value, sizeof(bits));
	return fold_int64(bits, seed);
}

/* Precision and scale of a numeric(p, s). */
static int
typmod_precision(int32 typmod)
{
	return ((typmod - VARHDRSZ) >> 16) & 0xffff;
}

static int
typmod_scale(int32 typmod)
{
	/* eleven bits with a sign */
	return (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
}

/* Multiply a big-endian two's complement integer that is >= 0, and add. */
static void
multiply_add(uint8 *bytes, unsigned int factor, unsigned int summand)
{
	for (int i = SPARK_DECIMAL_BYTES - 1; i >= 0; i--)
	{
		summand += bytes[i] * factor;
		bytes[i] = summand & 0xff;
		summand >>= 8;
	}
}

static void
negate(uint8 *bytes)
{
	for (int i = 0; i < SPARK_DECIMAL_BYTES; i++)
		bytes[i] = ~bytes[i];
	multiply_add(bytes, 1, 1);
}

/*
 * The numeric times 10^scale as a big-endian integer.  The type modifier has
 * rounded the value to that scale, so that nothing is lost.
 */
static void
unscaled_integer(Numeric value, int scale, uint8 *bytes)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
														   NumericGetDatum(value)));
	const char *digit = text + (*text == '-');
	int			fraction = -1;

	memset(bytes, 0, SPARK_DECIMAL_BYTES);
	for (; *digit && fraction < scale; digit++)
	{
		if (*digit == '.')
			fraction = 0;
		else
		{
			multiply_add(bytes, 10, *digit - '0');
			if (fraction >= 0)
				fraction++;
		}
	}
	for (int i = Max(fraction, 0); i < scale; i++)
		multiply_add(bytes, 10, 0);
	if (*text == '-')
		negate(bytes);
	pfree(text);
}

/* Hash the shortest bytes that keep value and sign. */
static uint64
fold_shortest(const uint8 *bytes, uint64 seed)
{
	int			skip = 0;

	while (skip < SPARK_DECIMAL_BYTES - 1 &&
		   ((bytes[skip] == 0x00 && bytes[skip + 1] < 0x80) ||
			(bytes[skip] == 0xff && bytes[skip + 1] >= 0x80)))
		skip++;
	return md_key_xxh64(bytes + skip, SPARK_DECIMAL_BYTES - skip, seed);
}

/* A decimal of the precision and scale that the type declares. */
static uint64
fold_numeric(Numeric value, int32 typmod, uint64 seed)
{
	uint8		bytes[SPARK_DECIMAL_BYTES];
	uint64		low;

	if (numeric_is_nan(value) || numeric_is_inf(value))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("numeric value is out of Spark's range"),
				 errdetail("A decimal of Spark's cannot be NaN or infinite.")));

	unscaled_integer(value, typmod_scale(typmod), bytes);
	if (typmod_precision(typmod) > SPARK_MAX_LONG_DIGITS)
		return fold_shortest(bytes, seed);

	memcpy(&low, bytes + SPARK_DECIMAL_BYTES - sizeof(low), sizeof(low));
	return fold_int64((int64) pg_ntoh64(low), seed);
}

/* Days since 1970. */
static uint64
fold_date(DateADT date, uint64 seed)
{
	if (DATE_NOT_FINITE(date))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("date is out of Spark's range"),
				 errdetail("A date of Spark's cannot be infinite.")));
	return fold_int32(date + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE), seed);
}

/* Microseconds since 1970, with or without time zone. */
static uint64
fold_timestamp(Timestamp timestamp, uint64 seed)
{
	int64		unix_us;

	if (TIMESTAMP_NOT_FINITE(timestamp) ||
		pg_add_s64_overflow(timestamp,
							(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY,
							&unix_us))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp is out of Spark's range"),
				 errdetail("A timestamp of Spark's is finite and ends in the year 294247.")));
	return fold_int64(unix_us, seed);
}

static uint64
fold_interval(const Interval *interval, uint64 seed)
{
	seed = fold_int64(interval->time, seed);
	seed = fold_int32(interval->day, seed);
	return fold_int32(interval->month, seed);
}

/* Strings; unlike everywhere else char(n) has its blanks, as Spark's has. */
static uint64
fold_string(const MdKeyType *type, Datum value, uint64 seed)
{
	MdKeyType	plain = *type;
	const char *text;
	Size		len;

	if (plain.kind == MD_KEY_BPCHAR)
		plain.kind = MD_KEY_TEXT;
	text = md_key_string(&plain, value, &len);
	return md_key_xxh64(text, len, seed);
}

static uint64
fold_bytea(const bytea *bytes, uint64 seed)
{
	return md_key_xxh64(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), seed);
}

/* Fold one value into the hash. */
static void
fold_value(const MdKeyCall *call, MdKeyType *type, Datum value, bool isnull, void *state)
{
	uint64	   *hash = state;

	if (isnull)
		return;

	switch (type->kind)
	{
		case MD_KEY_BOOL:
			*hash = fold_int32(DatumGetBool(value) ? 1 : 0, *hash);
			break;
		case MD_KEY_INT2:
			*hash = fold_int32(DatumGetInt16(value), *hash);
			break;
		case MD_KEY_INT4:
			*hash = fold_int32(DatumGetInt32(value), *hash);
			break;
		case MD_KEY_INT8:
			*hash = fold_int64(DatumGetInt64(value), *hash);
			break;
		case MD_KEY_FLOAT4:
			*hash = fold_float4(DatumGetFloat4(value), *hash);
			break;
		case MD_KEY_FLOAT8:
			*hash = fold_float8(DatumGetFloat8(value), *hash);
			break;
		case MD_KEY_NUMERIC:
			*hash = fold_numeric(DatumGetNumeric(value), type->typmod, *hash);
			break;
		case MD_KEY_BPCHAR:
		case MD_KEY_CSTRING:
		case MD_KEY_ENUM:
		case MD_KEY_NAME:
		case MD_KEY_TEXT:
			*hash = fold_string(type, value, *hash);
			break;
		case MD_KEY_BYTEA:
			*hash = fold_bytea(DatumGetByteaPP(value), *hash);
			break;
		case MD_KEY_DATE:
			*hash = fold_date(DatumGetDateADT(value), *hash);
			break;
		case MD_KEY_TIMESTAMP:
		case MD_KEY_TIMESTAMPTZ:
			*hash = fold_timestamp(DatumGetTimestamp(value), *hash);
			break;
		case MD_KEY_INTERVAL:
			*hash = fold_interval(DatumGetIntervalP(value), *hash);
			break;
		case MD_KEY_ARRAY:
			md_key_visit_array(call, type, value, fold_value, hash);
			break;
		case MD_KEY_ROW:
			md_key_visit_row(call, type, value, fold_value, hash);
			break;
		default:
			elog(ERROR, "no hash for type %u", type->type_oid);
	}
}

/* A numeric must say its precision, and Spark must have such a decimal. */
static void
accept_numeric(const MdKeyCall *call, const MdKeyType *type)
{
	int			precision = typmod_precision(type->typmod);
	int			scale = typmod_scale(type->typmod);

	if (type->typmod < (int32) VARHDRSZ)
		md_key_refuse(call, type,
					  "Spark hashes a decimal by its declared precision, and the argument has none.",
					  "Write x::numeric(precision, scale) with those of Spark's column; 12.34 is a decimal(4,2) there.");
	if (precision > SPARK_MAX_PRECISION || scale < 0 || scale > precision)
		md_key_refuse(call, type,
					  psprintf("Spark has no decimal(%d,%d).", precision, scale),
					  psprintf("Write x::numeric(precision, scale) with a precision up to %d and a scale from 0 to that.",
							   SPARK_MAX_PRECISION));
}

/* Types that Spark has, as they come to Postgres. */
static void
accept_hashable(const MdKeyCall *call, const MdKeyType *type)
{
	switch (type->kind)
	{
		case MD_KEY_ARRAY:
		case MD_KEY_BOOL:
		case MD_KEY_BPCHAR:
		case MD_KEY_BYTEA:
		case MD_KEY_CSTRING:
		case MD_KEY_DATE:
		case MD_KEY_ENUM:
		case MD_KEY_FLOAT4:
		case MD_KEY_FLOAT8:
		case MD_KEY_INT2:
		case MD_KEY_INT4:
		case MD_KEY_INT8:
		case MD_KEY_INTERVAL:
		case MD_KEY_NAME:
		case MD_KEY_ROW:
		case MD_KEY_TEXT:
		case MD_KEY_TIMESTAMP:
		case MD_KEY_TIMESTAMPTZ:
			break;
		case MD_KEY_NUMERIC:
			accept_numeric(call, type);
			break;
		case MD_KEY_UNSUPPORTED:
			md_key_refuse_unsupported(call, type);
			break;
		default:
			md_key_refuse(call, type,
						  "Spark has no such type, so no hash of its own to be equal to.",
						  "Cast it to the type that it has in Spark, as in x::text.");
	}
}

/*
 * SQL: Spark's xxhash64 of the values.  Never NULL: without values, or with
 * NULLs only, it is 42.
 */
Datum
md_xxhash64(PG_FUNCTION_ARGS)
{
	uint64		hash = SPARK_SEED;

	md_key_visit_arguments(fcinfo, accept_hashable, fold_value, &hash);
	PG_RETURN_INT64((int64) hash);
}
