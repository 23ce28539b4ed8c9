/*
 * kafka_request.c
 *		Questions to Kafka with a time limit, that a cancel interrupts.
 *
 * A call of the library cannot be interrupted, so a question is asked again
 * and again with a growing limit: 100 ms at first, 1 s at most.  Connections
 * are made in the background and outlive an attempt, so asking again does not
 * begin from nothing.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "kafka_request.h"
#include "nearest_name.h"

#define FIRST_ATTEMPT_MS	100
#define MAX_ATTEMPT_MS		1000

typedef bool (*Attempt) (MdKafkaClient *client, int timeout_ms, void *arg,
						 MdKafkaError *error);

/*
 * The library tells once why a broker cannot be reached ("Connection refused"),
 * and from then on only that it cannot ("Local: ..."): keep what says more.
 */
static void
keep_reason(MdKafkaError *reason, const MdKafkaError *error)
{
	static const char local[] = "Local: ";

	if (reason->message[0] == '\0' ||
		strncmp(error->message, local, strlen(local)) != 0)
		*reason = *error;
}

/* Retry attempt until it succeeds, fails for good (*reason), or time is up (*reason). */
static bool
ask(MdKafkaClient *client, int timeout_ms, Attempt attempt, void *arg,
	MdKafkaError *reason)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	int			attempt_ms = FIRST_ATTEMPT_MS;

	reason->message[0] = '\0';
	for (;;)
	{
		int			left_ms = md_clock_ms_until(GetCurrentTimestamp(), deadline);
		MdKafkaError error;

		CHECK_FOR_INTERRUPTS();
		if (attempt(client, Max(1, Min(attempt_ms, left_ms)), arg, &error))
			return true;
		keep_reason(reason, &error);
		if (!error.retriable || left_ms <= attempt_ms)
			return false;
		attempt_ms = Min(attempt_ms * 2, MAX_ATTEMPT_MS);
	}
}

/*
 * What to look at, for texts that only say what went wrong on the wire; a
 * broker tells a client why it refuses its certificate by a TLS alert.
 */
static const char *
hint_of(const MdKafkaError *error)
{
	static const struct
	{
		const char *text;
		const char *hint;
	}			hints[] = {
		{"alert certificate expired", "The client's certificate has expired: see the option ssl_certificate_pem."},
		{"alert certificate unknown", "The broker refuses the client's certificate: it has expired, or is signed by an authority that the broker does not trust."},
		{"alert unknown ca", "The broker does not trust the authority that signed the client's certificate: see the option ssl_certificate_pem."},
		{"alert bad certificate", "The broker refuses the client's certificate, or asks for one and there is none: see the options ssl_certificate_pem and ssl_key_pem."},
		{"alert certificate required", "The broker asks for a certificate of the client, by an authority that it trusts: see the options ssl_certificate_pem and ssl_key_pem."},
		{"routines::unexpected eof", "The listener may speak no TLS: see the option security_protocol."},
		{"connecting to a PLAINTEXT broker", "The listener may speak no TLS: see the option security_protocol."},
		{"wrong version number", "The listener may speak no TLS: see the option security_protocol."},
		{"SASL authentication error", "See the options sasl_mechanism, sasl_username and sasl_password of the server and of the user mapping."},
	};

	if (md_kafka_scram_is_outdated() && strstr(error->message, "SASL mechanism SCRAM") != NULL)
		return psprintf("If user and password are right: librdkafka %s cannot use SCRAM with brokers of Kafka 4.0 and later; 2.6.1 and later can, and PLAIN over TLS works with each.",
						md_kafka_library_version());
	for (int i = 0; i < lengthof(hints); i++)
		if (strstr(error->message, hints[i].text) != NULL)
			return hints[i].hint;
	return error->retriable ? "The setting medallion.kafka_timeout limits how long a session waits." : NULL;
}

static void
refuse(const char *server_name, const MdKafkaError *error)
{
	const char *hint = hint_of(error);

	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not get an answer from Kafka server \"%s\": %s",
					server_name, error->message),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static bool
attempt_cluster_info(MdKafkaClient *client, int timeout_ms, void *arg, MdKafkaError *error)
{
	return md_kafka_cluster_info(client, timeout_ms, arg, error);
}

void
md_kafka_request_cluster_info(MdKafkaClient *client, const char *server_name,
							  int timeout_ms, MdKafkaClusterInfo *info)
{
	MdKafkaError error;

	if (!ask(client, timeout_ms, attempt_cluster_info, info, &error))
		refuse(server_name, &error);
}

