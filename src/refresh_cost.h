/*
 * refresh_cost.h
 *		Whether a change is so large that recomputing is cheaper.
 */
#ifndef MD_REFRESH_COST_H
#define MD_REFRESH_COST_H

#include "postgres.h"

#include "refresh_exec.h"

/*
 * The changes are at hand (of MdInput).  If they are large, the engine is told what
 * it may spend on them, or to give up at once.
 */
extern void md_cost_begin(MdRefresh *refresh, List *inputs);

/*
 * May a statement be run, of those that compute the change?  If not, the engine
 * has given up.  Only while nothing has been written.
 */
extern bool md_cost_affords(MdEngine *engine, const char *sql);

/* Something is about to be written: no way back. */
extern void md_cost_settle(MdEngine *engine);

/* What it took in the end, for the next time. */
extern void md_cost_note_change(MdRefresh *refresh, double ms);
extern void md_cost_note_recompute(MdRefresh *refresh, double ms);

#endif							/* MD_REFRESH_COST_H */
