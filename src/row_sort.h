/*
 * row_sort.h
 *		Rows of a table in the order of one of its indexes, the first of each key.
 */
#ifndef MD_ROW_SORT_H
#define MD_ROW_SORT_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

/* A column by which rows of the same key are sorted. */
typedef struct MdSortColumn
{
	AttrNumber	attnum;
	Oid			operator;		/* < or > of its type */
	bool		nulls_first;
} MdSortColumn;

typedef struct MdRowSort MdRowSort;

/*
 * Sort rows of a shape by the columns of a btree, which are plain ones, and those of a
 * key by `then`, a list of MdSortColumn.
 */
extern MdRowSort *md_row_sort_begin(TupleDesc desc, Relation index, List *then);

/* Where the rows that are put in are to be allocated. */
extern MemoryContext md_row_sort_context(MdRowSort *sort);

/* Put a row in; false: the rows take more than `limit` bytes by now. */
extern bool md_row_sort_put(MdRowSort *sort, HeapTuple row, Size limit);

/* No more are put in. */
extern void md_row_sort_perform(MdRowSort *sort);

/* The first row of the next key, NULL being a key like others; NULL: there is none. */
extern HeapTuple md_row_sort_next(MdRowSort *sort);

/* Forget all rows. */
extern void md_row_sort_reset(MdRowSort *sort);

extern void md_row_sort_end(MdRowSort *sort);

#endif							/* MD_ROW_SORT_H */
