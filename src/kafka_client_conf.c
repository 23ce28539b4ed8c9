/*
 * kafka_client_conf.c
 *		The properties of a handle: the server's, ours, and what the linked
 *		library knows.
 */
#include "postgres.h"

#include "nodes/value.h"

#include "kafka_client_private.h"

/* About what the library keeps of a record beside its bytes. */
#define RECORD_BYTES 256
/* A fetch for less than this is more trips than reading. */
#define MIN_FETCH_KB 128

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

int
md_kafka_queue_max_records(int queue_max_kb)
{
	return (int) Min((int64) Max(queue_max_kb, 1024) * 1024 / RECORD_BYTES, 10000000);
}

/* The properties that are ours, whatever the server's options say. */
static void
conf_set_own(rd_kafka_conf_t *conf, const MdKafkaConsumerConfig *config,
			 MdKafkaClient *client)
{
	char		kilobytes[32];
	char		records[32];
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
	 * The queue is bounded by its bytes, and by its count where records are so
	 * small that what the library keeps of each is more than the record.  When it is
	 * full the library stops fetching for a while; 2.0 does so for a whole second
	 * (see keep_fetching() in kafka_client_consume.c), later versions let us say how long.
	 */
	client->queue_max_records = md_kafka_queue_max_records(queue_max_kb);
	snprintf(records, sizeof(records), "%d", client->queue_max_records);
	conf_set(conf, "queued.min.messages", records, false);
	client->stops_long = !conf_set_if_known(conf, "fetch.queue.backoff.ms", "10");
	client->queue_max_bytes = (int64) Max(queue_max_kb, 1024) * 1024;
	snprintf(kilobytes, sizeof(kilobytes), "%d", Max(queue_max_kb, 1024));
	conf_set(conf, "queued.max.messages.kbytes", kilobytes, false);
	/*
	 * What one fetch may bring comes on top of a queue that is nearly full, and of
	 * tiny records that is many times its bytes.  A larger record comes all the same:
	 * a broker always sends at least one batch.  The library would fetch no less than
	 * its message.max.bytes, which means nothing else to a client that only reads.
	 */
	snprintf(fetch_bytes, sizeof(fetch_bytes), "%d",
			 Max(MIN_FETCH_KB, Min(queue_max_kb / 16, 16384)) * 1024);
	conf_set(conf, "message.max.bytes", fetch_bytes, false);
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

rd_kafka_conf_t *
md_kafka_make_conf(const List *properties, const MdKafkaConsumerConfig *config,
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
	 * topics that it reads, and takes one that is gone for one that is yet to
	 * come unless it is told not to wait for those.
	 */
	if (rd_kafka_version() >= 0x020400ff && rd_kafka_version() < 0x020a00ff)
	{
		conf_set(conf, "metadata.max.age.ms", "1", false);
		conf_set(conf, "topic.metadata.propagation.max.ms", "0", false);
	}
	md_kafka_set_callbacks(conf, client->told);
	return conf;
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

const char *
md_kafka_library_version(void)
{
	return rd_kafka_version_str();
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
