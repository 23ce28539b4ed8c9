/*
 * ingest_worker_failures.c
 *		Trouble of a stream: its state row, the log, and when to try again.
 *
 * One line in the log for each new message and one when all is well again,
 * however often a stream is tried; the state row each time.
 *
 * That a table is locked is no failure.  It is tried again soon, whatever came
 * before and however long it lasts, and said once: who holds the lock is looked
 * up by those who ask (medallion.lock_holders()).
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "checkpoint.h"
#include "ingest_worker.h"
#include "worker.h"

/* A lock that was released is noticed within this time. */
#define LOCK_RETRY_MS 1000

/* What the state row of an entry shall say; sqlstate NULL: that all is well. */
typedef struct Status
{
	const MdIngestEntry *entry;
	const char *sqlstate;
	const char *message;
} Status;

static void
forget(char **message)
{
	if (*message != NULL)
		pfree(*message);
	*message = NULL;
}

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
	forget(&entry->told_waiting);
	write_status(entry, NULL, md_ingest_notice(entry));
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

/* The lock lasts: tell the log who has it. */
static void
log_waiting(void *arg)
{
	const MdIngestEntry *entry = arg;
	char	   *holders;

	PushActiveSnapshot(GetTransactionSnapshot());
	holders = md_stream_lock_holders(entry->relid);
	PopActiveSnapshot();
	ereport(LOG,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("ingest into streaming table \"%s\" waits for a lock", entry->name),
			 holders == NULL ? 0 : errdetail_log("%s.", holders),
			 errhint("It goes on by itself when the lock is released; medallion.streaming_tables shows who has it.")));
}

/* Say in the log what is new about an entry's trouble. */
static void
log_failure(MdIngestEntry *entry, int sqlstate, const char *message)
{
	/* a lock that is soon released is not worth a line */
	if (entry->waits && entry->failures <= 2)
		return;
	if (entry->last_message != NULL && strcmp(entry->last_message, message) == 0)
		return;
	if (entry->waits && !is_known_of_table(entry, message))
		(void) md_ingest_transaction(log_waiting, entry);
	else if (!is_known_of_table(entry, message))
		ereport(LOG,
				(errcode(sqlstate),
				 errmsg("ingest into streaming table \"%s\" failed: %s", entry->name, message),
				 errdetail("It is tried again until it succeeds; medallion.streaming_tables shows its state.")));
	forget(&entry->last_message);
	entry->last_message = MemoryContextStrdup(entry->context, message);
}

void
md_ingest_note_failure(MdIngestEntry *entry, int sqlstate, const char *message)
{
	bool		waits = sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	int			retry_ms;

	if (waits != entry->waits)
		entry->failures = 0;
	entry->waits = waits;
	entry->failures++;
	retry_ms = md_worker_backoff_ms(entry->failures);
	entry->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  waits ? Min(retry_ms, LOCK_RETRY_MS) : retry_ms);
	log_failure(entry, sqlstate, message);
	/* a wait of hours is a few writes, not one each second */
	if (waits && entry->told_waiting != NULL && strcmp(entry->told_waiting, message) == 0 &&
		(entry->failures & (entry->failures - 1)) != 0)
		return;
	write_status(entry, unpack_sql_state(sqlstate), message);
	forget(&entry->told_waiting);
	if (waits && !entry->owes_status)
		entry->told_waiting = MemoryContextStrdup(entry->context, message);
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
	forget(&entry->last_message);
	md_ingest_clear_status(entry);
}
