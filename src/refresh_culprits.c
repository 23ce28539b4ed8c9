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
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "attempt.h"
#include "refresh_culprits.h"
#include "refresh_errors.h"
#include "refresh_probe.h"
#include "refresh_read.h"
#include "sql_run.h"
#include "view_catalog.h"

#define SUSPECTS "medallion_suspects"

/* So few blocks are read into memory. */
#define STORE_BLOCKS 16

/* A row whose JSON is larger is kept without it. */
#define ROW_DATA_MAX_BYTES 65536

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
	BlockNumber from;			/* blocks of the relation; none if to is 0 */
	BlockNumber to;
	Tuplestorestate *store;		/* NULL: none */
	TupleDesc	tupdesc;
	ErrorData  *error;			/* of the last probe that failed */
} Search;

bool
md_culprits_is_data_error(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
			/* of domains */
		case ERRCODE_CHECK_VIOLATION:
		case ERRCODE_NOT_NULL_VIOLATION:
			/* of functions of the user */
		case ERRCODE_RAISE_EXCEPTION:
			return true;
		default:
			return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION;
	}
}

/* ----------------------------------------------------------------------
 * Columns that tell a row
 * ---------------------------------------------------------------------- */

typedef struct UsedColumns
{
	Oid			relid;
	List	   *levels;			/* of Query, innermost first */
	Bitmapset  *columns;		/* attribute numbers; 0: all */
} UsedColumns;

static bool
used_columns_walker(Node *node, UsedColumns *used)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Query	   *query;
		RangeTblEntry *rte;

		if ((int) var->varlevelsup >= list_length(used->levels))
			return false;
		query = list_nth(used->levels, var->varlevelsup);
		rte = rt_fetch(var->varno, query->rtable);
		if (rte->rtekind == RTE_RELATION && rte->relid == used->relid && var->varattno >= 0)
			used->columns = bms_add_member(used->columns, var->varattno);
		return false;
	}
	if (IsA(node, Query))
	{
		bool		result;

		used->levels = lcons(node, used->levels);
		result = query_tree_walker((Query *) node, used_columns_walker, used, QTW_IGNORE_JOINALIASES);
		used->levels = list_delete_first(used->levels);
		return result;
	}
	return expression_tree_walker(node, used_columns_walker, used);
}

List *
md_culprits_value_columns(Query *normal, Oid relid, bool *has_key)
{
	UsedColumns used = {relid, NIL, NULL};
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			constraint;
	Bitmapset  *key = get_primary_key_attnos(relid, false, &constraint);
	List	   *names = NIL;
	bool		all;

	(void) used_columns_walker((Node *) normal, &used);
	all = bms_is_empty(used.columns) || bms_is_member(0, used.columns);
	*has_key = key != NULL;
	for (int i = 1; i <= RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i - 1);

		if (!att->attisdropped &&
			(all || bms_is_member(i, used.columns) ||
			 bms_is_member(i - FirstLowInvalidHeapAttributeNumber, key)))
			names = lappend(names, pstrdup(NameStr(att->attname)));
	}
	table_close(rel, NoLock);
	return names;
}

/* Names of the columns with the position of a record; NULL: there is none such. */
typedef struct RecordColumns
{
	char	   *topic;
	char	   *partition;
	char	   *offset;
	char	   *only_topic;		/* of a table that reads one */
} RecordColumns;

static RecordColumns
load_record_columns(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	RecordColumns columns = {0};
	char	  **targets[] = {&columns.partition, &columns.offset, &columns.topic, &columns.only_topic};
	MdSqlArgs	args = {0};
	MdSecurity	saved;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_begin(&saved);
	md_sql_run_cached(&plan,
					  "SELECT a.attname::text, m.n::bigint"
					  "  FROM pg_attribute a"
					  "       LEFT JOIN medallion.stream_column c"
					  "              ON c.relid = a.attrelid AND c.column_name = a.attname,"
					  "       LATERAL (VALUES ('kafka_partition', 1), ('kafka_offset', 2),"
					  "                       ('kafka_topic', 3)) m(name, n)"
					  " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
					  "   AND coalesce(c.source_name, a.attname) = m.name"
					  " UNION ALL "
					  "SELECT s.topic, 4 FROM medallion.stream s WHERE s.relid = $1 AND s.topic NOT LIKE '^%'",
					  &args, snapshot);
	for (uint64 i = 0; i < SPI_processed; i++)
		*targets[md_sql_int64(i, 2) - 1] = MemoryContextStrdup(context, md_sql_string(i, 1));
	md_view_sql_end(&saved);
	return columns;
}

/* ----------------------------------------------------------------------
 * A row that was found
 * ---------------------------------------------------------------------- */

/* Where the record stands; false if the row in the store has no offset. */
static bool
read_position(Search *search, MdRefreshError *error, List *values)
{
	RecordColumns columns = load_record_columns(error->source, search->refresh->snapshot);

	if (columns.partition == NULL || columns.offset == NULL)
		return false;
	md_sql_run(psprintf("SELECT %s, %s::pg_catalog.int8, %s FROM " SUSPECTS,
						columns.topic ? quote_identifier(columns.topic) : "NULL",
						quote_identifier(columns.partition), quote_identifier(columns.offset)),
			   NULL, search->refresh->snapshot);
	if (md_sql_string(0, 3) == NULL || md_sql_string(0, 2) == NULL)
		return false;
	error->topic = columns.topic ? md_sql_string(0, 1) : columns.only_topic;
	error->partition = (int) md_sql_int64(0, 2);
	error->offset = md_sql_int64(0, 3);
	/* without a topic its values must do */
	error->columns = columns.topic ? list_make1(columns.topic) :
		columns.only_topic ? NIL : list_copy(values);
	error->columns = lappend(lappend(error->columns, columns.partition), columns.offset);
	return true;
}

