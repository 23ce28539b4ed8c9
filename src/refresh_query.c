/*
 * refresh_query.c
 *		Queries of materialized views: from text to tree and back.
 */
#include "postgres.h"

#include "access/table.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "refresh_plan.h"

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
				 errdetail("Its command is %s.", GetCommandTagName(CreateCommandTag(tree->stmt)))));
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

/*
 * Names of columns are printed without that of their table where a query reads only
 * one, and a name in ORDER BY or DISTINCT ON then means a column of the result if
 * there is one of that name.  With a second entry in the range table, they are not.
 */
static bool
qualify_order_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if ((query->sortClause != NIL || query->distinctClause != NIL) &&
			list_length(query->rtable) == 1)
		{
			RangeTblEntry *nothing = makeNode(RangeTblEntry);

			nothing->rtekind = RTE_RESULT;
			nothing->eref = makeAlias("nothing", NIL);
			query->rtable = lappend(query->rtable, nothing);
		}
		return query_tree_walker(query, qualify_order_walker, context, 0);
	}
	return expression_tree_walker(node, qualify_order_walker, context);
}

char *
md_query_text(Query *query)
{
	char	   *text;
	int			nest_level = NewGUCNestLevel();

	query = copyObject(query);
	(void) qualify_order_walker((Node *) query, NULL);

	/* names that are not in pg_catalog come out qualified */
	md_restrict_search_path();
	text = pg_get_querydef(query, false);
	AtEOXact_GUC(false, nest_level);
	return text;
}
