/*
 * ingest_worker.c
 *		A process that reads topics into streaming tables.
 *
 * One worker serves many streaming tables.  Each cycle it waits for its latch,
 * the event descriptors of its lanes, or the next time at which something is
 * due; it never polls.  It is this file that begins and ends transactions, and
 * that decides what an error costs: the batch is tried again without the
 * stream that failed, and that stream starts anew from its checkpoint after a
 * pause.
 *
 * Commits are asynchronous: if the server crashes before their WAL is flushed,
 * rows and checkpoint are lost together, and Kafka sends the records again.
 *
 * Memory: worker_context lives as long as the worker and holds the list of
 * entries and the lanes; cycle_context is reset at each turn of the loop.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "catalog.h"
#include "checkpoint.h"
#include "clock.h"
#include "compat.h"
#include "debug_point.h"
#include "ingest.h"
#include "launcher.h"
#include "settings.h"
#include "worker.h"

/* A queue that fills before its flush is due is looked at this often. */
#define QUEUE_CHECK_MS 1000
#define MIRROR_CHECK_MS 200
/* A stream in trouble has this long to hear of Kafka: some waits of a fetch. */
#define SIGN_OF_LIFE_MS 3000
/* Requests to Kafka hold up all streams of the worker: they must be short. */
#define REQUEST_TIMEOUT_MS 2000
/* A worker that was busy and has had nothing to do for so long gives memory back. */
#define IDLE_MS 1000

/* A streaming table that is ours to read, running or waiting to be started. */
typedef struct Entry
{
	Oid			relid;
	char		name[NAMEDATALEN];
	MdStream   *def;			/* NULL: to be read again */
	MemoryContext context;		/* of def and last_message */
	MdIngestStream *stream;		/* NULL: waits for retry_at */
	int			failures;
	char	   *last_message;	/* what was logged last */
	TimestampTz retry_at;
	bool		owes_status;	/* its state row could not be written */
	bool		seen;			/* during a reload */
} Entry;

static MemoryContext worker_context;
static MemoryContext cycle_context;
static List *entries = NIL;		/* of Entry */
static List *lanes = NIL;		/* of MdLane */
static MdShare share;
static WaitEventSet *wait_set = NULL;
static int	wait_set_lanes = -1;
static bool memory_to_give_back = false;

/* Settings that a database or role may carry and that must not matter here. */
static void
fix_settings(void)
{
	static const char *const fixed[][2] = {
		{"synchronous_commit", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "1s"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"session_replication_role", "origin"},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"search_path", "pg_catalog, pg_temp"},
	};

	for (int i = 0; i < lengthof(fixed); i++)
		SetConfigOption(fixed[i][0], fixed[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(cycle_context);
}

static void
commit_transaction(void)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(cycle_context);
}

/* In PG_CATCH: roll back and return the error, in cycle_context. */
static ErrorData *
abort_transaction(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(cycle_context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(cycle_context);
	return error;
}

static void
forget_wait_set(void)
{
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
}

static void
close_lane(MdLane *lane)
{
	forget_wait_set();
	lanes = list_delete_ptr(lanes, lane);
	md_ingest_close_lane(lane);
}

/*
 * Write the state row of an entry, in its own transaction.  That this fails is
 * no matter while it tells of trouble, which is told again; but that all is
 * well must be told at last.
 */
static void
write_status(Entry *entry, const char *sqlstate, const char *message)
{
	entry->owes_status = false;
	PG_TRY();
	{
		begin_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());
		md_stream_set_status(entry->relid, entry->failures, sqlstate, message, entry->retry_at);
		PopActiveSnapshot();
		commit_transaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = abort_transaction();

		ereport(DEBUG1, (errmsg_internal("could not write the state of a stream: %s", error->message)));
		entry->owes_status = true;
	}
	PG_END_TRY();
}

/* State rows that say "failing" of what no longer fails. */
static void
write_owed_statuses(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->owes_status && entry->failures == 0)
			write_status(entry, NULL, NULL);
	}
}

