/*
 * stream_start.c
 *		Where a streaming table begins to read: start_at.
 *
 * The start is resolved to offsets once, and these are then the checkpoints:
 * "latest" is what was the end when the table was defined, however long it
 * takes until a worker reads the first record.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "kafka_request.h"
#include "nearest_name.h"
#include "stream_start.h"
#include "stream_topics.h"

#define UNIX_EPOCH_MS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000))

typedef enum StartKind
{
	START_EARLIEST,
	START_LATEST,
	START_TIME,
	START_OFFSETS
} StartKind;

typedef struct StartOffset
{
	const char *topic;			/* NULL: the table's only one */
	int32		partition;
	int64		offset;
} StartOffset;

typedef struct Start
{
	const char *what;			/* the option or argument that says it */
	const char *text;
	StartKind	kind;
	int64		time_ms;		/* since 1970 UTC */
	int			n_offsets;
	StartOffset *offsets;		/* in ascending order of topics and partitions */
} Start;

static const char *const words[] = {"earliest", "latest", NULL};

static void
refuse_start(const Start *start, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: \"%s\"", start->what, start->text),
			 errdetail("It is \"earliest\", \"latest\", a timestamp, or an offset per partition, such as '{\"0\": 42, \"1\": 7}'."),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* A whole number of a JSON key or value; refuses all else. */
static int64
parse_whole_number(const Start *start, const char *text, int64 max)
{
	char	   *end;
	int64		number;

	errno = 0;
	number = strtoi64(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number > max)
		refuse_start(start, "Partitions and offsets are whole numbers from 0.");
	return number;
}

static int
compare_offsets(const void *a, const void *b)
{
	const StartOffset *oa = a;
	const StartOffset *ob = b;
	int			order = 0;

	if (oa->topic != NULL && ob->topic != NULL)
		order = strcmp(oa->topic, ob->topic);
	else
		order = (oa->topic != NULL) - (ob->topic != NULL);
	return order != 0 ? order : (oa->partition > ob->partition) - (oa->partition < ob->partition);
}

static void
add_offset(Start *start, const char *topic, const char *key, const JsonbValue *value)
{
	StartOffset *offset;

	if (value->type != jbvNumeric)
		refuse_start(start, "Partitions and offsets are whole numbers from 0.");
	if (start->n_offsets % 16 == 0)
		start->offsets = start->offsets == NULL ? palloc(16 * sizeof(StartOffset)) :
			repalloc(start->offsets, (start->n_offsets + 16) * sizeof(StartOffset));
	offset = &start->offsets[start->n_offsets++];
	offset->topic = topic;
	offset->partition = parse_whole_number(start, key, PG_INT32_MAX);
	offset->offset =
		parse_whole_number(start,
						   DatumGetCString(DirectFunctionCall1(numeric_out,
															   NumericGetDatum(value->val.numeric))),
						   PG_INT64_MAX);
}

/* {"0": 42, "1": 7} of a topic; or, above that, {"topic": {"0": 42}, ...} */
static void
parse_offset_object(Start *start, JsonbContainer *object, const char *topic)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (topic == NULL && value.type == jbvBinary && JsonContainerIsObject(value.val.binary.data))
			parse_offset_object(start, value.val.binary.data, key);
		else
			add_offset(start, topic, key, &value);
	}
}

/* Says what an error of an input function is about. */
static void
start_error_context(void *arg)
{
	errcontext("%s \"%s\"", ((const Start *) arg)->what, ((const Start *) arg)->text);
}

static void
parse_offsets(Start *start)
{
	ErrorContextCallback context = {
		.callback = start_error_context,
		.arg = start,
		.previous = error_context_stack
	};
	Jsonb	   *json;

	error_context_stack = &context;
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(start->text)));
	error_context_stack = context.previous;
	start->kind = START_OFFSETS;
	parse_offset_object(start, &json->root, NULL);
	if (start->n_offsets == 0)
		refuse_start(start, NULL);
	qsort(start->offsets, start->n_offsets, sizeof(StartOffset), compare_offsets);
	for (int i = 1; i < start->n_offsets; i++)
		if (compare_offsets(&start->offsets[i], &start->offsets[i - 1]) == 0)
			refuse_start(start, "Each partition is named once.");
}

