/*
 * refresh_plan.c
 *		From a query to a tree of nodes with strategies.
 *
 * The query is brought into blocks (refresh_normal.h), which are walked top
 * down, and what is known of changes is put together bottom up:
 *
 *		  Aggregate by day (regroup)	the groups that the change touches are
 *			  |							computed again, or
 *			  |		   (merge)			partial results of the change merged
 *		  Join (join)					the change of each input meets the
 *		   /     \						others' old or new rows
 *	  Scan (append)  Scan (upsert)
 *
 * What the engine does with a block is told by its kind and by its leaves
 * (refresh_leaves.h); here it is said beforehand, with the reason where nothing
 * but a recompute is left.  Expressions must give the same at every refresh for
 * the same row: stable_functions.c decides.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "refresh_delta.h"
#include "refresh_dependent.h"
#include "refresh_inline.h"
#include "refresh_leaves.h"
#include "refresh_normal.h"
#include "refresh_plan.h"
#include "refresh_settle.h"
#include "refresh_tree.h"
#include "stable_functions.h"

typedef struct PlanContext
{
	MdPlan	   *plan;
	Oid			owner;
} PlanContext;

static MdNode *plan_block(Query *query, PlanContext *context);

const char *
md_strategy_name(MdStrategy strategy)
{
	static const char *const names[] = {
		[MD_STRATEGY_APPEND] = "append",
		[MD_STRATEGY_JOIN] = "join",
		[MD_STRATEGY_MERGE] = "merge",
		[MD_STRATEGY_LATEST] = "latest",
		[MD_STRATEGY_TOP] = "top",
		[MD_STRATEGY_REGROUP] = "regroup",
		[MD_STRATEGY_WINDOW] = "window",
		[MD_STRATEGY_FULL] = "full",
	};

	return names[strategy];
}

/* ----------------------------------------------------------------------
 * Nodes
 * ---------------------------------------------------------------------- */

static MdNode *
make_node(MdNodeKind kind, char *label)
{
	MdNode	   *node = palloc0(sizeof(MdNode));

	node->kind = kind;
	node->label = label;
	node->strategy = MD_STRATEGY_APPEND;
	node->changes = MD_CHANGE_APPEND;
	node->location = -1;
	return node;
}

/* The node can only be recomputed; the first reason stands. */
static void
make_full(MdNode *node, char *reason, int location)
{
	node->strategy = MD_STRATEGY_FULL;
	node->changes = MD_CHANGE_REPLACE;
	node->by_whole = false;
	if (node->reason == NULL)
	{
		node->reason = reason;
		node->location = location;
	}
}

/* Its rows depend on all of its input: what is above groups can be made of those. */
static void
make_whole(MdNode *node, char *reason, int location)
{
	bool		by_whole = node->strategy != MD_STRATEGY_FULL || node->by_whole;

	make_full(node, reason, location);
	node->by_whole = by_whole;
}

/* The node takes and gives rows that come and go. */
static void
make_strategy(MdNode *node, MdStrategy strategy)
{
	if (node->strategy == MD_STRATEGY_FULL)
		return;
	node->strategy = strategy;
	if (strategy != MD_STRATEGY_APPEND)
		node->changes = MD_CHANGE_UPSERT;
}

/* A node over inputs that can only be recomputed is no better. */
static void
inherit_from_children(MdNode *node)
{
	ListCell   *lc;

	foreach(lc, node->children)
	{
		MdNode	   *child = lfirst(lc);

		if (child->strategy == MD_STRATEGY_FULL)
		{
			node->strategy = MD_STRATEGY_FULL;
			node->changes = MD_CHANGE_REPLACE;
		}
		else if (child->changes != MD_CHANGE_APPEND && node->strategy == MD_STRATEGY_APPEND)
			make_strategy(node, MD_STRATEGY_JOIN);
	}
}

