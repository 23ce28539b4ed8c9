/*
 * refresh_worker.c
 *		A process that refreshes views when they are due.
 *
 * Each worker holds the whole schedule in memory and sleeps until the next
 * view is due.  Several workers share the views by the lock under which each
 * is refreshed: who gets it refreshes, the others go on to the next view.  When
 * a view was last refreshed is stored with it only if there was something to
 * do, so that nothing is written where nothing happens; two workers may then
 * both look and find nothing new, which costs a query.
 *
 * One refresh is one transaction.  If it fails, a second one stores why and
 * when it is tried again; the log gets a line when a view begins to fail and
 * when it is well again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "catalog/pg_type.h"

#include "capture.h"
#include "catalog.h"
#include "clock.h"
#include "debug_point.h"
#include "frontier.h"
#include "launcher.h"
#include "refresh_group.h"
#include "refresh_read.h"
#include "schedule.h"
#include "settings.h"
#include "sql_run.h"
#include "view_state.h"
#include "worker.h"

/* A view that another process refreshes is looked at again after this. */
#define BUSY_RECHECK_MS 1000

/* Everything that outlives a cycle. */
typedef struct Schedule
{
	MemoryContext context;
	int			count;
	MdScheduled *views;
} Schedule;

static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

static int
find_view(const Schedule *schedule, Oid relid)
{
	for (int i = 0; i < schedule->count; i++)
		if (schedule->views[i].relid == relid)
			return i;
	return -1;
}

static TimestampTz
row_timestamp(uint64 row, int attno)
{
	bool		isnull;
	Datum		value = md_sql_datum(row, attno, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* Fill views[row] from a row of load_schedule's query. */
static void
load_view(Schedule *schedule, MdScheduled *old, uint64 row)
{
	MdScheduled *view = &schedule->views[row];
	bool		isnull;

	view->relid = DatumGetObjectId(md_sql_datum(row, 1, &isnull));
	view->interval = *DatumGetIntervalP(md_sql_datum(row, 2, &isnull));
	view->failures = (int) md_sql_int64(row, 5);
	/* a run that found nothing is remembered here alone */
	md_schedule_set(view, Max(row_timestamp(row, 3), old ? old->started_at : 0),
					row_timestamp(row, 4));
}

/* Turn the OIDs that a view reads into indexes. */
static void
load_upstream(Schedule *schedule, uint64 row)
{
	MdScheduled *view = &schedule->views[row];
	bool		isnull;
	Datum		value = md_sql_datum(row, 6, &isnull);
	ArrayType  *array;
	Oid		   *oids;
	int			count;

	if (isnull)
		return;
	array = DatumGetArrayTypeP(value);
	count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	oids = (Oid *) ARR_DATA_PTR(array);
	view->upstream = MemoryContextAlloc(schedule->context, sizeof(int) * Max(1, count));
	for (int i = 0; i < count; i++)
	{
		int			upstream = find_view(schedule, oids[i]);

		if (upstream >= 0)
			view->upstream[view->upstream_count++] = upstream;
	}
}

/* Read the schedule anew; false if the extension is gone. */
static bool
load_schedule(Schedule *schedule)
{
	Schedule	old = *schedule;
	MdSecurity	saved;
	Snapshot	snapshot;
	uint64		rows;

	begin_transaction();
	if (!md_catalog_extension_exists())
	{
		commit_transaction();
		return false;
	}
	schedule->context = AllocSetContextCreate(TopMemoryContext, "schedule", ALLOCSET_DEFAULT_SIZES);
	snapshot = md_sql_take_snapshot();
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run("SELECT v.relid::oid, v.refresh_interval, s.started_at, f.retry_at,"
					  "       f.failures::bigint,"
					  "       (SELECT array_agg(u.source::oid) FROM medallion.view_source u"
					  "         WHERE u.relid = v.relid)"
					  "  FROM medallion.view v"
					  "       JOIN pg_class c ON c.oid = v.relid"
					  "       LEFT JOIN medallion.view_state s ON s.relid = v.relid"
					  "       LEFT JOIN medallion.view_status f ON f.relid = v.relid"
					  " WHERE NOT v.paused AND v.definition IS NOT NULL AND v.refresh_interval IS NOT NULL"
					  "   AND v.origin = medallion.database_identity()"
					  " ORDER BY v.relid::oid", NULL, snapshot);
	schedule->count = (int) rows;
	schedule->views = MemoryContextAllocZero(schedule->context,
											 sizeof(MdScheduled) * Max(1, rows));
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int			known = find_view(&old, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));

		load_view(schedule, known < 0 ? NULL : &old.views[known], i);
	}
	for (uint64 i = 0; i < rows; i++)
		load_upstream(schedule, i);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	commit_transaction();
	if (old.context != NULL)
		MemoryContextDelete(old.context);
	return true;
}

