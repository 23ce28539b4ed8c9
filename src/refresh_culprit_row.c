/*
 * refresh_culprit_row.c
 *		What is kept of a row that a view cannot be computed with: what it is told
 *		by, where it is, and what was wrong.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "attempt.h"
#include "refresh_culprit_row.h"
#include "refresh_read.h"
#include "sql_run.h"
#include "view_catalog.h"

/* A row whose JSON is larger is kept without it. */
#define ROW_DATA_MAX_BYTES 65536

/* ----------------------------------------------------------------------
 * Columns that tell a row
 * ---------------------------------------------------------------------- */

typedef struct UsedColumns
{
	Oid			relid;
	List	   *levels;			/* of Query, innermost first */
	Bitmapset  *columns;		/* attribute numbers; 0: all */
} UsedColumns;

static bool
used_columns_walker(Node *node, UsedColumns *used)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Query	   *query;
		RangeTblEntry *rte;

		if ((int) var->varlevelsup >= list_length(used->levels))
			return false;
		query = list_nth(used->levels, var->varlevelsup);
		rte = rt_fetch(var->varno, query->rtable);
		if (rte->rtekind == RTE_RELATION && rte->relid == used->relid && var->varattno >= 0)
			used->columns = bms_add_member(used->columns, var->varattno);
		return false;
	}
	if (IsA(node, Query))
	{
		bool		result;

		used->levels = lcons(node, used->levels);
		result = query_tree_walker((Query *) node, used_columns_walker, used, QTW_IGNORE_JOINALIASES);
		used->levels = list_delete_first(used->levels);
		return result;
	}
	return expression_tree_walker(node, used_columns_walker, used);
}

List *
md_culprit_columns(Query *normal, Oid relid, bool *has_key)
{
	UsedColumns used = {relid, NIL, NULL};
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			constraint;
	Bitmapset  *key = get_primary_key_attnos(relid, false, &constraint);
	List	   *names = NIL;
	bool		all;

	(void) used_columns_walker((Node *) normal, &used);
	all = bms_is_empty(used.columns) || bms_is_member(0, used.columns);
	*has_key = key != NULL;
	for (int i = 1; i <= RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i - 1);

		if (!att->attisdropped &&
			(all || bms_is_member(i, used.columns) ||
			 bms_is_member(i - FirstLowInvalidHeapAttributeNumber, key)))
			names = lappend(names, pstrdup(NameStr(att->attname)));
	}
	table_close(rel, NoLock);
	return names;
}

/* Names of the columns with the position of a record; NULL: there is none such. */
typedef struct RecordColumns
{
	char	   *topic;
	char	   *partition;
	char	   *offset;
	char	   *only_topic;		/* of a table that reads one */
} RecordColumns;

static RecordColumns
load_record_columns(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	RecordColumns columns = {0};
	char	  **targets[] = {&columns.partition, &columns.offset, &columns.topic, &columns.only_topic};
	MdSqlArgs	args = {0};
	MdSecurity	saved;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_begin(&saved);
	md_sql_run_cached(&plan,
					  "SELECT a.attname::text, m.n::bigint"
					  "  FROM pg_attribute a"
					  "       LEFT JOIN medallion.stream_column c"
					  "              ON c.relid = a.attrelid AND c.column_name = a.attname,"
					  "       LATERAL (VALUES ('kafka_partition', 1), ('kafka_offset', 2),"
					  "                       ('kafka_topic', 3)) m(name, n)"
					  " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
					  "   AND coalesce(c.source_name, a.attname) = m.name"
					  " UNION ALL "
					  "SELECT s.topic, 4 FROM medallion.stream s WHERE s.relid = $1 AND s.topic NOT LIKE '^%'",
					  &args, snapshot);
	for (uint64 i = 0; i < SPI_processed; i++)
		*targets[md_sql_int64(i, 2) - 1] = MemoryContextStrdup(context, md_sql_string(i, 1));
	md_view_sql_end(&saved);
	return columns;
}

/* ----------------------------------------------------------------------
 * A row that was found
 * ---------------------------------------------------------------------- */