/* Depth first, the node that explains why the whole is recomputed. */
static MdNode *
find_reason(MdNode *node)
{
	ListCell   *lc;

	foreach(lc, node->children)
	{
		MdNode	   *found = find_reason(lfirst(lc));

		if (found != NULL)
			return found;
	}
	return node->reason ? node : NULL;
}

/* ----------------------------------------------------------------------
 * Expressions
 * ---------------------------------------------------------------------- */

/* An expression that is to give the same at every refresh. */
static void
check_expression(MdNode *node, Node *expr)
{
	MdUnstable	found;

	if (md_unstable_find(expr, &found))
		make_full(node, psprintf("%s: %s", found.construct, found.why), found.location);
}

/* The same but for the time of the refresh. */
static void
check_but_time(MdNode *node, Node *expr)
{
	MdUnstable	found;

	if (md_unstable_find(expr, &found) && !found.is_time)
		make_full(node, psprintf("%s: %s", found.construct, found.why), found.location);
}

static bool
check_query_walker(Node *node, MdNode *plan_node)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		check_but_time(plan_node, (Node *) query->targetList);
		check_but_time(plan_node, (Node *) query->jointree);
		check_but_time(plan_node, query->havingQual);
		return query_tree_walker(query, check_query_walker, plan_node, QTW_IGNORE_JOINALIASES);
	}
	return expression_tree_walker(node, check_query_walker, plan_node);
}

/* ----------------------------------------------------------------------
 * Relations
 * ---------------------------------------------------------------------- */

/* Does it read any relation, or a WITH query that could not be inlined? */
static bool
reads_relation_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return (((RangeTblEntry *) node)->rtekind == RTE_RELATION &&
				((RangeTblEntry *) node)->inFromCl) ||
			((RangeTblEntry *) node)->rtekind == RTE_CTE;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_relation_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_relation_walker, context);
}

/* A scan of a relation, by how the relation changes. */
static MdNode *
plan_scan(RangeTblEntry *rte, PlanContext *context)
{
	MdReadable	readable;
	MdNode	   *node;

	md_read_describe(rte->relid, context->owner, &readable);
	node = make_node(MD_NODE_SCAN,
					 psprintf("Scan %s (%s)", md_read_relation_name(rte->relid), readable.kind_name));
	node->changes = readable.changes;
	if (readable.why != NULL)
	{
		node->strategy = MD_STRATEGY_FULL;
		node->reason = psprintf("%s: %s", md_read_relation_name(rte->relid), readable.why);
	}
	else if (rte->tablesample != NULL)
		make_full(node, "TABLESAMPLE picks other rows each time",
				  exprLocation((Node *) rte->tablesample));
	else if (!rte->inh && readable.changes != MD_CHANGE_APPEND && has_subclass(rte->relid))
		make_full(node, psprintf("ONLY %s: changes are known of it and its children together",
								 md_read_relation_name(rte->relid)), -1);
	else if (get_attnum(rte->relid, MD_WEIGHT) > 0)
		make_full(node, psprintf("%s has a column " MD_WEIGHT, md_read_relation_name(rte->relid)), -1);
	return node;
}

/* ----------------------------------------------------------------------
 * Blocks
 * ---------------------------------------------------------------------- */

/* An entry of FROM that is neither a relation nor a subquery. */
static void
plan_static_entry(MdNode *node, RangeTblEntry *rte)
{
	check_expression(node, (Node *) rte->functions);
	check_expression(node, (Node *) rte->tablefunc);
	check_expression(node, (Node *) rte->values_lists);
	if (rte->rtekind == RTE_CTE)
		make_full(node, psprintf("WITH query \"%s\" is recursive or volatile", rte->ctename), -1);
	else if (reads_relation_walker((Node *) rte->functions, NULL) ||
			 reads_relation_walker((Node *) rte->tablefunc, NULL) ||
			 reads_relation_walker((Node *) rte->values_lists, NULL))
		make_full(node, "a subquery in an argument of a function in FROM", -1);
}

