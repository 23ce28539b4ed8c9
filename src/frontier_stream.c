/*
 * frontier_stream.c
 *		What is new in a streaming table, and what it was before.
 *
 * New rows are those between two checkpoints, and late rows, which were stored
 * behind the first of them since:
 *
 *		topic, partition	 read up to						   now at
 *		-----------*--*--------|================================|------->
 *				   late: these		new: kafka_offset in [.., ..)
 *
 * Neither needs an index to be found: medallion.batch and late_batch say in which
 * blocks rows were put, so a scan by ctid reads them alone.  Where these bounds
 * do not cover all that is new, or the table was rewritten since, the whole table
 * is scanned; the result is the same.
 *
 * Checkpoints have one writer at a time and are numbers.  Late rows come from any
 * session, and one that began earlier may commit later: which batches of them a
 * view has read is a read point.  Batches are counted, too, and what is found
 * beyond the point must make up the difference.  Where it does not, ids of
 * transactions mean nothing here (a database was restored), or the offsets were
 * given up, and the view is recomputed.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/block.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "frontier.h"
#include "frontier_captured.h"
#include "frontier_stream.h"
#include "refresh_read.h"
#include "sql_run.h"

/* Offsets $1 (read) and $2 (now) side by side, per topic and partition. */
#define OFFSET_RANGES \
	"SELECT topic, partition::int AS partition, o.next_offset AS read, n.next_offset AS now" \
	"  FROM (SELECT t.key AS topic, p.key AS partition, p.value::bigint AS next_offset" \
	"          FROM jsonb_each($1) t, jsonb_each_text(t.value) p) o" \
	"       FULL JOIN" \
	"       (SELECT t.key AS topic, p.key AS partition, p.value::bigint AS next_offset" \
	"          FROM jsonb_each($2) t, jsonb_each_text(t.value) p) n" \
	"       USING (topic, partition)"

/* Names of the metadata columns of a streaming table, quoted. */
typedef struct StreamColumns
{
	char	   *partition;
	char	   *offset;
	char	   *topic;			/* NULL: not declared */
} StreamColumns;

/* Late rows of a partition that have not been read, of one batch or several. */
typedef struct LateRows
{
	char	   *topic;
	int			partition;
	int64		first_offset;	/* bounds of the offsets */
	int64		next_offset;
	char	   *offsets;		/* an int8multirange */
	int64		rows;
	int64		batches;
	bool		placed;			/* the blocks are known */
	int64		first_block;
	int64		last_block;
} LateRows;

/* Blocks in which all that is new lies, none if first > last. */
typedef struct Blocks
{
	bool		known;
	int64		first;
	int64		last;
	int64		rows;
} Blocks;

/* Metadata columns may have been renamed. */
static StreamColumns
load_stream_columns(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	StreamColumns columns = {0};
	MdSqlArgs	args = {0};
	char	  **targets[] = {&columns.partition, &columns.offset, &columns.topic};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_run_cached(&plan,
					  "SELECT quote_ident(a.attname), m.n::bigint"
					  "  FROM pg_attribute a"
					  "       LEFT JOIN medallion.stream_column c"
					  "              ON c.relid = a.attrelid AND c.column_name = a.attname,"
					  "       LATERAL (VALUES ('kafka_partition', 1), ('kafka_offset', 2),"
					  "                       ('kafka_topic', 3)) m(name, n)"
					  " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
					  "   AND coalesce(c.source_name, a.attname) = m.name",
					  &args, snapshot);
	for (uint64 i = 0; i < SPI_processed; i++)
		*targets[md_sql_int64(i, 2) - 1] = md_sql_string(i, 1);
	return columns;
}

/* Arguments of OFFSET_RANGES. */
static void
range_args(MdSqlArgs *args, MdSource *source)
{
	args->count = 0;
	md_sql_arg(args, JSONBOID, JsonbPGetDatum(source->read_frontier), false);
	md_sql_arg(args, JSONBOID, JsonbPGetDatum(source->frontier), false);
}

/*
 * Append "kafka_partition = 0 AND kafka_offset >= 10 AND kafka_offset < 20"
 * and so on, with OR between; a bound of -1 is none.
 */
static void
append_range(StringInfo sql, const StreamColumns *columns, const char *topic, int partition,
			 int64 from, int64 to)
{
	appendStringInfo(sql, "%s(", sql->len > 0 ? " OR " : "");
	if (columns->topic != NULL)
		appendStringInfo(sql, "%s = %s AND ", columns->topic, quote_literal_cstr(topic));
	appendStringInfo(sql, "%s = %d", columns->partition, partition);
	if (from >= 0)
		appendStringInfo(sql, " AND %s >= " INT64_FORMAT, columns->offset, from);
	appendStringInfo(sql, " AND %s < " INT64_FORMAT ")", columns->offset, to);
}

