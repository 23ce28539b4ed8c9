/*
 * refresh_exec_leaving.c
 *		Groups of a change in which rows left, too.
 *
 * Counts and exact sums are subtracted. What cannot be: a minimum whose rows left, a
 * sum of floats (what is left of 1e20 + 1 - 1e20 is not 1), NaN, a sum that comes to 0
 * and may be one of no values (NULL). Groups with such are picked out by one join with the target, and recomputed from the rows that
 * they have now:
 *
 *		groups --join target--> touched keys --input restricted to them--> recomputed
 *			 \--------- the others ----------------------------------> combined
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"

#include "refresh_delta.h"
#include "refresh_exec_merge.h"
#include "refresh_normal.h"
#include "refresh_state.h"
#include "refresh_tree.h"
#include "sql_run.h"

#define RECOMPUTED "medallion_recomputed"

/*
 * Must a group g of the change that is t in the target, or not there, be recomputed
 * for a column?  A row may have come and left in the same change.
 */
static void
append_doubt(StringInfo doubts, const MdMergeColumn *column, int number, const char *name)
{
	if (!md_partial_asks(column))
		return;
	if (doubts->len > 0)
		appendStringInfoString(doubts, " OR ");
	/*
	 * Only what comes before all that left is sure to be there.  By records, because
	 * these compare as indexes of the type do.
	 */
	if (column->combine == MD_COMBINE_LEAST || column->combine == MD_COMBINE_GREATEST)
	{
		const char *before = column->combine == MD_COMBINE_LEAST ? "<" : ">";

		appendStringInfo(doubts, "g.m%d IS NOT NULL"
						 " AND (g.c%d IS NULL OR NOT ROW(g.c%d)::pg_catalog.record %s ROW(g.m%d)::pg_catalog.record)"
						 " AND (t.%s IS NULL OR NOT ROW(t.%s)::pg_catalog.record %s ROW(g.m%d)::pg_catalog.record)",
						 number, number, number, before, number, name, name, before, number);
	}
	else if (column->inexact)
		appendStringInfo(doubts, "g.m%d", number);
	else
	{
		appendStringInfo(doubts, "g.m%d AND (false", number);
		if (column->may_vanish)
			appendStringInfo(doubts, " OR COALESCE(t.%s OPERATOR(pg_catalog.+) g.c%d, g.c%d) OPERATOR(pg_catalog.=) '0'",
							 name, number, number);
		if (exprType((Node *) column->expr) == NUMERICOID)
			appendStringInfo(doubts, " OR NOT (COALESCE(t.%s > '-Infinity' AND t.%s < 'Infinity', true)"
							 " AND g.c%d > '-Infinity' AND g.c%d < 'Infinity')",
							 name, name, number, number);
		appendStringInfoChar(doubts, ')');
	}
}

/* "c1, c2" after an alias: all columns, or just keys. */
static char *
columns_of(const MdMerge *merge, const char *alias)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int n = 1; n <= list_length(merge->columns); n++)
		appendStringInfo(&list, "%s%s.c%d", n > 1 ? ", " : "", alias, n);
	return list.data;
}

/* Names c<n> of keys. */
static const char *const *
key_names(const MdMerge *merge)
{
	const char **names = palloc(sizeof(char *) * Max(1, merge->key_count));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, md_merge_keys(merge))
		names[count++] = psprintf("c%d", lfirst_int(lc));
	return names;
}

/* SELECT of the keys of doubtful groups, of those with a NULL among their keys or the others. */
static char *
doubtful_groups(const MdTarget *target, const MdMerge *merge, const char *doubts, bool null_keys)
{
	const char *const *names = key_names(merge);
	StringInfoData any_null;

	initStringInfo(&any_null);
	for (int key = 0; key < merge->key_count; key++)
		appendStringInfo(&any_null, "%sx.%s IS NULL", key > 0 ? " OR " : "", names[key]);
	if (merge->key_count == 0)
		appendStringInfoString(&any_null, "false");
	return psprintf("SELECT %s FROM (SELECT * FROM " MD_GROUPS " x WHERE %s(%s)) g LEFT JOIN %s t ON %s WHERE %s",
					merge->key_count > 0 ? md_merge_key_list(merge, "g") : "1",
					null_keys ? "" : "NOT ", any_null.data, target->name,
					md_upsert_match(target, md_merge_keys(merge), "t", "g", names, null_keys), doubts);
}

/* Groups g of which anything left that may matter. */
static char *
asking_condition(const MdMerge *merge)
{
	StringInfoData sql;
	int			number = 0;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		bool		is_extreme = column->combine == MD_COMBINE_LEAST || column->combine == MD_COMBINE_GREATEST;

		number++;
		if (md_partial_asks(column))
			appendStringInfo(&sql, "%sg.m%d%s", sql.len > 0 ? " OR " : "", number,
							 is_extreme ? " IS NOT NULL" : "");
	}
	return sql.data;
}

/* The same of grouping sets, of which most have NULL where they have no key. */
static char *
doubtful_groups_of_sets(MdRefresh *refresh, const MdTarget *target, const char *doubts)
{
	MdMerge    *merge = refresh->plan->merge;
	char	   *names = md_merge_key_list(merge, "g");
	MdKeys	   *keys = md_merge_touched(refresh, psprintf("SELECT %s FROM " MD_GROUPS " g WHERE %s", names,
														  asking_condition(merge)));

	if (keys == NULL)
		return NULL;
	return psprintf("SELECT %s FROM " MD_GROUPS " g LEFT JOIN (%s) t"
					" ON ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record WHERE %s",
					names, md_sets_rows(refresh, target, md_merge_keys(merge), keys),
					md_target_columns(target, "t", md_merge_keys(merge)), names, doubts);
}

