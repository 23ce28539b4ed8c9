/*
 * sql_run.c
 *		SQL under a snapshot of our choice.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/dest.h"
#include "utils/snapmgr.h"

#include "sql_run.h"

void
md_sql_arg(MdSqlArgs *args, Oid type, Datum value, bool isnull)
{
	Assert(args->count < MD_SQL_MAX_ARGS);
	args->types[args->count] = type;
	args->values[args->count] = value;
	args->nulls[args->count] = isnull ? 'n' : ' ';
	args->nulls[++args->count] = '\0';
}

Snapshot
md_sql_take_snapshot(void)
{
	/* under REPEATABLE READ the transaction has one, and keeps it */
	if (IsolationUsesXactSnapshot())
		return RegisterSnapshot(GetTransactionSnapshot());
	return RegisterSnapshot(GetLatestSnapshot());
}

/* Complain about a statement of ours that did not run as it should. */
static void
check_result(int code, const char *sql)
{
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(code));
}

static SPIPlanPtr
prepare(const char *sql, MdSqlArgs *args, int cursor_options)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, args ? args->count : 0,
										  args ? args->types : NULL, cursor_options);

	if (plan == NULL)
		check_result(SPI_result, sql);
	return plan;
}

static uint64
run_plan(SPIPlanPtr plan, const char *sql, MdSqlArgs *args, Snapshot snapshot)
{
	check_result(SPI_execute_snapshot(plan, args ? args->values : NULL,
									  args ? args->nulls : NULL,
									  snapshot, InvalidSnapshot, false, true, 0),
				 sql);
	return SPI_processed;
}

uint64
md_sql_run(const char *sql, MdSqlArgs *args, Snapshot snapshot)
{
	return run_plan(prepare(sql, args, 0), sql, args, snapshot);
}

uint64
md_sql_run_cached(SPIPlanPtr *plan, const char *sql, MdSqlArgs *args, Snapshot snapshot)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	new_plan = prepare(sql, args, 0);

		SPI_keepplan(new_plan);
		*plan = new_plan;
	}
	return run_plan(*plan, sql, args, snapshot);
}

/* Run a plan that only reads, under the active snapshot. */
static void
run_into_dest(SPIPlanPtr plan, const char *sql, DestReceiver *dest)
{
	SPIExecuteOptions options = {0};

	options.read_only = true;
	options.dest = dest;
	check_result(SPI_execute_plan_extended(plan, &options), sql);
}

Tuplestorestate *
md_sql_run_into_store(const char *sql, Snapshot snapshot, TupleDesc *tupdesc)
{
	Tuplestorestate *store = tuplestore_begin_heap(true, false, work_mem);
	SPIPlanPtr	plan = prepare(sql, NULL, CURSOR_OPT_PARALLEL_OK);
	List	   *sources = SPI_plan_get_plan_sources(plan);
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);

	*tupdesc = CreateTupleDescCopy(((CachedPlanSource *) linitial(sources))->resultDesc);
	SetTuplestoreDestReceiverParams(dest, store, CurrentMemoryContext, true, NULL, NULL);

	/* read-only statements use the active snapshot: ours, with our own writes */
	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	run_into_dest(plan, sql, dest);
	PopActiveSnapshot();
	dest->rDestroy(dest);
	return store;
}

void
md_sql_run_into_dest(const char *sql, DestReceiver *dest)
{
	SPIPlanPtr	plan = prepare(sql, NULL, 0);

	run_into_dest(plan, sql, dest);
	SPI_freeplan(plan);
}

void
md_sql_run_for_errors(const char *sql, Snapshot snapshot)
{
	SPIPlanPtr	plan = prepare(sql, NULL, CURSOR_OPT_PARALLEL_OK);

	CommandCounterIncrement();
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	run_into_dest(plan, sql, None_Receiver);
	PopActiveSnapshot();
	SPI_freeplan(plan);
}

void
md_sql_write_into_store(const char *sql, Tuplestorestate *store, TupleDesc *tupdesc)
{
	SPIExecuteOptions options = {0};
	SPIPlanPtr	plan = prepare(sql, NULL, 0);
	List	   *sources = SPI_plan_get_plan_sources(plan);

	*tupdesc = CreateTupleDescCopy(((CachedPlanSource *) linitial(sources))->resultDesc);
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, store, CurrentMemoryContext,
									true, NULL, NULL);
	check_result(SPI_execute_plan_extended(plan, &options), sql);
	options.dest->rDestroy(options.dest);
}

char *
md_sql_string(uint64 row, int attno)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attno);
}

Datum
md_sql_datum(uint64 row, int attno, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attno, isnull);
}

int64
md_sql_int64(uint64 row, int attno)
{
	bool		isnull;
	Datum		value = md_sql_datum(row, attno, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

bool
md_sql_bool(uint64 row, int attno)
{
	bool		isnull;
	Datum		value = md_sql_datum(row, attno, &isnull);

	return !isnull && DatumGetBool(value);
}
