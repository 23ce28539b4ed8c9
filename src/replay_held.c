/*
 * replay_held.c
 *		What a table holds of the ranges of a replay.
 *
 * One scan of the table for all ranges together, and one look into the dead
 * letters.  Where the bounds of batches say in which blocks the rows of the
 * ranges lie, only those blocks are scanned.  The bounds are believed if they
 * cover the ranges without a hole, were made for the table's present file, and
 * nobody has changed the table directly: an UPDATE may have moved a row to
 * anywhere, and a row that is overlooked would be stored twice.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/block.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "replay.h"
#include "sql_run.h"
#include "stream_state.h"
#include "stream_table.h"

/* Rows fetched at a time. */
#define FETCH_ROWS 10000

/* The column that is filled from the metadata column `source`; NULL if none is. */
static char *
column_of(const MdStream *stream, TupleDesc desc, const char *source)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped &&
			strcmp(md_stream_column_source(stream, NameStr(attribute->attname)), source) == 0)
			return pstrdup(quote_identifier(NameStr(attribute->attname)));
	}
	return NULL;
}

static char *
required_column_of(const MdStream *stream, TupleDesc desc, const char *source)
{
	char	   *column = column_of(stream, desc, source);

	if (column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("cannot replay into table \"%s\" without its column \"%s\"",
						get_rel_name(stream->relid), source),
				 errdetail("It tells which records the table holds.")));
	return column;
}

/* Is the range one of this partition?  topic NULL: it is of the only topic. */
static bool
is_range_of(const MdReplayRange *range, const char *topic, int32 partition)
{
	return range->checkpoint.partition == partition &&
		(topic == NULL || strcmp(range->checkpoint.topic, topic) == 0);
}

