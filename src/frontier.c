/*
 * frontier.c
 *		How far a view has read its sources, and what is new in them.
 *
 * New rows of a streaming table are those between two checkpoints:
 *
 *		topic, partition	 read up to						   now at
 *		-----------------------|================================|------->
 *								 new: kafka_offset in [.., ..)
 *
 * They need no index to be found: medallion.batch says in which blocks each
 * batch was put, so a scan by ctid reads them alone.  Where these bounds do not
 * cover all that is new, or the table was rewritten since, the whole table is
 * scanned; the result is the same.
 *
 * New rows of an append-only view are those that its refreshes since inserted:
 * medallion.view_change has their transaction and the bounds of their place.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "access/table.h"

#include "capture.h"
#include "catalog.h"
#include "frontier.h"
#include "frontier_captured.h"
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

static Jsonb *
copy_jsonb(uint64 row, int attno, MemoryContext context)
{
	bool		isnull;
	Datum		value = md_sql_datum(row, attno, &isnull);
	Jsonb	   *json;
	Jsonb	   *copy;

	if (isnull)
		return NULL;
	json = DatumGetJsonbP(value);
	copy = MemoryContextAlloc(context, VARSIZE(json));
	memcpy(copy, json, VARSIZE(json));
	return copy;
}

static MdSourceKind
kind_by_name(const char *name)
{
	if (strcmp(name, "streaming table") == 0)
		return MD_SOURCE_STREAM;
	if (strcmp(name, "materialized view") == 0)
		return MD_SOURCE_VIEW;
	if (strcmp(name, "view") == 0)
		return MD_SOURCE_INLINED;
	return MD_SOURCE_TABLE;
}

List *
md_frontier_load(Oid view, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	List	   *sources = NIL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run_cached(&plan,
							 "SELECT source::oid, kind, read_frontier, frontier,"
							 "       read_history_changes, history_changes, rewritten_number, changed"
							 "  FROM medallion.source_position WHERE relid = $1 ORDER BY 1",
							 &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MdSource   *source = MemoryContextAllocZero(context, sizeof(MdSource));
		MemoryContext old;
		bool		isnull;

		source->relid = DatumGetObjectId(md_sql_datum(i, 1, &isnull));
		source->kind = kind_by_name(md_sql_string(i, 2));
		source->read_frontier = copy_jsonb(i, 3, context);
		source->frontier = copy_jsonb(i, 4, context);
		source->read_history_changes = md_sql_int64(i, 5);
		source->history_changes = md_sql_int64(i, 6);
		source->rewritten_number = md_sql_int64(i, 7);
		source->changed = md_sql_bool(i, 8);
		source->is_captured = source->frontier != NULL && source->kind != MD_SOURCE_STREAM &&
			md_json_string(source->frontier, "capture") != NULL;
		old = MemoryContextSwitchTo(context);
		sources = lappend(sources, source);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return sources;
}

void
md_frontier_find_news(const Oid *relids, int count, bool *news, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	Datum	   *elements = palloc(sizeof(Datum) * Max(1, count));
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	for (int i = 0; i < count; i++)
		elements[i] = ObjectIdGetDatum(relids[i]);
	md_sql_arg(&args, OIDARRAYOID,
			   PointerGetDatum(construct_array(elements, count, OIDOID, sizeof(Oid), true,
											   TYPALIGN_INT)), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	/* an aggregate, since EXISTS may be planned as a hash of the sources of all views there are */
	rows = md_sql_run_cached(&plan,
							 "SELECT r.n FROM unnest($1) WITH ORDINALITY r(relid, n)"
							 "       LEFT JOIN medallion.view_state s ON s.relid = r.relid"
							 " WHERE (s.populated AND NOT s.always_refresh) IS NOT TRUE"
							 "    OR (SELECT bool_or(p.changed) FROM medallion.source_position p"
							 "         WHERE p.relid = r.relid)",
							 &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
		news[md_sql_int64(i, 1) - 1] = true;
	SPI_finish();
	md_catalog_restore_user(&saved);
}

