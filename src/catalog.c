/*
 * catalog.c
 *		The tables of schema medallion as C structures.
 *
 * Our tables are read and written by SQL through SPI, as the owner of the
 * extension and with search_path fixed: a session's settings and its user
 * never change what we read or who may write.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "node_identity.h"
#include "stream_options.h"
#include "worker_slots.h"

PG_FUNCTION_INFO_V1(md_database_identity);

static const char *const format_names[] = {
	[MD_FORMAT_RAW] = "raw",
	[MD_FORMAT_TEXT] = "text",
	[MD_FORMAT_JSON] = "json",
};

const char *
md_format_name(MdFormat format)
{
	return format_names[format];
}

int
md_format_by_name(const char *name)
{
	for (int i = 0; i < lengthof(format_names); i++)
		if (strcmp(format_names[i], name) == 0)
			return i;
	return -1;
}

Oid
md_catalog_extension_owner(void)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key[1];
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("pg_medallion"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

/*
 * Is relid the key of a row of medallion.<table>?  By its index, without SPI:
 * every utility statement on a table asks it.
 */
bool
md_catalog_has_row(const char *table, const char *index, Oid relid)
{
	Oid			namespace_id = get_namespace_oid("medallion", true);
	Oid			table_id = OidIsValid(namespace_id) ? get_relname_relid(table, namespace_id) : InvalidOid;
	Oid			index_id = OidIsValid(namespace_id) ? get_relname_relid(index, namespace_id) : InvalidOid;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key[1];
	bool		found;

	if (!OidIsValid(table_id) || !OidIsValid(index_id))
		return false;
	rel = table_open(table_id, AccessShareLock);
	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index_id, true, NULL, 1, key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Is the extension created in this database, and complete? */
bool
md_catalog_extension_exists(void)
{
	Oid			namespace_id;

	if (!OidIsValid(md_catalog_extension_owner()) ||
		(creating_extension && CurrentExtensionObject == get_extension_oid("pg_medallion", true)))
		return false;
	/* a concurrent CREATE EXTENSION is visible as a whole or not at all */
	namespace_id = get_namespace_oid("medallion", true);
	return OidIsValid(namespace_id) &&
		OidIsValid(get_relname_relid("stream", namespace_id));
}

/*
 * Become user_id, unable to change what belongs to the session, until
 * md_catalog_restore_user.  An error restores by itself: transaction abort
 * resets the user and the settings.
 */
void
md_catalog_become(Oid user_id, MdSecurity *saved)
{
	GetUserIdAndSecContext(&saved->user_id, &saved->sec_context);
	SetUserIdAndSecContext(user_id, saved->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	saved->guc_nest_level = NewGUCNestLevel();
	md_restrict_search_path();
}

/* Become the owner of the extension, for reads and writes of our own tables. */
void
md_catalog_become_owner(MdSecurity *saved)
{
	Oid			owner = md_catalog_extension_owner();

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_medallion\" does not exist in this database"),
				 errhint("Run CREATE EXTENSION pg_medallion.")));
	md_catalog_become(owner, saved);
}

void
md_catalog_restore_user(const MdSecurity *saved)
{
	AtEOXact_GUC(false, saved->guc_nest_level);
	SetUserIdAndSecContext(saved->user_id, saved->sec_context);
}

char *
md_catalog_identity(void)
{
	return psprintf(UINT64_FORMAT "/%u/%s", GetSystemIdentifier(), MyDatabaseId, md_node_lineage());
}

Datum
md_database_identity(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(md_catalog_identity()));
}

/* Column attno of the current SPI row as a string, NULL for SQL NULL. */
static char *
spi_string(HeapTuple tuple, int attno)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, attno);
}

static Datum
spi_datum(HeapTuple tuple, int attno)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, SPI_tuptable->tupdesc, attno, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d of the stream catalog", attno);
	return value;
}

