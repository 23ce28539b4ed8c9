/*
 * stream_partition.h
 *		The partitions of a streaming table, for those who move about in them.
 */
#ifndef MD_STREAM_PARTITION_H
#define MD_STREAM_PARTITION_H

#include "postgres.h"

#include "catalog.h"
#include "kafka_client.h"

/* A partition's checkpoint. */
typedef struct MdStreamPartition
{
	char	   *topic;
	int32		partition;
	int64		start_offset;
	int64		next_offset;
	int64		last_offset;	/* the last record before next_offset; -1: not known */
	int64		last_checksum;	/* of that record, see md_ingest_checksum() */
} MdStreamPartition;

/*
 * All of a table but those of topics that are gone, as committed now; *n of
 * them, in the current memory context.
 */
extern MdStreamPartition *md_stream_partitions(Oid relid, int *n);

/*
 * Where a position (see md_stream_resolve_position) is in each of them; -1 in
 * those that it does not name.
 */
extern int64 *md_stream_partition_offsets(const MdStream *stream, MdKafkaClient *client,
										  const char *argument, const char *position,
										  const MdStreamPartition *partitions, int n);

#endif							/* MD_STREAM_PARTITION_H */
