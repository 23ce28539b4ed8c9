/*
 * ingest.c
 *		A bounded run of ingest in the foreground.
 *
 * The same lanes and batches as in a worker, in the caller's transaction: what
 * a worker does by ending a transaction, this does by ending a subtransaction.
 * A lock keeps workers away from the table meanwhile; they leave it out of
 * their batches and come back when the transaction has ended.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "catalog.h"
#include "clock.h"
#include "debug_point.h"
#include "ingest.h"
#include "kafka_request.h"
#include "settings.h"
#include "stream_start.h"
#include "stream_state.h"
#include "stream_topics.h"

/* A topic that ends before what was read of it is not the one that we read. */
static void
check_end(const MdPartition *partition, int64 end)
{
	if (end < partition->next_offset)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("topic \"%s\" partition %d ends at offset %lld, before next_offset %lld",
						partition->topic, partition->partition, (long long) end,
						(long long) partition->next_offset),
				 errdetail("The topic was deleted and made anew, or lost records.")));
}

/* All partitions of the lane's streams, one after the other. */
static List *
partitions_of(const MdLane *lane)
{
	List	   *partitions = NIL;
	ListCell   *lc;

	foreach(lc, lane->streams)
		partitions = list_concat(partitions, ((MdIngestStream *) lfirst(lc))->partitions);
	return partitions;
}

/* Where each partition's run ends: what is the end of the topic now. */
static MdKafkaPosition *
find_ends(MdLane *lane, const MdStream *def, List *partitions)
{
	MdKafkaPosition *ends = palloc0(sizeof(MdKafkaPosition) * Max(1, list_length(partitions)));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, partitions)
	{
		MdPartition *partition = lfirst(lc);

		ends[n].topic = partition->topic;
		ends[n].partition = partition->partition;
		ends[n++].query = MD_KAFKA_LATEST;
	}
	if (n > 0)
		md_kafka_request_positions(lane->asker, def->server, ends, n, md_kafka_timeout_ms);
	n = 0;
	foreach(lc, partitions)
		check_end(lfirst(lc), ends[n++].offset);
	return ends;
}

static bool
reached(const List *partitions, const MdKafkaPosition *ends)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, partitions)
		if (((MdPartition *) lfirst(lc))->next_offset < ends[n++].offset)
			return false;
	return true;
}

/* Throw why records cannot be stored, if they cannot. */
static void
check_left_out(const MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		const MdIngestStream *stream = lfirst(lc);

		if (stream->skip_message == NULL)
			continue;
		ereport(ERROR,
				(errcode(stream->skip_sqlstate ? stream->skip_sqlstate : ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not store records in streaming table \"%s\"",
						get_rel_name(stream->def->relid)),
				 errdetail("%s", stream->skip_message)));
	}
}

static void
attempt_batch(void *arg)
{
	MdBatchResult result;

	md_ingest_store(arg, &result);
}

/* Store the batch, or throw why that cannot be. */
static void
store_batch(MdLane *lane)
{
	md_ingest_attempt(lane, attempt_batch, lane);
	check_left_out(lane);
	md_ingest_stored(lane);
}

/*
 * Kafka does not have where we read a partition.  If that was the record which
 * proves the topic's identity, and retention took it, go on without; else throw.
 */
static void
settle_out_of_range(MdPartition *partition)
{
	MdIngestStream *stream = partition->stream;
	MdKafkaPosition first = {
		.topic = partition->topic,
		.partition = partition->partition,
		.query = MD_KAFKA_EARLIEST
	};

	md_kafka_request_positions(stream->lane->asker, stream->def->server, &first, 1,
							   md_kafka_timeout_ms);
	MD_DEBUG_POINT("ingest-out-of-range");
	if (!md_ingest_give_up_proof(partition, first.offset))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("topic \"%s\" partition %d does not have offset %lld",
						partition->topic, partition->partition,
						(long long) partition->next_offset),
				 errhint("Resume the table: its worker records the gap, or says what is wrong.")));
	partition->out_of_range = false;
	md_ingest_assign(stream);
}

