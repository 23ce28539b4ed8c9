/*
 * launcher.c
 *		The one process per server that starts a supervisor per database.
 *
 * It has no database of its own and reads pg_database only.  Whether a
 * database has the extension is found out by its supervisor, which exits at
 * once where it does not, and says so in its slot; CREATE EXTENSION counts as a
 * change of definitions and wakes the launcher, which looks again.  A slow
 * rescan finds databases that came to be by other ways (CREATE DATABASE from a
 * template with the extension in it).  There may be hundreds of databases of
 * which few have the extension, so few are looked into at a time.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "launcher.h"
#include "settings.h"
#include "worker.h"

#define RESCAN_INTERVAL_MS 60000
#define BLOCK_CHECK_MS 1000

/* Supervisors at a time that have not yet told whether they are needed. */
#define MAX_EXPLORING 4

/* A database whose supervisor we started, and when it may be started again. */
typedef struct Supervised
{
	Oid			database;
	int			slot;			/* -1: not started by us, or gone */
	BackgroundWorkerHandle *handle;
	int			failures;
	TimestampTz not_before;
	MdFound		found;			/* what the last one said */
	uint64		found_generation;
} Supervised;

static List *supervised = NIL;	/* of Supervised, in TopMemoryContext */
static bool told_shortage = false;	/* the log has a line about it */

void
md_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "pg_medallion", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "md_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "medallion launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "medallion launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* Oids of the databases that can be connected to, in CurrentMemoryContext. */
static List *
list_databases(void)
{
	List	   *databases = NIL;
	MemoryContext context = CurrentMemoryContext;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		/* an interrupted DROP DATABASE leaves one that nobody can connect to */
		if (database->datallowconn && !database->datistemplate &&
			database->datconnlimit != DATCONNLIMIT_INVALID_DB)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			databases = lappend_oid(databases, database->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

static Supervised *
supervised_entry(Oid database)
{
	MemoryContext old;
	Supervised *entry;
	ListCell   *lc;

	foreach(lc, supervised)
	{
		entry = lfirst(lc);
		if (entry->database == database)
			return entry;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc0(sizeof(Supervised));
	entry->database = database;
	entry->slot = -1;
	supervised = lappend(supervised, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

/* Note a supervisor that has ended; one that failed waits before the next. */
static void
note_ended(Supervised *entry)
{
	pid_t		pid;

	if (entry->slot < 0 ||
		GetBackgroundWorkerPid(entry->handle, &pid) != BGWH_STOPPED)
		return;
	/* one that never came up, for want of memory say, left its slot reserved */
	if (md_worker_slot_exists(entry->database, MD_WORKER_SUPERVISOR, 0))
		md_worker_slot_free(entry->slot);
	entry->found = md_supervisor_told(entry->slot, entry->database, &entry->found_generation);
	if (md_worker_slot_exited_cleanly(entry->slot))
		entry->failures = 0;
	else
		entry->failures++;
	entry->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													md_worker_backoff_ms(entry->failures));
	pfree(entry->handle);
	entry->slot = -1;
}

/* Had it no extension when a supervisor looked, and has that not changed? */
static bool
is_absent(const Supervised *entry)
{
	return entry->found == MD_FOUND_NONE &&
		entry->found_generation == md_database_generation(entry->database);
}

/* How many supervisors have not yet told what they have found. */
static int
count_exploring(void)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, supervised)
	{
		Supervised *entry = lfirst(lc);

		if (entry->slot < 0)
			continue;
		if (entry->found != MD_FOUND_EXTENSION)
			entry->found = md_supervisor_told(entry->slot, entry->database, &entry->found_generation);
		n += entry->found != MD_FOUND_EXTENSION;
	}
	return n;
}

/* Has the database a reason to have a supervisor that we do not see running? */
static bool
wants_supervisor(const Supervised *entry)
{
	/* one that an earlier launcher started wakes us when it ends */
	return md_workers_enabled && entry->slot < 0 && !is_absent(entry) &&
		!md_database_is_blocked(entry->database) &&
		!md_worker_slot_exists(entry->database, MD_WORKER_SUPERVISOR, 0);
}

/* Start the supervisor of a database if it wants one and need not wait. */
static void
start_supervisor(Supervised *entry)
{
	MdShortage	shortage = MD_SHORTAGE_SLOTS;

	if (!wants_supervisor(entry) ||
		md_clock_ms_until(GetCurrentTimestamp(), entry->not_before) > 0 ||
		(entry->found != MD_FOUND_EXTENSION && count_exploring() >= MAX_EXPLORING))
		return;
	entry->slot = md_worker_slot_reserve(entry->database, MD_WORKER_SUPERVISOR, 0);
	if (entry->slot >= 0)
	{
		if (md_worker_start(entry->slot, entry->database, MD_WORKER_SUPERVISOR,
							&entry->handle))
		{
			md_worker_note_shortage(entry->database, MD_WORKER_SUPERVISOR, 0, MD_SHORTAGE_NONE);
			told_shortage = false;
			return;
		}
		shortage = MD_SHORTAGE_PROCESSES;
	}
	md_worker_note_shortage(entry->database, MD_WORKER_SUPERVISOR, 0, shortage);
	entry->slot = -1;
	entry->failures++;
	entry->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													Min(md_worker_backoff_ms(entry->failures),
														MD_SHORTAGE_RETRY_MS));
	if (entry->failures == 1 && (!told_shortage || entry->found == MD_FOUND_EXTENSION))
	{
		told_shortage = true;
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start the medallion supervisor of database %u", entry->database),
				 errhint("You might need to increase %s.", md_shortage_setting(shortage))));
	}
}

