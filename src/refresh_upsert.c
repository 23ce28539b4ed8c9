/*
 * refresh_upsert.c
 *		Rows into a table by their key: updated where the key is there.
 *
 * Keys are found through a unique index in which NULL equals NULL, by the functions of
 * refresh_upsert_direct.c, or by INSERT ... ON CONFLICT where rows that were written
 * are to be returned, or the table has triggers, say.  An entry of a btree has room for about 2,700 bytes.  When a key turns
 * out to be longer, the index is replaced by one over a hash of the key, which need
 * not be unique, and the statement becomes an UPDATE of rows that are found and an
 * INSERT of the others:
 *
 *		t.hash = new.hash AND ROW(t.keys)::record = ROW(new.keys)::record
 *
 * Whoever writes these tables holds the lock of the view, so nobody comes between.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/typcache.h"

#include "attempt.h"
#include "guard.h"
#include "refresh_upsert.h"
#include "refresh_upsert_direct.h"
#include "refresh_read.h"
#include "relation_make.h"
#include "sql_run.h"

/* ----------------------------------------------------------------------
 * Indexes
 * ---------------------------------------------------------------------- */

/* Is the index one of ours over a hash of the key? */
static bool
is_hash_index(Oid relid, Oid index_id)
{
	Relation	index;
	List	   *exprs;
	bool		is_hash;

	if (!OidIsValid(index_id) || get_rel_relkind(index_id) != RELKIND_INDEX)
		return false;
	index = index_open(index_id, AccessShareLock);
	exprs = RelationGetIndexExpressions(index);
	is_hash = index->rd_index->indrelid == relid && list_length(exprs) == 1 &&
		IsA(linitial(exprs), FuncExpr) &&
		((FuncExpr *) linitial(exprs))->funcid == F_HASH_RECORD_EXTENDED;
	index_close(index, AccessShareLock);
	return is_hash;
}

static Oid
find_hash_index(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
		if (!OidIsValid(found) && is_hash_index(relid, lfirst_oid(lc)))
			found = lfirst_oid(lc);
	table_close(rel, NoLock);
	return found;
}

/* Attribute numbers of column numbers. */
static AttrNumber *
attnums_of(const MdTarget *target, List *numbers)
{
	AttrNumber *attnums = palloc(sizeof(AttrNumber) * Max(1, list_length(numbers)));

	for (int i = 0; i < list_length(numbers); i++)
		attnums[i] = target->columns[list_nth_int(numbers, i) - 1].attnum;
	return attnums;
}

/* hash_record_extended(ROW(t.a, t.b), 0) */
static char *
key_hash(const char *list)
{
	return psprintf("pg_catalog.hash_record_extended(ROW(%s), 0)", list);
}

/* Can a key be longer than an entry of a btree, as far as its types tell? */
static bool
may_be_long(const MdTarget *target, List *keys)
{
	ListCell   *lc;

	foreach(lc, keys)
		if (get_typlen(target->columns[lfirst_int(lc) - 1].type_id) < 0)
			return true;
	return false;
}

/*
 * Run a function in a subtransaction; false if it failed because a key was too
 * long.
 */
bool
md_upsert_fits(void (*function) (void *), void *arg)
{
	return md_attempt_but_for(function, arg, ERRCODE_PROGRAM_LIMIT_EXCEEDED);
}

typedef struct IndexJob
{
	Oid			relid;
	int			count;
	AttrNumber *attnums;
	Oid			index_id;
} IndexJob;

static void
make_unique_index(void *arg)
{
	IndexJob   *job = arg;

	job->index_id = md_relation_make_unique_index(job->relid, job->count, job->attnums);
}

static bool
is_time(Oid type)
{
	Oid			base = getBaseType(type);

	return base == DATEOID || base == TIMESTAMPOID || base == TIMESTAMPTZOID;
}

/*
 * The keys as an index should have them: times first, in whose order most rows
 * come, so that what is new lies together in the index and not on every page of it.
 */
static List *
in_index_order(const MdTarget *target, List *keys)
{
	List	   *times = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, keys)
		if (is_time(target->columns[lfirst_int(lc) - 1].type_id))
			times = lappend_int(times, lfirst_int(lc));
		else
			others = lappend_int(others, lfirst_int(lc));
	return list_concat(times, others);
}

