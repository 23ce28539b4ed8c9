/*
 * refresh_new_keys.c
 *		Rows whose key is not in a table yet, straight to storage.
 *
 *		rows by key --index--> not there -> buffer -> heap, indexes, change log
 *							\-> there ---> handed back
 *
 * INSERT ... ON CONFLICT looks each key up as well, but then inserts as if somebody
 * might come between: row by row, each marked as an attempt and confirmed, and every
 * row passes through transition tables and RETURNING.  Whoever writes results and state
 * holds the lock of the view; without all that a row costs half.  The index is unique
 * all the same.
 *
 * Where most keys are there looking them up here gains nothing: the rest is handed
 * back as it comes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "compat.h"
#include "guard.h"
#include "refresh_new_keys.h"
#include "sql_run.h"

/* Rows that are inserted at once, and about how many bytes of them. */
#define BUFFER_ROWS 1000
#define BUFFER_BYTES (1024 * 1024)

/* After so many rows it is known whether most keys are there. */
#define SAMPLE_ROWS 500

typedef struct Inserter
{
	DestReceiver receiver;		/* must be first */
	MdNewKeys  *result;
	const MdTarget *target;
	Relation	rel;
	bool		is_captured;
	MdCaptureWriter *log;		/* NULL: not captured, or nothing written yet */
	/* looking up */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *found;
	int			key_count;
	ScanKeyData keys[INDEX_MAX_KEYS];
	int			key_columns[INDEX_MAX_KEYS];	/* of a row, from 0 */
	bool		gave_up;		/* the rest is handed back */
	/* inserting */
	int		   *columns;		/* of a row, from 0, for each attribute; -1: dropped */
	TupleTableSlot *row;		/* as the table's; NULL: rows are */
	TupleTableSlot *slots[BUFFER_ROWS];
	int			slot_count;		/* made so far */
	int			buffered;
	Size		buffered_bytes;
	EState	   *estate;
	ResultRelInfo *result_rel;
	MemoryContext context;
	MemoryContext row_context;	/* reset with each row */
} Inserter;

/* ----------------------------------------------------------------------
 * Which tables
 * ---------------------------------------------------------------------- */

/* Are all triggers ours?  *is_captured: the change log is to be written. */
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

/* Is there nothing that INSERT would do, and we do not? */
static bool
insert_does_no_more(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (rel->rd_tableam != GetHeapamTableAmRoutine() || rel->rd_rel->relispartition ||
		rel->rd_rules != NULL || rel->rd_rel->relforcerowsecurity)
		return false;
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attidentity != '\0' || TupleDescAttr(desc, i)->attgenerated != '\0')
			return false;
	return true;
}

/* Which column of a row is which attribute; false if values would have to be converted. */
static bool
map_columns(Inserter *inserter, TupleDesc rows)
{
	const MdTarget *target = inserter->target;
	TupleDesc	desc = RelationGetDescr(inserter->rel);
	int			live = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		inserter->columns[i] = -1;
		live += TupleDescAttr(desc, i)->attisdropped ? 0 : 1;
	}
	if (live != target->count || rows->natts != target->count)
		return false;
	for (int c = 0; c < target->count; c++)
	{
		Form_pg_attribute to = TupleDescAttr(desc, target->columns[c].attnum - 1);
		Form_pg_attribute from = TupleDescAttr(rows, c);

		if (to->atttypid != from->atttypid || (to->atttypmod != -1 && to->atttypmod != from->atttypmod))
			return false;
		inserter->columns[to->attnum - 1] = c;
	}
	return true;
}

/* ----------------------------------------------------------------------
 * Rows
 * ---------------------------------------------------------------------- */

