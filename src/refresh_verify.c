/*
 * refresh_verify.c
 *		Is a view what its query says?
 *
 * The query is run as of the last refresh: streaming tables below the stored
 * frontier, now() at its time, so ingest may go on meanwhile.  Sources whose
 * changes are not known are read as they are now; what has changed in them
 * since the last refresh shows as a difference.
 *
 * Sums of floating-point numbers depend on the order of their terms, and the
 * query itself gives another one from run to run.  Rows that differ only in
 * such columns count as equal when these are within a relative 1e-9 (real:
 * 1e-4) of each other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "catalog.h"
#include "frontier.h"
#include "refresh_culprits.h"
#include "refresh_dependent.h"
#include "refresh_errors.h"
#include "refresh_exec.h"
#include "refresh_quarantine.h"
#include "sql_run.h"
#include "view_settings.h"

#define DIFFERENCES "medallion_differences"

/*
 * Parts of the sources that had been read at the stored frontier; what they
 * read is registered with SPI.
 */
static List *
read_parts(MdView *view, Snapshot snapshot, bool fenced)
{
	List	   *parts = NIL;
	ListCell   *lc;

	foreach(lc, md_frontier_load(view->relid, snapshot))
	{
		MdSource   *source = lfirst(lc);
		MdPart	   *part = palloc(sizeof(MdPart));

		/* told apart by columns that the owner may not read: taken as it is */
		if (pg_class_aclcheck(source->relid, view->owner, ACL_SELECT) != ACLCHECK_OK)
			continue;
		if (!md_frontier_read_part(source, snapshot, part))
			continue;
		if (part->store_name != NULL)
			md_diff_register(part->store_name, part->store, part->store_desc);
		part->is_fenced = fenced;
		parts = lappend(parts, part);
	}
	return parts;
}

Query *
md_refresh_frontier_tree(MdView *view, Query *query, Snapshot snapshot, bool fenced)
{
	int			location;

	/* system columns, and columns that a primary key determines, are of tables themselves: as they are now */
	return md_read_substitute(query, md_plan_has_system_column(query, &location) || md_query_has_dependent(query) ?
							  NIL : read_parts(view, snapshot, fenced));
}

char *
md_refresh_frontier_query(MdView *view, Snapshot snapshot, bool fenced)
{
	MdPlan	   *plan = md_quarantine_plan(view, snapshot);

	return md_refresh_query_text(md_refresh_frontier_tree(view, plan->query, snapshot, fenced), view->refreshed_at);
}

/* "AND a nearly equals b" for a column, or nothing if it is not a float. */
static void
append_near(StringInfo near, const MdTargetColumn *column, int number)
{
	const char *tolerance = column->type_id == FLOAT4OID ? "1e-4" : "1e-9";

	appendStringInfo(near,
					 " AND (n.c%d IS NOT DISTINCT FROM o.c%d OR"
					 " pg_catalog.abs(n.c%d::pg_catalog.float8 - o.c%d::pg_catalog.float8) <= %s *"
					 " GREATEST(pg_catalog.abs(n.c%d), pg_catalog.abs(o.c%d)))",
					 number, number, number, number, tolerance, number, number);
}

/* Condition that leaves out rows that differ by rounding alone. */
static char *
tolerance_condition(const MdTarget *target)
{
	List	   *exact = NIL;
	StringInfoData near;

	initStringInfo(&near);
	for (int i = 1; i <= target->count; i++)
	{
		const MdTargetColumn *column = &target->columns[i - 1];

		if (column->type_id == FLOAT4OID || column->type_id == FLOAT8OID)
			append_near(&near, column, i);
		else
			exact = lappend_int(exact, i);
	}
	if (near.len == 0)
		return "true";
	return psprintf("NOT EXISTS (SELECT FROM " DIFFERENCES " o WHERE o.w = - n.w"
					" AND ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record%s)",
					exact ? md_target_numbered_comparable(target, "o", exact) : "1",
					exact ? md_target_numbered_comparable(target, "n", exact) : "1",
					near.data);
}