/* The unique index over the keys; InvalidOid: none. */
static Oid
find_unique_index(const MdTarget *target, List *keys)
{
	return md_relation_find_unique_index(target->relid, list_length(keys), attnums_of(target, keys));
}

static Oid
make_hash_index(const MdTarget *target, List *keys)
{
	return md_relation_make_index(target->relid, "medallion_key",
								  psprintf("(%s)", key_hash(md_target_columns(target, NULL, keys))));
}

static Oid
make_index(const MdTarget *target, List *keys, bool strict)
{
	IndexJob	job = {target->relid, list_length(keys),
	attnums_of(target, strict ? keys : in_index_order(target, keys)), InvalidOid};

	if (strict || !may_be_long(target, keys))
		make_unique_index(&job);
	else if (!md_upsert_fits(make_unique_index, &job))
		job.index_id = make_hash_index(target, keys);
	return job.index_id;
}

Oid
md_upsert_ensure_index(Oid relid, Oid present, List *keys, bool strict)
{
	MdTarget   *target = md_target_make(relid);
	AttrNumber *attnums = attnums_of(target, keys);

	if (keys != NIL &&
		((!strict && is_hash_index(relid, present)) ||
		 md_relation_has_unique_index(relid, present, list_length(keys), attnums)))
		return present;
	if (OidIsValid(present) && get_rel_relkind(present) != '\0')
		md_relation_drop_part(present);
	if (keys == NIL)
		return InvalidOid;
	/* one that the owner made serves too, and is not ours to drop */
	if (OidIsValid(md_relation_find_unique_index(relid, list_length(keys), attnums)))
		return InvalidOid;
	return make_index(target, keys, strict);
}

Oid
md_upsert_ensure_hash(Oid relid, Oid present, List *keys)
{
	if (keys != NIL && is_hash_index(relid, present))
		return present;
	if (OidIsValid(present) && get_rel_relkind(present) != '\0')
		md_relation_drop_part(present);
	return keys == NIL ? InvalidOid : make_hash_index(md_target_make(relid), keys);
}

/* Replace the unique index by one over a hash. */
static void
widen_index(const MdTarget *target, List *keys)
{
	Oid			index_id = find_unique_index(target, keys);
	char	   *name = pstrdup(get_rel_name(index_id));

	md_relation_drop_part(index_id);
	/* under the same name, by which the view's definition knows it */
	md_relation_make_named_index(target->relid, name,
								 psprintf("(%s)", key_hash(md_target_columns(target, NULL, keys))));
}

/* ----------------------------------------------------------------------
 * Statements
 * ---------------------------------------------------------------------- */

/* "OPERATOR(pg_catalog.=)", the equality that indexes of the type have. */
static char *
equal_operator(Oid type)
{
	Oid			operator = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;

	return md_read_operator(operator);
}

/* Rows of a whose key is the list `other`, by its hash and then by all of it; NULL meets NULL. */
char *
md_upsert_hash_match(const MdTarget *target, List *keys, const char *a, const char *other)
{
	char	   *list = md_target_columns(target, a, keys);

	return psprintf("%s = %s AND ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
					key_hash(list), key_hash(other), list, other);
}

char *
md_upsert_match(const MdTarget *target, List *keys, const char *a, const char *b,
				const char *const *b_names, bool null_keys)
{
	StringInfoData equal;
	StringInfoData any_null;
	StringInfoData list;
	int			number = 0;
	ListCell   *lc;
	char	   *match;

	if (keys == NIL)
		return null_keys ? "false" : "true";
	initStringInfo(&equal);
	initStringInfo(&any_null);
	initStringInfo(&list);
	foreach(lc, keys)
	{
		const char *name = target->columns[lfirst_int(lc) - 1].name;
		const char *b_name = b_names[number++];

		appendStringInfo(&equal, "%s%s.%s %s %s.%s", number > 1 ? " AND " : "", a, name,
						 equal_operator(target->columns[lfirst_int(lc) - 1].type_id), b, b_name);
		appendStringInfo(&any_null, "%s%s.%s IS NULL", number > 1 ? " OR " : "", b, b_name);
		appendStringInfo(&list, "%s%s.%s", number > 1 ? ", " : "", b, b_name);
	}
	match = psprintf("ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
					 md_target_columns(target, a, keys), list.data);
	if (md_upsert_is_hashed(target))
		return psprintf("%s AND %s(%s)", md_upsert_hash_match(target, keys, a, list.data),
						null_keys ? "" : "NOT ", any_null.data);
	if (null_keys)
		return psprintf("(%s) AND %s", any_null.data, match);
	return equal.data;
}