/*
 * What the database says of the view's last run and failures, now that we hold
 * its lock; false if it is gone.
 */
static bool
reload_view(MdScheduled *view)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();
	bool		found;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view->relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	found = md_sql_run_cached(&plan,
							  "SELECT s.started_at, f.retry_at, f.failures::bigint"
							  "  FROM medallion.view_state s"
							  "       LEFT JOIN medallion.view_status f ON f.relid = s.relid"
							  " WHERE s.relid = $1", &args, snapshot) > 0;
	if (found)
	{
		md_schedule_set(view, Max(view->started_at, row_timestamp(0, 1)), row_timestamp(0, 2));
		view->failures = (int) md_sql_int64(0, 3);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return found;
}

/* Another process refreshes the view, or one that it must be refreshed with. */
static void
set_busy(MdScheduled *view)
{
	view->busy = true;
	view->busy_until = TimestampTzPlusMilliseconds(md_system_clock.now(), BUSY_RECHECK_MS);
}

/* The part of a refresh that may fail; in a transaction. */
static void
try_refresh(MdScheduled *view, MdRun *run)
{
	const char *name;

	if (!md_view_lock_conditional(view->relid))
	{
		set_busy(view);
		return;
	}
	view->busy = false;
	view->has_news = false;
	if (!reload_view(view))
	{
		/* dropped, and soon no more in the schedule */
		md_schedule_set(view, md_system_clock.now(), 0);
		return;
	}
	if (view->due_at > md_system_clock.now())
		return;
	name = md_read_relation_name(view->relid);
	pgstat_report_activity(STATE_RUNNING, psprintf("REFRESH MATERIALIZED VIEW %s", name));
	if (!md_refresh_consistent(view->relid, false, false, run, NULL))
	{
		set_busy(view);
		return;
	}
	md_schedule_set(view, run->started_at, 0);
	if (view->failures > 0)
	{
		/* with nothing new the refresh itself has written nothing */
		(void) md_view_clear_failure(view->relid);
		ereport(LOG,
				(errmsg("refresh of materialized view %s works again after %d failures", name,
						view->failures)));
	}
	view->failures = 0;
}

/* What the state shows of an error: what a session would be told, but for the context. */
static char *
failure_text(const ErrorData *error, const char *member)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (member != NULL)
		appendStringInfo(&text, " (in \"%s\", which it reads together with others)", member);
	if (error->detail != NULL)
		appendStringInfo(&text, "\nDETAIL:  %s", error->detail);
	if (error->hint != NULL)
		appendStringInfo(&text, "\nHINT:  %s", error->hint);
	return text.data;
}

