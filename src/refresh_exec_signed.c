/*
 * refresh_exec_signed.c
 *		Applying rows that came and went to a result.
 *
 * The change is added up by row: what is left are rows to be inserted, and rows
 * to be deleted, so many copies of each.  These are found in the result by a
 * hash of the row, through an index over it that is made when the first row
 * goes; the comparison that follows is of the whole row.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "guard.h"
#include "refresh_exec.h"
#include "row_index.h"
#include "sql_run.h"

/* A change to as much of the result goes row by row through the index. */
#define INDEX_SHARE 20

/* Number of rows that are to be deleted, copies counted. */
static int64
count_deletions(MdRefresh *refresh, const char *net)
{
	md_sql_run(psprintf("SELECT (- pg_catalog.sum(" MD_WEIGHT ") FILTER (WHERE " MD_WEIGHT " < 0))::pg_catalog.int8"
						" FROM %s", net), NULL, refresh->snapshot);
	return md_sql_int64(0, 1);
}

/*
 * SELECT of rows to delete, in the form of md_diff_sql(): a row of the result
 * each, as many as there are copies to go.
 */
static char *
deletions_sql(const MdTarget *target, const char *net)
{
	return psprintf("SELECT %s, -1::pg_catalog.int8 AS w, x.tid FROM (SELECT n.*, r.ctid AS tid,"
					"   pg_catalog.row_number() OVER (PARTITION BY n.id) AS copy"
					" FROM %s n, %s r WHERE n." MD_WEIGHT " < 0 AND %s"
					" AND ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record) x"
					" WHERE x.copy <= - x." MD_WEIGHT,
					md_target_numbered(target, "x", NIL), net, target->name,
					md_row_index_condition(target, "r", "n"),
					md_target_comparable(target, "r", NIL),
					md_target_numbered_comparable(target, "n", NIL));
}

Tuplestorestate *
md_signed_run_lookups(MdRefresh *refresh, const char *sql, int64 lookups, TupleDesc *tupdesc)
{
	int			nest_level = NewGUCNestLevel();
	Tuplestorestate *store;

	if (lookups * INDEX_SHARE < md_row_index_rows(refresh->result))
	{
		(void) set_config_option("enable_hashjoin", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("enable_mergejoin", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	store = md_sql_run_into_store(sql, refresh->snapshot, tupdesc);
	AtEOXact_GUC(false, nest_level);
	return store;
}

/* Insert what came; nothing went. */
static void
insert_rows(MdRefresh *refresh, const char *net)
{
	const MdTarget *target = refresh->result;
	MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_APPLY);
	Oid			guarded = md_guard_open(target->relid);

	refresh->run.rows_inserted +=
		md_sql_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM %s n,"
							" LATERAL medallion.copies(n." MD_WEIGHT ") s",
							target->name, md_target_columns(target, NULL, NIL),
							md_target_numbered(target, "n", NIL), net),
				   NULL, refresh->snapshot);
	md_guard_open(guarded);
	(void) md_step(&refresh->run.steps, step);
}

void
md_signed_apply(MdRefresh *refresh)
{
	MdEngine   *engine = refresh->engine;
	const MdTarget *target = refresh->result;
	MdChange	change;
	char	   *net;
	int64		deletions;
	Tuplestorestate *changes;
	TupleDesc	tupdesc;
	int64		insertions;

	md_delta_block(engine, refresh->plan->normal, &change);
	if (change.query == NULL || engine->why_full != NULL)
		return;
	if (md_engine_materialize(engine,
							  psprintf("SELECT pg_catalog.row_number() OVER () AS id, n.* FROM (%s) n",
									   md_delta_net_text(change.query, change.is_signed, false)),
							  &net, NULL) == 0)
		return;
	deletions = count_deletions(refresh, net);
	if (deletions == 0 && md_refresh_unique_columns(refresh) == NIL)
	{
		insert_rows(refresh, net);
		return;
	}
	if (deletions > 0)
	{
		MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_INDEX);

		md_row_index_ensure(target);
		(void) md_step(&refresh->run.steps, step);
	}
	changes = md_signed_run_lookups(refresh,
									psprintf("SELECT %s, n." MD_WEIGHT " AS w, NULL::pg_catalog.tid AS tid"
											 " FROM %s n WHERE n." MD_WEIGHT " > 0 UNION ALL %s",
											 md_target_numbered(target, "n", NIL), net,
											 deletions_sql(target, net)),
									deletions, &tupdesc);
	md_sql_run(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE " MD_WEIGHT " > 0", net),
			   NULL, refresh->snapshot);
	insertions = md_sql_int64(0, 1);
	/* sums of floating-point numbers, say, that come out otherwise now */
	if (tuplestore_tuple_count(changes) != insertions + deletions)
		md_engine_give_up(engine, "rows that go were not all found in the result");
	else
		md_diff_apply_store(target, changes, tupdesc, md_refresh_unique_columns(refresh),
							refresh->snapshot, &refresh->run);
	tuplestore_end(changes);
}
