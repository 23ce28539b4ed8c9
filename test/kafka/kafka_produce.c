/*
 * kafka_produce.c
 *		Send records that are read from standard input.
 *
 * One record per line, in the text format of COPY: columns are separated by
 * tabs, \N is NULL, and \t \n \r \\ \xHH stand for a byte each (\x00 too).
 *
 *	partition  timestamp_ms  key  value  [header_name  header_value]...
 *
 * A NULL partition leaves the choice to the hash of the key, a NULL timestamp
 * means now.  With --transactional-id, lines of the single words "begin",
 * "commit" and "abort" bound transactions.  "flush" waits for all deliveries.
 * With --rate, lines are taken at that pace.
 *
 * Ends with 0 only if every record was delivered; prints how many there were.
 */
#include <time.h>

#include "kafka_tool.h"

#define MAX_COLUMNS 64

typedef struct Column
{
	char	   *data;			/* NULL: a NULL */
	size_t		len;
} Column;

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Undo the escapes of one column in place. */
static Column
unescape(char *text, size_t len)
{
	Column		column = {text, 0};

	if (len == 2 && text[0] == '\\' && text[1] == 'N')
		return (Column) {NULL, 0};
	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (c == '\\' && i + 1 < len)
		{
			c = text[++i];
			if (c == 't')
				c = '\t';
			else if (c == 'n')
				c = '\n';
			else if (c == 'r')
				c = '\r';
			else if (c == 'x' && i + 2 < len && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0)
			{
				c = (char) (hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
				i += 2;
			}
			else if (c != '\\')
				die("unknown escape \"\\%c\"", c);
		}
		column.data[column.len++] = c;
	}
	return column;
}

/* Split a line at its tabs. */
static int
split_line(char *line, size_t len, Column *columns)
{
	int			n = 0;
	char	   *end = line + len;

	for (;;)
	{
		char	   *tab = memchr(line, '\t', end - line);

		if (n == MAX_COLUMNS)
			die("a line has more than %d columns", MAX_COLUMNS);
		columns[n++] = unescape(line, (tab ? tab : end) - line);
		if (tab == NULL)
			return n;
		line = tab + 1;
	}
}

/* A column that holds a number, or the default for NULL. */
static int64_t
column_number(const Column *column, int64_t null_value)
{
	char		text[32];
	char	   *end;
	int64_t		value;

	if (column->data == NULL)
		return null_value;
	if (column->len == 0 || column->len >= sizeof(text))
		die("a partition or timestamp is not a number");
	memcpy(text, column->data, column->len);
	text[column->len] = '\0';
	value = strtoll(text, &end, 10);
	if (*end != '\0')
		die("\"%s\" is not a number", text);
	return value;
}

/* Hand one record to the producer, waiting while its queue is full. */
static void
send_record(rd_kafka_t *producer, const char *topic, const Column *columns, int n)
{
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_resp_err_t err;

	if (n < 4 || n % 2 != 0)
		die("a line needs 4 columns, and 2 more for each header; one has %d", n);
	if (n > 4)
		headers = rd_kafka_headers_new((n - 4) / 2);
	for (int i = 4; i < n; i += 2)
	{
		if (columns[i].data == NULL)
			die("a header's name is NULL");
		rd_kafka_header_add(headers, columns[i].data, (ssize_t) columns[i].len,
							columns[i + 1].data, (ssize_t) columns[i + 1].len);
	}
	for (;;)
	{
		err = rd_kafka_producev(producer,
								RD_KAFKA_V_TOPIC(topic),
								RD_KAFKA_V_PARTITION((int32_t) column_number(&columns[0], RD_KAFKA_PARTITION_UA)),
								RD_KAFKA_V_TIMESTAMP(column_number(&columns[1], 0)),
								RD_KAFKA_V_KEY(columns[2].data, columns[2].len),
								RD_KAFKA_V_VALUE(columns[3].data, columns[3].len),
								RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								RD_KAFKA_V_HEADERS(headers),
								RD_KAFKA_V_END);
		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			break;
		rd_kafka_poll(producer, 50);
	}
	if (err)
		die("could not produce: %s", rd_kafka_err2str(err));
	rd_kafka_poll(producer, 0);
}

static void
check_error(rd_kafka_error_t *error, const char *what)
{
	if (error)
		die("%s: %s", what, rd_kafka_error_string(error));
}

/* Act on a line that is a command; false if it is none. */
static bool
run_control_line(rd_kafka_t *producer, const char *line)
{
	if (strcmp(line, "begin") == 0)
		check_error(rd_kafka_begin_transaction(producer), "begin");
	else if (strcmp(line, "commit") == 0)
		check_error(rd_kafka_commit_transaction(producer, 60000), "commit");
	else if (strcmp(line, "abort") == 0)
	{
		/* What is aborted must first be in the log, or it leaves no hole. */
		flush_producer(producer);
		check_error(rd_kafka_abort_transaction(producer, 60000), "abort");
	}
	else if (strcmp(line, "flush") == 0)
		flush_producer(producer);
	else
		return false;
	return true;
}

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Wait until line n of those that began at start_us is due; rate 0: at once. */
static void
keep_pace(rd_kafka_t *producer, int64_t start_us, int64_t n, int64_t rate)
{
	if (rate == 0)
		return;
	for (int64_t left_us; (left_us = start_us + n * 1000000 / rate - now_us()) > 0;)
	{
		struct timespec pause = {0, 1000 * (left_us > 10000 ? 10000 : left_us)};

		rd_kafka_poll(producer, 0);
		nanosleep(&pause, NULL);
	}
}

/* produce BOOTSTRAP TOPIC [--codec C] [--transactional-id ID] [--rate LINES_PER_SECOND] */
int
produce_records(int argc, char **argv)
{
	const char *codec = take_option(&argc, argv, "--codec");
	const char *transactional_id = take_option(&argc, argv, "--transactional-id");
	const char *rate_option = take_option(&argc, argv, "--rate");
	int64_t		rate = rate_option ? strtoll(rate_option, NULL, 10) : 0;
	const char *const properties[] = {
		"compression.codec", codec ? codec : "none",
		"linger.ms", "5",
		"message.max.bytes", "10000000",
		"enable.idempotence", "true",
		"transactional.id", transactional_id,
		NULL
	};
	const char *bootstrap = text_argument(argc, argv, 0, "bootstrap servers");
	const char *topic = text_argument(argc, argv, 1, "topic");
	rd_kafka_t *producer;
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;
	int64_t		start_us = now_us();
	int64_t		n_lines = 0;

	refuse_options(argc, argv);
	producer = open_client(RD_KAFKA_PRODUCER, bootstrap, properties);
	if (transactional_id)
		check_error(rd_kafka_init_transactions(producer, 60000), "init");
	while ((len = getline(&line, &size, stdin)) >= 0)
	{
		Column		columns[MAX_COLUMNS];

		if (len > 0 && line[len - 1] == '\n')
			line[--len] = '\0';
		keep_pace(producer, start_us, n_lines++, rate);
		if (!run_control_line(producer, line))
			send_record(producer, topic, columns, split_line(line, len, columns));
	}
	flush_producer(producer);
	printf("%lld\n", (long long) delivered);
	free(line);
	rd_kafka_destroy(producer);
	return 0;
}
