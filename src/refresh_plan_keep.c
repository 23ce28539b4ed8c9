/*
 * refresh_plan_keep.c
 *		What is kept so that the top block takes in a change by itself.
 *
 *		GROUP BY					merge	partial aggregates by group, and grouping set
 *		DISTINCT ON					latest	the first row of each key
 *		ORDER BY ... LIMIT			top		the first rows
 *		... and windows over all rows,
 *		of groups that merge		merge	partial aggregates, of which these are made
 *
 * Else the block is computed again, by the keys that the change touches or as a whole.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"

#include "refresh_normal.h"
#include "refresh_plan.h"
#include "refresh_top.h"
#include "refresh_tree.h"
#include "stable_functions.h"

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

static MdNode *
first_child(MdNode *node)
{
	return node != NULL && node->children != NIL ? linitial(node->children) : NULL;
}

/* LIMIT: what is kept of its rows, or why they are computed again. */
static void
try_top(MdPlan *plan, MdNode *input)
{
	bool		is_signed = input->changes != MD_CHANGE_APPEND;
	MdNode	   *node = plan->root;
	char	   *why;

	plan->top = md_top_make(plan->normal, is_signed, &why);
	if (plan->top == NULL)
	{
		node->note = psprintf("the query is run again when its input changed: %s", why);
		return;
	}
	node->strategy = plan->strategy = MD_STRATEGY_TOP;
	if (md_top_has_state(plan->top))
		node->state = psprintf("the first " INT64_FORMAT " rows", md_top_kept(plan->top));
	if (is_signed && plan->top->count > 0)
		node->note = psprintf("when fewer than " INT64_FORMAT " are left, the query is run again",
							  md_top_needed(plan->top));
}

bool
md_plan_values_move(const Query *query)
{
	return md_unstable_has_time((Node *) query->targetList) || md_unstable_has_time(query->havingQual);
}

/* What the query makes of all groups: they are kept. */
static bool
try_groups(MdPlan *plan)
{
	MdNode	   *groups;

	plan->merge = md_plan_keep_groups(plan, &groups);
	if (plan->merge == NULL)
		return false;
	/* the groups in the place of what lies between */
	plan->root->children = list_make1(groups);
	groups->strategy = MD_STRATEGY_MERGE;
	plan->root->reason = NULL;
	plan->root->changes = plan->changes = MD_CHANGE_UPSERT;
	plan->root->note = "computed from all of them";
	return true;
}

static void
try_merge(MdPlan *plan, MdNode *input)
{
	char	   *reason;
	int			location;

	plan->merge = md_merge_make(plan->query, input->changes != MD_CHANGE_APPEND, NULL, &reason, &location);
}

static void
try_latest(MdPlan *plan, MdNode *input)
{
	char	   *reason;
	int			location;

	plan->latest = md_latest_make(plan->query, input->changes != MD_CHANGE_APPEND, &reason, &location);
	if (plan->latest == NULL)
		return;
	plan->root->strategy = plan->strategy = MD_STRATEGY_LATEST;
	plan->root->label = psprintf("First row by %s", md_plan_key_count(list_length(plan->latest->keys)));
	plan->root->state = list_length(plan->latest->inputs) > plan->latest->result_count ?
		"order of the first rows" : NULL;
}

/* What a block of the kind can keep of its input. */
static void
try_block(MdPlan *plan, MdBlockKind kind, MdNode *input)
{
	if (plan->strategy == MD_STRATEGY_FULL || input == NULL || input->strategy == MD_STRATEGY_FULL)
		return;
	if (kind == MD_BLOCK_LIMIT)
		try_top(plan, input);
	else if ((kind == MD_BLOCK_GROUP || kind == MD_BLOCK_DISTINCT) && !md_plan_values_move(plan->query))
		try_merge(plan, input);
	else if (kind == MD_BLOCK_DISTINCT_ON && !plan->time_dependent)
		try_latest(plan, input);
}

static void
try_all(MdPlan *plan, MdNode *sets)
{
	MdNode	   *top = sets ? sets : plan->root;

	if (sets != NULL)
		try_block(plan, MD_BLOCK_GROUP, first_child(sets));
	else if (!try_groups(plan))
		try_block(plan, md_block_kind(plan->normal), first_child(top));
	if (plan->merge != NULL)
	{
		plan->root = top;
		plan->root->strategy = plan->strategy = MD_STRATEGY_MERGE;
		plan->root->state = plan->merge->value_sets != NIL ?
			(plan->merge->needs_state ? "partial aggregates and distinct values per group" :
			 "distinct values per group") :
			plan->merge->needs_state ? "partial aggregates per group" : NULL;
	}
}

void
md_plan_keep(MdPlan *plan, MdNode *sets)
{
	plan->keys = md_block_keys(plan->normal);
	plan->key_columns = shown_keys(plan->normal, plan->keys);
	plan->keys_unique = keys_are_unique(plan);
	try_all(plan, sets);
}