static void
parse_time(Start *start)
{
	ErrorContextCallback context;
	TimestampTz time;

	context.callback = start_error_context;
	context.arg = start;
	context.previous = error_context_stack;
	error_context_stack = &context;
	time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
												   CStringGetDatum(start->text),
												   ObjectIdGetDatum(InvalidOid),
												   Int32GetDatum(-1)));
	error_context_stack = context.previous;

	start->kind = START_TIME;
	start->time_ms = time / 1000 + UNIX_EPOCH_MS;
	if (start->time_ms < 0)
		refuse_start(start, "Times before 1970 are older than any record: use \"earliest\".");
}

static Start *
parse_start(const char *what, const char *start_at)
{
	Start	   *start = palloc0(sizeof(Start));

	start->what = what;
	start->text = start_at;
	if (pg_strcasecmp(start_at, words[START_EARLIEST]) == 0)
		start->kind = START_EARLIEST;
	else if (pg_strcasecmp(start_at, words[START_LATEST]) == 0)
		start->kind = START_LATEST;
	else if (start_at[0] == '{')
		parse_offsets(start);
	else if (start_at[0] >= '0' && start_at[0] <= '9')
		parse_time(start);
	else
	{
		const char *nearest = md_nearest_name(start_at, words);

		refuse_start(start, nearest ? psprintf("Perhaps you meant \"%s\".", nearest) : NULL);
	}
	return start;
}

/* 2026-01-02 03:04:05.678+00 */
static char *
format_time(int64 time_ms)
{
	TimestampTz time = (time_ms - UNIX_EPOCH_MS) * 1000;
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return psprintf("%04d-%02d-%02d %02d:%02d:%02d.%03d+00",
					tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min,
					tm.tm_sec, (int) (fsec / 1000));
}

char *
md_stream_start_canonical(const char *start_at, bool is_pattern)
{
	Start	   *start = parse_start("start_at", start_at);
	StringInfoData text;

	if (is_pattern && start->kind == START_OFFSETS)
		refuse_start(start, "What a pattern will match is not known: start at earliest, latest or a time, and use medallion.seek() then.");
	if (start->kind == START_OFFSETS && start->offsets[start->n_offsets - 1].topic != NULL)
		refuse_start(start, "The table reads one topic, which is not to be named again.");

	switch (start->kind)
	{
		case START_EARLIEST:
		case START_LATEST:
			return pstrdup(words[start->kind]);
		case START_TIME:
			return format_time(start->time_ms);
		case START_OFFSETS:
			break;
	}
	initStringInfo(&text);
	for (int i = 0; i < start->n_offsets; i++)
		appendStringInfo(&text, "%s\"%d\": " INT64_FORMAT, i ? ", " : "{",
						 start->offsets[i].partition, start->offsets[i].offset);
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* Which partitions of the topic have a checkpoint already? */
static void
mark_known_partitions(const MdStream *stream, bool *known, int n_partitions)
{
	Oid			argtypes[2] = {OIDOID, TEXTOID};
	Datum		args[2] = {ObjectIdGetDatum(stream->relid), CStringGetTextDatum(stream->topic)};

	if (SPI_execute_with_args("SELECT c.kafka_partition FROM medallion.checkpoint c"
							  " WHERE c.relid = $1 AND c.topic = $2",
							  2, argtypes, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read medallion.checkpoint");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int			partition = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc, 1, &isnull));

		if (partition < n_partitions)
			known[partition] = true;
	}
}

/*
 * While Kafka was asked, the table may have been dropped, or defined anew with
 * another start: lock what says that it was not.
 */
static void
require_unchanged(const MdStream *stream)
{
	Oid			argtypes[3] = {OIDOID, INT8OID, BOOLOID};
	Datum		args[3] = {ObjectIdGetDatum(stream->relid), Int64GetDatum(stream->generation),
	BoolGetDatum(stream->initialized || !stream->by_pattern)};

	/* a topic that is found after the others have their start begins at its beginning */
	if (SPI_execute_with_args("SELECT FROM medallion.stream s"
							  " WHERE s.relid = $1 AND s.generation = $2 AND s.initialized <= $3 FOR UPDATE",
							  3, argtypes, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the row of a stream");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the definition of the streaming table was changed concurrently")));
}

static void
insert_checkpoint(const MdStream *stream, const MdKafkaPosition *position)
{
	Oid			argtypes[4] = {OIDOID, TEXTOID, INT4OID, INT8OID};
	Datum		args[4];

	args[0] = ObjectIdGetDatum(stream->relid);
	args[1] = CStringGetTextDatum(position->topic);
	args[2] = Int32GetDatum(position->partition);
	args[3] = Int64GetDatum(position->offset);
	if (SPI_execute_with_args("INSERT INTO medallion.checkpoint"
							  " (relid, topic, kafka_partition, start_offset, next_offset)"
							  " VALUES ($1, $2, $3, $4, $4) ON CONFLICT DO NOTHING",
							  4, argtypes, args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into medallion.checkpoint");
}

static void
mark_initialized(MdStream *stream)
{
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(stream->relid)};

	if (SPI_execute_with_args("UPDATE medallion.stream SET initialized = true WHERE relid = $1",
							  1, argtypes, args, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update medallion.stream");
	stream->initialized = true;
}

/* What to ask Kafka for the start; returns the number of queries. */
static int
start_queries(const Start *start, int64 *queries)
{
	switch (start->kind)
	{
		case START_EARLIEST:
			queries[0] = MD_KAFKA_EARLIEST;
			return 1;
		case START_LATEST:
			queries[0] = MD_KAFKA_LATEST;
			return 1;
		case START_TIME:
			/* the end first: what arrives in between is after it, and is read */
			queries[0] = MD_KAFKA_LATEST;
			queries[1] = start->time_ms;
			return 2;
		case START_OFFSETS:
			queries[0] = MD_KAFKA_EARLIEST;
			queries[1] = MD_KAFKA_LATEST;
			return 2;
	}
	return 0;
}

/* ERROR unless the given offsets name all n partitions, and no other. */
static void
require_all_partitions(const MdStream *stream, const Start *start, int n)
{
	/* sorted and without repetition: names all of 0 .. n - 1 or not */
	for (int i = 0; i < n; i++)
		if (i >= start->n_offsets || start->offsets[i].partition != i)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("start_at has no offset for partition %d of topic \"%s\"", i, stream->topic),
					 errhint("Name each of the %d partitions; the beginning of a partition is its first offset.", n)));
	if (start->n_offsets > n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_at names partition %d, but topic \"%s\" has %d partitions",
						start->offsets[n].partition, stream->topic, n)));
}

