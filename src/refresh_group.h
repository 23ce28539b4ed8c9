/*
 * refresh_group.h
 *		Views that are brought to one frontier before another reads them.
 */
#ifndef MD_REFRESH_GROUP_H
#define MD_REFRESH_GROUP_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "view_state.h"

/*
 * Bring a view up to its sources, and before it the
 * views that it must read at one frontier, if they are not at one now.  With
 * wait false it returns false, having changed nothing, if another process
 * holds one of these; the view itself is waited for.
 *
 * Runs in: a session or a refresh worker, inside a transaction.
 */
extern bool md_refresh_consistent(Oid relid, bool full, bool wait, MdRun *run, Jsonb **frontier);

/* These views (of Oid), upstream first; NIL for a view that needs none. */
extern List *md_refresh_group_members(Oid relid, Snapshot snapshot);

/* The one of them that is being refreshed, by name; NULL: the view itself. */
extern const char *md_refresh_group_current(void);

#endif							/* MD_REFRESH_GROUP_H */
