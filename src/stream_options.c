/*
 * stream_options.c
 *		The options of a streaming table: names, units, defaults, checks.
 *
 * An option is parsed into its field of an MdStream and written back from
 * there, so that what is stored is what is used, in one spelling.
 */
#include "postgres.h"

#include <math.h>

#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "nearest_name.h"
#include "stream_options.h"

#define MAX_FLUSH_INTERVAL_MS	(3600 * 1000)
#define MAX_BATCH_RECORDS		1000000
#define MIN_BATCH_BYTES			1024
#define MAX_BATCH_BYTES			(1024 * 1024 * 1024)
#define MAX_GROUP_ID_BYTES		255
#define MIN_DEAD_LETTER_WINDOW_MS	1000
#define MAX_DEAD_LETTER_WINDOW_MS	(24 * 3600 * 1000)

/* Alphabetical, as in the documentation. */
typedef enum OptionId
{
	OPT_BATCH_MAX_BYTES,
	OPT_BATCH_MAX_RECORDS,
	OPT_DEAD_LETTER_WINDOW,
	OPT_FLUSH_INTERVAL,
	OPT_GROUP_ID,
	OPT_ISOLATION_LEVEL,
	OPT_MAX_DEAD_LETTER_RATIO,
	OPT_ON_ERROR,
	OPT_ON_GAP,
	OPT_SCHEMA_EVOLUTION,
	N_OPTIONS
} OptionId;

static const char *const option_names[] = {
	[OPT_BATCH_MAX_BYTES] = "batch_max_bytes",
	[OPT_BATCH_MAX_RECORDS] = "batch_max_records",
	[OPT_DEAD_LETTER_WINDOW] = "dead_letter_window",
	[OPT_FLUSH_INTERVAL] = "flush_interval",
	[OPT_GROUP_ID] = "group_id",
	[OPT_ISOLATION_LEVEL] = "isolation_level",
	[OPT_MAX_DEAD_LETTER_RATIO] = "max_dead_letter_ratio",
	[OPT_ON_ERROR] = "on_error",
	[OPT_ON_GAP] = "on_gap",
	[OPT_SCHEMA_EVOLUTION] = "schema_evolution",
	[N_OPTIONS] = NULL
};

/* Values of the options that are enumerations; the first is the default. */
static const char *const isolation_levels[] = {"read_committed", "read_uncommitted", NULL};
static const char *const error_policies[] = {"dead_letter", "fail", NULL};
static const char *const gap_policies[] = {"record", "fail", NULL};
static const char *const evolutions[] = {"none", "add_columns", NULL};

static void
set_defaults(MdStream *stream)
{
	stream->flush_interval_ms = 100;
	stream->batch_max_records = 50000;
	stream->batch_max_bytes = 16 * 1024 * 1024;
	stream->on_error_fail = false;
	stream->on_gap_fail = false;
	stream->read_uncommitted = false;
	stream->group_id = NULL;
	stream->max_dead_letter_ratio = -1;
	stream->dead_letter_window_ms = 5 * 60 * 1000;
}

/* ERROR: this value cannot be. */
static void
refuse_value(OptionId id, const char *value, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option_names[id], value),
			 errdetail("%s", detail)));
}

/* Place of value among values; ERROR, with the nearest, if it is not there. */
static int
parse_enum(OptionId id, const char *value, const char *const *values)
{
	const char *nearest;

	for (int i = 0; values[i] != NULL; i++)
		if (pg_strcasecmp(values[i], value) == 0)
			return i;
	nearest = md_nearest_name(value, values);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option_names[id], value),
			 errdetail("It is \"%s\" or \"%s\".", values[0], values[1]),
			 nearest != NULL ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
	return -1;
}

/* An interval in ms; a bare number but 0 is refused, for its unit would be seconds. */
static int
parse_interval_ms(OptionId id, const char *value, int min_ms, int max_ms, const char *detail)
{
	Interval   *interval;
	double		ms;

	if (min_ms == 0 && strcmp(value, "0") == 0)
		return 0;
	if (value[0] == '\0' || strspn(value, " 0123456789.+-") == strlen(value))
		refuse_value(id, value, detail);
	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
													 CStringGetDatum(value),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	if (interval->month != 0 || interval->day != 0)
		refuse_value(id, value, detail);
	ms = rint(interval->time / 1000.0);
	if (ms < min_ms || ms > max_ms)
		refuse_value(id, value, detail);
	return (int) ms;
}

