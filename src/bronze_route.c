/*
 * bronze_route.c
 *		Rows of a partitioned table straight to the storage of its partitions.
 *
 *	  slice of rows -> ExecFindPartition() -> groups, one per partition -> table_multi_insert()
 *								|
 *								+-> rows that only INSERT can store: handed back
 *
 * What COPY FROM does for such a table.  Rows of a batch mostly belong to a few
 * partitions, so that a group is large; partitions are opened when the first
 * row comes for them, and stay open until the router is closed.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "bronze.h"
#include "bronze_route.h"
#include "compat.h"

/* Each keeps a buffer pinned: with more partitions than this, none does. */
#define MAX_BULK_INSERTS 32

/* A partition, found by its ResultRelInfo, and its rows of the slice under way. */
typedef struct Leaf
{
	ResultRelInfo *info;
	bool		direct;			/* straight to storage */
	TupleConversionMap *map;	/* from rows of the root; NULL: they fit */
	List	   *converted;		/* slots for such rows, of any slice */
	BulkInsertState bistate;
	List	   *rows;			/* of TupleTableSlot */
} Leaf;

struct MdBronzeRouter
{
	Relation	root;
	MemoryContext context;
	EState	   *estate;
	ResultRelInfo *root_info;
	ModifyTableState *mtstate;
	PartitionTupleRouting *routing;
	HTAB	   *leaves;
	int			n_bulk_inserts;
	Leaf	   *last_found;
	List	   *used;			/* leaves with rows */
};

MdBronzeRouter *
md_bronze_router_open(Relation root, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "bronze router", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MdBronzeRouter *router = palloc0(sizeof(MdBronzeRouter));
	HASHCTL		hash = {.keysize = sizeof(ResultRelInfo *),.entrysize = sizeof(Leaf),.hcxt = context};

	router->root = root;
	router->context = context;
	router->leaves = hash_create("partitions of a bronze table", 16, &hash,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	router->estate = CreateExecutorState();
	md_init_range_table(router->estate, root);
	router->root_info = makeNode(ResultRelInfo);
	InitResultRelInfo(router->root_info, root, 1, NULL, 0);

	/* as COPY has it: partition routing wants to be a part of an INSERT */
	router->mtstate = makeNode(ModifyTableState);
	router->mtstate->ps.state = router->estate;
	router->mtstate->operation = CMD_INSERT;
	router->mtstate->mt_nrels = 1;
	router->mtstate->resultRelInfo = router->root_info;
	router->mtstate->rootResultRelInfo = router->root_info;
	router->routing = ExecSetupPartitionTupleRouting(router->estate, root);
	MemoryContextSwitchTo(old);
	return router;
}

void
md_bronze_router_close(MdBronzeRouter *router)
{
	HASH_SEQ_STATUS scan;
	Leaf	   *leaf;
	ListCell   *lc;

	hash_seq_init(&scan, router->leaves);
	while ((leaf = hash_seq_search(&scan)) != NULL)
	{
		foreach(lc, leaf->converted)
			ExecDropSingleTupleTableSlot(lfirst(lc));
		if (leaf->bistate != NULL)
			FreeBulkInsertState(leaf->bistate);
		if (leaf->direct)
			table_finish_bulk_insert(leaf->info->ri_RelationDesc, 0);
	}
	ExecCleanupTupleRouting(router->mtstate, router->routing);
	ExecResetTupleTable(router->estate->es_tupleTable, false);
	FreeExecutorState(router->estate);
	MemoryContextDelete(router->context);
}

/* Triggers for each row, those of foreign keys among them, are INSERT's to fire. */
static bool
has_row_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (TRIGGER_FOR_ROW(triggers->triggers[i].tgtype))
			return true;
	return false;
}

