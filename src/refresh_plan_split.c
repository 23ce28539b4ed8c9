/*
 * refresh_plan_split.c
 *		An aggregate as partial results that combine, and an expression over them.
 *
 *		avg(x)			->	sum(x), count(x)			sum / count
 *		stddev(x)		->	sum(x), sum(x * x), count(x)	the formula of Postgres
 *		sum(x)			->	sum(x)						itself
 *		sum(x), signed	->	sum(x) or 0, count(x)		sum, NULL where count is 0
 *		bool_and(x), signed	->	count(x), count(*) where not x
 *		count(DISTINCT x)	->	itself, from the values that came or went
 *
 * Numbers are exact except for floats, whose sums depend on the order of rows in Postgres
 * too.  Variances of integers and numerics come out digit by digit as it computes them
 * (numeric_stddev_internal()): N * sum(x * x) - sum(x) ^ 2 by N * (N - 1) with the scale
 * of the operator /, and the root of that with the same scale.  Those of floats keep the
 * state of the aggregate itself, which Postgres can combine (float8_combine()).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "expr_make.h"
#include "refresh_merge.h"

typedef Node *(*SplitFunction) (MdSplitter *splitter, Aggref *agg);

static Node *split_count(MdSplitter *splitter, Aggref *agg);
static Node *split_sum(MdSplitter *splitter, Aggref *agg);
static Node *split_least(MdSplitter *splitter, Aggref *agg);
static Node *split_greatest(MdSplitter *splitter, Aggref *agg);
static Node *split_and(MdSplitter *splitter, Aggref *agg);
static Node *split_or(MdSplitter *splitter, Aggref *agg);
static Node *split_average(MdSplitter *splitter, Aggref *agg);
static Node *split_variance(MdSplitter *splitter, Aggref *agg);
static Node *split_moments(MdSplitter *splitter, Aggref *agg);

/* How each built-in aggregate is split. */
static const struct
{
	const char *name;
	SplitFunction split;
}			aggregates[] = {
	{"count", split_count},
	{"regr_count", split_count},
	{"sum", split_sum},
	{"min", split_least},
	{"max", split_greatest},
	{"bool_and", split_and},
	{"every", split_and},
	{"bool_or", split_or},
	{"avg", split_average},
	{"variance", split_variance},
	{"var_samp", split_variance},
	{"var_pop", split_variance},
	{"stddev", split_variance},
	{"stddev_samp", split_variance},
	{"stddev_pop", split_variance},
	{"corr", split_moments},
	{"covar_pop", split_moments},
	{"covar_samp", split_moments},
	{"regr_avgx", split_moments},
	{"regr_avgy", split_moments},
	{"regr_intercept", split_moments},
	{"regr_r2", split_moments},
	{"regr_slope", split_moments},
	{"regr_sxx", split_moments},
	{"regr_sxy", split_moments},
	{"regr_syy", split_moments},
};

void
md_split_refuse(MdSplitter *splitter, char *reason, int location)
{
	if (splitter->reason == NULL)
	{
		splitter->reason = reason;
		splitter->location = location;
	}
}

bool
md_split_orderable(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_CMP_PROC | TYPECACHE_EQ_OPR);

	return OidIsValid(entry->cmp_proc) && OidIsValid(entry->eq_opr);
}

/* ----------------------------------------------------------------------
 * Columns
 * ---------------------------------------------------------------------- */

Var *
md_split_input(MdSplitter *splitter, Expr *expr)
{
	MdMerge    *merge = splitter->merge;
	int			number = 1;
	ListCell   *lc;

	foreach(lc, merge->inputs)
	{
		if (equal(lfirst(lc), expr))
			break;
		number++;
	}
	if (lc == NULL)
		merge->inputs = lappend(merge->inputs, copyObject(expr));
	return makeVar(1, number, exprType((Node *) expr), exprTypmod((Node *) expr),
				   exprCollation((Node *) expr), 0);
}

/* Add a column to the merge unless it is there; its number. */
static int
add_column(MdMerge *merge, const MdMergeColumn *wanted)
{
	MdMergeColumn *column;
	int			number = 0;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		number++;
		column = lfirst(lc);
		if (column->combine == wanted->combine && column->or_zero == wanted->or_zero &&
			equal(column->expr, wanted->expr))
			return number;
	}
	column = palloc(sizeof(MdMergeColumn));
	*column = *wanted;
	merge->columns = lappend(merge->columns, column);
	return number + 1;
}

