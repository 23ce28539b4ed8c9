/*
 * refresh_exec_merge.c
 *		Merging partial aggregates of a change into what is kept.
 *
 *		change --aggregate--> groups --upsert--> target --(exprs)--> result
 *				 \						/			^
 *				  values that came or went		the result itself, or the state table
 *
 * The target has an index over the group keys in which NULL equals NULL, so the
 * upsert finds each group at the cost of an index lookup, and writes only rows that
 * change.  Without GROUP BY there is one row always.
 *
 * Where rows left, too, refresh_exec_leaving.c prepares the groups: it recomputes
 * those whose extreme left.  Groups of GROUPING SETS have the set among their keys, which
 * the result need not show: refresh_exec_sets.c carries them there.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "guard.h"
#include "refresh_cost.h"
#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_exec_merge.h"
#include "refresh_state.h"
#include "refresh_tree.h"
#include "refresh_upsert.h"
#include "sql_run.h"

/* Relations of one merge. */
#define ROWS "medallion_rows"

void
md_relation_store(MdNamedStore *named, const char *name, Tuplestorestate *store,
				  TupleDesc tupdesc)
{
	named->name = name;
	named->store = store;
	md_diff_register(name, store, tupdesc);
}

void
md_relation_read(MdNamedStore *named, const char *name, const char *sql, Snapshot snapshot)
{
	TupleDesc	tupdesc;
	Tuplestorestate *store = md_sql_run_into_store(sql, snapshot, &tupdesc);

	md_relation_store(named, name, store, tupdesc);
}

void
md_relation_forget(MdNamedStore *named)
{
	SPI_unregister_relation(named->name);
	tuplestore_end(named->store);
	named->store = NULL;
}

/* ----------------------------------------------------------------------
 * Groups
 * ---------------------------------------------------------------------- */

/*
 * "p.c1, p.c2, v1.c3 ... FROM (partial) p LEFT JOIN v1 ...": partial aggregates put
 * together with the gains of value sets (relations or subqueries, of char *).
 */
static char *
with_gains(const MdMerge *merge, const char *partial, List *gains, bool is_signed)
{
	StringInfoData sql;
	StringInfoData from;
	int			number = 0;
	int			value_set = 0;
	ListCell   *lc;

	if (gains == NIL)
		return pstrdup(partial);
	initStringInfo(&sql);
	initStringInfo(&from);
	appendStringInfoString(&sql, "SELECT ");
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		number++;
		if (column->value_set == 0)
			appendStringInfo(&sql, "p.c%d, ", number);
		else if (md_merge_is_count(column) || column->or_zero)
			appendStringInfo(&sql, "COALESCE(v%d.c%d, '0') AS c%d, ", column->value_set, number, number);
		else
			appendStringInfo(&sql, "v%d.c%d, ", column->value_set, number);
		if (is_signed && md_partial_asks(column))
			appendStringInfo(&from, "p.m%d, ", number);
	}
	appendStringInfoString(&sql, from.data);
	sql.len -= 2;
	appendStringInfo(&sql, " FROM (%s) p", partial);
	foreach(lc, gains)
	{
		value_set++;
		if (merge->key_count == 0)
			appendStringInfo(&sql, " LEFT JOIN %s v%d ON true", (char *) lfirst(lc), value_set);
		else
			appendStringInfo(&sql, " LEFT JOIN %s v%d ON ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
							 (char *) lfirst(lc), value_set, md_merge_key_list(merge, "p"),
							 md_merge_key_list(merge, psprintf("v%d", value_set)));
	}
	return sql.data;
}

/* "p.c1, p.c2": keys by number. */
char *
md_merge_key_list(const MdMerge *merge, const char *alias)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, md_merge_keys(merge))
		appendStringInfo(&list, "%s%s.c%d", list.len > 0 ? ", " : "", alias, lfirst_int(lc));
	return list.data;
}

/* ----------------------------------------------------------------------
 * From the state to the result
 * ---------------------------------------------------------------------- */