Jsonb *
md_frontier_summary(List *sources)
{
	JsonbParseState *state = NULL;
	ListCell   *lc;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	foreach(lc, sources)
	{
		MdSource   *source = lfirst(lc);
		JsonbValue	value;

		if (source->frontier == NULL || source->kind == MD_SOURCE_INLINED)
			continue;
		value.type = jbvString;
		value.val.string.val = md_read_relation_name(source->relid);
		value.val.string.len = strlen(value.val.string.val);
		(void) pushJsonbValue(&state, WJB_KEY, &value);
		JsonbToJsonbValue(source->frontier, &value);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ---------------------------------------------------------------------- */

/* The relation's present file, by which recorded blocks are known to hold. */
static Oid
present_filenode(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			filenode = rel->rd_rel->relfilenode;

	table_close(rel, NoLock);
	return filenode;
}

/* Metadata columns may have been renamed. */
static StreamColumns
load_stream_columns(Oid relid, Snapshot snapshot, MemoryContext context)
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
		*targets[md_sql_int64(i, 2) - 1] = MemoryContextStrdup(context, md_sql_string(i, 1));
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

/*
 * The blocks that hold all that is new, as " AND ctid ..."; NULL with a note
 * where that is not known.
 */
static char *
block_condition(MdSource *source, Snapshot snapshot, MdDelta *delta, MemoryContext context)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};
	MemoryContext old;
	char	   *condition = NULL;

	if (get_rel_relkind(source->relid) == RELKIND_PARTITIONED_TABLE)
	{
		old = MemoryContextSwitchTo(context);
		delta->note = psprintf("%s is partitioned: its new rows were looked for by offset, which an index on that makes cheap",
							   md_read_relation_name(source->relid));
		MemoryContextSwitchTo(old);
		return NULL;
	}
	range_args(&args, source);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(present_filenode(source->relid)), false);
	md_sql_run_cached(&plan,
					  "WITH r AS (SELECT * FROM (" OFFSET_RANGES ") x"
					  "            WHERE coalesce(x.read, 0) < x.now),"
					  " b AS (SELECT r.topic, r.partition, r.read, r.now,"
					  "              b.first_offset, b.next_offset, b.row_count, b.first_block, b.last_block,"
					  "              b.row_count = 0 OR (b.filenode = $4 AND b.last_block IS NOT NULL) AS placed,"
					  "              coalesce(lag(b.next_offset) OVER w, r.read, b.first_offset) >= b.first_offset AS joined"
					  "         FROM r LEFT JOIN LATERAL ("
					  "              SELECT first_offset, next_offset, row_count, filenode, first_block, last_block"
					  "                FROM medallion.batch"
					  "               WHERE relid = $3 AND topic = r.topic AND kafka_partition = r.partition"
					  "                 AND next_offset > coalesce(r.read, 0) AND first_offset < r.now"
					  "              UNION ALL"
					  "              SELECT first_offset, next_offset, 0, NULL, NULL, NULL"
					  "                FROM medallion.gap"
					  "               WHERE relid = $3 AND topic = r.topic AND kafka_partition = r.partition"
					  "                 AND next_offset > coalesce(r.read, 0) AND first_offset < r.now) b ON true"
					  "       WINDOW w AS (PARTITION BY r.topic, r.partition ORDER BY b.first_offset)),"
					  " p AS (SELECT bool_and(placed AND joined) IS TRUE AND max(next_offset) >= min(now)"
					  "              AND (min(read) IS NOT NULL OR min(first_offset) <="
					  "                   (SELECT c.start_offset FROM medallion.checkpoint c"
					  "                     WHERE c.relid = $3 AND c.topic = b.topic"
					  "                       AND c.kafka_partition = b.partition)) AS covered,"
					  "              sum(row_count)::bigint AS rows, min(first_block) AS first_block,"
					  "              max(last_block) AS last_block"
					  "         FROM b GROUP BY topic, partition)"
					  "SELECT bool_and(covered IS TRUE), sum(rows)::bigint, min(first_block), max(last_block) + 1"
					  "  FROM p", &args, snapshot);
	old = MemoryContextSwitchTo(context);
	if (!md_sql_bool(0, 1))
		delta->note = psprintf("all of %s was scanned: where its new rows are is not known",
							   md_read_relation_name(source->relid));
	else
	{
		delta->rows = md_sql_int64(0, 2);
		condition = psprintf(" AND ctid >= '(%u,0)'::pg_catalog.tid AND ctid < '(%u,0)'::pg_catalog.tid",
							 (BlockNumber) md_sql_int64(0, 3), (BlockNumber) md_sql_int64(0, 4));
	}
	MemoryContextSwitchTo(old);
	return condition;
}

