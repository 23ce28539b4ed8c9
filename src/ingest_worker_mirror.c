/*
 * ingest_worker_mirror.c
 *		Mirrors progress to the consumer group of a lane, for Kafka's own tools.
 *
 * Commits of a worker are asynchronous, so what was stored is told only when
 * the WAL is flushed up to where it was written.
 */
#include "postgres.h"

#include "access/xlog.h"

#include "ingest_worker.h"

void
md_ingest_mirror(MdLane *lane)
{
	MdKafkaPosition *positions;
	int			n = 0;
	ListCell   *lc;
	ListCell   *lp;

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
