/*
 * refresh_exec.c
 *		One refresh of one view.
 *
 *	lock the view -> take a snapshot -> what is new? -> plan -> apply -> frontier
 *
 * All of it is one transaction, and everything that is read is read under one
 * snapshot, taken after the lock: a second refresh waits, then sees what the
 * first has stored, and finds nothing new.  The frontier is what the sources'
 * own counters were in that snapshot, so rows and frontier agree.
 *
 * The query runs as the owner of the view, in a security-restricted operation,
 * with search_path fixed and the view's pinned settings.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "storage/itemptr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "catalog.h"
#include "debug_point.h"
#include "frontier.h"
#include "guard.h"
#include "refresh_analyze.h"
#include "refresh_cost.h"
#include "refresh_exec.h"
#include "refresh_part.h"
#include "refresh_quarantine.h"
#include "refresh_state.h"
#include "refresh_upsert.h"
#include "relation_make.h"
#include "settings.h"
#include "sql_run.h"
#include "stable_functions.h"
#include "type_shape.h"
#include "view_settings.h"

char *
md_refresh_query_text(Query *query, TimestampTz time)
{
	return md_query_text((Query *) md_unstable_fix_time((Node *) query, time));
}

/* Is there anything to do? */
static bool
is_due(MdRefresh *refresh)
{
	ListCell   *lc;

	if (!refresh->view->populated || refresh->view->always_refresh ||
		OidIsValid(md_type_shapes_lost(refresh->view->type_shapes)))
		return true;
	foreach(lc, refresh->sources)
		if (((MdSource *) lfirst(lc))->changed)
			return true;
	return false;
}

static MdSource *
find_source(List *sources, Oid relid)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		MdSource   *source = lfirst(lc);

		if (source->relid == relid)
			return source;
	}
	return NULL;
}

/* Do the stored sources and those of the plan agree? */
static bool
same_sources(MdRefresh *refresh)
{
	List	   *planned = list_concat_copy(refresh->plan->source_ids, refresh->plan->inlined_ids);
	ListCell   *lc;

	if (list_length(planned) != list_length(refresh->sources))
		return false;
	foreach(lc, planned)
		if (find_source(refresh->sources, lfirst_oid(lc)) == NULL)
			return false;
	return true;
}

/*
 * Why the refresh must recompute although the plan is incremental; NULL if it
 * need not, with what is new in the sources.
 */
static char *
why_rebuild(MdRefresh *refresh, List **inputs)
{
	ListCell   *lc;

	*inputs = NIL;
	if (!refresh->view->populated)
		return refresh->view->refresh_number == 0 ? "first refresh" :
			"its definition, or what is kept for it, is new";
	foreach(lc, refresh->sources)
	{
		MdSource   *source = lfirst(lc);

		if (source->kind == MD_SOURCE_INLINED && source->changed)
			return psprintf("view %s was redefined", md_read_relation_name(source->relid));
	}
	refresh->run.rows_read = 0;
	foreach(lc, refresh->plan->source_ids)
	{
		MdSource   *source = find_source(refresh->sources, lfirst_oid(lc));
		MdInput    *input = palloc0(sizeof(MdInput));

		input->relid = source->relid;
		md_frontier_delta(source, refresh->snapshot, &input->delta);
		md_quarantine_let_in(refresh, source, &input->delta);
		if (input->delta.why_full != NULL)
			return input->delta.why_full;
		*inputs = lappend(*inputs, input);
		if (input->delta.note != NULL)
			refresh->run.reason = input->delta.note;
	}
	return NULL;
}

/* Why all rows may look otherwise although none was written; NULL: they do not. */
static char *
why_reshaped(MdRefresh *refresh)
{
	Oid			relid = get_typ_typrelid(refresh->reshaped_type);

	if (!OidIsValid(refresh->reshaped_type))
		return NULL;
	if (OidIsValid(relid) && get_rel_relkind(relid) != RELKIND_COMPOSITE_TYPE)
		return psprintf("%s, whose rows the query shows as a whole, has other columns",
						md_read_relation_name(relid));
	return psprintf("type %s, of which the query reads values, has other attributes or labels",
					format_type_be_qualified(refresh->reshaped_type));
}

/* What was read of the changes, and is of no use. */
static void
end_inputs(List *inputs)
{
	ListCell   *lc;

	foreach(lc, inputs)
		if (((MdInput *) lfirst(lc))->delta.store != NULL)
			tuplestore_end(((MdInput *) lfirst(lc))->delta.store);
}

/* Rows that are new in the sources; -1: not known. */
static int64
count_read(List *inputs)
{
	int64		rows = 0;
	ListCell   *lc;

	foreach(lc, inputs)
	{
		int64		these = ((MdInput *) lfirst(lc))->delta.rows;

		if (these < 0)
			return -1;
		rows += these;
	}
	return rows;
}

