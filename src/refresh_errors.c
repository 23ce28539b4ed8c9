/*
 * refresh_errors.c
 *		Rows of sources that a view cannot be computed with: medallion.refresh_error.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "refresh_errors.h"
#include "refresh_read.h"
#include "row_fingerprint.h"
#include "sql_run.h"
#include "view_catalog.h"

/* ----------------------------------------------------------------------
 * Reading
 * ---------------------------------------------------------------------- */

/* Names in an array of text; the current context. */
static List *
names_of_array(Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	int			count;
	List	   *names = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		names = lappend(names, TextDatumGetCString(elements[i]));
	return names;
}

/* Has the source lost one of the columns? */
static bool
is_lost(const MdRefreshError *error)
{
	ListCell   *lc;

	foreach(lc, error->columns)
		if (get_attnum(error->source, lfirst(lc)) <= 0)
			return true;
	return false;
}

List *
md_errors_load(Oid view, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	List	   *errors = NIL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_view_sql_begin(&saved);
	rows = md_sql_run_cached(&plan,
							 "SELECT error_id, source::oid, identity_columns, fingerprint, copies, retry, row_tid"
							 "  FROM medallion.refresh_error WHERE relid = $1 ORDER BY source, error_id",
							 &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		MdRefreshError *error = palloc0(sizeof(MdRefreshError));
		bool		isnull;

		error->error_id = md_sql_int64(i, 1);
		error->source = DatumGetObjectId(md_sql_datum(i, 2, &isnull));
		error->columns = names_of_array(md_sql_datum(i, 3, &isnull));
		error->fingerprint = md_sql_string(i, 4);
		error->copies = md_sql_int64(i, 5);
		error->retry = md_sql_bool(i, 6);
		error->tid = error->stored_tid = md_sql_string(i, 7);
		error->lost = is_lost(error);
		error->partition = -1;
		errors = lappend(errors, error);
		MemoryContextSwitchTo(old);
	}
	md_view_sql_end(&saved);
	return errors;
}

static char *
copy_string(const char *string)
{
	return string ? pstrdup(string) : NULL;
}

List *
md_errors_copy(List *errors)
{
	List	   *copies = NIL;
	ListCell   *lc;

	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		MdRefreshError *copy = palloc(sizeof(MdRefreshError));
		ListCell   *name;

		*copy = *error;
		copy->columns = NIL;
		foreach(name, error->columns)
			copy->columns = lappend(copy->columns, pstrdup(lfirst(name)));
		copy->fingerprint = pstrdup(error->fingerprint);
		copy->topic = copy_string(error->topic);
		copy->tid = copy->stored_tid = copy_string(error->tid);
		if (error->row_data != NULL)
		{
			copy->row_data = palloc(VARSIZE(error->row_data));
			memcpy(copy->row_data, error->row_data, VARSIZE(error->row_data));
		}
		copy->sqlstate = copy_string(error->sqlstate);
		copy->message = copy_string(error->message);
		copy->detail = copy_string(error->detail);
		copy->context = copy_string(error->context);
		copies = lappend(copies, copy);
	}
	return copies;
}

int64
md_errors_count(List *errors)
{
	int64		rows = 0;
	ListCell   *lc;

	foreach(lc, errors)
		if (!((MdRefreshError *) lfirst(lc))->returns)
			rows += ((MdRefreshError *) lfirst(lc))->copies;
	return rows;
}

/* ----------------------------------------------------------------------
 * As SQL
 * ---------------------------------------------------------------------- */

static char *
column_list(List *columns)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, columns)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", quote_identifier(lfirst(lc)));
	return list.data;
}

char *
md_errors_fingerprint(List *columns)
{
	return psprintf(MD_ROW_FINGERPRINT "(%s)", column_list(columns));
}

bool
md_errors_same_columns(List *a, List *b)
{
	ListCell   *x;
	ListCell   *y;

	if (list_length(a) != list_length(b))
		return false;
	forboth(x, a, y, b)
		if (strcmp(lfirst(x), lfirst(y)) != 0)
			return false;
	return true;
}

bool
md_errors_same_kind(const MdRefreshError *a, const MdRefreshError *b)
{
	return a->source == b->source && md_errors_same_columns(a->columns, b->columns);
}

