/*
 * refresh_tree.c
 *		Pieces of query trees.
 *
 * Joins: in a tree that is worked on, nothing refers to a join's own columns
 * (md_tree_flatten_joins), and a USING is the condition that it means.  So an
 * input may be replaced by one with more columns, and the joins' entries, which
 * printing a tree needs, are made over their inputs at the end
 * (md_tree_rebuild_joins).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "refresh_tree.h"

Query *
md_tree_select(void)
{
	Query	   *query = makeNode(Query);

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->jointree = makeFromExpr(NIL, NULL);
	return query;
}

static int
add_entry(Query *query, RangeTblEntry *rte)
{
	RangeTblRef *ref = makeNode(RangeTblRef);

	rte->inFromCl = true;
	query->rtable = lappend(query->rtable, rte);
	ref->rtindex = list_length(query->rtable);
	query->jointree->fromlist = lappend(query->jointree->fromlist, ref);
	return ref->rtindex;
}

/* Names of the visible columns, of String. */
static List *
column_names(Query *query)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			names = lappend(names, makeString(pstrdup(target->resname)));
	}
	return names;
}

int
md_tree_add_subquery(Query *query, Query *subquery, const char *alias)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = subquery;
	rte->alias = makeAlias(alias, NIL);
	rte->eref = makeAlias(alias, column_names(subquery));
	return add_entry(query, rte);
}

int
md_tree_add_registered(Query *query, const char *name, TupleDesc tupdesc)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_CTE;
	rte->ctename = pstrdup(name);
	rte->alias = NULL;
	rte->eref = makeAlias(name, NIL);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		rte->eref->colnames = lappend(rte->eref->colnames,
									  makeString(pstrdup(NameStr(att->attname))));
		rte->coltypes = lappend_oid(rte->coltypes, att->atttypid);
		rte->coltypmods = lappend_int(rte->coltypmods, att->atttypmod);
		rte->colcollations = lappend_oid(rte->colcollations, att->attcollation);
	}
	return add_entry(query, rte);
}

void
md_tree_add_condition(Query *query, Node *condition)
{
	if (condition == NULL)
		return;
	if (query->jointree->quals == NULL)
		query->jointree->quals = condition;
	else
		query->jointree->quals = (Node *)
			makeBoolExpr(AND_EXPR, list_concat(list_copy(md_tree_terms(query->jointree->quals)),
											   md_tree_terms(condition)), -1);
	query->hasSubLinks = query->hasSubLinks || checkExprHasSubLink(condition);
}

void
md_tree_add_column(Query *query, Expr *expr, const char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry(expr, list_length(query->targetList) + 1,
												pstrdup(name), false));
	query->hasSubLinks = query->hasSubLinks || checkExprHasSubLink((Node *) expr);
}

Var *
md_tree_column(Query *query, int rt_index, int attno)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);

	if (rte->rtekind == RTE_SUBQUERY)
	{
		TargetEntry *target = md_tree_target(rte->subquery, attno);

		return makeVar(rt_index, attno, exprType((Node *) target->expr),
					   exprTypmod((Node *) target->expr),
					   exprCollation((Node *) target->expr), 0);
	}
	Assert(rte->rtekind == RTE_CTE);
	return makeVar(rt_index, attno, list_nth_oid(rte->coltypes, attno - 1),
				   list_nth_int(rte->coltypmods, attno - 1),
				   list_nth_oid(rte->colcollations, attno - 1), 0);
}

WindowClause *
md_tree_window(Query *query, WindowFunc *function)
{
	ListCell   *lc;

	foreach(lc, query->windowClause)
		if (lfirst_node(WindowClause, lc)->winref == function->winref)
			return lfirst(lc);
	elog(ERROR, "window %u not found", function->winref);
}

bool
md_tree_is_rank(const WindowFunc *function)
{
	return function->winfnoid == F_RANK_ || function->winfnoid == F_DENSE_RANK_ ||
		function->winfnoid == F_PERCENT_RANK_ || function->winfnoid == F_CUME_DIST_;
}

