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