/* Rows of a streaming table below the stored frontier. */
static char *
stream_read_rows(MdSource *source, const StreamColumns *columns, Snapshot snapshot,
				 MemoryContext context)
{
	StringInfoData ranges;
	MdSqlArgs	args = {0};
	uint64		rows;

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
	return MemoryContextStrdup(context, ranges.data);
}

/* New rows of a streaming table. */
static void
stream_delta(MdSource *source, Snapshot snapshot, MdDelta *delta, MemoryContext context)
{
	StreamColumns columns = load_stream_columns(source->relid, snapshot, context);
	StringInfoData ranges;
	MdSqlArgs	args = {0};
	int			topics = 0;
	char	   *last_topic = NULL;
	char	   *blocks;
	MemoryContext old;
	char	   *name = md_read_relation_name(source->relid);
	uint64		rows;

	if (source->history_changes != source->read_history_changes)
	{
		delta->why_full = psprintf("%s was changed by other means than ingest", name);
		return;
	}
	if (columns.partition == NULL || columns.offset == NULL)
		elog(ERROR, "streaming table %s lacks its metadata columns", name);

	initStringInfo(&ranges);
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
			return;
		}
		if (never_read || read < now)
			append_range(&ranges, &columns, topic, partition, never_read ? -1 : read, now);
	}
	if (topics > 1 && columns.topic == NULL)
	{
		delta->why_full = psprintf("%s reads several topics and has no column kafka_topic to tell them apart",
								   name);
		return;
	}
	if (ranges.len == 0)
	{
		delta->condition = "false";
		delta->rows = 0;
		return;
	}
	delta->old_condition = stream_read_rows(source, &columns, snapshot, context);
	blocks = block_condition(source, snapshot, delta, context);
	old = MemoryContextSwitchTo(context);
	if (blocks == NULL)
		delta->condition = psprintf("(%s)", ranges.data);
	else

		/*
		 * Offsets past the column's statistics would be estimated as one row,
		 * and planned so; nearly all rows of these blocks are wanted, which
		 * an expression without statistics says better.
		 */
		delta->condition = psprintf("CASE WHEN %s THEN true ELSE false END%s", ranges.data, blocks);
	MemoryContextSwitchTo(old);
}

/*
 * Refreshes of an append-only view since the stored frontier: their transaction
 * ids as an array, and the bounds of what they inserted.  False if they are not
 * all known.
 */
static bool
load_view_changes(MdSource *source, Snapshot snapshot, char **xids, char **first, char **last,
				  int64 *rows)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};

	range_args(&args, source);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(present_filenode(source->relid)), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(source->rewritten_number), false);
	md_sql_run_cached(&plan,
					  "SELECT coalesce(count(*) = max(f.now) - max(f.read), f.now = f.read)"
					  "         AND bool_and(c.filenode = $4) IS NOT FALSE AND $5 <= f.read,"
					  "       array_agg(c.xid::xid)::text, min(c.first_tid)::text,"
					  "       max(c.last_tid)::text, sum(c.row_count)::bigint"
					  "  FROM (SELECT ($1 ->> 'refresh')::bigint AS read,"
					  "               ($2 ->> 'refresh')::bigint AS now) f"
					  "       JOIN medallion.view_change c"
					  "         ON c.relid = $3 AND c.refresh_number > f.read"
					  "        AND c.refresh_number <= f.now"
					  " GROUP BY f.read, f.now",
					  &args, snapshot);
	if (SPI_processed == 0 || !md_sql_bool(0, 1))
		return false;
	*xids = md_sql_string(0, 2);
	*first = md_sql_string(0, 3);
	*last = md_sql_string(0, 4);
	*rows = md_sql_int64(0, 5);
	return true;
}

/* Rows of an append-only view but those that these refreshes inserted. */
static char *
not_written_by(const char *xids)
{
	return psprintf("(xmin OPERATOR(pg_catalog.=) ANY ('%s'::pg_catalog.xid[])) IS NOT TRUE", xids);
}

