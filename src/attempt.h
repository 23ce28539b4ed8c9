/*
 * attempt.h
 *		Something that may fail, in a subtransaction.
 */
#ifndef MD_ATTEMPT_H
#define MD_ATTEMPT_H

#include "postgres.h"

/* What to run; it finds its arguments, and leaves its results, behind arg. */
typedef void (*MdAction) (void *arg);

/*
 * Run action in a subtransaction.  NULL when that is done; else it is undone
 * and this is why, in CurrentMemoryContext.  The action runs in that context
 * too, which a failure leaves as full as it is.
 */
extern ErrorData *md_attempt(MdAction action, void *arg);

/* The same; false if it failed with this SQLSTATE, and ERROR if with another. */
extern bool md_attempt_but_for(MdAction action, void *arg, int sqlstate);

#endif							/* MD_ATTEMPT_H */
