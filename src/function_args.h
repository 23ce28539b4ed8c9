/*
 * function_args.h
 *		Arguments of SQL functions that must not be NULL.
 *
 * None of the functions is STRICT: a NULL where one cannot be is an error that
 * names the argument.
 */
#ifndef MD_FUNCTION_ARGS_H
#define MD_FUNCTION_ARGS_H

#include "postgres.h"
#include "fmgr.h"

/* ERROR if argument n is NULL. */
extern void md_require_argument(FunctionCallInfo fcinfo, int n, const char *name);

extern char *md_text_argument(FunctionCallInfo fcinfo, int n, const char *name);

/* A regclass: ERROR unless the relation exists. */
extern Oid	md_relation_argument(FunctionCallInfo fcinfo, int n, const char *name);

#endif							/* MD_FUNCTION_ARGS_H */
