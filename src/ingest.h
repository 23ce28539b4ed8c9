/*
 * ingest.h
 *		From a client's queue into streaming tables: lanes, their streams and
 *		partitions, and one batch in one transaction.
 *
 * A lane is one Kafka client with the streaming tables that it serves: those
 * on one server with the same delivery options, each topic once.  What a lane
 * holds is a batch: it is taken off the queue, stored and checkpointed in one
 * transaction.
 */
#ifndef MD_INGEST_H
#define MD_INGEST_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "attempt.h"
#include "bronze.h"
#include "catalog.h"
#include "decode.h"
#include "ingest_threshold.h"
#include "kafka_client.h"

/* Who shares commits over a longer time than this does so from the beginning. */
#define MAX_HURRY_MS 1000

typedef struct MdIngestStream MdIngestStream;
typedef struct MdLane MdLane;

/* A partition that a lane reads, and what the batch under way holds of it. */
typedef struct MdPartition
{
	MdIngestStream *stream;
	char	   *topic;
	int32		partition;
	int32		leader;			/* the broker that led it when topics were looked at last; -1 */
	int64		next_offset;	/* as stored: the fence */
	int64		high_watermark; /* -1: not known */
	int64		eof_offset;		/* read up to here by an event; -1: none */
	bool		out_of_range;	/* Kafka does not have next_offset */
	int64		last_offset;	/* the last record before next_offset; -1: not known */
	int64		last_checksum;
	bool		proving;		/* reads that record again: is it the same topic? */
	bool		assigned;		/* the client reads it */
	bool		alive;			/* Kafka has answered for it since it was assigned */
	int64		mirror_offset;	/* to be told to the group once it is flushed; -1: none */
	/* the batch under way, as it was taken off the queue */
	bool		taken;
	int64		taken_next;
	int64		taken_last_offset;	/* the last record taken; -1: none */
	int64		taken_last_checksum;
	int			taken_last;		/* index of that record */
	int64		n_records;
	int64		max_timestamp_ms;
	/* and as this attempt stores it */
	bool		in_batch;
	int64		batch_next;		/* next_offset when the batch is stored */
	int64		n_dead;
	int64		n_unstored;		/* dead letters, and records after stuck_at */
	int64		stuck_at;		/* offset of a record that is not stored, nor any after it:
								 * on_error = fail, or the batch was cut; -1 */
	int			stored_last;	/* index of the last record that was stored; -1 */
	int64		kept_offset;	/* the last record before batch_next where it was cut; -1 */
	int64		kept_checksum;
} MdPartition;

/* Records [from, to) of a batch, all of one partition. */
typedef struct MdRun
{
	int			from;
	int			to;
	MdPartition *partition;
} MdRun;

struct MdIngestStream
{
	MdStream   *def;
	MemoryContext context;		/* holds this structure and all of it */
	MdLane	   *lane;
	struct MdIngestEntry *entry;	/* in a worker: whose stream it is */
	Oid			owner;
	TupleDesc	desc;			/* what the decoder was made for */
	MdDecoder  *decoder;
	bool		needs_headers;
	int			n_known;		/* partitions of the topic, of any worker's share */
	int			n_offered;		/* as Kafka told when it was asked last */
	List	   *partitions;		/* of MdPartition: our share */
	MdPartition *witness;		/* of another's share, read as a proof alone; NULL */
	bool		waits;			/* some partitions are not read before a proof */
	List	   *runs;			/* of MdRun, of the batch under way */
	MdThresholdWindow window;	/* of records and dead letters */
	bool		careful;		/* find the bad records of the batch, one by one */
	bool		cut;			/* it has used up its time in the batch under way */
	int64		n_spent;		/* records of the last attempt, and how long they took */
	int64		spent_us;
	int			slice_rows;		/* stored between two looks at the clock */
	bool		skipped;		/* left out of the batch under way */
	int			skip_sqlstate;	/* and why; 0: its definition changed */
	char	   *skip_message;
};

/* A record of a batch that cannot be stored, and why. */
typedef struct MdBadRecord
{
	int			index;			/* in lane->records */
	MdDecodeError error;
} MdBadRecord;