/* Column `number` of the state table. */
static Expr *
column_var(MdMerge *merge, int number)
{
	MdMergeColumn *column = list_nth(merge->columns, number - 1);

	return (Expr *) makeVar(1, number, exprType((Node *) column->expr),
							exprTypmod((Node *) column->expr),
							exprCollation((Node *) column->expr), 0);
}

static Expr *
add_var(MdSplitter *splitter, const MdMergeColumn *wanted)
{
	return column_var(splitter->merge, add_column(splitter->merge, wanted));
}

/* The set of distinct values of an aggregate over inputs; its number. */
static int
add_value_set(MdMerge *merge, Aggref *agg)
{
	Var		   *value = castNode(Var, linitial_node(TargetEntry, agg->args)->expr);
	int			filter = agg->aggfilter ? castNode(Var, agg->aggfilter)->varattno : 0;
	int			number = 0;
	MdValueSet *set;
	ListCell   *lc;

	foreach(lc, merge->value_sets)
	{
		number++;
		set = lfirst(lc);
		if (set->value == value->varattno && set->filter == filter)
			return number;
	}
	set = palloc(sizeof(MdValueSet));
	set->value = value->varattno;
	set->filter = filter;
	merge->value_sets = lappend(merge->value_sets, set);
	return number + 1;
}

/* The aggregate with arguments and filter taken from the input. */
static Aggref *
over_inputs(MdSplitter *splitter, Aggref *agg)
{
	List	   *args = NIL;
	ListCell   *lc;

	agg = copyObject(agg);
	foreach(lc, agg->args)
	{
		TargetEntry *arg = lfirst_node(TargetEntry, lc);

		if (arg->resjunk)
			continue;
		if (!IsA(arg->expr, Const))
			arg->expr = (Expr *) md_split_input(splitter, arg->expr);
		args = lappend(args, arg);
	}
	agg->args = args;
	/* of no account to those that are split */
	agg->aggorder = NIL;
	if (agg->aggfilter != NULL)
		agg->aggfilter = (Expr *) md_split_input(splitter, agg->aggfilter);
	agg->location = -1;
	return agg;
}

/* The only, or first, argument of an aggregate. */
static Expr *
argument(Aggref *agg)
{
	return linitial_node(TargetEntry, agg->args)->expr;
}

/* ----------------------------------------------------------------------
 * Expressions
 * ---------------------------------------------------------------------- */

/* A built-in aggregate over other arguments (NIL: count(*)), same filter. */
static Aggref *
sibling(Aggref *agg, const char *schema, const char *name, List *arguments)
{
	Aggref	   *result = makeNode(Aggref);
	Oid			types[2] = {ANYOID, ANYOID};
	AttrNumber	resno = 0;
	ListCell   *lc;

	foreach(lc, arguments)
	{
		types[resno] = exprType(lfirst(lc));
		result->aggargtypes = lappend_oid(result->aggargtypes, types[resno]);
		resno++;
		result->args = lappend(result->args,
							   makeTargetEntry(copyObject(lfirst(lc)), resno, NULL, false));
	}
	/* count(any) takes what it is given */
	if (strcmp(name, "count") == 0)
		types[0] = ANYOID;
	result->aggfnoid = LookupFuncName(list_make2(makeString(pstrdup(schema)),
												 makeString(pstrdup(name))),
									  arguments == NIL ? 0 : list_length(arguments),
									  types, false);
	result->aggtype = get_func_rettype(result->aggfnoid);
	result->aggstar = arguments == NIL;
	result->aggkind = AGGKIND_NORMAL;
	result->aggfilter = copyObject(agg->aggfilter);
	result->aggno = -1;
	result->aggtransno = -1;
	result->location = -1;
	if (agg->aggdistinct != NIL && arguments != NIL)
	{
		result->aggdistinct = copyObject(agg->aggdistinct);
		linitial_node(TargetEntry, result->args)->ressortgroupref =
			linitial_node(SortGroupClause, agg->aggdistinct)->tleSortGroupRef;
	}
	return result;
}

/* Is a value of the input never NULL? */
static bool
is_never_null(MdSplitter *splitter, Expr *input)
{
	if (IsA(input, Const))
		return !((Const *) input)->constisnull;
	return md_expr_is_not_null(list_nth(splitter->merge->inputs, castNode(Var, input)->varattno - 1),
							   splitter->query);
}

