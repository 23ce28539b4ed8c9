/*
 * key_lookup.h
 *		Rows of a heap by their key, looked up one after the other.
 */
#ifndef MD_KEY_LOOKUP_H
#define MD_KEY_LOOKUP_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

typedef struct MdKeyLookup MdKeyLookup;

/* Look up in `rel`, which is a heap, through a btree over plain columns, by what the snapshot sees. */
extern MdKeyLookup *md_key_lookup_begin(Relation rel, Relation index, Snapshot snapshot);

/*
 * The row whose columns of the index equal those of `row`, where NULL equals NULL, in
 * `found`, a slot of the table; false: there is none.  `room`: bytes that a new
 * version of it may take.
 */
extern bool md_key_lookup(MdKeyLookup *lookup, TupleTableSlot *row, Size room, TupleTableSlot *found);

extern void md_key_lookup_end(MdKeyLookup *lookup);

#endif							/* MD_KEY_LOOKUP_H */
