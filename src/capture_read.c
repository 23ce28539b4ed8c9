/*
 * capture_read.c
 *		Reading what was captured.
 *
 * The frontier of a captured relation is a snapshot together with the id of its
 * capture: {"capture": id, "snapshot": ...}.  Changes between two frontiers are
 * the rows of the log whose transaction the second one sees and the first does
 * not.  They come in no order, with equal rows of opposite sign among them.
 *
 * What is not in the log (see capture_mark) and what may have been missed
 * (another id, see capture_shape.c) is a reason to start anew, once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "capture.h"
#include "capture_row.h"
#include "catalog.h"
#include "sql_run.h"

PG_FUNCTION_INFO_V1(md_captured_frontier);

/* Called for rows of the log that are new; false: enough. */
typedef bool (*NewRow) (TupleTableSlot *slot, void *state);

bool
md_captured_parse(Jsonb *frontier, char **id, MdReadPoint *point)
{
	*id = frontier ? md_json_string(frontier, "capture") : NULL;
	return *id != NULL && md_read_point_parse(frontier, point);
}

/*
 * Walk the rows of one table of the log that `now` sees (NULL: that the
 * snapshot sees) and `read` does not.
 */
static bool
walk_table(Relation log, const MdReadPoint *read, const MdReadPoint *now, Snapshot snapshot,
		   NewRow callback, void *state)
{
	TableScanDesc scan = table_beginscan(log, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(log, NULL);
	bool		go_on = true;

	while (go_on && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		uint64		xid = DatumGetUInt64(slot_getattr(slot, MD_LOG_XID_COLUMN, &isnull));
		CommandId	command = HeapTupleHeaderGetRawCommandId(((BufferHeapTupleTableSlot *) slot)->base.tuple->t_data);

		CHECK_FOR_INTERRUPTS();
		if (!md_read_point_sees(read, xid, command) &&
			(now == NULL || md_read_point_sees(now, xid, command)))
			go_on = callback(slot, state);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return go_on;
}

/* Walk all of the log; locks on its tables are kept if asked for. */
static void
walk_log(Oid relid, const MdReadPoint *read, const MdReadPoint *now, Snapshot snapshot,
		 bool keep_locks, NewRow callback, void *state)
{
	bool		go_on = true;
	ListCell   *lc;

	foreach(lc, md_log_tables(relid))
	{
		MdLogTable *table = lfirst(lc);
		Relation	log;

		if (!go_on)
			break;
		if (table->is_sealed &&
			(table->first_xid == 0 ||
			 md_read_point_sees_all(read, table->first_xid, table->last_xid)))
			continue;
		/* one that is gone held nothing that is new to us */
		log = try_table_open(table->relid, AccessShareLock);
		if (log == NULL)
			continue;
		go_on = walk_table(log, read, now, snapshot, callback, state);
		table_close(log, keep_locks ? NoLock : AccessShareLock);
	}
}

/* The newest mark that `read` does not see; NULL: none. */
static char *
find_mark(Oid relid, const MdReadPoint *read, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	char	   *reason = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run_cached(&plan,
							 "SELECT xid, cmin::text::bigint, reason FROM medallion.capture_mark"
							 " WHERE relid = $1 ORDER BY xid DESC", &args, snapshot);
	for (uint64 i = 0; i < rows && reason == NULL; i++)
		if (!md_read_point_sees(read, (uint64) md_sql_int64(i, 1), (CommandId) md_sql_int64(i, 2)))
			reason = MemoryContextStrdup(context, md_sql_string(i, 3));
	SPI_finish();
	md_catalog_restore_user(&saved);
	return reason;
}

static bool
note_news(TupleTableSlot *slot, void *state)
{
	*(bool *) state = true;
	return false;
}

/* Is there anything beyond a point? */
static bool
has_news(Oid relid, const MdReadPoint *read, Snapshot snapshot)
{
	bool		news = false;

	if (find_mark(relid, read, snapshot) != NULL)
		return true;
	walk_log(relid, read, NULL, snapshot, false, note_news, &news);
	return news;
}

static void
push_string(JsonbParseState **state, const char *key, char *string)
{
	JsonbValue	value;

	if (string == NULL)
		return;
	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	(void) pushJsonbValue(state, WJB_KEY, &value);
	value.val.string.val = string;
	value.val.string.len = strlen(string);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

static Jsonb *
make_frontier(const MdCapture *capture, Snapshot snapshot)
{
	JsonbParseState *state = NULL;
	MdReadPoint point;

	md_read_point_make(snapshot, md_capture_wrote(capture->relid), &point);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_string(&state, "capture", capture->id);
	push_string(&state, "snapshot", md_read_point_snapshot_text(&point));
	push_string(&state, "own", md_read_point_own_text(&point));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * SQL: how far a captured relation is, in the snapshot of the statement.
 *
 * NULL where that is not known: it is not captured, or something was missed, or
 * the snapshot is older than the capture.
 */
Datum
md_captured_frontier(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot = GetActiveSnapshot();
	MdCapture  *capture;
	MdReadPoint read;
	char	   *id;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	capture = md_capture_load(PG_GETARG_OID(0), snapshot);
	if (capture == NULL || get_rel_name(capture->relid) == NULL ||
		(capture->made_now && IsolationUsesXactSnapshot()) || !md_capture_is_intact(capture))
		PG_RETURN_NULL();
	if (!PG_ARGISNULL(1) && md_captured_parse(PG_GETARG_JSONB_P(1), &id, &read) &&
		strcmp(id, capture->id) == 0 && !has_news(capture->relid, &read, snapshot))
		PG_RETURN_DATUM(PG_GETARG_DATUM(1));
	PG_RETURN_JSONB_P(make_frontier(capture, snapshot));
}

/* ---------------------------------------------------------------------- */

char *
md_captured_obstacle(Oid relid, Jsonb *read, Jsonb *now, Snapshot snapshot)
{
	MdReadPoint point;
	MdReadPoint now_point;
	char	   *id;
	char	   *now_id;

	if (!md_captured_parse(now, &now_id, &now_point))
		return "was changed while its changes were not captured";
	if (!md_captured_parse(read, &id, &point))
	{
		char	   *lost = read ? md_json_string(read, "lost") : NULL;

		return lost ? psprintf("has changes that are lost: %s", lost) :
			"has not been read since its changes are captured";
	}
	if (strcmp(id, now_id) != 0)
	{
		MdCapture  *capture = md_capture_load(relid, snapshot);

		return capture && capture->reason ?
			psprintf("has its changes captured anew: %s", capture->reason) :
			"has its changes captured anew";
	}
	return find_mark(relid, &point, snapshot);
}

/* The columns of a relation, dropped ones as integers, and md_weight. */
static TupleDesc
changes_desc(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	source = RelationGetDescr(rel);
	TupleDesc	desc = CreateTemplateTupleDesc(source->natts + 1);

	for (int i = 0; i < source->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(source, i);

		if (att->attisdropped)
			TupleDescInitEntry(desc, i + 1, psprintf("?dropped%d?", i + 1), INT4OID, -1, 0);
		else
		{
			TupleDescInitEntry(desc, i + 1, NameStr(att->attname), att->atttypid,
							   att->atttypmod, att->attndims);
			TupleDescInitEntryCollation(desc, i + 1, att->attcollation);
		}
	}
	TupleDescInitEntry(desc, source->natts + 1, "md_weight", INT4OID, -1, 0);
	table_close(rel, NoLock);
	return desc;
}

typedef struct Collected
{
	Tuplestorestate *store;
	TupleDesc	desc;
	TupleTableSlot *row;		/* of the relation */
	TupleTableSlot *weighted;	/* the same with its weight */
	bool		has_dropped;	/* columns */
	Datum	   *values;
	bool	   *nulls;
	MemoryContext context;		/* of a row of the log */
	bool		only_came;
} Collected;

/*
 * Can the weight be put behind a row, as its last column?  Not behind one that is
 * shorter than rows are now, or whose nulls have no bit to spare for another column.
 */
static bool
takes_weight(const Collected *to, MinimalTuple row)
{
	int			columns = to->desc->natts - 1;

	return !to->has_dropped && HeapTupleHeaderGetNatts(row) == columns &&
		(!(row->t_infomask & HEAP_HASNULL) || columns % BITS_PER_BYTE != 0);
}

/* Put a row into the store, its weight in the bytes behind it. */
static void
put_with_weight(Collected *to, MinimalTuple row, int weight)
{
	int			columns = to->desc->natts - 1;
	Size		place = INTALIGN(row->t_len);

	*(int32 *) ((char *) row + place) = weight;
	row->t_len = place + sizeof(int32);
	HeapTupleHeaderSetNatts(row, columns + 1);
	if (row->t_infomask & HEAP_HASNULL)
		row->t_bits[columns / BITS_PER_BYTE] |= 1 << (columns % BITS_PER_BYTE);
	ExecStoreMinimalTuple(row, to->weighted, false);
	tuplestore_puttupleslot(to->store, to->weighted);
}

/* Put a row into the store column by column. */
static void
put_columns(Collected *to, MinimalTuple row, int weight)
{
	int			columns = to->desc->natts - 1;

	ExecStoreMinimalTuple(row, to->row, false);
	slot_getallattrs(to->row);
	for (int i = 0; i < columns; i++)
	{
		to->nulls[i] = to->row->tts_isnull[i] ||
			TupleDescAttr(to->row->tts_tupleDescriptor, i)->attisdropped;
		to->values[i] = to->nulls[i] ? (Datum) 0 : to->row->tts_values[i];
	}
	to->values[columns] = Int32GetDatum(weight);
	tuplestore_putvalues(to->store, to->desc, to->values, to->nulls);
}

static bool
collect(TupleTableSlot *slot, void *state)
{
	Collected  *to = state;
	MemoryContext old = MemoryContextSwitchTo(to->context);
	bool		isnull;
	Datum		value = slot_getattr(slot, MD_LOG_ROWS_COLUMN, &isnull);
	char	   *rows = (char *) PG_DETOAST_DATUM(value);
	Size		length = VARSIZE(rows);
	Size		size;

	for (Size at = MD_LOG_ROWS_START; at < length; at += size)
	{
		int			weight;
		MinimalTuple row = md_log_row_unpack(rows + at, 2 * sizeof(int32), &weight, &size);

		to->only_came &= weight > 0;
		if (takes_weight(to, row))
			put_with_weight(to, row, weight);
		else
			put_columns(to, row, weight);
	}
	ExecClearTuple(to->row);
	ExecClearTuple(to->weighted);
	MemoryContextSwitchTo(old);
	MemoryContextReset(to->context);
	return true;
}

Tuplestorestate *
md_captured_changes(Oid relid, Jsonb *read, Jsonb *now, Snapshot snapshot, TupleDesc *tupdesc,
					bool *only_came)
{
	/* before the log, as DDL on the relation locks them */
	Relation	rel = table_open(relid, AccessShareLock);
	Collected	to = {0};
	MdReadPoint read_point;
	MdReadPoint now_point;
	char	   *id;
	Snapshot	present;

	if (!md_captured_parse(read, &id, &read_point) || !md_captured_parse(now, &id, &now_point))
		elog(ERROR, "frontier of relation %u is none of a captured one", relid);
	*tupdesc = to.desc = changes_desc(relid);
	to.only_came = true;
	to.store = tuplestore_begin_heap(true, false, work_mem);
	to.row = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsMinimalTuple);
	to.weighted = MakeSingleTupleTableSlot(to.desc, &TTSOpsMinimalTuple);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
		to.has_dropped |= TupleDescAttr(RelationGetDescr(rel), i)->attisdropped;
	to.values = palloc(sizeof(Datum) * to.desc->natts);
	to.nulls = palloc0(sizeof(bool) * to.desc->natts);
	to.context = AllocSetContextCreate(CurrentMemoryContext, "change log rows", ALLOCSET_DEFAULT_SIZES);
	PushCopiedSnapshot(snapshot);
	UpdateActiveSnapshotCommandId();
	present = RegisterSnapshot(GetActiveSnapshot());
	walk_log(relid, &read_point, &now_point, present, true, collect, &to);
	UnregisterSnapshot(present);
	PopActiveSnapshot();
	MemoryContextDelete(to.context);
	ExecDropSingleTupleTableSlot(to.row);
	ExecDropSingleTupleTableSlot(to.weighted);
	table_close(rel, NoLock);
	*only_came = to.only_came;
	return to.store;
}