/* How many values went into the aggregate, as a column. */
static Expr *
count_var(MdSplitter *splitter, Aggref *agg)
{
	bool		all = agg->aggdistinct == NIL && is_never_null(splitter, argument(agg));
	MdMergeColumn column = {.combine = MD_COMBINE_ADD};

	column.expr = (Expr *) sibling(agg, "pg_catalog", "count",
								   all ? NIL : list_make1(argument(agg)));
	if (agg->aggdistinct != NIL)
		column.value_set = add_value_set(splitter->merge, agg);
	return add_var(splitter, &column);
}

/* Floats and intervals that left cannot be taken off a sum of others. */
static bool
is_inexact(Oid type)
{
	return type == FLOAT4OID || type == FLOAT8OID || type == INTERVALOID;
}

/* A sum as a column; 0 where there is nothing to add if rows may leave. */
static MdMergeColumn
sum_column(MdSplitter *splitter, Aggref *sum)
{
	MdMergeColumn column = {.combine = MD_COMBINE_ADD};

	column.expr = (Expr *) sum;
	column.or_zero = splitter->merge->is_signed;
	column.inexact = is_inexact(sum->aggtype);
	/* a sum that once was NaN would remain so */
	if (sum->aggdistinct != NIL &&
		(column.inexact ||
		 (column.or_zero && exprType((Node *) argument(sum)) == NUMERICOID)))
		md_split_refuse(splitter, psprintf("sums of DISTINCT %s need all rows of a group",
										   format_type_be(exprType((Node *) argument(sum)))), -1);
	else if (sum->aggdistinct != NIL)
		column.value_set = add_value_set(splitter->merge, sum);
	return column;
}

/* ----------------------------------------------------------------------
 * Aggregates, with arguments taken from the input
 * ---------------------------------------------------------------------- */

static Node *
split_count(MdSplitter *splitter, Aggref *agg)
{
	MdMergeColumn column = {.combine = MD_COMBINE_ADD};

	if (agg->aggdistinct != NIL)
		return (Node *) count_var(splitter, agg);
	column.expr = (Expr *) agg;
	return (Node *) add_var(splitter, &column);
}

static Node *
split_sum(MdSplitter *splitter, Aggref *agg)
{
	MdMergeColumn column = sum_column(splitter, agg);
	Expr	   *sum = add_var(splitter, &column);

	if (!splitter->merge->is_signed)
		return (Node *) sum;
	return md_expr_when_more(count_var(splitter, agg), 0, sum);
}

static Node *
split_extreme(MdSplitter *splitter, Aggref *agg, MdCombine combine)
{
	MdMergeColumn column = {.combine = combine};

	if (!md_split_orderable(agg->aggtype))
		md_split_refuse(splitter, psprintf("values of type %s have no order to merge by",
										   format_type_be(agg->aggtype)), -1);
	agg->aggdistinct = NIL;
	linitial_node(TargetEntry, agg->args)->ressortgroupref = 0;
	column.expr = (Expr *) agg;
	return (Node *) add_var(splitter, &column);
}

static Node *
split_least(MdSplitter *splitter, Aggref *agg)
{
	return split_extreme(splitter, agg, MD_COMBINE_LEAST);
}

static Node *
split_greatest(MdSplitter *splitter, Aggref *agg)
{
	return split_extreme(splitter, agg, MD_COMBINE_GREATEST);
}

/* Where rows may leave, true and false values are counted. */
static Node *
split_bool(MdSplitter *splitter, Aggref *agg, bool is_and)
{
	MdMergeColumn column = {.combine = is_and ? MD_COMBINE_AND : MD_COMBINE_OR};
	Expr	   *value = argument(agg);
	Aggref	   *counted;
	List	   *conditions;

	agg->aggdistinct = NIL;
	linitial_node(TargetEntry, agg->args)->ressortgroupref = 0;
	if (!splitter->merge->is_signed)
	{
		column.expr = (Expr *) agg;
		return (Node *) add_var(splitter, &column);
	}
	conditions = list_make1(is_and ? makeBoolExpr(NOT_EXPR, list_make1(copyObject(value)), -1) :
							copyObject(value));
	if (agg->aggfilter != NULL)
		conditions = lcons(copyObject(agg->aggfilter), conditions);
	counted = sibling(agg, "pg_catalog", "count", NIL);
	counted->aggfilter = list_length(conditions) == 1 ? linitial(conditions) :
		makeBoolExpr(AND_EXPR, conditions, -1);
	column.combine = MD_COMBINE_ADD;
	column.expr = (Expr *) counted;
	return md_expr_when_more(count_var(splitter, agg), 0,
					 md_expr_operate(is_and ? "=" : ">", add_var(splitter, &column), md_expr_int8(0)));
}

