/*
 * refresh_plan.c
 *		From a query to a tree of nodes with strategies.
 *
 * A query is walked top down, and what is known of changes is put together
 * bottom up:
 *
 *		  Aggregate (merge)			partial results of the change are merged
 *			  |						into what is kept
 *		  Map (append)				filter and expressions see the change only
 *		   /     \
 *	  Scan (append)  static input	exactly one changing input per join tree:
 *	  rows since the				a VALUES list or an immutable function may
 *	  frontier						be joined to it, a second table may not yet
 *
 * Everything in a node but its one changing input must give the same at every
 * refresh for the same row: stable_functions.c decides on expressions.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "refresh_plan.h"
#include "stable_functions.h"
#include "view_catalog.h"

typedef struct PlanContext
{
	MdPlan	   *plan;
	Oid			owner;
} PlanContext;

static MdNode *plan_query(Query *query, PlanContext *context, bool is_top);

const char *
md_strategy_name(MdStrategy strategy)
{
	static const char *const names[] = {
		[MD_STRATEGY_APPEND] = "append",
		[MD_STRATEGY_MERGE] = "merge",
		[MD_STRATEGY_LATEST] = "latest",
		[MD_STRATEGY_FULL] = "full",
	};

	return names[strategy];
}

/* Positions of errors are those of the text in hand, not of the statement. */
static void
move_position(void *text)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(text);
	}
}

List *
md_query_parse(const char *text, RawParseMode mode)
{
	ErrorContextCallback callback = {
		.callback = move_position,
		.arg = unconstify(char *, text),
		.previous = error_context_stack
	};
	List	   *trees;

	error_context_stack = &callback;
	trees = raw_parser(text, mode);
	error_context_stack = callback.previous;
	return trees;
}

/* Analyze one raw statement of the text. */
static Query *
analyze(RawStmt *tree, const char *text)
{
	ErrorContextCallback callback = {
		.callback = move_position,
		.arg = unconstify(char *, text),
		.previous = error_context_stack
	};
	Query	   *query;

	error_context_stack = &callback;
	query = parse_analyze_fixedparams(tree, text, NULL, 0, NULL);
	error_context_stack = callback.previous;
	return query;
}

Query *
md_query_analyze(const char *text)
{
	List	   *trees = md_query_parse(text, RAW_PARSE_DEFAULT);
	RawStmt    *tree;

	if (list_length(trees) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a materialized view must be one SELECT or VALUES statement")));
	tree = linitial_node(RawStmt, trees);
	if (!IsA(tree->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a materialized view must be one SELECT or VALUES statement"),
				 errdetail("It is a %s statement.", GetCommandTagName(CreateCommandTag(tree->stmt)))));
	if (((SelectStmt *) tree->stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query of a materialized view cannot have INTO")));
	return analyze(tree, text);
}

Query *
md_query_of_definition(Oid definition)
{
	Relation	rel = table_open(definition, AccessShareLock);
	Query	   *query = copyObject(get_view_query(rel));

	table_close(rel, NoLock);
	return query;
}

void
md_query_check(Query *query, const char *text)
{
	ListCell   *lc;
	int			columns = 0;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a materialized view must be one SELECT or VALUES statement")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query of a materialized view cannot change data in WITH")));
	if (query->rowMarks != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query of a materialized view cannot lock rows")));
	if (isQueryUsingTempRelation(query))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query of a materialized view cannot read temporary tables")));
	foreach(lc, query->targetList)
		columns += !lfirst_node(TargetEntry, lc)->resjunk;
	if (columns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("the query of a materialized view must have a column")));
}

char *
md_query_text(Query *query)
{
	char	   *text;
	int			nest_level = NewGUCNestLevel();

	/* names that are not in pg_catalog come out qualified */
	md_restrict_search_path();
	text = pg_get_querydef(copyObject(query), false);
	AtEOXact_GUC(false, nest_level);
	return text;
}

/* ---------------------------------------------------------------------- */

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
	if (node->reason == NULL)
	{
		node->reason = reason;
		node->location = location;
	}
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

