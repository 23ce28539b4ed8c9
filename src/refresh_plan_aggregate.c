/*
 * refresh_plan_aggregate.c
 *		Which aggregates can take in new rows, and what must be kept for it.
 *
 * An aggregate is split into partial results that can be combined with those
 * of new rows alone: count and sum by adding, min and max by comparing, avg as a
 * sum and a count.  Where the columns of the result are just keys and such
 * partial results, the result is all that needs to be kept:
 *
 *		SELECT day, count(*), sum(x) FROM t GROUP BY day
 *
 * else they go to a state table, and the result's columns are expressions over
 * its columns c1, c2, ...:
 *
 *		SELECT avg(x) FROM t GROUP BY day HAVING count(*) > 5
 *	->	state (c1 = day, c2 = sum(x), c3 = count(x), c4 = count(*)),
 *		result = c2::numeric / c3::numeric where c4 > 5
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "refresh_plan.h"

typedef struct Splitter
{
	MdMerge    *merge;
	char	   *reason;
	int			location;
} Splitter;

/* Built-in aggregates whose partial results combine into one. */
static const struct
{
	const char *name;
	MdCombine	combine;
}			self_combining[] = {
	{"count", MD_COMBINE_ADD},
	{"sum", MD_COMBINE_ADD},
	{"min", MD_COMBINE_LEAST},
	{"max", MD_COMBINE_GREATEST},
	{"bool_and", MD_COMBINE_AND},
	{"every", MD_COMBINE_AND},
	{"bool_or", MD_COMBINE_OR},
};

static void
set_reason(Splitter *splitter, char *reason, int location)
{
	if (splitter->reason == NULL)
	{
		splitter->reason = reason;
		splitter->location = location;
	}
}

/* Values of the type can be compared and indexed. */
static bool
is_orderable(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_CMP_PROC | TYPECACHE_EQ_OPR);

	return OidIsValid(entry->cmp_proc) && OidIsValid(entry->eq_opr);
}

/* The aggregate combines with itself: *combine tells how. */
static bool
combines_with_itself(Aggref *agg, MdCombine *combine)
{
	char	   *name = get_func_name(agg->aggfnoid);

	if (agg->aggfnoid >= FirstNormalObjectId)
		return false;
	for (int i = 0; i < lengthof(self_combining); i++)
		if (strcmp(name, self_combining[i].name) == 0)
		{
			*combine = self_combining[i].combine;
			/* sum(money) and the like add; min(x) needs an order */
			return *combine == MD_COMBINE_ADD || *combine == MD_COMBINE_AND ||
				*combine == MD_COMBINE_OR || is_orderable(agg->aggtype);
		}
	return false;
}

/* avg() of a type whose sum and count give it exactly. */
static bool
is_average(Aggref *agg)
{
	return agg->aggfnoid < FirstNormalObjectId &&
		strcmp(get_func_name(agg->aggfnoid), "avg") == 0;
}

/* Can the aggregate be split at all? */
static bool
check_aggregate(Splitter *splitter, Aggref *agg)
{
	MdCombine	combine;
	char	   *name = get_func_name(agg->aggfnoid);

	if (agg->agglevelsup > 0)
		set_reason(splitter, "an aggregate of an outer query is not incremental in this version", agg->location);
	else if (agg->aggdistinct != NIL)
		set_reason(splitter, psprintf("%s(DISTINCT ...) needs all rows of a group", name),
				   agg->location);
	else if (!combines_with_itself(agg, &combine) && !is_average(agg))
		set_reason(splitter, psprintf("aggregate %s() needs all rows of a group", name),
				   agg->location);
	else
		return true;
	return false;
}

/* Add a column to the merge unless it is there; its number. */
static int
add_column(MdMerge *merge, Expr *expr, MdCombine combine)
{
	MdMergeColumn *column;
	int			number = 0;
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		number++;
		column = lfirst(lc);
		if (column->combine == combine && equal(column->expr, expr))
			return number;
	}
	column = palloc0(sizeof(MdMergeColumn));
	column->expr = expr;
	column->combine = combine;
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