/* One input of a linear query. */
static void
plan_leaf(MdNode *node, Query *linear, MdLeaf *leaf, PlanContext *context)
{
	MdNode	   *child;

	if (leaf->kind == MD_LEAF_TIME)
	{
		make_strategy(node, MD_STRATEGY_JOIN);
		return;
	}
	if (OidIsValid(leaf->relid))
		child = plan_scan(rt_fetch(leaf->rt_index, linear->rtable), context);
	else if (leaf->query == NULL)
	{
		plan_static_entry(node, rt_fetch(leaf->rt_index, linear->rtable));
		return;
	}
	else
	{
		(void) check_query_walker((Node *) leaf->query, node);
		if (!reads_relation_walker((Node *) leaf->query, NULL) &&
			!md_unstable_has_time((Node *) leaf->query))
			return;
		child = plan_block(leaf->place == MD_PLACE_CORRELATED || leaf->place == MD_PLACE_UNEQUAL ?
						   md_leaf_inner_query(leaf) : leaf->query, context);
		if (leaf->kind == MD_LEAF_SUBLINK)
			child->label = psprintf("Subquery: %s", child->label);
	}
	child->leaf = leaf;
	node->children = lappend(node->children, child);
	if (leaf->place == MD_PLACE_LINEAR)
		return;
	make_strategy(node, MD_STRATEGY_JOIN);
	if (leaf->place != MD_PLACE_WHOLE)
		return;
	/* a value that all rows depend on is looked at, and mostly stays */
	if (leaf->kind == MD_LEAF_SUBLINK && !md_tree_has_outer((Node *) leaf->query))
		child->state = "its value is compared: where it changed, the whole is recomputed";
	else
		make_full(node, leaf->why_whole, leaf->location);
}

/* FROM, WHERE and the expressions over them. */
static MdNode *
plan_linear(Query *linear, PlanContext *context)
{
	MdNode	   *node = make_node(MD_NODE_MAP, "Filter and project");
	ListCell   *lc;

	node->query = linear;
	foreach(lc, md_leaves(linear))
		plan_leaf(node, linear, lfirst(lc), context);
	foreach(lc, md_tree_terms(linear->jointree->quals))
	{
		if (checkExprHasSubLink(lfirst(lc)))
			check_expression(node, lfirst(lc));
		else
			check_but_time(node, lfirst(lc));
	}
	check_expression(node, (Node *) linear->jointree->fromlist);
	inherit_from_children(node);
	if (list_length(node->children) > 1)
		node->label = psprintf("Join of %d inputs", list_length(node->children));
	return node;
}

/* Keys by which a block's rows are computed again. */
static void
check_keys(MdNode *node, List *keys, const char *what, int location)
{
	ListCell   *lc;

	if (keys == NIL)
	{
		make_whole(node, pstrdup(what), location);
		return;
	}
	foreach(lc, keys)
	{
		Node	   *key = lfirst(lc);

		if (!OidIsValid(lookup_type_cache(exprType(key), TYPECACHE_EQ_OPR)->eq_opr))
			make_full(node, psprintf("type %s has no equality", format_type_be(exprType(key))),
					  exprLocation(key));
	}
}

