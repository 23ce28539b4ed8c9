/*
 * refresh_plan_latest.c
 *		The first row of each key: DISTINCT ON, and row_number() ... = 1.
 *
 *		SELECT DISTINCT ON (k) a, b FROM t ORDER BY k, o DESC
 *	->	keys a (shown), order o DESC (kept beside the result if it is not shown), then b
 *
 * The order is total, as far as its types have one (refresh_settle.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "refresh_merge.h"
#include "refresh_order.h"

/* ----------------------------------------------------------------------
 * DISTINCT ON
 * ---------------------------------------------------------------------- */

/* Is the target in a list of SortGroupClause? */
static bool
is_in_clauses(List *clauses, TargetEntry *target)
{
	ListCell   *lc;

	foreach(lc, clauses)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == target->ressortgroupref)
			return true;
	return false;
}

/* The inputs: columns of the result, then what only ORDER BY has. */
static void
collect_inputs(MdLatest *latest, Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			latest->inputs = lappend(latest->inputs, lfirst_node(TargetEntry, lc)->expr);
	latest->result_count = list_length(latest->inputs);
}

/* Number of the input that is the target's expression, which is added if need be. */
static int
input_number(MdLatest *latest, TargetEntry *target)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, latest->inputs)
	{
		number++;
		if (equal(lfirst(lc), target->expr))
			return number;
	}
	latest->inputs = lappend(latest->inputs, target->expr);
	return number + 1;
}

/* Why the first rows cannot be kept; NULL if they can. */
static char *
why_not(Query *query)
{
	ListCell   *lc;

	if (query->hasAggs || query->groupClause != NIL || query->havingQual != NULL ||
		query->groupingSets != NIL)
		return "DISTINCT ON of aggregates has no rows to compare";
	if (query->hasWindowFuncs)
		return "DISTINCT ON of window functions has no rows to compare";
	if (query->hasTargetSRFs)
		return "DISTINCT ON of set-returning functions has no rows to compare";
	if (list_length(query->distinctClause) > INDEX_MAX_KEYS)
		return psprintf("more than %d keys do not fit an index", INDEX_MAX_KEYS);
	foreach(lc, query->distinctClause)
	{
		TargetEntry *key = get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc),
												   query->targetList);
		Oid			type = exprType((Node *) key->expr);

		if (key->resjunk)
			return "a key of DISTINCT ON is not selected";
		if (!md_split_orderable(type) || get_typtype(type) == TYPTYPE_PSEUDO)
			return psprintf("keys of type %s cannot be indexed", format_type_be(type));
	}
	return NULL;
}

MdLatest *
md_latest_make(Query *query, bool is_signed, char **reason, int *location)
{
	MdLatest   *latest = palloc0(sizeof(MdLatest));
	ListCell   *lc;

	*location = -1;
	*reason = why_not(query);
	if (*reason != NULL)
		return NULL;
	latest->is_signed = is_signed;
	collect_inputs(latest, query);
	foreach(lc, query->distinctClause)
		latest->keys = lappend_int(latest->keys,
								   input_number(latest, get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc),
																				query->targetList)));
	foreach(lc, query->sortClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupclause_tle(clause, query->targetList);

		if (is_in_clauses(query->distinctClause, target))
			continue;
		latest->order = lappend(latest->order, md_order_make(input_number(latest, target), clause));
	}
	return latest;
}

/* ----------------------------------------------------------------------
 * row_number() OVER (PARTITION BY ...) = 1
 * ---------------------------------------------------------------------- */

/* The only thing in FROM, if it is a subquery. */
static RangeTblEntry *
only_subquery(Query *query)
{
	RangeTblRef *ref;
	RangeTblEntry *rte;

	if (query->jointree == NULL || list_length(query->jointree->fromlist) != 1 ||
		!IsA(linitial(query->jointree->fromlist), RangeTblRef))
		return NULL;
	ref = linitial_node(RangeTblRef, query->jointree->fromlist);
	rte = rt_fetch(ref->rtindex, query->rtable);
	return rte->rtekind == RTE_SUBQUERY ? rte : NULL;
}

/* A SELECT of expressions, without anything that is done to the rows as a whole. */
static bool
is_plain_select(Query *query)
{
	return query->setOperations == NULL && query->cteList == NIL && !query->hasAggs &&
		query->groupClause == NIL && query->groupingSets == NIL && query->havingQual == NULL &&
		query->distinctClause == NIL && query->limitCount == NULL && query->limitOffset == NULL &&
		!query->hasTargetSRFs;
}

