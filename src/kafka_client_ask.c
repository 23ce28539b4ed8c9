/*
 * kafka_client_ask.c
 *		Questions to Kafka that wait for their answer: one attempt each.
 *
 * A call of the library cannot be interrupted; kafka_request.c makes questions
 * of such attempts that can.
 */
#include "postgres.h"

#include "kafka_client_private.h"

/*
 * Serve what error_cb has to say, but never from a queue that may hold
 * records: they would be lost.  There the next take serves it.
 */
static void
serve_errors(MdKafkaClient *client)
{
	while (!client->told->consuming && rd_kafka_queue_length(client->queue) > 0)
	{
		rd_kafka_message_t *message = NULL;

		if (rd_kafka_consume_batch_queue(client->queue, 0, &message, 1) > 0)
			rd_kafka_message_destroy(message);
	}
}

void
md_kafka_request_succeeded(MdKafkaClient *client)
{
	serve_errors(client);
	client->told->knows_why = false;
	if (!client->told->consuming)
		client->told->has_last_error = false;
}

/*
 * Say why the client as a whole is in trouble, if it is, because "timed out"
 * alone tells nobody that the password is wrong.
 */
void
md_kafka_request_failed(MdKafkaClient *client, rd_kafka_resp_err_t code, MdKafkaError *error)
{
	serve_errors(client);
	if (client->told->has_last_error)
	{
		*error = client->told->last_error;
		client->told->has_last_error = client->told->consuming;
	}
	else
		md_kafka_fill_error(error, code, NULL);
}

void
md_kafka_serve(MdKafkaClient *client)
{
	md_kafka_clear_ring(client);
	serve_errors(client);
}

bool
md_kafka_cluster_info(MdKafkaClient *client, int timeout_ms,
					  MdKafkaClusterInfo *info, MdKafkaError *error)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code;
	char	   *cluster_id;
	char	   *brokers = pstrdup("");

	code = rd_kafka_metadata(client->rk, 0, NULL, &metadata, timeout_ms);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		md_kafka_request_failed(client, code, error);
		return false;
	}
	for (int i = 0; i < metadata->broker_cnt; i++)
		brokers = psprintf("%s%s%s:%d", brokers, i ? ", " : "",
						   metadata->brokers[i].host, metadata->brokers[i].port);
	info->n_brokers = metadata->broker_cnt;
	info->brokers = brokers;
	rd_kafka_metadata_destroy(metadata);

	cluster_id = rd_kafka_clusterid(client->rk, timeout_ms);
	info->cluster_id = cluster_id ? pstrdup(cluster_id) : NULL;
	if (cluster_id)
		rd_kafka_mem_free(client->rk, cluster_id);
	md_kafka_request_succeeded(client);
	return true;
}

static int32 *
partition_leaders(const struct rd_kafka_metadata_topic *topic)
{
	int32	   *leaders = palloc(sizeof(int32) * Max(1, topic->partition_cnt));

	for (int i = 0; i < topic->partition_cnt; i++)
		leaders[i] = -1;
	for (int i = 0; i < topic->partition_cnt; i++)
		if (topic->partitions[i].id >= 0 && topic->partitions[i].id < topic->partition_cnt)
			leaders[topic->partitions[i].id] = topic->partitions[i].leader;
	return leaders;
}

/* The topics that can be read, of MdKafkaTopic. */
List *
md_kafka_metadata_topics(const struct rd_kafka_metadata *metadata)
{
	List	   *topics = NIL;

	for (int i = 0; i < metadata->topic_cnt; i++)
	{
		MdKafkaTopic *found;

		if (metadata->topics[i].err != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		found = palloc(sizeof(MdKafkaTopic));
		found->name = pstrdup(metadata->topics[i].topic);
		found->n_partitions = metadata->topics[i].partition_cnt;
		found->leaders = partition_leaders(&metadata->topics[i]);
		topics = lappend(topics, found);
	}
	return topics;
}

bool
md_kafka_topics(MdKafkaClient *client, const char *topic, int timeout_ms,
				List **topics, MdKafkaError *error)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_t *only = NULL;
	rd_kafka_resp_err_t code;

	if (topic != NULL)
	{
		only = rd_kafka_topic_new(client->rk, topic, NULL);
		if (only == NULL)
		{
			md_kafka_fill_error(error, rd_kafka_last_error(), NULL);
			return false;
		}
	}
	code = rd_kafka_metadata(client->rk, topic == NULL, only, &metadata, timeout_ms);
	if (only != NULL)
		rd_kafka_topic_destroy(only);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		md_kafka_request_failed(client, code, error);
		return false;
	}

	if (topic != NULL && metadata->topic_cnt == 1 && metadata->topics[0].err)
	{
		md_kafka_fill_error(error, metadata->topics[0].err, NULL);
		rd_kafka_metadata_destroy(metadata);
		return false;
	}
	*topics = md_kafka_metadata_topics(metadata);
	rd_kafka_metadata_destroy(metadata);
	md_kafka_request_succeeded(client);
	return true;
}

/*
 * One ListOffsets request per leader for all positions: the protocol's
 * special timestamps -1 (end) and -2 (beginning) pass through the library.
 * A time after the last record has no offset: the answer is then -1 (its
 * meaning is up to the caller) without an error.
 */
bool
md_kafka_resolve(MdKafkaClient *client, MdKafkaPosition *positions,
				 int n_positions, int timeout_ms, MdKafkaError *error)
{
	rd_kafka_topic_partition_list_t *list = md_kafka_partition_list(positions, n_positions, true);
	rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client->rk, list, timeout_ms);

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_topic_partition_list_destroy(list);
		md_kafka_request_failed(client, code, error);
		return false;
	}
	for (int i = 0; i < n_positions; i++)
	{
		rd_kafka_topic_partition_t *answer =
			rd_kafka_topic_partition_list_find(list, positions[i].topic, positions[i].partition);

		positions[i].offset = answer->err || answer->offset < 0 ? -1 : answer->offset;
		memset(&positions[i].error, 0, sizeof(MdKafkaError));
		if (answer->err)
			md_kafka_fill_error(&positions[i].error, answer->err, NULL);
	}
	rd_kafka_topic_partition_list_destroy(list);
	md_kafka_request_succeeded(client);
	return true;
}
