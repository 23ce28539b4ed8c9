/*
 * capture.c
 *		Setting up change capture on a relation, and taking it away.
 *
 * Capture is set up by the first refresh that wants to read changes of a
 * relation, and goes with the last incremental view over it.  To set it up the
 * relation is locked against writers: those that wrote without us have ended
 * then, and their rows are seen by a snapshot that is taken afterwards; all
 * later ones fire our triggers.  The lock is held to the end of the
 * transaction, because others cannot see a trigger before that.
 *
 * The triggers are internal to Postgres, as those of foreign keys are: dumps
 * leave them out, as they do the log, and only a superuser can disable them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "capture.h"
#include "catalog.h"
#include "compat.h"
#include "sql_run.h"
#include "view_catalog.h"

PG_FUNCTION_INFO_V1(md_prune_change_logs);

static bool release_due = false;

/* Run a statement of ours on what is there now, whatever the isolation level. */
static uint64
run_latest(const char *sql, MdSqlArgs *args)
{
	MdSecurity	saved;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64		rows;

	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run(sql, args, snapshot);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return rows;
}

MdCapture *
md_capture_load(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	MdCapture  *capture = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	taken = RegisterSnapshot(snapshot ? snapshot : GetLatestSnapshot());

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	if (md_sql_run_cached(&plan,
						  "SELECT capture_id::text, by_row, shape, reason, xmin"
						  "  FROM medallion.capture WHERE relid = $1", &args, taken) > 0)
	{
		bool		isnull;
		char	   *reason = md_sql_string(0, 4);

		capture = MemoryContextAllocZero(context, sizeof(MdCapture));
		capture->relid = relid;
		capture->id = MemoryContextStrdup(context, md_sql_string(0, 1));
		capture->by_row = md_sql_bool(0, 2);
		capture->shape = md_sql_int64(0, 3);
		capture->reason = reason ? MemoryContextStrdup(context, reason) : NULL;
		capture->made_now =
			TransactionIdIsCurrentTransactionId(DatumGetTransactionId(md_sql_datum(0, 5, &isnull)));
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(taken);
	return capture;
}

List *
md_capture_list(void)
{
	MemoryContext context = CurrentMemoryContext;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MdSecurity	saved;
	List	   *relids = NIL;
	uint64		rows;

	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run("SELECT relid::oid FROM medallion.capture ORDER BY 1", NULL, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		relids = lappend_oid(relids, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return relids;
}

/* ---------------------------------------------------------------------- */

static Oid
capture_catalog(void)
{
	return get_relname_relid("capture", get_namespace_oid("medallion", false));
}

void
md_capture_lock_shared(Oid relid)
{
	LockDatabaseObject(capture_catalog(), relid, 0, ShareLock);
}

bool
md_capture_lock_exclusive(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, capture_catalog(), relid, 0);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

/* What keeps the changes of a relation from being captured, whoever asks. */
char *
md_capture_relation_obstacle(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Form_pg_class class = rel->rd_rel;
	char	   *why = NULL;

	if (IsCatalogRelation(rel) || class->relnamespace == get_namespace_oid("information_schema", true) ||
		class->relnamespace == get_namespace_oid("medallion", false))
		why = "a system table takes no triggers";
	else if (class->relpersistence == RELPERSISTENCE_UNLOGGED)
		why = "a crash empties an unlogged table without a trace";
	else if (class->relpersistence == RELPERSISTENCE_TEMP)
		why = "a temporary table belongs to one session";
	else if (class->relkind == RELKIND_RELATION && has_subclass(relid))
		why = "other tables inherit from it, and a query reads them with it";
	else
		for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
			if (TupleDescAttr(RelationGetDescr(rel), i)->attgenerated == 'v')
				why = "it has virtual generated columns, whose values triggers do not see";
	table_close(rel, NoLock);
	return why;
}

char *
md_capture_obstacle(Oid relid, Oid owner)
{
	char	   *why;
	ListCell   *lc;

	if (pg_class_aclcheck(relid, owner, ACL_SELECT) != ACLCHECK_OK)
		return "its changes can be read only with SELECT on the whole table, not on some columns";
	why = md_capture_relation_obstacle(relid);
	if (why != NULL)
		return why;
	foreach(lc, md_capture_members(relid))
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
			return "a partition of it is a foreign table, whose changes are not known";
	/* results of views are ours to put a trigger on */
	if (!md_view_exists(relid) && !md_relation_ownercheck(relid, owner) &&
		pg_class_aclcheck(relid, owner, ACL_TRIGGER) != ACLCHECK_OK)
		return psprintf("to capture its changes, \"%s\" needs the privilege TRIGGER on it",
						GetUserNameFromId(owner, false));
	return NULL;
}

/* ---------------------------------------------------------------------- */

static TriggerTransition *
transition(const char *name, bool is_new)
{
	TriggerTransition *node = makeNode(TriggerTransition);

	node->name = pstrdup(name);
	node->isNew = is_new;
	node->isTable = true;
	return node;
}

/* One trigger of ours, that fires always. */
static void
make_trigger(Oid root, Oid member, const char *name, int16 events, int16 timing, bool by_row)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = pstrdup(name);
	stmt->args = list_make1(makeString(psprintf("%u", root)));
	stmt->row = by_row;
	stmt->timing = timing;
	stmt->events = events;
	if (!by_row && timing == TRIGGER_TYPE_AFTER)
	{
		if (events != TRIGGER_TYPE_INSERT)
			stmt->transitionRels = lappend(stmt->transitionRels, transition("old_rows", false));
		if (events != TRIGGER_TYPE_DELETE)
			stmt->transitionRels = lappend(stmt->transitionRels, transition("new_rows", true));
	}
	CreateTriggerFiringOn(stmt, NULL, member, InvalidOid, InvalidOid, InvalidOid,
						  md_capture_function(), InvalidOid, NULL, true, false,
						  TRIGGER_FIRES_ALWAYS);
}

void
md_capture_add_triggers(Oid root, Oid member, bool by_row)
{
	bool		has_rows = get_rel_relkind(member) != RELKIND_PARTITIONED_TABLE;

	/* a transition table goes with one event only */
	if (!by_row)
	{
		make_trigger(root, member, "medallion_capture_insert", TRIGGER_TYPE_INSERT,
					 TRIGGER_TYPE_AFTER, false);
		make_trigger(root, member, "medallion_capture_update", TRIGGER_TYPE_UPDATE,
					 TRIGGER_TYPE_AFTER, false);
		make_trigger(root, member, "medallion_capture_delete", TRIGGER_TYPE_DELETE,
					 TRIGGER_TYPE_AFTER, false);
	}
	else if (has_rows)
		make_trigger(root, member, "medallion_capture_row",
					 TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
					 TRIGGER_TYPE_AFTER, true);
	if (has_rows)
		make_trigger(root, member, "medallion_capture_truncate", TRIGGER_TYPE_TRUNCATE,
					 TRIGGER_TYPE_BEFORE, false);
	CommandCounterIncrement();
}

void
md_capture_drop_triggers(Oid root, Oid member)
{
	ListCell   *lc;

	foreach(lc, md_capture_triggers(root, member))
	{
		ObjectAddress address;

		ObjectAddressSet(address, TriggerRelationId, lfirst_oid(lc));
		performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	}
	CommandCounterIncrement();
}

/* Keep writers away from a relation and its partitions. */
static void
lock_members(Oid relid)
{
	LockRelationOid(relid, ShareRowExclusiveLock);
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		(void) find_all_inheritors(relid, ShareRowExclusiveLock, NULL);
}

/* Put all triggers and a log in place; writers are locked out. */
static void
set_up(Oid relid, bool by_row, bool keep_triggers)
{
	ListCell   *lc;

	foreach(lc, md_capture_members(relid))
	{
		/* dropping a trigger would lock out readers, too */
		if (keep_triggers && md_capture_triggers_fire(relid, lfirst_oid(lc)))
			continue;
		md_capture_drop_triggers(relid, lfirst_oid(lc));
		md_capture_add_triggers(relid, lfirst_oid(lc), by_row);
	}
	md_log_begin(relid);
}

/* Store a capture under a new id. */
static void
store(Oid relid, bool by_row, const char *reason)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(by_row), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(md_capture_shape(relid)), false);
	md_sql_arg(&args, TEXTOID, reason ? CStringGetTextDatum(reason) : (Datum) 0, reason == NULL);
	run_latest("INSERT INTO medallion.capture (relid, capture_id, by_row, shape, reason)"
			   " VALUES ($1, gen_random_uuid(), $2, $3, $4)"
			   " ON CONFLICT (relid) DO UPDATE SET capture_id = excluded.capture_id,"
			   "   by_row = excluded.by_row, shape = excluded.shape, reason = excluded.reason", &args);
	CommandCounterIncrement();
}

