/*
 * worker.h
 *		What every one of our processes does alike: start, stop, be started.
 */
#ifndef MD_WORKER_H
#define MD_WORKER_H

#include "postgres.h"
#include "postmaster/bgworker.h"

#include "worker_slots.h"

/* Signal handlers, slot, connection to the slot's database; first thing. */
extern void md_worker_begin(int slot);

/* Give a setting a value that stays whatever configuration says. */
extern void md_worker_fix_setting(const char *name, const char *value);

/* Start the worker of a reserved slot; false frees the slot again. */
extern bool md_worker_start(int slot, Oid database, MdWorkerKind kind,
							BackgroundWorkerHandle **handle);

/*
 * Exit cleanly if that was asked for, or if our database is wanted empty;
 * reload settings after SIGHUP, and return true then.
 */
extern bool md_worker_check(void);

/*
 * Before a wait: is there news since md_worker_check() and since the given
 * generation was read?  Work in between may have waited for a lock, and taken
 * the wake-up for its own.
 */
extern bool md_worker_has_news(uint64 generation);

/* Pause after the n-th failure in a row: doubled each time, between the
 * settings backoff_min and backoff_max, with jitter. */
extern int	md_worker_backoff_ms(int failures);

#endif							/* MD_WORKER_H */
