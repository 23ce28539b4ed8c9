/*
 * ingest_worker_entries.c
 *		Which streams a worker has: definitions, starting, stopping.
 *
 * An entry is there for each table that is to be read, whether it is read at
 * the moment or not: one that failed waits for its next attempt.
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
#include "worker.h"

/* A stream in trouble has this long to hear of Kafka: some waits of a fetch. */
#define SIGN_OF_LIFE_MS 3000

static void
close_lane(MdLane *lane)
{
	md_ingest_forget_wait_set();
	md_ingest_worker.lanes = list_delete_ptr(md_ingest_worker.lanes, lane);
	md_ingest_close_lane(lane);
}

void
md_ingest_stop_entry(MdIngestEntry *entry)
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

static MdIngestEntry *
find_entry(Oid relid)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
		if (((MdIngestEntry *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

static MdIngestEntry *
make_entry(Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(md_ingest_worker.context);
	MdIngestEntry *entry = palloc0(sizeof(MdIngestEntry));

	entry->context = AllocSetContextCreate(md_ingest_worker.context, "ingest entry", ALLOCSET_SMALL_SIZES);
	entry->relid = relid;
	md_ingest_worker.entries = lappend(md_ingest_worker.entries, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

/* Note a definition, and keep one that is new or has changed to be taken over. */
static void
read_definition(const MdStream *def)
{
	MdIngestEntry *entry = find_entry(def->relid);
	char	   *name = get_rel_name(def->relid);

	if (entry == NULL)
		entry = make_entry(def->relid);
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
		foreach(lc, md_catalog_streams(CurrentMemoryContext))
		{
			MdStream   *def = lfirst(lc);

			if (!def->paused && !def->foreign_origin)
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
	entry->retry_at = 0;
}

static void
forget_entry(MdIngestEntry *entry)
{
	md_ingest_stop_entry(entry);
	if (entry->failures > 0)
		md_ingest_clear_status(entry);
	MemoryContextDelete(entry->context);
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
		md_ingest_reassign(entry->stream);
		entry->failures++;
		entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  Max(SIGN_OF_LIFE_MS,
														  md_worker_backoff_ms(entry->failures)));
	}
}

/* Start an entry's stream, for md_ingest_transaction(). */
static void
start_entry(void *arg)
{
	MdIngestEntry *entry = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(entry->relid)))
	{
		/* dropped: the definition, which is loaded again, is gone with it */
		entry->def = NULL;
		PopActiveSnapshot();
		return;
	}
	md_ingest_forget_wait_set();
	entry->stream = md_ingest_add_stream(&md_ingest_worker.lanes, entry->def,
										 md_ingest_worker.share, md_ingest_worker.context);
	entry->stream->entry = entry;
	entry->stream->lane->next_discovery = 0;
	entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SIGN_OF_LIFE_MS);
	/* what an earlier worker had to say is of no interest any more */
	if (entry->failures == 0)
		md_stream_set_status(entry->relid, 0, NULL, NULL, 0);
	PopActiveSnapshot();
}

void
md_ingest_start_due(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);
		ErrorData  *error;

		if (entry->stream != NULL || entry->def == NULL ||
			md_clock_ms_until(GetCurrentTimestamp(), entry->retry_at) > 0)
			continue;
		error = md_ingest_transaction(start_entry, entry);
		if (error != NULL)
		{
			/* a failed commit leaves the stream running on nothing */
			md_ingest_stop_entry(entry);
			md_ingest_note_failure(entry, error->sqlerrcode, error->message);
		}
		CHECK_FOR_INTERRUPTS();
	}
}
