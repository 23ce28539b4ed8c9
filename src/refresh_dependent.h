/*
 * refresh_dependent.h
 *		Columns that GROUP BY of a primary key determines.
 */
#ifndef MD_REFRESH_DEPENDENT_H
#define MD_REFRESH_DEPENDENT_H

#include "postgres.h"
#include "nodes/parsenodes.h"

/* Group by such columns, too, in the query and in all queries in it. */
extern void md_query_group_dependent(Query *query);

/* Is there one left, of a type that cannot be grouped by? */
extern bool md_query_has_dependent(Query *query);

#endif							/* MD_REFRESH_DEPENDENT_H */
