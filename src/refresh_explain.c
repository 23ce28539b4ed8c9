/*
 * refresh_explain.c
 *		How a query is refreshed, for people.
 *
 *		Query							strategy of the whole, and why
 *		  Aggregate by 1 key			strategy, what is kept and its size
 *			Lookup in the result		the index that finds its rows
 *			Filter and project
 *			  Scan bronze.orders
 *				Lookup by customer		the index, or what would make one
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "refresh_errors.h"
#include "refresh_explain.h"
#include "refresh_lookup.h"
#include "refresh_normal.h"
#include "refresh_plan.h"
#include "refresh_read.h"
#include "refresh_upsert.h"
#include "sql_run.h"

#define COLUMN_COUNT 5

typedef struct ExplainContext
{
	const char *text;			/* of the query */
	MdPlan	   *plan;
	MdView	   *view;			/* NULL: there is none yet */
	Tuplestorestate *store;
	TupleDesc	tupdesc;
} ExplainContext;

/* Whatever the plan says? */
static bool
is_always_full(const ExplainContext *context)
{
	return context->view != NULL && context->view->mode == MD_MODE_FULL;
}

/* A row; step may not be NULL. */
static void
put_row(ExplainContext *context, int depth, const char *step, const char *strategy,
		const char *changes, const char *detail, const char *create_index)
{
	const char *texts[COLUMN_COUNT] = {
		psprintf("%*s%s", depth * 2, "", step), strategy, changes, detail, create_index
	};
	Datum		values[COLUMN_COUNT] = {0};
	bool		nulls[COLUMN_COUNT];

	for (int i = 0; i < COLUMN_COUNT; i++)
	{
		nulls[i] = texts[i] == NULL;
		if (!nulls[i])
			values[i] = CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(context->store, context->tupdesc, values, nulls);
}

/* "8192 bytes", "12 MB" */
static char *
size_text(int64 bytes)
{
	return text_to_cstring(DatumGetTextPP(DirectFunctionCall1(pg_size_pretty, Int64GetDatum(bytes))));
}

/* NULL: the relation has no rows of its own to read. */
static char *
relation_size(Oid relid)
{
	Datum		size;
	LOCAL_FCINFO(fcinfo, 1);

	if (!RELKIND_HAS_STORAGE(get_rel_relkind(relid)))
		return NULL;
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(relid);
	fcinfo->args[0].isnull = false;
	size = pg_table_size(fcinfo);
	return fcinfo->isnull ? NULL : size_text(DatumGetInt64(size));
}

/* What the top of a plan keeps, with the size of what is there. */
static char *
size_kept(ExplainContext *context, MdNode *node)
{
	int64		bytes = 0;
	ListCell   *lc;

	if (node->state == NULL)
		return NULL;
	if (context->view == NULL || context->view->state_tables == NIL || node != context->plan->root)
		return psprintf("keeps %s", node->state);
	foreach(lc, context->view->state_tables)
		bytes += DatumGetInt64(DirectFunctionCall1(pg_total_relation_size,
												   ObjectIdGetDatum(lfirst_oid(lc))));
	return psprintf("keeps %s (%s)", node->state, size_text(bytes));
}

/* The same, and what else there is to say. */
static char *
kept_text(ExplainContext *context, MdNode *node)
{
	char	   *kept = size_kept(context, node);

	return node->note == NULL ? kept : kept == NULL ? node->note : psprintf("%s; %s", kept, node->note);
}

/* The reason, and where in the text its construct stands. */
static char *
located_reason(const char *text, char *reason, int location)
{
	if (reason == NULL || location < 0)
		return reason;
	return psprintf("%s, at character %d", reason, pg_mbstrlen_with_len(text, location) + 1);
}

/* One lookup; where: "" or " in the result". */
static void
put_lookup(ExplainContext *context, const MdLookup *lookup, const MdLookupIndex *found, int depth,
		   const char *where)
{
	char	   *size = relation_size(lookup->relid);
	char	   *detail;

	if (found->index != NULL)
		detail = psprintf("index %s", found->index);
	else if (found->create == NULL)
		detail = psprintf("no index is possible: %s", found->why_none);
	else if (size != NULL)
		detail = psprintf("no index: all of the table is read (%s)", size);
	else
		detail = pstrdup("no index: all of the table is read");
	put_row(context, depth, psprintf("Lookup%s by %s%s", where, lookup->is_range ? "range of " : "", found->by),
			NULL, NULL, detail, found->index == NULL ? found->create : NULL);
}

/* Those of a scan.  Of several ways to the same rows one with an index is enough. */
static void
put_scan_lookups(ExplainContext *context, MdNode *scan, int depth)
{
	int			count = list_length(scan->lookups);
	MdLookupIndex *found = palloc(sizeof(MdLookupIndex) * Max(1, count));
	bool		any_index = false;

	for (int i = 0; i < count; i++)
	{
		md_lookup_find_index(list_nth(scan->lookups, i), &found[i]);
		any_index = any_index || found[i].index != NULL;
	}
	for (int i = 0; i < count; i++)
	{
		MdLookup   *lookup = list_nth(scan->lookups, i);

		if (found[i].index != NULL || !lookup->partial || !any_index)
			put_lookup(context, lookup, &found[i], depth, "");
	}
}

/* ----------------------------------------------------------------------
 * The result
 * ---------------------------------------------------------------------- */

/* Columns by which rows of the result are looked up; NIL: none. */
static List *
result_columns(const MdPlan *plan)
{
	if (plan->merge != NULL)
		return md_merge_result_keys(plan->merge);
	if (plan->latest != NULL)
		return plan->latest->keys;
	if ((plan->strategy == MD_STRATEGY_REGROUP || plan->strategy == MD_STRATEGY_WINDOW) &&
		md_block_kind(plan->normal) != MD_BLOCK_DISTINCT)
		return plan->key_columns;
	return NIL;
}

/* Are rows that go found by all of their columns? */
static bool
finds_whole_rows(const MdPlan *plan)
{
	MdBlockKind kind = md_block_kind(plan->normal);

	if (plan->strategy == MD_STRATEGY_JOIN)
		return true;
	return (plan->strategy == MD_STRATEGY_REGROUP || plan->strategy == MD_STRATEGY_WINDOW) &&
		((plan->key_columns == NIL && (plan->keys != NIL || kind == MD_BLOCK_SET)) ||
		 kind == MD_BLOCK_DISTINCT);
}

/* Names of columns of the query, for a result that is not there yet. */
static char *
column_names(Query *query, List *numbers)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, numbers)
	{
		int			number = 0;
		ListCell   *t;

		foreach(t, query->targetList)
			if (!lfirst_node(TargetEntry, t)->resjunk && ++number == lfirst_int(lc))
				appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
								 quote_identifier(lfirst_node(TargetEntry, t)->resname));
	}
	return list.data;
}

