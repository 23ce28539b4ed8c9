/*
 * refresh_culprits.c
 *		Which rows of the sources is an error of a refresh about?
 *
 * The parts of the query that are computed row by row (refresh_probe.h) are run
 * over the suspects in halves, each in a subtransaction, until a row is alone:
 *
 *		blocks of the relation	  0 ........ 511 | 512 ....... 1023	  fails
 *								  fails			   passes
 *		few blocks: their rows	  1 ... 600 | 601 ... 1200
 *
 * In a join, a row may fail because of the row that it meets.  First it is looked
 * at what each source computes of its own rows; such rows are to blame if they
 * still fail where they are joined, without the candidates of other sources.
 * What is left may be the fault of a row that was there before and met nothing,
 * or depends on rows of several sources; then it is put down to the source that a
 * row of the view is most likely one row of: a streaming table, then the largest.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "attempt.h"
#include "catalog.h"
#include "refresh_culprit_row.h"
#include "refresh_culprits.h"
#include "refresh_errors.h"
#include "refresh_probe.h"
#include "refresh_read.h"
#include "sql_run.h"

/* So few blocks are read into memory. */
#define STORE_BLOCKS 16

typedef struct Search
{
	MdRefresh  *refresh;
	Query	   *normal;			/* of the plan with nothing left out */
	List	   *errors;			/* of MdRefreshError: left out everywhere */
	List	   *hidden;			/* likewise, for the time being */
	List	   *found;			/* of MdRefreshError */
	int64		limit;			/* -1: none */
	bool		full;			/* more than that were found */
	/* the present probe, and rows */
	MdProbe    *probe;
	bool		own;			/* of the rows alone, before they are joined */
	MdSuspects *suspects;
	char	   *left_out;		/* condition on them: none that is known; NULL: none is */
	List	   *others;			/* of MdPart: other places without those that are known */
	BlockNumber from;			/* blocks of the relation; none if to is 0 */
	BlockNumber to;
	Tuplestorestate *store;		/* NULL: none */
	TupleDesc	tupdesc;
	ErrorData  *error;			/* of the last probe that failed */
} Search;

/* Is it of a class that Postgres does not have, so that a function of the user's raised it? */
static bool
is_own_class(int sqlstate)
{
	char		first = PGUNSIXBIT(sqlstate);

	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:	/* 53 */
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:	/* 54 */
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:	/* 55 */
		case ERRCODE_OPERATOR_INTERVENTION: /* 57 */
		case ERRCODE_SYSTEM_ERROR:	/* 58 */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'):	/* 72, which has no name since 17 */
		case ERRCODE_INTERNAL_ERROR:	/* XX */
			return false;
		default:
			/* the standard leaves these to implementations */
			return (first >= '5' && first <= '9') || first >= 'I';
	}
}

bool
md_culprits_is_data_error(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
			/* of domains */
		case ERRCODE_CHECK_VIOLATION:
		case ERRCODE_NOT_NULL_VIOLATION:
			/* of NaN and infinity that are to be an integer */
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			/* of values that would be too long */
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
		default:
			/* P0 is PL/pgSQL's: RAISE, ASSERT, SELECT INTO STRICT */
			return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
				is_own_class(error->sqlerrcode);
	}
}

/* ----------------------------------------------------------------------
 * Probing
 * ---------------------------------------------------------------------- */

/* Is the row one of these already? */
static bool
is_known(List *errors, const MdRefreshError *error)
{
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdRefreshError *known = lfirst(lc);

		if (known->source == error->source && strcmp(known->fingerprint, error->fingerprint) == 0)
			return true;
	}
	return false;
}

/* The only row in the store fails, for the reason in hand. */
static void
note_culprit(Search *search)
{
	MdRefreshError *error;

	md_diff_register(MD_SUSPECTS, search->store, search->tupdesc);
	error = md_culprit_row(search->normal, search->suspects, search->from, search->to, search->error,
						   search->refresh->snapshot);
	SPI_unregister_relation(MD_SUSPECTS);
	if (is_known(search->found, error))
		return;
	search->found = lappend(search->found, error);
	search->full = search->limit >= 0 && list_length(search->found) > search->limit;
}

