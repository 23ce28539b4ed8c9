/*
 * refresh_order.h
 *		ORDER BY as pieces of SQL.
 */
#ifndef MD_REFRESH_ORDER_H
#define MD_REFRESH_ORDER_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/* One expression that rows are sorted by. */
typedef struct MdOrder
{
	int			input;			/* number of the expression, from 1 */
	Oid			sort_operator;	/* < or >, of its type */
	Oid			equal_operator;
	bool		nulls_first;
} MdOrder;

extern MdOrder *md_order_make(int input, const SortGroupClause *clause);

/* "a USING < NULLS LAST, b USING > NULLS FIRST": names by input - 1. */
extern char *md_order_by(List *order, char **names);

/* "row a comes before row b", names likewise; NULL or false where it does not. */
extern char *md_order_before(List *order, char **a, char **b);

/* Names c1, c2, ... after an alias, for that. */
extern char **md_order_names(int count, const char *alias, char prefix);

#endif							/* MD_REFRESH_ORDER_H */
