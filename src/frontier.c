/*
 * frontier.c
 *		How far a view has read its sources, and what is new in them.
 *
 * Of a streaming table: frontier_stream.c; of a captured relation:
 * frontier_captured.c.  New rows of an append-only view are those that its
 * refreshes since inserted: medallion.view_change has their transaction and the
 * bounds of their place.
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
#include "frontier_stream.h"
#include "refresh_read.h"
#include "sql_run.h"

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
							 "       read_history_changes, history_changes, rewritten_number, changed,"
							 "       late_point, read_late_batches, late_batches"
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
		source->late_point = copy_jsonb(i, 9, context);
		source->read_late_batches = md_sql_int64(i, 10);
		source->late_batches = md_sql_int64(i, 11);
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
							 "    OR medallion.types_changed(s.shown_types, s.type_shapes)"
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

Oid
md_frontier_filenode(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			filenode = rel->rd_rel->relfilenode;

	table_close(rel, NoLock);
	return filenode;
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

	md_sql_arg(&args, JSONBOID, JsonbPGetDatum(source->read_frontier), false);
	md_sql_arg(&args, JSONBOID, JsonbPGetDatum(source->frontier), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(md_frontier_filenode(source->relid)), false);
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
		md_frontier_stream_delta(source, snapshot, delta, context);
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
		part->condition = md_frontier_stream_read_rows(source, snapshot, context);
	else if (source->kind == MD_SOURCE_VIEW)
		part->condition = view_read_rows(source, snapshot, context);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return part->condition != NULL;
}

/* Which late rows the snapshot sees, as JSON text. */
static char *
late_point_text(Snapshot snapshot)
{
	MdReadPoint point;
	char	   *own;

	md_read_point_make(snapshot, true, &point);
	own = md_read_point_own_text(&point);
	return psprintf("{\"snapshot\": \"%s\"%s}", md_read_point_snapshot_text(&point),
					own ? psprintf(", \"own\": \"%s\"", own) : "");
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
		bool		is_stream = source->kind == MD_SOURCE_STREAM;
		/* the point stays while it says the same, so that an idle view writes nothing */
		bool		has_point = source->late_batches != source->read_late_batches;
		MdSqlArgs	args = {0};

		if (!source->changed)
			continue;
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source->relid), false);
		md_sql_arg(&args, JSONBOID, JsonbPGetDatum(source->frontier), source->frontier == NULL);
		md_sql_arg(&args, INT8OID, Int64GetDatum(source->history_changes), !is_stream);
		md_sql_arg(&args, INT8OID, Int64GetDatum(source->late_batches), !is_stream);
		md_sql_arg(&args, TEXTOID, has_point ? CStringGetTextDatum(late_point_text(snapshot)) : (Datum) 0,
				   !has_point);
		md_sql_run_cached(&plan,
						  "UPDATE medallion.view_source SET frontier = $3, history_changes = $4,"
						  "       late_batches = $5, late_point = coalesce($6::jsonb, late_point)"
						  " WHERE relid = $1 AND source = $2"
						  "   AND (frontier IS DISTINCT FROM $3 OR history_changes IS DISTINCT FROM $4"
						  "        OR late_batches IS DISTINCT FROM $5)",
						  &args, snapshot);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}