/* The rows in hand, as a part of the relation. */
static void
present_rows(Search *search, MdPart *part)
{
	char	   *left_out = search->left_out;

	memset(part, 0, sizeof(*part));
	part->relid = search->suspects->relid;
	if (search->store != NULL)
	{
		part->store_name = MD_SUSPECTS;
		part->query = psprintf("SELECT %s FROM " MD_SUSPECTS "%s%s",
							   md_read_attribute_names(part->relid),
							   left_out ? " WHERE " : "", left_out ? left_out : "");
		return;
	}
	part->condition = psprintf("ctid OPERATOR(pg_catalog.>=) '(%u,0)'::pg_catalog.tid AND"
							   " ctid OPERATOR(pg_catalog.<) '(%u,0)'::pg_catalog.tid%s%s%s%s%s",
							   search->from, search->to,
							   search->suspects->condition ? " AND (" : "",
							   search->suspects->condition ? search->suspects->condition : "",
							   search->suspects->condition ? ")" : "",
							   left_out ? " AND " : "", left_out ? left_out : "");
}

static void
run_probe(void *arg)
{
	Search	   *search = arg;
	TimestampTz time = search->refresh->view->refreshed_at;
	MdPart		rows;
	char	   *text;

	present_rows(search, &rows);
	text = search->own ? md_probe_own_text(search->probe, &rows, time) :
		md_probe_text(search->probe, &rows, search->others, time);
	if (text != NULL)
		md_sql_run_for_errors(text, search->refresh->snapshot);
}

/* Does the probe fail for the rows in hand? */
static bool
fails(Search *search)
{
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	if (search->store != NULL)
		md_diff_register(MD_SUSPECTS, search->store, search->tupdesc);
	error = md_attempt(run_probe, search);
	if (search->store != NULL)
		SPI_unregister_relation(MD_SUSPECTS);
	if (error == NULL)
		return false;
	if (!md_culprits_is_data_error(error))
		ReThrowError(error);
	search->error = error;
	return true;
}

/* Two stores of the rows in one. */
static void
split_store(Search *search, Tuplestorestate **first, Tuplestorestate **second)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(search->tupdesc, &TTSOpsMinimalTuple);
	int64		half = tuplestore_tuple_count(search->store) / 2;

	*first = tuplestore_begin_heap(true, false, work_mem);
	*second = tuplestore_begin_heap(true, false, work_mem);
	tuplestore_rescan(search->store);
	for (int64 i = 0; tuplestore_gettupleslot(search->store, true, false, slot); i++)
		tuplestore_puttupleslot(i < half ? *first : *second, slot);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Find the rows of the store that fail; do any?  sure: they do, unless there is
 * more to it than single rows.
 */
static bool
search_store(Search *search, Tuplestorestate *store, bool sure)
{
	Tuplestorestate *halves[2];
	bool		failed;

	if (search->full || tuplestore_tuple_count(store) == 0)
		return false;
	search->store = store;
	if (tuplestore_tuple_count(store) == 1)
	{
		if (!fails(search))
			return false;
		note_culprit(search);
		return true;
	}
	if (!sure && !fails(search))
		return false;
	split_store(search, &halves[0], &halves[1]);
	failed = search_store(search, halves[0], false);
	failed |= search_store(search, halves[1], !failed);
	tuplestore_end(halves[0]);
	tuplestore_end(halves[1]);
	return failed;
}

static void
search_loaded(Search *search, const char *sql, bool sure)
{
	Tuplestorestate *store = md_sql_run_into_store(sql, search->refresh->snapshot, &search->tupdesc);

	(void) search_store(search, store, sure);
	search->store = NULL;
	tuplestore_end(store);
}

/* Find the rows in blocks of the relation that fail; do any? */
static bool
search_blocks(Search *search, BlockNumber from, BlockNumber to, bool sure)
{
	BlockNumber middle = from + (to - from) / 2;
	int			found = list_length(search->found);
	bool		failed;

	if (search->full || from >= to)
		return false;
	search->from = from;
	search->to = to;
	if (!sure && !fails(search))
		return false;
	if (to - from <= STORE_BLOCKS)
	{
		MdPart		part;

		present_rows(search, &part);
		search_loaded(search, psprintf("SELECT %s FROM %s WHERE %s", md_read_attributes(part.relid),
									   md_read_relation_name(part.relid), part.condition), true);
		return list_length(search->found) > found;
	}
	failed = search_blocks(search, from, middle, false);
	failed |= search_blocks(search, middle, to, !failed);
	return failed;
}

