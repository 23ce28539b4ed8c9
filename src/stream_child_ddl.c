/*
 * stream_child_ddl.c
 *		DDL on the partitions of streaming tables.
 *
 *		CREATE TABLE ... PARTITION OF, ATTACH	the new partition is guarded
 *		DETACH									the guard is taken away
 *		ATTACH of rows, DETACH, DROP			rows came or went: history changed
 *
 * Statement triggers of a partitioned table do not fire for a statement on one
 * of its partitions, so each has a guard of its own.  Ingest, which writes the
 * table as a whole, passes none of them.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog.h"
#include "sql_run.h"
#include "stream_child_ddl.h"
#include "stream_state.h"
#include "stream_table.h"

static bool guarding = false;	/* ALTER TABLE ... ENABLE ALWAYS TRIGGER is ours */

Oid
md_stream_root(Oid relid)
{
	Oid			root = relid;

	if (get_rel_relispartition(relid))
		root = llast_oid(get_partition_ancestors(relid));
	return md_stream_exists(root) ? root : InvalidOid;
}

void
md_stream_child_check_relative(RangeVar *other)
{
	Oid			relid = RangeVarGetRelid(other, NoLock, true);

	if (OidIsValid(relid) && md_stream_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("streaming table \"%s\" cannot be part of an inheritance hierarchy",
						other->relname)));
}

/* ATTACH PARTITION names the child, INHERIT the parent. */
void
md_stream_child_check_commands(List *cmds)
{
	ListCell   *lc;

	foreach(lc, cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AttachPartition)
			md_stream_child_check_relative(((PartitionCmd *) cmd->def)->name);
		else if (cmd->subtype == AT_AddInherit)
			md_stream_child_check_relative((RangeVar *) cmd->def);
	}
}

static void
refuse_child(Oid root, Oid child, const char *what, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table \"%s\" cannot be a partition of streaming table \"%s\"",
					get_rel_name(child), get_rel_name(root)),
			 errdetail("It is %s: %s", what, why)));
}

static void
guard_child(Oid root, Oid child)
{
	if (get_rel_relkind(child) == RELKIND_FOREIGN_TABLE)
		refuse_child(root, child, "a foreign table",
					 "its rows would not be committed together with the offsets.");
	if (get_rel_persistence(child) == RELPERSISTENCE_UNLOGGED)
		refuse_child(root, child, "unlogged",
					 "after a crash its rows would be gone, and the offsets would not.");
	if (get_rel_persistence(child) == RELPERSISTENCE_TEMP)
		refuse_child(root, child, "temporary", "workers cannot write it.");
	/* one that is guarded gets no rules, and its lock may be held for long */
	if (OidIsValid(get_trigger_oid(child, MD_STREAM_GUARD, true)))
		return;
	if (md_stream_table_has_rules(child))
		refuse_child(root, child, "a table with rules",
					 "they would put something else in the place of what is written to it.");
	guarding = true;
	PG_TRY();
	{
		md_stream_table_guard(child);
	}
	PG_FINALLY();
	{
		guarding = false;
	}
	PG_END_TRY();
	CommandCounterIncrement();
}

void
md_stream_child_guard_all(Oid root)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(root, NoLock, NULL))
		if (lfirst_oid(lc) != root)
			guard_child(root, lfirst_oid(lc));
}

/* A table that is no partition any more may be written by everybody. */
static void
unguard(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		if (OidIsValid(get_trigger_oid(lfirst_oid(lc), MD_STREAM_GUARD, true)))
		{
			SPI_connect();
			if (SPI_execute(psprintf("DROP TRIGGER " MD_STREAM_GUARD " ON %s",
									 md_stream_table_name(lfirst_oid(lc))), false, 0) != SPI_OK_UTILITY)
				elog(ERROR, "could not drop a guard");
			SPI_finish();
		}
}

static bool
has_rows(Oid relid)
{
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	bool		found;

	md_catalog_become_owner(&saved);
	SPI_connect();
	found = md_sql_run(psprintf("SELECT FROM %s LIMIT 1", md_stream_table_name(relid)),
					   &args, InvalidSnapshot) > 0;
	SPI_finish();
	md_catalog_restore_user(&saved);
	return found;
}

bool
md_stream_child_create(MdUtility *u, CreateStmt *stmt)
{
	Oid			root;

	if (stmt->partbound == NULL)
		return false;
	root = RangeVarGetRelid(linitial_node(RangeVar, stmt->inhRelations), NoLock, true);
	if (OidIsValid(root))
		root = md_stream_root(root);
	if (!OidIsValid(root))
		return false;
	md_utility_next(u);
	CommandCounterIncrement();
	md_stream_child_guard_all(root);
	return true;
}

List *
md_stream_child_begin(List *cmds)
{
	List	   *detached = NIL;
	ListCell   *lc;

	foreach(lc, cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_DetachPartitionFinalize ||
			(cmd->subtype == AT_DetachPartition && ((PartitionCmd *) cmd->def)->concurrent))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot detach a partition of a streaming table concurrently"),
					 errhint("DETACH PARTITION without CONCURRENTLY waits for one batch at most.")));
		if (cmd->subtype == AT_DetachPartition)
			detached = lappend_oid(detached,
								   RangeVarGetRelid(((PartitionCmd *) cmd->def)->name,
													AccessExclusiveLock, true));
	}
	return detached;
}

void
md_stream_child_end(Oid root, List *cmds, List *detached)
{
	ListCell   *lc;

	foreach(lc, cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype != AT_AttachPartition)
			continue;
		md_stream_child_guard_all(root);
		if (has_rows(RangeVarGetRelid(((PartitionCmd *) cmd->def)->name, NoLock, false)))
			md_catalog_history_changed(root);
	}
	foreach(lc, detached)
	{
		md_catalog_history_changed(root);
		unguard(lfirst_oid(lc));
	}
}

/* What a partition of a streaming table cannot have; changes of history. */
static void
check_command(Oid root, Oid relid, const AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_SetUnLogged:
			refuse_child(root, relid, "to be unlogged",
						 "after a crash its rows would be gone, and the offsets would not.");
			break;
		case AT_EnableAlwaysTrig:
		case AT_EnableTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrig:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			if (!guarding)
				md_catalog_history_changed(root);
			break;
		default:
			break;
	}
}

bool
md_stream_child_alter(MdUtility *u, AlterTableStmt *stmt, Oid relid)
{
	Oid			root;
	List	   *detached;
	ListCell   *lc;

	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		return false;
	root = md_stream_root(relid);
	if (!OidIsValid(root))
		return false;
	foreach(lc, stmt->cmds)
		check_command(root, relid, lfirst_node(AlterTableCmd, lc));
	detached = md_stream_child_begin(stmt->cmds);
	md_utility_next(u);
	CommandCounterIncrement();
	md_stream_child_end(root, stmt->cmds, detached);
	return true;
}

void
md_stream_child_dropped(Oid relid)
{
	Oid			root;

	if (!get_rel_relispartition(relid))
		return;
	root = md_stream_root(relid);
	if (OidIsValid(root))
		md_catalog_history_changed(root);
}
