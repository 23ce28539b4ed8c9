/*
 * view_define.c
 *		Creating, changing and dropping materialized views.
 *
 * A view is its result (a table of the owner, where he wants it), its
 * definition (a real view, relation_make.c) and rows of our catalog.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "catalog.h"
#include "nearest_name.h"
#include "refresh_errors.h"
#include "refresh_group.h"
#include "refresh_read.h"
#include "refresh_target.h"
#include "relation_make.h"
#include "sql_run.h"
#include "view_columns.h"
#include "view_define.h"
#include "view_settings.h"
#include "view_stage.h"
#include "worker_slots.h"

#define MAX_REFRESH_INTERVAL_YEARS 100

/* Point at a place of the query in the text that the user gave. */
static int
query_position(const char *text, bool inner_text, int location)
{
	ParseState *pstate;

	if (text == NULL || location < 0)
		return 0;
	if (inner_text)
	{
		internalerrquery(text);
		return internalerrposition(pg_mbstrlen_with_len(text, location) + 1);
	}
	pstate = make_parsestate(NULL);
	pstate->p_sourcetext = text;
	return parser_errposition(pstate, location);
}

void
md_view_check_interval(const Interval *interval)
{
	static const Interval zero = {0};
	static const Interval longest = {.month = MAX_REFRESH_INTERVAL_YEARS * MONTHS_PER_YEAR};

	if (interval == NULL)
		return;
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(interval),
										  IntervalPGetDatum(&zero))) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("refresh_interval must be longer than zero"),
				 errhint("NULL means that the view is refreshed on demand only.")));
	/* the time of the next refresh must be one that Postgres can tell */
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(interval),
										  IntervalPGetDatum(&longest))) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("refresh_interval must not be longer than %d years", MAX_REFRESH_INTERVAL_YEARS),
				 errhint("NULL means that the view is refreshed on demand only.")));
}

void
md_view_check_mode(MdPlan *plan, MdRefreshMode mode, const char *text, bool inner_text)
{
	if (mode != MD_MODE_INCREMENTAL || plan->strategy != MD_STRATEGY_FULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("query cannot be refreshed incrementally"),
			 errdetail("%s.", plan->reason),
			 errhint("medallion.explain_refresh() shows each step; refresh_mode \"auto\" would recompute the query."),
			 query_position(text, inner_text, plan->location)));
}

void
md_view_check_privileges(const char *query_text, Oid owner)
{
	MdSecurity	saved;
	Snapshot	snapshot = md_sql_take_snapshot();

	md_catalog_become(owner, &saved);
	SPI_connect();
	md_sql_run(psprintf("SELECT FROM (%s) q WHERE false", query_text), NULL, snapshot);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
}

/* An error that names the column which the user may have meant. */
static void
report_missing_column(Oid relid, const char *name)
{
	MdTarget   *target = md_target_make(relid);
	const char **valid = palloc0(sizeof(char *) * (target->count + 1));
	const char *nearest;

	for (int i = 0; i < target->count; i++)
		valid[i] = get_attname(relid, target->columns[i].attnum, false);
	nearest = md_nearest_name(name, valid);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("key column \"%s\" is not a column of the query", name),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

void
md_view_set_keys(MdView *view, List *names)
{
	ListCell   *lc;

	view->key_count = 0;
	view->keys = palloc(sizeof(AttrNumber) * Max(1, list_length(names)));
	foreach(lc, names)
	{
		AttrNumber	attnum = get_attnum(view->relid, strVal(lfirst(lc)));

		if (attnum <= 0)
			report_missing_column(view->relid, strVal(lfirst(lc)));
		for (int i = 0; i < view->key_count; i++)
			if (view->keys[i] == attnum)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("key column \"%s\" is given twice", strVal(lfirst(lc)))));
		view->keys[view->key_count++] = attnum;
	}
}

/* Where the result goes; false if something is there and may be. */
static bool
check_name(MdViewSpec *spec)
{
	Oid			existing;
	Oid			namespace_id;

	namespace_id = RangeVarGetAndCheckCreationNamespace(spec->name, NoLock, &existing);
	if (OidIsValid(existing))
	{
		if (!spec->if_not_exists)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("relation \"%s\" already exists", spec->name->relname)));
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists, skipping", spec->name->relname)));
		return false;
	}
	if (spec->name->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a materialized view cannot be temporary or unlogged")));
	if (namespace_id == get_namespace_oid("medallion_def", true) ||
		namespace_id == get_namespace_oid("medallion", true))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a materialized view cannot be made in schema \"%s\"",
						get_namespace_name(namespace_id)),
				 errhint("The schema belongs to extension pg_medallion: choose another one.")));
	return true;
}

/*
 * The table of the result; that of a stage lies where its owner may make none.
 * Groups and first rows of keys are updated in place.
 */
static Oid
make_result(MdViewSpec *spec, const MdPlan *plan, List *columns, Oid owner)
{
	bool		updated = spec->mode != MD_MODE_FULL && (plan->merge != NULL || plan->latest != NULL);
	IntoClause *into = updated ? md_relation_with_room(spec->into) : spec->into;
	MdSecurity	saved;
	Oid			relid;

	if (!spec->is_stage)
		return md_relation_make_table(spec->name, columns, owner, into);
	md_catalog_become_owner(&saved);
	relid = md_relation_make_table(spec->name, columns, owner, into);
	md_catalog_restore_user(&saved);
	return relid;
}

