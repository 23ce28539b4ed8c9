/*
 * refresh_exec_diff.c
 *		Making a table equal to a query by changing only what differs.
 *
 * Rows of the table (weight -1) and of the query (weight +1) are grouped by all
 * their columns; groups whose weights cancel are equal, and what is left are
 * the changes:
 *
 *		table:	a a b c				weights:  a -1, c -1, d +2
 *		query:	a b d d				->		  delete one a, the c; insert d twice
 *
 * Grouping takes NULL as equal to NULL, counts duplicates as SQL does, and is
 * planned as a hash or a sort, whichever fits.  Columns of types without
 * equality (json, point ...) are compared by their text.  The changes go to a
 * tuplestore, which the statements that apply them read as a relation.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"

#include "guard.h"
#include "refresh_exec.h"
#include "refresh_upsert.h"
#include "sql_run.h"

#define CHANGES "medallion_changes"

void
md_diff_register(const char *name, Tuplestorestate *store, TupleDesc tupdesc)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = tupdesc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(store);
	relation->reldata = store;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\"", name);
}

/* "u.c1, (u.c2::text)::json": what a group hands on of its columns. */
char *
md_diff_output(const MdTarget *target)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= target->count; i++)
	{
		const MdTargetColumn *column = &target->columns[i - 1];

		if (column->comparable)
			appendStringInfo(&list, "u.c%d, ", i);
		else
			appendStringInfo(&list, "(u.c%d::pg_catalog.text)::%s AS c%d, ", i, column->type, i);
	}
	return list.data;
}

char *
md_diff_sql(const MdTarget *target, const char *query, const char *where)
{
	char	   *columns = md_target_columns(target, NULL, NIL);
	char	   *condition = where ? psprintf(" WHERE (%s\n)", where) : "";

	return psprintf("SELECT %s pg_catalog.sum(u.w)::pg_catalog.int8 AS w, pg_catalog.min(u.tid) AS tid"
					"  FROM (SELECT %s, -1, ctid FROM %s%s"
					"        UNION ALL"
					"        SELECT %s, 1, NULL FROM (%s) q(%s)%s) u(%s, w, tid)"
					" GROUP BY %s HAVING pg_catalog.sum(u.w) <> 0",
					md_diff_output(target),
					columns, target->name, condition,
					columns, query, columns, condition,
					md_target_numbered(target, NULL, NIL),
					md_target_numbered_comparable(target, "u", NIL));
}

void
md_diff_fill(const MdTarget *target, const char *query, Snapshot snapshot, MdRun *run)
{
	Oid			guarded = md_guard_open(target->relid);

	run->rows_inserted +=
		md_sql_run(psprintf("INSERT INTO %s (%s) SELECT * FROM (%s) q", target->name,
							md_target_columns(target, NULL, NIL), query),
				   NULL, snapshot);
	md_guard_open(guarded);
}

/* Two rows of the query under one key: an error that says which. */
static void
check_unique(const MdTarget *target, List *keys, Snapshot snapshot)
{
	char	   *columns = md_target_numbered(target, "n", keys);

	if (md_sql_run(psprintf("SELECT ROW(%s)::pg_catalog.text FROM " CHANGES " n WHERE n.w > 0"
							" GROUP BY %s HAVING pg_catalog.sum(n.w) > 1 LIMIT 1", columns, columns),
				   NULL, snapshot) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("query of materialized view \"%s\" gives more than one row for a key",
						get_rel_name(target->relid)),
				 errdetail("Key (%s)=%s is not unique.", md_target_columns(target, NULL, keys),
						   md_sql_string(0, 1))));
}

