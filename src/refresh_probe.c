/*
 * refresh_probe.c
 *		Trying whether a part of a query can be computed with some rows.
 *
 *	SELECT day, sum(x::int) FROM (SELECT ... FROM bronze WHERE ...) s GROUP BY day
 *	->	SELECT day, x::int FROM (SELECT ... FROM <rows> WHERE ...) s
 *
 * A probe is a block (refresh_normal.h) before what it does with the rows of its
 * FROM and WHERE: its keys, the arguments of its aggregates, and so on.  Each of
 * its rows comes of one row of the relation, so that it fails for a set of rows
 * if and only if it fails for one of them.  That is not so where a relation is on
 * the nullable side of a join or in a subquery of an expression: such places are
 * no probes.  Nor is what an aggregate makes of its arguments.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_normal.h"
#include "refresh_probe.h"
#include "refresh_tree.h"

/* ----------------------------------------------------------------------
 * Places
 * ---------------------------------------------------------------------- */

/* Entries of FROM of which each row gives its own rows of the query. */
static void
linear_entries(Node *from, List **entries)
{
	if (IsA(from, RangeTblRef))
		*entries = lappend_int(*entries, ((RangeTblRef *) from)->rtindex);
	else if (IsA(from, FromExpr))
	{
		ListCell   *lc;

		foreach(lc, ((FromExpr *) from)->fromlist)
			linear_entries(lfirst(lc), entries);
	}
	else
	{
		JoinExpr   *join = castNode(JoinExpr, from);

		if (join->jointype == JOIN_INNER || join->jointype == JOIN_LEFT)
			linear_entries(join->larg, entries);
		if (join->jointype == JOIN_INNER || join->jointype == JOIN_RIGHT)
			linear_entries(join->rarg, entries);
	}
}

/* The walk over the places of a block, always in the same order. */
typedef struct Places
{
	List	   *relids;
	int			count;			/* passed so far */
	/* finding */
	List	  **probes;			/* NULL: marking */
	Query	   *block;
	int			entry;			/* of the block that the walk is in */
	bool		is_joined;
	/* marking */
	int			wanted;
} Places;

static bool walk_places(Query *query, Places *places, bool at_top);

/* Rows of no other branch of a UNION ALL. */
static void
empty_query(Query *query)
{
	if (query->setOperations != NULL)
	{
		ListCell   *lc;

		foreach(lc, md_query_branches(query))
			empty_query(lfirst_node(RangeTblEntry, lc)->subquery);
	}
	else
		md_tree_add_condition(query, (Node *) makeBoolConst(false, false));
}

/* One entry; true if the wanted place is in it. */
static bool
walk_entry(RangeTblEntry *rte, Places *places)
{
	if (rte->rtekind == RTE_SUBQUERY)
	{
		MdBlockKind kind = md_block_kind(rte->subquery);

		return (kind == MD_BLOCK_LINEAR || kind == MD_BLOCK_UNION_ALL) &&
			walk_places(rte->subquery, places, false);
	}
	if (rte->rtekind != RTE_RELATION || !rte->inFromCl || rte->tablesample != NULL ||
		!list_member_oid(places->relids, rte->relid))
		return false;
	if (places->probes != NULL)
	{
		MdProbe    *probe = palloc(sizeof(MdProbe));

		probe->block = places->block;
		probe->place = places->count;
		probe->relids = places->relids;
		probe->entry = places->entry;
		probe->is_joined = places->is_joined;
		probe->relid = rte->relid;
		*places->probes = lappend(*places->probes, probe);
	}
	else if (places->count == places->wanted)
	{
		/* a mark that no part is read in the place of */
		rte->relid = InvalidOid;
		places->count++;
		return true;
	}
	places->count++;
	return false;
}

static bool
walk_places(Query *query, Places *places, bool at_top)
{
	List	   *entries = NIL;
	bool		found = false;
	ListCell   *lc;

	if (query->setOperations == NULL)
	{
		linear_entries((Node *) query->jointree, &entries);
		foreach(lc, entries)
		{
			if (at_top)
				places->entry = lfirst_int(lc);
			found |= walk_entry(rt_fetch(lfirst_int(lc), query->rtable), places);
		}
		return found;
	}
	foreach(lc, md_query_branches(query))
	{
		RangeTblEntry *branch = lfirst_node(RangeTblEntry, lc);

		if (walk_entry(branch, places))
		{
			ListCell   *other;

			foreach(other, md_query_branches(query))
				if (lfirst(other) != branch)
					empty_query(lfirst_node(RangeTblEntry, other)->subquery);
			found = true;
		}
	}
	return found;
}