/* Note trouble: one log line for each new message, the state row each time. */
static void
note_failure(Entry *entry, int sqlstate, const char *message)
{
	entry->failures++;
	entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  md_worker_backoff_ms(entry->failures));
	/* a lock that is soon released is not worth a line */
	if ((entry->last_message == NULL || strcmp(entry->last_message, message) != 0) &&
		(sqlstate != ERRCODE_LOCK_NOT_AVAILABLE || entry->failures > 2))
	{
		ereport(LOG,
				(errcode(sqlstate),
				 errmsg("ingest into streaming table \"%s\" failed: %s", entry->name, message),
				 errdetail("It is tried again until it succeeds; medallion.streaming_tables shows its state.")));
		if (entry->last_message)
			pfree(entry->last_message);
		entry->last_message = MemoryContextStrdup(entry->context, message);
	}
	write_status(entry, unpack_sql_state(sqlstate), message);
}

/* All is well again with an entry that was in trouble. */
static void
note_recovery(Entry *entry)
{
	if (entry->last_message != NULL)
		ereport(LOG,
				(errmsg("ingest into streaming table \"%s\" goes on after %d failed attempts",
						entry->name, entry->failures)));
	entry->failures = 0;
	if (entry->last_message)
		pfree(entry->last_message);
	entry->last_message = NULL;
	write_status(entry, NULL, NULL);
}

/* Stop reading a stream; the entry then waits for its retry_at. */
static void
stop_entry(Entry *entry)
{
	MdLane	   *lane;

	if (entry->stream == NULL)
		return;
	lane = entry->stream->lane;
	md_ingest_remove_stream(entry->stream);
	entry->stream = NULL;
	if (lane->streams == NIL)
		close_lane(lane);
}

static Entry *
entry_of(const MdIngestStream *stream)
{
	ListCell   *lc;

	foreach(lc, entries)
		if (((Entry *) lfirst(lc))->stream == stream)
			return lfirst(lc);
	return NULL;
}

/* --- definitions --- */

static Entry *
make_entry(Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(worker_context);
	Entry	   *entry = palloc0(sizeof(Entry));

	entry->context = AllocSetContextCreate(worker_context, "ingest entry", ALLOCSET_SMALL_SIZES);
	entry->relid = relid;
	entries = lappend(entries, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

/* Take over a definition that is new or has changed. */
static void
update_entry(const MdStream *def)
{
	Entry	   *entry = NULL;
	char	   *name = get_rel_name(def->relid);
	ListCell   *lc;

	foreach(lc, entries)
		if (((Entry *) lfirst(lc))->relid == def->relid)
			entry = lfirst(lc);
	if (entry == NULL)
		entry = make_entry(def->relid);
	entry->seen = true;
	if (name != NULL)
		strlcpy(entry->name, name, sizeof(entry->name));
	if (entry->def != NULL && entry->def->generation == def->generation)
		return;
	stop_entry(entry);
	MemoryContextReset(entry->context);
	entry->last_message = NULL;
	entry->def = md_catalog_stream(def->relid, entry->context);
	entry->retry_at = 0;
}

/* Read all definitions; false if the extension is gone. */
static bool
reload(void)
{
	ListCell   *lc;
	bool		exists;

	begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	exists = md_catalog_extension_exists();
	foreach(lc, entries)
		((Entry *) lfirst(lc))->seen = false;
	if (exists)
	{
		foreach(lc, md_catalog_streams(cycle_context))
		{
			MdStream   *def = lfirst(lc);

			if (!def->paused && !def->foreign_origin)
				update_entry(def);
		}
	}
	PopActiveSnapshot();
	commit_transaction();

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->seen)
			continue;
		stop_entry(entry);
		if (entry->failures > 0)
		{
			entry->failures = 0;
			write_status(entry, NULL, NULL);
		}
		entries = foreach_delete_current(entries, lc);
		MemoryContextDelete(entry->context);
		pfree(entry);
	}
	return exists;
}

/* Has Kafka answered for all partitions of the stream (or for any of them)? */
static bool
all_alive(const MdIngestStream *stream)
{
	ListCell   *lc;

	foreach(lc, stream->partitions)
		if (!((MdPartition *) lfirst(lc))->alive)
			return false;
	return true;
}

static bool
any_alive(const MdIngestStream *stream)
{
	ListCell   *lc;

	foreach(lc, stream->partitions)
		if (((MdPartition *) lfirst(lc))->alive)
			return true;
	return false;
}

/* Is the entry in trouble although it runs: Kafka does not answer for it? */
static bool
is_waiting_for_kafka(const Entry *entry)
{
	return entry->stream != NULL && entry->failures > 0 && !all_alive(entry->stream);
}

