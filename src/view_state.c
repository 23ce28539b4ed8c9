/*
 * view_state.c
 *		How far each view is: what refreshes store beside the rows.
 *
 * view_state and view_source are written in the transaction of the refresh,
 * so they say what its rows show.  Nothing is written where nothing was new.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "sql_run.h"
#include "type_shape.h"
#include "view_state.h"

/* The definition changed: what is there now must be compared as a whole. */
void
md_view_forget_frontier(Oid relid, const char *strategy)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(strategy), false);
	md_view_sql_run("UPDATE medallion.view_state SET populated = false, strategy = $2 WHERE relid = $1",
			&args);
}

/*
 * The first commit in a source, at any depth below, that a refresh takes in: of
 * what was not read by the stored frontier.  0 if it is not known.
 */
static TimestampTz
first_commit(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};
	Datum		value;
	bool		isnull;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_run_cached(&plan, "SELECT min(since) FROM medallion.source_waiting WHERE relid = $1",
					  &args, snapshot);
	value = md_sql_datum(0, 1, &isnull);
	return isnull ? 0 : DatumGetTimestampTz(value);
}

void
md_view_store_state(const MdView *view, const char *strategy, MdRun *run, Snapshot snapshot)
{
	static SPIPlanPtr state_plan = NULL;
	const MdViewCost *cost = &view->cost;
	Datum		types;
	Datum		shapes;
	bool		has_types = md_type_shapes_arrays(view->type_shapes, &types, &shapes);
	TimestampTz now = GetCurrentTimestamp();
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	run->refresh_number = view->refresh_number;
	md_view_sql_begin(&saved);
	run->source_at = first_commit(view->relid, snapshot);

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view->relid), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(view->refresh_number), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(view->rewritten_number), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(run->started_at), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(view->refreshed_at), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(strategy), false);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(view->always_refresh), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(run->source_at), run->source_at == 0);
	md_sql_arg(&args, FLOAT8OID, Float8GetDatum(cost->recompute_ms), cost->recompute_ms == 0);
	md_sql_arg(&args, FLOAT8OID, Float8GetDatum(cost->recompute_rows), cost->recompute_ms == 0);
	md_sql_arg(&args, FLOAT8OID, Float8GetDatum(cost->change_ms), cost->change_ms == 0);
	md_sql_arg(&args, FLOAT8OID, Float8GetDatum(cost->change_rows), cost->change_ms == 0);
	md_sql_arg(&args, INT8OID, Int64GetDatum(cost->recomputes), false);
	md_sql_arg(&args, REGTYPEARRAYOID, types, !has_types);
	md_sql_arg(&args, INT8ARRAYOID, shapes, !has_types);
	if (md_sql_run_cached(&state_plan,
						  "UPDATE medallion.view_state SET populated = true, refresh_number = $2,"
						  "       rewritten_number = $3, started_at = $4, refreshed_at = $5,"
						  "       strategy = $6, always_refresh = $7, duration = $8 - $4,"
						  "       latency = $8 - $9, recompute_ms = $10, recompute_rows = $11,"
						  "       change_ms = $12, change_rows = $13, recomputes = $14,"
						  "       shown_types = $15, type_shapes = $16 WHERE relid = $1",
						  &args, snapshot) != 1)
		elog(ERROR, "view %u has no state", view->relid);
	md_view_sql_end(&saved);
}

/* Rows were changed, and the frontier was not. */
void
md_view_store_rewrite(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_run("UPDATE medallion.view_state SET refresh_number = refresh_number + 1,"
					"       rewritten_number = refresh_number + 1 WHERE relid = $1", &args);
}