/*
 * The offsets that are given for some of the partitions, checked against the
 * first and last that the topic has; the others are left at -1.
 */
static void
settle_offsets(const Start *start, MdKafkaPosition *positions, int n,
			   const int64 *first, const int64 *last)
{
	for (int i = 0; i < n; i++)
		positions[i].offset = -1;
	for (int s = 0; s < start->n_offsets; s++)
	{
		StartOffset given = start->offsets[s];
		int			i = 0;

		while (i < n && (positions[i].partition != given.partition ||
						 (given.topic != NULL && strcmp(positions[i].topic, given.topic) != 0)))
			i++;
		if (i == n && given.topic != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s names topic \"%s\" partition %d, which the table does not read",
							start->what, given.topic, given.partition)));
		if (i == n)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s names partition %d, which the table does not read",
							start->what, given.partition)));
		if (given.offset < first[i] || given.offset > last[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("offset " INT64_FORMAT " is outside partition %d of topic \"%s\"",
							given.offset, given.partition, positions[i].topic),
					 errdetail("Its offsets go from " INT64_FORMAT " to " INT64_FORMAT ".",
							   first[i], last[i])));
		positions[i].offset = given.offset;
	}
}

/*
 * A start as offsets of n partitions, -1 for those that it leaves out, by the
 * answers to start_queries() for each of them.
 */
static void
settle_start(const Start *start, MdKafkaPosition *positions, int n, int64 *const *answers)
{
	if (start->kind == START_OFFSETS)
	{
		settle_offsets(start, positions, n, answers[0], answers[1]);
		return;
	}
	/* a time: the first record at or after it, or the end where there is none */
	for (int i = 0; i < n; i++)
		positions[i].offset = start->kind == START_TIME && answers[1][i] >= 0 ?
			answers[1][i] : answers[0][i];
}

void
md_stream_check_position(const char *argument, const char *position)
{
	(void) parse_start(argument, position);
}

