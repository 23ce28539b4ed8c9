/*
 * refresh_settle.h
 *		One answer for queries of which rows that tie make several.
 */
#ifndef MD_REFRESH_SETTLE_H
#define MD_REFRESH_SETTLE_H

#include "postgres.h"
#include "nodes/parsenodes.h"

/* Make orders total, in the query and in all queries in it. */
extern void md_query_settle(Query *query);

/*
 * Do the windows of a query of the plan, itself alone, give one answer whatever the order
 * in which its rows come?
 */
extern bool md_settle_is_certain(Query *query);

#endif							/* MD_REFRESH_SETTLE_H */
