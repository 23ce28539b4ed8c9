/*
 * refresh_plan_above.c
 *		What a query makes of all groups of another one, that are kept.
 *
 *		SELECT k, sum(x), rank() OVER (ORDER BY sum(x) DESC) FROM t GROUP BY k LIMIT 10
 *	->	groups		SELECT k, sum(x) FROM t GROUP BY k
 *		above		SELECT c1, c2, rank() OVER (ORDER BY c2 DESC) FROM groups LIMIT 10
 *
 * A window without PARTITION BY and a LIMIT can be told by no key: each of their rows
 * depends on all of the input.  Groups take in a change by themselves, and are few beside
 * the rows that they are made of.  So what is above them is made of what is kept of them,
 * and compared with the result.
 *
 * Kept groups come in another order than those of the query, so what is above them must
 * have one answer (refresh_settle.h).
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

#include "refresh_normal.h"
#include "refresh_plan.h"
#include "refresh_settle.h"
#include "refresh_tree.h"
#include "stable_functions.h"

/* The entry of FROM that is a subquery, if the query reads nothing else; else NULL. */
static RangeTblEntry *
only_input(Query *query)
{
	RangeTblEntry *found = NULL;
	Bitmapset  *relids = md_tree_relids((Node *) query->jointree);
	int			rt_index = -1;

	if (query->hasSubLinks || query->cteList != NIL || query->setOperations != NULL)
		return NULL;
	while ((rt_index = bms_next_member(relids, rt_index)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);

		switch (rte->rtekind)
		{
			case RTE_SUBQUERY:
				if (found != NULL || md_tree_has_outer((Node *) rte->subquery))
					return NULL;
				found = rte;
				break;
			case RTE_JOIN:
			case RTE_FUNCTION:
			case RTE_TABLEFUNC:
			case RTE_VALUES:
			case RTE_RESULT:
				break;
			default:
				return NULL;
		}
	}
	return found;
}

/* The only node below; NULL: there are none, or several. */
static MdNode *
only_child(MdNode *node)
{
	return list_length(node->children) == 1 ? linitial(node->children) : NULL;
}

/* Does the time of the refresh change what a block makes of its input? */
static bool
moves(Query *query)
{
	return md_plan_values_move(query) || md_unstable_has_time(query->jointree->quals) ||
		md_unstable_has_time(query->limitCount) || md_unstable_has_time(query->limitOffset);
}

/* Is the node recomputed for no other reason than that it depends on all of its input? */
static bool
follows_from_input(MdNode *node)
{
	return node->reason == NULL || node->by_whole;
}

/*
 * Go down from a block to groups that can be kept: *query becomes theirs, *node theirs.
 * The entry of FROM that they are; NULL: there are none, or they would not help.
 */
static RangeTblEntry *
find_groups(Query **query, MdNode **node)
{
	bool		is_whole = false;	/* all of the groups is wanted each time */
	bool		is_first = false;	/* some of them: the first of an order */

	for (;;)
	{
		MdBlockKind kind = md_block_kind(*query);
		MdNode	   *linear = kind == MD_BLOCK_LINEAR ? *node : only_child(*node);
		RangeTblEntry *rte = only_input(*query);

		if (kind == MD_BLOCK_GROUP || linear == NULL || rte == NULL || only_child(linear) == NULL ||
			!follows_from_input(*node) || !follows_from_input(linear) || moves(*query) ||
			!md_settle_is_certain(*query))
			return NULL;
		is_whole = is_whole || (*node)->by_whole;
		is_first = kind == MD_BLOCK_LIMIT || (is_first && kind == MD_BLOCK_LINEAR);
		*query = rte->subquery;
		*node = only_child(linear);
		kind = md_block_kind(*query);
		if ((kind == MD_BLOCK_GROUP || kind == MD_BLOCK_DISTINCT) && (*node)->strategy != MD_STRATEGY_FULL)
			return is_whole || is_first ? rte : NULL;
	}
}

/* Make the entry a reference to the kept groups. */
static void
refer_to_groups(RangeTblEntry *rte, Query *groups)
{
	ListCell   *lc;

	rte->rtekind = RTE_CTE;
	rte->subquery = NULL;
	rte->lateral = false;
	rte->ctename = pstrdup(MD_KEPT_GROUPS);
	foreach(lc, groups->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (lfirst_node(TargetEntry, lc)->resjunk)
			continue;
		rte->coltypes = lappend_oid(rte->coltypes, exprType(expr));
		rte->coltypmods = lappend_int(rte->coltypmods, exprTypmod(expr));
		rte->colcollations = lappend_oid(rte->colcollations, exprCollation(expr));
	}
	rte->eref->colnames = NIL;
	for (int n = 1; n <= md_tree_width(groups); n++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("c%d", n)));
	rte->alias = makeAlias("g", NIL);
}

MdMerge *
md_plan_keep_groups(MdPlan *plan, MdNode **groups)
{
	Query	   *query = plan->normal;
	Query	   *above;
	MdNode	   *node = plan->root;
	RangeTblEntry *rte;
	MdMerge    *merge;
	char	   *reason;
	int			location;

	if (find_groups(&query, &node) == NULL || only_child(node) == NULL || md_plan_values_move(query))
		return NULL;
	/* the same way in a copy, of which the groups are taken out */
	above = query = copyObject(plan->normal);
	*groups = plan->root;
	rte = find_groups(&query, groups);
	merge = md_merge_make(query, only_child(node)->changes != MD_CHANGE_APPEND, above, &reason, &location);
	if (merge != NULL)
		refer_to_groups(rte, query);
	return merge;
}
