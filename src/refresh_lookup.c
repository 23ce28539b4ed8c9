/*
 * refresh_lookup.c
 *		What a plan looks up in the relations that it reads.
 *
 * A change of one input of a join meets the others by the equalities between
 * them; keys that a change touches restrict what a block reads, through the
 * columns of subqueries and the equalities of the query, down to the scans
 * (refresh_match.h does the same to a query that is to be run):
 *
 *		  Aggregate by c.region			keys: c.region
 *			  |
 *		  Join o.customer = c.id		o by customer, c by id; c by region
 *		   /		 \
 *		orders o	customers c
 *
 * So there is a set of expressions per way to a scan.  The index that would serve
 * each is what a person can do for the refresh.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "refresh_leaves.h"
#include "refresh_lookup.h"
#include "refresh_merge.h"
#include "refresh_normal.h"
#include "refresh_target.h"
#include "refresh_tree.h"
#include "stable_functions.h"

/* A way by which rows of something are wanted. */
typedef struct Way
{
	List	   *items;			/* expressions, or columns (of int) */
	bool		partial;		/* the other inputs have the rest: it is one way of several */
} Way;

static void visit(MdNode *node, List *demands);

static Way *
make_way(List *items, bool partial)
{
	Way		   *way = palloc(sizeof(Way));

	way->items = items;
	way->partial = partial;
	return way;
}

/* Add a way (of Way) with items in it, once. */
static void
add_way(List **ways, List *items, bool partial)
{
	ListCell   *lc;

	if (items == NIL)
		return;
	foreach(lc, *ways)
	{
		Way		   *way = lfirst(lc);

		if (equal(way->items, items))
		{
			way->partial = way->partial && partial;
			return;
		}
	}
	*ways = lappend(*ways, make_way(items, partial));
}

/* 1, 2, ..., count */
static List *
numbers_to(int count)
{
	List	   *numbers = NIL;

	for (int i = 1; i <= count; i++)
		numbers = lappend_int(numbers, i);
	return numbers;
}

/* ----------------------------------------------------------------------
 * Expressions over one entry
 * ---------------------------------------------------------------------- */

/* Columns as those of entry 1, whatever outer joins made of them. */
static Node *
rebase_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		return (Node *) makeVar(1, var->varattno, var->vartype, var->vartypmod, var->varcollid, 0);
	}
	return expression_tree_mutator(node, rebase_mutator, context);
}

static bool
is_over(Expr *expr, int index)
{
	Bitmapset  *used = md_tree_used((Node *) expr);

	return bms_membership(used) == BMS_SINGLETON && bms_is_member(index, used) &&
		!md_tree_has_outer((Node *) expr) && !checkExprHasSubLink((Node *) expr) &&
		!contain_volatile_functions((Node *) expr) && !expression_returns_set((Node *) expr);
}

/* Equalities of FROM and WHERE (of OpExpr), and what can be known by them. */
static void
collect_terms(Node *from, List **terms)
{
	Node	   *quals = NULL;
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			collect_terms(lfirst(lc), terms);
		quals = ((FromExpr *) from)->quals;
	}
	else if (IsA(from, JoinExpr))
	{
		collect_terms(((JoinExpr *) from)->larg, terms);
		collect_terms(((JoinExpr *) from)->rarg, terms);
		quals = ((JoinExpr *) from)->quals;
	}
	foreach(lc, md_tree_terms(quals))
		if (md_is_equality(lfirst(lc)) && !md_tree_has_outer(lfirst(lc)))
			*terms = lappend(*terms, lfirst(lc));
}

/* The expressions, and all that equalities make equal to them. */
static List *
close_set(List *exprs, List *terms)
{
	List	   *all = list_copy(exprs);
	int			before;

	do
	{
		ListCell   *lc;

		before = list_length(all);
		foreach(lc, terms)
			for (int side = 0; side < 2; side++)
				if (list_member(all, list_nth(((OpExpr *) lfirst(lc))->args, side)) &&
					!IsA(list_nth(((OpExpr *) lfirst(lc))->args, 1 - side), Const))
					all = list_append_unique(all, list_nth(((OpExpr *) lfirst(lc))->args, 1 - side));
	} while (list_length(all) > before);
	return all;
}

/* Those of the expressions that are over the entry alone. */
static List *
own_exprs(List *exprs, int index)
{
	List	   *own = NIL;
	ListCell   *lc;

	foreach(lc, exprs)
		if (is_over(lfirst(lc), index))
			own = list_append_unique(own, rebase_mutator(lfirst(lc), NULL));
	return own;
}