/* One expression over columns of the state table, which is called m. */
static char *
state_expression(Node *expr, Oid state)
{
	return deparse_expression(expr, deparse_context_for("m", state), true, false);
}

/* "expr, expr": the result's columns from state rows m. */
static char *
final_columns(const MdMerge *merge, Oid state)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, merge->finals)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
						 state_expression(lfirst(lc), state));
	return list.data;
}

/* The column of a group m that tells its grouping set. */
static char *
set_name(const MdMerge *merge, const MdTarget *state)
{
	return psprintf("m.%s", state->columns[merge->key_count - 1].name);
}

/* Does the result show the group m? */
static char *
shown_condition(const MdMerge *merge, const MdTarget *state)
{
	char	   *having = merge->having ? state_expression(merge->having, state->relid) : "true";

	if (merge->count_column == 0)
		return having;
	return psprintf("(m.%s > 0%s) AND (%s)", state->columns[merge->count_column - 1].name,
					md_sets_empty(merge) < 0 ? "" :
					psprintf(" OR %s = %d", set_name(merge, state), md_sets_empty(merge)), having);
}

char *
md_merge_final_query(const MdMerge *merge, const MdTarget *state, const char *relation)
{
	char	   *copies = merge->sets == NIL ? NULL : md_sets_copies(merge, set_name(merge, state));
	char	   *rows = psprintf("SELECT %s FROM %s m%s WHERE %s", final_columns(merge, state->relid), relation,
								copies == NULL ? "" : psprintf(", LATERAL pg_catalog.generate_series(1, %s)", copies),
								shown_condition(merge, state));

	if (merge->above == NULL)
		return rows;
	return psprintf("WITH " MD_KEPT_GROUPS " (%s) AS (%s) %s", md_tree_numbered_names(list_length(merge->finals)), rows,
					md_delta_text(merge->above));
}

/* How old and new values of a column become one. */
static char *
combine_expression(const MdMergeColumn *column, const char *name)
{
	char	   *old = psprintf("t.%s", name);
	char	   *new = psprintf("excluded.%s", name);
	char	   *both;

	switch (column->combine)
	{
		case MD_COMBINE_LEAST:
			return psprintf("LEAST(%s, %s)", old, new);
		case MD_COMBINE_GREATEST:
			return psprintf("GREATEST(%s, %s)", old, new);
		case MD_COMBINE_ADD:
			both = psprintf("%s OPERATOR(pg_catalog.+) %s", old, new);
			if (column->or_zero || md_merge_is_count(column))
				return both;
			break;
		case MD_COMBINE_AND:
			both = psprintf("%s AND %s", old, new);
			break;
		case MD_COMBINE_OR:
			both = psprintf("%s OR %s", old, new);
			break;
		case MD_COMBINE_MOMENTS:
			return psprintf("pg_catalog.%s(%s, %s)",
							list_length(((Aggref *) column->expr)->args) == 1 ?
							"float8_combine" : "float8_regr_combine", old, new);
		default:
			elog(ERROR, "a key does not combine");
	}
	return psprintf("CASE WHEN %s IS NULL THEN %s WHEN %s IS NULL THEN %s ELSE %s END",
					old, new, new, old, both);
}

/* Is there a count(*)? */
static bool
counts_rows(const MdMerge *merge)
{
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		if (md_merge_is_count(column) && ((Aggref *) column->expr)->aggstar &&
			((Aggref *) column->expr)->aggfilter == NULL)
			return true;
	}
	return false;
}

