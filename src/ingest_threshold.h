/*
 * ingest_threshold.h
 *		Pauses a streaming table when too many of its records are bad.
 */
#ifndef MD_INGEST_THRESHOLD_H
#define MD_INGEST_THRESHOLD_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* Fewer records than these say nothing about a ratio. */
#define MD_THRESHOLD_MIN_RECORDS 100

#define MD_THRESHOLD_SLOTS 10

/* What a stream read in the window, by tenths of it. */
typedef struct MdThresholdWindow
{
	struct
	{
		int64		number;		/* time since 2000 / length of a slot */
		int64		records;
		int64		dead_letters;
	}			slots[MD_THRESHOLD_SLOTS];
} MdThresholdWindow;

struct MdIngestStream;

/*
 * With what the batch under way stores of the stream, is the ratio of dead
 * letters above the stream's limit?  Then pause the table, in the transaction
 * of the batch.
 */
extern void md_ingest_threshold_check(struct MdIngestStream *stream, TimestampTz now);

/* The batch was stored: count it. */
extern void md_ingest_threshold_count(struct MdIngestStream *stream);

#endif							/* MD_INGEST_THRESHOLD_H */
