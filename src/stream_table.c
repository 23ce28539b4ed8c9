/*
 * stream_table.c
 *		The table behind a streaming table: its columns, its guard.
 *
 * Columns are written as text and read by PostgreSQL's own parser, the user's
 * and ours alike, so that they mean what they mean in CREATE TABLE.  All DDL
 * runs as the caller.
 *
 * Metadata columns of a table that we create are NOT NULL where each record
 * has them; those added to a table with history are not, for its rows have
 * none.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "stream_table.h"

#define COLUMNS_PREFIX "CREATE TABLE columns ("

typedef struct MetadataColumn
{
	const char *name;
	const char *definition;		/* in a table that we create */
	const char *type;			/* in one that has history */
} MetadataColumn;

/* The metadata columns that every streaming table has, and one that reads by pattern. */
static const MetadataColumn metadata_columns[] = {
	{"kafka_partition", "kafka_partition pg_catalog.int4 NOT NULL", "pg_catalog.int4"},
	{"kafka_offset", "kafka_offset pg_catalog.int8 NOT NULL", "pg_catalog.int8"},
	{"kafka_timestamp", "kafka_timestamp pg_catalog.timestamptz", "pg_catalog.timestamptz"},
	{"ingested_at", "ingested_at pg_catalog.timestamptz NOT NULL", "pg_catalog.timestamptz"},
	/* last, for it is there where topics must be told apart */
	{"kafka_topic", "kafka_topic pg_catalog.text NOT NULL", "pg_catalog.text"},
};

static int
n_metadata_columns(bool is_pattern)
{
	return lengthof(metadata_columns) - (is_pattern ? 0 : 1);
}

/* What a table without columns of its own gets. */
static const char *const payload_columns[] = {
	[MD_FORMAT_RAW] = "kafka_key pg_catalog.bytea, payload pg_catalog.bytea, kafka_headers pg_catalog.jsonb",
	[MD_FORMAT_TEXT] = "kafka_key pg_catalog.text, payload pg_catalog.text, kafka_headers pg_catalog.jsonb",
	[MD_FORMAT_JSON] = "kafka_key pg_catalog.text, payload pg_catalog.jsonb, kafka_headers pg_catalog.jsonb",
};

char *
md_stream_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

Oid
md_stream_table_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
md_stream_table_check_owner(Oid relid)
{
	if (!md_relation_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/* Positions of errors in the list of columns point into that list. */
static void
columns_error_context(void *arg)
{
	const char *columns = arg;
	int			position = geterrposition();

	if (position > (int) strlen(COLUMNS_PREFIX))
	{
		errposition(0);
		internalerrposition(position - strlen(COLUMNS_PREFIX));
		internalerrquery(columns);
	}
}

/* Read a list of column definitions and constraints. */
static CreateStmt *
parse_columns(const char *columns, const char *query)
{
	List	   *statements = raw_parser(query, RAW_PARSE_DEFAULT);
	CreateStmt *stmt;

	if (list_length(statements) == 1 &&
		IsA(linitial_node(RawStmt, statements)->stmt, CreateStmt))
	{
		stmt = (CreateStmt *) linitial_node(RawStmt, statements)->stmt;
		if (stmt->inhRelations == NIL && stmt->options == NIL &&
			stmt->partspec == NULL && stmt->accessMethod == NULL &&
			stmt->tablespacename == NULL && stmt->oncommit == ONCOMMIT_NOOP)
			return stmt;
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("invalid list of columns: \"%s\"", columns),
			 errhint("Write it as between the parentheses of CREATE TABLE.")));
	return NULL;
}

/* The elements of a list of ours. */
static List *
own_columns(const char *columns)
{
	return parse_columns(columns, psprintf(COLUMNS_PREFIX "%s\n)", columns))->tableElts;
}

/* Does the list of elements define a column of that name, or may it? */
static bool
declares_column(List *elements, const char *name)
{
	ListCell   *lc;

	foreach(lc, elements)
	{
		Node	   *element = lfirst(lc);

		if (IsA(element, ColumnDef) && strcmp(((ColumnDef *) element)->colname, name) == 0)
			return true;
	}
	return false;
}

static void
refuse_clause(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a streaming table cannot be %s", what)));
}

void
md_stream_table_complete(CreateStmt *stmt, MdFormat format, bool is_pattern)
{
	bool		has_like = false;
	ListCell   *lc;

	if (stmt->relation->relpersistence == RELPERSISTENCE_TEMP)
		refuse_clause("temporary");
	if (stmt->relation->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_clause("unlogged");
	if (stmt->partbound != NULL)
		refuse_clause("a partition");
	if (stmt->inhRelations != NIL)
		refuse_clause("the child of another table");
	if (stmt->ofTypename != NULL)
		refuse_clause("a typed table");

	if (stmt->tableElts == NIL)
		stmt->tableElts = own_columns(payload_columns[format]);
	foreach(lc, stmt->tableElts)
		if (IsA(lfirst(lc), TableLikeClause))
			has_like = true;
	/* LIKE may bring any column: what is missing then is added afterwards */
	if (has_like)
		return;
	for (int i = 0; i < n_metadata_columns(is_pattern); i++)
		if (!declares_column(stmt->tableElts, metadata_columns[i].name))
			stmt->tableElts = list_concat(stmt->tableElts,
										  own_columns(metadata_columns[i].definition));
}

/* Run a statement of the caller's, as if it had been typed. */
static void
run_utility(Node *statement, const char *query)
{
	PlannedStmt *pstmt = makeNode(PlannedStmt);

	pstmt->commandType = CMD_UTILITY;
	pstmt->utilityStmt = statement;
	pstmt->stmt_location = -1;
	ProcessUtility(pstmt, query, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	CommandCounterIncrement();
}

Oid
md_stream_table_create(RangeVar *relation, const char *columns, MdFormat format, bool is_pattern)
{
	ErrorContextCallback context;
	const char *query = psprintf(COLUMNS_PREFIX "%s\n)", columns ? columns : "");
	CreateStmt *stmt;

	context.callback = columns_error_context;
	context.arg = unconstify(char *, columns ? columns : "");
	context.previous = error_context_stack;
	error_context_stack = &context;

	stmt = parse_columns(columns ? columns : "", query);
	if (columns != NULL && stmt->tableElts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the list of columns is empty"),
				 errhint("Pass NULL for a table of key, payload and headers.")));
	stmt->relation = relation;
	md_stream_table_complete(stmt, format, is_pattern);
	run_utility((Node *) stmt, query);

	error_context_stack = context.previous;
	return RangeVarGetRelid(relation, NoLock, false);
}

/* A statement as text, by the caller. */
static void
run_sql(const char *sql)
{
	int			rc = SPI_execute(sql, false, 0);

	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "could not run: %s", sql);
}

static void
refuse_table(Oid relid, int sqlstate, const char *why)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("table \"%s\" cannot become a streaming table", get_rel_name(relid)),
			 errdetail("%s", why)));
}