char *
md_tree_numbered_names(int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int n = 1; n <= count; n++)
		appendStringInfo(&list, "%sc%d", n > 1 ? ", " : "", n);
	return list.data;
}

int
md_tree_width(Query *query)
{
	int			width = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
		width += !lfirst_node(TargetEntry, lc)->resjunk;
	return width;
}

/* Visible columns are numbered from 1, and stand before the others or not. */
TargetEntry *
md_tree_target(Query *query, int number)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk && --number == 0)
			return target;
	}
	elog(ERROR, "a query has no such column");
}

Query *
md_tree_wrap(Query *query, const char *alias)
{
	Query	   *outer = md_tree_select();
	int			rt_index = md_tree_add_subquery(outer, query, alias);

	for (int i = 1; i <= md_tree_width(query); i++)
		md_tree_add_column(outer, (Expr *) md_tree_column(outer, rt_index, i),
						   md_tree_target(query, i)->resname);
	return outer;
}

Query *
md_tree_union_all(List *queries)
{
	Query	   *query = md_tree_select();
	Query	   *first = linitial_node(Query, queries);
	Node	   *tree = NULL;
	ListCell   *lc;

	if (list_length(queries) == 1)
		return first;
	foreach(lc, queries)
	{
		RangeTblRef *ref = makeNode(RangeTblRef);
		SetOperationStmt *op;

		ref->rtindex = md_tree_add_subquery(query, lfirst_node(Query, lc),
											psprintf("u%d", foreach_current_index(lc) + 1));
		if (tree == NULL)
		{
			tree = (Node *) ref;
			continue;
		}
		op = makeNode(SetOperationStmt);
		op->op = SETOP_UNION;
		op->all = true;
		op->larg = tree;
		op->rarg = (Node *) ref;
		for (int i = 1; i <= md_tree_width(first); i++)
		{
			Node	   *expr = (Node *) md_tree_target(first, i)->expr;

			op->colTypes = lappend_oid(op->colTypes, exprType(expr));
			op->colTypmods = lappend_int(op->colTypmods, exprTypmod(expr));
			op->colCollations = lappend_oid(op->colCollations, exprCollation(expr));
		}
		tree = (Node *) op;
	}
	query->jointree->fromlist = NIL;
	foreach(lc, query->rtable)
		lfirst_node(RangeTblEntry, lc)->inFromCl = false;
	query->setOperations = tree;
	for (int i = 1; i <= md_tree_width(first); i++)
		md_tree_add_column(query, (Expr *) md_tree_column(query, 1, i),
						   md_tree_target(first, i)->resname);
	return query;
}

Expr *
md_tree_equal(Expr *a, Expr *b)
{
	Oid			type = exprType((Node *) a);
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);

	if (!OidIsValid(entry->eq_opr))
		elog(ERROR, "type %u has no equality", type);
	return make_opclause(entry->eq_opr, BOOLOID, false, a, b, InvalidOid,
						 exprCollation((Node *) a));
}

Expr *
md_tree_is_null(Expr *expr, bool is_null)
{
	NullTest   *test = makeNode(NullTest);

	/* of a row as a whole, not of its fields */
	test->arg = expr;
	test->nulltesttype = is_null ? IS_NULL : IS_NOT_NULL;
	test->argisrow = false;
	test->location = -1;
	return (Expr *) test;
}

List *
md_tree_terms(Node *condition)
{
	List	   *terms = NIL;
	ListCell   *lc;

	if (condition == NULL)
		return NIL;
	if (!is_andclause(condition))
		return list_make1(condition);
	foreach(lc, ((BoolExpr *) condition)->args)
		terms = list_concat(terms, md_tree_terms(lfirst(lc)));
	return terms;
}

Bitmapset *
md_tree_relids(Node *from)
{
	Bitmapset  *relids = NULL;
	ListCell   *lc;

	if (IsA(from, RangeTblRef))
		return bms_make_singleton(((RangeTblRef *) from)->rtindex);
	if (IsA(from, JoinExpr))
		return bms_union(md_tree_relids(((JoinExpr *) from)->larg),
						 md_tree_relids(((JoinExpr *) from)->rarg));
	foreach(lc, castNode(FromExpr, from)->fromlist)
		relids = bms_join(relids, md_tree_relids(lfirst(lc)));
	return relids;
}

