/*
 * refresh_upsert_direct.c
 *		Rows into a table by their key, straight to its storage.
 *
 * Rows are sorted in the order of the index, as looked up in any other order, 100,000 of
 * 3 million keys were measured to cost twice as much.
 *
 * INSERT ... ON CONFLICT descends the index twice for a key that is new, once to look
 * and once to insert, and writes a record of WAL for the insert, its confirmation
 * and the lock of a row that it updates.  Here slices of rows go one of two
 * ways:
 *
 *		slice --look each up--> found: update in place (or leave)
 *							\-> not found: into the heap together, then into the indexes
 *
 *		slice --into the heap together--> into the indexes --key is there already-->
 *			delete what was inserted, look the key up, update
 *
 * The second way costs one descent for a new key, and is taken while nearly all keys
 * are new.  The first slice goes the first way, which shows how it is.
 *
 * The change log of a captured table is written here, as its triggers would.  Tables that
 * have other triggers, rules, policies, generated columns or another access method are left to the executor.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "compat.h"
#include "guard.h"
#include "key_lookup.h"
#include "refresh_order.h"
#include "refresh_upsert_direct.h"
#include "relation_make.h"
#include "row_sort.h"
#include "sql_run.h"

#define SLICE_ROWS 1000
#define SLICE_BYTES (1024 * 1024)

/* Keys that are found cost more the second way: at most one in so many. */
#define FOUND_SHARE 16

typedef struct Writer
{
	DestReceiver dest;			/* must be first */
	const MdUpsert *upsert;
	Relation	rel;
	Relation	index;
	TupleDesc	desc;
	int64		rows_inserted;
	int64		rows_updated;
	bool		fits;			/* are rows of the columns' types? */
	bool		may_insert_first;	/* no other index minds a key twice for a moment */
	bool		insert_first;
	bool		is_captured;
	MdCaptureWriter *log;		/* of a captured table, once something was written */

	/* how a row that is found changes */
	ProjectionInfo *set;		/* NULL: it stays */
	ExprState  *where;			/* NULL: always */

	EState	   *estate;
	ResultRelInfo *result_rel;
	List	   *arbiters;		/* the index */
	MdKeyLookup *lookup;
	TupleTableSlot *old;
	TupleTableSlot *new;

	/* rows to be written */
	MdRowSort  *sort;
	Size		sort_limit;		/* bytes */
	Snapshot	snapshot;		/* sees the parts that were written */

	/* the slice */
	MemoryContext context;		/* of the writer, which outlives the statement's */
	MemoryContext heap_context; /* of what is stored, until it is */
	TupleDesc	slot_desc;		/* a copy: references to it are not counted, which takes long for so many */
	TupleTableSlot *slots[SLICE_ROWS];
	int			slot_count;		/* made so far */
	TupleTableSlot *inserts[SLICE_ROWS];	/* those of it that go into the heap */
	int			count;
	Size		bytes;
} Writer;

/* ----------------------------------------------------------------------
 * Which tables
 * ---------------------------------------------------------------------- */

/* Are all triggers the guard and those of its capture?  *is_captured: of that there are some. */
static bool
has_our_triggers(Relation rel, bool *is_captured)
{
	Oid			capture = md_capture_function();

	*is_captured = false;
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (md_guard_is_trigger(trigger))
			continue;
		if (trigger->tgfoid != capture || trigger->tgenabled != TRIGGER_FIRES_ALWAYS ||
			TRIGGER_FOR_ROW(trigger->tgtype) || trigger->tgnargs != 1 ||
			atooid(trigger->tgargs[0]) != RelationGetRelid(rel))
			return false;
		*is_captured = true;
	}
	return true;
}

/* Has it nothing that only the executor of a statement sees to? */
static bool
is_plain(Relation rel, bool *is_captured)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	AclMode		mode = ACL_INSERT | ACL_UPDATE | ACL_SELECT;

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_tableam != GetHeapamTableAmRoutine() ||
		rel->rd_rules != NULL || (constraints != NULL && constraints->has_generated_stored))
		return false;
	if (!has_our_triggers(rel, is_captured))
		return false;
	return check_enable_rls(RelationGetRelid(rel), InvalidOid, true) != RLS_ENABLED &&
		pg_class_aclmask(RelationGetRelid(rel), GetUserId(), mode, ACLMASK_ALL) == mode;
}

/* Is the index the only one that wants something to be there once? */
static bool
is_only_unique(const ResultRelInfo *result_rel, Oid index_id)
{
	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		Form_pg_index index = result_rel->ri_IndexRelationDescs[i]->rd_index;

		if (index->indexrelid != index_id && (index->indisunique || index->indisexclusion))
			return false;
	}
	return true;
}

