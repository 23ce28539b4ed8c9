/*
 * refresh_exec_leaving.c
 *		Groups of a change in which rows left, too.
 *
 * Counts and exact sums are subtracted. What cannot be: a minimum whose rows left, a
 * sum of floats (what is left of 1e20 + 1 - 1e20 is not 1), NaN. Groups with such
 * are picked out by one join with the target, and recomputed from the rows that
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

#include "refresh_exec_merge.h"
#include "refresh_state.h"
#include "sql_run.h"

#define TOUCHED "medallion_touched"
#define RECOMPUTED "medallion_recomputed"

/* Must a group g of the change that is t in the target be recomputed for a column? */
static void
append_doubt(StringInfo doubts, const MdMergeColumn *column, int number, const char *name)
{
	if (!md_partial_asks(column))
		return;
	if (doubts->len > 0)
		appendStringInfoString(doubts, " OR ");
	/* by records, because these compare as indexes of the type do */
	if (column->combine == MD_COMBINE_LEAST)
		appendStringInfo(doubts, "g.m%d IS NOT NULL AND ROW(g.m%d)::pg_catalog.record <= ROW(t.%s)::pg_catalog.record"
						 " AND (g.c%d IS NULL OR ROW(g.c%d)::pg_catalog.record > ROW(g.m%d)::pg_catalog.record)",
						 number, number, name, number, number, number);
	else if (column->combine == MD_COMBINE_GREATEST)
		appendStringInfo(doubts, "g.m%d IS NOT NULL AND ROW(g.m%d)::pg_catalog.record >= ROW(t.%s)::pg_catalog.record"
						 " AND (g.c%d IS NULL OR ROW(g.c%d)::pg_catalog.record < ROW(g.m%d)::pg_catalog.record)",
						 number, number, name, number, number, number);
	else if (column->inexact)
		appendStringInfo(doubts, "g.m%d", number);
	else
		appendStringInfo(doubts, "g.m%d AND NOT (t.%s > '-Infinity' AND t.%s < 'Infinity'"
						 " AND g.c%d > '-Infinity' AND g.c%d < 'Infinity')",
						 number, name, name, number, number);
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

/* SELECT of the keys of groups to recompute; NULL if there can be none. */
static char *
touched_sql(MdRefresh *refresh, const MdTarget *target)
{
	MdMerge    *merge = refresh->plan->merge;
	const char *const *names = key_names(merge);
	char	   *keys = merge->key_count > 0 ? md_merge_key_list(merge, "g") : "1";
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
	sql = psprintf("SELECT %s FROM " MD_GROUPS " g JOIN %s t ON %s WHERE %s", keys, target->name,
				   md_upsert_match(target, md_merge_keys(merge), "t", "g", names, false), doubts.data);
	if (md_upsert_has_null(MD_GROUPS, names, merge->key_count, refresh->snapshot))
		sql = psprintf("%s UNION ALL SELECT %s FROM " MD_GROUPS " g JOIN %s t ON %s WHERE %s", sql,
					   keys, target->name,
					   md_upsert_match(target, md_merge_keys(merge), "t", "g", names, true), doubts.data);
	return sql;
}

/* The groups that are touched, made of the rows that there are now. */
static char *
recomputed_sql(MdRefresh *refresh)
{
	MdMerge    *merge = refresh->plan->merge;
	MdPartialSource source = {0};

	source.rows = md_partial_input(merge, refresh->plan->query);
	return md_partial_text(merge, &source, true);
}

/* A touched group that has no rows any more counts none. */
static char *
replacing_sql(const MdMerge *merge)
{
	StringInfoData list;
	int			number = 0;
	ListCell   *lc;
	char	   *match = "true";

	initStringInfo(&list);
	foreach(lc, merge->columns)
	{
		number++;
		if (((MdMergeColumn *) lfirst(lc))->combine == MD_COMBINE_KEY)
			appendStringInfo(&list, "%sr.c%d", number > 1 ? ", " : "", number);
		else if (number == merge->count_column)
			appendStringInfo(&list, "%sCOALESCE(f.c%d, 0)", number > 1 ? ", " : "", number);
		else
			appendStringInfo(&list, "%sf.c%d", number > 1 ? ", " : "", number);
	}
	if (merge->key_count > 0)
		match = psprintf("ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
						 md_merge_key_list(merge, "f"), md_merge_key_list(merge, "r"));
	return psprintf("SELECT %s FROM " TOUCHED " r LEFT JOIN " RECOMPUTED " f ON %s", list.data, match);
}

void
md_leaving_apply(MdRefresh *refresh, const char *groups,
				void (*apply) (MdRefresh *refresh, const char *groups, const char *recomputed))
{
	MdMerge    *merge = refresh->plan->merge;
	MdTarget   *target = merge->needs_state ? md_state_target(refresh->view) : refresh->result;
	char	   *all = psprintf("SELECT %s FROM " MD_GROUPS " g", columns_of(merge, "g"));
	MdNamedStore stored;
	MdNamedStore touched = {0};
	MdNamedStore recomputed;
	char	   *sql;

	md_relation_read(&stored, MD_GROUPS, groups, refresh->snapshot);
	sql = touched_sql(refresh, target);
	if (sql != NULL)
		md_relation_read(&touched, TOUCHED, sql, refresh->snapshot);
	if (sql == NULL || tuplestore_tuple_count(touched.store) == 0)
		apply(refresh, all, NULL);
	else
	{
		char	   *others = merge->key_count == 0 ? psprintf("%s WHERE false", all) :
			psprintf("%s WHERE NOT EXISTS (SELECT FROM " TOUCHED " r WHERE ROW(%s)::pg_catalog.record"
					 " = ROW(%s)::pg_catalog.record)", all, md_merge_key_list(merge, "r"),
					 md_merge_key_list(merge, "g"));

		md_relation_read(&recomputed, RECOMPUTED, recomputed_sql(refresh), refresh->snapshot);
		apply(refresh, others, replacing_sql(merge));
		md_relation_forget(&recomputed);
	}
	if (touched.store != NULL)
		md_relation_forget(&touched);
	md_relation_forget(&stored);
}
