/*
 * dead_letter_requeue.c
 *		The ways out of the dead letters: into the table, or away.
 *
 *	  ids -> tables, locked by oid -> letters, locked by id -> slices
 *	          -> records -> late_rows.c -> stored: the letter is deleted
 *	                                    -> not: it stays, with the new error
 *
 * Once only: a letter is deleted in the transaction that stores its record,
 * and both begin by locking it.  Who waits for that lock finds the letter gone
 * afterwards, and passes it over.  Locks are taken in one order, so that calls
 * with the same letters cannot deadlock.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "dead_letter.h"
#include "dead_letter_record.h"
#include "dead_letter_requeue.h"
#include "debug_point.h"
#include "late_rows.h"
#include "sql_run.h"
#include "stream_state.h"
#include "stream_table.h"

/* Letters per slice, and the bytes after which one is full. */
#define SLICE_LETTERS	1000
#define SLICE_BYTES		(16 * 1024 * 1024)

/* A letter that is locked. */
typedef struct Letter
{
	int64		id;
	int64		bytes;
} Letter;

static ArrayType *
make_ids(const int64 *ids, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	array = construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	pfree(values);
	return array;
}

/* Tables that the letters belong to, in ascending order. */
static List *
tables_of(ArrayType *ids)
{
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	MemoryContext context = CurrentMemoryContext;
	List	   *relids = NIL;
	uint64		n;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, INT8ARRAYOID, PointerGetDatum(ids), false);
	n = md_sql_run("SELECT DISTINCT l.relid::pg_catalog.oid FROM medallion.dead_letter l"
				   " WHERE l.dead_letter_id = ANY ($1) ORDER BY 1", &args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids = lappend_oid(relids, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return relids;
}

/*
 * Lock the tables of the letters, in their order, which keeps definitions as
 * they are.  Tables that are dropped meanwhile take their letters along.
 */
static List *
lock_tables(ArrayType *ids)
{
	List	   *relids = tables_of(ids);
	ListCell   *lc;

	/* first who may, so that nobody waits for locks of others */
	foreach(lc, relids)
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))))
			md_stream_table_check_owner(lfirst_oid(lc));
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);

		LockRelationOid(relid, RowExclusiveLock);
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		{
			md_stream_table_check_owner(relid);
			md_late_rows_lock(relid, ShareLock);
		}
		else
			relids = foreach_delete_current(relids, lc);
	}
	return relids;
}

