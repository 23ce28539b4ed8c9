/*
 * refresh_plan_top.c
 *		Which queries have first rows that can be kept: ORDER BY ... LIMIT.
 *
 *		SELECT a FROM t ORDER BY o DESC LIMIT 10 OFFSET 5
 *	->	columns a, o; order o DESC, a; skip 5, count 10
 *
 * The order is total, as far as its types have one (refresh_settle.c), but for WITH
 * TIES, where rows that tie stand together.  Where rows may leave, as many again are
 * kept, so that the query is run again when so many are gone, and not for each.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "refresh_order.h"
#include "refresh_top.h"

/* More rows are not kept: finding the place of a change among them costs all of them. */
#define MAX_NEEDED 100000

/* Is the query sorted by the target? */
static bool
is_sorted_by(Query *query, TargetEntry *target)
{
	ListCell   *lc;

	if (target->ressortgroupref == 0)
		return false;
	foreach(lc, query->sortClause)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == target->ressortgroupref)
			return true;
	return false;
}

/* The value of LIMIT or OFFSET; false: it is no constant.  *is_null: there is none. */
static bool
constant_value(Node *expr, int64 *value, bool *is_null)
{
	Node	   *node = expr == NULL ? NULL : eval_const_expressions(NULL, copyObject(expr));

	*value = 0;
	*is_null = node == NULL;
	if (node == NULL)
		return true;
	if (!IsA(node, Const))
		return false;
	*is_null = ((Const *) node)->constisnull;
	if (!*is_null)
		*value = DatumGetInt64(((Const *) node)->constvalue);
	return true;
}

/* How many rows are skipped and taken; why not, or NULL. */
static char *
read_limits(MdTop *top, Query *block)
{
	bool		no_skip;
	bool		no_count;

	top->with_ties = block->limitOption == LIMIT_OPTION_WITH_TIES;
	if (!constant_value(block->limitOffset, &top->skip, &no_skip) ||
		!constant_value(block->limitCount, &top->count, &no_count))
		return "LIMIT or OFFSET is no constant";
	if (no_count)
		return "OFFSET without LIMIT";
	if (top->skip < 0 || top->count < 0)
		return "LIMIT or OFFSET is negative";
	if (top->skip > 0 && top->with_ties)
		return "OFFSET may skip any of the rows that tie";
	if (top->skip > MAX_NEEDED || top->count > MAX_NEEDED || md_top_needed(top) > MAX_NEEDED)
		return psprintf("more than %d rows are not kept", MAX_NEEDED);
	return NULL;
}

/* Is anything made of aggregates of floating-point numbers? */
static bool
float_aggregate_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) || IsA(node, WindowFunc))
	{
		Oid			type = exprType(node);

		if (type == FLOAT4OID || type == FLOAT8OID)
			return true;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, float_aggregate_walker, context, 0);
	return expression_tree_walker(node, float_aggregate_walker, context);
}

MdTop *
md_top_make(Query *block, bool is_signed, char **why)
{
	MdTop	   *top = palloc0(sizeof(MdTop));
	Index	   *refs = palloc0(sizeof(Index) * (list_length(block->targetList) + 1));
	ListCell   *lc;

	*why = block->sortClause == NIL ? "there is no ORDER BY" : read_limits(top, block);
	foreach(lc, block->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk && !is_sorted_by(block, target))
			continue;
		top->exprs = lappend(top->exprs, target->expr);
		refs[list_length(top->exprs)] = target->ressortgroupref;
		if (!target->resjunk)
			top->shown = lappend_int(top->shown, list_length(top->exprs));
		else if (get_typtype(exprType((Node *) target->expr)) == TYPTYPE_PSEUDO && *why == NULL)
			*why = psprintf("what it is sorted by is of type %s", format_type_be(exprType((Node *) target->expr)));
	}
	if (*why != NULL)
		return NULL;
	foreach(lc, block->sortClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		int			number = 1;

		while (number < list_length(top->exprs) && refs[number] != clause->tleSortGroupRef)
			number++;
		top->order = lappend(top->order, md_order_make(number, clause));
	}
	if (is_signed && !top->with_ties)
		top->spare = top->count;
	top->is_inexact = query_tree_walker(block, float_aggregate_walker, NULL, 0);
	return top;
}

int64
md_top_needed(const MdTop *top)
{
	return top->skip + top->count;
}

int64
md_top_kept(const MdTop *top)
{
	return md_top_needed(top) + top->spare;
}

bool
md_top_has_state(const MdTop *top)
{
	return top->count > 0 &&
		(top->skip > 0 || top->spare > 0 || list_length(top->exprs) > list_length(top->shown));
}

Query *
md_top_query(const MdTop *top, Query *query)
{
	Query	   *kept = copyObject(query);
	ListCell   *lc;

	foreach(lc, kept->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk || !is_sorted_by(kept, target))
			continue;
		target->resjunk = false;
		target->resname = psprintf("o%d", target->resno);
	}
	kept->limitOffset = NULL;
	kept->limitCount = (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64),
										  Int64GetDatum(md_top_kept(top)), false, FLOAT8PASSBYVAL);
	return kept;
}
