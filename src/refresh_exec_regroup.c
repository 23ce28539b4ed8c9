/*
 * refresh_exec_regroup.c
 *		Computing rows of touched keys again.
 *
 *		change of the input --> keys --> the query restricted to them
 *									\--> the result restricted to them
 *
 * and what differs between the two is applied.  Where the result does not show
 * the keys, its rows are told by the query over the sources as they were.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"

#include "refresh_cost.h"
#include "refresh_exec.h"
#include "refresh_normal.h"
#include "refresh_tree.h"
#include "refresh_upsert.h"
#include "sql_run.h"
#include "stable_functions.h"

/* SQL of queries under UNION ALL. */
static char *
union_text(List *queries)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, queries)
		appendStringInfo(&sql, "%s(%s)", sql.len > 0 ? " UNION ALL " : "",
						 md_delta_text(lfirst_node(Query, lc)));
	return sql.data;
}

/* SQL of the result's rows of some keys, with their ctid. */
static char *
present_sql(MdRefresh *refresh, MdKeys *keys)
{
	const MdTarget *target = refresh->result;
	char	   *columns = md_target_columns(target, "r", NIL);
	Query	   *query;
	List	   *exprs = NIL;
	ListCell   *lc;

	if (md_upsert_is_hashed(target))
		return psprintf("SELECT %s, r.ctid AS tid FROM %s r, %s k WHERE %s", columns, target->name, keys->name,
						md_upsert_hash_match(target, refresh->plan->key_columns, "r", md_keys_columns(keys, "k")));
	query = md_engine_analyze(refresh->engine, psprintf("SELECT %s, r.ctid AS tid FROM %s r", columns, target->name));
	foreach(lc, refresh->plan->key_columns)
		exprs = lappend(exprs, md_tree_target(query, lfirst_int(lc))->expr);
	return union_text(md_keys_restrict(refresh->engine, query, exprs, keys, false));
}

/* Differences between the query's and the result's rows of the keys. */
static char *
difference_sql(MdRefresh *refresh, MdKeys *keys)
{
	const MdTarget *target = refresh->result;
	char	   *numbered = md_target_numbered(target, NULL, NIL);
	List	   *now = md_keys_restrict(refresh->engine, refresh->plan->normal,
									   refresh->plan->keys, keys, false);

	return psprintf("SELECT %s pg_catalog.sum(u.w)::pg_catalog.int8 AS w, pg_catalog.min(u.tid) AS tid"
					" FROM (SELECT %s, -1 AS w, o.tid FROM (%s) o(%s, tid) UNION ALL"
					"       SELECT %s, 1, NULL FROM (%s) n(%s)) u"
					" GROUP BY %s HAVING pg_catalog.sum(u.w) <> 0",
					md_diff_output(target),
					numbered, present_sql(refresh, keys), numbered,
					numbered, union_text(now), numbered,
					md_target_numbered_comparable(target, "u", NIL));
}

void
md_regroup_apply(MdRefresh *refresh)
{
	MdPlan	   *plan = refresh->plan;
	MdEngine   *engine = refresh->engine;
	MdBlockKind kind = md_block_kind(plan->normal);
	MdKeys	   *keys;
	Tuplestorestate *changes;
	TupleDesc	tupdesc;
	char	   *sql;

	if (!md_engine_changes(engine, plan->normal))
		return;
	if (plan->keys == NIL && kind != MD_BLOCK_SET)
	{
		/* one row, or the first rows by some order */
		md_diff_apply(refresh->result,
					  md_delta_text(md_state_query(engine, plan->normal, false)),
					  md_refresh_unique_columns(refresh), NULL, refresh->snapshot, &refresh->run);
		return;
	}
	if (plan->key_columns == NIL || kind == MD_BLOCK_DISTINCT)
	{
		md_signed_apply(refresh);
		return;
	}
	keys = md_delta_touched(engine, plan->normal, plan->keys);
	if (keys == NULL || keys->count == 0 || engine->why_full != NULL)
		return;
	sql = difference_sql(refresh, keys);
	if (!md_cost_affords(engine, sql))
		return;
	changes = md_sql_run_into_store(sql, refresh->snapshot, &tupdesc);
	md_diff_apply_store(refresh->result, changes, tupdesc, md_refresh_unique_columns(refresh),
						refresh->snapshot, &refresh->run);
	tuplestore_end(changes);
}