/*
 * Streams for which Kafka has gone silent are assigned anew now and then: the
 * end of a partition is told once per assignment, and it is the sign of life
 * of one that gets no records.
 */
static void
ask_for_life(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (!is_waiting_for_kafka(entry) ||
			md_clock_ms_until(GetCurrentTimestamp(), entry->retry_at) > 0)
			continue;
		md_ingest_reassign(entry->stream);
		entry->failures++;
		entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  Max(SIGN_OF_LIFE_MS,
														  md_worker_backoff_ms(entry->failures)));
	}
}

/* Start the streams whose time has come. */
static void
start_due(void)
{
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->stream != NULL || entry->def == NULL ||
			md_clock_ms_until(GetCurrentTimestamp(), entry->retry_at) > 0)
			continue;
		PG_TRY();
		{
			begin_transaction();
			PushActiveSnapshot(GetTransactionSnapshot());
			forget_wait_set();
			/* dropped: the definition, which is loaded again, is gone with it */
			if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(entry->relid)))
				entry->def = NULL;
			else
			{
				entry->stream = md_ingest_add_stream(&lanes, entry->def, share, worker_context);
				entry->stream->lane->next_discovery = 0;
			}
			entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SIGN_OF_LIFE_MS);
			/* what an earlier worker had to say is of no interest any more */
			if (entry->stream != NULL && entry->failures == 0)
				md_stream_set_status(entry->relid, 0, NULL, NULL, 0);
			PopActiveSnapshot();
			commit_transaction();
		}
		PG_CATCH();
		{
			ErrorData  *error = abort_transaction();

			/* a failed commit leaves the stream running on nothing */
			stop_entry(entry);
			note_failure(entry, error->sqlerrcode, error->message);
		}
		PG_END_TRY();
		CHECK_FOR_INTERRUPTS();
	}
}

/* --- batches --- */

/* Give up the lane as it is; its streams start anew from their checkpoints. */
static void
fail_lane(MdLane *lane, int sqlstate, const char *message)
{
	List	   *streams = list_copy(lane->streams);
	ListCell   *lc;

	md_ingest_abandon(lane);
	foreach(lc, streams)
	{
		Entry	   *entry = entry_of(lfirst(lc));

		stop_entry(entry);
		note_failure(entry, sqlstate, message);
	}
}

/*
 * Store the batch under way in one transaction, as often as it takes; false if
 * the lane was given up.
 */
static bool
store_batch(MdLane *lane)
{
	for (;;)
	{
		MdBatchResult result;
		ErrorData  *volatile error = NULL;

		PG_TRY();
		{
			begin_transaction();
			pgstat_report_activity(STATE_RUNNING, "storing a batch");
			md_ingest_store(lane, &result);
			MD_DEBUG_POINT("ingest-commit");
			commit_transaction();
			MD_DEBUG_POINT("ingest-committed");
		}
		PG_CATCH();
		{
			error = abort_transaction();
		}
		PG_END_TRY();
		if (error == NULL)
		{
			md_ingest_stored(lane);
			md_worker_slot_report(1, result.rows, result.bytes);
			pgstat_report_stat(false);
			pgstat_report_activity(STATE_IDLE, NULL);
			return true;
		}
		CHECK_FOR_INTERRUPTS();
		if (md_ingest_failed(lane, error) == MD_FAILURE_LANE)
		{
			fail_lane(lane, error->sqlerrcode, error->message);
			return false;
		}
	}
}

/* Why an entry's stream was left out of a batch, after the batch is forgotten. */
typedef struct LeftOut
{
	Entry	   *entry;
	int			sqlstate;
	char	   *message;
} LeftOut;

/*
 * Forget the batch under way.  Streams that were left out of it, or got stuck
 * in it, start anew: at once if their definition is no longer the one that we
 * had loaded, after a pause if they failed.
 */
static void
end_batch(MdLane *lane)
{
	List	   *all = NIL;
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);
		LeftOut    *left_out;

		if (stream->skip_message == NULL)
			continue;
		left_out = palloc(sizeof(LeftOut));
		left_out->entry = entry_of(stream);
		left_out->sqlstate = stream->skip_sqlstate;
		left_out->message = pstrdup(stream->skip_message);
		all = lappend(all, left_out);
	}
	md_ingest_abandon(lane);
	foreach(lc, all)
	{
		LeftOut    *left_out = lfirst(lc);

		stop_entry(left_out->entry);
		if (left_out->sqlstate == 0)
			left_out->entry->def = NULL;
		else
			note_failure(left_out->entry, left_out->sqlstate, left_out->message);
	}
}

