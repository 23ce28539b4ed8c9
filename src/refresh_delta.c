/*
 * refresh_delta.c
 *		The change of a query, from the changes of what it reads.
 *
 * The rows of a linear query are a sum over the rows of its inputs, so its
 * change is one term for each input i that changed:
 *
 *		Q(new 1 .. i-1, change of i, old i+1 .. n)
 *
 * each occurrence of a relation apart.  Weights multiply.  An input elsewhere
 * (refresh_leaves.h) has the term
 *
 *		Q(new i) restricted to K - Q(old i) restricted to K
 *
 * where K are the values in i's change of what i is compared with.  A condition
 * with now() is one more input: rows that it takes in at the new time and did
 * not at the old, and the other way round.
 *
 * A block that is not linear (refresh_normal.h) touches keys: those in the
 * change of its input.  Its change is its rows of these keys now, less those
 * before.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "refresh_delta.h"
#include "refresh_leaves.h"
#include "refresh_normal.h"
#include "refresh_read.h"
#include "refresh_tree.h"
#include "stable_functions.h"

/* One term while it is put together. */
typedef struct Term
{
	Query	   *query;
	List	   *weights;		/* of Expr, to be multiplied */
	int			sign;
} Term;

static Query *old_weighted(MdEngine *engine, Query *linear, bool *is_signed);

/* ----------------------------------------------------------------------
 * Weights
 * ---------------------------------------------------------------------- */

static Expr *
int4_call(Oid function, List *args)
{
	return (Expr *) makeFuncExpr(function, INT4OID, args, InvalidOid, InvalidOid,
								 COERCE_EXPLICIT_CALL);
}

static Expr *
int4_const(int value)
{
	return (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(value),
							  false, true);
}

/* The weight column of an entry that has become a subquery with one. */
static Expr *
entry_weight(Query *query, int rt_index)
{
	return (Expr *) md_tree_column(query, rt_index,
								   md_tree_width(rt_fetch(rt_index, query->rtable)->subquery));
}

/* The product of a term's weights as its last column. */
static void
add_weight(Term *term)
{
	Expr	   *product = NULL;
	ListCell   *lc;

	foreach(lc, term->weights)
		product = product == NULL ? lfirst(lc) :
			int4_call(F_INT4MUL, list_make2(product, lfirst(lc)));
	if (product == NULL)
		product = int4_const(term->sign);
	else if (term->sign < 0)
		product = int4_call(F_INT4UM, list_make1(product));
	md_tree_add_column(term->query, product, MD_WEIGHT);
}

/* ----------------------------------------------------------------------
 * Inputs of a term
 * ---------------------------------------------------------------------- */

static bool
leaf_changes(MdEngine *engine, MdLeaf *leaf)
{
	if (leaf->kind == MD_LEAF_TIME)
		return engine->old_time != engine->new_time;
	if (OidIsValid(leaf->relid))
		return md_engine_input(engine, leaf->relid) != NULL;
	return leaf->query != NULL && md_engine_changes(engine, leaf->query);
}

/* Put an entry's old rows in its place, with weights where these may stand. */
static void
make_entry_old(MdEngine *engine, Term *term, MdLeaf *leaf)
{
	RangeTblEntry *rte = rt_fetch(leaf->rt_index, term->query->rtable);
	bool		linear = leaf->place == MD_PLACE_LINEAR;
	bool		is_signed = false;
	Query	   *old;

	if (OidIsValid(leaf->relid))
	{
		MdInput    *input = md_engine_input(engine, leaf->relid);

		old = md_state_old_relation(engine, input, rte->inh, linear);
		is_signed = linear && input->delta.is_signed;
	}
	else if (linear && md_block_kind(rte->subquery) == MD_BLOCK_LINEAR)
		old = old_weighted(engine, rte->subquery, &is_signed);
	else
		old = md_state_query(engine, rte->subquery, true);
	md_read_replace_rte(term->query, leaf->rt_index, old);
	if (is_signed)
		term->weights = lappend(term->weights, entry_weight(term->query, leaf->rt_index));
}

/* Now() in what is read as it is now. */
static void
make_entry_new(MdEngine *engine, Term *term, MdLeaf *leaf)
{
	RangeTblEntry *rte = rt_fetch(leaf->rt_index, term->query->rtable);

	if (rte->rtekind == RTE_SUBQUERY && md_unstable_has_time((Node *) rte->subquery))
		rte->subquery = md_state_query(engine, rte->subquery, false);
}

/* Number `number` of the subqueries in expressions, as of now or before. */
static void
set_sublink(MdEngine *engine, Term *term, int number, bool old)
{
	SubLink    *sublink = list_nth(md_leaves_sublinks(term->query), number);

	sublink->subselect = (Node *) md_state_query(engine, castNode(Query, sublink->subselect), old);
}

