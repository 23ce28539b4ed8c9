/*
 * kafka_client.c
 *		All that this extension asks of Kafka, over librdkafka.
 *
 * One handle per client.  The library's threads fetch, decompress and parse
 * into one consumer queue; the process takes records off it without waiting
 * and is woken by an event fd, which the library writes when the queue goes
 * from empty to not empty.  So the queue must be drained before one waits.
 *
 * Handles are not palloc'd and own threads.  They hang off a list in this
 * file: a client is closed with the memory context that it was opened in, and
 * what is still open when the process exits is closed then.  Messages are
 * released before their handle, or its destruction would wait for ever.
 *
 * Callbacks of the library run on our thread, inside a call of ours that
 * serves its queue; they only copy text into the client, because an error
 * thrown there would unwind through frames of the library.  The one that looks
 * at certificates runs on the library's threads, and leaves a number.
 */
#include "postgres.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "kafka_client.h"

/* Sockets and pipes that a handle has open, as far as we can tell: told to fd.c. */
#define FDS_PER_CLIENT 4
/* How long the destruction of a handle is waited for. */
#define DESTROY_LIMIT_S 5
/* The first fetch after an assignment is answered by then; see settle_fetches(). */
#define FIRST_FETCH_MS 5000
#define SETTLE_TIMEOUT_MS 1000

/* Trouble of one partition that error_cb was told of. */
typedef struct PartitionError
{
	char		topic[250];
	int32		partition;
	MdKafkaError error;
} PartitionError;

struct MdKafkaClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	int			event_fd;
	int			reserved_fds;
	int64		queue_max_bytes;
	bool		stops_long;		/* the library stops for a second at a full queue */
	bool		was_full;
	bool		consuming;		/* partitions are assigned: the queue holds records */
	TimestampTz assigned_at;	/* the last time that they were */
	rd_kafka_message_t **messages;	/* taken and not released */
	int			n_messages;
	int			max_messages;
	MdRecord   *records;
	MdKafkaError last_error;	/* of a broker or of the client as a whole, by error_cb */
	bool		has_last_error;
	bool		knows_why;		/* last_error is more than that no broker can be reached */
	bool		is_cut_off;		/* no broker can be used: to be told as an event */
	pg_atomic_uint32 verify_error;	/* of a broker's certificate: OpenSSL's code */
	PartitionError *partition_errors;	/* malloc'd: to be told as events */
	int			n_partition_errors;
	MemoryContext context;
	MemoryContextCallback on_reset;
	MdKafkaClient *next;		/* in open_clients */
};

static MdKafkaClient *open_clients = NULL;
static bool exit_callback_registered = false;
static bool handle_abandoned = false;

/*
 * A thread of the library (2.0 at least) locks itself out for ever if the
 * answer that an offset is out of range, to the first fetch after an
 * assignment, reaches it while the handle is being destroyed.  So stop
 * fetching, and wait for an answer that comes behind those on their
 * connections.
 */
