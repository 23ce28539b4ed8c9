/*
 * refresh_inline.c
 *		WITH queries and plain views put in the place of references to them.
 *
 * A copy per reference: each occurrence changes by itself.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "refresh_inline.h"
#include "refresh_read.h"

typedef struct InlineCte
{
	const char *name;
	Query	   *query;
	int			levels_up;		/* of WITH, from the query that is walked */
} InlineCte;

/* Put a WITH query in the place of each reference to it. */
static bool
inline_cte_walker(Node *node, InlineCte *cte)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		int			rt_count = list_length(query->rtable);

		cte->levels_up++;
		(void) query_tree_walker(query, inline_cte_walker, cte, 0);
		for (int i = 1; i <= rt_count; i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);
			Query	   *copy;

			if (rte->rtekind != RTE_CTE || rte->ctelevelsup != cte->levels_up ||
				strcmp(rte->ctename, cte->name) != 0)
				continue;
			copy = copyObject(cte->query);
			if (cte->levels_up > 0)
				IncrementVarSublevelsUp((Node *) copy, cte->levels_up, 1);
			md_read_replace_rte(query, i, copy);
		}
		cte->levels_up--;
		return false;
	}
	return expression_tree_walker(node, inline_cte_walker, cte);
}

/* WITH is a way to write subqueries, unless it recurses or is volatile. */
static void
inline_ctes(Query *query)
{
	while (query->cteList != NIL)
	{
		CommonTableExpr *expr = linitial_node(CommonTableExpr, query->cteList);
		InlineCte	cte = {expr->ctename, castNode(Query, expr->ctequery), -1};

		if (expr->cterecursive || cte.query->commandType != CMD_SELECT ||
			contain_volatile_functions((Node *) cte.query))
			break;
		query->cteList = list_delete_first(query->cteList);
		(void) inline_cte_walker((Node *) query, &cte);
	}
}

typedef struct InlineContext
{
	Oid			owner;
	List	   *view_ids;
} InlineContext;

/* May a view's text stand in for the view, with the same privileges? */
static bool
may_inline(Oid view_id, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view_id));
	bool		may;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", view_id);
	may = ((Form_pg_class) GETSTRUCT(tuple))->relowner == owner;
	ReleaseSysCache(tuple);
	return may || superuser_arg(owner);
}

/* Replace a plain view by its query, in place; false if that is not allowed. */
static bool
inline_view(Query *query, int rt_index, InlineContext *context)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);
	Relation	view;
	Query	   *subquery;

	if (!may_inline(rte->relid, context->owner))
		return false;
	view = table_open(rte->relid, AccessShareLock);
	subquery = copyObject(get_view_query(view));
	table_close(view, NoLock);
	context->view_ids = list_append_unique_oid(context->view_ids, rte->relid);
	md_read_replace_relation(query, rt_index, subquery);
	return true;
}

static bool
inline_walker(Node *node, InlineContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		md_flatten_groups(query);
		inline_ctes(query);
		for (int i = 1; i <= list_length(query->rtable); i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);

			/* OLD and NEW of a view's rule are not in FROM */
			if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW && rte->inFromCl)
				(void) inline_view(query, i, context);
		}
		return query_tree_walker(query, inline_walker, context, 0);
	}
	return expression_tree_walker(node, inline_walker, context);
}

List *
md_query_inline(Query *query, Oid owner)
{
	InlineContext context = {owner, NIL};

	(void) inline_walker((Node *) query, &context);
	return context.view_ids;
}
