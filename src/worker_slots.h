/*
 * worker_slots.h
 *		Shared memory of our processes: who runs, and how to wake them.
 *
 * The area exists when the library was preloaded.  One LWLock guards it and
 * is held for a few words of copying only.
 *
 * A slot is one worker process, from just before it is registered with the
 * postmaster until it has exited.  A database entry holds a generation: a
 * transaction that changed a definition moves it on after its commit and
 * wakes the database's processes, which compare it with the one they loaded.
 */
#ifndef MD_WORKER_SLOTS_H
#define MD_WORKER_SLOTS_H

#include "postgres.h"
#include "datatype/timestamp.h"

typedef enum MdWorkerKind
{
	MD_WORKER_LAUNCHER,
	MD_WORKER_SUPERVISOR,
	MD_WORKER_INGEST,
	MD_WORKER_REFRESH
} MdWorkerKind;

#define MD_WORKER_KINDS 4

/* What a worker that is wanted is not there for. */
typedef enum MdShortage
{
	MD_SHORTAGE_NONE,
	MD_SHORTAGE_PROCESSES,		/* max_worker_processes are in use */
	MD_SHORTAGE_SLOTS			/* medallion.max_worker_slots are */
} MdShortage;

/* Another worker's end, which nobody tells us of, is noticed within this time. */
#define MD_SHORTAGE_RETRY_MS 5000

extern const char *md_worker_kind_name(MdWorkerKind kind);

/* Size and attach; called from the hooks of module.c. */
extern void md_worker_slots_request(void);
extern void md_worker_slots_init(void);

/* ERROR, with the setting to change, unless the library was preloaded. */
extern void md_worker_slots_require(void);

/*
 * A starter reserves a slot (-1: all in use, or that worker exists already),
 * and hands its number to the process, which claims it; the slot is freed by
 * an exit callback of the process, or by the starter if it never came up.
 */
extern int	md_worker_slot_reserve(Oid database, MdWorkerKind kind,
								   int worker_index);
extern void md_worker_slot_claim(int slot);
extern void md_worker_slot_free(int slot);
extern bool md_worker_slot_exists(Oid database, MdWorkerKind kind,
								  int worker_index);
extern Oid	md_worker_slot_database(int slot);

/* Did the process of a slot that has been free since end by its own will? */
extern bool md_worker_slot_exited_cleanly(int slot);
extern int	md_worker_slot_index(int slot);

/* Tell medallion.workers why worker worker_index (< 64) is not there. */
extern void md_worker_note_shortage(Oid database, MdWorkerKind kind, int worker_index,
									MdShortage shortage);
extern const char *md_shortage_setting(MdShortage shortage);

/* Add to the figures of this process's slot, and wake who waits for reports. */
extern void md_worker_slot_report(int64 transactions, int64 rows, int64 bytes);

/*
 * Wait until a worker of any database has reported, or for timeout_ms; who looks
 * for what it reported must do so before, too.  Can be cancelled.
 */
extern void md_worker_wait_for_report(int timeout_ms);

/* Definitions of this database changed: wake its processes after commit. */
extern void md_definitions_changed(void);
extern uint64 md_definitions_generation(void);

/* Wake the processes of that kind in the database; from anywhere. */
extern void md_worker_wake(Oid database, MdWorkerKind kind);

/*
 * What the launcher needs to know of a database.  Its supervisor tells whether
 * the extension is there, as of a generation; it can be asked until the slot is
 * reserved again.  Blocked while a session runs DROP DATABASE and the like:
 * workers exit, and none is started.
 */
typedef enum MdFound
{
	MD_FOUND_UNKNOWN,
	MD_FOUND_EXTENSION,
	MD_FOUND_NONE
} MdFound;

extern void md_supervisor_tell(MdFound found, uint64 generation);
extern MdFound md_supervisor_told(int slot, Oid database, uint64 *generation);
extern uint64 md_database_generation(Oid database);
extern void md_database_forget(Oid database);	/* it was dropped */
extern bool md_database_is_blocked(Oid database);
extern void md_database_block(Oid database);	/* until this transaction ends */

#endif							/* MD_WORKER_SLOTS_H */
