/*
 * refresh_quarantine.c
 *		A row that cannot be computed costs itself only.
 *
 *	apply ---data error---> which rows? ---> quarantine them, apply again
 *	  |						(refresh_culprits.c)
 *	  '---> count what is quarantined, let go what has left its source
 *
 * Each attempt is a subtransaction.  With S a source, E its quarantined rows
 * before, X those that this refresh adds and R those that it lets return, the
 * view goes from Q(S_old - E) to Q(S_new - (E + X - R)): all is read without
 * E + X - R, which a condition on the scans sees to, and the rows in R that are
 * still there count as new.  X is of new rows alone, or all is computed anew.
 *
 * A row is tried again when a user asks, when the definition is new, and, in a
 * view over several sources, when another source has changed.  A row that is
 * updated is another row.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "refresh_culprits.h"
#include "refresh_errors.h"
#include "refresh_quarantine.h"
#include "refresh_quarantine_parts.h"
#include "refresh_read.h"
#include "sql_run.h"

/*
 * One error may hide another, of another source or block; as many rounds as
 * there may be of these.
 */
#define MAX_ROUNDS 20

static MdPlan *
plan_without(const MdView *view, List *errors)
{
	return md_plan_make_over(md_query_of_definition(view->definition), view->owner,
							 md_errors_parts(errors));
}

MdPlan *
md_quarantine_plan(const MdView *view, Snapshot snapshot)
{
	return plan_without(view, md_errors_load(view->relid, snapshot));
}

bool
md_quarantine_is_unsettled(const MdRefresh *refresh)
{
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
		if (((MdRefreshError *) lfirst(lc))->again)
			return true;
	return false;
}

/* ----------------------------------------------------------------------
 * Finding
 * ---------------------------------------------------------------------- */

/* Rows that came by a signed change. */
static void
suspect_signed(MdRefresh *refresh, const MdDelta *delta, MdSuspects *suspects)
{
	md_diff_register(delta->store_name, delta->store, delta->store_desc);
	suspects->store =
		md_sql_run_into_store(psprintf("SELECT %s FROM (%s) c WHERE " MD_WEIGHT " OPERATOR(pg_catalog.>) 0",
									   md_read_attribute_names(suspects->relid), delta->query),
							  refresh->snapshot, &suspects->tupdesc);
	SPI_unregister_relation(delta->store_name);
}

/* New rows of all sources; where all is computed anew, all rows. */
static List *
suspect_new_rows(MdRefresh *refresh)
{
	List	   *list = NIL;
	ListCell   *lc;

	foreach(lc, refresh->plan->source_ids)
	{
		MdSource   *source = md_quarantine_source(refresh, lfirst_oid(lc));
		MdSuspects *suspects = md_quarantine_suspects(source);
		MdDelta		delta = {0};

		if (md_quarantine_is_incremental(refresh))
		{
			md_frontier_delta(source, refresh->snapshot, &delta);
			if (delta.why_full == NULL && !delta.is_signed && strcmp(delta.condition, "false") == 0)
				continue;
			if (delta.why_full == NULL && delta.is_signed)
				suspect_signed(refresh, &delta, suspects);
			else if (delta.why_full == NULL)
				suspects->condition = delta.condition;
		}
		list = lappend(list, suspects);
	}
	return list;
}

/* More rows fail than may: the input, or the query, is not what it was meant to be. */
static void
report_too_many(const MdRefresh *refresh, const MdRefreshError *first)
{
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(first->sqlstate[0], first->sqlstate[1], first->sqlstate[2],
								   first->sqlstate[3], first->sqlstate[4])),
			 errmsg("more than %d rows cannot be computed in materialized view \"%s\"",
					refresh->view->max_refresh_errors, get_rel_name(refresh->view->relid)),
			 errdetail("The first one, of %s: %s", md_read_relation_name(first->source), first->message),
			 errhint("Correct the query, or set \"max_refresh_errors\" higher.")));
}

/* How many sources have changed? */
static int
count_changed(const MdRefresh *refresh)
{
	int			count = 0;
	ListCell   *lc;

	foreach(lc, refresh->sources)
		count += ((MdSource *) lfirst(lc))->changed &&
			((MdSource *) lfirst(lc))->kind != MD_SOURCE_INLINED;
	return count;
}

/*
 * Rows that were let in may fail where no probe looks, or meet rows of another
 * source that are just leaving; false: there were none.
 */
static bool
keep_out_again(MdRefresh *refresh)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
	{
		MdRefreshError *error = lfirst(lc);

		if (!error->returns)
			continue;
		any = true;
		error->returns = false;
		error->tried = true;
		error->again = count_changed(refresh) > 0;
	}
	return any;
}

