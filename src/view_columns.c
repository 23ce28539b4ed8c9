/*
 * view_columns.c
 *		The columns of a result, and how a new query changes them.
 *
 * A query whose columns begin with those of the result, by type, keeps them and
 * their names, and adds what it has more.  Else columns are told apart by name:
 * those that the query lacks are dropped, those of another type change theirs,
 * and new ones come last.
 *
 *		result	(a int, b text, c int)
 *		query	 a int, b text, c int, d int	-> adds d
 *		query	 a int, c bigint, d int			-> drops b, retypes c, adds d
 *
 * What depends on a column is never dropped along with it: that is an error,
 * which names it, before anything is built.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "relation_make.h"
#include "row_index.h"
#include "sql_run.h"
#include "view_catalog.h"
#include "view_columns.h"

void
md_view_output_columns(Query *query, List *given_names, List **names, List **exprs)
{
	ListCell   *lc;
	ListCell   *given = list_head(given_names);

	*names = NIL;
	*exprs = NIL;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		char	   *name = target->resname;

		if (target->resjunk)
			continue;
		if (given != NULL)
		{
			name = strVal(lfirst(given));
			given = lnext(given_names, given);
		}
		*names = lappend(*names, makeString(pstrdup(name)));
		*exprs = lappend(*exprs, target->expr);
	}
	if (given != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("too many column names were specified")));
}

static bool
same_type(Form_pg_attribute att, const ColumnDef *column)
{
	return att->atttypid == column->typeName->typeOid &&
		att->atttypmod == column->typeName->typemod &&
		att->attcollation == column->collOid;
}

/* Does the query begin with columns of the result's types? */
static bool
begins_alike(TupleDesc tupdesc, List *columns)
{
	ListCell   *lc = list_head(columns);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (TupleDescAttr(tupdesc, i)->attisdropped)
			continue;
		if (lc == NULL || !same_type(TupleDescAttr(tupdesc, i), lfirst_node(ColumnDef, lc)))
			return false;
		lc = lnext(columns, lc);
	}
	return true;
}

/* ERROR if something reads the column, or is an index over it that is not ours. */
static void
check_unused(Relation rel, Form_pg_attribute att)
{
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(RelationGetRelid(rel)), false);
	md_sql_arg(&args, INT4OID, Int32GetDatum(att->attnum), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(md_row_index_find(RelationGetRelid(rel))), false);
	md_view_sql_begin(&saved);
	if (md_sql_run("SELECT CASE WHEN v.relid IS NOT NULL THEN 'materialized view ' || v.relid::regclass"
				   "            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END"
				   "  FROM pg_depend d"
				   "       LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid"
				   "       LEFT JOIN medallion.view v ON v.definition = r.ev_class"
				   "       LEFT JOIN medallion.view o ON o.relid = d.refobjid"
				   "       LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid"
				   " WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.refobjsubid = $2"
				   "   AND (d.deptype = 'n' OR i.relkind = 'i')"
				   "   AND i.oid IS DISTINCT FROM $3"
				   "   AND coalesce(i.relname NOT IN (o.merge_index, coalesce(o.key_index, o.merge_index)), true)"
				   " ORDER BY 1 LIMIT 1", &args, snapshot) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop or retype column \"%s\" of materialized view \"%s\"",
						NameStr(att->attname), RelationGetRelationName(rel)),
				 errdetail("It is used by %s.", md_sql_string(0, 1)),
				 errhint("The new query can give the column as it is, of type %s, with a cast perhaps; or drop what uses it first.",
						 format_type_with_typemod(att->atttypid, att->atttypmod))));
	md_view_sql_end(&saved);
	UnregisterSnapshot(snapshot);
}

static AlterTableCmd *
make_command(AlterTableType subtype, const char *name, Node *def)
{
	AlterTableCmd *command = makeNode(AlterTableCmd);

	command->subtype = subtype;
	command->name = name ? pstrdup(name) : NULL;
	command->def = def;
	command->behavior = DROP_RESTRICT;
	return command;
}

static void
drop_column(MdColumnChange *change, Relation rel, Form_pg_attribute att)
{
	check_unused(rel, att);
	change->commands = lappend(change->commands,
							   make_command(AT_DropColumn, NameStr(att->attname), NULL));
	change->lost = bms_add_member(change->lost, att->attnum);
	change->layout = lappend(change->layout, NULL);
}

/* A column stays, perhaps with another type. */
static void
keep_column(MdColumnChange *change, Relation rel, Form_pg_attribute att, ColumnDef *column)
{
	column->colname = pstrdup(NameStr(att->attname));
	change->layout = lappend(change->layout, column);
	change->names = lappend(change->names, makeString(column->colname));
	change->columns = lappend(change->columns, column);
	if (!same_type(att, column))
	{
		ColumnDef  *def = copyObject(column);

		check_unused(rel, att);
		/* there are no rows to convert */
		def->cooked_default = (Node *) makeNullConst(column->typeName->typeOid,
													 column->typeName->typemod, column->collOid);
		change->commands = lappend(change->commands,
								   make_command(AT_AlterColumnType, column->colname, (Node *) def));
		change->lost = bms_add_member(change->lost, att->attnum);
	}
}

static void
report_order(Relation rel, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("cannot move column \"%s\" of materialized view \"%s\"", name,
					RelationGetRelationName(rel)),
			 errhint("The new query must give the columns that stay in their old order, and new ones after them.")));
}

MdColumnChange *
md_view_columns_compare(Oid relid, Query *query)
{
	MdColumnChange *change = palloc0(sizeof(MdColumnChange));
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	tupdesc = RelationGetDescr(rel);
	List	   *names;
	List	   *exprs;
	List	   *columns;
	ListCell   *lc;
	bool		alike;

	md_view_output_columns(query, NIL, &names, &exprs);
	columns = md_relation_columns(names, exprs);
	alike = begins_alike(tupdesc, columns);
	lc = list_head(columns);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped)
			change->layout = lappend(change->layout, NULL);
		else if (lc != NULL &&
				 (alike || strcmp(lfirst_node(ColumnDef, lc)->colname, NameStr(att->attname)) == 0))
		{
			keep_column(change, rel, att, lfirst_node(ColumnDef, lc));
			lc = lnext(columns, lc);
		}
		else
			drop_column(change, rel, att);
	}
	for (; lc != NULL; lc = lnext(columns, lc))
	{
		ColumnDef  *column = lfirst_node(ColumnDef, lc);
		AttrNumber	attnum = get_attnum(relid, column->colname);

		/* one that was passed over, as it stands elsewhere */
		if (attnum > 0 && bms_is_member(attnum, change->lost))
			report_order(rel, column->colname);
		change->commands = lappend(change->commands, make_command(AT_AddColumn, NULL, (Node *) column));
		change->names = lappend(change->names, makeString(column->colname));
		change->columns = lappend(change->columns, column);
		change->layout = lappend(change->layout, column);
	}
	table_close(rel, NoLock);
	return change;
}

void
md_view_columns_change(Oid relid, const MdColumnChange *change)
{
	AlterTableStmt *stmt = makeNode(AlterTableStmt);
	AlterTableUtilityContext context = {0};

	if (change->commands == NIL)
		return;
	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(relid)),
								  get_rel_name(relid), -1);
	stmt->cmds = copyObject(change->commands);
	stmt->objtype = OBJECT_TABLE;
	/* AlterTableInternal() cannot change types */
	context.queryString = "";
	context.relid = relid;
	AlterTable(stmt, AccessExclusiveLock, &context);
	CommandCounterIncrement();
}
