/*
 * refresh_keys.c
 *		Sets of keys, and queries restricted to them.
 *
 * A set of keys is run once into a registered relation without duplicates, so
 * that it can be joined:
 *
 *		SELECT day, sum(x) FROM t GROUP BY day
 *	->	SELECT day, sum(x) FROM t, keys WHERE t.day = keys.k1 GROUP BY day
 *
 * An equality finds no NULL, and what finds one finds no index.  So keys are
 * told apart by which of them are NULL, and there is a query for each such
 * pattern; there are few.  The restriction is carried on to the subqueries in
 * FROM, through equalities of the query too, since the planner would compute
 * these whole.
 */
#include "postgres.h"

#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/fmgroids.h"

#include "refresh_delta.h"
#include "refresh_leaves.h"
#include "refresh_normal.h"
#include "refresh_tree.h"
#include "sql_run.h"

/* With more patterns than this, records are compared. */
#define MAX_PATTERNS 8

/* "k1, k2, ..." */
static char *
key_columns(int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%sk%d", i > 1 ? ", " : "", i);
	return list.data;
}

/* Which columns are NULL together. */
static void
load_patterns(MdEngine *engine, MdKeys *keys)
{
	StringInfoData list;
	uint64		rows;

	initStringInfo(&list);
	for (int i = 1; i <= keys->tupdesc->natts; i++)
		appendStringInfo(&list, "%s(k%d IS NOT DISTINCT FROM NULL)", i > 1 ? ", " : "", i);
	rows = md_sql_run(psprintf("SELECT DISTINCT %s FROM %s LIMIT %d", list.data, keys->name,
							   MAX_PATTERNS + 1), NULL, engine->snapshot);
	keys->as_records = rows > MAX_PATTERNS;
	for (uint64 row = 0; row < rows && !keys->as_records; row++)
	{
		Bitmapset  *pattern = NULL;

		for (int i = 1; i <= keys->tupdesc->natts; i++)
			if (md_sql_bool(row, i))
				pattern = bms_add_member(pattern, i);
		keys->patterns = lappend(keys->patterns, pattern);
	}
}

static MdKeys *
make_keys(MdEngine *engine, const char *sql)
{
	MdKeys	   *keys = palloc0(sizeof(MdKeys));

	keys->count = md_engine_materialize(engine, sql, &keys->name, &keys->tupdesc);
	if (keys->count > 0)
		load_patterns(engine, keys);
	return keys;
}

MdKeys *
md_keys_make(MdEngine *engine, Query *query)
{
	char	   *columns = key_columns(md_tree_width(query));

	return make_keys(engine, psprintf("SELECT DISTINCT %s FROM (%s) q(%s)", columns,
									  md_delta_text(query), columns));
}

/* Some columns of keys (of int), each combination without NULLs once. */
static MdKeys *
project_keys(MdEngine *engine, MdKeys *keys, List *columns)
{
	StringInfoData list;
	StringInfoData condition;
	ListCell   *lc;

	initStringInfo(&list);
	initStringInfo(&condition);
	foreach(lc, columns)
	{
		appendStringInfo(&list, "%sk%d AS k%d", list.len > 0 ? ", " : "", lfirst_int(lc),
						 foreach_current_index(lc) + 1);
		appendStringInfo(&condition, "%sk%d IS DISTINCT FROM NULL",
						 condition.len > 0 ? " AND " : "", lfirst_int(lc));
	}
	return make_keys(engine, psprintf("SELECT DISTINCT %s FROM %s WHERE %s", list.data,
									  keys->name, condition.data));
}

/* ----------------------------------------------------------------------
 * Matches
 * ---------------------------------------------------------------------- */

static MdMatch *
make_match(Expr *expr, int column, OpExpr *op, bool key_first)
{
	MdMatch    *match = palloc(sizeof(MdMatch));

	match->expr = expr;
	match->column = column;
	match->op = op;
	match->key_first = key_first;
	return match;
}

static Expr *
match_condition(MdMatch *match, Var *key)
{
	OpExpr	   *op;

	if (match->op == NULL)
		return md_tree_equal(copyObject(match->expr), (Expr *) key);
	op = copyObject(match->op);
	op->args = match->key_first ? list_make2(key, copyObject(match->expr)) :
		list_make2(copyObject(match->expr), key);
	return (Expr *) op;
}

/* An equality in the query, and which entries it says something of. */
typedef struct Term
{
	OpExpr	   *op;
	Bitmapset  *about;			/* NULL: all */
} Term;

