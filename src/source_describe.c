/*
 * source_describe.c
 *		How a relation changes, as a view that reads it may know.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "catalog.h"
#include "refresh_read.h"
#include "sql_run.h"

const char *
md_change_kind_name(MdChangeKind kind)
{
	static const char *const names[] = {
		[MD_CHANGE_APPEND] = "append",
		[MD_CHANGE_UPSERT] = "upsert",
		[MD_CHANGE_REPLACE] = "replace",
	};

	return names[kind];
}

/* A relation that is neither a streaming table nor a view of ours. */
static void
describe_other(Oid relid, Oid owner, MdReadable *readable)
{
	readable->changes = MD_CHANGE_REPLACE;
	switch (get_rel_relkind(relid))
	{
		case RELKIND_VIEW:
			readable->kind_name = "view";
			readable->why = "a view that another role owns is not looked into";
			break;
		case RELKIND_FOREIGN_TABLE:
			readable->kind_name = "foreign table";
			readable->why = "changes of a foreign table are not known";
			break;
		case RELKIND_MATVIEW:
			readable->kind_name = "plain materialized view";
			readable->why = "changes of a plain materialized view are not known";
			break;
		default:
			readable->kind_name = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
				"partitioned table" : "table";
			readable->why = md_capture_obstacle(relid, owner);
			if (readable->why == NULL)
				readable->changes = MD_CHANGE_UPSERT;
			break;
	}
}

/* A view of ours. */
static void
describe_view(Oid relid, Oid owner, bool is_append, MdReadable *readable)
{
	readable->kind_name = "materialized view";
	if (is_append)
		return;
	readable->why = md_capture_obstacle(relid, owner);
	readable->changes = readable->why ? MD_CHANGE_REPLACE : MD_CHANGE_UPSERT;
}

void
md_read_describe(Oid relid, Oid owner, MdReadable *readable)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();
	bool		is_stream;
	bool		is_view;
	bool		is_append;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_run_cached(&plan,
					  "SELECT EXISTS (SELECT FROM medallion.stream WHERE relid = $1),"
					  "       EXISTS (SELECT FROM medallion.view WHERE relid = $1),"
					  "       EXISTS (SELECT FROM medallion.view_state"
					  "                WHERE relid = $1 AND strategy = 'append')",
					  &args, snapshot);
	is_stream = md_sql_bool(0, 1);
	is_view = md_sql_bool(0, 2);
	is_append = md_sql_bool(0, 3);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);

	memset(readable, 0, sizeof(*readable));
	if (is_stream)
		readable->kind_name = "streaming table";
	else if (is_view)
		describe_view(relid, owner, is_append, readable);
	else
		describe_other(relid, owner, readable);

	/* new rows are found by columns that the query itself may not read */
	if (readable->changes == MD_CHANGE_APPEND &&
		pg_class_aclcheck(relid, owner, ACL_SELECT) != ACLCHECK_OK)
	{
		readable->changes = MD_CHANGE_REPLACE;
		readable->why = "its changes can be read only with SELECT on the whole table, not on some columns";
	}
}
