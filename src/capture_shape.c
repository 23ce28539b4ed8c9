/*
 * capture_shape.c
 *		Is the capture of a relation as it was set up?
 *
 * Nobody need tell us of what goes on: everything that capture relies on (the
 * columns that the log mirrors, the set of partitions, our triggers and
 * whether they fire) is put into one number, which is stored at the time of
 * setting up.  Another number means that changes may have been missed, and the
 * readers of the relation start anew.  A trigger counts with the transaction
 * that last wrote its row, so one that was disabled and enabled again is told
 * apart from one that was never touched.
 *
 * A refresh that finds nothing new compares the number, so it is kept in this
 * process until the relation cache hears of a change of a member.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "capture.h"

/* The shape of one relation, as this process last saw it. */
typedef struct KnownShape
{
	Oid			relid;			/* key */
	bool		valid;
	uint64		changes;		/* counts what was heard of it */
	int64		shape;
	List	   *members;		/* of Oid, in CacheMemoryContext */
} KnownShape;

static HTAB *known_shapes = NULL;

/* A relation changed (InvalidOid: any): shapes that it is part of are not known. */
static void
forget_shape(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	KnownShape *known;

	hash_seq_init(&status, known_shapes);
	while ((known = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || list_member_oid(known->members, relid))
		{
			known->valid = false;
			known->changes++;
		}
}

static KnownShape *
known_shape(Oid relid)
{
	KnownShape *known;
	bool		found;

	if (known_shapes == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(KnownShape)};

		known_shapes = hash_create("shapes of captured relations", 64, &control,
								   HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(forget_shape, (Datum) 0);
	}
	known = hash_search(known_shapes, &relid, HASH_ENTER, &found);
	if (!found)
	{
		known->valid = false;
		known->changes = 0;
		known->members = NIL;
	}
	return known;
}

Oid
md_capture_function(void)
{
	List	   *name = list_make2(makeString("medallion"), makeString("capture_change"));

	return LookupFuncName(name, 0, NULL, true);
}

List *
md_capture_members(Oid relid)
{
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		return find_all_inheritors(relid, NoLock, NULL);
	return list_make1_oid(relid);
}

/* The root that a trigger of ours names in its argument. */
static Oid
trigger_root(Relation triggers, HeapTuple tuple)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, Anum_pg_trigger_tgargs,
									 RelationGetDescr(triggers), &isnull);

	if (isnull || ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs != 1)
		return InvalidOid;
	return atooid(VARDATA_ANY(DatumGetByteaPP(value)));
}

/*
 * Walk our triggers on a member: those of root (InvalidOid: of any), as a list
 * of their oids or of their roots, and as a fingerprint that is carried on.
 */
static List *
walk_triggers(Oid root, Oid member, bool want_roots, uint64 *shape)
{
	Oid			function = md_capture_function();
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key[1];
	HeapTuple	tuple;
	List	   *found = NIL;

	ScanKeyInit(&key[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(member));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		Oid			of;

		if (form->tgfoid != function)
			continue;
		of = trigger_root(triggers, tuple);
		if (OidIsValid(root) && of != root)
			continue;
		found = want_roots ? list_append_unique_oid(found, of) : lappend_oid(found, form->oid);
		if (shape != NULL)
		{
			*shape = hash_combine64(*shape, form->oid);
			*shape = hash_combine64(*shape, form->tgenabled);
			*shape = hash_combine64(*shape, HeapTupleHeaderGetRawXmin(tuple->t_data));
		}
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return found;
}

List *
md_capture_triggers(Oid root, Oid member)
{
	return walk_triggers(root, member, false, NULL);
}

List *
md_capture_roots(Oid member)
{
	return walk_triggers(InvalidOid, member, true, NULL);
}

/* Is one of these relations the target of a subscription? */
static bool
is_subscribed(List *members)
{
	Relation	subscribed = table_open(SubscriptionRelRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(subscribed, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = list_member_oid(members, ((Form_pg_subscription_rel) GETSTRUCT(tuple))->srrelid);
	systable_endscan(scan);
	table_close(subscribed, AccessShareLock);
	return found;
}

/*
 * A statement on a parent changes rows of its children and fires triggers of
 * the parent alone; logical replication applies rows without a statement.
 */
bool
md_capture_needs_rows(List *members)
{
	return has_superclass(linitial_oid(members)) || is_subscribed(members);
}

static uint64
columns_shape(Oid relid, uint64 shape)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		shape = hash_combine64(shape, att->attisdropped ? 0 : att->atttypid);
		shape = hash_combine64(shape, att->attgenerated);
	}
	shape = hash_combine64(shape, rel->rd_rel->relpersistence);
	/* children of a plain table are read with it, and written without it */
	shape = hash_combine64(shape, rel->rd_rel->relkind == RELKIND_RELATION &&
						   rel->rd_rel->relhassubclass);
	table_close(rel, AccessShareLock);
	return shape;
}

/* Look at the relation as it is now. */
static void
learn_shape(KnownShape *known)
{
	List	   *members = md_capture_members(known->relid);
	uint64		changes;
	uint64		shape;
	MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);
	ListCell   *lc;

	list_free(known->members);
	known->members = NIL;
	known->members = list_copy(members);
	MemoryContextSwitchTo(old);
	changes = known->changes;
	shape = columns_shape(known->relid, 1);
	foreach(lc, members)
	{
		shape = hash_combine64(shape, lfirst_oid(lc));
		(void) walk_triggers(known->relid, lfirst_oid(lc), false, &shape);
	}
	known->shape = (int64) shape;
	/* not if something was heard meanwhile */
	known->valid = known->changes == changes;
}

int64
md_capture_shape(Oid relid)
{
	KnownShape *known = known_shape(relid);

	if (!known->valid)
		learn_shape(known);
	return known->shape;
}

bool
md_capture_is_intact(const MdCapture *capture)
{
	return md_capture_shape(capture->relid) == capture->shape &&
		(capture->by_row || !md_capture_needs_rows(known_shape(capture->relid)->members));
}

bool
md_capture_triggers_fire(Oid root, Oid member)
{
	Oid			function = md_capture_function();
	Relation	rel = table_open(member, AccessShareLock);
	int			always = 0;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == function && trigger->tgnargs == 1 &&
			atooid(trigger->tgargs[0]) == root)
			always += trigger->tgenabled == TRIGGER_FIRES_ALWAYS ? 1 : -100;
	}
	table_close(rel, AccessShareLock);
	return always > 0;
}

char *
md_capture_what_broke(const MdCapture *capture)
{
	List	   *members = md_capture_members(capture->relid);
	ListCell   *lc;

	if (!capture->by_row && md_capture_needs_rows(members))
		return "it became the target of a subscription, or a child table";
	if (!OidIsValid(md_log_current(capture->relid)))
		return "its change log is gone";
	if (!md_capture_triggers_fire(capture->relid, capture->relid))
		return "its triggers were disabled";
	foreach(lc, members)
		if (md_capture_triggers(capture->relid, lfirst_oid(lc)) == NIL)
			return "a partition was added";
		else if (!md_capture_triggers_fire(capture->relid, lfirst_oid(lc)))
			return "triggers of a partition were disabled";
	return "its columns, partitions or triggers were changed";
}
