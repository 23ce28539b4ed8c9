/*
 * capture_log.c
 *		The tables that hold a change log.
 *
 * A log is a few tables of the columns
 *
 *		md_xid xid8, md_rows bytea
 *
 * (the transaction, and rows packed together: capture_write.c), of which one at a time is current: writers append to it.  The others are no
 * longer written; once no transaction is under way that did, the first and the
 * last transaction id in them are noted (the table is sealed), and a reader
 * skips it without a look if its frontier covers them all.  What all readers
 * have read is truncated and used again:
 *
 *		current --rotate--> draining --seal--> sealed --all read--> empty
 *		   ^                                                         |
 *		   +---------------------------------------------------------+
 *
 * so rows are never deleted one by one, readers of an idle relation look at a
 * few blocks at most, and nobody waits: each step is done when its lock is to be
 * had at once, or later.
 *
 * Truncation is not MVCC-safe, and need not be.  A row may go only when the
 * committed frontier of each reader covers it; a reader under an older snapshot
 * has that frontier too and would skip the row.  One that reads the relation for
 * the first time has no committed frontier, and holds md_capture_lock_shared().
 *
 * The tables belong to the owner of the extension, as members of the extension:
 * pg_dump leaves them out.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/xid8.h"

#include "capture.h"
#include "catalog.h"
#include "compat.h"
#include "relation_make.h"
#include "settings.h"
#include "sql_run.h"
#include "view_catalog.h"

/* A current table is rotated when it has more blocks than this. */
#define ROTATE_BLOCKS 8

/* With this many tables already, slow readers hold them up: rotate less often. */
#define MANY_TABLES 3
#define ROTATE_BLOCKS_MANY 2048
#define MAX_TABLES 16

/* Relations whose log this process has rotated (of Oid, in TopMemoryContext). */
static List *rotated = NIL;

/* Run a statement of ours on what is there now, whatever the isolation level. */
static uint64
run_latest(const char *sql, MdSqlArgs *args)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64		rows = md_sql_run(sql, args, snapshot);

	UnregisterSnapshot(snapshot);
	return rows;
}

List *
md_log_tables(Oid relid)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *tables = NIL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run_cached(&plan,
							 "SELECT log::oid, is_current, first_xid, last_xid"
							 "  FROM medallion.capture_log WHERE relid = $1 ORDER BY log::oid",
							 &args, snapshot);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < rows; i++)
	{
		MdLogTable *table = palloc(sizeof(MdLogTable));
		bool		isnull;

		table->relid = DatumGetObjectId(md_sql_datum(i, 1, &isnull));
		table->is_current = md_sql_bool(i, 2);
		table->first_xid = (uint64) md_sql_int64(i, 3);
		table->last_xid = (uint64) md_sql_int64(i, 4);
		(void) md_sql_datum(i, 3, &isnull);
		table->is_sealed = !isnull;
		tables = lappend(tables, table);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return tables;
}

static MdLogTable *
current_table(List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
		if (((MdLogTable *) lfirst(lc))->is_current)
			return lfirst(lc);
	return NULL;
}

Oid
md_log_current(Oid relid)
{
	MdLogTable *table = current_table(md_log_tables(relid));

	return table ? table->relid : InvalidOid;
}

/* ---------------------------------------------------------------------- */

/* Members of an extension are not dumped. */
static void
join_extension(Oid table)
{
	ObjectAddress address;
	ObjectAddress extension;

	ObjectAddressSet(address, RelationRelationId, table);
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("pg_medallion", false));
	recordDependencyOn(&address, &extension, DEPENDENCY_EXTENSION);
}

/* Make an empty table for the log of a relation. */
static Oid
make_table(Oid relid)
{
	RangeVar   *name = makeRangeVar("medallion_def", md_relation_internal_name(relid, " changes"), -1);
	List	   *columns = list_make2(makeColumnDef("md_xid", XID8OID, -1, InvalidOid),
									 makeColumnDef("md_rows", BYTEAOID, -1, InvalidOid));
	IntoClause *storage = makeNode(IntoClause);
	Oid			table;
	MdSecurity	saved;

	/* rows are never updated or deleted, and soon truncated */
	storage->options = list_make2(makeDefElem("autovacuum_enabled",
											  (Node *) makeString("false"), -1),
								  makeDefElem("toast_tuple_target",
											  (Node *) makeInteger(MD_LOG_TUPLE_TARGET), -1));
	llast_node(ColumnDef, columns)->storage = TYPSTORAGE_EXTERNAL;
	md_catalog_become_owner(&saved);
	table = md_relation_make_bare_table(name, columns, GetUserId(), storage);
	join_extension(table);
	md_catalog_restore_user(&saved);
	CommandCounterIncrement();
	return table;
}

