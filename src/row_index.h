/*
 * row_index.h
 *		The index of a result by a hash of the whole row.
 */
#ifndef MD_ROW_INDEX_H
#define MD_ROW_INDEX_H

#include "postgres.h"

#include "refresh_target.h"

/* The index of a result; InvalidOid: none. */
extern Oid	md_row_index_find(Oid relid);

/* Make the index unless it is there, as the owner of the result. */
extern void md_row_index_ensure(const MdTarget *target);

/*
 * Condition that the index serves, "hash of row r of the table = hash of row n
 * with columns c1, c2, ..."; it holds for rows that are equal, and others.
 */
extern char *md_row_index_condition(const MdTarget *target, const char *row, const char *numbered);

/* About how many rows the table has. */
extern int64 md_row_index_rows(const MdTarget *target);

#endif							/* MD_ROW_INDEX_H */
