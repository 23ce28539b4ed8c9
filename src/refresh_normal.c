/*
 * refresh_normal.c
 *		Queries in the shape that the engine works on: blocks.
 *
 *	SELECT a, rank() OVER (ORDER BY sum(x)) FROM t GROUP BY a LIMIT 3
 *	->	SELECT ... FROM						limit
 *		(SELECT ..., rank() OVER ... FROM	window
 *		 (SELECT a, sum(x) FROM t			group
 *		  GROUP BY a))
 *
 * A block does one thing with the rows of its FROM and WHERE, so that it has
 * one key by which its output can be restricted.  GROUPING SETS become a UNION
 * ALL of a group block each (but those at the top that merge: refresh_plan_sets.c).
 * The nullable side of an outer join is a single input: what it joins becomes a
 * subquery.  References to joins' own columns are resolved, right joins turned round.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "compat.h"
#include "refresh_normal.h"
#include "refresh_tree.h"

/* More sets than this are left as they are. */
#define MAX_GROUPING_SETS 64

static bool
is_union_all(Node *tree)
{
	SetOperationStmt *op;

	if (IsA(tree, RangeTblRef))
		return true;
	op = castNode(SetOperationStmt, tree);
	return op->op == SETOP_UNION && op->all && is_union_all(op->larg) && is_union_all(op->rarg);
}

MdBlockKind
md_block_kind(Query *query)
{
	if (query->cteList != NIL)
		return MD_BLOCK_RECURSIVE;
	if (query->limitCount != NULL || query->limitOffset != NULL)
		return MD_BLOCK_LIMIT;
	if (query->setOperations != NULL)
		return is_union_all(query->setOperations) ? MD_BLOCK_UNION_ALL : MD_BLOCK_SET;
	if (query->hasDistinctOn)
		return MD_BLOCK_DISTINCT_ON;
	if (query->distinctClause != NIL)
		return MD_BLOCK_DISTINCT;
	if (query->hasWindowFuncs)
		return MD_BLOCK_WINDOW;
	if (query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL ||
		query->havingQual != NULL)
		return MD_BLOCK_GROUP;
	return MD_BLOCK_LINEAR;
}

/* Leaves of a tree of set operations. */
static void
collect_branches(Query *query, Node *tree, List **branches)
{
	if (IsA(tree, SetOperationStmt))
	{
		collect_branches(query, ((SetOperationStmt *) tree)->larg, branches);
		collect_branches(query, ((SetOperationStmt *) tree)->rarg, branches);
	}
	else
		*branches = lappend(*branches, rt_fetch(((RangeTblRef *) tree)->rtindex, query->rtable));
}

List *
md_query_branches(Query *query)
{
	List	   *branches = NIL;

	collect_branches(query, query->setOperations, &branches);
	return branches;
}

static bool
sublinks_walker(Node *node, List **sublinks)
{
	if (node == NULL || IsA(node, Query))
		return false;
	if (IsA(node, SubLink))
		*sublinks = lappend(*sublinks, node);
	return expression_tree_walker(node, sublinks_walker, sublinks);
}

List *
md_query_sublinks(Node *expr)
{
	List	   *sublinks = NIL;

	(void) sublinks_walker(expr, &sublinks);
	return sublinks;
}

/* ----------------------------------------------------------------------
 * Splitting a query that does several things
 * ---------------------------------------------------------------------- */

/* Names c1, c2, ... of columns; a set operation has those of its first branch. */
static void
name_columns(Query *query)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
		lfirst_node(TargetEntry, lc)->resname = psprintf("c%d", ++number);
	if (query->setOperations != NULL)
		name_columns(linitial_node(RangeTblEntry, md_query_branches(query))->subquery);
}

/*
 * Make the query a SELECT from what it was; all columns, hidden ones too, can
 * be seen from outside.  The caller moves clauses out.
 */
static Query *
push_down(Query *query)
{
	Query	   *inner = palloc(sizeof(Query));
	Query	   *outer = md_tree_select();
	int			rt_index;
	int			number = 0;
	ListCell   *lc;

	memcpy(inner, query, sizeof(Query));
	inner->targetList = copyObject(query->targetList);
	foreach(lc, inner->targetList)
		lfirst_node(TargetEntry, lc)->resjunk = false;
	name_columns(inner);
	IncrementVarSublevelsUp((Node *) inner, 1, 1);
	rt_index = md_tree_add_subquery(outer, inner, "b");
	outer->targetList = query->targetList;
	outer->hasTargetSRFs = false;
	number = 0;
	foreach(lc, outer->targetList)
		lfirst_node(TargetEntry, lc)->expr =
			(Expr *) md_tree_column(outer, rt_index, ++number);
	*query = *outer;
	return inner;
}

