/*
 * view_sources.c
 *		What becomes of views when a column of a source changes.
 *
 * The query of a view is a real view, so Postgres would refuse ALTER COLUMN TYPE
 * on what it reads, and DROP COLUMN CASCADE would drop it with its result.  Both
 * are let through here, and cost no result:
 *
 *		query as a view --> text --[ALTER TABLE]--> analyzed anew
 *													  |			  |
 *									 same columns as before		does not fit
 *									 query as a view again		the text is kept
 *
 * A view whose query does not fit keeps its result, shows the state "broken"
 * with the reason, and is not refreshed.  medallion.alter_materialized_view()
 * with a query that fits cures it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "catalog.h"
#include "compat.h"
#include "refresh_plan.h"
#include "relation_make.h"
#include "sql_run.h"
#include "view_columns.h"
#include "view_settings.h"
#include "view_sources.h"
#include "view_state.h"
#include "worker_slots.h"

typedef struct LooseView
{
	MdView	   *view;
	char	   *query;
} LooseView;

/* Views whose queries read a column (of Oid). */
static List *
readers_of(Oid relid, const char *column)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *readers = NIL;
	Snapshot	snapshot = md_sql_take_snapshot();
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, INT4OID, Int32GetDatum(get_attnum(relid, column)), false);
	md_view_sql_begin(&saved);
	/* plain views in between are dropped along, and with them what reads them */
	rows = md_sql_run("WITH RECURSIVE reader AS ("
					  "   SELECT r.ev_class FROM pg_depend d"
					  "     JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid"
					  "    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.refobjsubid = $2"
					  "   UNION"
					  "   SELECT r.ev_class FROM reader p"
					  "     JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = p.ev_class"
					  "     JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid)"
					  "SELECT DISTINCT v.relid::oid FROM reader"
					  "  JOIN medallion.view v ON v.definition = reader.ev_class ORDER BY 1", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		Oid			reader = DatumGetObjectId(md_sql_datum(i, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);

		readers = lappend_oid(readers, reader);
		MemoryContextSwitchTo(old);
	}
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
	return readers;
}

/* Turn a view's query into text that means the same under any search_path. */
static LooseView *
loosen(Oid relid)
{
	LooseView  *loose = palloc(sizeof(LooseView));
	Snapshot	snapshot;

	md_view_lock_definition(relid);
	md_view_lock(relid);
	snapshot = md_sql_take_snapshot();
	loose->view = md_view_get(relid, snapshot);
	UnregisterSnapshot(snapshot);
	loose->query = md_query_text(md_query_of_definition(loose->view->definition));
	md_relation_drop_part(loose->view->definition);
	loose->view->definition = InvalidOid;
	return loose;
}

List *
md_view_loosen(Node *stmt)
{
	AlterTableStmt *alter = (AlterTableStmt *) stmt;
	List	   *readers = NIL;
	List	   *loose = NIL;
	Oid			relid;
	ListCell   *lc;

	if (!IsA(stmt, AlterTableStmt) || alter->relation == NULL)
		return NIL;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	/* who may not alter the table gets core's error */
	if (!OidIsValid(relid) || !md_relation_ownercheck(relid, GetUserId()))
		return NIL;
	foreach(lc, alter->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);

		if (command->subtype == AT_AlterColumnType ||
			(command->subtype == AT_DropColumn && command->behavior == DROP_CASCADE))
			readers = list_concat_unique_oid(readers, readers_of(relid, command->name));
	}
	list_sort(readers, list_oid_cmp);
	foreach(lc, readers)
		loose = lappend(loose, loosen(lfirst_oid(lc)));
	return loose;
}

/* ---------------------------------------------------------------------- */

/* Analyze the text for the view's owner; ERROR if it does not fit the result. */
static void
fasten(void *arg)
{
	LooseView  *loose = arg;
	MdView	   *view = loose->view;
	MdColumnChange *change;
	MdPlan	   *plan;
	Query	   *query;
	MdSecurity	saved;

	md_catalog_become(view->owner, &saved);
	md_view_settings_apply(view->settings);
	query = md_query_analyze(loose->query);
	md_query_check(query, loose->query);
	plan = md_plan_make(query, view->owner);
	md_catalog_restore_user(&saved);
	change = md_view_columns_compare(view->relid, query);
	if (change->lost != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("its column \"%s\" would have another type",
						get_attname(view->relid, bms_next_member(change->lost, -1), false))));
	view->definition = md_relation_make_definition(view->relid, query, change->columns,
												   change->names);
	md_view_update(view);
	/* what it showed of the old type may be shown otherwise of the new one */
	md_view_reset_sources(view->relid, plan->source_ids, plan->inlined_ids);
	md_view_forget_frontier(view->relid, md_strategy_name(plan->strategy));
}

/* The view stays as it is, without a query that can be run. */
static void
break_view(LooseView *loose, ErrorData *error)
{
	MdRun		run = {.started_at = GetCurrentTimestamp()};

	md_view_store_lost_query(loose->view->relid, loose->query);
	(void) md_view_store_failure(loose->view->relid, &run, unpack_sql_state(error->sqlerrcode),
								 psprintf("%s; call medallion.alter_materialized_view() with a new query",
										  error->message), run.started_at);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("materialized view \"%s\" keeps its rows, but has lost its query",
					get_rel_name(loose->view->relid)),
			 errdetail("%s.", error->message),
			 errhint("Call medallion.alter_materialized_view() with a query that reads the table as it is now.")));
}

void
md_view_fasten(List *loose)
{
	ListCell   *lc;

	foreach(lc, loose)
	{
		ErrorData  *error;

		CommandCounterIncrement();
		error = md_attempt(fasten, lfirst(lc));
		if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		if (error != NULL)
			break_view(lfirst(lc), error);
	}
	if (loose != NIL)
		md_definitions_changed();
}