void
md_capture_store_shape(Oid relid, int64 shape)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(shape), false);
	run_latest("UPDATE medallion.capture SET shape = $2 WHERE relid = $1", &args);
	CommandCounterIncrement();
}

/* Marks mean nothing to those who start anew, as all readers do. */
static void
forget_marks(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	run_latest("DELETE FROM medallion.capture_mark WHERE relid = $1", &args);
}

/* Set up or mend a capture; writers are locked out. */
static void
set_up_anew(Oid relid, MdCapture *capture)
{
	bool		by_row = md_capture_needs_rows(md_capture_members(relid));
	char	   *reason = NULL;

	if (capture != NULL)
	{
		reason = md_capture_what_broke(capture);
		md_log_drop(relid);
	}
	set_up(relid, by_row, capture != NULL && capture->by_row == by_row);
	forget_marks(relid);
	store(relid, by_row, reason);
}

void
md_capture_mend(Oid relid)
{
	md_capture_lock_shared(relid);
	lock_members(relid);
	set_up_anew(relid, md_capture_load(relid, NULL));
}

/* A source of a view, for which capture is the way to know its changes. */
typedef struct Wanted
{
	Oid			relid;
	Oid			owner;			/* of the view */
	bool		is_reader;		/* the view has a committed frontier in the log */
} Wanted;