/* Column of the subquery that must be 1: "n = 1", "n <= 1", "n < 2"; 0: it is not that. */
static AttrNumber
numbered_column(Node *qual)
{
	OpExpr	   *op = (OpExpr *) qual;
	Const	   *bound;
	int64		value;
	char	   *name;

	if (qual == NULL || !IsA(qual, OpExpr) || list_length(op->args) != 2 ||
		!IsA(linitial(op->args), Var) || !IsA(lsecond(op->args), Const) ||
		get_op_rettype(op->opno) != BOOLOID)
		return 0;
	bound = lsecond_node(Const, op->args);
	if (bound->constisnull || (bound->consttype != INT4OID && bound->consttype != INT8OID))
		return 0;
	value = bound->consttype == INT4OID ? DatumGetInt32(bound->constvalue) :
		DatumGetInt64(bound->constvalue);
	name = get_opname(op->opno);
	if (((strcmp(name, "=") == 0 || strcmp(name, "<=") == 0) && value == 1) ||
		(strcmp(name, "<") == 0 && value == 2))
		return linitial_node(Var, op->args)->varattno;
	return 0;
}

static bool
has_other_window(List *targets, AttrNumber number)
{
	ListCell   *lc;

	foreach(lc, targets)
		if (lfirst_node(TargetEntry, lc)->resno != number &&
			contain_windowfuncs((Node *) lfirst_node(TargetEntry, lc)->expr))
			return true;
	return false;
}

typedef struct PullUp
{
	List	   *targets;		/* of the subquery */
	AttrNumber	number;			/* that is always 1 */
} PullUp;

/* Columns of the subquery by their expressions. */
static Node *
pull_up_mutator(Node *node, PullUp *pull_up)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == 0)
	{
		Var		   *var = (Var *) node;

		if (var->varattno == pull_up->number)
			return (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(1),
									  false, FLOAT8PASSBYVAL);
		return copyObject((Node *) get_tle_by_resno(pull_up->targets, var->varattno)->expr);
	}
	return expression_tree_mutator(node, pull_up_mutator, pull_up);
}

/* Does the expression refer to the subquery's row as a whole? */
static bool
has_whole_row(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varattno <= 0;
	return expression_tree_walker(node, has_whole_row, context);
}

/* Take over clauses of a window, with the expressions they sort by. */
static void
take_clauses(Query *query, List *clauses, List *targets, List **to, List **also)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		SortGroupClause *clause = copyObject(lfirst_node(SortGroupClause, lc));
		Expr	   *expr = get_sortgroupclause_tle(clause, targets)->expr;
		TargetEntry *target = tlist_member(expr, query->targetList);

		if (target == NULL)
		{
			target = makeTargetEntry(copyObject(expr), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, target);
		}
		clause->tleSortGroupRef = assignSortGroupRef(target, query->targetList);
		if (is_in_clauses(*to, target))
			continue;
		*to = lappend(*to, clause);
		if (also != NULL)
			*also = lappend(*also, copyObject(clause));
	}
}

Query *
md_latest_rewrite(Query *query)
{
	RangeTblEntry *rte = only_subquery(query);
	PullUp		pull_up;
	TargetEntry *target;
	WindowFunc *function;
	WindowClause *window;
	Query	   *result;
	ListCell   *lc;

	if (rte == NULL || !is_plain_select(query) || query->hasSubLinks || query->hasWindowFuncs ||
		!is_plain_select(rte->subquery) || !rte->subquery->hasWindowFuncs ||
		has_whole_row((Node *) query->targetList, NULL))
		return NULL;
	pull_up.targets = rte->subquery->targetList;
	pull_up.number = numbered_column(query->jointree->quals);
	target = pull_up.number > 0 ? get_tle_by_resno(pull_up.targets, pull_up.number) : NULL;
	if (target == NULL || !IsA(target->expr, WindowFunc) ||
		has_other_window(pull_up.targets, pull_up.number))
		return NULL;
	function = (WindowFunc *) target->expr;
	window = list_nth_node(WindowClause, rte->subquery->windowClause, function->winref - 1);
	if (function->winfnoid != F_ROW_NUMBER || window->partitionClause == NIL)
		return NULL;

	result = copyObject(rte->subquery);
	result->canSetTag = query->canSetTag;
	result->targetList = NIL;
	foreach(lc, query->targetList)
	{
		TargetEntry *outer = lfirst_node(TargetEntry, lc);

		if (outer->resjunk)
			continue;
		outer = copyObject(outer);
		outer->ressortgroupref = 0;
		outer->expr = (Expr *) pull_up_mutator((Node *) outer->expr, &pull_up);
		result->targetList = lappend(result->targetList, outer);
	}
	result->hasWindowFuncs = false;
	result->windowClause = NIL;
	result->sortClause = NIL;
	result->hasDistinctOn = true;
	take_clauses(result, window->partitionClause, pull_up.targets, &result->distinctClause,
				 &result->sortClause);
	/* a key that is not shown could not be found again */
	foreach(lc, result->distinctClause)
		if (get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), result->targetList)->resjunk)
			return NULL;
	take_clauses(result, window->orderClause, pull_up.targets, &result->sortClause, NULL);
	return result;
}
