/*
 * view_redefine.c
 *		A new query for a materialized view, while people read it.
 *
 *		live	---- refreshed and read as ever ------------.  new rows
 *		next		build ------> catch up -> catch up ->  '-> dropped
 *													   ^
 *									no refresh of live from here on
 *
 * The result of the new query is built beside the live one, as a view of ours
 * that nobody else sees, and catches up with what has come meanwhile.  Then its
 * rows take the place of the live ones, in one of two ways:
 *
 * - Columns and unique indexes stay: the rows that differ are written.  Readers
 *   wait for nothing, and views above take in the differences.
 * - Else the files of the two are exchanged (relation_swap.c) under an exclusive
 *   lock.  It is asked for again and again for a short time, each attempt in a
 *   subtransaction, so that between them neither readers nor refreshes wait.
 *   Views above start anew.
 *
 * Subscribers of a publication must get the differences, so the first way is
 * taken for a published view always; its columns then change under a lock that
 * is held while they are written.
 *
 * All of it is one transaction: a failure, or a cancel, leaves the old view.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/predicate.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "attempt.h"
#include "capture.h"
#include "catalog.h"
#include "compat.h"
#include "debug_point.h"
#include "refresh_exec.h"
#include "refresh_errors.h"
#include "refresh_group.h"
#include "refresh_state.h"
#include "refresh_target.h"
#include "relation_make.h"
#include "relation_swap.h"
#include "row_index.h"
#include "settings.h"
#include "sql_run.h"
#include "type_shape.h"
#include "view_columns.h"
#include "view_define.h"
#include "view_settings.h"
#include "view_state.h"

/* How often the next result catches up before refreshes of the live one stop. */
#define CATCH_UP_ROUNDS 3

/* Attempts to lock the live table, and the longest pause between two of them. */
#define LOCK_ATTEMPTS 100
#define LOCK_PAUSE_MAX_MS 1000

typedef struct Redefinition
{
	MdView	   *view;			/* the live one, as it is to be */
	MdView	   *next;
	MdViewChange *change;
	MdPlan	   *plan;
	MdColumnChange *columns;
	List	   *pairs;			/* of MdIndexPair */
	MdRun		run;
} Redefinition;

static MdView *
load_view(Oid relid)
{
	Snapshot	snapshot = md_sql_take_snapshot();
	MdView	   *view = md_view_get(relid, snapshot);

	UnregisterSnapshot(snapshot);
	return view;
}

/* ----------------------------------------------------------------------
 * Building the next result
 * ---------------------------------------------------------------------- */

/*
 * A table of the layout that the live one will have: where that has a dropped
 * column there is one here.
 */
static Oid
make_next_table(Redefinition *redefinition)
{
	Oid			live = redefinition->view->relid;
	RangeVar   *name = makeRangeVar("medallion_def", md_relation_internal_name(live, " next"), -1);
	IntoClause *into = makeNode(IntoClause);
	Relation	rel = table_open(live, AccessShareLock);
	List	   *columns = NIL;
	List	   *drops = NIL;
	MdSecurity	saved;
	Oid			next;
	ListCell   *lc;

	if (OidIsValid(rel->rd_rel->reltablespace))
		into->tableSpaceName = get_tablespace_name(rel->rd_rel->reltablespace);
	if (RelationGetFillFactor(rel, HEAP_DEFAULT_FILLFACTOR) != HEAP_DEFAULT_FILLFACTOR)
		into->options = list_make1(makeDefElem("fillfactor",
											   (Node *) makeInteger(RelationGetFillFactor(rel, HEAP_DEFAULT_FILLFACTOR)), -1));
	table_close(rel, NoLock);
	foreach(lc, redefinition->columns->layout)
	{
		ColumnDef  *column = lfirst(lc);

		if (column == NULL)
		{
			AlterTableCmd *drop = makeNode(AlterTableCmd);

			column = makeColumnDef(psprintf("dropped %d", list_length(columns) + 1), INT4OID, -1,
								   InvalidOid);
			drop->subtype = AT_DropColumn;
			drop->name = column->colname;
			drops = lappend(drops, drop);
		}
		columns = lappend(columns, copyObject(column));
	}
	md_catalog_become_owner(&saved);
	next = md_relation_make_table(name, columns, redefinition->view->owner, into);
	if (drops != NIL)
		AlterTableInternal(next, drops, false);
	CommandCounterIncrement();
	md_catalog_restore_user(&saved);
	return next;
}

/* Names of the key columns, of String. */
static List *
key_names(const MdView *view)
{
	List	   *names = NIL;

	for (int i = 0; i < view->key_count; i++)
		names = lappend(names, makeString(get_attname(view->relid, view->keys[i], false)));
	return names;
}

