/*
 * refresh_exec_merge.h
 *		Between the files that merge.
 */
#ifndef MD_REFRESH_EXEC_MERGE_H
#define MD_REFRESH_EXEC_MERGE_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_upsert.h"

/* The groups of the change: keys and partial aggregates c1, c2, ... */
#define MD_GROUPS "medallion_groups"

/* A tuplestore that SQL reads by a name. */
typedef struct MdNamedStore
{
	const char *name;
	Tuplestorestate *store;
} MdNamedStore;

extern void md_relation_store(MdNamedStore *named, const char *name, Tuplestorestate *store,
							  TupleDesc tupdesc);
extern void md_relation_read(MdNamedStore *named, const char *name, const char *sql,
							 Snapshot snapshot);
extern void md_relation_forget(MdNamedStore *named);

/* The change of an input; false if there is none, or it cannot be told. */
extern bool md_merge_change(MdRefresh *refresh, Query *input, bool may_be_signed,
							MdPartialSource *source);

/* Rows of a SELECT as keys; NULL if there are none. */
extern MdKeys *md_merge_touched(MdRefresh *refresh, const char *sql);

/* The input as it is now, restricted to keys, which are columns of it; NULL: all of it. */
extern Query *md_merge_restricted(MdRefresh *refresh, Query *input, List *columns, MdKeys *keys);

/* "1, 2, 3" */
extern char *md_number_list(int count);

/* "p.c1, p.c2": the keys of groups, by number. */
extern char *md_merge_key_list(const MdMerge *merge, const char *alias);

/* An upsert of groups into the target, combined with what is there, or in its place. */
extern void md_merge_upsert(const MdMerge *merge, const MdTarget *target, const char *rows,
							bool replace, MdUpsert *upsert);

/*
 * Sort out the groups of a signed change: those to combine, and those to be
 * recomputed, both handed to `apply` as SELECTs.
 */
extern void md_leaving_apply(MdRefresh *refresh, const char *groups,
							void (*apply) (MdRefresh *refresh, const char *groups,
										   const char *recomputed));

#endif							/* MD_REFRESH_EXEC_MERGE_H */
