/*
 * refresh_exec_merge.c
 *		Merging partial aggregates of new rows into what is kept.
 *
 *		new rows --aggregate--> change --upsert--> target --(exprs)--> result
 *													  |
 *					the result itself, or the state table
 *
 * The target has a unique index over the group keys in which NULL equals NULL,
 * so the upsert finds each group by its key at the cost of an index lookup,
 * and writes only rows that change.  Without GROUP BY there is one row always.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "guard.h"
#include "refresh_exec.h"
#include "relation_make.h"
#include "sql_run.h"

/* ----------------------------------------------------------------------
 * Tables and indexes
 * ---------------------------------------------------------------------- */

/* Numbers of the key columns of the target. */
static List *
key_numbers(MdMerge *merge)
{
	List	   *numbers = NIL;
	int			number = 0;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		number++;
		if (((MdMergeColumn *) lfirst(lc))->combine == MD_COMBINE_KEY)
			numbers = lappend_int(numbers, number);
	}
	return numbers;
}

List *
md_merge_result_keys(MdMerge *merge)
{
	return merge->needs_state ? merge->result_keys : key_numbers(merge);
}

/* Column definitions c1, c2, ... of the state table. */
static List *
state_columns(MdMerge *merge)
{
	List	   *names = NIL;
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		exprs = lappend(exprs, ((MdMergeColumn *) lfirst(lc))->expr);
		names = lappend(names, makeString(psprintf("c%d", list_length(exprs))));
	}
	return md_relation_columns(names, exprs);
}

/* Has the state table the columns that the merge wants? */
static bool
state_fits(Oid state, List *columns)
{
	Relation	rel = table_open(state, AccessShareLock);
	TupleDesc	tupdesc = RelationGetDescr(rel);
	bool		fits = tupdesc->natts == list_length(columns);

	for (int i = 0; fits && i < tupdesc->natts; i++)
	{
		ColumnDef  *column = list_nth(columns, i);
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		fits = !att->attisdropped && att->atttypid == column->typeName->typeOid &&
			att->attcollation == column->collOid;
	}
	table_close(rel, NoLock);
	return fits;
}

/* Attribute numbers of column numbers. */
static AttrNumber *
attnums_of(const MdTarget *target, List *numbers)
{
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * Max(1, list_length(numbers)));

	for (int i = 0; i < list_length(numbers); i++)
		attnums[i] = target->columns[list_nth_int(numbers, i) - 1].attnum;
	return attnums;
}

/* Make sure of a unique index over numbers; its OID, InvalidOid for none. */
static Oid
ensure_index(Oid relid, Oid present, List *numbers)
{
	AttrNumber *attnums = attnums_of(md_target_make(relid), numbers);

	if (numbers != NIL &&
		md_relation_has_unique_index(relid, present, list_length(numbers), attnums))
		return present;
	if (OidIsValid(present) && get_rel_relkind(present) != '\0')
		md_relation_drop_part(present);
	if (numbers == NIL)
		return InvalidOid;
	/* one that the owner made serves too, and is not ours to drop */
	if (OidIsValid(md_relation_find_unique_index(relid, list_length(numbers), attnums)))
		return InvalidOid;
	return md_relation_make_unique_index(relid, list_length(numbers), attnums);
}

