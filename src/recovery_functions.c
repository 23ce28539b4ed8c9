/*
 * recovery_functions.c
 *		SQL: ways back for records: arguments and privileges.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "dead_letter_requeue.h"
#include "function_args.h"
#include "replay.h"
#include "seek.h"
#include "stream_start.h"
#include "stream_state.h"
#include "stream_table.h"
#include "worker_slots.h"

PG_FUNCTION_INFO_V1(md_requeue);
PG_FUNCTION_INFO_V1(md_discard);
PG_FUNCTION_INFO_V1(md_seek);
PG_FUNCTION_INFO_V1(md_replay_sql);

/* Ids of dead letters: an array without nulls. */
static ArrayType *
ids_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	ArrayType  *ids;

	md_require_argument(fcinfo, n, name);
	ids = PG_GETARG_ARRAYTYPE_P(n);
	if (array_contains_nulls(ids))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not contain nulls", name)));
	return ids;
}

/* A streaming table that the user owns. */
static Oid
owned_stream_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	Oid			relid = md_relation_argument(fcinfo, n, name);

	md_stream_table_check_owner(relid);
	if (!md_stream_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a streaming table", get_rel_name(relid))));
	return relid;
}

/* A position in the form of start_at. */
static char *
position_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	char	   *position = md_text_argument(fcinfo, n, name);

	md_stream_check_position(name, position);
	return position;
}

Datum
md_requeue(PG_FUNCTION_ARGS)
{
	ArrayType  *ids;
	bytea	   *payload = NULL;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.requeue()");
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
	PreventCommandIfReadOnly("medallion.discard()");
	PG_RETURN_INT64(md_dead_letter_discard(ids_argument(fcinfo, 0, "dead_letter_ids")));
}

Datum
md_seek(PG_FUNCTION_ARGS)
{
	Oid			relid;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.seek()");
	relid = owned_stream_argument(fcinfo, 0, "table_name");
	md_stream_seek(relid, position_argument(fcinfo, 1, "to_position"));
	PG_RETURN_VOID();
}

/* replay(table_name, from_position, to_position); NULL to_position: no end. */
Datum
md_replay_sql(PG_FUNCTION_ARGS)
{
	Oid			relid;
	char	   *from_position;
	char	   *to_position;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.replay()");
	relid = owned_stream_argument(fcinfo, 0, "table_name");
	from_position = position_argument(fcinfo, 1, "from_position");
	to_position = PG_ARGISNULL(2) ? NULL : position_argument(fcinfo, 2, "to_position");
	PG_RETURN_INT64(md_replay(relid, from_position, to_position));
}