static void
settle_fetches(MdKafkaClient *client)
{
	rd_kafka_topic_partition_list_t *list = NULL;

	if (client->rk == NULL || !client->consuming ||
		TimestampDifferenceExceeds(client->assigned_at, GetCurrentTimestamp(), FIRST_FETCH_MS))
		return;
	if (rd_kafka_assignment(client->rk, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	(void) rd_kafka_assign(client->rk, NULL);
	for (int i = 0; i < list->cnt; i++)
		list->elems[i].offset = MD_KAFKA_LATEST;
	if (list->cnt > 0)
		(void) rd_kafka_offsets_for_times(client->rk, list, SETTLE_TIMEOUT_MS);
	rd_kafka_topic_partition_list_destroy(list);
}

/* A handle on its way out, shared with the thread that destroys it. */
typedef struct Destruction
{
	rd_kafka_t *rk;
	pthread_mutex_t mutex;
	pthread_cond_t done_cond;
	bool		done;
} Destruction;

/* Runs in: a thread of its own, which knows nothing of PostgreSQL. */
static void *
destruction_main(void *arg)
{
	Destruction *destruction = arg;

	rd_kafka_destroy_flags(destruction->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	pthread_mutex_lock(&destruction->mutex);
	destruction->done = true;
	pthread_cond_signal(&destruction->done_cond);
	pthread_mutex_unlock(&destruction->mutex);
	return NULL;
}

/* At the very end of a process that could not end the library's threads. */
static void
exit_at_once(int code, Datum arg)
{
	if (handle_abandoned)
		_exit(code);
}

/*
 * Destroy a handle, and wait for that, but not for ever: librdkafka up to 2.5
 * can hang there when a topic that it reads was deleted, and a server that is
 * told to stop would wait for us.  A handle that takes too long is left to its
 * thread; the process then exits without the C library's exit handlers, which
 * would pull what the threads use from under them.
 */
static void
destroy_handle(rd_kafka_t *rk)
{
	Destruction *destruction = malloc(sizeof(Destruction));
	struct timespec deadline;
	sigset_t	all_signals;
	sigset_t	old_signals;
	pthread_t	thread;
	int			failed;

	if (destruction == NULL)
	{
		rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
		return;
	}
	destruction->rk = rk;
	destruction->done = false;
	pthread_mutex_init(&destruction->mutex, NULL);
	pthread_cond_init(&destruction->done_cond, NULL);

	/* signals are for the process's own thread */
	sigfillset(&all_signals);
	pthread_sigmask(SIG_SETMASK, &all_signals, &old_signals);
	failed = pthread_create(&thread, NULL, destruction_main, destruction);
	pthread_sigmask(SIG_SETMASK, &old_signals, NULL);
	if (failed)
	{
		free(destruction);
		rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
		return;
	}

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += DESTROY_LIMIT_S;
	pthread_mutex_lock(&destruction->mutex);
	failed = 0;
	while (!destruction->done && !failed)
		failed = pthread_cond_timedwait(&destruction->done_cond, &destruction->mutex, &deadline);
	failed = !destruction->done;
	pthread_mutex_unlock(&destruction->mutex);
	if (failed)
	{
		pthread_detach(thread);
		handle_abandoned = true;
		return;
	}
	pthread_join(thread, NULL);
	free(destruction);
}

/* Release the library's side of a client; may be called more than once. */
static void
client_destroy(MdKafkaClient *client)
{
	MdKafkaClient **link = &open_clients;

	while (*link != NULL && *link != client)
		link = &(*link)->next;
	if (*link == NULL)
		return;
	*link = client->next;

	for (int i = 0; i < client->n_messages; i++)
		rd_kafka_message_destroy(client->messages[i]);
	client->n_messages = 0;
	settle_fetches(client);
	if (client->queue != NULL)
	{
		rd_kafka_queue_io_event_enable(client->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(client->queue);
	}
	if (client->rk != NULL)
		destroy_handle(client->rk);
	client->queue = NULL;
	client->rk = NULL;
	free(client->partition_errors);
	client->partition_errors = NULL;
	client->n_partition_errors = 0;
	if (client->event_fd >= 0)
		close(client->event_fd);
	client->event_fd = -1;
	for (; client->reserved_fds > 0; client->reserved_fds--)
		ReleaseExternalFD();
}

static void
client_on_reset(void *arg)
{
	client_destroy(arg);
}

/* At exit: threads of the library must be gone before the process is. */
static void
destroy_all_clients(int code, Datum arg)
{
	while (open_clients != NULL)
		client_destroy(open_clients);
}

void
md_kafka_close(MdKafkaClient *client)
{
	/* the context's callback then finds it gone from the list */
	client_destroy(client);
}

/*
 * How long something took, and how often it was left unsaid, differs each time:
 * without that, the same trouble has the same text.
 */
static void
cut_circumstances(char *message)
{
	char	   *cut = strstr(message, " (after ");

	for (char *next = cut; next != NULL; next = strstr(next + 1, " (after "))
		cut = next;
	if (cut != NULL && cut > message && message[strlen(message) - 1] == ')')
		*cut = '\0';
}

static void
fill_error(MdKafkaError *error, rd_kafka_resp_err_t code, const char *message)
{
	error->code = code;
	switch (code)
	{
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR__INVALID_ARG:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
			error->retriable = false;
			break;
		default:
			error->retriable = true;
	}
	strlcpy(error->message,
			message != NULL && message[0] != '\0' ? message : rd_kafka_err2str(code),
			sizeof(error->message));
	cut_circumstances(error->message);
}

/*
 * Remember why a broker's certificate is refused: the library's error does not
 * tell a wrong name from an unknown authority.  Decides nothing: the answer is
 * OpenSSL's own.
 *
 * Runs in: a thread of the library.
 */
static int
verify_cb(rd_kafka_t *rk, const char *broker_name, int32_t broker_id, int *x509_error,
		  int depth, const char *der, size_t size, char *reason, size_t reason_size,
		  void *opaque)
{
	MdKafkaClient *client = opaque;

	if (*x509_error == 0)
		return 1;
	pg_atomic_write_u32(&client->verify_error, (uint32) *x509_error);
	snprintf(reason, reason_size, "OpenSSL verification error %d", *x509_error);
	return 0;
}

/* What OpenSSL's codes of X509_verify_cert mean to whoever set the options. */
static const char *
verify_error_text(uint32 x509_error)
{
	switch (x509_error)
	{
		case 9:
			return "the broker's certificate is not valid yet";
		case 10:
			return "the broker's certificate has expired";
		case 2:
		case 18:
		case 19:
		case 20:
		case 21:
			return "the broker's certificate is not signed by an authority that is trusted here (see the option ssl_ca_pem)";
		case 23:
			return "the broker's certificate was revoked";
		case 62:
		case 64:
			return "the broker's certificate is for another host than the one in bootstrap_servers or advertised by the broker";
		default:
			return NULL;
	}
}

/*
 * Say in *error why a broker's certificate was refused, if that was it.  The
 * library has two texts for it: "broker: SSL handshake failed: error:..." and
 * "broker: error:...".
 */
static void
explain_verify_error(MdKafkaClient *client, MdKafkaError *error)
{
	/* the number stays: several attempts may have failed before we hear of the first */
	const char *text = verify_error_text(pg_atomic_read_u32(&client->verify_error));
	char	   *start = strstr(error->message, "SSL handshake failed: ");

	if (start == NULL)
		start = strstr(error->message, "error:");
	if (text != NULL && start != NULL && strstr(start, "certificate verify failed") != NULL)
		snprintf(start, error->message + sizeof(error->message) - start,
				 "SSL handshake failed: %s", text);
}

/*
 * Is the error one partition's?  The library tells so in the text alone:
 * "topic [partition]: what is wrong".  Keep it then, for the next take.
 */
static bool
keep_partition_error(MdKafkaClient *client, int code, const char *reason)
{
	PartitionError *errors;
	PartitionError *error;
	int			partition;
	int			len = 0;
	char		topic[250];

	if (sscanf(reason, "%249[a-zA-Z0-9._-] [%d]: %n", topic, &partition, &len) != 2 || len == 0)
		return false;
	errors = realloc(client->partition_errors,
					 sizeof(PartitionError) * (client->n_partition_errors + 1));
	if (errors == NULL)
		return false;
	client->partition_errors = errors;
	error = &errors[client->n_partition_errors++];
	strlcpy(error->topic, topic, sizeof(error->topic));
	error->partition = partition;
	fill_error(&error->error, code, reason + len);
	return true;
}

/*
 * Does the last error say more than this one?  That no broker can be reached
 * follows the error that says why, since 2.14 again and again and that only
 * once; and a connection whose handshake failed is told to have ended, too.
 */
static bool
adds_nothing(MdKafkaClient *client, int code, const char *reason)
{
	const char *last = client->last_error.message;
	const char *end = strstr(reason, ": Disconnected");

	if (!client->has_last_error && !client->knows_why)
		return false;
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		return true;
	return end != NULL && strncmp(last, reason, end - reason) == 0 &&
		strstr(last, "handshake failed") != NULL && strstr(reason, "handshake failed") == NULL;
}

/* Runs in: our thread, inside a call that serves the client's queue. */
static void
error_cb(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	MdKafkaClient *client = opaque;

	if (client->consuming && keep_partition_error(client, code, reason))
		return;
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
			/* a group coordinator that we may not use does not concern us */
			return;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
			/* trouble of one broker, which others may make good */
			break;
		default:
			client->is_cut_off = true;
	}
	if (adds_nothing(client, code, reason))
	{
		client->has_last_error = true;
		return;
	}
	fill_error(&client->last_error, code, reason);
	explain_verify_error(client, &client->last_error);
	client->has_last_error = true;
	client->knows_why = code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
}

/* The library's log adds nothing to what the errors say. */
static void
log_cb(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

/* Set one property, or free conf and throw. */
static void
conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, bool secret)
{
	char		reason[512];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return;
	rd_kafka_conf_destroy(conf);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for Kafka property \"%s\"", name),
			 secret ? 0 : errdetail("librdkafka says: %s.", reason)));
}

