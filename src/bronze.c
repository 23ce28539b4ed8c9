/*
 * bronze.c
 *		Stores rows into a streaming table.
 *
 *	  ordinary table, plain		straight to its storage
 *	  partitioned table, plain	straight to that of its partitions (bronze_route.c)
 *	  any other					INSERT, row by row
 *
 * Memory: the writer lives as long as one batch; row_context holds the values
 * of the buffered rows and what storage needs for them, and is reset with the
 * buffer (md_bronze_clear).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "bronze.h"
#include "bronze_route.h"
#include "compat.h"
#include "guard.h"

/* The bytes after which a slice is full. */
#define SLICE_BYTES (4 * 1024 * 1024)

struct MdBronze
{
	Relation	rel;
	TupleDesc	desc;
	MemoryContext context;
	MemoryContext row_context;
	bool		direct;			/* straight to storage; else by INSERT */
	bool		partitioned;
	MdBronzeRouter *router;		/* made at the first slice; NULL */
	EState	   *estate;
	ResultRelInfo *result_rel;
	BulkInsertState bistate;
	SPIPlanPtr	plan;			/* INSERT, prepared at the first row */
	int		   *plan_attnos;	/* its parameters' columns */
	int			n_plan_attnos;
	TupleTableSlot **slots;
	int			n_slots;		/* made so far */
	int			n_rows;
	Size		n_bytes;
	MdBronzeExtent extent;
};

/* Does the table have triggers besides our guard? */
static bool
has_foreign_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (!md_guard_is_trigger(&triggers->triggers[i]))
			return true;
	return false;
}

/* Can rows go straight to storage, with nothing skipped that INSERT does? */
static bool
can_insert_directly(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if ((rel->rd_rel->relkind != RELKIND_RELATION &&
		 rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) ||
		rel->rd_rel->relispartition || rel->rd_rules != NULL || rel->rd_rel->relforcerowsecurity ||
		has_foreign_triggers(rel))
		return false;
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attidentity != '\0')
			return false;
	return true;
}

/*
 * Check the table's deferred constraints with each row: a record must be found
 * bad while it can still be told from the others of its batch.
 */
void
md_bronze_constraints_immediate(Relation rel)
{
	ConstraintsSetStmt *stmt = makeNode(ConstraintsSetStmt);
	char	   *schema = get_namespace_name(RelationGetNamespace(rel));

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tginitdeferred && OidIsValid(trigger->tgconstraint))
			stmt->constraints = lappend(stmt->constraints,
										makeRangeVar(schema, get_constraint_name(trigger->tgconstraint), -1));
	}
	stmt->deferred = false;
	if (stmt->constraints != NIL)
		AfterTriggerSetState(stmt);
}

static void
bronze_on_reset(void *arg)
{
	MdBronze   *bronze = arg;

	/* the transaction that failed has released all but this */
	if (bronze->plan != NULL)
		SPI_freeplan(bronze->plan);
	bronze->plan = NULL;
	bronze->bistate = NULL;
	bronze->router = NULL;
	bronze->rel = NULL;
}

MdBronze *
md_bronze_open(Oid relid, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	MdBronze   *bronze = palloc0(sizeof(MdBronze));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	callback->func = bronze_on_reset;
	callback->arg = bronze;
	MemoryContextRegisterResetCallback(context, callback);

	bronze->context = context;
	bronze->row_context = AllocSetContextCreate(context, "bronze rows",
												ALLOCSET_DEFAULT_MINSIZE,
												1024 * 1024, 8 * 1024 * 1024);
	bronze->rel = table_open(relid, NoLock);
	/* what INSERT would say, whichever way rows take */
	if (pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(bronze->rel));
	bronze->desc = RelationGetDescr(bronze->rel);
	bronze->direct = can_insert_directly(bronze->rel);
	bronze->partitioned = bronze->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	bronze->slots = palloc0(sizeof(TupleTableSlot *) * MD_BRONZE_SLICE_ROWS);
	bronze->extent.has_blocks = bronze->rel->rd_rel->relkind == RELKIND_RELATION;
	bronze->extent.filenode = md_relation_filenode(bronze->rel);
	bronze->extent.first_block = InvalidBlockNumber;
	if (bronze->direct && !bronze->partitioned)
	{
		bronze->estate = CreateExecutorState();
		md_init_range_table(bronze->estate, bronze->rel);
		bronze->result_rel = makeNode(ResultRelInfo);
		InitResultRelInfo(bronze->result_rel, bronze->rel, 1, NULL, 0);
		ExecOpenIndices(bronze->result_rel, false);
		bronze->bistate = GetBulkInsertState();
	}
	else
		md_bronze_constraints_immediate(bronze->rel);
	MemoryContextSwitchTo(old);
	return bronze;
}