/* ERROR unless a table of this kind may be fed. */
static void
check_table(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (class->relkind != RELKIND_RELATION && class->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", NameStr(class->relname)),
				 errdetail_relkind_not_supported(class->relkind)));
	if (IsCatalogRelationOid(relid) ||
		class->relnamespace == get_namespace_oid("medallion", false) ||
		class->relnamespace == get_namespace_oid("medallion_def", false))
		refuse_table(relid, ERRCODE_INSUFFICIENT_PRIVILEGE, "It belongs to the system.");
	if (class->relpersistence == RELPERSISTENCE_TEMP)
		refuse_table(relid, ERRCODE_FEATURE_NOT_SUPPORTED, "It is temporary.");
	if (class->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_table(relid, ERRCODE_FEATURE_NOT_SUPPORTED,
					 "It is unlogged: after a crash its rows would be gone, and the offsets would not.");
	if (class->relispartition || has_superclass(relid) ||
		(class->relkind == RELKIND_RELATION && find_inheritance_children(relid, NoLock) != NIL))
		refuse_table(relid, ERRCODE_FEATURE_NOT_SUPPORTED,
					 "It is a partition, or part of an inheritance hierarchy.");
	ReleaseSysCache(tuple);
	if (md_stream_table_has_rules(relid))
		refuse_table(relid, ERRCODE_FEATURE_NOT_SUPPORTED,
					 "It has rules, which would put something else in the place of what is written to it.");
}

bool
md_stream_table_has_rules(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		has_rules = rel->rd_rules != NULL;

	table_close(rel, NoLock);
	return has_rules;
}

void
md_stream_table_guard(Oid relid)
{
	const char *table = md_stream_table_name(relid);

	SPI_connect();
	run_sql(psprintf("CREATE TRIGGER " MD_STREAM_GUARD
					 " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
					 " FOR EACH STATEMENT EXECUTE FUNCTION medallion.guard_write()", table));
	/* appliers of replication change history too, and must be counted */
	run_sql(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " MD_STREAM_GUARD, table));
	SPI_finish();
}

LOCKMODE
md_stream_table_lock_mode(Oid relid, bool is_pattern)
{
	for (int i = 0; i < n_metadata_columns(is_pattern); i++)
		if (get_attnum(relid, metadata_columns[i].name) == InvalidAttrNumber)
			return AccessExclusiveLock;
	return ShareRowExclusiveLock;
}

void
md_stream_table_prepare(Oid relid, bool is_pattern)
{
	check_table(relid);
	SPI_connect();
	for (int i = 0; i < n_metadata_columns(is_pattern); i++)
		if (get_attnum(relid, metadata_columns[i].name) == InvalidAttrNumber)
			run_sql(psprintf("ALTER TABLE %s ADD COLUMN %s %s", md_stream_table_name(relid),
							 metadata_columns[i].name, metadata_columns[i].type));
	SPI_finish();
	md_stream_table_guard(relid);
}

void
md_stream_table_depend(Oid relid, Oid server_id)
{
	ObjectAddress trigger;
	ObjectAddress server;

	if (!OidIsValid(get_trigger_oid(relid, MD_STREAM_GUARD, true)))
		md_stream_table_guard(relid);
	ObjectAddressSet(trigger, TriggerRelationId,
					 get_trigger_oid(relid, MD_STREAM_GUARD, false));
	ObjectAddressSet(server, ForeignServerRelationId, server_id);
	deleteDependencyRecordsForClass(TriggerRelationId, trigger.objectId,
									ForeignServerRelationId, DEPENDENCY_NORMAL);
	recordDependencyOn(&trigger, &server, DEPENDENCY_NORMAL);
	CommandCounterIncrement();
}
