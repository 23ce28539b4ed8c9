/*
 * kafka_client_private.h
 *		What the files kafka_client*.c share; nobody else includes it, nor
 *		librdkafka's header.
 */
#ifndef MD_KAFKA_CLIENT_PRIVATE_H
#define MD_KAFKA_CLIENT_PRIVATE_H

#include "postgres.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "port/atomics.h"

#include "kafka_client.h"

/* Trouble of one partition that error_cb was told of. */
typedef struct MdKafkaPartitionError
{
	char		topic[250];
	int32		partition;
	MdKafkaError error;
} MdKafkaPartitionError;

/*
 * What callbacks of the library leave for us.  Malloc'd: it is the library's as
 * long as the handle is, which may outlive the client.
 */
typedef struct MdKafkaTold
{
	bool		consuming;		/* partitions are assigned: the queue holds records */
	MdKafkaError last_error;	/* of a broker or of the client as a whole */
	bool		has_last_error;
	bool		knows_why;		/* last_error is more than that no broker can be reached */
	bool		is_cut_off;		/* no broker can be used: to be told as an event */
	int32		lost_broker;	/* cannot be reached, and is_lost: to be told as an event */
	bool		is_lost;
	MdKafkaError lost_error;
	bool		commit_failed;	/* of offsets, to the group */
	pg_atomic_uint32 verify_error;	/* of a broker's certificate: OpenSSL's code */
	MdKafkaPartitionError *partition_errors;	/* malloc'd: to be told as events */
	int			n_partition_errors;
} MdKafkaTold;

typedef struct MdKafkaQuestion MdKafkaQuestion;

struct MdKafkaClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	int			event_fd;
	int			reserved_fds;
	int64		queue_max_bytes;
	int			queue_max_records;
	int64		record_bytes;	/* of a record, on average, when some were taken last */
	bool		stops_long;		/* the library stops for a second at a full queue */
	bool		was_full;
	TimestampTz assigned_at;	/* the last time that they were */
	rd_kafka_message_t **messages;	/* taken and not released; NULL: it is */
	int			n_messages;
	int			max_messages;
	MdRecord   *records;
	MdKafkaTold *told;
	MdKafkaQuestion *question;	/* asked in the background; NULL: none */
	struct MdKafkaDestruction *destruction; /* malloc'd: takes over at the end */
	MemoryContext context;
	MemoryContextCallback on_reset;
	MdKafkaClient *next;		/* in open_clients */
};

/* kafka_client.c: a thread without signals, which must not call PostgreSQL. */
extern bool md_kafka_start_thread(void *(*main) (void *), void *arg, pthread_t *thread);

/* kafka_client_error.c */
extern void md_kafka_fill_error(MdKafkaError *error, rd_kafka_resp_err_t code,
								const char *message);
extern void md_kafka_set_callbacks(rd_kafka_conf_t *conf, MdKafkaTold *told);

/* kafka_client_conf.c: what a handle is to be made with; ERROR leaves nothing. */
extern rd_kafka_conf_t *md_kafka_make_conf(const List *properties,
										   const MdKafkaConsumerConfig *config,
										   MdKafkaClient *client);

/*
 * kafka_client_ask.c: what was known of the client as a whole says more than
 * the code of a request that failed; and a request that was answered ends it.
 */
extern void md_kafka_request_failed(MdKafkaClient *client, rd_kafka_resp_err_t code,
									MdKafkaError *error);
extern void md_kafka_request_succeeded(MdKafkaClient *client);
extern List *md_kafka_metadata_topics(const struct rd_kafka_metadata *metadata);

/*
 * kafka_client_background.c: wait for the end of a question that nobody wants
 * answered.  Runs in: any thread.
 */
extern void md_kafka_drop_question(MdKafkaQuestion *question);

/* kafka_client_consume.c: for the library; the caller destroys it. */
extern rd_kafka_topic_partition_list_t *md_kafka_partition_list(const MdKafkaPosition *positions,
																 int n_positions, bool query);

#endif							/* MD_KAFKA_CLIENT_PRIVATE_H */