void
md_merge_prepare(MdView *view, MdPlan *plan)
{
	MdView		before = *view;
	MdMerge    *merge = plan->merge;
	List	   *merge_keys = merge ? md_merge_result_keys(merge) :
		plan->strategy == MD_STRATEGY_REGROUP && plan->keys_unique ? plan->key_columns : NIL;
	List	   *keys = md_target_numbers(md_target_make(view->relid), view->key_count, view->keys);
	List	   *columns = merge && merge->needs_state ? state_columns(merge) : NIL;
	bool		drop_state = OidIsValid(view->state_table) &&
		(columns == NIL || !state_fits(view->state_table, columns));

	if (drop_state)
	{
		md_relation_drop_part(view->state_table);
		view->state_table = InvalidOid;
	}
	if (columns != NIL && !OidIsValid(view->state_table))
	{
		view->state_table = md_relation_make_state(view->relid, columns, view->owner);
		view->populated = false;
		(void) ensure_index(view->state_table, InvalidOid, key_numbers(merge));
	}
	view->merge_index = ensure_index(view->relid, view->merge_index, merge_keys);
	/* one index serves both if they are the same columns */
	view->key_index = ensure_index(view->relid, view->key_index,
								   equal(keys, merge_keys) ? NIL : keys);
	if (before.state_table != view->state_table || before.merge_index != view->merge_index ||
		before.key_index != view->key_index)
		md_view_update(view);
}

/* ----------------------------------------------------------------------
 * SQL
 * ---------------------------------------------------------------------- */

/* The query that gives rows of the target: keys and partial aggregates. */
static Query *
partial_query(MdPlan *plan)
{
	Query	   *query = copyObject(plan->query);
	ListCell   *lc;
	bool		has_aggs = false;

	if (query->groupClause == NIL)
		query->groupClause = query->distinctClause;
	query->distinctClause = NIL;
	query->sortClause = NIL;
	query->havingQual = NULL;
	query->targetList = NIL;
	foreach(lc, plan->merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		int			number = list_length(query->targetList) + 1;
		TargetEntry *target = makeTargetEntry(copyObject(column->expr), number,
											  psprintf("c%d", number), false);

		target->ressortgroupref = column->sort_group_ref;
		has_aggs |= column->combine != MD_COMBINE_KEY;
		query->targetList = lappend(query->targetList, target);
	}
	query->hasAggs = has_aggs;
	return query;
}

/* One expression over columns of the state table, which is called m. */
static char *
state_expression(Node *expr, Oid state)
{
	return deparse_expression(expr, deparse_context_for("m", state), true, false);
}

/* "expr, expr": the result's columns from state rows m. */
static char *
final_columns(MdMerge *merge, Oid state)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, merge->finals)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
						 state_expression(lfirst(lc), state));
	return list.data;
}

static char *
having_condition(MdMerge *merge, Oid state)
{
	return merge->having ? state_expression(merge->having, state) : "true";
}

/* The result as a query over the whole state table. */
static char *
final_query(MdMerge *merge, const MdTarget *state)
{
	return psprintf("SELECT %s FROM %s m WHERE %s", final_columns(merge, state->relid),
					state->name, having_condition(merge, state->relid));
}

/* How old and new values of a column become one. */
static char *
combine_expression(MdCombine combine, const char *old, const char *new)
{
	const char *operator;

	switch (combine)
	{
		case MD_COMBINE_LEAST:
			return psprintf("LEAST(%s, %s)", old, new);
		case MD_COMBINE_GREATEST:
			return psprintf("GREATEST(%s, %s)", old, new);
		case MD_COMBINE_ADD:
			operator = "OPERATOR(pg_catalog.+)";
			break;
		case MD_COMBINE_AND:
			operator = "AND";
			break;
		case MD_COMBINE_OR:
			operator = "OR";
			break;
		default:
			elog(ERROR, "a key does not combine");
	}
	return psprintf("CASE WHEN %s IS NULL THEN %s WHEN %s IS NULL THEN %s ELSE %s %s %s END",
					old, new, new, old, old, operator, new);
}

/*
 * "SET c = combined, ..." and "WHERE something changes", with the present row
 * called t and the change called by `change`; false if there is only the key.
 */
static bool
combine_clauses(MdMerge *merge, const MdTarget *target, const char *change,
				char **set_clause, char **where_clause)
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
		char	   *combined;

		if (column->combine == MD_COMBINE_KEY)
			continue;
		combined = combine_expression(column->combine, psprintf("t.%s", name),
									  psprintf("%s.%s", change, name));
		appendStringInfo(&set, "%s%s = %s", comma, name, combined);
		appendStringInfo(&old, "%st.%s", comma, name);
		appendStringInfo(&new, "%s%s", comma, combined);
	}
	*set_clause = psprintf("SET %s", set.data);
	*where_clause = psprintf("WHERE ROW(%s) IS DISTINCT FROM ROW(%s)", old.data, new.data);
	return set.len > 0;
}

