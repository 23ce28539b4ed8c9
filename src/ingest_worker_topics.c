/*
 * ingest_worker_topics.c
 *		Topics that match patterns: found, and gone.
 *
 *	  all topics -> those that match and have no entry -> asked for, one by one
 *	                                                           |
 *	                 entry <- reload <- medallion.stream_topic <+ checkpoints
 *
 * The first worker alone looks, so that nobody decides twice where a topic
 * begins.  The first look's topics begin at start_at; when all of them have
 * their start, the table is initialized, and what is found later begins at its
 * beginning.  A topic that is gone loses its entry; its checkpoints stay, and if
 * a topic of that name is found again, they must prove to be of the same one.
 */
#include "postgres.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "ingest_worker.h"
#include "stream_start.h"
#include "stream_topics.h"

/* Is it a pattern's entry, by whose lane is looked for topics? */
static bool
looks_by(const MdIngestEntry *entry, const MdLane *lane)
{
	return entry->lane == lane && entry->def != NULL && md_stream_is_pattern(entry->def);
}

bool
md_ingest_looks_for_topics(const MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
		if (looks_by(lfirst(lc), lane) && md_ingest_is_due(lfirst(lc)))
			return true;
	return false;
}

void
md_ingest_hear_no_topics(MdLane *lane, const MdKafkaError *error, bool lasts)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		/* what is read already goes on: once is no trouble */
		if (!looks_by(entry, lane) || (entry->def->initialized && !lasts))
			continue;
		md_ingest_note_no_answer(entry, entry->topic, error);
		if (entry->retry_at < lane->next_discovery)
			lane->next_discovery = entry->retry_at;
	}
}

/* --- what is there --- */

/* A look at all topics, for a pattern. */
typedef struct Look
{
	MdIngestEntry *entry;
	List	   *topics;			/* of MdKafkaTopic */
} Look;

/* Are all topics that were there from the beginning asked for? */
static bool
has_started(const MdIngestEntry *entry)
{
	return entry->new_topics == NIL && !entry->def->initialized;
}

/* Those of names that have no entry; in the memory of the pattern's entry. */
static List *
without_entries(const MdIngestEntry *entry, const List *names)
{
	MemoryContext old = MemoryContextSwitchTo(entry->context);
	List	   *found = NIL;
	ListCell   *lc;

	foreach(lc, names)
		if (md_ingest_find_entry(entry->relid, lfirst(lc)) == NULL)
			found = lappend(found, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
	return found;
}

/* The topics of the pattern's table that are not among names. */
static List *
entries_without(const MdIngestEntry *entry, const List *names)
{
	List	   *gone = NIL;
	ListCell   *lc;
	ListCell   *ln;

	foreach(lc, md_ingest_worker.entries)
	{
		const MdIngestEntry *other = lfirst(lc);
		bool		is_there = other == entry || other->relid != entry->relid;

		foreach(ln, names)
			is_there |= strcmp(lfirst(ln), other->topic) == 0;
		if (!is_there)
			gone = lappend(gone, other->topic);
	}
	return gone;
}

/* Once; by now the transaction that noted it is as good as committed. */
static void
tell_gone(const MdIngestEntry *entry, const char *topic)
{
	ereport(LOG,
			(errmsg("topic \"%s\" of streaming table \"%s\" is gone", topic, entry->name),
			 errdetail("It matched the pattern \"%s\".  medallion.stream_topics shows what was read of it.",
					   entry->topic)));
}

/* For md_ingest_transaction(). */
static void
compare_topics(void *arg)
{
	Look	   *look = arg;
	MdIngestEntry *entry = look->entry;
	List	   *names;
	List	   *gone;
	ListCell   *lc;

	PushActiveSnapshot(GetTransactionSnapshot());
	names = md_topic_pattern_matches(entry->topic, look->topics);
	gone = entries_without(entry, names);
	list_free_deep(entry->new_topics);
	entry->new_topics = NIL;
	entry->new_topics = without_entries(entry, names);
	md_stream_topics_gone(entry->def, gone);
	if (has_started(entry))
		md_stream_topics_started(entry->def);
	PopActiveSnapshot();
	foreach(lc, gone)
		tell_gone(entry, lfirst(lc));
}

void
md_ingest_hear_all_topics(MdLane *lane, List *topics)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		Look		look = {lfirst(lc), topics};
		ErrorData  *error;

		if (!looks_by(look.entry, lane))
			continue;
		error = md_ingest_transaction(compare_topics, &look);
		if (error != NULL)
			md_ingest_note_failure(look.entry, error->sqlerrcode, error->message);
		else if (look.entry->failures > 0)
			md_ingest_note_recovery(look.entry);
	}
}

/* --- where a topic begins that was found --- */

bool
md_ingest_ask_for_found(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);
		int64		queries[MD_KAFKA_MAX_QUERIES];
		MdStream   *found;

		if (!looks_by(entry, lane) || entry->new_topics == NIL || !md_ingest_is_due(entry))
			continue;
		found = md_stream_of_topic(entry->def, linitial(entry->new_topics), false);
		md_ingest_ask(lane, MD_QUESTION_FOUND, found, queries,
					  md_stream_start_queries(found, queries));
		return true;
	}
	return false;
}

/* A topic that was found, and what Kafka said of it. */
typedef struct Found
{
	MdIngestEntry *entry;
	const MdKafkaSurvey *survey;	/* NULL: nothing, it is gone again */
} Found;

/* For md_ingest_transaction(): the first of entry->new_topics begins. */
static void
begin_topic(void *arg)
{
	Found	   *found = arg;
	MdIngestEntry *entry = found->entry;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (found->survey != NULL)
		md_stream_initialize(md_stream_of_topic(entry->def, linitial(entry->new_topics), false),
							 found->survey);
	entry->new_topics = list_delete_first(entry->new_topics);
	if (has_started(entry))
		md_stream_topics_started(entry->def);
	PopActiveSnapshot();
}

void
md_ingest_hear_found(MdLane *lane, MdKafkaAnswer answer, const MdKafkaSurvey *survey,
					 const MdKafkaError *error)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		Found		found = {lfirst(lc), answer == MD_KAFKA_ANSWERED ? survey : NULL};
		MdIngestEntry *entry = found.entry;
		ErrorData  *failure;

		if (!looks_by(entry, lane) || entry->relid != lane->question_relid ||
			entry->def->generation != lane->question_generation || entry->new_topics == NIL ||
			strcmp(linitial(entry->new_topics), lane->question_topic) != 0)
			continue;
		if (answer == MD_KAFKA_SILENT)
		{
			md_ingest_note_no_answer(entry, lane->question_topic, error);
			return;
		}
		/* whatever is wrong with it, the next look may find it again */
		if (answer == MD_KAFKA_REFUSED)
			ereport(DEBUG1, (errmsg_internal("could not begin topic \"%s\": %s",
											 lane->question_topic, error->message)));
		failure = md_ingest_transaction(begin_topic, &found);
		if (failure != NULL)
		{
			/* the topics are looked at again, and a definition that is of another time */
			md_ingest_note_failure(entry, failure->sqlerrcode, failure->message);
			lane->next_discovery = Min(lane->next_discovery, entry->retry_at);
			if (failure->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
				entry->def = NULL;
		}
		return;
	}
}