/* Trouble that the client tells of; it goes on trying what waiting may cure. */
static void
check_errors(const MdStream *def, List *partitions, List *errors)
{
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdKafkaEvent *event = lfirst(lc);

		if (event->kind == MD_KAFKA_EVENT_ERROR && (event->topic != NULL || !event->error.retriable))
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("could not read topic \"%s\" of server \"%s\"",
							event->topic != NULL ? event->topic : def->topic, def->server),
					 errdetail("Kafka says: %s.", event->error.message)));
	}
	foreach(lc, partitions)
		if (((MdPartition *) lfirst(lc))->out_of_range)
			settle_out_of_range(lfirst(lc));
}

/* Wait for the client's queue; ERROR when nothing came for too long. */
static void
wait_for_queue(MdLane *lane, const MdStream *def, TimestampTz last_progress)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(last_progress, md_kafka_timeout_ms);
	int			left_ms = md_clock_ms_until(GetCurrentTimestamp(), give_up);

	if (left_ms == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("topic \"%s\" of server \"%s\" sent nothing for %d ms",
						def->topic, def->server, md_kafka_timeout_ms),
				 errhint("Check the server with medallion.check_server(), or raise medallion.kafka_timeout.")));
	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 md_kafka_event_fd(lane->client), left_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Records of the batch under way, but for those that we had. */
static int64
taken_records(const MdLane *lane)
{
	int64		n = 0;
	ListCell   *lc;

	foreach(lc, lane->taken)
		n += ((MdPartition *) lfirst(lc))->n_records;
	return n;
}

/* Batches until the ends are reached or max_records were read. */
static int64
run_to(MdLane *lane, const MdStream *def, int64 max_records)
{
	List	   *partitions = partitions_of(lane);
	MdKafkaPosition *ends = find_ends(lane, def, partitions);
	TimestampTz last_progress = GetCurrentTimestamp();
	int64		n_records = 0;
	bool		drained = true;

	while (!reached(partitions, ends) && (max_records < 0 || n_records < max_records))
	{
		List	   *errors;
		int64		room = max_records < 0 ? PG_INT32_MAX : max_records - n_records;

		if (drained)
			wait_for_queue(lane, def, last_progress);
		if (md_ingest_take(lane, (int) Min(room, PG_INT32_MAX), &drained, &errors))
		{
			store_batch(lane);
			n_records += taken_records(lane);
			last_progress = GetCurrentTimestamp();
		}
		check_left_out(lane);
		check_errors(def, partitions, errors);
		md_ingest_abandon(lane);
	}
	return n_records;
}

int64
md_ingest_once(Oid relid, int64 max_records)
{
	MemoryContext context;
	MdStream   *def;
	MdLane	   *lane;
	MdShare		share = {.index = 0,.n = 1,.n_streams = 1,.foreground = true};
	List	   *lanes = NIL;
	int64		n_records;
	ListCell   *lc;

	LockRelationOid(relid, ShareRowExclusiveLock);
	if (!md_stream_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a streaming table", get_rel_name(relid))));

	/* a worker that found partitions changes the definition, and needs no lock on the table */
	def = md_stream_lock(relid);

	/* on an error the context goes with the caller's, and the client with it */
	context = AllocSetContextCreate(CurrentMemoryContext, "ingest once", ALLOCSET_DEFAULT_SIZES);
	lane = md_ingest_find_lane(&lanes, def, share, context);
	/* nobody else looks for partitions that the topic got */
	md_stream_initialize_now(def, lane->asker, md_kafka_timeout_ms);
	if (md_stream_is_pattern(def))
		foreach(lc, md_stream_topics(relid))
			md_ingest_add_stream(&lanes, md_stream_of_topic(def, lfirst(lc), true), NULL, share, context);
	else
		md_ingest_add_stream(&lanes, def, NULL, share, context);
	n_records = run_to(lane, def, max_records);
	md_ingest_close_lane(lane);
	MemoryContextDelete(context);
	return n_records;
}
