/*
 * ingest_proof.c
 *		Is the topic the one that was read before?
 *
 * Kafka's clients cannot tell a topic from one that was deleted and made anew
 * under its name.  So a checkpoint remembers the last record before it, and
 * whoever begins to read the partition reads that record first.
 *
 * A partition of which no record is known (it was empty, or a gap ends at its
 * checkpoint) proves nothing.  It is not read before those that do have been
 * compared: a new topic's records would be stored until another partition
 * tells.  A worker whose share has no proof at all reads one partition of
 * another's share as a witness, for that record alone.
 *
 *	  add: partitions with a proof, or a witness -> compared -> all others
 *
 * What proves nothing any more, because Kafka has deleted the record, holds up
 * nobody.
 */
#include "postgres.h"

#include "ingest.h"
#include "key_hash.h"

int64
md_ingest_checksum(const MdRecord *record)
{
	uint64		hash = md_key_xxh64(record->key_len > 0 ? record->key : "", record->key_len,
									(uint64) record->timestamp_ms);

	return (int64) md_key_xxh64(record->payload_len > 0 ? record->payload : "",
								record->payload_len, hash);
}

void
md_ingest_prove(MdPartition *partition, const MdRecord *record)
{
	if (!partition->proving)
		return;
	partition->proving = false;
	if (record->offset == partition->last_offset &&
		md_ingest_checksum(record) != partition->last_checksum)
		md_ingest_skip(partition->stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d has another record at offset %lld than was read before: the topic was deleted and made anew",
								partition->topic, partition->partition,
								(long long) record->offset));
}

bool
md_ingest_give_up_proof(MdPartition *partition, int64 first)
{
	/* at the end of the topic, or behind it: to read on could mix two topics */
	if (!partition->proving || first <= partition->last_offset)
		return false;
	partition->proving = false;
	md_ingest_unassign(partition);
	return true;
}

bool
md_ingest_is_proving(const MdIngestStream *stream)
{
	ListCell   *lc;

	if (stream->witness != NULL && stream->witness->proving)
		return true;
	foreach(lc, stream->partitions)
		if (((MdPartition *) lfirst(lc))->proving)
			return true;
	return false;
}

void
md_ingest_choose_witness(MdIngestStream *stream, List *others)
{
	bool		is_needed = false;
	ListCell   *lc;

	foreach(lc, stream->partitions)
	{
		if (((MdPartition *) lfirst(lc))->proving)
			return;
		is_needed = true;
	}
	if (!is_needed)
		return;
	foreach(lc, others)
		if (((MdPartition *) lfirst(lc))->proving)
			stream->witness = lfirst(lc);
}

void
md_ingest_settle_proofs(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (!stream->waits || stream->skipped || md_ingest_is_proving(stream))
			continue;
		md_ingest_dismiss_witness(stream);
		md_ingest_assign(stream);
	}
}
