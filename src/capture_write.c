/*
 * capture_write.c
 *		The trigger that copies changes into the log.
 *
 * A statement trigger gets the rows that went and those that came as transition
 * tables; they go into the log as they are, with the weight -1 or +1 and the
 * id of the top-level transaction, in batches.  A row of the log is the stored
 * form of the row of the relation behind 16 bytes for these two columns, so in
 * general it is made by moving bytes:
 *
 *		row:	header | nulls | c1 c2 ...
 *		log:	header | 11 + nulls | xid weight | c1 c2 ...
 *
 * The columns keep their alignment, because 16 is a multiple of every one.  Rows
 * of another layout (columns dropped before the log began, a partition with
 * another order of columns, rows from before a column was added) take the long
 * way, value by value.
 *
 * An UPDATE gives old and new rows in the same order; a pair that is equal byte
 * by byte is left out of both.
 *
 * Row triggers do the same row by row, where there are no statements to be had.
 */
#include "postgres.h"

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
#include "catalog.h"
#include "settings.h"
#include "sql_run.h"

PG_FUNCTION_INFO_V1(md_capture_change);

#define BATCH_ROWS 1000
#define BATCH_BYTES (256 * 1024)

/* From this many rows on, a ring of buffers of its own. */
#define BULK_ROWS 1000

/* Bytes of the first columns; see above. */
#define PREFIX_BYTES 16

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
typedef struct Writer
{
	Oid			root;
	Relation	log;
	TupleDesc	source;			/* of the rows that come */
	TupleConversionMap *map;	/* to the root; NULL: not needed */
	AttrMap    *attributes;		/* the same by numbers; NULL: not needed */
	bool		moves_bytes;
	uint64		xid;
	CommandId	command;
	BulkInsertState bulk;		/* NULL: few rows */
	BlockNumber limit;
	bool		gave_up;		/* the log is too large */
	MemoryContext context;		/* of a batch */
	Size		bytes;
	int			count;
	TupleTableSlot *slots[BATCH_ROWS];
} Writer;

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

/* Do rows of the log have those of the relation at their end, byte by byte? */
static bool
same_layout(TupleDesc source, TupleDesc log)
{
	for (int i = 0; i < source->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(source, i);
		Form_pg_attribute logged = TupleDescAttr(log, i + MD_LOG_FIXED_COLUMNS);

		if (att->attlen != logged->attlen || att->attalign != logged->attalign ||
			att->attbyval != logged->attbyval)
			return false;
	}
	return true;
}

/*
 * Begin to write rows of `member`; NULL if there is nothing to write to, or
 * nothing that they fit in (then with a mark).
 */
static Writer *
begin(Oid root, Relation member, TupleDesc source, int64 expected_rows)
{
	Relation	log = open_log(root);
	Relation	root_rel;
	Writer	   *writer;

	if (log == NULL)
		return NULL;
	root_rel = RelationGetRelid(member) == root ? NULL : table_open(root, AccessShareLock);
	if (!md_log_fits(RelationGetDescr(log), root_rel ? RelationGetDescr(root_rel) : source))
	{
		if (root_rel)
			table_close(root_rel, NoLock);
		table_close(log, NoLock);
		md_capture_write_mark(root, "was written while its columns were being changed");
		return NULL;
	}
	writer = palloc0(sizeof(Writer));
	writer->root = root;
	writer->log = log;
	writer->source = source;
	if (root_rel != NULL)
	{
		writer->map = convert_tuples_by_name(source, RelationGetDescr(root_rel));
		table_close(root_rel, NoLock);
	}
	writer->moves_bytes = writer->map == NULL && same_layout(source, RelationGetDescr(log));
	writer->xid = U64FromFullTransactionId(GetTopFullTransactionId());
	known_log(root)->written_by = writer->xid;
	writer->command = GetCurrentCommandId(true);
	writer->bulk = expected_rows >= BULK_ROWS ? GetBulkInsertState() : NULL;
	writer->limit = (BlockNumber) Min((uint64) md_change_log_limit_mb * 1024 * 1024 / BLCKSZ,
									  MaxBlockNumber);
	writer->context = AllocSetContextCreate(CurrentMemoryContext, "change log batch",
											ALLOCSET_DEFAULT_SIZES);
	return writer;
}

