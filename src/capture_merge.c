/*
 * capture_merge.c
 *		MERGE into partitioned tables.
 *
 * An UPDATE that moves a row from one partition to another gives its old and new rows to
 * the triggers of UPDATE.  MERGE gives them to those of DELETE and INSERT, and fires these
 * only where it has such actions itself.  It collects the rows all the same, so our
 * triggers are queued as it begins, and nobody else's:
 *
 *		MERGE begins --> our triggers of DELETE and INSERT are queued
 *		   rows move --> they are collected in the transition tables
 *		  MERGE ends --> where it has such actions, its own call of all triggers
 *						 takes the place of ours
 *		   statement ends --> triggers fire, with all that was collected
 *
 * Where another part of the statement changes the same table, some minor releases
 * let one call take the place of another that has other rows; then a mark is left,
 * as for everything that is not in the log.
 *
 * And some minor releases, 16.15 and 18.6 among them, take the row that a MERGE has
 * inserted into a partitioned table for the new row of each UPDATE that comes after:
 * they forget it no sooner than the next INSERT.  So we have it forgotten whenever the
 * MERGE takes a row from its source.
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/rel.h"

#include "capture.h"

/* What a MERGE reads its source from, while we look on; in the context of its query. */
typedef struct WatchedSource
{
	PlanState  *source;
	ExecProcNodeMtd next_row;
	TransitionCaptureState *capture;
	MemoryContextCallback at_end;
	struct WatchedSource *outer;
} WatchedSource;

static ExecutorStart_hook_type next_start_hook = NULL;
static WatchedSource *watched_sources = NULL;

/* The relation that a part of a statement names. */
static Relation
named_relation(ModifyTableState *node)
{
	return node->rootResultRelInfo->ri_RelationDesc;
}

/* The parts of a statement that change tables (of ModifyTableState). */
static List *
changing_parts(QueryDesc *query)
{
	List	   *parts = list_copy(query->estate->es_auxmodifytables);

	if (query->planstate != NULL && IsA(query->planstate, ModifyTableState))
		parts = list_append_unique_ptr(parts, query->planstate);
	return parts;
}

/* Does another part change the same table? */
static bool
is_shared(ModifyTableState *merge, List *parts)
{
	ListCell   *lc;

	foreach(lc, parts)
		if (lfirst(lc) != merge &&
			RelationGetRelid(named_relation(lfirst(lc))) == RelationGetRelid(named_relation(merge)))
			return true;
	return false;
}

static void
mark_merge(ModifyTableState *merge)
{
	ListCell   *lc;

	foreach(lc, md_capture_roots(RelationGetRelid(named_relation(merge))))
		md_capture_write_mark(lfirst_oid(lc), "had MERGE beside another change in one statement");
}

/* Those of the triggers that are ours and fire after a statement; NULL: none. */
static TriggerDesc *
our_triggers(const TriggerDesc *all)
{
	TriggerDesc *ours;
	Oid			function;

	if (all == NULL || (!all->trig_delete_after_statement && !all->trig_insert_after_statement))
		return NULL;
	function = md_capture_function();
	ours = palloc(sizeof(TriggerDesc));
	*ours = *all;
	ours->triggers = palloc(sizeof(Trigger) * all->numtriggers);
	ours->numtriggers = 0;
	for (int i = 0; i < all->numtriggers; i++)
		if (all->triggers[i].tgfoid == function && !TRIGGER_FOR_ROW(all->triggers[i].tgtype))
			ours->triggers[ours->numtriggers++] = all->triggers[i];
	return ours->numtriggers > 0 ? ours : NULL;
}

static void
stop_watching(void *arg)
{
	WatchedSource **place = &watched_sources;

	while (*place != arg)
		place = &(*place)->outer;
	*place = (*place)->outer;
}

/* Takes the place of what gives the rows of a source. */
static TupleTableSlot *
next_source_row(PlanState *source)
{
	WatchedSource *watched = watched_sources;

	while (watched->source != source)
		watched = watched->outer;
	watched->capture->tcs_original_insert_tuple = NULL;
	return watched->next_row(source);
}

/* Have a row that the MERGE has inserted forgotten before its next action. */
static void
watch_source(EState *estate, ModifyTableState *merge)
{
	WatchedSource *watched = MemoryContextAllocZero(estate->es_query_cxt, sizeof(WatchedSource));

	watched->source = outerPlanState(merge);
	watched->next_row = watched->source->ExecProcNodeReal;
	watched->capture = merge->mt_transition_capture;
	watched->outer = watched_sources;
	watched->at_end.func = stop_watching;
	watched->at_end.arg = watched;
	watched->source->ExecProcNodeReal = next_source_row;
	watched_sources = watched;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &watched->at_end);
}

/* Have our triggers see what a MERGE moves. */
static void
queue_triggers(EState *estate, ModifyTableState *merge)
{
	ResultRelInfo relation = *merge->rootResultRelInfo;

	if (merge->mt_transition_capture == NULL)
		return;
	relation.ri_TrigDesc = our_triggers(relation.ri_TrigDesc);
	if (relation.ri_TrigDesc == NULL)
		return;
	if ((merge->mt_merge_subcommands & MERGE_INSERT) != 0)
		watch_source(estate, merge);
	ExecASDeleteTriggers(estate, &relation, merge->mt_transition_capture);
	ExecASInsertTriggers(estate, &relation, merge->mt_transition_capture);
}

static void
executor_start(QueryDesc *query, int flags)
{
	List	   *parts;
	ListCell   *lc;

	if (next_start_hook)
		next_start_hook(query, flags);
	else
		standard_ExecutorStart(query, flags);
	if ((flags & EXEC_FLAG_EXPLAIN_ONLY) != 0 ||
		(query->operation != CMD_MERGE && !query->plannedstmt->hasModifyingCTE))
		return;
	parts = changing_parts(query);
	foreach(lc, parts)
	{
		ModifyTableState *merge = lfirst(lc);

		if (merge->operation != CMD_MERGE)
			continue;
		if (is_shared(merge, parts))
			mark_merge(merge);
		else if (named_relation(merge)->rd_rel->relkind == RELKIND_PARTITIONED_TABLE &&
				 (merge->mt_merge_subcommands & MERGE_UPDATE) != 0)
			queue_triggers(query->estate, merge);
	}
}

void
md_capture_install_hook(void)
{
	next_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}
