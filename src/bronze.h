/*
 * bronze.h
 *		Stores rows into a streaming table.
 *
 * Rows are buffered and inserted in slices.  The plain case, a heap table
 * without triggers, goes straight to the table's storage with its constraints,
 * generated columns and indexes; everything else goes through INSERT, so that
 * triggers, partitions, rules and identity columns do what they do for any
 * other writer.
 *
 * All functions run inside a transaction, as the owner of the table.
 */
#ifndef MD_BRONZE_H
#define MD_BRONZE_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "storage/block.h"
#include "utils/rel.h"

typedef struct MdBronze MdBronze;

/* Where the rows of a batch lie; has_blocks is false if that is not known. */
typedef struct MdBronzeExtent
{
	bool		has_blocks;
	Oid			filenode;
	BlockNumber first_block;
	BlockNumber last_block;
} MdBronzeExtent;

/* Rows that are buffered at most, as in COPY. */
#define MD_BRONZE_SLICE_ROWS 1000

/* Open a table that the caller has locked; closed with context at the latest. */
extern MdBronze *md_bronze_open(Oid relid, MemoryContext context);
extern void md_bronze_close(MdBronze *bronze);

/* Deferred constraints of a table are checked with each row from now on. */
extern void md_bronze_constraints_immediate(Relation rel);

/*
 * The next row: fill values and isnull with memory of row_context, then put.
 * bytes is the size of what it came from, to bound a slice.
 */
extern void md_bronze_next_row(MdBronze *bronze, Datum **values, bool **isnull);
extern MemoryContext md_bronze_row_context(MdBronze *bronze);
extern void md_bronze_put(MdBronze *bronze, Size bytes);

/* The next row is not put after all, but bytes of row_context were used. */
extern void md_bronze_pass_over(MdBronze *bronze, Size bytes);

extern int	md_bronze_buffered(MdBronze *bronze);
extern bool md_bronze_is_full(MdBronze *bronze);

/* Insert buffered rows [from, to); throws what a row's insertion throws. */
extern void md_bronze_insert(MdBronze *bronze, int from, int to,
							 bool in_subtransaction);

/* Forget the buffered rows and free their memory. */
extern void md_bronze_clear(MdBronze *bronze);

extern const MdBronzeExtent *md_bronze_extent(MdBronze *bronze);

#endif							/* MD_BRONZE_H */