/* Does it refer to a WITH query outside of it? */
static bool
outer_cte_walker(Node *node, int *level)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_CTE &&
			(int) ((RangeTblEntry *) node)->ctelevelsup > *level;
	if (IsA(node, Query))
	{
		bool		found;

		(*level)++;
		found = query_tree_walker((Query *) node, outer_cte_walker, level, QTW_EXAMINE_RTES_BEFORE);
		(*level)--;
		return found;
	}
	return expression_tree_walker(node, outer_cte_walker, level);
}

typedef struct BlockWalk
{
	List	   *relids;
	List	   *probes;
	List	   *covered;		/* of Query: computed as far as what is around it wants */
} BlockWalk;

/* A subquery in FROM that its own rows flow out of is not computed by itself. */
static void
cover_query(Query *query, BlockWalk *walk)
{
	ListCell   *lc;

	if (md_block_kind(query) == MD_BLOCK_LINEAR)
		walk->covered = lappend(walk->covered, query);
	else if (md_block_kind(query) == MD_BLOCK_UNION_ALL)
		foreach(lc, md_query_branches(query))
			cover_query(lfirst_node(RangeTblEntry, lc)->subquery, walk);
}

static bool
blocks_walker(Node *node, BlockWalk *walk)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		Places		places = {0};
		int			level = -1;
		ListCell   *lc;

		if (query->setOperations == NULL)
			foreach(lc, query->rtable)
				if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_SUBQUERY)
					cover_query(lfirst_node(RangeTblEntry, lc)->subquery, walk);
		/* what is inside first: its errors are its own */
		(void) query_tree_walker(query, blocks_walker, walk, QTW_IGNORE_JOINALIASES);
		if (query->setOperations != NULL || md_tree_has_outer((Node *) query) ||
			outer_cte_walker((Node *) query, &level))
			return false;
		places.relids = walk->relids;
		places.probes = &walk->probes;
		places.block = query;
		places.is_joined = list_length(query->jointree->fromlist) > 1 ||
			(query->jointree->fromlist != NIL &&
			 IsA(linitial(query->jointree->fromlist), JoinExpr));
		(void) walk_places(query, &places, true);
		return false;
	}
	return expression_tree_walker(node, blocks_walker, walk);
}

List *
md_probes(Query *normal, List *relids)
{
	BlockWalk	walk = {relids, NIL, NIL};
	List	   *probes = NIL;
	ListCell   *lc;

	(void) blocks_walker((Node *) normal, &walk);
	foreach(lc, walk.probes)
		if (!list_member_ptr(walk.covered, ((MdProbe *) lfirst(lc))->block))
			probes = lappend(probes, lfirst(lc));
	return probes;
}

/* ----------------------------------------------------------------------
 * What a block computes of each row
 * ---------------------------------------------------------------------- */

/* Arguments of aggregates and window functions; what stands above them is left. */
static bool
arguments_walker(Node *node, List **exprs)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		Aggref	   *aggref = (Aggref *) node;
		ListCell   *lc;

		foreach(lc, aggref->args)
			*exprs = lappend(*exprs, lfirst_node(TargetEntry, lc)->expr);
		if (aggref->aggfilter != NULL)
			*exprs = lappend(*exprs, aggref->aggfilter);
		return false;
	}
	if (IsA(node, WindowFunc))
	{
		*exprs = list_concat(*exprs, ((WindowFunc *) node)->args);
		if (((WindowFunc *) node)->aggfilter != NULL)
			*exprs = lappend(*exprs, ((WindowFunc *) node)->aggfilter);
		return false;
	}
	if (IsA(node, Query))
		return false;
	return expression_tree_walker(node, arguments_walker, exprs);
}

static bool
is_of_rows_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	return IsA(node, Aggref) || IsA(node, WindowFunc) || IsA(node, GroupingFunc) ||
		expression_tree_walker(node, is_of_rows_walker, context);
}

static List *
block_exprs(Query *block)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, block->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (is_of_rows_walker(expr, NULL))
			(void) arguments_walker(expr, &exprs);
		else
			exprs = lappend(exprs, expr);
	}
	(void) arguments_walker(block->havingQual, &exprs);
	return exprs;
}

