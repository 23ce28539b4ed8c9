/*
 * replay.c
 *		Reads a range of a topic again and stores what is missing of it.
 *
 *	  positions -> ranges -> what is held of them -> a client of its own
 *	                                     |                 |
 *	                                     +---> records that are missing
 *	                                                |
 *	                            late_rows.c -> table, or dead letters
 *
 * The table is live meanwhile: workers store what is at or after the
 * checkpoint, and a replay never goes there.  Requeues and other replays, which
 * store before it, are kept out by md_late_rows_lock().  So nobody adds what
 * was found missing, and each record is stored once.
 *
 * All of it is one transaction, the caller's: if it is cancelled nothing has
 * happened.  Since a replay stores only what is missing, a large range may be
 * replayed in parts, and a part again, at no risk.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "dead_letter.h"
#include "debug_point.h"
#include "kafka_client.h"
#include "late_rows.h"
#include "replay.h"
#include "server.h"
#include "settings.h"
#include "stream_start.h"
#include "stream_state.h"
#include "stream_table.h"

/* Records taken at a time, and their bytes. */
#define TAKE_RECORDS	20000
#define TAKE_BYTES		(16 * 1024 * 1024)

/* Offsets between two messages of progress. */
#define PROGRESS_OFFSETS 1000000

typedef struct Replay
{
	const MdStream *stream;
	MemoryContext context;		/* holds all of it, and the client */
	MemoryContext take_context; /* reset for each batch of records */
	MdKafkaClient *client;
	MdReplayRange *ranges;
	int			n_ranges;
	int			n_unfinished;
	MdLateRows *late;
	int64		n_offsets;		/* in all ranges */
	int64		n_stored;
	int64		n_dead;
	int64		told;			/* progress in the last message */
	TimestampTz last_progress;
} Replay;

/* --- ranges --- */

/* Intersect each partition's [from, to) with what was read of it. */
static void
make_ranges(Replay *replay, const char *from_position, const char *to_position)
{
	int			n;
	MdStreamPartition *partitions = md_stream_partitions(replay->stream->relid, &n);
	int64	   *from;
	int64	   *to = NULL;

	from = md_stream_partition_offsets(replay->stream, replay->client, "from_position",
									   from_position, partitions, n);
	if (to_position != NULL)
		to = md_stream_partition_offsets(replay->stream, replay->client, "to_position",
										 to_position, partitions, n);
	replay->ranges = palloc0(sizeof(MdReplayRange) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		MdReplayRange *range = &replay->ranges[replay->n_ranges];

		range->checkpoint = partitions[i];
		range->from = from[i];
		range->to = partitions[i].next_offset;
		if (to != NULL && to[i] >= 0)
			range->to = Min(range->to, to[i]);
		if (range->from < 0 || range->from >= range->to)
			continue;
		range->position = range->from;
		range->found = md_offset_set_create(replay->context);
		replay->n_offsets += range->to - range->from;
		replay->n_ranges++;
	}
	replay->n_unfinished = replay->n_ranges;
}

/* ERROR if the topic is not the one that was read. */
static void
prove_topic(const Replay *replay)
{
	MdStreamPartition *partitions = palloc(sizeof(MdStreamPartition) * replay->n_ranges);

	for (int i = 0; i < replay->n_ranges; i++)
		partitions[i] = replay->ranges[i].checkpoint;
	md_replay_prove_topic(replay->stream, partitions, replay->n_ranges, replay->context);
}

static MdReplayRange *
find_range(Replay *replay, const char *topic, int32 partition)
{
	for (int i = 0; i < replay->n_ranges; i++)
		if (replay->ranges[i].checkpoint.partition == partition &&
			strcmp(replay->ranges[i].checkpoint.topic, topic) == 0)
			return &replay->ranges[i];
	return NULL;
}

static MdKafkaPosition
kafka_position(const MdReplayRange *range)
{
	MdKafkaPosition position = {
		.topic = range->checkpoint.topic,
		.partition = range->checkpoint.partition,
		.offset = range->from
	};

	return position;
}

/* Begin to read all ranges. */
static void
assign_ranges(Replay *replay)
{
	MdKafkaPosition *positions = palloc(sizeof(MdKafkaPosition) * replay->n_ranges);

	for (int i = 0; i < replay->n_ranges; i++)
		positions[i] = kafka_position(&replay->ranges[i]);
	md_kafka_assign(replay->client, positions, replay->n_ranges);
}

