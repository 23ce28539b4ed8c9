/*
 * refresh_quarantine_count.c
 *		How many rows of the sources are quarantined.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "refresh_culprit_row.h"
#include "refresh_errors.h"
#include "refresh_quarantine_parts.h"
#include "refresh_read.h"
#include "sql_run.h"

bool
md_quarantine_is_incremental(const MdRefresh *refresh)
{
	return strcmp(refresh->run.strategy, "full") != 0;
}

MdSource *
md_quarantine_source(const MdRefresh *refresh, Oid relid)
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
		if (md_errors_same_kind(kind, lfirst(lc)))
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

			if (md_errors_same_kind(kind, error) && strcmp(error->fingerprint, counted) == 0)
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
			known |= md_errors_same_kind(lfirst(other), error);
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
void
md_quarantine_count(MdRefresh *refresh, List *errors)
{
	List	   *done = NIL;
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = md_quarantine_source(refresh, error->source);

		/* a record is there once, and stays */
		if (source != NULL && md_quarantine_is_incremental(refresh) && source->kind == MD_SOURCE_STREAM)
			error->copies = 1;
		else if (source == NULL || !md_quarantine_is_incremental(refresh) || error->error_id == 0)
			error->copies = 0;
	}
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = md_quarantine_source(refresh, error->source);

		if (source == NULL || list_member_oid(done, error->source))
			continue;
		done = lappend_oid(done, error->source);
		if (!md_quarantine_is_incremental(refresh))
			count_rows(refresh, errors, source->relid, md_read_relation_name(source->relid), "1");
		else if (source->kind != MD_SOURCE_STREAM && source->changed)
			count_new_rows(refresh, errors, source);
	}
}

/*
 * Rows that were there before, or equal rows which were and have no key of their
 * own: perhaps the view was computed with those.
 */
char *
md_quarantine_why_anew(MdRefresh *refresh, List *found)
{
	ListCell   *lc;

	foreach(lc, found)
	{
		MdRefreshError *error = lfirst(lc);
		MdSource   *source = md_quarantine_source(refresh, error->source);
		bool		has_key;
		int64		in_change;

		if (error->was_there)
			return psprintf("rows of %s that were there before cannot be computed any more",
							md_read_relation_name(error->source));
		(void) md_culprit_columns(refresh->plan->normal, error->source, &has_key);
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

