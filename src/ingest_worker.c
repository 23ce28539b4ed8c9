/*
 * ingest_worker.c
 *		A process that reads topics into streaming tables.
 *
 * One worker serves many streaming tables.  Each cycle it waits for its latch,
 * the event descriptors of its md_ingest_worker.lanes, or the next time at which something is
 * due; it never polls.
 *
 *	  ingest_worker.c				the process: its loop, what it waits for
 *	  ingest_worker_entries.c		which streams it has
 *	  ingest_worker_batches.c		from a lane's queue into tables
 *	  ingest_worker_failures.c		what is said of trouble, and when to try again
 *	  ingest_worker_positions.c		positions that Kafka does not have
 *	  ingest_worker_questions.c		what it asks Kafka, while its streams go on
 *	  ingest_worker_topics.c		topics that match patterns
 *	  ingest_worker_mirror.c		progress for Kafka's own tools
 *
 * Commits are asynchronous: if the server crashes before their WAL is flushed,
 * rows and checkpoint are lost together, and Kafka sends the records again.
 *
 * Memory: a context that lives as long as the worker holds md_ingest_worker.entries and lanes;
 * another is reset at each turn of the loop.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "compat.h"
#include "ingest_worker.h"
#include "launcher.h"
#include "settings.h"
#include "worker.h"

/* A queue that fills before its flush is due is looked at this often. */
#define QUEUE_CHECK_MS 1000
/* Of flush_interval, how long records wait while their lane is behind. */
#define CATCH_UP_FRACTION 4
/* What brokers take unless they are told otherwise. */
#define LARGE_RECORD_BYTES INT64CONST(1048576)
#define MIRROR_CHECK_MS 200
/* A worker that was busy and has had nothing to do for so long gives memory back. */
#define IDLE_MS 1000

/* Of memory that is freed: blocks up to this size are kept, and so much in each arena. */
#define KEPT_BLOCK_BYTES (4 * 1024 * 1024)
#define KEPT_BYTES (16 * 1024 * 1024)
/* An arena grows by this much at least. */
#define GROWTH_BYTES (1024 * 1024)

MdIngestWorker md_ingest_worker;

static WaitEventSet *wait_set = NULL;
static int	wait_set_lanes = -1;

ErrorData *
md_ingest_transaction(MdAction action, void *arg)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		MemoryContextSwitchTo(md_ingest_worker.cycle_context);
		action(arg);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(md_ingest_worker.cycle_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(md_ingest_worker.cycle_context);
	return error;
}

void
md_ingest_forget_wait_set(void)
{
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
}

/*
 * Has a queue that could be full stopped to grow?  How large its records are
 * is not known before they are taken: they may be larger than those before.
 */
static bool
has_stopped(MdLane *lane, TimestampTz now)
{
	int			length = md_kafka_queue_length(lane->client);
	bool		stopped;

	if (md_clock_ms_until(now, TimestampTzPlusMilliseconds(lane->looked_at, QUEUE_CHECK_MS)) > 0)
		return false;
	stopped = length == lane->queue_seen &&
		length * LARGE_RECORD_BYTES >= lane->queue_kb * INT64CONST(1024);
	lane->looked_at = now;
	lane->queue_seen = length;
	return stopped;
}

/*
 * How long the lane's records wait for others.  Those that Kafka has had for
 * long come as fast as they can be read: waiting for them is time lost.
 */
static int
patience_ms(const MdLane *lane)
{
	bool		catches_up = lane->behind && lane->flush_interval_ms <= MAX_HURRY_MS;

	return catches_up ? lane->flush_interval_ms / CATCH_UP_FRACTION : lane->flush_interval_ms;
}

/* Has what waits in the lane's queue waited long enough, or grown enough? */
static bool
is_due(MdLane *lane)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!lane->rung)
		return false;
	return lane->flush_interval_ms == 0 || lane->hurries || has_stopped(lane, now) ||
		md_clock_ms_until(now, TimestampTzPlusMilliseconds(lane->rung_at, patience_ms(lane))) == 0 ||
		md_kafka_queue_length(lane->client) >= lane->batch_max_records ||
		md_kafka_queue_bytes(lane->client) >= lane->batch_max_bytes;
}

