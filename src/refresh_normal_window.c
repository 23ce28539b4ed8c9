/*
 * refresh_normal_window.c
 *		Window functions that have no PARTITION BY in common, in layers.
 *
 *	SELECT x, sum(x) OVER (PARTITION BY a), rank() OVER (PARTITION BY b ORDER BY x) FROM t
 *	->	SELECT x, s, rank() OVER (PARTITION BY b ORDER BY x) FROM
 *		(SELECT x, b, sum(x) OVER (PARTITION BY a) AS s FROM t)
 *
 * A layer's windows have a key by which its rows can be computed again, and a
 * row that comes out otherwise is a change of the layer above.
 *
 * Rows that tie in ORDER BY may be numbered this way or that, by row_number()
 * say, and a layer above would see other numbers before and now than the result
 * has.  So one window at most may tell such rows apart.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"

#include "refresh_normal.h"
#include "refresh_tree.h"

typedef struct WindowSplit
{
	Query	   *inner;			/* its target list grows */
	List	   *moved;			/* numbers of windows that are in it */
	int			level;
} WindowSplit;

static List *
partition_exprs(Query *query, WindowClause *window)
{
	return get_sortgrouplist_exprs(window->partitionClause, query->targetList);
}

/* Windows that share keys with the first, and among each other (of WindowClause). */
static List *
first_windows(Query *query)
{
	List	   *windows = NIL;
	List	   *common = NIL;
	ListCell   *lc;

	foreach(lc, query->windowClause)
	{
		List	   *exprs = partition_exprs(query, lfirst(lc));

		if (windows != NIL)
			exprs = list_intersection(common, exprs);
		if (exprs == NIL)
			continue;
		common = exprs;
		windows = lappend(windows, lfirst(lc));
	}
	return windows;
}

typedef struct NumberingContext
{
	List	   *windows;
	List	   *numbering;		/* those that tell rows apart that tie */
} NumberingContext;

static bool
numbering_walker(Node *node, NumberingContext *context)
{
	WindowFunc *function = (WindowFunc *) node;
	ListCell   *lc;

	if (node == NULL || IsA(node, Query))
		return false;
	if (!IsA(node, WindowFunc))
		return expression_tree_walker(node, numbering_walker, context);
	foreach(lc, context->windows)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (window->winref == function->winref &&
			!(function->winagg && (window->frameOptions & FRAMEOPTION_ROWS) == 0) &&
			!md_tree_is_rank(function))
			context->numbering = list_append_unique_ptr(context->numbering, window);
	}
	return false;
}

/* Do layers help? Each window must have keys of its own. */
static bool
can_split(Query *query)
{
	NumberingContext context = {query->windowClause, NIL};
	ListCell   *lc;

	(void) numbering_walker((Node *) query->targetList, &context);
	if (list_length(context.numbering) > 1)
		return false;

	foreach(lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);
		List	   *exprs = list_concat(partition_exprs(query, window),
										get_sortgrouplist_exprs(window->orderClause, query->targetList));

		if (window->partitionClause == NIL || expression_returns_set((Node *) exprs))
			return false;
	}
	return true;
}

/* What the layer below gives: its windows' functions, and columns of FROM. */
static Node *
split_mutator(Node *node, WindowSplit *split)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Node	   *result;

		split->level++;
		result = (Node *) query_tree_mutator((Query *) node, split_mutator, split, 0);
		split->level--;
		return result;
	}
	if (IsA(node, WindowFunc) && split->level == 0 &&
		list_member_int(split->moved, ((WindowFunc *) node)->winref))
		return (Node *) md_normal_column(split->inner, (Expr *) node, 0);
	if (IsA(node, Var) && (int) ((Var *) node)->varlevelsup == split->level)
	{
		Var		   *var = copyObject((Var *) node);

		var->varlevelsup = 0;
		return (Node *) md_normal_column(split->inner, (Expr *) var, split->level);
	}
	return expression_tree_mutator(node, split_mutator, split);
}

static bool
has_ref(List *targets, Index ref)
{
	ListCell   *lc;

	foreach(lc, targets)
		if (lfirst_node(TargetEntry, lc)->ressortgroupref == ref)
			return true;
	return false;
}

/* The clauses of a window need their expressions in the target list. */
static void
add_clause_exprs(Query *inner, List *clauses, List *targets)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		Index		ref = lfirst_node(SortGroupClause, lc)->tleSortGroupRef;

		if (has_ref(inner->targetList, ref))
			continue;
		md_tree_add_column(inner, copyObject(get_sortgroupref_tle(ref, targets)->expr),
						   psprintf("c%d", list_length(inner->targetList) + 1));
		llast_node(TargetEntry, inner->targetList)->ressortgroupref = ref;
	}
}

/* Make windows the layer below the query. */
static void
split_off(Query *query, List *windows)
{
	Query	   *inner = palloc(sizeof(Query));
	Query	   *outer = md_tree_select();
	WindowSplit split = {inner, NIL, 0};
	ListCell   *lc;

	memcpy(inner, query, sizeof(Query));
	inner->targetList = NIL;
	foreach(lc, windows)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		split.moved = lappend_int(split.moved, window->winref);
		add_clause_exprs(inner, window->partitionClause, query->targetList);
		add_clause_exprs(inner, window->orderClause, query->targetList);
	}
	outer->targetList = (List *) split_mutator((Node *) query->targetList, &split);
	outer->windowClause = (List *)
		split_mutator((Node *) list_difference_ptr(query->windowClause, windows), &split);
	outer->sortClause = query->sortClause;
	outer->hasSubLinks = query->hasSubLinks;
	outer->hasTargetSRFs = query->hasTargetSRFs;
	outer->hasWindowFuncs = contain_windowfuncs((Node *) outer->targetList);
	if (!outer->hasWindowFuncs)
		outer->windowClause = NIL;

	inner->hasWindowFuncs = contain_windowfuncs((Node *) inner->targetList);
	inner->windowClause = inner->hasWindowFuncs ? windows : NIL;
	inner->hasTargetSRFs = false;
	inner->sortClause = NIL;
	IncrementVarSublevelsUp((Node *) inner, 1, 1);
	(void) md_tree_add_subquery(outer, inner, "w");
	*query = *outer;
}

void
md_normal_split_windows(Query *query)
{
	while (query->hasWindowFuncs && can_split(query))
	{
		List	   *windows = first_windows(query);

		if (list_length(windows) == list_length(query->windowClause))
			return;
		split_off(query, windows);
	}
}

typedef struct UnpartitionedContext
{
	Query	   *query;
	WindowFunc *found;
} UnpartitionedContext;

static bool
unpartitioned_walker(Node *node, UnpartitionedContext *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, WindowFunc))
	{
		WindowFunc *function = (WindowFunc *) node;

		if (md_tree_window(context->query, function)->partitionClause == NIL)
			context->found = function;
		return context->found != NULL;
	}
	return expression_tree_walker(node, unpartitioned_walker, context);
}

WindowFunc *
md_normal_find_unpartitioned(Query *query)
{
	UnpartitionedContext context = {query, NULL};

	(void) unpartitioned_walker((Node *) query->targetList, &context);
	return context.found;
}