static int
parse_number(OptionId id, const char *value, int flags, int min, int max,
			 const char *detail)
{
	int			number;

	if (!parse_int(value, &number, flags, NULL) || number < min || number > max)
		refuse_value(id, value, detail);
	return number;
}

static double
parse_ratio(OptionId id, const char *value)
{
	char	   *end;
	double		ratio;

	errno = 0;
	ratio = strtod(value, &end);
	/* written so that it refuses NaN, too */
	if (errno != 0 || end == value || *end != '\0' || !(ratio >= 0 && ratio <= 1))
		refuse_value(id, value, "It is a number from 0 to 1, such as 0.1.");
	return ratio;
}

/* Parse value into the option's field. */
static void
parse_option(MdStream *stream, OptionId id, const char *value)
{
	switch (id)
	{
		case OPT_BATCH_MAX_BYTES:
			stream->batch_max_bytes =
				parse_number(id, value, GUC_UNIT_BYTE, MIN_BATCH_BYTES, MAX_BATCH_BYTES,
							 "It is a number of bytes from 1kB to 1GB, such as '16MB'.");
			break;
		case OPT_BATCH_MAX_RECORDS:
			stream->batch_max_records =
				parse_number(id, value, 0, 1, MAX_BATCH_RECORDS,
							 "It is a number from 1 to 1000000.");
			break;
		case OPT_DEAD_LETTER_WINDOW:
			stream->dead_letter_window_ms =
				parse_interval_ms(id, value, MIN_DEAD_LETTER_WINDOW_MS, MAX_DEAD_LETTER_WINDOW_MS,
								  "It is a time from 1 second to 24 hours, with its unit, such as '5 min'.");
			break;
		case OPT_FLUSH_INTERVAL:
			stream->flush_interval_ms =
				parse_interval_ms(id, value, 0, MAX_FLUSH_INTERVAL_MS,
								  "It is a time from 0 to 1 hour, with its unit, such as '250 ms'.");
			break;
		case OPT_GROUP_ID:
			if (value[0] == '\0' || strlen(value) > MAX_GROUP_ID_BYTES)
				refuse_value(id, value, "It is the name of a consumer group, of 1 to 255 bytes.");
			stream->group_id = pstrdup(value);
			break;
		case OPT_ISOLATION_LEVEL:
			stream->read_uncommitted = parse_enum(id, value, isolation_levels) == 1;
			break;
		case OPT_MAX_DEAD_LETTER_RATIO:
			stream->max_dead_letter_ratio = parse_ratio(id, value);
			break;
		case OPT_ON_ERROR:
			stream->on_error_fail = parse_enum(id, value, error_policies) == 1;
			break;
		case OPT_ON_GAP:
			stream->on_gap_fail = parse_enum(id, value, gap_policies) == 1;
			break;
		case OPT_SCHEMA_EVOLUTION:
			if (parse_enum(id, value, evolutions) == 1)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("schema_evolution \"add_columns\" is not supported by this version"),
						 errhint("Add columns with ALTER TABLE ... ADD COLUMN.")));
			break;
		case N_OPTIONS:
			break;
	}
}

/* Says which option an error of an input function is about. */
static void
option_error_context(void *arg)
{
	errcontext("option \"%s\"", (const char *) arg);
}

static void
set_option(MdStream *stream, OptionId id, const char *value)
{
	ErrorContextCallback context;

	context.callback = option_error_context;
	context.arg = unconstify(char *, option_names[id]);
	context.previous = error_context_stack;
	error_context_stack = &context;
	parse_option(stream, id, value);
	error_context_stack = context.previous;
}

static void
value_of_string(JsonbValue *value, const char *string)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, string);
	value->val.string.len = strlen(string);
}

static void
value_of_number(JsonbValue *value, int64 number)
{
	value->type = jbvNumeric;
	value->val.numeric = int64_to_numeric(number);
}