/* What a worker wants to know of Kafka. */
typedef enum MdQuestion
{
	MD_QUESTION_START,			/* where a stream begins that was never initialized */
	MD_QUESTION_TOPICS,			/* which are there, and have they more partitions? */
	MD_QUESTION_FOUND,			/* where one begins that matches a pattern */
	MD_QUESTION_PARTITIONS,		/* where those begin */
	MD_QUESTION_POSITIONS		/* what there is in place of an offset that is not */
} MdQuestion;

struct MdLane
{
	MemoryContext context;
	char	   *key;			/* server, user and delivery options */
	char	   *properties_key; /* all properties with their values */
	MdKafkaClient *client;
	MdKafkaClient *asker;		/* for questions: see open_lane() */
	int			flush_interval_ms;
	int			batch_max_records;
	int64		batch_max_bytes;
	int			queue_kb;		/* memory for records that wait */
	int			max_records;	/* bound of batch_max_records */
	bool		mirror;			/* a group_id is set */
	bool		foreground;		/* a session's own: reads paused tables too */
	bool		has_time_limit; /* medallion.batch_time_limit and batch_timeout count */
	bool		alone;			/* of one slow stream: see ingest_worker_pace.c */
	List	   *streams;		/* of MdIngestStream */
	HTAB	   *partitions;		/* (topic, partition) -> MdPartition */
	/* the batch under way */
	MemoryContext batch_context;	/* reset when it is stored or abandoned */
	MdRecord   *records;
	int			n_records;
	List	   *taken;			/* of MdPartition */
	MdPartition *last_found;	/* cache of the last lookup */
	MdIngestStream *storing;	/* whose rows are being stored; for errors */
	bool		try_again;		/* the attempt failed for what is settled now */
	bool		find_locked;	/* a checkpoint of the batch is locked: see whose */
	bool		collects_bad_records;	/* in bad_records; else they become dead letters */
	List	   *bad_records;	/* of MdBadRecord, in batch_context */
	/* in a worker: what the asker is asked at the moment, and for which definition */
	MdQuestion	question;
	Oid			question_relid;
	int64		question_generation;
	char		question_topic[MD_KAFKA_TOPIC_LEN];
	TimestampTz next_discovery; /* when to look for new partitions of the topics */
	int			silences;		/* how often in a row there was no answer to that */
	/* waiting */
	bool		hurries;		/* a stream has joined: its first records are stored at once */
	bool		behind;			/* the last batch ended before the end of a partition */
	bool		rung;			/* the queue has something since rung_at */
	TimestampTz rung_at;
	TimestampTz looked_at;		/* at the queue, while it waits for flush_interval */
	int			queue_seen;		/* its length then */
	/* progress for the group: mirror_offset of the partitions, as of mirror_lsn */
	uint64		mirror_lsn;		/* 0: nothing is pending */
	bool		mirror_dirty;	/* more was stored since */
	TimestampTz mirror_again_at;	/* the group did not take it: tell it again; 0: it did */
};

/*
 * Which partitions are this process's share, as number index of n workers; a
 * session takes all of them.
 */
typedef struct MdShare
{
	int			index;
	int			n;
	int			n_streams;		/* how many the process has, or is about to have */
	bool		foreground;
} MdShare;

/* Figures of a stored batch. */
typedef struct MdBatchResult
{
	int64		rows;
	int64		dead_letters;
	int64		bytes;
	int			streams;
} MdBatchResult;

/* ingest_lane.c: lanes and what is assigned to them */

/*
 * A lane in *lanes that the stream can join, or a new one in context.  Needs a
 * transaction.
 */
extern MdLane *md_ingest_find_lane(List **lanes, const MdStream *def, MdShare share,
								   MemoryContext context);

/*
 * Find a lane and start reading the stream's partitions at their checkpoints,
 * which are made first where a survey of the topic is given.  ERROR if anything
 * is wrong; nothing but the lane is left behind then.  Needs a transaction.
 */
extern MdIngestStream *md_ingest_add_stream(List **lanes, const MdStream *def,
											const MdKafkaSurvey *survey, MdShare share,
											MemoryContext context);

/* Stop reading a partition where it is read now. */
extern void md_ingest_unassign(MdPartition *partition);

/* Begin anew with those partitions of the stream for which Kafka has not answered. */
extern void md_ingest_reassign_silent(MdIngestStream *stream);

/* Read those partitions that may be read, and are not yet. */
extern void md_ingest_assign(MdIngestStream *stream);

/* Stop reading the stream's witness. */
extern void md_ingest_dismiss_witness(MdIngestStream *stream);