static void
split_limit(Query *query)
{
	Query	   *inner = push_down(query);

	query->sortClause = inner->sortClause;
	query->limitCount = inner->limitCount;
	query->limitOffset = inner->limitOffset;
	query->limitOption = inner->limitOption;
	/* DISTINCT ON takes the first rows by it */
	if (!inner->hasDistinctOn)
		inner->sortClause = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	inner->limitOption = LIMIT_OPTION_COUNT;
}

static void
split_distinct(Query *query)
{
	Query	   *inner = push_down(query);

	query->sortClause = inner->sortClause;
	query->distinctClause = inner->distinctClause;
	query->hasDistinctOn = inner->hasDistinctOn;
	inner->sortClause = NIL;
	inner->distinctClause = NIL;
	inner->hasDistinctOn = false;
}

typedef struct GroupSplit
{
	Query	   *inner;			/* groups; its target list grows */
	List	   *keys;			/* of TargetEntry of the query's */
	int			level;
} GroupSplit;

Var *
md_normal_column(Query *inner, Expr *expr, int level)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, inner->targetList)
	{
		number++;
		if (equal(lfirst_node(TargetEntry, lc)->expr, expr))
			break;
	}
	if (lc == NULL)
	{
		md_tree_add_column(inner, copyObject(expr), psprintf("c%d", number + 1));
		number++;
	}
	return makeVar(1, number, exprType((Node *) expr), exprTypmod((Node *) expr),
				   exprCollation((Node *) expr), level);
}

static bool
belongs_to_level(Node *node, int level)
{
	if (IsA(node, Aggref))
		return (int) ((Aggref *) node)->agglevelsup == level;
	if (IsA(node, GroupingFunc))
		return (int) ((GroupingFunc *) node)->agglevelsup == level;
	return IsA(node, Var) && (int) ((Var *) node)->varlevelsup == level;
}

/* What a group gives: keys, aggregates, columns that the keys determine. */
static Node *
split_group_mutator(Node *node, GroupSplit *split)
{
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Node	   *result;

		split->level++;
		result = (Node *) query_tree_mutator((Query *) node, split_group_mutator, split, 0);
		split->level--;
		return result;
	}
	foreach(lc, split->keys)
	{
		Expr	   *key = lfirst_node(TargetEntry, lc)->expr;
		Node	   *shifted = copyObject((Node *) key);

		if (IsA(key, Const))
			continue;
		IncrementVarSublevelsUp(shifted, split->level, 0);
		if (equal(shifted, node))
			return (Node *) md_normal_column(split->inner, key, split->level);
	}
	if (belongs_to_level(node, split->level))
	{
		Node	   *shifted = copyObject(node);

		IncrementVarSublevelsUp(shifted, -split->level, split->level);
		return (Node *) md_normal_column(split->inner, (Expr *) shifted, split->level);
	}
	return expression_tree_mutator(node, split_group_mutator, split);
}

/* GROUP BY, and nothing but keys and aggregates in its output. */
static void
split_group(Query *query)
{
	Query	   *inner = palloc(sizeof(Query));
	Query	   *outer = md_tree_select();
	GroupSplit	split = {inner, NIL, 0};
	ListCell   *lc;

	memcpy(inner, query, sizeof(Query));
	inner->targetList = NIL;
	foreach(lc, query->groupClause)
	{
		SortGroupClause *group = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupclause_tle(group, query->targetList);

		split.keys = lappend(split.keys, target);
		md_tree_add_column(inner, copyObject(target->expr),
						   psprintf("c%d", list_length(inner->targetList) + 1));
		llast_node(TargetEntry, inner->targetList)->ressortgroupref = group->tleSortGroupRef;
	}
	outer->targetList = (List *) split_group_mutator((Node *) query->targetList, &split);
	outer->jointree->quals = split_group_mutator(query->havingQual, &split);
	outer->windowClause = (List *) split_group_mutator((Node *) query->windowClause, &split);
	outer->hasWindowFuncs = query->hasWindowFuncs;
	outer->hasTargetSRFs = query->hasTargetSRFs;
	outer->hasSubLinks = query->hasSubLinks;
	outer->distinctClause = query->distinctClause;
	outer->hasDistinctOn = query->hasDistinctOn;
	outer->sortClause = query->sortClause;

	inner->havingQual = NULL;
	inner->windowClause = NIL;
	inner->hasWindowFuncs = false;
	inner->hasTargetSRFs = expression_returns_set((Node *) inner->targetList);
	inner->distinctClause = NIL;
	inner->hasDistinctOn = false;
	inner->sortClause = NIL;
	IncrementVarSublevelsUp((Node *) inner, 1, 1);
	(void) md_tree_add_subquery(outer, inner, "g");
	*query = *outer;
}

