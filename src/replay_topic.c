/*
 * replay_topic.c
 *		Is the topic the one that a table has read?
 *
 * A topic that was deleted and made anew has other records at the offsets that
 * the table speaks of, and they must not be mixed.  The checkpoint remembers a
 * checksum of the last record, as workers compare it when they begin to read;
 * here that record is read again before a replay or a seek, by a client of its
 * own so that what it fetches beyond cannot be taken for the replay's.
 *
 * A record that Kafka has deleted since proves nothing, as with workers.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest.h"
#include "kafka_request.h"
#include "replay.h"
#include "server.h"
#include "settings.h"
#include "stream_table.h"

/* A few records are all that is wanted. */
#define QUEUE_KB		1024
#define TAKE_RECORDS	100
#define TAKE_BYTES		(1024 * 1024)

static void
refuse_other_topic(const MdStreamPartition *partition)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("topic \"%s\" was deleted and made anew",
					partition->topic),
			 errdetail("Partition %d is not what was read before offset " INT64_FORMAT ".",
					   partition->partition, partition->next_offset),
			 errhint("Read it into another streaming table.")));
}

/* The end of a partition is never before what was read of it. */
static void
check_ends(const MdStream *stream, MdKafkaClient *client, const MdStreamPartition *partitions, int n)
{
	MdKafkaPosition *ends = palloc0(sizeof(MdKafkaPosition) * n);

	for (int i = 0; i < n; i++)
	{
		ends[i].topic = partitions[i].topic;
		ends[i].partition = partitions[i].partition;
		ends[i].query = MD_KAFKA_LATEST;
	}
	md_kafka_request_positions(client, stream->server, ends, n, md_kafka_timeout_ms);
	for (int i = 0; i < n; i++)
		if (ends[i].offset < partitions[i].next_offset)
			refuse_other_topic(&partitions[i]);
}

/* Begin to read at the last records; returns how many, and marks which. */
static int
assign_last_records(MdKafkaClient *client, const MdStreamPartition *partitions, int n, bool *wanted)
{
	MdKafkaPosition *positions = palloc0(sizeof(MdKafkaPosition) * n);
	int			n_wanted = 0;

	for (int i = 0; i < n; i++)
	{
		wanted[i] = partitions[i].last_offset >= 0;
		if (!wanted[i])
			continue;
		positions[n_wanted].topic = partitions[i].topic;
		positions[n_wanted].partition = partitions[i].partition;
		positions[n_wanted++].offset = partitions[i].last_offset;
	}
	if (n_wanted > 0)
		md_kafka_assign(client, positions, n_wanted);
	return n_wanted;
}

/* The partition that something came for, if it is the first; else -1. */
static int
first_answer(const MdStreamPartition *partitions, int n, bool *wanted, const char *topic, int32 partition)
{
	for (int i = 0; i < n; i++)
		if (wanted[i] && partitions[i].partition == partition &&
			strcmp(partitions[i].topic, topic) == 0)
		{
			wanted[i] = false;
			return i;
		}
	return -1;
}

/* Take what has come; returns the number of partitions that were settled. */
static int
take_answers(const MdStream *stream, MdKafkaClient *client, const MdStreamPartition *partitions, int n,
			 bool *wanted, bool *drained)
{
	MdRecord   *records;
	List	   *events;
	ListCell   *lc;
	int			n_settled = 0;
	int			n_records = md_kafka_take(client, &records, TAKE_RECORDS, TAKE_BYTES,
										  &events, drained);

	for (int r = 0; r < n_records; r++)
	{
		int			i = first_answer(partitions, n, wanted, records[r].topic, records[r].partition);

		if (i < 0)
			continue;
		if (records[r].offset == partitions[i].last_offset &&
			md_ingest_checksum(&records[r]) != partitions[i].last_checksum)
			refuse_other_topic(&partitions[i]);
		n_settled++;
	}
	foreach(lc, events)
	{
		MdKafkaEvent *event = lfirst(lc);

		if (event->kind == MD_KAFKA_EVENT_ERROR)
		{
			if (event->topic != NULL || !event->error.retriable)
				ereport(ERROR,
						(errcode(ERRCODE_CONNECTION_FAILURE),
						 errmsg("could not read topic \"%s\" of server \"%s\"",
								stream->topic, stream->server),
						 errdetail("Kafka says: %s.", event->error.message)));
		}
		else if (event->topic != NULL &&
				 first_answer(partitions, n, wanted, event->topic, event->partition) >= 0)
			n_settled++;		/* there is no such record any more */
	}
	md_kafka_release(client);
	return n_settled;
}

void
md_replay_prove_topic(const MdStream *stream, const MdStreamPartition *partitions, int n,
					  MemoryContext context)
{
	MemoryContext own = AllocSetContextCreate(context, "proof of a topic", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	MdKafkaConsumerConfig config = {
		.queue_max_kb = QUEUE_KB,
		.read_uncommitted = stream->read_uncommitted
	};
	MdKafkaClient *client = md_kafka_open(md_server_properties(stream->server,
															   md_stream_table_owner(stream->relid)),
										  &config, own);
	bool	   *wanted = palloc(sizeof(bool) * n);
	bool		drained = true;
	TimestampTz last_progress = GetCurrentTimestamp();
	int			n_wanted;

	check_ends(stream, client, partitions, n);
	n_wanted = assign_last_records(client, partitions, n, wanted);
	while (n_wanted > 0)
	{
		int			n_settled;

		if (drained)
			md_replay_wait(stream, client, last_progress);
		n_settled = take_answers(stream, client, partitions, n, wanted, &drained);
		if (n_settled > 0)
			last_progress = GetCurrentTimestamp();
		n_wanted -= n_settled;
	}
	md_kafka_close(client);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(own);
}
