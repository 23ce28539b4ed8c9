/*
 * ingest_batch.c
 *		One batch in one transaction: take, fence, decode, store.
 *
 *	  queue -> runs of one partition -> per stream: decode -> slices -> table
 *	                 |                                |
 *	                 +-> checkpoints move first       +-> dead letters
 *
 * A batch is tried in the plain way first, where any error that a type's input
 * function or a constraint throws rolls the whole of it back.  If the error is
 * the data's fault, the batch is tried again with that stream in careful mode:
 * each record is decoded, and slices are stored, in subtransactions, and a
 * slice that fails is halved until the offender is alone.  Errors that waiting
 * may cure, and errors of the definition (a dropped function, say), never make
 * a dead letter: the stream is left out of the batch and tried again later.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "bronze.h"
#include "catalog.h"
#include "checkpoint.h"
#include "dead_letter.h"
#include "debug_point.h"
#include "ingest.h"
#include "key_hash.h"
#include "server.h"

/* What storing one stream's part of a batch needs at hand. */
typedef struct StoreState
{
	MdLane	   *lane;
	MdIngestStream *stream;
	MdBronze   *bronze;
	TimestampTz now;
	int			current;		/* index of the record under way; -1 */
	int			tags[1000];		/* record of each buffered row */
	MdDeadLetters *dead_letters;	/* NULL: there are none */
	MemoryContext context;		/* of this attempt */
	MdBatchResult *result;
} StoreState;

/* --- taking --- */

/* Sort an event of the client's into its partition, or into *errors. */
static void
note_event(MdLane *lane, MdKafkaEvent *event, List **errors)
{
	MdPartition *partition = NULL;

	if (event->topic != NULL)
		partition = md_ingest_find_partition(lane, event->topic, event->partition);
	switch (event->kind)
	{
		case MD_KAFKA_EVENT_EOF:
			if (partition != NULL)
			{
				partition->alive = true;
				/* the end comes before what we have read */
				if (event->offset < partition->next_offset)
					partition->out_of_range = true;
				else
					partition->eof_offset = event->offset;
			}
			break;
		case MD_KAFKA_EVENT_OUT_OF_RANGE:
			if (partition != NULL)
				partition->out_of_range = true;
			break;
		case MD_KAFKA_EVENT_ERROR:
			*errors = lappend(*errors, event);
			break;
	}
}

/* A partition has something in this batch. */
static void
note_taken(MdLane *lane, MdPartition *partition)
{
	if (partition->taken)
		return;
	partition->taken = true;
	partition->taken_next = partition->next_offset;
	partition->taken_last_offset = -1;
	partition->n_records = 0;
	partition->max_timestamp_ms = -1;
	lane->taken = lappend(lane->taken, partition);
}

int64
md_ingest_checksum(const MdRecord *record)
{
	uint64		hash = md_key_xxh64(record->key_len > 0 ? record->key : "", record->key_len,
									(uint64) record->timestamp_ms);

	return (int64) md_key_xxh64(record->payload_len > 0 ? record->payload : "",
								record->payload_len, hash);
}

/*
 * The first record that comes after an assignment is the last one that we
 * have, unless Kafka has deleted it.  If it is another one, so is the topic,
 * and none of its records may be mixed with those that we have.
 */
static void
prove_topic(MdPartition *partition, const MdRecord *record)
{
	partition->proving = false;
	if (record->offset == partition->last_offset &&
		md_ingest_checksum(record) != partition->last_checksum)
		md_ingest_skip(partition->stream, ERRCODE_DATA_CORRUPTED,
					   psprintf("topic \"%s\" partition %d has another record at offset %lld than was read before: the topic was deleted and made anew",
								partition->topic, partition->partition,
								(long long) record->offset));
}

