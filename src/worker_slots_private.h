/*
 * worker_slots_private.h
 *		The shared memory of our processes, for the files worker_slots*.c.
 *		Nobody else includes it.
 */
#ifndef MD_WORKER_SLOTS_PRIVATE_H
#define MD_WORKER_SLOTS_PRIVATE_H

#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "worker_slots.h"

#define MD_GENERATIONS 1024

typedef struct MdWorkerSlot
{
	bool		in_use;
	MdWorkerKind kind;
	Oid			database;
	int			worker_index;
	bool		exited_cleanly; /* the last process of this slot, while it is free */
	MdFound		found;			/* by a supervisor */
	uint64		found_generation;
	pid_t		pid;			/* 0: reserved, not up yet */
	Latch	   *latch;
	TimestampTz started_at;
	TimestampTz last_active_at;
	int64		transactions;
	int64		rows;
	int64		bytes;
} MdWorkerSlot;

/*
 * What is up with a database.  One that says nothing may be taken for another
 * database at any time.
 */
typedef struct MdDatabaseEntry
{
	Oid			database;		/* InvalidOid: free */
	pid_t		blocker_pid;	/* session that wants our workers away */
	/* workers that are wanted and not there, a bit for each worker_index */
	uint64		without_process[MD_WORKER_KINDS];
	uint64		without_slot[MD_WORKER_KINDS];
} MdDatabaseEntry;

typedef struct MdWorkerArea
{
	LWLock	   *lock;
	int			n_slots;
	int			n_databases;
	MdDatabaseEntry *databases;
	ConditionVariable reported; /* a worker has committed something */
	/* of definitions, by database: two that share one look once too often */
	uint64		generations[MD_GENERATIONS];
	MdWorkerSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} MdWorkerArea;

/* NULL unless the library was preloaded. */
extern MdWorkerArea *md_worker_area;

/*
 * The entry of a database, or one that becomes it; NULL: there is none that says
 * nothing, or, for_block, none that is not blocked.
 */
extern MdDatabaseEntry *md_database_entry(Oid database, bool for_block);

/* Whoever wanted workers is gone; the lock is held exclusively. */
extern void md_worker_forget_shortages(const MdWorkerSlot *supervising);

#endif							/* MD_WORKER_SLOTS_PRIVATE_H */
