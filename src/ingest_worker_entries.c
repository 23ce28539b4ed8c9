/*
 * ingest_worker_entries.c
 *		Which streams a worker has: definitions, starting, stopping.
 *
 * An entry is there for each topic that is to be read into a table, whether it
 * is read at the moment or not: one that failed waits for its next attempt.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "clock.h"
#include "ingest_worker.h"
#include "stream_start.h"
#include "stream_topics.h"
#include "worker.h"

/* A stream in trouble has this long to hear of Kafka: some waits of a fetch. */
#define SIGN_OF_LIFE_MS 3000

void
md_ingest_stop_entry(MdIngestEntry *entry)
{
	if (entry->stream == NULL)
		return;
	md_ingest_remove_stream(entry->stream);
	entry->stream = NULL;
}

/* Does a stream read by the lane, or wait for what is asked of it? */
static bool
is_used(const MdLane *lane)
{
	ListCell   *lc;

	if (lane->streams != NIL)
		return true;
	foreach(lc, md_ingest_worker.entries)
		if (((MdIngestEntry *) lfirst(lc))->lane == lane)
			return true;
	return false;
}

void
md_ingest_close_unused_lanes(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (is_used(lane))
			continue;
		md_ingest_forget_wait_set();
		md_ingest_worker.lanes = foreach_delete_current(md_ingest_worker.lanes, lc);
		md_ingest_close_lane(lane);
	}
}

MdIngestEntry *
md_ingest_find_entry(Oid relid, const char *topic)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->relid == relid && strcmp(entry->topic, topic) == 0)
			return entry;
	}
	return NULL;
}

static MdIngestEntry *
make_entry(Oid relid, const char *topic)
{
	MemoryContext old = MemoryContextSwitchTo(md_ingest_worker.context);
	MdIngestEntry *entry = palloc0(sizeof(MdIngestEntry));

	entry->context = AllocSetContextCreate(md_ingest_worker.context, "ingest entry", ALLOCSET_SMALL_SIZES);
	entry->relid = relid;
	entry->topic = pstrdup(topic);
	md_ingest_worker.entries = lappend(md_ingest_worker.entries, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

/* Note a definition, and keep one that is new or has changed to be taken over. */
static void
read_definition(const MdStream *def)
{
	MdIngestEntry *entry = md_ingest_find_entry(def->relid, def->topic);
	char	   *name = get_rel_name(def->relid);

	if (entry == NULL)
		entry = make_entry(def->relid, def->topic);
	entry->seen = true;
	if (name != NULL)
		strlcpy(entry->name, name, sizeof(entry->name));
	if (entry->def != NULL && entry->def->generation == def->generation)
		return;
	/* left over from a reload that failed */
	if (entry->new_context != NULL)
		MemoryContextDelete(entry->new_context);
	entry->new_context = AllocSetContextCreate(md_ingest_worker.context, "ingest entry", ALLOCSET_SMALL_SIZES);
	entry->new_def = md_catalog_stream(def->relid, entry->new_context);
	if (def->by_pattern)
	{
		MemoryContext old = MemoryContextSwitchTo(entry->new_context);

		entry->new_def = md_stream_of_topic(entry->new_def, def->topic, true);
		MemoryContextSwitchTo(old);
	}
}

/* A table's topics; to look for more of them is for one worker. */
static void
read_pattern(const MdStream *def, const List *topics)
{
	ListCell   *lc;

	if (md_ingest_worker.share.index == 0)
		read_definition(def);
	foreach(lc, topics)
	{
		MdStreamTopic *topic = lfirst(lc);

		if (topic->relid == def->relid)
			read_definition(md_stream_of_topic(def, topic->topic, true));
	}
}

/* Read all definitions, for md_ingest_transaction(); *arg: is the extension there? */
static void
read_definitions(void *arg)
{
	bool	   *exists = arg;
	ListCell   *lc;

	PushActiveSnapshot(GetTransactionSnapshot());
	*exists = md_catalog_extension_exists();
	foreach(lc, md_ingest_worker.entries)
		((MdIngestEntry *) lfirst(lc))->seen = false;
	if (*exists)
	{
		List	   *topics = md_stream_topics_of_all();

		foreach(lc, md_catalog_streams(CurrentMemoryContext))
		{
			MdStream   *def = lfirst(lc);

			if (def->paused || def->foreign_origin)
				continue;
			if (md_stream_is_pattern(def))
				read_pattern(def, topics);
			else
				read_definition(def);
		}
	}
	PopActiveSnapshot();
}

/* The stream, if it runs, is of the old definition. */
static void
take_over_definition(MdIngestEntry *entry)
{
	md_ingest_stop_entry(entry);
	MemoryContextDelete(entry->context);
	entry->context = entry->new_context;
	entry->def = entry->new_def;
	entry->new_context = NULL;
	entry->new_def = NULL;
	entry->last_message = NULL;
	entry->new_topics = NIL;
	entry->told_waiting = NULL;
	entry->lane = NULL;
	entry->retry_at = 0;
}

static void
forget_entry(MdIngestEntry *entry)
{
	md_ingest_stop_entry(entry);
	if (entry->failures > 0 || entry->pace > 0)
	{
		entry->pace = 0;
		md_ingest_clear_status(entry);
	}
	MemoryContextDelete(entry->context);
	pfree(entry->topic);
	pfree(entry);
}

/* Streams are stopped after the transaction: to close a client takes its time. */
bool
md_ingest_reload(void)
{
	bool		exists;
	ErrorData  *error = md_ingest_transaction(read_definitions, &exists);
	ListCell   *lc;

	/* the supervisor starts another worker, after a pause */
	if (error != NULL)
		ReThrowError(error);
	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->seen && entry->new_context != NULL)
			take_over_definition(entry);
		if (entry->seen)
			continue;
		md_ingest_worker.entries = foreach_delete_current(md_ingest_worker.entries, lc);
		forget_entry(entry);
	}
	md_ingest_worker.share.n_streams = list_length(md_ingest_worker.entries);
	return exists;
}

