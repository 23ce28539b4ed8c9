/*
 * view_catalog.c
 *		Definitions of views in schema medallion, as C structures.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "catalog.h"
#include "nearest_name.h"
#include "sql_run.h"
#include "type_shape.h"
#include "view_catalog.h"

static const char *const mode_names[] = {
	[MD_MODE_AUTO] = "auto",
	[MD_MODE_INCREMENTAL] = "incremental",
	[MD_MODE_FULL] = "full",
	NULL
};

const char *
md_refresh_mode_name(MdRefreshMode mode)
{
	return mode_names[mode];
}

MdRefreshMode
md_refresh_mode_by_name(const char *name)
{
	const char *nearest;

	for (int i = 0; mode_names[i] != NULL; i++)
		if (strcmp(mode_names[i], name) == 0)
			return i;
	nearest = md_nearest_name(name, mode_names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid refresh mode \"%s\"", name),
			 errdetail("Valid modes are \"auto\", \"incremental\" and \"full\"."),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

/*
 * Connect to SPI as the owner of the extension, and back.  The connection is
 * made first so that results can be copied to the caller's context.
 */
void
md_view_sql_begin(MdSecurity *saved)
{
	md_catalog_become_owner(saved);
	SPI_connect();
}

void
md_view_sql_end(const MdSecurity *saved)
{
	SPI_finish();
	md_catalog_restore_user(saved);
}

/* Oid in column attno of row 0, InvalidOid for NULL. */
static Oid
row_oid(int attno)
{
	bool		isnull;
	Datum		value = md_sql_datum(0, attno, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

/* Copy the array of column numbers in column attno of row 0. */
static void
load_keys(MdView *view, int attno, MemoryContext context)
{
	bool		isnull;
	Datum		value = md_sql_datum(0, attno, &isnull);
	ArrayType  *array;

	if (isnull)
		return;
	array = DatumGetArrayTypeP(value);
	view->key_count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	view->keys = MemoryContextAlloc(context, sizeof(AttrNumber) * Max(1, view->key_count));
	memcpy(view->keys, ARR_DATA_PTR(array), sizeof(AttrNumber) * view->key_count);
}

/* Likewise the array of state tables. */
static void
load_state_tables(MdView *view, int attno, MemoryContext context)
{
	bool		isnull;
	Datum		value = md_sql_datum(0, attno, &isnull);
	MemoryContext old;
	ArrayType  *array;

	if (isnull)
		return;
	array = DatumGetArrayTypeP(value);
	old = MemoryContextSwitchTo(context);
	for (int i = 0; i < ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)); i++)
		view->state_tables = lappend_oid(view->state_tables, ((Oid *) ARR_DATA_PTR(array))[i]);
	MemoryContextSwitchTo(old);
}

