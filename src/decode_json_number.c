/*
 * decode_json_number.c
 *		JSON numbers, and strings that hold numbers, to numeric types.
 *
 * No value is changed in silence: an integer type takes no fraction, and what
 * is out of range is an error.  Only numeric(p,s) rounds, as it does in SQL.
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "utils/numeric.h"

#include "decode_json.h"
#include "decode_scalar.h"

#define NUMBER_BUFFER_BYTES	64

/* Precision and scale in the type modifier of numeric; see numeric.c. */
#define NUMERIC_PRECISION(typmod)	((((typmod) - VARHDRSZ) >> 16) & 0xffff)
#define NUMERIC_SCALE(typmod)		(((((typmod) - VARHDRSZ) & 0x7ff) ^ 1024) - 1024)

/* smallint, integer, bigint, from numbers and from strings. */
bool
md_json_read_integer(MdJsonType *type, const MdJsonValue *value,
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
			return md_json_fail_range(type, value, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error);
		case MD_SCALAR_FRACTION:
			md_json_fail_syntax(type, value, error);
			error->detail = pstrdup("The number has a fraction; it is not rounded.");
			return false;
		default:
			return md_json_fail_syntax(type, value, error);
	}
}

/* real and double precision. */
bool
md_json_read_float(MdJsonType *type, const MdJsonValue *value,
				   Datum *datum, MdDecodeError *error)
{
	char		buffer[NUMBER_BUFFER_BYTES];
	char	   *text = buffer;
	bool		out_of_range;

	if ((value->kind != MD_JSON_NUMBER && value->kind != MD_JSON_STRING) ||
		!md_scalar_may_be_number(value->text))
		return md_json_fail_syntax(type, value, error);
	if (value->kind == MD_JSON_STRING)
		return md_json_read_by_input(type, value, datum, error);

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
		return md_json_fail_range(type, value, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error);
	return true;
}

/*
 * numeric.  A number of up to 18 digits that its column does not round is
 * made from an integer; all others are left to numeric_in, which also rounds
 * to the declared scale.
 */
bool
md_json_read_numeric(MdJsonType *type, const MdJsonValue *value,
					 Datum *datum, MdDecodeError *error)
{
	MdDecimal	decimal;
	int			scale;

	if ((value->kind != MD_JSON_NUMBER && value->kind != MD_JSON_STRING) ||
		!md_scalar_may_be_number(value->text))
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
