/*
 * kafka_generate.c
 *		Synthetic records for benches and the demo, the same for the same
 *		options.
 *
 *	gen BOOTSTRAP TOPIC COUNT [--kind event|order|customer|stamp] [--first N]
 *		[--seed S] [--rate RECORDS_PER_SECOND] [--codec C] [--step MS]
 *		[--bad-every N] [--linger MS] [--topics N]
 *
 * Record n (from --first, default 0) depends on n and the seed alone: its
 * time is 2025-01-01 00:00 UTC + n * step (default 100 ms).  Without a rate
 * records go out as fast as the brokers take them.  With --bad-every, each
 * Nth record is JSON that was cut short.  With --topics, they go to the topics
 * TOPIC_1 to TOPIC_N in turn.  SIGTERM ends it early, when what was produced
 * so far is delivered.
 *
 *	event		about 207 bytes, keyed by user_id; for the benches
 *	order		order_id, customer, amount (1 in 50 is not positive), placed_at
 *	customer	customer, name, country; customer n is n modulo 50
 *	stamp		about 207 bytes: n, and sent_us, the time at which it is given to the
 *				producer, in microseconds since 1970; the one kind that differs
 *				from run to run
 */
#include <signal.h>
#include <time.h>

#include "kafka_tool.h"

#define FIRST_MS	INT64_C(1735689600000)	/* 2025-01-01 00:00:00 UTC */
#define N_CUSTOMERS 50

typedef struct Generator
{
	const char *kind;
	uint64_t	seed;
	int64_t		step_ms;
	int64_t		bad_every;		/* 0: none is bad */
} Generator;

static volatile sig_atomic_t told_to_end = 0;

static void
note_signal(int signal_number)
{
	told_to_end = 1;
	/* a second one does not wait for a broker that is gone */
	signal(signal_number, SIG_DFL);
}

/* Mix a counter into 64 random-looking bits (splitmix64's finalizer). */
static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* "2025-01-01T00:00:00.000Z" */
static void
format_time(char *text, size_t size, int64_t ms)
{
	time_t		seconds = ms / 1000;
	struct tm	tm;
	size_t		len;

	gmtime_r(&seconds, &tm);
	len = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + len, size - len, ".%03dZ", (int) (ms % 1000));
}

static int
format_event(char *value, size_t size, char *key, size_t key_size, uint64_t random, const char *when)
{
	static const char *const types[] = {"page_view", "add_to_cart", "purchase", "refund", "signup"};
	static const char *const currencies[] = {"EUR", "USD", "GBP", "CHF"};
	static const char *const channels[] = {"web", "ios", "android", "store"};
	uint64_t	more = mix(random);
	int			user_id = 10000 + (int) (random % 90000);

	snprintf(key, key_size, "%d", user_id);
	return snprintf(value, size,
					"{\"event_id\":\"%08x-%04x-4%03x-8%03x-%012llx\",\"user_id\":%d,\"event_type\":\"%s\","
					"\"amount\":%d.%02d,\"ts\":\"%s\",\"currency\":\"%s\",\"channel\":\"%s\",\"session\":\"%016llx\"}",
					(unsigned) (random >> 32), (unsigned) (random >> 16 & 0xffff), (unsigned) (random & 0xfff),
					(unsigned) (more >> 52), (unsigned long long) (more & UINT64_C(0xffffffffffff)),
					user_id, types[random % 5], (int) (more % 900) + 100, (int) (more / 900 % 100), when,
					currencies[random % 4], channels[more % 4], (unsigned long long) mix(more));
}

static int
format_order(char *value, size_t size, char *key, size_t key_size, int64_t n, uint64_t random, const char *when)
{
	int			customer = (int) (random % N_CUSTOMERS);
	int			cents = (int) (random >> 8) % 20000;

	if (random / N_CUSTOMERS % 50 == 0)
		cents = 0;
	cents = abs(cents);
	snprintf(key, key_size, "c%03d", customer);
	return snprintf(value, size, "{\"order_id\":%lld,\"customer\":\"c%03d\",\"amount\":%d.%02d,\"placed_at\":\"%s\"}",
					(long long) n, customer, cents / 100, cents % 100, when);
}

static int
format_customer(char *value, size_t size, char *key, size_t key_size, int64_t n)
{
	static const char *const names[] = {"Ada", "Grace", "Edgar", "Barbara", "Alan", "Radia", "Donald", "Frances", "Ken", "Mary"};
	static const char *const countries[] = {"AT", "CH", "DE", "FR", "IT", "NL"};
	int			customer = (int) (n % N_CUSTOMERS);

	snprintf(key, key_size, "c%03d", customer);
	return snprintf(value, size, "{\"customer\":\"c%03d\",\"name\":\"%s %d\",\"country\":\"%s\"}",
					customer, names[customer % 10], customer / 10 + 1, countries[customer % 6]);
}

static int
format_stamp(char *value, size_t size, char *key, size_t key_size, int64_t n, uint64_t random)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(key, key_size, "%d", 10000 + (int) (random % 90000));
	return snprintf(value, size, "{\"n\":%lld,\"sent_us\":%lld,\"filler\":\"%0160llx\"}", (long long) n,
					(long long) now.tv_sec * 1000000 + now.tv_nsec / 1000, (unsigned long long) random);
}