static char *
relation_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* Rules on an expression of the query for it to see the change only. */
static void
check_expression(MdNode *node, Node *expr, PlanContext *context)
{
	MdUnstable	found;

	if (!md_unstable_find(expr, &found))
		return;
	if (found.is_time)
		context->plan->time_dependent = true;
	else
		context->plan->repeatable = false;
	make_full(node, psprintf("%s: %s", found.construct, found.why), found.location);
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

/* A scan of a relation, by how the relation changes. */
static MdNode *
plan_scan(RangeTblEntry *rte, PlanContext *context)
{
	MdReadable	readable;
	MdNode	   *node;

	check_row_security(rte->relid, context->owner);
	context->plan->source_ids = list_append_unique_oid(context->plan->source_ids, rte->relid);
	md_read_describe(rte->relid, context->owner, &readable);
	node = make_node(MD_NODE_SCAN,
					 psprintf("Scan %s (%s)", relation_name(rte->relid), readable.kind_name));
	node->changes = readable.changes;
	if (readable.changes != MD_CHANGE_APPEND)
	{
		node->strategy = MD_STRATEGY_FULL;
		node->reason = psprintf("%s: %s", relation_name(rte->relid), readable.why ? readable.why :
								"rows of it change, which is not incremental in this version");
	}
	else if (rte->tablesample != NULL)
		make_full(node, "TABLESAMPLE picks other rows each time",
				  exprLocation((Node *) rte->tablesample));
	return node;
}

/* May a view's text stand in for the view, with the same privileges? */
static bool
may_inline(Oid view_id, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view_id));
	bool		may;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", view_id);
	may = ((Form_pg_class) GETSTRUCT(tuple))->relowner == owner;
	ReleaseSysCache(tuple);
	return may || superuser_arg(owner);
}

/* Replace a plain view by its query, in place; false if that is not allowed. */
static bool
inline_view(Query *query, int rt_index, PlanContext *context)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);
	Relation	view;
	Query	   *subquery;

	if (!may_inline(rte->relid, context->owner))
		return false;
	view = table_open(rte->relid, AccessShareLock);
	subquery = copyObject(get_view_query(view));
	table_close(view, NoLock);
	context->plan->inlined_ids = list_append_unique_oid(context->plan->inlined_ids, rte->relid);
	md_read_replace_rte(query, rt_index, subquery);
	return true;
}

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

/* Subqueries in expressions may hold unstable functions of their own. */
static bool
check_volatility_walker(Node *node, PlanContext *context)
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
			note_volatility((Node *) rte->values_lists, context->plan);
			note_volatility((Node *) rte->tablesample, context->plan);
		}
		return query_tree_walker(query, check_volatility_walker, context, 0);
	}
	return expression_tree_walker(node, check_volatility_walker, context);
}

/* Does the query read any relation? */
static bool
reads_relation_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_RELATION ||
			((RangeTblEntry *) node)->rtekind == RTE_CTE;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_relation_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_relation_walker, context);
}

/* An input that is the same at every refresh, if its expressions are. */
static bool
is_static_input(RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
		case RTE_FUNCTION:
		case RTE_TABLEFUNC:
		case RTE_VALUES:
		case RTE_RESULT:
			return true;
		case RTE_SUBQUERY:
			return !reads_relation_walker((Node *) rte->subquery, NULL);
		default:
			return false;
	}
}

/* Check the expressions of a static input. */
static void
check_static_input(MdNode *node, RangeTblEntry *rte, PlanContext *context)
{
	if (rte->rtekind == RTE_FUNCTION)
		check_expression(node, (Node *) rte->functions, context);
	else if (rte->rtekind == RTE_TABLEFUNC)
		check_expression(node, (Node *) rte->tablefunc, context);
	else if (rte->rtekind == RTE_VALUES)
		check_expression(node, (Node *) rte->values_lists, context);
	else if (rte->rtekind == RTE_SUBQUERY)
	{
		MdPlan		inner = {.repeatable = true};
		PlanContext inner_context = {&inner, context->owner};

		(void) check_volatility_walker((Node *) rte->subquery, &inner_context);
		if (inner.time_dependent || !inner.repeatable)
			make_full(node, psprintf("subquery \"%s\" gives other rows at each refresh",
									 rte->eref->aliasname), -1);
	}
}

/* One range table entry of a FROM list: a child, or a static input. */
static void
plan_from_rte(MdNode *node, Query *query, int rt_index, PlanContext *context)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);

	if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW &&
		inline_view(query, rt_index, context))
		rte = rt_fetch(rt_index, query->rtable);

	if (rte->rtekind == RTE_RELATION)
		node->children = lappend(node->children, plan_scan(rte, context));
	else if (is_static_input(rte))
		check_static_input(node, rte, context);
	else if (rte->rtekind == RTE_SUBQUERY)
		node->children = lappend(node->children,
								 plan_query(rte->subquery, context, false));
	else
		make_full(node, psprintf("WITH query \"%s\" is recursive or volatile", rte->eref->aliasname),
				  -1);
}

/* Does the subtree of FROM read anything that changes? */
static bool
has_changing_input(Node *from, Query *query)
{
	if (IsA(from, RangeTblRef))
		return !is_static_input(rt_fetch(((RangeTblRef *) from)->rtindex, query->rtable));
	if (IsA(from, JoinExpr))
		return has_changing_input(((JoinExpr *) from)->larg, query) ||
			has_changing_input(((JoinExpr *) from)->rarg, query);
	return true;
}

