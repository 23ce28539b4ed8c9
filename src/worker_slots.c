/*
 * worker_slots.c
 *		Shared memory of our processes: who runs, and how to wake them.
 *
 * Latches of other processes are set under the lock that guards the slots: a
 * process clears its slot under the same lock before it exits, so the PGPROC
 * that the latch lies in is still its own.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "settings.h"
#include "worker_slots_private.h"

#define TRANCHE_NAME "pg_medallion"

MdWorkerArea *md_worker_area = NULL;
static int	my_slot = -1;
static bool definitions_changed = false;
static bool publication_due = false;	/* of a transaction that has committed */
static bool databases_blocked = false;
static bool xact_callback_registered = false;

const char *
md_worker_kind_name(MdWorkerKind kind)
{
	static const char *const names[] = {
		[MD_WORKER_LAUNCHER] = "launcher",
		[MD_WORKER_SUPERVISOR] = "supervisor",
		[MD_WORKER_INGEST] = "ingest",
		[MD_WORKER_REFRESH] = "refresh",
	};

	return names[kind];
}

/* Those of databases that are short of workers, or blocked. */
static int
n_database_entries(void)
{
	return md_max_worker_slots * 4;
}

static Size
slots_size(void)
{
	return MAXALIGN(offsetof(MdWorkerArea, slots) +
					mul_size(md_max_worker_slots, sizeof(MdWorkerSlot)));
}

static Size
area_size(void)
{
	return add_size(slots_size(),
					mul_size(n_database_entries(), sizeof(MdDatabaseEntry)));
}

void
md_worker_slots_request(void)
{
	RequestAddinShmemSpace(area_size());
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

void
md_worker_slots_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	md_worker_area = ShmemInitStruct("pg_medallion", area_size(), &found);
	if (!found)
	{
		memset(md_worker_area, 0, area_size());
		md_worker_area->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		md_worker_area->n_slots = md_max_worker_slots;
		md_worker_area->n_databases = n_database_entries();
		ConditionVariableInit(&md_worker_area->reported);
		for (int i = 0; i < MD_GENERATIONS; i++)
			md_worker_area->generations[i] = 1;
	}
	/* a pointer into the area itself: the same address in every process */
	md_worker_area->databases = (MdDatabaseEntry *) ((char *) md_worker_area + slots_size());
	LWLockRelease(AddinShmemInitLock);
}

void
md_worker_slots_require(void)
{
	if (md_worker_area == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_medallion must be loaded at server start"),
				 errhint("Add pg_medallion to shared_preload_libraries and restart the server.")));
}

/* Does the entry say that workers are wanted and not there? */
static bool
is_short(const MdDatabaseEntry *entry)
{
	for (int kind = 0; kind < MD_WORKER_KINDS; kind++)
		if (entry->without_process[kind] != 0 || entry->without_slot[kind] != 0)
			return true;
	return false;
}

/* The lock is held exclusively. */
MdDatabaseEntry *
md_database_entry(Oid database, bool for_block)
{
	MdDatabaseEntry *free_entry = NULL;

	for (int i = 0; i < md_worker_area->n_databases; i++)
	{
		MdDatabaseEntry *entry = &md_worker_area->databases[i];

		if (entry->database == database)
			return entry;
		if (entry->blocker_pid != 0 && BackendPidGetProc(entry->blocker_pid) != NULL)
			continue;
		/* what is shown of shortages may go, if need be */
		if (free_entry == NULL || (is_short(free_entry) && !is_short(entry)))
			free_entry = entry;
	}
	if (free_entry != NULL && is_short(free_entry) && !for_block)
		return NULL;
	if (free_entry != NULL)
	{
		memset(free_entry, 0, sizeof(MdDatabaseEntry));
		free_entry->database = database;
	}
	return free_entry;
}

/* Where the generation of a database is counted. */
static uint64 *
generation_of(Oid database)
{
	return &md_worker_area->generations[database % MD_GENERATIONS];
}

/* Set the latches of a database's processes (any kind for kind < 0). */
static void
wake_locked(Oid database, int kind)
{
	for (int i = 0; i < md_worker_area->n_slots; i++)
	{
		MdWorkerSlot *slot = &md_worker_area->slots[i];

		if (slot->in_use && slot->latch != NULL &&
			slot->database == database &&
			(kind < 0 || slot->kind == (MdWorkerKind) kind))
			SetLatch(slot->latch);
	}
}

void
md_worker_wake(Oid database, MdWorkerKind kind)
{
	if (md_worker_area == NULL)
		return;
	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	wake_locked(database, kind);
	LWLockRelease(md_worker_area->lock);
}

