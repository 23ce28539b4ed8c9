/*
 * refresh_part.c
 *		Recomputing the rows of a view that a condition selects, and no others.
 *
 * The query is run as of the stored frontier, and its rows for which the
 * condition holds take the place of those of the result for which it does.
 *
 * Where state is kept beside the result, both are computed anew into tables of
 * their own, and the groups (or keys) are overwritten in state and result of
 * which the old row or the new one is selected:
 *
 *		result, state ---- keys selected by the condition ----.
 *		   ^												   v
 *		   '---- rows of these keys <---- new result, new state tables
 *
 * For that the result must show its keys.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog.h"
#include "refresh_exec_merge.h"
#include "refresh_part.h"
#include "refresh_quarantine.h"
#include "refresh_state.h"
#include "relation_make.h"
#include "sql_run.h"
#include "stable_functions.h"
#include "view_settings.h"

#define KEYS "medallion_part_keys"

/* A condition on the rows of the result, and nothing else. */
static void
check_condition(const char *only_where)
{
	List	   *trees = md_query_parse(only_where, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, trees)->stmt);

	if (list_length(select->targetList) != 1 || select->fromClause != NIL ||
		select->whereClause != NULL || select->sortClause != NIL || select->limitCount != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("only_where must be a condition on columns of the view")));
}

/*
 * The same condition gives a row away and takes it in, so it must be true of
 * both or of none.
 */
static void
check_stability(MdRefresh *refresh, const char *only_where)
{
	Query	   *query = md_query_analyze(psprintf("SELECT FROM %s WHERE (%s\n)", refresh->result->name, only_where));

	if (contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("only_where cannot have volatile functions"),
				 errdetail("Such a condition need not hold for a row of the query for which it holds in the result.")));
}

/* Columns of the result that identify a group, or a key; ERROR if it hides some. */
static List *
shown_keys(MdView *view, MdPlan *plan)
{
	List	   *keys = plan->merge ? md_merge_result_keys(plan->merge) : plan->latest->keys;

	if (keys == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot refresh a part of materialized view \"%s\"", get_rel_name(view->relid)),
				 errdetail("It keeps partial aggregates beside its result, and the result does not show all keys of the groups."),
				 errhint("Call medallion.refresh() with full_refresh => true, or select the group keys in the query.")));
	return keys;
}

/* A table for the new result, of the columns of the old one. */
static Oid
make_result(MdView *view)
{
	Relation	rel = table_open(view->relid, NoLock);
	List	   *columns = NIL;

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (!att->attisdropped)
			columns = lappend(columns, makeColumnDef(pstrdup(NameStr(att->attname)), att->atttypid,
													 att->atttypmod, att->attcollation));
	}
	table_close(rel, NoLock);
	return md_relation_make_state(view->relid, " part", columns, view->owner, false);
}

/* Compute result and state anew, as of the frontier, into tables of their own. */
static MdView *
compute(MdRefresh *refresh, MdTarget **result)
{
	MdPlan	   *plan = refresh->plan;
	Query	  **query = plan->merge != NULL ? &plan->merge->query : &plan->query;
	MdRefresh	other = *refresh;
	MdView	   *view = palloc(sizeof(MdView));

	memcpy(view, refresh->view, sizeof(MdView));
	view->state_tables = NIL;
	/* nothing is there to compare with */
	view->refresh_number = 0;
	md_state_make(view, plan);
	*query = castNode(Query, md_unstable_fix_time((Node *) md_refresh_frontier_tree(refresh->view, *query, refresh->snapshot, true),
												  view->refreshed_at));
	other.view = view;
	other.result = *result = md_target_make(make_result(refresh->view));
	if (plan->merge != NULL)
		md_merge_rebuild(&other);
	else if (plan->top != NULL)
		md_top_rebuild(&other);
	else
		md_latest_rebuild(&other);
	return view;
}

/* "k."?1?", k."?2?"": columns of the keys, by names that no column of a table has. */
static char *
key_columns(const char *alias, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%s%s\"?%d?\"", i > 1 ? ", " : "", alias, i);
	return list.data;
}

/* Overwrite rows of the selected keys; `numbers` are those of the keys' columns. */
static void
overwrite(const MdTarget *target, const MdTarget *source, List *numbers, List *unique,
		  MdRefresh *refresh, MdRun *run)
{
	/* as records, so that NULL meets NULL */
	char	   *selected = psprintf("EXISTS (SELECT FROM " KEYS " k"
									" WHERE ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record)",
									key_columns("k.", list_length(numbers)),
									md_target_columns(target, NULL, numbers));

	md_diff_apply(target, psprintf("SELECT %s FROM %s", md_target_columns(source, NULL, NIL), source->name),
				  unique, selected, refresh->snapshot, run);
}

