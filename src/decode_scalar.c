/*
 * decode_scalar.c
 *		Text to numbers, times and uuids without throwing and without
 *		allocating.
 *
 * These are the forms that records carry all the time.  Each accepts a subset
 * of what the type's input function accepts and gives the same value; what it
 * does not know it leaves (MD_SCALAR_SYNTAX) to the caller, who asks the
 * input function.  The one form that Postgres does not have is the number
 * that is a time since 1970, see md_scalar_epoch().
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "common/int.h"
#include "utils/datetime.h"

#include "decode_scalar.h"

#define EXPONENT_MAX		1000
#define FRACTION_MAX_DIGITS	30

/* Bounds between epoch seconds, milliseconds, microseconds, nanoseconds. */
#define EPOCH_SECONDS_END	INT64CONST(100000000000)
#define EPOCH_MS_END		INT64CONST(100000000000000)
#define EPOCH_US_END		INT64CONST(100000000000000000)

#define US_BETWEEN_EPOCHS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

const int64 md_powers_of_ten[MD_POWERS_OF_TEN] = {
	INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000),
	INT64CONST(10000), INT64CONST(100000), INT64CONST(1000000),
	INT64CONST(10000000), INT64CONST(100000000), INT64CONST(1000000000),
	INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000),
	INT64CONST(100000000000000), INT64CONST(1000000000000000),
	INT64CONST(10000000000000000), INT64CONST(100000000000000000),
	INT64CONST(1000000000000000000)
};

static inline bool
is_digit(char c)
{
	return (unsigned char) (c - '0') <= 9;
}

/* Absolute value; the arguments here are never the minimum. */
static inline int64
magnitude_of(int64 value)
{
	return value < 0 ? -value : value;
}

/* Without white space at both ends, as input functions of numbers do. */
MdSlice
md_scalar_trim(MdSlice text)
{
	while (text.len > 0 && isspace((unsigned char) text.data[0]))
	{
		text.data++;
		text.len--;
	}
	while (text.len > 0 && isspace((unsigned char) text.data[text.len - 1]))
		text.len--;
	return text;
}

/* Read "e-12" at p; the bounds keep the sum with a scale inside an int. */
static MdScalarResult
parse_exponent(const char *p, const char *end, int *exponent)
{
	bool		negative = false;
	int			value = 0;

	p++;
	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	if (p == end)
		return MD_SCALAR_SYNTAX;
	for (; p < end; p++)
	{
		if (!is_digit(*p))
			return MD_SCALAR_SYNTAX;
		if (value <= EXPONENT_MAX)
			value = value * 10 + (*p - '0');
	}
	if (value > EXPONENT_MAX)
		return MD_SCALAR_RANGE;
	*exponent = negative ? -value : value;
	return MD_SCALAR_OK;
}

/* Append a digit to a mantissa, unless it is too long for that. */
static inline bool
append_digit(int64 *mantissa, char digit)
{
	if (*mantissa > (PG_INT64_MAX - 9) / 10)
		return false;
	*mantissa = *mantissa * 10 + (digit - '0');
	return true;
}

/*
 * Could an input function know this as a number?  It begins with a digit or
 * a point, or with NaN or infinity.
 */
bool
md_scalar_may_be_number(MdSlice text)
{
	text = md_scalar_trim(text);
	if (text.len > 1 && (text.data[0] == '-' || text.data[0] == '+'))
		text.data++;
	else if (text.len == 0)
		return false;
	return is_digit(text.data[0]) || strchr(".nNiI", text.data[0]) != NULL;
}

/*
 * Read [-+]digits[.digits][e[-+]digits].  Digits of the fraction for which
 * the mantissa has no room, beyond the 18th, are left out and said so; too
 * many digits before the point are MD_SCALAR_RANGE, which then only means
 * "too long for this reader".
 */
