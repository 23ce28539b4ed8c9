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
	int			failures;
	bool		busy;			/* another process refreshes it */
	TimestampTz busy_until;		/* when to look again */
	int			upstream_count;
	int		   *upstream;		/* indexes of the views that it reads */
} MdScheduled;

/* When a view is due; long ago for one that never ran. */
extern TimestampTz md_schedule_due_at(const MdScheduled *view);

/*
 * The view to refresh at `now`, as an index, or -1 with the time to look again
 * (DT_NOEND: when something changes).
 */
extern int	md_schedule_pick(const MdScheduled *views, int count, TimestampTz now,
							 TimestampTz *wake_at);

#endif							/* MD_SCHEDULE_H */