/* Where the record stands; false if the row in the store has no offset. */
static bool
read_position(MdRefreshError *error, List *values, Snapshot snapshot)
{
	RecordColumns columns = load_record_columns(error->source, snapshot);

	if (columns.partition == NULL || columns.offset == NULL)
		return false;
	md_sql_run(psprintf("SELECT %s, %s::pg_catalog.int8, %s FROM " MD_SUSPECTS,
						columns.topic ? quote_identifier(columns.topic) : "NULL",
						quote_identifier(columns.partition), quote_identifier(columns.offset)),
			   NULL, snapshot);
	if (md_sql_string(0, 3) == NULL || md_sql_string(0, 2) == NULL)
		return false;
	error->topic = columns.topic ? md_sql_string(0, 1) : columns.only_topic;
	error->partition = (int) md_sql_int64(0, 2);
	error->offset = md_sql_int64(0, 3);
	/* without a topic its values must do */
	error->columns = columns.topic ? list_make1(columns.topic) :
		columns.only_topic ? NIL : list_copy(values);
	error->columns = lappend(lappend(error->columns, columns.partition), columns.offset);
	return true;
}

typedef struct RowData
{
	Snapshot	snapshot;
	char	   *columns;
	Jsonb	   *result;
} RowData;

static void
read_row_data(void *arg)
{
	RowData    *data = arg;
	MemoryContext context = CurrentMemoryContext;
	Datum		value;
	bool		isnull;

	md_sql_run(psprintf("SELECT pg_catalog.to_jsonb(\"?row?\") FROM (SELECT %s FROM " MD_SUSPECTS ") \"?row?\"",
						data->columns), NULL, data->snapshot);
	value = md_sql_datum(0, 1, &isnull);
	if (!isnull && VARSIZE_ANY(DatumGetPointer(value)) <= ROW_DATA_MAX_BYTES)
	{
		Jsonb	   *json = DatumGetJsonbP(value);

		data->result = MemoryContextAlloc(context, VARSIZE(json));
		memcpy(data->result, json, VARSIZE(json));
	}
}

static char *
quoted_list(List *names)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, names)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", quote_identifier(lfirst(lc)));
	return list.data;
}

/* Where the row is, if there is only one in these blocks. */
static void
note_tid(MdRefreshError *error, BlockNumber from, BlockNumber to, Snapshot snapshot)
{
	md_sql_run(psprintf("SELECT ctid::pg_catalog.text FROM %s WHERE ctid OPERATOR(pg_catalog.>=) '(%u,0)'::pg_catalog.tid"
						" AND ctid OPERATOR(pg_catalog.<) '(%u,0)'::pg_catalog.tid"
						" AND %s OPERATOR(pg_catalog.=) '%s'::pg_catalog.uuid",
						md_read_relation_name(error->source), from, to,
						md_errors_fingerprint(error->columns), error->fingerprint),
			   NULL, snapshot);
	if (SPI_processed == 1)
		error->tid = md_sql_string(0, 1);
}

MdRefreshError *
md_culprit_row(Query *normal, const MdSuspects *suspects, BlockNumber from, BlockNumber to,
			   const ErrorData *reason, Snapshot snapshot)
{
	MdRefreshError *error = palloc0(sizeof(MdRefreshError));
	RowData		data = {snapshot, NULL, NULL};
	List	   *values;
	bool		has_key;

	error->source = suspects->relid;
	error->copies = 1;
	error->partition = -1;
	error->sqlstate = pstrdup(unpack_sql_state(reason->sqlerrcode));
	error->message = reason->message;
	error->detail = reason->detail;
	error->context = reason->context;

	values = md_culprit_columns(normal, error->source, &has_key);
	if (!suspects->is_stream || !read_position(error, values, snapshot))
		error->columns = values;
	md_sql_run(psprintf("SELECT %s FROM " MD_SUSPECTS, md_errors_fingerprint(error->columns)), NULL,
			   snapshot);
	error->fingerprint = md_sql_string(0, 1);
	data.columns = quoted_list(values);
	/* not every value has a form in JSON */
	if (md_attempt(read_row_data, &data) == NULL)
		error->row_data = data.result;
	if (to > 0)
		note_tid(error, from, to, snapshot);
	return error;
}
