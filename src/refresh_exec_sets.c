/*
 * refresh_exec_sets.c
 *		From the groups of grouping sets to a result that does not tell them apart.
 *
 *		a	b	sum								a	b	set	sum
 *		x		 7	--- all that have (x, NULL) ---	x		0	 3
 *		x		10								x		1	10
 *
 * For the keys of each group that was merged, the rows of the result and those of the
 * state are numbered, and put side by side: rows that have the same number are one, which
 * is updated in place; the others come or go.  Which is which does not matter.
 *
 * Groups that are made again are read set by set, because their rows are found by the
 * keys that the set has.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"

#include "refresh_delta.h"
#include "refresh_exec_merge.h"
#include "refresh_tree.h"
#include "sql_run.h"

#define PAIRS "medallion_pairs"

char *
md_sets_rows(MdRefresh *refresh, const MdTarget *state, List *numbers, MdKeys *keys)
{
	Query	   *query = md_engine_analyze(refresh->engine,
										  psprintf("SELECT %s, r.ctid AS tid FROM %s r",
												   md_target_columns(state, "r", NIL), state->name));
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, numbers)
		exprs = lappend(exprs, md_tree_target(query, lfirst_int(lc))->expr);
	return psprintf("SELECT * FROM (%s) r(%s, tid)",
					md_delta_text(md_tree_union_all(md_keys_restrict(refresh->engine, query, exprs, keys, false))),
					md_target_columns(state, NULL, NIL));
}

/* Rows of a table, c1, c2, ..., tid, with a number n among those of the same keys. */
static char *
numbered_sql(const MdTarget *target, List *keys, const char *rows)
{
	return psprintf("SELECT x.*, pg_catalog.row_number() OVER (PARTITION BY %s) AS n FROM (%s) x(%s, tid)",
					md_target_numbered(target, "x", keys), rows, md_target_numbered(target, NULL, NIL));
}

/*
 * SELECT of rows that differ: c1, c2, ... as they are now, whether there is one, and
 * tid of the one that was there.  keys: what no update changes.
 */
static char *
pairs_sql(const MdTarget *result, List *keys, const char *before, const char *now)
{
	List	   *others = md_target_others(result, keys);
	char	   *differ = others == NIL ? "false" :
		psprintf("ROW(%s) IS DISTINCT FROM ROW(%s)", md_target_numbered_comparable(result, "o", others),
				 md_target_numbered_comparable(result, "n", others));

	return psprintf("SELECT %s, n.n IS NOT NULL AS stays, o.tid FROM (%s) o FULL JOIN (%s) n"
					" ON ROW(%s, o.n)::pg_catalog.record = ROW(%s, n.n)::pg_catalog.record"
					" WHERE o.n IS NULL OR n.n IS NULL OR %s",
					md_target_numbered(result, "n", NIL), numbered_sql(result, keys, before),
					numbered_sql(result, keys, now), md_target_numbered(result, "o", keys),
					md_target_numbered(result, "n", keys), differ);
}

static void
read_pairs(MdRefresh *refresh, const char *sql, int64 lookups, MdNamedStore *pairs)
{
	TupleDesc	tupdesc;
	Tuplestorestate *store = md_signed_run_lookups(refresh, sql, lookups, &tupdesc);

	md_relation_store(pairs, PAIRS, store, tupdesc);
}

static void
write_pairs(MdRefresh *refresh, List *keys)
{
	const MdTarget *result = refresh->result;
	List	   *others = md_target_others(result, keys);

	refresh->run.rows_deleted +=
		md_sql_run(psprintf("DELETE FROM %s r USING " PAIRS " n WHERE NOT n.stays AND r.ctid = n.tid",
							result->name), NULL, refresh->snapshot);
	if (others != NIL)
		refresh->run.rows_updated +=
			md_sql_run(psprintf("UPDATE %s r SET %s FROM " PAIRS " n WHERE n.stays AND r.ctid = n.tid",
								result->name, md_target_assignments(result, others)), NULL, refresh->snapshot);
	refresh->run.rows_inserted +=
		md_sql_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM " PAIRS " n WHERE n.tid IS NULL",
							result->name, md_target_columns(result, NULL, NIL),
							md_target_numbered(result, "n", NIL)), NULL, refresh->snapshot);
}

void
md_sets_carry(MdRefresh *refresh, const MdTarget *state)
{
	MdMerge    *merge = refresh->plan->merge;
	const MdTarget *result = refresh->result;
	List	   *own_keys = list_truncate(md_merge_keys(merge), md_sets_own_keys(merge));
	List	   *unique = md_refresh_unique_columns(refresh);
	List	   *keys = list_concat_unique_int(list_copy(merge->result_keys), unique);
	MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_APPLY);
	MdKeys	   *touched = md_merge_touched(refresh, psprintf("SELECT %s FROM " MD_MERGED " m",
															 md_target_columns(state, "m", own_keys)));
	MdNamedStore pairs;
	char	   *before;
	char	   *now;

	if (touched != NULL)
	{
		before = psprintf("SELECT %s, r.ctid FROM %s r, %s k WHERE %s", md_target_columns(result, "r", NIL),
						  result->name, touched->name,
						  md_upsert_hash_match(result, merge->result_keys, "r", md_keys_columns(touched, "k")));
		now = md_merge_final_query(merge, state,
								   psprintf("(%s)", md_sets_rows(refresh, state, own_keys, touched)));
		now = psprintf("SELECT q.*, NULL::pg_catalog.tid FROM (%s) q", now);
		read_pairs(refresh, pairs_sql(result, keys, before, now),
				   touched->as_records || md_upsert_is_hashed(state) ? PG_INT32_MAX : touched->count, &pairs);
		write_pairs(refresh, keys);
		md_relation_forget(&pairs);
	}
	(void) md_step(&refresh->run.steps, step);
}

char *
md_sets_recomputed(MdRefresh *refresh, MdKeys *touched)
{
	MdMerge    *merge = refresh->plan->merge;
	Query	   *input = md_partial_input(merge);
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, md_sets_distinct(merge))
	{
		int			set = lfirst_int(lc);
		char	   *of_set = psprintf("FROM %s WHERE k%d = %d", touched->name, merge->key_count, set);
		MdPartialSource source = {0};
		StringInfoData names;
		List	   *columns = NIL;
		MdKeys	   *keys = NULL;

		initStringInfo(&names);
		for (int key = 1; key <= md_sets_own_keys(merge); key++)
			if (md_sets_has_key(merge, set, key))
			{
				MdMergeColumn *column = list_nth(merge->columns, key - 1);

				columns = lappend_int(columns, castNode(Var, column->expr)->varattno);
				appendStringInfo(&names, "%sk%d", names.len > 0 ? ", " : "", key);
			}
		if (md_sql_run(psprintf("SELECT %s LIMIT 1", of_set), NULL, refresh->snapshot) == 0)
			continue;
		if (columns != NIL)
			keys = md_merge_touched(refresh, psprintf("SELECT %s %s", names.data, of_set));
		source.rows = md_merge_restricted(refresh, input, columns, keys);
		appendStringInfo(&sql, "%s(%s)", sql.len > 0 ? " UNION ALL " : "",
						 md_partial_set_text(merge, &source, set));
	}
	return sql.data;
}