typedef struct UsedContext
{
	Bitmapset  *used;
	int			level;
	bool		outer;
} UsedContext;

static bool
used_walker(Node *node, UsedContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if ((int) var->varlevelsup == context->level)
			context->used = bms_add_member(context->used, var->varno);
		if ((int) var->varlevelsup > context->level)
			context->outer = true;
		return false;
	}
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup > context->level)
		context->outer = true;
	if (IsA(node, Query))
	{
		context->level++;
		(void) query_tree_walker((Query *) node, used_walker, context, QTW_IGNORE_JOINALIASES);
		context->level--;
		return false;
	}
	return expression_tree_walker(node, used_walker, context);
}

Bitmapset *
md_tree_used(Node *expr)
{
	UsedContext context = {0};

	(void) used_walker(expr, &context);
	return context.used;
}

bool
md_tree_has_outer(Node *node)
{
	UsedContext context = {0};

	/* a query's own level is inside of it */
	if (node != NULL && IsA(node, Query))
		(void) query_tree_walker((Query *) node, used_walker, &context, QTW_IGNORE_JOINALIASES);
	else
		(void) used_walker(node, &context);
	return context.outer;
}

bool
md_tree_reads_anything(Query *query)
{
	return query->hasSubLinks || query->setOperations != NULL || query->cteList != NIL ||
		query->jointree->fromlist != NIL;
}

void
md_tree_clear_entry(RangeTblEntry *rte)
{
	Alias	   *eref = makeAlias("*RESULT*", NIL);

	memset(rte, 0, sizeof(RangeTblEntry));
	NodeSetTag(rte, T_RangeTblEntry);
	rte->rtekind = RTE_RESULT;
	rte->eref = eref;
}

void
md_tree_strip(Query *query)
{
	query->hasAggs = false;
	query->hasWindowFuncs = false;
	query->hasDistinctOn = false;
	query->groupClause = NIL;
	query->groupingSets = NIL;
	query->groupDistinct = false;
	query->havingQual = NULL;
	query->windowClause = NIL;
	query->distinctClause = NIL;
	query->sortClause = NIL;
	query->limitCount = NULL;
	query->limitOffset = NULL;
	query->limitOption = LIMIT_OPTION_COUNT;
}

/* ----------------------------------------------------------------------
 * Joins
 * ---------------------------------------------------------------------- */

/* A USING is its condition; a right join is a left one the other way round. */
static void
simplify_joins(Node *from, Query *query)
{
	if (IsA(from, FromExpr))
	{
		ListCell   *lc;

		foreach(lc, ((FromExpr *) from)->fromlist)
			simplify_joins(lfirst(lc), query);
	}
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;

		simplify_joins(join->larg, query);
		simplify_joins(join->rarg, query);
		join->isNatural = false;
		join->usingClause = NIL;
		join->join_using_alias = NULL;
		join->alias = NULL;
		if (join->jointype == JOIN_RIGHT)
		{
			Node	   *left = join->larg;

			join->larg = join->rarg;
			join->rarg = left;
			join->jointype = JOIN_LEFT;
		}
	}
}

static bool
flatten_joins_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		ListCell   *lc;

		(void) query_tree_walker(query, flatten_joins_walker, context, QTW_IGNORE_JOINALIASES);
		query->targetList = (List *) md_flatten_join_vars(query, (Node *) query->targetList);
		query->jointree = (FromExpr *) md_flatten_join_vars(query, (Node *) query->jointree);
		query->havingQual = md_flatten_join_vars(query, query->havingQual);
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_SUBQUERY)
				rte->subquery = (Query *) md_flatten_join_vars(query, (Node *) rte->subquery);
			rte->functions = (List *) md_flatten_join_vars(query, (Node *) rte->functions);
			rte->tablefunc = (TableFunc *) md_flatten_join_vars(query, (Node *) rte->tablefunc);
			rte->values_lists = (List *) md_flatten_join_vars(query, (Node *) rte->values_lists);
		}
		simplify_joins((Node *) query->jointree, query);
		md_tree_rebuild_joins(query);
		return false;
	}
	return expression_tree_walker(node, flatten_joins_walker, context);
}

