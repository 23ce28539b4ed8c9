/*
 * relation_swap.h
 *		Putting the rows of one table in the place of another's, at once.
 */
#ifndef MD_RELATION_SWAP_H
#define MD_RELATION_SWAP_H

#include "postgres.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"

/* An index of the one table and its like of the other. */
typedef struct MdIndexPair
{
	Oid			live;
	Oid			next;
} MdIndexPair;

/*
 * Let everybody see the rows of a table that this transaction has made,
 * whatever their snapshot.
 */
extern void md_relation_freeze(Oid relid);

/* Do two indexes of tables of equal layout differ in name only? */
extern bool md_relation_same_index(Oid live, Oid live_index, Oid next, Oid next_index);

/* An index on a table as another one is on a table of equal layout; InvalidOid if it cannot be. */
extern Oid	md_relation_copy_index(Oid index_id, Oid from, Oid to, const char *suffix);

/*
 * Indexes on `next` like those of `live`, but for those in `except` (of Oid), which
 * its own refresh has made or will make, and those over columns of `lost` (of MdIndexPair).
 */
extern List *md_relation_copy_indexes(Oid live, Oid next, List *except, Bitmapset *lost);

/*
 * Exchange the files of two tables of equal layout; indexes without a partner
 * are rebuilt.  Both are locked, and live has no rows but from this transaction.
 */
extern void md_relation_swap(Oid live, Oid next, List *pairs);

/*
 * Lock a table exclusively; ERRCODE_LOCK_NOT_AVAILABLE if its readers would
 * queue behind us for longer than medallion.swap_lock_timeout.
 */
extern void md_relation_lock_shortly(Oid relid);

#endif							/* MD_RELATION_SWAP_H */
