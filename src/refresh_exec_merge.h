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

/* Rows of the target as they are after the merge: its columns and tid. */
#define MD_MERGED "medallion_merged"

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

/* The result as a query over the whole state table, or a relation like it. */
extern char *md_merge_final_query(const MdMerge *merge, const MdTarget *state, const char *relation);

/* refresh_exec_sets.c */

/* Carry merged groups to a result in which several may have the same keys. */
extern void md_sets_carry(MdRefresh *refresh, const MdTarget *state);

/* SELECT of the state's rows of some keys (columns `numbers`), with their ctid as tid. */
extern char *md_sets_rows(MdRefresh *refresh, const MdTarget *state, List *numbers, MdKeys *keys);

/* SELECT of the groups of these keys, made of the rows that there are now. */
extern char *md_sets_recomputed(MdRefresh *refresh, MdKeys *touched);

/* refresh_exec_values.c */

/* Is the column a count, and so never NULL? */
extern bool md_merge_is_count(const MdMergeColumn *column);

/* Rows of a value set's table from rows of the input: keys, value [, copies]. */
extern char *md_values_rows(const MdMerge *merge, const MdValueSet *set, const char *rows,
							bool rows_signed);

/*
 * SELECT of keys c<n> and of what the columns of a value set gain, c<m>, from
 * values v with a column `gain` of 1 for each that came and -1 for each that went.
 */
extern char *md_values_gains(const MdMerge *merge, int value_set, const char *from);

/* Take the rows into a value set's table; the gains as a relation. */
extern void md_values_apply(MdRefresh *refresh, int value_set, const char *rows, bool rows_signed,
							MdNamedStore *gains);

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
