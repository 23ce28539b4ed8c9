/*
 * refresh_delta_outer.c
 *		Terms of the nullable side of an outer join whose condition is no equality.
 *
 *		a LEFT JOIN b ON a.x < b.y
 *	=	rows that meet, which add up over b:	a JOIN b ON a.x < b.y
 *		and rows of a that meet none:			a WHERE NOT EXISTS (b WHERE a.x < b.y)
 *
 * A row of a begins or ceases to meet none only if a row of b's change meets
 * it, so the second part is looked at for these alone, with b as it is now and
 * as it was.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

#include "refresh_delta.h"
#include "refresh_read.h"
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

/* EXISTS (a row of the query's entry that the join's condition lets meet). */
static Node *
meets_entry(Query *query, int rt_index)
{
	SubLink    *sublink = makeNode(SubLink);
	Query	   *rows = md_tree_select();
	RangeTblRef *ref = makeNode(RangeTblRef);

	ref->rtindex = 1;
	rows->rtable = list_make1(copyObject(rt_fetch(rt_index, query->rtable)));
	rows->jointree->fromlist = list_make1(ref);
	rows->jointree->quals =
		inside_mutator(find_join((Node *) query->jointree, rt_index)->quals, &rt_index);
	md_tree_add_column(rows, (Expr *) makeBoolConst(true, false), "meets");
	sublink->subLinkType = EXISTS_SUBLINK;
	sublink->subselect = (Node *) rows;
	sublink->location = -1;
	return (Node *) sublink;
}

/* Run the change, which is read several times; false if there is nothing in it. */
static bool
materialize(MdEngine *engine, MdChange *change)
{
	StringInfoData columns;
	int			width = md_tree_width(change->query) - (change->is_signed ? 1 : 0);
	char	   *name;

	initStringInfo(&columns);
	for (int i = 1; i <= width; i++)
		appendStringInfo(&columns, "%sc%d", i > 1 ? ", " : "", i);
	if (change->is_signed)
		appendStringInfoString(&columns, ", " MD_WEIGHT);
	if (md_engine_materialize(engine, psprintf("SELECT * FROM (%s) q(%s)",
											   md_delta_text(change->query), columns.data),
							  &name, NULL) == 0)
		return false;
	change->query = md_engine_analyze(engine, psprintf("SELECT %s FROM %s", columns.data, name));
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
	Query	   *changed = copyObject(linear);
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
