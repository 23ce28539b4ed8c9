/*
 * offset_set.c
 *		A set of offsets of one partition.
 *
 * A hash table of chunks of 65536 offsets.  A chunk is a bitmap until it is
 * full, and then just a mark, so that a partition without holes takes a few
 * bytes per chunk.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "offset_set.h"

#define CHUNK_OFFSETS 65536

typedef struct Chunk
{
	int64		number;			/* of the chunk: offset / CHUNK_OFFSETS */
	int			n_offsets;
	uint8	   *bits;			/* NULL when all are there */
} Chunk;

struct MdOffsetSet
{
	MemoryContext context;
	HTAB	   *chunks;
};

MdOffsetSet *
md_offset_set_create(MemoryContext context)
{
	MdOffsetSet *set = MemoryContextAlloc(context, sizeof(MdOffsetSet));
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(Chunk);
	control.hcxt = context;
	set->context = context;
	set->chunks = hash_create("offset set", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return set;
}

void
md_offset_set_add(MdOffsetSet *set, int64 offset)
{
	int64		number = offset / CHUNK_OFFSETS;
	int			bit = (int) (offset % CHUNK_OFFSETS);
	uint8		mask = 1 << (bit & 7);
	bool		found;
	Chunk	   *chunk = hash_search(set->chunks, &number, HASH_ENTER, &found);

	Assert(offset >= 0);
	if (!found)
	{
		chunk->n_offsets = 0;
		chunk->bits = MemoryContextAllocZero(set->context, CHUNK_OFFSETS / 8);
	}
	if (chunk->bits == NULL || (chunk->bits[bit >> 3] & mask) != 0)
		return;
	chunk->bits[bit >> 3] |= mask;
	if (++chunk->n_offsets == CHUNK_OFFSETS)
	{
		pfree(chunk->bits);
		chunk->bits = NULL;
	}
}

bool
md_offset_set_contains(const MdOffsetSet *set, int64 offset)
{
	int64		number = offset / CHUNK_OFFSETS;
	int			bit = (int) (offset % CHUNK_OFFSETS);
	Chunk	   *chunk = hash_search(set->chunks, &number, HASH_FIND, NULL);

	return chunk != NULL &&
		(chunk->bits == NULL || (chunk->bits[bit >> 3] & (1 << (bit & 7))) != 0);
}

static int
compare_chunks(const void *a, const void *b)
{
	int64		x = (*(Chunk *const *) a)->number;
	int64		y = (*(Chunk *const *) b)->number;

	return x < y ? -1 : x > y;
}

/* All chunks, ascending. */
static Chunk **
sorted_chunks(const MdOffsetSet *set, int64 *n)
{
	Chunk	  **chunks = palloc(sizeof(Chunk *) * (hash_get_num_entries(set->chunks) + 1));
	HASH_SEQ_STATUS scan;
	Chunk	   *chunk;

	*n = 0;
	hash_seq_init(&scan, set->chunks);
	while ((chunk = hash_seq_search(&scan)) != NULL)
		chunks[(*n)++] = chunk;
	qsort(chunks, *n, sizeof(Chunk *), compare_chunks);
	return chunks;
}

/* Ranges that are being made. */
typedef struct Ranges
{
	MdOffsetRange *ranges;
	int64		n;
	int64		size;
} Ranges;

/* Add [first, next), which lies behind all that is there, or touches the last. */
static void
add_range(Ranges *to, int64 first, int64 next)
{
	if (to->n > 0 && to->ranges[to->n - 1].next == first)
	{
		to->ranges[to->n - 1].next = next;
		return;
	}
	if (to->n == to->size)
	{
		to->size *= 2;
		to->ranges = repalloc_huge(to->ranges, to->size * sizeof(MdOffsetRange));
	}
	to->ranges[to->n].first = first;
	to->ranges[to->n++].next = next;
}

MdOffsetRange *
md_offset_set_ranges(const MdOffsetSet *set, int64 *n)
{
	int64		n_chunks;
	Chunk	  **chunks = sorted_chunks(set, &n_chunks);
	Ranges		to = {palloc(64 * sizeof(MdOffsetRange)), 0, 64};

	for (int64 i = 0; i < n_chunks; i++)
	{
		int64		base = chunks[i]->number * CHUNK_OFFSETS;

		if (chunks[i]->bits == NULL)
			add_range(&to, base, base + CHUNK_OFFSETS);
		for (int bit = 0; chunks[i]->bits != NULL && bit < CHUNK_OFFSETS; bit++)
			if ((chunks[i]->bits[bit >> 3] & (1 << (bit & 7))) != 0)
				add_range(&to, base + bit, base + bit + 1);
	}
	pfree(chunks);
	*n = to.n;
	return to.ranges;
}
