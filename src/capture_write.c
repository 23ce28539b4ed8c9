/*
 * capture_write.c
 *		The trigger that copies changes into the log.
 *
 * A statement trigger gets the rows that went and those that came as transition
 * tables.  They are packed into the log, many to a row of it, as capture_row.c tells.  A
 * row of the log fills a page, so what an INSERT of many rows pays for is their bytes, and a reader
 * who has seen a transaction's rows skips a hundred of them at a look.  The rows are
 * of the captured relation's columns, those of a partition are converted, and values that lie in the TOAST
 * table of the relation are fetched.  Columns that are added or dropped later do
 * no harm: a row says how many it has, and a dropped column keeps its layout.
 *
 * An UPDATE gives old and new rows in the same order; a pair that is equal byte
 * by byte is left out of both.
 *
 * Row triggers do the same row by row, where there are no statements to be had.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "capture.h"
#include "capture_row.h"
#include "catalog.h"
#include "compat.h"
#include "settings.h"
#include "sql_run.h"

PG_FUNCTION_INFO_V1(md_capture_change);

/* What a row of the log may hold without being put into its TOAST table. */
#define CHUNK_BYTES (MD_LOG_TUPLE_TARGET - MAXALIGN(SizeofHeapTupleHeader) - sizeof(uint64))

/* From this many rows on, a ring of buffers of its own, and no look for room on other pages. */
#define BULK_ROWS 1000

/* Where changes of a captured relation go, as this process knows it. */
typedef struct KnownLog
{
	Oid			root;			/* key */
	bool		valid;
	uint64		changes;		/* counts what was heard of it */
	Oid			log;			/* InvalidOid: nowhere */
	uint64		written_by;		/* the last transaction here that wrote to it */
} KnownLog;

/* The log while rows are put into it. */
struct MdCaptureWriter
{
	Oid			root;
	Relation	log;
	TupleConversionMap *map;	/* to the columns of the root; NULL: not needed */
	TupleTableSlot *converted;	/* with a map only */
	TupleTableSlot *slot;		/* of the log */
	uint64		xid;
	CommandId	command;
	BulkInsertState bulk;		/* NULL: few rows */
	BlockNumber limit;
	bool		gave_up;		/* the log is too large */
	MemoryContext row_context;
	StringInfoData chunk;		/* a varlena header, then rows */
};

static HTAB *known_logs = NULL;

static void
forget_log(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	KnownLog   *known;

	hash_seq_init(&status, known_logs);
	while ((known = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || known->root == relid || known->log == relid)
		{
			known->valid = false;
			known->changes++;
		}
}

static KnownLog *
known_log(Oid root)
{
	KnownLog   *known;
	bool		found;

	if (known_logs == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(KnownLog)};

		known_logs = hash_create("change logs", 64, &control, HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(forget_log, (Datum) 0);
	}
	known = hash_search(known_logs, &root, HASH_ENTER, &found);
	if (!found)
	{
		known->valid = false;
		known->changes = 0;
		known->log = InvalidOid;
		known->written_by = 0;
	}
	return known;
}

/* Open the table of the log that is current now; NULL if there is none. */
static Relation
open_log(Oid root)
{
	KnownLog   *known = known_log(root);

	for (;;)
	{
		Relation	log;

		if (!known->valid)
		{
			uint64		changes = known->changes;

			known->log = md_log_current(root);
			/* not if something was heard meanwhile */
			known->valid = known->changes == changes;
			continue;
		}
		if (!OidIsValid(known->log))
			return NULL;
		log = try_table_open(known->log, RowExclusiveLock);
		if (log != NULL && known->valid)
			return log;
		/* it was rotated away before we had the lock */
		if (log != NULL)
			table_close(log, RowExclusiveLock);
		known->valid = false;
	}
}

bool
md_capture_wrote(Oid root)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(own) &&
		known_log(root)->written_by == U64FromFullTransactionId(own);
}

/* ---------------------------------------------------------------------- */

static void
begin_chunk(MdCaptureWriter *writer)
{
	resetStringInfo(&writer->chunk);
	appendStringInfoSpaces(&writer->chunk, MD_LOG_ROWS_START);
}

MdCaptureWriter *
md_capture_write_begin(Oid root, Relation member, int64 expected_rows)
{
	Relation	log = open_log(root);
	MdCaptureWriter *writer;

	if (log == NULL)
		return NULL;
	writer = palloc0(sizeof(MdCaptureWriter));
	writer->root = root;
	writer->log = log;
	if (RelationGetRelid(member) != root)
	{
		Relation	root_rel = table_open(root, AccessShareLock);
		TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(root_rel));

		writer->map = convert_tuples_by_name(RelationGetDescr(member), desc);
		if (writer->map != NULL)
			writer->converted = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		table_close(root_rel, NoLock);
	}
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(log), &TTSOpsHeapTuple);
	writer->xid = U64FromFullTransactionId(GetTopFullTransactionId());
	known_log(root)->written_by = writer->xid;
	writer->command = GetCurrentCommandId(true);
	writer->bulk = expected_rows >= BULK_ROWS ? GetBulkInsertState() : NULL;
	writer->limit = (BlockNumber) Min((uint64) md_change_log_limit_mb * 1024 * 1024 / BLCKSZ,
									  MaxBlockNumber);
	writer->row_context = AllocSetContextCreate(CurrentMemoryContext, "change log row",
												ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&writer->chunk);
	begin_chunk(writer);
	return writer;
}