static void
flush(Writer *writer)
{
	MemoryContext old;

	if (writer->count == 0)
		return;
	if (RelationGetNumberOfBlocks(writer->log) > writer->limit)
	{
		if (!writer->gave_up)
			md_capture_write_mark(writer->root,
								  "had more changes than medallion.change_log_limit allows");
		writer->gave_up = true;
	}
	else
	{
		old = MemoryContextSwitchTo(writer->context);
		table_multi_insert(writer->log, writer->slots, writer->count, writer->command,
						   TABLE_INSERT_NO_LOGICAL, writer->bulk);
		MemoryContextSwitchTo(old);
	}
	for (int i = 0; i < writer->count; i++)
		ExecClearTuple(writer->slots[i]);
	MemoryContextReset(writer->context);
	writer->count = 0;
	writer->bytes = 0;
}

static void
end(Writer *writer)
{
	flush(writer);
	for (int i = 0; i < BATCH_ROWS && writer->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	if (writer->bulk)
		FreeBulkInsertState(writer->bulk);
	MemoryContextDelete(writer->context);
	/* the lock is kept, so that the table is not taken for done with */
	table_close(writer->log, NoLock);
	pfree(writer);
}

/* A row of the log, by moving bytes. */
static HeapTuple
move_bytes(Writer *writer, MinimalTuple row, int64 weight)
{
	int			natts = HeapTupleHeaderGetNatts(row) + MD_LOG_FIXED_COLUMNS;
	bool		has_nulls = (row->t_infomask & HEAP_HASNULL) != 0;
	Size		data_length = row->t_len + MINIMAL_TUPLE_OFFSET - row->t_hoff;
	Size		header = MAXALIGN(SizeofHeapTupleHeader + (has_nulls ? BITMAPLEN(natts) : 0));
	HeapTuple	tuple = palloc0(HEAPTUPLESIZE + header + PREFIX_BYTES + data_length);
	HeapTupleHeader data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	char	   *values = (char *) data + header;

	tuple->t_len = header + PREFIX_BYTES + data_length;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = RelationGetRelid(writer->log);
	tuple->t_data = data;
	data->t_hoff = header;
	data->t_infomask = row->t_infomask & (HEAP_HASNULL | HEAP_HASVARWIDTH | HEAP_HASEXTERNAL);
	HeapTupleHeaderSetNatts(data, natts);
	if (has_nulls)
	{
		int			length = BITMAPLEN(natts - MD_LOG_FIXED_COLUMNS);
		int			carry = (1 << MD_LOG_FIXED_COLUMNS) - 1;

		for (int i = 0; i < length; i++)
		{
			data->t_bits[i] = (row->t_bits[i] << MD_LOG_FIXED_COLUMNS) | carry;
			carry = row->t_bits[i] >> (8 - MD_LOG_FIXED_COLUMNS);
		}
		if (BITMAPLEN(natts) > length)
			data->t_bits[length] = carry;
	}
	memcpy(values, &writer->xid, sizeof(uint64));
	memcpy(values + sizeof(uint64), &weight, sizeof(int64));
	memcpy(values + PREFIX_BYTES, (char *) row - MINIMAL_TUPLE_OFFSET + row->t_hoff, data_length);
	return tuple;
}

/* A row of the log, value by value. */
static HeapTuple
form_row(Writer *writer, TupleTableSlot *row, int64 weight)
{
	TupleDesc	log = RelationGetDescr(writer->log);
	Datum	   *values = palloc(sizeof(Datum) * log->natts);
	bool	   *nulls = palloc(sizeof(bool) * log->natts);

	slot_getallattrs(row);
	values[0] = UInt64GetDatum(writer->xid);
	values[1] = Int64GetDatum(weight);
	nulls[0] = nulls[1] = false;
	for (int i = MD_LOG_FIXED_COLUMNS; i < log->natts; i++)
	{
		int			from = i - MD_LOG_FIXED_COLUMNS;

		if (writer->map != NULL)
			from = writer->map->attrMap->attnums[from] - 1;
		nulls[i] = from < 0 || TupleDescAttr(writer->source, from)->attisdropped ||
			row->tts_isnull[from];
		values[i] = nulls[i] ? (Datum) 0 : row->tts_values[from];
	}
	return heap_form_tuple(log, values, nulls);
}

/* Put one row into the log. */
static void
put(Writer *writer, TupleTableSlot *row, int64 weight)
{
	MemoryContext old;
	HeapTuple	tuple = NULL;

	if (writer->gave_up)
		return;
	if (writer->slots[writer->count] == NULL)
		writer->slots[writer->count] = MakeSingleTupleTableSlot(RelationGetDescr(writer->log),
																&TTSOpsHeapTuple);
	old = MemoryContextSwitchTo(writer->context);
	if (writer->moves_bytes)
	{
		bool		should_free;
		MinimalTuple minimal = ExecFetchSlotMinimalTuple(row, &should_free);

		/* a row from before a column was added has fewer */
		if (HeapTupleHeaderGetNatts(minimal) == writer->source->natts)
			tuple = move_bytes(writer, minimal, weight);
	}
	if (tuple == NULL)
		tuple = form_row(writer, row, weight);
	MemoryContextSwitchTo(old);
	ExecStoreHeapTuple(tuple, writer->slots[writer->count++], false);
	writer->bytes += tuple->t_len;
	if (writer->count == BATCH_ROWS || writer->bytes > BATCH_BYTES)
		flush(writer);
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
	Writer	   *writer;
	bool		has_old;
	bool		has_new;

	if (gone_rows + come_rows == 0)
		return;
	writer = begin(root, member, RelationGetDescr(member), gone_rows + come_rows);
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
			put(writer, old_row, -1);
		if (has_new)
			put(writer, new_row, 1);
	} while ((has_old || has_new) && !writer->gave_up);
	ExecDropSingleTupleTableSlot(old_row);
	ExecDropSingleTupleTableSlot(new_row);
	end(writer);
}

