/*
 * kafka_client_consume.c
 *		Reading partitions: what is assigned, and what the queue hands over.
 *
 * The library's threads fetch, decompress and parse into one consumer queue;
 * the process takes records off it without waiting and is woken by an event
 * fd, which the library writes when the queue goes from empty to not empty.
 * So the queue must be drained before one waits.
 */
#include "postgres.h"

#include <unistd.h>

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "kafka_client_private.h"

/* Records taken off the queue at a time; and when nothing is known of their size. */
#define MAX_TAKE	1000
#define FIRST_TAKE	100

rd_kafka_topic_partition_list_t *
md_kafka_partition_list(const MdKafkaPosition *positions, int n_positions, bool query)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n_positions);

	for (int i = 0; i < n_positions; i++)
		rd_kafka_topic_partition_list_add(list, positions[i].topic, positions[i].partition)->offset =
			query ? positions[i].query : positions[i].offset;
	return list;
}

/* Throw what the library says of a change to the assignment. */
static void
check_assignment(rd_kafka_error_t *error)
{
	char		message[512];

	if (error == NULL)
		return;
	strlcpy(message, rd_kafka_error_string(error), sizeof(message));
	rd_kafka_error_destroy(error);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not change the partitions that a Kafka client reads"),
			 errdetail("librdkafka says: %s.", message)));
}

/*
 * Begin to ask who leads the partitions of topics that the client does not know
 * yet.  An assignment alone does not ask: the library would find out when it
 * looks at all topics, once a second.  The handles are for the caller to
 * destroy, after the assignment, or the library forgets the topics again.
 */
static int
ask_for_leaders(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions,
				rd_kafka_topic_t **topics)
{
	int			n = 0;

	for (int i = 0; i < n_positions; i++)
	{
		/* partitions of a topic stand together */
		if (i > 0 && strcmp(positions[i].topic, positions[i - 1].topic) == 0)
			continue;
		topics[n] = rd_kafka_topic_new(client->rk, positions[i].topic, NULL);
		if (topics[n] != NULL)
			n++;
	}
	return n;
}

void
md_kafka_assign(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions)
{
	rd_kafka_topic_t **topics = palloc(sizeof(rd_kafka_topic_t *) * Max(n_positions, 1));
	int			n_topics = ask_for_leaders(client, positions, n_positions, topics);
	rd_kafka_topic_partition_list_t *list = md_kafka_partition_list(positions, n_positions, false);
	rd_kafka_error_t *error = rd_kafka_incremental_assign(client->rk, list);

	client->told->consuming = true;
	client->assigned_at = GetCurrentTimestamp();
	rd_kafka_topic_partition_list_destroy(list);
	for (int i = 0; i < n_topics; i++)
		rd_kafka_topic_destroy(topics[i]);
	pfree(topics);
	check_assignment(error);
}

void
md_kafka_unassign(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions)
{
	rd_kafka_topic_partition_list_t *list = md_kafka_partition_list(positions, n_positions, false);
	rd_kafka_error_t *error = rd_kafka_incremental_unassign(client->rk, list);

	rd_kafka_topic_partition_list_destroy(list);
	check_assignment(error);
}

int
md_kafka_event_fd(MdKafkaClient *client)
{
	return client->event_fd;
}

void
md_kafka_clear_ring(MdKafkaClient *client)
{
	uint64		rings;

	if (read(client->event_fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN && errno != EINTR)
		elog(ERROR, "could not read the event descriptor: %m");
}

int
md_kafka_queue_length(MdKafkaClient *client)
{
	return (int) rd_kafka_queue_length(client->queue);
}

int64
md_kafka_queue_bytes(MdKafkaClient *client)
{
	return md_kafka_queue_length(client) * client->record_bytes;
}

/* Room for n more messages in the arrays of the client. */
static void
reserve_messages(MdKafkaClient *client, int n)
{
	int			max = client->n_messages + n;

	if (max <= client->max_messages)
		return;
	max = Max(max, client->max_messages * 2);
	if (client->messages == NULL)
	{
		client->messages = MemoryContextAllocHuge(client->context, max * sizeof(client->messages[0]));
		client->records = MemoryContextAllocHuge(client->context, max * sizeof(MdRecord));
	}
	else
	{
		client->messages = repalloc_huge(client->messages, max * sizeof(client->messages[0]));
		client->records = repalloc_huge(client->records, max * sizeof(MdRecord));
	}
	client->max_messages = max;
}

/* What a message that carries no record has to say. */
static MdKafkaEvent *
make_event(const rd_kafka_message_t *message)
{
	MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

	if (message->rkt != NULL)
		event->topic = pstrdup(rd_kafka_topic_name(message->rkt));
	event->partition = message->partition;
	event->offset = message->offset;
	md_kafka_fill_error(&event->error, message->err, rd_kafka_message_errstr(message));
	switch (message->err)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:
			event->kind = MD_KAFKA_EVENT_EOF;
			break;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			event->kind = MD_KAFKA_EVENT_OUT_OF_RANGE;
			break;
		default:
			event->kind = MD_KAFKA_EVENT_ERROR;
	}
	return event;
}

