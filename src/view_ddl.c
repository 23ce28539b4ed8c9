/*
 * view_ddl.c
 *		DDL on materialized views.
 *
 * A view of ours is a table to Postgres, and a materialized view to people.
 * CREATE MATERIALIZED VIEW with one of our options is ours altogether; all
 * other statements are either calls of view_define.c, or are passed on to core
 * with the object's kind set to what it really is.  Statements on relations
 * that are not ours, and CREATE MATERIALIZED VIEW without our options, are left
 * alone.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "tcop/cmdtag.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "catalog.h"
#include "ddl.h"
#include "nearest_name.h"
#include "refresh_group.h"
#include "sql_run.h"
#include "view_catalog.h"
#include "view_define.h"
#include "worker_slots.h"

#define OPTION_NAMESPACE "medallion"
#define DEFAULT_INTERVAL "1 minute"

/* What WITH (medallion....) says; NULL or unset where it says nothing. */
typedef struct DdlOptions
{
	bool		set_interval;
	Interval   *refresh_interval;
	bool		set_mode;
	MdRefreshMode mode;
	bool		set_keys;
	List	   *key_columns;
	MdErrorOptions errors;
} DdlOptions;

static const char *const option_names[] = {
	"key_columns", "max_refresh_errors", "on_error", "refresh_interval", "refresh_mode", NULL
};

/* A view of ours under this name, or InvalidOid. */
static Oid
our_view(RangeVar *name)
{
	Oid			relid;

	if (name == NULL)
		return InvalidOid;
	relid = RangeVarGetRelid(name, NoLock, true);
	return OidIsValid(relid) && md_view_exists(relid) ? relid : InvalidOid;
}

/* ----------------------------------------------------------------------
 * Options
 * ---------------------------------------------------------------------- */

static bool
is_our_option(DefElem *option)
{
	return option->defnamespace != NULL && strcmp(option->defnamespace, OPTION_NAMESPACE) == 0;
}

/* Take our options out of a list of DefElem. */
static List *
take_our_options(List **options)
{
	List	   *ours = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, *options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (is_our_option(option))
			ours = lappend(ours, option);
		else
			others = lappend(others, option);
	}
	*options = others;
	return ours;
}

static Interval *
parse_interval(const char *text)
{
	/* there is no way to write NULL in WITH (...) */
	if (pg_strcasecmp(text, "none") == 0)
		return NULL;
	return DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid),
												 Int32GetDatum(-1)));
}

/* Names as in a list of columns: a, "B". */
static List *
parse_columns(char *text)
{
	List	   *identifiers;
	List	   *names = NIL;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(text), ',', &identifiers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list of columns \"%s\" in option \"%s\"", text,
						OPTION_NAMESPACE ".key_columns")));
	foreach(lc, identifiers)
		names = lappend(names, makeString(pstrdup(lfirst(lc))));
	return names;
}

static void
report_unknown_option(DefElem *option)
{
	const char *nearest = md_nearest_name(option->defname, option_names);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s.%s\" of a materialized view", OPTION_NAMESPACE,
					option->defname),
			 nearest ? errhint("Perhaps you meant \"%s.%s\".", OPTION_NAMESPACE, nearest) :
			 errhint("Valid options are \"%s.key_columns\", \"%s.max_refresh_errors\", \"%s.on_error\", \"%s.refresh_interval\" and \"%s.refresh_mode\".",
					 OPTION_NAMESPACE, OPTION_NAMESPACE, OPTION_NAMESPACE, OPTION_NAMESPACE,
					 OPTION_NAMESPACE)));
}

/* Set or, with reset, set to its default, what one option says. */
static void
apply_option(DefElem *option, bool reset, DdlOptions *options)
{
	bool	   *set = NULL;
	bool		twice = false;
	char	   *value = reset ? NULL : defGetString(option);

	if (strcmp(option->defname, "refresh_interval") == 0)
		set = &options->set_interval;
	else if (strcmp(option->defname, "refresh_mode") == 0)
		set = &options->set_mode;
	else if (strcmp(option->defname, "key_columns") == 0)
		set = &options->set_keys;
	else if (!md_error_options_take(&options->errors, option->defname, value, &twice))
		report_unknown_option(option);
	if (set != NULL ? *set : twice)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("option \"%s.%s\" is given more than once", OPTION_NAMESPACE,
						option->defname)));
	if (set == NULL)
		return;
	*set = true;

	if (set == &options->set_interval)
		options->refresh_interval = parse_interval(value ? value : DEFAULT_INTERVAL);
	else if (set == &options->set_mode)
		options->mode = md_refresh_mode_by_name(value ? value : "auto");
	else
		options->key_columns = value ? parse_columns(value) : NIL;
}

/* ----------------------------------------------------------------------
 * CREATE
 * ---------------------------------------------------------------------- */