/* The longest of the relation and its children; false if one has no blocks. */
static bool
count_blocks(Oid relid, BlockNumber *count)
{
	ListCell   *lc;

	*count = 0;
	foreach(lc, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);
		char		kind = rel->rd_rel->relkind;

		if (kind == RELKIND_RELATION || kind == RELKIND_MATVIEW)
			*count = Max(*count, RelationGetNumberOfBlocks(rel));
		table_close(rel, NoLock);
		if (kind != RELKIND_RELATION && kind != RELKIND_MATVIEW && kind != RELKIND_PARTITIONED_TABLE)
			return false;
	}
	return true;
}

/* Run the present probe over all suspects. */
static void
search_suspects(Search *search)
{
	MdSuspects *suspects = search->suspects;
	List	   *known = list_concat_copy(search->errors, search->found);
	BlockNumber blocks;

	/* what is found now is told apart by the halves */
	search->left_out = md_errors_condition(known, suspects->relid);
	search->others = md_errors_parts(list_concat(known, search->hidden));
	search->to = 0;
	if (suspects->store != NULL)
	{
		search->tupdesc = suspects->tupdesc;
		(void) search_store(search, suspects->store, false);
		search->store = NULL;
	}
	else if (count_blocks(suspects->relid, &blocks))
		(void) search_blocks(search, 0, blocks, false);
	else
		search_loaded(search, psprintf("SELECT %s FROM %s", md_read_attributes(suspects->relid),
									   md_read_relation_name(suspects->relid)), false);
}

/* ----------------------------------------------------------------------
 * Joins
 * ---------------------------------------------------------------------- */

/* Rows of a source that cannot be computed by themselves. */
typedef struct Candidates
{
	MdProbe    *probe;
	MdSuspects *suspects;
	List	   *rows;			/* of MdRefreshError */
} Candidates;

