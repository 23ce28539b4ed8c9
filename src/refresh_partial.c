/*
 * refresh_partial.c
 *		Partial aggregates of rows of an input, as SQL.
 *
 *		SELECT i1 AS c1, sum(i2) AS c2, count(*) AS c3 FROM (input) i GROUP BY i1
 *
 * Of rows with a weight, those that came and those that left are aggregated apart:
 *
 *		... sum(i2) FILTER (WHERE md_weight > 0) - sum(i2) FILTER (WHERE md_weight < 0) AS c2,
 *			max(i3) FILTER (WHERE md_weight > 0) AS c3, max(i3) FILTER (WHERE md_weight < 0) AS m3
 *
 * What left of an exact sum is subtracted.  m<n> tells of the others whether what
 * is kept may have lost what it was made of, so that the group must be recomputed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "expr_make.h"
#include "refresh_delta.h"
#include "refresh_merge.h"
#include "refresh_plan.h"

Query *
md_partial_input(const MdMerge *merge)
{
	return md_partial_linear(merge->query, merge->inputs);
}

Query *
md_partial_linear(Query *query, List *exprs)
{
	Query	   *input = copyObject(query);
	ListCell   *lc;

	input->targetList = NIL;
	foreach(lc, exprs)
	{
		AttrNumber	number = list_length(input->targetList) + 1;

		input->targetList = lappend(input->targetList,
									makeTargetEntry(copyObject(lfirst(lc)), number,
													psprintf("i%d", number), false));
	}
	input->hasAggs = false;
	input->hasDistinctOn = false;
	input->groupClause = NIL;
	input->groupingSets = NIL;
	input->groupDistinct = false;
	input->havingQual = NULL;
	input->distinctClause = NIL;
	input->sortClause = NIL;
	input->limitCount = input->limitOffset = NULL;
	input->limitOption = LIMIT_OPTION_COUNT;
	return input;
}

/* The range table entry of the input's rows, called i. */
static RangeTblEntry *
make_rte(List *inputs, const MdPartialSource *source)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, inputs)
	{
		names = lappend(names, makeString(psprintf("i%d", list_length(names) + 1)));
		rte->coltypes = lappend_oid(rte->coltypes, exprType(lfirst(lc)));
		rte->coltypmods = lappend_int(rte->coltypmods, exprTypmod(lfirst(lc)));
		rte->colcollations = lappend_oid(rte->colcollations, exprCollation(lfirst(lc)));
	}
	if (source->is_signed)
	{
		names = lappend(names, makeString(pstrdup(MD_WEIGHT)));
		rte->coltypes = lappend_oid(rte->coltypes, INT4OID);
		rte->coltypmods = lappend_int(rte->coltypmods, -1);
		rte->colcollations = lappend_oid(rte->colcollations, InvalidOid);
	}
	if (source->rows != NULL)
	{
		rte->rtekind = RTE_SUBQUERY;
		rte->subquery = source->rows;
		rte->coltypes = rte->coltypmods = rte->colcollations = NIL;
	}
	else
	{
		rte->rtekind = RTE_CTE;
		rte->ctename = pstrdup(source->relation);
	}
	/* with the names, because those of a subquery may be others */
	rte->alias = makeAlias("i", source->rows ? copyObject(names) : NIL);
	rte->eref = makeAlias("i", names);
	rte->inFromCl = true;
	return rte;
}

Query *
md_partial_from(List *inputs, const MdPartialSource *source)
{
	Query	   *query = makeNode(Query);
	RangeTblRef *ref = makeNode(RangeTblRef);

	ref->rtindex = 1;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = list_make1(make_rte(inputs, source));
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	return query;
}

char *
md_partial_rows_text(List *inputs, const MdPartialSource *source)
{
	Query	   *query = md_partial_from(inputs, source);
	int			number = 0;
	ListCell   *lc;

	foreach(lc, inputs)
	{
		number++;
		query->targetList = lappend(query->targetList,
									makeTargetEntry((Expr *) makeVar(1, number, exprType(lfirst(lc)),
																	 exprTypmod(lfirst(lc)),
																	 exprCollation(lfirst(lc)), 0),
													number, psprintf("i%d", number), false));
	}
	if (source->is_signed)
		query->targetList = lappend(query->targetList,
									makeTargetEntry((Expr *) makeVar(1, number + 1, INT4OID, -1, InvalidOid, 0),
													number + 1, MD_WEIGHT, false));
	return md_delta_text(query);
}

/* 0 of a type */
static Expr *
make_zero(Oid type)
{
	Oid			input;
	Oid			param;
	int16		length;
	bool		by_value;

	getTypeInputInfo(type, &input, &param);
	get_typlenbyval(type, &length, &by_value);
	return (Expr *) makeConst(type, -1, InvalidOid, length,
							  OidInputFunctionCall(input, "0", param, -1), false, by_value);
}

static Expr *
or_zero(Expr *expr)
{
	CoalesceExpr *coalesce = makeNode(CoalesceExpr);

	coalesce->args = list_make2(expr, make_zero(exprType((Node *) expr)));
	coalesce->coalescetype = exprType((Node *) expr);
	coalesce->location = -1;
	return (Expr *) coalesce;
}

/* The aggregate over rows that came (">") or left ("<"). */
static Expr *
of_weight(const MdMerge *merge, Expr *expr, const char *operator)
{
	Aggref	   *agg = copyObject(castNode(Aggref, expr));
	Expr	   *weight = md_expr_operate(operator,
										 (Expr *) makeVar(1, list_length(merge->inputs) + 1,
														  INT4OID, -1, InvalidOid, 0),
										 md_expr_int4(0));

	agg->aggfilter = agg->aggfilter == NULL ? weight :
		makeBoolExpr(AND_EXPR, list_make2(agg->aggfilter, weight), -1);
	return (Expr *) agg;
}

