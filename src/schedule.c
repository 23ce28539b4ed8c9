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
 *
 * Most views have nothing new most of the time.  Whatever is due is therefore
 * looked at in one go, a wave, with one query; views without news count as run,
 * all at the same time, so that waves of views with one interval stay together:
 *
 *		due -> wave -> news?  yes: refreshed one by one     no: due again later
 *					   |
 *					   `- or it reads one that has, which is due too
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "schedule.h"

/* Views due within this share of their interval, at most so long, go along. */
#define SLACK_SHARE 20
#define SLACK_MAX_US (250 * INT64CONST(1000))

/* When a view is due; long ago for one that never ran. */
static TimestampTz
due_at(const MdScheduled *view)
{
	if (view->retry_at != 0)
		return view->retry_at;
	if (view->started_at == 0)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(view->started_at),
												   IntervalPGetDatum(&view->interval)));
}

void
md_schedule_set(MdScheduled *view, TimestampTz started_at, TimestampTz retry_at)
{
	view->started_at = started_at;
	view->retry_at = retry_at;
	view->due_at = due_at(view);
}

int
md_schedule_wave(const MdScheduled *views, int count, TimestampTz now, int *wave)
{
	int			found = 0;

	for (int i = 0; i < count; i++)
	{
		const MdScheduled *view = &views[i];
		int64		slack = 0;

		/* a view that fails waits for its time */
		if (view->retry_at == 0 && view->started_at != 0)
			slack = Min((view->due_at - view->started_at) / SLACK_SHARE, SLACK_MAX_US);
		if (view->due_at <= now || view->due_at - now <= slack)
			wave[found++] = i;
	}
	return found;
}

void
md_schedule_settle(MdScheduled *views, const int *wave, int wave_count, const bool *news,
				   TimestampTz now)
{
	bool		changed = true;

	for (int k = 0; k < wave_count; k++)
		views[wave[k]].has_news = news[k];
	while (changed)
	{
		changed = false;
		for (int k = 0; k < wave_count; k++)
		{
			MdScheduled *view = &views[wave[k]];

			for (int i = 0; !view->has_news && i < view->upstream_count; i++)
				if (views[view->upstream[i]].has_news)
					changed = view->has_news = true;
		}
	}
	for (int k = 0; k < wave_count; k++)
		if (!views[wave[k]].has_news)
			md_schedule_set(&views[wave[k]], now, 0);
}

/* Must the view wait for one that it reads? */
static bool
waits_for_upstream(const MdScheduled *views, const MdScheduled *view, TimestampTz now)
{
	for (int i = 0; i < view->upstream_count; i++)
	{
		const MdScheduled *upstream = &views[view->upstream[i]];

		if (upstream->due_at <= now && upstream->due_at <= view->due_at)
			return true;
	}
	return false;
}

int
md_schedule_pick(const MdScheduled *views, int count, TimestampTz now, TimestampTz *wake_at)
{
	int			best = -1;

	*wake_at = DT_NOEND;
	for (int i = 0; i < count; i++)
	{
		const MdScheduled *view = &views[i];

		if (view->due_at > now)
			*wake_at = Min(*wake_at, view->due_at);
		else if (view->busy && view->busy_until > now)
			*wake_at = Min(*wake_at, view->busy_until);
		else if ((best < 0 || view->due_at < views[best].due_at) &&
				 !waits_for_upstream(views, view, now))
			best = i;
	}
	return best;
}