/* 0 for NULL. */
static double
row_float8(int attno)
{
	bool		isnull;
	Datum		value = md_sql_datum(0, attno, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

/* Columns 26 and 27 of row 0. */
static void
load_type_shapes(MdView *view, MemoryContext context)
{
	bool		isnull;
	Datum		types = md_sql_datum(0, 26, &isnull);
	MemoryContext old;

	if (isnull)
		return;
	old = MemoryContextSwitchTo(context);
	view->type_shapes = md_type_shapes_of_arrays(types, md_sql_datum(0, 27, &isnull));
	MemoryContextSwitchTo(old);
}

/* Make an MdView of row 0 of the query of md_view_load. */
static MdView *
view_from_row(MemoryContext context)
{
	MdView	   *view = MemoryContextAllocZero(context, sizeof(MdView));
	Jsonb	   *settings;
	bool		isnull;
	Datum		value;

	view->relid = row_oid(1);
	view->owner = row_oid(2);
	view->definition = row_oid(3);
	load_state_tables(view, 4, context);
	view->merge_index = row_oid(5);
	view->key_index = row_oid(6);
	load_keys(view, 7, context);
	value = md_sql_datum(0, 8, &isnull);
	if (!isnull)
	{
		view->refresh_interval = MemoryContextAlloc(context, sizeof(Interval));
		memcpy(view->refresh_interval, DatumGetIntervalP(value), sizeof(Interval));
	}
	view->mode = md_refresh_mode_by_name(md_sql_string(0, 9));
	value = md_sql_datum(0, 10, &isnull);
	settings = DatumGetJsonbP(value);
	view->settings = MemoryContextAlloc(context, VARSIZE(settings));
	memcpy(view->settings, settings, VARSIZE(settings));
	view->paused = md_sql_bool(0, 11);
	view->foreign_origin = md_sql_bool(0, 12);
	view->populated = md_sql_bool(0, 13);
	view->refresh_number = md_sql_int64(0, 14);
	view->rewritten_number = md_sql_int64(0, 15);
	value = md_sql_datum(0, 16, &isnull);
	view->refreshed_at = isnull ? 0 : DatumGetTimestampTz(value);
	view->always_refresh = md_sql_bool(0, 17);
	value = md_sql_datum(0, 18, &isnull);
	view->state_xid = isnull ? InvalidTransactionId : DatumGetTransactionId(value);
	view->cost.recompute_ms = row_float8(19);
	view->cost.recompute_rows = row_float8(20);
	view->cost.change_ms = row_float8(21);
	view->cost.change_rows = row_float8(22);
	view->cost.recomputes = md_sql_int64(0, 23);
	view->on_error_fail = md_sql_bool(0, 24);
	view->max_refresh_errors = (int) md_sql_int64(0, 25);
	load_type_shapes(view, context);
	return view;
}

MdView *
md_view_load(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	MdView	   *view = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_begin(&saved);
	if (md_sql_run_cached(&plan,
						  "SELECT v.relid::oid, c.relowner, v.definition::oid, v.state_tables::oid[],"
						  "       (SELECT i.oid FROM pg_class i WHERE i.relname = v.merge_index"
						  "           AND i.relnamespace = c.relnamespace),"
						  "       (SELECT i.oid FROM pg_class i WHERE i.relname = v.key_index"
						  "           AND i.relnamespace = c.relnamespace), v.key_columns,"
						  "       v.refresh_interval, v.refresh_mode, v.settings, v.paused,"
						  "       v.origin <> medallion.database_identity(),"
						  "       s.populated, s.refresh_number, s.rewritten_number, s.refreshed_at,"
						  "       s.always_refresh, s.xmin, s.recompute_ms, s.recompute_rows,"
						  "       s.change_ms, s.change_rows, s.recomputes, v.on_error = 'fail',"
						  "       v.max_refresh_errors::bigint, s.shown_types, s.type_shapes"
						  "  FROM medallion.view v"
						  "       JOIN pg_class c ON c.oid = v.relid"
						  "       LEFT JOIN medallion.view_state s ON s.relid = v.relid"
						  " WHERE v.relid = $1",
						  &args, snapshot) > 0)
		view = view_from_row(context);
	md_view_sql_end(&saved);
	return view;
}

MdView *
md_view_get(Oid relid, Snapshot snapshot)
{
	MdView	   *view = md_view_load(relid, snapshot);
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a materialized view of pg_medallion", name),
				 errhint("medallion.materialized_views lists yours.")));
	return view;
}

/* OID of a table of ours, InvalidOid when it is gone (DROP EXTENSION). */
static Oid
our_table(const char *name)
{
	Oid			namespace_id = get_namespace_oid("medallion", true);

	return OidIsValid(namespace_id) ? get_relname_relid(name, namespace_id) : InvalidOid;
}

bool
md_view_exists(Oid relid)
{
	return md_catalog_has_row("view", "view_pkey", relid);
}

bool
md_view_is_internal(Oid relid)
{
	return get_rel_namespace(relid) == get_namespace_oid("medallion_def", true);
}

void
md_view_check_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	bool		owned;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	class = (Form_pg_class) GETSTRUCT(tuple);
	owned = has_privs_of_role(GetUserId(), class->relowner);
	if (!owned)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of materialized view \"%s\"", NameStr(class->relname))));
	ReleaseSysCache(tuple);
}

