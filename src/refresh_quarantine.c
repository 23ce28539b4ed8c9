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

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "refresh_culprits.h"
#include "refresh_errors.h"
#include "refresh_quarantine.h"
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

static bool
is_incremental(const MdRefresh *refresh)
{
	return strcmp(refresh->run.strategy, "full") != 0;
}

/* Whether the source is read by the plan, and how. */
static MdSource *
read_source(const MdRefresh *refresh, Oid relid)
{
	ListCell   *lc;

	foreach(lc, refresh->sources)
	{
		MdSource   *source = lfirst(lc);

		if (source->relid == relid)
			return source->kind == MD_SOURCE_INLINED ? NULL : source;
	}
	return NULL;
}

/* ----------------------------------------------------------------------
 * Counting
 * ---------------------------------------------------------------------- */

/* Do both stand for rows of one source, told by the same columns? */
static bool
same_kind(const MdRefreshError *a, const MdRefreshError *b)
{
	return a->source == b->source && md_errors_same_columns(a->columns, b->columns);
}

/* Add to the copies of `error` and others of its kind their rows in `from`. */
static void
count_kind(MdRefresh *refresh, List *errors, const MdRefreshError *kind, const char *from,
		   const char *weight)
{
	char	   *fingerprint = md_errors_fingerprint(kind->columns);
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, errors)
		if (same_kind(kind, lfirst(lc)))
			appendStringInfo(&list, "%s%s", list.len > 0 ? "," : "",
							 ((MdRefreshError *) lfirst(lc))->fingerprint);
	md_sql_run(psprintf("SELECT f::pg_catalog.text, pg_catalog.sum(w)::pg_catalog.int8"
						" FROM (SELECT %s AS f, %s AS w FROM %s) x"
						" WHERE f OPERATOR(pg_catalog.=) ANY ('{%s}'::pg_catalog.uuid[]) GROUP BY f",
						fingerprint, weight, from, list.data), NULL, refresh->snapshot);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *counted = md_sql_string(i, 1);

		foreach(lc, errors)
		{
			MdRefreshError *error = lfirst(lc);

			if (same_kind(kind, error) && strcmp(error->fingerprint, counted) == 0)
				error->copies += md_sql_int64(i, 2);
		}
	}
}

static void
count_rows(MdRefresh *refresh, List *errors, Oid source, const char *from, const char *weight)
{
	List	   *done = NIL;
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		ListCell   *other;
		bool		known = error->source != source || error->lost;

		foreach(other, done)
			known |= same_kind(lfirst(other), error);
		if (known)
			continue;
		done = lappend(done, error);
		count_kind(refresh, errors, error, from, weight);
	}
}

/* The same over what is new in the source. */
static void
count_new_rows(MdRefresh *refresh, List *errors, MdSource *source)
{
	MdDelta		delta;

	md_frontier_delta(source, refresh->snapshot, &delta);
	if (delta.why_full != NULL)
		elog(ERROR, "changes of relation %u are not known any more", source->relid);
	if (!delta.is_signed)
	{
		if (strcmp(delta.condition, "false") != 0)
			count_rows(refresh, errors, source->relid,
					   psprintf("%s WHERE %s", md_read_relation_name(source->relid), delta.condition), "1");
		return;
	}
	md_diff_register(delta.store_name, delta.store, delta.store_desc);
	count_rows(refresh, errors, source->relid, psprintf("(%s) c", delta.query), MD_WEIGHT);
	SPI_unregister_relation(delta.store_name);
}

/* How many rows each stands for now. */
static void
count_copies(MdRefresh *refresh, List *errors)
{
	List	   *done = NIL;
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = read_source(refresh, error->source);

		/* a record is there once, and stays */
		if (source != NULL && is_incremental(refresh) && source->kind == MD_SOURCE_STREAM)
			error->copies = 1;
		else if (source == NULL || !is_incremental(refresh) || error->error_id == 0)
			error->copies = 0;
	}
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = read_source(refresh, error->source);

		if (source == NULL || list_member_oid(done, error->source))
			continue;
		done = lappend_oid(done, error->source);
		if (!is_incremental(refresh))
			count_rows(refresh, errors, source->relid, md_read_relation_name(source->relid), "1");
		else if (source->kind != MD_SOURCE_STREAM && source->changed)
			count_new_rows(refresh, errors, source);
	}
}