/* Number `number` of the conditions, likewise. */
static void
set_condition(MdEngine *engine, Term *term, int number, bool old)
{
	List	   *terms = md_tree_terms(term->query->jointree->quals);

	lfirst(list_nth_cell(terms, number)) =
		md_unstable_fix_time(lfirst(list_nth_cell(terms, number)),
							 old ? engine->old_time : engine->new_time);
	term->query->jointree->quals = (Node *) make_ands_explicit(terms);
}

static void
set_leaf(MdEngine *engine, Term *term, MdLeaf *leaf, bool old)
{
	switch (leaf->kind)
	{
		case MD_LEAF_ENTRY:
			if (old && leaf_changes(engine, leaf))
				make_entry_old(engine, term, leaf);
			else
				make_entry_new(engine, term, leaf);
			break;
		case MD_LEAF_SUBLINK:
			if (leaf_changes(engine, leaf))
				set_sublink(engine, term, leaf->number, old);
			break;
		case MD_LEAF_TIME:
			set_condition(engine, term, leaf->number, old);
			break;
	}
}

/*
 * A copy of the query with the leaves before number `which` as they are now,
 * and those behind it as they were.
 */
static Term *
begin_term(MdEngine *engine, Query *linear, List *leaves, int which)
{
	Term	   *term = palloc0(sizeof(Term));
	ListCell   *lc;

	term->query = copyObject(linear);
	term->sign = 1;
	foreach(lc, leaves)
		if (foreach_current_index(lc) != which)
			set_leaf(engine, term, lfirst(lc), foreach_current_index(lc) > which);
	return term;
}

/* All leaves as they were, with weights. */
static Query *
old_weighted(MdEngine *engine, Query *linear, bool *is_signed)
{
	Term	   *term = begin_term(engine, linear, md_leaves(linear), -1);

	*is_signed = term->weights != NIL;
	if (*is_signed)
		add_weight(term);
	return term->query;
}

/* ----------------------------------------------------------------------
 * Terms
 * ---------------------------------------------------------------------- */

/* The change of an entry of the range table. */
static void
entry_change(MdEngine *engine, Query *linear, MdLeaf *leaf, MdChange *change)
{
	MdInput    *input;

	if (!OidIsValid(leaf->relid))
	{
		md_delta_block(engine, leaf->query, change);
		return;
	}
	input = md_engine_input(engine, leaf->relid);
	change->query = md_state_changed_relation(engine, input,
											  rt_fetch(leaf->rt_index, linear->rtable)->inh);
	change->is_signed = input->delta.is_signed;
}

/* A row of the input is a row of the sum. */
static List *
linear_terms(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	Term	   *term;
	MdChange	change;

	entry_change(engine, linear, leaf, &change);
	if (change.query == NULL)
		return NIL;
	term = begin_term(engine, linear, leaves, which);
	md_read_replace_rte(term->query, leaf->rt_index, change.query);
	if (change.is_signed)
		term->weights = lappend(term->weights, entry_weight(term->query, leaf->rt_index));
	md_keys_narrow(engine, term->query, leaf->rt_index);
	return list_make1(term);
}