/* Put record i into its partition's run; records that we have are left out. */
static void
note_record(MdLane *lane, int i)
{
	MdRecord   *record = &lane->records[i];
	MdPartition *partition = md_ingest_find_partition(lane, record->topic, record->partition);
	MdRun	   *run;

	if (partition == NULL)
		return;
	partition->alive = true;
	if (partition->proving)
		prove_topic(partition, record);
	if (record->offset < (partition->taken ? partition->taken_next : partition->next_offset))
		return;
	note_taken(lane, partition);
	run = partition->stream->runs == NIL ? NULL : llast(partition->stream->runs);
	if (run == NULL || run->partition != partition || run->to != i)
	{
		run = palloc(sizeof(MdRun));
		run->from = i;
		run->partition = partition;
		partition->stream->runs = lappend(partition->stream->runs, run);
	}
	run->to = i + 1;
	partition->taken_last_offset = record->offset;
	partition->taken_last = i;
	partition->taken_next = record->offset + 1;
	partition->n_records++;
	partition->max_timestamp_ms = Max(partition->max_timestamp_ms, record->timestamp_ms);
}

/*
 * Offsets that a transaction marker or compaction took leave no record: what
 * an end-of-partition event told moves the checkpoint past them.
 */
static void
note_ends(MdLane *lane)
{
	ListCell   *lc;
	ListCell   *lp;

	foreach(lc, lane->streams)
		foreach(lp, ((MdIngestStream *) lfirst(lc))->partitions)
		{
			MdPartition *partition = lfirst(lp);
			int64		position = partition->taken ? partition->taken_next : partition->next_offset;

			if (partition->eof_offset > position)
			{
				note_taken(lane, partition);
				partition->taken_next = partition->eof_offset;
			}
			partition->eof_offset = -1;
		}
}

bool
md_ingest_take(MdLane *lane, int max_records, bool *drained, List **errors)
{
	MemoryContext old = MemoryContextSwitchTo(lane->batch_context);
	List	   *events;
	ListCell   *lc;

	*errors = NIL;
	lane->n_records = md_kafka_take(lane->client, &lane->records,
									Min(max_records, lane->batch_max_records),
									lane->batch_max_bytes, &events, drained);
	foreach(lc, events)
		note_event(lane, lfirst(lc), errors);
	for (int i = 0; i < lane->n_records; i++)
		note_record(lane, i);
	if (events != NIL)
		note_ends(lane);
	foreach(lc, lane->taken)
	{
		MdPartition *partition = lfirst(lc);
		int64		high = md_kafka_high_watermark(lane->client, partition->topic,
												   partition->partition);

		if (partition->taken_last_offset >= 0)
			partition->taken_last_checksum = md_ingest_checksum(&lane->records[partition->taken_last]);
		if (high < 0)
			continue;
		partition->high_watermark = high;
		/* a checkpoint beyond the end would lose what is yet to come */
		if (partition->taken_next > high)
			elog(ERROR, "topic \"%s\" partition %d was read up to offset %lld, beyond its end %lld",
				 partition->topic, partition->partition,
				 (long long) partition->taken_next, (long long) high);
	}
	MemoryContextSwitchTo(old);
	return lane->taken != NIL;
}

/* --- what to do about errors --- */

/*
 * Errors of the machine, of other sessions, and of the definition are listed:
 * they end without the record being changed.  All others are the record's,
 * those that a trigger raises under a code of its own included.
 */
bool
md_ingest_is_data_error(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_CONNECTION_EXCEPTION:	/* 08 */
		case ERRCODE_INVALID_TRANSACTION_STATE: /* 25 */
		case ERRCODE_INVALID_SQL_STATEMENT_NAME:	/* 26 */
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:	/* 28 */
		case ERRCODE_DEPENDENT_PRIVILEGE_DESCRIPTORS_STILL_EXIST:	/* 2B */
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:	/* 2D */
		case ERRCODE_INVALID_CURSOR_NAME:	/* 34 */
		case ERRCODE_SAVEPOINT_EXCEPTION:	/* 3B */
		case ERRCODE_INVALID_CATALOG_NAME:	/* 3D */
		case ERRCODE_INVALID_SCHEMA_NAME:	/* 3F */
		case ERRCODE_TRANSACTION_ROLLBACK:	/* 40 */
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: /* 42 */
		case ERRCODE_INSUFFICIENT_RESOURCES:	/* 53 */
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:	/* 55 */
		case ERRCODE_OPERATOR_INTERVENTION: /* 57 */
		case ERRCODE_SYSTEM_ERROR:	/* 58 */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'):	/* 72, which has no name since 17 */
		case ERRCODE_CONFIG_FILE_ERROR: /* F0 */
		case ERRCODE_FDW_ERROR: /* HV */
		case ERRCODE_INTERNAL_ERROR:	/* XX */
			return false;
		default:
			return true;
	}
}