/* What the client says of itself, or of a partition that it cannot read. */
static void
note_errors(MdLane *lane, List *errors)
{
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdKafkaEvent *event = lfirst(lc);
		MdPartition *partition = event->topic == NULL ? NULL :
			md_ingest_find_partition(lane, event->topic, event->partition);
		ListCell   *ls;

		if (partition != NULL)
			md_ingest_skip(partition->stream,
						   event->error.retriable ? ERRCODE_CONNECTION_FAILURE : ERRCODE_FDW_ERROR,
						   event->error.message);
		else if (event->topic == NULL)
			/* the client goes on trying by itself: say so, and leave it */
			foreach(ls, lane->streams)
			{
				MdIngestStream *stream = lfirst(ls);
				Entry	   *entry = entry_of(stream);
				ListCell   *lp;

				foreach(lp, stream->partitions)
					((MdPartition *) lfirst(lp))->alive = false;
				if (entry->last_message == NULL ||
					strcmp(entry->last_message, event->error.message) != 0)
					note_failure(entry, ERRCODE_CONNECTION_FAILURE, event->error.message);
			}
	}
}

/*
 * Streams in trouble for which Kafka answers again.  All partitions must have
 * spoken: one that is at its end would else speak for one that is stuck.
 */
static void
note_recoveries(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);
		Entry	   *entry = entry_of(stream);

		if (entry->failures > 0 && stream->skip_message == NULL && all_alive(stream))
			note_recovery(entry);
	}
}

/* --- positions that Kafka does not have --- */

/* Move a checkpoint past what Kafka no longer has. */
static void
record_gap(MdPartition *partition, int64 first)
{
	PG_TRY();
	{
		begin_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());
		(void) md_checkpoint_record_gap(partition, first, "the records were deleted in Kafka before they were read");
		PopActiveSnapshot();
		commit_transaction();
		ereport(LOG,
				(errmsg("topic \"%s\" partition %d no longer has offsets %lld to %lld: recorded as a gap",
						partition->topic, partition->partition,
						(long long) partition->next_offset, (long long) first - 1)));
		md_ingest_skip(partition->stream, 0, "a gap was recorded");
	}
	PG_CATCH();
	{
		ErrorData  *error = abort_transaction();

		md_ingest_skip(partition->stream, error->sqlerrcode, error->message);
	}
	PG_END_TRY();
}

/* Decide what becomes of a partition whose next_offset is not in the log. */
static void
settle_out_of_range(MdLane *lane, MdPartition *partition)
{
	MdIngestStream *stream = partition->stream;
	MdKafkaPosition first = {.topic = partition->topic,.partition = partition->partition};
	MdKafkaPosition last = first;
	MdKafkaError error;

	first.query = MD_KAFKA_EARLIEST;
	last.query = MD_KAFKA_LATEST;
	if (!md_kafka_resolve(lane->asker, &first, 1, REQUEST_TIMEOUT_MS, &error) ||
		!md_kafka_resolve(lane->asker, &last, 1, REQUEST_TIMEOUT_MS, &error))
		md_ingest_skip(stream, ERRCODE_CONNECTION_FAILURE, error.message);
	else if (first.offset < 0 || last.offset < 0)
		md_ingest_skip(stream, ERRCODE_CONNECTION_FAILURE,
					   first.offset < 0 ? first.error.message : last.error.message);
	else if (partition->next_offset > last.offset)
		md_ingest_skip(stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d ends at offset %lld, before next_offset %lld: the topic was deleted and made anew, or lost records",
								partition->topic, partition->partition,
								(long long) last.offset, (long long) partition->next_offset));
	else if (partition->next_offset >= first.offset)
		md_ingest_skip(stream, 0, "the position is in the log again");
	else if (stream->def->on_gap_fail)
		md_ingest_skip(stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d no longer has offsets %lld to %lld",
								partition->topic, partition->partition,
								(long long) partition->next_offset, (long long) first.offset - 1));
	else
		record_gap(partition, first.offset);
}