void
md_merge_upsert(const MdMerge *merge, const MdTarget *target, const char *rows, bool replace,
				MdUpsert *upsert)
{
	StringInfoData set;
	StringInfoData old;
	StringInfoData new;
	int			number = 0;
	ListCell   *lc;

	initStringInfo(&set);
	initStringInfo(&old);
	initStringInfo(&new);
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		const char *name = target->columns[number++].name;
		const char *comma = set.len > 0 ? ", " : "";
		char	   *value;

		if (column->combine == MD_COMBINE_KEY)
			continue;
		value = replace ? psprintf("excluded.%s", name) : combine_expression(column, name);
		appendStringInfo(&set, "%s%s = %s", comma, name, value);
		appendStringInfo(&old, "%st.%s", comma, name);
		appendStringInfo(&new, "%s%s", comma, value);
	}
	memset(upsert, 0, sizeof(*upsert));
	upsert->target = target;
	upsert->keys = md_merge_keys(merge);
	upsert->rows = rows;
	if (set.len == 0)
		return;
	upsert->set = set.data;
	/* a group with new rows counts more than before; the empty set may have none */
	if (replace || merge->is_signed || merge->sets != NIL || !counts_rows(merge))
		upsert->where = psprintf("ROW(%s) IS DISTINCT FROM ROW(%s)", old.data, new.data);
}

/* Upsert into the result the groups m that the query shows; delete the others. */
static void
carry(MdRefresh *refresh, const MdTarget *state)
{
	MdMerge    *merge = refresh->plan->merge;
	const MdTarget *result = refresh->result;
	List	   *others = md_target_others(result, merge->result_keys);
	const char **names = palloc(sizeof(char *) * Max(1, merge->key_count));
	StringInfoData set;
	MdUpsert	upsert = {.target = result, .keys = merge->result_keys};
	MdStepKind	step;
	ListCell   *lc;

	initStringInfo(&set);
	foreach(lc, others)
	{
		const char *name = result->columns[lfirst_int(lc) - 1].name;

		appendStringInfo(&set, "%s%s = excluded.%s", set.len > 0 ? ", " : "", name, name);
	}
	upsert.rows = md_merge_final_query(merge, state, MD_MERGED);
	if (others != NIL)
	{
		upsert.set = set.data;
		upsert.where = psprintf("ROW(%s) IS DISTINCT FROM ROW(%s)",
								md_target_comparable(result, "t", others),
								md_target_comparable(result, "excluded", others));
	}
	md_upsert_run(&upsert, refresh->snapshot, &refresh->run);

	if (merge->having == NULL && merge->count_column == 0)
		return;
	for (int key = 0; key < merge->key_count; key++)
		names[key] = state->columns[key].name;
	step = md_step(&refresh->run.steps, MD_STEP_APPLY);
	for (int null_keys = 0; null_keys <= 1; null_keys++)
		if (!null_keys || md_upsert_has_null(MD_MERGED, names, merge->key_count, refresh->snapshot))
			refresh->run.rows_deleted +=
				md_sql_run(psprintf("DELETE FROM %s t USING " MD_MERGED " m WHERE (%s) IS NOT TRUE AND %s",
									result->name, shown_condition(merge, state),
									md_upsert_match(result, merge->result_keys, "t", "m", names, null_keys)),
						   NULL, refresh->snapshot);
	(void) md_step(&refresh->run.steps, step);
}

/* Groups that are empty leave the state. */
static void
delete_empty(const MdMerge *merge, const MdTarget *target, MdRefresh *refresh, int64 *deleted)
{
	if (merge->count_column == 0)
		return;
	*deleted += md_sql_run(psprintf("DELETE FROM %s t USING " MD_MERGED " m WHERE m.%s = 0 AND t.ctid = m.tid%s",
									target->name, target->columns[merge->count_column - 1].name,
									md_sets_empty(merge) < 0 ? "" :
									psprintf(" AND %s <> %d", set_name(merge, target), md_sets_empty(merge))),
						   NULL, refresh->snapshot);
}

/*
 * Rows of the target that changed, as MD_MERGED: its columns and tid.  `groups` are
 * combined with the target's, and `recomputed` (NULL: none) replace them.
 */