/* Walk FROM: children are what changes. */
static void
plan_from(MdNode *node, Node *from, Query *query, PlanContext *context)
{
	if (IsA(from, RangeTblRef))
		plan_from_rte(node, query, ((RangeTblRef *) from)->rtindex, context);
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;

		/* rows that found no partner would have to be taken back later */
		if ((join->jointype != JOIN_INNER && has_changing_input(join->rarg, query) &&
			 join->jointype != JOIN_RIGHT) ||
			(join->jointype != JOIN_INNER && has_changing_input(join->larg, query) &&
			 join->jointype != JOIN_LEFT))
			make_full(node, "an outer join can take rows back", -1);
		plan_from(node, join->larg, query, context);
		plan_from(node, join->rarg, query, context);
		check_expression(node, join->quals, context);
	}
	else
		make_full(node, "a construct in FROM is not incremental in this version", -1);
}

/* Leaves of a tree of UNION ALL; others are a reason. */
static void
plan_set_operation(MdNode *node, Node *tree, Query *query, PlanContext *context)
{
	if (IsA(tree, SetOperationStmt))
	{
		SetOperationStmt *op = (SetOperationStmt *) tree;

		if (op->op != SETOP_UNION || !op->all)
			make_full(node, psprintf("%s is not incremental in this version",
									 op->op == SETOP_UNION ? "UNION without ALL" :
									 op->op == SETOP_INTERSECT ? "INTERSECT" : "EXCEPT"), -1);
		plan_set_operation(node, op->larg, query, context);
		plan_set_operation(node, op->rarg, query, context);
	}
	else
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) tree)->rtindex, query->rtable);

		node->children = lappend(node->children, plan_query(rte->subquery, context, false));
	}
}

/* Relations inside of subqueries of expressions are sources too. */
static bool
collect_sources_walker(Node *node, PlanContext *context)
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

/* Constructs on top of FROM that make a SELECT more than a map. */
static void
check_clauses(MdNode *node, Query *query)
{
	if (query->cteList != NIL)
		make_full(node, "a WITH query is recursive or volatile",
				  linitial_node(CommonTableExpr, query->cteList)->location);
	if (query->hasSubLinks)
		make_full(node, "a subquery in an expression is not incremental in this version", -1);
	if (query->hasWindowFuncs)
		make_full(node, "window functions are not incremental in this version", -1);
	if (query->limitCount != NULL || query->limitOffset != NULL)
		make_full(node, "LIMIT or OFFSET is not incremental in this version",
				  exprLocation(query->limitCount ? query->limitCount : query->limitOffset));
	if (query->groupingSets != NIL)
		make_full(node, "GROUPING SETS are not incremental in this version", exprLocation((Node *) query->groupingSets));
}

static bool
is_aggregate_query(Query *query)
{
	return query->hasAggs || query->groupClause != NIL || query->distinctClause != NIL ||
		query->havingQual != NULL;
}

/* Put an aggregate above the map of the query's FROM and WHERE. */
static MdNode *
plan_aggregate(MdNode *input, Query *query, PlanContext *context, bool is_top)
{
	MdNode	   *node = make_node(MD_NODE_AGGREGATE, "Aggregate");
	char	   *reason = NULL;
	int			location = -1;
	MdMerge    *merge;

	node->children = list_make1(input);
	merge = md_merge_make(query, input->changes == MD_CHANGE_UPSERT, &reason, &location);
	check_expression(node, (Node *) query->targetList, context);
	check_expression(node, query->havingQual, context);
	if (merge == NULL)
		make_full(node, reason, location);
	else if (!is_top)
		make_full(node, "an aggregate below another step is not incremental in this version",
				  -1);
	else
		context->plan->merge = merge;
	inherit_from_children(node);
	if (node->strategy != MD_STRATEGY_FULL)
	{
		node->strategy = MD_STRATEGY_MERGE;
		node->changes = MD_CHANGE_UPSERT;
		node->label = merge->key_count == 0 ? pstrdup("Aggregate all rows") :
			psprintf("Aggregate by %d key%s", merge->key_count, merge->key_count == 1 ? "" : "s");
		node->state = merge->value_sets != NIL ?
			(merge->needs_state ? "partial aggregates and distinct values per group" : "distinct values per group") :
			merge->needs_state ? "partial aggregates per group" : NULL;
	}
	return node;
}

