/*
 * refresh_explain.h
 *		How a query is refreshed, for people.
 */
#ifndef MD_REFRESH_EXPLAIN_H
#define MD_REFRESH_EXPLAIN_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "view_catalog.h"

/*
 * Rows (step, strategy, changes, detail, create_index) of a tree.  view: whose query
 * the text is; NULL: of none yet.
 */
extern void md_explain(const char *query_text, MdView *view, Tuplestorestate *store,
					   TupleDesc tupdesc);

#endif							/* MD_REFRESH_EXPLAIN_H */
