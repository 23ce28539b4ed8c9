/*
 * stream_ddl.c
 *		DDL on streaming tables and on their servers.
 *
 *		CREATE TABLE ... WITH (medallion. ...)	defines a streaming table
 *		ALTER TABLE ... SET (medallion. ...)	changes its options
 *		any other ALTER TABLE					is checked: the columns must fit
 *		RENAME of a column						keeps where it is filled from
 *		RENAME, ALTER, DROP of a server			reaches the tables that use it
 *
 * Our options are taken out of a statement and core runs the rest of it, so
 * that both may stand in one statement.  All is one transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ddl.h"
#include "decode.h"
#include "stream_define.h"
#include "stream_state.h"
#include "stream_table.h"
#include "worker_slots.h"

#define NAMESPACE "medallion"

/*
 * Take the options of our namespace out of *options; those returned have a
 * string for a value, "true" where none was written, or NULL if is_reset.
 */
static List *
take_options(List **options, bool is_reset)
{
	List	   *ours = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, *options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (def->defnamespace == NULL || strcmp(def->defnamespace, NAMESPACE) != 0)
		{
			others = lappend(others, def);
			continue;
		}
		if (is_reset)
			def->arg = NULL;
		else if (def->arg == NULL)
			def->arg = (Node *) makeString("true");
		ours = lappend(ours, def);
	}
	*options = others;
	return ours;
}

/* ERROR for an option that is written twice, as core has it. */
static void
check_repeated(List *options)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, options)
		for_each_cell(lc2, options, lnext(options, lc))
		if (strcmp(lfirst_node(DefElem, lc)->defname, lfirst_node(DefElem, lc2)->defname) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("option \"%s\" is given more than once",
							lfirst_node(DefElem, lc)->defname)));
}

/* ERROR if the other table of a hierarchy is a streaming table. */
static void
check_relative(RangeVar *other)
{
	Oid			relid = RangeVarGetRelid(other, NoLock, true);

	if (OidIsValid(relid) && md_stream_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("streaming table \"%s\" cannot be part of an inheritance hierarchy",
						other->relname)));
}

/* CREATE TABLE ... WITH (medallion. ...) */
static bool
create_table(MdUtility *u, CreateStmt *stmt)
{
	List	   *options = take_options(&stmt->options, false);
	MdStreamDefinition definition;
	MdStream	stream;
	Oid			relid;
	ListCell   *lc;

	foreach(lc, stmt->inhRelations)
		check_relative(lfirst_node(RangeVar, lc));
	if (options == NIL)
		return false;
	md_worker_slots_require();
	if (stmt->if_not_exists &&
		OidIsValid(RangeVarGetRelid(stmt->relation, NoLock, true)))
	{
		/* core says that it skips the statement */
		md_utility_next(u);
		return true;
	}

	check_repeated(options);
	md_stream_definition_init(&definition);
	md_stream_definition_set(&definition, options, true);
	(void) md_stream_definition_check(&definition, &stream);
	md_stream_table_complete(stmt, stream.format);
	md_utility_next(u);
	CommandCounterIncrement();
	relid = RangeVarGetRelid(stmt->relation, NoLock, false);
	md_stream_define(relid, &definition);
	return true;
}

/* CREATE TABLE ... AS with our options: say what to write instead. */
static void
refuse_create_table_as(CreateTableAsStmt *stmt)
{
	ListCell   *lc;

	if (stmt->objtype != OBJECT_TABLE || stmt->into == NULL)
		return;
	foreach(lc, stmt->into->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (def->defnamespace != NULL && strcmp(def->defnamespace, NAMESPACE) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("CREATE TABLE AS cannot create a streaming table"),
					 errhint("Create the table first, and let medallion.create_streaming_table() adopt it.")));
	}
}

/* ERROR for a change that a streaming table cannot have. */
static void
check_command(const MdStream *stream, AlterTableCmd *cmd)
{
	const char *source;

	switch (cmd->subtype)
	{
		case AT_SetUnLogged:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("streaming table \"%s\" cannot be unlogged", get_rel_name(stream->relid)),
					 errdetail("After a crash its rows would be gone, and the offsets would not.")));
			break;
		case AT_AddInherit:
		case AT_AttachPartition:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("streaming table \"%s\" cannot be part of an inheritance hierarchy",
							get_rel_name(stream->relid))));
			break;
		case AT_DropColumn:
			source = md_stream_column_source(stream, cmd->name);
			for (const MdMetadataColumn *m = md_metadata_columns; m->name != NULL; m++)
				if (m->always && strcmp(m->name, source) == 0 &&
					get_attnum(stream->relid, cmd->name) != InvalidAttrNumber)
					ereport(ERROR,
							(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							 errmsg("cannot drop column \"%s\" of streaming table \"%s\"",
									cmd->name, get_rel_name(stream->relid)),
							 errdetail("Every streaming table has the metadata column \"%s\".", m->name)));
			break;
		default:
			break;
	}
}

/* ATTACH PARTITION names the child, INHERIT the parent. */
static void
check_relatives(List *cmds)
{
	ListCell   *lc;

	foreach(lc, cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AttachPartition)
			check_relative(((PartitionCmd *) cmd->def)->name);
		else if (cmd->subtype == AT_AddInherit)
			check_relative((RangeVar *) cmd->def);
	}
}

