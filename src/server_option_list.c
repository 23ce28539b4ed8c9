/*
 * server_option_list.c
 *		Every property of librdkafka's that we know of: allowed as an option
 *		of a server or user mapping, refused, or reserved for the extension.
 *
 * Covers librdkafka 2.0 to 2.14.  A property that is not here is refused too,
 * but a test fails until somebody has decided about it.  Criteria: nothing
 * that loads code, runs a command, writes a file, installs a signal or
 * changes how offsets are handled.  Limits of values are librdkafka's own.
 *
 * The names of options have "_" where the properties have "."; no two
 * properties become one that way, and of the few properties with a "_" of
 * their own none is allowed.
 */
#include "postgres.h"

#include "server_options.h"

static const char *const address_families[] = {"any", "v4", "v6", NULL};
static const char *const assertion_algorithms[] = {"RS256", "ES256", NULL};
static const char *const grant_types[] = {
	"client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", NULL
};
static const char *const identification_algorithms[] = {"none", "https", NULL};
static const char *const oauthbearer_methods[] = {"oidc", NULL};
static const char *const recovery_strategies[] = {"none", "rebootstrap", NULL};
static const char *const sasl_mechanisms[] = {
	"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", NULL
};
static const char *const security_protocols[] = {
	"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL
};

#define PRODUCERS_ONLY "It concerns producers alone, and nothing is produced."
#define CALLBACK "It is a callback of a program, not a value."
#define NO_GROUP \
	"Offsets are kept in this database, and no consumer group is joined; " \
	"see the option group_id of a streaming table."
#define OFFSETS_ARE_OURS \
	"Offsets are kept in this database, in the transaction that stores the " \
	"records."
#define LOG_IS_OURS \
	"Messages of the library go to the log of PostgreSQL by the " \
	"extension's own means."
#define QUEUE_IS_OURS \
	"The setting medallion.ingest_memory sizes the queue of fetched " \
	"records."
#define NO_KERBEROS \
	"Kerberos tickets are fetched by a command that librdkafka hands to a " \
	"shell."
#define LOADS_CODE "It makes the server load code from a file."
#define NO_EFFECT "It has no effect any more."
#define MOCK_BROKERS "It replaces the brokers by simulated ones."
#define OLD_BROKERS "Brokers older than 0.10 are not supported."

#define ON_SERVER MD_OPTION_ON_SERVER
#define ON_BOTH (MD_OPTION_ON_SERVER | MD_OPTION_ON_MAPPING)
#define FILE_NAME (MD_OPTION_ON_SERVER | MD_OPTION_ON_MAPPING | MD_OPTION_FILE)
#define SECRET (MD_OPTION_ON_MAPPING | MD_OPTION_SECRET)

#define STRING(name, flags) \
	{name, MD_OPTION_ALLOWED, flags, MD_OPTION_STRING, 0, 0, NULL, NULL}
#define BOOLEAN(name) \
	{name, MD_OPTION_ALLOWED, ON_SERVER, MD_OPTION_BOOLEAN, 0, 0, NULL, NULL}
#define INTEGER(name, min, max) \
	{name, MD_OPTION_ALLOWED, ON_SERVER, MD_OPTION_INTEGER, min, max, NULL, NULL}
#define ENUM(name, values) \
	{name, MD_OPTION_ALLOWED, ON_SERVER, MD_OPTION_ENUM, 0, 0, values, NULL}
#define OTHER(name, flags, type) \
	{name, MD_OPTION_ALLOWED, flags, type, 0, 0, NULL, NULL}
#define REFUSED(name, reason) \
	{name, MD_OPTION_REFUSED, 0, MD_OPTION_STRING, 0, 0, NULL, reason}
#define RESERVED(name, reason) \
	{name, MD_OPTION_RESERVED, 0, MD_OPTION_STRING, 0, 0, NULL, reason}