/* Such sources of an incremental view (of Wanted). */
static List *
load_wanted(Oid view)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	List	   *wanted = NIL;
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	/* always in the same order, so that two refreshes do not lock crosswise */
	rows = md_sql_run_cached(&plan,
							 "SELECT s.source::oid, r.relowner,"
							 "       (s.frontier ->> 'capture' = c.capture_id::text) IS TRUE"
							 "  FROM medallion.view v JOIN pg_class r ON r.oid = v.relid"
							 "       JOIN medallion.view_state t ON t.relid = v.relid"
							 "       JOIN medallion.view_source s ON s.relid = v.relid"
							 "       JOIN pg_class f ON f.oid = s.source AND f.relkind IN ('r', 'p')"
							 "       LEFT JOIN medallion.capture c ON c.relid = s.source"
							 " WHERE v.relid = $1 AND v.refresh_mode <> 'full' AND t.strategy <> 'full'"
							 "   AND NOT EXISTS (SELECT FROM medallion.stream x WHERE x.relid = s.source)"
							 "   AND NOT EXISTS (SELECT FROM medallion.view_state x"
							 "                    WHERE x.relid = s.source AND x.strategy = 'append')"
							 " ORDER BY s.source::oid", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Wanted	   *one = palloc(sizeof(Wanted));
		bool		isnull;

		one->relid = DatumGetObjectId(md_sql_datum(i, 1, &isnull));
		one->owner = DatumGetObjectId(md_sql_datum(i, 2, &isnull));
		one->is_reader = md_sql_bool(i, 3);
		wanted = lappend(wanted, one);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return wanted;
}

/* Is there a capture, and as it was set up? */
static bool
is_ready(Oid relid)
{
	MdCapture  *capture = md_capture_load(relid, NULL);

	return capture != NULL && md_capture_is_intact(capture);
}

void
md_capture_prepare(Oid view)
{
	ListCell   *lc;

	foreach(lc, load_wanted(view))
	{
		Wanted	   *wanted = lfirst(lc);

		if (wanted->is_reader && is_ready(wanted->relid))
			continue;
		if (md_capture_obstacle(wanted->relid, wanted->owner) != NULL)
			continue;
		/* a new reader keeps the log from being pruned until it has committed */
		md_capture_lock_shared(wanted->relid);
		if (is_ready(wanted->relid))
			continue;
		lock_members(wanted->relid);
		if (!is_ready(wanted->relid))
			set_up_anew(wanted->relid, md_capture_load(wanted->relid, NULL));
	}
}

/* ---------------------------------------------------------------------- */

void
md_capture_release_later(void)
{
	release_due = true;
}

void
md_capture_relation_dropped(Oid relid)
{
	if (md_catalog_has_row("capture", "capture_pkey", relid))
		release_due = true;
}

bool
md_capture_release_is_due(void)
{
	return release_due;
}

/* Take a capture away, if nobody is in the way. */
static void
release(Oid relid)
{
	MdSqlArgs	args = {0};
	List	   *members = NIL;
	ListCell   *lc;

	if (!md_capture_lock_exclusive(relid))
		return;
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
	{
		/* dropping a trigger excludes everybody: not while somebody is there */
		if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
			return;
		members = md_capture_members(relid);
		foreach(lc, members)
			if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessExclusiveLock))
				return;
	}
	foreach(lc, members)
		md_capture_drop_triggers(relid, lfirst_oid(lc));
	md_log_drop(relid);
	forget_marks(relid);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	run_latest("DELETE FROM medallion.capture WHERE relid = $1", &args);
	CommandCounterIncrement();
}

/* Captures without a use (of Oid). */
static List *
unused(void)
{
	MemoryContext context = CurrentMemoryContext;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MdSecurity	saved;
	List	   *relids = NIL;
	uint64		rows;

	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run("SELECT c.relid::oid FROM medallion.capture c"
					  " WHERE NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = c.relid)"
					  "    OR NOT EXISTS (SELECT FROM medallion.view_source s"
					  "                     JOIN medallion.view v ON v.relid = s.relid"
					  "                     JOIN medallion.view_state t ON t.relid = s.relid"
					  "                    WHERE s.source = c.relid AND t.strategy <> 'full'"
					  "                      AND v.refresh_mode <> 'full')", NULL, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		relids = lappend_oid(relids, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return relids;
}

void
md_capture_release_unused(void)
{
	ListCell   *lc;

	release_due = false;
	foreach(lc, unused())
		release(lfirst_oid(lc));
}

/*
 * SQL: keep all change logs small, for the supervisor.  Refreshes prune what
 * they have read; this is for logs whose readers are paused or gone.
 */
Datum
md_prune_change_logs(PG_FUNCTION_ARGS)
{
	ListCell   *lc;

	md_capture_release_unused();
	foreach(lc, md_capture_list())
	{
		if (get_rel_name(lfirst_oid(lc)) == NULL)
			continue;
		md_log_prune(lfirst_oid(lc));
		md_log_enforce_limit(lfirst_oid(lc));
	}
	PG_RETURN_VOID();
}