/* A Var tells as what it was written: as a column of a join, whose columns have other numbers now. */
static bool
forget_written_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		var->varnosyn = var->varno;
		var->varattnosyn = var->varattno;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, forget_written_walker, context, 0);
	return expression_tree_walker(node, forget_written_walker, context);
}

void
md_tree_flatten_joins(Query *query)
{
	(void) flatten_joins_walker((Node *) query, NULL);
	(void) forget_written_walker((Node *) query, NULL);
}

/* Names and Vars of the columns of a part of FROM. */
static void
expand_from(Query *query, Node *from, int *rt_index, List **names, List **vars)
{
	RangeTblEntry *rte;

	if (IsA(from, JoinExpr))
		*rt_index = ((JoinExpr *) from)->rtindex;
	else
		*rt_index = castNode(RangeTblRef, from)->rtindex;
	rte = rt_fetch(*rt_index, query->rtable);
	md_expand_rte(rte, *rt_index, false, names, vars);
	/* what a relation has got since, printing adds by itself */
	while (rte->rtekind == RTE_RELATION && *vars != NIL &&
		   llast_node(Var, *vars)->varattno > list_length(rte->eref->colnames))
	{
		*names = list_delete_last(*names);
		*vars = list_delete_last(*vars);
	}
}

/* The columns by their numbers in an input; those of a join are Vars of what it joins. */
static List *
column_numbers(Query *query, List *vars, int rt_index)
{
	bool		is_join = rt_fetch(rt_index, query->rtable)->rtekind == RTE_JOIN;
	List	   *numbers = NIL;
	ListCell   *lc;

	foreach(lc, vars)
		numbers = lappend_int(numbers, is_join ? foreach_current_index(lc) + 1 :
							  lfirst_node(Var, lc)->varattno);
	return numbers;
}

static void
rebuild_joins(Query *query, Node *from)
{
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			rebuild_joins(query, lfirst(lc));
	}
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;
		RangeTblEntry *rte = rt_fetch(join->rtindex, query->rtable);
		List	   *left_names;
		List	   *left_vars;
		List	   *right_names;
		List	   *right_vars;
		int			left;
		int			right;

		rebuild_joins(query, join->larg);
		rebuild_joins(query, join->rarg);
		expand_from(query, join->larg, &left, &left_names, &left_vars);
		expand_from(query, join->rarg, &right, &right_names, &right_vars);
		rte->jointype = join->jointype;
		rte->alias = NULL;
		rte->join_using_alias = NULL;
		rte->joinmergedcols = 0;
		rte->joinleftcols = column_numbers(query, left_vars, left);
		rte->joinrightcols = column_numbers(query, right_vars, right);
		rte->joinaliasvars = list_concat(left_vars, right_vars);
		rte->eref = makeAlias("unnamed_join", list_concat(left_names, right_names));
	}
}

/* Range table indexes of the joins in a part of FROM. */
static Bitmapset *
join_entries(Node *from)
{
	Bitmapset  *entries = NULL;
	ListCell   *lc;

	if (IsA(from, FromExpr))
		foreach(lc, ((FromExpr *) from)->fromlist)
			entries = bms_join(entries, join_entries(lfirst(lc)));
	else if (IsA(from, JoinExpr))
		entries = bms_add_member(bms_join(join_entries(((JoinExpr *) from)->larg),
										  join_entries(((JoinExpr *) from)->rarg)),
								 ((JoinExpr *) from)->rtindex);
	return entries;
}

void
md_tree_rebuild_joins(Query *query)
{
	Bitmapset  *entries = join_entries((Node *) query->jointree);
	int			index = 0;
	ListCell   *lc;

	/* joins that are gone */
	foreach(lc, query->rtable)
	{
		index++;
		if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_JOIN && !bms_is_member(index, entries))
			md_tree_clear_entry(lfirst_node(RangeTblEntry, lc));
	}
	rebuild_joins(query, (Node *) query->jointree);
}