static void
init_leaf(MdBronzeRouter *router, Leaf *leaf)
{
	Relation	rel = leaf->info->ri_RelationDesc;
	MemoryContext old = MemoryContextSwitchTo(router->context);

	leaf->direct = rel->rd_rel->relkind == RELKIND_RELATION && !has_row_triggers(rel);
	leaf->map = md_root_to_child_map(leaf->info, router->estate);
	leaf->converted = NIL;
	leaf->bistate = NULL;
	leaf->rows = NIL;
	if (!leaf->direct)
		md_bronze_constraints_immediate(rel);
	else if (router->n_bulk_inserts < MAX_BULK_INSERTS)
	{
		leaf->bistate = GetBulkInsertState();
		router->n_bulk_inserts++;
	}
	MemoryContextSwitchTo(old);
}

/* The partition that a row belongs to; ERROR if there is none. */
static Leaf *
find_leaf(MdBronzeRouter *router, TupleTableSlot *slot)
{
	ResultRelInfo *info = ExecFindPartition(router->mtstate, router->root_info, router->routing,
											slot, router->estate);
	bool		found;

	if (router->last_found == NULL || router->last_found->info != info)
	{
		router->last_found = hash_search(router->leaves, &info, HASH_ENTER, &found);
		if (!found)
			init_leaf(router, router->last_found);
	}
	return router->last_found;
}

/* Row number i of a group, as the partition has its columns. */
static TupleTableSlot *
convert_row(MdBronzeRouter *router, Leaf *leaf, int i)
{
	TupleTableSlot *slot = list_nth(leaf->rows, i);

	if (leaf->map == NULL)
		return slot;
	if (i == list_length(leaf->converted))
	{
		MemoryContext old = MemoryContextSwitchTo(router->context);

		leaf->converted = lappend(leaf->converted,
								  MakeSingleTupleTableSlot(RelationGetDescr(leaf->info->ri_RelationDesc),
														   &TTSOpsVirtual));
		MemoryContextSwitchTo(old);
	}
	return execute_attr_map_slot(leaf->map->attrMap, slot, list_nth(leaf->converted, i));
}

/* What ExecInsert does for a partition without triggers, for all rows of a group. */
static void
insert_group(MdBronzeRouter *router, Leaf *leaf)
{
	Relation	rel = leaf->info->ri_RelationDesc;
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	int			n = list_length(leaf->rows);
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);

	for (int i = 0; i < n; i++)
	{
		slots[i] = convert_row(router, leaf, i);
		slots[i]->tts_tableOid = RelationGetRelid(rel);
		if (constraints && constraints->has_generated_stored)
			ExecComputeStoredGenerated(leaf->info, router->estate, slots[i], CMD_INSERT);
		if (constraints)
			ExecConstraints(leaf->info, slots[i], router->estate);
	}
	table_multi_insert(rel, slots, n, GetCurrentCommandId(true), 0, leaf->bistate);
	for (int i = 0; i < n; i++)
	{
		if (leaf->info->ri_NumIndices > 0)
			list_free(md_insert_index_tuples(leaf->info, slots[i], router->estate));
		ResetPerTupleExprContext(router->estate);
	}
	/* the values go with the slice */
	if (leaf->map != NULL)
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
}

List *
md_bronze_router_insert(MdBronzeRouter *router, TupleTableSlot **slots, int n)
{
	List	   *others = NIL;
	ListCell   *lc;

	router->used = NIL;
	for (int i = 0; i < n; i++)
	{
		Leaf	   *leaf = find_leaf(router, slots[i]);

		ResetPerTupleExprContext(router->estate);
		if (!leaf->direct)
		{
			others = lappend(others, slots[i]);
			continue;
		}
		if (leaf->rows == NIL)
			router->used = lappend(router->used, leaf);
		leaf->rows = lappend(leaf->rows, slots[i]);
	}
	foreach(lc, router->used)
		insert_group(router, lfirst(lc));
	foreach(lc, router->used)
		((Leaf *) lfirst(lc))->rows = NIL;
	router->used = NIL;
	return others;
}
