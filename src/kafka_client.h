/*
 * kafka_client.h
 *		All that this extension asks of Kafka; only the files kafka_client*.c
 *		include librdkafka's header.
 *
 * A client owns threads of the library, so it must be closed: workers do so
 * before they exit, sessions through a callback of the memory context that
 * the client was made in, so that no error path can leak one.  No function
 * of this file calls into PostgreSQL from a thread of the library.
 */
#ifndef MD_KAFKA_CLIENT_H
#define MD_KAFKA_CLIENT_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "datatype/timestamp.h"

#include "record.h"

/* Kafka's limit on the length of a topic's name is 249. */
#define MD_KAFKA_TOPIC_LEN 256

typedef struct MdKafkaClient MdKafkaClient;

/* A property of librdkafka's by its own name ("bootstrap.servers"). */
typedef struct MdKafkaProperty
{
	const char *name;
	const char *value;
	bool		secret;			/* never shown in an error */
} MdKafkaProperty;

/* Outcome of a request; 0 is success, others are librdkafka's codes. */
typedef struct MdKafkaError
{
	int			code;
	bool		retriable;		/* waiting may cure it */
	char		message[512];	/* without secrets */
} MdKafkaError;

/* Logical positions for md_kafka_resolve(). */
#define MD_KAFKA_EARLIEST	(-2)
#define MD_KAFKA_LATEST		(-1)

typedef struct MdKafkaPosition
{
	const char *topic;
	int32		partition;
	int64		query;			/* MD_KAFKA_EARLIEST, _LATEST or ms since 1970 */
	int64		offset;			/* the answer; -1 with error set if there is none */
	MdKafkaError error;
} MdKafkaPosition;

typedef struct MdKafkaTopic
{
	char	   *name;
	int			n_partitions;
	int32	   *leaders;		/* brokers of its partitions; -1: none at the moment */
} MdKafkaTopic;

typedef struct MdKafkaClusterInfo
{
	char	   *cluster_id;		/* NULL when the brokers do not tell */
	int			n_brokers;
	char	   *brokers;		/* "host:port, ..." */
} MdKafkaClusterInfo;

/* What the consumer queue handed over beside records. */
typedef struct MdKafkaEvent
{
	enum
	{
		MD_KAFKA_EVENT_EOF,		/* read up to offset, nothing more for now */
		MD_KAFKA_EVENT_OUT_OF_RANGE,	/* the position is not in the log */
		MD_KAFKA_EVENT_BROKER,	/* one broker cannot be reached; the others can */
		MD_KAFKA_EVENT_ERROR
	}			kind;
	char	   *topic;			/* NULL: the whole client */
	int32		partition;
	int64		offset;
	int32		broker;			/* of an event of this kind */
	MdKafkaError error;
} MdKafkaEvent;

/* How a client consumes; a session that only asks questions passes NULL. */
typedef struct MdKafkaConsumerConfig
{
	int			queue_max_kb;	/* memory for records that wait to be taken */
	int			fetch_wait_ms;	/* how long a broker may wait for data to send */
	bool		read_uncommitted;
	const char *group_id;		/* progress is mirrored to it; NULL: to none */
} MdKafkaConsumerConfig;

/*
 * Open a client.  Properties come from the server's options; ours (offset
 * handling, log queue, ...) are added here.  Does not touch the network.
 * ERROR on a property that librdkafka refuses.  Closed when context is
 * deleted or reset, or by md_kafka_close, whichever is first.
 */
extern MdKafkaClient *md_kafka_open(const List *properties,
									const MdKafkaConsumerConfig *config,
									MemoryContext context);
extern void md_kafka_close(MdKafkaClient *client);

/* Does the linked librdkafka know this property? List all: name by name. */
extern List *md_kafka_property_names(void);		/* of char *, palloc'd */
extern const char *md_kafka_library_version(void);

/* Is the library one whose SCRAM brokers of Kafka 4.0 and later refuse? */
extern bool md_kafka_scram_is_outdated(void);

/* Does the error say that there is no such topic? */
extern bool md_kafka_error_is_unknown_topic(const MdKafkaError *error);