/* A range was read up to position; one that is finished is read no further. */
static void
advance(Replay *replay, MdReplayRange *range, int64 position)
{
	bool		was_finished = range->position >= range->to;

	range->position = Max(range->position, position);
	if (!was_finished && range->position >= range->to)
	{
		MdKafkaPosition finished = kafka_position(range);

		md_kafka_unassign(replay->client, &finished, 1);
		replay->n_unfinished--;
	}
}

/* --- reading --- */

/* What the client says beside records. */
static void
note_events(Replay *replay, List *events)
{
	ListCell   *lc;

	foreach(lc, events)
	{
		MdKafkaEvent *event = lfirst(lc);
		MdReplayRange *range = event->topic == NULL ? NULL :
			find_range(replay, event->topic, event->partition);

		switch (event->kind)
		{
			case MD_KAFKA_EVENT_EOF:
				if (range != NULL)
					advance(replay, range, event->offset);
				break;
			case MD_KAFKA_EVENT_OUT_OF_RANGE:
				if (range != NULL)
					ereport(ERROR,
							(errcode(ERRCODE_DATA_CORRUPTED),
							 errmsg("topic \"%s\" partition %d no longer has offset " INT64_FORMAT,
									event->topic, event->partition, range->position),
							 errhint("Begin the replay at \"earliest\".")));
				break;
			case MD_KAFKA_EVENT_BROKER:
				break;
			case MD_KAFKA_EVENT_ERROR:
				/* what waiting may cure, the client goes on trying */
				if (range != NULL || !event->error.retriable)
					ereport(ERROR,
							(errcode(ERRCODE_CONNECTION_FAILURE),
							 errmsg("could not read topic \"%s\" of server \"%s\"",
									replay->stream->topic, replay->stream->server),
							 errdetail("Kafka says: %s.", event->error.message)));
				break;
		}
	}
}

/* Move those of n records that are missing to the front; returns how many. */
static int
keep_missing(Replay *replay, MdRecord *records, int n)
{
	int			n_missing = 0;

	for (int i = 0; i < n; i++)
	{
		MdRecord   *record = &records[i];
		MdReplayRange *range = find_range(replay, record->topic, record->partition);

		if (range == NULL)
			continue;
		if (record->offset >= range->from && record->offset < range->to &&
			!md_offset_set_contains(range->held, record->offset))
		{
			md_offset_set_add(range->held, record->offset);
			md_offset_set_add(range->found, record->offset);
			records[n_missing++] = *record;
		}
		advance(replay, range, record->offset + 1);
	}
	return n_missing;
}

/* Store records that are missing; those that cannot be become dead letters. */
static void
store_missing(Replay *replay, MdRecord *records, int n)
{
	MdDeadLetters *letters;
	List	   *bad_records;
	ListCell   *lc;

	if (n == 0)
		return;
	letters = md_dead_letters_create(replay->stream->relid, CurrentMemoryContext);
	bad_records = md_late_rows_store(replay->late, records, n);
	foreach(lc, bad_records)
	{
		MdBadRecord *bad = lfirst(lc);
		MdRecord   *record = &records[bad->index];

		if (replay->stream->on_error_fail)
			ereport(ERROR,
					(errcode(bad->error.sqlstate),
					 errmsg("record of topic \"%s\" partition %d offset " INT64_FORMAT ": %s",
							record->topic, record->partition, record->offset, bad->error.message),
					 bad->error.detail != NULL ? errdetail("%s", bad->error.detail) : 0));
		md_dead_letters_add(letters, record, &bad->error);
		md_late_rows_count_dead(replay->late, record);
	}
	md_dead_letters_write(letters);
	replay->n_stored += n - list_length(bad_records);
	replay->n_dead += list_length(bad_records);
	MD_DEBUG_POINT("replay-stored");
}

/*
 * Let others know in pg_stat_activity, before the text of the statement, and
 * the user now and then.
 */
static void
tell_progress(Replay *replay)
{
	int64		done = 0;
	char	   *progress;

	for (int i = 0; i < replay->n_ranges; i++)
		done += Min(replay->ranges[i].position, replay->ranges[i].to) - replay->ranges[i].from;
	progress = psprintf("replayed " INT64_FORMAT " of " INT64_FORMAT " offsets, stored " INT64_FORMAT " records",
						done, replay->n_offsets, replay->n_stored);
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("%s: %s", progress, debug_query_string ? debug_query_string : ""));
	if (done - replay->told < PROGRESS_OFFSETS)
		return;
	replay->told = done;
	ereport(NOTICE, (errmsg_internal("%s", progress)));
}

