/*
 * kafka_admin.c
 *		Topics, partitions and offsets of a real cluster, each call waiting
 *		until what it changed can be seen.
 */
#include <time.h>

#include "kafka_tool.h"

/* As long as tests wait for a fact: a machine under load may take long to make very many topics. */
#define TIMEOUT_MS	180000

static rd_kafka_t *
open_admin(const char *bootstrap)
{
	return open_client(RD_KAFKA_CONSUMER, bootstrap, NULL);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Number of partitions that all have a leader, 0 if the topic is not there,
 * -1 if no broker answered.
 */
static int
count_partitions(rd_kafka_t *client, const char *topic, int timeout_ms)
{
	const rd_kafka_metadata_t *metadata;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
	rd_kafka_resp_err_t err;
	int			count = 0;

	err = rd_kafka_metadata(client, 0, handle, &metadata, timeout_ms);
	rd_kafka_topic_destroy(handle);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		return -1;
	if (metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		count = metadata->topics[0].partition_cnt;
		for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
		{
			if (metadata->topics[0].partitions[i].leader < 0)
				count = 0;
		}
	}
	rd_kafka_metadata_destroy(metadata);
	return count;
}

/* Wait until the topic has n partitions with leaders (0: until it is gone). */
static void
wait_for_partitions(rd_kafka_t *client, const char *topic, int n)
{
	int64_t		deadline_ms = now_ms() + TIMEOUT_MS;
	struct timespec pause = {0, 20 * 1000 * 1000};

	while (count_partitions(client, topic, 5000) != n)
	{
		if (now_ms() > deadline_ms)
			die("topic \"%s\" did not reach %d partitions", topic, n);
		nanosleep(&pause, NULL);
	}
}

/* wait BOOTSTRAP SECONDS: until a broker answers a metadata request. */
int
admin_wait(int argc, char **argv)
{
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	int64_t		deadline_ms = now_ms() + number_argument(argc, argv, 1, "seconds") * 1000;
	rd_kafka_t *client = open_admin(bootstrap);
	const rd_kafka_metadata_t *metadata;

	while (now_ms() < deadline_ms)
	{
		if (rd_kafka_metadata(client, 0, NULL, &metadata, 200) != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		rd_kafka_metadata_destroy(metadata);
		rd_kafka_destroy(client);
		return 0;
	}
	die("no broker answers at %s", bootstrap);
}

/* Take the answer to an admin request off the queue, or die. */
static rd_kafka_event_t *
await_answer(rd_kafka_queue_t *queue, const char *what)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS);

	if (event == NULL)
		die("%s: no answer", what);
	if (rd_kafka_event_error(event))
		die("%s: %s", what, rd_kafka_event_error_string(event));
	return event;
}

static void
check_error(const rd_kafka_error_t *error, const char *what)
{
	if (error != NULL)
		die("%s: %s", what, rd_kafka_error_string(error));
}

static void
check_topic_results(const rd_kafka_topic_result_t **results, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
	{
		if (rd_kafka_topic_result_error(results[i]))
			die("%s: %s", what, rd_kafka_topic_result_error_string(results[i]) ?
				rd_kafka_topic_result_error_string(results[i]) :
				rd_kafka_err2str(rd_kafka_topic_result_error(results[i])));
	}
}

/* A topic to create, with the properties that argv has ("name=value"). */
static rd_kafka_NewTopic_t *
new_topic(const char *topic, int partitions, int argc, char **argv)
{
	char		error[512];
	rd_kafka_NewTopic_t *request = rd_kafka_NewTopic_new(topic, partitions, 1, error, sizeof(error));

	if (request == NULL)
		die("create: %s", error);
	for (int i = 0; i < argc; i++)
	{
		const char *value = strchr(argv[i], '=');
		char		name[256];

		if (value == NULL)
			die("create: \"%s\" is not PROPERTY=VALUE", argv[i]);
		snprintf(name, sizeof(name), "%.*s", (int) (value - argv[i]), argv[i]);
		rd_kafka_NewTopic_set_config(request, name, value + 1);
	}
	return request;
}

/*
 * create BOOTSTRAP TOPIC PARTITIONS [PROPERTY=VALUE]... [--count N]
 *
 * With a count: the topics TOPIC_1 to TOPIC_N, by one request.
 */
