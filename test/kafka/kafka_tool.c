/*
 * kafka_tool.c
 *		The Kafka side of the tests, the demo and the benches: one program on
 *		librdkafka, so that no JVM is started to create a topic or to send a
 *		record.  Not part of the extension.
 *
 *	kafka_tool version
 *	kafka_tool mock [--brokers N] [--topic NAME:PARTITIONS]...	(kafka_mock.c)
 *	kafka_tool wait BOOTSTRAP SECONDS
 *	kafka_tool create BOOTSTRAP TOPIC PARTITIONS [PROPERTY=VALUE]... [--count N]
 *	kafka_tool delete BOOTSTRAP TOPIC
 *	kafka_tool add-partitions BOOTSTRAP TOPIC TOTAL
 *	kafka_tool delete-records BOOTSTRAP TOPIC PARTITION BEFORE_OFFSET
 *	kafka_tool deny BOOTSTRAP TOPIC read|describe	what needs an authorizer
 *	kafka_tool allow BOOTSTRAP TOPIC
 *	kafka_tool watermarks BOOTSTRAP TOPIC		"partition low high" per line
 *	kafka_tool group-offsets BOOTSTRAP GROUP TOPIC	"partition offset" per line
 *	kafka_tool produce BOOTSTRAP TOPIC [--codec C] [--transactional-id ID]
 *		[--rate LINES_PER_SECOND]					(kafka_produce.c)
 *	kafka_tool arrive BOOTSTRAP TOPIC COUNT		(kafka_arrive.c)
 *	kafka_tool dump BOOTSTRAP TOPIC [PARTITION:OFFSET]...	(kafka_dump.c)
 *	kafka_tool gen BOOTSTRAP TOPIC COUNT [options]	(kafka_generate.c)
 */
#include <stdarg.h>
#include <time.h>

#include "kafka_tool.h"

#define TIMEOUT_MS		30000
#define LEADER_PAUSE_MS	100

int64_t		delivered = 0;
int64_t		delivery_failures = 0;

void
die(const char *format,...)
{
	va_list		args;

	fputs("kafka_tool: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

const char *
take_option(int *argc, char **argv, const char *name)
{
	for (int i = 0; i < *argc; i++)
	{
		const char *value;

		if (strcmp(argv[i], name) != 0)
			continue;
		if (i + 1 >= *argc)
			die("option %s needs a value", name);
		value = argv[i + 1];
		memmove(&argv[i], &argv[i + 2], (*argc - i - 2) * sizeof(char *));
		*argc -= 2;
		return value;
	}
	return NULL;
}

void
refuse_options(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
	{
		if (strncmp(argv[i], "--", 2) == 0)
			die("unknown option %s", argv[i]);
	}
}

const char *
text_argument(int argc, char **argv, int i, const char *what)
{
	if (i >= argc)
		die("missing argument: %s", what);
	return argv[i];
}

int64_t
number_argument(int argc, char **argv, int i, const char *what)
{
	const char *text = text_argument(argc, argv, i, what);
	char	   *end;
	int64_t		value = strtoll(text, &end, 10);

	if (*text == '\0' || *end != '\0')
		die("%s must be a number, not \"%s\"", what, text);
	return value;
}

/* Runs in: the thread that polls the producer. */
static void
count_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	(void) rk;
	(void) opaque;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		delivered++;
	else if (delivery_failures++ == 0)
		fprintf(stderr, "kafka_tool: not delivered: %s\n", rd_kafka_err2str(message->err));
}

rd_kafka_t *
open_client(rd_kafka_type_t type, const char *bootstrap, const char *const *properties)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *client;
	char		error[512];

	if (*bootstrap && rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		die("%s", error);
	/* Brokers that are not ready yet are no news; what fails is told anyway. */
	rd_kafka_conf_set(conf, "log_level", "2", NULL, 0);
	for (; properties && properties[0]; properties += 2)
	{
		if (properties[1] &&
			rd_kafka_conf_set(conf, properties[0], properties[1], error, sizeof(error)) != RD_KAFKA_CONF_OK)
			die("%s", error);
	}
	if (type == RD_KAFKA_PRODUCER)
		rd_kafka_conf_set_dr_msg_cb(conf, count_delivery);
	client = rd_kafka_new(type, conf, error, sizeof(error));
	if (client == NULL)
		die("%s", error);
	return client;
}

void
query_ends(rd_kafka_t *client, const char *topic, int partition, int64_t *low, int64_t *high)
{
	struct timespec pause = {0, LEADER_PAUSE_MS * 1000 * 1000};
	rd_kafka_resp_err_t err;

	for (int tries = 1;; tries++)
	{
		err = rd_kafka_query_watermark_offsets(client, topic, partition, low, high, TIMEOUT_MS);
		if ((err != RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION &&
			 err != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) ||
			tries > TIMEOUT_MS / LEADER_PAUSE_MS)
			break;
		nanosleep(&pause, NULL);
	}
	if (err)
		die("ends of topic \"%s\" partition %d: %s", topic, partition, rd_kafka_err2str(err));
}

/* Ends: each record is delivered, or given up after message.timeout.ms. */
void
flush_producer(rd_kafka_t *producer)
{
	rd_kafka_resp_err_t err = rd_kafka_flush(producer, -1);

	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("could not deliver all records: %s", rd_kafka_err2str(err));
	if (delivery_failures > 0)
		die("%lld records were not delivered", (long long) delivery_failures);
}

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		int			(*run) (int argc, char **argv);
	}			commands[] =
	{
		{"add-partitions", admin_add_partitions},
		{"allow", admin_allow},
		{"arrive", time_arrivals},
		{"create", admin_create},
		{"delete", admin_delete},
		{"delete-records", admin_delete_records},
		{"deny", admin_deny},
		{"dump", dump_records},
		{"gen", generate_records},
		{"group-offsets", admin_group_offsets},
		{"mock", run_mock_cluster},
		{"produce", produce_records},
		{"wait", admin_wait},
		{"watermarks", admin_watermarks},
	};

	if (argc < 2)
		die("the head comment of kafka_tool.c lists the subcommands");
	if (strcmp(argv[1], "version") == 0)
	{
		puts(rd_kafka_version_str());
		return 0;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
	{
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	}
	die("unknown subcommand \"%s\"", argv[1]);
}
