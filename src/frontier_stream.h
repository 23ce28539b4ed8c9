/*
 * frontier_stream.h
 *		What is new in a streaming table, and what it was before; for frontier.c.
 *
 * The caller is connected to SPI as the owner of the extension; what is
 * returned is made in the given context.
 */
#ifndef MD_FRONTIER_STREAM_H
#define MD_FRONTIER_STREAM_H

#include "frontier.h"

extern void md_frontier_stream_delta(MdSource *source, Snapshot snapshot, MdDelta *delta,
									 MemoryContext context);

/* The condition of the rows that were there at the stored frontier. */
extern char *md_frontier_stream_read_rows(MdSource *source, Snapshot snapshot, MemoryContext context);

#endif							/* MD_FRONTIER_STREAM_H */
