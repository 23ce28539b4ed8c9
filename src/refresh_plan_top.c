/*
 * refresh_plan_top.c
 *		The top block of a plan: what tells rows of the result, and what is kept beside it.
 *
 * A top block of groups or first rows merges a change with what is there, if it can,
 * in the place of computing the touched groups again.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"

#include "refresh_normal.h"
#include "refresh_plan.h"
#include "refresh_tree.h"

char *
md_plan_key_count(int count)
{
	return psprintf("%d key%s", count, count == 1 ? "" : "s");
}

/* Columns of the result that show the keys of the top block; NIL: not all do. */
static List *
shown_keys(Query *query, List *keys)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, keys)
	{
		int			found = 0;

		for (int i = 1; i <= md_tree_width(query) && found == 0; i++)
			if (equal(md_tree_target(query, i)->expr, lfirst(lc)))
				found = i;
		if (found == 0)
			return NIL;
		columns = lappend_int(columns, found);
	}
	return columns;
}

/* Is there a row per key at most, which an index can tell? */
static bool
keys_are_unique(MdPlan *plan)
{
	ListCell   *lc;

	foreach(lc, plan->keys)
		if (!md_split_orderable(exprType(lfirst(lc))))
			return false;
	return md_block_kind(plan->normal) != MD_BLOCK_WINDOW;
}

/* What is kept lets the top block take in a change by itself. */
static void
try_state(MdPlan *plan, MdNode *sets)
{
	MdNode	   *top = sets ? sets : plan->root;
	MdNode	   *input = top->children ? linitial(top->children) : NULL;
	MdBlockKind kind = sets ? MD_BLOCK_GROUP : md_block_kind(plan->normal);
	char	   *reason = NULL;
	int			location = -1;

	if (plan->strategy == MD_STRATEGY_FULL || plan->time_dependent || input == NULL ||
		input->strategy == MD_STRATEGY_FULL)
		return;
	if (kind == MD_BLOCK_GROUP || kind == MD_BLOCK_DISTINCT)
		plan->merge = md_merge_make(plan->query, input->changes != MD_CHANGE_APPEND, &reason, &location);
	else if (kind == MD_BLOCK_DISTINCT_ON)
		plan->latest = md_latest_make(plan->query, input->changes != MD_CHANGE_APPEND, &reason, &location);
	if (plan->merge != NULL)
	{
		plan->root = top;
		plan->root->strategy = plan->strategy = MD_STRATEGY_MERGE;
		plan->root->state = plan->merge->value_sets != NIL ?
			(plan->merge->needs_state ? "partial aggregates and distinct values per group" :
			 "distinct values per group") :
			plan->merge->needs_state ? "partial aggregates per group" : NULL;
	}
	if (plan->latest != NULL)
	{
		plan->root->strategy = plan->strategy = MD_STRATEGY_LATEST;
		plan->root->label = psprintf("First row by %s", md_plan_key_count(list_length(plan->latest->keys)));
		plan->root->state = list_length(plan->latest->inputs) > plan->latest->result_count ?
			"order of the first rows" : NULL;
	}
}

void
md_plan_top(MdPlan *plan, MdNode *sets)
{
	plan->keys = md_block_keys(plan->normal);
	plan->key_columns = shown_keys(plan->normal, plan->keys);
	plan->keys_unique = keys_are_unique(plan);
	try_state(plan, sets);
}
