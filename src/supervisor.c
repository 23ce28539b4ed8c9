/*
 * supervisor.c
 *		The process per database that starts its workers and keeps house.
 *
 * It is the only owner of the decision which workers run: as many ingest and
 * refresh workers as the settings say while there is anything for them to do.
 * A worker that has nothing to do, or whose settings changed, exits cleanly;
 * one that failed is started again after a pause that doubles.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "catalog.h"
#include "clock.h"
#include "launcher.h"
#include "settings.h"
#include "worker.h"

#define HOUSEKEEPING_INTERVAL_MS 600000
#define MAX_WORKERS_PER_KIND 64

typedef struct Charge
{
	int			slot;			/* -1: not started by us, or gone */
	BackgroundWorkerHandle *handle;
	int			failures;
	TimestampTz started_at;
	TimestampTz not_before;
} Charge;

static Charge charges[2][MAX_WORKERS_PER_KIND];
static const MdWorkerKind kinds[2] = {MD_WORKER_INGEST, MD_WORKER_REFRESH};

/* How many workers of each kind have work, by the catalog. */
typedef struct Demand
{
	bool		extension_exists;
	int			workers[2];
} Demand;

/* One query of one bool in the current transaction, as the extension's owner. */
static bool
query_bool(const char *sql)
{
	MdSecurity	saved;
	bool		result;

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not run: %s", sql);
	result = strcmp(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), "t") == 0;
	SPI_finish();
	md_catalog_restore_user(&saved);
	return result;
}

static Demand
read_demand(void)
{
	Demand		demand = {0};

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	demand.extension_exists = md_catalog_extension_exists();
	if (demand.extension_exists)
	{
		if (query_bool("SELECT EXISTS (SELECT FROM medallion.stream"
					   "  WHERE NOT paused AND origin = medallion.database_identity())"))
			demand.workers[0] = md_ingest_workers;
		if (query_bool("SELECT EXISTS (SELECT FROM medallion.view"
					   "  WHERE NOT paused AND refresh_interval IS NOT NULL"
					   "    AND origin = medallion.database_identity())"))
			demand.workers[1] = md_refresh_workers;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return demand;
}

/* Delete history that nobody needs any more. */
static void
keep_house(void)
{
	MdSecurity	saved;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (md_catalog_extension_exists())
	{
		md_catalog_become_owner(&saved);
		SPI_connect();
		if (SPI_execute("SELECT medallion.prune_history(), medallion.prune_change_logs()", false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not prune the history of batches and refreshes");
		SPI_finish();
		md_catalog_restore_user(&saved);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* A start or a worker has failed: the next one waits. */
static void
note_failed(Charge *charge)
{
	charge->failures++;
	charge->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 md_worker_backoff_ms(charge->failures));
}

/*
 * Note a worker that has ended.  Soon after its start is a failure, unless it
 * chose to: its settings or its work had changed.
 */
static void
note_ended(MdWorkerKind kind, int index, Charge *charge)
{
	pid_t		pid;

	if (charge->slot < 0 ||
		GetBackgroundWorkerPid(charge->handle, &pid) != BGWH_STOPPED)
		return;
	/* one that never came up, for want of memory say, left its slot reserved */
	if (md_worker_slot_exists(MyDatabaseId, kind, index))
		md_worker_slot_free(charge->slot);
	if (GetCurrentTimestamp() - charge->started_at > INT64CONST(60) * USECS_PER_SEC)
		charge->failures = 0;
	if (md_worker_slot_exited_cleanly(charge->slot))
		charge->not_before = 0;
	else
		note_failed(charge);
	pfree(charge->handle);
	charge->slot = -1;
}

/* Start worker `index` of a kind unless it is to wait. */
static void
start_worker(MdWorkerKind kind, int index, Charge *charge)
{
	MdShortage	shortage;
	int			slot;

	if (md_clock_ms_until(GetCurrentTimestamp(), charge->not_before) > 0)
		return;
	slot = md_worker_slot_reserve(MyDatabaseId, kind, index);
	if (slot >= 0 && md_worker_start(slot, MyDatabaseId, kind, &charge->handle))
	{
		charge->slot = slot;
		charge->started_at = GetCurrentTimestamp();
		md_worker_note_shortage(MyDatabaseId, kind, index, MD_SHORTAGE_NONE);
		return;
	}
	shortage = slot < 0 ? MD_SHORTAGE_SLOTS : MD_SHORTAGE_PROCESSES;
	md_worker_note_shortage(MyDatabaseId, kind, index, shortage);
	note_failed(charge);
	charge->not_before = Min(charge->not_before,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MD_SHORTAGE_RETRY_MS));
	if (charge->failures == 1)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start medallion %s worker %d", md_worker_kind_name(kind), index),
				 errhint("You might need to increase %s.", md_shortage_setting(shortage))));
}

/* Start what is wanted; returns how long to wait before looking again. */
static int
start_wanted(const Demand *demand)
{
	int			wait_ms = HOUSEKEEPING_INTERVAL_MS;

	for (int k = 0; k < lengthof(kinds); k++)
		for (int i = 0; i < MAX_WORKERS_PER_KIND; i++)
		{
			Charge	   *charge = &charges[k][i];

			note_ended(kinds[k], i, charge);
			if (i >= demand->workers[k])
			{
				if (charge->failures > 0)
					md_worker_note_shortage(MyDatabaseId, kinds[k], i, MD_SHORTAGE_NONE);
				charge->failures = 0;
				charge->not_before = 0;
				continue;
			}
			/* one that an earlier supervisor started wakes us when it ends */
			if (charge->slot >= 0 || md_worker_slot_exists(MyDatabaseId, kinds[k], i))
				continue;
			start_worker(kinds[k], i, charge);
			if (charge->slot < 0)
				wait_ms = Min(wait_ms,
							  Max(20, md_clock_ms_until(GetCurrentTimestamp(), charge->not_before)));
		}
	return wait_ms;
}

void
md_supervisor_main(Datum arg)
{
	MemoryContext cycle;
	Demand		demand = {0};
	uint64		loaded_generation = 0;
	TimestampTz next_housekeeping = GetCurrentTimestamp();

	md_worker_begin(DatumGetInt32(arg));
	cycle = AllocSetContextCreate(TopMemoryContext, "supervisor cycle", ALLOCSET_DEFAULT_SIZES);
	for (int k = 0; k < lengthof(kinds); k++)
		for (int i = 0; i < MAX_WORKERS_PER_KIND; i++)
			charges[k][i].slot = -1;

	for (;;)
	{
		uint64		generation = md_definitions_generation();
		int			wait_ms;

		MemoryContextReset(cycle);
		MemoryContextSwitchTo(cycle);
		if (md_worker_check() || generation != loaded_generation)
		{
			demand = read_demand();
			loaded_generation = generation;
			md_supervisor_tell(demand.extension_exists ? MD_FOUND_EXTENSION : MD_FOUND_NONE, generation);
		}
		if (!demand.extension_exists || !md_workers_enabled)
			proc_exit(0);

		/* handles live longer than this cycle */
		MemoryContextSwitchTo(TopMemoryContext);
		wait_ms = start_wanted(&demand);
		MemoryContextSwitchTo(cycle);

		if (md_clock_ms_until(GetCurrentTimestamp(), next_housekeeping) == 0)
		{
			keep_house();
			next_housekeeping = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															HOUSEKEEPING_INTERVAL_MS);
		}
		pgstat_report_activity(STATE_IDLE, NULL);
		if (md_worker_has_news(generation))
			continue;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