/* ----------------------------------------------------------------------
 * How a row changes
 * ---------------------------------------------------------------------- */

/* Columns of `excluded` (entry *context) come from the inner row, others from the one scanned. */
static Node *
excluded_as_inner(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);

		if (var->varno == *(int *) context)
			var->varno = INNER_VAR;
		return (Node *) var;
	}
	return expression_tree_mutator(node, excluded_as_inner, context);
}

/* "SET ... WHERE ..." as the executor evaluates it. */
static void
compile_change(Writer *writer)
{
	const MdUpsert *upsert = writer->upsert;
	char	   *sql = psprintf("UPDATE %s t SET %s FROM %s excluded%s%s", upsert->target->name, upsert->set,
							   upsert->target->name, upsert->where ? " WHERE " : "",
							   upsert->where ? upsert->where : "");
	Query	   *query = parse_analyze_fixedparams(linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT)),
												  sql, NULL, 0, NULL);
	ExprContext *context = GetPerTupleExprContext(writer->estate);
	int			excluded = query->resultRelation == 1 ? 2 : 1;
	List	   *targets = NIL;
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Expr	   *expr = expression_planner((Expr *) excluded_as_inner((Node *) target->expr, &excluded));

		targets = lappend(targets, makeTargetEntry(expr, list_length(targets) + 1, NULL, false));
		columns = lappend_int(columns, target->resno);
	}
	writer->set = ExecBuildUpdateProjection(targets, true, columns, writer->desc, context, writer->new, NULL);
	if (query->jointree->quals != NULL)
		writer->where =
			ExecInitQual(make_ands_implicit(expression_planner((Expr *) excluded_as_inner(query->jointree->quals,
																						   &excluded))), NULL);
}

/* ----------------------------------------------------------------------
 * Single rows
 * ---------------------------------------------------------------------- */

static void
check_constraints(Writer *writer, TupleTableSlot *row)
{
	if (writer->desc->constr != NULL)
		ExecConstraints(writer->result_rel, row, writer->estate);
}

/* Let readers of the change log know of a row that came (1) or went (-1). */
static void
log_row(Writer *writer, TupleTableSlot *row, int weight)
{
	if (!writer->is_captured)
		return;
	if (writer->log == NULL)
		writer->log = md_capture_write_begin(RelationGetRelid(writer->rel), writer->rel, writer->count);
	if (writer->log != NULL)
		md_capture_write_put(writer->log, row, weight);
}

/* The row that is there with the key of this one, in writer->old; false: none. */
static bool
find_old(Writer *writer, TupleTableSlot *row)
{
	/* what takes its place is about as long as the row that came; sums may grow */
	Size		room = 2 * MAXALIGN(((HeapTupleTableSlot *) row)->tuple->t_len);

	return md_key_lookup(writer->lookup, row, room, writer->old);
}

/* What becomes of writer->old because of a row of its key. */
static void
change_found(Writer *writer, TupleTableSlot *row)
{
	ExprContext *context = GetPerTupleExprContext(writer->estate);

	if (writer->set == NULL)
		return;
	context->ecxt_scantuple = writer->old;
	context->ecxt_innertuple = row;
	if (writer->where == NULL || ExecQual(writer->where, context))
	{
		(void) ExecProject(writer->set);
		check_constraints(writer, writer->new);
		log_row(writer, writer->old, -1);
		md_update_row(writer->result_rel, writer->estate, &writer->old->tts_tid, writer->new,
					  writer->snapshot);
		log_row(writer, writer->new, 1);
		writer->rows_updated++;
	}
	ResetPerTupleExprContext(writer->estate);
}

/* ----------------------------------------------------------------------
 * Slices
 * ---------------------------------------------------------------------- */

static void
insert_into_heap(Writer *writer, TupleTableSlot **rows, int count)
{
	MemoryContext old;

	if (count == 0)
		return;
	for (int i = 0; i < count; i++)
		check_constraints(writer, rows[i]);
	/* rows that are made shorter are left where it is called */
	old = MemoryContextSwitchTo(writer->heap_context);
	table_multi_insert(writer->rel, rows, count, GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->heap_context);
	writer->rows_inserted += count;
}

