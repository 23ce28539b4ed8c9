/*
 * capture_ddl.c
 *		Following DDL on captured relations.
 *
 *	 before the statement: which captures does it concern, and are they intact?
 *	 after it:			   make the capture fit what the relation is now
 *
 * In the statement's own transaction and under its locks, nothing can be missed,
 * so readers need not start anew: partitions that come or go are logged row by
 * row, and columns that are added or dropped do no harm.  Where rows were
 * rewritten, a mark says so.  All that is not followed here (triggers that a
 * superuser disables, DETACH CONCURRENTLY, a partition that goes with its
 * schema) shows in the shape (capture_shape.c), and the next refresh mends it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "capture.h"
#include "capture_ddl.h"
#include "compat.h"
#include "sql_run.h"

/* A capture that a statement may concern, as it was before. */
typedef struct Concerned
{
	Oid			root;
	List	   *members;		/* of Oid */
	List	   *files;			/* of Oid, one per member */
} Concerned;

struct MdCaptureDdl
{
	List	   *concerned;		/* of Concerned */
	bool		subscribes;		/* subscriptions may have changed */
};

/* The file of a relation, InvalidOid if it has none or is gone. */
static Oid
file_of(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	Oid			file;

	if (rel == NULL)
		return InvalidOid;
	file = rel->rd_rel->relfilenode;
	relation_close(rel, AccessShareLock);
	return file;
}

/* Captures that a relation is a part of (of Oid). */
static List *
captures_of(Oid relid)
{
	List	   *roots = md_capture_roots(relid);
	List	   *above = list_make1_oid(relid);
	ListCell   *lc;

	/* row triggers are on the leaves alone */
	if (get_rel_relispartition(relid))
		above = list_concat(above, get_partition_ancestors(relid));
	foreach(lc, above)
		if (md_capture_load(lfirst_oid(lc), NULL) != NULL)
			roots = list_append_unique_oid(roots, lfirst_oid(lc));
	return roots;
}

/* Remember the captures of a relation that are intact. */
static void
note_concerned(MdCaptureDdl *ddl, Oid relid)
{
	ListCell   *lc;
	ListCell   *member;

	if (!OidIsValid(relid))
		return;
	foreach(lc, captures_of(relid))
	{
		MdCapture  *capture = md_capture_load(lfirst_oid(lc), NULL);
		Concerned  *concerned;

		if (capture == NULL || !md_capture_is_intact(capture))
			continue;
		concerned = palloc0(sizeof(Concerned));
		concerned->root = capture->relid;
		concerned->members = list_copy(md_capture_members(capture->relid));
		foreach(member, concerned->members)
			concerned->files = lappend_oid(concerned->files, file_of(lfirst_oid(member)));
		ddl->concerned = lappend(ddl->concerned, concerned);
	}
}

/* ---------------------------------------------------------------------- */

/* Statements on triggers are not followed: who disables one means it. */
static bool
is_followed(AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);

		switch (command->subtype)
		{
			case AT_EnableTrig:
			case AT_EnableAlwaysTrig:
			case AT_EnableReplicaTrig:
			case AT_DisableTrig:
			case AT_EnableTrigAll:
			case AT_DisableTrigAll:
			case AT_EnableTrigUser:
			case AT_DisableTrigUser:
				return false;
			case AT_DetachPartition:
				/* it commits halfway */
				if (((PartitionCmd *) command->def)->concurrent)
					return false;
				break;
			default:
				break;
		}
	}
	return true;
}

/* Our triggers go with the last view. */
static void
refuse_trigger(List *name)
{
	List	   *copy = list_copy(name);
	char	   *trigger = strVal(llast(copy));
	Oid			relid = RangeVarGetRelid(makeRangeVarFromNameList(list_delete_last(copy)),
										 NoLock, true);
	Oid			found = OidIsValid(relid) ? get_trigger_oid(relid, trigger, true) : InvalidOid;
	ListCell   *lc;

	if (!OidIsValid(found))
		return;
	foreach(lc, md_capture_roots(relid))
		if (list_member_oid(md_capture_triggers(lfirst_oid(lc), relid), found))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop trigger \"%s\" on \"%s\"", trigger, get_rel_name(relid)),
					 errdetail("It captures changes for materialized views that read \"%s\".",
							   get_rel_name(lfirst_oid(lc))),
					 errhint("It is dropped with the last of these views; medallion.captured_tables lists them.")));
}

