/*
 * stream_functions.c
 *		SQL functions of streaming tables: arguments and privileges.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "catalog.h"
#include "function_args.h"
#include "stream_define.h"
#include "stream_options.h"
#include "stream_state.h"
#include "stream_table.h"
#include "stream_wait.h"
#include "view_define.h"
#include "worker_slots.h"

PG_FUNCTION_INFO_V1(md_create_streaming_table);
PG_FUNCTION_INFO_V1(md_drop_streaming_table);
PG_FUNCTION_INFO_V1(md_pause);
PG_FUNCTION_INFO_V1(md_resume);
PG_FUNCTION_INFO_V1(md_resume_all);
PG_FUNCTION_INFO_V1(md_wait_for_offset);
PG_FUNCTION_INFO_V1(md_wait_until_caught_up);

/* A longer wait, for ever say, is one of a thousand years. */
#define MAX_TIMEOUT_MS (1000 * 365.0 * SECS_PER_DAY * 1000)

/* A streaming table; its definition. */
static MdStream *
stream_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	Oid			relid = md_relation_argument(fcinfo, n, name);
	MdStream   *stream = md_catalog_stream(relid, CurrentMemoryContext);

	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a streaming table", get_rel_name(relid))));
	return stream;
}

/* A time to wait, in ms. */
static int64
timeout_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	Interval   *interval;
	double		ms;

	md_require_argument(fcinfo, n, name);
	interval = PG_GETARG_INTERVAL_P(n);
	ms = interval->time / 1000.0 +
		(interval->day + interval->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
	return (int64) rint(Min(ms, MAX_TIMEOUT_MS));
}

Datum
md_create_streaming_table(PG_FUNCTION_ARGS)
{
	MdStreamDefinition definition;
	char	   *table_name = md_text_argument(fcinfo, 0, "table_name");
	char	   *columns = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4));
	RangeVar   *relation;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.create_streaming_table()");
	md_stream_definition_init(&definition);
	definition.server = md_text_argument(fcinfo, 1, "server");
	definition.topic = md_text_argument(fcinfo, 2, "topic");
	definition.format = md_text_argument(fcinfo, 3, "format");
	definition.start_at = md_text_argument(fcinfo, 5, "start_at");
	md_require_argument(fcinfo, 6, "options");
	md_stream_definition_set(&definition,
							 md_stream_options_from_jsonb(PG_GETARG_JSONB_P(6)), false);
	relation = makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(table_name)));
	PG_RETURN_OID(md_stream_create(relation, columns, &definition));
}

Datum
md_drop_streaming_table(PG_FUNCTION_ARGS)
{
	MdStream   *stream = stream_argument(fcinfo, 0, "table_name");

	md_stream_table_check_owner(stream->relid);
	SPI_connect();
	if (SPI_execute(psprintf("DROP TABLE %s", md_stream_table_name(stream->relid)),
					false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not drop streaming table");
	SPI_finish();
	PG_RETURN_VOID();
}

/* ERROR: neither a streaming table nor a view's result. */
static void
refuse_other_relation(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" is neither a streaming table nor a materialized view of pg_medallion",
					get_rel_name(relid))));
}

Datum
md_pause(PG_FUNCTION_ARGS)
{
	Oid			relid = md_relation_argument(fcinfo, 0, "relation");

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.pause()");
	md_stream_table_check_owner(relid);
	if (md_stream_exists(relid))
		md_stream_pause(relid);
	else if (!md_view_set_paused(relid, true))
		refuse_other_relation(relid);
	PG_RETURN_VOID();
}

Datum
md_resume(PG_FUNCTION_ARGS)
{
	Oid			relid = md_relation_argument(fcinfo, 0, "relation");

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.resume()");
	md_stream_table_check_owner(relid);
	if (md_stream_exists(relid))
		md_stream_resume(relid);
	else if (!md_view_set_paused(relid, false))
		refuse_other_relation(relid);
	PG_RETURN_VOID();
}

Datum
md_resume_all(PG_FUNCTION_ARGS)
{
	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.resume_all()");
	md_stream_resume_all();
	md_view_resume_all();
	PG_RETURN_VOID();
}

/* Who may read the table may wait for its rows. */
static void
check_select(Oid relid)
{
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
}

/* Which topic of the table: it need not be named where there is one only. */
static const char *
topic_argument(FunctionCallInfo fcinfo, int n, const char *name, const MdStream *stream)
{
	const char *topic = PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));

	if (md_stream_is_pattern(stream) && topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name),
				 errdetail("Streaming table \"%s\" reads several topics, by the pattern \"%s\".",
						   get_rel_name(stream->relid), stream->topic)));
	if (!md_stream_is_pattern(stream) && topic != NULL && strcmp(topic, stream->topic) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("streaming table \"%s\" does not read topic \"%s\"",
						get_rel_name(stream->relid), topic),
				 errdetail("It reads topic \"%s\".", stream->topic)));
	return topic != NULL ? topic : stream->topic;
}

Datum
md_wait_for_offset(PG_FUNCTION_ARGS)
{
	MdStream   *stream = stream_argument(fcinfo, 0, "table_name");
	int64		timeout_ms;

	check_select(stream->relid);
	md_require_argument(fcinfo, 1, "kafka_partition");
	md_require_argument(fcinfo, 2, "kafka_offset");
	timeout_ms = timeout_argument(fcinfo, 3, "timeout");
	if (PG_GETARG_INT32(1) < 0 || PG_GETARG_INT64(2) < 0 || PG_GETARG_INT64(2) == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partitions and offsets are numbers from 0")));
	PG_RETURN_BOOL(md_stream_wait_for_offset(stream, topic_argument(fcinfo, 4, "kafka_topic", stream),
											 PG_GETARG_INT32(1), PG_GETARG_INT64(2), timeout_ms));
}

Datum
md_wait_until_caught_up(PG_FUNCTION_ARGS)
{
	MdStream   *stream = stream_argument(fcinfo, 0, "table_name");

	check_select(stream->relid);
	PG_RETURN_BOOL(md_stream_wait_until_caught_up(stream, timeout_argument(fcinfo, 1, "timeout")));
}