const MdServerOption md_server_option_list[] = {
	REFUSED("acks", PRODUCERS_ONLY),
	REFUSED("allow.auto.create.topics",
		"A misspelt topic would be created instead of reported."),
	REFUSED("api.version.fallback.ms", OLD_BROKERS),
	REFUSED("api.version.request", OLD_BROKERS),
	REFUSED("api.version.request.timeout.ms", OLD_BROKERS),
	RESERVED("auto.commit.enable", OFFSETS_ARE_OURS),
	RESERVED("auto.commit.interval.ms", OFFSETS_ARE_OURS),
	RESERVED("auto.offset.reset", OFFSETS_ARE_OURS),
	REFUSED("background_event_cb", CALLBACK),
	REFUSED("batch.num.messages", PRODUCERS_ONLY),
	REFUSED("batch.size", PRODUCERS_ONLY),
	OTHER("bootstrap.servers", ON_SERVER, MD_OPTION_BROKERS),
	ENUM("broker.address.family", address_families),
	INTEGER("broker.address.ttl", 0, 86400000),
	REFUSED("broker.version.fallback", OLD_BROKERS),
	REFUSED("builtin.features",
		"It can be read, not set."),
	BOOLEAN("check.crcs"),
	REFUSED("client.dns.lookup",
		"It serves Kerberos alone, which is not supported."),
	STRING("client.id", ON_SERVER),
	STRING("client.rack", ON_SERVER),
	REFUSED("client.software.name",
		"It is hidden, for the library's own use."),
	REFUSED("client.software.version",
		"It is hidden, for the library's own use."),
	REFUSED("closesocket_cb", CALLBACK),
	REFUSED("compression.codec", PRODUCERS_ONLY),
	REFUSED("compression.level", PRODUCERS_ONLY),
	REFUSED("compression.type", PRODUCERS_ONLY),
	REFUSED("connect_cb", CALLBACK),
	INTEGER("connections.max.idle.ms", 0, 2147483647),
	REFUSED("consume.callback.max.messages", CALLBACK),
	REFUSED("consume_cb", CALLBACK),
	RESERVED("coordinator.query.interval.ms", NO_GROUP),
	REFUSED("debug",
		"It would write what is sent and received to the log."),
	REFUSED("default_topic_conf", CALLBACK),
	REFUSED("delivery.report.only.error", PRODUCERS_ONLY),
	REFUSED("delivery.timeout.ms", PRODUCERS_ONLY),
	REFUSED("dr_cb", CALLBACK),
	REFUSED("dr_msg_cb", CALLBACK),
	RESERVED("enable.auto.commit", OFFSETS_ARE_OURS),
	RESERVED("enable.auto.offset.store", OFFSETS_ARE_OURS),
	REFUSED("enable.gapless.guarantee", PRODUCERS_ONLY),
	REFUSED("enable.idempotence", PRODUCERS_ONLY),
	BOOLEAN("enable.metrics.push"),
	RESERVED("enable.partition.eof",
		"The extension needs to know the end of each partition."),
	REFUSED("enable.random.seed",
		"It would seed the random numbers of a PostgreSQL process."),
	REFUSED("enable.sasl.oauthbearer.unsecure.jwt",
		"It serves unsigned tokens and the identity of the machine, neither of "
		"which a database user may claim."),
	REFUSED("enable.sparse.connections",
		"It is hidden, for the library's own use."),
	BOOLEAN("enable.ssl.certificate.verification"),
	REFUSED("enable_sasl_queue", CALLBACK),
	RESERVED("enabled_events",
		"The extension takes no statistics and no events but those it handles."),
	REFUSED("error_cb", CALLBACK),
	INTEGER("fetch.error.backoff.ms", 0, 300000),
	RESERVED("fetch.max.bytes", QUEUE_IS_OURS),
	RESERVED("fetch.message.max.bytes", QUEUE_IS_OURS),
	INTEGER("fetch.min.bytes", 1, 100000000),
	RESERVED("fetch.queue.backoff.ms", QUEUE_IS_OURS),
	INTEGER("fetch.wait.max.ms", 0, 300000),
	RESERVED("group.id", NO_GROUP),
	RESERVED("group.instance.id", NO_GROUP),
	RESERVED("group.protocol", NO_GROUP),
	RESERVED("group.protocol.type", NO_GROUP),
	RESERVED("group.remote.assignor", NO_GROUP),
	RESERVED("heartbeat.interval.ms", NO_GROUP),
	STRING("https.ca.location", FILE_NAME),
	STRING("https.ca.pem", ON_BOTH),
	REFUSED("interceptors", CALLBACK),
	REFUSED("internal.termination.signal",
		"It would send signals to the threads of a PostgreSQL process."),
	RESERVED("isolation.level",
		"It is the option isolation_level of a streaming table."),
	REFUSED("linger.ms", PRODUCERS_ONLY),
	RESERVED("log.connection.close", LOG_IS_OURS),
	RESERVED("log.queue", LOG_IS_OURS),
	RESERVED("log.thread.name", LOG_IS_OURS),
	REFUSED("log_cb", CALLBACK),
	RESERVED("log_level", LOG_IS_OURS),
	REFUSED("max.in.flight",
		"Requests of a consumer depend on the library's default."),
	REFUSED("max.in.flight.requests.per.connection",
		"Requests of a consumer depend on the library's default."),
	RESERVED("max.partition.fetch.bytes", QUEUE_IS_OURS),
	RESERVED("max.poll.interval.ms", NO_GROUP),
	REFUSED("message.copy.max.bytes", PRODUCERS_ONLY),
	REFUSED("message.max.bytes", PRODUCERS_ONLY),
	REFUSED("message.send.max.retries", PRODUCERS_ONLY),
	REFUSED("message.timeout.ms", PRODUCERS_ONLY),
	REFUSED("metadata.broker.list",
		"It is another name of bootstrap_servers: use that one."),
	INTEGER("metadata.max.age.ms", 1, 86400000),
	INTEGER("metadata.recovery.rebootstrap.trigger.ms", 0, 2147483647),
	ENUM("metadata.recovery.strategy", recovery_strategies),
	REFUSED("metadata.request.timeout.ms",
		"It is hidden, for the library's own use."),
	REFUSED("msg_order_cmp", CALLBACK),
	REFUSED("oauthbearer_token_refresh_cb", CALLBACK),
	RESERVED("offset.store.method", OFFSETS_ARE_OURS),
	RESERVED("offset.store.path", OFFSETS_ARE_OURS),
	RESERVED("offset.store.sync.interval.ms", OFFSETS_ARE_OURS),
	REFUSED("offset_commit_cb", CALLBACK),
	REFUSED("opaque", CALLBACK),
	REFUSED("open_cb", CALLBACK),
	RESERVED("partition.assignment.strategy", NO_GROUP),
	REFUSED("partitioner", PRODUCERS_ONLY),
	REFUSED("partitioner_cb", CALLBACK),
	REFUSED("plugin.library.paths", LOADS_CODE),
	REFUSED("produce.offset.report", PRODUCERS_ONLY),
	REFUSED("queue.buffering.backpressure.threshold", PRODUCERS_ONLY),
	REFUSED("queue.buffering.max.kbytes", PRODUCERS_ONLY),
	REFUSED("queue.buffering.max.messages", PRODUCERS_ONLY),
	REFUSED("queue.buffering.max.ms", PRODUCERS_ONLY),
	RESERVED("queued.max.messages.kbytes", QUEUE_IS_OURS),
	RESERVED("queued.min.messages", QUEUE_IS_OURS),
	REFUSED("queuing.strategy", PRODUCERS_ONLY),
	REFUSED("rebalance_cb", CALLBACK),
	INTEGER("receive.message.max.bytes", 1000, 2147483647),
	REFUSED("reconnect.backoff.jitter.ms", NO_EFFECT),
	INTEGER("reconnect.backoff.max.ms", 0, 3600000),
	INTEGER("reconnect.backoff.ms", 0, 3600000),
	REFUSED("request.required.acks", PRODUCERS_ONLY),
	REFUSED("request.timeout.ms", PRODUCERS_ONLY),
	REFUSED("resolve_cb", CALLBACK),
	REFUSED("retries", PRODUCERS_ONLY),
	RESERVED("retry.backoff.max.ms",
		"Pauses between attempts are set by medallion.backoff_min and "
		"medallion.backoff_max."),
	RESERVED("retry.backoff.ms",
		"Pauses between attempts are set by medallion.backoff_min and "
		"medallion.backoff_max."),
	REFUSED("sasl.kerberos.keytab", NO_KERBEROS),
	REFUSED("sasl.kerberos.kinit.cmd", NO_KERBEROS),
	REFUSED("sasl.kerberos.min.time.before.relogin", NO_KERBEROS),
	REFUSED("sasl.kerberos.principal", NO_KERBEROS),
	REFUSED("sasl.kerberos.service.name", NO_KERBEROS),
	ENUM("sasl.mechanism", sasl_mechanisms),
	REFUSED("sasl.mechanisms",
		"It is another name of sasl_mechanism: use that one."),
	ENUM("sasl.oauthbearer.assertion.algorithm", assertion_algorithms),
	STRING("sasl.oauthbearer.assertion.claim.aud", ON_BOTH),
	INTEGER("sasl.oauthbearer.assertion.claim.exp.seconds", 1, 2147483647),
	STRING("sasl.oauthbearer.assertion.claim.iss", ON_BOTH),
	BOOLEAN("sasl.oauthbearer.assertion.claim.jti.include"),
	INTEGER("sasl.oauthbearer.assertion.claim.nbf.seconds", 0, 2147483647),
	STRING("sasl.oauthbearer.assertion.claim.sub", ON_BOTH),
	STRING("sasl.oauthbearer.assertion.file", FILE_NAME),
	STRING("sasl.oauthbearer.assertion.jwt.template.file", FILE_NAME),
	STRING("sasl.oauthbearer.assertion.private.key.file", FILE_NAME),
	STRING("sasl.oauthbearer.assertion.private.key.passphrase", SECRET),
	STRING("sasl.oauthbearer.assertion.private.key.pem", SECRET),
	REFUSED("sasl.oauthbearer.client.credentials.client.id",
		"It is another name of sasl_oauthbearer_client_id: use that one."),
	REFUSED("sasl.oauthbearer.client.credentials.client.secret",
		"It is another name of sasl_oauthbearer_client_secret: use that one."),
	STRING("sasl.oauthbearer.client.id", ON_BOTH),
	STRING("sasl.oauthbearer.client.secret", SECRET),
	REFUSED("sasl.oauthbearer.config",
		"It serves unsigned tokens and the identity of the machine, neither of "
		"which a database user may claim."),
	STRING("sasl.oauthbearer.extensions", ON_BOTH),
	ENUM("sasl.oauthbearer.grant.type", grant_types),
	REFUSED("sasl.oauthbearer.metadata.authentication.type",
		"It would hand the identity of the machine to database users."),
	ENUM("sasl.oauthbearer.method", oauthbearer_methods),
	STRING("sasl.oauthbearer.scope", ON_BOTH),
	STRING("sasl.oauthbearer.sub.claim.name", ON_BOTH),
	OTHER("sasl.oauthbearer.token.endpoint.url", ON_SERVER, MD_OPTION_URL),
	STRING("sasl.password", SECRET),
	STRING("sasl.username", ON_BOTH),
	OTHER("schema.registry.url", ON_SERVER | MD_OPTION_OWN, MD_OPTION_URL),
	ENUM("security.protocol", security_protocols),
	RESERVED("session.timeout.ms", NO_GROUP),
	REFUSED("socket.blocking.max.ms", NO_EFFECT),
	INTEGER("socket.connection.setup.timeout.ms", 1000, 2147483647),
	BOOLEAN("socket.keepalive.enable"),
	REFUSED("socket.max.fails",
		"Requests of a consumer depend on the library's default."),
	BOOLEAN("socket.nagle.disable"),
	INTEGER("socket.receive.buffer.bytes", 0, 100000000),
	INTEGER("socket.send.buffer.bytes", 0, 100000000),
	INTEGER("socket.timeout.ms", 10, 300000),
	REFUSED("socket_cb", CALLBACK),
	REFUSED("ssl.ca.certificate.stores",
		"It exists on Windows alone."),
	STRING("ssl.ca.location", FILE_NAME),
	STRING("ssl.ca.pem", ON_BOTH),
	STRING("ssl.certificate.location", FILE_NAME),
	STRING("ssl.certificate.pem", ON_BOTH),
	REFUSED("ssl.certificate.verify_cb", CALLBACK),
	STRING("ssl.cipher.suites", ON_SERVER),
	STRING("ssl.crl.location", FILE_NAME),
	STRING("ssl.curves.list", ON_SERVER),
	ENUM("ssl.endpoint.identification.algorithm", identification_algorithms),
	REFUSED("ssl.engine.id", LOADS_CODE),
	REFUSED("ssl.engine.location", LOADS_CODE),
	STRING("ssl.key.location", FILE_NAME),
	STRING("ssl.key.password", SECRET),
	STRING("ssl.key.pem", SECRET),
	STRING("ssl.keystore.location", FILE_NAME),
	STRING("ssl.keystore.password", SECRET),
	REFUSED("ssl.providers", LOADS_CODE),
	STRING("ssl.sigalgs.list", ON_SERVER),
	REFUSED("ssl_ca", CALLBACK),
	REFUSED("ssl_certificate", CALLBACK),
	REFUSED("ssl_engine_callback_data", CALLBACK),
	REFUSED("ssl_key", CALLBACK),
	RESERVED("statistics.interval.ms",
		"The extension takes no statistics and no events but those it handles."),
	REFUSED("stats_cb", CALLBACK),
	REFUSED("sticky.partitioning.linger.ms", PRODUCERS_ONLY),
	REFUSED("test.mock.broker.rtt", MOCK_BROKERS),
	REFUSED("test.mock.num.brokers", MOCK_BROKERS),
	REFUSED("throttle_cb", CALLBACK),
	REFUSED("topic.blacklist",
		"It would hide topics that exist."),
	INTEGER("topic.metadata.propagation.max.ms", 0, 3600000),
	REFUSED("topic.metadata.refresh.fast.cnt", NO_EFFECT),
	INTEGER("topic.metadata.refresh.fast.interval.ms", 1, 60000),
	INTEGER("topic.metadata.refresh.interval.ms", -1, 3600000),
	BOOLEAN("topic.metadata.refresh.sparse"),
	REFUSED("transaction.timeout.ms", PRODUCERS_ONLY),
	REFUSED("transactional.id", PRODUCERS_ONLY),
	REFUSED("ut_handle_ProduceResponse", CALLBACK),
	{NULL, MD_OPTION_REFUSED, 0, MD_OPTION_STRING, 0, 0, NULL, NULL}
};
