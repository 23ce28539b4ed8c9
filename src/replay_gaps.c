/*
 * replay_gaps.c
 *		What remains of gaps after a replay.
 *
 * A range that was read is as if ingest had read it: an offset without a record
 * (a transaction's marker, compaction) needs no gap.  But a gap in place of a
 * dead letter was a record once; unless that came again, it stays.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "replay.h"
#include "sql_run.h"
#include "stream_state.h"

/* A recorded gap that overlaps a range. */
typedef struct Gap
{
	int64		first_offset;
	int64		next_offset;
	bool		was_letter;
} Gap;

static Gap *
load_gaps(Oid relid, const MdReplayRange *range, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	MdSqlArgs	args = {0};
	MdSecurity	saved;
	Gap		   *gaps;

	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(range->checkpoint.topic), false);
	md_sql_arg(&args, INT4OID, Int32GetDatum(range->checkpoint.partition), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(range->from), false);
	md_sql_arg(&args, INT8OID, Int64GetDatum(range->to), false);
	*n = (int) md_sql_run("SELECT g.first_offset, g.next_offset, g.reason IN ('discarded', 'expired')"
						  "  FROM medallion.gap g"
						  " WHERE g.relid = $1 AND g.topic = $2 AND g.kafka_partition = $3"
						  "   AND g.next_offset > $4 AND g.first_offset < $5", &args, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	gaps = palloc(sizeof(Gap) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		gaps[i].first_offset = md_sql_int64(i, 1);
		gaps[i].next_offset = md_sql_int64(i, 2);
		gaps[i].was_letter = md_sql_bool(i, 3);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	return gaps;
}

/* Of a gap that begins at first_offset, keep the part [from, to) as well. */
static void
keep_part(Oid relid, const MdReplayRange *range, const Gap *gap, int64 from, int64 to)
{
	Oid			argtypes[6] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID};
	Datum		args[6];

	if (from >= to)
		return;
	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(range->checkpoint.topic);
	args[2] = Int32GetDatum(range->checkpoint.partition);
	args[3] = Int64GetDatum(gap->first_offset);
	args[4] = Int64GetDatum(from);
	args[5] = Int64GetDatum(to);
	/* the first part takes the gap's own place */
	md_stream_write("INSERT INTO medallion.gap (relid, topic, kafka_partition, first_offset, next_offset, reason, recorded_at)"
					" SELECT g.relid, g.topic, g.kafka_partition, $5, $6, g.reason, g.recorded_at"
					"   FROM medallion.gap g"
					"  WHERE g.relid = $1 AND g.topic = $2 AND g.kafka_partition = $3 AND g.first_offset = $4"
					" ON CONFLICT (relid, topic, kafka_partition, first_offset)"
					"    DO UPDATE SET next_offset = excluded.next_offset", 6, argtypes, args);
}

/* Nothing remains of a gap's own place. */
static void
delete_gap(Oid relid, const MdReplayRange *range, const Gap *gap)
{
	Oid			argtypes[4] = {OIDOID, TEXTOID, INT4OID, INT8OID};
	Datum		args[4];

	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(range->checkpoint.topic);
	args[2] = Int32GetDatum(range->checkpoint.partition);
	args[3] = Int64GetDatum(gap->first_offset);
	md_stream_write("DELETE FROM medallion.gap"
					" WHERE relid = $1 AND topic = $2 AND kafka_partition = $3 AND first_offset = $4",
					4, argtypes, args);
}

/* Is the offset still missing after the replay? */
static bool
still_missing(const MdReplayRange *range, const Gap *gap, int64 offset)
{
	if (offset < range->from || offset >= range->to)
		return true;
	return gap->was_letter && !md_offset_set_contains(range->found, offset);
}

/* Cut out of a gap what was read of it. */
static void
narrow_gap(Oid relid, const MdReplayRange *range, const Gap *gap)
{
	int64		low = Max(gap->first_offset, range->from);
	int64		high = Min(gap->next_offset, range->to);
	int64		part = low;		/* beginning of the part that stays */
	bool		first_stays = low > gap->first_offset || still_missing(range, gap, low);

	if (low > gap->first_offset)
		part = gap->first_offset;
	if (gap->was_letter)
	{
		for (int64 offset = low; offset < high; offset++)
			if (!still_missing(range, gap, offset))
			{
				keep_part(relid, range, gap, part, offset);
				part = offset + 1;
			}
	}
	else
	{
		keep_part(relid, range, gap, part, low);
		part = high;
	}
	keep_part(relid, range, gap, part, gap->next_offset);
	if (!first_stays)
		delete_gap(relid, range, gap);
}

/*
 * Records before the table's start were read: it starts there now, and what
 * lies between and was not read is a gap.
 */
static void
lower_start(Oid relid, const MdReplayRange *range)
{
	Oid			argtypes[6] = {OIDOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID};
	Datum		args[6];

	args[0] = ObjectIdGetDatum(relid);
	args[1] = CStringGetTextDatum(range->checkpoint.topic);
	args[2] = Int32GetDatum(range->checkpoint.partition);
	args[3] = Int64GetDatum(range->from);
	args[4] = Int64GetDatum(range->to);
	args[5] = Int64GetDatum(range->checkpoint.start_offset);
	md_stream_write("UPDATE medallion.checkpoint SET start_offset = $4"
					" WHERE relid = $1 AND topic = $2 AND kafka_partition = $3", 6, argtypes, args);
	if (range->to < range->checkpoint.start_offset)
		md_stream_write("INSERT INTO medallion.gap (relid, topic, kafka_partition, first_offset, next_offset, reason)"
						" VALUES ($1, $2, $3, $5, $6, 'before start_at, and not replayed')",
						6, argtypes, args);
}

void
md_replay_settle_gaps(Oid relid, const MdReplayRange *ranges, int n)
{
	for (int i = 0; i < n; i++)
	{
		int			n_gaps;
		Gap		   *gaps = load_gaps(relid, &ranges[i], &n_gaps);

		for (int g = 0; g < n_gaps; g++)
			narrow_gap(relid, &ranges[i], &gaps[g]);
		if (ranges[i].from < ranges[i].checkpoint.start_offset)
			lower_start(relid, &ranges[i]);
	}
}
