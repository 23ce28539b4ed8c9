/*
 * schedule_functions.c
 *		The schedule as an SQL function, for tests that own the time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "schedule.h"

PG_FUNCTION_INFO_V1(md_try_schedule);

/* Elements of an array argument of fixed length; NULLs are told apart. */
static int
array_argument(FunctionCallInfo fcinfo, int number, Oid type, int len, bool by_value, char align,
			   Datum **values, bool **nulls)
{
	int			count;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), type, len, by_value, align,
					  values, nulls, &count);
	return count;
}

/* "0 2": indexes of the views that one reads. */
static void
parse_upstream(MdScheduled *view, const char *list, int count)
{
	const char *p = list;

	view->upstream = palloc(sizeof(int) * Max(1, count));
	while (*p != '\0' && view->upstream_count < count)
	{
		char	   *end;

		view->upstream[view->upstream_count] = (int) strtol(p, &end, 10);
		if (end == p || view->upstream[view->upstream_count] < 0 ||
			view->upstream[view->upstream_count] >= count)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid list of views \"%s\"", list)));
		view->upstream_count++;
		p = end;
	}
}

Datum
md_try_schedule(PG_FUNCTION_ARGS)
{
	Datum	   *intervals;
	Datum	   *started;
	Datum	   *retry;
	Datum	   *busy;
	Datum	   *reads;
	bool	   *nulls[5];
	int			counts[5];
	MdScheduled *views;
	TimestampTz wake_at;
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		result_nulls[2] = {false, false};
	int			pick;

	counts[0] = array_argument(fcinfo, 1, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE, &intervals, &nulls[0]);
	counts[1] = array_argument(fcinfo, 2, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &started, &nulls[1]);
	counts[2] = array_argument(fcinfo, 3, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &retry, &nulls[2]);
	counts[3] = array_argument(fcinfo, 4, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &busy, &nulls[3]);
	counts[4] = array_argument(fcinfo, 5, TEXTOID, -1, false, TYPALIGN_INT, &reads, &nulls[4]);
	views = palloc0(sizeof(MdScheduled) * Max(1, counts[0]));
	for (int i = 0; i < counts[0]; i++)
	{
		TimestampTz started_at = 0;
		TimestampTz retry_at = 0;

		if (nulls[0][i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("intervals must not contain nulls")));
		views[i].interval = *DatumGetIntervalP(intervals[i]);
		if (i < counts[1] && !nulls[1][i])
			started_at = DatumGetTimestampTz(started[i]);
		if (i < counts[2] && !nulls[2][i])
			retry_at = DatumGetTimestampTz(retry[i]);
		md_schedule_set(&views[i], started_at, retry_at);
		if (i < counts[3] && !nulls[3][i])
		{
			views[i].busy = true;
			views[i].busy_until = DatumGetTimestampTz(busy[i]);
		}
		if (i < counts[4] && !nulls[4][i])
			parse_upstream(&views[i], TextDatumGetCString(reads[i]), counts[0]);
	}

	pick = md_schedule_pick(views, counts[0], PG_GETARG_TIMESTAMPTZ(0), &wake_at);
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(pick);
	result_nulls[0] = pick < 0;
	values[1] = TimestampTzGetDatum(wake_at);
	result_nulls[1] = pick >= 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, result_nulls)));
}
