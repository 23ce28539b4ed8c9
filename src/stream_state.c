/*
 * stream_state.c
 *		Changes of the catalog of streaming tables that DDL and the SQL
 *		functions share.
 *
 * Whoever changes what a batch depends on first takes ShareRowExclusiveLock on
 * the table: a batch holds RowExclusiveLock from before it looks at the
 * definition's generation until its commit, so it is either stored in whole
 * before the change, or sees it and is decoded again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "server.h"
#include "stream_state.h"
#include "stream_table.h"
#include "worker_slots.h"

/* Is there a row with this relid (the first column, and the primary key)? */
static bool
has_row(const char *table, Oid relid)
{
	Oid			table_id = get_relname_relid(table, get_namespace_oid("medallion", false));
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key[1];
	bool		found;

	if (!OidIsValid(table_id))
		return false;
	rel = table_open(table_id, AccessShareLock);
	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, md_primary_key_index(rel), true, NULL, 1, key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

bool
md_stream_exists(Oid relid)
{
	return has_row("stream", relid);
}

bool
md_stream_is_view_result(Oid relid)
{
	return has_row("view", relid);
}

uint64
md_stream_write(const char *sql, int nargs, Oid *argtypes, Datum *args)
{
	MdSecurity	saved;
	uint64		rows;

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args(sql, nargs, argtypes, args, NULL, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
	rows = SPI_processed;
	SPI_finish();
	md_catalog_restore_user(&saved);
	return rows;
}

/* The same, with the table's oid as the only argument. */
static uint64
write_relid(const char *sql, Oid relid)
{
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(relid)};

	return md_stream_write(sql, 1, argtypes, args);
}

/* The definitions of all tables of a server changed; it may have a new name. */
static void
write_server(const char *sql, const char *name, const char *new_name)
{
	Oid			argtypes[2] = {TEXTOID, TEXTOID};
	Datum		args[2] = {CStringGetTextDatum(name), CStringGetTextDatum(new_name)};

	if (md_stream_write(sql, 2, argtypes, args) > 0)
		md_definitions_changed();
}

MdStream *
md_stream_load(Oid relid)
{
	MdStream   *stream;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	stream = md_catalog_stream(relid, CurrentMemoryContext);
	PopActiveSnapshot();
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("streaming table with OID %u was dropped concurrently", relid)));
	return stream;
}

MdStream *
md_stream_lock(Oid relid)
{
	LockRelationOid(relid, ShareRowExclusiveLock);
	return md_stream_load(relid);
}

void
md_stream_history_changed(Oid relid)
{
	write_relid("UPDATE medallion.stream SET history_changes = history_changes + 1 WHERE relid = $1", relid);
}

void
md_stream_server_changed(const char *server_name)
{
	write_server("UPDATE medallion.stream SET generation = generation + 1 WHERE server = $1",
				 server_name, server_name);
}

void
md_stream_server_renamed(const char *old_name, const char *new_name)
{
	write_server("UPDATE medallion.stream SET server = $2, generation = generation + 1"
				 " WHERE server = $1", old_name, new_name);
}

void
md_stream_server_check_unused(const char *server_name)
{
	List	   *streams = md_catalog_streams(CurrentMemoryContext);
	StringInfoData names;
	int			n = 0;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, streams)
	{
		MdStream   *stream = lfirst(lc);

		if (strcmp(stream->server, server_name) != 0)
			continue;
		if (n++ < 5)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 md_stream_table_name(stream->relid));
	}
	if (n > 5)
		appendStringInfoString(&names, ", ...");
	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop server \"%s\" because streaming tables use it", server_name),
				 errdetail("They are: %s.", names.data),
				 errhint("Drop these tables first, or DROP EXTENSION pg_medallion CASCADE, which keeps them as plain tables.")));
}

void
md_stream_column_renamed(Oid relid, const char *old_name, const char *new_name)
{
	Oid			argtypes[3] = {OIDOID, TEXTOID, TEXTOID};
	Datum		args[3] = {ObjectIdGetDatum(relid), CStringGetTextDatum(old_name),
	CStringGetTextDatum(new_name)};

	if (md_stream_write("UPDATE medallion.stream_column SET column_name = $3"
						" WHERE relid = $1 AND column_name = $2", 3, argtypes, args) == 0)
		md_stream_write("INSERT INTO medallion.stream_column (relid, column_name, source_name)"
						" VALUES ($1, $3, $2)", 3, argtypes, args);
	md_stream_write("DELETE FROM medallion.stream_column"
					" WHERE relid = $1 AND column_name = $3 AND source_name = $3",
					3, argtypes, args);
	md_catalog_bump_generation(relid);
}

void
md_stream_column_dropped(Oid relid, const char *name)
{
	Oid			argtypes[2] = {OIDOID, TEXTOID};
	Datum		args[2] = {ObjectIdGetDatum(relid), CStringGetTextDatum(name)};

	md_stream_write("DELETE FROM medallion.stream_column WHERE relid = $1 AND column_name = $2",
					2, argtypes, args);
}

const char *
md_stream_column_source(const MdStream *stream, const char *column_name)
{
	ListCell   *lc;

	foreach(lc, stream->column_sources)
	{
		MdColumnSource *source = lfirst(lc);

		if (strcmp(source->column_name, column_name) == 0)
			return source->source_name;
	}
	return column_name;
}

void
md_stream_forget(Oid relid)
{
	static const char *const tables[] = {
		"stream", "stream_column", "stream_status", "checkpoint", "batch",
		"dead_letter", "gap"
	};

	for (int i = 0; i < lengthof(tables); i++)
		write_relid(psprintf("DELETE FROM medallion.%s WHERE relid = $1", tables[i]), relid);
	md_definitions_changed();
}

void
md_stream_pause(Oid relid)
{
	Oid			argtypes[2] = {OIDOID, TEXTOID};
	Datum		args[2];

	(void) md_stream_lock(relid);
	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(psprintf("paused by role %s",
										   quote_identifier(GetUserNameFromId(GetUserId(), false))));
	if (md_stream_write("UPDATE medallion.stream SET paused = true, paused_reason = $2,"
						" generation = generation + 1 WHERE relid = $1 AND NOT paused",
						2, argtypes, args) > 0)
		md_definitions_changed();
}

void
md_stream_resume(Oid relid)
{
	MdStream   *stream = md_stream_lock(relid);

	if (!stream->paused && !stream->foreign_origin)
		return;

	md_stream_table_depend(relid, md_server_lookup(stream->server, md_stream_table_owner(relid)));
	write_relid("UPDATE medallion.stream SET paused = false, paused_reason = NULL,"
				" origin = medallion.database_identity(), generation = generation + 1"
				" WHERE relid = $1", relid);
	write_relid("DELETE FROM medallion.stream_status WHERE relid = $1", relid);
	md_definitions_changed();
}

void
md_stream_resume_all(void)
{
	List	   *streams = md_catalog_streams(CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, streams)
	{
		MdStream   *stream = lfirst(lc);

		if (md_relation_ownercheck(stream->relid, GetUserId()))
			md_stream_resume(stream->relid);
	}
}