void
md_bronze_close(MdBronze *bronze)
{
	md_bronze_clear(bronze);
	for (int i = 0; i < bronze->n_slots; i++)
		ExecDropSingleTupleTableSlot(bronze->slots[i]);
	bronze->n_slots = 0;
	if (bronze->router != NULL)
		md_bronze_router_close(bronze->router);
	bronze->router = NULL;
	if (bronze->direct && !bronze->partitioned)
	{
		FreeBulkInsertState(bronze->bistate);
		table_finish_bulk_insert(bronze->rel, 0);
		ExecCloseIndices(bronze->result_rel);
		FreeExecutorState(bronze->estate);
	}
	if (bronze->plan != NULL)
		SPI_freeplan(bronze->plan);
	bronze->plan = NULL;
	table_close(bronze->rel, NoLock);
	bronze->rel = NULL;
}

MemoryContext
md_bronze_row_context(MdBronze *bronze)
{
	return bronze->row_context;
}

const MdBronzeExtent *
md_bronze_extent(MdBronze *bronze)
{
	if (bronze->extent.first_block == InvalidBlockNumber)
		bronze->extent.has_blocks = false;
	return &bronze->extent;
}

void
md_bronze_next_row(MdBronze *bronze, Datum **values, bool **isnull)
{
	TupleTableSlot *slot;

	if (bronze->n_rows == bronze->n_slots)
	{
		MemoryContext old = MemoryContextSwitchTo(bronze->context);

		bronze->slots[bronze->n_slots++] =
			MakeSingleTupleTableSlot(bronze->desc, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	slot = bronze->slots[bronze->n_rows];
	ExecClearTuple(slot);
	*values = slot->tts_values;
	*isnull = slot->tts_isnull;
}

void
md_bronze_put(MdBronze *bronze, Size bytes)
{
	ExecStoreVirtualTuple(bronze->slots[bronze->n_rows]);
	bronze->n_rows++;
	bronze->n_bytes += bytes;
}

void
md_bronze_pass_over(MdBronze *bronze, Size bytes)
{
	bronze->n_bytes += bytes;
}

int
md_bronze_buffered(MdBronze *bronze)
{
	return bronze->n_rows;
}

bool
md_bronze_is_full(MdBronze *bronze)
{
	return bronze->n_rows == MD_BRONZE_SLICE_ROWS || bronze->n_bytes >= SLICE_BYTES;
}

void
md_bronze_clear(MdBronze *bronze)
{
	for (int i = 0; i < bronze->n_rows; i++)
		ExecClearTuple(bronze->slots[i]);
	bronze->n_rows = 0;
	bronze->n_bytes = 0;
	MemoryContextReset(bronze->row_context);
}

/* Widen the extent by the place of one row. */
static void
note_place(MdBronze *bronze, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);

	if (bronze->extent.first_block == InvalidBlockNumber)
	{
		bronze->extent.first_block = block;
		bronze->extent.last_block = block;
		return;
	}
	bronze->extent.first_block = Min(bronze->extent.first_block, block);
	bronze->extent.last_block = Max(bronze->extent.last_block, block);
}

/*
 * Straight to storage: what ExecInsert does for a table without triggers.
 * The bulk insert state keeps a page pinned, which a subtransaction's end
 * would release behind its back.
 */
static void
insert_directly(MdBronze *bronze, int from, int to, bool in_subtransaction)
{
	ResultRelInfo *result_rel = bronze->result_rel;
	TupleConstr *constraints = bronze->desc->constr;
	TupleTableSlot **slots = bronze->slots + from;
	int			n = to - from;

	for (int i = 0; i < n; i++)
	{
		slots[i]->tts_tableOid = RelationGetRelid(bronze->rel);
		if (constraints && constraints->has_generated_stored)
			ExecComputeStoredGenerated(result_rel, bronze->estate, slots[i], CMD_INSERT);
		if (constraints)
			ExecConstraints(result_rel, slots[i], bronze->estate);
	}
	table_multi_insert(bronze->rel, slots, n, GetCurrentCommandId(true), 0,
					   in_subtransaction ? NULL : bronze->bistate);
	for (int i = 0; i < n; i++)
	{
		note_place(bronze, &slots[i]->tts_tid);
		if (result_rel->ri_NumIndices > 0)
			list_free(md_insert_index_tuples(result_rel, slots[i], bronze->estate));
		ResetPerTupleExprContext(bronze->estate);
	}
}

/* INSERT INTO table (columns) VALUES ($1, ...), with OVERRIDING so that a
 * column GENERATED ALWAYS AS IDENTITY may be left out or given alike. */
static void
prepare_insert(MdBronze *bronze)
{
	StringInfoData columns;
	StringInfoData parameters;
	Oid		   *types = palloc(sizeof(Oid) * bronze->desc->natts);
	char	   *sql;
	int			n = 0;

	initStringInfo(&columns);
	initStringInfo(&parameters);
	bronze->plan_attnos = MemoryContextAlloc(bronze->context,
											 sizeof(int) * bronze->desc->natts);
	for (int i = 0; i < bronze->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(bronze->desc, i);

		if (attribute->attisdropped || attribute->attgenerated || attribute->attidentity)
			continue;
		types[n] = attribute->atttypid;
		bronze->plan_attnos[n] = i;
		n++;
		appendStringInfo(&columns, "%s%s", n > 1 ? ", " : "",
						 quote_identifier(NameStr(attribute->attname)));
		appendStringInfo(&parameters, "%s$%d", n > 1 ? ", " : "", n);
	}
	bronze->n_plan_attnos = n;
	sql = psprintf("INSERT INTO %s (%s) VALUES (%s)%s",
				   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(bronze->rel)),
											  RelationGetRelationName(bronze->rel)),
				   columns.data, parameters.data,
				   bronze->extent.has_blocks ? " RETURNING ctid" : "");
	bronze->plan = SPI_prepare(sql, n, types);
	if (bronze->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(bronze->plan);
}