static void
settle_positions(MdLane *lane)
{
	ListCell   *lc;
	ListCell   *lp;

	foreach(lc, lane->streams)
		foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
		{
			MdPartition *partition = lfirst(lp);

			if (!partition->out_of_range)
				continue;
			partition->out_of_range = false;
			if (!md_ingest_give_up_proof(partition))
				settle_out_of_range(lane, partition);
		}
}

/* --- mirroring progress to a consumer group --- */

static void
mirror_progress(MdLane *lane)
{
	MdKafkaPosition *positions;
	int			n = 0;
	ListCell   *lc;
	ListCell   *lp;

	if (lane->mirror_lsn != 0 && GetFlushRecPtr(NULL) >= lane->mirror_lsn)
	{
		positions = palloc0(sizeof(MdKafkaPosition) * Max(1, hash_get_num_entries(lane->partitions)));
		foreach(lc, lane->streams)
			foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
			{
				MdPartition *partition = lfirst(lp);

				if (partition->mirror_offset < 0)
					continue;
				positions[n].topic = partition->topic;
				positions[n].partition = partition->partition;
				positions[n++].offset = partition->mirror_offset;
			}
		md_kafka_commit_async(lane->client, positions, n);
		lane->mirror_lsn = 0;
	}
	if (lane->mirror_lsn == 0 && lane->mirror_dirty)
	{
		foreach(lc, lane->streams)
			foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
				((MdPartition *) lfirst(lp))->mirror_offset = ((MdPartition *) lfirst(lp))->next_offset;
		/* all that we have read or written so far; the WAL writer is told of it */
		lane->mirror_lsn = GetXLogInsertRecPtr();
		XLogSetAsyncXactLSN(lane->mirror_lsn);
		lane->mirror_dirty = false;
	}
}

/* --- the cycle --- */

/* Take batches off a lane's queue until it is empty, or for one second. */
static void
flush_lane(MdLane *lane)
{
	TimestampTz stop_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000);
	bool		drained = false;

	while (!drained)
	{
		List	   *errors;
		bool		taken;

		CHECK_FOR_INTERRUPTS();
		taken = md_ingest_take(lane, INT_MAX, &drained, &errors);
		memory_to_give_back |= lane->n_records > 1000;
		if (taken && !store_batch(lane))
			return;
		lane->mirror_dirty |= taken && lane->mirror;
		note_errors(lane, errors);
		settle_positions(lane);
		note_recoveries(lane);
		end_batch(lane);
		if (!list_member_ptr(lanes, lane))
			return;
		if (md_clock_ms_until(GetCurrentTimestamp(), stop_at) == 0)
			break;
	}
	lane->rung = !drained;
	lane->rung_at = 0;
}

/* Has what waits in the lane's queue waited long enough, or grown enough? */
static bool
is_due(MdLane *lane)
{
	if (!lane->rung)
		return false;
	return lane->flush_interval_ms == 0 ||
		md_clock_ms_until(GetCurrentTimestamp(),
						  TimestampTzPlusMilliseconds(lane->rung_at, lane->flush_interval_ms)) == 0 ||
		md_kafka_queue_length(lane->client) >= lane->batch_max_records;
}

/* A broker that does not answer would hold up the other lanes. */
static bool
wants_discovery(const MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->partitions == NIL || any_alive(stream))
			return true;
	}
	return false;
}

/* Look for partitions that topics got since the streams were added. */
static void
discover_partitions(MdLane *lane)
{
	PG_TRY();
	{
		begin_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());
		md_ingest_discover(lane, REQUEST_TIMEOUT_MS);
		PopActiveSnapshot();
		commit_transaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = abort_transaction();

		/* the consumer itself says when a broker is not there */
		ereport(DEBUG1, (errmsg_internal("could not look for partitions: %s", error->message)));
	}
	PG_END_TRY();
	lane->next_discovery = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), md_discovery_interval_ms);
}

static void
discover_due(void)
{
	ListCell   *lc;

	foreach(lc, lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (wants_discovery(lane) &&
			md_clock_ms_until(GetCurrentTimestamp(), lane->next_discovery) == 0)
			discover_partitions(lane);
		CHECK_FOR_INTERRUPTS();
	}
}