List *
md_refresh_unique_columns(MdRefresh *refresh)
{
	MdPlan	   *plan = refresh->plan;

	if (refresh->view->key_count == 0 && plan->strategy == MD_STRATEGY_REGROUP && plan->keys_unique)
		return plan->key_columns;
	return md_target_numbers(refresh->result, refresh->view->key_count, refresh->view->keys);
}

/* Fill the result, and the state that goes with it. */
static void
fill(void *arg)
{
	MdRefresh  *refresh = arg;
	MdView	   *view = refresh->view;
	MdPlan	   *plan = refresh->plan;
	MdRun	   *run = &refresh->run;

	if (plan->merge != NULL)
		md_merge_rebuild(refresh);
	else if (plan->latest != NULL)
		md_latest_rebuild(refresh);
	else if (plan->top != NULL)
		md_top_rebuild(refresh);
	else if (view->refresh_number == 0)
		md_diff_fill(refresh->result, md_refresh_query_text(plan->query, view->refreshed_at),
					 refresh->snapshot, run);
	else
		md_diff_apply(refresh->result, md_refresh_query_text(plan->query, view->refreshed_at),
					  md_refresh_unique_columns(refresh), NULL, refresh->snapshot, run);
}

/* Recompute, and change what differs. */
static void
rebuild(MdRefresh *refresh)
{
	MdView	   *view = refresh->view;
	MdRun	   *run = &refresh->run;
	MdRun		before;
	double		started_ms = md_steps_ms(&run->steps);

	(void) md_step(&run->steps, MD_STEP_RECOMPUTE);
	/* the index is made anew, if need be, when all rows are there */
	refresh->result->index_keys = NIL;
	if (OidIsValid(refresh->reshaped_type))
		md_state_distrust_composites(view, refresh->result);
	md_state_make(view, refresh->plan);
	before = *run;
	if (!OidIsValid(view->merge_index))
		fill(refresh);
	else if (!md_upsert_fits(fill, refresh))
	{
		/* a key is too long for the index: make another one afterwards */
		md_relation_drop_part(view->merge_index);
		view->merge_index = InvalidOid;
		*run = before;
		md_diff_forget();
		fill(refresh);
	}
	(void) md_step(&run->steps, MD_STEP_INDEX);
	md_state_index(view, refresh->plan);
	md_cost_note_recompute(refresh, md_steps_ms(&run->steps) - started_ms);
	if (run->rows_inserted + run->rows_updated + run->rows_deleted > 0)
		view->rewritten_number = ++view->refresh_number;
}

/* An incremental view is never recomputed in silence. */
static void
refuse_rebuild(MdRefresh *refresh, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot refresh materialized view \"%s\" incrementally",
					get_rel_name(refresh->view->relid)),
			 errdetail("Its refresh mode is \"incremental\", but: %s.", reason),
			 errhint("Call medallion.refresh(%s, full_refresh => true) to recompute it once.",
					 quote_literal_cstr(refresh->result->name))));
}

/*
 * Settings for the statements of a refresh: they are many and short, so that
 * compiling them costs more than it gains, and what they join should be seen as
 * one by the planner.
 */
static int
begin_settings(void)
{
	static const char *const settings[][2] = {
		{"jit", "off"}, {"join_collapse_limit", "12"}, {"from_collapse_limit", "12"}
	};
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}

/* The changes of the sources (of MdInput), or a reason to recompute. */
static char *
find_changes(MdRefresh *refresh, List **inputs)
{
	int			nest_level = begin_settings();
	char	   *reason = why_rebuild(refresh, inputs);

	AtEOXact_GUC(false, nest_level);
	return reason;
}