static Node *
split_and(MdSplitter *splitter, Aggref *agg)
{
	return split_bool(splitter, agg, true);
}

static Node *
split_or(MdSplitter *splitter, Aggref *agg)
{
	return split_bool(splitter, agg, false);
}

/*
 * avg(x) from its sum and count, by the division that Postgres uses itself:
 * numeric for integers and numeric, float8, or interval by float8.
 */
static Node *
split_average(MdSplitter *splitter, Aggref *agg)
{
	Expr	   *value = argument(agg);
	Oid			divisor = agg->aggtype == NUMERICOID ? NUMERICOID : FLOAT8OID;
	MdMergeColumn column;
	Expr	   *sum;
	Expr	   *count;

	/* avg(real) adds up in double precision, sum(real) does not */
	if (exprType((Node *) value) == FLOAT4OID)
		value = md_expr_cast(value, FLOAT8OID);
	column = sum_column(splitter, sibling(agg, "pg_catalog", "sum", list_make1(value)));
	sum = add_var(splitter, &column);
	count = count_var(splitter, agg);
	if (divisor == NUMERICOID)
		sum = md_expr_cast(sum, NUMERICOID);
	return md_expr_when_more(count, 0, md_expr_operate("/", sum, md_expr_cast(copyObject(count), divisor)));
}

/* stddev_*, var_* */
static Node *
split_variance(MdSplitter *splitter, Aggref *agg)
{
	const char *name = get_func_name(agg->aggfnoid);
	bool		is_population = strstr(name, "_pop") != NULL;
	Expr	   *value = argument(agg);
	MdMergeColumn column;
	Expr	   *sum;
	Expr	   *squares;
	Expr	   *count;
	Expr	   *n;
	Expr	   *other;
	Expr	   *result;
	Expr	   *scale;

	if (agg->aggdistinct != NIL)
	{
		md_split_refuse(splitter, psprintf("%s(DISTINCT ...) needs all rows of a group", name), -1);
		return (Node *) agg;
	}
	if (agg->aggtype != NUMERICOID)
		return split_moments(splitter, agg);
	value = md_expr_cast(value, NUMERICOID);
	column = sum_column(splitter, sibling(agg, "pg_catalog", "sum", list_make1(value)));
	sum = add_var(splitter, &column);
	column = sum_column(splitter, sibling(agg, "pg_catalog", "sum",
										  list_make1(md_expr_operate("*", value, copyObject(value)))));
	squares = add_var(splitter, &column);
	count = count_var(splitter, agg);
	n = md_expr_cast(copyObject(count), NUMERICOID);
	other = is_population ? n : md_expr_operate("-", n, md_expr_cast(md_expr_int4(1), NUMERICOID));
	result = md_expr_operate("/", md_expr_operate("-", md_expr_operate("*", n, squares), md_expr_operate("*", sum, sum)),
					 md_expr_operate("*", n, other));
	if (strncmp(name, "stddev", 6) == 0)
	{
		CoalesceExpr *or_nan = makeNode(CoalesceExpr);

		/* the root with the scale of the variance, rounded once */
		scale = md_expr_call("scale", INT4OID, list_make1(result));
		or_nan->args = list_make2(md_expr_call("round", NUMERICOID,
									   list_make2(md_expr_call("sqrt", NUMERICOID,
													   list_make1(md_expr_call("round", NUMERICOID,
																	   list_make2(result, md_expr_operate("+", scale, md_expr_int4(20)))))),
												  copyObject(scale))),
								  copyObject(result));
		or_nan->coalescetype = NUMERICOID;
		or_nan->location = -1;
		result = (Expr *) or_nan;
	}
	return md_expr_when_more(count, is_population ? 0 : 1, (Expr *) copyObject(result));
}