/*
 * The statement that merges the rows of `change` into the target, up to its
 * RETURNING.
 */
static char *
upsert_statement(MdMerge *merge, const MdTarget *target, const char *change)
{
	List	   *keys = key_numbers(merge);
	char	   *columns = md_target_columns(target, NULL, NIL);
	bool		has_values;
	char	   *set;
	char	   *where;

	has_values = combine_clauses(merge, target, keys == NIL ? "d" : "excluded", &set, &where);
	if (keys == NIL)
		return psprintf("UPDATE %s t %s FROM (%s) d(%s) %s", target->name, set, change,
						columns, where);
	return psprintf("INSERT INTO %s AS t (%s) SELECT * FROM (%s) d ON CONFLICT (%s) DO %s",
					target->name, columns, change, md_target_columns(target, NULL, keys),
					has_values ? psprintf("UPDATE %s %s", set, where) : "NOTHING");
}

/* Add the counts of a statement that returns (inserted, updated, deleted). */
static void
add_counts(MdRun *run)
{
	run->rows_inserted += md_sql_int64(0, 1);
	run->rows_updated += md_sql_int64(0, 2);
	run->rows_deleted += md_sql_int64(0, 3);
}

/* A row that was inserted, not updated, has no xmax. */
#define WAS_INSERTED "t.xmax OPERATOR(pg_catalog.=) '0'::pg_catalog.xid AS inserted"

#define COUNT_WRITTEN \
	"pg_catalog.count(*) FILTER (WHERE w.inserted), pg_catalog.count(*) FILTER (WHERE NOT w.inserted)"

/* Merge straight into the result. */
static void
merge_into_result(MdRefresh *refresh, const char *change)
{
	char	   *statement = upsert_statement(refresh->plan->merge, refresh->result, change);

	md_sql_run(psprintf("WITH w AS (%s RETURNING " WAS_INSERTED ") SELECT " COUNT_WRITTEN
						", 0::pg_catalog.int8 FROM w", statement),
			   NULL, refresh->snapshot);
	add_counts(&refresh->run);
}

/*
 * Conditions "this state row m is that result row t" that an index or a hash
 * can serve: equality where no key is NULL, and records where one is.
 */
static char *
hidden_match(MdMerge *merge, const MdTarget *result, bool null_keys)
{
	StringInfoData equal;
	StringInfoData any_null;
	StringInfoData any_null_result;
	StringInfoData state_keys;
	int			key = 0;
	ListCell   *lc;

	initStringInfo(&equal);
	initStringInfo(&any_null);
	initStringInfo(&any_null_result);
	initStringInfo(&state_keys);
	foreach(lc, merge->result_keys)
	{
		const char *name = result->columns[lfirst_int(lc) - 1].name;

		key++;
		appendStringInfo(&equal, "%st.%s = m.c%d", key > 1 ? " AND " : "", name, key);
		appendStringInfo(&any_null, "%sm.c%d IS NULL", key > 1 ? " OR " : "", key);
		appendStringInfo(&any_null_result, "%st.%s IS NULL", key > 1 ? " OR " : "", name);
		appendStringInfo(&state_keys, "%sm.c%d", key > 1 ? ", " : "", key);
	}
	if (!null_keys)
		return equal.data;
	return psprintf("(%s) AND (%s) AND ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
					any_null.data, any_null_result.data,
					md_target_columns(result, "t", merge->result_keys), state_keys.data);
}

