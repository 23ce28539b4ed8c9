/*
 * ingest_worker.h
 *		What the files ingest_worker*.c share: the process, its entries, and
 *		transactions.  Nobody else includes it.
 */
#ifndef MD_INGEST_WORKER_H
#define MD_INGEST_WORKER_H

#include "postgres.h"

#include "attempt.h"
#include "ingest.h"

/*
 * A topic that is ours to read into a streaming table, running or waiting to be
 * started.  A table that reads by pattern has an entry per topic, and with the
 * first worker one for the pattern: it never runs, and looks for topics.
 */
typedef struct MdIngestEntry
{
	Oid			relid;
	char	   *topic;
	char		name[NAMEDATALEN];	/* of the table */
	MdStream   *def;			/* NULL: to be read again */
	MemoryContext context;		/* of def and the messages */
	MdStream   *new_def;		/* during a reload, in new_context: what changed */
	MemoryContext new_context;	/* NULL: nothing did */
	MdIngestStream *stream;		/* NULL: waits for retry_at */
	MdLane	   *lane;			/* by which Kafka is asked before the start; NULL: it is not */
	bool		is_silence;		/* failures count that questions are not answered */
	List	   *new_topics;		/* of a pattern: found, and to be asked for; of char *, in context */
	int			n_queries;		/* and what for: see md_stream_start_queries() */
	int64		queries[MD_KAFKA_MAX_QUERIES];
	int			failures;
	bool		waits;			/* for a lock: these were no failures */
	char	   *told_waiting;	/* what its state row says of that; NULL: it does not */
	char	   *last_message;	/* what was logged last */
	TimestampTz retry_at;
	int			pace;			/* records of its batches, apart from others; 0: as defined */
	TimestampTz returns_at;		/* from there, unless it has a backlog again */
	TimestampTz slow_logged_at;
	int			rate;			/* records a second when it was set apart */
	int			slice_rows;		/* to begin with: see MdIngestStream; 0: not known */
	bool		restart;		/* after the batch, at once */
	bool		owes_status;	/* its state row could not be written */
	bool		seen;			/* during a reload */
} MdIngestEntry;

/* The one ingest worker that this process is. */
typedef struct MdIngestWorker
{
	MemoryContext context;		/* of entries and lanes */
	MemoryContext cycle_context;	/* reset at each turn of the loop */
	List	   *entries;		/* of MdIngestEntry */
	List	   *lanes;			/* of MdLane */
	MdShare		share;
	bool		memory_to_give_back;	/* the library has freed much */
} MdIngestWorker;

/* ingest_worker.c */
extern MdIngestWorker md_ingest_worker;

/*
 * Run action in a transaction of its own.  NULL when that is committed; else it
 * is rolled back and this is why, in the cycle's context.
 */
extern ErrorData *md_ingest_transaction(MdAction action, void *arg);

/* Before a lane is opened or closed: the set of what is waited for is stale. */
extern void md_ingest_forget_wait_set(void);

/* ingest_worker_entries.c: which streams the worker has */

/* Read all definitions; false if the extension is gone. */
extern bool md_ingest_reload(void);

/*
 * Start the streams whose time has come.  Those that were never initialized
 * get a lane by which Kafka is asked for their topic first, and are started
 * with the answer.
 */
extern void md_ingest_start_due(void);
extern void md_ingest_start(MdIngestEntry *entry, const MdKafkaSurvey *survey);

/* Is it the time to start the entry's stream? */
extern bool md_ingest_is_due(const MdIngestEntry *entry);
extern MdIngestEntry *md_ingest_find_entry(Oid relid, const char *topic);

/* Close lanes by which nothing is read any more, nor asked. */
extern void md_ingest_close_unused_lanes(void);

/* Assign streams anew for which Kafka has been silent for too long. */
extern void md_ingest_ask_for_life(void);

/* Stop reading a stream; the entry then waits for its retry_at. */
extern void md_ingest_stop_entry(MdIngestEntry *entry);

/* Has Kafka answered for all partitions of the stream, or for any of them? */
extern bool md_ingest_all_alive(const MdIngestStream *stream);
extern bool md_ingest_any_alive(const MdIngestStream *stream);

/* Is the entry in trouble although it runs: Kafka does not answer for it? */
extern bool md_ingest_is_silent(const MdIngestEntry *entry);

/* ingest_worker_failures.c: trouble of an entry, in its state row and the log */

/* Trouble: one log line for each new message, the state row each time. */
extern void md_ingest_note_failure(MdIngestEntry *entry, int sqlstate, const char *message);
extern void md_ingest_note_retry(MdIngestEntry *entry);
extern void md_ingest_note_recovery(MdIngestEntry *entry);
extern void md_ingest_clear_status(MdIngestEntry *entry);
extern void md_ingest_write_owed_statuses(void);

/* ingest_worker_batches.c: from a lane's queue into tables */

/* Take batches off a lane's queue until it is empty, or for one second. */
extern void md_ingest_flush(MdLane *lane);

/* ingest_worker_pace.c: tables whose rows take long to store */

/* After a batch was stored: who has taken too long, or no longer does? */
extern void md_ingest_pace(MdLane *lane);

/* Stop the streams that are to begin anew, once the batch is forgotten. */
extern void md_ingest_restart_streams(MdLane *lane);

/* Streams that are up with their topics need not be apart any more. */
extern void md_ingest_let_return(void);

/* May one more stream have a lane of its own? */
extern bool md_ingest_may_be_alone(void);

/* What the state of an entry without trouble says; NULL: nothing. */
extern const char *md_ingest_notice(const MdIngestEntry *entry);

/* ingest_worker_positions.c: positions that Kafka does not have */

/* Has the stream partitions whose position is to be settled? */
extern bool md_ingest_is_out_of_range(const MdIngestStream *stream);

/* Decide, by what the topic has, what becomes of them, and of the stream. */
extern void md_ingest_settle_positions(MdIngestStream *stream, const MdKafkaSurvey *survey);

/* ingest_worker_questions.c: what a worker asks Kafka, while it goes on */
extern void md_ingest_hear_answers(void);
extern void md_ingest_ask_due(void);
extern bool md_ingest_wants_discovery(const MdLane *lane);

/* Why an entry cannot go on that needs an answer. */
extern void md_ingest_note_no_answer(MdIngestEntry *entry, const char *topic,
									 const MdKafkaError *error);

/* ingest_worker_topics.c: topics that match patterns */

/* Does a pattern wait for the lane to look at all topics? */
extern bool md_ingest_looks_for_topics(const MdLane *lane);

/* What came of that look: topics of MdKafkaTopic, or an error, which lasts or not. */
extern void md_ingest_hear_all_topics(MdLane *lane, List *topics);
extern void md_ingest_hear_no_topics(MdLane *lane, const MdKafkaError *error, bool lasts);

/* Ask where a topic begins that was found, and hear it; *survey or *error. */
extern bool md_ingest_ask_for_found(MdLane *lane);
extern void md_ingest_hear_found(MdLane *lane, MdKafkaAnswer answer,
								 const MdKafkaSurvey *survey, const MdKafkaError *error);

/* ingest_worker_questions.c: put a question to the lane's asker */
extern void md_ingest_ask(MdLane *lane, MdQuestion question, const MdStream *def,
						  const int64 *queries, int n_queries);

/* ingest_worker_mirror.c: progress for the consumer group of a lane */
extern void md_ingest_mirror(MdLane *lane);

#endif							/* MD_INGEST_WORKER_H */