/* Put the rows that were packed into the log. */
static void
flush(MdCaptureWriter *writer)
{
	Datum		values[MD_LOG_COLUMNS];
	bool		nulls[MD_LOG_COLUMNS] = {false};
	HeapTuple	tuple;

	if (writer->chunk.len == MD_LOG_ROWS_START || writer->gave_up)
		return;
	if (RelationGetNumberOfBlocks(writer->log) > writer->limit)
	{
		md_capture_write_mark(writer->root,
							  "had more changes than medallion.change_log_limit allows");
		writer->gave_up = true;
		return;
	}
	SET_VARSIZE(writer->chunk.data, writer->chunk.len);
	values[MD_LOG_XID_COLUMN - 1] = UInt64GetDatum(writer->xid);
	values[MD_LOG_ROWS_COLUMN - 1] = PointerGetDatum(writer->chunk.data);
	tuple = heap_form_tuple(RelationGetDescr(writer->log), values, nulls);
	ExecStoreHeapTuple(tuple, writer->slot, true);
	table_tuple_insert(writer->log, writer->slot, writer->command,
					   TABLE_INSERT_NO_LOGICAL | (writer->bulk ? TABLE_INSERT_SKIP_FSM : 0), writer->bulk);
	ExecClearTuple(writer->slot);
	begin_chunk(writer);
}

void
md_capture_write_end(MdCaptureWriter *writer)
{
	flush(writer);
	ExecDropSingleTupleTableSlot(writer->slot);
	if (writer->converted)
		ExecDropSingleTupleTableSlot(writer->converted);
	if (writer->bulk)
		FreeBulkInsertState(writer->bulk);
	MemoryContextDelete(writer->row_context);
	pfree(writer->chunk.data);
	/* the lock is kept, so that the table is not taken for done with */
	table_close(writer->log, NoLock);
	pfree(writer);
}

/* The row with all its values in itself. */
static MinimalTuple
fetch_external(TupleTableSlot *row)
{
	TupleDesc	desc = row->tts_tupleDescriptor;
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);

	slot_getallattrs(row);
	for (int i = 0; i < desc->natts; i++)
	{
		values[i] = row->tts_values[i];
		if (!row->tts_isnull[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(values[i])));
	}
	return md_form_minimal_tuple(desc, values, row->tts_isnull);
}

void
md_capture_write_put(MdCaptureWriter *writer, TupleTableSlot *row, int32 weight)
{
	MemoryContext old;
	MinimalTuple tuple;
	bool		should_free;

	if (writer->gave_up)
		return;
	old = MemoryContextSwitchTo(writer->row_context);
	if (writer->map != NULL)
		row = execute_attr_map_slot(writer->map->attrMap, row, writer->converted);
	tuple = ExecFetchSlotMinimalTuple(row, &should_free);
	if (tuple->t_infomask & HEAP_HASEXTERNAL)
		tuple = fetch_external(row);
	MemoryContextSwitchTo(old);

	if (writer->chunk.len + md_log_row_size(tuple) > CHUNK_BYTES)
		flush(writer);
	md_log_row_pack(&writer->chunk, tuple, weight);
	MemoryContextReset(writer->row_context);
}

/* ---------------------------------------------------------------------- */

static bool
equal_rows(TupleTableSlot *a, TupleTableSlot *b)
{
	bool		free_a;
	bool		free_b;
	MinimalTuple x = ExecFetchSlotMinimalTuple(a, &free_a);
	MinimalTuple y = ExecFetchSlotMinimalTuple(b, &free_b);
	bool		equal = x->t_len == y->t_len && x->t_hoff == y->t_hoff &&
		(x->t_infomask & HEAP_HASNULL) == (y->t_infomask & HEAP_HASNULL) &&
		HeapTupleHeaderGetNatts(x) == HeapTupleHeaderGetNatts(y) &&
		memcmp((char *) x + SizeofMinimalTupleHeader, (char *) y + SizeofMinimalTupleHeader,
			   x->t_len - SizeofMinimalTupleHeader) == 0;

	if (free_a)
		pfree(x);
	if (free_b)
		pfree(y);
	return equal;
}

/* The next row of a transition table; NULL store: none. */
static bool
next_row(Tuplestorestate *store, TupleTableSlot *slot)
{
	return store != NULL && tuplestore_gettupleslot(store, true, false, slot);
}

