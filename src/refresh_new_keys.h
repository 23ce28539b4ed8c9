/*
 * refresh_new_keys.h
 *		Rows whose key is not in a table yet, straight to storage.
 */
#ifndef MD_REFRESH_NEW_KEYS_H
#define MD_REFRESH_NEW_KEYS_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "refresh_upsert.h"

typedef struct MdNewKeys
{
	int64		inserted;
	Tuplestorestate *others;	/* rows whose key may be there, in the order of keys */
	TupleDesc	tupdesc;
} MdNewKeys;

/*
 * Insert the rows of an upsert whose key is new, and hand the others back.  False, with
 * nothing done, for a table where INSERT would do more than that.
 */
extern bool md_new_keys_insert(const MdUpsert *upsert, Oid index_id, Snapshot snapshot,
							   MdNewKeys *result);

#endif							/* MD_REFRESH_NEW_KEYS_H */