void
md_replay_wait(const MdStream *stream, MdKafkaClient *client, TimestampTz last_progress)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(last_progress, md_kafka_timeout_ms);
	int			left_ms = md_clock_ms_until(GetCurrentTimestamp(), give_up);

	if (left_ms == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("topic \"%s\" of server \"%s\" sent nothing for %d ms",
						stream->topic, stream->server, md_kafka_timeout_ms),
				 errhint("Check the server with medallion.check_server(), or raise medallion.kafka_timeout.")));
	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 md_kafka_event_fd(client), left_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	md_kafka_clear_ring(client);
	CHECK_FOR_INTERRUPTS();
}

/* Read all ranges to their ends. */
static void
read_ranges(Replay *replay)
{
	bool		drained = true;

	replay->last_progress = GetCurrentTimestamp();
	tell_progress(replay);
	while (replay->n_unfinished > 0)
	{
		MemoryContext old;
		MdRecord   *records;
		List	   *events;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (drained)
			md_replay_wait(replay->stream, replay->client, replay->last_progress);
		old = MemoryContextSwitchTo(replay->take_context);
		n = md_kafka_take(replay->client, &records, TAKE_RECORDS, TAKE_BYTES, &events, &drained);
		if (n > 0 || events != NIL)
			replay->last_progress = GetCurrentTimestamp();
		store_missing(replay, records, keep_missing(replay, records, n));
		note_events(replay, events);
		md_kafka_release(replay->client);
		tell_progress(replay);
		MemoryContextSwitchTo(old);
		MemoryContextReset(replay->take_context);
	}
	/* the statement may go on for long after this */
	pgstat_report_activity(STATE_RUNNING, debug_query_string ? debug_query_string : "");
}

/* --- the whole --- */

/* Lock the table as an INSERT does, and other replays and requeues out. */
static MdStream *
lock_stream(Oid relid)
{
	MdStream   *stream;

	LockRelationOid(relid, RowExclusiveLock);
	md_late_rows_lock(relid, ExclusiveLock);
	stream = md_stream_load(relid);
	if (!stream->initialized)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot replay into table \"%s\" before it has begun to read its topic",
						get_rel_name(relid)),
				 errhint("Its state in medallion.streaming_tables says why it has not.")));
	return stream;
}

static void
open_client(Replay *replay)
{
	MdKafkaConsumerConfig config = {
		.queue_max_kb = md_ingest_memory_kb / 2,
		.read_uncommitted = replay->stream->read_uncommitted
	};

	replay->client = md_kafka_open(md_server_properties(replay->stream->server,
														md_stream_table_owner(replay->stream->relid)),
								   &config, replay->context);
}

static void
say_result(const Replay *replay)
{
	if (replay->n_dead > 0)
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " records that were missing became dead letters of table \"%s\"",
						replay->n_dead, get_rel_name(replay->stream->relid))));
}

int64
md_replay(Oid relid, const char *from_position, const char *to_position)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "replay",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Replay		replay = {0};
	int64		n_stored;

	/* with an older snapshot, what was requeued since would seem missing */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("replay() needs a READ COMMITTED transaction")));
	/* an error closes the client with the context */
	replay.context = context;
	replay.take_context = AllocSetContextCreate(context, "replay records", ALLOCSET_DEFAULT_SIZES);
	replay.stream = lock_stream(relid);
	open_client(&replay);
	make_ranges(&replay, from_position, to_position);
	if (replay.n_ranges > 0)
	{
		prove_topic(&replay);
		md_replay_find_held(replay.stream, replay.ranges, replay.n_ranges, context);
		MD_DEBUG_POINT("replay-begin");
		replay.late = md_late_rows_begin(replay.stream, context);
		assign_ranges(&replay);
		read_ranges(&replay);
		md_late_rows_end(replay.late);
		md_replay_settle_gaps(relid, replay.ranges, replay.n_ranges);
	}
	say_result(&replay);
	n_stored = replay.n_stored;
	md_kafka_close(replay.client);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return n_stored;
}
