/*
 * refresh_block.c
 *		The change of a block: of what is not linear, by the keys it touches.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"

#include "refresh_delta.h"
#include "refresh_normal.h"
#include "refresh_target.h"
#include "refresh_top.h"
#include "refresh_tree.h"

/*
 * What stands for columns c1, c2, ... of rows u that are the same: what is handed on
 * of them, what they are grouped by, and their bare names.
 */
static void
net_columns(List *exprs, bool same, StringInfo columns, StringInfo groups, StringInfo names)
{
	int			i = 0;
	ListCell   *lc;

	initStringInfo(columns);
	initStringInfo(groups);
	initStringInfo(names);
	foreach(lc, exprs)
	{
		Node	   *expr = lfirst(lc);
		Oid			type = exprType(expr);
		const char *comma = i++ > 0 ? ", " : "";

		appendStringInfo(names, "%sc%d", comma, i);
		if (md_target_is_comparable(type))
		{
			appendStringInfo(columns, "%su.c%d", comma, i);
			appendStringInfo(groups, "%su.c%d", comma, i);
			if (same && !md_target_equal_is_same(type, exprCollation(expr)))
				appendStringInfo(groups, ", u.c%d::pg_catalog.text", i);
		}
		else
		{
			appendStringInfo(columns, "%s(u.c%d::pg_catalog.text)::%s AS c%d", comma, i,
							 format_type_extended(type, exprTypmod(expr),
												  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
							 i);
			appendStringInfo(groups, "%su.c%d::pg_catalog.text", comma, i);
		}
	}
}

char *
md_delta_net_rows(List *exprs, const char *rows, bool same)
{
	StringInfoData columns;
	StringInfoData groups;
	StringInfoData names;

	net_columns(exprs, same, &columns, &groups, &names);
	return psprintf("SELECT %s, pg_catalog.sum(u." MD_WEIGHT ")::pg_catalog.int8 AS " MD_WEIGHT
					" FROM (%s) u(%s, " MD_WEIGHT ") GROUP BY %s"
					" HAVING pg_catalog.sum(u." MD_WEIGHT ") OPERATOR(pg_catalog.<>) 0",
					columns.data, rows, names.data, groups.data);
}

char *
md_delta_net_text(Query *query, bool is_signed, bool same)
{
	int			width = md_tree_width(query) - (is_signed ? 1 : 0);
	List	   *exprs = NIL;
	StringInfoData columns;
	StringInfoData groups;
	StringInfoData names;

	for (int i = 1; i <= width; i++)
		exprs = lappend(exprs, md_tree_target(query, i)->expr);
	if (is_signed)
		return md_delta_net_rows(exprs, md_delta_text(query), same);
	net_columns(exprs, same, &columns, &groups, &names);
	return psprintf("SELECT %s, 1::pg_catalog.int8 AS " MD_WEIGHT " FROM (%s) u(%s)",
					columns.data, md_delta_text(query), names.data);
}

/* The query's columns, of the types of `like`'s, with a weight behind them. */
static Query *
weighted_like(Query *query, bool is_signed, int weight, Query *like)
{
	int			width = md_tree_width(query) - (is_signed ? 1 : 0);
	Query	   *outer = md_tree_wrap(query, "w");

	for (int i = 1; i <= width; i++)
	{
		TargetEntry *target = md_tree_target(outer, i);
		Node	   *wanted = (Node *) md_tree_target(like, i)->expr;
		Oid			type = exprType((Node *) target->expr);

		if (type != exprType(wanted))
			target->expr = (Expr *) coerce_to_target_type(NULL, (Node *) target->expr, type,
														  exprType(wanted), exprTypmod(wanted),
														  COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	}
	if (!is_signed)
		md_tree_add_column(outer, (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
													 Int32GetDatum(weight), false, true),
						   MD_WEIGHT);
	return outer;
}

/* The change between two states, each given as queries: net, in a relation. */
static void
difference(MdEngine *engine, Query *block, List *now, List *before, MdChange *change)
{
	List	   *queries = NIL;
	StringInfoData columns;
	char	   *name;
	ListCell   *lc;

	foreach(lc, now)
		queries = lappend(queries, weighted_like(lfirst(lc), false, 1, block));
	foreach(lc, before)
		queries = lappend(queries, weighted_like(lfirst(lc), false, -1, block));
	initStringInfo(&columns);
	for (int i = 1; i <= md_tree_width(block); i++)
		appendStringInfo(&columns, "c%d, ", i);
	/* several copies of a row are as many rows of weight one */
	if (md_engine_materialize(engine,
							  psprintf("SELECT %s pg_catalog.sign(n." MD_WEIGHT ")::pg_catalog.int4 AS " MD_WEIGHT
									   " FROM (%s) n, LATERAL medallion.copies(pg_catalog.abs(n." MD_WEIGHT ")) s",
									   columns.data,
									   md_delta_net_text(md_tree_union_all(queries), true, true)),
							  &name, NULL) == 0)
	{
		change->query = NULL;
		return;
	}
	change->query = md_engine_analyze(engine, psprintf("SELECT %s " MD_WEIGHT " FROM %s",
													   columns.data, name));
	change->is_signed = true;
}

MdKeys *
md_delta_touched(MdEngine *engine, Query *block, List *exprs)
{
	MdChange	change;
	Query	   *keys;

	md_delta_linear(engine, md_block_input(block, exprs), &change);
	if (change.query == NULL)
		return NULL;
	keys = md_tree_wrap(change.query, "c");
	keys->targetList = list_truncate(keys->targetList, list_length(exprs));
	return md_keys_make(engine, keys);
}

/* Branches of a set operation, each with its change, under UNION ALL. */
static void
union_change(MdEngine *engine, Query *block, MdChange *change)
{
	List	   *changes = NIL;
	List	   *queries = NIL;
	ListCell   *lc;

	change->query = NULL;
	change->is_signed = false;
	foreach(lc, md_query_branches(block))
	{
		MdChange   *part = palloc0(sizeof(MdChange));

		md_delta_block(engine, lfirst_node(RangeTblEntry, lc)->subquery, part);
		if (part->query == NULL)
			continue;
		change->is_signed |= part->is_signed;
		changes = lappend(changes, part);
	}
	foreach(lc, changes)
	{
		MdChange   *part = lfirst(lc);
		Query	   *query = weighted_like(part->query, part->is_signed, 1, block);

		if (!change->is_signed)
			query->targetList = list_delete_last(query->targetList);
		queries = lappend(queries, query);
	}
	if (queries != NIL)
		change->query = md_tree_union_all(queries);
}

/* A set operation: by its rows, in its branches. */
static void
set_change(MdEngine *engine, Query *block, MdChange *change)
{
	Query	   *wrapped = md_tree_wrap(copyObject(block), "s");
	List	   *exprs = NIL;
	MdChange	rows;
	MdKeys	   *keys;
	ListCell   *lc;

	union_change(engine, block, &rows);
	change->query = NULL;
	if (rows.query == NULL)
		return;
	rows.query = md_tree_wrap(rows.query, "r");
	rows.query->targetList = list_truncate(rows.query->targetList, md_tree_width(block));
	keys = md_keys_make(engine, rows.query);
	if (keys->count == 0)
		return;
	foreach(lc, wrapped->targetList)
		exprs = lappend(exprs, lfirst_node(TargetEntry, lc)->expr);
	difference(engine, block, md_keys_restrict(engine, wrapped, exprs, keys, false),
			   md_keys_restrict(engine, wrapped, exprs, keys, true), change);
}

static void
keyed_change(MdEngine *engine, Query *block, List *exprs, MdChange *change)
{
	MdKeys	   *keys = md_delta_touched(engine, block, exprs);

	change->query = NULL;
	if (keys == NULL || keys->count == 0 || engine->why_full != NULL)
		return;
	difference(engine, block, md_keys_restrict(engine, block, exprs, keys, false),
			   md_keys_restrict(engine, block, exprs, keys, true), change);
}

/* SELECT of what a block shows of kept rows. */
static Query *
shown_rows(MdEngine *engine, const MdTop *top, const char *relation)
{
	return md_engine_analyze(engine, md_top_shown_text(top, relation));
}

/* LIMIT: the first rows as they are now, and by the change of the input as they were. */
static void
top_change(MdEngine *engine, Query *block, MdChange *change)
{
	char	   *why;
	MdTop	   *top = md_top_make(block, true, &why);
	MdChange	input;
	char	   *now;
	char	   *before = NULL;
	MdTopShift	shift;

	if (top == NULL)
	{
		difference(engine, block, list_make1(md_state_query(engine, block, false)),
				   list_make1(md_state_query(engine, block, true)), change);
		return;
	}
	if (top->count == 0)
		return;
	md_delta_linear(engine, md_block_input(block, top->exprs), &input);
	if (input.query == NULL)
		return;
	(void) md_engine_materialize(engine,
								 psprintf("SELECT %s FROM (%s) k(%s)", md_top_columns(top, "k"),
										  md_delta_text(md_state_query(engine, md_top_query(top, block), false)),
										  md_top_columns(top, NULL)),
								 &now, NULL);
	shift = md_top_shift(engine, top, psprintf("SELECT n.* FROM %s n", now), &input, true, true, &before);
	if (shift == MD_TOP_SAME || engine->why_full != NULL)
		return;
	difference(engine, block, list_make1(shown_rows(engine, top, now)),
			   list_make1(shift == MD_TOP_SHIFTED ? shown_rows(engine, top, before) :
						  md_state_query(engine, block, true)), change);
}

void
md_delta_block(MdEngine *engine, Query *block, MdChange *change)
{
	List	   *exprs;

	change->query = NULL;
	change->is_signed = false;
	if (engine->why_full != NULL || !md_engine_changes(engine, block))
		return;
	block = copyObject(block);
	if (block->limitCount == NULL && block->limitOffset == NULL && !block->hasDistinctOn)
		block->sortClause = NIL;
	switch (md_block_kind(block))
	{
		case MD_BLOCK_LINEAR:
			{
				int			width = md_tree_width(block);

				block->targetList = list_truncate(block->targetList, width);
				md_delta_linear(engine, block, change);
				return;
			}
		case MD_BLOCK_UNION_ALL:
			union_change(engine, block, change);
			return;
		case MD_BLOCK_SET:
			set_change(engine, block, change);
			return;
		case MD_BLOCK_LIMIT:
			top_change(engine, block, change);
			return;
		default:
			exprs = md_block_keys(block);
			if (exprs != NIL)
			{
				keyed_change(engine, block, exprs, change);
				return;
			}
			break;
	}
	/* one row, or no key: both states whole */
	difference(engine, block, list_make1(md_state_query(engine, block, false)),
			   list_make1(md_state_query(engine, block, true)), change);
}
