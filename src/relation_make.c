/*
 * relation_make.c
 *		Making the tables and views that belong to a materialized view.
 *
 * The result belongs to its owner and lies where he wants it.  Definition and
 * state lie in medallion_def:
 *
 *		gold.daily  <--internal-- medallion_def."gold.daily"	 (view)
 *			^  ^------internal-- medallion_def."gold.daily state" (table)
 *			|						|
 *		 readers				 sources, by what a view depends on
 *
 * so that dropping a source is refused because of the result, and dropping the
 * result takes its parts along.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_trigger.h"
#include "catalog/toasting.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "commands/view.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "compat.h"
#include "refresh_read.h"
#include "relation_make.h"

#define GUARD_NAME "medallion_guard"

/*
 * In the room that is left on a page, a new version of a row of it finds its place, and
 * no index hears of it.
 */
#define FILLFACTOR_WITH_ROOM 90

void
md_relation_run_ddl(const char *sql)
{
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
	SPI_finish();
	md_catalog_restore_user(&saved);
	CommandCounterIncrement();
}

List *
md_relation_columns(List *names, List *exprs)
{
	List	   *columns = NIL;
	ListCell   *name;
	ListCell   *expr;

	forboth(name, names, expr, exprs)
	{
		Node	   *node = lfirst(expr);
		ColumnDef  *column = makeColumnDef(strVal(lfirst(name)), exprType(node),
										   exprTypmod(node), exprCollation(node));

		/* as CREATE TABLE AS says it */
		if (!OidIsValid(column->collOid) && type_is_collatable(exprType(node)))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_COLLATION),
					 errmsg("no collation was derived for column \"%s\" with collatable type %s",
							column->colname, format_type_be(exprType(node))),
					 errhint("Use the COLLATE clause to set the collation explicitly.")));
		columns = lappend(columns, column);
	}
	return columns;
}

IntoClause *
md_relation_with_room(IntoClause *like)
{
	IntoClause *room = like ? copyObject(like) : makeNode(IntoClause);
	ListCell   *lc;

	foreach(lc, room->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "fillfactor") == 0)
			return room;
	room->options = lappend(room->options,
							makeDefElem("fillfactor", (Node *) makeInteger(FILLFACTOR_WITH_ROOM), -1));
	return room;
}

Oid
md_relation_make_bare_table(RangeVar *name, List *columns, Oid owner, IntoClause *like)
{
	static MD_RELOPT_NAMESPACE validnsps[] = HEAP_RELOPT_NAMESPACES;
	CreateStmt *create = makeNode(CreateStmt);
	ObjectAddress address;
	Datum		toast_options;

	create->relation = name;
	create->tableElts = columns;
	create->oncommit = ONCOMMIT_NOOP;
	if (like != NULL)
	{
		create->options = like->options;
		create->tablespacename = like->tableSpaceName;
		create->accessMethod = like->accessMethod;
	}
	address = DefineRelation(create, RELKIND_RELATION, owner, NULL, NULL);
	CommandCounterIncrement();
	toast_options = transformRelOptions((Datum) 0, create->options, "toast", validnsps,
										true, false);
	(void) heap_reloptions(RELKIND_TOASTVALUE, toast_options, true);
	NewRelationCreateToastTable(address.objectId, toast_options);
	CommandCounterIncrement();
	return address.objectId;
}

