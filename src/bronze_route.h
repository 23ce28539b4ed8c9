/*
 * bronze_route.h
 *		Rows of a partitioned table straight to the storage of its partitions.
 */
#ifndef MD_BRONZE_ROUTE_H
#define MD_BRONZE_ROUTE_H

#include "postgres.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

typedef struct MdBronzeRouter MdBronzeRouter;

/*
 * For a partitioned table that the caller has locked.  It has to be closed in
 * the subtransaction that it was opened in; an error takes it along with
 * context.
 */
extern MdBronzeRouter *md_bronze_router_open(Relation root, MemoryContext context);
extern void md_bronze_router_close(MdBronzeRouter *router);

/*
 * Store the rows, grouped by partition.  Throws what a row's insertion throws,
 * and that there is no partition for it.  Returns the slots of those rows that
 * go where only INSERT does all that is to be done: to a partition with row
 * triggers, or to a foreign table.  The list and what is between is allocated
 * in CurrentMemoryContext.
 */
extern List *md_bronze_router_insert(MdBronzeRouter *router, TupleTableSlot **slots, int n);

#endif							/* MD_BRONZE_ROUTE_H */