/* A block that does something with the rows of its FROM and WHERE. */
static MdNode *
plan_keyed(Query *query, PlanContext *context)
{
	List	   *keys = md_block_keys(query);
	MdNode	   *node = make_node(MD_NODE_AGGREGATE, NULL);
	MdBlockKind kind = md_block_kind(query);
	bool		one_row = kind == MD_BLOCK_GROUP && query->groupClause == NIL;
	WindowFunc *unpartitioned;

	node->query = query;
	node->children = list_make1(plan_linear(md_block_input(query, keys), context));
	make_strategy(node, kind == MD_BLOCK_WINDOW ? MD_STRATEGY_WINDOW : MD_STRATEGY_REGROUP);
	switch (kind)
	{
		case MD_BLOCK_GROUP:
			node->label = one_row ? pstrdup("Aggregate all rows") :
				psprintf("Aggregate by %s", md_plan_key_count(list_length(query->groupClause)));
			if (query->groupClause != NIL && query->groupingSets != NIL)
				make_full(node, "too many grouping sets", -1);
			else if (!one_row)
				check_keys(node, keys, "GROUP BY has no key that a row gives", -1);
			break;
		case MD_BLOCK_WINDOW:
			node->label = keys == NIL ? pstrdup("Window functions over all rows") :
				psprintf("Window functions by %s", md_plan_key_count(list_length(keys)));
			unpartitioned = md_normal_find_unpartitioned(query);
			if (unpartitioned != NULL)
				check_keys(node, keys, psprintf("%s() is over a window without PARTITION BY",
												get_func_name(unpartitioned->winfnoid)), unpartitioned->location);
			else
				check_keys(node, keys, "window functions have no PARTITION BY in common", -1);
			if (contain_windowfuncs((Node *) md_query_sublinks((Node *) query->targetList)))
				make_full(node, "a window function in the condition of a subquery", -1);
			break;
		case MD_BLOCK_DISTINCT_ON:
			node->label = psprintf("Distinct on %s", md_plan_key_count(list_length(keys)));
			check_keys(node, keys, "DISTINCT ON has no key", -1);
			break;
		default:
			node->label = pstrdup("Distinct rows");
			check_keys(node, keys, "DISTINCT has no key", -1);
			break;
	}
	/* where all is computed again, the time may stand in what is shown */
	if (one_row)
	{
		check_but_time(node, (Node *) query->targetList);
		check_but_time(node, query->havingQual);
	}
	else
	{
		check_expression(node, (Node *) query->targetList);
		check_expression(node, query->havingQual);
		check_expression(node, (Node *) query->windowClause);
	}
	inherit_from_children(node);
	return node;
}

static MdNode *
plan_set_operation(Query *query, PlanContext *context)
{
	bool		all = md_block_kind(query) == MD_BLOCK_UNION_ALL;
	MdNode	   *node = make_node(MD_NODE_UNION_ALL, all ? "Union all" : "Set operation by row");
	ListCell   *lc;

	node->query = query;
	if (!all)
		make_strategy(node, MD_STRATEGY_REGROUP);
	foreach(lc, md_query_branches(query))
	{
		Query	   *branch = lfirst_node(RangeTblEntry, lc)->subquery;

		(void) check_query_walker((Node *) branch, node);
		if (reads_relation_walker((Node *) branch, NULL) ||
			md_unstable_has_time((Node *) branch))
			node->children = lappend(node->children, plan_block(branch, context));
	}
	inherit_from_children(node);
	return node;
}

static MdNode *
plan_limit(Query *query, PlanContext *context)
{
	MdNode	   *node = make_node(MD_NODE_OTHER, "Top rows");
	Query	   *input = md_block_input(query, NIL);

	node->children = list_make1(plan_linear(input, context));
	make_strategy(node, MD_STRATEGY_REGROUP);
	if (query->sortClause == NIL)
		make_full(node, "LIMIT or OFFSET without ORDER BY has no one answer",
				  exprLocation(query->limitCount ? query->limitCount : query->limitOffset));
	check_expression(node, query->limitCount);
	check_expression(node, query->limitOffset);
	check_expression(node, (Node *) query->targetList);
	inherit_from_children(node);
	return node;
}