/* The structures of a stream, its decoder and its checkpoints; in context. */
extern MdIngestStream *md_ingest_make_stream(const MdStream *def, MdLane *lane,
											 MemoryContext context);

/* Stop reading a stream's partitions, and forget it; its lane may be empty then. */
extern void md_ingest_remove_stream(MdIngestStream *stream);
extern void md_ingest_close_lane(MdLane *lane);
extern MdPartition *md_ingest_find_partition(MdLane *lane, const char *topic,
											 int32 partition);

/* All properties of the server as the stream's owner sees them, as one string. */
extern char *md_ingest_properties_key(const MdStream *def, Oid owner);

/* ingest_proof.c: is the topic the one that was read before? */

/* What tells a record from the one that has its offset in another topic. */
extern int64 md_ingest_checksum(const MdRecord *record);

/*
 * The first record that comes after an assignment is the last one that we
 * have, unless Kafka has deleted it.  If it is another one, so is the topic:
 * its stream is skipped, and none of its records mixed with those that we have.
 */
extern void md_ingest_prove(MdPartition *partition, const MdRecord *record);

/*
 * Kafka does not have where we read a partition, whose log now begins at first;
 * true if that was the record that proves the topic's identity only, and is so
 * old that Kafka has deleted it.  It is not read there any more, and to be
 * assigned anew; the stream's others are read on: Kafka would tell once more
 * of each that lacks its record, too, when it may not be proving any longer.
 */
extern bool md_ingest_give_up_proof(MdPartition *partition, int64 first);

/* Is there a partition whose record has not been compared yet? */
extern bool md_ingest_is_proving(const MdIngestStream *stream);

/* If none of the stream's partitions proves anything, one of the others shall. */
extern void md_ingest_choose_witness(MdIngestStream *stream, List *others);

/* Read what had to wait for proofs that have been given, or given up. */
extern void md_ingest_settle_proofs(MdLane *lane);

/* ingest_take.c: from the queue to a batch */

/* Take a batch off the queue; false if there is nothing to store. */
extern bool md_ingest_take(MdLane *lane, int max_records, bool *drained, List **errors);

/* ingest_store.c: one stream's part of a batch */

/*
 * Decode and store a stream's runs, as the owner of its table, and nothing
 * else: no checkpoint moves.  The table is locked.
 */
extern void md_ingest_store_runs(MdLane *lane, MdIngestStream *stream, TimestampTz now,
								 MdBatchResult *result, MdBronzeExtent *extent);

/* ingest_batch.c: one batch in one transaction */

/*
 * Store the batch in the caller's transaction.  Streams that cannot take part
 * (their table is locked, their definition or checkpoint has changed) are left
 * out and marked skipped.  On an error the caller rolls back, asks
 * md_ingest_failed() what to do, and calls again.
 */
extern void md_ingest_store(MdLane *lane, MdBatchResult *result);

/* Nothing that the lane stores is to be timed out any more. */
extern void md_ingest_end_timeout(const MdLane *lane);

/* Leave a stream out of the batch under way; its partitions stay behind. */
extern void md_ingest_skip(MdIngestStream *stream, int sqlstate, const char *message);

/* The transaction has committed: positions move, records are released. */
extern void md_ingest_stored(MdLane *lane);
extern void md_ingest_abandon(MdLane *lane);

typedef enum MdFailure
{
	MD_FAILURE_RETRY_CAREFULLY, /* call md_ingest_store again at once */
	MD_FAILURE_STREAM,			/* leave lane->storing out and back off */
	MD_FAILURE_LANE				/* back off with the whole lane */
} MdFailure;

extern MdFailure md_ingest_failed(MdLane *lane, const ErrorData *error);

/*
 * In a session, where there is no transaction to end: run an action that stores
 * lane's batch in subtransactions, until it succeeds.  Throws what is not the
 * fault of a record.
 */
extern void md_ingest_attempt(MdLane *lane, MdAction action, void *arg);

/* ingest_error.c: is it the record that is bad, whenever it is tried? */
extern bool md_ingest_is_data_error(int sqlstate);

/*
 * ingest.c: the foreground.  Reads the table from its checkpoints to what is
 * the end of its topic now, or up to max_records records (negative: no limit),
 * in the caller's transaction.  Returns the number of records read.
 */
extern int64 md_ingest_once(Oid relid, int64 max_records);

#endif							/* MD_INGEST_H */