MdScalarResult
md_scalar_decimal(MdSlice text, MdDecimal *decimal)
{
	const char *p = text.data;
	const char *end = p + text.len;
	bool		negative = false;
	bool		any = false;
	int64		mantissa = 0;
	int			exponent = 0;

	decimal->scale = 0;
	decimal->cut = decimal->cut_nonzero = false;

	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	for (; p < end && is_digit(*p); p++)
	{
		any = true;
		if (!append_digit(&mantissa, *p))
			return MD_SCALAR_RANGE;
	}
	if (p < end && *p == '.')
	{
		for (p++; p < end && is_digit(*p); p++)
		{
			any = true;
			if (!decimal->cut && decimal->scale < EXPONENT_MAX &&
				append_digit(&mantissa, *p))
			{
				decimal->scale++;
				continue;
			}
			decimal->cut = true;
			decimal->cut_nonzero |= *p != '0';
		}
	}
	if (!any)
		return MD_SCALAR_SYNTAX;
	if (p < end && (*p == 'e' || *p == 'E'))
	{
		MdScalarResult result = parse_exponent(p, end, &exponent);

		if (result != MD_SCALAR_OK)
			return result;
	}
	else if (p < end)
		return MD_SCALAR_SYNTAX;

	decimal->mantissa = negative ? -mantissa : mantissa;
	decimal->scale -= exponent;
	return MD_SCALAR_OK;
}

/* Is the absolute value, without its fraction, below the bound? */
bool
md_scalar_is_below(const MdDecimal *decimal, int64 bound)
{
	int64		magnitude = magnitude_of(decimal->mantissa);

	if (decimal->scale >= MD_POWERS_OF_TEN || magnitude == 0)
		return true;
	if (decimal->scale >= 0)
		return magnitude / md_powers_of_ten[decimal->scale] < bound;
	return -decimal->scale < MD_POWERS_OF_TEN &&
		magnitude <= (bound - 1) / md_powers_of_ten[-decimal->scale];
}

/* An integer that was written with a fraction or an exponent: 1.0, 1e3. */
static MdScalarResult
int64_from_decimal(MdSlice text, int64 *value)
{
	MdDecimal	decimal;
	MdScalarResult result = md_scalar_decimal(text, &decimal);

	if (result != MD_SCALAR_OK)
		return result;
	if (decimal.cut_nonzero)
		return MD_SCALAR_FRACTION;
	if (decimal.mantissa == 0)
	{
		*value = 0;
		return MD_SCALAR_OK;
	}
	for (; decimal.scale > 0; decimal.scale--)
	{
		if (decimal.mantissa % 10 != 0)
			return MD_SCALAR_FRACTION;
		decimal.mantissa /= 10;
	}
	if (-decimal.scale >= MD_POWERS_OF_TEN ||
		pg_mul_s64_overflow(decimal.mantissa, md_powers_of_ten[-decimal.scale], value))
		return MD_SCALAR_RANGE;
	return MD_SCALAR_OK;
}

/* Is this ".0", ".00" ...? */
static bool
is_zero_fraction(const char *p, const char *end)
{
	if (end - p < 2 || *p != '.')
		return false;
	for (p++; p < end; p++)
	{
		if (*p != '0')
			return false;
	}
	return true;
}

/*
 * Read an integer.  1.0 and 1e3 are integers, 1.5 is MD_SCALAR_FRACTION:
 * nothing is rounded.
 */
MdScalarResult
md_scalar_int64(MdSlice text, int64 *value)
{
	const char *p = text.data;
	const char *end = p + text.len;
	bool		negative = false;
	int64		negated = 0;	/* its range has room for the minimum */

	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	if (p == end || !is_digit(*p))
		return MD_SCALAR_SYNTAX;
	for (; p < end && is_digit(*p); p++)
	{
		if (pg_mul_s64_overflow(negated, 10, &negated) ||
			pg_sub_s64_overflow(negated, *p - '0', &negated))
			return MD_SCALAR_RANGE;
	}
	if (p < end && !is_zero_fraction(p, end))
		return int64_from_decimal(text, value);
	if (!negative && negated == PG_INT64_MIN)
		return MD_SCALAR_RANGE;
	*value = negative ? negated : -negated;
	return MD_SCALAR_OK;
}

