/*
 * kafka_client_background.c
 *		Questions to Kafka that a thread asks, while the process goes on.
 *
 * The library's calls wait for the answer, and a worker that waits holds up all
 * of its streams.  So a thread makes these calls, one question per client at a
 * time, and leaves what the library gave it; then it rings the client's event
 * descriptor.  The process makes lists and errors of it.  The thread knows
 * nothing of PostgreSQL, and the question is malloc'd, because it may outlive
 * the client: its thread is waited for before the handle is destroyed.
 */
#include "postgres.h"

#include <time.h>
#include <unistd.h>

#include "kafka_client_private.h"

struct MdKafkaQuestion
{
	/* what is asked */
	rd_kafka_t *rk;
	char	   *topic;			/* NULL: for all topics, and no offsets */
	int			n_queries;
	int64		queries[MD_KAFKA_MAX_QUERIES];
	int			timeout_ms;
	int			event_fd;
	/* what came of it, for whom sees that it is done */
	pthread_t	thread;
	bool		has_thread;
	pg_atomic_uint32 done;
	rd_kafka_resp_err_t code;	/* of the client as a whole */
	rd_kafka_resp_err_t topic_code;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_partition_list_t *offsets[MD_KAFKA_MAX_QUERIES];
};

static int64
monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What is there: the topic with its partitions, or all topics. */
static void
ask_metadata(MdKafkaQuestion *question)
{
	rd_kafka_topic_t *only = NULL;

	if (question->topic != NULL)
	{
		only = rd_kafka_topic_new(question->rk, question->topic, NULL);
		if (only == NULL)
		{
			question->topic_code = rd_kafka_last_error();
			return;
		}
	}
	question->code = rd_kafka_metadata(question->rk, only == NULL, only,
									   &question->metadata, question->timeout_ms);
	if (only != NULL)
		rd_kafka_topic_destroy(only);
	if (question->code != RD_KAFKA_RESP_ERR_NO_ERROR || question->topic == NULL)
		return;
	if (question->metadata->topic_cnt != 1 || question->metadata->topics[0].partition_cnt == 0)
		question->topic_code = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	if (question->metadata->topic_cnt == 1 && question->metadata->topics[0].err)
		question->topic_code = question->metadata->topics[0].err;
}

/* The same query for all partitions of the topic; one that fails is all. */
static void
ask_offsets(MdKafkaQuestion *question, int query, int timeout_ms)
{
	int			n = question->metadata->topics[0].partition_cnt;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);

	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, question->topic, i)->offset = question->queries[query];
	question->topic_code = rd_kafka_offsets_for_times(question->rk, list, timeout_ms);
	for (int i = 0; i < list->cnt && !question->topic_code; i++)
		question->topic_code = list->elems[i].err;
	question->offsets[query] = list;
}

/* Whoever looks finds the question done from here on. */
static void
finish(MdKafkaQuestion *question)
{
	static const uint64 one = 1;
	ssize_t		written;

	pg_write_barrier();
	pg_atomic_write_u32(&question->done, 1);
	/* fails only when the descriptor rings already */
	written = write(question->event_fd, &one, sizeof(one));
	(void) written;
}

/* Runs in: a thread, which knows nothing of PostgreSQL. */
static void *
question_main(void *arg)
{
	MdKafkaQuestion *question = arg;
	int64		deadline_ms = monotonic_ms() + question->timeout_ms;

	ask_metadata(question);
	for (int i = 0; i < question->n_queries && !question->code && !question->topic_code; i++)
		ask_offsets(question, i, (int) Max(1, deadline_ms - monotonic_ms()));
	finish(question);
	return NULL;
}

void
md_kafka_drop_question(MdKafkaQuestion *question)
{
	if (question == NULL)
		return;
	if (question->has_thread)
		pthread_join(question->thread, NULL);
	if (question->metadata != NULL)
		rd_kafka_metadata_destroy(question->metadata);
	for (int i = 0; i < MD_KAFKA_MAX_QUERIES; i++)
		if (question->offsets[i] != NULL)
			rd_kafka_topic_partition_list_destroy(question->offsets[i]);
	free(question->topic);
	free(question);
}

void
md_kafka_ask(MdKafkaClient *client, const char *topic, const int64 *queries, int n_queries,
			 int timeout_ms)
{
	MdKafkaQuestion *question = calloc(1, sizeof(MdKafkaQuestion));

	Assert(client->question == NULL && n_queries <= MD_KAFKA_MAX_QUERIES);
	client->question = question;
	if (question == NULL || (topic != NULL && (question->topic = strdup(topic)) == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	question->rk = client->rk;
	question->n_queries = n_queries;
	for (int i = 0; i < n_queries; i++)
		question->queries[i] = queries[i];
	question->timeout_ms = timeout_ms;
	question->event_fd = client->event_fd;
	pg_atomic_init_u32(&question->done, 0);
	question->has_thread = md_kafka_start_thread(question_main, question, &question->thread);
	if (!question->has_thread)
	{
		question->code = RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
		finish(question);
	}
}

bool
md_kafka_is_asking(const MdKafkaClient *client)
{
	return client->question != NULL;
}

static void
fill_survey(const MdKafkaQuestion *question, MdKafkaSurvey *survey)
{
	survey->topic = pstrdup(question->topic);
	survey->n_partitions = question->metadata->topics[0].partition_cnt;
	survey->n_queries = question->n_queries;
	for (int q = 0; q < question->n_queries; q++)
	{
		survey->queries[q] = question->queries[q];
		survey->offsets[q] = palloc(sizeof(int64) * survey->n_partitions);
		for (int i = 0; i < survey->n_partitions; i++)
		{
			/* the list may come back in another order */
			rd_kafka_topic_partition_t *answer =
				rd_kafka_topic_partition_list_find(question->offsets[q], question->topic, i);

			survey->offsets[q][i] = answer->offset < 0 ? -1 : answer->offset;
		}
	}
}

MdKafkaAnswer
md_kafka_answer(MdKafkaClient *client, MdKafkaSurvey *survey, List **topics,
				MdKafkaError *error)
{
	MdKafkaQuestion *question = client->question;
	MdKafkaAnswer answer = MD_KAFKA_ANSWERED;

	if (pg_atomic_read_u32(&question->done) == 0)
		return MD_KAFKA_ASKING;
	pg_read_barrier();
	if (question->code)
	{
		md_kafka_request_failed(client, question->code, error);
		answer = MD_KAFKA_SILENT;
	}
	else
	{
		md_kafka_request_succeeded(client);
		if (question->topic_code)
		{
			md_kafka_fill_error(error, question->topic_code, NULL);
			answer = MD_KAFKA_REFUSED;
		}
		else if (question->topic != NULL)
			fill_survey(question, survey);
		else
			*topics = md_kafka_metadata_topics(question->metadata);
	}
	client->question = NULL;
	md_kafka_drop_question(question);
	return answer;
}