/* The ranges as arguments: relid, topics, partitions, froms, tos, filenode. */
static void
range_arguments(MdSqlArgs *args, Oid relid, Oid filenode, const MdReplayRange *ranges, int n)
{
	Datum	   *topics = palloc(sizeof(Datum) * n);
	Datum	   *partitions = palloc(sizeof(Datum) * n);
	Datum	   *froms = palloc(sizeof(Datum) * n);
	Datum	   *tos = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
	{
		topics[i] = CStringGetTextDatum(ranges[i].checkpoint.topic);
		partitions[i] = Int32GetDatum(ranges[i].checkpoint.partition);
		froms[i] = Int64GetDatum(ranges[i].from);
		tos[i] = Int64GetDatum(ranges[i].to);
	}
	md_sql_arg(args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(args, TEXTARRAYOID,
			   PointerGetDatum(construct_array(topics, n, TEXTOID, -1, false, TYPALIGN_INT)), false);
	md_sql_arg(args, INT4ARRAYOID,
			   PointerGetDatum(construct_array(partitions, n, INT4OID, sizeof(int32), true, TYPALIGN_INT)), false);
	md_sql_arg(args, INT8ARRAYOID,
			   PointerGetDatum(construct_array(froms, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), false);
	md_sql_arg(args, INT8ARRAYOID,
			   PointerGetDatum(construct_array(tos, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), false);
	md_sql_arg(args, OIDOID, ObjectIdGetDatum(filenode), false);
}

/* " AND ctid ..." for the blocks that rows of the ranges lie in; "" for all. */
static const char *
blocks_condition(Relation rel, const MdReplayRange *ranges, int n)
{
	MdSqlArgs	args = {0};

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relhassubclass)
		return "";
	range_arguments(&args, RelationGetRelid(rel), md_relation_filenode(rel), ranges, n);
	md_sql_run("WITH r AS (SELECT * FROM unnest($2, $3, $4, $5) AS r (topic, partition, f, t)),"
			   " batch AS ("
			   "  SELECT r.topic, r.partition,"
			   "         coalesce(sum(least(b.next_offset, r.t) - greatest(b.first_offset, r.f)), 0) = r.t - r.f"
			   "         AND bool_and(b.row_count = 0 OR (b.filenode = $6 AND b.last_block IS NOT NULL)) AS known,"
			   "         min(b.first_block) AS first_block, max(b.last_block) AS last_block"
			   "    FROM r LEFT JOIN medallion.batch b"
			   "      ON b.relid = $1 AND b.topic = r.topic AND b.kafka_partition = r.partition"
			   "     AND b.next_offset > r.f AND b.first_offset < r.t"
			   "   GROUP BY r.topic, r.partition, r.f, r.t),"
			   " late AS ("
			   "  SELECT l.filenode = $6 AND l.last_block IS NOT NULL AS known, l.first_block, l.last_block"
			   "    FROM r JOIN medallion.late_batch l"
			   "      ON l.relid = $1 AND l.topic = r.topic AND l.kafka_partition = r.partition"
			   "     AND l.next_offset > r.f AND l.first_offset < r.t"
			   "   WHERE l.row_count > 0),"
			   " bounds AS (SELECT known, first_block, last_block FROM batch"
			   "            UNION ALL SELECT known, first_block, last_block FROM late)"
			   "SELECT (SELECT bool_and(coalesce(known, false)) FROM bounds)"
			   "       AND s.history_changes = s.late_changes,"
			   "       (SELECT min(first_block) FROM bounds), (SELECT max(last_block) FROM bounds)"
			   "  FROM medallion.stream s WHERE s.relid = $1", &args, InvalidSnapshot);
	if (!md_sql_bool(0, 1))
		return "";
	ereport(DEBUG1,
			(errmsg_internal("replay looks for rows in blocks " INT64_FORMAT " to " INT64_FORMAT,
							 md_sql_int64(0, 2), md_sql_int64(0, 3))));
	return psprintf(" AND ctid OPERATOR(pg_catalog.>=) '(%u,0)'::pg_catalog.tid"
					" AND ctid OPERATOR(pg_catalog.<) '(%u,0)'::pg_catalog.tid",
					(BlockNumber) md_sql_int64(0, 2), (BlockNumber) md_sql_int64(0, 3) + 1);
}

/* Run a query for (partition, offset, topic or NULL) and note what it gives. */
static void
note_held(const char *sql, MdReplayRange *ranges, int n)
{
	Portal		portal = SPI_cursor_open_with_args(NULL, sql, 0, NULL, NULL, NULL, false, 0);
	int			r = 0;			/* rows come in runs of one partition */

	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;
			int32		partition = DatumGetInt32(md_sql_datum(i, 1, &isnull));
			int64		offset = md_sql_int64(i, 2);
			char	   *topic = md_sql_string(i, 3);

			for (int tries = 0; tries < n && !is_range_of(&ranges[r], topic, partition); tries++)
				r = (r + 1) % n;
			if (is_range_of(&ranges[r], topic, partition) &&
				offset >= ranges[r].from && offset < ranges[r].to)
				md_offset_set_add(ranges[r].held, offset);
			if (topic != NULL)
				pfree(topic);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
}

/* The query for the rows of the table. */
static char *
table_query(const MdStream *stream, Relation rel, const MdReplayRange *ranges, int n)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *offset = required_column_of(stream, desc, "kafka_offset");
	const char *partition = required_column_of(stream, desc, "kafka_partition");
	const char *topic = column_of(stream, desc, "kafka_topic");
	int64		from = PG_INT64_MAX;
	int64		to = 0;

	for (int i = 0; i < n; i++)
	{
		from = Min(from, ranges[i].from);
		to = Max(to, ranges[i].to);
		/* a pattern: offsets of several topics */
		if (topic == NULL && strcmp(ranges[i].checkpoint.topic, stream->topic) != 0)
			topic = required_column_of(stream, desc, "kafka_topic");
	}
	return psprintf("SELECT %s, %s, %s::pg_catalog.text FROM %s"
					" WHERE %s OPERATOR(pg_catalog.>=) " INT64_FORMAT "::pg_catalog.int8"
					" AND %s OPERATOR(pg_catalog.<) " INT64_FORMAT "::pg_catalog.int8"
					" AND %s IS NOT NULL%s",
					partition, offset, topic != NULL ? topic : "NULL", md_stream_table_name(stream->relid),
					offset, from, offset, to, partition, blocks_condition(rel, ranges, n));
}

void
md_replay_find_held(const MdStream *stream, MdReplayRange *ranges, int n, MemoryContext context)
{
	Relation	rel = table_open(stream->relid, NoLock);
	MdSecurity	saved;

	for (int i = 0; i < n; i++)
		ranges[i].held = md_offset_set_create(context);

	/* as the owner of the extension: a policy of the table must hide no row */
	md_catalog_become_owner(&saved);
	SPI_connect();
	note_held(table_query(stream, rel, ranges, n), ranges, n);
	note_held(psprintf("SELECT l.kafka_partition, l.kafka_offset, l.topic"
					   "  FROM medallion.dead_letter l WHERE l.relid = %u::pg_catalog.oid",
					   stream->relid), ranges, n);
	SPI_finish();
	md_catalog_restore_user(&saved);
	table_close(rel, NoLock);
}
