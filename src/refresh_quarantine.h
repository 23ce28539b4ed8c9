/*
 * refresh_quarantine.h
 *		A row that cannot be computed costs itself only.
 */
#ifndef MD_REFRESH_QUARANTINE_H
#define MD_REFRESH_QUARANTINE_H

#include "postgres.h"

#include "attempt.h"
#include "frontier.h"
#include "refresh_exec.h"

/*
 * Run `apply`, which brings the view up by refresh->plan, with the rows left out
 * that it cannot be computed with, and keep account of them.  The action
 * connects to SPI by itself.  full: asked for.
 *
 * Runs in: a refresh, as the owner of the view.
 */
extern void md_quarantine_apply(MdRefresh *refresh, bool full, MdAction apply, void *arg);

/* Rows that return are new: add them to what is new in their source. */
extern void md_quarantine_let_in(MdRefresh *refresh, MdSource *source, MdDelta *delta);

/* Is there a row to be tried once more, although no source changes? */
extern bool md_quarantine_is_unsettled(const MdRefresh *refresh);

/* The plan of a view without its quarantined rows, as a snapshot sees them. */
extern MdPlan *md_quarantine_plan(const MdView *view, Snapshot snapshot);

#endif							/* MD_REFRESH_QUARANTINE_H */