/* A built-in aggregate over the same input as agg. */
static Aggref *
sibling_aggregate(Aggref *agg, const char *name, Oid argument_type)
{
	Aggref	   *sibling = copyObject(agg);
	Oid			argtypes[1] = {argument_type};

	sibling->aggfnoid = LookupFuncName(list_make2(makeString("pg_catalog"),
												  makeString(pstrdup(name))),
									   1, argtypes, false);
	if (argument_type != ANYOID)
		sibling->aggargtypes = list_make1_oid(argument_type);
	sibling->aggtype = get_func_rettype(sibling->aggfnoid);
	sibling->aggtranstype = InvalidOid;
	sibling->location = -1;
	return sibling;
}

static Expr *
cast_expr(Expr *expr, Oid to)
{
	return (Expr *) coerce_to_target_type(NULL, (Node *) expr, exprType((Node *) expr),
										  to, -1, COERCION_EXPLICIT,
										  COERCE_EXPLICIT_CAST, -1);
}

/*
 * avg(x) from its sum and count, by the division that Postgres uses itself:
 * numeric for integers and numeric, float8, or interval by float8.
 */
static Expr *
split_average(MdMerge *merge, Aggref *agg)
{
	TargetEntry *argument = linitial_node(TargetEntry, agg->args);
	Oid			type = exprType((Node *) argument->expr);
	Oid			divisor = agg->aggtype == NUMERICOID ? NUMERICOID : FLOAT8OID;
	Aggref	   *sum;
	Expr	   *sum_var;
	Expr	   *count_var;
	Oid			operator;

	/* avg(real) adds up in double precision, sum(real) does not */
	if (type == FLOAT4OID)
	{
		agg = copyObject(agg);
		argument = linitial_node(TargetEntry, agg->args);
		argument->expr = cast_expr(argument->expr, FLOAT8OID);
		type = FLOAT8OID;
	}
	sum = sibling_aggregate(agg, "sum", type);
	sum_var = column_var(merge, add_column(merge, (Expr *) sum, MD_COMBINE_ADD));
	count_var = column_var(merge,
						   add_column(merge, (Expr *) sibling_aggregate(agg, "count", ANYOID),
									  MD_COMBINE_ADD));
	if (divisor == NUMERICOID)
		sum_var = cast_expr(sum_var, NUMERICOID);
	count_var = cast_expr(count_var, divisor);
	operator = OpernameGetOprid(list_make2(makeString("pg_catalog"), makeString("/")),
								exprType((Node *) sum_var), divisor);
	if (!OidIsValid(operator))
		elog(ERROR, "no division for avg() of type %u", type);
	return make_opclause(operator, agg->aggtype, false, sum_var, count_var,
						 InvalidOid, InvalidOid);
}

/* Rewrite an output expression over columns of the state table. */
static Node *
finalize_mutator(Node *node, Splitter *splitter)
{
	int			number = 0;
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	foreach(lc, splitter->merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		number++;
		if (column->combine == MD_COMBINE_KEY && equal(column->expr, node))
			return (Node *) column_var(splitter->merge, number);
	}
	if (IsA(node, Aggref))
	{
		Aggref	   *agg = (Aggref *) node;
		MdCombine	combine;

		if (!check_aggregate(splitter, agg))
			return node;
		if (is_average(agg))
			return (Node *) split_average(splitter->merge, agg);
		(void) combines_with_itself(agg, &combine);
		agg = copyObject(agg);
		agg->location = -1;
		return (Node *) column_var(splitter->merge,
								   add_column(splitter->merge, (Expr *) agg, combine));
	}
	if (IsA(node, GroupingFunc) || IsA(node, SubLink))
	{
		set_reason(splitter, "a subquery or GROUPING() beside aggregates is not incremental in this version", -1);
		return node;
	}
	/* a column that is functionally dependent on the keys */
	if (IsA(node, Var))
	{
		set_reason(splitter, "a column that is neither a key nor in an aggregate is not incremental in this version",
				   ((Var *) node)->location);
		return node;
	}
	return expression_tree_mutator(node, finalize_mutator, splitter);
}

/* SELECT DISTINCT is a GROUP BY of all columns. */
static List *
group_clause(Query *query)
{
	return query->groupClause != NIL ? query->groupClause : query->distinctClause;
}

static bool
is_group_key(List *groups, TargetEntry *target)
{
	ListCell   *lc;

	foreach(lc, groups)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == target->ressortgroupref)
			return true;
	return false;
}