/* The next result as a view of ours, without rows. */
static void
make_next(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	MdViewChange *change = redefinition->change;
	MdColumnChange *columns = redefinition->columns;
	MdView	   *next = palloc0(sizeof(MdView));

	next->relid = make_next_table(redefinition);
	next->owner = view->owner;
	next->definition = md_relation_make_definition(next->relid, change->query,
												   copyObject(columns->columns), columns->names);
	next->mode = change->set_mode ? change->mode : view->mode;
	next->settings = md_view_settings_capture();
	next->on_error_fail = view->on_error_fail;
	next->max_refresh_errors = view->max_refresh_errors;
	md_error_options_apply(&change->errors, next);
	md_view_set_keys(next, change->set_keys ? change->key_columns : key_names(view));
	md_view_insert(next, md_strategy_name(redefinition->plan->strategy));
	md_view_reset_sources(next->relid, redefinition->plan->source_ids,
						  redefinition->plan->inlined_ids);
	CommandCounterIncrement();
	redefinition->next = next;
}

/* One refresh of the next result; what it did counts as part of one run. */
static bool
catch_up(Redefinition *redefinition)
{
	MdRun		run = {0};

	(void) md_refresh_consistent(redefinition->next->relid, false, true, &run, NULL);
	redefinition->run.rows_inserted += run.rows_inserted - run.rows_deleted;
	redefinition->next = load_view(redefinition->next->relid);
	return strcmp(run.strategy, "none") != 0;
}

/* Is there a unique index of the owner's on the live table that serves as one? */
static bool
owner_index_serves(Oid live, Oid next_index)
{
	Relation	index = index_open(next_index, AccessShareLock);
	bool		serves = index->rd_index->indisunique &&
		OidIsValid(md_relation_find_unique_index(live, index->rd_index->indnkeyatts,
												 index->rd_index->indkey.values));

	index_close(index, NoLock);
	return serves;
}

/* Is an index of ours on the live table as that on the next one? */
static bool
index_fits(const Redefinition *redefinition, Oid live_index, Oid next_index)
{
	Oid			live = redefinition->view->relid;

	if (!OidIsValid(next_index))
		return !OidIsValid(live_index);
	if (!OidIsValid(live_index))
		return owner_index_serves(live, next_index);
	return md_relation_same_index(live, live_index, redefinition->next->relid, next_index);
}

/* Does the live table fit the next rows as it is? */
static bool
fits(const Redefinition *redefinition)
{
	const MdView *view = redefinition->view;
	const MdView *next = redefinition->next;

	return redefinition->columns->commands == NIL &&
		index_fits(redefinition, view->merge_index, next->merge_index) &&
		index_fits(redefinition, view->key_index, next->key_index);
}

/* ----------------------------------------------------------------------
 * Locks
 * ---------------------------------------------------------------------- */

/*
 * Stop refreshes of the live view, catch up for the last time, and lock its
 * table if it has to be.
 */
static void
lock_live(Redefinition *redefinition, bool exclusive)
{
	Oid			relid = redefinition->view->relid;

	md_view_lock(relid);
	redefinition->view = load_view(relid);
	if (redefinition->next != NULL)
	{
		(void) catch_up(redefinition);
		exclusive = exclusive || !fits(redefinition);
	}
	MD_DEBUG_POINT("redefine-caught-up");
	if (exclusive)
		md_relation_lock_shortly(relid);
}

/* For md_attempt_but_for(): lock_live(), which leaves no lock behind if it took too long. */
typedef struct LockAttempt
{
	Redefinition *redefinition;
	bool		exclusive;
} LockAttempt;

static void
attempt_lock(void *arg)
{
	LockAttempt *attempt = arg;

	lock_live(attempt->redefinition, attempt->exclusive);
}

/* Try until it is locked; between the attempts all goes on as ever. */
static void
lock_live_patiently(Redefinition *redefinition, bool exclusive)
{
	LockAttempt lock = {redefinition, exclusive};

	for (int attempt = 1; !md_attempt_but_for(attempt_lock, &lock, ERRCODE_LOCK_NOT_AVAILABLE); attempt++)
	{
		if (attempt == LOCK_ATTEMPTS)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock materialized view \"%s\" to change its columns",
							get_rel_name(redefinition->view->relid)),
					 errdetail("Its readers left no gap of %d ms in %d attempts.",
							   md_swap_lock_timeout_ms, LOCK_ATTEMPTS),
					 errhint("Look in pg_locks for long transactions that have read it, or increase medallion.swap_lock_timeout.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(attempt * 20, LOCK_PAUSE_MAX_MS), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (redefinition->next != NULL)
			(void) catch_up(redefinition);
	}
}

/* ----------------------------------------------------------------------
 * Putting it in place
 * ---------------------------------------------------------------------- */

