/*
 * late_rows.c
 *		Stores records behind a streaming table's checkpoint.
 *
 * The records become a batch of a lane without a client, whose runs go through
 * md_ingest_store_runs() as md_ingest_attempt() tries them: first in the plain
 * way, then, if that throws what is a record's fault, carefully, as a worker
 * does.
 *
 * Readers find the new rows of a table by offsets: those from the checkpoint
 * they have read up to the present one.  A late row is behind that, where
 * nobody looks again, so its offset is told: medallion.late_batch has the
 * offsets of what a transaction stored late, with its id, and each reader keeps
 * a read point of these (frontier_stream.c).
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "late_rows.h"
#include "stream_state.h"

/* More ranges of offsets than this are told in several rows. */
#define RANGES_PER_ROW 50000

/* Offsets [first, next). */
typedef struct OffsetRange
{
	int64		first;
	int64		next;
} OffsetRange;

/* What was stored of one partition. */
typedef struct LatePartition
{
	MdPartition *partition;
	OffsetRange *stored;		/* in the order in which they came */
	int64		n_stored;
	int64		stored_size;
	int64		rows;
	OffsetRange dead;			/* bounds of those that became dead letters */
	int64		dead_letters;
	bool		has_extent;
	MdBronzeExtent extent;
} LatePartition;

struct MdLateRows
{
	MemoryContext context;
	MdLane		lane;
	MdIngestStream *stream;
	List	   *partitions;		/* of LatePartition */
	LatePartition *last_found;
};

void
md_late_rows_lock(Oid relid, LOCKMODE mode)
{
	Oid			catalog = get_relname_relid("stream", get_namespace_oid("medallion", false));

	LockDatabaseObject(catalog, relid, 0, mode);
}

MdLateRows *
md_late_rows_begin(const MdStream *def, MemoryContext context)
{
	MdLateRows *late;

	context = AllocSetContextCreate(context, "late rows", ALLOCSET_DEFAULT_SIZES);
	late = MemoryContextAllocZero(context, sizeof(MdLateRows));
	late->context = context;
	late->lane.context = context;
	late->lane.batch_context = AllocSetContextCreate(context, "late batch", ALLOCSET_DEFAULT_SIZES);
	late->lane.collects_bad_records = true;
	late->stream = md_ingest_make_stream(def, &late->lane, context);
	return late;
}

/* The record's partition, made at its first record. */
static LatePartition *
find_partition(MdLateRows *late, const MdRecord *record)
{
	MemoryContext old;
	LatePartition *found = late->last_found;
	ListCell   *lc;

	if (found != NULL && found->partition->partition == record->partition &&
		strcmp(found->partition->topic, record->topic) == 0)
		return found;
	foreach(lc, late->partitions)
	{
		found = lfirst(lc);
		if (found->partition->partition == record->partition &&
			strcmp(found->partition->topic, record->topic) == 0)
			return late->last_found = found;
	}
	old = MemoryContextSwitchTo(late->context);
	found = palloc0(sizeof(LatePartition));
	found->partition = palloc0(sizeof(MdPartition));
	found->partition->stream = late->stream;
	found->partition->topic = pstrdup(record->topic);
	found->partition->partition = record->partition;
	found->partition->stuck_at = -1;
	found->stored_size = 16;
	found->stored = palloc(found->stored_size * sizeof(OffsetRange));
	found->dead.first = PG_INT64_MAX;
	late->partitions = lappend(late->partitions, found);
	MemoryContextSwitchTo(old);
	return late->last_found = found;
}

/* Make the records the lane's batch. */
static void
make_batch(MdLateRows *late, MdRecord *records, int n)
{
	MdLane	   *lane = &late->lane;
	MemoryContext old;
	MdRun	   *run = NULL;

	MemoryContextReset(lane->batch_context);
	old = MemoryContextSwitchTo(lane->batch_context);
	lane->records = records;
	lane->n_records = n;
	lane->bad_records = NIL;
	late->stream->runs = NIL;
	late->stream->careful = false;
	for (int i = 0; i < n; i++)
	{
		MdPartition *partition = find_partition(late, &records[i])->partition;

		if (run == NULL || run->partition != partition)
		{
			run = palloc(sizeof(MdRun));
			run->from = i;
			run->partition = partition;
			late->stream->runs = lappend(late->stream->runs, run);
		}
		run->to = i + 1;
	}
	MemoryContextSwitchTo(old);
}

/* One attempt at the batch, and where its rows lie. */
typedef struct LateAttempt
{
	MdLateRows *late;
	MdBronzeExtent extent;
} LateAttempt;