/* Milliseconds until something is to be done even if nobody wakes us. */
static int
next_wait_ms(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		is_full = count_exploring() >= MAX_EXPLORING;
	int			wait_ms = RESCAN_INTERVAL_MS;
	ListCell   *lc;

	foreach(lc, supervised)
	{
		Supervised *entry = lfirst(lc);

		/* who blocks a database wakes us at its end, unless it was terminated */
		if (md_database_is_blocked(entry->database))
			wait_ms = Min(wait_ms, BLOCK_CHECK_MS);
		/* those that are looked into now wake us when they have told */
		if (wants_supervisor(entry) && (entry->found == MD_FOUND_EXTENSION || !is_full))
			wait_ms = Min(wait_ms, Max(20, md_clock_ms_until(now, entry->not_before)));
	}
	return wait_ms;
}

/* Drop what we know of databases that are gone. */
static void
forget_dropped(List *databases)
{
	ListCell   *lc;

	foreach(lc, supervised)
	{
		Supervised *entry = lfirst(lc);

		if (entry->slot < 0 && !list_member_oid(databases, entry->database))
		{
			md_database_forget(entry->database);
			supervised = foreach_delete_current(supervised, lc);
			pfree(entry);
		}
	}
}

void
md_launcher_main(Datum arg)
{
	MemoryContext cycle;
	int			slot = md_worker_slot_reserve(InvalidOid, MD_WORKER_LAUNCHER, 0);

	if (slot < 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no slot is free for the medallion launcher")));
	md_worker_begin(slot);
	cycle = AllocSetContextCreate(TopMemoryContext, "launcher cycle", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		ListCell   *lc;

		(void) md_worker_check();
		MemoryContextReset(cycle);
		MemoryContextSwitchTo(cycle);

		if (md_workers_enabled)
		{
			List	   *databases = list_databases();

			foreach(lc, databases)
			{
				Supervised *entry = supervised_entry(lfirst_oid(lc));

				note_ended(entry);
				if (is_absent(entry))
					entry->failures = 0;
				start_supervisor(entry);
			}
			forget_dropped(databases);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 next_wait_ms(), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
