/*
 * refresh_delta_unkeyed.c
 *		Terms of inputs that meet the others by conditions that are no equalities.
 *
 * The nullable side of an outer join:
 *
 *		a LEFT JOIN b ON a.x < b.y
 *	=	rows that meet, which add up over b:	a JOIN b ON a.x < b.y
 *		and rows of a that meet none:			a WHERE NOT EXISTS (b WHERE a.x < b.y)
 *
 * A row of a begins or ceases to meet none only if a row of b's change meets
 * it, so the second part is looked at for these alone, with b as it is now and
 * as it was.  Likewise the rows whose subquery can have another value are those
 * to which the conditions of the subquery let a row of its change belong.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

#include "refresh_delta.h"
#include "refresh_read.h"
#include "refresh_target.h"
#include "refresh_term.h"
#include "refresh_tree.h"

/* The join whose nullable side is the entry. */
static JoinExpr *
find_join(Node *from, int rt_index)
{
	JoinExpr   *join;
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
		{
			join = find_join(lfirst(lc), rt_index);
			if (join != NULL)
				return join;
		}
		return NULL;
	}
	if (!IsA(from, JoinExpr))
		return NULL;
	join = (JoinExpr *) from;
	if (IsA(join->rarg, RangeTblRef) && ((RangeTblRef *) join->rarg)->rtindex == rt_index)
		return join;
	join = find_join(((JoinExpr *) from)->larg, rt_index);
	return join ? join : find_join(((JoinExpr *) from)->rarg, rt_index);
}

/* The condition from inside of a subquery over the entry; there is none in it. */
static Node *
inside_mutator(Node *node, int *rt_index)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);

		if ((int) var->varno == *rt_index)
			var->varno = 1;
		else
			var->varlevelsup = 1;
		/* by which it is printed */
		var->varnosyn = var->varno;
		var->varattnosyn = var->varattno;
		return (Node *) var;
	}
	return expression_tree_mutator(node, inside_mutator, rt_index);
}

static Node *
make_exists(Query *rows)
{
	SubLink    *sublink = makeNode(SubLink);

	md_tree_add_column(rows, (Expr *) makeBoolConst(true, false), "meets");
	sublink->subLinkType = EXISTS_SUBLINK;
	sublink->subselect = (Node *) rows;
	sublink->location = -1;
	return (Node *) sublink;
}

/* EXISTS (a row of the query's entry that the join's condition lets meet). */
static Node *
meets_entry(Query *query, int rt_index)
{
	Query	   *rows = md_tree_select();
	RangeTblRef *ref = makeNode(RangeTblRef);

	ref->rtindex = 1;
	rows->rtable = list_make1(copyObject(rt_fetch(rt_index, query->rtable)));
	rows->jointree->fromlist = list_make1(ref);
	rows->jointree->quals =
		inside_mutator(find_join((Node *) query->jointree, rt_index)->quals, &rt_index);
	return make_exists(rows);
}

/* Run the change, which is read several times; false if there is nothing in it. */
static bool
materialize(MdEngine *engine, MdChange *change)
{
	int			width = md_tree_width(change->query) - (change->is_signed ? 1 : 0);
	char	   *columns = psprintf("%s%s", md_tree_numbered_names(width), change->is_signed ? ", " MD_WEIGHT : "");
	char	   *name;

	if (md_engine_materialize(engine, psprintf("SELECT * FROM (%s) q(%s)",
											   md_delta_text(change->query), columns),
							  &name, NULL) == 0)
		return false;
	change->query = md_engine_analyze(engine, psprintf("SELECT %s FROM %s", columns, name));
	return true;
}

/* Rows that meet rows of the change. */
static MdTerm *
meeting_term(MdEngine *engine, Query *linear, List *leaves, int which, MdChange *change)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);

	md_read_replace_rte(term->query, leaf->rt_index, copyObject(change->query));
	find_join((Node *) term->query->jointree, leaf->rt_index)->jointype = JOIN_INNER;
	if (change->is_signed)
		term->weights = lappend(term->weights, md_term_entry_weight(term->query, leaf->rt_index));
	md_keys_narrow(engine, term->query, leaf->rt_index);
	return term;
}

