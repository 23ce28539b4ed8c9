/*
 * refresh_dependent.c
 *		Columns that GROUP BY of a primary key determines.
 *
 *		SELECT c.id, c.name, count(*) FROM customers c JOIN orders o ... GROUP BY c.id
 *	->	... GROUP BY c.id, c.name
 *
 * SQL may show c.name, since c.id determines it.  That is known of the table, not of
 * a subquery that stands in its place, its rows as they were, say.  So such columns
 * become keys of the group, which makes as many groups as before.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parse_oper.h"
#include "rewrite/rewriteManip.h"

#include "compat.h"
#include "refresh_dependent.h"
#include "refresh_merge.h"

typedef struct DependentContext
{
	List	   *keys;			/* expressions of GROUP BY */
	List	   *columns;		/* those found, of Var of the query */
	int			level;
} DependentContext;

/* Columns of the query that stand outside of its keys and aggregates. */
static bool
dependent_walker(Node *node, DependentContext *context)
{
	Node	   *inside;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		context->level++;
		(void) query_tree_walker((Query *) node, dependent_walker, context, QTW_IGNORE_JOINALIASES);
		context->level--;
		return false;
	}
	if ((IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == context->level) ||
		(IsA(node, GroupingFunc) && (int) ((GroupingFunc *) node)->agglevelsup == context->level))
		return false;
	inside = copyObject(node);
	IncrementVarSublevelsUp(inside, -context->level, context->level);
	if (list_member(context->keys, inside))
		return false;
	if (IsA(node, Var) && (int) ((Var *) node)->varlevelsup == context->level)
		context->columns = list_append_unique(context->columns, inside);
	return expression_tree_walker(node, dependent_walker, context);
}

static List *
dependent_columns(Query *query)
{
	DependentContext context = {get_sortgrouplist_exprs(query->groupClause, query->targetList), NIL, 0};

	if (query->constraintDeps == NIL || query->groupClause == NIL)
		return NIL;
	(void) dependent_walker((Node *) query->targetList, &context);
	(void) dependent_walker(query->havingQual, &context);
	return context.columns;
}

/* In each grouping set, if there are several. */
static void
add_key(Query *query, Var *column)
{
	TargetEntry *target = tlist_member((Expr *) column, query->targetList);
	SortGroupClause *key = makeNode(SortGroupClause);

	if (target == NULL)
	{
		target = makeTargetEntry((Expr *) column, list_length(query->targetList) + 1, NULL, true);
		query->targetList = lappend(query->targetList, target);
	}
	key->tleSortGroupRef = assignSortGroupRef(target, query->targetList);
	get_sort_group_operators(column->vartype, true, true, false,
							 &key->sortop, &key->eqop, NULL, &key->hashable);
	query->groupClause = lappend(query->groupClause, key);
	if (query->groupingSets != NIL)
		query->groupingSets = lappend(query->groupingSets,
									  makeGroupingSet(GROUPING_SET_SIMPLE, list_make1_int(key->tleSortGroupRef), -1));
}

static bool
group_walker(Node *node, void *context)
{
	Query	   *query = (Query *) node;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, group_walker, context);
	if (query->constraintDeps != NIL)
		md_flatten_groups(query);
	foreach(lc, dependent_columns(query))
	{
		Var		   *column = lfirst_node(Var, lc);

		/* one that can only be hashed may not be grouped by beside DISTINCT aggregates */
		if (column->varattno != InvalidAttrNumber && md_split_orderable(column->vartype))
			add_key(query, column);
	}
	return query_tree_walker(query, group_walker, context, 0);
}

void
md_query_group_dependent(Query *query)
{
	(void) group_walker((Node *) query, NULL);
}

static bool
has_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return dependent_columns((Query *) node) != NIL ||
			query_tree_walker((Query *) node, has_walker, context, 0);
	return expression_tree_walker(node, has_walker, context);
}

bool
md_query_has_dependent(Query *query)
{
	return has_walker((Node *) query, NULL);
}
