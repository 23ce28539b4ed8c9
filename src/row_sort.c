/*
 * row_sort.c
 *		Rows of a table in the order of one of its indexes, the first of each key.
 *
 * The executor's sort copies each row into a tuple of its own format, and it is taken
 * apart again to be stored; that, and waiting for memory while rows are read in an
 * order in which they do not lie, was a fifth of what it cost to put new rows into a
 * view.  Here the rows are sorted as the table stores them, and those to be read next are
 * fetched ahead.  All are in memory: whoever puts them in sees to it that they fit.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"

#include "row_sort.h"

/* So many rows before it is needed, the memory of one is asked for. */
#define FETCH_AHEAD 16

#ifdef __GNUC__
#define fetch_memory(address) __builtin_prefetch(address)
#else
#define fetch_memory(address) ((void) 0)
#endif

/* A row, with its first key or an abbreviation of that. */
typedef struct Row
{
	Datum		first;
	HeapTuple	tuple;
	bool		first_is_null;
} Row;

struct MdRowSort
{
	TupleDesc	desc;
	MemoryContext context;		/* of the rows */
	Row		   *rows;
	int64		count;
	int64		room;
	int64		next;
	Size		bytes;
	int			key_count;
	int			column_count;	/* keys, then the others */
	SortSupport columns;
};

/* ----------------------------------------------------------------------
 * Comparing
 * ---------------------------------------------------------------------- */

static int
compare_column(const MdRowSort *sort, const Row *a, const Row *b, SortSupport column)
{
	bool		a_is_null;
	bool		b_is_null;
	Datum		a_value = heap_getattr(a->tuple, column->ssup_attno, sort->desc, &a_is_null);
	Datum		b_value = heap_getattr(b->tuple, column->ssup_attno, sort->desc, &b_is_null);

	return column->abbrev_full_comparator != NULL ?
		ApplySortAbbrevFullComparator(a_value, a_is_null, b_value, b_is_null, column) :
		ApplySortComparator(a_value, a_is_null, b_value, b_is_null, column);
}

/* Compare by the first so many columns. */
static int
compare_by(const MdRowSort *sort, const Row *a, const Row *b, int count)
{
	SortSupport columns = sort->columns;
	int			order = ApplySortComparator(a->first, a->first_is_null, b->first, b->first_is_null, columns);

	if (order == 0 && columns->abbrev_converter != NULL)
		order = compare_column(sort, a, b, columns);
	for (int i = 1; order == 0 && i < count; i++)
		order = compare_column(sort, a, b, &columns[i]);
	return order;
}

static int
compare(const Row *a, const Row *b, void *state)
{
	const MdRowSort *sort = state;

	return compare_by(sort, a, b, sort->column_count);
}

#define ST_SORT sort_rows
#define ST_ELEMENT_TYPE Row
#define ST_COMPARE_ARG_TYPE void
#define ST_COMPARE(a, b, state) compare(a, b, state)
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* ----------------------------------------------------------------------
 * First keys
 * ---------------------------------------------------------------------- */

/*
 * Give each row its first key, abbreviated; false, with no abbreviation any more, if
 * keys begin too much alike for that to help.
 */
static bool
set_first(MdRowSort *sort)
{
	SortSupport column = sort->columns;

	for (int64 i = 0; i < sort->count; i++)
	{
		Row		   *row = &sort->rows[i];

		CHECK_FOR_INTERRUPTS();
		row->first = heap_getattr(row->tuple, column->ssup_attno, sort->desc, &row->first_is_null);
		if (column->abbrev_converter == NULL)
			continue;
		/* looked at ever more seldom, as tuplesort does */
		if ((i & (i - 1)) == 0 && column->abbrev_abort(i, column))
		{
			column->comparator = column->abbrev_full_comparator;
			column->abbrev_converter = NULL;
			column->abbrev_abort = NULL;
			column->abbrev_full_comparator = NULL;
			return false;
		}
		if (!row->first_is_null)
			row->first = column->abbrev_converter(row->first, column);
	}
	return true;
}