bool
md_upsert_has_null(const char *relation, const char *const *names, int count, Snapshot snapshot)
{
	StringInfoData sql;

	if (count == 0)
		return false;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT FROM %s WHERE", relation);
	for (int i = 0; i < count; i++)
		appendStringInfo(&sql, "%s %s IS NULL", i > 0 ? " OR" : "", names[i]);
	appendStringInfoString(&sql, " LIMIT 1");
	return md_sql_run(sql.data, NULL, snapshot) > 0;
}

/* "WHERE ..." or nothing. */
static char *
where_clause(const char *where)
{
	return where ? psprintf(" WHERE %s", where) : "";
}

/* The rows in the order of the index. */
static char *
ordered_rows_sql(const MdUpsert *upsert, Oid index_id)
{
	const MdTarget *target = upsert->target;
	Relation	index = index_open(index_id, AccessShareLock);
	List	   *numbers = md_target_numbers(target, list_length(upsert->keys), index->rd_index->indkey.values);
	StringInfoData order;
	ListCell   *lc;

	index_close(index, AccessShareLock);
	initStringInfo(&order);
	foreach(lc, numbers)
		appendStringInfo(&order, "%s%d", order.len > 0 ? ", " : "", lfirst_int(lc));
	return psprintf("SELECT * FROM (%s) d ORDER BY %s", upsert->rows, order.data);
}

/* INSERT ... ON CONFLICT, up to its RETURNING. */
static char *
conflict_sql(const MdUpsert *upsert)
{
	const MdTarget *target = upsert->target;

	return psprintf("INSERT INTO %s AS t (%s) %s ON CONFLICT (%s) DO %s",
					target->name, md_target_columns(target, NULL, NIL),
					ordered_rows_sql(upsert, find_unique_index(target, upsert->keys)),
					md_target_columns(target, NULL, upsert->keys),
					upsert->set == NULL ? "NOTHING" :
					psprintf("UPDATE SET %s%s", upsert->set, where_clause(upsert->where)));
}

/* The one row that there is. */
static char *
only_row_sql(const MdUpsert *upsert)
{
	return psprintf("UPDATE %s t SET %s FROM (%s) excluded(%s)%s", upsert->target->name,
					upsert->set, upsert->rows, md_target_columns(upsert->target, NULL, NIL),
					where_clause(upsert->where));
}

/* WITH of an UPDATE called u and an INSERT called n, by the hash of the key. */
static char *
hash_sql(const MdUpsert *upsert, const char *returning)
{
	const MdTarget *target = upsert->target;
	List	   *keys = upsert->keys;
	char	   *columns = md_target_columns(target, NULL, NIL);
	char	   *match = md_upsert_hash_match(target, keys, "t", md_target_columns(target, "excluded", keys));
	char	   *update = psprintf("SELECT %s FROM %s t WHERE false", returning, target->name);

	if (upsert->set != NULL)
		update = psprintf("UPDATE %s t SET %s FROM excluded WHERE %s%s%s%s RETURNING %s",
						  target->name, upsert->set, match, upsert->where ? " AND (" : "",
						  upsert->where ? upsert->where : "", upsert->where ? ")" : "", returning);
	return psprintf("WITH excluded(%s) AS MATERIALIZED (%s), u AS (%s),"
					" n AS (INSERT INTO %s AS t (%s) SELECT * FROM excluded WHERE NOT EXISTS"
					" (SELECT FROM %s t WHERE %s) RETURNING %s)",
					columns, upsert->rows, update, target->name, columns, target->name, match,
					returning);
}

/* A row that was inserted, not updated, has no xmax. */
#define WAS_INSERTED "t.xmax OPERATOR(pg_catalog.=) '0'::pg_catalog.xid"

bool
md_upsert_is_hashed(const MdTarget *target)
{
	return OidIsValid(find_hash_index(target->relid));
}

static bool
uses_hash(const MdUpsert *upsert)
{
	return upsert->keys != NIL && md_upsert_is_hashed(upsert->target);
}

