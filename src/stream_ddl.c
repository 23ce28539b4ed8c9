/*
 * stream_ddl.c
 *		DDL on streaming tables and on their servers.
 *
 *		CREATE TABLE ... WITH (medallion. ...)	defines a streaming table
 *		ALTER TABLE ... SET (medallion. ...)	changes its options
 *		any other ALTER TABLE					is checked: the columns must fit
 *		on its partitions						see stream_child_ddl.c
 *		RENAME of a column						keeps where it is filled from
 *		RENAME, ALTER, DROP of a server, its	reaches the tables that use it
 *		privileges and its user mappings
 *
 * Our options are taken out of a statement and core runs the rest of it, so
 * that both may stand in one statement.  All is one transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ddl.h"
#include "decode.h"
#include "server.h"
#include "stream_child_ddl.h"
#include "stream_define.h"
#include "stream_state.h"
#include "stream_table.h"
#include "view_catalog.h"
#include "worker_slots.h"

#define NAMESPACE "medallion"

/*
 * Take the options of our namespace out of *options.  A value may be missing
 * only where it is a Boolean, or where the option is_reset.
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
		else if (def->arg == NULL && strcmp(def->defname, "check_topic") == 0)
			def->arg = (Node *) makeString("true");
		else if (def->arg == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("option \"%s\" requires a value", def->defname)));
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
	{
		const char *name = lfirst_node(DefElem, lc)->defname;

		for_each_cell(lc2, options, lnext(options, lc))
		{
			if (strcmp(name, lfirst_node(DefElem, lc2)->defname) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("option \"%s\" is given more than once", name)));
		}
	}
}

/*
 * Name the schema that the table will be in: the name alone may mean another
 * table (a temporary one, say) once it exists.
 */
static void
qualify(RangeVar *relation)
{
	if (relation->schemaname == NULL && relation->relpersistence != RELPERSISTENCE_TEMP)
		relation->schemaname = get_namespace_name(RangeVarGetCreationNamespace(relation));
}

static bool
made_by_this_transaction(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		ours = HeapTupleIsValid(tuple) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return ours;
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

	if (options == NIL && md_stream_child_create(u, stmt))
		return true;
	foreach(lc, stmt->inhRelations)
		md_stream_child_check_relative(lfirst_node(RangeVar, lc));
	if (options == NIL)
		return false;
	md_worker_slots_require();
	qualify(stmt->relation);
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
	md_stream_table_complete(stmt, stream.format, md_stream_is_pattern(&stream));
	md_utility_next(u);
	CommandCounterIncrement();
	relid = RangeVarGetRelid(stmt->relation, NoLock, false);
	/* IF NOT EXISTS: another session may have been faster, and it is its table */
	if (stmt->if_not_exists && !made_by_this_transaction(relid))
		return true;
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

/* ERROR for a column that every streaming table has. */
static void
check_drop_column(const MdStream *stream, const char *name)
{
	const char *source = md_stream_column_source(stream, name);

	for (const MdMetadataColumn *m = md_metadata_columns; m->name != NULL; m++)
		if ((m->always || (md_stream_is_pattern(stream) && strcmp(m->name, "kafka_topic") == 0)) &&
			strcmp(m->name, source) == 0 &&
			get_attnum(stream->relid, name) != InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot drop column \"%s\" of streaming table \"%s\"",
							name, get_rel_name(stream->relid)),
					 m->always ? errdetail("Every streaming table has the metadata column \"%s\".", m->name) :
					 errdetail("It tells the topics apart that the table reads by a pattern.")));
}

/*
 * ERROR for a change that a streaming table cannot have.  One that changes
 * rows, or hides changes from the guard, counts as a change of history.
 */