/* Apply what is new; false, with nothing written, if that turned out impossible. */
static bool
apply_changes(MdRefresh *refresh, List *inputs, TimestampTz old_time)
{
	MdView	   *view = refresh->view;
	MdStrategy	strategy = refresh->plan->strategy;
	int			nest_level = begin_settings();
	double		started_ms;
	char	   *why_full;

	refresh->engine = md_engine_begin(inputs, refresh->snapshot, old_time, view->refreshed_at);
	refresh->engine->steps = &refresh->run.steps;
	md_step_rows(&refresh->run.steps, MD_STEP_FIND, count_read(inputs));
	(void) md_step(&refresh->run.steps, MD_STEP_COMPUTE);
	started_ms = md_steps_ms(&refresh->run.steps);
	md_cost_begin(refresh, inputs);
	refresh->result->index_keys = md_state_result_keys(refresh->plan);
	refresh->run.strategy = md_strategy_name(strategy);
	refresh->run.rows_read = count_read(inputs);
	switch (refresh->engine->why_full != NULL ? MD_STRATEGY_FULL : strategy)
	{
		case MD_STRATEGY_APPEND:
			md_append_apply(refresh);
			break;
		case MD_STRATEGY_JOIN:
			md_signed_apply(refresh);
			break;
		case MD_STRATEGY_MERGE:
			md_merge_apply(refresh);
			break;
		case MD_STRATEGY_LATEST:
			md_latest_apply(refresh);
			break;
		case MD_STRATEGY_TOP:
			md_top_apply(refresh);
			break;
		case MD_STRATEGY_REGROUP:
		case MD_STRATEGY_WINDOW:
			md_regroup_apply(refresh);
			break;
		case MD_STRATEGY_FULL:
			if (refresh->engine->why_full == NULL)
				elog(ERROR, "a full refresh has no changes to apply");
			break;
	}
	why_full = refresh->engine->why_full;
	if (why_full == NULL)
		md_cost_note_change(refresh, md_steps_ms(&refresh->run.steps) - started_ms);
	md_engine_end(refresh->engine);
	AtEOXact_GUC(false, nest_level);
	if (why_full != NULL)
	{
		refresh->run.reason = why_full;
		return false;
	}
	if (strategy != MD_STRATEGY_APPEND &&
		refresh->run.rows_inserted + refresh->run.rows_updated + refresh->run.rows_deleted > 0)
		view->rewritten_number = ++view->refresh_number;
	return true;
}

/* Choose the strategy and do it. */
static void
apply(MdRefresh *refresh, bool full, TimestampTz old_time)
{
	MdView	   *view = refresh->view;
	MdPlan	   *plan = refresh->plan;
	bool		was_populated = view->populated;
	char	   *reason;
	List	   *inputs = NIL;

	if (view->mode == MD_MODE_FULL)
	{
		plan->strategy = MD_STRATEGY_FULL;
		plan->reason = "refresh_mode is full";
		plan->merge = NULL;
		plan->latest = NULL;
		plan->top = NULL;
	}
	md_state_prepare(view, plan);
	(void) md_step(&refresh->run.steps, MD_STEP_FIND);
	refresh->run.rows_read = -1;
	if (full && was_populated)
		reason = "asked for";
	else
	{
		reason = plan->strategy == MD_STRATEGY_FULL ? plan->reason : find_changes(refresh, &inputs);
		if (reason != NULL && view->mode == MD_MODE_INCREMENTAL && was_populated)
			refuse_rebuild(refresh, reason);
		/* rows that cannot be computed are no reason to refuse it, nor are other columns */
		if (reason == NULL)
			reason = refresh->why_anew;
		if (reason == NULL)
			reason = why_reshaped(refresh);
	}
	if (reason == NULL)
	{
		/* a known change may touch all rows: that is no reason to refuse it */
		if (apply_changes(refresh, inputs, old_time))
			return;
		reason = pstrdup(refresh->run.reason);
	}
	else
		end_inputs(inputs);
	refresh->run.strategy = "full";
	refresh->run.reason = reason;
	rebuild(refresh);
}

typedef struct Application
{
	MdRefresh  *refresh;
	bool		full;
	TimestampTz old_time;
} Application;

/* The part of a refresh that may fail because of a row. */
static void
run_apply(void *arg)
{
	Application *application = arg;
	MdRun	   *run = &application->refresh->run;
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	apply(application->refresh, application->full, application->old_time);
	md_analyze_view(application->refresh->view, &run->steps);
	if (run->reason != NULL)
		run->reason = MemoryContextStrdup(context, run->reason);
	SPI_finish();
}

