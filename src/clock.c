/*
 * clock.c
 *		The system clock, and differences between two points in time.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/timestamp.h"

#include "clock.h"

const MdClock md_system_clock = {.now = GetCurrentTimestamp};

/* Milliseconds until `to`, for WaitLatch: 0 when it has passed. */
int
md_clock_ms_until(TimestampTz from, TimestampTz to)
{
	int64		diff_us;

	if (TIMESTAMP_IS_NOEND(to))
		return INT_MAX;
	if (to <= from)
		return 0;
	diff_us = to - from;
	if (diff_us / 1000 >= INT_MAX)
		return INT_MAX;
	/* rounded up, so that a waiter does not wake just before its time */
	return (int) ((diff_us + 999) / 1000);
}
