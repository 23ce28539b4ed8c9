/*
 * clock.h
 *		The one source of time for schedules, so that tests can own it.
 */
#ifndef MD_CLOCK_H
#define MD_CLOCK_H

#include "postgres.h"
#include "datatype/timestamp.h"

typedef struct MdClock
{
	TimestampTz (*now) (void);
} MdClock;

extern const MdClock md_system_clock;

/* Milliseconds from a to b, at least 0; INT_MAX when b is infinitely late. */
extern int	md_clock_ms_until(TimestampTz from, TimestampTz to);

#endif							/* MD_CLOCK_H */
