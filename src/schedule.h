/*
 * schedule.h
 *		Which view to refresh next, and when.
 *
 * Pure functions over what is known of the views; the time is an argument.
 */
#ifndef MD_SCHEDULE_H
#define MD_SCHEDULE_H

#include "postgres.h"
#include "datatype/timestamp.h"

typedef struct MdScheduled
{
	Oid			relid;
	Interval	interval;
	TimestampTz started_at;		/* of the last run; 0: never */
	TimestampTz retry_at;		/* of a view that fails; 0: it does not */
	TimestampTz due_at;			/* by the two; md_schedule_set() */
	int			failures;
	bool		has_news;		/* it was looked at, and is to be refreshed */
	bool		busy;			/* another process refreshes it */
	TimestampTz busy_until;		/* when to look again */
	int			upstream_count;
	int		   *upstream;		/* indexes of the views that it reads */
} MdScheduled;

/* Set when the view last ran and when it is tried again, and so when it is due. */
extern void md_schedule_set(MdScheduled *view, TimestampTz started_at, TimestampTz retry_at);

/*
 * Indexes of the views that are due at `now`, or so soon after that it does
 * not matter: those to look at in one go.  Returns how many.
 */
extern int	md_schedule_wave(const MdScheduled *views, int count, TimestampTz now, int *wave);

/*
 * Of a wave, news[] says where something is new.  The others count as run at
 * `now`, except readers of what is about to change.
 */
extern void md_schedule_settle(MdScheduled *views, const int *wave, int wave_count,
							   const bool *news, TimestampTz now);

/*
 * The view to refresh at `now`, as an index, or -1 with the time to look again
 * (DT_NOEND: when something changes).
 */
extern int	md_schedule_pick(const MdScheduled *views, int count, TimestampTz now,
							 TimestampTz *wake_at);

#endif							/* MD_SCHEDULE_H */
