/*
 * refresh_delta_keyed.c
 *		Terms of inputs whose rows do not just add up.
 *
 * Rows of the query that an input's change can touch are those whose own value
 * is among the keys of that change: both states of them are computed, with the
 * input restricted to these keys as well.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "compat.h"
#include "refresh_normal.h"
#include "refresh_read.h"
#include "refresh_term.h"
#include "refresh_tree.h"

/* The keys that the change of an input gives to its pairs. */
static MdKeys *
leaf_keys(MdEngine *engine, Query *linear, MdLeaf *leaf)
{
	Query	   *query;
	MdChange	change;
	ListCell   *lc;

	switch (leaf->place)
	{
		case MD_PLACE_NULLABLE:
		case MD_PLACE_FULL:
			query = copyObject(linear);
			md_tree_strip(query);
			query->hasTargetSRFs = false;
			query->targetList = NIL;
			query->jointree = makeFromExpr(list_make1(makeNode(RangeTblRef)), NULL);
			linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex = leaf->rt_index;
			foreach(lc, leaf->pairs)
				md_tree_add_column(query, copyObject(((MdPair *) lfirst(lc))->inner),
								   psprintf("k%d", foreach_current_index(lc) + 1));
			md_delta_linear(engine, query, &change);
			break;
		case MD_PLACE_CORRELATED:
			md_delta_linear(engine, md_leaf_inner_query(leaf), &change);
			break;
		default:
			md_delta_block(engine, leaf->query, &change);
			break;
	}
	if (change.query == NULL)
		return NULL;
	/* columns of the pairs alone */
	query = md_tree_wrap(change.query, "c");
	{
		List	   *columns = query->targetList;

		query->targetList = NIL;
		foreach(lc, leaf->pairs)
		{
			int			number = leaf->place == MD_PLACE_IN ? ((MdPair *) lfirst(lc))->column :
				foreach_current_index(lc) + 1;

			md_tree_add_column(query, copyObject(list_nth_node(TargetEntry, columns, number - 1)->expr),
							   psprintf("k%d", foreach_current_index(lc) + 1));
		}
	}
	return md_keys_make(engine, query);
}

/* Matches of one side of the pairs with the keys that the inner side gave. */
static List *
pair_matches(List *pairs, bool inner)
{
	List	   *matches = NIL;
	ListCell   *lc;

	foreach(lc, pairs)
	{
		MdPair	   *pair = lfirst(lc);
		MdMatch    *match = palloc0(sizeof(MdMatch));

		match->column = foreach_current_index(lc) + 1;
		match->expr = copyObject(inner ? pair->inner : pair->outer);
		if (!inner)
		{
			match->op = pair->op;
			match->key_first = !pair->outer_first;
		}
		matches = lappend(matches, match);
	}
	return matches;
}

/* A subquery over an entry alone, which is number 1 there. */
static Query *
entry_columns(Query *query, int rt_index)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);
	Query	   *inside = md_tree_select();
	List	   *names;
	List	   *vars;
	ListCell   *lc;

	inside->rtable = list_make1(copyObject(rte));
	inside->jointree->fromlist = list_make1(makeNode(RangeTblRef));
	linitial_node(RangeTblRef, inside->jointree->fromlist)->rtindex = 1;
	md_expand_rte(rte, 1, true, &names, &vars);
	foreach(lc, vars)
	{
		char	   *name = strVal(list_nth(names, foreach_current_index(lc)));

		md_tree_add_column(inside, lfirst(lc), name[0] ? name :
						   psprintf("?dropped%d?", foreach_current_index(lc) + 1));
	}
	return inside;
}

void
md_term_empty_entry(Query *query, int rt_index)
{
	Query	   *nothing = entry_columns(query, rt_index);

	md_tree_add_condition(nothing, makeBoolConst(false, false));
	md_read_replace_rte(query, rt_index, nothing);
}

/* Restrict an entry's own rows, so that the join sees no others. */
static void
restrict_entry(MdEngine *engine, Query *query, int rt_index, List *matches, MdKeys *keys)
{
	Query	   *inside = entry_columns(query, rt_index);
	List	   *moved = NIL;
	ListCell   *lc;

	foreach(lc, matches)
	{
		MdMatch    *match = palloc(sizeof(MdMatch));

		*match = *(MdMatch *) lfirst(lc);
		match->expr = copyObject(match->expr);
		ChangeVarNodes((Node *) match->expr, rt_index, 1, 0);
		moved = lappend(moved, match);
	}
	md_keys_apply(engine, inside, moved, keys);
	md_read_replace_rte(query, rt_index, inside);
}

/* The query `at` in a copy of a correlated subquery: as many layers down. */
static Query *
query_at(Query *query, int depth)
{
	for (int i = 1; i < depth; i++)
		query = rt_fetch(linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex,
						 query->rtable)->subquery;
	return query;
}

static bool
all_plain_columns(List *pairs)
{
	ListCell   *lc;

	foreach(lc, pairs)
		if (!IsA(((MdPair *) lfirst(lc))->inner, Var))
			return false;
	return true;
}