/* ----------------------------------------------------------------------
 * Finding
 * ---------------------------------------------------------------------- */

static double
relation_size(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	double		size = Max(rel->rd_rel->reltuples, 0);

	if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		size = Max(size, RelationGetNumberOfBlocks(rel));
	table_close(rel, NoLock);
	return size;
}

static MdSuspects *
make_suspects(MdSource *source)
{
	MdSuspects *suspects = palloc0(sizeof(MdSuspects));

	suspects->relid = source->relid;
	suspects->is_stream = source->kind == MD_SOURCE_STREAM;
	suspects->size = relation_size(source->relid);
	return suspects;
}

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
		MdSource   *source = read_source(refresh, lfirst_oid(lc));
		MdSuspects *suspects = make_suspects(source);
		MdDelta		delta = {0};

		if (is_incremental(refresh))
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

/*
 * Rows that were there before, or equal rows which were and have no key of their
 * own: perhaps the view was computed with those.
 */
static char *
why_compute_anew(MdRefresh *refresh, List *found)
{
	ListCell   *lc;

	foreach(lc, found)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = read_source(refresh, error->source);
		bool		has_key;
		int64		in_change;

		if (error->was_there)
			return psprintf("rows of %s that were there before cannot be computed any more",
							md_read_relation_name(error->source));
		(void) md_culprits_value_columns(refresh->plan->normal, error->source, &has_key);
		if (source->kind == MD_SOURCE_STREAM || has_key)
			continue;
		error->copies = 0;
		count_new_rows(refresh, list_make1(error), source);
		in_change = error->copies;
		error->copies = 0;
		count_rows(refresh, list_make1(error), source->relid, md_read_relation_name(source->relid), "1");
		if (error->copies != in_change)
			return psprintf("rows of %s that were quarantined equal others that were there before",
							md_read_relation_name(source->relid));
	}
	return NULL;
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
							 is_incremental(refresh));
	why_anew = found != NIL && is_incremental(refresh) ? why_compute_anew(refresh, found) : NULL;
	/* SPI's context goes away */
	MemoryContextSwitchTo(context);
	found = md_errors_copy(found);
	if (why_anew != NULL)
		refresh->why_anew = pstrdup(why_anew);
	SPI_finish();
	/* a term of the change may join what came to what has left: never in one state */
	if (found == NIL && is_incremental(refresh) && count_changed(refresh) > 1)
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
 * Trying again
 * ---------------------------------------------------------------------- */

/* Has anything changed that the row may have failed by, but the row itself? */
static bool
is_to_be_tried(const MdRefresh *refresh, const MdRefreshError *error)
{
	ListCell   *lc;

	if (error->retry)
		return true;
	foreach(lc, refresh->sources)
	{
		MdSource   *source = lfirst(lc);

		if (source->changed && source->relid != error->source)
			return true;
	}
	return false;
}

/* Look through the relation where rows that are to be tried are. */
static void
locate_tried(MdRefresh *refresh, MdSource *source, MemoryContext context)
{
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
	{
		MdRefreshError *kind = lfirst(lc);
		ListCell   *other;

		if (kind->source != source->relid || !kind->returns || kind->tid != NULL)
			continue;
		md_sql_run(psprintf("SELECT %s::pg_catalog.text, pg_catalog.min(ctid)::pg_catalog.text"
							" FROM %s WHERE %s GROUP BY 1 HAVING pg_catalog.count(*) OPERATOR(pg_catalog.=) 1",
							md_errors_fingerprint(kind->columns), md_read_relation_name(source->relid),
							md_errors_return_condition(refresh->quarantined, source->relid)),
				   NULL, refresh->snapshot);
		for (uint64 i = 0; i < SPI_processed; i++)
			foreach(other, refresh->quarantined)
			{
				MdRefreshError *error = lfirst(other);

				if (same_kind(kind, error) && strcmp(error->fingerprint, md_sql_string(i, 1)) == 0)
					error->tid = MemoryContextStrdup(context, md_sql_string(i, 2));
			}
	}
}

