/*
 * kafka_client.c
 *		Handles of the library: opened, and closed whatever happens.
 *
 * Handles are not palloc'd and own threads.  They hang off a list in this
 * file: a client is closed with the memory context that it was opened in, and
 * what is still open when the process exits is closed then.  Messages are
 * released before their handle, or its destruction would wait for ever.
 *
 * To end a handle can take seconds, so a thread does it, and nobody waits but
 * a process that exits.
 */
#include "postgres.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "kafka_client_private.h"

/* Sockets and pipes that a handle has open, as far as we can tell: told to fd.c. */
#define FDS_PER_CLIENT 4
/* How long the ends of handles are waited for, when the process exits. */
#define DESTROY_LIMIT_S 5
/* Handles that end at a time; who closes one more waits for one of them. */
#define MAX_DESTRUCTIONS 16
/* The first fetch after an assignment is answered by then; see settle_fetches(). */
#define FIRST_FETCH_MS 5000
#define SETTLE_TIMEOUT_MS 1000

static MdKafkaClient *open_clients = NULL;
static bool exit_callback_registered = false;

/* Threads that end handles: how many there are, guarded by the mutex. */
static pthread_mutex_t destructions_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t destruction_done;
static int	n_destructions = 0;
static bool handles_abandoned = false;

bool
md_kafka_start_thread(void *(*main) (void *), void *arg, pthread_t *thread)
{
	sigset_t	all_signals;
	sigset_t	old_signals;
	int			failed;

	/* signals are for the process's own thread */
	sigfillset(&all_signals);
	pthread_sigmask(SIG_SETMASK, &all_signals, &old_signals);
	failed = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &old_signals, NULL);
	return failed == 0;
}

/*
 * A thread of the library (2.0 at least) locks itself out for ever if the
 * answer that an offset is out of range, to the first fetch after an
 * assignment, reaches it while the handle is being destroyed.  So stop
 * fetching, and wait for an answer that comes behind those on their
 * connections.
 */