static void
add_terms(List **found, Node *quals, Bitmapset *about)
{
	ListCell   *lc;

	foreach(lc, md_tree_terms(quals))
	{
		Term	   *term;

		if (!md_is_equality(lfirst(lc)) || md_tree_has_outer(lfirst(lc)))
			continue;
		term = palloc(sizeof(Term));
		term->op = lfirst(lc);
		term->about = about;
		*found = lappend(*found, term);
	}
}

/*
 * Equalities of WHERE and of joins in FROM.  The condition of an outer join
 * says something of its nullable side alone: rows of that side that do not
 * keep to it meet no row.
 */
static void
collect_terms(Node *from, List **found)
{
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			collect_terms(lfirst(lc), found);
		add_terms(found, ((FromExpr *) from)->quals, NULL);
	}
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;

		if (join->jointype == JOIN_FULL)
			return;
		collect_terms(join->larg, found);
		if (join->jointype == JOIN_INNER)
		{
			collect_terms(join->rarg, found);
			add_terms(found, join->quals, NULL);
		}
		else
			add_terms(found, join->quals, md_tree_relids(join->rarg));
	}
}

/* Do the matches say the same of expr? */
static bool
has_match(List *matches, Expr *expr)
{
	ListCell   *lc;

	foreach(lc, matches)
		if (equal(((MdMatch *) lfirst(lc))->expr, expr))
			return true;
	return false;
}

/* What an equality adds to matches, in either direction. */
static void
close_by_term(List **matches, Term *term, MdKeys *keys)
{
	for (int side = 0; side < 2; side++)
	{
		Expr	   *known = list_nth(term->op->args, side);
		Expr	   *other = list_nth(term->op->args, 1 - side);
		ListCell   *lc;

		if (has_match(*matches, other) || IsA(other, Const) ||
			(term->about != NULL && !bms_is_subset(md_tree_used((Node *) other), term->about)))
			continue;
		foreach(lc, *matches)
		{
			MdMatch    *match = lfirst(lc);
			Oid			key_type = TupleDescAttr(keys->tupdesc, match->column - 1)->atttypid;

			if (equal(match->expr, known) && key_type == exprType((Node *) known))
			{
				*matches = lappend(*matches, make_match(other, match->column, term->op, side == 0));
				break;
			}
		}
	}
}

static List *
close_matches(Query *query, List *matches, MdKeys *keys)
{
	List	   *all = list_copy(matches);
	List	   *terms = NIL;
	int			before;

	collect_terms((Node *) query->jointree, &terms);
	do
	{
		ListCell   *lc;

		before = list_length(all);
		foreach(lc, terms)
			close_by_term(&all, lfirst(lc), keys);
	} while (list_length(all) > before);
	return all;
}

/* Entries of FROM that no outer join makes NULL. */
static Bitmapset *
plain_entries(Query *query)
{
	Bitmapset  *entries = NULL;
	ListCell   *lc;

	foreach(lc, query->jointree->fromlist)
		if (IsA(lfirst(lc), RangeTblRef))
			entries = bms_add_member(entries, ((RangeTblRef *) lfirst(lc))->rtindex);
	return entries;
}

/* Do these matches, of columns of one entry, say all that the others say? */
static bool
covers_matches(List *found, List *matches)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, matches)
		if (!has_match(found, ((MdMatch *) lfirst(lc))->expr))
			return false;
	foreach(lc, matches)
		columns = list_append_unique_int(columns, ((MdMatch *) lfirst(lc))->column);
	return list_length(columns) == list_length(matches);
}

/*
 * Carry matches on to the subqueries in FROM; true if one of these gives no
 * other rows any more, so that the keys need not be met here too.
 */
static bool
push_matches(MdEngine *engine, Query *query, List *matches, MdKeys *keys)
{
	List	   *all = close_matches(query, matches, keys);
	Bitmapset  *entries = md_tree_relids((Node *) query->jointree);
	Bitmapset  *plain = plain_entries(query);
	bool		covered = false;

	for (int index = -1; (index = bms_next_member(entries, index)) >= 0;)
	{
		RangeTblEntry *rte = rt_fetch(index, query->rtable);
		List	   *found = NIL;
		ListCell   *lc;

		if (rte->rtekind != RTE_SUBQUERY)
			continue;
		foreach(lc, all)
		{
			MdMatch    *match = lfirst(lc);
			Var		   *var = (Var *) match->expr;

			if (IsA(var, Var) && (int) var->varno == index && var->varlevelsup == 0 &&
				var->varattno > 0)
				found = lappend(found, match);
		}
		if (found != NIL && md_keys_apply_columns(engine, rte->subquery, found, keys) &&
			bms_is_member(index, plain) && covers_matches(found, matches))
			covered = true;
	}
	return covered;
}

