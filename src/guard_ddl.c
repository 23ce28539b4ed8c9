/*
 * guard_ddl.c
 *		Statements that would let rows come, go or change past the guard.
 *
 *		CREATE RULE		would write something else than what we write, or nothing
 *		CREATE TRIGGER	before a row of a result: would change or skip it
 *		DROP or RENAME	of the guard trigger itself
 *		INHERIT, ATTACH	of a result: rows of the other table would be read with
 *						its own, or be written to it
 *		RENAME			of the schemas that our statements name
 *		SET SCHEMA		to one of these: the table would count as a part of ours
 *
 * All of these are refused.  Triggers on streaming tables are the user's way to
 * change what is stored, and are his.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "guard_ddl.h"
#include "stream_child_ddl.h"
#include "stream_table.h"
#include "view_catalog.h"

/* What a relation is to us. */
typedef enum Kind
{
	KIND_OTHER,
	KIND_STREAM,				/* a streaming table, or a partition of one */
	KIND_VIEW					/* the result of a view, or state of one */
} Kind;

static Kind
kind_of(RangeVar *relation)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;

	if (!OidIsValid(relid))
		return KIND_OTHER;
	if (md_view_exists(relid) || md_view_is_internal(relid))
		return KIND_VIEW;
	return OidIsValid(md_stream_root(relid)) ? KIND_STREAM : KIND_OTHER;
}

static const char *
kind_name(Kind kind)
{
	return kind == KIND_STREAM ? "streaming table" : "materialized view";
}

static void
check_rule(RuleStmt *stmt)
{
	Kind		kind = kind_of(stmt->relation);

	if (kind != KIND_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s \"%s\" cannot have rules", kind_name(kind), stmt->relation->relname),
				 errdetail("A rule would put something else in the place of what is written to it."),
				 kind == KIND_STREAM ? errhint("Use a trigger.") :
				 errhint("Use a trigger that fires after the row, or change the query.")));
}

static void
check_create_trigger(CreateTrigStmt *stmt)
{
	if (stmt->row && stmt->timing == TRIGGER_TYPE_BEFORE && kind_of(stmt->relation) == KIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("materialized view \"%s\" cannot have a trigger that fires before a row is written",
						stmt->relation->relname),
				 errdetail("The trigger could change or skip the row, and the result would not be that of its query."),
				 errhint("Let it fire AFTER the row, or change the query.")));
}

/* DROP or RENAME of a guard. */
static void
check_guard(RangeVar *relation, const char *trigger, const char *verb)
{
	Kind		kind = strcmp(trigger, MD_STREAM_GUARD) == 0 ? kind_of(relation) : KIND_OTHER;

	if (kind != KIND_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s trigger \"%s\" of %s \"%s\"",
						verb, trigger, kind_name(kind), relation->relname),
				 kind == KIND_STREAM ? errhint("To change rows, SET medallion.allow_direct_writes = on.") :
				 errhint("To change rows, change the tables that its query reads, or its query.")));
}

static void
check_drop(DropStmt *stmt)
{
	ListCell   *lc;

	if (stmt->removeType != OBJECT_TRIGGER)
		return;
	foreach(lc, stmt->objects)
	{
		List	   *name = lfirst_node(List, lc);
		List	   *relation = list_truncate(list_copy(name), list_length(name) - 1);

		check_guard(makeRangeVarFromNameList(relation), strVal(llast(name)), "drop");
	}
}

/* Schemas that our statements name, and that hold nothing but parts of ours. */
static bool
is_our_schema(const char *name)
{
	return strcmp(name, "medallion") == 0 || strcmp(name, "medallion_def") == 0;
}

static void
check_rename(RenameStmt *stmt)
{
	if (stmt->renameType == OBJECT_TRIGGER)
		check_guard(stmt->relation, stmt->subname, "rename");
	else if (stmt->renameType == OBJECT_SCHEMA && is_our_schema(stmt->subname))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schema \"%s\" cannot be renamed", stmt->subname),
				 errdetail("Extension pg_medallion finds its tables and functions by this name.")));
}

static void
check_move(AlterObjectSchemaStmt *stmt)
{
	if (is_our_schema(stmt->newschema) && kind_of(stmt->relation) != KIND_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s \"%s\" cannot be moved to schema \"%s\"",
						kind_name(kind_of(stmt->relation)), stmt->relation->relname, stmt->newschema),
				 errhint("The schema belongs to extension pg_medallion: choose another one.")));
}

/* A result in an inheritance hierarchy, as parent or as child. */
static void
check_relative(RangeVar *relation)
{
	if (kind_of(relation) == KIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("materialized view \"%s\" cannot be part of an inheritance hierarchy",
						relation->relname),
				 errhint("A view or another materialized view can read it together with other tables.")));
}

static void
check_alter(AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AttachPartition)
			check_relative(((PartitionCmd *) cmd->def)->name);
		else if (cmd->subtype == AT_AddInherit)
			check_relative((RangeVar *) cmd->def);
	}
}

static void
check_create(CreateStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->inhRelations)
		check_relative(lfirst_node(RangeVar, lc));
}

void
md_guard_check_statement(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_RuleStmt:
			check_rule((RuleStmt *) stmt);
			break;
		case T_CreateTrigStmt:
			check_create_trigger((CreateTrigStmt *) stmt);
			break;
		case T_DropStmt:
			check_drop((DropStmt *) stmt);
			break;
		case T_RenameStmt:
			check_rename((RenameStmt *) stmt);
			break;
		case T_AlterObjectSchemaStmt:
			check_move((AlterObjectSchemaStmt *) stmt);
			break;
		case T_AlterTableStmt:
			check_alter((AlterTableStmt *) stmt);
			break;
		case T_CreateStmt:
			check_create((CreateStmt *) stmt);
			break;
		default:
			break;
	}
}