/* Set a property that the linked library may be too old to know; tells whether. */
static bool
conf_set_if_known(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		reason[512];
	rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, name, value, reason, sizeof(reason));

	if (result == RD_KAFKA_CONF_INVALID)
	{
		rd_kafka_conf_destroy(conf);
		elog(ERROR, "could not set Kafka property \"%s\": %s", name, reason);
	}
	return result == RD_KAFKA_CONF_OK;
}

/* The properties that are ours, whatever the server's options say. */
static void
conf_set_own(rd_kafka_conf_t *conf, const MdKafkaConsumerConfig *config,
			 MdKafkaClient *client)
{
	char		kilobytes[32];
	char		fetch_bytes[32];
	int			queue_max_kb = config ? config->queue_max_kb : 4096;

	/* group.id is required for assign(); nothing is committed to a default one */
	conf_set(conf, "group.id",
			 config && config->group_id ? config->group_id : "pg_medallion", false);
	conf_set(conf, "enable.auto.commit", "false", false);
	conf_set(conf, "enable.auto.offset.store", "false", false);
	conf_set(conf, "auto.offset.reset", "error", false);
	conf_set(conf, "allow.auto.create.topics", "false", false);
	conf_set(conf, "enable.partition.eof", "true", false);
	conf_set(conf, "log.queue", "true", false);
	conf_set(conf, "isolation.level",
			 config && config->read_uncommitted ? "read_uncommitted" : "read_committed",
			 false);

	/*
	 * The queue is bounded by its bytes, never by its count.  When it is full
	 * the library stops fetching for a while; 2.0 does so for a whole second
	 * (see keep_fetching()), later versions let us say how long.
	 */
	conf_set(conf, "queued.min.messages", "10000000", false);
	client->stops_long = !conf_set_if_known(conf, "fetch.queue.backoff.ms", "10");
	client->queue_max_bytes = (int64) Max(queue_max_kb, 1024) * 1024;
	snprintf(kilobytes, sizeof(kilobytes), "%d", Max(queue_max_kb, 1024));
	conf_set(conf, "queued.max.messages.kbytes", kilobytes, false);
	/*
	 * What one fetch may bring comes on top of a queue that is nearly full;
	 * the library wants no less than its message.max.bytes, 1000000.  A larger
	 * record comes all the same: a broker always sends at least one batch.
	 */
	snprintf(fetch_bytes, sizeof(fetch_bytes), "%d",
			 Max(1024, Min(queue_max_kb / 4, 16384)) * 1024);
	conf_set(conf, "fetch.max.bytes", fetch_bytes, false);
	conf_set(conf, "max.partition.fetch.bytes", fetch_bytes, false);
}

