/*
 * refresh_term.h
 *		Terms of the change of a linear query.
 */
#ifndef MD_REFRESH_TERM_H
#define MD_REFRESH_TERM_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

#include "refresh_delta.h"
#include "refresh_leaves.h"

/* One term while it is put together. */
typedef struct MdTerm
{
	Query	   *query;
	List	   *weights;		/* of Expr, to be multiplied */
	int			sign;
} MdTerm;

/*
 * A copy of the query with the leaves before number `which` as they are now,
 * and those behind it as they were; that one is for the caller.
 */
extern MdTerm *md_term_begin(MdEngine *engine, Query *linear, List *leaves, int which);
extern void md_term_set_leaf(MdEngine *engine, MdTerm *term, MdLeaf *leaf, bool old);

/* The change of an entry of the range table. */
extern void md_term_entry_change(MdEngine *engine, Query *linear, MdLeaf *leaf, MdChange *change);

/* The weight column of an entry that has become a subquery with one. */
extern Expr *md_term_entry_weight(Query *query, int rt_index);

/* The terms (of MdTerm) of an input in a place that is not linear. */
extern List *md_term_keyed(MdEngine *engine, Query *linear, List *leaves, int which);
extern List *md_term_unkeyed(MdEngine *engine, Query *linear, List *leaves, int which);
extern List *md_term_unequal(MdEngine *engine, Query *linear, List *leaves, int which);

/* Put an entry without rows, of the same columns, in the place of one. */
extern void md_term_empty_entry(Query *query, int rt_index);

#endif							/* MD_REFRESH_TERM_H */
