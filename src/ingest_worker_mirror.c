/*
 * ingest_worker_mirror.c
 *		Mirrors progress to the consumer group of a lane, for Kafka's own tools.
 *
 * Commits of a worker are asynchronous, so what was stored is told only when
 * the WAL is flushed up to where it was written.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "ingest_worker.h"

/* A group whose coordinator moves, or is not there yet, is told again after this. */
#define MIRROR_AGAIN_MS 1000

void
md_ingest_mirror(MdLane *lane)
{
	MdKafkaPosition *positions;
	int			n = 0;
	ListCell   *lc;
	ListCell   *lp;

	if (md_kafka_commit_has_failed(lane->client))
		lane->mirror_again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MIRROR_AGAIN_MS);
	if (lane->mirror_again_at != 0 &&
		md_clock_ms_until(GetCurrentTimestamp(), lane->mirror_again_at) == 0)
	{
		lane->mirror_again_at = 0;
		lane->mirror_dirty = true;
	}
	if (lane->mirror_lsn != 0 && GetFlushRecPtr(NULL) >= lane->mirror_lsn)
	{
		positions = palloc0(sizeof(MdKafkaPosition) * Max(1, hash_get_num_entries(lane->partitions)));
		foreach(lc, lane->streams)
			foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
			{
				MdPartition *partition = lfirst(lp);

				if (partition->mirror_offset < 0)
					continue;
				positions[n].topic = partition->topic;
				positions[n].partition = partition->partition;
				positions[n++].offset = partition->mirror_offset;
			}
		md_kafka_commit_async(lane->client, positions, n);
		lane->mirror_lsn = 0;
	}
	if (lane->mirror_lsn == 0 && lane->mirror_dirty)
	{
		foreach(lc, lane->streams)
			foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
				((MdPartition *) lfirst(lp))->mirror_offset = ((MdPartition *) lfirst(lp))->next_offset;
		/* all that we have read or written so far; the WAL writer is told of it */
		lane->mirror_lsn = GetXLogInsertRecPtr();
		XLogSetAsyncXactLSN(lane->mirror_lsn);
		lane->mirror_dirty = false;
	}
}
