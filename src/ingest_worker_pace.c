/*
 * ingest_worker_pace.c
 *		Tables whose rows take long to store, and their neighbours.
 *
 * A trigger, a constraint or an index can make each row slow, and a batch of a
 * shared lane as slow as that times its records.  A table that has used up
 * medallion.batch_time_limit leaves the rest of its records for later (see
 * ingest_store.c) and gets a lane of its own, whose batches are as large as it
 * can store in a fifth of that time:
 *
 *	  shared lane:	 |a b c|a b SLOW....| cut     |a b c|a b c|a b c|
 *	  a lane alone:						  |SLOW|        |SLOW|
 *
 * Lanes take turns, so that the others wait for one small batch, and a slow
 * table has all the time that they do not need.  It goes back when it could
 * store a batch of full size within the limit, or has been up with its topic
 * for ten times the limit: what comes then is little.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "clock.h"
#include "ingest_worker.h"
#include "settings.h"

/* With more slow tables than this in a worker, the others stay where they are. */
#define MAX_ALONE 16

/* Those that are slow now and then are not worth a line each time. */
#define LOG_INTERVAL_MS 600000

/* Fewer records than this say little about what many would take. */
#define MIN_RECORDS_TO_RETURN 1000

bool
md_ingest_may_be_alone(void)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, md_ingest_worker.lanes)
		if (((MdLane *) lfirst(lc))->alone)
			n++;
	return n < MAX_ALONE;
}

/* Records that the stream stores in so many milliseconds, by its last batch. */
static int64
records_in(const MdIngestStream *stream, int64 ms)
{
	return stream->n_spent * ms * 1000 / Max(stream->spent_us, 1);
}

/* The size of a batch that takes a fifth of the limit. */
static int
pace_of(const MdIngestStream *stream)
{
	return (int) Max(1, Min(records_in(stream, md_batch_time_limit_ms / 5),
							stream->entry->def->batch_max_records));
}

/* The table has more to store than it has stored. */
static void
note_backlog(MdIngestEntry *entry)
{
	entry->returns_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													md_batch_time_limit_ms * INT64CONST(10));
}

/* Back to where its neighbours are, when it is started again. */
static void
let_return(MdIngestEntry *entry)
{
	entry->pace = 0;
	if (entry->failures == 0)
		md_ingest_clear_status(entry);
}

/* The stream has used up its time in a batch that it shared. */
static void
set_apart(MdIngestStream *stream)
{
	MdIngestEntry *entry = stream->entry;
	TimestampTz now = GetCurrentTimestamp();

	if (entry->pace == 0 &&
		md_clock_ms_until(now, TimestampTzPlusMilliseconds(entry->slow_logged_at, LOG_INTERVAL_MS)) == 0)
	{
		ereport(LOG,
				(errmsg("storing rows of streaming table \"%s\" is slow: " INT64_FORMAT " in %d ms",
						entry->name, stream->n_spent, (int) (stream->spent_us / 1000)),
				 errdetail("It is read apart from now on, in smaller batches, so that other tables need not wait for it."),
				 errhint("See what its triggers, constraints and indexes do for each row.")));
		entry->slow_logged_at = now;
	}
	entry->pace = pace_of(stream);
	entry->restart = true;
	entry->rate = (int) Min(records_in(stream, 1000), PG_INT32_MAX);
	note_backlog(entry);
	if (entry->failures == 0)
		md_ingest_clear_status(entry);
}

/* A batch of a lane of its own was stored: is the next one to be of another size? */
static void
adapt(MdLane *lane, MdIngestStream *stream)
{
	MdIngestEntry *entry = stream->entry;

	if (stream->n_spent >= MIN_RECORDS_TO_RETURN &&
		records_in(stream, md_batch_time_limit_ms) >= entry->def->batch_max_records)
	{
		let_return(entry);
		entry->restart = true;
		return;
	}
	/* a batch that was not full does not say that a larger one would do */
	if (stream->n_spent < lane->batch_max_records && !stream->cut)
		return;
	note_backlog(entry);
	entry->pace = (int) Min(pace_of(stream), (int64) lane->batch_max_records * 2);
	lane->batch_max_records = Min(entry->pace, lane->max_records);
	/* what was taken and not stored has to be read again */
	entry->restart |= stream->cut;
}

void
md_ingest_pace(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->runs == NIL || stream->skipped)
			continue;
		if (lane->alone)
			adapt(lane, stream);
		else if (stream->cut)
			set_apart(stream);
	}
}

void
md_ingest_restart_streams(MdLane *lane)
{
	List	   *streams = list_copy(lane->streams);
	ListCell   *lc;

	foreach(lc, streams)
	{
		MdIngestStream *stream = lfirst(lc);
		MdIngestEntry *entry = stream->entry;

		if (!entry->restart)
			continue;
		entry->slice_rows = stream->slice_rows;
		entry->restart = false;
		entry->retry_at = 0;
		md_ingest_stop_entry(entry);
	}
}

void
md_ingest_let_return(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->pace == 0 || entry->stream == NULL ||
			md_clock_ms_until(GetCurrentTimestamp(), entry->returns_at) > 0)
			continue;
		let_return(entry);
		md_ingest_stop_entry(entry);
		entry->retry_at = 0;
	}
}

const char *
md_ingest_notice(const MdIngestEntry *entry)
{
	if (entry->pace == 0)
		return NULL;
	return psprintf("storing its rows is slow, about %d a second: it is read apart from other tables", entry->rate);
}
