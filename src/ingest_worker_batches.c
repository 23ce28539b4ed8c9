/*
 * ingest_worker_batches.c
 *		From a lane's queue into tables, batch by batch, and what an error costs.
 *
 * A batch is tried again without the stream that failed, and that stream starts
 * anew from its checkpoint after a pause.  Only what is no stream's fault costs
 * the whole lane.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "debug_point.h"
#include "ingest_worker.h"
#include "worker.h"

/* A batch that has to wait for a lock within a table does so for this time. */
#define BATCH_LOCK_TIMEOUT "100ms"

/* Give up the lane as it is; its streams start anew from their checkpoints. */
static void
fail_lane(MdLane *lane, int sqlstate, const char *message)
{
	List	   *streams = list_copy(lane->streams);
	ListCell   *lc;

	md_ingest_abandon(lane);
	foreach(lc, streams)
	{
		MdIngestEntry *entry = ((MdIngestStream *) lfirst(lc))->entry;

		md_ingest_stop_entry(entry);
		md_ingest_note_failure(entry, sqlstate, message);
	}
}

/* One attempt at the batch, for md_ingest_transaction(). */
typedef struct BatchAttempt
{
	MdLane	   *lane;
	MdBatchResult result;
} BatchAttempt;

static void
attempt_batch(void *arg)
{
	BatchAttempt *attempt = arg;

	/* whoever holds a lock holds up all tables of the lane for so long */
	(void) set_config_option("lock_timeout", BATCH_LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	pgstat_report_activity(STATE_RUNNING, "storing a batch");
	md_ingest_store(attempt->lane, &attempt->result);
	MD_DEBUG_POINT("ingest-commit");
}

/*
 * Store the batch under way in one transaction, as often as it takes; false if
 * the lane was given up.
 */
static bool
store_batch(MdLane *lane)
{
	BatchAttempt attempt = {.lane = lane};
	ErrorData  *error;

	while ((error = md_ingest_transaction(attempt_batch, &attempt)) != NULL)
	{
		md_ingest_end_timeout(lane);
		CHECK_FOR_INTERRUPTS();
		if (md_ingest_failed(lane, error) == MD_FAILURE_LANE)
		{
			pgstat_report_activity(STATE_IDLE, NULL);
			fail_lane(lane, error->sqlerrcode, error->message);
			return false;
		}
	}
	MD_DEBUG_POINT("ingest-committed");
	md_ingest_stored(lane);
	md_ingest_pace(lane);
	md_worker_slot_report(1, attempt.result.rows, attempt.result.bytes);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return true;
}

/* Why an entry's stream was left out of a batch, after the batch is forgotten. */
typedef struct LeftOut
{
	MdIngestEntry *entry;
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
		left_out->entry = stream->entry;
		left_out->sqlstate = stream->skip_sqlstate;
		left_out->message = pstrdup(stream->skip_message);
		all = lappend(all, left_out);
	}
	md_ingest_abandon(lane);
	md_ingest_restart_streams(lane);
	foreach(lc, all)
	{
		LeftOut    *left_out = lfirst(lc);

		md_ingest_stop_entry(left_out->entry);
		/* what is stored row by row can be cut before it times out */
		if (left_out->sqlstate == ERRCODE_QUERY_CANCELED)
			left_out->entry->slice_rows = 1;
		if (left_out->sqlstate == 0)
			left_out->entry->def = NULL;
		else
			md_ingest_note_failure(left_out->entry, left_out->sqlstate, left_out->message);
	}
}

/*
 * One broker cannot be reached.  What it leads is read on from another, or is
 * not: to be assigned anew it must answer, as for streams that are in trouble.
 */
static void
note_lost_broker(MdLane *lane, const MdKafkaEvent *event)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);
		bool		is_led = false;
		ListCell   *lp;

		foreach(lp, stream->partitions)
		{
			MdPartition *partition = lfirst(lp);

			if (partition->leader != event->broker || !partition->alive)
				continue;
			partition->alive = false;
			is_led = true;
		}
		if (is_led && stream->entry->failures == 0)
			md_ingest_note_failure(stream->entry, ERRCODE_CONNECTION_FAILURE, event->error.message);
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
		else if (event->kind == MD_KAFKA_EVENT_BROKER)
			note_lost_broker(lane, event);
		else if (event->topic == NULL)
			/* the client goes on trying by itself: say so, and leave it */
			foreach(ls, lane->streams)
			{
				MdIngestStream *stream = lfirst(ls);
				MdIngestEntry *entry = stream->entry;
				ListCell   *lp;

				foreach(lp, stream->partitions)
					((MdPartition *) lfirst(lp))->alive = false;
				if (entry->last_message == NULL ||
					strcmp(entry->last_message, event->error.message) != 0)
					md_ingest_note_failure(entry, ERRCODE_CONNECTION_FAILURE, event->error.message);
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
		MdIngestEntry *entry = stream->entry;

		if (entry->failures > 0 && stream->skip_message == NULL && md_ingest_all_alive(stream))
			md_ingest_note_recovery(entry);
	}
}

void
md_ingest_flush(MdLane *lane)
{
	TimestampTz stop_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000);
	bool		drained = false;

	while (!drained)
	{
		List	   *errors;
		bool		taken;

		CHECK_FOR_INTERRUPTS();
		taken = md_ingest_take(lane, PG_INT32_MAX, &drained, &errors);
		md_ingest_worker.memory_to_give_back |= lane->n_records > 1000;
		if (taken && !store_batch(lane))
			return;
		lane->mirror_dirty |= taken && lane->mirror;
		lane->hurries &= !taken;
		note_errors(lane, errors);
		note_recoveries(lane);
		end_batch(lane);
		/* the batches of a slow table are its turns */
		if (lane->alone || md_clock_ms_until(GetCurrentTimestamp(), stop_at) == 0)
			break;
	}
	lane->rung = !drained;
	lane->rung_at = 0;
}