static bool
has_property(const List *properties, const char *name)
{
	ListCell   *lc;

	foreach(lc, properties)
		if (strcmp(((MdKafkaProperty *) lfirst(lc))->name, name) == 0)
			return true;
	return false;
}

static rd_kafka_conf_t *
make_conf(const List *properties, const MdKafkaConsumerConfig *config,
		  MdKafkaClient *client)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	ListCell   *lc;

	conf_set_own(conf, config, client);
	if (!has_property(properties, "client.id"))
		conf_set(conf, "client.id", "pg_medallion", false);
	if (config != NULL && !has_property(properties, "fetch.wait.max.ms"))
	{
		char		wait_ms[32];

		snprintf(wait_ms, sizeof(wait_ms), "%d", config->fetch_wait_ms);
		conf_set(conf, "fetch.wait.max.ms", wait_ms, false);
	}
	/* that a topic which was missing is there again is seen at a refresh only */
	if (!has_property(properties, "topic.metadata.refresh.interval.ms"))
		conf_set(conf, "topic.metadata.refresh.interval.ms", "5000", false);
	/* tables are to go on soon after their broker does */
	if (!has_property(properties, "reconnect.backoff.max.ms"))
		conf_set(conf, "reconnect.backoff.max.ms", "1000", false);
	if (!has_property(properties, "socket.keepalive.enable"))
		conf_set(conf, "socket.keepalive.enable", "true", false);
	foreach(lc, properties)
	{
		MdKafkaProperty *property = lfirst(lc);

		conf_set(conf, property->name, property->value, property->secret);
	}
	/*
	 * A topic that is made anew while the library still remembers the old one
	 * corrupts the memory of 2.4 to 2.9 (its issue 4964): let it remember
	 * nothing, whatever the options say.  It then asks once a second for the
	 * topics that it reads.
	 */
	if (rd_kafka_version() >= 0x020400ff && rd_kafka_version() < 0x020a00ff)
		conf_set(conf, "metadata.max.age.ms", "1", false);
	rd_kafka_conf_set_opaque(conf, client);
	rd_kafka_conf_set_error_cb(conf, error_cb);
	rd_kafka_conf_set_log_cb(conf, log_cb);
	/* a library built without TLS refuses it, and needs it not */
	(void) rd_kafka_conf_set_ssl_cert_verify_cb(conf, verify_cb);
	return conf;
}