/* Has any value left? */
static Expr *
any_left(const MdMerge *merge, Expr *expr)
{
	Aggref	   *count = copyObject(castNode(Aggref, expr));
	TargetEntry *value = linitial_node(TargetEntry, count->args);

	count->aggfnoid = F_COUNT_ANY;
	count->aggtype = INT8OID;
	count->args = list_make1(value);
	count->aggargtypes = list_make1_oid(exprType((Node *) value->expr));
	return md_expr_operate(">", of_weight(merge, (Expr *) count, "<"), md_expr_int8(0));
}

bool
md_partial_asks(const MdMergeColumn *column)
{
	if (column->combine == MD_COMBINE_LEAST || column->combine == MD_COMBINE_GREATEST ||
		column->inexact || column->may_vanish)
		return true;
	/* numeric: NaN and infinity stay what they are whatever is subtracted */
	return column->combine == MD_COMBINE_ADD && column->value_set == 0 &&
		exprType((Node *) column->expr) == NUMERICOID;
}

static Expr *
is_null(Expr *expr)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = copyObject(expr);
	test->nulltesttype = IS_NULL;
	test->location = -1;
	return (Expr *) test;
}

/* CASE WHEN a IS NULL AND b IS NULL THEN NULL ELSE expr END */
static Expr *
null_if_both_are(Expr *a, Expr *b, Expr *expr)
{
	CaseExpr   *choice = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	when->expr = makeBoolExpr(AND_EXPR, list_make2(is_null(a), is_null(b)), -1);
	when->result = (Expr *) makeNullConst(exprType((Node *) expr), -1, InvalidOid);
	when->location = -1;
	choice->casetype = exprType((Node *) expr);
	choice->args = list_make1(when);
	choice->defresult = expr;
	choice->location = -1;
	return (Expr *) choice;
}

/* c<n> of rows with weights. */
static Expr *
signed_value(const MdMerge *merge, const MdMergeColumn *column)
{
	Expr	   *came = of_weight(merge, column->expr, ">");
	Expr	   *left;

	if (column->combine != MD_COMBINE_ADD)
		return came;
	if (column->inexact)
		return column->may_vanish ? came : or_zero(came);
	left = of_weight(merge, column->expr, "<");
	if (column->may_vanish)
		return null_if_both_are(came, left, md_expr_operate("-", or_zero(came), or_zero(left)));
	return md_expr_operate("-", or_zero(came), or_zero(left));
}

/* c<n> of rows without. */
static Expr *
plain_value(const MdMergeColumn *column)
{
	return column->or_zero ? or_zero(copyObject(column->expr)) : copyObject(column->expr);
}

static void
add_target(Query *query, Expr *expr, char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry(expr, list_length(query->targetList) + 1,
												name, false));
}

#define ALL_SETS (-1)

static char *
partial_text(const MdMerge *merge, const MdPartialSource *source, bool with_values, int set)
{
	Query	   *query = md_partial_from(merge->inputs, source);
	int			number = 0;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		char	   *name = psprintf("c%d", ++number);
		SortGroupClause *group;

		if (column->combine != MD_COMBINE_KEY)
		{
			query->hasAggs = true;
			if (column->value_set > 0 && !with_values)
				add_target(query, (Expr *) makeNullConst(exprType((Node *) column->expr), -1, InvalidOid),
						   name);
			else
				add_target(query, source->is_signed ? signed_value(merge, column) :
						   plain_value(column), name);
			continue;
		}
		if (set != ALL_SETS && !IsA(column->expr, Var))
		{
			add_target(query, md_expr_int4(set), name);
			continue;
		}
		if (set != ALL_SETS && !md_sets_has_key(merge, set, number))
		{
			add_target(query, (Expr *) makeNullConst(exprType((Node *) column->expr),
													 exprTypmod((Node *) column->expr),
													 exprCollation((Node *) column->expr)), name);
			continue;
		}
		add_target(query, copyObject(column->expr), name);
		if (!IsA(column->expr, Var))
			continue;
		group = makeNode(SortGroupClause);
		group->tleSortGroupRef = number;
		llast_node(TargetEntry, query->targetList)->ressortgroupref = number;
		query->groupClause = lappend(query->groupClause, group);
	}
	/* one group, though none of the columns may be an aggregate */
	if (query->groupClause == NIL)
		query->groupingSets = list_make1(makeGroupingSet(GROUPING_SET_EMPTY, NIL, -1));
	else if (merge->sets != NIL && set == ALL_SETS)
		query->groupingSets = md_sets_clause(merge);
	number = 0;
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		number++;
		if (source->is_signed && md_partial_asks(column))
			add_target(query, column->combine == MD_COMBINE_LEAST || column->combine == MD_COMBINE_GREATEST ?
					   of_weight(merge, column->expr, "<") : any_left(merge, column->expr),
					   psprintf("m%d", number));
	}
	return md_delta_text(query);
}

char *
md_partial_text(const MdMerge *merge, const MdPartialSource *source, bool with_values)
{
	return partial_text(merge, source, with_values, ALL_SETS);
}

char *
md_partial_set_text(const MdMerge *merge, const MdPartialSource *source, int set)
{
	return partial_text(merge, source, true, set);
}
