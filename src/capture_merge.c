/*
 * capture_merge.c
 *		MERGE that moves rows from one partition to another.
 *
 * An UPDATE that does so gives its old and new rows to the triggers of UPDATE.  MERGE
 * gives them to those of DELETE and INSERT, and fires these only where it has such
 * actions itself: what moved may be missed.  So a MERGE that updates the key of a
 * partition leaves a mark, as everything does that is not in the log.
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "capture.h"

static ExecutorStart_hook_type next_start_hook = NULL;

/* Are there columns of a partition, of int, by which rows are told to a parent's partitions? */
static bool
is_key(Oid parent, Oid leaf, List *attnums)
{
	Relation	rel = table_open(parent, AccessShareLock);
	Bitmapset  *columns = NULL;
	bool		found;
	ListCell   *lc;

	foreach(lc, attnums)
	{
		AttrNumber	attnum = get_attnum(parent, get_attname(leaf, lfirst_int(lc), false));

		columns = bms_add_member(columns, attnum - FirstLowInvalidHeapAttributeNumber);
	}
	found = has_partition_attrs(rel, columns, NULL);
	table_close(rel, AccessShareLock);
	return found;
}

/* May the actions move rows out of the leaf? */
static bool
may_move(Oid leaf, List *actions)
{
	List	   *parents = get_partition_ancestors(leaf);
	ListCell   *lc;
	ListCell   *parent;

	foreach(lc, actions)
	{
		MergeAction *action = lfirst_node(MergeAction, lc);

		if (action->commandType != CMD_UPDATE)
			continue;
		foreach(parent, parents)
			if (is_key(lfirst_oid(parent), leaf, action->updateColnos))
				return true;
	}
	return false;
}

/* Leave a mark with the captures that a MERGE may keep rows from. */
static void
mark_merge(Plan *plan, List *rtable)
{
	ModifyTable *merge = (ModifyTable *) plan;
	List	   *marked = NIL;
	ListCell   *relation;
	ListCell   *actions;
	ListCell   *lc;

	if (plan == NULL || !IsA(plan, ModifyTable) || merge->operation != CMD_MERGE || merge->rootRelation == 0)
		return;
	forboth(relation, merge->resultRelations, actions, merge->mergeActionLists)
	{
		Oid			leaf = rt_fetch(lfirst_int(relation), rtable)->relid;
		List	   *roots = list_difference_oid(md_capture_roots(leaf), marked);

		if (roots == NIL || !may_move(leaf, lfirst(actions)))
			continue;
		foreach(lc, roots)
			md_capture_write_mark(lfirst_oid(lc), "had rows moved between its partitions by MERGE");
		marked = list_concat(marked, roots);
	}
}

static void
executor_start(QueryDesc *query, int flags)
{
	ListCell   *lc;

	if (next_start_hook)
		next_start_hook(query, flags);
	else
		standard_ExecutorStart(query, flags);
	if ((flags & EXEC_FLAG_EXPLAIN_ONLY) != 0 ||
		(query->operation != CMD_MERGE && !query->plannedstmt->hasModifyingCTE))
		return;
	mark_merge(query->plannedstmt->planTree, query->plannedstmt->rtable);
	foreach(lc, query->plannedstmt->subplans)
		mark_merge(lfirst(lc), query->plannedstmt->rtable);
}

void
md_capture_install_hook(void)
{
	next_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}