/* Log what a row trigger has seen. */
static void
write_row(Oid root, TriggerData *trigger)
{
	bool		inserted = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	bool		updated = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	TupleTableSlot *old_row = inserted ? NULL : trigger->tg_trigslot;
	TupleTableSlot *new_row = updated ? trigger->tg_newslot : inserted ? trigger->tg_trigslot : NULL;
	Writer	   *writer;

	if (old_row != NULL && new_row != NULL && equal_rows(old_row, new_row))
		return;
	writer = begin(root, trigger->tg_relation, RelationGetDescr(trigger->tg_relation), 1);
	if (writer == NULL)
		return;
	if (old_row != NULL)
		put(writer, old_row, -1);
	if (new_row != NULL)
		put(writer, new_row, 1);
	end(writer);
}

void
md_capture_write_whole(Oid root, Oid member, int weight, const char *what)
{
	Relation	rel = table_open(member, AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	Writer	   *writer;

	if (rel->rd_rel->relkind == RELKIND_RELATION)
	{
		if (RelationGetNumberOfBlocks(rel) > (uint64) md_change_log_limit_mb * 1024 * 1024 / BLCKSZ)
			md_capture_write_mark(root, what);
		else if ((writer = begin(root, rel, RelationGetDescr(rel), BULK_ROWS)) != NULL)
		{
			snapshot = RegisterSnapshot(GetLatestSnapshot());
			scan = table_beginscan(rel, snapshot, 0, NULL);
			slot = table_slot_create(rel, NULL);
			while (table_scan_getnextslot(scan, ForwardScanDirection, slot) && !writer->gave_up)
			{
				CHECK_FOR_INTERRUPTS();
				put(writer, slot, weight);
			}
			ExecDropSingleTupleTableSlot(slot);
			table_endscan(scan);
			UnregisterSnapshot(snapshot);
			end(writer);
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
