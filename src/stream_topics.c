/*
 * stream_topics.c
 *		The topics of a streaming table that reads by pattern.
 *
 *	  medallion.stream        topic = '^orders_'		what the user wrote
 *	  medallion.stream_topic  orders_eu, orders_us		what it has found
 *	  medallion.checkpoint    (orders_eu, 0), ...		how far each is read
 *
 * Everybody below treats a topic of a pattern as one that was named: it has a
 * definition of its own, which is the table's with the topic put in, and fails,
 * waits and goes on by itself.  What a table makes of its pattern, and when a
 * topic is gone, is here.
 *
 * A pattern is a regular expression of PostgreSQL's, in collation C, and need not
 * match the whole name; '^' is its first character, and that is how it is told
 * from a name.  Names that begin with two underscores are Kafka's own.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "kafka_client.h"
#include "sql_run.h"
#include "stream_state.h"
#include "stream_topics.h"
#include "worker_slots.h"

#define MAX_PATTERN_BYTES 1000

static bool
matches(const char *pattern, const char *topic)
{
	return DatumGetBool(DirectFunctionCall2Coll(textregexeq, C_COLLATION_OID,
												CStringGetTextDatum(topic),
												CStringGetTextDatum(pattern)));
}

/* Says what an error of the regular expression is about. */
static void
pattern_error_context(void *arg)
{
	errcontext("pattern of topics \"%s\"", (const char *) arg);
}

void
md_topic_pattern_check(const char *pattern)
{
	ErrorContextCallback context;

	if (strlen(pattern) > MAX_PATTERN_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pattern of topics is too long"),
				 errdetail("It has %zu bytes; %d are allowed.", strlen(pattern), MAX_PATTERN_BYTES)));
	context.callback = pattern_error_context;
	context.arg = unconstify(char *, pattern);
	context.previous = error_context_stack;
	error_context_stack = &context;
	(void) matches(pattern, "");
	error_context_stack = context.previous;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

List *
md_topic_pattern_matches(const char *pattern, const List *topics)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, topics)
	{
		MdKafkaTopic *topic = lfirst(lc);

		if (topic->n_partitions > 0 && strncmp(topic->name, "__", 2) != 0 &&
			matches(pattern, topic->name))
			names = lappend(names, topic->name);
	}
	list_sort(names, compare_names);
	return names;
}

/* Topics of a table (InvalidOid: of all), of MdStreamTopic. */
static List *
load_topics(Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	List	   *topics = NIL;
	uint64		n;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	n = md_sql_run("SELECT t.relid::oid::bigint, t.topic FROM medallion.stream_topic t"
				   " WHERE (t.relid = $1 OR $1 = 0) AND t.gone_at IS NULL ORDER BY 1, 2",
				   &args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		MdStreamTopic *topic = palloc(sizeof(MdStreamTopic));

		topic->relid = (Oid) md_sql_int64(i, 1);
		topic->topic = pstrdup(md_sql_string(i, 2));
		topics = lappend(topics, topic);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return topics;
}

List *
md_stream_topics(Oid relid)
{
	List	   *topics = load_topics(relid);
	ListCell   *lc;

	foreach(lc, topics)
		lfirst(lc) = ((MdStreamTopic *) lfirst(lc))->topic;
	return topics;
}

List *
md_stream_topics_of_all(void)
{
	return load_topics(InvalidOid);
}

MdStream *
md_stream_of_topic(const MdStream *stream, const char *topic, bool known)
{
	MdStream   *of_topic = palloc(sizeof(MdStream));

	*of_topic = *stream;
	of_topic->topic = pstrdup(topic);
	of_topic->by_pattern = true;
	of_topic->initialized = known || stream->initialized;
	return of_topic;
}

void
md_stream_topic_found(const MdStream *stream)
{
	Oid			argtypes[2] = {OIDOID, TEXTOID};
	Datum		args[2] = {ObjectIdGetDatum(stream->relid), CStringGetTextDatum(stream->topic)};

	if (md_stream_write("INSERT INTO medallion.stream_topic AS t (relid, topic) VALUES ($1, $2)"
						" ON CONFLICT (relid, topic) DO UPDATE SET gone_at = NULL"
						"  WHERE t.gone_at IS NOT NULL", 2, argtypes, args) > 0)
		md_definitions_changed();
}

void
md_stream_topics_gone(const MdStream *stream, const List *topics)
{
	Oid			argtypes[2] = {OIDOID, TEXTOID};
	Datum		args[2] = {ObjectIdGetDatum(stream->relid)};
	uint64		n = 0;
	ListCell   *lc;

	foreach(lc, topics)
	{
		args[1] = CStringGetTextDatum(lfirst(lc));
		n += md_stream_write("UPDATE medallion.stream_topic SET gone_at = now()"
							 " WHERE relid = $1 AND topic = $2 AND gone_at IS NULL",
							 2, argtypes, args);
		md_stream_write("DELETE FROM medallion.stream_status WHERE relid = $1 AND topic = $2",
						2, argtypes, args);
	}
	if (n > 0)
		md_definitions_changed();
}

void
md_stream_topics_started(MdStream *stream)
{
	Oid			argtypes[2] = {OIDOID, INT8OID};
	Datum		args[2] = {ObjectIdGetDatum(stream->relid), Int64GetDatum(stream->generation)};

	if (!stream->initialized)
		md_stream_write("UPDATE medallion.stream SET initialized = true"
						" WHERE relid = $1 AND generation = $2", 2, argtypes, args);
	stream->initialized = true;
}

void
md_stream_pattern_changed(const MdStream *stream)
{
	List	   *unmatched = NIL;
	ListCell   *lc;

	foreach(lc, md_stream_topics(stream->relid))
		if (!matches(stream->topic, lfirst(lc)))
			unmatched = lappend(unmatched, lfirst(lc));
	md_stream_topics_gone(stream, unmatched);
}
