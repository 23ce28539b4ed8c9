/*
 * guard.c
 *		The trigger that keeps direct writes away from our tables.
 *
 * Results of views are written by refreshes alone.  Streaming tables are
 * append-only, because views read only what was appended; a session that must
 * change history all the same (a legal deletion, say) sets
 * medallion.allow_direct_writes, and the trigger counts the change, so that
 * every view over the table is refreshed in full next time.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog.h"
#include "guard.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(md_guard_write);

static Oid	open_relid = InvalidOid;
static int	open_level;			/* of nested transactions, where it was opened */

/* Our own statements never span a boundary of a transaction. */
static void
close_at_end(XactEvent event, void *arg)
{
	open_relid = InvalidOid;
}

/*
 * Nor one of a subtransaction that fails: whoever caught the error is not us.
 * One inside of our statement, in a function that it calls, is none of ours.
 */
static void
close_at_subxact_abort(SubXactEvent event, SubTransactionId my_subid,
					   SubTransactionId parent_subid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && GetCurrentTransactionNestLevel() <= open_level)
		open_relid = InvalidOid;
}

Oid
md_guard_open(Oid relid)
{
	static bool registered = false;
	Oid			previous = open_relid;

	if (!registered)
	{
		RegisterXactCallback(close_at_end, NULL);
		RegisterSubXactCallback(close_at_subxact_abort, NULL);
		registered = true;
	}
	open_relid = relid;
	open_level = GetCurrentTransactionNestLevel();
	return previous;
}

bool
md_guard_is_trigger(const Trigger *trigger)
{
	char	   *function = get_func_name(trigger->tgfoid);

	return function != NULL && strcmp(function, "guard_write") == 0 &&
		get_func_namespace(trigger->tgfoid) == get_namespace_oid("medallion", true) &&
		TRIGGER_FOR_BEFORE(trigger->tgtype) && !TRIGGER_FOR_ROW(trigger->tgtype);
}

Datum
md_guard_write(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	rel;
	Oid			relid;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "guard_write")));
	rel = trigger->tg_relation;
	if (RelationGetRelid(rel) == open_relid)
		return PointerGetDatum(NULL);
	/* state that belongs to a result is written together with it */
	if (OidIsValid(open_relid) && RelationGetNamespace(rel) == get_namespace_oid("medallion_def", true))
		return PointerGetDatum(NULL);

	relid = RelationGetRelid(rel);
	if (rel->rd_rel->relispartition)
		relid = llast_oid(get_partition_ancestors(relid));
	if (md_catalog_stream(relid, CurrentMemoryContext) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot change materialized view \"%s\"", RelationGetRelationName(rel)),
				 errdetail("Its rows are written by refreshes alone."),
				 errhint("Change the tables that its query reads, or its query.")));
	if (!md_allow_direct_writes)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot change streaming table \"%s\" directly", RelationGetRelationName(rel)),
				 errdetail("It is append-only, and its rows come from Kafka."),
				 errhint("To change its history all the same, SET medallion.allow_direct_writes = on; views over it are then refreshed in full.")));
	md_catalog_history_changed(relid);
	return PointerGetDatum(NULL);
}