/* Build an MdStream of one row of the query below, in context. */
static MdStream *
stream_from_row(HeapTuple tuple, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	MdStream   *stream = palloc0(sizeof(MdStream));
	int			format = md_format_by_name(spi_string(tuple, 4));

	if (format < 0)
		elog(ERROR, "unknown format in the stream catalog");
	stream->relid = DatumGetObjectId(spi_datum(tuple, 1));
	stream->server = spi_string(tuple, 2);
	stream->topic = spi_string(tuple, 3);
	stream->format = format;
	stream->start_at = spi_string(tuple, 5);
	stream->initialized = DatumGetBool(spi_datum(tuple, 6));
	stream->paused = DatumGetBool(spi_datum(tuple, 7));
	stream->generation = DatumGetInt64(spi_datum(tuple, 8));
	stream->foreign_origin = DatumGetBool(spi_datum(tuple, 9));
	md_stream_options_apply(stream, DatumGetJsonbP(spi_datum(tuple, 10)));
	MemoryContextSwitchTo(old);
	return stream;
}

/* Attach the renamed columns (rows of relid, column, source) to streams. */
static void
attach_column_sources(List *streams, MemoryContext context)
{
	MemoryContext old;

	if (SPI_execute("SELECT c.relid::pg_catalog.oid, c.column_name, c.source_name"
					"  FROM medallion.stream_column c", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read medallion.stream_column");
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		Oid			relid = DatumGetObjectId(spi_datum(tuple, 1));
		ListCell   *lc;

		foreach(lc, streams)
		{
			MdStream   *stream = lfirst(lc);

			if (stream->relid == relid)
			{
				MdColumnSource *source = palloc(sizeof(MdColumnSource));

				source->column_name = spi_string(tuple, 2);
				source->source_name = spi_string(tuple, 3);
				stream->column_sources = lappend(stream->column_sources, source);
			}
		}
	}
	MemoryContextSwitchTo(old);
}

/* Streams with the given relid, or all for InvalidOid. */
static List *
load_streams(Oid relid, MemoryContext context)
{
	List	   *streams = NIL;
	MdSecurity	saved;
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(relid)};

	md_catalog_become_owner(&saved);
	SPI_connect();
	/*
	 * Rows of tables that are gone (a DROP while we were not loaded) are
	 * skipped.  Not read-only: what this transaction changed counts.
	 */
	if (SPI_execute_with_args("SELECT s.relid::pg_catalog.oid, s.server::text, s.topic, s.format, s.start_at,"
							  "       s.initialized, s.paused, s.generation,"
							  "       s.origin <> medallion.database_identity(), s.options"
							  "  FROM medallion.stream s"
							  " WHERE (s.relid = $1 OR $1 = 0)"
							  "   AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relid)"
							  " ORDER BY 1",
							  1, argtypes, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read medallion.stream");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MdStream   *stream = stream_from_row(SPI_tuptable->vals[i], context);
		MemoryContext old = MemoryContextSwitchTo(context);

		streams = lappend(streams, stream);
		MemoryContextSwitchTo(old);
	}
	if (streams != NIL)
		attach_column_sources(streams, context);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return streams;
}

/* The definition of one streaming table, NULL if relid is none. */
MdStream *
md_catalog_stream(Oid relid, MemoryContext context)
{
	List	   *streams = load_streams(relid, context);

	return streams == NIL ? NULL : linitial(streams);
}

/* The definitions of all streaming tables of this database. */
List *
md_catalog_streams(MemoryContext context)
{
	return load_streams(InvalidOid, context);
}

/* Update the row of one streaming table. */
static void
update_stream(const char *sql, Oid relid)
{
	MdSecurity	saved;
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(relid)};

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, argtypes, args, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update medallion.stream");
	SPI_finish();
	md_catalog_restore_user(&saved);
}

/* Move a definition's generation on; its workers load it again after commit. */
void
md_catalog_bump_generation(Oid relid)
{
	update_stream("UPDATE medallion.stream SET generation = generation + 1 WHERE relid = $1", relid);
	md_definitions_changed();
}

void
md_catalog_history_changed(Oid relid)
{
	update_stream("UPDATE medallion.stream SET history_changes = history_changes + 1 WHERE relid = $1", relid);
}