bool
md_worker_slot_exists(Oid database, MdWorkerKind kind, int worker_index)
{
	bool		exists = false;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	for (int i = 0; i < md_worker_area->n_slots && !exists; i++)
	{
		MdWorkerSlot *slot = &md_worker_area->slots[i];

		exists = slot->in_use && slot->database == database &&
			slot->kind == kind && slot->worker_index == worker_index;
	}
	LWLockRelease(md_worker_area->lock);
	return exists;
}

int
md_worker_slot_reserve(Oid database, MdWorkerKind kind, int worker_index)
{
	int			result = -1;

	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	for (int i = 0; i < md_worker_area->n_slots; i++)
	{
		MdWorkerSlot *slot = &md_worker_area->slots[i];

		if (!slot->in_use)
		{
			if (result < 0)
				result = i;
		}
		else if (slot->database == database && slot->kind == kind &&
				 slot->worker_index == worker_index)
		{
			result = -1;
			break;
		}
	}
	if (result >= 0)
	{
		MdWorkerSlot *slot = &md_worker_area->slots[result];

		memset(slot, 0, sizeof(MdWorkerSlot));
		slot->in_use = true;
		slot->kind = kind;
		slot->database = database;
		slot->worker_index = worker_index;
	}
	LWLockRelease(md_worker_area->lock);
	return result;
}

void
md_worker_slot_free(int slot)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	md_worker_area->slots[slot].in_use = false;
	md_worker_area->slots[slot].latch = NULL;
	md_worker_area->slots[slot].pid = 0;
	LWLockRelease(md_worker_area->lock);
}

/* At exit: free the slot, and let whoever supervises us know. */
static void
release_my_slot(int code, Datum arg)
{
	int			slot = my_slot;

	if (slot < 0)
		return;
	my_slot = -1;
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	md_worker_area->slots[slot].in_use = false;
	md_worker_area->slots[slot].exited_cleanly = code == 0;
	md_worker_area->slots[slot].latch = NULL;
	md_worker_area->slots[slot].pid = 0;
	md_worker_forget_shortages(&md_worker_area->slots[slot]);
	if (md_worker_area->slots[slot].kind == MD_WORKER_SUPERVISOR)
		wake_locked(InvalidOid, MD_WORKER_LAUNCHER);
	else if (md_worker_area->slots[slot].kind != MD_WORKER_LAUNCHER)
		wake_locked(md_worker_area->slots[slot].database, MD_WORKER_SUPERVISOR);
	LWLockRelease(md_worker_area->lock);
}

bool
md_worker_slot_exited_cleanly(int slot)
{
	bool		cleanly;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	cleanly = !md_worker_area->slots[slot].in_use && md_worker_area->slots[slot].exited_cleanly;
	LWLockRelease(md_worker_area->lock);
	return cleanly;
}

void
md_worker_slot_claim(int slot)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	my_slot = slot;
	md_worker_area->slots[slot].pid = MyProcPid;
	md_worker_area->slots[slot].latch = MyLatch;
	md_worker_area->slots[slot].started_at = GetCurrentTimestamp();
	md_worker_area->slots[slot].last_active_at = md_worker_area->slots[slot].started_at;
	LWLockRelease(md_worker_area->lock);
	before_shmem_exit(release_my_slot, (Datum) 0);
}

Oid
md_worker_slot_database(int slot)
{
	return md_worker_area->slots[slot].database;
}

int
md_worker_slot_index(int slot)
{
	return md_worker_area->slots[slot].worker_index;
}

void
md_worker_slot_report(int64 transactions, int64 rows, int64 bytes)
{
	MdWorkerSlot *slot;

	if (my_slot < 0)
		return;
	slot = &md_worker_area->slots[my_slot];
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	slot->transactions += transactions;
	slot->rows += rows;
	slot->bytes += bytes;
	slot->last_active_at = GetCurrentTimestamp();
	LWLockRelease(md_worker_area->lock);
	ConditionVariableBroadcast(&md_worker_area->reported);
}

void
md_worker_wait_for_report(int timeout_ms)
{
	md_worker_slots_require();
	/* false at once where it was not prepared: what came before is looked for then */
	(void) ConditionVariableTimedSleep(&md_worker_area->reported, timeout_ms, PG_WAIT_EXTENSION);
}

/*
 * Move the generation on and wake everybody who loaded the old one.  Runs after
 * the commit, where nothing may fail.
 */
static void
publish_definitions(void)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	(*generation_of(MyDatabaseId))++;
	wake_locked(MyDatabaseId, -1);
	wake_locked(InvalidOid, MD_WORKER_LAUNCHER);
	LWLockRelease(md_worker_area->lock);
}