/* The groups of one set: keys that are not in it are NULL. */
static Query *
one_grouping_set(Query *query, List *set)
{
	Query	   *branch = copyObject(query);
	List	   *groups = NIL;
	List	   *other_keys = NIL;	/* an aggregate that is sorted by has a number, too */
	ListCell   *lc;

	branch->groupingSets = NIL;
	branch->groupDistinct = false;
	foreach(lc, branch->groupClause)
	{
		Index		ref = lfirst_node(SortGroupClause, lc)->tleSortGroupRef;

		if (list_member_int(set, ref))
			groups = lappend(groups, lfirst(lc));
		else
			other_keys = lappend_int(other_keys, ref);
	}
	foreach(lc, branch->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (IsA(target->expr, GroupingFunc))
		{
			GroupingFunc *grouping = (GroupingFunc *) target->expr;
			int			bits = 0;
			ListCell   *ref;

			foreach(ref, grouping->refs)
				bits = bits << 1 | !list_member_int(set, lfirst_int(ref));
			target->expr = (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
											  Int32GetDatum(bits), false, true);
		}
		else if (list_member_int(other_keys, target->ressortgroupref))
		{
			target->expr = (Expr *) makeNullConst(exprType((Node *) target->expr),
												  exprTypmod((Node *) target->expr),
												  exprCollation((Node *) target->expr));
			target->ressortgroupref = 0;
		}
	}
	branch->groupClause = groups;
	if (groups == NIL)
		branch->groupingSets = list_make1(makeGroupingSet(GROUPING_SET_EMPTY, NIL, -1));
	return branch;
}

/* GROUPING SETS as a UNION ALL; false if there are too many. */
static bool
split_grouping_sets(Query *query)
{
	List	   *sets = expand_grouping_sets(query->groupingSets, query->groupDistinct, -1);
	List	   *branches = NIL;
	ListCell   *lc;

	if (list_length(sets) > MAX_GROUPING_SETS)
		return false;
	if (list_length(sets) == 1)
	{
		*query = *one_grouping_set(query, linitial(sets));
		return true;
	}
	foreach(lc, sets)
	{
		Query	   *branch = one_grouping_set(query, lfirst(lc));

		IncrementVarSublevelsUp((Node *) branch, 1, 1);
		branches = lappend(branches, branch);
	}
	*query = *md_tree_union_all(branches);
	return true;
}

/* One row always, though a GROUP BY () stands there. */
static bool
is_empty_set(Query *query)
{
	return query->groupClause == NIL && list_length(query->groupingSets) == 1 &&
		linitial_node(GroupingSet, query->groupingSets)->kind == GROUPING_SET_EMPTY;
}

/* Has the query subqueries outside of its FROM, WHERE and aggregates? */
static Node *
outside_aggregates_mutator(Node *node, void *context)
{
	if (node == NULL || IsA(node, Aggref))
		return NULL;
	return expression_tree_mutator(node, outside_aggregates_mutator, context);
}

static bool
has_sublinks_above_groups(Query *query)
{
	ListCell   *lc;

	if (checkExprHasSubLink(query->havingQual))
		return true;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->ressortgroupref != 0 &&
			get_sortgroupref_clause_noerr(target->ressortgroupref, query->groupClause) != NULL)
			continue;
		if (checkExprHasSubLink(outside_aggregates_mutator((Node *) target->expr, NULL)))
			return true;
	}
	return false;
}

