/*
 * refresh_inline.h
 *		WITH queries and plain views put in the place of references to them.
 */
#ifndef MD_REFRESH_INLINE_H
#define MD_REFRESH_INLINE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/*
 * Inline what can be, in place, everywhere in the query: WITH queries that
 * neither recurse nor are volatile, and plain views that a view of `owner` may
 * see through.  Returns these views (of Oid).
 */
extern List *md_query_inline(Query *query, Oid owner);

#endif							/* MD_REFRESH_INLINE_H */
