/*
 * stream_start.h
 *		Where a streaming table begins to read: start_at.
 */
#ifndef MD_STREAM_START_H
#define MD_STREAM_START_H

#include "postgres.h"

#include "catalog.h"
#include "kafka_client.h"

/*
 * Check start_at and bring it into one form: "earliest", "latest", a time in
 * UTC, so that the session's time zone no longer matters, or partitions with
 * their offsets as JSON.
 */
extern char *md_stream_start_canonical(const char *start_at, bool is_pattern);

/*
 * What to ask Kafka before md_stream_initialize(), of all partitions of the
 * topic; returns the number of queries, MD_KAFKA_MAX_QUERIES at most.
 */
extern int	md_stream_start_queries(const MdStream *stream, int64 *queries);

/*
 * Make sure that each partition of the topic has a checkpoint, by what Kafka
 * says of it.  The first time all of them start at start_at: the first record
 * at or after a time (the end if there is none), or exactly the given offsets,
 * which must name each partition and lie in its log; and stream->initialized
 * is set, here and in the catalog.  Later, partitions that are new start at
 * their beginning, because nothing in them was there before.  Returns the
 * number of new checkpoints.
 *
 * ERROR when the start is not there, and when stream->generation is not the
 * current one any more.  The table need not be locked while Kafka is asked: the
 * row of the definition is locked and compared before anything is written.
 *
 * Runs in: ingest worker or session, inside a transaction; writes as the owner
 * of the extension.
 */
extern int	md_stream_initialize(MdStream *stream, const MdKafkaSurvey *survey);

/* The same in a session, which asks first; ERROR when Kafka does not answer. */
extern int	md_stream_initialize_now(MdStream *stream, MdKafkaClient *client, int timeout_ms);

/* ERROR unless it has the form of start_at; errors call it by its argument. */
extern void md_stream_check_position(const char *argument, const char *position);

/*
 * A position in the form of start_at, as offsets of the n given partitions
 * (topic and partition are set).  Of partitions that it does not name, which
 * only a list of offsets can do, the offset is -1.
 */
extern void md_stream_resolve_position(const MdStream *stream, MdKafkaClient *client,
									   const char *argument, const char *position,
									   MdKafkaPosition *positions, int n, int timeout_ms);

#endif							/* MD_STREAM_START_H */
