/*
 * refresh_match.h
 *		Carrying a restriction to keys through a query, down to the scans.
 */
#ifndef MD_REFRESH_MATCH_H
#define MD_REFRESH_MATCH_H

#include "postgres.h"
#include "nodes/pg_list.h"

#include "refresh_delta.h"

extern MdMatch *md_match_make(Expr *expr, int column, OpExpr *op, bool key_first);

/* "expr = key" */
extern Expr *md_match_condition(MdMatch *match, Var *key);

/*
 * Carry matches on to the subqueries in FROM; true if one of these gives no
 * other rows any more, so that the keys need not be met here too.
 */
extern bool md_match_push(MdEngine *engine, Query *query, List *matches, MdKeys *keys);

/* Join the keys; the matches cover all of their columns. */
extern void md_match_join(Query *query, List *matches, MdKeys *keys);

/* Some columns of keys (of int), each combination without NULLs once. */
extern MdKeys *md_keys_project(MdEngine *engine, MdKeys *keys, List *columns);

#endif							/* MD_REFRESH_MATCH_H */