/* SELECT of the keys of groups to recompute; NULL if there can be none. */
static char *
touched_sql(MdRefresh *refresh, const MdTarget *target)
{
	MdMerge    *merge = refresh->plan->merge;
	const char *const *names = key_names(merge);
	StringInfoData doubts;
	char	   *sql;
	int			number = 0;
	ListCell   *lc;

	initStringInfo(&doubts);
	foreach(lc, merge->columns)
	{
		append_doubt(&doubts, lfirst(lc), number + 1, target->columns[number].name);
		number++;
	}
	if (doubts.len == 0)
		return NULL;
	if (merge->sets != NIL)
		return doubtful_groups_of_sets(refresh, target, doubts.data);
	sql = doubtful_groups(target, merge, doubts.data, false);
	if (md_upsert_has_null(MD_GROUPS, names, merge->key_count, refresh->snapshot))
		sql = psprintf("%s UNION ALL %s", sql, doubtful_groups(target, merge, doubts.data, true));
	return sql;
}

Query *
md_merge_restricted(MdRefresh *refresh, Query *input, List *columns, MdKeys *keys)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	input = copyObject(input);
	md_query_normalize(input);
	if (keys == NULL)
		return md_state_query(refresh->engine, input, false);
	foreach(lc, columns)
		exprs = lappend(exprs, md_tree_target(input, lfirst_int(lc))->expr);
	return md_tree_union_all(md_keys_restrict(refresh->engine, input, exprs, keys, false));
}

/* The groups that are touched (NULL: the only one), made of the rows that there are now. */
static char *
recomputed_sql(MdRefresh *refresh, MdKeys *keys)
{
	MdMerge    *merge = refresh->plan->merge;
	MdPartialSource source = {0};
	List	   *columns = NIL;
	ListCell   *lc;

	if (merge->sets != NIL)
		return md_sets_recomputed(refresh, keys);
	foreach(lc, md_merge_keys(merge))
	{
		MdMergeColumn *column = list_nth(merge->columns, lfirst_int(lc) - 1);

		columns = lappend_int(columns, castNode(Var, column->expr)->varattno);
	}
	source.rows = md_merge_restricted(refresh, md_partial_input(merge),
									  columns, keys);
	return md_partial_text(merge, &source, true);
}

MdKeys *
md_merge_touched(MdRefresh *refresh, const char *sql)
{
	char	   *name;
	TupleDesc	tupdesc;

	if (md_engine_materialize(refresh->engine, sql, &name, &tupdesc) == 0)
		return NULL;
	return md_keys_make(refresh->engine,
						md_engine_analyze(refresh->engine, psprintf("SELECT * FROM %s", name)));
}

/* "r.k1, r.k2" */
static char *
touched_keys(const MdMerge *merge)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int key = 1; key <= merge->key_count; key++)
		appendStringInfo(&list, "%sr.k%d", key > 1 ? ", " : "", key);
	return list.data;
}

/* A touched group that has no rows any more counts none. */
static char *
replacing_sql(const MdMerge *merge, MdKeys *keys)
{
	StringInfoData list;
	int			number = 0;
	int			key = 0;
	ListCell   *lc;
	char	   *match = "true";

	initStringInfo(&list);
	foreach(lc, merge->columns)
	{
		number++;
		if (((MdMergeColumn *) lfirst(lc))->combine == MD_COMBINE_KEY)
			appendStringInfo(&list, "%sr.k%d", number > 1 ? ", " : "", ++key);
		else if (number == merge->count_column)
			appendStringInfo(&list, "%sCOALESCE(f.c%d, 0)", number > 1 ? ", " : "", number);
		else
			appendStringInfo(&list, "%sf.c%d", number > 1 ? ", " : "", number);
	}
	if (merge->key_count > 0)
		match = psprintf("ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
						 md_merge_key_list(merge, "f"), touched_keys(merge));
	return psprintf("SELECT %s FROM %s LEFT JOIN " RECOMPUTED " f ON %s", list.data,
					merge->key_count > 0 ? psprintf("%s r", keys->name) : "(SELECT) r", match);
}

void
md_leaving_apply(MdRefresh *refresh, const char *groups,
				void (*apply) (MdRefresh *refresh, const char *groups, const char *recomputed))
{
	MdMerge    *merge = refresh->plan->merge;
	MdTarget   *target = merge->needs_state ? md_state_target(refresh->view) : refresh->result;
	char	   *all = psprintf("SELECT %s FROM " MD_GROUPS " g", columns_of(merge, "g"));
	MdNamedStore stored;
	MdNamedStore recomputed;
	MdKeys	   *touched = NULL;
	char	   *sql;

	md_relation_read(&stored, MD_GROUPS, groups, refresh->snapshot);
	sql = touched_sql(refresh, target);
	if (sql != NULL)
		touched = md_merge_touched(refresh, sql);
	if (touched == NULL)
		apply(refresh, all, NULL);
	else
	{
		char	   *others = merge->key_count == 0 ? psprintf("%s WHERE false", all) :
			psprintf("%s WHERE NOT EXISTS (SELECT FROM %s r WHERE ROW(%s)::pg_catalog.record"
					 " = ROW(%s)::pg_catalog.record)", all, touched->name, touched_keys(merge),
					 md_merge_key_list(merge, "g"));

		md_relation_read(&recomputed, RECOMPUTED,
						 recomputed_sql(refresh, merge->key_count > 0 ? touched : NULL),
						 refresh->snapshot);
		apply(refresh, others, replacing_sql(merge, touched));
		md_relation_forget(&recomputed);
	}
	md_relation_forget(&stored);
}