/* Writers look again for the table to write to. */
static void
make_current(Oid relid, Oid new_table, Oid old_table)
{
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(new_table), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	run_latest("INSERT INTO medallion.capture_log VALUES ($2, $1, true)"
			   " ON CONFLICT (log) DO NOTHING", &args);
	run_latest("UPDATE medallion.capture_log SET is_current = log = $2, first_xid = NULL, last_xid = NULL"
			   " WHERE relid = $1 AND is_current <> (log = $2)", &args);
	SPI_finish();
	md_catalog_restore_user(&saved);
	if (OidIsValid(old_table))
	{
		/* held to the end, so that sealing waits for the message to be out */
		LockRelationOid(old_table, RowExclusiveLock);
		CacheInvalidateRelcacheByRelid(old_table);
	}
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

void
md_log_begin(Oid relid)
{
	make_current(relid, make_table(relid), md_log_current(relid));
}

/* Drop one table of a log. */
static void
drop_table(Oid table)
{
	ObjectAddress address;
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(table), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	run_latest("DELETE FROM medallion.capture_log WHERE log = $1", &args);
	SPI_finish();
	ObjectAddressSet(address, RelationRelationId, table);
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)))
	{
		deleteDependencyRecordsForClass(RelationRelationId, table, ExtensionRelationId,
									   DEPENDENCY_EXTENSION);
		CommandCounterIncrement();
		performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	}
	md_catalog_restore_user(&saved);
	CommandCounterIncrement();
}

void
md_log_drop(Oid relid)
{
	ListCell   *lc;

	foreach(lc, md_log_tables(relid))
		drop_table(((MdLogTable *) lfirst(lc))->relid);
	/* triggers that still fire find no log, and do nothing */
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		CacheInvalidateRelcacheByRelid(relid);
}

/* ---------------------------------------------------------------------- */

/* Store what is known of a table that nobody writes any more. */
static void
store_bounds(MdLogTable *table)
{
	MdSecurity	saved;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(table->relid), false);
	md_sql_arg(&args, XID8OID, UInt64GetDatum(table->first_xid), false);
	md_sql_arg(&args, XID8OID, UInt64GetDatum(table->last_xid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	run_latest("UPDATE medallion.capture_log SET first_xid = $2, last_xid = $3 WHERE log = $1", &args);
	SPI_finish();
	md_catalog_restore_user(&saved);
	table->is_sealed = true;
}

/* Learn the bounds of a table, if nobody is writing it. */
static void
seal(MdLogTable *table)
{
	Relation	log;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (!ConditionalLockRelationOid(table->relid, ShareLock))
		return;
	log = table_open(table->relid, NoLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(log, snapshot, 0, NULL);
	slot = table_slot_create(log, NULL);
	table->first_xid = table->last_xid = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		uint64		xid = DatumGetUInt64(slot_getattr(slot, MD_LOG_XID_COLUMN, &isnull));

		if (table->first_xid == 0 || xid < table->first_xid)
			table->first_xid = xid;
		table->last_xid = Max(table->last_xid, xid);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(log, NoLock);
	store_bounds(table);
}

/* Empty a table, if nobody is reading it. */
static void
empty(MdLogTable *table)
{
	Relation	log;

	if (!ConditionalLockRelationOid(table->relid, AccessExclusiveLock))
		return;
	log = table_open(table->relid, NoLock);
	CheckTableForSerializableConflictIn(log);
	/* not by TRUNCATE, which would be published to subscribers of all tables */
	md_relation_empty(log);
	table_close(log, NoLock);
	CommandCounterIncrement();
	table->first_xid = table->last_xid = 0;
	store_bounds(table);
}

/* Points that the committed frontiers of all readers say (of MdReadPoint). */
static List *
reader_points(Oid relid, bool *complete)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	MdCapture  *capture = md_capture_load(relid, NULL);
	List	   *points = NIL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	*complete = true;
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(capture ? capture->id : ""), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = run_latest("SELECT frontier FROM medallion.view_source"
					  " WHERE source = $1 AND frontier ->> 'capture' = $2", &args);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < rows; i++)
	{
		MdReadPoint *point = palloc(sizeof(MdReadPoint));
		bool		isnull;

		if (md_read_point_parse(DatumGetJsonbP(md_sql_datum(i, 1, &isnull)), point))
			points = lappend(points, point);
		else
			*complete = false;
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return points;
}

static bool
all_have_read(List *points, const MdLogTable *table)
{
	ListCell   *lc;

	foreach(lc, points)
		if (!md_read_point_sees_all(lfirst(lc), table->first_xid, table->last_xid))
			return false;
	return true;
}

static BlockNumber
blocks_of(Oid table)
{
	Relation	log = try_table_open(table, AccessShareLock);
	BlockNumber blocks;

	if (log == NULL)
		return 0;
	blocks = RelationGetNumberOfBlocks(log);
	table_close(log, AccessShareLock);
	return blocks;
}

static void
note_rotated(Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	rotated = list_append_unique_oid(rotated, relid);
	MemoryContextSwitchTo(old);
}

bool
md_log_settle_is_due(void)
{
	return rotated != NIL;
}

void
md_log_settle(void)
{
	List	   *relids = list_copy(rotated);
	ListCell   *lc;

	list_free(rotated);
	rotated = NIL;
	foreach(lc, relids)
		if (get_rel_name(lfirst_oid(lc)) != NULL)
			md_log_prune(lfirst_oid(lc));
}

/* Let writers go on in an empty table, if it is time for that. */
static void
rotate(Oid relid, List *tables)
{
	MdLogTable *current = current_table(tables);
	BlockNumber limit = list_length(tables) < MANY_TABLES ? ROTATE_BLOCKS : ROTATE_BLOCKS_MANY;
	ListCell   *lc;

	if (current == NULL || blocks_of(current->relid) <= ROTATE_BLOCKS)
		return;
	foreach(lc, tables)
	{
		MdLogTable *table = lfirst(lc);

		if (!table->is_current && table->is_sealed && table->first_xid == 0)
		{
			make_current(relid, table->relid, current->relid);
			note_rotated(relid);
			return;
		}
	}
	if (list_length(tables) < MAX_TABLES && blocks_of(current->relid) > limit)
	{
		md_log_begin(relid);
		note_rotated(relid);
	}
}

void
md_log_prune(Oid relid)
{
	List	   *tables;
	List	   *points;
	bool		complete;
	ListCell   *lc;

	if (!md_capture_lock_exclusive(relid))
		return;
	tables = md_log_tables(relid);
	points = reader_points(relid, &complete);
	foreach(lc, tables)
	{
		MdLogTable *table = lfirst(lc);

		if (table->is_current)
			continue;
		if (!table->is_sealed)
			seal(table);
		if (table->is_sealed && complete && all_have_read(points, table) &&
			blocks_of(table->relid) > 0)
			empty(table);
	}
	rotate(relid, tables);
}

/* ---------------------------------------------------------------------- */

static uint64
log_bytes(List *tables)
{
	uint64		bytes = 0;
	ListCell   *lc;

	foreach(lc, tables)
	{
		Oid			table = ((MdLogTable *) lfirst(lc))->relid;

		bytes += DatumGetInt64(DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(table)));
	}
	return bytes;
}

