/*
 * ingest_worker_discovery.c
 *		Partitions that topics got since their streams were started.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "ingest_worker.h"
#include "settings.h"

/* Requests to Kafka hold up all streams of the worker: they must be short. */
#define REQUEST_TIMEOUT_MS 2000

/* A broker that does not answer would hold up the other lanes. */
bool
md_ingest_wants_discovery(const MdLane *lane)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
	{
		MdIngestStream *stream = lfirst(lc);

		if (stream->partitions == NIL || md_ingest_any_alive(stream))
			return true;
	}
	return false;
}

/* Look for new partitions, for md_ingest_transaction(). */
static void
discover(void *arg)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	md_ingest_discover(arg, REQUEST_TIMEOUT_MS);
	PopActiveSnapshot();
}

static void
discover_partitions(MdLane *lane)
{
	ErrorData  *error = md_ingest_transaction(discover, lane);

	/* the consumer itself says when a broker is not there */
	if (error != NULL)
		ereport(DEBUG1, (errmsg_internal("could not look for partitions: %s", error->message)));
	lane->next_discovery = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), md_discovery_interval_ms);
}

void
md_ingest_discover_due(void)
{
	ListCell   *lc;

	foreach(lc, md_ingest_worker.lanes)
	{
		MdLane	   *lane = lfirst(lc);

		if (md_ingest_wants_discovery(lane) &&
			md_clock_ms_until(GetCurrentTimestamp(), lane->next_discovery) == 0)
			discover_partitions(lane);
		CHECK_FOR_INTERRUPTS();
	}
}
