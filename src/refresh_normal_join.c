/*
 * refresh_normal_join.c
 *		FROM in the shape that the engine works on.
 *
 *		a JOIN b ON p, x LEFT JOIN (c JOIN d ON q) ON r
 *	->	a, b, x LEFT JOIN (SELECT ... FROM c, d WHERE q) ON r, WHERE p
 *
 * The nullable side of an outer join is a single input: what it joins becomes
 * a subquery, in the place that the join has in the range table.
 *
 * A subquery's row as a whole has the names of its columns, as to_jsonb() shows,
 * and no ROW() that is put in its place has them.  So it becomes a column:
 *
 *		SELECT to_jsonb(q) FROM (SELECT ...) q
 *	->	SELECT to_jsonb(q.row) FROM (SELECT s.a, s.b, r AS row FROM (SELECT ...) s,
 *									 LATERAL (SELECT s.a AS a, s.b AS b) r) q
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "refresh_normal.h"
#include "refresh_tree.h"

#define ROW_COLUMN "?row?"

typedef struct MoveContext
{
	Query	   *inner;
	Bitmapset  *moved;			/* range table indexes that are in it now */
	int			rt_index;		/* of it */
	int			level;
} MoveContext;

/* References to what has moved become references to columns of the subquery. */
static Node *
move_mutator(Node *node, MoveContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Node	   *result;

		context->level++;
		result = (Node *) query_tree_mutator((Query *) node, move_mutator, context,
											 QTW_IGNORE_JOINALIASES);
		context->level--;
		return result;
	}
	if (IsA(node, Var) && (int) ((Var *) node)->varlevelsup == context->level &&
		bms_is_member(((Var *) node)->varno, context->moved))
	{
		Var		   *inside = copyObject((Var *) node);
		int			number = 0;
		ListCell   *lc;

		inside->varlevelsup = 0;
		inside->location = -1;
		foreach(lc, context->inner->targetList)
		{
			number++;
			if (equal(lfirst_node(TargetEntry, lc)->expr, inside))
				break;
		}
		if (lc == NULL)
			md_tree_add_column(context->inner, (Expr *) inside, psprintf("c%d", ++number));
		return (Node *) makeVar(context->rt_index, number, inside->vartype, inside->vartypmod,
								inside->varcollid, context->level);
	}
	return expression_tree_mutator(node, move_mutator, context);
}

/* Entries of the range table that are not in `kept` become nothing. */
static void
clear_entries(Query *query, Bitmapset *kept)
{
	int			index = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
		if (!bms_is_member(++index, kept))
			md_tree_clear_entry(lfirst_node(RangeTblEntry, lc));
}

/* Range table indexes of joins, too. */
static Bitmapset *
all_relids(Node *from)
{
	if (!IsA(from, JoinExpr))
		return md_tree_relids(from);
	return bms_add_member(bms_union(all_relids(((JoinExpr *) from)->larg),
									all_relids(((JoinExpr *) from)->rarg)),
						  ((JoinExpr *) from)->rtindex);
}

/* Does what is in the join refer to something beside it? */
static bool
has_lateral_reference(Query *query, JoinExpr *join, Bitmapset *relids)
{
	int			index = -1;

	if (!bms_is_subset(md_tree_used((Node *) join), relids))
		return true;
	while ((index = bms_next_member(relids, index)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(index, query->rtable);
		Bitmapset  *used = md_tree_used((Node *) rte->functions);

		/* a subquery's own level is one further in: wrapped to be counted so */
		if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			return true;
		if (!bms_is_subset(used, relids))
			return true;
	}
	return false;
}

/* Make a join below an outer join a subquery; what stands in its place. */
static Node *
move_join(Query *query, JoinExpr *join)
{
	MoveContext context = {0};
	Bitmapset  *all = all_relids((Node *) join);
	RangeTblRef *ref = makeNode(RangeTblRef);
	RangeTblEntry *rte;
	Query	   *outer;

	context.moved = md_tree_relids((Node *) join);
	context.inner = md_tree_select();
	context.rt_index = join->rtindex;
	context.inner->rtable = copyObject(query->rtable);
	context.inner->jointree = makeFromExpr(list_make1(copyObject(join)), NULL);
	context.inner->hasSubLinks = query->hasSubLinks;
	clear_entries(context.inner, all);
	IncrementVarSublevelsUp((Node *) context.inner, 1, 1);

	/* now the query without it, in which the join's entry is the subquery */
	for (int index = -1; (index = bms_next_member(all, index)) >= 0;)
		md_tree_clear_entry(rt_fetch(index, query->rtable));
	ref->rtindex = join->rtindex;
	outer = (Query *) query_tree_mutator(query, move_mutator, &context, QTW_IGNORE_JOINALIASES);
	*query = *outer;
	if (context.inner->targetList == NIL)
		md_tree_add_column(context.inner, (Expr *) makeBoolConst(true, false), "c1");
	rte = rt_fetch(join->rtindex, query->rtable);
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = context.inner;
	rte->alias = makeAlias(psprintf("j%d", join->rtindex), NIL);
	rte->eref = makeAlias(rte->alias->aliasname, NIL);
	for (int i = 1; i <= md_tree_width(context.inner); i++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("c%d", i)));
	rte->inFromCl = true;
	return (Node *) ref;
}

