/*
 * checkpoint.c
 *		Reads and moves checkpoints, and keeps the bounds of batches.
 *
 * A batch begins by moving its checkpoints from the value that its reader
 * expects.  In READ COMMITTED, an UPDATE that had to wait for another writer
 * of the same row looks at the row again: if that one moved it, the expected
 * value is gone and nothing is updated.  So of two workers that both believe
 * they own a partition one stores its batch, and the other learns it before it
 * has stored a row.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "sql_run.h"

/* Milliseconds since 1970 as a timestamp of ours. */
static TimestampTz
timestamp_from_ms(int64 ms)
{
	return ms * 1000 -
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

/* Statements are planned once per process. */
static SPIPlanPtr
prepared(SPIPlanPtr *plan, const char *sql, int n, Oid *types)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare(sql, n, types);
		if (*plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(*plan);
	}
	return *plan;
}

static int64
row_int64(uint64 row, int attno, int64 if_null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attno, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

static int32
row_int32(uint64 row, int attno)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, attno, &isnull));
}

void
md_checkpoint_load(MdIngestStream *stream)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		args[2] = {ObjectIdGetDatum(stream->def->relid), CStringGetTextDatum(stream->def->topic)};
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	prepared(&plan,
			 "SELECT topic, kafka_partition, next_offset, high_watermark, last_offset, last_checksum"
			 "  FROM medallion.checkpoint WHERE relid = $1 AND topic = $2"
			 " ORDER BY kafka_partition", 2, types);
	/* not read-only: checkpoints that this transaction just made count too */
	if (SPI_execute_plan(plan, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read checkpoints");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(stream->context);
		MdPartition *partition = palloc0(sizeof(MdPartition));

		partition->stream = stream;
		partition->topic = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		partition->partition = row_int32(i, 2);
		partition->next_offset = row_int64(i, 3, 0);
		partition->high_watermark = row_int64(i, 4, -1);
		partition->last_offset = row_int64(i, 5, -1);
		partition->last_checksum = row_int64(i, 6, 0);
		partition->proving = partition->last_offset >= 0 &&
			partition->last_offset < partition->next_offset;
		partition->leader = -1;
		partition->eof_offset = -1;
		partition->mirror_offset = -1;
		partition->stuck_at = -1;
		stream->partitions = lappend(stream->partitions, partition);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}

/* The columns of an array of partitions, as arguments of one statement. */
typedef struct PartitionArrays
{
	int			n;
	Datum	   *relids;
	Datum	   *topics;
	Datum	   *partitions;
	Datum	   *expected;
	Datum	   *next;
	Datum	   *watermarks;
	Datum	   *records;
	Datum	   *timestamps;		/* -infinity for none */
	Datum	   *last_offsets;	/* -1 for none */
	Datum	   *last_checksums;
	Datum	   *generations;
} PartitionArrays;

static PartitionArrays
partition_arrays(List *partitions)
{
	PartitionArrays a;
	int			n = list_length(partitions);
	ListCell   *lc;

	a.n = 0;
	a.relids = palloc(n * sizeof(Datum));
	a.topics = palloc(n * sizeof(Datum));
	a.partitions = palloc(n * sizeof(Datum));
	a.expected = palloc(n * sizeof(Datum));
	a.next = palloc(n * sizeof(Datum));
	a.watermarks = palloc(n * sizeof(Datum));
	a.records = palloc(n * sizeof(Datum));
	a.timestamps = palloc(n * sizeof(Datum));
	a.last_offsets = palloc(n * sizeof(Datum));
	a.last_checksums = palloc(n * sizeof(Datum));
	a.generations = palloc(n * sizeof(Datum));
	foreach(lc, partitions)
	{
		MdPartition *p = lfirst(lc);

		a.relids[a.n] = ObjectIdGetDatum(p->stream->def->relid);
		a.topics[a.n] = CStringGetTextDatum(p->topic);
		a.partitions[a.n] = Int32GetDatum(p->partition);
		a.expected[a.n] = Int64GetDatum(p->next_offset);
		a.next[a.n] = Int64GetDatum(p->batch_next);
		a.watermarks[a.n] = Int64GetDatum(Max(p->high_watermark, p->batch_next));
		a.records[a.n] = Int64GetDatum(p->n_records);
		a.timestamps[a.n] = TimestampTzGetDatum(p->max_timestamp_ms < 0 ? DT_NOBEGIN :
												timestamp_from_ms(p->max_timestamp_ms));
		a.last_offsets[a.n] = Int64GetDatum(p->taken_last_offset);
		a.last_checksums[a.n] = Int64GetDatum(p->taken_last_checksum);
		a.generations[a.n] = Int64GetDatum(p->stream->def->generation);
		a.n++;
	}
	return a;
}

static Datum
make_array(Datum *values, int n, Oid type)
{
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_array(values, n, type, len, byval, align));
}