static void
fill_record(MdRecord *record, rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t type;

	record->topic = rd_kafka_topic_name(message->rkt);
	record->partition = message->partition;
	record->offset = message->offset;
	record->timestamp_ms = rd_kafka_message_timestamp(message, &type);
	if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		record->timestamp_ms = -1;
	record->key = message->key;
	record->key_len = message->key_len;
	record->payload = message->payload;
	record->payload_len = message->len;
	record->headers = NULL;
	record->n_headers = -1;
	record->handle = message;
}

/*
 * Sort n messages from first on into records and events; returns payload bytes.
 * All are the client's to release from the beginning: an event may not find
 * memory.
 */
static int64
sort_messages(MdKafkaClient *client, int first, int n, List **events)
{
	int			n_records = first;
	int64		bytes = 0;

	client->n_messages = first + n;
	for (int i = first; i < first + n; i++)
	{
		rd_kafka_message_t *message = client->messages[i];

		if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			*events = lappend(*events, make_event(message));
			client->messages[i] = NULL;
			rd_kafka_message_destroy(message);
			continue;
		}
		client->messages[i] = NULL;
		client->messages[n_records] = message;
		fill_record(&client->records[n_records], message);
		bytes += message->len + message->key_len;
		n_records++;
	}
	client->n_messages = n_records;
	return bytes;
}

/* Wake the library's threads of the brokers that lead these records' partitions. */
static void
wake_brokers(MdKafkaClient *client)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
	const rd_kafka_message_t *last = NULL;

	for (int i = 0; i < client->n_messages && list->cnt < 64; i++)
	{
		const rd_kafka_message_t *message = client->messages[i];
		const char *topic = rd_kafka_topic_name(message->rkt);

		if (last != NULL && last->rkt == message->rkt && last->partition == message->partition)
			continue;
		last = message;
		if (rd_kafka_topic_partition_list_find(list, topic, message->partition) == NULL)
			rd_kafka_topic_partition_list_add(list, topic, message->partition)->offset = MD_KAFKA_LATEST;
	}
	/* the answer is of no interest: the threads look at the queue when they send */
	(void) rd_kafka_offsets_for_times(client->rk, list, 5);
	rd_kafka_topic_partition_list_destroy(list);
}

/*
 * A broker's thread in librdkafka 2.0 that finds the queue full sleeps for a
 * second, unless it has a request to send: after that it looks at the queue
 * again.  A reader that empties the queue sooner would wait for it, so when
 * half of a full queue is read, the threads get a request.
 */
static void
keep_fetching(MdKafkaClient *client, int64 taken)
{
	int64		queued = md_kafka_queue_bytes(client);
	int64		length = md_kafka_queue_length(client);

	if (!client->stops_long || client->n_messages == 0)
		return;
	/* a small queue is taken as a whole: what was taken counts */
	if (queued + taken > client->queue_max_bytes / 5 * 4 ||
		length + client->n_messages > client->queue_max_records / 5 * 4)
		client->was_full = true;
	if (client->was_full && queued < client->queue_max_bytes / 2 &&
			 length < client->queue_max_records / 2)
	{
		client->was_full = false;
		wake_brokers(client);
	}
}

