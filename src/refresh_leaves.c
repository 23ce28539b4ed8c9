/*
 * refresh_leaves.c
 *		The inputs of a linear query, and how each stands in it.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

#include "refresh_leaves.h"
#include "refresh_normal.h"
#include "refresh_tree.h"
#include "stable_functions.h"

/* An equality that a hash or a merge join could use, of plain expressions. */
bool
md_is_equality(Node *term)
{
	OpExpr	   *op = (OpExpr *) term;

	return IsA(term, OpExpr) && list_length(op->args) == 2 &&
		(op_mergejoinable(op->opno, exprType(linitial(op->args))) ||
		 op_hashjoinable(op->opno, exprType(linitial(op->args)))) &&
		op_strict(op->opno) &&
		!checkExprHasSubLink(term) && !contain_volatile_functions(term) &&
		!expression_returns_set(term);
}

static MdPair *
make_pair(OpExpr *op, Expr *outer, Expr *inner, bool outer_first)
{
	MdPair	   *pair = palloc0(sizeof(MdPair));

	pair->op = op;
	pair->outer = outer;
	pair->inner = inner;
	pair->outer_first = outer_first;
	return pair;
}

Expr *
md_pair_with_inner(MdPair *pair, Expr *inner)
{
	OpExpr	   *op = copyObject(pair->op);

	op->args = pair->outer_first ? list_make2(copyObject(pair->outer), inner) :
		list_make2(inner, copyObject(pair->outer));
	return (Expr *) op;
}

Expr *
md_pair_with_outer(MdPair *pair, Expr *outer)
{
	OpExpr	   *op = copyObject(pair->op);

	op->args = pair->outer_first ? list_make2(outer, copyObject(pair->inner)) :
		list_make2(copyObject(pair->inner), outer);
	return (Expr *) op;
}

/* ----------------------------------------------------------------------
 * Pairs
 * ---------------------------------------------------------------------- */

/* Equalities of a join's condition between entry `inner` and the others. */
static List *
join_pairs(Node *quals, int inner, Bitmapset *others)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	foreach(lc, md_tree_terms(quals))
	{
		OpExpr	   *op = lfirst(lc);

		if (!md_is_equality((Node *) op) || md_tree_has_outer((Node *) op))
			continue;
		for (int side = 0; side < 2; side++)
		{
			Expr	   *in = list_nth(op->args, side);
			Expr	   *out = list_nth(op->args, 1 - side);
			Bitmapset  *in_used = md_tree_used((Node *) in);
			Bitmapset  *out_used = md_tree_used((Node *) out);

			if (bms_membership(in_used) == BMS_SINGLETON && bms_is_member(inner, in_used) &&
				!bms_is_empty(out_used) && bms_is_subset(out_used, others))
			{
				pairs = lappend(pairs, make_pair(op, out, in, side == 1));
				break;
			}
		}
	}
	return pairs;
}

typedef struct LevelContext
{
	int			level;			/* of the node that is walked */
	int			least;			/* lowest level that is used, from the start */
	int			most;
} LevelContext;

static bool
level_walker(Node *node, LevelContext *context)
{
	int			level = -1;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		level = ((Var *) node)->varlevelsup;
	else if (IsA(node, Aggref))
		level = ((Aggref *) node)->agglevelsup;
	if (level >= context->level)
	{
		context->least = Min(context->least, level - context->level);
		context->most = Max(context->most, level - context->level);
	}
	if (IsA(node, Query))
	{
		context->level++;
		(void) query_tree_walker((Query *) node, level_walker, context, QTW_IGNORE_JOINALIASES);
		context->level--;
		return false;
	}
	return expression_tree_walker(node, level_walker, context);
}

/* Does the expression use just the query `level` levels up? */
static bool
uses_only_level(Node *expr, int level)
{
	LevelContext context = {0, 1000, -1};

	(void) level_walker(expr, &context);
	return context.least == level && context.most == level;
}

/*
 * The subquery that a query is a layer over, with nothing else in it that could
 * change; its own row with names may stand beside it (refresh_normal_join.c).
 */