/* The same for late rows. */
static void
append_late(StringInfo sql, const StreamColumns *columns, const LateRows *late)
{
	appendStringInfo(sql, "%s(", sql->len > 0 ? " OR " : "");
	if (columns->topic != NULL)
		appendStringInfo(sql, "%s = %s AND ", columns->topic, quote_literal_cstr(late->topic));
	/* the bounds are for an index; of one range they say it all */
	appendStringInfo(sql, "%s = %d AND %s >= " INT64_FORMAT " AND %s < " INT64_FORMAT,
					 columns->partition, late->partition, columns->offset, late->first_offset,
					 columns->offset, late->next_offset);
	if (strchr(late->offsets, '[') != strrchr(late->offsets, '['))
		appendStringInfo(sql, " AND %s OPERATOR(pg_catalog.<@) '%s'::pg_catalog.int8multirange",
						 columns->offset, late->offsets);
	appendStringInfoChar(sql, ')');
}

static LateRows *
late_from_row(uint64 row)
{
	LateRows   *late = palloc(sizeof(LateRows));

	late->topic = md_sql_string(row, 1);
	late->partition = (int) md_sql_int64(row, 2);
	late->first_offset = md_sql_int64(row, 3);
	late->next_offset = md_sql_int64(row, 4);
	late->offsets = md_sql_string(row, 5);
	late->rows = md_sql_int64(row, 6);
	late->batches = md_sql_int64(row, 7);
	late->placed = md_sql_bool(row, 8);
	late->first_block = md_sql_int64(row, 9);
	late->last_block = md_sql_int64(row, 10);
	return late;
}

/*
 * The late rows that have not been read (of LateRows), by partition.  False if
 * they are not known.
 */
static bool
load_late(MdSource *source, Snapshot snapshot, List **late)
{
	static SPIPlanPtr plan = NULL;
	int64		batches = source->late_batches - source->read_late_batches;
	MdSqlArgs	args = {0};
	uint64		rows;

	*late = NIL;
	if (batches == 0)
		return true;
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(md_frontier_filenode(source->relid)), false);
	md_sql_arg(&args, JSONBOID, JsonbPGetDatum(source->late_point), source->late_point == NULL);
	rows = md_sql_run_cached(&plan,
							 "SELECT b.topic, b.kafka_partition::bigint, min(b.first_offset), max(b.next_offset),"
							 "       range_agg(b.offsets)::text, sum(b.row_count)::bigint, count(*),"
							 "       coalesce(bool_and(b.filenode = $2 AND b.last_block IS NOT NULL), false),"
							 "       min(b.first_block), max(b.last_block)"
							 "  FROM (SELECT ($3 ->> 'snapshot')::pg_snapshot AS snapshot,"
							 "               split_part($3 ->> 'own', ':', 1)::xid8 AS own,"
							 "               split_part($3 ->> 'own', ':', 2)::bigint AS command) p,"
							 "       medallion.late_batch b"
							 " WHERE b.relid = $1 AND b.row_count > 0"
							 "   AND b.xid >= coalesce(pg_snapshot_xmin(p.snapshot), '0')"
							 "   AND CASE WHEN b.xid = p.own THEN b.cmin::text::bigint >= p.command"
							 "            ELSE pg_visible_in_snapshot(b.xid, p.snapshot) IS NOT TRUE END"
							 " GROUP BY b.topic, b.kafka_partition ORDER BY 1, 2",
							 &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		*late = lappend(*late, late_from_row(i));
		batches -= ((LateRows *) llast(*late))->batches;
	}
	return batches == 0;
}

/* Widen blocks by others. */
static void
add_blocks(Blocks *blocks, const Blocks *more)
{
	blocks->known &= more->known;
	blocks->rows += more->rows;
	if (more->first > more->last)
		return;
	if (blocks->first > blocks->last)
	{
		blocks->first = more->first;
		blocks->last = more->last;
		return;
	}
	blocks->first = Min(blocks->first, more->first);
	blocks->last = Max(blocks->last, more->last);
}