/* By what a change of another entry meets this one. */
static void
add_joined_ways(List **ways, Query *linear, List *terms, int index)
{
	Bitmapset  *entries = md_tree_relids((Node *) linear->jointree);

	for (int other = -1; (other = bms_next_member(entries, other)) >= 0;)
	{
		List	   *met = NIL;
		ListCell   *lc;

		if (other == index)
			continue;
		foreach(lc, terms)
			for (int side = 0; side < 2; side++)
			{
				Expr	   *own = list_nth(((OpExpr *) lfirst(lc))->args, side);
				Bitmapset  *used = md_tree_used(list_nth(((OpExpr *) lfirst(lc))->args, 1 - side));

				if (bms_is_member(other, used) && !bms_is_member(index, used))
					met = lappend(met, own);
			}
		add_way(ways, own_exprs(met, index), false);
	}
}

/* ----------------------------------------------------------------------
 * Nodes
 * ---------------------------------------------------------------------- */

static void
add_lookup(MdNode *scan, List *exprs, bool is_range, bool partial)
{
	MdLookup   *lookup = palloc0(sizeof(MdLookup));

	lookup->relid = scan->leaf->relid;
	lookup->exprs = exprs;
	lookup->is_range = is_range;
	lookup->partial = partial;
	scan->lookups = lappend(scan->lookups, lookup);
}

/* Conditions that move with now() find what passes by a bound. */
static void
add_ranges(MdNode *scan, Query *linear)
{
	ListCell   *lc;

	foreach(lc, md_tree_terms(linear->jointree->quals))
	{
		OpExpr	   *op = lfirst(lc);

		if (!IsA(op, OpExpr) || list_length(op->args) != 2 || !md_unstable_has_time((Node *) op))
			continue;
		for (int side = 0; side < 2; side++)
			if (is_over(list_nth(op->args, side), scan->leaf->rt_index) &&
				!md_unstable_has_time(list_nth(op->args, side)))
				add_lookup(scan, list_make1(rebase_mutator(list_nth(op->args, side), NULL)), true, false);
	}
}

/* Ways by expressions over a subquery as ways by its columns. */
static List *
columns_of(List *ways)
{
	List	   *demands = NIL;
	ListCell   *lc;
	ListCell   *e;

	foreach(lc, ways)
	{
		Way		   *way = lfirst(lc);
		List	   *columns = NIL;

		foreach(e, way->items)
			if (IsA(lfirst(e), Var) && ((Var *) lfirst(e))->varattno > 0)
				columns = lappend_int(columns, ((Var *) lfirst(e))->varattno);
		add_way(&demands, columns, way->partial);
	}
	return demands;
}

/* A leaf that meets the query by pairs: the columns of what was planned for it. */
static List *
pair_columns(MdLeaf *leaf)
{
	List	   *columns = NIL;
	ListCell   *lc;

	if (leaf->place == MD_PLACE_CORRELATED)
		return numbers_to(list_length(leaf->pairs));
	foreach(lc, leaf->pairs)
		columns = lappend_int(columns, ((MdPair *) lfirst(lc))->column);
	return columns;
}

static bool
meets_by_pairs(MdLeaf *leaf)
{
	return leaf->place == MD_PLACE_CORRELATED || leaf->place == MD_PLACE_IN;
}

/* Expressions by which rows of the query are wanted (of Way). */
static List *
wanted_ways(MdNode *node, List *demands)
{
	List	   *wanted = NIL;
	ListCell   *lc;
	ListCell   *i;

	foreach(lc, demands)
	{
		Way		   *demand = lfirst(lc);
		List	   *exprs = NIL;

		foreach(i, demand->items)
			exprs = lappend(exprs, md_tree_target(node->query, lfirst_int(i))->expr);
		wanted = lappend(wanted, make_way(exprs, demand->partial));
	}
	/* a change of a subquery in an expression touches rows by its outer side */
	foreach(lc, node->children)
	{
		MdLeaf	   *leaf = ((MdNode *) lfirst(lc))->leaf;
		List	   *exprs = NIL;

		if (!meets_by_pairs(leaf))
			continue;
		foreach(i, leaf->pairs)
			exprs = lappend(exprs, ((MdPair *) lfirst(i))->outer);
		wanted = lappend(wanted, make_way(exprs, false));
	}
	return wanted;
}

/* What a way means for one entry. */
static void
add_wanted_way(List **ways, Way *wanted, List *terms, int index)
{
	List	   *own = own_exprs(close_set(wanted->items, terms), index);

	add_way(ways, own, wanted->partial || list_length(own) < list_length(wanted->items));
}