int
admin_create(int argc, char **argv)
{
	const char *count = take_option(&argc, argv, "--count");
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	int			partitions = number_argument(argc, argv, 2, "partitions");
	int			n_topics = count ? number_argument(1, (char *[]) {(char *) count}, 0, "--count") : 1;
	rd_kafka_NewTopic_t **requests = calloc(n_topics, sizeof(rd_kafka_NewTopic_t *));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;
	char		name[256];

	refuse_options(argc, argv);
	for (int i = 0; i < n_topics; i++)
	{
		snprintf(name, sizeof(name), count ? "%s_%d" : "%s", topic, i + 1);
		requests[i] = new_topic(name, partitions, argc - 3, argv + 3);
	}
	rd_kafka_CreateTopics(client, requests, n_topics, NULL, queue);
	event = await_answer(queue, "create");
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	check_topic_results(results, n, "create");

	rd_kafka_event_destroy(event);
	rd_kafka_NewTopic_destroy_array(requests, n_topics);
	free(requests);
	rd_kafka_queue_destroy(queue);
	for (int i = 0; i < n_topics; i++)
	{
		snprintf(name, sizeof(name), count ? "%s_%d" : "%s", topic, i + 1);
		wait_for_partitions(client, name, partitions);
	}
	rd_kafka_destroy(client);
	return 0;
}

/* delete BOOTSTRAP TOPIC */
int
admin_delete(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	rd_kafka_DeleteTopic_t *request = rd_kafka_DeleteTopic_new(topic);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n;

	rd_kafka_DeleteTopics(client, &request, 1, NULL, queue);
	event = await_answer(queue, "delete");
	results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
	check_topic_results(results, n, "delete");

	rd_kafka_event_destroy(event);
	rd_kafka_DeleteTopic_destroy(request);
	rd_kafka_queue_destroy(queue);
	wait_for_partitions(client, topic, 0);
	rd_kafka_destroy(client);
	return 0;
}

/* add-partitions BOOTSTRAP TOPIC TOTAL */
int
admin_add_partitions(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	int			total = number_argument(argc, argv, 2, "total");
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	rd_kafka_NewPartitions_t *request;
	const rd_kafka_topic_result_t **results;
	size_t		n;
	char		error[512];

	request = rd_kafka_NewPartitions_new(topic, total, error, sizeof(error));
	if (request == NULL)
		die("add-partitions: %s", error);
	rd_kafka_CreatePartitions(client, &request, 1, NULL, queue);
	event = await_answer(queue, "add-partitions");
	results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event), &n);
	check_topic_results(results, n, "add-partitions");

	rd_kafka_event_destroy(event);
	rd_kafka_NewPartitions_destroy(request);
	rd_kafka_queue_destroy(queue);
	wait_for_partitions(client, topic, total);
	rd_kafka_destroy(client);
	return 0;
}

/* delete-records BOOTSTRAP TOPIC PARTITION BEFORE_OFFSET */
int
admin_delete_records(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	int			partition = number_argument(argc, argv, 2, "partition");
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	const rd_kafka_topic_partition_list_t *answer;
	rd_kafka_DeleteRecords_t *request;
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;

	rd_kafka_topic_partition_list_add(offsets, topic, partition)->offset =
		number_argument(argc, argv, 3, "offset");
	request = rd_kafka_DeleteRecords_new(offsets);
	rd_kafka_DeleteRecords(client, &request, 1, NULL, queue);
	event = await_answer(queue, "delete-records");
	answer = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
	if (answer->elems[0].err)
		die("delete-records: %s", rd_kafka_err2str(answer->elems[0].err));

	rd_kafka_event_destroy(event);
	rd_kafka_DeleteRecords_destroy(request);
	rd_kafka_topic_partition_list_destroy(offsets);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(client);
	return 0;
}

/* watermarks BOOTSTRAP TOPIC */
int
admin_watermarks(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	int			n = count_partitions(client, topic, TIMEOUT_MS);

	if (n <= 0)
		die("watermarks: no topic \"%s\"", topic);
	for (int i = 0; i < n; i++)
	{
		int64_t		low;
		int64_t		high;

		query_ends(client, topic, i, &low, &high);
		printf("%d %lld %lld\n", i, (long long) low, (long long) high);
	}
	rd_kafka_destroy(client);
	return 0;
}

