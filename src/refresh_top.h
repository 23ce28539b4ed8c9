/*
 * refresh_top.h
 *		The first rows of a query by an order: ORDER BY ... LIMIT.
 */
#ifndef MD_REFRESH_TOP_H
#define MD_REFRESH_TOP_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

#include "refresh_delta.h"

/*
 * Columns of a kept row are what the query shows and what else it is sorted by, as
 * they stand in its target list.
 */
typedef struct MdTop
{
	List	   *exprs;			/* of Expr over the FROM of the block, a column each */
	List	   *shown;			/* of int: those that the query shows */
	List	   *order;			/* of MdOrder */
	int64		skip;			/* OFFSET */
	int64		count;			/* LIMIT */
	int64		spare;			/* rows kept beyond these */
	bool		with_ties;
	bool		is_inexact;		/* floating-point aggregates: the same row may come out otherwise */
} MdTop;

/*
 * What is to be known of a normalized block with LIMIT or OFFSET; NULL with *why if
 * its first rows are not kept.  is_signed: rows may leave its FROM.
 */
extern MdTop *md_top_make(Query *block, bool is_signed, char **why);

/* Rows before which there must be no other, and rows that are kept if there are so many. */
extern int64 md_top_needed(const MdTop *top);
extern int64 md_top_kept(const MdTop *top);

/* Are more rows or columns kept than the query shows? */
extern bool md_top_has_state(const MdTop *top);

/* The query, or its block, such that it gives the rows that are kept. */
extern Query *md_top_query(const MdTop *top, Query *query);

/* "k.c1, k.c2": all columns of a kept row; alias may be NULL. */
extern char *md_top_columns(const MdTop *top, const char *alias);

/* SELECT of what the query shows of kept rows, FROM a relation with columns c1, ... */
extern char *md_top_shown_text(const MdTop *top, const char *relation);

/* How a change shifts the first rows. */
typedef enum MdTopShift
{
	MD_TOP_SAME,				/* the change is behind them */
	MD_TOP_SHIFTED,
	MD_TOP_SHORT,				/* too few are left, and others not known */
	MD_TOP_LOST					/* rows that went were not among them */
} MdTopShift;

/*
 * Carry a change of the block's input into kept rows (SELECT of c1, c2, ...), or if
 * `back` take it out of them; *name is a relation of the rows that are to be kept then.
 * same: equal rows must be the same.
 */
extern MdTopShift md_top_shift(MdEngine *engine, const MdTop *top, const char *kept, MdChange *change,
							   bool back, bool same, char **name);

#endif							/* MD_REFRESH_TOP_H */