static MdSuspects *
find_suspects(List *suspects, Oid relid)
{
	ListCell   *lc;

	foreach(lc, suspects)
		if (((MdSuspects *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

/* Look for candidates; as many as would be too many tell nothing. */
static Candidates *
find_candidates(Search *search, MdProbe *probe, MdSuspects *suspects)
{
	Candidates *candidates = palloc0(sizeof(Candidates));
	List	   *found = search->found;

	candidates->probe = probe;
	candidates->suspects = suspects;
	search->probe = probe;
	search->suspects = suspects;
	search->own = true;
	search->found = NIL;
	search_suspects(search);
	candidates->rows = search->full ? NIL : search->found;
	search->own = false;
	search->full = false;
	search->found = found;
	return candidates;
}

/* Those that fail where they are joined, too, with no candidate of another source. */
static void
confirm_candidates(Search *search, Candidates *candidates, List *all)
{
	MdSuspects	rows = *candidates->suspects;
	List	   *returning = NIL;
	char	   *condition;
	ListCell   *lc;

	foreach(lc, candidates->rows)
	{
		MdRefreshError *row = palloc(sizeof(MdRefreshError));

		*row = *(MdRefreshError *) lfirst(lc);
		row->returns = true;
		returning = lappend(returning, row);
	}
	foreach(lc, all)
		search->hidden = list_concat(search->hidden, ((Candidates *) lfirst(lc))->rows);
	rows.condition = NULL;
	condition = md_errors_return_tids(returning, rows.relid);
	if (condition == NULL)
		condition = md_errors_return_condition(returning, rows.relid);
	rows.store = md_sql_run_into_store(psprintf("SELECT %s FROM %s WHERE %s",
												md_read_attributes(rows.relid),
												md_read_relation_name(rows.relid), condition),
									   search->refresh->snapshot, &rows.tupdesc);
	/* gone again before the refresh saw them: to be told by the change alone */
	if (tuplestore_tuple_count(rows.store) == 0 && candidates->suspects->store != NULL)
	{
		rows.store = candidates->suspects->store;
		rows.tupdesc = candidates->suspects->tupdesc;
	}
	search->probe = candidates->probe;
	search->suspects = &rows;
	search_suspects(search);
	search->hidden = NIL;
}

/* Probes of one block, which joins several entries. */
static void
search_join(Search *search, List *probes, List *suspects)
{
	List	   *all = NIL;
	ListCell   *lc;

	foreach(lc, probes)
	{
		MdProbe    *probe = lfirst(lc);
		MdSuspects *these = find_suspects(suspects, probe->relid);
		Candidates *candidates = these ? find_candidates(search, probe, these) : NULL;

		if (candidates != NULL && candidates->rows != NIL)
			all = lappend(all, candidates);
	}
	foreach(lc, all)
		confirm_candidates(search, lfirst(lc), all);
}

/*
 * Rows of other sources than those of the culprits that cannot be computed by
 * themselves, new or not, and fail where they are joined: found instead of these?
 */
static bool
search_back(Search *search, List *probes, List *culprits)
{
	int			found = list_length(search->found);
	List	   *all = NIL;
	ListCell   *lc;

	foreach(lc, probes)
	{
		MdProbe    *probe = lfirst(lc);
		MdSuspects *suspects = palloc0(sizeof(MdSuspects));
		Candidates *candidates;
		ListCell   *other;
		bool		is_met = false;

		foreach(other, culprits)
			is_met |= ((MdRefreshError *) lfirst(other))->source != probe->relid;
		if (!is_met)
			continue;
		suspects->relid = probe->relid;
		suspects->is_stream = md_catalog_has_row("stream", "stream_pkey", probe->relid);
		candidates = find_candidates(search, probe, suspects);
		if (candidates->rows != NIL)
			all = lappend(all, candidates);
	}
	foreach(lc, all)
		confirm_candidates(search, lfirst(lc), all);
	for (int i = found; i < list_length(search->found); i++)
		((MdRefreshError *) list_nth(search->found, i))->was_there = true;
	return list_length(search->found) > found;
}

/* Put down what fails to rows of the suspects, whatever they meet. */
static void
search_all(Search *search, List *probes, List *suspects)
{
	ListCell   *lc;

	foreach(lc, suspects)
	{
		ListCell   *other;

		foreach(other, probes)
		{
			search->probe = lfirst(other);
			search->suspects = lfirst(lc);
			if (search->probe->relid == search->suspects->relid && !search->full)
				search_suspects(search);
		}
	}
}

/* Search one block. */
static void
search_block(Search *search, List *probes, List *suspects, bool look_back)
{
	bool		is_joined = ((MdProbe *) linitial(probes))->is_joined;
	List	   *before;
	List	   *culprits;

	if (is_joined)
		search_join(search, probes, suspects);
	before = list_copy(search->found);
	search_all(search, probes, suspects);
	culprits = list_copy_tail(search->found, list_length(before));
	if (!is_joined || !look_back || culprits == NIL || search->full)
		return;
	search->found = before;
	if (search_back(search, probes, culprits))
		search_all(search, probes, suspects);
	else
		search->found = list_concat(search->found, culprits);
}

/* Streaming tables first, then by size. */
static int
compare_suspects(const ListCell *a, const ListCell *b)
{
	const MdSuspects *x = lfirst(a);
	const MdSuspects *y = lfirst(b);

	if (x->is_stream != y->is_stream)
		return x->is_stream ? -1 : 1;
	return x->size > y->size ? -1 : x->size < y->size;
}

List *
md_culprits_find(MdRefresh *refresh, List *errors, List *suspects, int64 limit, bool look_back)
{
	MdPlan	   *plan = md_plan_make(md_query_of_definition(refresh->view->definition),
									refresh->view->owner);
	Search		search = {0};
	List	   *relids = NIL;
	List	   *probes;
	Query	   *done = NULL;
	ListCell   *lc;

	search.refresh = refresh;
	search.normal = plan->normal;
	search.errors = errors;
	search.limit = limit;
	list_sort(suspects, compare_suspects);
	foreach(lc, plan->source_ids)
		if (md_culprit_can_be_left_out(search.normal, lfirst_oid(lc)))
			relids = lappend_oid(relids, lfirst_oid(lc));
	probes = md_probes(search.normal, relids);
	foreach(lc, probes)
	{
		List	   *block_probes = NIL;
		ListCell   *other;

		/* all of a block at once */
		if (((MdProbe *) lfirst(lc))->block == done)
			continue;
		done = ((MdProbe *) lfirst(lc))->block;
		foreach(other, probes)
			if (((MdProbe *) lfirst(other))->block == done)
				block_probes = lappend(block_probes, lfirst(other));
		search_block(&search, block_probes, suspects, look_back);
	}
	return search.found;
}