static MdNode *
plan_block(Query *query, PlanContext *context)
{
	MdNode	   *node;

	switch (md_block_kind(query))
	{
		case MD_BLOCK_LINEAR:
			node = plan_linear(query, context);
			check_expression(node, (Node *) query->targetList);
			return node;
		case MD_BLOCK_UNION_ALL:
		case MD_BLOCK_SET:
			return plan_set_operation(query, context);
		case MD_BLOCK_LIMIT:
			return plan_limit(query, context);
		case MD_BLOCK_RECURSIVE:
			node = make_node(MD_NODE_OTHER, "With");
			make_full(node, "a WITH query is recursive or volatile",
					  linitial_node(CommonTableExpr, query->cteList)->location);
			return node;
		default:
			return plan_keyed(query, context);
	}
}

/* ----------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------- */

/* Grouping sets, and nothing else that would be done with their rows. */
static bool
has_sets(MdPlan *plan)
{
	return plan->query->groupingSets != NIL && plan->query->groupClause != NIL &&
		md_block_kind(plan->query) == MD_BLOCK_GROUP;
}

/* All of them as one block. */
static MdNode *
plan_sets(MdPlan *plan, PlanContext *context)
{
	Query	   *query = plan->query;
	List	   *keys = get_sortgrouplist_exprs(query->groupClause, query->targetList);
	Query	   *input = md_partial_linear(query, keys);
	MdNode	   *node = make_node(MD_NODE_AGGREGATE, NULL);
	int			count = list_length(expand_grouping_sets(query->groupingSets, query->groupDistinct, -1));

	node->label = psprintf("Aggregate by %d set%s of %s", count, count == 1 ? "" : "s",
						   md_plan_key_count(list_length(keys)));
	node->query = query;
	md_query_normalize(input);
	node->children = list_make1(plan_linear(input, context));
	make_strategy(node, MD_STRATEGY_MERGE);
	return node;
}

/* row_number() = 1 as DISTINCT ON, and orders such that there is one answer. */
static void
settle(MdPlan *plan)
{
	Query	   *rewritten = md_latest_rewrite(plan->query);

	if (rewritten != NULL)
		plan->query = rewritten;
	md_query_group_dependent(plan->query);
	md_query_settle(plan->query);
}

MdPlan *
md_plan_make(Query *query, Oid owner)
{
	return md_plan_make_over(query, owner, NIL);
}

MdPlan *
md_plan_make_over(Query *query, Oid owner, List *parts)
{
	MdPlan	   *plan = palloc0(sizeof(MdPlan));
	PlanContext context = {plan, owner};
	MdNode	   *reason;
	int			location;

	plan->query = copyObject(query);
	plan->location = -1;
	plan->repeatable = true;
	plan->inlined_ids = md_query_inline(plan->query, owner);
	settle(plan);
	md_plan_note_sources(plan, owner);
	if (parts != NIL)
		plan->query = md_read_substitute(plan->query, parts);

	plan->normal = copyObject(plan->query);
	if (plan->normal->limitCount == NULL && plan->normal->limitOffset == NULL &&
		!plan->normal->hasDistinctOn)
		plan->normal->sortClause = NIL;
	md_query_normalize(plan->normal);
	plan->root = plan_block(plan->normal, &context);
	if (md_plan_has_join_row(plan->query, &location))
		make_full(plan->root, "a reference to the row of a join as a whole", location);
	if (md_plan_has_system_column(plan->query, &location))
		make_full(plan->root, "a system column, which rows that came or went do not have", location);
	if (md_query_has_dependent(plan->query))
		make_full(plan->root, "a column that GROUP BY determines by a primary key, and cannot group by", -1);
	if (plan->source_ids == NIL)
		make_full(plan->root, "the query reads no table", -1);
	plan->strategy = plan->root->strategy;
	plan->changes = plan->root->changes;
	md_plan_keep(plan, has_sets(plan) ? plan_sets(plan, &context) : NULL);

	reason = find_reason(plan->root);
	if (plan->strategy == MD_STRATEGY_FULL)
	{
		Assert(reason != NULL);
		plan->reason = reason->reason;
		plan->location = reason->location;
		plan->changes = MD_CHANGE_REPLACE;
	}
	return plan;
}
