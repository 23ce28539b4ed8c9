/*
 * ingest_take.c
 *		What a client's queue holds becomes a batch: runs of records of one
 *		partition, and how far each partition was read.
 *
 * Nothing here needs a transaction, and nothing is stored: a batch that is
 * abandoned is read again from the checkpoints.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "ingest.h"

/* Sort an event of the client's into its partition, or into *errors. */
static void
note_event(MdLane *lane, MdKafkaEvent *event, List **errors)
{
	MdPartition *partition = NULL;

	if (event->topic != NULL)
		partition = md_ingest_find_partition(lane, event->topic, event->partition);
	switch (event->kind)
	{
		case MD_KAFKA_EVENT_EOF:
			if (partition != NULL)
			{
				partition->alive = true;
				/* the end comes before what we have read */
				if (event->offset < partition->next_offset)
					partition->out_of_range = true;
				else
					partition->eof_offset = event->offset;
			}
			break;
		case MD_KAFKA_EVENT_OUT_OF_RANGE:
			if (partition != NULL)
				partition->out_of_range = true;
			break;
		case MD_KAFKA_EVENT_BROKER:
		case MD_KAFKA_EVENT_ERROR:
			*errors = lappend(*errors, event);
			break;
	}
}

/* A partition has something in this batch. */
static void
note_taken(MdLane *lane, MdPartition *partition)
{
	if (partition->taken)
		return;
	partition->taken = true;
	partition->taken_next = partition->next_offset;
	partition->taken_last_offset = -1;
	partition->n_records = 0;
	partition->max_timestamp_ms = -1;
	lane->taken = lappend(lane->taken, partition);
}

/* Put record i into its partition's run; records that we have are left out. */
static void
note_record(MdLane *lane, int i)
{
	MdRecord   *record = &lane->records[i];
	MdPartition *partition = md_ingest_find_partition(lane, record->topic, record->partition);
	MdRun	   *run;

	if (partition == NULL)
		return;
	partition->alive = true;
	md_ingest_prove(partition, record);
	if (partition == partition->stream->witness)
		return;
	if (record->offset < (partition->taken ? partition->taken_next : partition->next_offset))
		return;
	note_taken(lane, partition);
	run = partition->stream->runs == NIL ? NULL : llast(partition->stream->runs);
	if (run == NULL || run->partition != partition || run->to != i)
	{
		run = palloc(sizeof(MdRun));
		run->from = i;
		run->partition = partition;
		partition->stream->runs = lappend(partition->stream->runs, run);
	}
	run->to = i + 1;
	partition->taken_last_offset = record->offset;
	partition->taken_last = i;
	partition->taken_next = record->offset + 1;
	partition->n_records++;
	partition->max_timestamp_ms = Max(partition->max_timestamp_ms, record->timestamp_ms);
}

/*
 * Offsets that a transaction marker or compaction took leave no record: what
 * an end-of-partition event told moves the checkpoint past them.
 */
static void
note_ends(MdLane *lane)
{
	ListCell   *lc;
	ListCell   *lp;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		foreach(lp, stream->partitions)
		{
			MdPartition *partition = lfirst(lp);
			int64		position = partition->taken ? partition->taken_next : partition->next_offset;

			/* no record came before the end: it is not there to be compared */
			if (partition->eof_offset >= 0)
				partition->proving = false;
			if (partition->eof_offset > position)
			{
				note_taken(lane, partition);
				partition->taken_next = partition->eof_offset;
			}
			partition->eof_offset = -1;
		}
		if (stream->witness != NULL && stream->witness->eof_offset >= 0)
			stream->witness->proving = false;
	}
}

bool
md_ingest_take(MdLane *lane, int max_records, bool *drained, List **errors)
{
	MemoryContext old = MemoryContextSwitchTo(lane->batch_context);
	List	   *events;
	ListCell   *lc;

	*errors = NIL;
	lane->behind = false;
	lane->n_records = md_kafka_take(lane->client, &lane->records,
									Min(max_records, lane->batch_max_records),
									lane->batch_max_bytes, &events, drained);
	foreach(lc, events)
		note_event(lane, lfirst(lc), errors);
	for (int i = 0; i < lane->n_records; i++)
		note_record(lane, i);
	if (events != NIL)
		note_ends(lane);
	md_ingest_settle_proofs(lane);
	foreach(lc, lane->taken)
	{
		MdPartition *partition = lfirst(lc);
		int64		high = md_kafka_high_watermark(lane->client, partition->topic,
												   partition->partition);

		if (partition->taken_last_offset >= 0)
			partition->taken_last_checksum = md_ingest_checksum(&lane->records[partition->taken_last]);
		if (high < 0)
			continue;
		partition->high_watermark = high;
		lane->behind |= partition->taken_next < high;

		/*
		 * A checkpoint beyond the end would lose what is yet to come.  Records
		 * are no proof of that: a broker tells the end as it was before it
		 * read them.
		 */
		if (partition->taken_next > Max(high, partition->taken_last_offset + 1))
			md_ingest_skip(partition->stream, ERRCODE_DATA_CORRUPTED,
						   psprintf("topic \"%s\" partition %d was read up to offset %lld, beyond its end %lld",
									partition->topic, partition->partition,
									(long long) partition->taken_next, (long long) high));
	}
	MemoryContextSwitchTo(old);
	return lane->taken != NIL;
}
