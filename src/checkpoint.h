/*
 * checkpoint.h
 *		Reads and moves checkpoints, and keeps the bounds of batches.
 *
 * All functions run SQL as the owner of the extension, in the caller's
 * transaction and its present snapshot.
 */
#ifndef MD_CHECKPOINT_H
#define MD_CHECKPOINT_H

#include "postgres.h"
#include "nodes/pg_list.h"

#include "bronze.h"
#include "ingest.h"

/* Make an MdPartition of each checkpoint of the stream, in its context. */
extern void md_checkpoint_load(MdIngestStream *stream);

/*
 * The fence: move each partition from next_offset to batch_next, where the
 * stored value is the expected one and the definition is still the one that
 * the batch was made with.  Partitions that did not move have in_batch
 * cleared.  A paused table does not move, unless paused_too.  The rows stay
 * locked until the transaction ends.
 */
extern void md_checkpoint_advance(List *partitions, bool paused_too, TimestampTz now);

/*
 * Clear in_batch of those partitions whose checkpoint another session has
 * locked, without waiting, and lock the others.
 */
extern void md_checkpoint_find_locked(List *partitions);

/* Corrections to a partition that advanced: dead letters, or a stop before. */
extern void md_checkpoint_correct(const MdPartition *partition);

/* Remember where the rows of a stream's partitions in this batch lie. */
extern void md_checkpoint_record_batch(const MdIngestStream *stream,
									   const MdBronzeExtent *extent, TimestampTz now);

/* Kafka no longer has [next_offset, to): record that and move on. */
extern bool md_checkpoint_record_gap(const MdPartition *partition, int64 to,
									 const char *reason);

/* medallion.lock_holders(), in CurrentMemoryContext; NULL: nobody. */
extern char *md_stream_lock_holders(Oid relid);

/* Trouble of a stream, for its state view; failures 0: none, but perhaps a message. */
extern void md_stream_set_status(Oid relid, const char *topic, int failures,
								 const char *sqlstate, const char *message,
								 TimestampTz retry_at);

/* The same trouble: how often it was tried, and when it is again. */
extern void md_stream_set_retry(Oid relid, const char *topic, int failures,
								TimestampTz retry_at);

#endif							/* MD_CHECKPOINT_H */
