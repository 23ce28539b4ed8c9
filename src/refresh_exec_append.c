/*
 * refresh_exec_append.c
 *		Inserting the rows that came into a result that only grows.
 *
 * Readers of the view know its new rows by the transaction that wrote them and
 * the bounds of their places.  So a second refresh in one transaction writes its
 * rows in a subtransaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

#include "attempt.h"
#include "guard.h"
#include "refresh_exec.h"
#include "sql_run.h"

static Oid
present_filenode(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	Oid			filenode = rel->rd_rel->relfilenode;

	table_close(rel, NoLock);
	return filenode;
}

/* Rows that are inserted, and which these are. */
typedef struct Appended
{
	MdRefresh  *refresh;
	Query	   *rows;
	FullTransactionId xid;
	ItemPointerData first;
	ItemPointerData last;
} Appended;

static void
insert_rows(void *arg)
{
	Appended   *appended = arg;
	MdRefresh  *refresh = appended->refresh;
	Oid			guarded = md_guard_open(refresh->view->relid);
	bool		isnull;

	md_sql_run(psprintf("WITH w AS (INSERT INTO %s (%s) SELECT * FROM (%s) q RETURNING ctid)"
						" SELECT pg_catalog.count(*), pg_catalog.min(ctid), pg_catalog.max(ctid) FROM w",
						refresh->result->name, md_target_columns(refresh->result, NULL, NIL),
						md_delta_text(appended->rows)),
			   NULL, refresh->snapshot);
	md_guard_open(guarded);
	refresh->run.rows_inserted = md_sql_int64(0, 1);
	if (refresh->run.rows_inserted == 0)
		return;
	appended->xid = GetCurrentFullTransactionId();
	appended->first = *(ItemPointer) DatumGetPointer(md_sql_datum(0, 2, &isnull));
	appended->last = *(ItemPointer) DatumGetPointer(md_sql_datum(0, 3, &isnull));
}

void
md_append_apply(MdRefresh *refresh)
{
	MdChange	change;
	MdView	   *view = refresh->view;
	MdStepKind	step;
	Appended	appended = {.refresh = refresh};

	md_delta_block(refresh->engine, refresh->plan->normal, &change);
	if (change.query == NULL || refresh->engine->why_full != NULL)
		return;
	if (change.is_signed)
		elog(ERROR, "rows can go from a view that was taken for append-only");
	appended.rows = change.query;
	step = md_step(&refresh->run.steps, MD_STEP_APPLY);
	if (TransactionIdIsCurrentTransactionId(view->state_xid))
	{
		ErrorData  *error = md_attempt(insert_rows, &appended);

		if (error != NULL)
			ReThrowError(error);
	}
	else
		insert_rows(&appended);
	(void) md_step(&refresh->run.steps, step);
	if (refresh->run.rows_inserted == 0)
		return;
	view->refresh_number++;
	md_view_store_change(view, appended.xid, present_filenode(view->relid), &appended.first,
						 &appended.last, refresh->run.rows_inserted, refresh->snapshot);
}