/* Must others see each row that changes, or do they refer to rows? */
static bool
is_followed(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	return md_view_sql_run("SELECT FROM pg_class c WHERE c.oid = $1"
						   "   AND (EXISTS (SELECT FROM pg_publication WHERE puballtables)"
						   "        OR EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = c.oid)"
						   "        OR EXISTS (SELECT FROM pg_publication_namespace WHERE pnnspid = c.relnamespace)"
						   "        OR EXISTS (SELECT FROM pg_constraint WHERE confrelid = c.oid))",
						   &args) > 0;
}

/* Rows come and go past the triggers of the live table: its readers start anew. */
static void
mark_redefined(Oid relid)
{
	if (md_capture_load(relid, NULL) != NULL)
		md_capture_write_mark(relid, "was redefined");
}

/*
 * Change the live table's columns, and drop unique indexes that do not fit.  A log
 * of its changes has rows of the old columns, and a rewrite of the table is not in
 * it.  That columns are others than those captured need not show later on: a second
 * new query may bring the old ones back.
 */
static void
change_table(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	Oid		   *live[] = {&view->merge_index, &view->key_index};
	Oid			next[] = {redefinition->next->merge_index, redefinition->next->key_index};
	Oid			over_rows;

	for (int i = 0; i < lengthof(live); i++)
	{
		if (!OidIsValid(*live[i]) ||
			(redefinition->columns->lost == NULL && index_fits(redefinition, *live[i], next[i])))
			continue;
		md_relation_drop_part(*live[i]);
		*live[i] = InvalidOid;
	}
	if (redefinition->columns->commands == NIL)
		return;
	/* one over the new columns is made when a row goes */
	over_rows = md_row_index_find(view->relid);
	if (OidIsValid(over_rows))
		md_relation_drop_part(over_rows);
	md_view_columns_change(view->relid, redefinition->columns);
	mark_redefined(view->relid);
}

/* Give the live view the definition and the state table of the next one. */
static void
adopt_definition(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	MdView	   *next = redefinition->next;
	MdViewChange *change = redefinition->change;
	MdColumnChange *columns = redefinition->columns;

	if (OidIsValid(view->definition))
		md_relation_drop_part(view->definition);
	view->definition = md_relation_make_definition(view->relid, change->query,
												   copyObject(columns->columns), columns->names);
	md_state_adopt(view, next);
	view->settings = next->settings;
	view->mode = next->mode;
	view->populated = next->populated;
	md_error_options_apply(&change->errors, view);
	view->key_count = next->key_count;
	view->keys = next->keys;
	if (change->set_interval)
		view->refresh_interval = change->refresh_interval;
}

/* Indexes that the view needs by its new plan. */
static void
adopt_indexes(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	MdPlan	   *plan = md_plan_make(md_query_of_definition(view->definition), view->owner);

	if (view->mode == MD_MODE_FULL)
	{
		plan->merge = NULL;
		plan->latest = NULL;
		plan->top = NULL;
	}
	md_state_prepare(view, plan);
	md_state_index_result(view, plan);
	md_view_update(view);
	CommandCounterIncrement();
}

/* An index of the live table for one of ours on the next, and its partner. */
static void
take_index(Redefinition *redefinition, Oid *live_index, Oid next_index)
{
	Oid			live = redefinition->view->relid;
	MdIndexPair *pair = palloc(sizeof(MdIndexPair));

	if (!OidIsValid(next_index) ||
		(!OidIsValid(*live_index) && owner_index_serves(live, next_index)))
		return;
	if (!OidIsValid(*live_index))
		*live_index = md_relation_copy_index(next_index, redefinition->next->relid, live,
											 "medallion_key");
	pair->live = *live_index;
	pair->next = next_index;
	redefinition->pairs = lappend(redefinition->pairs, pair);
}

/*
 * Leave no row in the live table.  Not by TRUNCATE, which would log each of them for
 * the readers, who see nothing of those that come instead.
 */
static void
empty_live(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);

	CheckTableNotInUse(rel, "ALTER TABLE");
	CheckTableForSerializableConflictIn(rel);
	md_relation_empty(rel);
	pgstat_count_truncate(rel);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	mark_redefined(relid);
}

/* Exchange the tables' files. */
static void
put_files(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;

	empty_live(view->relid);
	change_table(redefinition);
	take_index(redefinition, &view->merge_index, redefinition->next->merge_index);
	take_index(redefinition, &view->key_index, redefinition->next->key_index);
	adopt_definition(redefinition);
	adopt_indexes(redefinition);
	md_relation_swap(view->relid, redefinition->next->relid, redefinition->pairs);
}

