/*
 * refresh_plan_keep.c
 *		What is kept so that the top block takes in a change by itself.
 *
 *		GROUP BY					merge	partial aggregates by group, and grouping set
 *		DISTINCT ON					latest	the first row of each key
 *		ORDER BY ... LIMIT			top		the first rows
 *		... of groups that merge	merge	partial aggregates, the first groups are shown
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

/*
 * Does the time of the refresh stand in what the query shows, or shows groups by?  Groups then move though no row came
 * or left.  In a condition it makes rows pass, and they are a change like others.
 */
static bool
values_move(const MdPlan *plan)
{
	return md_unstable_has_time((Node *) plan->query->targetList) ||
		md_unstable_has_time(plan->query->havingQual);
}

/* The groups of a query with LIMIT: a block below it, and the plan's node of that; NULL: none. */
static MdNode *
find_groups(MdPlan *plan)
{
	MdNode	   *node = first_child(first_child(plan->root));
	Query		query = *plan->query;

	query.limitCount = query.limitOffset = NULL;
	if (md_block_kind(&query) != MD_BLOCK_GROUP && md_block_kind(&query) != MD_BLOCK_DISTINCT)
		return NULL;
	return node != NULL && node->kind == MD_NODE_AGGREGATE && node->children != NIL ? node : NULL;
}

/* LIMIT of groups that merge: they are all kept, and the first of them shown. */
static bool
try_top_groups(MdPlan *plan)
{
	MdNode	   *groups = find_groups(plan);
	char	   *reason;
	int			location;
	MdTop	   *top;

	if (groups == NULL || values_move(plan))
		return false;
	top = md_top_make(plan->query, false, &reason);
	if (top == NULL || top->count == 0)
		return false;
	plan->merge = md_merge_make(plan->query, first_child(groups)->changes != MD_CHANGE_APPEND, top,
								&reason, &location);
	if (plan->merge != NULL)
	{
		/* the groups in the place of what lies between */
		plan->root->children = list_make1(groups);
		groups->strategy = MD_STRATEGY_MERGE;
	}
	return plan->merge != NULL;
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

static void
try_all(MdPlan *plan, MdNode *sets)
{
	MdNode	   *top = sets ? sets : plan->root;
	MdNode	   *input = first_child(top);
	MdBlockKind kind = sets ? MD_BLOCK_GROUP : md_block_kind(plan->normal);

	if (plan->strategy == MD_STRATEGY_FULL || input == NULL || input->strategy == MD_STRATEGY_FULL)
		return;
	if (kind == MD_BLOCK_LIMIT && !try_top_groups(plan))
		try_top(plan, input);
	else if ((kind == MD_BLOCK_GROUP || kind == MD_BLOCK_DISTINCT) && !values_move(plan))
		try_merge(plan, input);
	else if (kind == MD_BLOCK_DISTINCT_ON && !plan->time_dependent)
		try_latest(plan, input);
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
