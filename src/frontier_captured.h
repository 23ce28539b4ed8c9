/*
 * frontier_captured.h
 *		What is new in a captured relation, and what it was before; for
 *		frontier.c.
 */
#ifndef MD_FRONTIER_CAPTURED_H
#define MD_FRONTIER_CAPTURED_H

#include "frontier.h"

extern void md_frontier_captured_delta(MdSource *source, Snapshot snapshot, MdDelta *delta);
extern bool md_frontier_captured_read_part(MdSource *source, Snapshot snapshot, MdPart *part);

/* ERROR: the state of a relation at the last refresh cannot be told. */
extern void md_frontier_report_unknown(Oid relid, const char *detail);

#endif							/* MD_FRONTIER_CAPTURED_H */
