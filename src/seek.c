/*
 * seek.c
 *		Moves a streaming table's checkpoints forward.
 *
 * Under a lock on the table that keeps batches out, checkpoints jump and the
 * definition gets a new generation: a worker that holds records of before finds
 * both changed at its next batch, stores nothing of them, and begins anew at
 * the new checkpoint.
 *
 * Nothing is known of the record before the new checkpoint, so nobody could tell
 * later that the topic was deleted and made anew: that is looked at here.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "kafka_client.h"
#include "replay.h"
#include "seek.h"
#include "server.h"
#include "settings.h"
#include "stream_partition.h"
#include "stream_start.h"
#include "stream_state.h"
#include "stream_table.h"

/* Move one checkpoint, and record what it passes over. */
static void
move_checkpoint(Oid relid, const MdStreamPartition *partition, int64 offset)
{
	Oid			argtypes[5] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID};
	Datum		args[5];

	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(partition->topic);
	args[2] = Int32GetDatum(partition->partition);
	args[3] = Int64GetDatum(partition->next_offset);
	args[4] = Int64GetDatum(offset);
	if (md_stream_write("WITH moved AS ("
						"  UPDATE medallion.checkpoint c"
						"     SET next_offset = $5, updated_at = now(), last_offset = NULL,"
						"         high_watermark = greatest(c.high_watermark, $5)"
						"   WHERE c.relid = $1 AND c.topic = $2 AND c.kafka_partition = $3"
						"     AND c.next_offset = $4 RETURNING 1)"
						"INSERT INTO medallion.gap (relid, topic, kafka_partition, first_offset, next_offset, reason)"
						" SELECT $1, $2, $3, $4, $5, 'skipped by seek' FROM moved", 5, argtypes, args) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not move a checkpoint that another session has moved")));
}

void
md_stream_seek(Oid relid, const char *to_position)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "seek",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MdStream   *stream = md_stream_lock(relid);
	MdKafkaClient *client;
	MdStreamPartition *partitions;
	int64	   *offsets;
	int			n;
	bool		moves = false;

	/* an error closes the client with the context */
	client = md_kafka_open(md_server_properties(stream->server, md_stream_table_owner(relid)),
						   NULL, context);
	md_stream_initialize_now(stream, client, md_kafka_timeout_ms);
	partitions = md_stream_partitions(relid, &n);
	offsets = md_stream_partition_offsets(stream, client, "to_position", to_position, partitions, n);
	for (int i = 0; i < n; i++)
		moves |= offsets[i] >= 0 && offsets[i] != partitions[i].next_offset;
	if (moves)
		md_replay_prove_topic(stream, partitions, n, context);
	for (int i = 0; i < n; i++)
		if (offsets[i] >= 0 && offsets[i] < partitions[i].next_offset)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot move topic \"%s\" partition %d back to offset " INT64_FORMAT,
							partitions[i].topic, partitions[i].partition, offsets[i]),
					 errdetail("All before offset " INT64_FORMAT " was read.", partitions[i].next_offset),
					 errhint("To store records of before that are missing, use medallion.replay().")));
	for (int i = 0; i < n; i++)
		if (offsets[i] > partitions[i].next_offset)
			move_checkpoint(relid, &partitions[i], offsets[i]);
	md_catalog_bump_generation(relid);
	md_kafka_close(client);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
