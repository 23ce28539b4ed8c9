/*
 * refresh_settle.c
 *		One answer for queries of which rows that tie make several.
 *
 *		SELECT v, count(*) FROM (SELECT DISTINCT ON (k) k, v FROM t ORDER BY k) d GROUP BY v
 *
 * Of rows that tie in ORDER BY any one may come first.  What is made of them must
 * not be told one way at one refresh and another way at the next: a count would take
 * in a row that it had counted elsewhere.  So the order of DISTINCT ON, of LIMIT and
 * of windows that number rows is made total by what tells rows apart to those who
 * see them: columns of the result in their order, and of FROM for a window.  Rows
 * that still tie are the same.  It is done in the plan's query itself, so that
 * verify() and a recompute take the same rows.
 *
 * Columns of types without order are left out of that.  An order that a frame of a
 * window is told by stays as it is.
 */
#include "postgres.h"

#include "access/transam.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parse_oper.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "refresh_merge.h"
#include "refresh_settle.h"
#include "refresh_tree.h"

static bool
is_in_clauses(List *clauses, TargetEntry *target)
{
	ListCell   *lc;

	if (target->ressortgroupref == 0)
		return false;
	foreach(lc, clauses)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == target->ressortgroupref)
			return true;
	return false;
}

/* Sort by a target, too, if it can be sorted by. */
static List *
add_order(List *order, TargetEntry *target, List *targets)
{
	SortGroupClause *clause;

	if (is_in_clauses(order, target) || !md_split_orderable(exprType((Node *) target->expr)))
		return order;
	clause = makeNode(SortGroupClause);
	clause->tleSortGroupRef = assignSortGroupRef(target, targets);
	get_sort_group_operators(exprType((Node *) target->expr), true, true, false,
							 &clause->sortop, &clause->eqop, NULL, &clause->hashable);
	return lappend(order, clause);
}

/* ORDER BY what it was, then all columns. */
static void
settle_order(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			query->sortClause = add_order(query->sortClause, lfirst(lc), query->targetList);
}

/* The keys come first. */
static void
settle_distinct_on(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->distinctClause)
	{
		SortGroupClause *key = lfirst_node(SortGroupClause, lc);

		if (!is_in_clauses(query->sortClause, get_sortgroupclause_tle(key, query->targetList)))
			query->sortClause = lappend(query->sortClause, copyObject(key));
	}
	settle_order(query);
}

/* ----------------------------------------------------------------------
 * Windows
 * ---------------------------------------------------------------------- */

typedef enum TieKind
{
	TIE_NONE,					/* the same for all rows that tie, or told by a frame of these */
	TIE_NUMBER,					/* by the rows before and after, whatever the frame */
	TIE_FRAME					/* by a frame that counts rows */
} TieKind;

static TieKind
tie_kind(WindowFunc *function, WindowClause *window)
{
	switch (function->winfnoid)
	{
		case F_ROW_NUMBER:
		case F_NTILE:
		case F_LAG_ANYELEMENT:
		case F_LAG_ANYELEMENT_INT4:
		case F_LAG_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE:
		case F_LEAD_ANYELEMENT:
		case F_LEAD_ANYELEMENT_INT4:
		case F_LEAD_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE:
			return TIE_NUMBER;
		case F_FIRST_VALUE:
			if ((window->frameOptions & FRAMEOPTION_START_UNBOUNDED_PRECEDING) != 0 &&
				(window->frameOptions & (FRAMEOPTION_EXCLUSION | FRAMEOPTION_END_OFFSET_PRECEDING)) == 0)
				return TIE_NUMBER;
			break;
		default:
			break;
	}
	return (window->frameOptions & FRAMEOPTION_ROWS) != 0 ? TIE_FRAME : TIE_NONE;
}

typedef struct WindowContext
{
	List	   *windows;
	Index		winref;			/* the window looked at */
	TieKind		kind;			/* of its functions that are given another one */
	Index		to;				/* 0: just look */
	bool		kinds[TIE_FRAME + 1];
} WindowContext;

/* Which kinds of functions a window has; those of a kind are given another window. */
static bool
window_walker(Node *node, WindowContext *context)
{
	WindowFunc *function = (WindowFunc *) node;

	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, WindowFunc) && function->winref == context->winref)
	{
		TieKind		kind = tie_kind(function, list_nth(context->windows, function->winref - 1));

		context->kinds[kind] = true;
		if (context->to > 0 && kind == context->kind)
			function->winref = context->to;
	}
	return expression_tree_walker(node, window_walker, context);
}