static void
settle_fetches(rd_kafka_t *rk)
{
	rd_kafka_topic_partition_list_t *list = NULL;

	if (rd_kafka_assignment(rk, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	(void) rd_kafka_assign(rk, NULL);
	for (int i = 0; i < list->cnt; i++)
		list->elems[i].offset = MD_KAFKA_LATEST;
	if (list->cnt > 0)
		(void) rd_kafka_offsets_for_times(rk, list, SETTLE_TIMEOUT_MS);
	rd_kafka_topic_partition_list_destroy(list);
}

/* A handle on its way out, and what ends with it; malloc'd. */
typedef struct MdKafkaDestruction
{
	rd_kafka_t *rk;
	bool		settle;
	int			event_fd;
	MdKafkaTold *told;
	MdKafkaQuestion *question;	/* still being asked; NULL: none */
} MdKafkaDestruction;

static void
destroy(MdKafkaDestruction *destruction)
{
	md_kafka_drop_question(destruction->question);
	if (destruction->rk != NULL)
	{
		if (destruction->settle)
			settle_fetches(destruction->rk);
		rd_kafka_destroy_flags(destruction->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	}
	if (destruction->event_fd >= 0)
		close(destruction->event_fd);
	free(destruction->told->partition_errors);
	free(destruction->told);
	free(destruction);
}

/* Runs in: a thread of its own, which knows nothing of PostgreSQL. */
static void *
destruction_main(void *arg)
{
	destroy(arg);
	pthread_mutex_lock(&destructions_mutex);
	n_destructions--;
	pthread_cond_signal(&destruction_done);
	pthread_mutex_unlock(&destructions_mutex);
	return NULL;
}

/* Wait until no more than n handles are ending, but not for ever. */
static bool
wait_for_destructions(int n)
{
	struct timespec deadline;
	bool		reached;
	int			failed = 0;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += DESTROY_LIMIT_S;
	pthread_mutex_lock(&destructions_mutex);
	while (n_destructions > n && !failed)
		failed = pthread_cond_timedwait(&destruction_done, &destructions_mutex, &deadline);
	reached = n_destructions <= n;
	pthread_mutex_unlock(&destructions_mutex);
	return reached;
}

/*
 * End a handle by a thread, since that takes its time: until questions are
 * answered or given up, and the library's threads have ended.
 */
static void
start_destruction(MdKafkaDestruction *destruction)
{
	pthread_t	thread;

	(void) wait_for_destructions(MAX_DESTRUCTIONS - 1);
	pthread_mutex_lock(&destructions_mutex);
	n_destructions++;
	pthread_mutex_unlock(&destructions_mutex);
	if (md_kafka_start_thread(destruction_main, destruction, &thread))
		pthread_detach(thread);
	else
		(void) destruction_main(destruction);
}

/* Release the library's side of a client; may be called more than once. */
static void
client_destroy(MdKafkaClient *client)
{
	MdKafkaClient **link = &open_clients;
	MdKafkaDestruction *destruction = client->destruction;

	while (*link != NULL && *link != client)
		link = &(*link)->next;
	if (*link == NULL)
		return;
	*link = client->next;

	md_kafka_release(client);
	if (client->queue != NULL)
	{
		rd_kafka_queue_io_event_enable(client->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(client->queue);
	}
	destruction->rk = client->rk;
	destruction->settle = client->told->consuming &&
		!TimestampDifferenceExceeds(client->assigned_at, GetCurrentTimestamp(), FIRST_FETCH_MS);
	destruction->event_fd = client->event_fd;
	destruction->told = client->told;
	destruction->question = client->question;
	client->queue = NULL;
	client->rk = NULL;
	client->event_fd = -1;
	client->told = NULL;
	client->question = NULL;
	client->destruction = NULL;
	for (; client->reserved_fds > 0; client->reserved_fds--)
		ReleaseExternalFD();
	start_destruction(destruction);
}

static void
client_on_reset(void *arg)
{
	client_destroy(arg);
}

/*
 * At exit: threads of the library must be gone before the process is.  But
 * librdkafka up to 2.5 can hang there when a topic that it reads was deleted,
 * and a server that is told to stop would wait for us: a handle that takes too
 * long is left to its thread.
 */
static void
destroy_all_clients(int code, Datum arg)
{
	while (open_clients != NULL)
		client_destroy(open_clients);
	handles_abandoned = !wait_for_destructions(0);
}

/*
 * At the very end of a process that could not end the library's threads: the
 * exit handlers of the C library would pull what they use from under them.
 */
static void
exit_at_once(int code, Datum arg)
{
	if (handles_abandoned)
		_exit(code);
}

/* Before the first client is opened. */
static void
prepare_exit(void)
{
	pthread_condattr_t clock;

	if (exit_callback_registered)
		return;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&destruction_done, &clock);
	pthread_condattr_destroy(&clock);
	/* the first to be registered is the last to be called */
	on_proc_exit(exit_at_once, (Datum) 0);
	before_shmem_exit(destroy_all_clients, (Datum) 0);
	exit_callback_registered = true;
}

void
md_kafka_close(MdKafkaClient *client)
{
	/* the context's callback then finds it gone from the list */
	client_destroy(client);
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
	/* what the end of the client needs is there from its beginning */
	client->told = calloc(1, sizeof(MdKafkaTold));
	client->destruction = calloc(1, sizeof(MdKafkaDestruction));
	if (client->told == NULL || client->destruction == NULL)
	{
		free(client->told);
		free(client->destruction);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	pg_atomic_init_u32(&client->told->verify_error, 0);
	prepare_exit();
	/* from here on the context or the process's exit closes what is open */
	client->next = open_clients;
	open_clients = client;
	client->on_reset.func = client_on_reset;
	client->on_reset.arg = client;
	MemoryContextRegisterResetCallback(context, &client->on_reset);

	client_start(client, md_kafka_make_conf(properties, config, client));
	return client;
}
