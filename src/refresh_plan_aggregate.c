/*
 * refresh_plan_aggregate.c
 *		Which aggregates can take in a change, and what must be kept for it.
 *
 * An aggregate is split into partial results that can be combined with those
 * of the change alone (refresh_plan_split.c): count and sum by adding, min and max by
 * comparing, avg as a sum and a count.  Where the columns of the result are just
 * keys and such partial results, the result is all that needs to be kept:
 *
 *		SELECT day, count(*), sum(x) FROM t GROUP BY day
 *
 * else they go to a state table, and the result's columns are expressions over
 * its columns:
 *
 *		SELECT avg(x) FROM t GROUP BY day HAVING count(*) > 5
 *	->	input (i1 = day, i2 = x),
 *		state (key1 = i1, add2 = sum(i2), add3 = count(i2), add4 = count(*)),
 *		result = add2::numeric / add3::numeric where add4 > 5
 *
 * Where rows may leave the input, the target counts the rows of each group, so
 * that a group goes away with its last row.
 */
#include "postgres.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "refresh_merge.h"

/* Rewrite an output expression over columns of the state table. */
static Node *
finalize_mutator(Node *node, MdSplitter *splitter)
{
	MdMerge    *merge = splitter->merge;

	if (node == NULL)
		return NULL;
	for (int key = 1; key <= md_sets_own_keys(merge); key++)
	{
		MdMergeColumn *column = list_nth(merge->columns, key - 1);
		Var		   *input = castNode(Var, column->expr);

		if (equal(list_nth(merge->inputs, input->varattno - 1), node))
			return (Node *) makeVar(1, key, input->vartype, input->vartypmod,
									input->varcollid, 0);
	}
	if (IsA(node, Aggref))
		return md_split_aggregate(splitter, (Aggref *) node);
	if (IsA(node, GroupingFunc))
		return md_sets_split_grouping(splitter, (GroupingFunc *) node);
	if (IsA(node, SubLink))
	{
		md_split_refuse(splitter, "a subquery beside aggregates does not merge", -1);
		return node;
	}
	/* a column that is functionally dependent on the keys */
	if (IsA(node, Var))
	{
		md_split_refuse(splitter, "a column that is neither a key nor in an aggregate does not merge",
						((Var *) node)->location);
		return node;
	}
	return expression_tree_mutator(node, finalize_mutator, splitter);
}

/* SELECT DISTINCT is a GROUP BY of all columns. */
static List *
group_clause(Query *query)
{
	return query->groupClause != NIL ? query->groupClause : query->distinctClause;
}

static bool
is_group_key(List *groups, TargetEntry *target)
{
	ListCell   *lc;

	foreach(lc, groups)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == target->ressortgroupref)
			return true;
	return false;
}

/* A key column, of an expression over the FROM. */
static MdMergeColumn *
make_key(MdSplitter *splitter, Expr *expr)
{
	MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));

	column->expr = (Expr *) md_split_input(splitter, expr);
	column->combine = MD_COMBINE_KEY;
	return column;
}

/* Number of the column that counts rows, 0 if there is none. */
static int
find_count(MdMerge *merge)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		number++;
		if (IsA(column->expr, Aggref) && ((Aggref *) column->expr)->aggfnoid == F_COUNT_ &&
			((Aggref *) column->expr)->aggfilter == NULL)
			return number;
	}
	return 0;
}

/*
 * Try to make the result its own target: each column a key or one aggregate
 * that combines with itself, and all keys there.
 */
static bool
make_without_state(MdMerge *merge, Query *query, List *groups, MdSplitter *splitter)
{
	ListCell   *lc;

	if (query->havingQual != NULL || (merge->is_signed && groups == NIL) ||
		(query->groupingSets != NIL && groups != NIL))
		return false;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		MdMergeColumn *column;

		if (is_group_key(groups, target))
		{
			if (target->resjunk)
				return false;
			column = make_key(splitter, target->expr);
			merge->key_count++;
		}
		else if (target->resjunk)
			continue;
		else if (!IsA(target->expr, Aggref))
			return false;
		else
			column = md_split_plain(splitter, (Aggref *) target->expr);
		if (column == NULL)
			return false;
		merge->columns = lappend(merge->columns, column);
	}
	if (merge->is_signed)
		merge->count_column = find_count(merge);
	return merge->key_count == list_length(groups) &&
		(!merge->is_signed || merge->count_column > 0);
}

/* Which column of the result shows each key of the query; NIL unless all are shown. */
static List *
find_result_keys(MdMerge *merge)
{
	List	   *result = NIL;

	for (int key = 1; key <= md_sets_own_keys(merge); key++)
	{
		int			number = 0;
		int			found = 0;
		ListCell   *lc;

		foreach(lc, merge->finals)
		{
			Node	   *final = lfirst(lc);

			number++;
			if (found == 0 && IsA(final, Var) && ((Var *) final)->varattno == key)
				found = number;
		}
		if (found == 0)
			return NIL;
		result = lappend_int(result, found);
	}
	return result;
}