static bool
create_view(MdUtility *u, CreateTableAsStmt *stmt)
{
	DdlOptions options = {0};
	MdViewSpec	spec = {0};
	List	   *ours;
	ListCell   *lc;

	if (stmt->objtype != OBJECT_MATVIEW)
		return false;
	ours = take_our_options(&stmt->into->options);
	if (ours == NIL)
		return false;
	foreach(lc, ours)
		apply_option(lfirst_node(DefElem, lc), false, &options);

	spec.name = stmt->into->rel;
	spec.query = castNode(Query, stmt->into->viewQuery);
	spec.query_text = u->query_string;
	spec.column_names = stmt->into->colNames;
	spec.refresh_interval = options.set_interval ? options.refresh_interval :
		parse_interval(DEFAULT_INTERVAL);
	spec.mode = options.mode;
	spec.key_columns = options.key_columns;
	spec.errors = options.errors;
	spec.with_data = !stmt->into->skipData;
	spec.if_not_exists = stmt->if_not_exists;
	spec.into = stmt->into;
	(void) md_view_create(&spec);
	return true;
}

/* ----------------------------------------------------------------------
 * ALTER
 * ---------------------------------------------------------------------- */

/* Changes of the table that leave result and query in agreement. */
static bool
is_harmless(AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_SetStatistics:
		case AT_SetOptions:
		case AT_ResetOptions:
		case AT_SetStorage:
		case AT_SetCompression:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_ReplaceRelOptions:
		case AT_ClusterOn:
		case AT_DropCluster:
		case AT_SetTableSpace:
		case AT_SetLogged:
		case AT_ChangeOwner:
		case AT_ReplicaIdentity:
		case AT_EnableRowSecurity:
		case AT_DisableRowSecurity:
			/* pg_restore --disable-triggers; core lets superusers only */
		case AT_EnableTrigAll:
		case AT_DisableTrigAll:
			return true;
		default:
			return false;
	}
}

static void
check_commands(Oid relid, List *commands)
{
	ListCell   *lc;

	foreach(lc, commands)
	{
		if (!is_harmless(lfirst_node(AlterTableCmd, lc)))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("cannot alter materialized view \"%s\" in this way", get_rel_name(relid)),
					 errdetail("Its columns and rows are those of its query."),
					 errhint("Change the query with medallion.alter_materialized_view(). Indexes, grants, comments and storage settings may be changed.")));
	}
}

/* Take our options out of ALTER ... SET and RESET. */
static void
take_alter_options(AlterTableStmt *stmt, DdlOptions *options)
{
	List	   *commands = NIL;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);
		ListCell   *option;
		List	   *rest;
		List	   *ours = NIL;

		if (command->subtype == AT_SetRelOptions || command->subtype == AT_ResetRelOptions)
		{
			rest = (List *) command->def;
			ours = take_our_options(&rest);
			command->def = (Node *) rest;
		}
		foreach(option, ours)
			apply_option(lfirst_node(DefElem, option),
						 command->subtype == AT_ResetRelOptions, options);
		if (ours == NIL || command->def != NULL)
			commands = lappend(commands, command);
	}
	stmt->cmds = commands;
}

/* State tables belong to whom the result belongs. */
static void
follow_owner(Oid relid)
{
	Snapshot	snapshot = md_sql_take_snapshot();
	MdView	   *view = md_view_get(relid, snapshot);
	MdSecurity	saved;
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	md_catalog_become_owner(&saved);
	foreach(lc, view->state_tables)
		ATExecChangeOwner(lfirst_oid(lc), view->owner, false, AccessExclusiveLock);
	md_catalog_restore_user(&saved);
}

static bool
alters_owner(List *commands)
{
	ListCell   *lc;

	foreach(lc, commands)
		if (lfirst_node(AlterTableCmd, lc)->subtype == AT_ChangeOwner)
			return true;
	return false;
}

static bool
alter_view(MdUtility *u, AlterTableStmt *stmt)
{
	Oid			relid;
	DdlOptions options = {0};

	if (stmt->objtype != OBJECT_MATVIEW && stmt->objtype != OBJECT_TABLE)
		return false;
	relid = our_view(stmt->relation);
	if (!OidIsValid(relid))
		return false;

	take_alter_options(stmt, &options);
	check_commands(relid, stmt->cmds);
	if (options.set_interval || options.set_mode || options.set_keys ||
		options.errors.set_on_error || options.errors.set_max)
	{
		MdViewChange change = {0};

		change.set_interval = options.set_interval;
		change.refresh_interval = options.refresh_interval;
		change.set_mode = options.set_mode;
		change.mode = options.mode;
		change.set_keys = options.set_keys;
		change.key_columns = options.key_columns;
		change.errors = options.errors;
		md_view_alter(relid, &change);
	}
	if (stmt->cmds != NIL)
	{
		stmt->objtype = OBJECT_TABLE;
		md_utility_next(u);
		if (alters_owner(stmt->cmds))
			follow_owner(relid);
	}
	return true;
}