static Query *
layer_over(Query *query)
{
	Query	   *below = NULL;
	ListCell   *lc;

	if (query->hasSubLinks)
		return NULL;
	foreach(lc, query->jointree->fromlist)
	{
		RangeTblEntry *rte;

		if (!IsA(lfirst(lc), RangeTblRef))
			return NULL;
		rte = rt_fetch(lfirst_node(RangeTblRef, lc)->rtindex, query->rtable);
		if (rte->rtekind != RTE_SUBQUERY || (below != NULL && md_tree_reads_anything(rte->subquery)))
			return NULL;
		if (below == NULL)
			below = rte->subquery;
	}
	return below;
}

/*
 * Equalities in WHERE of a subquery between its own FROM and the linear query
 * `depth` levels up; looked for through the layers that a query was split into.
 */
static List *
correlation_pairs(Query *query, int depth, Query **at, int *at_depth)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	if (query->setOperations != NULL || query->cteList != NIL)
		return NIL;
	foreach(lc, md_tree_terms(query->jointree->quals))
	{
		OpExpr	   *op = lfirst(lc);

		if (!md_is_equality((Node *) op))
			continue;
		for (int side = 0; side < 2; side++)
		{
			Node	   *in = list_nth(op->args, side);
			Node	   *out = list_nth(op->args, 1 - side);

			if (uses_only_level(in, 0) && uses_only_level(out, depth))
			{
				out = copyObject(out);
				IncrementVarSublevelsUp(out, -depth, depth);
				pairs = lappend(pairs, make_pair(op, (Expr *) out, (Expr *) in, side == 1));
				break;
			}
		}
	}
	*at = query;
	*at_depth = depth;
	if (pairs != NIL)
		return pairs;

	query = layer_over(query);
	return query == NULL ? NIL : correlation_pairs(query, depth + 1, at, at_depth);
}

List *
md_leaf_outer_terms(Query *at)
{
	List	   *terms = NIL;
	ListCell   *lc;

	foreach(lc, md_tree_terms(at->jointree->quals))
		if (md_tree_has_outer(lfirst(lc)))
			terms = lappend(terms, lfirst(lc));
	return terms;
}

typedef struct ColumnsContext
{
	List	   *columns;		/* of the query's own, of Var */
	int			depth;			/* of the others */
} ColumnsContext;

/* True if there is more in it than columns of the two queries. */
static bool
columns_walker(Node *node, ColumnsContext *context)
{
	Var		   *var = (Var *) node;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink) || IsA(node, Aggref) || IsA(node, GroupingFunc))
		return true;
	if (!IsA(node, Var))
		return expression_tree_walker(node, columns_walker, context);
	if (var->varlevelsup == 0)
		context->columns = list_append_unique(context->columns, var);
	return var->varattno == InvalidAttrNumber ||
		(var->varlevelsup > 0 && (int) var->varlevelsup != context->depth);
}

/*
 * A subquery that depends on the query around it by conditions in WHERE that
 * are no equalities; looked for through layers likewise.
 */
static bool
is_unequal(MdLeaf *leaf)
{
	ColumnsContext context = {NIL, 1};
	Query	   *query = leaf->query;

	while (query != NULL && query->setOperations == NULL && query->cteList == NIL &&
		   md_leaf_outer_terms(query) == NIL)
	{
		query = layer_over(query);
		context.depth++;
	}
	if (query == NULL || query->setOperations != NULL || query->cteList != NIL ||
		columns_walker((Node *) md_leaf_outer_terms(query), &context) ||
		contain_volatile_functions((Node *) md_leaf_outer_terms(query)))
		return false;
	leaf->at = query;
	leaf->depth = context.depth;
	leaf->columns = context.columns;
	return md_leaf_inner_query(leaf) != NULL;
}

Query *
md_leaf_inner_query(MdLeaf *leaf)
{
	List	   *exprs = NIL;
	List	   *terms = NIL;
	Query	   *query;
	ListCell   *lc;

	foreach(lc, leaf->pairs)
		exprs = lappend(exprs, ((MdPair *) lfirst(lc))->inner);
	exprs = list_concat(exprs, leaf->columns);
	/* rows count even where no column matters */
	if (exprs == NIL)
		exprs = list_make1(makeBoolConst(true, false));
	query = md_block_input(leaf->at, exprs);
	foreach(lc, md_tree_terms(query->jointree->quals))
		if (!md_tree_has_outer(lfirst(lc)))
			terms = lappend(terms, lfirst(lc));
	query->jointree->quals = NULL;
	foreach(lc, terms)
		md_tree_add_condition(query, lfirst(lc));
	return md_tree_has_outer((Node *) query) ? NULL : query;
}