/* Statement that gives the numbers of rows inserted and updated. */
static char *
counting_sql(const MdUpsert *upsert)
{
	if (upsert->keys == NIL)
		return psprintf("WITH w AS (%s RETURNING 1) SELECT 0::pg_catalog.int8, pg_catalog.count(*) FROM w",
						only_row_sql(upsert));
	if (uses_hash(upsert))
		return psprintf("%s SELECT (SELECT pg_catalog.count(*) FROM n), (SELECT pg_catalog.count(*) FROM u)",
						hash_sql(upsert, "1"));
	return psprintf("WITH w AS (%s RETURNING " WAS_INSERTED " AS inserted)"
					" SELECT pg_catalog.count(*) FILTER (WHERE w.inserted),"
					" pg_catalog.count(*) FILTER (WHERE NOT w.inserted) FROM w",
					conflict_sql(upsert));
}

/* Statement that gives the rows written. */
static char *
returning_sql(const MdUpsert *upsert, const char *returning)
{
	if (upsert->keys == NIL)
		return psprintf("%s RETURNING %s, false AS inserted", only_row_sql(upsert), returning);
	if (uses_hash(upsert))
		return psprintf("%s SELECT *, false AS inserted FROM u UNION ALL SELECT *, true FROM n",
						hash_sql(upsert, returning));
	return psprintf("%s RETURNING %s, " WAS_INSERTED " AS inserted", conflict_sql(upsert), returning);
}

typedef struct UpsertJob
{
	const MdUpsert *upsert;
	/* run */
	Snapshot	snapshot;
	MdRun	   *run;
	/* store */
	const char *returning;
	Tuplestorestate *store;
	TupleDesc	tupdesc;
} UpsertJob;

static void
run_job(void *arg)
{
	UpsertJob  *job = arg;
	const MdUpsert *upsert = job->upsert;
	Oid			index_id = upsert->keys == NIL ? InvalidOid : find_unique_index(upsert->target, upsert->keys);

	if (OidIsValid(index_id) &&
		md_upsert_directly(upsert, index_id, job->snapshot, job->run))
		return;
	md_sql_run(counting_sql(job->upsert), NULL, job->snapshot);
	job->run->rows_inserted += md_sql_int64(0, 1);
	job->run->rows_updated += md_sql_int64(0, 2);
}

static void
store_job(void *arg)
{
	UpsertJob  *job = arg;

	md_sql_write_into_store(returning_sql(job->upsert, job->returning), job->store, &job->tupdesc);
}

bool
md_upsert_try(const MdTarget *target, List *keys, void (*function) (void *), void *arg)
{
	Oid			guarded = md_guard_open(target->relid);
	bool		fits = true;

	/* the index over a hash that it may have beside is one of whole rows (row_index.c) */
	if (!may_be_long(target, keys) ||
		!OidIsValid(md_relation_find_unique_index(target->relid, list_length(keys),
												  attnums_of(target, keys))))
		function(arg);
	else if (!md_upsert_fits(function, arg))
	{
		fits = false;
		md_guard_open(target->relid);
		widen_index(target, keys);
	}
	md_guard_open(guarded);
	return fits;
}

/* Do the job; a key that is too long for the index costs a second try. */
static void
do_job(UpsertJob *job, void (*function) (void *))
{
	const MdTarget *target = job->upsert->target;
	Oid			guarded = md_guard_open(target->relid);

	if (!md_upsert_try(target, job->upsert->keys, function, job))
	{
		if (job->store != NULL)
			tuplestore_clear(job->store);
		function(job);
	}
	md_guard_open(guarded);
}

void
md_upsert_run(const MdUpsert *upsert, Snapshot snapshot, MdRun *run)
{
	UpsertJob	job = {.upsert = upsert, .snapshot = snapshot, .run = run};
	MdStepKind	step = md_step(&run->steps, MD_STEP_APPLY);

	do_job(&job, run_job);
	(void) md_step(&run->steps, step);
}

Tuplestorestate *
md_upsert_store(const MdUpsert *upsert, const char *returning, TupleDesc *tupdesc)
{
	UpsertJob	job = {.upsert = upsert, .returning = returning};

	job.store = tuplestore_begin_heap(true, false, work_mem);
	do_job(&job, store_job);
	*tupdesc = job.tupdesc;
	return job.store;
}