/* not_quarantined() of those with the same columns as `first`. */
static char *
one_condition(List *errors, const MdRefreshError *first, bool returning)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);

		if (error->source == first->source && error->returns == returning && !error->lost &&
			md_errors_same_columns(error->columns, first->columns))
			appendStringInfo(&list, "%s%s", list.len > 0 ? "," : "", error->fingerprint);
	}
	return psprintf(MD_NOT_QUARANTINED "('{%s}'::pg_catalog.uuid[], %s)", list.data,
					column_list(first->columns));
}

/* The conditions of all sets of columns, joined by AND; NULL: there are none. */
static char *
all_conditions(List *errors, Oid source, bool returning)
{
	StringInfoData sql;
	List	   *done = NIL;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);
		ListCell   *other;
		bool		known = false;

		if (error->source != source || error->returns != returning || error->lost)
			continue;
		foreach(other, done)
			known |= md_errors_same_columns(lfirst(other), error->columns);
		if (known)
			continue;
		done = lappend(done, error->columns);
		appendStringInfo(&sql, "%s%s", sql.len > 0 ? " AND " : "",
						 one_condition(errors, error, returning));
	}
	return sql.len > 0 ? sql.data : NULL;
}

char *
md_errors_condition(List *errors, Oid source)
{
	return all_conditions(errors, source, false);
}

char *
md_errors_return_condition(List *errors, Oid source)
{
	char	   *others = all_conditions(errors, source, true);

	return others != NULL ? psprintf("NOT (%s)", others) : NULL;
}

char *
md_errors_return_tids(List *errors, Oid source)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);

		if (error->source != source || !error->returns || error->lost)
			continue;
		if (error->tid == NULL)
			return NULL;
		appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? "," : "", error->tid);
	}
	if (list.len == 0)
		return NULL;
	return psprintf("ctid OPERATOR(pg_catalog.=) ANY ('{%s}'::pg_catalog.tid[]) AND %s", list.data,
					md_errors_return_condition(errors, source));
}

List *
md_errors_parts(List *errors)
{
	List	   *parts = NIL;
	List	   *sources = NIL;
	ListCell   *lc;

	foreach(lc, errors)
		sources = list_append_unique_oid(sources, ((MdRefreshError *) lfirst(lc))->source);
	foreach(lc, sources)
	{
		char	   *condition = md_errors_condition(errors, lfirst_oid(lc));
		MdPart	   *part;

		if (condition == NULL)
			continue;
		part = palloc0(sizeof(MdPart));
		part->relid = lfirst_oid(lc);
		part->condition = condition;
		parts = lappend(parts, part);
	}
	return parts;
}

/* ----------------------------------------------------------------------
 * Writing
 * ---------------------------------------------------------------------- */

