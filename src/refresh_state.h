/*
 * refresh_state.h
 *		The tables and indexes that a plan needs beside the result.
 */
#ifndef MD_REFRESH_STATE_H
#define MD_REFRESH_STATE_H

#include "postgres.h"

#include "refresh_plan.h"
#include "refresh_target.h"
#include "view_catalog.h"

/*
 * Drop what the plan does not need.  If something is missing that only a rebuild
 * can fill, the view is not populated any more.
 */
extern void md_state_prepare(MdView *view, MdPlan *plan);

/* Before and after a rebuild: state tables, empty; then their and the result's indexes. */
extern void md_state_make(MdView *view, MdPlan *plan);
extern void md_state_index(MdView *view, MdPlan *plan);

/*
 * A composite type of columns of the result has other attributes: its values have other hashes,
 * and some may be equal that were not.  Indexes over them go, to be made anew when the rows are right,
 * and till then no row is told by its key.
 */
extern void md_state_distrust_composites(MdView *view, MdTarget *result);

/* Columns of the result that identify a row under the plan; NIL: there is no index over them. */
extern List *md_state_result_keys(const MdPlan *plan);

/* The result's indexes alone. */
extern void md_state_index_result(MdView *view, MdPlan *plan);

/* Take over the state tables of the view that will be this one; drop those it had. */
extern void md_state_adopt(MdView *view, MdView *next);

/* State table of a merge, or the table of its value set n (from 1). */
extern MdTarget *md_state_target(const MdView *view);
extern MdTarget *md_state_values(const MdView *view, const MdMerge *merge, int value_set);

#endif							/* MD_REFRESH_STATE_H */