/* A refresh is one of few, like maintenance, and has more memory than any session. */
static void
raise_work_mem(void)
{
	char		kilobytes[12];

	if (work_mem >= md_refresh_work_mem_kb)
		return;
	snprintf(kilobytes, sizeof(kilobytes), "%d", md_refresh_work_mem_kb);
	(void) set_config_option("work_mem", kilobytes, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Plan and apply as the owner, then store how far the view is. */
static void
run_refresh(MdRefresh *refresh, bool full)
{
	MdView	   *view = refresh->view;
	Application application = {refresh, full, view->refreshed_at};
	List	   *type_shapes;
	MdSecurity	saved;

	view->refreshed_at = GetCurrentTransactionStartTimestamp();
	md_catalog_become(view->owner, &saved);
	md_view_settings_apply(view->settings);
	raise_work_mem();
	refresh->result = md_target_make(view->relid);
	refresh->plan = md_plan_make(md_query_of_definition(view->definition), view->owner);
	if (!same_sources(refresh))
	{
		/* a plain view that was inlined reads other relations now */
		md_view_reset_sources(view->relid, refresh->plan->source_ids, refresh->plan->inlined_ids);
		refresh->sources = md_frontier_load(view->relid, refresh->snapshot);
	}
	/* in this order: a type that is changed in between is found to differ by the next refresh */
	type_shapes = md_type_shapes_make(refresh->plan->shown_types);
	refresh->reshaped_type = md_type_shapes_lost(view->type_shapes);
	view->type_shapes = type_shapes;
	md_quarantine_apply(refresh, full, run_apply, &application);
	(void) md_step(&refresh->run.steps, MD_STEP_STORE);
	md_step_rows(&refresh->run.steps, MD_STEP_APPLY, refresh->run.rows_inserted +
				 refresh->run.rows_updated + refresh->run.rows_deleted);
	MD_DEBUG_POINT("refresh-applied");
	view->always_refresh = refresh->plan->time_dependent || !refresh->plan->repeatable ||
		md_quarantine_is_unsettled(refresh);
	view->populated = true;
	MD_DEBUG_POINT("refresh-before-frontier");
	md_view_store_state(view, md_strategy_name(refresh->plan->strategy),
						&refresh->run, refresh->snapshot);
	md_frontier_store(view->relid, refresh->sources, refresh->snapshot);
	md_catalog_restore_user(&saved);
	(void) md_step(&refresh->run.steps, MD_STEP_PRUNE);
	md_frontier_prune(refresh->sources);
	(void) md_step(&refresh->run.steps, MD_STEP_STORE);
}

/*
 * A transaction with an old snapshot must not refresh what another has
 * refreshed since.
 */
static void
check_not_refreshed_since(MdView *view)
{
	Snapshot	latest;
	MdView	   *now;

	if (!IsolationUsesXactSnapshot())
		return;
	latest = RegisterSnapshot(GetLatestSnapshot());
	now = md_view_load(view->relid, latest);
	UnregisterSnapshot(latest);
	if (now == NULL || now->refresh_number != view->refresh_number ||
		now->refreshed_at != view->refreshed_at)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to a concurrent refresh of materialized view \"%s\"",
						get_rel_name(view->relid))));
}

void
md_refresh_lock(Oid relid)
{
	char	   *name = get_rel_name(relid);
	Relation	result;

	PreventCommandIfReadOnly("medallion.refresh()");
	md_view_lock(relid);
	result = try_table_open(relid, RowExclusiveLock);
	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("materialized view \"%s\" was dropped concurrently", name ? name : "?")));
	table_close(result, NoLock);
	/* before any snapshot: what was written uncaptured must be seen by it */
	md_capture_prepare(relid);
	MD_DEBUG_POINT("refresh-locked");
	md_frontier_hold(relid);
}

/* What a refresh needs to know; the view is locked. */
static void
begin_refresh(MdRefresh *refresh, Oid relid, Snapshot snapshot)
{
	refresh->run.started_at = GetCurrentTimestamp();
	md_steps_begin(&refresh->run.steps);
	refresh->run.strategy = "none";
	refresh->snapshot = snapshot;
	refresh->view = md_view_get(relid, snapshot);
	md_view_check_query(refresh->view);
	check_not_refreshed_since(refresh->view);
	refresh->sources = md_frontier_load(relid, snapshot);
}

void
md_refresh_under(Oid relid, bool full, Snapshot snapshot, MdRun *run, Jsonb **frontier)
{
	MdRefresh	refresh = {0};

	begin_refresh(&refresh, relid, snapshot);
	if (full || is_due(&refresh))
	{
		run_refresh(&refresh, full);
		md_view_store_run(relid, &refresh.run, GetCurrentTimestamp());
		(void) md_view_clear_failure(relid);
	}
	if (frontier)
		*frontier = md_frontier_summary(refresh.sources);
	*run = refresh.run;
}

void
md_refresh_part(Oid relid, const char *only_where, MdRun *run, Jsonb **frontier)
{
	MdRefresh	refresh = {0};
	Snapshot	snapshot;

	md_refresh_lock(relid);
	snapshot = md_sql_take_snapshot();
	begin_refresh(&refresh, relid, snapshot);
	(void) md_step(&refresh.run.steps, MD_STEP_RECOMPUTE);
	md_part_apply(&refresh, only_where);
	md_step_rows(&refresh.run.steps, MD_STEP_APPLY, refresh.run.rows_inserted +
				 refresh.run.rows_updated + refresh.run.rows_deleted);
	md_view_store_run(relid, &refresh.run, GetCurrentTimestamp());
	*frontier = md_frontier_summary(refresh.sources);
	UnregisterSnapshot(snapshot);
	*run = refresh.run;
}
