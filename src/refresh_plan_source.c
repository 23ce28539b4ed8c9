/*
 * refresh_plan_source.c
 *		What a query reads, and what else its result depends on.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "compat.h"
#include "refresh_plan.h"
#include "stable_functions.h"
#include "type_shape.h"

typedef struct SourceContext
{
	MdPlan	   *plan;
	Oid			owner;
} SourceContext;

/* Note in the plan what makes the result move by itself. */
static void
note_volatility(Node *expr, MdPlan *plan)
{
	MdUnstable	found;

	if (!md_unstable_find(expr, &found))
		return;
	if (found.is_time)
		plan->time_dependent = true;
	else
		plan->repeatable = false;
}

static bool
note_volatility_walker(Node *node, SourceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		ListCell   *lc;

		note_volatility((Node *) query->targetList, context->plan);
		note_volatility((Node *) query->jointree, context->plan);
		note_volatility(query->havingQual, context->plan);
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			note_volatility((Node *) rte->functions, context->plan);
			note_volatility((Node *) rte->tablefunc, context->plan);
			note_volatility((Node *) rte->values_lists, context->plan);
			note_volatility((Node *) rte->tablesample, context->plan);
		}
		return query_tree_walker(query, note_volatility_walker, context, 0);
	}
	return expression_tree_walker(node, note_volatility_walker, context);
}

/* Refuse what would make results depend on who reads. */
static void
check_row_security(Oid relid, Oid owner)
{
	if (check_enable_rls(relid, owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot make a materialized view over \"%s\"", get_rel_name(relid)),
				 errdetail("Row-level security limits what the owner of the view, \"%s\", sees of it.",
						   GetUserNameFromId(owner, false)),
				 errhint("Let a role own the view that the policies do not apply to.")));
}

/* All relations that are read, wherever. */
static bool
collect_sources_walker(Node *node, SourceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		/* OLD and NEW of a view's rule are no inputs */
		if (rte->rtekind == RTE_RELATION && rte->inFromCl)
		{
			check_row_security(rte->relid, context->owner);
			context->plan->source_ids = list_append_unique_oid(context->plan->source_ids,
															   rte->relid);
		}
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, collect_sources_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, collect_sources_walker, context);
}

typedef struct ReferenceContext
{
	List	   *rtables;		/* of the queries around, innermost first */
	int			location;
	bool		(*wanted) (Var *var, RangeTblEntry *rte, void *state);
	void	   *state;
} ReferenceContext;

static bool
reference_walker(Node *node, ReferenceContext *context)
{
	Var		   *var = (Var *) node;
	bool		found;

	if (node == NULL)
		return false;
	if (IsA(node, Var) && (int) var->varlevelsup < list_length(context->rtables))
	{
		List	   *rtable = list_nth(context->rtables, var->varlevelsup);

		context->location = var->location;
		return context->wanted(var, rt_fetch(var->varno, rtable), context->state);
	}
	if (!IsA(node, Query))
		return expression_tree_walker(node, reference_walker, context);
	context->rtables = lcons(((Query *) node)->rtable, context->rtables);
	found = query_tree_walker((Query *) node, reference_walker, context, QTW_IGNORE_JOINALIASES);
	context->rtables = list_delete_first(context->rtables);
	return found;
}

static bool
is_join_row(Var *var, RangeTblEntry *rte, void *state)
{
	return var->varattno == InvalidAttrNumber && rte->rtekind == RTE_JOIN;
}

static bool
is_system_column(Var *var, RangeTblEntry *rte, void *state)
{
	return var->varattno < InvalidAttrNumber && rte->rtekind == RTE_RELATION;
}

bool
md_plan_has_join_row(Query *query, int *location)
{
	ReferenceContext context = {.location = -1, .wanted = is_join_row};
	bool		found = reference_walker((Node *) query, &context);

	*location = context.location;
	return found;
}

bool
md_plan_has_system_column(Query *query, int *location)
{
	ReferenceContext context = {.location = -1, .wanted = is_system_column};
	bool		found = reference_walker((Node *) query, &context);

	*location = context.location;
	return found;
}

static void
note_types(MdPlan *plan, List *types)
{
	ListCell   *lc;

	foreach(lc, types)
		plan->shown_types = md_type_shapes_collect(plan->shown_types, lfirst_oid(lc));
}

/*
 * Types of the values that go into expressions; all others are parts of these.  Rows of
 * type record are told by what they are made of.
 */
static bool
note_types_walker(Node *node, MdPlan *plan)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Query:
			return query_tree_walker((Query *) node, note_types_walker, plan, QTW_IGNORE_JOINALIASES);
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_RowExpr:
		case T_CoerceViaIO:
		case T_ConvertRowtypeExpr:
		case T_Aggref:
		case T_WindowFunc:
			note_types(plan, list_make1_oid(exprType(node)));
			break;
		case T_RangeTblFunction:
			note_types(plan, ((RangeTblFunction *) node)->funccoltypes);
			break;
		case T_TableFunc:
			note_types(plan, ((TableFunc *) node)->coltypes);
			break;
		default:
			if (md_is_json_expr(node))
				note_types(plan, list_make1_oid(exprType(node)));
			break;
	}
	return expression_tree_walker(node, note_types_walker, plan);
}

void
md_plan_note_sources(MdPlan *plan, Oid owner)
{
	SourceContext context = {plan, owner};
	int			location;
	ListCell   *lc;

	(void) collect_sources_walker((Node *) plan->query, &context);
	(void) note_volatility_walker((Node *) plan->query, &context);
	(void) note_types_walker((Node *) plan->query, plan);
	/* the row of a join is no type of its own: it shows the columns of what it joins */
	if (md_plan_has_join_row(plan->query, &location))
		foreach(lc, plan->source_ids)
			note_types(plan, list_make1_oid(get_rel_type_id(lfirst_oid(lc))));
}
