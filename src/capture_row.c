/*
 * capture_row.c
 *		A row as the change log keeps it.
 *
 * Most rows have no nulls and are short, and of those only a word is kept before the
 * values; the header that rows have in memory is four times as long, which was a
 * fifth of the log:
 *
 *		compact:	1  columns (11)  weight < 0 (1)  variable width (1)  -  bytes of values (16)
 *		others:		the row as it is in memory, whose first word is a length that has no
 *					highest bit, with its weight in bytes that it has to spare
 *
 * Rows lie at multiples of four bytes.
 */
#include "postgres.h"

#include "capture_row.h"

#define COMPACT UINT32_C(0x80000000)
#define COLUMNS_SHIFT 20
#define NEGATIVE UINT32_C(0x00080000)
#define VARIABLE_WIDTH UINT32_C(0x00040000)
#define LENGTH_MASK UINT32_C(0x0000ffff)

/* Where values begin in a row without nulls. */
#define VALUES_START (MAXALIGN(SizeofHeapTupleHeader) - MINIMAL_TUPLE_OFFSET)

StaticAssertDecl(MaxTupleAttributeNumber < 1 << 11, "the number of columns has 11 bits");

static bool
is_compact(MinimalTuple tuple)
{
	return (tuple->t_infomask & HEAP_HASNULL) == 0 && tuple->t_hoff == MAXALIGN(SizeofHeapTupleHeader) &&
		tuple->t_len - VALUES_START <= LENGTH_MASK;
}

Size
md_log_row_size(MinimalTuple tuple)
{
	return INTALIGN(is_compact(tuple) ? sizeof(uint32) + tuple->t_len - VALUES_START : tuple->t_len);
}

void
md_log_row_pack(StringInfo rows, MinimalTuple tuple, int weight)
{
	Size		size = md_log_row_size(tuple);
	char	   *place;

	enlargeStringInfo(rows, size);
	place = rows->data + rows->len;
	memset(place + size - sizeof(uint32), 0, sizeof(uint32));
	if (is_compact(tuple))
	{
		Size		length = tuple->t_len - VALUES_START;

		*(uint32 *) place = COMPACT | length | (uint32) HeapTupleHeaderGetNatts(tuple) << COLUMNS_SHIFT |
			(weight < 0 ? NEGATIVE : 0) | (tuple->t_infomask & HEAP_HASVARWIDTH ? VARIABLE_WIDTH : 0);
		memcpy(place + sizeof(uint32), (char *) tuple + VALUES_START, length);
	}
	else
	{
		memcpy(place, tuple, tuple->t_len);
		*(int8 *) ((MinimalTuple) place)->mt_padding = weight;
	}
	rows->len += size;
}

MinimalTuple
md_log_row_unpack(const char *place, Size spare, int *weight, Size *size)
{
	uint32		head = *(const uint32 *) place;
	Size		length = head & COMPACT ? VALUES_START + (head & LENGTH_MASK) : head;
	MinimalTuple tuple = palloc(length + spare);

	memset((char *) tuple + length, 0, spare);
	if (head & COMPACT)
	{
		memset(tuple, 0, VALUES_START);
		tuple->t_len = length;
		tuple->t_hoff = MAXALIGN(SizeofHeapTupleHeader);
		tuple->t_infomask = head & VARIABLE_WIDTH ? HEAP_HASVARWIDTH : 0;
		HeapTupleHeaderSetNatts(tuple, (head & ~COMPACT) >> COLUMNS_SHIFT);
		memcpy((char *) tuple + VALUES_START, place + sizeof(uint32), length - VALUES_START);
		*weight = head & NEGATIVE ? -1 : 1;
	}
	else
	{
		memcpy(tuple, place, length);
		*weight = *(int8 *) tuple->mt_padding;
		memset(tuple->mt_padding, 0, sizeof(tuple->mt_padding));
	}
	*size = md_log_row_size(tuple);
	return tuple;
}