void
md_ingest_skip(MdIngestStream *stream, int sqlstate, const char *message)
{
	stream->skipped = true;
	stream->skip_sqlstate = sqlstate;
	stream->skip_message = MemoryContextStrdup(stream->lane->batch_context, message);
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
	if (stream == NULL)
		return MD_FAILURE_LANE;
	/* input functions of some types have no code for what they do not like */
	if (!stream->careful && (md_ingest_is_data_error(error->sqlerrcode) ||
							 error->sqlerrcode == ERRCODE_INTERNAL_ERROR))
	{
		stream->careful = true;
		return MD_FAILURE_RETRY_CAREFULLY;
	}
	md_ingest_skip(stream, error->sqlerrcode, error->message);
	return MD_FAILURE_STREAM;
}

/* Error context: which record of which stream. */
static void
store_error_context(void *arg)
{
	StoreState *state = arg;

	if (state->current >= 0)
	{
		MdRecord   *record = &state->lane->records[state->current];

		errcontext("record of topic \"%s\" partition %d offset %lld",
				   record->topic, record->partition, (long long) record->offset);
	}
	errcontext("ingest into streaming table \"%s\"",
			   get_rel_name(state->stream->def->relid));
}

/* --- storing --- */

/* The partition of record i: the runs are in the order of their records. */
static MdPartition *
partition_of(StoreState *state, int i)
{
	List	   *runs = state->stream->runs;
	int			low = 0;
	int			high = list_length(runs) - 1;

	while (low < high)
	{
		int			middle = (low + high + 1) / 2;

		if (((MdRun *) list_nth(runs, middle))->from <= i)
			low = middle;
		else
			high = middle - 1;
	}
	return ((MdRun *) list_nth(runs, low))->partition;
}

/* Headers live as long as the record: another attempt may want them. */
static void
fetch_headers(StoreState *state, MdRecord *record)
{
	MemoryContext old = MemoryContextSwitchTo(state->lane->batch_context);

	md_kafka_fetch_headers(record);
	MemoryContextSwitchTo(old);
}

/* Whoever stores the batch decides what becomes of record i. */
static void
collect_bad_record(MdLane *lane, int i, const MdDecodeError *error)
{
	MemoryContext old = MemoryContextSwitchTo(lane->batch_context);
	MdBadRecord *bad = palloc(sizeof(MdBadRecord));

	bad->index = i;
	bad->error.sqlstate = error->sqlstate;
	bad->error.message = pstrdup(error->message);
	bad->error.detail = error->detail == NULL ? NULL : pstrdup(error->detail);
	lane->bad_records = lappend(lane->bad_records, bad);
	MemoryContextSwitchTo(old);
}

/* Record i cannot be stored: a dead letter, or with on_error = fail the end. */
static void
bad_record(StoreState *state, int i, const MdDecodeError *error)
{
	MdRecord   *record = &state->lane->records[i];
	MdPartition *partition = partition_of(state, i);

	if (state->lane->collects_bad_records)
	{
		collect_bad_record(state->lane, i, error);
		partition->n_unstored++;
		return;
	}
	if (state->stream->def->on_error_fail)
	{
		partition->stuck_at = record->offset;
		partition->batch_next = record->offset;
		partition->n_unstored++;
		md_ingest_skip(state->stream, error->sqlstate,
					   psprintf("record of topic \"%s\" partition %d offset %lld: %s",
								record->topic, record->partition,
								(long long) record->offset, error->message));
		/* only what follows is left out: this batch stores what came before */
		state->stream->skipped = false;
		return;
	}
	if (state->dead_letters == NULL)
		state->dead_letters = md_dead_letters_create(state->stream->def->relid, state->context);
	md_dead_letters_add(state->dead_letters, record, error);
	partition->n_dead++;
	partition->n_unstored++;
	state->result->dead_letters++;
}

