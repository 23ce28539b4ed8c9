/*
 * ingest_worker_failures.c
 *		Trouble of a stream: its state row, the log, and when to try again.
 *
 * One line in the log for each new message and one when all is well again,
 * however often a stream is tried; the state row each time.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "checkpoint.h"
#include "ingest_worker.h"
#include "worker.h"

/* What the state row of an entry shall say; sqlstate NULL: that all is well. */
typedef struct Status
{
	const MdIngestEntry *entry;
	const char *sqlstate;
	const char *message;
} Status;

static void
set_status(void *arg)
{
	const Status *status = arg;
	const MdIngestEntry *entry = status->entry;

	PushActiveSnapshot(GetTransactionSnapshot());
	md_stream_set_status(entry->relid, entry->topic, entry->failures, status->sqlstate, status->message,
						 entry->retry_at);
	PopActiveSnapshot();
}

/*
 * Write the state row of an entry, in its own transaction.  That this fails is
 * no matter while it tells of trouble, which is told again; but that all is
 * well must be told at last.
 */
static void
write_status(MdIngestEntry *entry, const char *sqlstate, const char *message)
{
	Status		status = {entry, sqlstate, message};
	ErrorData  *error = md_ingest_transaction(set_status, &status);

	entry->owes_status = error != NULL;
	if (error != NULL)
		ereport(DEBUG1, (errmsg_internal("could not write the state of a stream: %s", error->message)));
}

void
md_ingest_clear_status(MdIngestEntry *entry)
{
	entry->failures = 0;
	write_status(entry, NULL, NULL);
}

/* State rows that say "failing" of what no longer fails. */
void
md_ingest_write_owed_statuses(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *entry = lfirst(lc);

		if (entry->owes_status && entry->failures == 0)
			md_ingest_clear_status(entry);
	}
}

/*
 * Is another topic of the same table in trouble, with the same message (NULL:
 * with any)?  What is said of a table is said once for all of its topics.
 */
static bool
is_known_of_table(const MdIngestEntry *entry, const char *message)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.entries)
	{
		MdIngestEntry *other = lfirst(lc);

		if (other != entry && other->relid == entry->relid && other->last_message != NULL &&
			(message == NULL || strcmp(other->last_message, message) == 0))
			return true;
	}
	return false;
}

/* Note trouble: one log line for each new message, the state row each time. */
void
md_ingest_note_failure(MdIngestEntry *entry, int sqlstate, const char *message)
{
	entry->failures++;
	entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  md_worker_backoff_ms(entry->failures));
	/* a lock that is soon released is not worth a line */
	if ((entry->last_message == NULL || strcmp(entry->last_message, message) != 0) &&
		(sqlstate != ERRCODE_LOCK_NOT_AVAILABLE || entry->failures > 2))
	{
		if (!is_known_of_table(entry, message))
			ereport(LOG,
					(errcode(sqlstate),
					 errmsg("ingest into streaming table \"%s\" failed: %s", entry->name, message),
					 errdetail("It is tried again until it succeeds; medallion.streaming_tables shows its state.")));
		if (entry->last_message)
			pfree(entry->last_message);
		entry->last_message = MemoryContextStrdup(entry->context, message);
	}
	write_status(entry, unpack_sql_state(sqlstate), message);
}

static void
set_retry(void *arg)
{
	const MdIngestEntry *entry = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	md_stream_set_retry(entry->relid, entry->topic, entry->failures, entry->retry_at);
	PopActiveSnapshot();
}

void
md_ingest_note_retry(MdIngestEntry *entry)
{
	ErrorData  *error = md_ingest_transaction(set_retry, entry);

	/* the next one tells */
	if (error != NULL)
		ereport(DEBUG1, (errmsg_internal("could not write the state of a stream: %s", error->message)));
}

/* All is well again with an entry that was in trouble. */
void
md_ingest_note_recovery(MdIngestEntry *entry)
{
	if (entry->last_message != NULL && !is_known_of_table(entry, NULL))
		ereport(LOG,
				(errmsg("ingest into streaming table \"%s\" goes on after %d failed attempts",
						entry->name, entry->failures)));
	if (entry->last_message)
		pfree(entry->last_message);
	entry->last_message = NULL;
	md_ingest_clear_status(entry);
}