/*
 * The lock under which a view is refreshed: on the view as an object of our
 * own, so that it costs no WAL, and stands in nobody's way but of other
 * refreshes and changes of the definition (a lock on the table would keep
 * autovacuum away).
 */
void
md_view_lock(Oid relid)
{
	LockDatabaseObject(our_table("view"), relid, 0, ExclusiveLock);
}

bool
md_view_lock_conditional(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, our_table("view"), relid, 0);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	/* as LockDatabaseObject does */
	AcceptInvalidationMessages();
	return true;
}

/* A lock of the same kind, on the definition. */
void
md_view_lock_definition(Oid relid)
{
	LockDatabaseObject(our_table("view"), relid, 1, ExclusiveLock);
}

static Datum
keys_datum(const MdView *view)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(1, view->key_count));

	for (int i = 0; i < view->key_count; i++)
		values[i] = Int16GetDatum(view->keys[i]);
	return PointerGetDatum(construct_array(values, view->key_count, INT2OID, 2, true, TYPALIGN_SHORT));
}

static Datum
state_tables_datum(const MdView *view)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(1, list_length(view->state_tables)));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, view->state_tables)
		values[count++] = ObjectIdGetDatum(lfirst_oid(lc));
	return PointerGetDatum(construct_array(values, count, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* The name of a relation, NULL for none. */
static void
name_arg(MdSqlArgs *args, Oid relid)
{
	char	   *name = OidIsValid(relid) ? get_rel_name(relid) : NULL;

	md_sql_arg(args, TEXTOID, name ? CStringGetTextDatum(name) : (Datum) 0, name == NULL);
}

/* $1 to $11: the columns of medallion.view that a definition has. */
static void
definition_args(MdSqlArgs *args, const MdView *view)
{
	md_sql_arg(args, OIDOID, ObjectIdGetDatum(view->relid), false);
	md_sql_arg(args, OIDOID, ObjectIdGetDatum(view->definition), !OidIsValid(view->definition));
	md_sql_arg(args, OIDARRAYOID, state_tables_datum(view), view->state_tables == NIL);
	name_arg(args, view->merge_index);
	name_arg(args, view->key_index);
	md_sql_arg(args, INT2ARRAYOID, view->key_count > 0 ? keys_datum(view) : (Datum) 0,
			   view->key_count == 0);
	md_sql_arg(args, INTERVALOID, IntervalPGetDatum(view->refresh_interval),
			   view->refresh_interval == NULL);
	md_sql_arg(args, TEXTOID, CStringGetTextDatum(mode_names[view->mode]), false);
	md_sql_arg(args, JSONBOID, JsonbPGetDatum(view->settings), false);
	md_sql_arg(args, TEXTOID, CStringGetTextDatum(view->on_error_fail ? "fail" : "quarantine"), false);
	md_sql_arg(args, INT4OID, Int32GetDatum(view->max_refresh_errors), false);
}

uint64
md_view_sql_run(const char *sql, MdSqlArgs *args)
{
	MdSecurity	saved;
	uint64		rows;
	Snapshot	snapshot = md_sql_take_snapshot();

	md_view_sql_begin(&saved);
	rows = md_sql_run(sql, args, snapshot);
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
	return rows;
}

void
md_view_insert(const MdView *view, const char *strategy)
{
	MdSqlArgs	args = {0};

	definition_args(&args, view);
	md_view_sql_run("INSERT INTO medallion.view (relid, definition, state_tables, merge_index, key_index,"
					"       key_columns, refresh_interval, refresh_mode, settings, on_error, max_refresh_errors,"
					"       origin)"
					" VALUES ($1, $2, $3::pg_catalog.regclass[], $4, $5, $6, $7, $8, $9, $10, $11,"
					"         medallion.database_identity())",
			&args);
	args.count = 1;
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(strategy), false);
	md_view_sql_run("INSERT INTO medallion.view_state (relid, strategy) VALUES ($1, $2)", &args);
}

void
md_view_update(const MdView *view)
{
	MdSqlArgs	args = {0};

	definition_args(&args, view);
	md_view_sql_run("UPDATE medallion.view SET definition = $2,"
					"       lost_query = CASE WHEN $2 IS NULL THEN lost_query END, state_tables = $3::pg_catalog.regclass[], merge_index = $4,"
					"       key_index = $5, key_columns = $6, refresh_interval = $7, refresh_mode = $8,"
					"       settings = $9, on_error = $10, max_refresh_errors = $11"
					" WHERE relid = $1", &args);
}

void
md_view_store_lost_query(Oid relid, const char *query)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(query), false);
	md_view_sql_run("UPDATE medallion.view SET definition = NULL, lost_query = $2 WHERE relid = $1",
					&args);
}