void
md_stream_resolve_position(const MdStream *stream, MdKafkaClient *client,
						   const char *argument, const char *position,
						   MdKafkaPosition *positions, int n, int timeout_ms)
{
	Start	   *start = parse_start(argument, position);
	int64		queries[MD_KAFKA_MAX_QUERIES];
	int			n_queries = start_queries(start, queries);
	int64	   *answers[MD_KAFKA_MAX_QUERIES];

	if (md_stream_is_pattern(stream) && start->kind == START_OFFSETS && start->offsets[0].topic == NULL)
		refuse_start(start, "The table reads topics by a pattern: name them, such as '{\"orders\": {\"0\": 42}}'.");
	for (int q = 0; q < n_queries; q++)
	{
		answers[q] = palloc(sizeof(int64) * Max(n, 1));
		for (int i = 0; i < n; i++)
			positions[i].query = queries[q];
		md_kafka_request_positions(client, stream->server, positions, n, timeout_ms);
		for (int i = 0; i < n; i++)
			answers[q][i] = positions[i].offset;
	}
	if (n > 0)
		settle_start(start, positions, n, answers);
}

/* Where partitions begin that have no checkpoint: new ones at their beginning. */
static Start *
start_of(const MdStream *stream)
{
	return parse_start("start_at", stream->initialized ? words[START_EARLIEST] : stream->start_at);
}

int
md_stream_start_queries(const MdStream *stream, int64 *queries)
{
	return start_queries(start_of(stream), queries);
}

int
md_stream_initialize(MdStream *stream, const MdKafkaSurvey *survey)
{
	bool	   *known = palloc0(survey->n_partitions * sizeof(bool));
	MdKafkaPosition *positions = palloc0(survey->n_partitions * sizeof(MdKafkaPosition));
	int64	   *answers[MD_KAFKA_MAX_QUERIES];
	Start	   *start = start_of(stream);
	MdSecurity	saved;
	int			n = 0;

	for (int q = 0; q < survey->n_queries; q++)
		answers[q] = palloc(sizeof(int64) * survey->n_partitions);
	md_catalog_become_owner(&saved);
	SPI_connect();
	require_unchanged(stream);
	mark_known_partitions(stream, known, survey->n_partitions);
	for (int i = 0; i < survey->n_partitions; i++)
	{
		if (known[i])
			continue;
		for (int q = 0; q < survey->n_queries; q++)
			answers[q][n] = survey->offsets[q][i];
		positions[n].topic = stream->topic;
		positions[n++].partition = i;
	}
	if (start->kind == START_OFFSETS)
		require_all_partitions(stream, start, n);
	settle_start(start, positions, n, answers);
	for (int i = 0; i < n; i++)
		insert_checkpoint(stream, &positions[i]);
	if (stream->by_pattern)
		md_stream_topic_found(stream);
	else if (!stream->initialized)
		mark_initialized(stream);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return n;
}

static bool
contains_name(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* Ask for one topic, and initialize it. */
static int
initialize_topic(MdStream *stream, MdKafkaClient *client, int timeout_ms)
{
	int64		queries[MD_KAFKA_MAX_QUERIES];
	int			n_queries = md_stream_start_queries(stream, queries);

	return md_stream_initialize(stream,
								md_kafka_request_survey(client, stream->server, stream->topic,
														queries, n_queries, timeout_ms));
}

/* Ask for all topics that match the pattern now, and forget those that are gone. */
static int
initialize_pattern(MdStream *stream, MdKafkaClient *client, int timeout_ms)
{
	List	   *known = md_stream_topics(stream->relid);
	List	   *gone = NIL;
	List	   *present = md_topic_pattern_matches(stream->topic,
												  md_kafka_request_topics(client, stream->server, timeout_ms));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, present)
		n += initialize_topic(md_stream_of_topic(stream, lfirst(lc), contains_name(known, lfirst(lc))),
							  client, timeout_ms);
	foreach(lc, known)
		if (!contains_name(present, lfirst(lc)))
			gone = lappend(gone, lfirst(lc));
	md_stream_topics_gone(stream, gone);
	md_stream_topics_started(stream);
	return n;
}

int
md_stream_initialize_now(MdStream *stream, MdKafkaClient *client, int timeout_ms)
{
	return md_stream_is_pattern(stream) ? initialize_pattern(stream, client, timeout_ms) :
		initialize_topic(stream, client, timeout_ms);
}
