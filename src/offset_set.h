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

#endif							/* MD_OFFSET_SET_H */