/* Two digits at p, or -1. */
static inline int
two_digits(const char *p)
{
	if (!is_digit(p[0]) || !is_digit(p[1]))
		return -1;
	return (p[0] - '0') * 10 + (p[1] - '0');
}

/* Read "2024-02-29". */
static bool
parse_iso_date(const char *p, DateADT *date)
{
	int			century = two_digits(p);
	int			year = two_digits(p + 2);
	int			month = two_digits(p + 5);
	int			day = two_digits(p + 8);

	if (century < 0 || year < 0 || p[4] != '-' || month < 1 || month > 12 ||
		p[7] != '-' || day < 1)
		return false;
	year += century * 100;
	if (year == 0 || day > day_tab[isleap(year)][month - 1])
		return false;
	*date = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
	return true;
}

/*
 * Read ".123456" at *p into microseconds.  More than six digits are rounded
 * as Postgres does, through a double.
 */
static bool
parse_fraction(const char **p, const char *end, int64 *fraction_us)
{
	const char *start = *p;
	int			n_digits;
	int64		value = 0;

	for ((*p)++; *p < end && is_digit(**p); (*p)++)
	{
		if (*p - start <= 6)
			value = value * 10 + (**p - '0');
	}
	n_digits = (int) (*p - start) - 1;
	if (n_digits == 0 || n_digits > FRACTION_MAX_DIGITS)
		return false;
	if (n_digits > 6)
	{
		char		buffer[FRACTION_MAX_DIGITS + 2];

		memcpy(buffer, start, n_digits + 1);
		buffer[n_digits + 1] = '\0';
		*fraction_us = (int64) rint(strtod(buffer, NULL) * 1000000);
	}
	else
		*fraction_us = value * md_powers_of_ten[6 - n_digits];
	return true;
}

/* Read "Z", "+02", "+0200" or "+02:00" that fills p up to end. */
static bool
parse_offset(const char *p, const char *end, int *offset_s)
{
	int			hours;
	int			minutes = 0;

	if (end - p == 1 && (*p == 'Z' || *p == 'z'))
	{
		*offset_s = 0;
		return true;
	}
	if ((*p != '+' && *p != '-') || end - p < 3)
		return false;
	hours = two_digits(p + 1);
	if (end - p == 5)
		minutes = two_digits(p + 3);
	else if (end - p == 6 && p[3] == ':')
		minutes = two_digits(p + 4);
	else if (end - p != 3)
		return false;
	if (hours < 0 || hours > MAX_TZDISP_HOUR || minutes < 0 || minutes > 59)
		return false;
	*offset_s = (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE) *
		(*p == '-' ? -1 : 1);
	return true;
}

/*
 * Read an ISO 8601 date, or date and time: "2024-02-29",
 * "2024-02-29T12:34:56.789+02:00"; "T" may be a space, seconds, fraction and
 * offset may be missing.
 */
MdScalarResult
md_scalar_iso_time(MdSlice text, MdIsoTime *time)
{
	const char *p = text.data;
	const char *end = p + text.len;
	int			hour;
	int			minute;
	int			second = 0;
	int64		fraction_us = 0;

	if (text.len < 10 || !parse_iso_date(p, &time->date))
		return MD_SCALAR_SYNTAX;
	time->time_us = 0;
	time->has_offset = false;
	time->has_time = text.len > 10;
	if (!time->has_time)
		return MD_SCALAR_OK;

	if (text.len < 16 || (p[10] != 'T' && p[10] != ' ' && p[10] != 't') || p[13] != ':')
		return MD_SCALAR_SYNTAX;
	hour = two_digits(p + 11);
	minute = two_digits(p + 14);
	p += 16;
	if (end - p >= 3 && *p == ':')
	{
		second = two_digits(p + 1);
		p += 3;
		if (p < end && *p == '.' && !parse_fraction(&p, end, &fraction_us))
			return MD_SCALAR_SYNTAX;
	}
	if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
		return MD_SCALAR_SYNTAX;
	if (p < end)
	{
		if (!parse_offset(p, end, &time->offset_s))
			return MD_SCALAR_SYNTAX;
		time->has_offset = true;
	}
	time->time_us = ((hour * 60 + minute) * INT64CONST(60) + second) * USECS_PER_SEC +
		fraction_us;
	return MD_SCALAR_OK;
}

