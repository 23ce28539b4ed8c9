/*
 * ingest_store.c
 *		One stream's part of a batch: decode its records, store the rows.
 *
 *	  runs of the stream -> decode -> slices -> table
 *	                           |         |
 *	                           +---------+---> bad records: dead letters
 *
 * In the plain way any error that a type's input function or a constraint
 * throws is thrown on, and rolls the whole batch back.  In careful mode each
 * record is decoded, and slices are stored, in subtransactions, and a slice
 * that fails is halved until the offender is alone.
 *
 * In a worker a stream has a limited time in each batch.  The clock is looked
 * at after each slice, and slices are small where rows are slow.  When the time
 * is up, the rest of the records is left where it is: the checkpoints stop
 * before it.
 */
#include "postgres.h"

#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "bronze.h"
#include "catalog.h"
#include "dead_letter.h"
#include "ingest.h"
#include "settings.h"

/* Memory that the error of a record takes, in the context of the buffered rows. */
#define BAD_RECORD_BYTES 1024

/* Slices shall take about this time at most, and grow from a few rows. */
#define SLICE_US 100000
#define FIRST_SLICE_ROWS 32

/* What storing one stream's part of a batch needs at hand. */
typedef struct StoreState
{
	MdLane	   *lane;
	MdIngestStream *stream;
	char	   *table_name;		/* for errors, which must not look it up */
	MdBronze   *bronze;
	TimestampTz now;
	int			current;		/* index of the record under way; -1 */
	int			tags[MD_BRONZE_SLICE_ROWS];	/* record of each buffered row */
	MdDeadLetters *dead_letters;	/* NULL: there are none */
	MemoryContext context;		/* of this attempt */
	MdBatchResult *result;
	TimestampTz started_at;
	TimestampTz slice_started_at;
	int64		n_records;		/* that were decoded */
} StoreState;

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
	errcontext("ingest into streaming table \"%s\"", state->table_name);
}

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

/* Throw an error on that is not the fault of a record. */
static void
check_data_error(ErrorData *error)
{
	if (!md_ingest_is_data_error(error->sqlerrcode))
		ReThrowError(error);
}

/* Buffered rows [from, to), for md_attempt(). */
typedef struct RowRange
{
	MdBronze   *bronze;
	int			from;
	int			to;
} RowRange;

static void
insert_range(void *arg)
{
	RowRange   *range = arg;

	md_bronze_insert(range->bronze, range->from, range->to, true);
}

static void insert_carefully(StoreState *state, int from, int to);

/* One by one, so that of no partition anything behind a bad record is stored. */
static void
insert_in_order(StoreState *state, int from, int to)
{
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
}

