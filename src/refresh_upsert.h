/*
 * refresh_upsert.h
 *		Rows into a table by their key: updated where the key is there.
 */
#ifndef MD_REFRESH_UPSERT_H
#define MD_REFRESH_UPSERT_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "refresh_target.h"
#include "view_state.h"

typedef struct MdUpsert
{
	const MdTarget *target;
	List	   *keys;			/* of int: columns; NIL: the one row that there is */
	const char *rows;			/* SELECT of rows as the target's, a row per key */
	const char *set;			/* "a = t.a + excluded.a, ..."; NULL: leave it */
	const char *where;			/* rows t to update for excluded; NULL: all */
	/*
	 * The same with several rows of a key, of which the first counts; NULL: no such.
	 * `where` is then to tell whether one comes before what is there.
	 */
	const char *all_rows;
	List	   *order;			/* of MdOrder: numbers of columns */
} MdUpsert;

/* Count rows into run.  Reads under the snapshot. */
extern void md_upsert_run(const MdUpsert *upsert, Snapshot snapshot, MdRun *run);

/*
 * Rows that were written, into a store: columns `returning` of t, and a boolean
 * that tells inserted rows.  Reads its own writes and registered relations only:
 * what it sees of sources is not defined.
 */
extern Tuplestorestate *md_upsert_store(const MdUpsert *upsert, const char *returning,
										TupleDesc *tupdesc);

/*
 * Conditions "row a is row b by its key" that an index or a hash can serve; NULL
 * keys meet only in the second.  b's columns are named by the list b_names.
 */
extern char *md_upsert_match(const MdTarget *target, List *keys, const char *a,
							 const char *b, const char *const *b_names, bool null_keys);

/* Is there a NULL among the columns "a, b" of a registered relation? */
extern bool md_upsert_has_null(const char *relation, const char *const *names, int count,
							   Snapshot snapshot);

/*
 * Run a function in a subtransaction; false, with nothing done, if it failed because
 * a key was too long for an index.
 */
extern bool md_upsert_fits(void (*function) (void *), void *arg);

/*
 * Run a function that writes to the target, whose index over keys may turn out too
 * small: false, with nothing done and a wider index made, and it has to be run again.
 */
extern bool md_upsert_try(const MdTarget *target, List *keys, void (*function) (void *), void *arg);

/* Are keys found by their hash? Then this is the condition that the index serves. */
extern bool md_upsert_is_hashed(const MdTarget *target);
extern char *md_upsert_hash_match(const MdTarget *target, List *keys, const char *a, const char *other);

/*
 * The index by which keys are found; its OID, InvalidOid if the owner made it.
 * strict: unique, or an error.
 */
extern Oid	md_upsert_ensure_index(Oid relid, Oid present, List *keys, bool strict);

/* An index over a hash of keys, of which several rows may have the same. */
extern Oid	md_upsert_ensure_hash(Oid relid, Oid present, List *keys);

#endif							/* MD_REFRESH_UPSERT_H */