/* Update rows whose key stays, delete and insert the others. */
static void
apply_by_key(const MdTarget *target, List *keys, Snapshot snapshot, MdRun *run)
{
	List	   *others = md_target_others(target, keys);
	char	   *same_key;

	check_unique(target, keys, snapshot);
	/* compared as records: NULL meets NULL, and a sort-merge join is possible */
	same_key = psprintf("ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record",
						md_target_numbered(target, "o", keys),
						md_target_numbered(target, "n", keys));
	run->rows_deleted +=
		md_sql_run(psprintf("DELETE FROM %s r USING " CHANGES " o WHERE o.w < 0 AND r.ctid = o.tid"
							"   AND NOT EXISTS (SELECT FROM " CHANGES " n WHERE n.w > 0 AND %s)",
							target->name, same_key), NULL, snapshot);
	if (others != NIL)
		run->rows_updated +=
			md_sql_run(psprintf("UPDATE %s r SET %s FROM " CHANGES " o, " CHANGES " n"
								" WHERE o.w < 0 AND n.w > 0 AND r.ctid = o.tid AND %s",
								target->name, md_target_assignments(target, others), same_key),
					   NULL, snapshot);
	run->rows_inserted +=
		md_sql_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM " CHANGES " n WHERE n.w > 0"
							"   AND NOT EXISTS (SELECT FROM " CHANGES " o WHERE o.w < 0 AND %s)",
							target->name, md_target_columns(target, NULL, NIL),
							md_target_numbered(target, "n", NIL), same_key),
				   NULL, snapshot);
}

/* Delete and insert copies of rows. */
static void
apply_by_row(const MdTarget *target, Snapshot snapshot, MdRun *run)
{
	run->rows_deleted +=
		md_sql_run(psprintf("DELETE FROM %s r USING " CHANGES " o WHERE o.w = -1 AND r.ctid = o.tid",
							target->name), NULL, snapshot);
	/* more copies than one: any of them, as many as are too many */
	if (md_sql_run("SELECT FROM " CHANGES " WHERE w < -1 LIMIT 1", NULL, snapshot) > 0)
		run->rows_deleted +=
			md_sql_run(psprintf("DELETE FROM %s WHERE ctid = ANY (ARRAY("
								"SELECT x.tid FROM (SELECT r.ctid AS tid, o.w,"
								"         pg_catalog.row_number() OVER (PARTITION BY o.tid) AS n"
								"    FROM %s r JOIN " CHANGES " o"
								"      ON ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record"
								"   WHERE o.w < -1) x WHERE x.n <= - x.w))",
								target->name, target->name,
								md_target_comparable(target, "r", NIL),
								md_target_numbered_comparable(target, "o", NIL)),
					   NULL, snapshot);
	run->rows_inserted +=
		md_sql_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM " CHANGES " n,"
							" pg_catalog.generate_series(1, n.w) WHERE n.w > 0",
							target->name, md_target_columns(target, NULL, NIL),
							md_target_numbered(target, "n", NIL)),
				   NULL, snapshot);
}

typedef struct ApplyJob
{
	const MdTarget *target;
	List	   *keys;
	Snapshot	snapshot;
	MdRun	   *run;
} ApplyJob;

static void
apply_job(void *arg)
{
	ApplyJob   *job = arg;

	if (job->keys != NIL && !job->target->by_row)
		apply_by_key(job->target, job->keys, job->snapshot, job->run);
	else
		apply_by_row(job->target, job->snapshot, job->run);
}

void
md_diff_apply_store(const MdTarget *target, Tuplestorestate *changes, TupleDesc tupdesc,
					List *keys, Snapshot snapshot, MdRun *run)
{
	ApplyJob	job = {target, keys, snapshot, run};
	MdRun		before;
	Oid			guarded;
	MdStepKind	step;

	if (tuplestore_tuple_count(changes) == 0)
		return;
	step = md_step(&run->steps, MD_STEP_APPLY);
	md_diff_register(CHANGES, changes, tupdesc);
	guarded = md_guard_open(target->relid);
	before = *run;
	/* a key that is too long for the index costs a second try */
	if (!md_upsert_try(target, target->index_keys, apply_job, &job))
	{
		*run = before;
		apply_job(&job);
	}
	md_guard_open(guarded);
	SPI_unregister_relation(CHANGES);
	(void) md_step(&run->steps, step);
}

void
md_diff_forget(void)
{
	(void) SPI_unregister_relation(CHANGES);
}

void
md_diff_apply(const MdTarget *target, const char *query, List *keys, const char *where,
			  Snapshot snapshot, MdRun *run)
{
	Tuplestorestate *changes;
	TupleDesc	tupdesc;

	changes = md_sql_run_into_store(md_diff_sql(target, query, where), snapshot, &tupdesc);
	md_diff_apply_store(target, changes, tupdesc, keys, snapshot, run);
	tuplestore_end(changes);
}