/* Insert what is buffered. */
static void
flush(Inserter *inserter)
{
	int			n = inserter->buffered;

	if (n == 0)
		return;
	if (inserter->is_captured && inserter->log == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(inserter->context);

		inserter->log = md_capture_write_begin(RelationGetRelid(inserter->rel), inserter->rel, n);
		MemoryContextSwitchTo(old);
	}
	table_multi_insert(inserter->rel, inserter->slots, n, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < n; i++)
	{
		list_free(md_insert_index_tuples(inserter->result_rel, inserter->slots[i], inserter->estate));
		if (inserter->log != NULL)
			md_capture_write_put(inserter->log, inserter->slots[i], 1);
		ResetPerTupleExprContext(inserter->estate);
	}
	for (int i = 0; i < n; i++)
		ExecClearTuple(inserter->slots[i]);
	inserter->result->inserted += n;
	inserter->buffered = 0;
	inserter->buffered_bytes = 0;
}

/* A row in the columns of the table. */
static TupleTableSlot *
as_of_table(Inserter *inserter, TupleTableSlot *slot)
{
	TupleTableSlot *row = inserter->row;

	if (row == NULL)
		return slot;
	ExecClearTuple(row);
	for (int i = 0; i < row->tts_tupleDescriptor->natts; i++)
	{
		int			column = inserter->columns[i];

		row->tts_values[i] = column < 0 ? (Datum) 0 : slot->tts_values[column];
		row->tts_isnull[i] = column < 0 || slot->tts_isnull[column];
	}
	return ExecStoreVirtualTuple(row);
}

static void
buffer(Inserter *inserter, TupleTableSlot *slot)
{
	TupleTableSlot *kept;

	if (inserter->buffered == inserter->slot_count)
	{
		MemoryContext old = MemoryContextSwitchTo(inserter->context);

		inserter->slots[inserter->slot_count++] = table_slot_create(inserter->rel, NULL);
		MemoryContextSwitchTo(old);
	}
	kept = inserter->slots[inserter->buffered++];
	ExecCopySlot(kept, as_of_table(inserter, slot));
	kept->tts_tableOid = RelationGetRelid(inserter->rel);
	if (RelationGetDescr(inserter->rel)->constr)
		ExecConstraints(inserter->result_rel, kept, inserter->estate);
	inserter->buffered_bytes += ((HeapTupleTableSlot *) kept)->tuple->t_len;
	if (inserter->buffered == BUFFER_ROWS || inserter->buffered_bytes >= BUFFER_BYTES)
		flush(inserter);
}

static bool
is_there(Inserter *inserter, TupleTableSlot *slot)
{
	/* what a scan allocates on its way lives as long as it does */
	MemoryContext old = MemoryContextSwitchTo(inserter->context);
	bool		found;

	for (int k = 0; k < inserter->key_count; k++)
	{
		ScanKey		key = &inserter->keys[k];
		bool		isnull = slot->tts_isnull[inserter->key_columns[k]];

		/* NULL equals NULL in this index */
		key->sk_flags = isnull ? SK_ISNULL | SK_SEARCHNULL : 0;
		key->sk_argument = slot->tts_values[inserter->key_columns[k]];
	}
	index_rescan(inserter->scan, inserter->keys, inserter->key_count, NULL, 0);
	found = index_getnext_slot(inserter->scan, ForwardScanDirection, inserter->found);
	MemoryContextSwitchTo(old);
	return found;
}

static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	Inserter   *inserter = (Inserter *) self;
	MdNewKeys  *result = inserter->result;
	MemoryContext old = MemoryContextSwitchTo(inserter->row_context);

	slot_getallattrs(slot);
	if (inserter->gave_up || is_there(inserter, slot))
	{
		int64		others;

		tuplestore_puttupleslot(result->others, slot);
		others = tuplestore_tuple_count(result->others);
		inserter->gave_up |= others >= SAMPLE_ROWS && others > result->inserted + inserter->buffered;
	}
	else
		buffer(inserter, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(inserter->row_context);
	return true;
}

/* ----------------------------------------------------------------------
 * Begin and end
 * ---------------------------------------------------------------------- */