static void
put_result_lookup(ExplainContext *context, int depth)
{
	MdPlan	   *plan = context->plan;
	List	   *columns = result_columns(plan);

	if (finds_whole_rows(plan))
		put_row(context, depth, "Lookup in the result by a hash of the row", NULL, NULL,
				"an index that is made when the first row goes", NULL);
	else if (columns == NIL)
		return;
	else if (context->view != NULL && context->view->populated && plan->merge != NULL &&
			 OidIsValid(context->view->merge_index) && md_upsert_is_hashed(md_target_make(context->view->relid)))
		put_row(context, depth, psprintf("Lookup in the result by a hash of %s", column_names(plan->query, columns)),
				NULL, NULL, psprintf("index %s", quote_identifier(get_rel_name(context->view->merge_index))), NULL);
	else if (context->view != NULL && context->view->populated)
	{
		MdLookup   *lookup = md_lookup_by_columns(context->view->relid, columns);
		MdLookupIndex found;

		md_lookup_find_index(lookup, &found);
		put_lookup(context, lookup, &found, depth, " in the result");
	}
	else
		put_row(context, depth, psprintf("Lookup in the result by %s", column_names(plan->query, columns)),
				NULL, NULL, plan->strategy == MD_STRATEGY_WINDOW ? NULL :
				"an index that the first refresh makes", NULL);
}

/* ----------------------------------------------------------------------
 * The tree
 * ---------------------------------------------------------------------- */

static void
put_node(ExplainContext *context, MdNode *node, int depth)
{
	char	   *detail = located_reason(context->text, node->reason, node->location);
	ListCell   *lc;

	put_row(context, depth, node->label, md_strategy_name(node->strategy),
			md_change_kind_name(node->changes), detail ? detail : kept_text(context, node), NULL);
	if (node == context->plan->root && node->strategy != MD_STRATEGY_FULL && !is_always_full(context))
		put_result_lookup(context, depth + 1);
	put_scan_lookups(context, node, depth + 1);
	foreach(lc, node->children)
		put_node(context, lfirst(lc), depth + 1);
}

/* Rows that a view is computed without: a row per source that has some. */
static void
put_quarantined(ExplainContext *context)
{
	Snapshot	snapshot = md_sql_take_snapshot();
	List	   *errors = md_errors_load(context->view->relid, snapshot);
	List	   *done = NIL;
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	foreach(lc, errors)
	{
		Oid			source = ((MdRefreshError *) lfirst(lc))->source;
		int64		rows = 0;
		ListCell   *other;

		if (list_member_oid(done, source))
			continue;
		done = lappend_oid(done, source);
		foreach(other, errors)
			if (((MdRefreshError *) lfirst(other))->source == source)
				rows += ((MdRefreshError *) lfirst(other))->copies;
		put_row(context, 0, psprintf("Quarantined rows of %s", md_read_relation_name(source)), NULL, NULL,
				psprintf(INT64_FORMAT " left out, because they cannot be computed: see medallion.refresh_errors",
						 rows), NULL);
	}
}

void
md_explain(const char *query_text, MdView *view, Tuplestorestate *store, TupleDesc tupdesc)
{
	ExplainContext context = {query_text, NULL, view, store, tupdesc};
	bool		is_other = view != NULL && view->owner != GetUserId();
	MdSecurity	saved;
	Query	   *query;
	MdPlan	   *plan;

	/* reading constants may run functions of the owner's */
	if (is_other)
		md_catalog_become(view->owner, &saved);
	query = md_query_analyze(query_text);
	md_query_check(query, query_text);
	context.plan = plan = md_plan_make(query, GetUserId());
	if (is_always_full(&context))
		put_row(&context, 0, "Query", "full", "replace", "refresh_mode is full", NULL);
	else
	{
		put_row(&context, 0, "Query", md_strategy_name(plan->strategy), md_change_kind_name(plan->changes),
				located_reason(query_text, plan->reason, plan->location), NULL);
		md_lookups_find(plan);
	}
	put_node(&context, plan->root, 1);
	if (view != NULL)
		put_quarantined(&context);
	if (is_other)
		md_catalog_restore_user(&saved);
}