/* A copy of the block, before what it does with the rows, with the place marked. */
static Query *
block_rows(const MdProbe *probe)
{
	Places		places = {0};
	Query	   *query = md_block_kind(probe->block) == MD_BLOCK_LINEAR ?
		copyObject(probe->block) : md_block_input(probe->block, block_exprs(probe->block));

	query->sortClause = NIL;
	places.relids = probe->relids;
	places.wanted = probe->place;
	if (!walk_places(query, &places, true))
		elog(ERROR, "could not find the place of relation %u again", probe->relid);
	return query;
}

typedef struct Marked
{
	const MdPart *rows;
} Marked;

/* Put the rows where the mark is. */
static bool
put_rows_walker(Node *node, Marked *marked)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		(void) query_tree_walker(query, put_rows_walker, marked, QTW_IGNORE_JOINALIASES);
		for (int i = 1; i <= list_length(query->rtable); i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);

			if (rte->rtekind != RTE_RELATION || OidIsValid(rte->relid))
				continue;
			rte->relid = marked->rows->relid;
			md_read_replace_rte(query, i, md_read_part_query(marked->rows, rte->inh));
		}
		return false;
	}
	return expression_tree_walker(node, put_rows_walker, marked);
}

static char *
text_with_rows(Query *query, const MdPart *rows, List *others, TimestampTz time)
{
	Marked		marked = {rows};

	query = md_read_substitute(query, others);
	(void) put_rows_walker((Node *) query, &marked);
	md_tree_flatten_joins(query);
	return md_refresh_query_text(query, time);
}

char *
md_probe_text(const MdProbe *probe, const MdPart *rows, List *others, TimestampTz time)
{
	return text_with_rows(block_rows(probe), rows, others, time);
}

/* ----------------------------------------------------------------------
 * What depends on one entry alone
 * ---------------------------------------------------------------------- */

typedef struct Own
{
	int			entry;
	List	   *exprs;
} Own;

static bool
is_own(Node *expr, int entry)
{
	int			member;

	return !checkExprHasSubLink(expr) && !expression_returns_set(expr) &&
		!md_tree_has_outer(expr) &&
		bms_get_singleton_member(md_tree_used(expr), &member) && member == entry;
}

/* The largest expressions of the entry's columns that are more than a column. */
static bool
own_walker(Node *node, Own *own)
{
	if (node == NULL || IsA(node, Var) || IsA(node, SubLink) || IsA(node, Query))
		return false;
	if (!IsA(node, List) && !IsA(node, TargetEntry) && !IsA(node, FromExpr) &&
		!IsA(node, JoinExpr) && !IsA(node, CaseWhen) && is_own(node, own->entry))
	{
		own->exprs = lappend(own->exprs, node);
		return false;
	}
	return expression_tree_walker(node, own_walker, own);
}

char *
md_probe_own_text(const MdProbe *probe, const MdPart *rows, TimestampTz time)
{
	Query	   *query = block_rows(probe);
	Own			own = {probe->entry, NIL};
	RangeTblEntry *rte = rt_fetch(probe->entry, query->rtable);
	RangeTblRef *reference = makeNode(RangeTblRef);
	List	   *conditions = NIL;
	ListCell   *lc;

	if (rte->rtekind == RTE_SUBQUERY && md_tree_has_outer((Node *) rte->subquery))
		return NULL;
	(void) own_walker((Node *) query->targetList, &own);
	(void) own_walker((Node *) query->jointree, &own);
	if (own.exprs == NIL && rte->rtekind == RTE_RELATION)
		return NULL;
	foreach(lc, md_tree_terms(query->jointree->quals))
		if (is_own(lfirst(lc), probe->entry))
			conditions = lappend(conditions, lfirst(lc));

	reference->rtindex = probe->entry;
	query->jointree = makeFromExpr(list_make1(reference),
								   (Node *) make_ands_explicit(conditions));
	if (conditions == NIL)
		query->jointree->quals = NULL;
	query->targetList = NIL;
	query->hasSubLinks = false;
	query->hasTargetSRFs = false;
	foreach(lc, own.exprs)
		md_tree_add_column(query, lfirst(lc), psprintf("o%d", foreach_current_index(lc) + 1));
	if (rte->rtekind == RTE_SUBQUERY)
		for (int i = 1; i <= md_tree_width(rte->subquery); i++)
			md_tree_add_column(query, (Expr *) md_tree_column(query, probe->entry, i),
							   psprintf("e%d", i));
	return text_with_rows(query, rows, NIL, time);
}