/* Equalities of "(a, b) IN (SELECT ...)". */
static List *
in_pairs(SubLink *sublink)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	if (sublink->subLinkType != ANY_SUBLINK)
		return NIL;
	foreach(lc, md_tree_terms(sublink->testexpr))
	{
		OpExpr	   *op = lfirst(lc);
		Node	   *right;
		MdPair	   *pair;

		if (!md_is_equality((Node *) op))
			return NIL;
		right = strip_implicit_coercions(lsecond(op->args));
		if (!IsA(right, Param) || ((Param *) right)->paramkind != PARAM_SUBLINK)
			return NIL;
		pair = make_pair(op, linitial(op->args), (Expr *) lsecond(op->args), true);
		pair->column = ((Param *) right)->paramid;
		pairs = lappend(pairs, pair);
	}
	return pairs;
}

/* ----------------------------------------------------------------------
 * Leaves
 * ---------------------------------------------------------------------- */

typedef struct LeafContext
{
	Query	   *query;
	List	   *leaves;
} LeafContext;

static MdLeaf *
add_leaf(LeafContext *context, MdLeafKind kind, MdLeafPlace place)
{
	MdLeaf	   *leaf = palloc0(sizeof(MdLeaf));

	leaf->kind = kind;
	leaf->place = place;
	leaf->location = -1;
	context->leaves = lappend(context->leaves, leaf);
	return leaf;
}

static void
make_whole(MdLeaf *leaf, char *why)
{
	leaf->place = MD_PLACE_WHOLE;
	leaf->why_whole = why;
}

/* A subquery with references outwards, of an expression or lateral. */
static void
correlate(MdLeaf *leaf)
{
	leaf->place = MD_PLACE_CORRELATED;
	leaf->pairs = correlation_pairs(leaf->query, 1, &leaf->at, &leaf->depth);
	if (leaf->pairs == NIL && is_unequal(leaf))
		leaf->place = MD_PLACE_UNEQUAL;
	else if (leaf->pairs == NIL || md_leaf_inner_query(leaf) == NULL)
		make_whole(leaf, "a subquery depends on the outer query in more places than its WHERE");
}

/* An entry of the range table; pairs are set by the caller. */
static MdLeaf *
add_entry(LeafContext *context, int rt_index, MdLeafPlace place)
{
	RangeTblEntry *rte = rt_fetch(rt_index, context->query->rtable);
	MdLeaf	   *leaf = add_leaf(context, MD_LEAF_ENTRY, place);

	leaf->rt_index = rt_index;
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			leaf->relid = rte->relid;
			break;
		case RTE_SUBQUERY:
			leaf->query = rte->subquery;
			if (md_tree_has_outer((Node *) rte->subquery))
				correlate(leaf);
			break;
		default:
			break;
	}
	return leaf;
}

/* One side of an outer join. */
static void
add_outer_side(LeafContext *context, Node *side, Node *quals, Bitmapset *others,
			   MdLeafPlace place)
{
	MdLeaf	   *leaf;

	if (IsA(side, JoinExpr))
	{
		Bitmapset  *relids = md_tree_relids(side);

		for (int index = -1; (index = bms_next_member(relids, index)) >= 0;)
			make_whole(add_entry(context, index, place),
					   "an outer join over lateral references");
		return;
	}
	leaf = add_entry(context, castNode(RangeTblRef, side)->rtindex, place);
	/* a lateral subquery has its own conditions, which hold under any condition */
	if (leaf->place == MD_PLACE_CORRELATED || leaf->place == MD_PLACE_UNEQUAL)
	{
		if (place == MD_PLACE_FULL)
			make_whole(leaf, "a lateral subquery below a full join");
		return;
	}
	if (leaf->place == MD_PLACE_WHOLE)
		return;
	leaf->place = place;
	leaf->partner = bms_membership(others) == BMS_SINGLETON ? bms_singleton_member(others) : 0;
	leaf->pairs = join_pairs(quals, leaf->rt_index, others);
	if (leaf->pairs != NIL)
		return;
	if (checkExprHasSubLink(quals))
		make_whole(leaf, "a subquery stands in the condition of an outer join");
	else if (place == MD_PLACE_NULLABLE && !md_tree_has_outer(quals))
		leaf->place = MD_PLACE_UNKEYED;
	else
		make_whole(leaf, "an outer join has no condition of the form a = b");
}