/* Look each key up; those that are not there are inserted.  Returns how many were. */
static int
look_up_first(Writer *writer)
{
	int			missing = 0;

	for (int i = 0; i < writer->count; i++)
		if (find_old(writer, writer->slots[i]))
			change_found(writer, writer->slots[i]);
		else
			writer->inserts[missing++] = writer->slots[i];
	insert_into_heap(writer, writer->inserts, missing);
	for (int i = 0; i < missing; i++)
	{
		list_free(md_insert_index_tuples(writer->result_rel, writer->inserts[i], writer->estate));
		log_row(writer, writer->inserts[i], 1);
		ResetPerTupleExprContext(writer->estate);
	}
	return writer->count - missing;
}

/* Insert all; take back those whose key was there.  Returns how many were. */
static int
insert_first(Writer *writer)
{
	int			found = 0;

	insert_into_heap(writer, writer->slots, writer->count);
	for (int i = 0; i < writer->count; i++)
	{
		if (!md_try_index_tuples(writer->result_rel, writer->slots[i], writer->estate, writer->arbiters))
			writer->inserts[found++] = writer->slots[i];
		else
			log_row(writer, writer->slots[i], 1);
		ResetPerTupleExprContext(writer->estate);
	}
	if (found == 0)
		return 0;
	/* to be allowed to delete what was inserted; the snapshot stays as it is */
	CommandCounterIncrement();
	for (int i = 0; i < found; i++)
	{
		simple_table_tuple_delete(writer->rel, &writer->inserts[i]->tts_tid, writer->snapshot);
		if (!find_old(writer, writer->inserts[i]))
			elog(ERROR, "could not find the row of a key that is in index \"%s\"",
				 RelationGetRelationName(writer->index));
		change_found(writer, writer->inserts[i]);
	}
	writer->rows_inserted -= found;
	return found;
}

static void
write_slice(Writer *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	int			found;

	found = writer->insert_first ? insert_first(writer) : look_up_first(writer);
	writer->insert_first = writer->may_insert_first && found * FOUND_SHARE <= writer->count;
	for (int i = 0; i < writer->count; i++)
		ExecClearTuple(writer->slots[i]);
	ExecClearTuple(writer->old);
	ExecClearTuple(writer->new);
	writer->count = 0;
	writer->bytes = 0;
	MemoryContextSwitchTo(old);
}

/* Add a row to the slice. */
static void
add_to_slice(Writer *writer, HeapTuple row)
{
	if (writer->count == writer->slot_count)
	{
		MemoryContext old = MemoryContextSwitchTo(writer->context);

		writer->slots[writer->slot_count++] = MakeSingleTupleTableSlot(writer->slot_desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
	}
	ExecStoreHeapTuple(row, writer->slots[writer->count], false);
	writer->slots[writer->count++]->tts_tableOid = row->t_tableOid;
	writer->bytes += row->t_len;
	if (writer->count == SLICE_ROWS || writer->bytes >= SLICE_BYTES)
		write_slice(writer);
}

/* Write all rows that were received, the first of each key. */
static void
write_sorted(Writer *writer)
{
	HeapTuple	row;

	md_row_sort_perform(writer->sort);
	while ((row = md_row_sort_next(writer->sort)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		add_to_slice(writer, row);
	}
	if (writer->count > 0)
		write_slice(writer);
	md_row_sort_reset(writer->sort);
	/* rows that follow may have keys that were written */
	CommandCounterIncrement();
	writer->snapshot->curcid = GetCurrentCommandId(false);
}

/* ----------------------------------------------------------------------
 * Receiving rows
 * ---------------------------------------------------------------------- */

static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	Writer	   *writer = (Writer *) self;
	const MdTarget *target = writer->upsert->target;

	writer->fits = desc->natts == target->count;
	for (int i = 0; writer->fits && i < desc->natts; i++)
	{
		Form_pg_attribute row = TupleDescAttr(desc, i);
		Form_pg_attribute column = TupleDescAttr(writer->desc, target->columns[i].attnum - 1);

		writer->fits = row->atttypid == column->atttypid &&
			(row->atttypmod == column->atttypmod || column->atttypmod < 0);
	}
}

/* Take a row, which is gone when this returns. */
static bool
receive_row(TupleTableSlot *row, DestReceiver *self)
{
	Writer	   *writer = (Writer *) self;
	const MdTarget *target = writer->upsert->target;
	Datum		values[MaxHeapAttributeNumber];
	bool		nulls[MaxHeapAttributeNumber];
	HeapTuple	tuple;
	MemoryContext old;

	if (!writer->fits)
		return false;
	slot_getallattrs(row);
	/* columns that were dropped are NULL */
	memset(nulls, true, sizeof(bool) * writer->desc->natts);
	for (int i = 0; i < target->count; i++)
	{
		int			place = target->columns[i].attnum - 1;

		values[place] = row->tts_values[i];
		nulls[place] = row->tts_isnull[i];
	}
	old = MemoryContextSwitchTo(md_row_sort_context(writer->sort));
	tuple = heap_form_tuple(writer->desc, values, nulls);
	MemoryContextSwitchTo(old);
	tuple->t_tableOid = RelationGetRelid(writer->rel);
	if (!md_row_sort_put(writer->sort, tuple, writer->sort_limit))
		write_sorted(writer);
	return true;
}

static void
end_rows(DestReceiver *self)
{
	write_sorted((Writer *) self);
}

static void
destroy_receiver(DestReceiver *self)
{
}

/* ---------------------------------------------------------------------- */

/* By what rows of one key are sorted. */
static List *
sort_columns(const MdUpsert *upsert)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, upsert->order)
	{
		MdOrder    *by = lfirst(lc);
		MdSortColumn *column = palloc(sizeof(MdSortColumn));

		column->attnum = upsert->target->columns[by->input - 1].attnum;
		column->operator = by->sort_operator;
		column->nulls_first = by->nulls_first;
		columns = lappend(columns, column);
	}
	return columns;
}