/* How long nothing is due. */
static int
next_wait_ms(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			wait_ms = INT_MAX;
	ListCell   *lc;

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->def == NULL)
			return 0;			/* to be loaded again, at once */
		if (entry->owes_status && entry->failures == 0)
			wait_ms = Min(wait_ms, QUEUE_CHECK_MS);
		if (entry->stream == NULL || is_waiting_for_kafka(entry))
			wait_ms = Min(wait_ms, md_clock_ms_until(now, entry->retry_at));
	}
	foreach(lc, lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (wants_discovery(lane))
			wait_ms = Min(wait_ms, md_clock_ms_until(now, lane->next_discovery));
		if (lane->rung)
			wait_ms = Min(wait_ms,
						  Min(QUEUE_CHECK_MS,
							  md_clock_ms_until(now, TimestampTzPlusMilliseconds(lane->rung_at,
																				 lane->flush_interval_ms))));
		if (lane->mirror_lsn != 0)
			wait_ms = Min(wait_ms, MIRROR_CHECK_MS);
		if (wants_discovery(lane))
			wait_ms = Min(wait_ms, md_clock_ms_until(now, lane->next_discovery));
	}
	return wait_ms;
}

/*
 * What the library's threads freed after a burst stays in the allocator's
 * arenas, hundreds of megabytes of it, until it is asked to let go.
 */
static void
give_memory_back(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
	memory_to_give_back = false;
}

/* Wait for the latch, a lane's queue, or the time. */
static void
wait_for_work(void)
{
	WaitEvent	events[16];
	int			wait_ms = next_wait_ms();
	int			n;
	ListCell   *lc;

	if (wait_set == NULL || wait_set_lanes != list_length(lanes))
	{
		forget_wait_set();
		wait_set = md_create_wait_event_set(list_length(lanes) + 2);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		foreach(lc, lanes)
			AddWaitEventToSet(wait_set, WL_SOCKET_READABLE,
							  md_kafka_event_fd(((MdLane *) lfirst(lc))->client), NULL, lfirst(lc));
		wait_set_lanes = list_length(lanes);
	}
	if (memory_to_give_back)
		wait_ms = Min(wait_ms, IDLE_MS);
	n = WaitEventSetWait(wait_set, wait_ms == INT_MAX ? -1 : wait_ms,
						 events, lengthof(events), PG_WAIT_EXTENSION);
	if (n == 0 && wait_ms == IDLE_MS)
		give_memory_back();
	for (int i = 0; i < n; i++)
	{
		MdLane	   *lane = events[i].user_data;

		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events[i].events & WL_SOCKET_READABLE)
		{
			/* silence it until the queue is drained: it rings for 0 to 1 only */
			md_kafka_clear_ring(lane->client);
			if (!lane->rung)
				lane->rung_at = GetCurrentTimestamp();
			lane->rung = true;
		}
	}
}

void
md_ingest_worker_main(Datum arg)
{
	uint64		loaded_generation = 0;

	md_worker_begin(DatumGetInt32(arg));
	fix_settings();
	share.index = md_worker_slot_index(DatumGetInt32(arg));
	share.n = md_ingest_workers;
	worker_context = AllocSetContextCreate(TopMemoryContext, "ingest worker", ALLOCSET_DEFAULT_SIZES);
	cycle_context = AllocSetContextCreate(TopMemoryContext, "ingest cycle", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		uint64		generation = md_definitions_generation();
		bool		look_again = generation != loaded_generation;
		ListCell   *lc;

		MemoryContextReset(cycle_context);
		MemoryContextSwitchTo(cycle_context);
		/* another number of workers deals partitions out anew: start afresh */
		if (md_worker_check() && (md_ingest_workers != share.n || !md_workers_enabled))
			proc_exit(0);
		foreach(lc, entries)
			look_again |= ((Entry *) lfirst(lc))->def == NULL;
		if (look_again)
		{
			if (!reload() || entries == NIL)
				proc_exit(0);
			loaded_generation = generation;
		}
		start_due();
		ask_for_life();
		foreach(lc, list_copy(lanes))
		{
			if (is_due(lfirst(lc)))
				flush_lane(lfirst(lc));
			if (list_member_ptr(lanes, lfirst(lc)) && ((MdLane *) lfirst(lc))->mirror)
				mirror_progress(lfirst(lc));
		}
		discover_due();
		write_owed_statuses();
		if (!md_worker_has_news(generation))
			wait_for_work();
	}
}