Oid
md_relation_make_table(RangeVar *name, List *columns, Oid owner, IntoClause *like)
{
	Oid			relid = md_relation_make_bare_table(name, columns, owner, like);

	md_relation_guard(relid);
	/*
	 * Its columns may be NULL, so that no index can identify a row; without an
	 * identity no row can be changed while the table is in a publication, one of
	 * all tables, say.
	 */
	md_relation_run_ddl(psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", md_read_relation_name(relid)));
	return relid;
}

void
md_relation_guard(Oid relid)
{
	if (OidIsValid(get_trigger_oid(relid, GUARD_NAME, true)))
		return;
	md_relation_run_ddl(psprintf("CREATE TRIGGER " GUARD_NAME
					 " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
					 " FOR EACH STATEMENT EXECUTE FUNCTION medallion.guard_write()",
					 md_read_relation_name(relid)));
}

char *
md_relation_internal_name(Oid result, const char *suffix)
{
	Oid			namespace_id = get_namespace_oid("medallion_def", false);
	char	   *base = psprintf("%s.%s", get_namespace_name(get_rel_namespace(result)),
								get_rel_name(result));

	for (int n = 1;; n++)
	{
		char	   *tail = n == 1 ? pstrdup(suffix) : psprintf("%s %d", suffix, n);
		int			room = NAMEDATALEN - 1 - strlen(tail);
		char	   *name = psprintf("%.*s%s", pg_mbcliplen(base, strlen(base), room), base, tail);

		if (!OidIsValid(get_relname_relid(name, namespace_id)))
			return name;
	}
}

/* Copy a query, with the given names (of String) for its columns. */
static Query *
rename_columns(Query *query, List *names)
{
	Query	   *copy = copyObject(query);
	ListCell   *name = list_head(names);
	ListCell   *lc;

	foreach(lc, copy->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		target->resname = pstrdup(strVal(lfirst(name)));
		name = lnext(names, name);
	}
	return copy;
}

/*
 * The query is stored as it was analyzed for its owner.  It must not be parsed
 * again by the owner of the extension, who owns the view: constants are read
 * by input functions, and those of domains run functions that users write.
 */
Oid
md_relation_make_definition(Oid result, Query *query, List *columns, List *column_names)
{
	CreateStmt *create = makeNode(CreateStmt);
	ObjectAddress address;
	MdSecurity	saved;

	create->relation = makeRangeVar("medallion_def", md_relation_internal_name(result, ""), -1);
	create->tableElts = columns;
	create->oncommit = ONCOMMIT_NOOP;
	md_catalog_become_owner(&saved);
	address = DefineRelation(create, RELKIND_VIEW, GetUserId(), NULL, NULL);
	CommandCounterIncrement();
	StoreViewQuery(address.objectId, rename_columns(query, column_names), false);
	md_catalog_restore_user(&saved);
	CommandCounterIncrement();
	md_relation_attach(address.objectId, result);
	return address.objectId;
}

Oid
md_relation_make_state(Oid result, const char *suffix, List *columns, Oid owner, bool with_room)
{
	MdSecurity	saved;
	RangeVar   *name = makeRangeVar("medallion_def",
									md_relation_internal_name(result, suffix), -1);
	Oid			state;

	md_catalog_become_owner(&saved);
	state = md_relation_make_table(name, columns, owner, with_room ? md_relation_with_room(NULL) : NULL);
	md_catalog_restore_user(&saved);
	md_relation_attach(state, result);
	return state;
}

/* Are the columns of the index these, in any order? */
static bool
has_columns(Form_pg_index index, int count, const AttrNumber *attnums)
{
	if (index->indnkeyatts != count)
		return false;
	for (int i = 0; i < count; i++)
	{
		bool		found = false;

		for (int k = 0; k < count; k++)
			found |= index->indkey.values[k] == attnums[i];
		if (!found)
			return false;
	}
	return true;
}

/* Do columns equal each other in the index as they do for the query, by the equality of their type? */
static bool
has_usual_equality(Relation index)
{
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		AttrNumber	attnum = index->rd_index->indkey.values[i];
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(index->rd_index->indrelid, attnum, &type, &typmod, &collation);
		if (index->rd_indcollation[i] != collation ||
			index->rd_opfamily[i] != lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf)
			return false;
	}
	return true;
}

bool
md_relation_has_unique_index(Oid relid, Oid index_id, int count, const AttrNumber *attnums)
{
	Relation	index;
	bool		fits;

	if (!OidIsValid(index_id) || get_rel_relkind(index_id) != RELKIND_INDEX ||
		IndexGetRelation(index_id, true) != relid)
		return false;
	index = index_open(index_id, AccessShareLock);
	fits = index->rd_index->indisunique && index->rd_index->indisvalid &&
		index->rd_index->indimmediate && RelationGetIndexPredicate(index) == NIL && index->rd_index->indnullsnotdistinct &&
		has_columns(index->rd_index, count, attnums) && has_usual_equality(index);
	index_close(index, AccessShareLock);
	return fits;
}

Oid
md_relation_find_unique_index(Oid relid, int count, const AttrNumber *attnums)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
		if (!OidIsValid(found) &&
			md_relation_has_unique_index(relid, lfirst_oid(lc), count, attnums))
			found = lfirst_oid(lc);
	table_close(rel, NoLock);
	return found;
}

void
md_relation_make_named_index(Oid relid, const char *name, const char *definition)
{
	md_relation_run_ddl(psprintf("CREATE INDEX %s ON %s %s", quote_identifier(name),
					 md_read_relation_name(relid), definition));
}

Oid
md_relation_make_index(Oid relid, const char *suffix, const char *definition)
{
	Oid			namespace_id = get_rel_namespace(relid);
	char	   *name = ChooseRelationName(get_rel_name(relid), NULL, suffix, namespace_id, false);

	md_relation_make_named_index(relid, name, definition);
	return get_relname_relid(name, namespace_id);
}

Oid
md_relation_make_unique_index(Oid relid, int count, const AttrNumber *attnums)
{
	Oid			namespace_id = get_rel_namespace(relid);
	char	   *name = ChooseRelationName(get_rel_name(relid), NULL, "medallion_key",
										  namespace_id, false);
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < count; i++)
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(relid, attnums[i], false)));
	md_relation_run_ddl(psprintf("CREATE UNIQUE INDEX %s ON %s (%s) NULLS NOT DISTINCT",
					 quote_identifier(name), md_read_relation_name(relid), columns.data));
	return get_relname_relid(name, namespace_id);
}

void
md_relation_attach(Oid part, Oid result)
{
	ObjectAddress part_address;
	ObjectAddress result_address;

	ObjectAddressSet(part_address, RelationRelationId, part);
	ObjectAddressSet(result_address, RelationRelationId, result);
	deleteDependencyRecordsForSpecific(RelationRelationId, part, DEPENDENCY_INTERNAL,
									   RelationRelationId, result);
	recordDependencyOn(&part_address, &result_address, DEPENDENCY_INTERNAL);
	CommandCounterIncrement();
}

void
md_relation_detach(Oid part)
{
	deleteDependencyRecordsForClass(RelationRelationId, part, RelationRelationId,
								   DEPENDENCY_INTERNAL);
	CommandCounterIncrement();
}

void
md_relation_drop_part(Oid part)
{
	ObjectAddress address;

	/* without the link, or dropping the part would want to drop the whole */
	ObjectAddressSet(address, RelationRelationId, part);
	md_relation_detach(part);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}