/* Where the rows between the checkpoints are. */
static void
add_batches(MdSource *source, Snapshot snapshot, Blocks *blocks)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};
	Blocks		these;
	bool		isnull;

	range_args(&args, source);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(md_frontier_filenode(source->relid)), false);
	md_sql_run_cached(&plan,
					  "WITH r AS (SELECT * FROM (" OFFSET_RANGES ") x"
					  "            WHERE coalesce(x.read, 0) < x.now),"
					  " b AS (SELECT r.topic, r.partition, r.read, r.now,"
					  "              b.first_offset, b.next_offset, b.row_count, b.first_block, b.last_block,"
					  "              b.row_count = 0 OR (b.filenode = $4 AND b.last_block IS NOT NULL) AS placed,"
					  "              coalesce(max(b.next_offset) OVER w, r.read, b.first_offset) >= b.first_offset AS joined"
					  "         FROM r LEFT JOIN LATERAL ("
					  "              SELECT first_offset, next_offset, row_count, filenode, first_block, last_block"
					  "                FROM medallion.batch"
					  "               WHERE relid = $3 AND topic = r.topic AND kafka_partition = r.partition"
					  "                 AND next_offset > coalesce(r.read, 0) AND first_offset < r.now"
					  "              UNION ALL"
					  "              SELECT first_offset, next_offset, 0, NULL, NULL, NULL"
					  "                FROM medallion.gap"
					  "               WHERE relid = $3 AND topic = r.topic AND kafka_partition = r.partition"
					  "                 AND next_offset > coalesce(r.read, 0) AND first_offset < r.now"
					  /* what was a gap, and was replayed: rows are counted by add_late() */
					  "              UNION ALL"
					  "              SELECT lower(o), upper(o), 0, NULL, NULL, NULL"
					  "                FROM medallion.late_batch, unnest(offsets) o"
					  "               WHERE relid = $3 AND topic = r.topic AND kafka_partition = r.partition"
					  "                 AND next_offset > coalesce(r.read, 0) AND first_offset < r.now"
					  "                 AND upper(o) > coalesce(r.read, 0) AND lower(o) < r.now) b ON true"
					  "       WINDOW w AS (PARTITION BY r.topic, r.partition ORDER BY b.first_offset, b.next_offset"
					  "                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),"
					  " p AS (SELECT bool_and(placed AND joined) IS TRUE AND max(next_offset) >= min(now)"
					  "              AND (min(read) IS NOT NULL OR min(first_offset) <="
					  "                   (SELECT c.start_offset FROM medallion.checkpoint c"
					  "                     WHERE c.relid = $3 AND c.topic = b.topic"
					  "                       AND c.kafka_partition = b.partition)) AS covered,"
					  "              sum(row_count)::bigint AS rows, min(first_block) AS first_block,"
					  "              max(last_block) AS last_block"
					  "         FROM b GROUP BY topic, partition)"
					  "SELECT bool_and(covered IS TRUE), sum(rows)::bigint, min(first_block), max(last_block)"
					  "  FROM p", &args, snapshot);
	these.known = md_sql_bool(0, 1);
	these.rows = md_sql_int64(0, 2);
	these.first = md_sql_int64(0, 3);
	these.last = md_sql_int64(0, 4);
	/* nothing but dead letters */
	(void) md_sql_datum(0, 4, &isnull);
	if (isnull)
		these.last = -1;
	add_blocks(blocks, &these);
}

/* The same of late rows. */
static void
add_late(List *late, Blocks *blocks)
{
	ListCell   *lc;

	foreach(lc, late)
	{
		LateRows   *rows = lfirst(lc);
		Blocks		these = {rows->placed, rows->first_block, rows->last_block, rows->rows};

		add_blocks(blocks, &these);
	}
}

/*
 * The blocks that hold all that is new, as " AND ctid ..."; NULL with a note
 * where that is not known.
 */
static char *
block_condition(MdSource *source, bool has_batches, List *late, Snapshot snapshot, MdDelta *delta)
{
	char	   *name = md_read_relation_name(source->relid);
	Blocks		blocks = {true, 0, -1, 0};

	if (get_rel_relkind(source->relid) == RELKIND_PARTITIONED_TABLE)
	{
		delta->note = psprintf("%s is partitioned: its new rows were looked for by offset, which an index on that makes cheap",
							   name);
		return NULL;
	}
	if (has_batches)
		add_batches(source, snapshot, &blocks);
	add_late(late, &blocks);
	if (!blocks.known)
	{
		delta->note = psprintf("all of %s was scanned: where its new rows are is not known", name);
		return NULL;
	}
	delta->rows = blocks.rows;
	return psprintf(" AND ctid >= '(%u,0)'::pg_catalog.tid AND ctid < '(%u,0)'::pg_catalog.tid",
					(BlockNumber) blocks.first, (BlockNumber) (blocks.last + 1));
}