static void
split_query(Query *query)
{
	bool		groups = query->hasAggs || query->groupClause != NIL ||
		query->groupingSets != NIL || query->havingQual != NULL;
	bool		is_simple;

	if (query->cteList != NIL)
		return;
	if (query->limitCount != NULL || query->limitOffset != NULL)
	{
		is_simple = !groups && query->distinctClause == NIL && !query->hasWindowFuncs &&
			query->setOperations == NULL && list_length(query->jointree->fromlist) == 1 &&
			IsA(linitial(query->jointree->fromlist), RangeTblRef) && !query->hasTargetSRFs &&
			query->jointree->quals == NULL && !query->hasSubLinks &&
			rt_fetch(linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex,
					 query->rtable)->rtekind == RTE_SUBQUERY;
		if (!is_simple)
			split_limit(query);
		return;
	}
	if (query->setOperations != NULL)
		return;
	if (query->distinctClause != NIL && (groups || query->hasWindowFuncs || query->hasTargetSRFs))
		split_distinct(query);
	else if (groups && (query->hasWindowFuncs || query->hasTargetSRFs ||
						has_sublinks_above_groups(query)))
		split_group(query);
	else if (query->groupingSets != NIL && !is_empty_set(query))
	{
		/* first make its output plain, then a branch per set */
		if (query->distinctClause == NIL && query->havingQual == NULL)
		{
			bool		plain = true;
			ListCell   *lc;

			foreach(lc, query->targetList)
			{
				TargetEntry *target = lfirst_node(TargetEntry, lc);

				plain = plain && !target->resjunk &&
					(IsA(target->expr, Aggref) || IsA(target->expr, GroupingFunc) ||
					 (target->ressortgroupref != 0 &&
					  get_sortgroupref_clause_noerr(target->ressortgroupref, query->groupClause)));
			}
			if (plain && list_length(query->sortClause) == 0)
			{
				(void) split_grouping_sets(query);
				return;
			}
		}
		split_group(query);
	}
}

/* ---------------------------------------------------------------------- */

static bool
normalize_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->setOperations == NULL)
		{
			md_normal_name_rows(query);
			md_normal_move_joins(query);
			md_normal_list_joins(query);
		}
		split_query(query);
		if (md_block_kind(query) == MD_BLOCK_WINDOW)
			md_normal_split_windows(query);
		return query_tree_walker(query, normalize_walker, context, QTW_IGNORE_JOINALIASES);
	}
	return expression_tree_walker(node, normalize_walker, context);
}

/* What joins above may make of a Var does not tell it apart here. */
static bool
clear_nulling_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		md_clear_nulling((Var *) node);
	if (IsA(node, Query))
	{
		md_flatten_groups((Query *) node);
		return query_tree_walker((Query *) node, clear_nulling_walker, context, 0);
	}
	return expression_tree_walker(node, clear_nulling_walker, context);
}

void
md_query_normalize(Query *query)
{
	(void) clear_nulling_walker((Node *) query, NULL);
	md_tree_flatten_joins(query);
	(void) clear_nulling_walker((Node *) query, NULL);
	(void) normalize_walker((Node *) query, NULL);
}

/* ---------------------------------------------------------------------- */

/* Expressions that sort or group clauses stand for. */
static List *
clause_exprs(List *clauses, List *targets)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, clauses)
	{
		Node	   *expr = get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), targets);

		exprs = list_append_unique(exprs, expr);
	}
	return exprs;
}

/* What all windows partition by. */
static List *
partition_exprs(Query *query)
{
	List	   *exprs = NIL;
	bool		first = true;
	ListCell   *lc;

	foreach(lc, query->windowClause)
	{
		List	   *these = clause_exprs(lfirst_node(WindowClause, lc)->partitionClause,
										 query->targetList);

		exprs = first ? these : list_intersection(exprs, these);
		first = false;
	}
	return exprs;
}

List *
md_block_keys(Query *query)
{
	List	   *exprs = NIL;

	switch (md_block_kind(query))
	{
		case MD_BLOCK_GROUP:
			if (query->groupingSets == NIL)
				exprs = clause_exprs(query->groupClause, query->targetList);
			break;
		case MD_BLOCK_DISTINCT:
		case MD_BLOCK_DISTINCT_ON:
			exprs = clause_exprs(query->distinctClause, query->targetList);
			break;
		case MD_BLOCK_WINDOW:
			exprs = partition_exprs(query);
			break;
		default:
			break;
	}
	if (expression_returns_set((Node *) exprs))
		return NIL;
	return exprs;
}

Query *
md_block_input(Query *query, List *exprs)
{
	Query	   *input = copyObject(query);
	List	   *sublinks = md_query_sublinks((Node *) input->targetList);
	ListCell   *lc;

	md_tree_strip(input);
	input->targetList = NIL;
	input->hasTargetSRFs = expression_returns_set((Node *) exprs);
	foreach(lc, exprs)
		md_tree_add_column(input, copyObject(lfirst(lc)),
						   psprintf("k%d", foreach_current_index(lc) + 1));
	foreach(lc, sublinks)
		md_tree_add_column(input, lfirst(lc), psprintf("s%d", foreach_current_index(lc) + 1));
	return input;
}