/* Put DISTINCT ON above the map of the query's FROM and WHERE. */
static MdNode *
plan_latest(MdNode *input, Query *query, PlanContext *context, bool is_top)
{
	MdNode	   *node = make_node(MD_NODE_LATEST, "First row of each key");
	char	   *reason = NULL;
	int			location = -1;
	MdLatest   *latest = md_latest_make(query, input->changes == MD_CHANGE_UPSERT, &reason, &location);

	node->children = list_make1(input);
	check_expression(node, (Node *) query->targetList, context);
	if (latest == NULL)
		make_full(node, reason, location);
	else if (!is_top)
		make_full(node, "DISTINCT ON below another step is not incremental in this version", -1);
	else
		context->plan->latest = latest;
	inherit_from_children(node);
	if (node->strategy != MD_STRATEGY_FULL)
	{
		node->strategy = MD_STRATEGY_LATEST;
		node->changes = MD_CHANGE_UPSERT;
		node->label = psprintf("First row by %d key%s", list_length(latest->keys),
							   list_length(latest->keys) == 1 ? "" : "s");
		node->state = list_length(latest->inputs) > latest->result_count ?
			"order of the first rows" : NULL;
	}
	return node;
}

typedef struct InlineCte
{
	const char *name;
	Query	   *query;
	int			levels_up;		/* of WITH, from the query that is walked */
} InlineCte;

/* Put a WITH query in the place of each reference to it. */
static bool
inline_cte_walker(Node *node, InlineCte *cte)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		int			rt_count = list_length(query->rtable);

		cte->levels_up++;
		(void) query_tree_walker(query, inline_cte_walker, cte, 0);
		for (int i = 1; i <= rt_count; i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);
			Query	   *copy;

			if (rte->rtekind != RTE_CTE || rte->ctelevelsup != cte->levels_up ||
				strcmp(rte->ctename, cte->name) != 0)
				continue;
			copy = copyObject(cte->query);
			if (cte->levels_up > 0)
				IncrementVarSublevelsUp((Node *) copy, cte->levels_up, 1);
			md_read_replace_rte(query, i, copy);
		}
		cte->levels_up--;
		return false;
	}
	return expression_tree_walker(node, inline_cte_walker, cte);
}

/* WITH is a way to write subqueries, unless it recurses or is volatile. */
static void
inline_ctes(Query *query)
{
	while (query->cteList != NIL)
	{
		CommonTableExpr *expr = linitial_node(CommonTableExpr, query->cteList);
		InlineCte	cte = {expr->ctename, castNode(Query, expr->ctequery), -1};

		if (expr->cterecursive || cte.query->commandType != CMD_SELECT ||
			contain_volatile_functions((Node *) cte.query))
			break;
		query->cteList = list_delete_first(query->cteList);
		(void) inline_cte_walker((Node *) query, &cte);
	}
}

/* Plan one SELECT. */
static MdNode *
plan_query(Query *query, PlanContext *context, bool is_top)
{
	MdNode	   *node;
	ListCell   *lc;

	md_flatten_groups(query);
	inline_ctes(query);
	if (is_top)
	{
		Query	   *rewritten = md_latest_rewrite(query);

		if (rewritten != NULL)
			*query = *rewritten;
	}
	if (query->setOperations != NULL)
	{
		node = make_node(MD_NODE_UNION_ALL, "Union all");
		plan_set_operation(node, query->setOperations, query, context);
		check_clauses(node, query);
		inherit_from_children(node);
		foreach(lc, node->children)
			if (((MdNode *) lfirst(lc))->children == NIL)
				make_full(node, "a branch of UNION ALL reads no table", -1);
		return node;
	}

	node = make_node(MD_NODE_MAP, "Filter and project");
	foreach(lc, query->jointree->fromlist)
		plan_from(node, lfirst(lc), query, context);
	if (list_length(node->children) > 1)
		make_full(node, "a join of tables is not incremental in this version", -1);
	check_clauses(node, query);
	check_expression(node, query->jointree->quals, context);
	if (query->hasDistinctOn)
	{
		inherit_from_children(node);
		node = plan_latest(node, query, context, is_top);
	}
	else if (is_aggregate_query(query))
	{
		inherit_from_children(node);
		node = plan_aggregate(node, query, context, is_top);
	}
	else
	{
		check_expression(node, (Node *) query->targetList, context);
		if (node->children == NIL)
			make_full(node, "the query reads no table", -1);
		inherit_from_children(node);
	}
	return node;
}

MdPlan *
md_plan_make(Query *query, Oid owner)
{
	MdPlan	   *plan = palloc0(sizeof(MdPlan));
	PlanContext context = {plan, owner};
	MdNode	   *reason;

	plan->query = copyObject(query);
	plan->location = -1;
	plan->repeatable = true;
	plan->root = plan_query(plan->query, &context, true);
	plan->strategy = plan->root->strategy;
	plan->changes = plan->root->changes;

	/* what the walk did not reach, because it is below a step that is full */
	(void) collect_sources_walker((Node *) plan->query, &context);
	(void) check_volatility_walker((Node *) plan->query, &context);
	reason = find_reason(plan->root);
	if (plan->strategy == MD_STRATEGY_FULL)
	{
		Assert(reason != NULL);
		plan->reason = reason->reason;
		plan->location = reason->location;
		plan->merge = NULL;
		plan->latest = NULL;
	}
	return plan;
}
