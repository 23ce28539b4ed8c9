/*
 * stream_wait.h
 *		Waiting in a session for what the workers store.
 */
#ifndef MD_STREAM_WAIT_H
#define MD_STREAM_WAIT_H

#include "postgres.h"

#include "catalog.h"

/*
 * Wait until the checkpoint of the topic's partition is past offset; false when
 * timeout_ms has passed first.
 *
 * Runs in: sessions, in a READ COMMITTED transaction (ERROR in others, which
 * would not see what they waited for).
 */
extern bool md_stream_wait_for_offset(const MdStream *stream, const char *topic,
									  int32 partition, int64 offset, int64 timeout_ms);

/*
 * Ask Kafka for the end of each partition, then wait until all checkpoints
 * have reached it; both within timeout_ms.
 */
extern bool md_stream_wait_until_caught_up(const MdStream *stream, int64 timeout_ms);

#endif							/* MD_STREAM_WAIT_H */
