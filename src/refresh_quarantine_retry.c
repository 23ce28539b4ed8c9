/*
 * refresh_quarantine_retry.c
 *		Quarantined rows that are tried again, and let in.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "refresh_culprits.h"
#include "refresh_errors.h"
#include "refresh_quarantine.h"
#include "refresh_quarantine_parts.h"
#include "refresh_read.h"
#include "sql_run.h"

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

MdSuspects *
md_quarantine_suspects(MdSource *source)
{
	MdSuspects *suspects = palloc0(sizeof(MdSuspects));

	suspects->relid = source->relid;
	suspects->is_stream = source->kind == MD_SOURCE_STREAM;
	suspects->size = relation_size(source->relid);
	return suspects;
}

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

				if (md_errors_same_kind(kind, error) && strcmp(error->fingerprint, md_sql_string(i, 1)) == 0)
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
	suspects = md_quarantine_suspects(source);
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
void
md_quarantine_try_again(MdRefresh *refresh, bool all)
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
		MdSuspects *tried = load_tried(refresh, md_quarantine_source(refresh, lfirst_oid(lc)), context);

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
		char	   *rows = psprintf("SELECT %s, 1::pg_catalog.int4 AS " MD_WEIGHT " FROM %s WHERE %s",
									md_read_attributes(source->relid), name, by_tid ? by_tid : returning);

		/* what is said of them there is of rows that the view was computed without */
		delta->query = delta->is_signed ?
			psprintf("SELECT * FROM (%s) c WHERE (%s) IS NOT TRUE UNION ALL %s", delta->query, returning, rows) :
			rows;
		delta->is_signed = true;
		delta->only_came = false;
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

