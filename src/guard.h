/*
 * guard.h
 *		Which relation our own code may write at the moment, past the trigger
 *		medallion.guard_write().
 */
#ifndef MD_GUARD_H
#define MD_GUARD_H

#include "postgres.h"
#include "utils/reltrigger.h"

/*
 * Let the statements that follow write to relid (InvalidOid: to none); returns
 * what was open before, to be given back.  An error closes it by itself.  What
 * functions called by these statements write elsewhere stays guarded.
 */
extern Oid	md_guard_open(Oid relid);

/* Is a trigger the guard, and no other use of its function? */
extern bool md_guard_is_trigger(const Trigger *trigger);

#endif							/* MD_GUARD_H */
