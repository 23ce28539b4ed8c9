/*
 * refresh_normal.h
 *		Queries in the shape that the engine works on: blocks.
 */
#ifndef MD_REFRESH_NORMAL_H
#define MD_REFRESH_NORMAL_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

/*
 * What a block does with the rows of its FROM and WHERE.  At most one of it:
 * a query that does more becomes a block over a block.
 */
typedef enum MdBlockKind
{
	MD_BLOCK_LINEAR,			/* project */
	MD_BLOCK_UNION_ALL,
	MD_BLOCK_GROUP,
	MD_BLOCK_WINDOW,
	MD_BLOCK_DISTINCT,
	MD_BLOCK_DISTINCT_ON,
	MD_BLOCK_SET,				/* UNION, INTERSECT, EXCEPT, and mixtures */
	MD_BLOCK_LIMIT,
	MD_BLOCK_RECURSIVE			/* WITH that could not be inlined */
} MdBlockKind;

extern MdBlockKind md_block_kind(Query *query);

/*
 * Bring the query and all queries in it into that shape, in place; columns
 * keep their numbers, names and types.
 */
extern void md_query_normalize(Query *query);

/* Parts of that (refresh_normal_join.c): make joins below outer joins subqueries,
 * and inner joins a list. */
extern void md_normal_move_joins(Query *query);
extern void md_normal_list_joins(Query *query);

/* References to rows of subqueries, as a whole, become columns of these. */
extern void md_normal_name_rows(Query *query);

/*
 * The column of a subquery, entry 1 of FROM, that gives expr, which is of the
 * subquery's own level: as a reference from `level` levels below the query.
 */
extern Var *md_normal_column(Query *inner, Expr *expr, int level);

/* Window functions without keys in common, in layers (refresh_normal_window.c). */
extern void md_normal_split_windows(Query *query);

/* A window function of the query without PARTITION BY; NULL: there is none. */
extern WindowFunc *md_normal_find_unpartitioned(Query *query);

/*
 * Expressions over the FROM of the block (of Expr), such that rows of its
 * output depend only on input rows with the same values.  NIL: there are none.
 * Not for blocks that are linear or set operations.
 */
extern List *md_block_keys(Query *query);

/*
 * The block's rows before what it does with them: FROM, WHERE and exprs as
 * columns, and behind them whatever of the block holds subqueries.
 */
extern Query *md_block_input(Query *query, List *exprs);

/* Subqueries of an expression, outermost first (of SubLink). */
extern List *md_query_sublinks(Node *expr);

/* Leaves of a set operation (of RangeTblEntry). */
extern List *md_query_branches(Query *query);

#endif							/* MD_REFRESH_NORMAL_H */
