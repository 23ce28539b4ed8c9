/*
 * refresh_tree.h
 *		Pieces of query trees.
 *
 * The engine puts queries together as trees, and runs them as text.  A
 * registered relation (a change, a set of keys) stands in a tree as a
 * reference to a WITH query of its name, which is how it is printed, and the
 * parser finds the relation when the text is run.
 */
#ifndef MD_REFRESH_TREE_H
#define MD_REFRESH_TREE_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

/* SELECT with nothing in it. */
extern Query *md_tree_select(void);

/* Add to FROM; the range table index.  The second is of a registered relation. */
extern int	md_tree_add_subquery(Query *query, Query *subquery, const char *alias);
extern int	md_tree_add_registered(Query *query, const char *name, TupleDesc tupdesc);

/* AND a condition to WHERE. */
extern void md_tree_add_condition(Query *query, Node *condition);

/* Append a visible column. */
extern void md_tree_add_column(Query *query, Expr *expr, const char *name);

/* Column attno of a range table entry that is a subquery or registered. */
extern Var *md_tree_column(Query *query, int rt_index, int attno);

/* SELECT all visible columns of a query, which becomes a subquery. */
extern Query *md_tree_wrap(Query *query, const char *alias);

/* The queries, of the same columns, under UNION ALL; one is returned as it is. */
extern Query *md_tree_union_all(List *queries);

/* "a = b" by the type's own equality. */
extern Expr *md_tree_equal(Expr *a, Expr *b);
extern Expr *md_tree_is_null(Expr *expr, bool is_null);

/* Terms of a condition that is joined by AND (of Node). */
extern List *md_tree_terms(Node *condition);

/* "c1, c2": names of so many columns */
extern char *md_tree_numbered_names(int count);

/* Visible columns, and one of them. */
extern int	md_tree_width(Query *query);
extern TargetEntry *md_tree_target(Query *query, int number);

/* The window that a window function of the query is over. */
extern WindowClause *md_tree_window(Query *query, WindowFunc *function);

/* Is it rank() or the like, which is the same for all rows that tie? */
extern bool md_tree_is_rank(const WindowFunc *function);

/* Range table indexes under a part of FROM. */
extern Bitmapset *md_tree_relids(Node *from);

/* Range table indexes that an expression of this level uses. */
extern Bitmapset *md_tree_used(Node *expr);

/* Does it refer to a query outside of the one that it belongs to? */
extern bool md_tree_has_outer(Node *node);

/* Has it a FROM, or subqueries? */
extern bool md_tree_reads_anything(Query *query);

/* Turn an entry of the range table that nothing refers to into nothing. */
extern void md_tree_clear_entry(RangeTblEntry *rte);

/*
 * References to the columns of joins replaced by what they stand for, in the
 * query and all in it; and the entries of joins made anew over their inputs.
 */
extern void md_tree_flatten_joins(Query *query);
extern void md_tree_rebuild_joins(Query *query);

/* Clauses that do not belong to a linear query. */
extern void md_tree_strip(Query *query);

#endif							/* MD_REFRESH_TREE_H */
