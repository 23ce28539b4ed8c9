/*
 * refresh_exec_values.c
 *		Distinct values of groups, and what they gain by a change.
 *
 * The values of a DISTINCT aggregate have a table of their own, by group.  The rows
 * of a change are put into it first: values that were not there before count, and so
 * do, where rows may leave, those whose last copy went.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/primnodes.h"
#include "utils/fmgroids.h"

#include "refresh_exec_merge.h"
#include "refresh_state.h"
#include "sql_run.h"

#define COUNTED "medallion_counted"

/* A count is never NULL. */
bool
md_merge_is_count(const MdMergeColumn *column)
{
	Oid			function = IsA(column->expr, Aggref) ? ((Aggref *) column->expr)->aggfnoid : InvalidOid;

	return function == F_COUNT_ || function == F_COUNT_ANY;
}

/* "i.i1 AS key1, i.i2 AS key2, ": keys of the merge from its input, i, in the set s. */
static char *
input_keys(const MdMerge *merge)
{
	StringInfoData list;
	int			key = 0;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, md_merge_keys(merge))
	{
		MdMergeColumn *column = list_nth(merge->columns, lfirst_int(lc) - 1);

		key++;
		if (!IsA(column->expr, Var))
			appendStringInfo(&list, "s.set AS key%d, ", key);
		else if (merge->sets != NIL)
			appendStringInfo(&list, "CASE WHEN %s THEN i.i%d END AS key%d, ", md_sets_having_key(merge, "s.set", key),
							 castNode(Var, column->expr)->varattno, key);
		else
			appendStringInfo(&list, "i.i%d AS key%d, ", castNode(Var, column->expr)->varattno, key);
	}
	return list.data;
}

/* The rows i, and with grouping sets each of them for each set. */
static char *
input_rows(const MdMerge *merge, const char *rows)
{
	return merge->sets == NIL ? psprintf("%s i", rows) :
		psprintf("%s i, (VALUES %s) s(set)", rows, md_sets_values(merge));
}

/* "t.key1, t.key2, " after an alias. */
static char *
value_keys(const MdMerge *merge, const char *alias)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int key = 1; key <= merge->key_count; key++)
		appendStringInfo(&list, "%s.key%d, ", alias, key);
	return list.data;
}

/*
 * Rows of a value set's table from rows of the input: keys, value [, copies].  A row
 * value with a NULL in it is counted, though IS NOT NULL is false of it.
 */
char *
md_values_rows(const MdMerge *merge, const MdValueSet *set, const char *rows, bool rows_signed)
{
	char	   *filter = set->filter > 0 ? psprintf(" AND i.i%d", set->filter) : "";
	char	   *keys = input_keys(merge);

	if (!merge->is_signed)
		return psprintf("SELECT DISTINCT %si.i%d AS value FROM %s WHERE i.i%d IS DISTINCT FROM NULL%s",
						keys, set->value, input_rows(merge, rows), set->value, filter);
	return psprintf("SELECT d.* FROM (SELECT %si.i%d AS value, pg_catalog.sum(%s)::pg_catalog.int8 AS copies"
					" FROM %s WHERE i.i%d IS DISTINCT FROM NULL%s GROUP BY %s) d WHERE d.copies <> 0",
					keys, set->value, rows_signed ? "i." MD_WEIGHT : "1", input_rows(merge, rows), set->value, filter,
					md_number_list(merge->key_count + 1));
}

/* "1, 2, 3" for GROUP BY */
char *
md_number_list(int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int n = 1; n <= count; n++)
		appendStringInfo(&list, "%s%d", n > 1 ? ", " : "", n);
	return list.data;
}

/*
 * SELECT of keys c<n> and of what the columns of a value set gain, c<m>, from
 * values v with a column `gain` of 1 for each that came and -1 for each that went.
 */
char *
md_values_gains(const MdMerge *merge, int value_set, const char *from)
{
	StringInfoData sql;
	List	   *keys = md_merge_keys(merge);
	int			number = 0;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	foreach(lc, keys)
		appendStringInfo(&sql, "v.key%d AS c%d, ", foreach_current_index(lc) + 1, lfirst_int(lc));
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		number++;
		if (column->value_set != value_set)
			continue;
		if (md_merge_is_count(column))
			appendStringInfo(&sql, "pg_catalog.sum(v.gain)::pg_catalog.int8 AS c%d, ", number);
		else if (merge->is_signed)
			appendStringInfo(&sql, "COALESCE(pg_catalog.sum(v.value) FILTER (WHERE v.gain > 0), '0')"
							 " - COALESCE(pg_catalog.sum(v.value) FILTER (WHERE v.gain < 0), '0') AS c%d, ", number);
		else
			appendStringInfo(&sql, "pg_catalog.sum(v.value) AS c%d, ", number);
	}
	sql.len -= 2;
	appendStringInfo(&sql, " FROM %s v", from);
	if (merge->key_count > 0)
		appendStringInfo(&sql, " GROUP BY %s", md_number_list(merge->key_count));
	return sql.data;
}

/* Take the rows into a value set's table; the gains as a relation. */
void
md_values_apply(MdRefresh *refresh, int value_set, const char *rows, bool rows_signed,
			 MdNamedStore *gains)
{
	MdMerge    *merge = refresh->plan->merge;
	MdTarget   *target = md_state_values(refresh->view, merge, value_set);
	MdNamedStore counted;
	MdUpsert	upsert = {.target = target};
	Tuplestorestate *store;
	TupleDesc	tupdesc;
	char	   *gain;
	MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_STATE);

	for (int key = 1; key <= merge->key_count + 1; key++)
		upsert.keys = lappend_int(upsert.keys, key);
	upsert.rows = md_values_rows(merge, list_nth(merge->value_sets, value_set - 1), rows, rows_signed);
	if (merge->is_signed)
		upsert.set = "copies = t.copies + excluded.copies";
	store = md_upsert_store(&upsert, psprintf("%st.value%s", value_keys(merge, "t"),
											  merge->is_signed ? ", t.copies, t.ctid AS tid" : ""),
							&tupdesc);
	md_step_rows(&refresh->run.steps, MD_STEP_STATE, tuplestore_tuple_count(store));
	md_relation_store(&counted, COUNTED, store, tupdesc);
	gain = merge->is_signed ?
		"(SELECT x.*, CASE WHEN x.inserted THEN 1 WHEN x.copies = 0 THEN -1 ELSE 0 END AS gain FROM " COUNTED " x)" :
		"(SELECT x.*, 1 AS gain FROM " COUNTED " x)";
	md_relation_read(gains, psprintf("medallion_values_%d", value_set),
					 md_values_gains(merge, value_set, gain), refresh->snapshot);
	if (merge->is_signed)
		md_sql_run(psprintf("DELETE FROM %s t USING " COUNTED " x WHERE x.copies = 0 AND t.ctid = x.tid",
							target->name), NULL, refresh->snapshot);
	md_relation_forget(&counted);
	(void) md_step(&refresh->run.steps, step);
}
