/*
 * view_functions.c
 *		The SQL functions about materialized views: arguments and privileges.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "catalog.h"
#include "compat.h"
#include "function_args.h"
#include "nearest_name.h"
#include "refresh_errors.h"
#include "refresh_exec.h"
#include "refresh_explain.h"
#include "refresh_group.h"
#include "refresh_plan.h"
#include "sql_run.h"
#include "view_catalog.h"
#include "view_define.h"
#include "view_stage.h"

PG_FUNCTION_INFO_V1(md_create_materialized_view);
PG_FUNCTION_INFO_V1(md_alter_materialized_view);
PG_FUNCTION_INFO_V1(md_drop_materialized_view);
PG_FUNCTION_INFO_V1(md_refresh);
PG_FUNCTION_INFO_V1(md_refresh_group);
PG_FUNCTION_INFO_V1(md_explain_refresh);
PG_FUNCTION_INFO_V1(md_verify);
PG_FUNCTION_INFO_V1(md_copies);
PG_FUNCTION_INFO_V1(md_retry_refresh_errors);

/* Elements of a text[], of String; NIL for NULL. */
static List *
names_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	List	   *names = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(number))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", name)));
		names = lappend(names, makeString(TextDatumGetCString(elements[i])));
	}
	return names;
}

/* A value as the text that DDL would have. */
static char *
option_text(const char *name, const JsonbValue *value)
{
	if (value->type == jbvNull)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" must be a string or a number", name)));
}