/* Rows below the stored frontier, but for late ones that came since. */
static char *
read_rows(MdSource *source, const StreamColumns *columns, List *late, Snapshot snapshot)
{
	StringInfoData ranges;
	StringInfoData unread;
	MdSqlArgs	args = {0};
	uint64		rows;
	ListCell   *lc;

	initStringInfo(&ranges);
	/* history that was there before the first record */
	appendStringInfo(&ranges, "%s IS NULL", columns->offset);
	range_args(&args, source);
	rows = md_sql_run(OFFSET_RANGES " ORDER BY 1, 2", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int			partition = DatumGetInt32(md_sql_datum(i, 2, &isnull));
		int64		read = DatumGetInt64(md_sql_datum(i, 3, &isnull));

		if (!isnull)
			append_range(&ranges, columns, md_sql_string(i, 1), partition, -1, read);
	}
	if (late == NIL)
		return ranges.data;
	initStringInfo(&unread);
	foreach(lc, late)
		append_late(&unread, columns, lfirst(lc));
	return psprintf("(%s) AND (%s) IS NOT TRUE", ranges.data, unread.data);
}

/* Offsets between the checkpoints, appended; false with why_full if there are others. */
static bool
append_news(MdSource *source, const StreamColumns *columns, Snapshot snapshot, StringInfo ranges,
			MdDelta *delta)
{
	MdSqlArgs	args = {0};
	int			topics = 0;
	char	   *last_topic = NULL;
	char	   *name = md_read_relation_name(source->relid);
	uint64		rows;

	range_args(&args, source);
	rows = md_sql_run(OFFSET_RANGES " ORDER BY 1, 2", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *topic = md_sql_string(i, 1);
		bool		isnull;
		int			partition = DatumGetInt32(md_sql_datum(i, 2, &isnull));
		bool		never_read;
		bool		gone;
		int64		read = DatumGetInt64(md_sql_datum(i, 3, &never_read));
		int64		now = DatumGetInt64(md_sql_datum(i, 4, &gone));

		if (last_topic == NULL || strcmp(last_topic, topic) != 0)
			topics++;
		last_topic = topic;
		if (gone || (!never_read && now < read))
		{
			delta->why_full = psprintf("partition %d of topic \"%s\" of %s was set back",
									   partition, topic, name);
			return false;
		}
		if (never_read || read < now)
			append_range(ranges, columns, topic, partition, never_read ? -1 : read, now);
	}
	if (topics > 1 && columns->topic == NULL)
		delta->why_full = psprintf("%s reads several topics and has no column kafka_topic to tell them apart",
								   name);
	return delta->why_full == NULL;
}

/* The new rows, in the current context. */
static void
find_news(MdSource *source, Snapshot snapshot, MdDelta *delta)
{
	StreamColumns columns = load_stream_columns(source->relid, snapshot);
	StringInfoData ranges;
	char	   *blocks;
	char	   *name = md_read_relation_name(source->relid);
	bool		has_batches;
	List	   *late;
	ListCell   *lc;

	if (source->history_changes != source->read_history_changes)
	{
		delta->why_full = psprintf("%s was changed by other means than ingest", name);
		return;
	}
	if (columns.partition == NULL || columns.offset == NULL)
		elog(ERROR, "streaming table %s lacks its metadata columns", name);
	if (!load_late(source, snapshot, &late))
	{
		delta->why_full = psprintf("which late rows of %s are new is not known", name);
		return;
	}
	initStringInfo(&ranges);
	if (!append_news(source, &columns, snapshot, &ranges, delta))
		return;
	has_batches = ranges.len > 0;
	foreach(lc, late)
		append_late(&ranges, &columns, lfirst(lc));
	if (ranges.len == 0)
	{
		delta->condition = "false";
		delta->rows = 0;
		return;
	}
	delta->old_condition = read_rows(source, &columns, late, snapshot);
	blocks = block_condition(source, has_batches, late, snapshot, delta);
	if (blocks == NULL)
		delta->condition = psprintf("(%s)", ranges.data);
	else

		/*
		 * Offsets past the column's statistics would be estimated as one row,
		 * and planned so; nearly all rows of these blocks are wanted, which
		 * an expression without statistics says better.
		 */
		delta->condition = psprintf("CASE WHEN %s THEN true ELSE false END%s", ranges.data, blocks);
}

/* A string in another context. */
static char *
kept(const char *string, MemoryContext context)
{
	return string ? MemoryContextStrdup(context, string) : NULL;
}

void
md_frontier_stream_delta(MdSource *source, Snapshot snapshot, MdDelta *delta, MemoryContext context)
{
	find_news(source, snapshot, delta);
	delta->condition = kept(delta->condition, context);
	delta->old_condition = kept(delta->old_condition, context);
	delta->note = kept(delta->note, context);
	/* why_full is the caller's to keep */
}

char *
md_frontier_stream_read_rows(MdSource *source, Snapshot snapshot, MemoryContext context)
{
	StreamColumns columns = load_stream_columns(source->relid, snapshot);
	List	   *late;

	if (!load_late(source, snapshot, &late))
		md_frontier_report_unknown(source->relid, "It has late rows of which it is not known whether they had been read.");
	return kept(read_rows(source, &columns, late, snapshot), context);
}