/* Lock the letters of one table; *n of them are still there. */
static Letter *
lock_letters(ArrayType *ids, Oid relid, int *n)
{
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	MemoryContext context = CurrentMemoryContext;
	Letter	   *letters;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, INT8ARRAYOID, PointerGetDatum(ids), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	*n = (int) md_sql_run("SELECT l.dead_letter_id,"
						  "       coalesce(octet_length(l.payload), 0)::bigint + coalesce(octet_length(l.kafka_key), 0)"
						  "  FROM medallion.dead_letter l"
						  " WHERE l.dead_letter_id = ANY ($1) AND l.relid = $2"
						  " ORDER BY l.dead_letter_id FOR UPDATE", &args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	letters = palloc(sizeof(Letter) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		letters[i].id = md_sql_int64(i, 1);
		letters[i].bytes = md_sql_int64(i, 2);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return letters;
}

/* Delete letters whose records are stored. */
static void
delete_letters(const int64 *ids, int n)
{
	Oid			argtypes[1] = {INT8ARRAYOID};
	Datum		args[1] = {PointerGetDatum(make_ids(ids, n))};

	if (md_stream_write("DELETE FROM medallion.dead_letter WHERE dead_letter_id = ANY ($1)",
						1, argtypes, args) != n)
		elog(ERROR, "could not delete dead letters that were requeued");
}

/* A letter failed again: it keeps its bytes, and has a new error. */
static void
keep_letter(int64 id, const MdDecodeError *error, bool corrected)
{
	Oid			argtypes[4] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		args[4];
	const char *detail = error->detail != NULL ? error->detail : "";

	if (corrected)
		detail = psprintf("%s%sThis is the error of a payload that was given to requeue().",
						  detail, detail[0] != '\0' ? " " : "");
	args[0] = Int64GetDatum(id);
	args[1] = CStringGetTextDatum(unpack_sql_state(error->sqlstate));
	args[2] = md_dead_letter_text(error->message);
	args[3] = md_dead_letter_text(detail);
	if (md_stream_write("UPDATE medallion.dead_letter"
						"   SET sqlstate = $2, message = $3, detail = nullif($4, ''),"
						"       attempts = attempts + 1, retried_at = now()"
						" WHERE dead_letter_id = $1", 4, argtypes, args) != 1)
		elog(ERROR, "could not update dead letter " INT64_FORMAT, id);
}

/* Requeue one slice of a table's letters. */
static void
requeue_slice(MdLateRows *late, ArrayType *ids, bytea *payload)
{
	MdRecord   *records;
	int64	   *record_ids;
	int			n = md_dead_letter_read(ids, &records, &record_ids);
	int			n_stored = 0;
	bool	   *failed = palloc0(sizeof(bool) * Max(n, 1));
	ListCell   *lc;

	if (payload != NULL && n == 1)
	{
		records[0].payload = VARDATA_ANY(payload);
		records[0].payload_len = VARSIZE_ANY_EXHDR(payload);
	}
	foreach(lc, md_late_rows_store(late, records, n))
	{
		MdBadRecord *bad = lfirst(lc);

		failed[bad->index] = true;
		keep_letter(record_ids[bad->index], &bad->error, payload != NULL);
	}
	for (int i = 0; i < n; i++)
		if (!failed[i])
			record_ids[n_stored++] = record_ids[i];
	delete_letters(record_ids, n_stored);
	MD_DEBUG_POINT("requeue-slice");
}

/* Requeue the letters of one table; returns the number of records stored. */
static int64
requeue_table(Oid relid, ArrayType *ids, bytea *payload)
{
	MemoryContext slice_context = AllocSetContextCreate(CurrentMemoryContext, "requeue slice",
														ALLOCSET_DEFAULT_SIZES);
	int			n;
	Letter	   *letters = lock_letters(ids, relid, &n);
	MdLateRows *late;
	int64		stored;

	MD_DEBUG_POINT("requeue-locked");
	if (n == 0)
		return 0;
	late = md_late_rows_begin(md_stream_load(relid), CurrentMemoryContext);
	for (int from = 0; from < n;)
	{
		MemoryContext old;
		int64		slice[SLICE_LETTERS];
		int64		bytes = 0;
		int			size = 0;

		CHECK_FOR_INTERRUPTS();
		while (from < n && size < SLICE_LETTERS && bytes < SLICE_BYTES)
		{
			bytes += letters[from].bytes;
			slice[size++] = letters[from++].id;
		}
		old = MemoryContextSwitchTo(slice_context);
		requeue_slice(late, make_ids(slice, size), payload);
		MemoryContextSwitchTo(old);
		MemoryContextReset(slice_context);
	}
	stored = md_late_rows_end(late);
	MemoryContextDelete(slice_context);
	if (stored < n)
		ereport(NOTICE,
				(errmsg("%d of %d dead letters of table \"%s\" failed again",
						n - (int) stored, n, get_rel_name(relid)),
				 errdetail("They stay, with their new errors, in medallion.dead_letters.")));
	return stored;
}

int64
md_dead_letter_requeue(ArrayType *ids, bytea *payload)
{
	int64		stored = 0;
	ListCell   *lc;

	foreach(lc, lock_tables(ids))
		stored += requeue_table(lfirst_oid(lc), ids, payload);
	return stored;
}

/* Turn letters, which are locked, into gaps. */
static int64
letters_to_gaps(ArrayType *ids)
{
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	int64		n;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, INT8ARRAYOID, PointerGetDatum(ids), false);
	md_sql_run("SELECT medallion.dead_letters_to_gaps($1, 'discarded')", &args, InvalidSnapshot);
	n = md_sql_int64(0, 1);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return n;
}

int64
md_dead_letter_discard(ArrayType *ids)
{
	int64		discarded = 0;
	ListCell   *lc;

	foreach(lc, lock_tables(ids))
	{
		int			n;
		Letter	   *letters = lock_letters(ids, lfirst_oid(lc), &n);
		int64	   *locked = palloc(sizeof(int64) * Max(n, 1));

		for (int i = 0; i < n; i++)
			locked[i] = letters[i].id;
		discarded += letters_to_gaps(make_ids(locked, n));
	}
	return discarded;
}