/* Store why a refresh failed, and when to try again. */
static void
store_failure(MdScheduled *view, const MdRun *run, ErrorData *error)
{
	TimestampTz now = md_system_clock.now();
	const char *member = md_refresh_group_current();
	const char *name;

	begin_transaction();
	if (!md_catalog_extension_exists())
		proc_exit(0);
	view->failures = md_view_store_failure(view->relid, run, unpack_sql_state(error->sqlerrcode),
										   failure_text(error, member), now);
	if (view->failures > 0)
	{
		md_schedule_set(view, run->started_at,
						TimestampTzPlusMilliseconds(now, md_worker_backoff_ms(view->failures)));
		md_view_store_retry(view->relid, view->retry_at);
	}
	name = get_rel_name(view->relid);
	if (view->failures == 1 && name != NULL)
		ereport(LOG,
				(errmsg("refresh of materialized view %s fails: %s",
						md_read_relation_name(view->relid), error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("medallion.materialized_views says when it is tried again; further failures are not logged.")));
	commit_transaction();
}

/* Refresh one view, whatever becomes of it. */
static void
refresh_view(MdScheduled *view, MemoryContext cycle)
{
	MdRun		run = {0};

	run.started_at = md_system_clock.now();
	PG_TRY();
	{
		begin_transaction();
		try_refresh(view, &run);
		commit_transaction();
		/* what the refresh rotated away can be sealed once that is committed */
		if (md_log_settle_is_due())
		{
			begin_transaction();
			md_log_settle();
			commit_transaction();
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cycle);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		store_failure(view, &run, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cycle);

	MD_DEBUG_POINT("refresh-committed");
	if (run.strategy != NULL && strcmp(run.strategy, "none") != 0)
	{
		md_worker_slot_report(1, run.rows_inserted + run.rows_updated + run.rows_deleted, 0);
		/* others may wait for this view */
		md_worker_wake(MyDatabaseId, MD_WORKER_REFRESH);
	}
}

/*
 * Look which of the views that are due have anything new, and pass over the
 * others.
 */
static void
look_for_news(Schedule *schedule, TimestampTz now)
{
	int		   *wave = palloc(sizeof(int) * schedule->count);
	int			count = md_schedule_wave(schedule->views, schedule->count, now, wave);
	bool	   *news = palloc0(sizeof(bool) * count);
	Oid		   *relids = palloc(sizeof(Oid) * count);
	Snapshot	snapshot;

	for (int i = 0; i < count; i++)
		relids[i] = schedule->views[wave[i]].relid;
	begin_transaction();
	if (!md_catalog_extension_exists())
		proc_exit(0);
	snapshot = md_sql_take_snapshot();
	md_frontier_find_news(relids, count, news, snapshot);
	UnregisterSnapshot(snapshot);
	commit_transaction();
	for (int i = 0; i < count; i++)
		news[i] |= schedule->views[wave[i]].failures > 0;
	md_schedule_settle(schedule->views, wave, count, news, now);
}

void
md_refresh_worker_main(Datum arg)
{
	int			slot = DatumGetInt32(arg);
	Schedule	schedule = {0};
	MemoryContext cycle;
	uint64		loaded_generation = 0;
	bool		loaded = false;

	md_worker_begin(slot);
	cycle = AllocSetContextCreate(TopMemoryContext, "refresh cycle", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		uint64		generation = md_definitions_generation();
		TimestampTz now;
		TimestampTz wake_at;
		int			pick;

		MemoryContextReset(cycle);
		MemoryContextSwitchTo(cycle);
		if (md_worker_check() || !loaded || generation != loaded_generation)
		{
			if (!load_schedule(&schedule))
				proc_exit(0);
			MemoryContextSwitchTo(cycle);
			loaded_generation = generation;
			loaded = true;
		}
		/* the supervisor starts one again when there is something to do */
		if (schedule.count == 0 || !md_workers_enabled ||
			md_worker_slot_index(slot) >= md_refresh_workers)
			proc_exit(0);

		now = md_system_clock.now();
		pick = md_schedule_pick(schedule.views, schedule.count, now, &wake_at);
		if (pick >= 0)
		{
			if (schedule.views[pick].has_news)
				refresh_view(&schedule.views[pick], cycle);
			else
				look_for_news(&schedule, now);
			continue;
		}
		pgstat_report_activity(STATE_IDLE, NULL);
		if (md_worker_has_news(generation))
			continue;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 md_clock_ms_until(now, wake_at), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		/* perhaps because another worker is done with what was busy */
		for (int i = 0; i < schedule.count; i++)
			schedule.views[i].busy = false;
	}
}