/* Run a SELECT of the source's rows into suspects. */
static int64
load_rows(MdRefresh *refresh, MdSuspects *suspects, const char *condition)
{
	suspects->store =
		md_sql_run_into_store(psprintf("SELECT %s FROM %s WHERE %s", md_read_attributes(suspects->relid),
									   md_read_relation_name(suspects->relid), condition),
							  refresh->snapshot, &suspects->tupdesc);
	return tuplestore_tuple_count(suspects->store);
}

/* Rows of a source that are to be tried; NULL: none. */
static MdSuspects *
load_tried(MdRefresh *refresh, MdSource *source, MemoryContext context)
{
	char	   *condition = md_errors_return_condition(refresh->quarantined, source->relid);
	char	   *by_tid = md_errors_return_tids(refresh->quarantined, source->relid);
	MdSuspects *suspects;
	int64		count = 0;
	ListCell   *lc;

	if (condition == NULL)
		return NULL;
	suspects = make_suspects(source);
	foreach(lc, refresh->quarantined)
		count += ((MdRefreshError *) lfirst(lc))->source == source->relid &&
			((MdRefreshError *) lfirst(lc))->returns;
	if (by_tid != NULL && load_rows(refresh, suspects, by_tid) == count)
		return suspects;
	foreach(lc, refresh->quarantined)
		if (((MdRefreshError *) lfirst(lc))->source == source->relid)
			((MdRefreshError *) lfirst(lc))->tid = NULL;
	locate_tried(refresh, source, context);
	by_tid = md_errors_return_tids(refresh->quarantined, source->relid);
	(void) load_rows(refresh, suspects, by_tid != NULL ? by_tid : condition);
	return suspects;
}

/* Those that were tried and fail again stay. */
static void
keep_failing(List *errors, List *failing)
{
	ListCell   *lc;

	foreach(lc, failing)
	{
		MdRefreshError *fails = lfirst(lc);
		ListCell   *other;

		foreach(other, errors)
		{
			MdRefreshError *error = lfirst(other);

			if (error->source != fails->source ||
				strcmp(error->fingerprint, fails->fingerprint) != 0)
				continue;
			error->returns = false;
			error->tried = true;
		}
	}
}

/* Which rows can be computed again? */
static void
try_again(MdRefresh *refresh, bool all)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *suspects = NIL;
	bool		any = false;
	ListCell   *lc;

	foreach(lc, refresh->quarantined)
	{
		MdRefreshError *error = lfirst(lc);

		error->returns = !error->lost && (all || is_to_be_tried(refresh, error));
		any |= error->returns;
	}
	if (!any)
		return;
	SPI_connect();
	foreach(lc, refresh->plan->source_ids)
	{
		MdSuspects *tried = load_tried(refresh, read_source(refresh, lfirst_oid(lc)), context);

		if (tried != NULL)
			suspects = lappend(suspects, tried);
	}
	keep_failing(refresh->quarantined, md_culprits_find(refresh, refresh->quarantined, suspects, -1,
														false));
	SPI_finish();
}

void
md_quarantine_let_in(MdRefresh *refresh, MdSource *source, MdDelta *delta)
{
	char	   *returning = md_errors_return_condition(refresh->quarantined, source->relid);
	char	   *name = md_read_relation_name(source->relid);
	char	   *by_tid = md_errors_return_tids(refresh->quarantined, source->relid);

	if (returning == NULL || delta->why_full != NULL)
		return;
	if (source->is_captured)
	{
		char	   *rows = psprintf("SELECT %s, 1::pg_catalog.int8 AS " MD_WEIGHT " FROM %s WHERE %s",
									md_read_attributes(source->relid), name, by_tid ? by_tid : returning);

		/* what is said of them there is of rows that the view was computed without */
		delta->query = delta->is_signed ?
			psprintf("SELECT * FROM (%s) c WHERE (%s) IS NOT TRUE UNION ALL %s", delta->query, returning, rows) :
			rows;
		delta->is_signed = true;
	}
	else
	{
		delta->condition = strcmp(delta->condition, "false") == 0 ? (by_tid ? by_tid : returning) :
			psprintf("((%s) OR (%s))", delta->condition, returning);
		if (delta->old_condition != NULL)
			delta->old_condition = psprintf("(%s) AND (%s) IS NOT TRUE", delta->old_condition, returning);
	}
	delta->rows = -1;
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
	count_copies(refresh, refresh->quarantined);
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
		try_again(refresh, full || !view.populated);
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
