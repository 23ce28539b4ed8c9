/*
 * view_sources.h
 *		What becomes of views when a column of a source changes.
 */
#ifndef MD_VIEW_SOURCES_H
#define MD_VIEW_SOURCES_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/*
 * Before ALTER TABLE: take the queries of views that read columns which it
 * drops with CASCADE, or retypes, out of its way.
 */
extern List *md_view_loosen(Node *stmt);

/* After it: put them back, or note why that cannot be. */
extern void md_view_fasten(List *loose);

#endif							/* MD_VIEW_SOURCES_H */