typedef struct RowData
{
	Search	   *search;
	char	   *columns;
	Jsonb	   *result;
} RowData;

static void
read_row_data(void *arg)
{
	RowData    *data = arg;
	MemoryContext context = CurrentMemoryContext;
	Datum		value;
	bool		isnull;

	md_sql_run(psprintf("SELECT pg_catalog.to_jsonb(\"?row?\") FROM (SELECT %s FROM " SUSPECTS ") \"?row?\"",
						data->columns), NULL, data->search->refresh->snapshot);
	value = md_sql_datum(0, 1, &isnull);
	if (!isnull && VARSIZE_ANY(DatumGetPointer(value)) <= ROW_DATA_MAX_BYTES)
	{
		Jsonb	   *json = DatumGetJsonbP(value);

		data->result = MemoryContextAlloc(context, VARSIZE(json));
		memcpy(data->result, json, VARSIZE(json));
	}
}

static char *
quoted_list(List *names)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, names)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", quote_identifier(lfirst(lc)));
	return list.data;
}

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

/* Where the row is, if there is one only in the blocks in hand. */
static void
note_tid(Search *search, MdRefreshError *error)
{
	md_sql_run(psprintf("SELECT ctid::pg_catalog.text FROM %s WHERE ctid OPERATOR(pg_catalog.>=) '(%u,0)'::pg_catalog.tid"
						" AND ctid OPERATOR(pg_catalog.<) '(%u,0)'::pg_catalog.tid"
						" AND %s OPERATOR(pg_catalog.=) '%s'::pg_catalog.uuid",
						md_read_relation_name(error->source), search->from, search->to,
						md_errors_fingerprint(error->columns), error->fingerprint),
			   NULL, search->refresh->snapshot);
	if (SPI_processed == 1)
		error->tid = md_sql_string(0, 1);
}

/* The only row in the store fails, for the reason in hand. */
static void
note_culprit(Search *search)
{
	MdRefreshError *error = palloc0(sizeof(MdRefreshError));
	RowData		data = {search, NULL, NULL};
	List	   *values;
	bool		has_key;

	error->source = search->suspects->relid;
	error->copies = 1;
	error->partition = -1;
	error->sqlstate = pstrdup(unpack_sql_state(search->error->sqlerrcode));
	error->message = search->error->message;
	error->detail = search->error->detail;
	error->context = search->error->context;

	md_diff_register(SUSPECTS, search->store, search->tupdesc);
	values = md_culprits_value_columns(search->normal, error->source, &has_key);
	if (!search->suspects->is_stream || !read_position(search, error, values))
		error->columns = values;
	md_sql_run(psprintf("SELECT %s FROM " SUSPECTS, md_errors_fingerprint(error->columns)), NULL,
			   search->refresh->snapshot);
	error->fingerprint = md_sql_string(0, 1);
	data.columns = quoted_list(values);
	/* not every value has a form in JSON */
	if (md_attempt(read_row_data, &data) == NULL)
		error->row_data = data.result;
	SPI_unregister_relation(SUSPECTS);
	if (search->to > 0)
		note_tid(search, error);

	if (is_known(search->found, error))
		return;
	search->found = lappend(search->found, error);
	search->full = search->limit >= 0 && list_length(search->found) > search->limit;
}

/* ----------------------------------------------------------------------
 * Probing
 * ---------------------------------------------------------------------- */

/* The rows in hand, as a part of the relation. */
static void
present_rows(Search *search, MdPart *part)
{
	char	   *left_out = md_errors_condition(list_concat_copy(search->errors, search->found),
											   search->suspects->relid);

	memset(part, 0, sizeof(*part));
	part->relid = search->suspects->relid;
	if (search->store != NULL)
	{
		part->store_name = SUSPECTS;
		part->query = psprintf("SELECT %s FROM " SUSPECTS "%s%s",
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
	List	   *left_out = list_concat_copy(search->errors, search->found);
	MdPart		rows;
	char	   *text;

	present_rows(search, &rows);
	text = search->own ? md_probe_own_text(search->probe, &rows, time) :
		md_probe_text(search->probe, &rows,
					  md_errors_parts(list_concat(left_out, search->hidden)), time);
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
		md_diff_register(SUSPECTS, search->store, search->tupdesc);
	error = md_attempt(run_probe, search);
	if (search->store != NULL)
		SPI_unregister_relation(SUSPECTS);
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
	BlockNumber blocks;

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
	List	   *probes;
	Query	   *done = NULL;
	ListCell   *lc;

	search.refresh = refresh;
	search.normal = plan->normal;
	search.errors = errors;
	search.limit = limit;
	list_sort(suspects, compare_suspects);
	probes = md_probes(search.normal, plan->source_ids);
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