/* Rows that a condition with now() takes in at one time and not at another. */
static Term *
time_term(MdEngine *engine, Query *linear, List *leaves, int which, bool comes)
{
	Term	   *term = begin_term(engine, linear, leaves, which);
	MdLeaf	   *leaf = list_nth(leaves, which);
	List	   *terms = md_tree_terms(term->query->jointree->quals);
	Node	   *condition = list_nth(terms, leaf->number);
	Node	   *holds = md_unstable_fix_time(copyObject(condition),
											 comes ? engine->new_time : engine->old_time);
	Node	   *fails = md_unstable_fix_time(copyObject(condition),
											 comes ? engine->old_time : engine->new_time);
	OpExpr	   *op = (OpExpr *) fails;

	/* where one holds, a strict operator's arguments are not NULL in the other */
	if (IsA(op, OpExpr) && OidIsValid(get_negator(op->opno)) && op_strict(op->opno))
	{
		op->opno = get_negator(op->opno);
		op->opfuncid = InvalidOid;
	}
	else
	{
		BooleanTest *test = makeNode(BooleanTest);

		test->arg = (Expr *) fails;
		test->booltesttype = IS_NOT_TRUE;
		test->location = -1;
		fails = (Node *) test;
	}
	lfirst(list_nth_cell(terms, leaf->number)) = holds;
	term->query->jointree->quals = (Node *) make_ands_explicit(lappend(terms, fails));
	term->sign = comes ? 1 : -1;
	return term;
}

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
	expandRTE(rte, 1, 0, -1, true, &names, &vars);
	foreach(lc, vars)
	{
		char	   *name = strVal(list_nth(names, foreach_current_index(lc)));

		md_tree_add_column(inside, lfirst(lc), name[0] ? name :
						   psprintf("?dropped%d?", foreach_current_index(lc) + 1));
	}
	return inside;
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
static Term *
keyed_term(MdEngine *engine, Query *linear, List *leaves, int which, MdKeys *keys, bool old)
{
	Term	   *term = begin_term(engine, linear, leaves, which);
	MdLeaf	   *leaf;
	Query	   *query = term->query;

	set_leaf(engine, term, list_nth(leaves, which), old);
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
static Term *
null_term(MdEngine *engine, Query *linear, List *leaves, int which, bool old)
{
	Term	   *term = begin_term(engine, linear, leaves, which);
	MdLeaf	   *leaf;

	set_leaf(engine, term, list_nth(leaves, which), old);
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
static Term *
unmatched_term(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	Term	   *term = begin_term(engine, linear, leaves, which);
	Query	   *nothing;
	List	   *tests = NIL;
	MdChange	change;
	ListCell   *lc;

	entry_change(engine, linear, leaf, &change);
	if (change.query == NULL)
		return NULL;
	leaf = list_nth(md_leaves(term->query), which);
	foreach(lc, leaf->pairs)
		tests = lappend(tests, md_tree_is_null(copyObject(((MdPair *) lfirst(lc))->inner), true));
	md_read_replace_rte(term->query, leaf->rt_index, change.query);
	nothing = entry_columns(term->query, leaf->partner);
	md_tree_add_condition(nothing, makeBoolConst(false, false));
	md_read_replace_rte(term->query, leaf->partner, nothing);
	md_tree_add_condition(term->query, (Node *) make_orclause(tests));
	if (change.is_signed)
		term->weights = lappend(term->weights, entry_weight(term->query, leaf->rt_index));
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

static List *
keyed_terms(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdKeys	   *keys = leaf_keys(engine, linear, leaf);
	List	   *terms = NIL;

	if (keys == NULL || keys->count == 0)
		return NIL;
	if (leaf->place == MD_PLACE_FULL && has_null_key(keys))
	{
		Term	   *term = unmatched_term(engine, linear, leaves, which);

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

/* An input that matters to all rows: well if its own rows stay as they were. */
static void
check_whole(MdEngine *engine, MdLeaf *leaf)
{
	char	   *name;
	MdChange	change;

	if (leaf->query == NULL || md_tree_has_outer((Node *) leaf->query))
	{
		md_engine_give_up(engine, leaf->why_whole);
		return;
	}
	md_delta_block(engine, leaf->query, &change);
	if (change.query != NULL && engine->why_full == NULL &&
		md_engine_materialize(engine, md_delta_net_text(change.query, change.is_signed),
							  &name, NULL) > 0)
		md_engine_give_up(engine, leaf->why_whole);
}

/* UNION ALL of terms, with a weight column where one of them needs it. */
static void
collect_terms(List *terms, MdChange *change)
{
	List	   *queries = NIL;
	ListCell   *lc;

	change->is_signed = false;
	foreach(lc, terms)
	{
		Term	   *term = lfirst(lc);

		change->is_signed |= term->weights != NIL || term->sign < 0;
	}
	foreach(lc, terms)
	{
		Term	   *term = lfirst(lc);

		if (change->is_signed)
			add_weight(term);
		queries = lappend(queries, term->query);
	}
	change->query = queries == NIL ? NULL : md_tree_union_all(queries);
}

void
md_delta_linear(MdEngine *engine, Query *linear, MdChange *change)
{
	List	   *leaves;
	List	   *terms = NIL;

	linear = copyObject(linear);
	md_query_normalize(linear);
	leaves = md_leaves(linear);
	for (int which = 0; which < list_length(leaves) && engine->why_full == NULL; which++)
	{
		MdLeaf	   *leaf = list_nth(leaves, which);

		if (!leaf_changes(engine, leaf))
			continue;
		if (leaf->kind == MD_LEAF_TIME)
		{
			terms = lappend(terms, time_term(engine, linear, leaves, which, true));
			terms = lappend(terms, time_term(engine, linear, leaves, which, false));
		}
		else if (leaf->place == MD_PLACE_LINEAR)
			terms = list_concat(terms, linear_terms(engine, linear, leaves, which));
		else if (leaf->place == MD_PLACE_WHOLE)
			check_whole(engine, leaf);
		else
			terms = list_concat(terms, keyed_terms(engine, linear, leaves, which));
	}
	collect_terms(terms, change);
	if (engine->why_full != NULL)
		change->query = NULL;
}
