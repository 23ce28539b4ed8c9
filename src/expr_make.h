/*
 * expr_make.h
 *		Expressions made by name, of what pg_catalog has.
 */
#ifndef MD_EXPR_MAKE_H
#define MD_EXPR_MAKE_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

extern Expr *md_expr_cast(Expr *expr, Oid to);
extern Expr *md_expr_operate(const char *name, Expr *left, Expr *right);

/* A function of one or two arguments (of Expr). */
extern Expr *md_expr_call(const char *name, Oid result_type, List *arguments);

extern Expr *md_expr_int8(int64 value);
extern Expr *md_expr_int4(int32 value);

/* CASE WHEN count > bound THEN value END */
extern Node *md_expr_when_more(Expr *count, int64 bound, Expr *value);

#endif							/* MD_EXPR_MAKE_H */