/* Rename, move: core's, under the right kind. */
static bool
rename_view(MdUtility *u, RenameStmt *stmt)
{
	if (stmt->renameType == OBJECT_MATVIEW && OidIsValid(our_view(stmt->relation)))
		stmt->renameType = OBJECT_TABLE;
	else if (stmt->renameType == OBJECT_COLUMN && stmt->relationType == OBJECT_MATVIEW &&
			 OidIsValid(our_view(stmt->relation)))
		stmt->relationType = OBJECT_TABLE;
	else
		return false;
	md_utility_next(u);
	return true;
}

static bool
move_view(MdUtility *u, AlterObjectSchemaStmt *stmt)
{
	if (stmt->objectType != OBJECT_MATVIEW || !OidIsValid(our_view(stmt->relation)))
		return false;
	stmt->objectType = OBJECT_TABLE;
	md_utility_next(u);
	return true;
}

static bool
comment_view(MdUtility *u, CommentStmt *stmt)
{
	if (stmt->objtype != OBJECT_MATVIEW ||
		!OidIsValid(our_view(makeRangeVarFromNameList(castNode(List, stmt->object)))))
		return false;
	stmt->objtype = OBJECT_TABLE;
	md_utility_next(u);
	return true;
}

/* ----------------------------------------------------------------------
 * REFRESH and DROP
 * ---------------------------------------------------------------------- */

static bool
refresh_view(MdUtility *u, RefreshMatViewStmt *stmt)
{
	Oid			relid = our_view(stmt->relation);
	MdRun		run;

	if (!OidIsValid(relid))
		return false;
	md_view_check_owner(relid);
	if (stmt->skipData)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("materialized view \"%s\" cannot be emptied", stmt->relation->relname),
				 errhint("Leave out WITH NO DATA, or drop the view.")));
	(void) md_refresh_consistent(relid, false, true, &run, NULL);
	if (u->completion)
		SetQueryCompletion(u->completion, CMDTAG_REFRESH_MATERIALIZED_VIEW, 0);
	return true;
}

/*
 * DROP MATERIALIZED VIEW may name views of ours and plain ones: each kind is
 * dropped as what it is.
 */
static bool
drop_views(MdUtility *u, DropStmt *stmt)
{
	List	   *ours = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	if (stmt->removeType != OBJECT_MATVIEW)
		return false;
	foreach(lc, stmt->objects)
	{
		List	   *name = lfirst_node(List, lc);

		if (OidIsValid(our_view(makeRangeVarFromNameList(name))))
			ours = lappend(ours, name);
		else
			others = lappend(others, name);
	}
	if (ours == NIL)
		return false;
	if (others != NIL)
	{
		stmt->objects = others;
		md_utility_next(u);
	}
	stmt->objects = ours;
	stmt->removeType = OBJECT_TABLE;
	md_utility_next(u);
	return true;
}

/* ---------------------------------------------------------------------- */

/* Parts of views are changed with their view alone. */
static void
refuse_internal(RangeVar *relation)
{
	Oid			relid = relation ? RangeVarGetRelid(relation, NoLock, true) : InvalidOid;

	if (OidIsValid(relid) && md_view_is_internal(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot alter \"%s\"", relation->relname),
				 errdetail("It belongs to a materialized view."),
				 errhint("Change the view with medallion.alter_materialized_view().")));
}

static void
protect_parts(Node *stmt)
{
	if (IsA(stmt, RenameStmt))
		refuse_internal(((RenameStmt *) stmt)->relation);
	else if (IsA(stmt, AlterObjectSchemaStmt))
		refuse_internal(((AlterObjectSchemaStmt *) stmt)->relation);
	else if (IsA(stmt, AlterTableStmt))
	{
		ListCell   *lc;

		/* what pg_restore does is harmless */
		foreach(lc, ((AlterTableStmt *) stmt)->cmds)
			if (!is_harmless(lfirst_node(AlterTableCmd, lc)))
				refuse_internal(((AlterTableStmt *) stmt)->relation);
	}
}

bool
md_view_utility(MdUtility *u)
{
	Node	   *stmt = u->pstmt->utilityStmt;

	protect_parts(stmt);
	switch (nodeTag(stmt))
	{
		case T_CreateTableAsStmt:
			return create_view(u, (CreateTableAsStmt *) stmt);
		case T_AlterTableStmt:
			return alter_view(u, (AlterTableStmt *) stmt);
		case T_RenameStmt:
			return rename_view(u, (RenameStmt *) stmt);
		case T_AlterObjectSchemaStmt:
			return move_view(u, (AlterObjectSchemaStmt *) stmt);
		case T_CommentStmt:
			return comment_view(u, (CommentStmt *) stmt);
		case T_RefreshMatViewStmt:
			return refresh_view(u, (RefreshMatViewStmt *) stmt);
		case T_DropStmt:
			return drop_views(u, (DropStmt *) stmt);
		default:
			return false;
	}
}

void
md_view_relation_dropped(Oid relid)
{
	if (!md_view_exists(relid))
		return;
	md_view_delete(relid);
	md_definitions_changed();
}