/* Create the handle, its queue, and the event fd that the queue rings. */
static void
client_start(MdKafkaClient *client, rd_kafka_conf_t *conf)
{
	static const uint64 one = 1;
	char		reason[512];

	while (client->reserved_fds < FDS_PER_CLIENT && AcquireExternalFD())
		client->reserved_fds++;
	client->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (client->rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
				 errmsg("could not create a Kafka client: %s", reason)));
	}
	/* logs, errors and records all come through the one queue that we serve */
	rd_kafka_set_log_queue(client->rk, NULL);
	rd_kafka_poll_set_consumer(client->rk);
	client->queue = rd_kafka_queue_get_consumer(client->rk);
	client->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (client->event_fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create an event descriptor: %m")));
	rd_kafka_queue_io_event_enable(client->queue, client->event_fd, &one, sizeof(one));

	/*
	 * What came before (a warning about a property, an early error) rang
	 * nothing, and what follows it would not either: the queue is not empty.
	 */
	if (rd_kafka_queue_length(client->queue) > 0 &&
		write(client->event_fd, &one, sizeof(one)) < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to an event descriptor: %m")));
}

MdKafkaClient *
md_kafka_open(const List *properties, const MdKafkaConsumerConfig *config,
			  MemoryContext context)
{
	MdKafkaClient *client = MemoryContextAllocZero(context, sizeof(MdKafkaClient));

	client->context = context;
	client->event_fd = -1;
	pg_atomic_init_u32(&client->verify_error, 0);
	if (!exit_callback_registered)
	{
		/* the first to be registered is the last to be called */
		on_proc_exit(exit_at_once, (Datum) 0);
		before_shmem_exit(destroy_all_clients, (Datum) 0);
		exit_callback_registered = true;
	}
	/* from here on the context or the process's exit closes what is open */
	client->next = open_clients;
	open_clients = client;
	client->on_reset.func = client_on_reset;
	client->on_reset.arg = client;
	MemoryContextRegisterResetCallback(context, &client->on_reset);

	client_start(client, make_conf(properties, config, client));
	return client;
}

/* Add the names of a list of pairs of names and values, and free it. */
static List *
add_dumped_names(List *names, const char **dump, size_t count)
{
	for (size_t i = 0; i < count; i += 2)
		names = list_append_unique(names, makeString(pstrdup(dump[i])));
	rd_kafka_conf_dump_free(dump, count);
	return names;
}

/* Add the names of the table of properties that the library prints. */
static List *
add_printed_names(List *names)
{
	char	   *text = NULL;
	size_t		size;
	FILE	   *file = open_memstream(&text, &size);
	char	   *rest;
	char	   *line;

	if (file == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	rd_kafka_conf_properties_show(file);
	fclose(file);
	for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
	{
		/* name, spaces, "|", ...; titles and rules are not names */
		Size		len = strcspn(line, " |");

		if (strchr(line, '|') == NULL || len == 0 || line[0] < 'a' || line[0] > 'z')
			continue;
		names = list_append_unique(names, makeString(pnstrdup(line, len)));
	}
	free(text);
	return names;
}

/*
 * The library has no call for this.  What it prints leaves out hidden
 * properties; a dump leaves out aliases and those without a value.
 */
List *
md_kafka_property_names(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_conf_t *topic_conf = rd_kafka_topic_conf_new();
	List	   *names;
	ListCell   *lc;
	size_t		count;
	const char **dump;

	names = add_printed_names(NIL);
	dump = rd_kafka_conf_dump(conf, &count);
	names = add_dumped_names(names, dump, count);
	dump = rd_kafka_topic_conf_dump(topic_conf, &count);
	names = add_dumped_names(names, dump, count);
	rd_kafka_conf_destroy(conf);
	rd_kafka_topic_conf_destroy(topic_conf);

	foreach(lc, names)
		lfirst(lc) = strVal(lfirst(lc));
	return names;
}

bool
md_kafka_error_is_unknown_topic(const MdKafkaError *error)
{
	return error->code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
		error->code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
}

const char *
md_kafka_library_version(void)
{
	return rd_kafka_version_str();
}

/*
 * Serve what error_cb has to say, but never from a queue that may hold
 * records: they would be lost.  There the next take serves it.
 */
static void
serve_errors(MdKafkaClient *client)
{
	while (!client->consuming && rd_kafka_queue_length(client->queue) > 0)
	{
		rd_kafka_message_t *message = NULL;

		if (rd_kafka_consume_batch_queue(client->queue, 0, &message, 1) > 0)
			rd_kafka_message_destroy(message);
	}
}

/* A request was answered: what was wrong before is over. */
static bool
request_succeeded(MdKafkaClient *client)
{
	serve_errors(client);
	client->knows_why = false;
	if (!client->consuming)
		client->has_last_error = false;
	return true;
}

/*
 * Until 2.6.1 the library sends its nonce twice in the last message of a SCRAM
 * exchange, which brokers took until Kafka checked it.
 */
bool
md_kafka_scram_is_outdated(void)
{
	return rd_kafka_version() < 0x020601ff;
}

/*
 * A request failed: say why the client as a whole is in trouble, if it is,
 * because "timed out" alone tells nobody that the password is wrong.
 */
static bool
request_failed(MdKafkaClient *client, rd_kafka_resp_err_t code, MdKafkaError *error)
{
	serve_errors(client);
	if (client->has_last_error)
	{
		*error = client->last_error;
		client->has_last_error = client->consuming;
	}
	else
		fill_error(error, code, NULL);
	return false;
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
		return request_failed(client, code, error);
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
	return request_succeeded(client);
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
			fill_error(error, rd_kafka_last_error(), NULL);
			return false;
		}
	}
	code = rd_kafka_metadata(client->rk, topic == NULL, only, &metadata, timeout_ms);
	if (only != NULL)
		rd_kafka_topic_destroy(only);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return request_failed(client, code, error);

	*topics = NIL;
	for (int i = 0; i < metadata->topic_cnt; i++)
	{
		MdKafkaTopic *found;

		if (metadata->topics[i].err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			if (topic == NULL)
				continue;
			fill_error(error, metadata->topics[i].err, NULL);
			rd_kafka_metadata_destroy(metadata);
			return false;
		}
		found = palloc(sizeof(MdKafkaTopic));
		found->name = pstrdup(metadata->topics[i].topic);
		found->n_partitions = metadata->topics[i].partition_cnt;
		*topics = lappend(*topics, found);
	}
	rd_kafka_metadata_destroy(metadata);
	return request_succeeded(client);
}