/* How long nothing is due. */
static int
next_wait_ms(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			wait_ms = INT_MAX;
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->def == NULL)
			return 0;			/* to be loaded again, at once */
		if (entry->owes_status && entry->failures == 0)
			wait_ms = Min(wait_ms, QUEUE_CHECK_MS);
		if (entry->pace > 0 && entry->stream != NULL)
			wait_ms = Min(wait_ms, md_clock_ms_until(now, entry->returns_at));
		/* for an answer that it needs first the asker's descriptor rings */
		if ((entry->stream == NULL && !(entry->lane != NULL && md_ingest_is_due(entry))) ||
			md_ingest_is_silent(entry))
			wait_ms = Min(wait_ms, md_clock_ms_until(now, entry->retry_at));
	}
	foreach(lc, md_ingest_worker.lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (lane->rung && lane->hurries)
			return 0;
		if (lane->rung)
			wait_ms = Min(wait_ms,
						  Min(QUEUE_CHECK_MS,
							  md_clock_ms_until(now, TimestampTzPlusMilliseconds(lane->rung_at,
																				 patience_ms(lane)))));
		if (lane->mirror_lsn != 0)
			wait_ms = Min(wait_ms, MIRROR_CHECK_MS);
		if (lane->mirror_again_at != 0)
			wait_ms = Min(wait_ms, md_clock_ms_until(now, lane->mirror_again_at));
		if (md_ingest_wants_discovery(lane))
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
	md_ingest_worker.memory_to_give_back = false;
}

/*
 * Records are freed as fast as they come, and memory that the allocator returns after
 * each is asked for again for the next: let it keep some, until give_memory_back().
 */
static void
keep_freed_memory(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES);
	(void) mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
	(void) mallopt(M_TOP_PAD, GROWTH_BYTES);
#endif
}

/* Wait for the latch, a lane's queue, or the time. */
static void
wait_for_work(void)
{
	WaitEvent	events[16];
	int			wait_ms = next_wait_ms();
	int			n;
	ListCell   *lc;

	if (wait_set == NULL || wait_set_lanes != list_length(md_ingest_worker.lanes))
	{
		md_ingest_forget_wait_set();
		wait_set = md_create_wait_event_set(list_length(md_ingest_worker.lanes) * 2 + 2);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		foreach(lc, md_ingest_worker.lanes)
		{
			MdLane	   *lane = lfirst(lc);

			AddWaitEventToSet(wait_set, WL_SOCKET_READABLE,
							  md_kafka_event_fd(lane->client), NULL, lane);
			AddWaitEventToSet(wait_set, WL_SOCKET_READABLE,
							  md_kafka_event_fd(lane->asker), NULL, lane);
		}
		wait_set_lanes = list_length(md_ingest_worker.lanes);
	}
	if (md_ingest_worker.memory_to_give_back)
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
		if (events[i].events & WL_SOCKET_READABLE &&
			events[i].fd == md_kafka_event_fd(lane->asker))
			md_kafka_serve(lane->asker);
		else if (events[i].events & WL_SOCKET_READABLE)
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
	/* rows and checkpoints are lost together, and Kafka has them still */
	md_worker_fix_setting("synchronous_commit", "off");
	md_worker_fix_setting("lock_timeout", "1s");
	md_ingest_worker.share.index = md_worker_slot_index(DatumGetInt32(arg));
	md_ingest_worker.share.n = md_ingest_workers;
	keep_freed_memory();
	md_ingest_worker.context = AllocSetContextCreate(TopMemoryContext, "ingest worker", ALLOCSET_DEFAULT_SIZES);
	md_ingest_worker.cycle_context = AllocSetContextCreate(TopMemoryContext, "ingest cycle", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		uint64		generation = md_definitions_generation();
		bool		look_again = generation != loaded_generation;
		ListCell   *lc;

		MemoryContextReset(md_ingest_worker.cycle_context);
		MemoryContextSwitchTo(md_ingest_worker.cycle_context);
		/* another number of workers deals partitions out anew: start afresh */
		if (md_worker_check() && (md_ingest_workers != md_ingest_worker.share.n || !md_workers_enabled))
			proc_exit(0);
		foreach(lc, md_ingest_worker.entries)
			look_again |= ((MdIngestEntry *) lfirst(lc))->def == NULL;
		if (look_again)
		{
			if (!md_ingest_reload() || md_ingest_worker.entries == NIL)
				proc_exit(0);
			loaded_generation = generation;
		}
		md_ingest_hear_answers();
		md_ingest_let_return();
		md_ingest_start_due();
		md_ingest_ask_for_life();
		foreach(lc, md_ingest_worker.lanes)
		{
			MdLane	   *lane = lfirst(lc);

			if (is_due(lane))
				md_ingest_flush(lane);
			if (lane->mirror)
				md_ingest_mirror(lane);
		}
		md_ingest_ask_due();
		md_ingest_close_unused_lanes();
		md_ingest_write_owed_statuses();
		if (!md_worker_has_news(generation))
			wait_for_work();
	}
}
