/*
 * ingest_threshold.c
 *		Pauses a streaming table when too many of its records are bad.
 *
 * When a producer changes what it sends, all that comes is bad, and would fill
 * the disk with dead letters until somebody looks.  A table with the option
 * max_dead_letter_ratio is paused instead.  Each worker counts, in its memory,
 * what it has read of a table in the last dead_letter_window; a definition that
 * changed, or a pause that ended, begins a new count, or a table that was just
 * put right would be paused again for what was before.
 *
 * The batch that is too much is still stored, and its dead letters are, so that
 * each record is accounted for and the errors can be read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "ingest.h"
#include "ingest_threshold.h"
#include "sql_run.h"
#include "worker_slots.h"

typedef struct Counts
{
	int64		records;
	int64		dead_letters;
} Counts;

/* What the batch under way has of the stream. */
static Counts
counts_of_batch(const MdIngestStream *stream)
{
	Counts		counts = {0};
	ListCell   *lc;

	foreach(lc, stream->partitions)
	{
		MdPartition *partition = lfirst(lc);

		if (!partition->in_batch)
			continue;
		counts.records += partition->n_records - partition->n_unstored + partition->n_dead;
		counts.dead_letters += partition->n_dead;
	}
	return counts;
}

/* Number of the slot that a time belongs to. */
static int64
slot_number(const MdIngestStream *stream, TimestampTz time)
{
	return time / (stream->def->dead_letter_window_ms * INT64CONST(1000) / MD_THRESHOLD_SLOTS);
}

/* What was read in the window before. */
static Counts
counts_of_window(const MdIngestStream *stream, TimestampTz now)
{
	int64		newest = slot_number(stream, now);
	Counts		counts = {0};

	for (int i = 0; i < MD_THRESHOLD_SLOTS; i++)
		if (stream->window.slots[i].number > newest - MD_THRESHOLD_SLOTS)
		{
			counts.records += stream->window.slots[i].records;
			counts.dead_letters += stream->window.slots[i].dead_letters;
		}
	return counts;
}

/* Most of the latest dead letters have this error. */
static char *
commonest_error(Oid relid)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_run("SELECT mode() WITHIN GROUP (ORDER BY l.sqlstate || ': ' || l.message)"
			   "  FROM (SELECT d.sqlstate, d.message FROM medallion.dead_letter d"
			   "         WHERE d.relid = $1 ORDER BY d.failed_at DESC LIMIT 1000) l",
			   &args, InvalidSnapshot);
	return md_sql_string(0, 1);
}

/*
 * Pause the table.  Never waits: if another session is at the definition, the
 * next batch tries again.
 */
static bool
pause_stream(Oid relid, const char *reason)
{
	MdSqlArgs	args = {0};

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_sql_arg(&args, TEXTOID, CStringGetTextDatum(reason), false);
	return md_sql_run("UPDATE medallion.stream"
					  "   SET paused = true, paused_reason = $2, generation = generation + 1"
					  " WHERE relid = (SELECT s.relid FROM medallion.stream s"
					  "                 WHERE s.relid = $1 AND NOT s.paused FOR UPDATE SKIP LOCKED)",
					  &args, InvalidSnapshot) == 1;
}

void
md_ingest_threshold_check(MdIngestStream *stream, TimestampTz now)
{
	const MdStream *def = stream->def;
	Counts		batch;
	Counts		window;
	MdSecurity	saved;
	char	   *reason;

	/* who runs ingest in the foreground is looking */
	if (def->max_dead_letter_ratio < 0 || stream->lane->foreground)
		return;
	batch = counts_of_batch(stream);
	window = counts_of_window(stream, now);
	window.records += batch.records;
	window.dead_letters += batch.dead_letters;
	if (batch.dead_letters == 0 || window.records < MD_THRESHOLD_MIN_RECORDS ||
		window.dead_letters <= def->max_dead_letter_ratio * window.records)
		return;

	md_catalog_become_owner(&saved);
	SPI_connect();
	reason = psprintf(INT64_FORMAT " of " INT64_FORMAT " records could not be stored,"
					  " more than max_dead_letter_ratio %g allows; commonest error: %s",
					  window.dead_letters, window.records, def->max_dead_letter_ratio,
					  commonest_error(def->relid));
	if (pause_stream(def->relid, reason))
	{
		md_definitions_changed();
		ereport(LOG,
				(errmsg("pausing ingest into streaming table \"%s\": %s",
						get_rel_name(def->relid), reason),
				 errhint("Correct the producer, or the table, then requeue or discard its dead letters, and call medallion.resume().")));
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
}

void
md_ingest_threshold_count(MdIngestStream *stream)
{
	Counts		batch;
	int64		number;
	int			i;

	if (stream->def->max_dead_letter_ratio < 0)
		return;
	batch = counts_of_batch(stream);
	number = slot_number(stream, GetCurrentTimestamp());
	i = (int) (number % MD_THRESHOLD_SLOTS);
	if (stream->window.slots[i].number != number)
	{
		stream->window.slots[i].number = number;
		stream->window.slots[i].records = 0;
		stream->window.slots[i].dead_letters = 0;
	}
	stream->window.slots[i].records += batch.records;
	stream->window.slots[i].dead_letters += batch.dead_letters;
}
