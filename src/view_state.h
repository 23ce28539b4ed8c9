/*
 * view_state.h
 *		How far each view is: what refreshes store beside the rows.
 */
#ifndef MD_VIEW_STATE_H
#define MD_VIEW_STATE_H

#include "postgres.h"
#include "access/transam.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

#include "refresh_steps.h"
#include "view_catalog.h"

/* One run, for medallion.refresh_run and for the caller of refresh(). */
typedef struct MdRun
{
	TimestampTz started_at;
	const char *strategy;		/* "none": nothing was new */
	const char *reason;			/* why that one; NULL: it is the plan */
	int64		rows_read;		/* -1: not known */
	int64		rows_inserted;
	int64		rows_updated;
	int64		rows_deleted;
	int64		refresh_number; /* of the view after it */
	TimestampTz source_at;		/* first commit in a source that it took in; 0: not known */
	MdSteps		steps;
} MdRun;

/* Forget how far the view is: its definition is new. */
extern void md_view_forget_frontier(Oid relid, const char *strategy);

/* State after a refresh, and what the views above need to know. */
extern void md_view_store_state(const MdView *view, const char *strategy,
								MdRun *run, Snapshot snapshot);
extern void md_view_store_rewrite(Oid relid);
extern void md_view_store_change(const MdView *view, FullTransactionId xid, Oid filenode,
								 ItemPointer first, ItemPointer last, int64 rows,
								 Snapshot snapshot);
extern void md_view_store_run(Oid relid, MdRun *run, TimestampTz finished_at);

/* Take over how far another view is, which has the same query; into run, too. */
extern void md_view_adopt_state(Oid relid, Oid other, MdRun *run);

/* A refresh failed (sqlstate, message), or no more does. */
extern int	md_view_store_failure(Oid relid, const MdRun *run, const char *sqlstate,
								  const char *message, TimestampTz now);
extern void md_view_store_retry(Oid relid, TimestampTz retry_at);
extern bool md_view_clear_failure(Oid relid);

#endif							/* MD_VIEW_STATE_H */
