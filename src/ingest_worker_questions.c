/*
 * ingest_worker_questions.c
 *		What a worker asks Kafka, while its streams go on.
 *
 * A lane's asker is asked one question at a time, in the background, and no
 * transaction is open meanwhile: a server that does not answer holds up nobody
 * but the streams that read from it.  When the answer is there, the asker's
 * event descriptor rings; by then the definition, or the stream, that it was
 * asked for may be another one, and the answer is of no interest.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "clock.h"
#include "ingest_worker.h"
#include "settings.h"
#include "stream_start.h"

/* When an answer is given up. */
#define QUESTION_TIMEOUT_MS 2000
/* Who did not answer is asked again after this, and so often until it counts. */
#define SILENCE_CHECK_MS 1000
#define SILENCES 3

/* --- asking --- */

void
md_ingest_ask(MdLane *lane, MdQuestion question, const MdStream *def, const int64 *queries,
			  int n_queries)
{
	lane->question = question;
	lane->question_relid = def != NULL ? def->relid : InvalidOid;
	lane->question_generation = def != NULL ? def->generation : 0;
	strlcpy(lane->question_topic, def != NULL ? def->topic : "", sizeof(lane->question_topic));
	md_kafka_ask(lane->asker, def != NULL ? def->topic : NULL, queries, n_queries,
				 Min(QUESTION_TIMEOUT_MS, md_kafka_timeout_ms));
}

/* For a stream that waits for its first start. */
static bool
ask_for_start(MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->lane != lane || !md_ingest_is_due(entry) || md_stream_is_pattern(entry->def))
			continue;
		md_ingest_ask(lane, MD_QUESTION_START, entry->def, entry->queries, entry->n_queries);
		return true;
	}
	return false;
}

/* For a stream that reads at a position which Kafka does not have. */
static bool
ask_for_positions(MdLane *lane)
{
	static const int64 queries[] = {MD_KAFKA_EARLIEST, MD_KAFKA_LATEST};
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (!md_ingest_is_out_of_range(stream))
			continue;
		md_ingest_ask(lane, MD_QUESTION_POSITIONS, stream->def, queries, lengthof(queries));
		return true;
	}
	return false;
}

/* For a stream whose topic has more partitions than it knows. */
static bool
ask_for_partitions(MdLane *lane)
{
	static const int64 queries[] = {MD_KAFKA_EARLIEST};
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->n_offered <= stream->n_known)
			continue;
		md_ingest_ask(lane, MD_QUESTION_PARTITIONS, stream->def, queries, lengthof(queries));
		return true;
	}
	return false;
}

/* A broker that does not answer anyhow is not asked for what is new. */
bool
md_ingest_wants_discovery(const MdLane *lane)
{
	ListCell   *lc;

	if (md_kafka_is_asking(lane->asker))
		return false;
	if (md_ingest_looks_for_topics(lane))
		return true;
	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->partitions == NIL || md_ingest_any_alive(stream))
			return true;
	}
	return false;
}

/* For all topics, now and then. */
static void
ask_for_topics(MdLane *lane)
{
	if (!md_ingest_wants_discovery(lane) ||
		md_clock_ms_until(GetCurrentTimestamp(), lane->next_discovery) > 0)
		return;
	lane->next_discovery = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), md_discovery_interval_ms);
	md_ingest_ask(lane, MD_QUESTION_TOPICS, NULL, NULL, 0);
}

void
md_ingest_ask_due(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (!md_kafka_is_asking(lane->asker) &&
			!ask_for_start(lane) && !ask_for_positions(lane) && !ask_for_partitions(lane) &&
			!md_ingest_ask_for_found(lane))
			ask_for_topics(lane);
	}
}

/* --- answers --- */