typedef struct TopicsQuestion
{
	const char *topic;			/* NULL: all */
	List	   *topics;
} TopicsQuestion;

static bool
attempt_topics(MdKafkaClient *client, int timeout_ms, void *arg, MdKafkaError *error)
{
	TopicsQuestion *question = arg;

	return md_kafka_topics(client, question->topic, timeout_ms, &question->topics, error);
}

List *
md_kafka_request_topics(MdKafkaClient *client, const char *server_name, int timeout_ms)
{
	TopicsQuestion question = {NULL, NIL};
	MdKafkaError error;

	if (!ask(client, timeout_ms, attempt_topics, &question, &error))
		refuse(server_name, &error);
	return question.topics;
}

/* ERROR: there is no such topic; name the nearest. */
static void
refuse_unknown_topic(MdKafkaClient *client, const char *server_name,
					 const char *topic, int timeout_ms)
{
	List	   *topics = md_kafka_request_topics(client, server_name, timeout_ms);
	const char **names = palloc((list_length(topics) + 1) * sizeof(char *));
	const char *nearest;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, topics)
		names[n++] = ((MdKafkaTopic *) lfirst(lc))->name;
	names[n] = NULL;
	nearest = md_nearest_name(topic, names);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("topic \"%s\" does not exist on server \"%s\"", topic, server_name),
			 nearest != NULL ? errhint("Perhaps you meant the topic \"%s\".", nearest) :
			 errhint("medallion.list_topics() lists the topics of a server.")));
}

MdKafkaTopic *
md_kafka_request_topic(MdKafkaClient *client, const char *server_name,
					   const char *topic, int timeout_ms)
{
	TopicsQuestion question = {topic, NIL};
	MdKafkaError error;

	if (!ask(client, timeout_ms, attempt_topics, &question, &error))
	{
		if (!md_kafka_error_is_unknown_topic(&error))
			refuse(server_name, &error);
		refuse_unknown_topic(client, server_name, topic, timeout_ms);
	}
	if (question.topics == NIL ||
		((MdKafkaTopic *) linitial(question.topics))->n_partitions == 0)
		refuse_unknown_topic(client, server_name, topic, timeout_ms);
	return linitial(question.topics);
}

typedef struct PositionsQuestion
{
	MdKafkaPosition *positions;
	int			n_positions;
} PositionsQuestion;

/* One partition that cannot be resolved makes the whole attempt fail. */
static bool
attempt_positions(MdKafkaClient *client, int timeout_ms, void *arg, MdKafkaError *error)
{
	PositionsQuestion *question = arg;

	if (!md_kafka_resolve(client, question->positions, question->n_positions, timeout_ms, error))
		return false;
	for (int i = 0; i < question->n_positions; i++)
	{
		MdKafkaPosition *position = &question->positions[i];

		if (position->error.code == 0)
			continue;
		error->code = position->error.code;
		error->retriable = position->error.retriable;
		snprintf(error->message, sizeof(error->message),
				 "Topic \"%.200s\" partition %d: %.200s", position->topic,
				 position->partition, position->error.message);
		return false;
	}
	return true;
}

void
md_kafka_request_positions(MdKafkaClient *client, const char *server_name,
						   MdKafkaPosition *positions, int n_positions,
						   int timeout_ms)
{
	PositionsQuestion question = {positions, n_positions};
	MdKafkaError error;

	if (n_positions > 0 &&
		!ask(client, timeout_ms, attempt_positions, &question, &error))
		refuse(server_name, &error);
}

MdKafkaSurvey *
md_kafka_request_survey(MdKafkaClient *client, const char *server_name, const char *topic,
						const int64 *queries, int n_queries, int timeout_ms)
{
	MdKafkaSurvey *survey = palloc0(sizeof(MdKafkaSurvey));
	int			n = md_kafka_request_topic(client, server_name, topic, timeout_ms)->n_partitions;
	MdKafkaPosition *positions = palloc0(sizeof(MdKafkaPosition) * n);

	survey->topic = topic;
	survey->n_partitions = n;
	survey->n_queries = n_queries;
	for (int q = 0; q < n_queries; q++)
	{
		survey->queries[q] = queries[q];
		survey->offsets[q] = palloc(sizeof(int64) * n);
		for (int i = 0; i < n; i++)
		{
			positions[i].topic = topic;
			positions[i].partition = i;
			positions[i].query = queries[q];
		}
		md_kafka_request_positions(client, server_name, positions, n, timeout_ms);
		for (int i = 0; i < n; i++)
			survey->offsets[q][i] = positions[i].offset;
	}
	return survey;
}