/* Take our options out of the SET and RESET commands of an ALTER TABLE. */
static List *
take_alter_options(AlterTableStmt *stmt)
{
	List	   *ours = NIL;
	List	   *commands = NIL;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		List	   *rest;

		if (cmd->subtype != AT_SetRelOptions && cmd->subtype != AT_ResetRelOptions)
		{
			commands = lappend(commands, cmd);
			continue;
		}
		rest = (List *) cmd->def;
		ours = list_concat(ours, take_options(&rest, cmd->subtype == AT_ResetRelOptions));
		cmd->def = (Node *) rest;
		if (rest != NIL)
			commands = lappend(commands, cmd);
	}
	stmt->cmds = commands;
	return ours;
}

static bool
has_our_options(AlterTableStmt *stmt)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype != AT_SetRelOptions && cmd->subtype != AT_ResetRelOptions)
			continue;
		foreach(lc2, (List *) cmd->def)
		{
			DefElem    *def = lfirst_node(DefElem, lc2);

			if (def->defnamespace != NULL && strcmp(def->defnamespace, NAMESPACE) == 0)
				return true;
		}
	}
	return false;
}

/* Our options on a table that is not ours: a view's are the next handler's. */
static bool
alter_other_table(AlterTableStmt *stmt, Oid relid)
{
	if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_RELATION &&
		!md_stream_is_view_result(relid) && has_our_options(stmt))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a streaming table", get_rel_name(relid)),
				 errhint("medallion.create_streaming_table() makes it one.")));
	return false;
}

/* Columns that this statement drops are no longer renamed ones. */
static void
forget_dropped_columns(Oid relid, List *cmds)
{
	ListCell   *lc;

	foreach(lc, cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_DropColumn &&
			get_attnum(relid, cmd->name) == InvalidAttrNumber)
			md_stream_column_dropped(relid, cmd->name);
	}
}

/* ALTER TABLE */
static bool
alter_table(MdUtility *u, AlterTableStmt *stmt)
{
	List	   *options;
	List	   *cmds;
	MdStream   *stream;
	Oid			relid;
	ListCell   *lc;

	if (stmt->objtype != OBJECT_TABLE)
		return false;
	check_relatives(stmt->cmds);
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !md_stream_exists(relid))
		return alter_other_table(stmt, relid);

	md_worker_slots_require();
	relid = RangeVarGetRelidExtended(stmt->relation, ShareRowExclusiveLock, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	stream = md_stream_lock(relid);
	foreach(lc, stmt->cmds)
		check_command(stream, lfirst_node(AlterTableCmd, lc));
	options = take_alter_options(stmt);
	check_repeated(options);
	cmds = stmt->cmds;
	if (cmds != NIL)
	{
		md_utility_next(u);
		CommandCounterIncrement();
		forget_dropped_columns(relid, cmds);
	}
	if (options != NIL)
		md_stream_alter(relid, options);
	else
	{
		md_stream_check_columns(md_stream_load(relid));
		md_stream_changed(relid);
	}
	return true;
}

/* RENAME of a column of a streaming table, or of a server */
static bool
rename_object(MdUtility *u, RenameStmt *stmt)
{
	Oid			relid;

	if (stmt->renameType == OBJECT_FOREIGN_SERVER)
	{
		md_utility_next(u);
		md_stream_server_renamed(strVal(stmt->object), stmt->newname);
		return true;
	}
	if (stmt->renameType != OBJECT_COLUMN || stmt->relation == NULL)
		return false;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !md_stream_exists(relid))
		return false;

	relid = RangeVarGetRelidExtended(stmt->relation, ShareRowExclusiveLock, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	(void) md_stream_lock(relid);
	md_utility_next(u);
	CommandCounterIncrement();
	md_stream_column_renamed(relid, stmt->subname, stmt->newname);
	return true;
}

/* DROP SERVER ... CASCADE too must not leave a streaming table without one. */
static void
check_drop(DropStmt *stmt)
{
	ListCell   *lc;

	if (stmt->removeType != OBJECT_FOREIGN_SERVER)
		return;
	foreach(lc, stmt->objects)
		md_stream_server_check_unused(strVal(lfirst(lc)));
}

bool
md_stream_utility(MdUtility *u)
{
	Node	   *stmt = u->pstmt->utilityStmt;

	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
			return create_table(u, (CreateStmt *) stmt);
		case T_CreateTableAsStmt:
			refuse_create_table_as((CreateTableAsStmt *) stmt);
			return false;
		case T_AlterTableStmt:
			return alter_table(u, (AlterTableStmt *) stmt);
		case T_RenameStmt:
			return rename_object(u, (RenameStmt *) stmt);
		case T_DropStmt:
			check_drop((DropStmt *) stmt);
			return false;
		case T_AlterForeignServerStmt:
			md_utility_next(u);
			md_stream_server_changed(((AlterForeignServerStmt *) stmt)->servername);
			return true;
		case T_CreateUserMappingStmt:
			md_utility_next(u);
			md_stream_server_changed(((CreateUserMappingStmt *) stmt)->servername);
			return true;
		case T_AlterUserMappingStmt:
			md_utility_next(u);
			md_stream_server_changed(((AlterUserMappingStmt *) stmt)->servername);
			return true;
		case T_DropUserMappingStmt:
			md_utility_next(u);
			md_stream_server_changed(((DropUserMappingStmt *) stmt)->servername);
			return true;
		default:
			return false;
	}
}

void
md_stream_relation_dropped(Oid relid)
{
	if (get_rel_relkind(relid) == RELKIND_RELATION && md_stream_exists(relid))
		md_stream_forget(relid);
}