bool
md_ingest_all_alive(const MdIngestStream *stream)
{
	ListCell   *lc;

	foreach(lc, stream->partitions)
		if (!((MdPartition *) lfirst(lc))->alive)
			return false;
	return true;
}

bool
md_ingest_any_alive(const MdIngestStream *stream)
{
	ListCell   *lc;

	foreach(lc, stream->partitions)
		if (((MdPartition *) lfirst(lc))->alive)
			return true;
	return false;
}

bool
md_ingest_is_silent(const MdIngestEntry *entry)
{
	return entry->stream != NULL && entry->failures > 0 && !md_ingest_all_alive(entry->stream);
}

/*
 * The end of a partition is told once per assignment, and it is the sign of
 * life of one that gets no records.
 */
void
md_ingest_ask_for_life(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (!md_ingest_is_silent(entry) ||
			md_clock_ms_until(GetCurrentTimestamp(), entry->retry_at) > 0)
			continue;
		md_ingest_reassign_silent(entry->stream);
		/* the answer is not to wait for others */
		entry->stream->lane->hurries = true;
		entry->failures++;
		entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  Max(SIGN_OF_LIFE_MS,
														  md_worker_backoff_ms(entry->failures)));
		md_ingest_note_retry(entry);
	}
}

/* An entry whose stream is to be started, and what Kafka said of its topic. */
typedef struct Starting
{
	MdIngestEntry *entry;
	const MdKafkaSurvey *survey;	/* NULL: it was initialized before */
} Starting;

/* The definition as the lane is to know it. */
static MdStream
paced_definition(const MdIngestEntry *entry)
{
	MdStream	def = *entry->def;

	def.alone = entry->pace > 0 && md_ingest_may_be_alone();
	if (def.alone)
		def.batch_max_records = entry->pace;
	return def;
}

/*
 * For md_ingest_transaction(): start the stream, or find the lane by which to
 * ask for what must be known first.
 */
static void
start_entry(void *arg)
{
	Starting   *starting = arg;
	MdIngestEntry *entry = starting->entry;
	MdStream	def;

	def = paced_definition(entry);
	PushActiveSnapshot(GetTransactionSnapshot());
	md_ingest_forget_wait_set();
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(entry->relid)))
		/* dropped: the definition, which is loaded again, is gone with it */
		entry->def = NULL;
	else if (md_stream_is_pattern(entry->def) ||
			 (!entry->def->initialized && starting->survey == NULL))
	{
		entry->n_queries = md_stream_start_queries(entry->def, entry->queries);
		entry->lane = md_ingest_find_lane(&md_ingest_worker.lanes, &def, md_ingest_worker.share,
										  md_ingest_worker.context);
		entry->lane->next_discovery = 0;
	}
	else
	{
		entry->stream = md_ingest_add_stream(&md_ingest_worker.lanes, &def, starting->survey,
											 md_ingest_worker.share, md_ingest_worker.context);
		entry->stream->entry = entry;
		entry->stream->slice_rows = entry->slice_rows;
		/* what an earlier worker had to say is of no interest any more */
		if (entry->failures == 0)
			md_stream_set_status(entry->relid, entry->topic, 0, NULL, md_ingest_notice(entry), 0);
	}
	PopActiveSnapshot();
}

void
md_ingest_start(MdIngestEntry *entry, const MdKafkaSurvey *survey)
{
	Starting	starting = {entry, survey};
	ErrorData  *error = md_ingest_transaction(start_entry, &starting);

	if (error != NULL)
	{
		/* a failed commit leaves the stream running on nothing */
		md_ingest_stop_entry(entry);
		md_ingest_note_failure(entry, error->sqlerrcode, error->message);
		return;
	}
	if (entry->stream == NULL)
		return;
	entry->lane = NULL;
	entry->def->initialized = true;
	entry->stream->lane->next_discovery = 0;
	entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SIGN_OF_LIFE_MS);
}

bool
md_ingest_is_due(const MdIngestEntry *entry)
{
	return entry->stream == NULL && entry->def != NULL &&
		md_clock_ms_until(GetCurrentTimestamp(), entry->retry_at) == 0;
}

void
md_ingest_start_due(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		/* what has a lane waits for the answer to a question */
		if (!md_ingest_is_due(entry) || entry->lane != NULL)
			continue;
		md_ingest_start(entry, NULL);
		CHECK_FOR_INTERRUPTS();
	}
}