void
md_view_adopt_state(Oid relid, Oid other, MdRun *run)
{
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(other), false);
	md_view_sql_begin(&saved);
	md_sql_run("DELETE FROM medallion.view_source WHERE relid = $1 AND $2 IS NOT NULL", &args, snapshot);
	md_sql_run("UPDATE medallion.view_source SET relid = $1 WHERE relid = $2", &args, snapshot);
	if (md_sql_run("UPDATE medallion.view_state s"
				   "   SET populated = true, refresh_number = s.refresh_number + 1,"
				   "       rewritten_number = s.refresh_number + 1, started_at = n.started_at,"
				   "       refreshed_at = n.refreshed_at, strategy = n.strategy,"
				   "       always_refresh = n.always_refresh, recompute_ms = n.recompute_ms,"
				   "       recompute_rows = n.recompute_rows, change_ms = n.change_ms,"
				   "       change_rows = n.change_rows, recomputes = n.recomputes,"
				   "       shown_types = n.shown_types, type_shapes = n.type_shapes"
				   "  FROM medallion.view_state n"
				   " WHERE s.relid = $1 AND n.relid = $2 RETURNING s.refresh_number",
				   &args, snapshot) != 1)
		elog(ERROR, "view %u or %u has no state", relid, other);
	run->refresh_number = md_sql_int64(0, 1);
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
}

void
md_view_store_change(const MdView *view, FullTransactionId xid, Oid filenode,
					 ItemPointer first, ItemPointer last, int64 rows, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view->relid), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(view->refresh_number), false);
	md_sql_arg(&args, XID8OID, FullTransactionIdGetDatum(xid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(filenode), false);
	md_sql_arg(&args, TIDOID, PointerGetDatum(first), false);
	md_sql_arg(&args, TIDOID, PointerGetDatum(last), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(rows), false);
	md_view_sql_begin(&saved);
	/* kept for readers only: without one there is nothing to keep it for */
	md_sql_run_cached(&plan,
					  "INSERT INTO medallion.view_change"
					  " SELECT $1, $2, $3, $4, $5, $6, $7"
					  "  WHERE EXISTS (SELECT FROM medallion.view_source s WHERE s.source = $1)",
					  &args, snapshot);
	md_view_sql_end(&saved);
}

void
md_view_store_run(Oid relid, MdRun *run, TimestampTz finished_at)
{
	MdSqlArgs	args = {0};
	char	   *steps = md_steps_json(&run->steps);

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(run->started_at), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(finished_at), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(run->strategy), false);
	md_sql_arg(&args, TEXTOID, run->reason ? CStringGetTextDatum(run->reason) : (Datum) 0,
			   run->reason == NULL);
	md_sql_arg(&args, INT8OID, Int64GetDatum(run->rows_read), run->rows_read < 0);
	md_sql_arg(&args, INT8OID, Int64GetDatum(run->rows_inserted), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(run->rows_updated), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(run->rows_deleted), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(run->refresh_number), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(run->source_at), run->source_at == 0);
	md_sql_arg(&args, TEXTOID, steps ? CStringGetTextDatum(steps) : (Datum) 0, steps == NULL);
	md_view_sql_run("INSERT INTO medallion.refresh_run (relid, started_at, finished_at, strategy, reason,"
					"       rows_read, rows_inserted, rows_updated, rows_deleted, refresh_number,"
					"       source_at, steps)"
					" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb)", &args);
}

int
md_view_store_failure(Oid relid, const MdRun *run, const char *sqlstate, const char *message,
					  TimestampTz now)
{
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();
	int			failures = 0;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(sqlstate), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(message), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(run->started_at), false);
	md_view_sql_begin(&saved);
	md_sql_run("INSERT INTO medallion.refresh_run (relid, started_at, finished_at, sqlstate, message)"
			   " SELECT v.relid, $5, $4, $2, $3 FROM medallion.view v WHERE v.relid = $1",
			   &args, snapshot);
	args.count = 4;
	if (md_sql_run("INSERT INTO medallion.view_status AS s"
				   "       (relid, sqlstate, message, failures, since, retry_at)"
				   " SELECT v.relid, $2, $3, 1, $4, $4 FROM medallion.view v WHERE v.relid = $1"
				   " ON CONFLICT (relid) DO UPDATE SET failures = s.failures + 1,"
				   "       sqlstate = excluded.sqlstate, message = excluded.message,"
				   "       retry_at = excluded.retry_at"
				   " RETURNING failures::bigint", &args, snapshot) > 0)
		failures = (int) md_sql_int64(0, 1);
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
	return failures;
}

void
md_view_store_retry(Oid relid, TimestampTz retry_at)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(retry_at), false);
	md_view_sql_run("UPDATE medallion.view_status SET retry_at = $2 WHERE relid = $1", &args);
}

bool
md_view_clear_failure(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	return md_view_sql_run("DELETE FROM medallion.view_status WHERE relid = $1", &args) > 0;
}