/* Requests with a time limit; they return false with *error set. */
extern bool md_kafka_cluster_info(MdKafkaClient *client, int timeout_ms,
								  MdKafkaClusterInfo *info, MdKafkaError *error);
extern bool md_kafka_topics(MdKafkaClient *client, const char *topic, int timeout_ms,
							List **topics, MdKafkaError *error);	/* of MdKafkaTopic; topic NULL: all */
extern bool md_kafka_resolve(MdKafkaClient *client, MdKafkaPosition *positions,
							 int n_positions, int timeout_ms, MdKafkaError *error);

/*
 * Ask in the background for a topic's partitions, and queries (as in
 * MdKafkaPosition) of all of them; or for all topics (topic NULL, no queries).
 * One question per client at a time.  The event fd of the client, which should
 * not be consuming, rings when there is an answer: md_kafka_serve() silences
 * it, and keeps errors of the client from piling up.
 */
#define MD_KAFKA_MAX_QUERIES 2

typedef struct MdKafkaSurvey
{
	const char *topic;
	int			n_partitions;
	int			n_queries;
	int64		queries[MD_KAFKA_MAX_QUERIES];
	int64	   *offsets[MD_KAFKA_MAX_QUERIES];	/* of each partition; -1: there is none */
} MdKafkaSurvey;

typedef enum MdKafkaAnswer
{
	MD_KAFKA_ASKING,			/* there is no answer yet */
	MD_KAFKA_ANSWERED,
	MD_KAFKA_REFUSED,			/* *error is about the topic */
	MD_KAFKA_SILENT				/* *error is about the client as a whole */
} MdKafkaAnswer;

extern void md_kafka_ask(MdKafkaClient *client, const char *topic,
						 const int64 *queries, int n_queries, int timeout_ms);
extern bool md_kafka_is_asking(const MdKafkaClient *client);

/* *survey, or *topics (of MdKafkaTopic), is filled; the question is then over. */
extern MdKafkaAnswer md_kafka_answer(MdKafkaClient *client, MdKafkaSurvey *survey,
									 List **topics, MdKafkaError *error);
extern void md_kafka_serve(MdKafkaClient *client);

/* Consuming starts at `offset` of each position, never at the group's. */
extern void md_kafka_assign(MdKafkaClient *client,
							const MdKafkaPosition *positions, int n_positions);
extern void md_kafka_unassign(MdKafkaClient *client,
							  const MdKafkaPosition *positions, int n_positions);

/*
 * The event fd becomes readable when the queue goes from empty to not empty,
 * and only then: who clears the ring must drain the queue before waiting for
 * the next one.
 */
extern int	md_kafka_event_fd(MdKafkaClient *client);
extern void md_kafka_clear_ring(MdKafkaClient *client);

/*
 * Take up to max_records records (about max_bytes of payload) off the queue
 * without waiting.  They stay valid until md_kafka_release.  *drained is true
 * when the queue was emptied, after which the event fd will fire again.
 * Events (of MdKafkaEvent) are allocated in CurrentMemoryContext.
 */
extern int	md_kafka_take(MdKafkaClient *client, MdRecord **records,
						  int max_records, int64 max_bytes,
						  List **events, bool *drained);
extern void md_kafka_release(MdKafkaClient *client);

/* How many records a queue of that size holds at most. */
extern int	md_kafka_queue_max_records(int queue_max_kb);

/* What waits in the queue; its bytes by the average of the last take. */
extern int	md_kafka_queue_length(MdKafkaClient *client);
extern int64 md_kafka_queue_bytes(MdKafkaClient *client);
extern void md_kafka_fetch_headers(MdRecord *record);	/* in CurrentMemoryContext */

/* End of the partition as the last fetch told, -1 if none did; no network. */
extern int64 md_kafka_high_watermark(MdKafkaClient *client, const char *topic,
									 int32 partition);

/* Mirror next offsets to the group of the client, without waiting. */
extern void md_kafka_commit_async(MdKafkaClient *client,
								  const MdKafkaPosition *positions,
								  int n_positions);

/* Has the last one failed, as far as the queue has told?  Tells once. */
extern bool md_kafka_commit_has_failed(MdKafkaClient *client);

#endif							/* MD_KAFKA_CLIENT_H */