/* A subtransaction around one attempt; what it needs to be left again. */
typedef struct Attempt
{
	MemoryContext context;
	ResourceOwner owner;
} Attempt;

static void
attempt_begin(Attempt *attempt)
{
	attempt->context = CurrentMemoryContext;
	attempt->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(attempt->context);
}

static void
attempt_succeeded(Attempt *attempt)
{
	ReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(attempt->context);
	CurrentResourceOwner = attempt->owner;
}

/*
 * In PG_CATCH: undo the attempt; returns the error if it is the data's fault.
 * One without a code is, when it came out of decoding a single record.
 */
static ErrorData *
attempt_failed(Attempt *attempt, bool decoding)
{
	ErrorData  *error;

	MemoryContextSwitchTo(attempt->context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(attempt->context);
	CurrentResourceOwner = attempt->owner;
	if (!md_ingest_is_data_error(error->sqlerrcode) &&
		!(decoding && error->sqlerrcode == ERRCODE_INTERNAL_ERROR))
		ReThrowError(error);
	return error;
}

/* Insert buffered rows [from, to); those that fail become bad records. */
static void
insert_carefully(StoreState *state, int from, int to)
{
	Attempt		attempt;
	ErrorData  *volatile error = NULL;
	MdDecodeError problem;
	int			middle;

	if (state->stream->def->on_error_fail && to - from > 1)
	{
		/* one by one, so that nothing behind a bad record is stored */
		for (int i = from; i < to; i++)
		{
			MdPartition *partition = partition_of(state, state->tags[i]);

			/* a record behind these may have been found bad before them */
			if (partition->stuck_at < 0 ||
				state->lane->records[state->tags[i]].offset < partition->stuck_at)
				insert_carefully(state, i, i + 1);
			else
				partition->n_unstored++;
		}
		return;
	}
	attempt_begin(&attempt);
	PG_TRY();
	{
		md_bronze_insert(state->bronze, from, to, true);
		attempt_succeeded(&attempt);
	}
	PG_CATCH();
	{
		error = attempt_failed(&attempt, false);
	}
	PG_END_TRY();
	if (error == NULL)
		return;
	if (to - from == 1)
	{
		problem.sqlstate = error->sqlerrcode;
		problem.message = error->message;
		problem.detail = error->detail;
		bad_record(state, state->tags[from], &problem);
		return;
	}
	middle = from + (to - from) / 2;
	insert_carefully(state, from, middle);
	insert_carefully(state, middle, to);
}

static void
insert_slice(StoreState *state)
{
	int			n = md_bronze_buffered(state->bronze);

	state->current = -1;
	if (state->stream->careful)
		insert_carefully(state, 0, n);
	else
		md_bronze_insert(state->bronze, 0, n, false);
	md_bronze_clear(state->bronze);
}

/* Decode one record in a subtransaction: input functions may throw. */
static bool
decode_carefully(StoreState *state, MdRecord *record, Datum *values, bool *isnull,
				 MdDecodeError *problem)
{
	Attempt		attempt;
	ErrorData  *error;
	volatile bool decoded = false;

	attempt_begin(&attempt);
	PG_TRY();
	{
		decoded = md_decoder_decode(state->stream->decoder, record, state->now,
									values, isnull, problem);
		attempt_succeeded(&attempt);
	}
	PG_CATCH();
	{
		error = attempt_failed(&attempt, true);
		md_decoder_describe_thrown(state->stream->decoder, error, problem);
	}
	PG_END_TRY();
	return decoded;
}

/* Decode record i into the next row of the buffer. */
static void
store_record(StoreState *state, int i)
{
	MdIngestStream *stream = state->stream;
	MdRecord   *record = &state->lane->records[i];
	MemoryContext old = CurrentMemoryContext;
	MdDecodeError problem = {0};
	Datum	   *values;
	bool	   *isnull;
	bool		decoded;

	state->current = i;
	if (stream->needs_headers)
		fetch_headers(state, record);
	MemoryContextSwitchTo(md_bronze_row_context(state->bronze));
	md_bronze_next_row(state->bronze, &values, &isnull);
	if (stream->careful)
		decoded = decode_carefully(state, record, values, isnull, &problem);
	else
		decoded = md_decoder_decode(stream->decoder, record, state->now, values, isnull, &problem);
	MemoryContextSwitchTo(old);

	if (!decoded)
	{
		bad_record(state, i, &problem);
		return;
	}
	state->tags[md_bronze_buffered(state->bronze)] = i;
	md_bronze_put(state->bronze, record->payload_len + record->key_len);
	state->result->bytes += record->payload_len + record->key_len;
	if (md_bronze_is_full(state->bronze))
		insert_slice(state);
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

void
md_ingest_store_runs(MdLane *lane, MdIngestStream *stream, TimestampTz now,
					 MdBatchResult *result, MdBronzeExtent *extent)
{
	StoreState *state = palloc(sizeof(StoreState));
	ErrorContextCallback callback;
	MdSecurity	saved;
	ListCell   *lc;

	state->lane = lane;
	state->stream = stream;
	state->now = now;
	state->current = -1;
	state->dead_letters = NULL;
	state->context = CurrentMemoryContext;
	state->result = result;
	callback.callback = store_error_context;
	callback.arg = state;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	/* defaults, constraints, triggers and input functions run as the owner */
	md_catalog_become(stream->owner, &saved);
	state->bronze = md_bronze_open(stream->def->relid, CurrentMemoryContext);
	foreach(lc, stream->runs)
	{
		MdRun	   *run = lfirst(lc);

		for (int i = run->from; i < run->to; i++)
		{
			if (run->partition->stuck_at < 0)
				store_record(state, i);
			else
				run->partition->n_unstored++;
		}
	}
	insert_slice(state);
	if (state->dead_letters != NULL)
		md_dead_letters_write(state->dead_letters);
	*extent = *md_bronze_extent(state->bronze);
	md_bronze_close(state->bronze);
	md_catalog_restore_user(&saved);
	error_context_stack = callback.previous;
}

/* Store one stream's part of the batch under way. */
static void
store_stream(MdLane *lane, MdIngestStream *stream, TimestampTz now, MdBatchResult *result)
{
	MdBronzeExtent extent;

	md_ingest_store_runs(lane, stream, now, result, &extent);
	correct_checkpoints(stream, result);
	md_checkpoint_record_batch(stream, &extent, now);
	md_ingest_threshold_check(stream, now);
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
		if (partition->stream->skipped)
			continue;
		/* what an attempt before this one got stuck at */
		partition->stream->skip_message = NULL;
		partitions = lappend(partitions, partition);
	}
	return partitions;
}

/*
 * Somebody else moved a checkpoint, or the definition changed: the attempt
 * cannot go on, because other partitions of that stream did move.
 */
static void
check_fence(MdLane *lane, List *partitions)
{
	ListCell   *lc;

	foreach(lc, partitions)
	{
		MdPartition *partition = lfirst(lc);

		if (partition->in_batch)
			continue;
		md_ingest_skip(partition->stream, 0, "its checkpoint or its definition was changed by another session");
		lane->try_again = true;
	}
	if (lane->try_again)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not move a checkpoint that another session has moved")));
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
		md_checkpoint_advance(partitions, lane->foreground, now);
		check_fence(lane, partitions);
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

/* --- after the transaction --- */

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
			partition->last_offset = partition->stuck_at < 0 ? partition->taken_last_offset : -1;
			partition->last_checksum = partition->taken_last_checksum;
		}
	}
}
