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
#include "refresh_term.h"
#include "refresh_tree.h"
#include "stable_functions.h"

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

/* The weight column of an entry that has become a subquery with one, the last of that name. */
Expr *
md_term_entry_weight(Query *query, int rt_index)
{
	Query	   *entry = rt_fetch(rt_index, query->rtable)->subquery;

	for (int i = md_tree_width(entry); i > 0; i--)
		if (strcmp(md_tree_target(entry, i)->resname, MD_WEIGHT) == 0)
			return (Expr *) md_tree_column(query, rt_index, i);
	elog(ERROR, "a change has no weights");
}

/* The product of a term's weights as its last column. */
static void
add_weight(MdTerm *term)
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
make_entry_old(MdEngine *engine, MdTerm *term, MdLeaf *leaf)
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
		term->weights = lappend(term->weights, md_term_entry_weight(term->query, leaf->rt_index));
}

/* Now() in what is read as it is now. */
static void
make_entry_new(MdEngine *engine, MdTerm *term, MdLeaf *leaf)
{
	RangeTblEntry *rte = rt_fetch(leaf->rt_index, term->query->rtable);

	if (rte->rtekind == RTE_SUBQUERY && md_unstable_has_time((Node *) rte->subquery))
		rte->subquery = md_state_query(engine, rte->subquery, false);
}

/* Number `number` of the subqueries in expressions, as of now or before. */
static void
set_sublink(MdEngine *engine, MdTerm *term, int number, bool old)
{
	SubLink    *sublink = list_nth(md_leaves_sublinks(term->query), number);

	sublink->subselect = (Node *) md_state_query(engine, castNode(Query, sublink->subselect), old);
}

/* Number `number` of the conditions, likewise. */
static void
set_condition(MdEngine *engine, MdTerm *term, int number, bool old)
{
	List	   *terms = md_tree_terms(term->query->jointree->quals);

	lfirst(list_nth_cell(terms, number)) =
		md_unstable_fix_time(lfirst(list_nth_cell(terms, number)),
							 old ? engine->old_time : engine->new_time);
	term->query->jointree->quals = (Node *) make_ands_explicit(terms);
}

void
md_term_set_leaf(MdEngine *engine, MdTerm *term, MdLeaf *leaf, bool old)
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
MdTerm *
md_term_begin(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdTerm	   *term = palloc0(sizeof(MdTerm));
	ListCell   *lc;

	term->query = copyObject(linear);
	term->sign = 1;
	foreach(lc, leaves)
		if (foreach_current_index(lc) != which)
			md_term_set_leaf(engine, term, lfirst(lc), foreach_current_index(lc) > which);
	return term;
}

/* All leaves as they were, with weights. */
static Query *
old_weighted(MdEngine *engine, Query *linear, bool *is_signed)
{
	MdTerm	   *term = md_term_begin(engine, linear, md_leaves(linear), -1);

	*is_signed = term->weights != NIL;
	if (*is_signed)
		add_weight(term);
	return term->query;
}

/* ----------------------------------------------------------------------
 * Terms
 * ---------------------------------------------------------------------- */

/* The change of an entry of the range table. */
void
md_term_entry_change(MdEngine *engine, Query *linear, MdLeaf *leaf, MdChange *change)
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
	change->is_signed = input->delta.is_signed && !input->delta.only_came;
}

/* A row of the input is a row of the sum. */
static List *
linear_terms(MdEngine *engine, Query *linear, List *leaves, int which)
{
	MdLeaf	   *leaf = list_nth(leaves, which);
	MdTerm	   *term;
	MdChange	change;

	md_term_entry_change(engine, linear, leaf, &change);
	if (change.query == NULL)
		return NIL;
	term = md_term_begin(engine, linear, leaves, which);
	md_read_replace_rte(term->query, leaf->rt_index, change.query);
	if (change.is_signed)
		term->weights = lappend(term->weights, md_term_entry_weight(term->query, leaf->rt_index));
	md_keys_narrow(engine, term->query, leaf->rt_index);
	return list_make1(term);
}

/* Rows that a condition with now() takes in at one time and not at another. */
static MdTerm *
time_term(MdEngine *engine, Query *linear, List *leaves, int which, bool comes)
{
	MdTerm	   *term = md_term_begin(engine, linear, leaves, which);
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
		md_engine_materialize(engine, md_delta_net_text(change.query, change.is_signed, true),
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
		MdTerm	   *term = lfirst(lc);

		change->is_signed |= term->weights != NIL || term->sign < 0;
	}
	foreach(lc, terms)
	{
		MdTerm	   *term = lfirst(lc);

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
		else if (leaf->place == MD_PLACE_UNKEYED)
			terms = list_concat(terms, md_term_unkeyed(engine, linear, leaves, which));
		else if (leaf->place == MD_PLACE_UNEQUAL)
			terms = list_concat(terms, md_term_unequal(engine, linear, leaves, which));
		else
			terms = list_concat(terms, md_term_keyed(engine, linear, leaves, which));
	}
	collect_terms(terms, change);
	if (engine->why_full != NULL)
		change->query = NULL;
}