/*
 * Try to make the result its own target: each column a key or one aggregate
 * that combines with itself, and all keys there.
 */
static bool
make_without_state(MdMerge *merge, Query *query, List *groups, Splitter *splitter)
{
	ListCell   *lc;
	int			keys = 0;

	if (query->havingQual != NULL)
		return false;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));

		if (is_group_key(groups, target))
		{
			if (target->resjunk)
				return false;
			column->combine = MD_COMBINE_KEY;
			column->sort_group_ref = target->ressortgroupref;
			keys++;
		}
		else if (target->resjunk)
			continue;
		else if (!IsA(target->expr, Aggref) ||
				 is_average((Aggref *) target->expr) ||
				 !check_aggregate(splitter, (Aggref *) target->expr) ||
				 !combines_with_itself((Aggref *) target->expr, &column->combine))
			return false;
		column->expr = target->expr;
		merge->columns = lappend(merge->columns, column);
	}
	merge->key_count = keys;
	return keys == list_length(groups);
}

/* Which column of the result shows each key; NIL unless all are shown. */
static List *
find_result_keys(MdMerge *merge)
{
	List	   *result = NIL;

	for (int key = 1; key <= merge->key_count; key++)
	{
		int			number = 0;
		int			found = 0;
		ListCell   *lc;

		foreach(lc, merge->finals)
		{
			Node	   *final = lfirst(lc);

			number++;
			if (found == 0 && IsA(final, Var) && ((Var *) final)->varattno == key)
				found = number;
		}
		if (found == 0)
			return NIL;
		result = lappend_int(result, found);
	}
	return result;
}

/* Keys first, then whatever partial results the output needs. */
static void
make_with_state(MdMerge *merge, Query *query, List *groups, Splitter *splitter)
{
	ListCell   *lc;

	merge->needs_state = true;
	merge->columns = NIL;
	foreach(lc, groups)
	{
		TargetEntry *target = get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc),
													  query->targetList);
		MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));

		column->expr = target->expr;
		column->combine = MD_COMBINE_KEY;
		column->sort_group_ref = target->ressortgroupref;
		merge->columns = lappend(merge->columns, column);
	}
	merge->key_count = list_length(merge->columns);
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			merge->finals = lappend(merge->finals,
									finalize_mutator((Node *) target->expr, splitter));
	}
	merge->having = finalize_mutator(query->havingQual, splitter);
	merge->result_keys = find_result_keys(merge);
}

/* Keys are found again through a unique index. */
static void
check_keys(MdMerge *merge, Splitter *splitter)
{
	ListCell   *lc;

	if (merge->key_count > INDEX_MAX_KEYS)
		set_reason(splitter, psprintf("more than %d keys do not fit an index", INDEX_MAX_KEYS), -1);
	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);
		Oid			type = exprType((Node *) column->expr);

		if (column->combine == MD_COMBINE_KEY && !is_orderable(type))
			set_reason(splitter, psprintf("keys of type %s cannot be indexed", format_type_be(type)),
					   exprLocation((Node *) column->expr));
	}
}

MdMerge *
md_merge_make(Query *query, char **reason, int *location)
{
	MdMerge    *merge = palloc0(sizeof(MdMerge));
	Splitter	splitter = {merge, NULL, -1};
	List	   *groups = group_clause(query);

	if (query->groupingSets != NIL)
		set_reason(&splitter, "GROUPING SETS are not incremental in this version", -1);
	else if (query->hasTargetSRFs)
		set_reason(&splitter, "set-returning functions beside aggregates are not incremental in this version", -1);
	else if (query->distinctClause != NIL && (query->hasAggs || query->groupClause != NIL))
		set_reason(&splitter, "DISTINCT of an aggregate's output is not incremental in this version", -1);
	else if (query->hasSubLinks)
		set_reason(&splitter, "a subquery in an expression is not incremental in this version", -1);
	else
	{
		if (!make_without_state(merge, query, groups, &splitter))
		{
			splitter.reason = NULL;
			make_with_state(merge, query, groups, &splitter);
		}
		check_keys(merge, &splitter);
		if (merge->columns == NIL)
			set_reason(&splitter, "there is neither a key nor an aggregate", -1);
	}
	if (splitter.reason == NULL)
		return merge;
	*reason = splitter.reason;
	*location = splitter.location;
	return NULL;
}