static Writer *
open_writer(const MdUpsert *upsert, Relation rel, Oid index_id, Snapshot snapshot)
{
	Writer	   *writer = palloc0(sizeof(Writer));

	writer->dest.receiveSlot = receive_row;
	writer->dest.rStartup = start_rows;
	writer->dest.rShutdown = end_rows;
	writer->dest.rDestroy = destroy_receiver;
	writer->dest.mydest = DestTuplestore;
	writer->upsert = upsert;
	writer->rel = rel;
	writer->desc = RelationGetDescr(rel);
	writer->slot_desc = CreateTupleDescCopy(writer->desc);
	writer->index = index_open(index_id, RowExclusiveLock);
	writer->arbiters = list_make1_oid(index_id);
	writer->context = CurrentMemoryContext;
	writer->heap_context = AllocSetContextCreate(CurrentMemoryContext, "rows to be stored", ALLOCSET_DEFAULT_SIZES);
	writer->sort = md_row_sort_begin(writer->desc, writer->index, sort_columns(upsert));
	writer->sort_limit = work_mem * (Size) 1024;
	writer->snapshot = snapshot;
	writer->estate = CreateExecutorState();
	md_init_range_table(writer->estate, rel);
	writer->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result_rel, rel, 1, NULL, 0);
	ExecOpenIndices(writer->result_rel, false);
	writer->may_insert_first = is_only_unique(writer->result_rel, index_id);
	writer->old = table_slot_create(rel, NULL);
	writer->new = table_slot_create(rel, NULL);
	if (upsert->set != NULL)
	{
		CheckCmdReplicaIdentity(rel, CMD_UPDATE);
		compile_change(writer);
	}
	writer->lookup = md_key_lookup_begin(rel, writer->index, snapshot);
	return writer;
}

static void
close_writer(Writer *writer)
{
	if (writer->log != NULL)
		md_capture_write_end(writer->log);
	md_key_lookup_end(writer->lookup);
	for (int i = 0; i < writer->slot_count; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecDropSingleTupleTableSlot(writer->old);
	ExecDropSingleTupleTableSlot(writer->new);
	ExecCloseIndices(writer->result_rel);
	FreeExecutorState(writer->estate);
	md_row_sort_end(writer->sort);
	MemoryContextDelete(writer->heap_context);
	index_close(writer->index, NoLock);
	pfree(writer);
}

bool
md_upsert_directly(const MdUpsert *upsert, Oid index_id, Snapshot snapshot, MdRun *run)
{
	Relation	rel = table_open(upsert->target->relid, RowExclusiveLock);
	bool		is_captured;
	bool		done = OidIsValid(index_id) && is_plain(rel, &is_captured);

	if (done)
	{
		Writer	   *writer;

		/* what this refresh has written so far is seen, what follows is not */
		CommandCounterIncrement();
		PushCopiedSnapshot(snapshot);
		UpdateActiveSnapshotCommandId();
		writer = open_writer(upsert, rel, index_id, GetActiveSnapshot());
		writer->is_captured = is_captured;
		/* the query has one of its own, as that of the writer goes on with each part */
		PushCopiedSnapshot(writer->snapshot);
		md_sql_run_into_dest(upsert->all_rows ? upsert->all_rows : upsert->rows, &writer->dest);
		PopActiveSnapshot();
		done = writer->fits;
		run->rows_inserted += writer->rows_inserted;
		run->rows_updated += writer->rows_updated;
		close_writer(writer);
		PopActiveSnapshot();
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
	return done;
}
