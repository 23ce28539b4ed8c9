/*
 * stream_partition.c
 *		The partitions of a streaming table, for those who move about in them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "settings.h"
#include "sql_run.h"
#include "stream_partition.h"
#include "stream_start.h"

MdStreamPartition *
md_stream_partitions(Oid relid, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	MdStreamPartition *partitions;
	MdSqlArgs	args = {0};
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	*n = (int) md_sql_run("SELECT c.topic, c.kafka_partition, c.start_offset, c.next_offset,"
						  "       coalesce(c.last_offset, -1), coalesce(c.last_checksum, 0)"
						  "  FROM medallion.checkpoint c WHERE c.relid = $1"
						  "   AND NOT EXISTS (SELECT FROM medallion.stream_topic t"
						  "                    WHERE t.relid = $1 AND t.topic = c.topic AND t.gone_at IS NOT NULL)"
						  " ORDER BY c.topic, c.kafka_partition", &args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	partitions = palloc(sizeof(MdStreamPartition) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;

		partitions[i].topic = md_sql_string(i, 1);
		partitions[i].partition = DatumGetInt32(md_sql_datum(i, 2, &isnull));
		partitions[i].start_offset = md_sql_int64(i, 3);
		partitions[i].next_offset = md_sql_int64(i, 4);
		partitions[i].last_offset = md_sql_int64(i, 5);
		partitions[i].last_checksum = md_sql_int64(i, 6);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return partitions;
}

int64 *
md_stream_partition_offsets(const MdStream *stream, MdKafkaClient *client,
							const char *argument, const char *position,
							const MdStreamPartition *partitions, int n)
{
	MdKafkaPosition *positions = palloc0(sizeof(MdKafkaPosition) * Max(n, 1));
	int64	   *offsets = palloc(sizeof(int64) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		positions[i].topic = partitions[i].topic;
		positions[i].partition = partitions[i].partition;
	}
	md_stream_resolve_position(stream, client, argument, position, positions, n,
							   md_kafka_timeout_ms);
	for (int i = 0; i < n; i++)
		offsets[i] = positions[i].offset;
	return offsets;
}