/*
 * Restrict a subquery that the planner turns into a join.  One that it runs
 * for each row finds its own rows by the row's values, and would scan the keys
 * each time.
 */
static void
restrict_correlated(MdEngine *engine, Query *query, MdLeaf *leaf, MdKeys *keys)
{
	SubLink    *sublink;

	if (leaf->kind != MD_LEAF_SUBLINK)
		return;
	sublink = list_nth(md_leaves_sublinks(query), leaf->number);
	if (sublink->subLinkType == EXISTS_SUBLINK || sublink->subLinkType == ANY_SUBLINK)
		md_keys_apply(engine, query_at(castNode(Query, sublink->subselect), leaf->depth),
					  pair_matches(leaf->pairs, true), keys);
}

/* One state of a nonlinear input, restricted to keys on both sides. */
static MdTerm *
keyed_term(MdEngine *engine, Query *linear, List *leaves, int which, MdKeys *keys, bool old)
{
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);
	MdLeaf	   *leaf;
	Query	   *query = term->query;

	md_term_set_leaf(engine, term, list_nth(leaves, which), old);
	term->sign = old ? -1 : 1;
	/* the pairs in the words of the copy */
	leaf = list_nth(md_leaves(query), which);
	switch (leaf->place)
	{
		case MD_PLACE_FULL:
			restrict_entry(engine, query, leaf->partner, pair_matches(leaf->pairs, false), keys);
			restrict_entry(engine, query, leaf->rt_index, pair_matches(leaf->pairs, true), keys);
			return term;
		case MD_PLACE_NULLABLE:
			/* plain columns are reached through the join's condition */
			if (!all_plain_columns(leaf->pairs))
			{
				List	   *outer = pair_matches(leaf->pairs, false);

				restrict_entry(engine, query, leaf->rt_index, pair_matches(leaf->pairs, true), keys);
				md_keys_apply(engine, query, outer, keys);
				return term;
			}
			break;
		case MD_PLACE_CORRELATED:
			restrict_correlated(engine, query, leaf, keys);
			break;
		default:
			break;
	}
	md_keys_apply(engine, query, pair_matches(leaf->pairs, false), keys);
	return term;
}

/* NOT IN: rows whose own value is NULL depend on whether there is any row. */
static MdTerm *
null_term(MdEngine *engine, Query *linear, List *leaves, int which, bool old)
{
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);
	MdLeaf	   *leaf;

	md_term_set_leaf(engine, term, list_nth(leaves, which), old);
	term->sign = old ? -1 : 1;
	leaf = list_nth(md_leaves(term->query), which);
	md_tree_add_condition(term->query, (Node *)
						  md_tree_is_null(copyObject(((MdPair *) linitial(leaf->pairs))->outer), true));
	return term;
}

/*
 * FULL JOIN: rows with a NULL in what is compared meet nothing, and each is a
 * row of the result: the change of these alone, over nothing on the other side.
 */
static MdTerm *
unmatched_term(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);
	List	   *tests = NIL;
	MdChange	change;
	ListCell   *lc;

	md_term_entry_change(engine, linear, leaf, &change);
	if (change.query == NULL)
		return NULL;
	leaf = list_nth(md_leaves(term->query), which);
	foreach(lc, leaf->pairs)
		tests = lappend(tests, md_tree_is_null(copyObject(((MdPair *) lfirst(lc))->inner), true));
	md_read_replace_rte(term->query, leaf->rt_index, change.query);
	md_term_empty_entry(term->query, leaf->partner);
	md_tree_add_condition(term->query, (Node *) make_orclause(tests));
	if (change.is_signed)
		term->weights = lappend(term->weights, md_term_entry_weight(term->query, leaf->rt_index));
	return term;
}

static bool
has_null_key(MdKeys *keys)
{
	ListCell   *lc;

	if (keys->as_records)
		return true;
	foreach(lc, keys->patterns)
		if (!bms_is_empty(lfirst(lc)))
			return true;
	return false;
}

List *
md_term_keyed(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdKeys	   *keys = leaf_keys(engine, linear, leaf);
	List	   *terms = NIL;

	if (keys == NULL || keys->count == 0)
		return NIL;
	if (leaf->place == MD_PLACE_FULL && has_null_key(keys))
	{
		MdTerm	   *term = unmatched_term(engine, linear, leaves, which);

		if (term != NULL)
			terms = lappend(terms, term);
	}
	if (leaf->null_matters && leaf->place == MD_PLACE_IN && has_null_key(keys))
	{
		md_engine_give_up(engine, "a NULL came to, or went from, the subquery of a NOT IN");
		return NIL;
	}
	terms = lappend(terms, keyed_term(engine, linear, leaves, which, keys, false));
	terms = lappend(terms, keyed_term(engine, linear, leaves, which, keys, true));
	if (leaf->null_matters && leaf->place == MD_PLACE_IN)
	{
		terms = lappend(terms, null_term(engine, linear, leaves, which, false));
		terms = lappend(terms, null_term(engine, linear, leaves, which, true));
	}
	return terms;
}
