/*
 * key_number.c
 *		Canonical bytes of numbers, one form per number whatever its type.
 *
 * Whole numbers within 64 bits are 'i' and eight bytes.  All others that are
 * decimals are 'd' and the text "[-]digits e exponent", digits without zeros
 * at either end.  What is not a decimal is 'f' and the bits of a double:
 * infinities, NaN, and floats that 15 significant digits do not name.
 *
 * The rule for floats is that of equality in Postgres, as far as that is
 * transitive: 0.1::float8 = 0.1::numeric, and both give "1e-1".  A cast of a
 * float to numeric keeps 15 digits; where casting back gives the float again,
 * the float is that number.  Where it does not, as for 0.1::float4 or the
 * sum 0.1 + 0.2, no short numeric is equal to it either, and its bits speak.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "key_hash.h"

/* A decimal taken apart: sign, digits * 10^exponent. */
typedef struct Decimal
{
	bool		negative;
	char	   *digits;			/* no zero at either end; empty for zero */
	int			n_digits;
	int			exponent;
} Decimal;

/*
 * A whole number within 64 bits.
 */
void
md_key_append_integer(MdKeyBuffer *buffer, int64 value)
{
	char	   *place = md_key_reserve(buffer, 1 + sizeof(value));

	value = pg_hton64(value);
	*place = 'i';
	memcpy(place + 1, &value, sizeof(value));
}

/* A number that is none of the decimals. */
static void
append_float_bits(MdKeyBuffer *buffer, double value)
{
	uint64		bits;

	if (isnan(value))
		bits = UINT64CONST(0x7ff8000000000000);
	else
		memcpy(&bits, &value, sizeof(bits));
	md_key_append_byte(buffer, 'f');
	md_key_append_uint64(buffer, bits);
}

/* Take "[-]123.450[e-6]" apart; digits are gathered within text itself. */
static void
parse_decimal(char *text, Decimal *decimal)
{
	char	   *from = text;
	char	   *to = text;
	int			fraction = 0;
	bool		after_point = false;

	decimal->negative = *from == '-';
	if (decimal->negative)
		from++;
	for (; *from && *from != 'e'; from++)
	{
		if (*from == '.')
		{
			after_point = true;
			continue;
		}
		*to++ = *from;
		if (after_point)
			fraction++;
	}
	decimal->exponent = (*from == 'e' ? atoi(from + 1) : 0) - fraction;

	while (to > text && to[-1] == '0')
	{
		to--;
		decimal->exponent++;
	}
	while (text < to && *text == '0')
		text++;
	decimal->digits = text;
	decimal->n_digits = to - text;
}

/* The decimal as an int64; false if it is not whole or too large. */
static bool
decimal_to_int64(const Decimal *decimal, int64 *result)
{
	int64		value = 0;

	if (decimal->n_digits > 0 &&
		(decimal->exponent < 0 || decimal->n_digits + decimal->exponent > 19))
		return false;

	/* build the negative: it reaches one further */
	for (int i = 0; i < decimal->n_digits + decimal->exponent && decimal->n_digits > 0; i++)
	{
		int			digit = i < decimal->n_digits ? decimal->digits[i] - '0' : 0;

		if (pg_mul_s64_overflow(value, 10, &value) ||
			pg_sub_s64_overflow(value, digit, &value))
			return false;
	}
	if (!decimal->negative && value == PG_INT64_MIN)
		return false;
	*result = decimal->negative ? value : -value;
	return true;
}

/* A number from its text; text is overwritten. */
static void
append_decimal(MdKeyBuffer *buffer, char *text)
{
	Decimal		decimal;
	int64		whole;
	char		exponent[16];
	int			exponent_len;

	parse_decimal(text, &decimal);
	if (decimal_to_int64(&decimal, &whole))
	{
		md_key_append_integer(buffer, whole);
		return;
	}

	exponent_len = snprintf(exponent, sizeof(exponent), "e%d", decimal.exponent);
	md_key_append_byte(buffer, 'd');
	md_key_append_uint32(buffer, decimal.negative + decimal.n_digits + exponent_len);
	if (decimal.negative)
		md_key_append_byte(buffer, '-');
	md_key_append_bytes(buffer, decimal.digits, decimal.n_digits);
	md_key_append_bytes(buffer, exponent, exponent_len);
}

/*
 * A float8; a float4 comes widened.  -0 is 0.
 */
void
md_key_append_float(MdKeyBuffer *buffer, double value)
{
	char		text[32];

	if (isnan(value) || isinf(value))
	{
		append_float_bits(buffer, value);
		return;
	}
	/* both bounds are powers of two, so the comparison is exact */
	if (value >= -9223372036854775808.0 && value < 9223372036854775808.0 &&
		value == (double) (int64) value)
	{
		md_key_append_integer(buffer, (int64) value);
		return;
	}

	snprintf(text, sizeof(text), "%.*e", DBL_DIG - 1, value);
	if (strtod(text, NULL) == value)
		append_decimal(buffer, text);
	else
		append_float_bits(buffer, value);
}

/*
 * A numeric, whatever its scale.
 */
void
md_key_append_numeric(MdKeyBuffer *buffer, Numeric value)
{
	if (numeric_is_nan(value))
		append_float_bits(buffer, NAN);
	else
	{
		char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
															   NumericGetDatum(value)));

		if (numeric_is_inf(value))
			append_float_bits(buffer, *text == '-' ? -INFINITY : INFINITY);
		else
			append_decimal(buffer, text);
		pfree(text);
	}
}
