/*
 * ingest_worker_positions.c
 *		Positions that Kafka does not have.
 *
 * A next_offset before the first record is a gap, to be recorded or to fail by
 * the table's option; one behind the end tells of another topic.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "checkpoint.h"
#include "ingest_worker.h"

/* Requests to Kafka hold up all streams of the worker: they must be short. */
#define REQUEST_TIMEOUT_MS 2000

/* A partition whose records before first are gone. */
typedef struct Gap
{
	MdPartition *partition;
	int64		first;
} Gap;

/* Move a checkpoint past what Kafka no longer has, for md_ingest_transaction(). */
static void
move_checkpoint(void *arg)
{
	const Gap  *gap = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	/* another worker, or a session, may have moved it: we begin anew all the same */
	(void) md_checkpoint_record_gap(gap->partition, gap->first,
									"the records were deleted in Kafka before they were read");
	PopActiveSnapshot();
}

static void
record_gap(MdPartition *partition, int64 first)
{
	Gap			gap = {partition, first};
	ErrorData  *error = md_ingest_transaction(move_checkpoint, &gap);

	if (error != NULL)
	{
		md_ingest_skip(partition->stream, error->sqlerrcode, error->message);
		return;
	}
	ereport(LOG,
			(errmsg("topic \"%s\" partition %d no longer has offsets %lld to %lld: recorded as a gap",
					partition->topic, partition->partition,
					(long long) partition->next_offset, (long long) first - 1)));
	md_ingest_skip(partition->stream, 0, "a gap was recorded");
}

/* Decide what becomes of a partition whose next_offset is not in the log. */
static void
settle_out_of_range(MdLane *lane, MdPartition *partition)
{
	MdIngestStream *stream = partition->stream;
	MdKafkaPosition first = {.topic = partition->topic,.partition = partition->partition};
	MdKafkaPosition last = first;
	MdKafkaError error;

	first.query = MD_KAFKA_EARLIEST;
	last.query = MD_KAFKA_LATEST;
	if (!md_kafka_resolve(lane->asker, &first, 1, REQUEST_TIMEOUT_MS, &error) ||
		!md_kafka_resolve(lane->asker, &last, 1, REQUEST_TIMEOUT_MS, &error))
		md_ingest_skip(stream, ERRCODE_CONNECTION_FAILURE, error.message);
	else if (first.offset < 0 || last.offset < 0)
		md_ingest_skip(stream, ERRCODE_CONNECTION_FAILURE,
					   first.offset < 0 ? first.error.message : last.error.message);
	else if (partition->next_offset > last.offset)
		md_ingest_skip(stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d ends at offset %lld, before next_offset %lld: the topic was deleted and made anew, or lost records",
								partition->topic, partition->partition,
								(long long) last.offset, (long long) partition->next_offset));
	else if (partition->next_offset >= first.offset)
		md_ingest_skip(stream, 0, "the position is in the log again");
	else if (stream->def->on_gap_fail)
		md_ingest_skip(stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d no longer has offsets %lld to %lld",
								partition->topic, partition->partition,
								(long long) partition->next_offset, (long long) first.offset - 1));
	else
		record_gap(partition, first.offset);
}

static void
settle_partition(MdLane *lane, MdPartition *partition)
{
	if (partition == NULL || !partition->out_of_range)
		return;
	partition->out_of_range = false;
	if (!md_ingest_give_up_proof(partition, REQUEST_TIMEOUT_MS))
		settle_out_of_range(lane, partition);
}

void
md_ingest_settle_positions(MdLane *lane)
{
	ListCell   *lc;
	ListCell   *lp;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		settle_partition(lane, stream->witness);
		foreach(lp, stream->partitions)
			settle_partition(lane, lfirst(lp));
	}
	md_ingest_settle_proofs(lane);
}