Oid
md_view_create(MdViewSpec *spec)
{
	List	   *stages;
	Oid			owner = GetUserId();
	MdView		view = {0};
	MdPlan	   *plan;
	MdRun		run;
	List	   *names;
	List	   *exprs;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.create_materialized_view()");
	if (!spec->is_stage && !check_name(spec))
		return InvalidOid;
	md_view_check_interval(spec->refresh_interval);
	md_query_check(spec->query, spec->query_text);
	stages = md_stage_make(spec->name, spec->stages, spec->with_data, &spec->query);
	plan = md_plan_make(spec->query, owner);
	md_view_check_mode(plan, spec->mode, spec->query_text, spec->inner_text);
	md_view_check_privileges(md_query_text(spec->query), owner);

	md_view_output_columns(spec->query, spec->column_names, &names, &exprs);
	view.relid = make_result(spec, plan, md_relation_columns(names, exprs), owner);
	view.owner = owner;
	view.definition = md_relation_make_definition(view.relid, spec->query,
												  md_relation_columns(names, exprs), names);
	view.refresh_interval = spec->refresh_interval;
	view.mode = spec->mode;
	view.settings = md_view_settings_capture();
	view.max_refresh_errors = MD_MAX_REFRESH_ERRORS_DEFAULT;
	md_error_options_apply(&spec->errors, &view);
	md_view_set_keys(&view, spec->key_columns);
	md_view_insert(&view, md_strategy_name(spec->mode == MD_MODE_FULL ? MD_STRATEGY_FULL :
										   plan->strategy));
	md_view_reset_sources(view.relid, plan->source_ids, plan->inlined_ids);
	md_stage_attach(view.relid, stages);
	CommandCounterIncrement();
	if (spec->with_data)
		(void) md_refresh_consistent(view.relid, false, true, &run, NULL);
	else
		/* so that the first refresh need not lock writers out while it runs */
		md_capture_prepare(view.relid);
	md_definitions_changed();
	return view.relid;
}

/* ---------------------------------------------------------------------- */

void
md_view_alter(Oid relid, MdViewChange *change)
{
	Snapshot	snapshot;
	MdView	   *view;
	MdRun		run;
	bool		rebuild;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.alter_materialized_view()");
	md_view_check_owner(relid);
	md_view_check_interval(change->set_interval ? change->refresh_interval : NULL);
	md_view_lock_definition(relid);
	if (change->query != NULL)
	{
		change->query = md_stage_apply(relid, change->query);
		md_view_redefine(relid, change);
		md_definitions_changed();
		return;
	}
	md_view_lock(relid);
	snapshot = md_sql_take_snapshot();
	view = md_view_get(relid, snapshot);
	UnregisterSnapshot(snapshot);
	rebuild = view->populated && change->set_keys && OidIsValid(view->definition);

	md_error_options_apply(&change->errors, view);
	/* the rows that it was computed without must fail it */
	if (change->errors.set_on_error && view->on_error_fail)
		md_errors_forget(relid);
	if (change->set_interval)
		view->refresh_interval = change->refresh_interval;
	if (change->set_mode && change->mode != view->mode)
	{
		view->mode = change->mode;
		md_view_check_query(view);
		md_view_check_mode(md_plan_make(md_query_of_definition(view->definition), view->owner),
							   view->mode, NULL, false);
	}
	if (change->set_keys)
	{
		if (OidIsValid(view->key_index))
			md_relation_drop_part(view->key_index);
		view->key_index = InvalidOid;
		md_view_set_keys(view, change->key_columns);
	}
	md_view_update(view);
	CommandCounterIncrement();
	if (rebuild)
		(void) md_refresh_consistent(relid, true, true, &run, NULL);
	md_definitions_changed();
}

void
md_view_drop(Oid relid, bool cascade)
{
	ObjectAddress address;
	Snapshot	snapshot;

	PreventCommandIfReadOnly("medallion.drop_materialized_view()");
	md_view_check_owner(relid);
	snapshot = md_sql_take_snapshot();
	(void) md_view_get(relid, snapshot);
	UnregisterSnapshot(snapshot);
	LockRelationOid(relid, AccessExclusiveLock);
	ObjectAddressSet(address, RelationRelationId, relid);
	performDeletion(&address, cascade ? DROP_CASCADE : DROP_RESTRICT, 0);
	md_capture_release_unused();
}

/* Tie the parts of a view to its result; they come loose in a restore. */
static void
attach_parts(Oid relid)
{
	Snapshot	snapshot = md_sql_take_snapshot();
	MdView	   *view = md_view_get(relid, snapshot);
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	if (OidIsValid(view->definition))
		md_relation_attach(view->definition, relid);
	md_relation_guard(relid);
	foreach(lc, view->state_tables)
	{
		md_relation_attach(lfirst_oid(lc), relid);
		md_relation_guard(lfirst_oid(lc));
	}
	md_stage_attach(relid, md_stage_list(relid));
}

bool
md_view_set_paused(Oid relid, bool paused)
{
	ListCell   *lc;

	if (!md_view_exists(relid))
		return false;
	md_view_check_owner(relid);
	if (!paused)
		attach_parts(relid);
	(void) md_view_store_paused(relid, paused);
	foreach(lc, md_stage_list(relid))
		(void) md_view_set_paused(lfirst_oid(lc), paused);
	md_definitions_changed();
	return true;
}

void
md_view_resume_all(void)
{
	ListCell   *lc;

	foreach(lc, md_view_foreign_list())
	{
		Oid			relid = lfirst_oid(lc);
		Snapshot	snapshot = md_sql_take_snapshot();
		MdView	   *view = md_view_load(relid, snapshot);

		UnregisterSnapshot(snapshot);
		if (view == NULL || !has_privs_of_role(GetUserId(), view->owner))
			continue;
		attach_parts(relid);
		/* one that was paused by hand stays paused */
		md_view_store_origin(relid);
	}
	md_definitions_changed();
}