static void
attempt_batch(void *arg)
{
	LateAttempt *attempt = arg;
	MdLateRows *late = attempt->late;
	MdLane	   *lane = &late->lane;
	MemoryContext context = AllocSetContextCreate(lane->batch_context, "late attempt",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MdBatchResult result = {0};

	lane->bad_records = NIL;
	lane->storing = late->stream;
	PushActiveSnapshot(GetTransactionSnapshot());
	md_ingest_store_runs(lane, late->stream, GetCurrentTimestamp(), &result, &attempt->extent);
	PopActiveSnapshot();
	lane->storing = NULL;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Widen a partition's extent by that of the batch. */
static void
note_extent(LatePartition *late, const MdBronzeExtent *extent)
{
	if (!late->has_extent)
	{
		late->extent = *extent;
		late->has_extent = true;
		return;
	}
	late->extent.has_blocks &= extent->has_blocks;
	late->extent.first_block = Min(late->extent.first_block, extent->first_block);
	late->extent.last_block = Max(late->extent.last_block, extent->last_block);
}

/* Note the offset of a row; most come in their order. */
static void
note_offset(LatePartition *late, int64 offset)
{
	if (late->n_stored > 0 && late->stored[late->n_stored - 1].next == offset)
	{
		late->stored[late->n_stored - 1].next++;
		return;
	}
	if (late->n_stored == late->stored_size)
	{
		late->stored_size *= 2;
		late->stored = repalloc_huge(late->stored, late->stored_size * sizeof(OffsetRange));
	}
	late->stored[late->n_stored].first = offset;
	late->stored[late->n_stored++].next = offset + 1;
}

/* The batch is stored: count it. */
static void
note_stored(MdLateRows *late, const MdBronzeExtent *extent)
{
	bool	   *bad = palloc0(late->lane.n_records * sizeof(bool));
	ListCell   *lc;

	foreach(lc, late->lane.bad_records)
		bad[((MdBadRecord *) lfirst(lc))->index] = true;
	for (int i = 0; i < late->lane.n_records; i++)
	{
		LatePartition *partition;

		if (bad[i])
			continue;
		partition = find_partition(late, &late->lane.records[i]);
		note_offset(partition, late->lane.records[i].offset);
		partition->rows++;
		note_extent(partition, extent);
	}
	pfree(bad);
}

List *
md_late_rows_store(MdLateRows *late, MdRecord *records, int n)
{
	LateAttempt attempt = {.late = late};

	make_batch(late, records, n);
	md_ingest_attempt(&late->lane, attempt_batch, &attempt);
	note_stored(late, &attempt.extent);
	return late->lane.bad_records;
}

void
md_late_rows_count_dead(MdLateRows *late, const MdRecord *record)
{
	LatePartition *partition = find_partition(late, record);

	partition->dead.first = Min(partition->dead.first, record->offset);
	partition->dead.next = Max(partition->dead.next, record->offset + 1);
	partition->dead_letters++;
}

/* "{[5,6),[100,102)}" */
static char *
multirange_text(const OffsetRange *ranges, int64 n)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int64 i = 0; i < n; i++)
		appendStringInfo(&text, "%s[" INT64_FORMAT "," INT64_FORMAT ")", i > 0 ? "," : "{",
						 ranges[i].first, ranges[i].next);
	appendStringInfoChar(&text, '}');
	return text.data;
}

/*
 * Nothing but an INSERT, so that an open transaction holds up nobody: neither
 * other requeues nor a worker.  offsets NULL: of dead letters.
 */
static void
insert_batch(Oid relid, const LatePartition *late, OffsetRange bounds, int64 count,
			 const char *offsets)
{
	Oid			argtypes[11] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID,
	OIDOID, INT8OID, INT8OID, TEXTOID};
	bool		placed = offsets != NULL && late->has_extent && late->extent.has_blocks;
	Datum		args[11];

	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(late->partition->topic);
	args[2] = Int32GetDatum(late->partition->partition);
	args[3] = Int64GetDatum(bounds.first);
	args[4] = Int64GetDatum(bounds.next);
	args[5] = Int64GetDatum(offsets != NULL ? count : 0);
	args[6] = Int64GetDatum(offsets != NULL ? 0 : count);
	args[7] = ObjectIdGetDatum(placed ? late->extent.filenode : InvalidOid);
	args[8] = Int64GetDatum(placed ? (int64) late->extent.first_block : -1);
	args[9] = Int64GetDatum(placed ? (int64) late->extent.last_block : -1);
	args[10] = CStringGetTextDatum(offsets != NULL ? offsets : "");
	md_stream_write("INSERT INTO medallion.late_batch (relid, topic, kafka_partition, first_offset, next_offset,"
					"   row_count, dead_count, filenode, first_block, last_block, stored_at, offsets)"
					" VALUES ($1, $2, $3, $4, $5, $6, $7,"
					"   nullif($8, 0), nullif($9, -1), nullif($10, -1), now(), nullif($11, '')::int8multirange)",
					11, argtypes, args);
}

static int
compare_ranges(const void *a, const void *b)
{
	int64		x = ((const OffsetRange *) a)->first;
	int64		y = ((const OffsetRange *) b)->first;

	return x < y ? -1 : x > y;
}

/*
 * Rows were stored behind the checkpoint: keep what all readers of the table
 * learn of them by.
 */
static void
note_late_rows(Oid relid, const LatePartition *late)
{
	OffsetRange *ranges = late->stored;

	qsort(ranges, late->n_stored, sizeof(OffsetRange), compare_ranges);
	for (int64 from = 0; from < late->n_stored; from += RANGES_PER_ROW)
	{
		int64		to = Min(from + RANGES_PER_ROW, late->n_stored);
		OffsetRange bounds = {ranges[from].first, ranges[to - 1].next};
		int64		count = 0;
		char	   *offsets = multirange_text(ranges + from, to - from);

		for (int64 i = from; i < to; i++)
			count += ranges[i].next - ranges[i].first;
		insert_batch(relid, late, bounds, count, offsets);
		pfree(offsets);
	}
	if (late->dead_letters > 0)
		insert_batch(relid, late, late->dead, late->dead_letters, NULL);
}

int64
md_late_rows_end(MdLateRows *late)
{
	int64		rows = 0;
	ListCell   *lc;

	foreach(lc, late->partitions)
	{
		LatePartition *partition = lfirst(lc);

		note_late_rows(late->stream->def->relid, partition);
		rows += partition->rows;
	}
	md_decoder_free(late->stream->decoder);
	MemoryContextDelete(late->context);
	return rows;
}