/* Those about errors; "sources", if that may be given, is read elsewhere. */
static void
read_options(Jsonb *options, bool with_sources, MdErrorOptions *errors)
{
	static const char *const valid[] = {
		"refresh_interval", "refresh_mode", "key_columns", "with_data", NULL
	};
	const char *const valid_options[] = {
		"max_refresh_errors", "on_error", with_sources ? "sources" : NULL, NULL
	};
	JsonbIterator *iterator = JsonbIteratorInit(&options->root);
	JsonbValue	key;
	JsonbValue	value;
	char	   *name;
	bool		twice;
	const char *nearest;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object")));
	(void) JsonbIteratorNext(&iterator, &key, false);
	do
	{
		if (JsonbIteratorNext(&iterator, &key, true) != WJB_KEY)
			return;
		name = pnstrdup(key.val.string.val, key.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
	} while ((with_sources && strcmp(name, "sources") == 0) ||
			 (value.type != jbvBinary &&
			  md_error_options_take(errors, name, option_text(name, &value), &twice)));
	nearest = md_nearest_name(name, valid);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\"", name),
			 with_sources ? errdetail("The options of a materialized view are max_refresh_errors, on_error and sources.") :
			 errdetail("The options of a materialized view that can be changed are max_refresh_errors and on_error."),
			 nearest ? errhint("Perhaps you meant the argument %s.", nearest) :
			 (nearest = md_nearest_name(name, valid_options)) != NULL ?
			 errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

Datum
md_create_materialized_view(PG_FUNCTION_ARGS)
{
	MdViewSpec	spec = {0};
	char	   *name = md_text_argument(fcinfo, 0, "view_name");

	spec.query_text = md_text_argument(fcinfo, 1, "query");
	spec.inner_text = true;
	if (!PG_ARGISNULL(2))
		spec.refresh_interval = PG_GETARG_INTERVAL_P(2);
	spec.mode = md_refresh_mode_by_name(md_text_argument(fcinfo, 3, "refresh_mode"));
	spec.key_columns = names_argument(fcinfo, 4, "key_columns");
	md_require_argument(fcinfo, 5, "with_data");
	spec.with_data = PG_GETARG_BOOL(5);
	md_require_argument(fcinfo, 6, "options");
	read_options(PG_GETARG_JSONB_P(6), true, &spec.errors);

	spec.name = makeRangeVarFromNameList(md_qualified_name(name));
	spec.query = md_query_analyze(spec.query_text);
	spec.stages = md_stage_parse(PG_GETARG_JSONB_P(6));
	PG_RETURN_OID(md_view_create(&spec));
}

/* The defaults that mean "stays as it is", told from real values. */
static bool
is_kept_interval(const Interval *interval)
{
	return interval->month == 0 && interval->day == 0 && interval->time == -USECS_PER_SEC;
}

static bool
is_kept_keys(List *names)
{
	return list_length(names) == 1 && strcmp(strVal(linitial(names)), "*") == 0;
}

Datum
md_alter_materialized_view(PG_FUNCTION_ARGS)
{
	MdViewChange change = {0};

	md_require_argument(fcinfo, 0, "view");
	/* before the query is looked at: it may belong to somebody else */
	md_view_check_owner(PG_GETARG_OID(0));
	if (!PG_ARGISNULL(1))
	{
		change.query_text = text_to_cstring(PG_GETARG_TEXT_PP(1));
		change.query = md_query_analyze(change.query_text);
	}
	change.set_interval = PG_ARGISNULL(2) || !is_kept_interval(PG_GETARG_INTERVAL_P(2));
	if (!PG_ARGISNULL(2))
		change.refresh_interval = PG_GETARG_INTERVAL_P(2);
	change.set_mode = !PG_ARGISNULL(3);
	if (change.set_mode)
		change.mode = md_refresh_mode_by_name(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	change.key_columns = names_argument(fcinfo, 4, "key_columns");
	change.set_keys = !is_kept_keys(change.key_columns);
	md_require_argument(fcinfo, 5, "options");
	read_options(PG_GETARG_JSONB_P(5), false, &change.errors);
	md_view_alter(PG_GETARG_OID(0), &change);
	PG_RETURN_VOID();
}

Datum
md_drop_materialized_view(PG_FUNCTION_ARGS)
{
	md_require_argument(fcinfo, 0, "view");
	md_require_argument(fcinfo, 1, "cascade");
	md_view_drop(PG_GETARG_OID(0), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

/* A count that may be unknown, or that means nothing. */
static void
set_count(Datum *values, bool *nulls, int column, int64 count)
{
	values[column] = Int64GetDatum(count);
	nulls[column] = count < 0;
}

Datum
md_refresh(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Datum		values[7] = {0};
	bool		nulls[7] = {0};
	char	   *only_where = NULL;
	Jsonb	   *frontier;
	MdRun		run;

	md_require_argument(fcinfo, 0, "view");
	md_require_argument(fcinfo, 1, "full_refresh");
	if (!PG_ARGISNULL(2))
		only_where = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (only_where != NULL && PG_GETARG_BOOL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("full_refresh and only_where exclude each other")));
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	md_view_check_owner(PG_GETARG_OID(0));
	if (only_where != NULL)
		md_refresh_part(PG_GETARG_OID(0), only_where, &run, &frontier);
	else
	{
		md_stage_refresh(PG_GETARG_OID(0), PG_GETARG_BOOL(1));
		(void) md_refresh_consistent(PG_GETARG_OID(0), PG_GETARG_BOOL(1), true, &run, &frontier);
	}

	values[0] = CStringGetTextDatum(run.strategy);
	nulls[1] = run.reason == NULL;
	if (run.reason)
		values[1] = CStringGetTextDatum(run.reason);
	set_count(values, nulls, 2, run.rows_read);
	set_count(values, nulls, 3, run.rows_inserted);
	set_count(values, nulls, 4, run.rows_updated);
	set_count(values, nulls, 5, run.rows_deleted);
	values[6] = JsonbPGetDatum(frontier);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

Datum
md_refresh_group(PG_FUNCTION_ARGS)
{
	Oid			relid = md_relation_argument(fcinfo, 0, "view");
	Snapshot	snapshot;
	List	   *members;
	Datum	   *elements;
	int			count = 0;
	ListCell   *lc;

	md_view_check_owner(relid);
	snapshot = md_sql_take_snapshot();
	(void) md_view_get(relid, snapshot);
	members = md_refresh_group_members(relid, snapshot);
	UnregisterSnapshot(snapshot);
	elements = palloc(sizeof(Datum) * Max(1, list_length(members)));
	foreach(lc, members)
		elements[count++] = ObjectIdGetDatum(lfirst_oid(lc));
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, REGCLASSOID, sizeof(Oid), true,
										  TYPALIGN_INT));
}

/* ---------------------------------------------------------------------- */

/* Does the text begin like a query, and not like a name? */
static bool
looks_like_query(const char *text)
{
	static const char *const words[] = {"select", "with", "values", "table"};
	const char *start = text + strspn(text, " \t\r\n\f\v(");

	if (start != text && strchr(text, '(') != NULL && strchr(text, '(') < start)
		return true;
	for (int i = 0; i < lengthof(words); i++)
	{
		size_t		len = strlen(words[i]);

		if (pg_strncasecmp(start, words[i], len) == 0 &&
			(start[len] == '(' || isspace((unsigned char) start[len])))
			return true;
	}
	return strncmp(start, "--", 2) == 0 || strncmp(start, "/*", 2) == 0;
}

Datum
md_explain_refresh(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *query_text = md_text_argument(fcinfo, 0, "query_or_view");
	MdView	   *view = NULL;

	InitMaterializedSRF(fcinfo, 0);
	if (!looks_like_query(query_text))
	{
		Oid			relid = RangeVarGetRelid(makeRangeVarFromNameList(md_qualified_name(query_text)),
											 NoLock, false);
		Snapshot	snapshot = md_sql_take_snapshot();

		md_view_check_owner(relid);
		view = md_view_get(relid, snapshot);
		UnregisterSnapshot(snapshot);
		md_view_check_query(view);
		query_text = md_query_text(md_query_of_definition(view->definition));
	}
	md_explain(query_text, view, result->setResult, result->setDesc);
	return (Datum) 0;
}

Datum
md_verify(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	/* no row says that all is well, so NULL must not give none */
	md_require_argument(fcinfo, 0, "view");
	InitMaterializedSRF(fcinfo, 0);
	md_view_check_owner(PG_GETARG_OID(0));
	md_refresh_verify(PG_GETARG_OID(0), result->setResult, result->setDesc);
	return (Datum) 0;
}

Datum
md_retry_refresh_errors(PG_FUNCTION_ARGS)
{
	Oid			relid = md_relation_argument(fcinfo, 0, "view");
	Snapshot	snapshot;
	int64		rows;

	PreventCommandIfReadOnly("medallion.retry_refresh_errors()");
	md_view_check_owner(relid);
	snapshot = md_sql_take_snapshot();
	(void) md_view_get(relid, snapshot);
	UnregisterSnapshot(snapshot);
	md_view_lock(relid);
	rows = md_errors_retry(relid);
	PG_RETURN_INT64(rows);
}

Datum
md_copies(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;

	if (SRF_IS_FIRSTCALL())
	{
		context = SRF_FIRSTCALL_INIT();
		context->max_calls = Max(PG_GETARG_INT64(0), 0);
	}
	context = SRF_PERCALL_SETUP();
	if (context->call_cntr >= context->max_calls)
		SRF_RETURN_DONE(context);
	SRF_RETURN_NEXT(context, Int64GetDatum((int64) context->call_cntr + 1));
}
