/*
 * ddl.c
 *		The utility hook and the object access hook.
 *
 * DDL is sugar: the handlers translate statements into the calls that the SQL
 * functions make.  Statements are passed on untouched where the extension does
 * not exist, while it is being created or altered, and for every kind of
 * statement that no handler knows.
 *
 * DROP DATABASE, and CREATE DATABASE from a template, need a database without
 * sessions: our workers leave it first, and are started again after the
 * transaction if it stays.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "capture.h"
#include "capture_ddl.h"
#include "catalog.h"
#include "compat.h"
#include "ddl.h"
#include "guard_ddl.h"
#include "view_sources.h"
#include "worker_slots.h"

static ProcessUtility_hook_type next_utility_hook = NULL;
static object_access_hook_type next_access_hook = NULL;

void
md_utility_next(MdUtility *u)
{
	/* our copy of the tree is ours to change, so core need not copy again */
	if (next_utility_hook)
		next_utility_hook(u->pstmt, u->query_string, false, u->context,
						  u->params, u->query_env, u->dest, u->completion);
	else
		standard_ProcessUtility(u->pstmt, u->query_string, false, u->context,
								u->params, u->query_env, u->dest, u->completion);
}

/* Name of the database that must be without sessions for this statement. */
static const char *
exclusive_database(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) stmt)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) stmt)->subname;
			return NULL;
		case T_CreatedbStmt:
			{
				ListCell   *lc;

				foreach(lc, ((CreatedbStmt *) stmt)->options)
				{
					DefElem    *option = lfirst_node(DefElem, lc);

					if (strcmp(option->defname, "template") == 0 && option->arg)
						return strVal(option->arg);
				}
				return NULL;
			}
		case T_AlterDatabaseStmt:
			{
				ListCell   *lc;

				foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
					if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
						return ((AlterDatabaseStmt *) stmt)->dbname;
				return NULL;
			}
		default:
			return NULL;
	}
}

/*
 * Does the statement drop the extension, or the schema that it lives in?  Our
 * workers leave first: they lock tables in another order than a DROP does,
 * and one of the two would fail with a deadlock.
 */
static bool
drops_extension(Node *stmt)
{
	DropStmt   *drop = (DropStmt *) stmt;
	ListCell   *lc;

	if (!IsA(stmt, DropStmt) ||
		(drop->removeType != OBJECT_EXTENSION && drop->removeType != OBJECT_SCHEMA))
		return false;
	foreach(lc, drop->objects)
	{
		const char *name = strVal(lfirst(lc));

		/* whoever may not drop it does not disturb the workers either */
		if (strcmp(name, drop->removeType == OBJECT_SCHEMA ? "medallion" : "pg_medallion") == 0)
			return IsTransactionState() &&
				has_privs_of_role(GetUserId(), md_catalog_extension_owner());
	}
	return false;
}

/*
 * May the user do this to the database?  Core says so too, but only after our
 * workers have left, and nobody else may make them leave.
 */
static bool
may_be_exclusive(Node *stmt, Oid database_id)
{
	HeapTuple	tuple;
	bool		may_copy;

	if (md_database_ownercheck(database_id, GetUserId()))
		return true;
	if (!IsA(stmt, CreatedbStmt))
		return false;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	may_copy = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database_id));
	if (!HeapTupleIsValid(tuple))
		return false;
	may_copy = may_copy && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return may_copy;
}

/* Statements that a handler may know; all others cost one switch. */
static bool
may_concern_us(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
		case T_CreateTableAsStmt:
		case T_AlterTableStmt:
		case T_DropStmt:
		case T_RenameStmt:
		case T_RefreshMatViewStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterOwnerStmt:
		case T_CommentStmt:
		case T_CreateForeignServerStmt:
		case T_AlterForeignServerStmt:
		case T_AlterUserMappingStmt:
		case T_CreateUserMappingStmt:
		case T_DropUserMappingStmt:
		case T_CreateExtensionStmt:
		case T_GrantStmt:
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
		case T_RuleStmt:
		case T_CreateTrigStmt:
			return true;
		default:
			return false;
	}
}

/* A statement that a handler may know, or that captured relations follow. */
static void
run_ours(MdUtility *u)
{
	MdCaptureDdl *capture;
	List	   *loose;

	md_guard_check_statement(u->pstmt->utilityStmt);
	capture = md_capture_ddl_begin(u->pstmt->utilityStmt);
	loose = md_view_loosen(u->pstmt->utilityStmt);

	if (!md_stream_utility(u) && !md_view_utility(u))
		md_utility_next(u);
	md_capture_ddl_end(capture);
	md_view_fasten(loose);
}

static void
md_process_utility(PlannedStmt *pstmt, const char *query_string,
				   bool read_only_tree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *query_env,
				   DestReceiver *dest, QueryCompletion *completion)
{
	MdUtility	u = {pstmt, query_string, context, params, query_env, dest, completion};
	Node	   *stmt = pstmt->utilityStmt;
	const char *database = exclusive_database(stmt);
	bool		leaves = database == NULL && drops_extension(stmt);

	if (read_only_tree)
		u.pstmt = copyObject(pstmt);

	if (database != NULL)
	{
		Oid			database_id = get_database_oid(database, true);

		if (OidIsValid(database_id) && database_id != MyDatabaseId &&
			may_be_exclusive(stmt, database_id))
			md_database_block(database_id);
	}
	else if (leaves)
		md_database_block(MyDatabaseId);
	else if (nodeTag(stmt) == T_CreateExtensionStmt)
	{
		md_utility_next(&u);
		if (strcmp(((CreateExtensionStmt *) stmt)->extname, "pg_medallion") == 0)
			md_definitions_changed();
		return;
	}
	if (!leaves && may_concern_us(stmt) && IsTransactionState() && md_catalog_extension_exists())
		run_ours(&u);
	else
		md_utility_next(&u);

	/* what is left of captures whose table or last view was dropped */
	if (md_capture_release_is_due() && IsTransactionState() && md_catalog_extension_exists())
		md_capture_release_unused();
}

/* Relations that go away take their rows of our catalog with them. */
static void
md_object_access(ObjectAccessType access, Oid class_id, Oid object_id,
				 int sub_id, void *arg)
{
	if (next_access_hook)
		next_access_hook(access, class_id, object_id, sub_id, arg);

	/* DROP EXTENSION: our processes look again after the commit, and leave */
	if (access == OAT_DROP && class_id == ExtensionRelationId &&
		object_id == get_extension_oid("pg_medallion", true))
		md_definitions_changed();

	/* DROP OWNED takes user mappings along */
	if (access == OAT_DROP && class_id == UserMappingRelationId && md_catalog_extension_exists())
		md_stream_mapping_dropped(object_id);

	if (access == OAT_DROP && class_id == RelationRelationId && sub_id == 0 &&
		!(((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL) &&
		md_catalog_extension_exists())
	{
		md_stream_relation_dropped(object_id);
		md_view_relation_dropped(object_id);
		md_capture_relation_dropped(object_id);
	}
}

void
md_ddl_install_hooks(void)
{
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = md_process_utility;
	next_access_hook = object_access_hook;
	object_access_hook = md_object_access;
}