static rd_kafka_topic_partition_list_t *
partition_list(const MdKafkaPosition *positions, int n_positions, bool query)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n_positions);

	for (int i = 0; i < n_positions; i++)
		rd_kafka_topic_partition_list_add(list, positions[i].topic, positions[i].partition)->offset =
			query ? positions[i].query : positions[i].offset;
	return list;
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
	rd_kafka_topic_partition_list_t *list = partition_list(positions, n_positions, true);
	rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client->rk, list, timeout_ms);

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_topic_partition_list_destroy(list);
		return request_failed(client, code, error);
	}
	for (int i = 0; i < n_positions; i++)
	{
		rd_kafka_topic_partition_t *answer =
			rd_kafka_topic_partition_list_find(list, positions[i].topic, positions[i].partition);

		positions[i].offset = answer->err || answer->offset < 0 ? -1 : answer->offset;
		memset(&positions[i].error, 0, sizeof(MdKafkaError));
		if (answer->err)
			fill_error(&positions[i].error, answer->err, NULL);
	}
	rd_kafka_topic_partition_list_destroy(list);
	return request_succeeded(client);
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

void
md_kafka_assign(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions)
{
	rd_kafka_topic_partition_list_t *list = partition_list(positions, n_positions, false);
	rd_kafka_error_t *error = rd_kafka_incremental_assign(client->rk, list);

	client->consuming = true;
	client->assigned_at = GetCurrentTimestamp();
	rd_kafka_topic_partition_list_destroy(list);
	check_assignment(error);
}