/* Join the keys; the matches cover all of their columns. */
static void
join_keys(Query *query, List *matches, MdKeys *keys)
{
	int			rt_index = md_tree_add_registered(query, keys->name, keys->tupdesc);
	ListCell   *lc;

	foreach(lc, matches)
	{
		MdMatch    *match = lfirst(lc);

		md_tree_add_condition(query, (Node *)
							  match_condition(match, md_tree_column(query, rt_index, match->column)));
	}
}

void
md_keys_apply(MdEngine *engine, Query *query, List *matches, MdKeys *keys)
{
	List	   *columns = NIL;
	List	   *renumbered = NIL;
	ListCell   *lc;

	foreach(lc, matches)
		columns = list_append_unique_int(columns, ((MdMatch *) lfirst(lc))->column);
	if (list_length(columns) < keys->tupdesc->natts || keys->as_records ||
		list_length(keys->patterns) != 1 || !bms_is_empty(linitial(keys->patterns)))
	{
		keys = project_keys(engine, keys, columns);
		foreach(lc, matches)
		{
			MdMatch    *match = lfirst(lc);
			int			number = 0;
			ListCell   *c;

			foreach(c, columns)
			{
				number++;
				if (lfirst_int(c) == match->column)
					break;
			}
			renumbered = lappend(renumbered, make_match(match->expr, number, match->op,
														match->key_first));
		}
		matches = renumbered;
	}
	if (!push_matches(engine, query, matches, keys))
		join_keys(query, matches, keys);
}

/* May rows of the block be restricted before it does what it does? */
static bool
may_restrict_by(Query *block, Expr *expr)
{
	switch (md_block_kind(block))
	{
		case MD_BLOCK_LINEAR:
		case MD_BLOCK_DISTINCT:
			break;
		case MD_BLOCK_GROUP:
		case MD_BLOCK_WINDOW:
		case MD_BLOCK_DISTINCT_ON:
			if (!list_member(md_block_keys(block), expr))
				return false;
			break;
		default:
			return false;
	}
	return !expression_returns_set((Node *) expr) && !checkExprHasSubLink((Node *) expr) &&
		!contain_volatile_functions((Node *) expr) && !md_tree_has_outer((Node *) expr);
}

/* The same in all branches of a set operation. */
static bool
apply_to_branches(MdEngine *engine, Query *block, List *matches, MdKeys *keys)
{
	bool		complete = true;
	ListCell   *lc;

	foreach(lc, md_query_branches(block))
	{
		Query	   *branch = lfirst_node(RangeTblEntry, lc)->subquery;
		List	   *same = NIL;
		ListCell   *m;

		foreach(m, matches)
		{
			int			column = castNode(Var, ((MdMatch *) lfirst(m))->expr)->varattno;

			if (exprType((Node *) md_tree_target(branch, column)->expr) ==
				exprType((Node *) md_tree_target(block, column)->expr))
				same = lappend(same, lfirst(m));
		}
		complete = list_length(same) == list_length(matches) &&
			md_keys_apply_columns(engine, branch, same, keys) && complete;
	}
	return complete;
}

bool
md_keys_apply_columns(MdEngine *engine, Query *block, List *matches, MdKeys *keys)
{
	List	   *inside = NIL;
	ListCell   *lc;
	MdBlockKind kind = md_block_kind(block);

	if (kind == MD_BLOCK_UNION_ALL || kind == MD_BLOCK_SET)
		return apply_to_branches(engine, block, matches, keys);
	foreach(lc, matches)
	{
		MdMatch    *match = lfirst(lc);
		Expr	   *expr = md_tree_target(block, castNode(Var, match->expr)->varattno)->expr;

		if (may_restrict_by(block, expr))
			inside = lappend(inside, make_match(expr, match->column, match->op, match->key_first));
	}
	if (inside != NIL)
		md_keys_apply(engine, block, inside, keys);
	return list_length(inside) == list_length(matches);
}

/* ----------------------------------------------------------------------
 * A block's own keys
 * ---------------------------------------------------------------------- */

