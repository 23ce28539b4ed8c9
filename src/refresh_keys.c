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
#include "refresh_match.h"
#include "refresh_normal.h"
#include "refresh_tree.h"
#include "sql_run.h"

/* With more patterns than this, records are compared. */
#define MAX_PATTERNS 8

/* "k1, k2, ...", of an alias if there is one. */
static char *
key_columns(const char *alias, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%s%s%sk%d", i > 1 ? ", " : "", alias ? alias : "", alias ? "." : "", i);
	return list.data;
}

char *
md_keys_columns(const MdKeys *keys, const char *alias)
{
	return key_columns(alias, keys->tupdesc->natts);
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
	MdStepKind	step = md_step(engine->steps, MD_STEP_KEYS);

	keys->count = md_engine_materialize(engine, sql, &keys->name, &keys->tupdesc);
	md_step_rows(engine->steps, MD_STEP_KEYS, keys->count);
	if (keys->count > 0)
		load_patterns(engine, keys);
	(void) md_step(engine->steps, step);
	return keys;
}

MdKeys *
md_keys_make(MdEngine *engine, Query *query)
{
	char	   *columns = key_columns(NULL, md_tree_width(query));

	return make_keys(engine, psprintf("SELECT DISTINCT %s FROM (%s) q(%s)", columns,
									  md_delta_text(query), columns));
}

/* Some columns of keys (of int), each combination without NULLs once. */
MdKeys *
md_keys_project(MdEngine *engine, MdKeys *keys, List *columns)
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
			matches = lappend(matches, md_match_make(lfirst(lc), column, NULL, false));
			columns = lappend_int(columns, column);
		}
	}
	if (matches == NIL)
		return;
	if (md_match_push(engine, query, matches, keys) && bms_is_empty(pattern))
		return;
	if (list_length(keys->patterns) == 1 && bms_is_empty(pattern))
	{
		md_match_join(query, matches, keys);
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
							  md_match_condition(match, md_tree_column(query, rt_index, match->column)));
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