void
md_ingest_note_no_answer(MdIngestEntry *entry, const char *topic, const MdKafkaError *error)
{
	const MdStream *def = entry->def;

	if (md_kafka_error_is_unknown_topic(error))
		md_ingest_note_failure(entry, ERRCODE_UNDEFINED_OBJECT,
							   psprintf("topic \"%s\" does not exist on server \"%s\"",
										topic, def->server));
	else
		md_ingest_note_failure(entry, ERRCODE_CONNECTION_FAILURE,
							   psprintf("could not get an answer from Kafka server \"%s\": %s",
										def->server, error->message));
}

static void
hear_start(MdLane *lane, MdKafkaAnswer answer, const MdKafkaSurvey *survey, const MdKafkaError *error)
{
	MdIngestEntry *asked = md_ingest_find_entry(lane->question_relid, lane->question_topic);
	ListCell   *lc;

	if (answer == MD_KAFKA_SILENT)
	{
		/* it says so to all who wait for this lane */
		foreach(lc, md_ingest_worker.entries)
		{
			MdIngestEntry *entry = lfirst(lc);

			if (entry->lane == lane && md_ingest_is_due(entry))
				md_ingest_note_no_answer(entry, entry->topic, error);
		}
		return;
	}
	if (asked == NULL || asked->lane != lane || !md_ingest_is_due(asked) ||
		asked->def->generation != lane->question_generation)
		return;
	if (answer == MD_KAFKA_REFUSED)
		md_ingest_note_no_answer(asked, asked->topic, error);
	else
		md_ingest_start(asked, survey);
}

/* The stream that a question was asked for, if it is still the same. */
static MdIngestStream *
asked_stream(const MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->def->relid == lane->question_relid &&
			stream->def->generation == lane->question_generation &&
			strcmp(stream->def->topic, lane->question_topic) == 0)
			return stream;
	}
	return NULL;
}

static void
hear_positions(MdLane *lane, MdKafkaAnswer answer, const MdKafkaSurvey *survey, const MdKafkaError *error)
{
	MdIngestStream *stream = asked_stream(lane);

	if (stream == NULL || !md_ingest_is_out_of_range(stream))
		return;
	if (answer == MD_KAFKA_ANSWERED)
		md_ingest_settle_positions(stream, survey);
	else
	{
		MdIngestEntry *entry = stream->entry;

		md_ingest_stop_entry(entry);
		md_ingest_note_no_answer(entry, entry->topic, error);
	}
}

static int
compare_topics(const ListCell *a, const ListCell *b)
{
	return strcmp(((MdKafkaTopic *) lfirst(a))->name, ((MdKafkaTopic *) lfirst(b))->name);
}

/* NULL: it is not there. */
static const MdKafkaTopic *
find_topic(const List *sorted_topics, const char *topic)
{
	int			low = 0;
	int			high = list_length(sorted_topics) - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		MdKafkaTopic *found = list_nth(sorted_topics, middle);
		int			order = strcmp(topic, found->name);

		if (order == 0)
			return found;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return NULL;
}

static void
note_topic(MdIngestStream *stream, const MdKafkaTopic *topic)
{
	ListCell   *lc;

	stream->n_offered = topic == NULL ? 0 : topic->n_partitions;
	foreach(lc, stream->partitions)
	{
		MdPartition *partition = lfirst(lc);

		partition->leader = partition->partition < stream->n_offered ?
			topic->leaders[partition->partition] : -1;
	}
}

static void
hear_topics(MdLane *lane, List *topics)
{
	ListCell   *lc;

	list_sort(topics, compare_topics);
	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		note_topic(stream, find_topic(topics, stream->def->topic));
	}
	md_ingest_hear_all_topics(lane, topics);
}

/* New partitions of a topic, and the stream that is to read them. */
typedef struct NewPartitions
{
	MdIngestStream *stream;
	const MdKafkaSurvey *survey;
	int			n;				/* how many nobody else had added */
} NewPartitions;

/*
 * For md_ingest_transaction(): give them checkpoints.  The definition's
 * generation moves, so that every worker deals partitions out anew.
 */
static void
add_partitions(void *arg)
{
	NewPartitions *new = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	new->n = md_stream_initialize(new->stream->def, new->survey);
	if (new->n > 0)
		md_catalog_bump_generation(new->stream->def->relid);
	PopActiveSnapshot();
}

