/*
 * schedule.c
 *		Which view to refresh next, and when.
 *
 * A view is due one interval after the start of its last run, however many
 * intervals have passed: what was missed runs once.  Of those that are due the
 * one that has waited longest goes first, except that a view waits for those
 * that it reads if they became due no later than itself:
 *
 *		due:	bronze_a 10:00  ->  silver_b 10:00  ->  gold_c 10:00
 *		runs:	bronze_a, then silver_b, then gold_c
 *
 * A view that takes longer than its interval is due again when it ends, but
 * later than its readers were, so it does not starve them.  A view that fails is
 * due at its next attempt, and its readers go on with what it has until then.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "schedule.h"

TimestampTz
md_schedule_due_at(const MdScheduled *view)
{
	if (view->retry_at != 0)
		return view->retry_at;
	if (view->started_at == 0)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(view->started_at),
												   IntervalPGetDatum(&view->interval)));
}

/* Must the view wait for one that it reads? */
static bool
waits_for_upstream(const MdScheduled *views, const MdScheduled *view, TimestampTz now)
{
	for (int i = 0; i < view->upstream_count; i++)
	{
		const MdScheduled *upstream = &views[view->upstream[i]];
		TimestampTz due_at = md_schedule_due_at(upstream);

		if (due_at <= now && due_at <= md_schedule_due_at(view))
			return true;
	}
	return false;
}

int
md_schedule_pick(const MdScheduled *views, int count, TimestampTz now, TimestampTz *wake_at)
{
	int			best = -1;
	TimestampTz best_due = DT_NOEND;

	*wake_at = DT_NOEND;
	for (int i = 0; i < count; i++)
	{
		TimestampTz due_at = md_schedule_due_at(&views[i]);

		if (due_at > now)
			*wake_at = Min(*wake_at, due_at);
		else if (views[i].busy && views[i].busy_until > now)
			*wake_at = Min(*wake_at, views[i].busy_until);
		else if ((best < 0 || due_at < best_due) && !waits_for_upstream(views, &views[i], now))
		{
			best = i;
			best_due = due_at;
		}
	}
	return best;
}
