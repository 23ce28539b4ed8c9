/*
 * ingest_batch.c
 *		One batch in one transaction: lock, fence, store; and what an error
 *		costs.
 *
 *	  queue -> runs of one partition -> per stream: decode -> slices -> table
 *	                 |                                |
 *	                 +-> checkpoints move first       +-> dead letters
 *
 * A batch is tried in the plain way first.  If that throws what is the data's
 * fault, the batch is tried again with that stream in careful mode (see
 * ingest_store.c), which finds the offenders.  Errors that waiting may cure,
 * and errors of the definition (a dropped function, say), never make a dead
 * letter: the stream is left out of the batch and tried again later.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "debug_point.h"
#include "ingest.h"
#include "server.h"
#include "settings.h"

void
md_ingest_skip(MdIngestStream *stream, int sqlstate, const char *message)
{
	stream->skipped = true;
	stream->skip_sqlstate = sqlstate;
	stream->skip_message = MemoryContextStrdup(stream->lane->batch_context, message);
}

/*
 * Lock the stream's table without waiting, and see that it is still what the
 * decoder was made for.
 */
static bool
lock_stream(MdIngestStream *stream)
{
	Oid			relid = stream->def->relid;
	Relation	rel;
	Oid			owner;
	bool		same;

	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		md_ingest_skip(stream, ERRCODE_LOCK_NOT_AVAILABLE, "the table is locked by another session");
		return false;
	}
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
	{
		UnlockRelationOid(relid, RowExclusiveLock);
		md_ingest_skip(stream, 0, "the table was dropped");
		return false;
	}
	rel = relation_open(relid, NoLock);
	same = equalTupleDescs(stream->desc, RelationGetDescr(rel));
	owner = rel->rd_rel->relowner;
	relation_close(rel, NoLock);
	if (!same)
		md_ingest_skip(stream, 0, "the table's columns have changed");
	else if (owner != stream->owner || !md_server_is_usable(stream->def->server, owner))
	{
		/* the lane is connected as somebody who no longer counts */
		md_ingest_skip(stream, 0, "the table's owner, or the owner's right to use the server, has changed");
		same = false;
	}
	return same;
}

static int
compare_streams(const ListCell *a, const ListCell *b)
{
	Oid			x = ((MdIngestStream *) lfirst(a))->def->relid;
	Oid			y = ((MdIngestStream *) lfirst(b))->def->relid;

	return x < y ? -1 : x > y;
}

/* Streams with something in the batch whose table we could lock, by oid. */
static List *
lock_streams(MdLane *lane)
{
	List	   *streams = NIL;
	List	   *locked = NIL;
	ListCell   *lc;

	foreach(lc, lane->taken)
	{
		MdIngestStream *stream = ((MdPartition *) lfirst(lc))->stream;

		if (!stream->skipped)
			streams = list_append_unique_ptr(streams, stream);
	}
	list_sort(streams, compare_streams);
	foreach(lc, streams)
		if (lock_stream(lfirst(lc)))
			locked = lappend(locked, lfirst(lc));
	return locked;
}

/* The partitions of the batch whose stream takes part, ready for an attempt. */
static List *
begin_attempt(MdLane *lane)
{
	List	   *partitions = NIL;
	ListCell   *lc;

	foreach(lc, lane->taken)
	{
		MdPartition *partition = lfirst(lc);

		partition->in_batch = false;
		partition->batch_next = partition->taken_next;
		partition->n_dead = 0;
		partition->n_unstored = 0;
		partition->stuck_at = -1;
		partition->stored_last = -1;
		partition->kept_offset = -1;
		partition->stream->cut = false;
		if (partition->stream->skipped)
			continue;
		/* what an attempt before this one got stuck at */
		partition->stream->skip_message = NULL;
		partitions = lappend(partitions, partition);
	}
	return partitions;
}

/*
 * Leave out the streams of partitions that are not in_batch.  The attempt
 * cannot go on, because other partitions of such a stream are.
 */
static void
check_in_batch(MdLane *lane, List *partitions, int sqlstate, const char *message)
{
	ListCell   *lc;

	foreach(lc, partitions)
	{
		MdPartition *partition = lfirst(lc);

		if (partition->in_batch)
			continue;
		md_ingest_skip(partition->stream, sqlstate, message);
		lane->try_again = true;
	}
	if (lane->try_again)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not move a checkpoint that another session has moved or locked")));
}

/* The checkpoints moved with all records stored in mind: correct those. */
static void
correct_checkpoints(MdIngestStream *stream, MdBatchResult *result)
{
	ListCell   *lc;

	foreach(lc, stream->partitions)
	{
		MdPartition *partition = lfirst(lc);

		if (!partition->in_batch)
			continue;
		if (partition->n_unstored > 0)
			md_checkpoint_correct(partition);
		result->rows += partition->n_records - partition->n_unstored;
	}
}