/* Rows that meet rows of the change, but none of the entry. */
static MdTerm *
lonely_term(MdEngine *engine, Query *linear, List *leaves, int which, MdChange *change, bool old)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);
	Query	   *changed = copyObject(term->query);
	Node	   *meets;

	md_read_replace_rte(changed, leaf->rt_index, copyObject(change->query));
	md_term_set_leaf(engine, term, leaf, old);
	meets = meets_entry(term->query, leaf->rt_index);
	md_term_empty_entry(term->query, leaf->rt_index);
	md_tree_add_condition(term->query, meets_entry(changed, leaf->rt_index));
	md_tree_add_condition(term->query, (Node *) makeBoolExpr(NOT_EXPR, list_make1(meets), -1));
	term->sign = old ? -1 : 1;
	return term;
}

List *
md_term_unkeyed(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdChange	change;

	md_term_entry_change(engine, linear, list_nth(leaves, which), &change);
	if (change.query == NULL || engine->why_full != NULL || !materialize(engine, &change))
		return NIL;
	return list_make3(meeting_term(engine, linear, leaves, which, &change),
					  lonely_term(engine, linear, leaves, which, &change, false),
					  lonely_term(engine, linear, leaves, which, &change, true));
}

/* ----------------------------------------------------------------------
 * Subqueries
 * ---------------------------------------------------------------------- */

typedef struct DependsContext
{
	Query	   *rows;			/* over the change */
	MdLeaf	   *leaf;
} DependsContext;

/* A condition of the subquery, over its change and the query around. */
static Node *
depends_mutator(Node *node, DependsContext *context)
{
	Var		   *var;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, depends_mutator, context);
	var = copyObject((Var *) node);
	if (var->varlevelsup > 0)
	{
		var->varlevelsup = 1;
		return (Node *) var;
	}
	for (int i = 0; i < list_length(context->leaf->columns); i++)
		if (equal(list_nth(context->leaf->columns, i), var))
			return (Node *) md_tree_column(context->rows, 1, i + 1);
	elog(ERROR, "a column of a subquery is missing in its change");
}

/* EXISTS (a row of the subquery's change that belongs to a row of the query). */
static Node *
depends_on(MdLeaf *leaf, const char *name, TupleDesc tupdesc)
{
	DependsContext context = {md_tree_select(), leaf};

	(void) md_tree_add_registered(context.rows, name, tupdesc);
	context.rows->jointree->quals = (Node *)
		make_ands_explicit((List *) depends_mutator((Node *) md_leaf_outer_terms(leaf->at), &context));
	return make_exists(context.rows);
}

/* Can the rows be told apart, so that each need be there but once? */
static bool
is_comparable(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!md_target_is_comparable(exprType((Node *) lfirst_node(TargetEntry, lc)->expr)))
			return false;
	return true;
}

List *
md_term_unequal(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	List	   *terms = NIL;
	MdChange	change;
	Query	   *rows;
	char	   *name;
	TupleDesc	tupdesc;

	md_delta_linear(engine, md_leaf_inner_query(leaf), &change);
	if (change.query == NULL || engine->why_full != NULL)
		return NIL;
	rows = md_tree_wrap(change.query, "c");
	if (change.is_signed)
		rows->targetList = list_delete_last(rows->targetList);
	if (md_engine_materialize(engine, psprintf("SELECT %s* FROM (%s) q",
											   is_comparable(rows) ? "DISTINCT " : "",
											   md_delta_text(rows)),
							  &name, &tupdesc) == 0)
		return NIL;
	for (int old = 0; old < 2; old++)
	{
		MdTerm	   *term = md_term_begin(engine, linear, leaves, which);

		md_term_set_leaf(engine, term, leaf, old);
		term->sign = old ? -1 : 1;
		md_tree_add_condition(term->query, depends_on(leaf, name, tupdesc));
		terms = lappend(terms, term);
	}
	return terms;
}
