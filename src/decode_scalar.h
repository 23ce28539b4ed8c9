/*
 * decode_scalar.h
 *		Text to numbers, times and uuids without throwing and without
 *		allocating.
 */
#ifndef MD_DECODE_SCALAR_H
#define MD_DECODE_SCALAR_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/uuid.h"

#include "decode_text.h"

/* A decimal number: mantissa / 10^scale; scale is negative for 1e3. */
typedef struct MdDecimal
{
	int64		mantissa;		/* at least 18 digits are kept */
	int			scale;
	bool		cut;			/* digits of the fraction were left out */
	bool		cut_nonzero;	/* and not all of them were 0 */
} MdDecimal;

typedef enum MdScalarResult
{
	MD_SCALAR_OK,
	MD_SCALAR_SYNTAX,			/* not of this form; another reader may know it */
	MD_SCALAR_FRACTION,			/* a number, but not an integer */
	MD_SCALAR_RANGE
} MdScalarResult;

/* A point in time as it was written. */
typedef struct MdIsoTime
{
	DateADT		date;
	int64		time_us;		/* since midnight */
	bool		has_time;
	bool		has_offset;
	int			offset_s;		/* east of UTC */
} MdIsoTime;

/* Highest power of ten in an int64, and the powers up to it. */
#define MD_POWERS_OF_TEN 19
extern const int64 md_powers_of_ten[MD_POWERS_OF_TEN];

extern MdSlice md_scalar_trim(MdSlice text);
extern bool md_scalar_may_be_number(MdSlice text);
extern MdScalarResult md_scalar_decimal(MdSlice text, MdDecimal *decimal);
extern bool md_scalar_is_below(const MdDecimal *decimal, int64 bound);
extern MdScalarResult md_scalar_int64(MdSlice text, int64 *value);
extern MdScalarResult md_scalar_iso_time(MdSlice text, MdIsoTime *time);
extern MdScalarResult md_scalar_epoch(const MdDecimal *decimal, Timestamp *timestamp);
extern MdScalarResult md_scalar_uuid(MdSlice text, pg_uuid_t *uuid);

#endif							/* MD_DECODE_SCALAR_H */