void
md_kafka_unassign(MdKafkaClient *client, const MdKafkaPosition *positions, int n_positions)
{
	rd_kafka_topic_partition_list_t *list = partition_list(positions, n_positions, false);
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
	fill_error(&event->error, message->err, rd_kafka_message_errstr(message));
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

/* Sort messages [first, n) into records and events; returns payload bytes. */
static int64
sort_messages(MdKafkaClient *client, int first, int n, List **events)
{
	int			n_records = first;
	int64		bytes = 0;

	for (int i = first; i < first + n; i++)
	{
		rd_kafka_message_t *message = client->messages[i];

		if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			*events = lappend(*events, make_event(message));
			rd_kafka_message_destroy(message);
			continue;
		}
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
keep_fetching(MdKafkaClient *client, int64 bytes)
{
	int64		queued;

	if (!client->stops_long || client->n_messages == 0)
		return;
	queued = (int64) rd_kafka_queue_length(client->queue) * (bytes / client->n_messages);
	if (queued > client->queue_max_bytes / 5 * 4)
		client->was_full = true;
	else if (client->was_full && queued < client->queue_max_bytes / 2)
	{
		client->was_full = false;
		wake_brokers(client);
	}
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
		int			asked = Min(max_records - client->n_messages, 1000);
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
	keep_fetching(client, bytes);
	for (int i = 0; i < client->n_partition_errors; i++)
	{
		MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

		event->kind = MD_KAFKA_EVENT_ERROR;
		event->topic = pstrdup(client->partition_errors[i].topic);
		event->partition = client->partition_errors[i].partition;
		event->error = client->partition_errors[i].error;
		*events = lappend(*events, event);
	}
	client->n_partition_errors = 0;
	if (client->n_messages > 0 && !client->is_cut_off)
		client->knows_why = false;
	if (client->is_cut_off)
	{
		MdKafkaEvent *event = palloc0(sizeof(MdKafkaEvent));

		event->kind = MD_KAFKA_EVENT_ERROR;
		event->error = client->last_error;
		client->has_last_error = false;
		client->is_cut_off = false;
		*events = lappend(*events, event);
	}
	*records = client->records;
	return client->n_messages;
}

void
md_kafka_release(MdKafkaClient *client)
{
	for (int i = 0; i < client->n_messages; i++)
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
	record->n_headers = 0;
	if (rd_kafka_message_headers(record->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	n = (int) rd_kafka_header_cnt(headers);
	list = palloc(sizeof(MdHeader) * Max(n, 1));
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
	rd_kafka_topic_partition_list_t *list = partition_list(positions, n_positions, false);

	/* a mirror for people's tools: what fails now is overtaken by the next one */
	(void) rd_kafka_commit(client->rk, list, 1);
	rd_kafka_topic_partition_list_destroy(list);
}