static void
walk_from(LeafContext *context, Node *from)
{
	ListCell   *lc;

	if (IsA(from, RangeTblRef))
		(void) add_entry(context, ((RangeTblRef *) from)->rtindex, MD_PLACE_LINEAR);
	else if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			walk_from(context, lfirst(lc));
	}
	else
	{
		JoinExpr   *join = castNode(JoinExpr, from);
		Bitmapset  *left = md_tree_relids(join->larg);
		Bitmapset  *right = md_tree_relids(join->rarg);

		if (join->jointype == JOIN_FULL)
		{
			add_outer_side(context, join->larg, join->quals, right, MD_PLACE_FULL);
			add_outer_side(context, join->rarg, join->quals, left, MD_PLACE_FULL);
			return;
		}
		walk_from(context, join->larg);
		if (join->jointype == JOIN_INNER)
			walk_from(context, join->rarg);
		else
			add_outer_side(context, join->rarg, join->quals, left, MD_PLACE_NULLABLE);
	}
}

/* Conditions of joins, outermost first. */
static void
join_sublinks(Node *from, List **sublinks)
{
	ListCell   *lc;

	if (IsA(from, FromExpr))
		foreach(lc, ((FromExpr *) from)->fromlist)
			join_sublinks(lfirst(lc), sublinks);
	else if (IsA(from, JoinExpr))
	{
		join_sublinks(((JoinExpr *) from)->larg, sublinks);
		join_sublinks(((JoinExpr *) from)->rarg, sublinks);
		*sublinks = list_concat(*sublinks, md_query_sublinks(((JoinExpr *) from)->quals));
	}
}

List *
md_leaves_sublinks(Query *linear)
{
	List	   *sublinks = NIL;

	join_sublinks((Node *) linear->jointree, &sublinks);
	sublinks = list_concat(sublinks, md_query_sublinks(linear->jointree->quals));
	return list_concat(sublinks, md_query_sublinks((Node *) linear->targetList));
}

/* Subqueries in the condition of an outer join are not looked into. */
static bool
is_in_outer_join(Node *from, SubLink *sublink)
{
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			if (is_in_outer_join(lfirst(lc), sublink))
				return true;
		return false;
	}
	if (!IsA(from, JoinExpr))
		return false;
	return (((JoinExpr *) from)->jointype != JOIN_INNER &&
			list_member_ptr(md_query_sublinks(((JoinExpr *) from)->quals), sublink)) ||
		is_in_outer_join(((JoinExpr *) from)->larg, sublink) ||
		is_in_outer_join(((JoinExpr *) from)->rarg, sublink);
}

static void
add_sublink(LeafContext *context, SubLink *sublink, int number)
{
	MdLeaf	   *leaf = add_leaf(context, MD_LEAF_SUBLINK, MD_PLACE_IN);

	leaf->number = number;
	leaf->query = castNode(Query, sublink->subselect);
	leaf->location = sublink->location;
	leaf->pairs = in_pairs(sublink);
	leaf->null_matters = !list_member_ptr(md_tree_terms(context->query->jointree->quals), sublink);
	if (is_in_outer_join((Node *) context->query->jointree, sublink))
		make_whole(leaf, "a subquery stands in the condition of an outer join");
	else if (md_tree_has_outer(sublink->testexpr))
		make_whole(leaf, "a subquery depends on more than one query outside");
	else if (md_tree_has_outer((Node *) leaf->query))
		correlate(leaf);
	else if (leaf->pairs == NIL)
		make_whole(leaf, "the value of a subquery matters to all rows");
	else if (leaf->null_matters && list_length(leaf->pairs) > 1)
		make_whole(leaf, "NULLs in several columns of NOT IN");
}

List *
md_leaves(Query *linear)
{
	LeafContext context = {linear, NIL};
	int			number = 0;
	ListCell   *lc;

	walk_from(&context, (Node *) linear->jointree);
	foreach(lc, md_leaves_sublinks(linear))
		add_sublink(&context, lfirst(lc), number++);
	number = 0;
	foreach(lc, md_tree_terms(linear->jointree->quals))
	{
		if (md_unstable_has_time(lfirst(lc)) && !checkExprHasSubLink(lfirst(lc)))
			add_leaf(&context, MD_LEAF_TIME, MD_PLACE_LINEAR)->number = number;
		number++;
	}
	return context.leaves;
}
