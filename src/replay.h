/*
 * replay.h
 *		Reads a range of a topic again and stores what is missing of it.
 */
#ifndef MD_REPLAY_H
#define MD_REPLAY_H

#include "postgres.h"

#include "catalog.h"
#include "kafka_client.h"
#include "offset_set.h"
#include "stream_partition.h"

/* A partition's part of a replay: offsets [from, to). */
typedef struct MdReplayRange
{
	MdStreamPartition checkpoint;
	int64		from;
	int64		to;
	int64		position;		/* read up to here */
	MdOffsetSet *held;			/* in the table or in the dead letters */
	MdOffsetSet *found;			/* missing before, and now stored or a dead letter */
} MdReplayRange;

/*
 * Read the table's topic from one position to another (both in the form of
 * start_at; to_position NULL: to the checkpoint, which it never passes) and
 * store the records that are neither in the table nor in its dead letters.
 * Returns the number of records stored.
 *
 * Runs in: sessions, inside a transaction; the caller has checked who may.
 */
extern int64 md_replay(Oid relid, const char *from_position, const char *to_position);

/*
 * Wait for the client's queue to have something; ERROR if nothing came since
 * last_progress for medallion.kafka_timeout.
 */
extern void md_replay_wait(const MdStream *stream, MdKafkaClient *client,
						   TimestampTz last_progress);

/* replay_topic.c: ERROR if a topic is not the one that the table has read. */
extern void md_replay_prove_topic(const MdStream *stream, const MdStreamPartition *partitions, int n,
								  MemoryContext context);

/* replay_held.c: note in range->held what is there of each range. */
extern void md_replay_find_held(const MdStream *stream, MdReplayRange *ranges, int n,
								MemoryContext context);

/*
 * replay_gaps.c: all of the ranges was read, so what gaps say of them is no
 * longer so; and what lies before the table's start now belongs to it.
 */
extern void md_replay_settle_gaps(Oid relid, const MdReplayRange *ranges, int n);

#endif							/* MD_REPLAY_H */
