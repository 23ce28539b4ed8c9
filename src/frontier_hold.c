/*
 * frontier_hold.c
 *		Sources that stay as the snapshot of a refresh sees them.
 *
 * TRUNCATE, a rewrite of a table, and ATTACH and DETACH of a partition are seen by
 * all who read after them, whatever their snapshot.  A refresh whose snapshot is older
 * would read a source without rows of which the change log does not tell it yet, and
 * take them away a second time when it does.  So sources are locked before the snapshot
 * is taken: who wants to do such a thing waits, and what was done before is seen.  The
 * snapshot of a transaction that keeps one is older than the locks: there it is an error.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "frontier.h"
#include "sql_run.h"

/* The sources of a view, as of now. */
static List *
load_sources(Oid view)
{
	static SPIPlanPtr plan = NULL;
	Snapshot	snapshot = md_sql_take_snapshot();
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	MemoryContext context = CurrentMemoryContext;
	List	   *sources = NIL;
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run_cached(&plan, "SELECT s.source::pg_catalog.oid FROM medallion.view_source s"
							 " WHERE s.relid = $1 ORDER BY 1", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		Oid			source = (Oid) md_sql_int64(i, 1);
		MemoryContext old = MemoryContextSwitchTo(context);

		sources = lappend_oid(sources, source);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return sources;
}

/* Was the relation's entry in the catalog written by a transaction that the snapshot does not see? */
static bool
is_newer(Oid relid, Snapshot snapshot)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	TransactionId xmin;

	if (!HeapTupleIsValid(tuple))
		return true;
	xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	ReleaseSysCache(tuple);
	return TransactionIdIsNormal(xmin) && !TransactionIdIsCurrentTransactionId(xmin) &&
		XidInMVCCSnapshot(xmin, snapshot);
}

/* A relation with those that inherit from it, which are locked with it; NIL: it is gone. */
static List *
lock_family(Oid relid)
{
	LockRelationOid(relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return NIL;
	return find_all_inheritors(relid, AccessShareLock, NULL);
}

/* Is one that inherits from these in the snapshot not among them any more? */
static bool
has_lost_member(List *family, Snapshot snapshot)
{
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	bool		lost = false;
	ListCell   *lc;

	foreach(lc, family)
	{
		ScanKeyData key[1];
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key[0], Anum_pg_inherits_inhparent, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(lfirst_oid(lc)));
		scan = systable_beginscan(inherits, InheritsParentIndexId, true, snapshot, 1, key);
		while (!lost && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_inherits form = (Form_pg_inherits) GETSTRUCT(tuple);

			lost = !form->inhdetachpending && !list_member_oid(family, form->inhrelid);
		}
		systable_endscan(scan);
	}
	table_close(inherits, AccessShareLock);
	return lost;
}

static void
check_unchanged(Oid source, List *family, Snapshot snapshot)
{
	bool		changed = has_lost_member(family, snapshot);
	ListCell   *lc;

	foreach(lc, family)
		changed = changed || is_newer(lfirst_oid(lc), snapshot);
	if (changed)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to a concurrent change of relation \"%s\"",
						get_rel_name(source)),
				 errdetail("It was truncated, rewritten or altered, or a partition was attached or detached, after the snapshot of this transaction was taken."),
				 errhint("Refresh in a transaction of its own, or try again.")));
}

void
md_frontier_hold(Oid view)
{
	ListCell   *lc;

	foreach(lc, load_sources(view))
	{
		List	   *family = lock_family(lfirst_oid(lc));

		if (IsolationUsesXactSnapshot())
			check_unchanged(lfirst_oid(lc), family, GetTransactionSnapshot());
		list_free(family);
	}
}