/* Log the rows of partitions that a DROP TABLE takes away. */
static void
log_dropped(MdCaptureDdl *ddl, List *names)
{
	List	   *dropped = NIL;
	ListCell   *lc;
	ListCell   *root;
	ListCell   *member;

	foreach(lc, names)
		dropped = lappend_oid(dropped, RangeVarGetRelid(makeRangeVarFromNameList(lfirst_node(List, lc)),
														NoLock, true));
	foreach(lc, dropped)
	{
		Oid			relid = lfirst_oid(lc);

		/* who may not drop it does not lock it either */
		if (!OidIsValid(relid) || !get_rel_relispartition(relid) ||
			!md_relation_ownercheck(relid, GetUserId()))
			continue;
		foreach(root, captures_of(relid))
		{
			MdCapture  *capture = md_capture_load(lfirst_oid(root), NULL);

			if (capture == NULL || capture->relid == relid ||
				list_member_oid(dropped, capture->relid) || !md_capture_is_intact(capture))
				continue;
			foreach(member, find_all_inheritors(relid, AccessExclusiveLock, NULL))
				md_capture_write_whole(capture->relid, lfirst_oid(member), -1,
									   "lost a partition");
			note_concerned(ddl, capture->relid);
		}
	}
}

MdCaptureDdl *
md_capture_ddl_begin(Node *stmt)
{
	MdCaptureDdl *ddl = palloc0(sizeof(MdCaptureDdl));
	ListCell   *lc;

	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			if (is_followed((AlterTableStmt *) stmt))
				note_concerned(ddl, RangeVarGetRelid(((AlterTableStmt *) stmt)->relation, NoLock, true));
			break;
		case T_CreateStmt:
			if (((CreateStmt *) stmt)->partbound != NULL)
				foreach(lc, ((CreateStmt *) stmt)->inhRelations)
					note_concerned(ddl, RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true));
			break;
		case T_DropStmt:
			if (((DropStmt *) stmt)->removeType == OBJECT_TRIGGER)
				foreach(lc, ((DropStmt *) stmt)->objects)
					refuse_trigger(lfirst_node(List, lc));
			else if (((DropStmt *) stmt)->removeType == OBJECT_TABLE)
				log_dropped(ddl, ((DropStmt *) stmt)->objects);
			break;
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
			ddl->subscribes = true;
			break;
		default:
			break;
	}
	return ddl;
}

/* ---------------------------------------------------------------------- */

/* Was a file put in the place of one that was there? */
static bool
was_rewritten(const Concerned *before)
{
	ListCell   *member;
	ListCell   *file;

	forboth(member, before->members, file, before->files)
	{
		Oid			now = file_of(lfirst_oid(member));

		if (OidIsValid(now) && now != lfirst_oid(file))
			return true;
	}
	return false;
}

/* Partitions that came, and those that went but are still tables. */
static void
follow_members(const Concerned *before, bool by_row)
{
	List	   *now = md_capture_members(before->root);
	ListCell   *lc;

	foreach(lc, list_difference_oid(now, before->members))
	{
		md_capture_add_triggers(before->root, lfirst_oid(lc), by_row);
		md_capture_write_whole(before->root, lfirst_oid(lc), 1, "gained a partition");
	}
	foreach(lc, list_difference_oid(before->members, now))
	{
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))))
			continue;
		md_capture_write_whole(before->root, lfirst_oid(lc), -1, "lost a partition");
		md_capture_drop_triggers(before->root, lfirst_oid(lc));
	}
}

static void
follow(const Concerned *before)
{
	MdCapture  *capture;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(before->root)))
		return;
	capture = md_capture_load(before->root, NULL);
	if (capture == NULL)
		return;
	if (was_rewritten(before))
		md_capture_write_mark(before->root, "was rewritten by ALTER TABLE");
	if (md_capture_is_intact(capture))
		return;
	/* what cannot be captured any more, or not in this way, is left as it is */
	if (md_capture_relation_obstacle(before->root) != NULL ||
		(!capture->by_row && md_capture_needs_rows(md_capture_members(before->root))))
		return;
	follow_members(before, capture->by_row);
	md_capture_store_shape(before->root, md_capture_shape(before->root));
}

/* Tables that are replicated into from now on are captured row by row. */
static void
follow_subscriptions(void)
{
	ListCell   *lc;

	foreach(lc, md_capture_list())
	{
		MdCapture  *capture = md_capture_load(lfirst_oid(lc), NULL);

		if (capture != NULL && !capture->by_row && get_rel_name(capture->relid) != NULL &&
			md_capture_needs_rows(md_capture_members(capture->relid)))
			md_capture_mend(capture->relid);
	}
}

void
md_capture_ddl_end(MdCaptureDdl *ddl)
{
	ListCell   *lc;

	foreach(lc, ddl->concerned)
		follow(lfirst(lc));
	if (ddl->subscribes)
		follow_subscriptions();
}