/* What tells rows apart to the windows of a query (of Expr). */
static List *
telling_exprs(Query *query)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	if (query->groupingSets == NIL && query->groupClause != NIL)
		return get_sortgrouplist_exprs(query->groupClause, query->targetList);
	if (query->hasAggs || query->groupingSets != NIL)
		return NIL;
	foreach(lc, pull_vars_of_level((Node *) query->targetList, 0))
	{
		Var		   *column = copyObject(lfirst_node(Var, lc));

		/* also where a subquery has it */
		column->varlevelsup = 0;
		if (column->varattno > 0)
			exprs = list_append_unique(exprs, column);
	}
	return exprs;
}

/* A window that numbers its rows by a total order; its frame matters to no function of that kind. */
static void
settle_window(Query *query, WindowClause *window, TieKind kind, List *exprs)
{
	List	   *known = list_concat_copy(window->partitionClause, window->orderClause);
	ListCell   *lc;

	if (kind == TIE_NUMBER)
	{
		window->frameOptions = FRAMEOPTION_DEFAULTS;
		window->startOffset = window->endOffset = NULL;
	}
	foreach(lc, exprs)
	{
		TargetEntry *target = tlist_member(lfirst(lc), query->targetList);

		if (target == NULL)
		{
			target = makeTargetEntry(copyObject(lfirst(lc)), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, target);
		}
		if (!is_in_clauses(known, target))
			window->orderClause = add_order(window->orderClause, target, query->targetList);
	}
}

static void
settle_windows(Query *query)
{
	List	   *exprs = telling_exprs(query);
	int			count = list_length(query->windowClause);

	for (int i = 0; i < count && exprs != NIL; i++)
	{
		WindowClause *window = list_nth_node(WindowClause, query->windowClause, i);
		WindowContext context = {.windows = query->windowClause, .winref = window->winref};
		bool		is_used;

		(void) window_walker((Node *) query->targetList, &context);
		is_used = context.kinds[TIE_NONE];
		for (context.kind = TIE_NUMBER; context.kind <= TIE_FRAME; context.kind++)
		{
			WindowClause *settled = window;

			/* without any order they are numbered as they come */
			if (!context.kinds[context.kind] ||
				(window->partitionClause == NIL && window->orderClause == NIL))
				continue;
			if (is_used || (context.kind == TIE_NUMBER && context.kinds[TIE_FRAME]))
			{
				settled = copyObject(window);
				settled->name = NULL;
				settled->winref = list_length(query->windowClause) + 1;
				query->windowClause = lappend(query->windowClause, settled);
				context.to = settled->winref;
				(void) window_walker((Node *) query->targetList, &context);
				context.to = 0;
			}
			settle_window(query, settled, context.kind, exprs);
		}
	}
}

/* Does the function give the same whatever the order of rows that tie? */
static bool
ignores_ties(WindowFunc *function)
{
	char	   *name = get_func_name(function->winfnoid);

	if (function->winfnoid >= FirstNormalObjectId || name == NULL)
		return false;
	/* array_agg() and its like show the order; last_value(), nth_value() a row of it */
	if (function->winagg)
		return strlen(name) < 3 || strcmp(name + strlen(name) - 3, "agg") != 0;
	return md_tree_is_rank(function);
}

static bool
uncertain_walker(Node *node, Query *query)
{
	WindowFunc *function = (WindowFunc *) node;

	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, WindowFunc))
	{
		WindowClause *window = md_tree_window(query, function);

		if (tie_kind(function, window) == TIE_NONE ? !ignores_ties(function) : window->orderClause == NIL)
			return true;
	}
	return expression_tree_walker(node, uncertain_walker, query);
}

bool
md_settle_is_certain(Query *query)
{
	return !uncertain_walker((Node *) query->targetList, query);
}

/* ---------------------------------------------------------------------- */

/* LIMIT ALL and OFFSET 0 take nothing away. */
static void
drop_no_limit(Query *query)
{
	Node	   *count = eval_const_expressions(NULL, query->limitCount);
	Node	   *offset = eval_const_expressions(NULL, query->limitOffset);

	if (count != NULL && IsA(count, Const) && ((Const *) count)->constisnull)
		query->limitCount = NULL;
	if (offset != NULL && IsA(offset, Const) &&
		(((Const *) offset)->constisnull || DatumGetInt64(((Const *) offset)->constvalue) == 0))
		query->limitOffset = NULL;
}

static bool
settle_walker(Node *node, void *context)
{
	Query	   *query = (Query *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, settle_walker, context);
	drop_no_limit(query);
	if (query->hasDistinctOn)
		settle_distinct_on(query);
	else if ((query->limitCount != NULL || query->limitOffset != NULL) && query->sortClause != NIL &&
			 query->limitOption == LIMIT_OPTION_COUNT)
		settle_order(query);
	if (query->hasWindowFuncs)
		settle_windows(query);
	else
		query->windowClause = NIL;	/* WINDOW that nothing uses */
	return query_tree_walker(query, settle_walker, context, 0);
}

void
md_query_settle(Query *query)
{
	(void) settle_walker((Node *) query, NULL);
}
