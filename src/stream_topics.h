/*
 * stream_topics.h
 *		The topics of a streaming table that reads by pattern.
 */
#ifndef MD_STREAM_TOPICS_H
#define MD_STREAM_TOPICS_H

#include "postgres.h"

#include "catalog.h"

/* ERROR unless it is a regular expression; the text with its '^'. */
extern void md_topic_pattern_check(const char *pattern);

/*
 * Of topics (of MdKafkaTopic), the names that match the pattern, sorted.  Those
 * that are Kafka's own never do.
 */
extern List *md_topic_pattern_matches(const char *pattern, const List *topics);

/*
 * The topics that a table reads by its pattern, without those that are gone: of
 * char *, in CurrentMemoryContext.
 */
extern List *md_stream_topics(Oid relid);

/* Such topics of all tables, by table. */
typedef struct MdStreamTopic
{
	Oid			relid;
	char	   *topic;
} MdStreamTopic;

extern List *md_stream_topics_of_all(void);

/*
 * The definition as it is for one topic of those that match, in
 * CurrentMemoryContext; it shares all else with the one given.  known: it was
 * found before, and has its start.
 */
extern MdStream *md_stream_of_topic(const MdStream *stream, const char *topic, bool known);

/*
 * Changes of the list of a table's topics: one is read from now on; those of
 * topics (of char *) are not any more; all that were there when the table was
 * defined have their start, so that what comes later begins at its beginning.
 * They write as the owner of the extension, and workers hear of it after the
 * commit.
 */
extern void md_stream_topic_found(const MdStream *stream);
extern void md_stream_topics_gone(const MdStream *stream, const List *topics);
extern void md_stream_topics_started(MdStream *stream);

/* The pattern is another one: what it does not match is read no more. */
extern void md_stream_pattern_changed(const MdStream *stream);

#endif							/* MD_STREAM_TOPICS_H */