/* Views that have not read all of a table of the log (of Oid). */
static List *
slow_readers(Oid relid, List *tables)
{
	MemoryContext context = CurrentMemoryContext;
	MdCapture  *capture = md_capture_load(relid, NULL);
	List	   *slow = NIL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(capture ? capture->id : ""), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = run_latest("SELECT relid::oid, frontier FROM medallion.view_source"
					  " WHERE source = $1 AND frontier ->> 'capture' = $2", &args);
	for (uint64 i = 0; i < rows; i++)
	{
		MdReadPoint point;
		bool		isnull;
		bool		known = md_read_point_parse(DatumGetJsonbP(md_sql_datum(i, 2, &isnull)), &point);
		Oid			view = DatumGetObjectId(md_sql_datum(i, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);
		ListCell   *lc;

		foreach(lc, tables)
		{
			MdLogTable *table = lfirst(lc);

			if (!known || table->is_current || !table->is_sealed ||
				!all_have_read(list_make1(&point), table))
			{
				slow = list_append_unique_oid(slow, view);
				break;
			}
		}
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return slow;
}

/*
 * A log beyond its limit is given up, for those who have not read it: each
 * starts anew at its next refresh.  One that is refreshing is let be: it reads.
 */
void
md_log_enforce_limit(Oid relid)
{
	List	   *tables = md_log_tables(relid);
	MdSecurity	saved;
	ListCell   *lc;

	if (log_bytes(tables) <= (uint64) md_change_log_limit_mb * 1024 * 1024)
		return;
	foreach(lc, slow_readers(relid, tables))
	{
		MdSqlArgs	args = {0};

		if (!md_view_lock_conditional(lfirst_oid(lc)))
			continue;
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(lfirst_oid(lc)), false);
		md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
		md_catalog_become_owner(&saved);
		SPI_connect();
		run_latest("UPDATE medallion.view_source SET frontier ="
				   " '{\"lost\": \"its change log had grown beyond medallion.change_log_limit\"}'"
				   " WHERE relid = $1 AND source = $2", &args);
		SPI_finish();
		md_catalog_restore_user(&saved);
	}
	CommandCounterIncrement();
	md_log_prune(relid);
}