/* The statement that wanted databases without our workers has ended. */
static void
unblock_databases(void)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	for (int i = 0; i < md_worker_area->n_databases; i++)
		if (md_worker_area->databases[i].blocker_pid == MyProcPid)
			md_worker_area->databases[i].blocker_pid = 0;
	wake_locked(InvalidOid, MD_WORKER_LAUNCHER);
	LWLockRelease(md_worker_area->lock);
}

static void
slots_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (definitions_changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that changed definitions of pg_medallion")));
			break;
		case XACT_EVENT_COMMIT:
			publication_due = definitions_changed;
			/* FALLTHROUGH */
		case XACT_EVENT_ABORT:
			if (databases_blocked)
				unblock_databases();
			definitions_changed = false;
			databases_blocked = false;
			break;
		default:
			break;
	}
}

/*
 * A transaction's callbacks run before others are told which of their cached
 * catalog rows are stale: a worker that was woken there could connect with the
 * options and passwords that have just been replaced, and keep them.
 */
static void
slots_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level || !publication_due)
		return;
	publication_due = false;
	if (is_commit)
		publish_definitions();
}

static void
register_xact_callback(void)
{
	if (!xact_callback_registered)
	{
		RegisterXactCallback(slots_xact_callback, NULL);
		RegisterResourceReleaseCallback(slots_release_callback, NULL);
	}
	xact_callback_registered = true;
}

void
md_definitions_changed(void)
{
	if (md_worker_area == NULL)
		return;
	register_xact_callback();
	definitions_changed = true;
}

uint64
md_database_generation(Oid database)
{
	uint64		generation;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	generation = *generation_of(database);
	LWLockRelease(md_worker_area->lock);
	return generation;
}

uint64
md_definitions_generation(void)
{
	return md_database_generation(MyDatabaseId);
}

void
md_supervisor_tell(MdFound found, uint64 generation)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	md_worker_area->slots[my_slot].found = found;
	md_worker_area->slots[my_slot].found_generation = generation;
	wake_locked(InvalidOid, MD_WORKER_LAUNCHER);
	LWLockRelease(md_worker_area->lock);
}

MdFound
md_supervisor_told(int slot, Oid database, uint64 *generation)
{
	MdFound		found = MD_FOUND_UNKNOWN;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	if (md_worker_area->slots[slot].kind == MD_WORKER_SUPERVISOR &&
		md_worker_area->slots[slot].database == database)
	{
		found = md_worker_area->slots[slot].found;
		*generation = md_worker_area->slots[slot].found_generation;
	}
	LWLockRelease(md_worker_area->lock);
	return found;
}

void
md_database_forget(Oid database)
{
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	for (int i = 0; i < md_worker_area->n_databases; i++)
		if (md_worker_area->databases[i].database == database)
			memset(&md_worker_area->databases[i], 0, sizeof(MdDatabaseEntry));
	LWLockRelease(md_worker_area->lock);
}

/* A block ends with the process that set it, however that ended. */
bool
md_database_is_blocked(Oid database)
{
	pid_t		pid = 0;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	for (int i = 0; i < md_worker_area->n_databases; i++)
		if (md_worker_area->databases[i].database == database)
			pid = md_worker_area->databases[i].blocker_pid;
	LWLockRelease(md_worker_area->lock);
	return pid != 0 && BackendPidGetProc(pid) != NULL;
}

/* Does any process of ours other than this one run in the database? */
static bool
database_in_use(Oid database)
{
	bool		in_use = false;

	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	for (int i = 0; i < md_worker_area->n_slots && !in_use; i++)
		in_use = md_worker_area->slots[i].in_use && md_worker_area->slots[i].database == database;
	LWLockRelease(md_worker_area->lock);
	return in_use;
}

/* Ask our workers to leave the database, and wait until they have. */
void
md_database_block(Oid database)
{
	MdDatabaseEntry *entry;

	if (md_worker_area == NULL)
		return;
	register_xact_callback();
	databases_blocked = true;
	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	entry = md_database_entry(database, true);
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases are to be left by workers of pg_medallion at the same time"),
				 errhint("You might need to increase medallion.max_worker_slots.")));
	entry->blocker_pid = MyProcPid;
	LWLockRelease(md_worker_area->lock);

	/* wake them each time round: one that was busy may have missed it */
	while (database_in_use(database))
	{
		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(md_worker_area->lock, LW_SHARED);
		wake_locked(database, -1);
		LWLockRelease(md_worker_area->lock);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