static void
merge_groups(MdRefresh *refresh, const MdTarget *target, const char *groups,
			 const char *recomputed, MdNamedStore *merged)
{
	MdUpsert	upsert;
	TupleDesc	tupdesc;
	Tuplestorestate *store;
	bool		is_state = target != refresh->result;
	MdStepKind	step = md_step(&refresh->run.steps, is_state ? MD_STEP_STATE : MD_STEP_APPLY);
	char	   *returning = psprintf("%s, t.ctid AS tid", md_target_columns(target, "t", NIL));

	md_merge_upsert(refresh->plan->merge, target, groups, false, &upsert);
	store = md_upsert_store(&upsert, returning, &tupdesc);
	if (recomputed != NULL)
	{
		Tuplestorestate *more;
		TupleTableSlot *slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);

		md_merge_upsert(refresh->plan->merge, target, recomputed, true, &upsert);
		more = md_upsert_store(&upsert, returning, &tupdesc);
		while (tuplestore_gettupleslot(more, true, false, slot))
			tuplestore_puttupleslot(store, slot);
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_end(more);
	}
	if (is_state)
		md_step_rows(&refresh->run.steps, MD_STEP_STATE, tuplestore_tuple_count(store));
	md_relation_store(merged, MD_MERGED, store, tupdesc);
	(void) md_step(&refresh->run.steps, step);
}

/* Merge groups into a result that is its own target; no row left, so no group does. */
static void
add_groups(MdRefresh *refresh, const char *groups)
{
	MdUpsert	upsert;

	md_merge_upsert(refresh->plan->merge, refresh->result, groups, false, &upsert);
	md_upsert_run(&upsert, refresh->snapshot, &refresh->run);
}

/* Merge groups into the target, and carry what changed to the result. */
static void
apply_groups(MdRefresh *refresh, const char *groups, const char *recomputed)
{
	MdMerge    *merge = refresh->plan->merge;
	MdNamedStore merged;
	MdTarget   *state;
	int64		dropped = 0;

	if (!merge->needs_state)
	{
		merge_groups(refresh, refresh->result, groups, recomputed, &merged);
		md_sql_run("SELECT pg_catalog.count(*) FILTER (WHERE m.inserted),"
				   " pg_catalog.count(*) FILTER (WHERE NOT m.inserted) FROM " MD_MERGED " m",
				   NULL, refresh->snapshot);
		refresh->run.rows_inserted += md_sql_int64(0, 1);
		refresh->run.rows_updated += md_sql_int64(0, 2);
		delete_empty(merge, refresh->result, refresh, &refresh->run.rows_deleted);
		refresh->run.rows_updated -= refresh->run.rows_deleted;
		md_relation_forget(&merged);
		return;
	}
	state = md_state_target(refresh->view);
	merge_groups(refresh, state, groups, recomputed, &merged);
	if (merge->result_keys != NIL && merge->sets != NIL)
		md_sets_carry(refresh, state);
	else if (merge->result_keys != NIL)
		carry(refresh, state);
	delete_empty(merge, state, refresh, &dropped);
	md_relation_forget(&merged);
	if (merge->result_keys == NIL)
		/* rows of the result are not told apart by the keys of groups: compare all */
		md_diff_apply(refresh->result, md_merge_final_query(merge, state, state->name),
					  md_refresh_unique_columns(refresh), NULL, refresh->snapshot, &refresh->run);
}

/* ----------------------------------------------------------------------
 * Doors
 * ---------------------------------------------------------------------- */

bool
md_merge_change(MdRefresh *refresh, Query *input, bool may_be_signed, MdPartialSource *source)
{
	MdChange	change;

	md_delta_linear(refresh->engine, input, &change);
	if (change.query == NULL || refresh->engine->why_full != NULL)
		return false;
	if (change.is_signed && !may_be_signed)
		elog(ERROR, "rows left a query that was taken for append-only");
	source->rows = change.query;
	source->is_signed = change.is_signed;
	/* from here on it is written */
	if (!md_cost_affords(refresh->engine, md_delta_text(change.query)))
		return false;
	md_cost_settle(refresh->engine);
	return true;
}