static void
check_command(const MdStream *stream, AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_SetUnLogged:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("streaming table \"%s\" cannot be unlogged", get_rel_name(stream->relid)),
					 errdetail("After a crash its rows would be gone, and the offsets would not.")));
			break;
		case AT_AddInherit:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("streaming table \"%s\" cannot be part of an inheritance hierarchy",
							get_rel_name(stream->relid))));
			break;
		case AT_DropColumn:
			check_drop_column(stream, cmd->name);
			break;
		case AT_EnableAlwaysTrig:
			/* pg_dump's own way to restore the guard: nothing was written past it */
			if (stream->foreign_origin && strcmp(cmd->name, MD_STREAM_GUARD) == 0)
				break;
			md_catalog_history_changed(stream->relid);
			break;
		case AT_AlterColumnType:
		case AT_EnableTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrig:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			md_catalog_history_changed(stream->relid);
			break;
		default:
			break;
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
	if (OidIsValid(relid) &&
		(get_rel_relkind(relid) == RELKIND_RELATION ||
		 get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE) &&
		!md_view_exists(relid) && has_our_options(stmt))
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
	Oid			owner;
	LOCKMODE	lock_mode = ShareRowExclusiveLock;
	ListCell   *lc;

	if (stmt->objtype != OBJECT_TABLE)
		return false;
	md_stream_child_check_commands(stmt->cmds);
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !md_stream_exists(relid))
		return alter_other_table(stmt, relid) || md_stream_child_alter(u, stmt, relid);

	md_worker_slots_require();
	options = take_alter_options(stmt);
	check_repeated(options);
	/* what core will need, at once: upgrading a lock invites a deadlock */
	if (stmt->cmds != NIL)
		lock_mode = Max(lock_mode, AlterTableGetLockLevel(stmt->cmds));
	relid = RangeVarGetRelidExtended(stmt->relation, lock_mode, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	stream = md_stream_lock(relid);
	/* core is to find the table that we have locked */
	stmt->relation->schemaname = get_namespace_name(get_rel_namespace(relid));
	foreach(lc, stmt->cmds)
		check_command(stream, lfirst_node(AlterTableCmd, lc));
	cmds = stmt->cmds;
	owner = md_stream_table_owner(relid);
	if (cmds != NIL)
	{
		List	   *detached = md_stream_child_begin(cmds);

		md_utility_next(u);
		CommandCounterIncrement();
		md_stream_child_end(relid, cmds, detached);
		forget_dropped_columns(relid, cmds);
		/* a new owner must be able to connect */
		if (md_stream_table_owner(relid) != owner)
			(void) md_server_lookup(stream->server, md_stream_table_owner(relid));
	}
	if (options != NIL)
		md_stream_alter(relid, options);
	else
	{
		md_stream_check_columns(md_stream_load(relid));
		md_catalog_bump_generation(relid);
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

	relid = RangeVarGetRelidExtended(stmt->relation, AccessExclusiveLock, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	(void) md_stream_lock(relid);
	stmt->relation->schemaname = get_namespace_name(get_rel_namespace(relid));
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

static void
hide_statement(void *arg)
{
	errhidestmt(true);
}

/*
 * Run a statement that may hold secrets, or hold them by mistake: if it fails,
 * the log tells why, and not the statement.
 */
static void
run_hidden(MdUtility *u)
{
	ErrorContextCallback callback;

	callback.callback = hide_statement;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	md_utility_next(u);
	error_context_stack = callback.previous;
}

/*
 * CREATE, ALTER or DROP USER MAPPING: tables of that user connect anew, and of
 * nobody else, or one user could interrupt all others.
 */
static void
change_mapping(MdUtility *u, RoleSpec *user, const char *server_name)
{
	Oid			user_id = InvalidOid;

	if (!md_server_is_ours(server_name))
	{
		md_utility_next(u);
		return;
	}
	if (user->roletype != ROLESPEC_PUBLIC)
		user_id = get_rolespec_oid(user, true);
	run_hidden(u);
	/* of a mapping that is dropped md_stream_mapping_dropped() hears */
	if (!IsA(u->pstmt->utilityStmt, DropUserMappingStmt) &&
		(user->roletype == ROLESPEC_PUBLIC || OidIsValid(user_id)))
		md_stream_mapping_changed(server_name, user_id);
}

/* GRANT or REVOKE on servers: who uses them connects anew, or cannot. */
static void
grant(MdUtility *u, GrantStmt *stmt)
{
	ListCell   *lc;

	md_utility_next(u);
	foreach(lc, stmt->objects)
		md_stream_server_changed(strVal(lfirst(lc)));
}

bool
md_stream_utility(MdUtility *u)
{
	Node	   *stmt = u->pstmt->utilityStmt;

	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
			return create_table(u, (CreateStmt *) stmt);
		case T_CreateForeignTableStmt:
			return md_stream_child_create(u, &((CreateForeignTableStmt *) stmt)->base);
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
		case T_CreateForeignServerStmt:
			if (!md_server_wrapper_is_ours(((CreateForeignServerStmt *) stmt)->fdwname))
				return false;
			run_hidden(u);
			return true;
		case T_AlterForeignServerStmt:
			if (!md_server_is_ours(((AlterForeignServerStmt *) stmt)->servername))
				return false;
			run_hidden(u);
			md_stream_server_changed(((AlterForeignServerStmt *) stmt)->servername);
			return true;
		case T_CreateUserMappingStmt:
			change_mapping(u, ((CreateUserMappingStmt *) stmt)->user,
						   ((CreateUserMappingStmt *) stmt)->servername);
			return true;
		case T_AlterUserMappingStmt:
			change_mapping(u, ((AlterUserMappingStmt *) stmt)->user,
						   ((AlterUserMappingStmt *) stmt)->servername);
			return true;
		case T_DropUserMappingStmt:
			change_mapping(u, ((DropUserMappingStmt *) stmt)->user,
						   ((DropUserMappingStmt *) stmt)->servername);
			return true;
		case T_GrantStmt:
			if (((GrantStmt *) stmt)->targtype != ACL_TARGET_OBJECT ||
				((GrantStmt *) stmt)->objtype != OBJECT_FOREIGN_SERVER)
				return false;
			grant(u, (GrantStmt *) stmt);
			return true;
		default:
			return false;
	}
}

void
md_stream_mapping_dropped(Oid mapping_id)
{
	HeapTuple	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(mapping_id));
	Form_pg_user_mapping mapping;

	if (!HeapTupleIsValid(tuple))
		return;
	mapping = (Form_pg_user_mapping) GETSTRUCT(tuple);
	md_stream_mapping_changed(GetForeignServer(mapping->umserver)->servername, mapping->umuser);
	ReleaseSysCache(tuple);
}

void
md_stream_relation_dropped(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		return;
	if (md_stream_exists(relid))
		md_stream_forget(relid);
	else
		md_stream_child_dropped(relid);
}
