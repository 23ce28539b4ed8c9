/*
 * sql_run.h
 *		SQL under a snapshot of our choice.
 *
 * All statements of a refresh see one snapshot of the sources, and what the
 * refresh itself has written.  The caller is connected to SPI; results are in
 * SPI_tuptable and SPI_processed as usual.
 */
#ifndef MD_SQL_RUN_H
#define MD_SQL_RUN_H

#include "postgres.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

/* At most this many arguments. */
#define MD_SQL_MAX_ARGS 16

typedef struct MdSqlArgs
{
	int			count;
	Oid			types[MD_SQL_MAX_ARGS];
	Datum		values[MD_SQL_MAX_ARGS];
	char		nulls[MD_SQL_MAX_ARGS + 1];
} MdSqlArgs;

/* Append an argument: $1, $2, ... */
extern void md_sql_arg(MdSqlArgs *args, Oid type, Datum value, bool isnull);

/* A snapshot as new as the isolation level allows, registered. */
extern Snapshot md_sql_take_snapshot(void);

/* Run sql; returns the number of rows. args may be NULL. */
extern uint64 md_sql_run(const char *sql, MdSqlArgs *args, Snapshot snapshot);

/* The same with the plan kept in *plan for the life of the process. */
extern uint64 md_sql_run_cached(SPIPlanPtr *plan, const char *sql, MdSqlArgs *args,
								Snapshot snapshot);

/* Run a SELECT into a tuplestore, made in the current memory context. */
extern Tuplestorestate *md_sql_run_into_store(const char *sql, Snapshot snapshot,
											  TupleDesc *tupdesc);

/*
 * Run a SELECT under the active snapshot into a receiver, which may write: the
 * statement is not run in parallel.
 */
extern void md_sql_run_into_dest(const char *sql, DestReceiver *dest);

/* Run a SELECT for its errors: its rows are computed, and thrown away. */
extern void md_sql_run_for_errors(const char *sql, Snapshot snapshot);

/*
 * Run a statement that writes and returns rows, and add these to a store.  It sees
 * what is committed now, so it reads only what nobody else writes.
 */
extern void md_sql_write_into_store(const char *sql, Tuplestorestate *store, TupleDesc *tupdesc);

/* Column attno of row `row` of the last result; string or datum. */
extern char *md_sql_string(uint64 row, int attno);
extern Datum md_sql_datum(uint64 row, int attno, bool *isnull);
extern int64 md_sql_int64(uint64 row, int attno);
extern bool md_sql_bool(uint64 row, int attno);

#endif							/* MD_SQL_RUN_H */
