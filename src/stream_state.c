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

#include "catalog.h"
#include "compat.h"
#include "server.h"
#include "stream_state.h"
#include "stream_table.h"
#include "worker_slots.h"

bool
md_stream_exists(Oid relid)
{
	return md_catalog_has_row("stream", "stream_pkey", relid);
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

/* Load in a new snapshot; NULL if it is not a streaming table. */
static MdStream *
load_now(Oid relid)
{
	MdStream   *stream;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	stream = md_catalog_stream(relid, CurrentMemoryContext);
	PopActiveSnapshot();
	return stream;
}

MdStream *
md_stream_load(Oid relid)
{
	MdStream   *stream = load_now(relid);

	if (stream == NULL)
		elog(ERROR, "table with OID %u is not a streaming table", relid);
	return stream;
}

MdStream *
md_stream_lock(Oid relid)
{
	char	   *name = get_rel_name(relid);
	MdStream   *stream = NULL;

	LockRelationOid(relid, ShareRowExclusiveLock);
	/* a worker that resolves start_at holds the row, not the table */
	if (write_relid("SELECT FROM medallion.stream WHERE relid = $1 FOR UPDATE", relid) > 0)
		stream = load_now(relid);
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("streaming table \"%s\" was dropped concurrently",
						name != NULL ? name : "???")));
	return stream;
}

void
md_stream_server_changed(const char *server_name)
{
	write_server("UPDATE medallion.stream SET generation = generation + 1 WHERE server = $1",
				 server_name, server_name);
}

void
md_stream_mapping_changed(const char *server_name, Oid user_id)
{
	Oid			argtypes[2] = {TEXTOID, OIDOID};
	Datum		args[2] = {CStringGetTextDatum(server_name), ObjectIdGetDatum(user_id)};

	if (md_stream_write("UPDATE medallion.stream s SET generation = generation + 1"
						" WHERE s.server = $1 AND ($2 = 0 OR EXISTS"
						"  (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relid AND c.relowner = $2))",
						2, argtypes, args) > 0)
		md_definitions_changed();
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
		"stream", "stream_column", "stream_topic", "stream_status", "checkpoint", "batch",
		"late_batch", "dead_letter", "gap"
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
	args[1] = CStringGetTextDatum(psprintf("paused by %s",
										   GetUserNameFromId(GetUserId(), false)));
	if (md_stream_write("UPDATE medallion.stream SET paused = true, paused_reason = $2,"
						" generation = generation + 1 WHERE relid = $1 AND NOT paused",
						2, argtypes, args) > 0)
		md_definitions_changed();
}

/* Tie a table to this database and to its server. */
static void
take_over(const MdStream *stream)
{
	md_stream_table_depend(stream->relid,
						   md_server_lookup(stream->server, md_stream_table_owner(stream->relid)));
	write_relid("UPDATE medallion.stream SET origin = medallion.database_identity(),"
				" generation = generation + 1 WHERE relid = $1", stream->relid);
	/* where rows lay elsewhere says nothing about where they lie here */
	write_relid("UPDATE medallion.batch SET filenode = NULL WHERE relid = $1", stream->relid);
	/* nor do transaction ids: views that have not read all late rows are recomputed */
	write_relid("UPDATE medallion.late_batch SET filenode = NULL, offsets = NULL, xid = NULL"
				" WHERE relid = $1", stream->relid);
	write_relid("UPDATE medallion.view_source SET late_point = NULL WHERE source = $1", stream->relid);
	md_definitions_changed();
}

void
md_stream_resume(Oid relid)
{
	MdStream   *stream = md_stream_lock(relid);

	if (stream->foreign_origin)
		take_over(stream);
	if (write_relid("UPDATE medallion.stream SET paused = false, paused_reason = NULL,"
					" generation = generation + 1 WHERE relid = $1 AND paused", relid) > 0)
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

		if (!stream->foreign_origin ||
			!md_relation_ownercheck(stream->relid, GetUserId()))
			continue;
		stream = md_stream_lock(stream->relid);
		if (stream->foreign_origin)
			take_over(stream);
	}
}