/* group-offsets BOOTSTRAP GROUP TOPIC; a partition without one has -1 */
int
admin_group_offsets(int argc, char **argv)
{
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	const char *const properties[] = {"group.id", text_argument(argc, argv, 1, "group"), NULL};
	const char *topic = text_argument(argc, argv, 2, "topic");
	rd_kafka_t *client = open_client(RD_KAFKA_CONSUMER, bootstrap, properties);
	int			n = count_partitions(client, topic, TIMEOUT_MS);
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	rd_kafka_resp_err_t err;

	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(offsets, topic, i);
	err = rd_kafka_committed(client, offsets, TIMEOUT_MS);
	if (err)
		die("group-offsets: %s", rd_kafka_err2str(err));
	for (int i = 0; i < n; i++)
		printf("%d %lld\n", offsets->elems[i].partition,
			   (long long) (offsets->elems[i].offset < 0 ? -1 : offsets->elems[i].offset));
	rd_kafka_topic_partition_list_destroy(offsets);
	rd_kafka_destroy(client);
	return 0;
}

static rd_kafka_AclOperation_t
operation_argument(int argc, char **argv, int i)
{
	const char *name = text_argument(argc, argv, i, "read or describe");

	if (strcmp(name, "read") == 0)
		return RD_KAFKA_ACL_OPERATION_READ;
	if (strcmp(name, "describe") == 0)
		return RD_KAFKA_ACL_OPERATION_DESCRIBE;
	die("\"%s\" is neither read nor describe", name);
}

static rd_kafka_AclBinding_t *
make_binding(const char *topic, rd_kafka_AclOperation_t operation,
			 rd_kafka_AclPermissionType_t permission)
{
	char		error[512];
	rd_kafka_AclBinding_t *binding =
		rd_kafka_AclBinding_new(RD_KAFKA_RESOURCE_TOPIC, topic, RD_KAFKA_RESOURCE_PATTERN_LITERAL,
								"User:ANONYMOUS", "*", operation, permission, error, sizeof(error));

	if (binding == NULL)
		die("deny: %s", error);
	return binding;
}

/* deny BOOTSTRAP TOPIC read|describe: this alone, to whoever is not authenticated */
int
admin_deny(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	const char *topic = text_argument(argc, argv, 1, "topic");
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	rd_kafka_AclBinding_t *bindings[2];
	const rd_kafka_acl_result_t **results;
	size_t		n;

	/* a topic that has a rule is closed for all that no rule allows */
	bindings[0] = make_binding(topic, RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW);
	bindings[1] = make_binding(topic, operation_argument(argc, argv, 2),
							   RD_KAFKA_ACL_PERMISSION_TYPE_DENY);
	rd_kafka_CreateAcls(client, bindings, 2, NULL, queue);
	event = await_answer(queue, "deny");
	results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event), &n);
	for (size_t i = 0; i < n; i++)
		check_error(rd_kafka_acl_result_error(results[i]), "deny");

	rd_kafka_event_destroy(event);
	rd_kafka_AclBinding_destroy_array(bindings, 2);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(client);
	return 0;
}

/* allow BOOTSTRAP TOPIC: all, without a rule */
int
admin_allow(int argc, char **argv)
{
	rd_kafka_t *client = open_admin(text_argument(argc, argv, 0, "bootstrap servers"));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	rd_kafka_AclBindingFilter_t *filter;
	const rd_kafka_DeleteAcls_result_response_t **results;
	size_t		n;
	char		error[512];

	filter = rd_kafka_AclBindingFilter_new(RD_KAFKA_RESOURCE_TOPIC, text_argument(argc, argv, 1, "topic"),
										   RD_KAFKA_RESOURCE_PATTERN_LITERAL, NULL, NULL,
										   RD_KAFKA_ACL_OPERATION_ANY,
										   RD_KAFKA_ACL_PERMISSION_TYPE_ANY, error, sizeof(error));
	if (filter == NULL)
		die("allow: %s", error);
	rd_kafka_DeleteAcls(client, &filter, 1, NULL, queue);
	event = await_answer(queue, "allow");
	results = rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(event), &n);
	for (size_t i = 0; i < n; i++)
		check_error(rd_kafka_DeleteAcls_result_response_error(results[i]), "allow");

	rd_kafka_event_destroy(event);
	rd_kafka_AclBinding_destroy(filter);
	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(client);
	return 0;
}