/* demands: columns by which rows of it are wanted (of Way). */
static void
visit_linear(MdNode *node, List *demands)
{
	Query	   *linear = node->query;
	List	   *terms = NIL;
	List	   *wanted;
	ListCell   *lc;
	ListCell   *w;

	collect_terms((Node *) linear->jointree, &terms);
	wanted = wanted_ways(node, demands);
	foreach(lc, node->children)
	{
		MdNode	   *child = lfirst(lc);
		List	   *ways = NIL;

		if (meets_by_pairs(child->leaf))
		{
			visit(child, list_make1(make_way(pair_columns(child->leaf), false)));
			continue;
		}
		if (child->leaf->place == MD_PLACE_UNEQUAL)
		{
			/* what was planned for it has columns of its own, which no index finds */
			visit(child, NIL);
			continue;
		}
		if (child->leaf->kind == MD_LEAF_ENTRY)
		{
			add_joined_ways(&ways, linear, terms, child->leaf->rt_index);
			foreach(w, wanted)
				add_wanted_way(&ways, lfirst(w), terms, child->leaf->rt_index);
		}
		if (child->kind != MD_NODE_SCAN)
		{
			visit(child, columns_of(ways));
			continue;
		}
		foreach(w, ways)
			add_lookup(child, ((Way *) lfirst(w))->items, false, ((Way *) lfirst(w))->partial);
		add_ranges(child, linear);
	}
}

/*
 * A block over the rows of its input, which has the keys as its first columns.  below:
 * ways by which the input is read whatever is wanted of the block.
 */
static void
visit_block(MdNode *node, List *demands, List *below)
{
	List	   *keys = md_block_keys(node->query);
	ListCell   *lc;
	ListCell   *i;

	foreach(lc, demands)
	{
		Way		   *demand = lfirst(lc);
		List	   *columns = NIL;

		foreach(i, demand->items)
		{
			Expr	   *expr = md_tree_target(node->query, lfirst_int(i))->expr;
			ListCell   *k;

			foreach(k, keys)
				if (equal(lfirst(k), expr))
					columns = list_append_unique_int(columns, foreach_current_index(k) + 1);
		}
		add_way(&below, columns, demand->partial || list_length(columns) < list_length(demand->items));
	}
	visit(linitial(node->children), below);
}

/* All keys of a block, as a way. */
static List *
by_all_keys(MdNode *node)
{
	List	   *ways = NIL;

	add_way(&ways, numbers_to(list_length(md_block_keys(node->query))), false);
	return ways;
}

/* A way for each grouping set that has keys. */
static List *
by_sets(const MdMerge *merge)
{
	List	   *ways = NIL;
	ListCell   *lc;

	foreach(lc, md_sets_distinct(merge))
	{
		List	   *keys = NIL;

		for (int key = 1; key <= md_sets_own_keys(merge); key++)
			if (md_sets_has_key(merge, lfirst_int(lc), key))
				keys = lappend_int(keys, key);
		add_way(&ways, keys, false);
	}
	return ways;
}

static void
visit(MdNode *node, List *demands)
{
	ListCell   *lc;

	switch (node->kind)
	{
		case MD_NODE_SCAN:
			break;
		case MD_NODE_MAP:
			visit_linear(node, demands);
			break;
		case MD_NODE_UNION_ALL:
			if (md_block_kind(node->query) == MD_BLOCK_SET)
			{
				demands = list_copy(demands);
				add_way(&demands, numbers_to(md_tree_width(node->query)), false);
			}
			foreach(lc, node->children)
				visit(lfirst(lc), demands);
			break;
		case MD_NODE_AGGREGATE:
			visit_block(node, demands, by_all_keys(node));
			break;
		case MD_NODE_LATEST:
		case MD_NODE_OTHER:
			foreach(lc, node->children)
				visit(lfirst(lc), NIL);
			break;
	}
}

/* May groups or keys of the top block have to be read again? */
static bool
reads_again(const MdPlan *plan)
{
	ListCell   *lc;

	if (plan->latest != NULL)
		return plan->latest->is_signed;
	if (plan->merge == NULL)
		return true;
	if (plan->merge->is_signed)
		foreach(lc, plan->merge->columns)
			if (md_partial_asks(lfirst(lc)))
				return true;
	return false;
}

void
md_lookups_find(MdPlan *plan)
{
	if (plan->strategy == MD_STRATEGY_FULL)
		return;
	if (plan->merge != NULL && plan->merge->above != NULL)
	{
		MdNode	   *groups = linitial(plan->root->children);

		visit_block(groups, NIL, reads_again(plan) ? by_all_keys(groups) : NIL);
	}
	else if (plan->root->kind == MD_NODE_AGGREGATE)
		visit_block(plan->root, NIL, !reads_again(plan) ? NIL :
					plan->merge != NULL && plan->merge->sets != NIL ? by_sets(plan->merge) :
					by_all_keys(plan->root));
	else
		visit(plan->root, NIL);
}

MdLookup *
md_lookup_by_columns(Oid relid, List *numbers)
{
	MdLookup   *lookup = palloc0(sizeof(MdLookup));
	MdTarget   *target = md_target_make(relid);
	ListCell   *lc;

	lookup->relid = relid;
	foreach(lc, numbers)
	{
		AttrNumber	attnum = target->columns[lfirst_int(lc) - 1].attnum;
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
		lookup->exprs = lappend(lookup->exprs, makeVar(1, attnum, type, typmod, collation, 0));
	}
	return lookup;
}