/* ROW(a, b)::record, whose equality takes NULL as equal to NULL. */
static Expr *
make_record(List *exprs)
{
	RowExpr    *row = makeNode(RowExpr);
	ListCell   *lc;

	foreach(lc, exprs)
	{
		row->args = lappend(row->args, copyObject(lfirst(lc)));
		row->colnames = lappend(row->colnames, makeString(psprintf("f%d", foreach_current_index(lc) + 1)));
	}
	row->row_typeid = RECORDOID;
	row->row_format = COERCE_EXPLICIT_CAST;
	row->location = -1;
	return (Expr *) row;
}

static void
join_keys_as_records(Query *query, List *exprs, MdKeys *keys)
{
	int			rt_index = md_tree_add_registered(query, keys->name, keys->tupdesc);
	List	   *columns = NIL;

	for (int i = 1; i <= keys->tupdesc->natts; i++)
		columns = lappend(columns, md_tree_column(query, rt_index, i));
	md_tree_add_condition(query, (Node *) make_opclause(RECORD_EQ_OP, BOOLOID, false,
														make_record(exprs), make_record(columns),
														InvalidOid, InvalidOid));
}

/* Restrict to the keys that are NULL just where the pattern says. */
static void
apply_pattern(MdEngine *engine, Query *query, List *exprs, MdKeys *keys, Bitmapset *pattern)
{
	List	   *matches = NIL;
	List	   *columns = NIL;
	int			rt_index;
	ListCell   *lc;

	foreach(lc, exprs)
	{
		int			column = foreach_current_index(lc) + 1;

		if (bms_is_member(column, pattern))
			md_tree_add_condition(query, (Node *) md_tree_is_null(copyObject(lfirst(lc)), true));
		else
		{
			matches = lappend(matches, make_match(lfirst(lc), column, NULL, false));
			columns = lappend_int(columns, column);
		}
	}
	if (matches == NIL)
		return;
	if (push_matches(engine, query, matches, keys) && bms_is_empty(pattern))
		return;
	if (list_length(keys->patterns) == 1 && bms_is_empty(pattern))
	{
		join_keys(query, matches, keys);
		return;
	}
	/* the join is with the keys of this pattern alone */
	rt_index = md_tree_add_registered(query, keys->name, keys->tupdesc);
	for (int column = 1; column <= keys->tupdesc->natts; column++)
		md_tree_add_condition(query, (Node *)
							  md_tree_is_null((Expr *) md_tree_column(query, rt_index, column),
											  bms_is_member(column, pattern)));
	foreach(lc, matches)
	{
		MdMatch    *match = lfirst(lc);

		md_tree_add_condition(query, (Node *)
							  match_condition(match, md_tree_column(query, rt_index, match->column)));
	}
}

/* Hidden columns at the end of the target list keep exprs in step with changes. */
static void
carry_exprs(Query *query, List *exprs)
{
	ListCell   *lc;

	foreach(lc, exprs)
		query->targetList = lappend(query->targetList,
									makeTargetEntry(copyObject(lfirst(lc)),
													list_length(query->targetList) + 1,
													pstrdup("?carried?"), true));
}

static List *
take_exprs(Query *query, int count)
{
	List	   *exprs = NIL;

	for (int i = 0; i < count; i++)
	{
		exprs = lcons(llast_node(TargetEntry, query->targetList)->expr, exprs);
		query->targetList = list_delete_last(query->targetList);
	}
	return exprs;
}

List *
md_keys_restrict(MdEngine *engine, Query *query, List *exprs, MdKeys *keys, bool old)
{
	List	   *queries = NIL;
	Query	   *copy = copyObject(query);
	Query	   *state;
	ListCell   *lc;

	carry_exprs(copy, exprs);
	state = md_state_query(engine, copy, old);
	exprs = take_exprs(state, list_length(exprs));
	if (keys->as_records)
	{
		join_keys_as_records(state, exprs, keys);
		return list_make1(state);
	}
	foreach(lc, keys->patterns)
	{
		Query	   *part = copyObject(state);

		apply_pattern(engine, part, copyObject(exprs), keys, lfirst(lc));
		queries = lappend(queries, part);
	}
	return queries;
}

/* ----------------------------------------------------------------------
 * Restricting what the planner would compute whole
 * ---------------------------------------------------------------------- */

static bool
heavy_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		MdBlockKind kind = md_block_kind((Query *) node);

		if (kind != MD_BLOCK_LINEAR && kind != MD_BLOCK_UNION_ALL)
			return true;
		return query_tree_walker((Query *) node, heavy_walker, context, QTW_IGNORE_JOINALIASES);
	}
	return expression_tree_walker(node, heavy_walker, context);
}