static void
hear_partitions(MdLane *lane, const MdKafkaSurvey *survey)
{
	NewPartitions new = {asked_stream(lane), survey, 0};
	ErrorData  *error;

	if (new.stream == NULL)
		return;
	error = md_ingest_transaction(add_partitions, &new);
	if (error != NULL)
		ereport(DEBUG1, (errmsg_internal("could not add partitions: %s", error->message)));
	/* a session had added them, which leaves the definition as it is */
	else if (new.n == 0 && survey->n_partitions > new.stream->n_known)
	{
		MdIngestEntry *entry = new.stream->entry;

		md_ingest_stop_entry(entry);
		entry->def = NULL;
	}
}

static void
note_not_discovered(MdLane *lane, const MdKafkaError *error)
{
	ereport(DEBUG1, (errmsg_internal("could not look for partitions: %s", error->message)));
}

/*
 * The consumer says when a broker is not there, and its queue is looked at for
 * that.  But of one that keeps the connection and does not answer it says
 * nothing until a fetch times out, a minute later.
 */
static void
hear_silence(MdLane *lane, const MdKafkaError *error)
{
	TimestampTz soon = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SILENCE_CHECK_MS);
	ListCell   *lc;

	note_not_discovered(lane, error);
	lane->silences++;
	md_ingest_hear_no_topics(lane, error, lane->silences >= SILENCES);
	lane->next_discovery = Min(lane->next_discovery, soon);
	lane->hurries = true;
	if (lane->silences != SILENCES)
		return;
	foreach(lc, lane->streams)
	{
		MdIngestEntry *entry = ((MdIngestStream *) lfirst(lc))->entry;

		if (entry->failures > 0)
			continue;
		md_ingest_note_no_answer(entry, entry->topic, error);
		entry->is_silence = true;
	}
}

static void
hear_end_of_silence(MdLane *lane)
{
	ListCell   *lc;

	lane->silences = 0;
	foreach(lc, lane->streams)
	{
		MdIngestEntry *entry = ((MdIngestStream *) lfirst(lc))->entry;

		if (entry->is_silence && entry->failures > 0 && md_ingest_all_alive(lfirst(lc)))
			md_ingest_note_recovery(entry);
		entry->is_silence = false;
	}
}

static void
hear_answer(MdLane *lane)
{
	MdKafkaSurvey survey;
	List	   *topics = NIL;
	MdKafkaError error;
	MdKafkaAnswer answer = md_kafka_answer(lane->asker, &survey, &topics, &error);
	MdIngestStream *stream;

	if (answer == MD_KAFKA_ASKING)
		return;
	switch (lane->question)
	{
		case MD_QUESTION_START:
			hear_start(lane, answer, &survey, &error);
			break;
		case MD_QUESTION_POSITIONS:
			hear_positions(lane, answer, &survey, &error);
			break;
		case MD_QUESTION_TOPICS:
			if (answer == MD_KAFKA_ANSWERED)
			{
				hear_end_of_silence(lane);
				hear_topics(lane, topics);
			}
			else
				hear_silence(lane, &error);
			break;
		case MD_QUESTION_FOUND:
			md_ingest_hear_found(lane, answer, &survey, &error);
			break;
		case MD_QUESTION_PARTITIONS:
			/* whatever comes of it, the next look at the topics tells */
			stream = asked_stream(lane);
			if (stream != NULL)
				stream->n_offered = 0;
			if (answer == MD_KAFKA_ANSWERED)
				hear_partitions(lane, &survey);
			else
				note_not_discovered(lane, &error);
			break;
	}
}

void
md_ingest_hear_answers(void)
{
	ListCell   *lc;

	foreach(lc, list_copy(md_ingest_worker.lanes))
	{
		if (md_kafka_is_asking(((MdLane *) lfirst(lc))->asker))
			hear_answer(lfirst(lc));
		CHECK_FOR_INTERRUPTS();
	}
}