void
md_merge_apply(MdRefresh *refresh)
{
	MdMerge    *merge = refresh->plan->merge;
	MdPartialSource source = {0};
	MdNamedStore rows = {0};
	MdNamedStore *gains = palloc0(sizeof(MdNamedStore) * Max(1, list_length(merge->value_sets)));
	List	   *gain_names = NIL;
	char	   *groups;
	Oid			guarded;

	if (!md_merge_change(refresh, md_partial_input(merge),
						 merge->is_signed, &source))
		return;
	guarded = md_guard_open(refresh->result->relid);
	if (merge->value_sets != NIL)
	{
		md_relation_read(&rows, ROWS, md_partial_rows_text(merge->inputs, &source), refresh->snapshot);
		source.rows = NULL;
		source.relation = ROWS;
		for (int n = 1; n <= list_length(merge->value_sets); n++)
		{
			md_values_apply(refresh, n, ROWS, source.is_signed, &gains[n - 1]);
			gain_names = lappend(gain_names, unconstify(char *, gains[n - 1].name));
		}
	}
	groups = with_gains(merge, md_partial_text(merge, &source, false), gain_names, source.is_signed);
	if (source.is_signed)
		md_leaving_apply(refresh, groups, apply_groups);
	else if (!merge->needs_state)
		add_groups(refresh, groups);
	else
	{
		MdNamedStore stored;

		md_relation_read(&stored, MD_GROUPS, groups, refresh->snapshot);
		apply_groups(refresh, "SELECT * FROM " MD_GROUPS, NULL);
		md_relation_forget(&stored);
	}
	for (int n = 0; n < list_length(merge->value_sets); n++)
		md_relation_forget(&gains[n]);
	if (rows.store != NULL)
		md_relation_forget(&rows);
	md_guard_open(guarded);
}

/* Fill a table that is new, or make an old one equal. */
static void
fill(MdRefresh *refresh, const MdTarget *target, const char *query, List *keys, bool is_new)
{
	MdRun		state_run = {0};
	bool		is_state = target != refresh->result;
	MdRun	   *run = is_state ? &state_run : &refresh->run;
	MdStepKind	step = md_step(&refresh->run.steps, is_state ? MD_STEP_STATE : MD_STEP_RECOMPUTE);

	if (is_new)
		md_diff_fill(target, query, refresh->snapshot, run);
	else
		md_diff_apply(target, query, keys, NULL, refresh->snapshot, run);
	if (is_state)
		md_step_rows(&refresh->run.steps, MD_STEP_STATE, run->rows_inserted);
	(void) md_step(&refresh->run.steps, step);
}

void
md_merge_rebuild(MdRefresh *refresh)
{
	MdMerge    *merge = refresh->plan->merge;
	Query	   *input = md_partial_input(merge);
	MdPartialSource source = {.rows = input};
	char	   *input_text = psprintf("(%s)", md_delta_text(input));
	bool		is_first = refresh->view->refresh_number == 0;
	List	   *gains = NIL;
	char	   *groups;
	MdTarget   *state;

	for (int n = 1; n <= list_length(merge->value_sets); n++)
	{
		MdTarget   *values = md_state_values(refresh->view, merge, n);

		fill(refresh, values, md_values_rows(merge, list_nth(merge->value_sets, n - 1), input_text, false),
			 NIL, true);
		gains = lappend(gains, psprintf("(%s)", md_values_gains(merge, n, psprintf("(SELECT x.*, 1 AS gain FROM %s x)", values->name))));
	}
	groups = with_gains(merge, md_partial_text(merge, &source, false), gains, false);
	if (!merge->needs_state)
	{
		fill(refresh, refresh->result, groups, md_merge_keys(merge), is_first);
		return;
	}
	state = md_state_target(refresh->view);
	fill(refresh, state, groups, NIL, true);
	fill(refresh, refresh->result, md_merge_final_query(merge, state, state->name),
		 merge->sets != NIL || merge->result_keys == NIL ? md_refresh_unique_columns(refresh) : merge->result_keys,
		 is_first);
}