/* ----------------------------------------------------------------------
 * Rows of subqueries
 * ---------------------------------------------------------------------- */

typedef struct RowContext
{
	int			rt_index;
	int			column;			/* what a reference to the whole row becomes; 0: just look */
	int			level;
	bool		found;
} RowContext;

static Node *
row_mutator(Node *node, RowContext *context)
{
	Var		   *var = (Var *) node;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Node	   *result;

		context->level++;
		result = (Node *) query_tree_mutator((Query *) node, row_mutator, context,
											 QTW_IGNORE_JOINALIASES);
		context->level--;
		return result;
	}
	if (IsA(node, Var) && (int) var->varlevelsup == context->level &&
		(int) var->varno == context->rt_index && var->varattno == InvalidAttrNumber)
	{
		context->found = true;
		if (context->column > 0)
			return (Node *) makeVar(context->rt_index, context->column, RECORDOID, -1, InvalidOid,
									context->level);
	}
	return expression_tree_mutator(node, row_mutator, context);
}

/* The subquery with its row as one more column. */
static Query *
with_row(RangeTblEntry *rte)
{
	Query	   *query = md_tree_select();
	Query	   *names = md_tree_select();
	int			width = md_tree_width(rte->subquery);
	int			rows;
	int			row;

	IncrementVarSublevelsUp((Node *) rte->subquery, 1, 1);
	rows = md_tree_add_subquery(query, rte->subquery, "s");
	for (int i = 1; i <= width; i++)
	{
		char	   *name = strVal(list_nth(rte->eref->colnames, i - 1));
		Var		   *outside = md_tree_column(query, rows, i);

		md_tree_add_column(query, (Expr *) copyObject(outside), name);
		outside->varlevelsup = 1;
		md_tree_add_column(names, (Expr *) outside, name);
	}
	row = md_tree_add_subquery(query, names, "r");
	rt_fetch(row, query->rtable)->lateral = true;
	md_tree_add_column(query, (Expr *) makeWholeRowVar(rt_fetch(row, query->rtable), row, 0, false),
					   ROW_COLUMN);
	return query;
}

void
md_normal_name_rows(Query *query)
{
	Bitmapset  *entries = md_tree_relids((Node *) query->jointree);

	for (int index = -1; (index = bms_next_member(entries, index)) >= 0;)
	{
		RangeTblEntry *rte = rt_fetch(index, query->rtable);
		RowContext	context = {.rt_index = index};

		if (rte->rtekind != RTE_SUBQUERY || !md_tree_reads_anything(rte->subquery))
			continue;
		(void) query_tree_mutator(query, row_mutator, &context, QTW_IGNORE_JOINALIASES);
		if (!context.found)
			continue;
		rte->subquery = with_row(rte);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(ROW_COLUMN));
		context.column = md_tree_width(rte->subquery);
		*query = *query_tree_mutator(query, row_mutator, &context, QTW_IGNORE_JOINALIASES);
	}
}

/* ---------------------------------------------------------------------- */

/* The first join that stands where an outer join may make it NULL. */
static Node **
find_nullable_join(Query *query, Node **from, bool nullable)
{
	JoinExpr   *join;
	Node	  **found;

	if (!IsA(*from, JoinExpr))
		return NULL;
	join = (JoinExpr *) *from;
	if (nullable && !has_lateral_reference(query, join, md_tree_relids((Node *) join)))
		return from;
	found = find_nullable_join(query, &join->larg, join->jointype == JOIN_FULL);
	if (found == NULL)
		found = find_nullable_join(query, &join->rarg, join->jointype != JOIN_INNER);
	return found;
}

void
md_normal_move_joins(Query *query)
{
	for (int i = 0; i < list_length(query->jointree->fromlist); i++)
	{
		for (;;)
		{
			Node	  **cell = (Node **) &lfirst(list_nth_cell(query->jointree->fromlist, i));
			Node	  **found = find_nullable_join(query, cell, false);
			JoinExpr   *join;
			RangeTblRef *placeholder = makeNode(RangeTblRef);

			if (found == NULL)
				break;
			join = castNode(JoinExpr, *found);
			placeholder->rtindex = join->rtindex;
			*found = (Node *) placeholder;
			(void) move_join(query, join);
		}
	}
}

/* Inner joins that no outer join contains become a list, in their order. */
static void
list_inner_joins(Query *query, Node *from, List **list)
{
	JoinExpr   *join = (JoinExpr *) from;

	if (!IsA(from, JoinExpr) || join->jointype != JOIN_INNER)
	{
		*list = lappend(*list, from);
		return;
	}
	list_inner_joins(query, join->larg, list);
	list_inner_joins(query, join->rarg, list);
	md_tree_add_condition(query, join->quals);
	md_tree_clear_entry(rt_fetch(join->rtindex, query->rtable));
}

void
md_normal_list_joins(Query *query)
{
	List	   *list = NIL;
	ListCell   *lc;

	foreach(lc, query->jointree->fromlist)
		list_inner_joins(query, lfirst(lc), &list);
	query->jointree->fromlist = list;
}