/* A view that keeps state. */
static void
apply_with_state(MdRefresh *refresh, const char *only_where)
{
	MdView	   *view = refresh->view;
	List	   *keys = shown_keys(view, refresh->plan);
	List	   *first = NIL;
	MdTarget   *result;
	MdView	   *other = compute(refresh, &result);
	char	   *columns = md_target_columns(result, NULL, keys);
	MdNamedStore stored = {0};
	ListCell   *live;
	ListCell   *next;

	for (int i = 1; i <= list_length(keys); i++)
		first = lappend_int(first, i);
	md_relation_read(&stored, KEYS,
					 psprintf("SELECT * FROM (SELECT %s FROM %s WHERE (%s\n)"
							  " UNION SELECT %s FROM %s WHERE (%s\n)) u(%s)",
							  columns, refresh->result->name, only_where, columns, result->name, only_where,
							  key_columns("", list_length(keys))),
					 refresh->snapshot);
	forboth(live, view->state_tables, next, other->state_tables)
	{
		MdRun		run = {0};

		/* a state table begins with the keys */
		overwrite(md_target_make(lfirst_oid(live)), md_target_make(lfirst_oid(next)), first, NIL,
				  refresh, &run);
	}
	overwrite(refresh->result, result, keys,
			  refresh->plan->merge != NULL && refresh->plan->merge->sets != NIL ?
			  md_refresh_unique_columns(refresh) : keys, refresh, &refresh->run);
	md_relation_forget(&stored);
	foreach(next, other->state_tables)
		md_relation_drop_part(lfirst_oid(next));
	md_relation_drop_part(result->relid);
}

/* A view that shows some of what it keeps, or makes something of all: all of that anew, and what is selected of the rows. */
static void
apply_with_top(MdRefresh *refresh, const char *only_where)
{
	MdTarget   *result;
	MdView	   *other = compute(refresh, &result);
	ListCell   *live;
	ListCell   *next;

	forboth(live, refresh->view->state_tables, next, other->state_tables)
	{
		MdTarget   *kept = md_target_make(lfirst_oid(next));
		MdRun		run = {0};

		md_diff_apply(md_target_make(lfirst_oid(live)),
					  psprintf("SELECT %s FROM %s", md_target_columns(kept, NULL, NIL), kept->name), NIL, NULL,
					  refresh->snapshot, &run);
		md_relation_drop_part(kept->relid);
	}
	md_diff_apply(refresh->result,
				  psprintf("SELECT %s FROM %s", md_target_columns(result, NULL, NIL), result->name),
				  md_refresh_unique_columns(refresh), only_where, refresh->snapshot, &refresh->run);
	md_relation_drop_part(result->relid);
}

void
md_part_apply(MdRefresh *refresh, const char *only_where)
{
	MdView	   *view = refresh->view;
	MdRun	   *run = &refresh->run;
	MdSecurity	saved;

	check_condition(only_where);
	if (!view->populated)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("materialized view \"%s\" has not been populated", get_rel_name(view->relid)),
				 errhint("Refresh it without only_where first.")));
	md_catalog_become(view->owner, &saved);
	md_view_settings_apply(view->settings);
	refresh->result = md_target_make(view->relid);
	check_stability(refresh, only_where);
	refresh->plan = md_quarantine_plan(view, refresh->snapshot);
	refresh->result->index_keys = md_state_result_keys(refresh->plan);
	run->strategy = "full";
	run->reason = "only_where";
	run->rows_read = -1;
	SPI_connect();
	if (view->state_tables != NIL &&
		(refresh->plan->top != NULL || (refresh->plan->merge != NULL && refresh->plan->merge->above != NULL)))
		apply_with_top(refresh, only_where);
	else if (view->state_tables != NIL)
		apply_with_state(refresh, only_where);
	else
		md_diff_apply(refresh->result, md_refresh_frontier_query(view, refresh->snapshot, true),
					  md_refresh_unique_columns(refresh), only_where, refresh->snapshot, run);
	SPI_finish();
	run->refresh_number = view->refresh_number;
	if (run->rows_inserted + run->rows_updated + run->rows_deleted > 0)
	{
		md_view_store_rewrite(view->relid);
		run->refresh_number++;
	}
	md_catalog_restore_user(&saved);
}