/* The statement timeout, which nobody else uses in a worker, is not due any more. */
void
md_ingest_end_timeout(const MdLane *lane)
{
	if (!lane->has_time_limit)
		return;
	disable_timeout(STATEMENT_TIMEOUT, false);
	/* it may have come just now */
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
}

/* Store one stream's part of the batch under way. */
static void
store_stream(MdLane *lane, MdIngestStream *stream, TimestampTz now, MdBatchResult *result)
{
	MdBronzeExtent extent;

	if (lane->has_time_limit && md_batch_timeout_ms > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, md_batch_timeout_ms);
	md_ingest_store_runs(lane, stream, now, result, &extent);
	md_ingest_end_timeout(lane);
	correct_checkpoints(stream, result);
	md_checkpoint_record_batch(stream, &extent, now);
	md_ingest_threshold_check(stream, now);
}

void
md_ingest_store(MdLane *lane, MdBatchResult *result)
{
	MemoryContext attempt = AllocSetContextCreate(lane->batch_context, "ingest attempt",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(attempt);
	TimestampTz now = GetCurrentTimestamp();
	List	   *streams = lock_streams(lane);
	List	   *partitions = begin_attempt(lane);
	ListCell   *lc;

	memset(result, 0, sizeof(MdBatchResult));
	if (partitions != NIL)
	{
		/* taken after the locks: what those waited for is visible */
		PushActiveSnapshot(GetTransactionSnapshot());
		MD_DEBUG_POINT("ingest-begin");
		if (lane->find_locked)
		{
			md_checkpoint_find_locked(partitions);
			check_in_batch(lane, partitions, ERRCODE_LOCK_NOT_AVAILABLE,
						   "its checkpoint is locked by another session");
		}
		md_checkpoint_advance(partitions, lane->foreground, now);
		check_in_batch(lane, partitions, 0,
					   "its checkpoint or its definition was changed by another session");
		MD_DEBUG_POINT("ingest-fenced");
		foreach(lc, streams)
		{
			lane->storing = lfirst(lc);
			store_stream(lane, lane->storing, now, result);
			lane->storing = NULL;
			result->streams++;
		}
		MD_DEBUG_POINT("ingest-stored");
		PopActiveSnapshot();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(attempt);
}

/* What a lock was waited for, and what was so slow, stands in the context alone. */
static const char *
describe(const ErrorData *error)
{
	if ((error->sqlerrcode != ERRCODE_QUERY_CANCELED && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE) ||
		error->context == NULL)
		return error->message;
	return psprintf("%s, %.*s", error->message, (int) strcspn(error->context, "\n"), error->context);
}

MdFailure
md_ingest_failed(MdLane *lane, const ErrorData *error)
{
	MdIngestStream *stream = lane->storing;

	lane->storing = NULL;
	if (lane->try_again)
	{
		lane->try_again = false;
		return MD_FAILURE_RETRY_CAREFULLY;
	}
	if (stream == NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && !lane->find_locked)
	{
		/* one stream's checkpoint must not hold up the others */
		lane->find_locked = true;
		return MD_FAILURE_RETRY_CAREFULLY;
	}
	if (stream == NULL)
		return MD_FAILURE_LANE;
	/* input functions of some types have no code for what they do not like */
	if (!stream->careful && (md_ingest_is_data_error(error->sqlerrcode) ||
							 error->sqlerrcode == ERRCODE_INTERNAL_ERROR))
	{
		stream->careful = true;
		return MD_FAILURE_RETRY_CAREFULLY;
	}
	md_ingest_skip(stream, error->sqlerrcode, describe(error));
	return MD_FAILURE_STREAM;
}

void
md_ingest_attempt(MdLane *lane, MdAction action, void *arg)
{
	ErrorData  *error;

	while ((error = md_attempt(action, arg)) != NULL)
		if (md_ingest_failed(lane, error) != MD_FAILURE_RETRY_CAREFULLY)
			ReThrowError(error);
}

/* Forget the batch under way. */
void
md_ingest_abandon(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->taken)
	{
		MdPartition *partition = lfirst(lc);

		partition->taken = false;
		partition->in_batch = false;
	}
	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		stream->runs = NIL;
		stream->careful = false;
		stream->skipped = false;
		stream->skip_message = NULL;
	}
	lane->taken = NIL;
	lane->n_records = 0;
	lane->storing = NULL;
	lane->find_locked = false;
	md_kafka_release(lane->client);
	MemoryContextReset(lane->batch_context);
}

void
md_ingest_stored(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
		if (((MdIngestStream *) lfirst(lc))->runs != NIL)
			md_ingest_threshold_count(lfirst(lc));
	foreach(lc, lane->taken)
	{
		MdPartition *partition = lfirst(lc);

		if (!partition->in_batch)
			continue;
		partition->next_offset = partition->batch_next;
		if (partition->taken_last_offset >= 0)
		{
			partition->last_offset = partition->stuck_at < 0 ? partition->taken_last_offset : partition->kept_offset;
			partition->last_checksum = partition->stuck_at < 0 ? partition->taken_last_checksum : partition->kept_checksum;
		}
	}
}
