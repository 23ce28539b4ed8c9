/*
 * kafka_dump.c
 *		Print what a topic holds, aborted records included: the truth that
 *		tests compare tables with.
 *
 *	dump BOOTSTRAP TOPIC [PARTITION:OFFSET]...
 *
 * One line per record, "partition <tab> offset <tab> key <tab> value", in
 * hexadecimal (\N for NULL), from the given offset of its partition (default:
 * its first) to what was its end when the command began.  Then one line per
 * partition, "end <tab> partition <tab> low <tab> high".
 */
#include "kafka_tool.h"

#define TIMEOUT_MS	30000

typedef struct DumpPartition
{
	int64_t		low;
	int64_t		high;
	int64_t		position;		/* all before it is printed */
} DumpPartition;

static void
print_column(const void *data, size_t len)
{
	const unsigned char *bytes = data;

	putchar('\t');
	if (data == NULL)
	{
		fputs("\\N", stdout);
		return;
	}
	for (size_t i = 0; i < len; i++)
		printf("%02x", bytes[i]);
}

static int
count_partitions(rd_kafka_t *client, const char *topic)
{
	const rd_kafka_metadata_t *metadata;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
	rd_kafka_resp_err_t err = rd_kafka_metadata(client, 0, handle, &metadata, TIMEOUT_MS);
	int			n;

	if (err)
		die("dump: %s", rd_kafka_err2str(err));
	if (metadata->topic_cnt != 1 || metadata->topics[0].err || metadata->topics[0].partition_cnt == 0)
		die("dump: no topic \"%s\"", topic);
	n = metadata->topics[0].partition_cnt;
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(handle);
	return n;
}

/* Ask for the ends of a partition, and set it to be read between them. */
static void
begin_partition(rd_kafka_t *client, const char *topic, int partition, DumpPartition *range,
				rd_kafka_topic_partition_list_t *assignment)
{
	query_ends(client, topic, partition, &range->low, &range->high);
	if (range->position < range->low)
		range->position = range->low;
	if (range->position < range->high)
		rd_kafka_topic_partition_list_add(assignment, topic, partition)->offset = range->position;
}

/* Print a record, or note an end; returns whether its partition is done now. */
static bool
take_message(const rd_kafka_message_t *message, DumpPartition *ranges)
{
	DumpPartition *range = &ranges[message->partition];
	bool		was_done = range->position >= range->high;

	if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
		range->position = message->offset;
	else if (message->err)
		die("dump: %s", rd_kafka_message_errstr(message));
	else if (message->offset < range->high)
	{
		printf("%d\t%lld", message->partition, (long long) message->offset);
		print_column(message->key, message->key_len);
		print_column(message->payload, message->len);
		putchar('\n');
		range->position = message->offset + 1;
	}
	else
		range->position = message->offset;
	return !was_done && range->position >= range->high;
}

int
dump_records(int argc, char **argv)
{
	const char *const properties[] = {
		"group.id", "dump",
		"enable.auto.commit", "false",
		"enable.partition.eof", "true",
		"auto.offset.reset", "error",
		"isolation.level", "read_uncommitted",
		NULL
	};
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	const char *topic = text_argument(argc, argv, 1, "topic");
	rd_kafka_t *client = open_client(RD_KAFKA_CONSUMER, bootstrap, properties);
	rd_kafka_topic_partition_list_t *assignment = rd_kafka_topic_partition_list_new(1);
	int			n = count_partitions(client, topic);
	DumpPartition *ranges = calloc(n, sizeof(DumpPartition));
	int			unfinished;

	for (int i = 2; i < argc; i++)
	{
		char	   *offset = strchr(argv[i], ':');

		if (offset == NULL || atoi(argv[i]) >= n)
			die("dump: \"%s\" is not PARTITION:OFFSET", argv[i]);
		ranges[atoi(argv[i])].position = strtoll(offset + 1, NULL, 10);
	}
	for (int i = 0; i < n; i++)
		begin_partition(client, topic, i, &ranges[i], assignment);
	unfinished = assignment->cnt;
	rd_kafka_poll_set_consumer(client);
	rd_kafka_assign(client, assignment);
	while (unfinished > 0)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(client, TIMEOUT_MS);

		if (message == NULL)
			die("dump: topic \"%s\" sends nothing", topic);
		if (take_message(message, ranges))
			unfinished--;
		rd_kafka_message_destroy(message);
	}
	for (int i = 0; i < n; i++)
		printf("end\t%d\t%lld\t%lld\n", i, (long long) ranges[i].low, (long long) ranges[i].high);

	rd_kafka_topic_partition_list_destroy(assignment);
	free(ranges);
	rd_kafka_consumer_close(client);
	rd_kafka_destroy(client);
	return 0;
}