/* The first three arguments: which partitions. */
static void
set_coordinates(const PartitionArrays *a, Datum *args)
{
	args[0] = make_array(a->relids, a->n, OIDOID);
	args[1] = make_array(a->topics, a->n, TEXTOID);
	args[2] = make_array(a->partitions, a->n, INT4OID);
}

/* Set in_batch of those partitions whose number the statement has returned. */
static void
note_found(List *partitions)
{
	ListCell   *lc;

	foreach(lc, partitions)
		((MdPartition *) lfirst(lc))->in_batch = false;
	for (uint64 i = 0; i < SPI_processed; i++)
		((MdPartition *) list_nth(partitions, (int) row_int64(i, 1, 0) - 1))->in_batch = true;
}

void
md_checkpoint_find_locked(List *partitions)
{
	Oid			types[3] = {OIDARRAYOID, TEXTARRAYOID, INT4ARRAYOID};
	Datum		args[3];
	PartitionArrays a;
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	a = partition_arrays(partitions);
	set_coordinates(&a, args);
	if (SPI_execute_with_args("SELECT u.nr FROM medallion.checkpoint c"
							  "       JOIN unnest($1, $2, $3) WITH ORDINALITY AS u (relid, topic, kafka_partition, nr)"
							  "         ON c.relid = u.relid AND c.topic = u.topic AND c.kafka_partition = u.kafka_partition"
							  "   FOR UPDATE OF c SKIP LOCKED",
							  3, types, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock checkpoints");
	note_found(partitions);
	SPI_finish();
	md_catalog_restore_user(&saved);
}

void
md_checkpoint_advance(List *partitions, bool paused_too, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[13] = {OIDARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID,
		INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
	TIMESTAMPTZOID, BOOLOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		args[13];
	PartitionArrays a;
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	a = partition_arrays(partitions);
	set_coordinates(&a, args);
	args[3] = make_array(a.expected, a.n, INT8OID);
	args[4] = make_array(a.next, a.n, INT8OID);
	args[5] = make_array(a.watermarks, a.n, INT8OID);
	args[6] = make_array(a.records, a.n, INT8OID);
	args[7] = make_array(a.timestamps, a.n, TIMESTAMPTZOID);
	args[8] = make_array(a.generations, a.n, INT8OID);
	args[9] = TimestampTzGetDatum(now);
	args[10] = BoolGetDatum(paused_too);
	args[11] = make_array(a.last_offsets, a.n, INT8OID);
	args[12] = make_array(a.last_checksums, a.n, INT8OID);
	prepared(&plan,
			 "UPDATE medallion.checkpoint c"
			 "   SET next_offset = u.next_offset, high_watermark = u.high_watermark,"
			 "       row_count = c.row_count + u.records, updated_at = $10,"
			 "       last_timestamp = CASE WHEN u.ts > '-infinity' THEN u.ts ELSE c.last_timestamp END,"
			 "       last_offset = CASE WHEN u.last_offset >= 0 THEN u.last_offset ELSE c.last_offset END,"
			 "       last_checksum = CASE WHEN u.last_offset >= 0 THEN u.last_checksum ELSE c.last_checksum END"
			 "  FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $12, $13)"
			 "       WITH ORDINALITY AS u (relid, topic, kafka_partition, expected, next_offset,"
			 "          high_watermark, records, ts, generation, last_offset, last_checksum, nr),"
			 "       medallion.stream s"
			 " WHERE c.relid = u.relid AND c.topic = u.topic AND c.kafka_partition = u.kafka_partition"
			 "   AND c.next_offset = u.expected"
			 "   AND s.relid = u.relid AND s.generation = u.generation AND (NOT s.paused OR $11)"
			 " RETURNING u.nr", 13, types);
	if (SPI_execute_plan(plan, args, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not advance checkpoints");

	note_found(partitions);
	SPI_finish();
	md_catalog_restore_user(&saved);
}

void
md_checkpoint_correct(const MdPartition *partition)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[8] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		args[8];
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	args[0] = ObjectIdGetDatum(partition->stream->def->relid);
	args[1] = CStringGetTextDatum(partition->topic);
	args[2] = Int32GetDatum(partition->partition);
	args[3] = Int64GetDatum(partition->batch_next);
	args[4] = Int64GetDatum(partition->n_unstored);
	args[5] = Int64GetDatum(partition->n_dead);
	args[6] = Int64GetDatum(partition->kept_offset);
	args[7] = Int64GetDatum(partition->kept_checksum);
	/*
	 * The batch began with row_count raised by all its records.  The checksum
	 * of a record that was not stored is of no use.
	 */
	prepared(&plan,
			 "UPDATE medallion.checkpoint"
			 "   SET next_offset = $4, row_count = row_count - $5, dead_count = dead_count + $6,"
			 "       last_offset = CASE WHEN last_offset < $4 THEN last_offset WHEN $7 >= 0 THEN $7 END,"
			 "       last_checksum = CASE WHEN last_offset < $4 THEN last_checksum ELSE $8 END"
			 " WHERE relid = $1 AND topic = $2 AND kafka_partition = $3", 8, types);
	if (SPI_execute_plan(plan, args, NULL, false, 0) != SPI_OK_UPDATE || SPI_processed != 1)
		elog(ERROR, "could not correct a checkpoint");
	SPI_finish();
	md_catalog_restore_user(&saved);
}

void
md_checkpoint_record_batch(const MdIngestStream *stream, const MdBronzeExtent *extent,
						   TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[11] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID,
	OIDOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	MdSecurity	saved;
	ListCell   *lc;

	md_catalog_become_owner(&saved);
	SPI_connect();
	prepared(&plan,
			 "INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset,"
			 "   row_count, filenode, first_block, last_block, max_timestamp, stored_at)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", 11, types);
	foreach(lc, stream->partitions)
	{
		MdPartition *p = lfirst(lc);
		Datum		args[11];
		char		nulls[12] = "           ";

		if (!p->in_batch || p->batch_next == p->next_offset)
			continue;
		args[0] = ObjectIdGetDatum(stream->def->relid);
		args[1] = CStringGetTextDatum(p->topic);
		args[2] = Int32GetDatum(p->partition);
		args[3] = Int64GetDatum(p->next_offset);
		args[4] = Int64GetDatum(p->batch_next);
		args[5] = Int64GetDatum(p->n_records - p->n_unstored);
		args[6] = ObjectIdGetDatum(extent->filenode);
		args[7] = Int64GetDatum((int64) extent->first_block);
		args[8] = Int64GetDatum((int64) extent->last_block);
		args[9] = TimestampTzGetDatum(p->max_timestamp_ms < 0 ? 0 :
									  timestamp_from_ms(p->max_timestamp_ms));
		args[10] = TimestampTzGetDatum(now);
		if (p->n_records == p->n_unstored)
			/* nothing stored: an empty range of blocks */
			args[7] = args[8] = Int64GetDatum(0), nulls[7] = nulls[8] = 'n';
		else if (!extent->has_blocks)
			nulls[6] = nulls[7] = nulls[8] = 'n';
		if (p->max_timestamp_ms < 0)
			nulls[9] = 'n';
		if (SPI_execute_plan(plan, args, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not record a batch");
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}

bool
md_checkpoint_record_gap(const MdPartition *partition, int64 to, const char *reason)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[7] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID, INT8OID};
	Datum		args[7];
	MdSecurity	saved;
	bool		recorded;

	md_catalog_become_owner(&saved);
	SPI_connect();
	args[0] = ObjectIdGetDatum(partition->stream->def->relid);
	args[1] = CStringGetTextDatum(partition->topic);
	args[2] = Int32GetDatum(partition->partition);
	args[3] = Int64GetDatum(partition->next_offset);
	args[4] = Int64GetDatum(to);
	args[5] = CStringGetTextDatum(reason);
	args[6] = Int64GetDatum(partition->stream->def->generation);
	prepared(&plan,
			 "WITH moved AS ("
			 "  UPDATE medallion.checkpoint c SET next_offset = $5, updated_at = now(), last_offset = NULL"
			 "   WHERE c.relid = $1 AND c.topic = $2 AND c.kafka_partition = $3 AND c.next_offset = $4"
			 "     AND EXISTS (SELECT FROM medallion.stream s"
			 "                  WHERE s.relid = $1 AND s.generation = $7 AND NOT s.paused)"
			 "  RETURNING 1)"
			 "INSERT INTO medallion.gap (relid, topic, kafka_partition, first_offset, next_offset, reason)"
			 " SELECT $1, $2, $3, $4, $5, $6 FROM moved", 7, types);
	if (SPI_execute_plan(plan, args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record a gap");
	recorded = SPI_processed == 1;
	SPI_finish();
	md_catalog_restore_user(&saved);
	return recorded;
}

void
md_stream_set_status(Oid relid, const char *topic, int failures, const char *sqlstate,
					 const char *message, TimestampTz retry_at)
{
	Oid			types[6] = {OIDOID, TEXTOID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	char		nulls[6] = {' ', ' ', ' ', sqlstate ? ' ' : 'n', ' ', failures > 0 ? ' ' : 'n'};
	Datum		args[6] = {0};
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(topic);
	args[2] = Int32GetDatum(failures);
	if (failures == 0 && message == NULL)
	{
		SPI_execute_with_args("DELETE FROM medallion.stream_status WHERE relid = $1 AND topic = $2",
							  2, types, args, NULL, false, 0);
	}
	else
	{
		if (sqlstate != NULL)
			args[3] = CStringGetTextDatum(sqlstate);
		args[4] = CStringGetTextDatum(message);
		args[5] = TimestampTzGetDatum(retry_at);
		/* a topic that is gone meanwhile is in no trouble */
		SPI_execute_with_args("INSERT INTO medallion.stream_status AS s"
							  "   (relid, topic, failures, sqlstate, message, since, retry_at)"
							  " SELECT $1, $2, $3, $4, $5, now(), $6"
							  "  WHERE EXISTS (SELECT FROM medallion.stream d"
							  "                 WHERE d.relid = $1"
							  "                   AND (d.topic = $2 OR EXISTS (SELECT FROM medallion.stream_topic t"
							  "                                                 WHERE t.relid = $1 AND t.topic = $2"
							  "                                                   AND t.gone_at IS NULL)))"
							  " ON CONFLICT (relid, topic) DO UPDATE SET failures = excluded.failures,"
							  "   sqlstate = excluded.sqlstate, message = excluded.message,"
							  "   since = CASE WHEN (s.failures = 0) = (excluded.failures = 0) THEN s.since ELSE excluded.since END,"
							  "   retry_at = excluded.retry_at",
							  6, types, args, nulls, false, 0);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}

void
md_stream_set_retry(Oid relid, const char *topic, int failures, TimestampTz retry_at)
{
	Oid			types[4] = {OIDOID, TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum		args[4];
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(topic);
	args[2] = Int32GetDatum(failures);
	args[3] = TimestampTzGetDatum(retry_at);
	SPI_execute_with_args("UPDATE medallion.stream_status SET failures = $3, retry_at = $4"
						  " WHERE relid = $1 AND topic = $2", 4, types, args, NULL, false, 0);
	SPI_finish();
	md_catalog_restore_user(&saved);
}

char *
md_stream_lock_holders(Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	char	   *holders;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_run("SELECT medallion.lock_holders($1::pg_catalog.regclass)", &args, InvalidSnapshot);
	holders = md_sql_string(0, 1);
	if (holders != NULL)
		holders = MemoryContextStrdup(context, holders);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return holders;
}