/* Run the INSERT for one buffered row. */
static void
insert_one_by_sql(MdBronze *bronze, TupleTableSlot *slot)
{
	Datum	   *values = palloc(sizeof(Datum) * bronze->n_plan_attnos);
	char	   *nulls = palloc(bronze->n_plan_attnos);
	int			result;

	for (int p = 0; p < bronze->n_plan_attnos; p++)
	{
		values[p] = slot->tts_values[bronze->plan_attnos[p]];
		nulls[p] = slot->tts_isnull[bronze->plan_attnos[p]] ? 'n' : ' ';
	}
	result = SPI_execute_plan(bronze->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not insert a row: %s", SPI_result_code_string(result));
	/* its record would be nowhere */
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger of table \"%s\" left the row out", RelationGetRelationName(bronze->rel)),
				 errdetail("It fires before the row and returned NULL.")));
	if (!bronze->extent.has_blocks)
		return;
	for (uint64 i = 0; SPI_tuptable != NULL && i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		tid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		/* a rule or an INSTEAD trigger may send the row elsewhere */
		if (isnull)
			bronze->extent.has_blocks = false;
		else
			note_place(bronze, (ItemPointer) DatumGetPointer(tid));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* By INSERT, one row at a time, so that all that a table can have is obeyed. */
static void
insert_by_sql(MdBronze *bronze, TupleTableSlot **slots, int n)
{
	Oid			guarded = md_guard_open(RelationGetRelid(bronze->rel));

	SPI_connect();
	if (bronze->plan == NULL)
		prepare_insert(bronze);
	for (int i = 0; i < n; i++)
		insert_one_by_sql(bronze, slots[i]);
	SPI_finish();
	md_guard_open(guarded);
}

/*
 * To the partitions.  What they have open belongs to the subtransaction, so a
 * router of one is not kept.
 */
static void
insert_routed(MdBronze *bronze, int from, int to, bool in_subtransaction)
{
	MdBronzeRouter *router = bronze->router;
	List	   *others;
	ListCell   *lc;

	if (in_subtransaction)
		router = md_bronze_router_open(bronze->rel, bronze->row_context);
	else if (router == NULL)
		router = bronze->router = md_bronze_router_open(bronze->rel, bronze->context);
	others = md_bronze_router_insert(router, bronze->slots + from, to - from);
	if (in_subtransaction)
		md_bronze_router_close(router);
	if (others == NIL)
		return;
	foreach(lc, others)
	{
		TupleTableSlot *slot = lfirst(lc);

		insert_by_sql(bronze, &slot, 1);
	}
}

void
md_bronze_insert(MdBronze *bronze, int from, int to, bool in_subtransaction)
{
	MemoryContext old;

	if (from >= to)
		return;
	old = MemoryContextSwitchTo(bronze->row_context);
	if (bronze->direct && bronze->partitioned)
		insert_routed(bronze, from, to, in_subtransaction);
	else if (bronze->direct)
		insert_directly(bronze, from, to, in_subtransaction);
	else
		insert_by_sql(bronze, bronze->slots + from, to - from);
	MemoryContextSwitchTo(old);
}
