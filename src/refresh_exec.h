/*
 * refresh_exec.h
 *		One refresh of one view, and the comparison of a view with its query.
 */
#ifndef MD_REFRESH_EXEC_H
#define MD_REFRESH_EXEC_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "refresh_delta.h"
#include "refresh_plan.h"
#include "refresh_target.h"
#include "view_state.h"

/* A refresh while it runs. */
typedef struct MdRefresh
{
	MdView	   *view;
	MdPlan	   *plan;
	MdTarget   *result;
	Snapshot	snapshot;		/* of all that is read */
	List	   *sources;		/* of MdSource */
	MdEngine   *engine;			/* while an incremental strategy runs */
	List	   *quarantined;	/* of MdRefreshError: see refresh_quarantine.c */
	char	   *why_anew;		/* it must be recomputed because of these; NULL: not */
	Oid			reshaped_type;	/* whose values look otherwise since the last refresh; InvalidOid: none */
	MdRun		run;
} MdRefresh;

/*
 * The lock under which a view is refreshed, and one on its result, until the
 * end of the transaction.
 */
extern void md_refresh_lock(Oid relid);

/*
 * Bring a locked view up to its sources as a snapshot, taken under the lock,
 * sees them; refresh_group.h says which others must be refreshed before.  full:
 * recompute.  The caller has checked that the user may.  *frontier, if not
 * NULL, gets the frontiers of the sources.
 *
 * Runs in: a session or a refresh worker, inside a transaction.
 */
extern void md_refresh_under(Oid relid, bool full, Snapshot snapshot, MdRun *run,
							 Jsonb **frontier);

/* Recompute just the rows that a condition selects, at the view's frontier. */
extern void md_refresh_part(Oid relid, const char *only_where, MdRun *run, Jsonb **frontier);

/*
 * Differences between a view and its query at the frontier and time of its
 * last refresh: rows (difference text, row_data jsonb, copies bigint).
 */
extern void md_refresh_verify(Oid relid, Tuplestorestate *store, TupleDesc tupdesc);

/* The query of a view as of its last refresh, as SQL; for only_where too. */
extern char *md_refresh_frontier_query(MdView *view, Snapshot snapshot, bool fenced);

/*
 * A query of its plan likewise, as a tree of the same range table.  fenced: at no
 * price is anything computed of rows that came later (they may fail).
 */
extern Query *md_refresh_frontier_tree(MdView *view, Query *query, Snapshot snapshot, bool fenced);

/* The query as it is to be run at `time`: now() replaced, as SQL. */
extern char *md_refresh_query_text(Query *query, TimestampTz time);

/* refresh_exec_diff.c */

/*
 * Make target equal to the rows of `query`, changing only those that differ.
 * keys: columns (of int) that are unique, NIL if none are.  where: only rows
 * for which it holds, NULL for all.
 */
extern void md_diff_apply(const MdTarget *target, const char *query, List *keys,
						  const char *where, Snapshot snapshot, MdRun *run);

/* The same from differences that are known, in the form of md_diff_sql(). */
extern void md_diff_apply_store(const MdTarget *target, Tuplestorestate *changes,
								TupleDesc tupdesc, List *keys, Snapshot snapshot, MdRun *run);

/* "u.c1, u.c2, ": what grouping rows u by their columns hands on of these. */
extern char *md_diff_output(const MdTarget *target);

/* SELECT of the differences: columns c1, ..., w (copies, > 0: missing), tid. */
extern char *md_diff_sql(const MdTarget *target, const char *query, const char *where);

/* After an error that was caught: what it left registered. */
extern void md_diff_forget(void);

/* Fill an empty target. */
extern void md_diff_fill(const MdTarget *target, const char *query, Snapshot snapshot,
						 MdRun *run);

/* Make a tuplestore a relation of the name for SQL run through SPI. */
extern void md_diff_register(const char *name, Tuplestorestate *store, TupleDesc tupdesc);

/* refresh_exec_append.c */

/* Insert the rows that came; remember for readers which. */
extern void md_append_apply(MdRefresh *refresh);

/* refresh_exec_signed.c */

/* Carry the change through the query, and apply it row by row. */
extern void md_signed_apply(MdRefresh *refresh);

/* Run into a store, by indexes if it looks up few rows against those of the result. */
extern Tuplestorestate *md_signed_run_lookups(MdRefresh *refresh, const char *sql, int64 lookups,
											  TupleDesc *tupdesc);

/* refresh_exec_regroup.c */

/* Compute rows of touched keys again. */
extern void md_regroup_apply(MdRefresh *refresh);

/* Columns of the result that identify a row; NIL: none are known. */
extern List *md_refresh_unique_columns(MdRefresh *refresh);

/* refresh_exec_merge.c */

/* Merge the change of what the query reads. */
extern void md_merge_apply(MdRefresh *refresh);

/* Recompute state and result. */
extern void md_merge_rebuild(MdRefresh *refresh);

/* refresh_exec_latest.c: the same for strategy latest */
extern void md_latest_apply(MdRefresh *refresh);
extern void md_latest_rebuild(MdRefresh *refresh);

/* refresh_exec_top.c: the same for strategy top */
extern void md_top_apply(MdRefresh *refresh);
extern void md_top_rebuild(MdRefresh *refresh);

#endif							/* MD_REFRESH_EXEC_H */