/* The canonical value of an option, from its field. */
static void
value_of_option(const MdStream *stream, OptionId id, JsonbValue *value)
{
	switch (id)
	{
		case OPT_BATCH_MAX_BYTES:
			value_of_number(value, stream->batch_max_bytes);
			break;
		case OPT_BATCH_MAX_RECORDS:
			value_of_number(value, stream->batch_max_records);
			break;
		case OPT_DEAD_LETTER_WINDOW:
			value_of_string(value, psprintf("%d ms", stream->dead_letter_window_ms));
			break;
		case OPT_FLUSH_INTERVAL:
			value_of_string(value, psprintf("%d ms", stream->flush_interval_ms));
			break;
		case OPT_GROUP_ID:
			value_of_string(value, stream->group_id);
			break;
		case OPT_ISOLATION_LEVEL:
			value_of_string(value, isolation_levels[stream->read_uncommitted]);
			break;
		case OPT_MAX_DEAD_LETTER_RATIO:
			value->type = jbvNumeric;
			value->val.numeric =
				DatumGetNumeric(DirectFunctionCall1(float8_numeric,
													Float8GetDatum(stream->max_dead_letter_ratio)));
			break;
		case OPT_ON_ERROR:
			value_of_string(value, error_policies[stream->on_error_fail]);
			break;
		case OPT_ON_GAP:
			value_of_string(value, gap_policies[stream->on_gap_fail]);
			break;
		case OPT_SCHEMA_EVOLUTION:
			value_of_string(value, evolutions[0]);
			break;
		case N_OPTIONS:
			break;
	}
}

static int
option_by_name(const char *name)
{
	for (int i = 0; i < N_OPTIONS; i++)
		if (strcmp(option_names[i], name) == 0)
			return i;
	return -1;
}

void
md_stream_options_check_name(const char *name, const char *const *more_names)
{
	const char *names[N_OPTIONS + 8];
	const char *nearest;
	int			n = 0;

	for (int i = 0; i < N_OPTIONS; i++)
		names[n++] = option_names[i];
	while (*more_names != NULL && n < lengthof(names) - 1)
		names[n++] = *more_names++;
	names[n] = NULL;
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return;

	nearest = md_nearest_name(name, names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\"", name),
			 errdetail("The options of a streaming table are batch_max_bytes, batch_max_records, dead_letter_window, flush_interval, group_id, isolation_level, max_dead_letter_ratio, on_error, on_gap and schema_evolution."),
			 nearest != NULL ? errhint("Perhaps you meant the option \"%s\".", nearest) : 0));
}

/* A scalar as text; NULL if it is none. */
static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

List *
md_stream_options_from_jsonb(Jsonb *options)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	List	   *result = NIL;
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object"),
				 errhint("Such as '{\"flush_interval\": \"1 s\"}'.")));

	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *text;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		text = scalar_text(&value);
		if (text == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must be a string, a number or a boolean", name)));
		result = lappend(result, makeDefElem(name, (Node *) makeString(text), -1));
	}
	return result;
}

/* Set the fields of stream from a canonical jsonb, and note which are set. */
static void
apply_jsonb(MdStream *stream, Jsonb *options, bool *is_set)
{
	for (int i = 0; i < N_OPTIONS; i++)
	{
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&options->root, option_names[i],
										 strlen(option_names[i]), &value) == NULL)
			continue;
		set_option(stream, i, scalar_text(&value));
		is_set[i] = true;
	}
}

void
md_stream_options_apply(MdStream *stream, Jsonb *options)
{
	bool		is_set[N_OPTIONS];

	set_defaults(stream);
	apply_jsonb(stream, options, is_set);
}

Jsonb *
md_stream_options_canonical(Jsonb *base, List *options)
{
	MdStream	stream = {0};
	bool		is_set[N_OPTIONS] = {0};
	bool		seen[N_OPTIONS] = {0};
	static const char *const no_names[] = {NULL};
	JsonbParseState *state = NULL;
	ListCell   *lc;

	set_defaults(&stream);
	if (base != NULL)
		apply_jsonb(&stream, base, is_set);
	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		int			id;

		md_stream_options_check_name(def->defname, no_names);
		id = option_by_name(def->defname);
		if (seen[id])
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("option \"%s\" is given more than once", def->defname)));
		seen[id] = true;
		is_set[id] = def->arg != NULL;
		if (is_set[id])
			set_option(&stream, id, defGetString(def));
	}

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < N_OPTIONS; i++)
	{
		JsonbValue	value;

		if (!is_set[i])
			continue;
		value_of_string(&value, option_names[i]);
		pushJsonbValue(&state, WJB_KEY, &value);
		value_of_option(&stream, i, &value);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
