/*
 * ingest_functions.c
 *		SQL: ingest in the foreground.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "function_args.h"
#include "ingest.h"
#include "worker_slots.h"

PG_FUNCTION_INFO_V1(md_ingest_once_sql);

/*
 * ingest_once(table_name regclass, max_records int) returns the number of
 * records read.  NULL max_records: up to what is the end of the topic now.
 */
Datum
md_ingest_once_sql(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int64		max_records = -1;

	md_worker_slots_require();
	PreventCommandIfReadOnly("medallion.ingest_once()");
	relid = md_relation_argument(fcinfo, 0, "table_name");
	if (!md_relation_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
	if (!PG_ARGISNULL(1))
	{
		max_records = PG_GETARG_INT32(1);
		if (max_records <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("max_records must be greater than 0"),
					 errhint("Pass NULL to read up to the end of the topic.")));
	}
	PG_RETURN_INT64(md_ingest_once(relid, max_records));
}