/* After a data error: leave out more rows; does not return if none are to blame. */
static void
find_rows(MdRefresh *refresh, ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	int64		limit = Max(0, refresh->view->max_refresh_errors - list_length(refresh->quarantined));
	List	   *found;
	char	   *why_anew;

	if (keep_out_again(refresh))
		return;
	SPI_connect();
	found = md_culprits_find(refresh, refresh->quarantined, suspect_new_rows(refresh), limit,
							 md_quarantine_is_incremental(refresh));
	why_anew = found != NIL && md_quarantine_is_incremental(refresh) ? md_quarantine_why_anew(refresh, found) : NULL;
	/* SPI's context goes away */
	MemoryContextSwitchTo(context);
	found = md_errors_copy(found);
	if (why_anew != NULL)
		refresh->why_anew = pstrdup(why_anew);
	SPI_finish();
	/* a term of the change may join what came to what has left: never in one state */
	if (found == NIL && md_quarantine_is_incremental(refresh) && count_changed(refresh) > 1)
	{
		refresh->why_anew = psprintf("the changes of its sources could not be joined: %s", error->message);
		return;
	}
	if (found == NIL)
	{
		if (error->hint == NULL)
			error->hint = pstrdup("The error is not that of single new rows of a source, so that none can be quarantined.");
		ReThrowError(error);
	}
	if (list_length(found) > limit)
		report_too_many(refresh, linitial(found));
	refresh->quarantined = list_concat(refresh->quarantined, found);
}

/* ----------------------------------------------------------------------
 * The whole
 * ---------------------------------------------------------------------- */

/* Those that are known but cannot be told from others any more. */
static void
note_lost(MdRefresh *refresh)
{
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
	{
		MdRefreshError *error = lfirst(lc);

		if (error->lost)
			refresh->why_anew = psprintf("%s has lost a column by which quarantined rows were told",
										 md_read_relation_name(error->source));
	}
}

/* For the history, and for whoever looks on. */
static void
report(MdRefresh *refresh)
{
	MdRun	   *run = &refresh->run;
	StringInfoData text;
	int64		added = 0;
	int64		returned = 0;
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
	{
		MdRefreshError *error = lfirst(lc);

		if (error->error_id == 0)
			added += error->copies;
		else if (error->returns)
			returned += error->copies;
	}
	if (added == 0 && returned == 0)
		return;
	initStringInfo(&text);
	if (run->reason != NULL)
		appendStringInfo(&text, "%s; ", run->reason);
	if (added > 0)
		appendStringInfo(&text, INT64_FORMAT " row%s could not be computed and %s quarantined", added,
						 added == 1 ? "" : "s", added == 1 ? "was" : "were");
	if (returned > 0)
		appendStringInfo(&text, "%s" INT64_FORMAT " quarantined row%s returned", added > 0 ? ", " : "",
						 returned, returned == 1 ? "" : "s");
	run->reason = text.data;
	if (added > 0)
		ereport(WARNING,
				(errmsg_plural("%ld row could not be computed in materialized view \"%s\"",
							   "%ld rows could not be computed in materialized view \"%s\"",
							   (unsigned long) added, (long) added,
							   get_rel_name(refresh->view->relid)),
				 errdetail("The view is computed without what comes of them."),
				 errhint("medallion.refresh_errors has the rows and their errors.")));
}

/* Account for what was left out. */
static void
settle(MdRefresh *refresh)
{
	if (refresh->quarantined == NIL)
		return;
	SPI_connect();
	md_quarantine_count(refresh, refresh->quarantined);
	SPI_finish();
	report(refresh);
	md_errors_store(refresh->view->relid, refresh->quarantined, refresh->snapshot);
}

void
md_quarantine_apply(MdRefresh *refresh, bool full, MdAction apply, void *arg)
{
	MdView		view = *refresh->view;
	MdRun		run = refresh->run;
	ErrorData  *error;

	if (view.on_error_fail)
	{
		apply(arg);
		return;
	}
	refresh->quarantined = md_errors_load(view.relid, refresh->snapshot);
	if (refresh->quarantined != NIL)
	{
		note_lost(refresh);
		md_quarantine_try_again(refresh, full || !view.populated);
		refresh->plan = plan_without(&view, refresh->quarantined);
	}
	for (int round = 1;; round++)
	{
		/* what a failed attempt has made of it */
		*refresh->view = view;
		refresh->view->state_tables = list_copy(view.state_tables);
		error = md_attempt(apply, arg);
		if (error == NULL)
			break;
		if (!md_culprits_is_data_error(error) || round == MAX_ROUNDS)
			ReThrowError(error);
		find_rows(refresh, error);
		refresh->plan = plan_without(&view, refresh->quarantined);
		refresh->run = run;
	}
	settle(refresh);
}