/*
 * A number as a time since 1970-01-01 UTC.  The unit follows from the size:
 * below 10^11 seconds (until the year 5138), below 10^14 milliseconds, below
 * 10^17 microseconds, else nanoseconds.  What is finer than a microsecond is
 * rounded, half away from zero.
 */
MdScalarResult
md_scalar_epoch(const MdDecimal *decimal, Timestamp *timestamp)
{
	int64		mantissa = decimal->mantissa;
	int			scale = decimal->scale;
	int64		magnitude;
	int			us_digits;		/* value * 10^us_digits is in microseconds */
	int64		value_us;

	if (mantissa == 0)
		scale = 0;
	if (scale >= MD_POWERS_OF_TEN)
		magnitude = 0;
	else if (scale >= 0)
		magnitude = magnitude_of(mantissa / md_powers_of_ten[scale]);
	else if (-scale >= MD_POWERS_OF_TEN ||
			 pg_mul_s64_overflow(mantissa, md_powers_of_ten[-scale], &mantissa) ||
			 mantissa == PG_INT64_MIN)
		return MD_SCALAR_RANGE;
	else
	{
		magnitude = magnitude_of(mantissa);
		scale = 0;
	}

	if (magnitude < EPOCH_SECONDS_END)
		us_digits = 6;
	else if (magnitude < EPOCH_MS_END)
		us_digits = 3;
	else if (magnitude < EPOCH_US_END)
		us_digits = 0;
	else
		us_digits = -3;

	if (us_digits >= scale)
	{
		/* the largest is below 10^11 seconds, so this stays below 10^17 */
		value_us = mantissa * md_powers_of_ten[us_digits - scale];
	}
	else if (scale - us_digits >= MD_POWERS_OF_TEN)
		value_us = 0;
	else
	{
		int64		divisor = md_powers_of_ten[scale - us_digits];

		value_us = mantissa / divisor;
		if (magnitude_of(mantissa % divisor) >= divisor / 2)
			value_us += mantissa < 0 ? -1 : 1;
	}

	if (pg_sub_s64_overflow(value_us, US_BETWEEN_EPOCHS, timestamp) ||
		!IS_VALID_TIMESTAMP(*timestamp))
		return MD_SCALAR_RANGE;
	return MD_SCALAR_OK;
}

/* Value of a hexadecimal digit, or -1. */
static inline int
hex_digit(char c)
{
	static const int8 values[256] = {
		['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
		['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
		['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
		['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16
	};

	return values[(unsigned char) c] - 1;
}

/*
 * Read a uuid, in all forms of uuid_in: hexadecimal digits with a hyphen or
 * none after each group of four, in braces or not.
 */
MdScalarResult
md_scalar_uuid(MdSlice text, pg_uuid_t *uuid)
{
	const char *p = text.data;
	const char *end = p + text.len;

	if (text.len >= 2 && p[0] == '{' && end[-1] == '}')
	{
		p++;
		end--;
	}
	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if (end - p < 2)
			return MD_SCALAR_SYNTAX;
		high = hex_digit(*p++);
		low = hex_digit(*p++);
		if ((high | low) < 0)
			return MD_SCALAR_SYNTAX;
		uuid->data[i] = (unsigned char) (high << 4 | low);
		if (p < end && *p == '-' && i % 2 == 1 && i < UUID_LEN - 1)
			p++;
	}
	return p == end ? MD_SCALAR_OK : MD_SCALAR_SYNTAX;
}