/* ----------------------------------------------------------------------
 * Doors
 * ---------------------------------------------------------------------- */

static void
prepare_column(SortSupport column, TupleDesc desc, AttrNumber attnum, Oid operator, bool nulls_first)
{
	column->ssup_cxt = CurrentMemoryContext;
	column->ssup_collation = TupleDescAttr(desc, attnum - 1)->attcollation;
	column->ssup_nulls_first = nulls_first;
	column->ssup_attno = attnum;
	PrepareSortSupportFromOrderingOp(operator, column);
}

MdRowSort *
md_row_sort_begin(TupleDesc desc, Relation index, List *then)
{
	MdRowSort  *sort = palloc0(sizeof(MdRowSort));
	ListCell   *lc;

	sort->desc = desc;
	sort->context = GenerationContextCreate(CurrentMemoryContext, "rows to be sorted", ALLOCSET_DEFAULT_SIZES);
	sort->key_count = IndexRelationGetNumberOfKeyAttributes(index);
	sort->columns = palloc0(sizeof(SortSupportData) * (sort->key_count + list_length(then)));
	for (; sort->column_count < sort->key_count; sort->column_count++)
	{
		int			i = sort->column_count;
		int			option = index->rd_indoption[i];
		Oid			type = index->rd_opcintype[i];
		int			strategy = option & INDOPTION_DESC ? BTGreaterStrategyNumber : BTLessStrategyNumber;

		sort->columns[i].abbreviate = i == 0;
		prepare_column(&sort->columns[i], desc, index->rd_index->indkey.values[i],
					   get_opfamily_member(index->rd_opfamily[i], type, type, strategy),
					   (option & INDOPTION_NULLS_FIRST) != 0);
	}
	foreach(lc, then)
	{
		MdSortColumn *column = lfirst(lc);

		prepare_column(&sort->columns[sort->column_count++], desc, column->attnum, column->operator,
					   column->nulls_first);
	}
	return sort;
}

MemoryContext
md_row_sort_context(MdRowSort *sort)
{
	return sort->context;
}

bool
md_row_sort_put(MdRowSort *sort, HeapTuple row, Size limit)
{
	if (sort->count == sort->room)
	{
		sort->room = sort->room == 0 ? 1024 : sort->room * 2;
		sort->rows = sort->rows == NULL ?
			MemoryContextAlloc(GetMemoryChunkContext(sort), sizeof(Row) * sort->room) :
			repalloc_huge(sort->rows, sizeof(Row) * sort->room);
	}
	sort->rows[sort->count++].tuple = row;
	sort->bytes += MAXALIGN(HEAPTUPLESIZE + row->t_len) + sizeof(Row);
	return sort->bytes < limit;
}

void
md_row_sort_perform(MdRowSort *sort)
{
	if (!set_first(sort))
		(void) set_first(sort);
	if (sort->count > 0)
		sort_rows(sort->rows, sort->count, sort);
	sort->next = 0;
}

HeapTuple
md_row_sort_next(MdRowSort *sort)
{
	Row		   *row;

	if (sort->next >= sort->count)
		return NULL;
	row = &sort->rows[sort->next++];
	while (sort->next < sort->count &&
		   compare_by(sort, row, &sort->rows[sort->next], sort->key_count) == 0)
		sort->next++;
	if (sort->next + FETCH_AHEAD < sort->count)
	{
		char	   *ahead = (char *) sort->rows[sort->next + FETCH_AHEAD].tuple;

		/* the tuple lies behind what is known of it, in two lines or three as a rule */
		fetch_memory(ahead);
		fetch_memory(ahead + 64);
		fetch_memory(ahead + 128);
	}
	return row->tuple;
}

void
md_row_sort_reset(MdRowSort *sort)
{
	MemoryContextReset(sort->context);
	sort->count = 0;
	sort->next = 0;
	sort->bytes = 0;
}

void
md_row_sort_end(MdRowSort *sort)
{
	MemoryContextDelete(sort->context);
	if (sort->rows != NULL)
		pfree(sort->rows);
	pfree(sort);
}