static void
begin_lookup(Inserter *inserter, List *keys)
{
	Relation	index = inserter->index;

	inserter->key_count = list_length(keys);
	for (int k = 0; k < inserter->key_count; k++)
	{
		Oid			type = index->rd_opcintype[k];
		Oid			operator = get_opfamily_member(index->rd_opfamily[k], type, type,
												   BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&inserter->keys[k], 0, k + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[k], get_opcode(operator), (Datum) 0);
		inserter->key_columns[k] = list_nth_int(keys, k) - 1;
	}
	inserter->found = table_slot_create(inserter->rel, NULL);
	inserter->scan = md_index_beginscan(inserter->rel, index, SnapshotSelf, inserter->key_count);
}

static void
start(DestReceiver *self, int operation, TupleDesc rows)
{
	Inserter   *inserter = (Inserter *) self;
	MemoryContext old = MemoryContextSwitchTo(inserter->context);

	inserter->result->tupdesc = CreateTupleDescCopy(rows);
	inserter->gave_up = !map_columns(inserter, rows);
	MemoryContextSwitchTo(old);
}

static void
end(DestReceiver *self)
{
}

static Inserter *
begin(const MdUpsert *upsert, Relation rel, Oid index_id, MdNewKeys *result)
{
	Inserter   *inserter = palloc0(sizeof(Inserter));

	inserter->receiver.receiveSlot = receive;
	inserter->receiver.rStartup = start;
	inserter->receiver.rShutdown = end;
	inserter->receiver.rDestroy = end;
	inserter->receiver.mydest = DestNone;
	inserter->result = result;
	inserter->target = upsert->target;
	inserter->rel = rel;
	inserter->columns = palloc(sizeof(int) * RelationGetDescr(rel)->natts);
	inserter->context = CurrentMemoryContext;
	inserter->row_context = AllocSetContextCreate(CurrentMemoryContext, "row with a new key",
												  ALLOCSET_DEFAULT_SIZES);
	inserter->index = index_open(index_id, RowExclusiveLock);
	begin_lookup(inserter, upsert->keys);
	inserter->estate = CreateExecutorState();
	md_init_range_table(inserter->estate, rel);
	inserter->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(inserter->result_rel, rel, 1, NULL, 0);
	ExecOpenIndices(inserter->result_rel, false);
	if (RelationGetDescr(rel)->natts != upsert->target->count)
		inserter->row = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	return inserter;
}

static void
finish(Inserter *inserter)
{
	flush(inserter);
	if (inserter->log != NULL)
		md_capture_write_end(inserter->log);
	index_endscan(inserter->scan);
	ExecDropSingleTupleTableSlot(inserter->found);
	for (int i = 0; i < inserter->slot_count; i++)
		ExecDropSingleTupleTableSlot(inserter->slots[i]);
	if (inserter->row != NULL)
		ExecDropSingleTupleTableSlot(inserter->row);
	ExecCloseIndices(inserter->result_rel);
	FreeExecutorState(inserter->estate);
	index_close(inserter->index, NoLock);
	MemoryContextDelete(inserter->row_context);
}

/* The rows in the order of the index, in which it is cheap to look up. */
static char *
ordered_rows(const MdUpsert *upsert)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM (%s) d ORDER BY ", upsert->rows);
	foreach(lc, upsert->keys)
		appendStringInfo(&sql, "%s%d", foreach_current_index(lc) > 0 ? ", " : "", lfirst_int(lc));
	return sql.data;
}

bool
md_new_keys_insert(const MdUpsert *upsert, Oid index_id, Snapshot snapshot, MdNewKeys *result)
{
	Relation	rel = table_open(upsert->target->relid, RowExclusiveLock);
	Inserter   *inserter = NULL;
	bool		is_captured;

	memset(result, 0, sizeof(*result));
	if (insert_does_no_more(rel) && has_our_triggers(rel, &is_captured))
	{
		result->others = tuplestore_begin_heap(true, false, work_mem);
		inserter = begin(upsert, rel, index_id, result);
		inserter->is_captured = is_captured;
		md_sql_run_into(ordered_rows(upsert), snapshot, &inserter->receiver);
		finish(inserter);
	}
	table_close(rel, NoLock);
	return inserter != NULL;
}
