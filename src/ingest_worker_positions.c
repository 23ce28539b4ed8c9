/*
 * ingest_worker_positions.c
 *		Positions that Kafka does not have.
 *
 * A next_offset before the first record is a gap, to be recorded or to fail by
 * the table's option; one behind the end tells of another topic.  Reading begins
 * with the last record before next_offset, which proves that the topic is the
 * one we know, and may be what is missing.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "checkpoint.h"
#include "ingest_worker.h"

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

/* What becomes of a stream, by one of its partitions. */
typedef struct Verdict
{
	enum
	{
		GOES_ON,				/* reads on, from next_offset */
		BEGINS_ANEW,			/* at once, from its checkpoints */
		FAILS
	}			kind;
	int			sqlstate;
	char	   *message;
} Verdict;

static Verdict
record_gap(MdPartition *partition, int64 first)
{
	Gap			gap = {partition, first};
	ErrorData  *error = md_ingest_transaction(move_checkpoint, &gap);

	if (error != NULL)
		return (Verdict) {FAILS, error->sqlerrcode, error->message};
	ereport(LOG,
			(errmsg("topic \"%s\" partition %d no longer has offsets %lld to %lld: recorded as a gap",
					partition->topic, partition->partition,
					(long long) partition->next_offset, (long long) first - 1)));
	return (Verdict) {.kind = BEGINS_ANEW};
}

/*
 * A partition was read at an offset that its log did not have; now its offsets
 * are [first, last).
 */
static Verdict
settle_log(MdPartition *partition, int64 first, int64 last)
{
	if (partition->next_offset > last)
		return (Verdict) {FAILS, ERRCODE_DATA_CORRUPTED,
			psprintf("topic \"%s\" partition %d ends at offset %lld, before next_offset %lld: the topic was deleted and made anew, or lost records",
					 partition->topic, partition->partition,
					 (long long) last, (long long) partition->next_offset)};
	/* the record that proves the topic's identity is gone, the next one is not */
	if ((partition->next_offset >= first || partition == partition->stream->witness) &&
		md_ingest_give_up_proof(partition, first))
		return (Verdict) {.kind = GOES_ON};
	/* a log that did not have it and now has it may be another one: prove it */
	if (partition->next_offset >= first)
		return (Verdict) {.kind = BEGINS_ANEW};
	if (partition->stream->def->on_gap_fail)
		return (Verdict) {FAILS, ERRCODE_DATA_CORRUPTED,
			psprintf("topic \"%s\" partition %d no longer has offsets %lld to %lld",
					 partition->topic, partition->partition,
					 (long long) partition->next_offset, (long long) first - 1)};
	return record_gap(partition, first);
}

static Verdict
settle_partition(MdPartition *partition, const MdKafkaSurvey *survey)
{
	int			p = partition->partition;

	partition->out_of_range = false;
	if (p < survey->n_partitions)
		return settle_log(partition, survey->offsets[0][p], survey->offsets[1][p]);
	return (Verdict) {FAILS, ERRCODE_DATA_CORRUPTED,
		psprintf("topic \"%s\" has no partition %d any more: the topic was deleted and made anew",
				 partition->topic, p)};
}

bool
md_ingest_is_out_of_range(const MdIngestStream *stream)
{
	ListCell   *lc;

	if (stream->witness != NULL && stream->witness->out_of_range)
		return true;
	foreach(lc, stream->partitions)
		if (((MdPartition *) lfirst(lc))->out_of_range)
			return true;
	return false;
}

/* The most severe of the verdicts on its partitions is that on the stream. */
static Verdict
settle_stream(MdIngestStream *stream, const MdKafkaSurvey *survey)
{
	Verdict		worst = {.kind = GOES_ON};
	ListCell   *lc;

	if (stream->witness != NULL && stream->witness->out_of_range)
		worst = settle_partition(stream->witness, survey);
	foreach(lc, stream->partitions)
	{
		MdPartition *partition = lfirst(lc);
		Verdict		verdict;

		if (!partition->out_of_range)
			continue;
		verdict = settle_partition(partition, survey);
		if (verdict.kind > worst.kind)
			worst = verdict;
	}
	return worst;
}

void
md_ingest_settle_positions(MdIngestStream *stream, const MdKafkaSurvey *survey)
{
	MdIngestEntry *entry = stream->entry;
	Verdict		verdict = settle_stream(stream, survey);

	if (verdict.kind == GOES_ON)
	{
		md_ingest_assign(stream);
		md_ingest_settle_proofs(stream->lane);
		return;
	}
	md_ingest_stop_entry(entry);
	if (verdict.kind == FAILS)
		md_ingest_note_failure(entry, verdict.sqlstate, verdict.message);
	else
		entry->def = NULL;		/* loaded again, with its checkpoints */
}