/* "n.c1 AS a, n.c2 AS b" */
static char *
named_columns(const MdTarget *target)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= target->count; i++)
		appendStringInfo(&list, "%sn.c%d AS %s", i > 1 ? ", " : "", i,
						 target->columns[i - 1].name);
	return list.data;
}

/* Put the rows of the last result, as they are, into the caller's store. */
static void
store_rows(Tuplestorestate *store, TupleDesc tupdesc)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[3];
		bool		nulls[3];

		for (int k = 0; k < 3; k++)
			values[k] = md_sql_datum(i, k + 1, &nulls[k]);
		tuplestore_putvalues(store, tupdesc, values, nulls);
	}
}

typedef struct Comparison
{
	MdView	   *view;
	Snapshot	snapshot;
	bool		fenced;
	Tuplestorestate *store;		/* gets the differences */
	TupleDesc	tupdesc;
} Comparison;

/* Compare under the owner's privileges. */
static void
compare(void *arg)
{
	Comparison *comparison = arg;
	MdView	   *view = comparison->view;
	Snapshot	snapshot = comparison->snapshot;
	MdTarget   *target = md_target_make(view->relid);
	char	   *query;
	TupleDesc	differences_desc;
	Tuplestorestate *differences;

	SPI_connect();
	query = md_refresh_frontier_query(view, snapshot, comparison->fenced);
	differences = md_sql_run_into_store(md_diff_sql(target, query, NULL), snapshot,
										&differences_desc);
	if (tuplestore_tuple_count(differences) > 0)
	{
		md_diff_register(DIFFERENCES, differences, differences_desc);
		md_sql_run(psprintf("SELECT CASE WHEN n.w > 0 THEN 'missing' ELSE 'extra' END,"
							"       (SELECT pg_catalog.to_jsonb(x) FROM (SELECT %s) x),"
							"       pg_catalog.abs(n.w)"
							"  FROM " DIFFERENCES " n WHERE %s ORDER BY 1, 2",
							named_columns(target), tolerance_condition(target)),
				   NULL, snapshot);
		store_rows(comparison->store, comparison->tupdesc);
		SPI_unregister_relation(DIFFERENCES);
	}
	tuplestore_end(differences);
	SPI_finish();
}

void
md_refresh_verify(Oid relid, Tuplestorestate *store, TupleDesc tupdesc)
{
	Snapshot	snapshot;
	MdView	   *view;
	Comparison	comparison = {.store = store, .tupdesc = tupdesc};
	ErrorData  *error;
	MdSecurity	saved;
	int64		left_out;

	md_frontier_hold(relid);
	comparison.snapshot = snapshot = md_sql_take_snapshot();
	comparison.view = view = md_view_get(relid, snapshot);
	md_view_check_query(view);
	if (!view->populated)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("materialized view \"%s\" has not been populated", get_rel_name(relid)),
				 errhint("Call medallion.refresh() first.")));
	md_catalog_become(view->owner, &saved);
	md_view_settings_apply(view->settings);
	/* rows that came since the last refresh may be ones that cannot be computed */
	error = md_attempt(compare, &comparison);
	if (error != NULL && !md_culprits_is_data_error(error))
		ReThrowError(error);
	if (error != NULL)
	{
		comparison.fenced = true;
		compare(&comparison);
	}
	md_catalog_restore_user(&saved);
	left_out = md_errors_count(md_errors_load(relid, snapshot));
	if (left_out > 0)
		ereport(NOTICE,
				(errmsg_plural("materialized view \"%s\" was compared with its query without %ld quarantined row of its sources",
							   "materialized view \"%s\" was compared with its query without %ld quarantined rows of its sources",
							   (unsigned long) left_out, get_rel_name(relid), (long) left_out),
				 errhint("medallion.refresh_errors lists them.")));
	UnregisterSnapshot(snapshot);
}
