/*
 * stream_wait.c
 *		Waiting in a session for what the workers store.
 *
 * A batch commits its rows and its checkpoint together, so who sees the
 * checkpoint in a snapshot sees the rows in a later one.  Each look takes a new
 * snapshot; in between the session sleeps until a worker has stored something,
 * or, as sessions store records too, for 5 ms at first and 100 ms at most.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "kafka_request.h"
#include "server.h"
#include "stream_table.h"
#include "stream_topics.h"
#include "stream_wait.h"
#include "worker_slots.h"

/* Of workers that store batches all the time not each is looked at. */
#define LOOK_PAUSE_US	1000
#define FIRST_PAUSE_MS	5
#define MAX_PAUSE_MS	100

/* A partition, and the offset that its checkpoint is to reach. */
typedef struct Target
{
	const char *topic;
	int32		partition;
	int64		next_offset;
	bool		reached;
} Target;

/* A transaction with one snapshot would not see the rows it has waited for. */
static void
require_read_committed(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for records in a repeatable read or serializable transaction"),
				 errdetail("Its snapshot would not show the records.")));
}

/* Mark the targets that are reached in a new snapshot; are all? */
static bool
look(const MdStream *stream, Target *targets, int n_targets)
{
	MdSecurity	saved;
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(stream->relid)};
	bool		all = true;

	PushActiveSnapshot(GetLatestSnapshot());
	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("SELECT c.kafka_partition, c.next_offset, c.topic FROM medallion.checkpoint c"
							  " WHERE c.relid = $1",
							  1, argtypes, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read medallion.checkpoint");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		int32		partition = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		int64		next_offset = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		char	   *topic = SPI_getvalue(tuple, desc, 3);

		for (int t = 0; t < n_targets; t++)
			if (targets[t].partition == partition && next_offset >= targets[t].next_offset &&
				strcmp(targets[t].topic, topic) == 0)
				targets[t].reached = true;
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	PopActiveSnapshot();

	for (int t = 0; t < n_targets; t++)
		all = all && targets[t].reached;
	return all;
}

/* Look until all targets are reached, or until the deadline. */
static bool
wait_for_targets(const MdStream *stream, Target *targets, int n_targets,
				 TimestampTz deadline)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "wait for records",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int			pause_ms = FIRST_PAUSE_MS;
	bool		reached;

	while (!(reached = look(stream, targets, n_targets)))
	{
		int			left_ms = md_clock_ms_until(GetCurrentTimestamp(), deadline);

		MemoryContextReset(context);
		if (left_ms == 0)
			break;
		pg_usleep(LOOK_PAUSE_US);
		md_worker_wait_for_report(Min(pause_ms, left_ms));
		CHECK_FOR_INTERRUPTS();
		pause_ms = Min(pause_ms * 2, MAX_PAUSE_MS);
	}
	ConditionVariableCancelSleep();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return reached;
}

bool
md_stream_wait_for_offset(const MdStream *stream, const char *topic, int32 partition,
						  int64 offset, int64 timeout_ms)
{
	Target		target = {topic, partition, offset + 1, false};

	require_read_committed();
	return wait_for_targets(stream, &target, 1,
							TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms));
}

/* The topics that the table reads, or would if it had looked now; of MdKafkaTopic. */
static List *
ask_for_topics(const MdStream *stream, MdKafkaClient *client, int timeout_ms)
{
	List	   *topics;
	List	   *names;
	List	   *read = NIL;
	ListCell   *lc;
	ListCell   *ln;

	if (!md_stream_is_pattern(stream))
		return list_make1(md_kafka_request_topic(client, stream->server, stream->topic, timeout_ms));
	topics = md_kafka_request_topics(client, stream->server, timeout_ms);
	names = md_topic_pattern_matches(stream->topic, topics);
	foreach(lc, topics)
		foreach(ln, names)
			if (strcmp(((MdKafkaTopic *) lfirst(lc))->name, lfirst(ln)) == 0)
				read = lappend(read, lfirst(lc));
	return read;
}

/* The ends of all partitions, as Kafka tells them to the table's owner. */
static Target *
ask_for_ends(const MdStream *stream, int timeout_ms, int *n_targets)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "ends of partitions",
												  ALLOCSET_DEFAULT_SIZES);
	MdKafkaConsumerConfig config = {0};
	MdKafkaClient *client;
	List	   *topics;
	MdKafkaPosition *positions;
	Target	   *targets;
	int			n = 0;
	ListCell   *lc;

	config.read_uncommitted = stream->read_uncommitted;
	client = md_kafka_open(md_server_properties(stream->server, md_stream_table_owner(stream->relid)),
						   &config, context);
	topics = ask_for_topics(stream, client, timeout_ms);
	foreach(lc, topics)
		n += ((MdKafkaTopic *) lfirst(lc))->n_partitions;
	positions = palloc0(Max(n, 1) * sizeof(MdKafkaPosition));
	targets = palloc0(Max(n, 1) * sizeof(Target));
	n = 0;
	foreach(lc, topics)
	{
		MdKafkaTopic *topic = lfirst(lc);

		for (int i = 0; i < topic->n_partitions; i++, n++)
		{
			positions[n].topic = topic->name;
			positions[n].partition = i;
			positions[n].query = MD_KAFKA_LATEST;
		}
	}
	md_kafka_request_positions(client, stream->server, positions, n, timeout_ms);
	for (int i = 0; i < n; i++)
	{
		targets[i].topic = positions[i].topic;
		targets[i].partition = positions[i].partition;
		targets[i].next_offset = positions[i].offset;
	}
	*n_targets = n;
	MemoryContextDelete(context);
	return targets;
}

bool
md_stream_wait_until_caught_up(const MdStream *stream, int64 timeout_ms)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	Target	   *targets;
	int			n_targets;

	require_read_committed();
	targets = ask_for_ends(stream, (int) Min(timeout_ms, INT_MAX), &n_targets);
	return wait_for_targets(stream, targets, n_targets, deadline);
}