/* Upsert into the result of groups m that the query shows. */
static char *
carry_shown(MdMerge *merge, const MdTarget *result, Oid state)
{
	List	   *others = md_target_others(result, merge->result_keys);
	StringInfoData set;
	ListCell   *lc;

	initStringInfo(&set);
	foreach(lc, others)
	{
		const char *name = result->columns[lfirst_int(lc) - 1].name;

		appendStringInfo(&set, "%s%s = excluded.%s", set.len > 0 ? ", " : "", name, name);
	}
	return psprintf("INSERT INTO %s AS t (%s) SELECT %s FROM m WHERE %s ON CONFLICT (%s) DO %s"
					" RETURNING " WAS_INSERTED,
					result->name, md_target_columns(result, NULL, NIL),
					final_columns(merge, state), having_condition(merge, state),
					md_target_columns(result, NULL, merge->result_keys),
					others == NIL ? "NOTHING" :
					psprintf("UPDATE SET %s WHERE ROW(%s) IS DISTINCT FROM ROW(%s)", set.data,
							 md_target_comparable(result, "t", others),
							 md_target_comparable(result, "excluded", others)));
}

/* Merge into the state, and carry the groups that changed to the result. */
static void
merge_through_state(MdRefresh *refresh, const MdTarget *state, const char *change)
{
	MdMerge    *merge = refresh->plan->merge;
	const MdTarget *result = refresh->result;
	char	   *deletes = "SELECT 1 WHERE false";

	if (merge->having != NULL)
		deletes = psprintf("DELETE FROM %s t USING m WHERE (%s) IS NOT TRUE AND %s RETURNING 1",
						   result->name, having_condition(merge, state->relid),
						   hidden_match(merge, result, false));
	md_sql_run(psprintf("WITH m AS (%s RETURNING t.*), w AS (%s), x AS (%s), y AS (%s)"
						" SELECT " COUNT_WRITTEN ", (SELECT pg_catalog.count(*) FROM x)"
						" + (SELECT pg_catalog.count(*) FROM y) FROM w",
						upsert_statement(merge, state, change),
						carry_shown(merge, result, state->relid), deletes,
						merge->having == NULL ? deletes :
						psprintf("DELETE FROM %s t USING m WHERE (%s) IS NOT TRUE AND %s RETURNING 1",
								 result->name, having_condition(merge, state->relid),
								 hidden_match(merge, result, true))),
			   NULL, refresh->snapshot);
	add_counts(&refresh->run);
}

void
md_merge_apply(MdRefresh *refresh, List *parts)
{
	MdMerge    *merge = refresh->plan->merge;
	Query	   *change = md_read_substitute(partial_query(refresh->plan), parts);
	char	   *change_text = md_query_text(change);
	MdTarget   *state;
	Oid			guarded = md_guard_open(refresh->result->relid);

	if (!merge->needs_state)
		merge_into_result(refresh, change_text);
	else
	{
		state = md_target_make(refresh->view->state_table);
		if (merge->result_keys != NIL)
			merge_through_state(refresh, state, change_text);
		else
		{
			/* rows of the result are not told apart by a key: compare all */
			md_sql_run(upsert_statement(merge, state, change_text), NULL, refresh->snapshot);
			md_diff_apply(refresh->result, final_query(merge, state), NIL, NULL,
						  refresh->snapshot, &refresh->run);
		}
	}
	md_guard_open(guarded);
}

void
md_merge_rebuild(MdRefresh *refresh)
{
	MdMerge    *merge = refresh->plan->merge;
	char	   *partials = md_query_text(partial_query(refresh->plan));
	List	   *keys = key_numbers(merge);
	MdTarget   *state;
	MdRun		state_run = {0};

	if (!merge->needs_state)
	{
		md_diff_apply(refresh->result, partials, keys, NULL, refresh->snapshot, &refresh->run);
		return;
	}
	state = md_target_make(refresh->view->state_table);
	md_diff_apply(state, partials, keys, NULL, refresh->snapshot, &state_run);
	md_diff_apply(refresh->result, final_query(merge, state), merge->result_keys, NULL,
				  refresh->snapshot, &refresh->run);
}
