/*
 * frontier_captured.c
 *		What is new in a captured relation, and what it was before.
 */
#include "postgres.h"

#include "access/table.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "capture.h"
#include "frontier.h"
#include "frontier_captured.h"
#include "refresh_read.h"
#include "refresh_target.h"

/* Changes of a captured relation. */
void
md_frontier_captured_delta(MdSource *source, Snapshot snapshot, MdDelta *delta)
{
	char	   *obstacle;

	if (pg_class_aclcheck(source->relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(source->relid));
	if (!source->changed)
	{
		delta->condition = "false";
		delta->rows = 0;
		return;
	}
	obstacle = md_captured_obstacle(source->relid, source->read_frontier, source->frontier, snapshot);
	if (obstacle != NULL)
	{
		delta->why_full = psprintf("%s %s", md_read_relation_name(source->relid), obstacle);
		return;
	}
	delta->is_signed = true;
	delta->store_name = psprintf("medallion_change_%u", source->relid);
	delta->store = md_captured_changes(source->relid, source->read_frontier, source->frontier,
									   snapshot, &delta->store_desc, &delta->only_came);
	delta->rows = tuplestore_tuple_count(delta->store);
	delta->query = psprintf("SELECT * FROM %s", delta->store_name);
}

/* Its state at the last refresh cannot be told. */
void
md_frontier_report_unknown(Oid relid, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot tell what \"%s\" was at the last refresh", get_rel_name(relid)),
			 errdetail("%s", detail),
			 errhint("Refresh the view that reads it first.")));
}

/*
 * The present rows and the changes since, with the sign turned: what adds up to
 * one or more was there.  Columns without equality are compared by their text.
 */
static char *
captured_old_query(Oid relid, const char *store_name)
{
	MdTarget   *target = md_target_make(relid);
	char	   *columns = md_target_columns(target, NULL, NIL);
	Relation	rel = table_open(relid, AccessShareLock);
	StringInfoData output;
	int			number = 0;

	initStringInfo(&output);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		if (i > 0)
			appendStringInfoString(&output, ", ");
		if (TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			appendStringInfo(&output, "NULL::pg_catalog.int4 AS \"?dropped%d?\"", i + 1);
		else
		{
			const MdTargetColumn *column = &target->columns[number++];

			appendStringInfo(&output, column->comparable ? "u.c%d AS %s" :
							 "u.c%d::pg_catalog.text::%s AS %s", number,
							 column->comparable ? column->name : column->type, column->name);
		}
	}
	table_close(rel, NoLock);
	return psprintf("SELECT %s FROM"
					" (SELECT %s, pg_catalog.sum(x.w)::pg_catalog.int8 AS n"
					"    FROM (SELECT %s, 1::pg_catalog.int8 FROM %s UNION ALL SELECT %s, - md_weight FROM %s) x(%s, w)"
					"   GROUP BY %s HAVING pg_catalog.sum(x.w) > 0) u(%s, n),"
					" pg_catalog.generate_series(1, u.n)",
					output.data,
					md_target_numbered_comparable(target, "x", NIL),
					columns, md_read_relation_name(relid), columns, store_name,
					md_target_numbered(target, NULL, NIL),
					md_target_same(target, "x", true),
					md_target_numbered(target, NULL, NIL));
}

bool
md_frontier_captured_read_part(MdSource *source, Snapshot snapshot, MdPart *part)
{
	MdDelta		delta = {0};

	if (!source->changed)
		return false;
	md_frontier_captured_delta(source, snapshot, &delta);
	if (delta.why_full != NULL)
		md_frontier_report_unknown(source->relid, psprintf("Relation %s.", delta.why_full));
	part->store_name = delta.store_name;
	part->store = delta.store;
	part->store_desc = delta.store_desc;
	part->query = captured_old_query(source->relid, delta.store_name);
	return true;
}

void
md_frontier_prune(List *sources)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		MdSource   *source = lfirst(lc);

		if (source->is_captured && source->changed)
			md_log_prune(source->relid);
	}
}