/* Other triggers of the statement have read pointers of their own. */
static void
rewind_rows(Tuplestorestate *store)
{
	if (store == NULL)
		return;
	tuplestore_select_read_pointer(store, 0);
	tuplestore_rescan(store);
}

/* Log what a statement has done to a relation. */
static void
write_statement(Oid root, Relation member, Tuplestorestate *gone, Tuplestorestate *come)
{
	int64		gone_rows = gone ? tuplestore_tuple_count(gone) : 0;
	int64		come_rows = come ? tuplestore_tuple_count(come) : 0;
	bool		paired = gone_rows == come_rows;
	TupleTableSlot *old_row;
	TupleTableSlot *new_row;
	MdCaptureWriter *writer;
	bool		has_old;
	bool		has_new;

	if (gone_rows + come_rows == 0)
		return;
	writer = md_capture_write_begin(root, member, gone_rows + come_rows);
	if (writer == NULL)
		return;
	old_row = MakeSingleTupleTableSlot(RelationGetDescr(member), &TTSOpsMinimalTuple);
	new_row = MakeSingleTupleTableSlot(RelationGetDescr(member), &TTSOpsMinimalTuple);
	rewind_rows(gone);
	rewind_rows(come);
	do
	{
		CHECK_FOR_INTERRUPTS();
		has_old = next_row(gone, old_row);
		has_new = next_row(come, new_row);
		if (has_old && has_new && paired && equal_rows(old_row, new_row))
			continue;
		if (has_old)
			md_capture_write_put(writer, old_row, -1);
		if (has_new)
			md_capture_write_put(writer, new_row, 1);
	} while ((has_old || has_new) && !writer->gave_up);
	ExecDropSingleTupleTableSlot(old_row);
	ExecDropSingleTupleTableSlot(new_row);
	md_capture_write_end(writer);
}

/* Log what a row trigger has seen. */
static void
write_row(Oid root, TriggerData *trigger)
{
	bool		inserted = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	bool		updated = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	TupleTableSlot *old_row = inserted ? NULL : trigger->tg_trigslot;
	TupleTableSlot *new_row = updated ? trigger->tg_newslot : inserted ? trigger->tg_trigslot : NULL;
	MdCaptureWriter *writer;

	if (old_row != NULL && new_row != NULL && equal_rows(old_row, new_row))
		return;
	writer = md_capture_write_begin(root, trigger->tg_relation, 1);
	if (writer == NULL)
		return;
	if (old_row != NULL)
		md_capture_write_put(writer, old_row, -1);
	if (new_row != NULL)
		md_capture_write_put(writer, new_row, 1);
	md_capture_write_end(writer);
}

void
md_capture_write_whole(Oid root, Oid member, int weight, const char *what)
{
	Relation	rel = table_open(member, AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	MdCaptureWriter *writer;

	if (rel->rd_rel->relkind == RELKIND_RELATION)
	{
		if (RelationGetNumberOfBlocks(rel) > (uint64) md_change_log_limit_mb * 1024 * 1024 / BLCKSZ)
			md_capture_write_mark(root, what);
		else if ((writer = md_capture_write_begin(root, rel, BULK_ROWS)) != NULL)
		{
			snapshot = RegisterSnapshot(GetLatestSnapshot());
			scan = table_beginscan(rel, snapshot, 0, NULL);
			slot = table_slot_create(rel, NULL);
			while (table_scan_getnextslot(scan, ForwardScanDirection, slot) && !writer->gave_up)
			{
				CHECK_FOR_INTERRUPTS();
				md_capture_write_put(writer, slot, weight);
			}
			ExecDropSingleTupleTableSlot(slot);
			table_endscan(scan);
			UnregisterSnapshot(snapshot);
			md_capture_write_end(writer);
		}
	}
	table_close(rel, NoLock);
}

void
md_capture_write_mark(Oid root, const char *reason)
{
	Oid			types[3] = {OIDOID, XID8OID, TEXTOID};
	Datum		values[3] = {ObjectIdGetDatum(root),
		FullTransactionIdGetDatum(GetTopFullTransactionId()),
	CStringGetTextDatum(reason)};
	MdSecurity	saved;

	known_log(root)->written_by = U64FromFullTransactionId(GetTopFullTransactionId());
	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO medallion.capture_mark VALUES ($1, $2, $3)",
							  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write medallion.capture_mark");
	SPI_finish();
	md_catalog_restore_user(&saved);
}

Datum
md_capture_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MemoryContext context;
	MemoryContext old;
	Oid			root;

	if (!CALLED_AS_TRIGGER(fcinfo) || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger that refreshes make",
						"capture_change")));
	root = atooid(trigger->tg_trigger->tgargs[0]);
	context = AllocSetContextCreate(CurrentMemoryContext, "change capture", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		md_capture_write_whole(root, RelationGetRelid(trigger->tg_relation), -1, "was truncated");
	else if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		write_row(root, trigger);
	else
		write_statement(root, trigger->tg_relation, trigger->tg_oldtable, trigger->tg_newtable);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
