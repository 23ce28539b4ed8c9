/*
 * kafka_arrive.c
 *		How long stamped records take to a consumer that does nothing with
 *		them: what a bench of latency is compared with.
 *
 *	arrive BOOTSTRAP TOPIC COUNT
 *
 * Reads COUNT records of gen --kind stamp from the beginning of the topic.
 * Prints "ready" when it has begun to read; at the end a line per record, the
 * microseconds from its sent_us to its arrival.
 */
#include <time.h>

#include "kafka_tool.h"

#define TIMEOUT_MS	60000

/* The time at which the record was sent, in microseconds since 1970. */
static int64_t
sent_us(const rd_kafka_message_t *message)
{
	static const char name[] = "\"sent_us\":";
	char		text[512];
	size_t		len = message->len < sizeof(text) - 1 ? message->len : sizeof(text) - 1;
	const char *found;

	memcpy(text, message->payload, len);
	text[len] = '\0';
	found = strstr(text, name);
	if (found == NULL)
		die("arrive: a record without sent_us");
	return strtoll(found + strlen(name), NULL, 10);
}

/* Read from the beginning of all partitions. */
static void
assign_all(rd_kafka_t *client, const char *topic)
{
	const rd_kafka_metadata_t *metadata;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
	rd_kafka_topic_partition_list_t *assignment = rd_kafka_topic_partition_list_new(1);
	rd_kafka_resp_err_t err = rd_kafka_metadata(client, 0, handle, &metadata, TIMEOUT_MS);

	if (err)
		die("arrive: %s", rd_kafka_err2str(err));
	if (metadata->topic_cnt != 1 || metadata->topics[0].err || metadata->topics[0].partition_cnt == 0)
		die("arrive: no topic \"%s\"", topic);
	for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
		rd_kafka_topic_partition_list_add(assignment, topic, i)->offset = 0;
	rd_kafka_poll_set_consumer(client);
	rd_kafka_assign(client, assignment);
	rd_kafka_topic_partition_list_destroy(assignment);
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(handle);
}

int
time_arrivals(int argc, char **argv)
{
	const char *const properties[] = {
		"group.id", "arrive",
		"enable.auto.commit", "false",
		"enable.partition.eof", "true",
		"auto.offset.reset", "error",
		NULL
	};
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	const char *topic = text_argument(argc, argv, 1, "topic");
	int64_t		count = number_argument(argc, argv, 2, "count");
	int64_t    *latencies_us = calloc(count, sizeof(int64_t));
	rd_kafka_t *client = open_client(RD_KAFKA_CONSUMER, bootstrap, properties);
	int64_t		n = 0;
	int			ready = 0;

	refuse_options(argc, argv);
	assign_all(client, topic);
	while (n < count)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(client, TIMEOUT_MS);
		struct timespec now;

		if (message == NULL)
			die("arrive: topic \"%s\" sends nothing", topic);
		clock_gettime(CLOCK_REALTIME, &now);
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && !ready++)
		{
			printf("ready\n");
			fflush(stdout);
		}
		else if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
			die("arrive: %s", rd_kafka_message_errstr(message));
		else if (!message->err)
			latencies_us[n++] = (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000 - sent_us(message);
		rd_kafka_message_destroy(message);
	}
	for (int64_t i = 0; i < count; i++)
		printf("%lld\n", (long long) latencies_us[i]);
	free(latencies_us);
	rd_kafka_consumer_close(client);
	rd_kafka_destroy(client);
	return 0;
}