static void
text_arg(MdSqlArgs *args, const char *text)
{
	md_sql_arg(args, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static Datum
columns_datum(List *columns)
{
	Datum	   *elements = palloc(sizeof(Datum) * list_length(columns));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, columns)
		elements[count++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Where a record stands, as an array of text: there is a limit to arguments. */
static Datum
record_datum(const MdRefreshError *error)
{
	Datum		elements[3];
	bool		nulls[3] = {error->topic == NULL, error->partition < 0, error->partition < 0};
	int			dims[1] = {3};
	int			lower[1] = {1};

	if (!nulls[0])
		elements[0] = CStringGetTextDatum(error->topic);
	if (!nulls[1])
	{
		elements[1] = CStringGetTextDatum(psprintf("%d", error->partition));
		elements[2] = CStringGetTextDatum(psprintf(INT64_FORMAT, error->offset));
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, dims, lower, TEXTOID, -1, false,
											  TYPALIGN_INT));
}

/* One that was met before, and forgotten to be tried again, is the same. */
static void
store_new(Oid view, const MdRefreshError *error, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(error->source), false);
	md_sql_arg(&args, TEXTARRAYOID, columns_datum(error->columns), false);
	text_arg(&args, error->fingerprint);
	md_sql_arg(&args, INT8OID, Int64GetDatum(error->copies), false);
	md_sql_arg(&args, TEXTARRAYOID, record_datum(error), false);
	md_sql_arg(&args, JSONBOID, JsonbPGetDatum(error->row_data), error->row_data == NULL);
	text_arg(&args, error->sqlstate);
	text_arg(&args, error->message);
	text_arg(&args, error->detail);
	text_arg(&args, error->context);
	text_arg(&args, error->tid);
	md_sql_run_cached(&plan,
					  "INSERT INTO medallion.refresh_error AS e"
					  "       (relid, source, identity_columns, fingerprint, copies, kafka_topic,"
					  "        kafka_partition, kafka_offset, row_data, sqlstate, message, detail, context,"
					  "        row_tid)"
					  " VALUES ($1, $2, $3, $4::uuid, $5, $6[1], $6[2]::int, $6[3]::bigint,"
					  "         $7, $8, $9, $10, $11, $12::tid)"
					  " ON CONFLICT (relid, source, identity_columns, fingerprint) DO UPDATE"
					  "    SET copies = excluded.copies, sqlstate = excluded.sqlstate,"
					  "        message = excluded.message, detail = excluded.detail,"
					  "        context = excluded.context, row_tid = excluded.row_tid, retry = false,"
					  "        attempts = e.attempts + 1, tried_at = excluded.tried_at",
					  &args, snapshot);
}

static void
store_known(const MdRefreshError *error, Snapshot snapshot)
{
	static SPIPlanPtr delete_plan = NULL;
	static SPIPlanPtr update_plan = NULL;
	MdSqlArgs	args = {0};

	md_sql_arg(&args, INT8OID, Int64GetDatum(error->error_id), false);
	if (error->returns || error->lost || error->copies <= 0)
	{
		md_sql_run_cached(&delete_plan, "DELETE FROM medallion.refresh_error WHERE error_id = $1",
						  &args, snapshot);
		return;
	}
	md_sql_arg(&args, INT8OID, Int64GetDatum(error->copies), false);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(error->tried), false);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(error->again), false);
	text_arg(&args, error->tid);
	md_sql_arg(&args, BOOLOID, BoolGetDatum(error->tid != error->stored_tid), false);
	md_sql_run_cached(&update_plan,
					  "UPDATE medallion.refresh_error"
					  "   SET copies = $2, retry = $4, row_tid = $5::tid,"
					  "       attempts = attempts + $3::int,"
					  "       tried_at = CASE WHEN $3 THEN now() ELSE tried_at END"
					  " WHERE error_id = $1 AND (copies <> $2 OR retry <> $4 OR $3 OR $6)", &args, snapshot);
}

void
md_errors_store(Oid view, List *errors, Snapshot snapshot)
{
	MdSecurity	saved;
	ListCell   *lc;

	if (errors == NIL)
		return;
	md_view_sql_begin(&saved);
	/* those that go first: a row that is found again may be one of them */
	foreach(lc, errors)
		if (((MdRefreshError *) lfirst(lc))->error_id != 0)
			store_known(lfirst(lc), snapshot);
	foreach(lc, errors)
	{
		MdRefreshError *error = lfirst(lc);

		if (error->error_id == 0 && error->copies > 0)
			store_new(view, error, snapshot);
	}
	md_view_sql_end(&saved);
}

void
md_errors_move(Oid from, Oid to)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(to), false);
	md_view_sql_run("DELETE FROM medallion.refresh_error WHERE relid = $1", &args);
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(from), false);
	md_view_sql_run("UPDATE medallion.refresh_error SET relid = $1 WHERE relid = $2", &args);
}

int64
md_errors_retry(Oid view)
{
	MdSqlArgs	args = {0};
	int64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	rows = (int64) md_view_sql_run("UPDATE medallion.refresh_error SET retry = true WHERE relid = $1",
								   &args);
	/* there is something to do although no source has changed */
	if (rows > 0)
		md_view_sql_run("UPDATE medallion.view_state SET always_refresh = true WHERE relid = $1", &args);
	return rows;
}

void
md_errors_forget(Oid view)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	if (md_view_sql_run("DELETE FROM medallion.refresh_error WHERE relid = $1", &args) > 0)
		md_view_sql_run("UPDATE medallion.view_state SET populated = false WHERE relid = $1", &args);
}