void
md_view_check_query(const MdView *view)
{
	if (!OidIsValid(view->definition))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("materialized view \"%s\" has lost its query", get_rel_name(view->relid)),
				 errdetail("A column that it read was dropped, or has another type; last_error in medallion.materialized_views says which."),
				 errhint("Call medallion.alter_materialized_view() with a query that reads the table as it is now.")));
}

void
md_view_delete(Oid relid)
{
	static const char *const tables[] = {
		"view", "view_state", "view_source", "view_change", "view_status", "refresh_run",
		"refresh_error"
	};
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	for (int i = 0; i < lengthof(tables); i++)
		if (OidIsValid(our_table(tables[i])))
			md_view_sql_run(psprintf("DELETE FROM medallion.%s WHERE relid = $1", tables[i]), &args);
	md_capture_release_later();
}

bool
md_view_store_paused(Oid relid, bool paused)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(paused), false);
	return md_view_sql_run("UPDATE medallion.view SET paused = $2,"
				   "       paused_reason = CASE WHEN $2 THEN 'paused by ' || session_user END,"
				   "       origin = CASE WHEN $2 THEN origin ELSE medallion.database_identity() END"
				   " WHERE relid = $1", &args) > 0;
}

void
md_view_store_origin(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_run("UPDATE medallion.view SET origin = medallion.database_identity() WHERE relid = $1",
			&args);
}

/* The OIDs in column 1 of a query of ours. */
static List *
oid_list(const char *sql, MdSqlArgs *args)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	List	   *oids = NIL;
	MdSecurity	saved;
	Snapshot	snapshot = md_sql_take_snapshot();
	uint64		rows;
	bool		isnull;

	md_view_sql_begin(&saved);
	rows = md_sql_run(sql, args, snapshot);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < rows; i++)
		oids = lappend_oid(oids, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
	MemoryContextSwitchTo(old);
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
	return oids;
}

List *
md_view_foreign_list(void)
{
	return oid_list("SELECT relid::oid FROM medallion.view"
					" WHERE origin <> medallion.database_identity() ORDER BY 1", NULL);
}

bool
md_view_is_circular(Oid relid, List *source_ids)
{
	ListCell   *lc;

	foreach(lc, source_ids)
	{
		MdSqlArgs	args = {0};

		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(lfirst_oid(lc)), false);
		if (list_member_oid(oid_list("WITH RECURSIVE up AS (SELECT $1::oid AS source"
									 " UNION SELECT s.source::oid FROM up"
									 "   JOIN medallion.view_source s ON s.relid = up.source)"
									 " SELECT source FROM up", &args), relid))
			return true;
	}
	return false;
}

void
md_view_reset_sources(Oid relid, List *source_ids, List *inlined_ids)
{
	MdSqlArgs	args = {0};
	ListCell   *lc;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_run("DELETE FROM medallion.view_source WHERE relid = $1", &args);
	foreach(lc, list_concat_copy(source_ids, inlined_ids))
	{
		Oid			source = lfirst_oid(lc);

		args.count = 1;
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(source), false);
		md_sql_arg(&args, BOOLOID, BoolGetDatum(list_member_oid(inlined_ids, source)), false);
		md_view_sql_run("INSERT INTO medallion.view_source (relid, source, frontier)"
				" VALUES ($1, $2, CASE WHEN $3 THEN '{\"definition\": null}'::jsonb END)"
				" ON CONFLICT DO NOTHING", &args);
	}
}

