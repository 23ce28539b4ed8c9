/*
 * function_args.c
 *		Arguments of SQL functions that must not be NULL.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/syscache.h"

#include "function_args.h"

void
md_require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

char *
md_text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	md_require_argument(fcinfo, n, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Oid
md_relation_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	Oid			relid;

	md_require_argument(fcinfo, n, name);
	relid = PG_GETARG_OID(n);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	return relid;
}