/* New rows of a view of ours. */
static void
view_delta(MdSource *source, Snapshot snapshot, MdDelta *delta, MemoryContext context)
{
	MemoryContext old;
	char	   *xids;
	char	   *first;
	char	   *last;
	int64		rows;

	if (!source->changed)
	{
		delta->condition = "false";
		delta->rows = 0;
		return;
	}
	if (!load_view_changes(source, snapshot, &xids, &first, &last, &rows))
	{
		old = MemoryContextSwitchTo(context);
		delta->why_full = psprintf("%s was recomputed, rewritten or restored since it was last read",
								   md_read_relation_name(source->relid));
		MemoryContextSwitchTo(old);
		return;
	}
	old = MemoryContextSwitchTo(context);
	delta->rows = rows;
	delta->condition = psprintf("xmin OPERATOR(pg_catalog.=) ANY ('%s'::pg_catalog.xid[])"
								" AND ctid >= '%s'::pg_catalog.tid AND ctid <= '%s'::pg_catalog.tid",
								xids, first, last);
	delta->old_condition = not_written_by(xids);
	MemoryContextSwitchTo(old);
}

void
md_frontier_delta(MdSource *source, Snapshot snapshot, MdDelta *delta)
{
	MemoryContext context = CurrentMemoryContext;
	MdSecurity	saved;

	memset(delta, 0, sizeof(*delta));
	delta->rows = -1;
	if (source->read_frontier == NULL ||
		(source->kind == MD_SOURCE_STREAM && source->frontier == NULL))
	{
		delta->why_full = psprintf("%s has not been read yet", md_read_relation_name(source->relid));
		return;
	}
	if (source->is_captured)
	{
		md_frontier_captured_delta(source, snapshot, delta);
		return;
	}
	md_catalog_become_owner(&saved);
	SPI_connect();
	if (source->kind == MD_SOURCE_STREAM)
		stream_delta(source, snapshot, delta, context);
	else if (source->kind == MD_SOURCE_VIEW)
		view_delta(source, snapshot, delta, context);
	else
		delta->why_full = psprintf("changes of %s are not known",
								   md_read_relation_name(source->relid));
	if (delta->why_full)
		delta->why_full = MemoryContextStrdup(context, delta->why_full);
	SPI_finish();
	md_catalog_restore_user(&saved);
}

/* Rows of a view as of the stored frontier. */
static char *
view_read_rows(MdSource *source, Snapshot snapshot, MemoryContext context)
{
	MemoryContext old;
	char	   *xids;
	char	   *first;
	char	   *last;
	char	   *condition;
	int64		rows;

	if (!source->changed)
		return NULL;
	if (!load_view_changes(source, snapshot, &xids, &first, &last, &rows))
		md_frontier_report_unknown(source->relid, "It has changed rows since.");
	old = MemoryContextSwitchTo(context);
	condition = not_written_by(xids);
	MemoryContextSwitchTo(old);
	return condition;
}

bool
md_frontier_read_part(MdSource *source, Snapshot snapshot, MdPart *part)
{
	MemoryContext context = CurrentMemoryContext;
	MdSecurity	saved;

	memset(part, 0, sizeof(*part));
	part->relid = source->relid;
	if (source->read_frontier == NULL)
		return false;
	if (source->is_captured)
		return md_frontier_captured_read_part(source, snapshot, part);
	md_catalog_become_owner(&saved);
	SPI_connect();
	if (source->kind == MD_SOURCE_STREAM)
	{
		StreamColumns columns = load_stream_columns(source->relid, snapshot, context);

		part->condition = stream_read_rows(source, &columns, snapshot, context);
	}
	else if (source->kind == MD_SOURCE_VIEW)
		part->condition = view_read_rows(source, snapshot, context);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return part->condition != NULL;
}

void
md_frontier_store(Oid view, List *sources, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	ListCell   *lc;

	md_catalog_become_owner(&saved);
	SPI_connect();
	foreach(lc, sources)
	{
		MdSource   *source = lfirst(lc);
		MdSqlArgs	args = {0};

		if (!source->changed)
			continue;
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
		md_sql_arg(&args, JSONBOID, JsonbPGetDatum(source->frontier), source->frontier == NULL);
		md_sql_arg(&args, INT8OID, Int64GetDatum(source->history_changes),
				   source->kind != MD_SOURCE_STREAM);
		md_sql_run_cached(&plan,
						  "UPDATE medallion.view_source SET frontier = $3, history_changes = $4"
						  " WHERE relid = $1 AND source = $2"
						  "   AND (frontier IS DISTINCT FROM $3 OR history_changes IS DISTINCT FROM $4)",
						  &args, snapshot);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}
