/*
 * offset_set.h
 *		A set of offsets of one partition.
 *
 * Made for offsets that are mostly contiguous: a full range costs next to
 * nothing, any other a bit per offset.
 */
#ifndef MD_OFFSET_SET_H
#define MD_OFFSET_SET_H

#include "postgres.h"

typedef struct MdOffsetSet MdOffsetSet;

/* An empty set, in context and gone with it. */
extern MdOffsetSet *md_offset_set_create(MemoryContext context);

extern void md_offset_set_add(MdOffsetSet *set, int64 offset);
extern bool md_offset_set_contains(const MdOffsetSet *set, int64 offset);

/* Offsets [first, next). */
typedef struct MdOffsetRange
{
	int64		first;
	int64		next;
} MdOffsetRange;

/* The set as ranges that neither meet nor touch, ascending; palloc'd. */
extern MdOffsetRange *md_offset_set_ranges(const MdOffsetSet *set, int64 *n);

#endif							/* MD_OFFSET_SET_H */
