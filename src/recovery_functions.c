/*
 * recovery_functions.c
 *		SQL: ways back for records: arguments and privileges.
 *
 * None of them is STRICT: a NULL where one cannot be is an error that names
 * the argument.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "dead_letter_requeue.h"
#include "worker_slots.h"

PG_FUNCTION_INFO_V1(md_requeue);
PG_FUNCTION_INFO_V1(md_discard);

/* ERROR if an argument is NULL. */
static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/* Ids of dead letters: an array without nulls. */
static ArrayType *
ids_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	ArrayType  *ids;

	require_argument(fcinfo, n, name);
	ids = PG_GETARG_ARRAYTYPE_P(n);
	if (array_contains_nulls(ids))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not contain nulls", name)));
	return ids;
}

Datum
md_requeue(PG_FUNCTION_ARGS)
{
	ArrayType  *ids;
	bytea	   *payload = NULL;

	md_worker_slots_require();
	ids = ids_argument(fcinfo, 0, "dead_letter_ids");
	if (!PG_ARGISNULL(1))
	{
		int			n = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));

		payload = PG_GETARG_BYTEA_PP(1);
		if (n != 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a payload can be given for one dead letter only, not for %d", n),
					 errhint("Call requeue() once for each dead letter that needs another payload.")));
	}
	PG_RETURN_INT64(md_dead_letter_requeue(ids, payload));
}

Datum
md_discard(PG_FUNCTION_ARGS)
{
	md_worker_slots_require();
	PG_RETURN_INT64(md_dead_letter_discard(ids_argument(fcinfo, 0, "dead_letter_ids")));
}