/* Make events of what callbacks were told while the queue was served. */
static void
tell_errors(MdKafkaClient *client, List **events)
{
	MdKafkaTold *told = client->told;

	for (int i = 0; i < told->n_partition_errors; i++)
	{
		MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

		event->kind = MD_KAFKA_EVENT_ERROR;
		event->topic = pstrdup(told->partition_errors[i].topic);
		event->partition = told->partition_errors[i].partition;
		event->error = told->partition_errors[i].error;
		*events = lappend(*events, event);
	}
	told->n_partition_errors = 0;
	if (told->is_lost && !told->is_cut_off)
	{
		MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

		event->kind = MD_KAFKA_EVENT_BROKER;
		event->broker = told->lost_broker;
		event->error = told->lost_error;
		*events = lappend(*events, event);
	}
	told->is_lost = false;
	if (client->n_messages > 0 && !told->is_cut_off)
		told->knows_why = false;
	if (told->is_cut_off)
	{
		MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

		event->kind = MD_KAFKA_EVENT_ERROR;
		event->error = told->last_error;
		told->has_last_error = false;
		told->is_cut_off = false;
		*events = lappend(*events, event);
	}
}

/*
 * How many records to ask the queue for that has bytes_left, by the average of
 * those that were taken, of which this take has taken_bytes: they can only be
 * counted when they are there.
 */
static int
records_within(const MdKafkaClient *client, int64 bytes_left, int64 taken_bytes)
{
	int64		average = client->n_messages > 0 ? taken_bytes / client->n_messages : client->record_bytes;

	if (average <= 0)
		return client->n_messages > 0 ? MAX_TAKE : FIRST_TAKE;
	return (int) Max(1, Min(MAX_TAKE, (bytes_left + average - 1) / average));
}

int
md_kafka_take(MdKafkaClient *client, MdRecord **records, int max_records,
			  int64 max_bytes, List **events, bool *drained)
{
	int64		bytes = 0;

	Assert(client->n_messages == 0);
	*events = NIL;
	*drained = false;
	/* before the queue is emptied, so that a ring in between is not lost */
	md_kafka_clear_ring(client);
	while (client->n_messages < max_records && bytes < max_bytes && !*drained)
	{
		int			within = records_within(client, max_bytes - bytes, bytes);
		int			asked = Min(max_records - client->n_messages, within);
		int			first = client->n_messages;
		int			n;

		reserve_messages(client, asked);
		n = (int) rd_kafka_consume_batch_queue(client->queue, 0,
											   client->messages + first, asked);
		if (n < 0)
			n = 0;
		bytes += sort_messages(client, first, n, events);
		*drained = n < asked;
	}
	if (client->n_messages > 0)
		client->record_bytes = bytes / client->n_messages;
	keep_fetching(client, bytes);
	tell_errors(client, events);
	*records = client->records;
	return client->n_messages;
}

void
md_kafka_release(MdKafkaClient *client)
{
	for (int i = 0; i < client->n_messages; i++)
		if (client->messages[i] != NULL)
			rd_kafka_message_destroy(client->messages[i]);
	client->n_messages = 0;
}

void
md_kafka_fetch_headers(MdRecord *record)
{
	rd_kafka_headers_t *headers;
	MdHeader   *list;
	int			n;

	if (record->n_headers >= 0)
		return;
	if (rd_kafka_message_headers(record->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		record->n_headers = 0;
		return;
	}
	n = (int) rd_kafka_header_cnt(headers);
	list = palloc(sizeof(MdHeader) * Max(n, 1));
	record->n_headers = 0;
	for (int i = 0; i < n; i++)
	{
		const void *value;
		size_t		size;

		if (rd_kafka_header_get_all(headers, i, &list[i].name, &value, &size) !=
			RD_KAFKA_RESP_ERR_NO_ERROR)
			break;
		list[i].value = value;
		list[i].value_len = size;
		record->n_headers++;
	}
	record->headers = list;
}

int64
md_kafka_high_watermark(MdKafkaClient *client, const char *topic, int32 partition)
{
	int64_t		low;
	int64_t		high;

	if (rd_kafka_get_watermark_offsets(client->rk, topic, partition, &low, &high) !=
		RD_KAFKA_RESP_ERR_NO_ERROR || high < 0)
		return -1;
	return high;
}

void
md_kafka_commit_async(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions)
{
	rd_kafka_topic_partition_list_t *list = md_kafka_partition_list(positions, n_positions, false);

	/* what fails at once is told like that which fails later */
	client->told->commit_failed =
		rd_kafka_commit(client->rk, list, 1) != RD_KAFKA_RESP_ERR_NO_ERROR;
	rd_kafka_topic_partition_list_destroy(list);
}

bool
md_kafka_commit_has_failed(MdKafkaClient *client)
{
	bool		failed = client->told->commit_failed;

	client->told->commit_failed = false;
	return failed;
}
