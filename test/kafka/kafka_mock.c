/*
 * kafka_mock.c
 *		Run librdkafka's mock cluster: brokers inside this process, on ports
 *		of the loopback address.
 *
 *	mock [--brokers N] [--topic NAME:PARTITIONS]...
 *
 * Prints the bootstrap servers, then answers each command line of standard
 * input with "ok" or "error: ..."; ends when standard input does, or on
 * SIGTERM.
 *
 *	topic NAME PARTITIONS			create a topic
 *	leader NAME PARTITION BROKER	move a partition; -1: no leader
 *	down BROKER | up BROKER			refuse or take connections; -1: all
 *	rtt BROKER MS					delay all answers
 *	fail REQUEST CODE COUNT			the next COUNT requests of a kind fail:
 *									REQUEST is Kafka's number of it (1 fetch,
 *									2 list offsets, 3 metadata), CODE Kafka's
 *									error code, -195 to drop the connection
 *	clear REQUEST					forget the failures still to come
 *	topic-error NAME CODE			metadata of a topic fails; 0 ends it
 *
 * A partition keeps 5 MB or 100,000 batches at most, older data is deleted;
 * a waiting fetch is answered when its time is up, not when data arrives.
 */
#include "kafka_tool.h"

#include <librdkafka/rdkafka_mock.h>

/* Run one command line; NULL for success, else what was wrong. */
static const char *
run_command(rd_kafka_mock_cluster_t *cluster, const char *line)
{
	char		name[256];
	int			a;
	int			b;
	int			c;
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (sscanf(line, "topic %255s %d", name, &a) == 2)
		err = rd_kafka_mock_topic_create(cluster, name, a, 1);
	else if (sscanf(line, "leader %255s %d %d", name, &a, &b) == 3)
		err = rd_kafka_mock_partition_set_leader(cluster, name, a, b);
	else if (sscanf(line, "down %d", &a) == 1)
		err = rd_kafka_mock_broker_set_down(cluster, a);
	else if (sscanf(line, "up %d", &a) == 1)
		err = rd_kafka_mock_broker_set_up(cluster, a);
	else if (sscanf(line, "rtt %d %d", &a, &b) == 2)
		err = rd_kafka_mock_broker_set_rtt(cluster, a, b);
	else if (sscanf(line, "fail %d %d %d", &a, &b, &c) == 3)
	{
		rd_kafka_resp_err_t code = (rd_kafka_resp_err_t) b;

		while (c-- > 0)
			rd_kafka_mock_push_request_errors_array(cluster, (int16_t) a, 1, &code);
	}
	else if (sscanf(line, "clear %d", &a) == 1)
		rd_kafka_mock_clear_request_errors(cluster, (int16_t) a);
	else if (sscanf(line, "topic-error %255s %d", name, &a) == 2)
		rd_kafka_mock_topic_set_error(cluster, name, (rd_kafka_resp_err_t) a);
	else
		return "unknown command";
	return err ? rd_kafka_err2str(err) : NULL;
}

/* Create the topics given as NAME:PARTITIONS. */
static void
create_topics(rd_kafka_mock_cluster_t *cluster, int *argc, char **argv)
{
	const char *spec;

	while ((spec = take_option(argc, argv, "--topic")) != NULL)
	{
		char		name[256];
		int			partitions;

		if (sscanf(spec, "%255[^:]:%d", name, &partitions) != 2 || partitions < 1)
			die("\"%s\" is not NAME:PARTITIONS", spec);
		if (rd_kafka_mock_topic_create(cluster, name, partitions, 1))
			die("could not create topic \"%s\"", name);
	}
}

int
run_mock_cluster(int argc, char **argv)
{
	const char *brokers = take_option(&argc, argv, "--brokers");
	rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, "", NULL);
	rd_kafka_mock_cluster_t *cluster;
	char	   *line = NULL;
	size_t		size = 0;

	cluster = rd_kafka_mock_cluster_new(client, brokers ? atoi(brokers) : 1);
	if (cluster == NULL)
		die("could not start the mock cluster");
	create_topics(cluster, &argc, argv);
	if (argc > 0)
		die("unknown argument \"%s\"", argv[0]);
	puts(rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);

	while (getline(&line, &size, stdin) >= 0)
	{
		const char *problem = run_command(cluster, line);

		if (problem)
			printf("error: %s\n", problem);
		else
			puts("ok");
		fflush(stdout);
	}
	free(line);
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(client);
	return 0;
}