/* Write the rows that differ. */
static void
put_rows(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	Snapshot	snapshot = md_sql_take_snapshot();
	MdTarget   *target;
	MdTarget   *next;
	MdSecurity	saved;

	md_catalog_become(view->owner, &saved);
	target = md_target_make(view->relid);
	if (OidIsValid(md_type_shapes_lost(view->type_shapes)))
		md_state_distrust_composites(view, target);
	next = md_target_make(redefinition->next->relid);
	SPI_connect();
	redefinition->run.rows_inserted = 0;
	md_diff_apply(target, psprintf("SELECT %s FROM %s", md_target_columns(next, NULL, NIL), next->name),
				  md_target_numbers(target, redefinition->next->key_count, redefinition->next->keys),
				  NULL, snapshot, &redefinition->run);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	adopt_definition(redefinition);
	adopt_indexes(redefinition);
}

static void
drop_next(Oid relid)
{
	ObjectAddress address;

	md_view_delete(relid);
	ObjectAddressSet(address, RelationRelationId, relid);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}

/* ---------------------------------------------------------------------- */

/* A view that was never filled: there is nothing to build or to keep. */
static void
redefine_empty(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	MdPlan	   *plan = redefinition->plan;
	MdViewChange *change = redefinition->change;
	List	   *keys = change->set_keys ? change->key_columns : key_names(view);
	MdView		next = {0};

	lock_live_patiently(redefinition, true);
	view = redefinition->view;
	next.settings = md_view_settings_capture();
	next.mode = change->set_mode ? change->mode : view->mode;
	next.relid = view->relid;
	redefinition->next = &next;
	change_table(redefinition);
	md_view_set_keys(&next, keys);
	adopt_definition(redefinition);
	adopt_indexes(redefinition);
	md_view_reset_sources(view->relid, plan->source_ids, plan->inlined_ids);
	md_view_forget_frontier(view->relid, md_strategy_name(plan->strategy));
}

/* Indexes of ours on the live table that are not put on the next one as they are. */
static List *
own_indexes(const Redefinition *redefinition)
{
	List	   *indexes = list_make2_oid(redefinition->view->merge_index, redefinition->view->key_index);

	if (redefinition->columns->commands != NIL)
		indexes = lappend_oid(indexes, md_row_index_find(redefinition->view->relid));
	return indexes;
}

static void
check_query(Redefinition *redefinition)
{
	MdView	   *view = redefinition->view;
	MdViewChange *change = redefinition->change;

	md_query_check(change->query, change->query_text);
	redefinition->plan = md_plan_make(change->query, view->owner);
	if (md_view_is_circular(view->relid, redefinition->plan->source_ids))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("materialized view \"%s\" cannot read itself", get_rel_name(view->relid))));
	md_view_check_mode(redefinition->plan, change->set_mode ? change->mode : view->mode,
					   change->query_text, true);
	md_view_check_privileges(md_query_text(change->query), view->owner);
	redefinition->columns = md_view_columns_compare(view->relid, change->query);
}

void
md_view_redefine(Oid relid, MdViewChange *change)
{
	Redefinition redefinition = {0};
	bool		followed;
	bool		swap;

	redefinition.change = change;
	redefinition.view = load_view(relid);
	redefinition.run.started_at = GetCurrentTimestamp();
	redefinition.run.strategy = "full";
	redefinition.run.reason = "its query was changed";
	redefinition.run.rows_read = -1;
	check_query(&redefinition);
	if (!redefinition.view->populated && redefinition.view->refresh_number == 0)
	{
		redefine_empty(&redefinition);
		return;
	}

	make_next(&redefinition);
	(void) catch_up(&redefinition);
	followed = is_followed(relid);
	swap = !followed && !fits(&redefinition);
	if (swap)
	{
		md_relation_freeze(redefinition.next->relid);
		redefinition.pairs = md_relation_copy_indexes(relid, redefinition.next->relid,
													  own_indexes(&redefinition),
													  redefinition.columns->lost);
	}
	MD_DEBUG_POINT("redefine-built");
	for (int i = 0; i < CATCH_UP_ROUNDS && catch_up(&redefinition); i++)
		 /* until there is little left to do under the lock */ ;

	lock_live_patiently(&redefinition, swap);
	MD_DEBUG_POINT("redefine-locked");
	if (swap)
		put_files(&redefinition);
	else
	{
		if (!fits(&redefinition))
			change_table(&redefinition);
		put_rows(&redefinition);
	}
	md_view_adopt_state(relid, redefinition.next->relid, &redefinition.run);
	md_errors_move(redefinition.next->relid, relid);
	md_view_store_run(relid, &redefinition.run, GetCurrentTimestamp());
	(void) md_view_clear_failure(relid);
	drop_next(redefinition.next->relid);
	MD_DEBUG_POINT("redefine-done");
}