/* count(*), as a column */
static MdMergeColumn *
make_count(void)
{
	MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));
	Aggref	   *count = makeNode(Aggref);

	count->aggfnoid = F_COUNT_;
	count->aggtype = INT8OID;
	count->aggstar = true;
	count->aggkind = AGGKIND_NORMAL;
	count->aggno = -1;
	count->aggtransno = -1;
	count->location = -1;
	column->expr = (Expr *) count;
	column->combine = MD_COMBINE_ADD;
	return column;
}

/* Is a column computed from the rows themselves, and not from kept values? */
static bool
has_plain_column(const MdMerge *merge)
{
	ListCell   *lc;

	foreach(lc, merge->columns)
		if (((MdMergeColumn *) lfirst(lc))->value_set == 0)
			return true;
	return false;
}

/* Expressions that are to be made of each group (of Expr). */
static List *
shown_exprs(Query *query)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			exprs = lappend(exprs, lfirst_node(TargetEntry, lc)->expr);
	return exprs;
}

/* Sums that depend on the order of their terms do not tell places of groups among others. */
static void
check_exact(MdMerge *merge, MdSplitter *splitter)
{
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		if (column->inexact || column->combine == MD_COMBINE_MOMENTS)
			md_split_refuse(splitter, "what is made of sums of floating-point numbers is not told by what is kept", -1);
	}
}

/* Keys first, then whatever partial results the output needs. */
static void
make_with_state(MdMerge *merge, Query *query, List *groups, MdSplitter *splitter)
{
	ListCell   *lc;

	merge->needs_state = true;
	foreach(lc, groups)
	{
		TargetEntry *target = get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc),
													  query->targetList);

		merge->columns = lappend(merge->columns, make_key(splitter, target->expr));
	}
	merge->key_count = list_length(merge->columns);
	if (query->groupingSets != NIL && groups != NIL)
		md_sets_split(splitter, groups);
	if (merge->is_signed && merge->key_count > 0)
	{
		merge->columns = lappend(merge->columns, make_count());
		merge->count_column = list_length(merge->columns);
	}
	foreach(lc, shown_exprs(query))
		merge->finals = lappend(merge->finals, finalize_mutator(lfirst(lc), splitter));
	merge->having = finalize_mutator(query->havingQual, splitter);
	/* all rows are one group, which is there without any: an aggregate shows it */
	if (merge->key_count == 0 && !has_plain_column(merge))
		merge->columns = lappend(merge->columns, make_count());
	/* what is shown of a group may change by what becomes of others: all are compared */
	if (merge->above == NULL)
		merge->result_keys = find_result_keys(merge);
}

/* Groups are found again by their keys, and values by keys and value, through an index. */
static void
check_keys(MdMerge *merge, MdSplitter *splitter)
{
	ListCell   *lc;

	if (merge->key_count + (merge->value_sets != NIL) > INDEX_MAX_KEYS)
		md_split_refuse(splitter, psprintf("more than %d keys do not fit an index", INDEX_MAX_KEYS), -1);
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		Oid			type = exprType((Node *) column->expr);

		if (column->combine == MD_COMBINE_KEY && IsA(column->expr, Var) &&
			(!md_split_orderable(type) || get_typtype(type) == TYPTYPE_PSEUDO))
			md_split_refuse(splitter, psprintf("keys of type %s cannot be indexed", format_type_be(type)),
							exprLocation(list_nth(merge->inputs, castNode(Var, column->expr)->varattno - 1)));
	}
}

MdMerge *
md_merge_make(Query *query, bool is_signed, Query *above, char **reason, int *location)
{
	MdMerge    *merge = palloc0(sizeof(MdMerge));
	MdSplitter	splitter = {merge, query, NULL, -1};
	List	   *groups = group_clause(query);

	merge->is_signed = is_signed;
	if (query->groupingSets != NIL && groups == NIL &&
			 list_length(expand_grouping_sets(query->groupingSets, query->groupDistinct, -1)) > 1)
		md_split_refuse(&splitter, "several empty grouping sets do not merge", -1);
	else if (query->hasTargetSRFs)
		md_split_refuse(&splitter, "set-returning functions beside aggregates do not merge", -1);
	else if (query->hasWindowFuncs)
		md_split_refuse(&splitter, "DISTINCT of window functions does not merge", -1);
	else if (query->distinctClause != NIL &&
			 (query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL))
		md_split_refuse(&splitter, "DISTINCT of an aggregate's output does not merge", -1);
	else
	{
		if (above != NULL || !make_without_state(merge, query, groups, &splitter))
		{
			memset(merge, 0, sizeof(*merge));
			merge->is_signed = is_signed;
			merge->above = above;
			splitter.reason = NULL;
			make_with_state(merge, query, groups, &splitter);
		}
		check_keys(merge, &splitter);
		if (above != NULL)
			check_exact(merge, &splitter);
		if (merge->columns == NIL)
			md_split_refuse(&splitter, "there is neither a key nor an aggregate", -1);
	}
	merge->query = query;
	if (splitter.reason == NULL)
		return merge;
	*reason = splitter.reason;
	*location = splitter.location;
	return NULL;
}

List *
md_merge_keys(const MdMerge *merge)
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
md_merge_result_keys(const MdMerge *merge)
{
	return merge->needs_state ? merge->result_keys : md_merge_keys(merge);
}