/* Write record n; returns the length of the value. */
static int
format_record(const Generator *generator, int64_t n, char *value, size_t size, char *key, size_t key_size)
{
	uint64_t	random = mix((uint64_t) n ^ mix(generator->seed));
	char		when[64];
	int			len;

	format_time(when, sizeof(when), FIRST_MS + n * generator->step_ms);
	if (strcmp(generator->kind, "event") == 0)
		len = format_event(value, size, key, key_size, random, when);
	else if (strcmp(generator->kind, "order") == 0)
		len = format_order(value, size, key, key_size, n, random, when);
	else if (strcmp(generator->kind, "customer") == 0)
		len = format_customer(value, size, key, key_size, n);
	else if (strcmp(generator->kind, "stamp") == 0)
		len = format_stamp(value, size, key, key_size, n, random);
	else
		die("unknown kind \"%s\"", generator->kind);
	if (generator->bad_every > 0 && n % generator->bad_every == generator->bad_every - 1)
		len -= 5;
	return len;
}

/* Wait until record i of a run at `rate` per second is due, serving events. */
static void
wait_until_due(rd_kafka_t *producer, const struct timespec *start, int64_t i, int64_t rate)
{
	for (;;)
	{
		struct timespec now;
		int64_t		elapsed_us;
		int64_t		due_us = i * 1000000 / rate;

		clock_gettime(CLOCK_MONOTONIC, &now);
		elapsed_us = (now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000;
		if (elapsed_us >= due_us)
			return;
		rd_kafka_poll(producer, (int) ((due_us - elapsed_us) / 1000) + 1);
	}
}

static int64_t
number_option(int *argc, char **argv, const char *name, int64_t value)
{
	const char *text = take_option(argc, argv, name);

	return text ? number_argument(1, (char *[]) {(char *) text}, 0, name) : value;
}

/*
 * Handles of the topic, or with n > 0 of the topics that its name begins, whose
 * leaders are asked for at once, so that no record waits for that.
 */
static rd_kafka_topic_t **
open_topics(rd_kafka_t *producer, const char *topic, int64_t n)
{
	rd_kafka_topic_t **handles = calloc(n > 0 ? n : 1, sizeof(rd_kafka_topic_t *));

	for (int64_t i = 0; i < n; i++)
	{
		char		name[256];

		snprintf(name, sizeof(name), "%s_%lld", topic, (long long) i + 1);
		handles[i] = rd_kafka_topic_new(producer, name, NULL);
	}
	if (n == 0)
		handles[0] = rd_kafka_topic_new(producer, topic, NULL);
	else
	{
		const rd_kafka_metadata_t *metadata;

		if (rd_kafka_metadata(producer, 0, NULL, &metadata, 30000) != RD_KAFKA_RESP_ERR_NO_ERROR)
			die("could not ask for the topics");
		rd_kafka_metadata_destroy(metadata);
	}
	return handles;
}

/* gen BOOTSTRAP TOPIC COUNT [options]; prints how many were delivered */
int
generate_records(int argc, char **argv)
{
	const char *codec = take_option(&argc, argv, "--codec");
	const char *kind = take_option(&argc, argv, "--kind");
	const char *linger = take_option(&argc, argv, "--linger");
	int64_t		first = number_option(&argc, argv, "--first", 0);
	int64_t		rate = number_option(&argc, argv, "--rate", 0);
	int64_t		n_topics = number_option(&argc, argv, "--topics", 0);
	Generator	generator = {
		.kind = kind ? kind : "event",
		.seed = (uint64_t) number_option(&argc, argv, "--seed", 1),
		.step_ms = number_option(&argc, argv, "--step", 100),
		.bad_every = number_option(&argc, argv, "--bad-every", 0),
	};
	const char *const properties[] = {
		"compression.codec", codec ? codec : "none",
		"linger.ms", linger ? linger : rate > 0 ? "5" : "50",
		"batch.size", "1000000",
		"batch.num.messages", "10000",
		"queue.buffering.max.messages", "500000",
		"enable.idempotence", "true",
		NULL
	};
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	const char *topic = text_argument(argc, argv, 1, "topic");
	int64_t		count = number_argument(argc, argv, 2, "count");
	rd_kafka_t *producer;
	rd_kafka_topic_t **handles;
	struct timespec start;

	refuse_options(argc, argv);
	signal(SIGTERM, note_signal);
	producer = open_client(RD_KAFKA_PRODUCER, bootstrap, properties);
	handles = open_topics(producer, topic, n_topics);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int64_t i = 0; i < count && !told_to_end; i++)
	{
		char		value[512];
		char		key[32];
		int			len;

		if (rate > 0)
			wait_until_due(producer, &start, i, rate);
		len = format_record(&generator, first + i, value, sizeof(value), key, sizeof(key));
		while (rd_kafka_produce(handles[n_topics > 0 ? i % n_topics : 0], RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY,
								value, len, key, strlen(key), NULL) != 0)
		{
			if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
				die("could not produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
			rd_kafka_poll(producer, 50);
		}
		if (i % 1000 == 0)
			rd_kafka_poll(producer, 0);
	}
	flush_producer(producer);
	printf("%lld\n", (long long) delivered);
	for (int64_t i = 0; i < n_topics || i == 0; i++)
		rd_kafka_topic_destroy(handles[i]);
	free(handles);
	rd_kafka_destroy(producer);
	return 0;
}
