/*
 * key_lookup.c
 *		Rows of a heap by their key, looked up one after the other.
 *
 * A scan of an index prunes each page that it comes to and that is more than nine
 * tenths full, which a page of a table with a fillfactor of 90 is from its first
 * update on.  Looked up to be updated, 100,000 of 10 million rows were measured to
 * spend a third of their time on pruning pages that had room for several versions
 * yet.  Here a page is pruned when the next version would not fit on it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "key_lookup.h"

struct MdKeyLookup
{
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc scan;
	Buffer		buffer;			/* the page that was looked at last, pinned */
	int			key_count;
	ScanKeyData keys[INDEX_MAX_KEYS];
};

/* Equality of each column of the index; what is looked for is put in later. */
static void
make_keys(MdKeyLookup *lookup)
{
	Relation	index = lookup->index;

	for (int i = 0; i < lookup->key_count; i++)
	{
		Oid			type = index->rd_opcintype[i];
		Oid			operator = get_opfamily_member(index->rd_opfamily[i], type, type, BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&lookup->keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i], get_opcode(operator), (Datum) 0);
	}
}

MdKeyLookup *
md_key_lookup_begin(Relation rel, Relation index, Snapshot snapshot)
{
	MdKeyLookup *lookup = palloc0(sizeof(MdKeyLookup));

	lookup->rel = rel;
	lookup->index = index;
	lookup->snapshot = snapshot;
	lookup->buffer = InvalidBuffer;
	lookup->key_count = IndexRelationGetNumberOfKeyAttributes(index);
	make_keys(lookup);
	lookup->scan = md_index_beginscan(rel, index, snapshot, lookup->key_count);
	return lookup;
}

/* Go to the page of an entry; make room on it if there is none for a new version. */
static void
go_to_page(MdKeyLookup *lookup, ItemPointer tid, Size room)
{
	Page		page;

	lookup->buffer = ReleaseAndReadBuffer(lookup->buffer, lookup->rel, ItemPointerGetBlockNumber(tid));
	/* read without a lock, as heap_page_prune_opt() does: it is a hint */
	page = BufferGetPage(lookup->buffer);
	if (PageIsFull(page) || PageGetHeapFreeSpace(page) < room)
		heap_page_prune_opt(lookup->rel, lookup->buffer);
}

/* The version of the row at an entry that the snapshot sees; *all_dead: no snapshot sees one. */
static bool
fetch(MdKeyLookup *lookup, ItemPointer tid, TupleTableSlot *found, bool *all_dead)
{
	BufferHeapTupleTableSlot *slot = (BufferHeapTupleTableSlot *) found;
	HeapTuple	tuple = &slot->base.tupdata;
	bool		is_there;

	LockBuffer(lookup->buffer, BUFFER_LOCK_SHARE);
	is_there = heap_hot_search_buffer(tid, lookup->rel, lookup->buffer, lookup->snapshot, tuple, all_dead, true);
	LockBuffer(lookup->buffer, BUFFER_LOCK_UNLOCK);
	if (is_there)
	{
		tuple->t_self = *tid;
		ExecStoreBufferHeapTuple(tuple, found, lookup->buffer);
	}
	return is_there;
}

bool
md_key_lookup(MdKeyLookup *lookup, TupleTableSlot *row, Size room, TupleTableSlot *found)
{
	ItemPointer tid;

	/* its pin would be in the way of pruning */
	ExecClearTuple(found);
	for (int i = 0; i < lookup->key_count; i++)
	{
		bool		isnull;

		lookup->keys[i].sk_argument = slot_getattr(row, lookup->index->rd_index->indkey.values[i], &isnull);
		lookup->keys[i].sk_flags = isnull ? SK_ISNULL | SK_SEARCHNULL : 0;
	}
	index_rescan(lookup->scan, lookup->keys, lookup->key_count, NULL, 0);
	while ((tid = index_getnext_tid(lookup->scan, ForwardScanDirection)) != NULL)
	{
		ItemPointerData place = *tid;
		bool		all_dead;

		go_to_page(lookup, &place, room);
		pgstat_count_heap_fetch(lookup->index);
		if (fetch(lookup, &place, found, &all_dead))
			return true;
		/* as scans do, so that later ones pass over the entry */
		lookup->scan->kill_prior_tuple = all_dead;
	}
	return false;
}

void
md_key_lookup_end(MdKeyLookup *lookup)
{
	index_endscan(lookup->scan);
	if (BufferIsValid(lookup->buffer))
		ReleaseBuffer(lookup->buffer);
	pfree(lookup);
}