/* Insert buffered rows [from, to); those that fail become bad records. */
static void
insert_carefully(StoreState *state, int from, int to)
{
	RowRange	range = {state->bronze, from, to};
	ErrorData  *error;
	MdDecodeError problem;
	int			middle;

	if (from >= to)
		return;
	if (state->stream->def->on_error_fail && to - from > 1)
	{
		insert_in_order(state, from, to);
		return;
	}
	error = md_attempt(insert_range, &range);
	if (error == NULL)
		return;
	check_data_error(error);
	if (to - from == 1)
	{
		problem.sqlstate = error->sqlerrcode;
		problem.message = error->message;
		problem.detail = error->detail;
		bad_record(state, state->tags[from], &problem);
		FreeErrorData(error);
		return;
	}
	FreeErrorData(error);
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

/* How many rows the next slice has, by how long this one took. */
static void
adapt_slice(MdIngestStream *stream, int64 us)
{
	if (us > SLICE_US)
		stream->slice_rows = (int) Max(1, stream->slice_rows * SLICE_US / us);
	else if (us < SLICE_US / 4)
		stream->slice_rows = Min(MD_BRONZE_SLICE_ROWS, stream->slice_rows * 2);
}

/* Leave the records from number `from` on for another batch. */
static void
cut_batch(StoreState *state, int from)
{
	ListCell   *lc;

	foreach(lc, state->stream->runs)
	{
		MdRun	   *run = lfirst(lc);
		MdPartition *partition = run->partition;

		if (run->to <= from || partition->stuck_at >= 0)
			continue;
		partition->stuck_at = state->lane->records[Max(run->from, from)].offset;
		partition->batch_next = partition->stuck_at;
		partition->kept_offset = partition->last_offset;
		partition->kept_checksum = partition->last_checksum;
		if (partition->stored_last >= 0)
		{
			MdRecord   *last = &state->lane->records[partition->stored_last];

			partition->kept_offset = last->offset;
			partition->kept_checksum = md_ingest_checksum(last);
		}
		state->stream->cut = true;
	}
}

/* A slice was stored: look at the clock. */
static void
check_time(StoreState *state, int next)
{
	TimestampTz now = GetCurrentTimestamp();

	adapt_slice(state->stream, now - state->slice_started_at);
	state->slice_started_at = now;
	if (state->lane->has_time_limit && !state->stream->cut &&
		now - state->started_at > md_batch_time_limit_ms * INT64CONST(1000))
		cut_batch(state, next);
}

/* One record to be decoded, for md_attempt(). */
typedef struct Decoding
{
	StoreState *state;
	MdRecord   *record;
	Datum	   *values;
	bool	   *isnull;
	MdDecodeError *problem;
	bool		decoded;
} Decoding;

static void
decode_record(void *arg)
{
	Decoding   *d = arg;

	d->decoded = md_decoder_decode(d->state->stream->decoder, d->record, d->state->now,
								   d->values, d->isnull, d->problem);
}

/*
 * Decode one record in a subtransaction: input functions may throw.  Those of
 * some types have no code for what they do not like.
 */
static void
decode_carefully(Decoding *decoding)
{
	ErrorData  *error = md_attempt(decode_record, decoding);

	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_INTERNAL_ERROR)
		check_data_error(error);
	decoding->decoded = false;
	md_decoder_describe_thrown(decoding->state->stream->decoder, error, decoding->problem);
}

/* Decode record i into the next row of the buffer. */
static void
store_record(StoreState *state, int i)
{
	MdIngestStream *stream = state->stream;
	MdRecord   *record = &state->lane->records[i];
	Size		bytes = record->payload_len + record->key_len;
	MemoryContext old = CurrentMemoryContext;
	MdDecodeError problem = {0};
	Decoding	decoding = {.state = state,.record = record,.problem = &problem};

	state->current = i;
	if (stream->needs_headers)
		fetch_headers(state, record);
	MemoryContextSwitchTo(md_bronze_row_context(state->bronze));
	md_bronze_next_row(state->bronze, &decoding.values, &decoding.isnull);
	if (stream->careful)
		decode_carefully(&decoding);
	else
		decode_record(&decoding);
	MemoryContextSwitchTo(old);

	if (decoding.decoded)
	{
		state->tags[md_bronze_buffered(state->bronze)] = i;
		md_bronze_put(state->bronze, bytes);
		state->result->bytes += bytes;
	}
	else
	{
		bad_record(state, i, &problem);
		md_bronze_pass_over(state->bronze, bytes + BAD_RECORD_BYTES);
	}
	if (md_bronze_is_full(state->bronze) ||
		md_bronze_buffered(state->bronze) >= stream->slice_rows)
	{
		insert_slice(state);
		check_time(state, i + 1);
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
	state->table_name = get_rel_name(stream->def->relid);
	state->now = now;
	state->current = -1;
	state->n_records = 0;
	state->started_at = state->slice_started_at = GetCurrentTimestamp();
	if (stream->slice_rows == 0)
		stream->slice_rows = FIRST_SLICE_ROWS;
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
			if (run->partition->stuck_at >= 0)
			{
				run->partition->n_unstored++;
				continue;
			}
			run->partition->stored_last = i;
			state->n_records++;
			store_record(state, i);
		}
	}
	insert_slice(state);
	if (state->dead_letters != NULL)
		md_dead_letters_write(state->dead_letters);
	*extent = *md_bronze_extent(state->bronze);
	md_bronze_close(state->bronze);
	stream->n_spent = state->n_records;
	stream->spent_us = GetCurrentTimestamp() - state->started_at;
	md_catalog_restore_user(&saved);
	error_context_stack = callback.previous;
}