/* FROM without an entry; false if others depend on its rows being there. */
static bool
remove_entry(Node **from, int index)
{
	JoinExpr   *join;

	if (!IsA(*from, JoinExpr))
		return false;
	join = (JoinExpr *) *from;
	if (join->jointype != JOIN_FULL && IsA(join->rarg, RangeTblRef) &&
		((RangeTblRef *) join->rarg)->rtindex == index)
	{
		*from = join->larg;
		return true;
	}
	if (join->jointype == JOIN_INNER && IsA(join->larg, RangeTblRef) &&
		((RangeTblRef *) join->larg)->rtindex == index)
	{
		*from = join->rarg;
		return true;
	}
	return remove_entry(&join->larg, index) ||
		(join->jointype == JOIN_INNER && remove_entry(&join->rarg, index));
}

/* The query's FROM and conditions without an entry, selecting exprs. */
static Query *
query_without(Query *query, int index, List *exprs)
{
	Query	   *rest = copyObject(query);
	List	   *terms = md_tree_terms(rest->jointree->quals);
	bool		removed = false;
	ListCell   *lc;

	foreach(lc, rest->jointree->fromlist)
	{
		if (IsA(lfirst(lc), RangeTblRef) && ((RangeTblRef *) lfirst(lc))->rtindex == index)
		{
			rest->jointree->fromlist = foreach_delete_current(rest->jointree->fromlist, lc);
			removed = true;
			break;
		}
		if (remove_entry((Node **) &lfirst(lc), index))
		{
			removed = true;
			break;
		}
	}
	if (!removed)
		return NULL;
	/* conditions of joins, and lateral references, must not miss it */
	if (bms_is_member(index, md_tree_used((Node *) rest->jointree->fromlist)))
		return NULL;
	rest->jointree->quals = NULL;
	foreach(lc, terms)
		if (!bms_is_member(index, md_tree_used(lfirst(lc))) && !checkExprHasSubLink(lfirst(lc)))
			md_tree_add_condition(rest, lfirst(lc));
	md_tree_clear_entry(rt_fetch(index, rest->rtable));
	for (int i = 1; i <= list_length(rest->rtable); i++)
		if (rt_fetch(i, rest->rtable)->rtekind == RTE_SUBQUERY &&
			rt_fetch(i, rest->rtable)->lateral)
			return NULL;
	rest->targetList = NIL;
	foreach(lc, exprs)
		md_tree_add_column(rest, copyObject(lfirst(lc)),
						   psprintf("k%d", foreach_current_index(lc) + 1));
	return rest;
}

/* Restrict one entry to what the rest of the query can meet. */
static void
narrow_entry(MdEngine *engine, Query *query, int index)
{
	RangeTblEntry *rte = rt_fetch(index, query->rtable);
	List	   *exprs = NIL;
	List	   *matches = NIL;
	List	   *terms = NIL;
	Query	   *rest;
	ListCell   *lc;

	collect_terms((Node *) query->jointree, &terms);
	foreach(lc, terms)
	{
		Term	   *term = lfirst(lc);

		if (term->about != NULL && !bms_is_member(index, term->about))
			continue;
		for (int side = 0; side < 2; side++)
		{
			Var		   *var = list_nth(term->op->args, side);
			Expr	   *other = list_nth(term->op->args, 1 - side);
			Bitmapset  *used = md_tree_used((Node *) other);

			if (!IsA(var, Var) || (int) var->varno != index || var->varattno <= 0 ||
				bms_is_empty(used) || bms_is_member(index, used))
				continue;
			exprs = lappend(exprs, other);
			matches = lappend(matches, make_match((Expr *) var, list_length(exprs), term->op, side == 1));
			break;
		}
	}
	if (exprs == NIL)
		return;
	rest = query_without(query, index, exprs);
	if (rest != NULL)
		(void) md_keys_apply_columns(engine, rte->subquery, matches, md_keys_make(engine, rest));
}

void
md_keys_narrow(MdEngine *engine, Query *query, int changed)
{
	Bitmapset  *entries = md_tree_relids((Node *) query->jointree);

	for (int index = -1; (index = bms_next_member(entries, index)) >= 0;)
	{
		RangeTblEntry *rte = rt_fetch(index, query->rtable);

		if (index != changed && rte->rtekind == RTE_SUBQUERY &&
			!md_tree_has_outer((Node *) rte->subquery) &&
			heavy_walker((Node *) rte->subquery, NULL))
			narrow_entry(engine, query, index);
	}
}