/* Float aggregates by the state that Postgres makes: final(state). */
static Node *
split_moments(MdSplitter *splitter, Aggref *agg)
{
	MdMergeColumn column = {.combine = MD_COMBINE_MOMENTS, .inexact = true};
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(agg->aggfnoid));
	List	   *values = NIL;
	ListCell   *lc;
	Oid			final;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", agg->aggfnoid);
	final = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggfinalfn;
	ReleaseSysCache(tuple);
	if (agg->aggdistinct != NIL)
		md_split_refuse(splitter, psprintf("%s(DISTINCT ...) needs all rows of a group",
										   get_func_name(agg->aggfnoid)), -1);
	foreach(lc, agg->args)
		values = lappend(values, md_expr_cast(lfirst_node(TargetEntry, lc)->expr, FLOAT8OID));
	agg->aggdistinct = NIL;
	column.expr = (Expr *) sibling(agg, "medallion", "float8_moments", values);
	return (Node *) makeFuncExpr(final, agg->aggtype, list_make1(add_var(splitter, &column)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* How to split the aggregate; NULL with a reason if it cannot be. */
static SplitFunction
find_split(MdSplitter *splitter, Aggref *agg)
{
	char	   *name = get_func_name(agg->aggfnoid);

	if (agg->agglevelsup > 0)
		md_split_refuse(splitter, "an aggregate of an outer query does not merge", agg->location);
	else if (agg->aggkind != AGGKIND_NORMAL || agg->aggfnoid >= FirstNormalObjectId)
		md_split_refuse(splitter, psprintf("aggregate %s() needs all rows of a group", name),
						agg->location);
	else
	{
		for (int i = 0; i < lengthof(aggregates); i++)
			if (strcmp(name, aggregates[i].name) == 0)
				return aggregates[i].split;
		md_split_refuse(splitter, psprintf("aggregate %s() needs all rows of a group", name),
						agg->location);
	}
	return NULL;
}

/* Can the values of a DISTINCT aggregate be kept in an index? */
static bool
check_distinct(MdSplitter *splitter, Aggref *agg)
{
	Oid			type;

	if (agg->aggdistinct == NIL)
		return true;
	type = exprType((Node *) argument(agg));
	if (list_length(agg->aggdistinct) == 1 && md_split_orderable(type) &&
		get_typtype(type) != TYPTYPE_PSEUDO && !IsA(argument(agg), Const))
		return true;
	md_split_refuse(splitter, psprintf("distinct values of type %s cannot be kept in a table",
									   format_type_be(type)), agg->location);
	return false;
}

Node *
md_split_aggregate(MdSplitter *splitter, Aggref *agg)
{
	SplitFunction split = find_split(splitter, agg);

	if (split == NULL || !check_distinct(splitter, agg))
		return (Node *) agg;
	return split(splitter, over_inputs(splitter, agg));
}

/*
 * Where rows may leave, a sum can become NULL while the group remains.  How many
 * values it is made of is not kept: when it comes to 0 it is in doubt.
 */
MdMergeColumn *
md_split_plain(MdSplitter *splitter, Aggref *agg)
{
	SplitFunction split = find_split(splitter, agg);
	bool		is_signed = splitter->merge->is_signed;
	MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));

	if (split == NULL || !check_distinct(splitter, agg) ||
		split == split_average || split == split_variance || split == split_moments)
		return NULL;
	agg = over_inputs(splitter, agg);
	if (is_signed && (split == split_and || split == split_or ||
					  (split == split_sum && agg->aggdistinct != NIL)))
		return NULL;
	column->may_vanish = is_signed && split == split_sum &&
		(agg->aggfilter != NULL || !is_never_null(splitter, argument(agg)));
	column->combine = split == split_least ? MD_COMBINE_LEAST :
		split == split_greatest ? MD_COMBINE_GREATEST :
		split == split_and ? MD_COMBINE_AND :
		split == split_or ? MD_COMBINE_OR : MD_COMBINE_ADD;
	if ((column->combine == MD_COMBINE_LEAST || column->combine == MD_COMBINE_GREATEST) &&
		!md_split_orderable(agg->aggtype))
		return NULL;
	if (column->combine != MD_COMBINE_ADD)
	{
		agg->aggdistinct = NIL;
		linitial_node(TargetEntry, agg->args)->ressortgroupref = 0;
	}
	column->expr = (Expr *) agg;
	column->inexact = column->combine == MD_COMBINE_ADD && is_inexact(agg->aggtype);
	if (agg->aggdistinct != NIL)
	{
		if (column->inexact)
			return NULL;
		column->value_set = add_value_set(splitter->merge, agg);
	}
	return column;
}
