/*
 * kafka_client_error.c
 *		What the library says is wrong, in the words of this extension.
 *
 * Callbacks of the library run on our thread, inside a call of ours that
 * serves its queue; they only copy text, because an error thrown there would
 * unwind through frames of the library.  The one that looks at certificates
 * runs on the library's threads, and leaves a number.
 */
#include "postgres.h"

#include "kafka_client_private.h"

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

/*
 * The library has two texts for a handshake that fails: "broker: SSL handshake
 * failed: error:..." and, with the code of any broken connection, "broker: error:...".
 * Make one of them.
 */
static void
name_handshake(MdKafkaError *error)
{
	static const char handshake[] = "SSL handshake failed: ";
	static const char failed[] = "failed";
	char	   *found = strstr(error->message, ": error:");
	char		rest[sizeof(error->message)];

	if (found == NULL || strstr(found, "SSL routines") == NULL)
		return;
	if (found - error->message >= strlen(failed) &&
		strncmp(found - strlen(failed), failed, strlen(failed)) == 0)
		return;
	found += strlen(": ");
	strlcpy(rest, found, sizeof(rest));
	snprintf(found, error->message + sizeof(error->message) - found, "%s%s", handshake, rest);
}

void
md_kafka_fill_error(MdKafkaError *error, rd_kafka_resp_err_t code, const char *message)
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
	name_handshake(error);
}

bool
md_kafka_error_is_unknown_topic(const MdKafkaError *error)
{
	return error->code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
		error->code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
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
	MdKafkaTold *told = opaque;

	if (*x509_error == 0)
		return 1;
	pg_atomic_write_u32(&told->verify_error, (uint32) *x509_error);
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

/* Say in *error why a broker's certificate was refused, if that was it. */
static void
explain_verify_error(MdKafkaTold *told, MdKafkaError *error)
{
	/* the number stays: several attempts may have failed before we hear of the first */
	const char *text = verify_error_text(pg_atomic_read_u32(&told->verify_error));
	char	   *start = strstr(error->message, "SSL handshake failed: ");

	if (text != NULL && start != NULL && strstr(start, "certificate verify failed") != NULL)
		snprintf(start, error->message + sizeof(error->message) - start,
				 "SSL handshake failed: %s", text);
}

/*
 * Is the error one partition's?  The library tells so in the text alone:
 * "topic [partition]: what is wrong".  Keep it then, for the next take.
 */
static bool
keep_partition_error(MdKafkaTold *told, int code, const char *reason)
{
	MdKafkaPartitionError *errors;
	MdKafkaPartitionError *error;
	int			partition;
	int			len = 0;
	char		topic[250];

	if (sscanf(reason, "%249[a-zA-Z0-9._-] [%d]: %n", topic, &partition, &len) != 2 || len == 0)
		return false;
	errors = realloc(told->partition_errors,
					 sizeof(MdKafkaPartitionError) * (told->n_partition_errors + 1));
	if (errors == NULL)
		return false;
	told->partition_errors = errors;
	error = &errors[told->n_partition_errors++];
	strlcpy(error->topic, topic, sizeof(error->topic));
	error->partition = partition;
	md_kafka_fill_error(&error->error, code, reason + len);
	return true;
}

/*
 * Does the last error say more than this one?  That no broker can be reached
 * follows the error that says why, since 2.14 again and again and that only
 * once; and a connection whose handshake failed is told to have ended, too.
 */
static bool
adds_nothing(MdKafkaTold *told, int code, const char *reason)
{
	const char *last = told->last_error.message;
	const char *end = strstr(reason, ": Disconnected");

	if (!told->has_last_error && !told->knows_why)
		return false;
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		return true;
	return end != NULL && strncmp(last, reason, end - reason) == 0 &&
		strstr(last, "handshake failed") != NULL && strstr(reason, "handshake failed") == NULL;
}

/*
 * Trouble of one broker: the library names it in the text alone, as
 * "host:port/id: what is wrong".  One is remembered until the next take; who is
 * lost for longer is told again.
 */
static void
keep_broker_error(MdKafkaTold *told, int code, const char *reason)
{
	const char *slash = strchr(reason, '/');
	int			broker;

	if (!told->consuming || slash == NULL || sscanf(slash, "/%d:", &broker) != 1)
		return;
	told->lost_broker = broker;
	told->is_lost = true;
	md_kafka_fill_error(&told->lost_error, code, reason);
	explain_verify_error(told, &told->lost_error);
}

/* Runs in: our thread, inside a call that serves the client's queue. */
static void
error_cb(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	MdKafkaTold *told = opaque;

	if (told->consuming && keep_partition_error(told, code, reason))
		return;
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
			/* a group coordinator that we may not use does not concern us */
			return;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
			/* which others may make good */
			keep_broker_error(told, code, reason);
			break;
		default:
			told->is_cut_off = true;
	}
	if (adds_nothing(told, code, reason))
	{
		told->has_last_error = true;
		return;
	}
	md_kafka_fill_error(&told->last_error, code, reason);
	explain_verify_error(told, &told->last_error);
	told->has_last_error = true;
	told->knows_why = code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
}

/*
 * Progress that was mirrored to the group, or was not.
 *
 * Runs in: our thread, inside a call that serves the client's queue.
 */
static void
commit_cb(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *offsets,
		  void *opaque)
{
	MdKafkaTold *told = opaque;

	if (err != RD_KAFKA_RESP_ERR__NO_OFFSET)
		told->commit_failed = err != RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* The library's log adds nothing to what the errors say. */
static void
log_cb(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

void
md_kafka_set_callbacks(rd_kafka_conf_t *conf, MdKafkaTold *told)
{
	rd_kafka_conf_set_opaque(conf, told);
	rd_kafka_conf_set_error_cb(conf, error_cb);
	rd_kafka_conf_set_log_cb(conf, log_cb);
	rd_kafka_conf_set_offset_commit_cb(conf, commit_cb);
	/* a library built without TLS refuses it, and needs it not */
	(void) rd_kafka_conf_set_ssl_cert_verify_cb(conf, verify_cb);
}
