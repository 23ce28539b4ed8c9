/*
 * settings.c
 *		The settings medallion.*: one definition each, in alphabetical order.
 *
 * Those that size shared memory can only be set at server start, and are not
 * defined when the library comes in later; all others can be reloaded.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "settings.h"

bool		md_allow_direct_writes = false;
int			md_backoff_max_ms = 60000;
int			md_backoff_min_ms = 250;
int			md_batch_history_retention_s = 86400;
int			md_batch_time_limit_ms = 1000;
int			md_batch_timeout_ms = 60000;
int			md_change_log_limit_mb = 1024;
int			md_dead_letter_retention_s = 0;
char	   *md_debug_points = NULL;
int			md_discovery_interval_ms = 30000;
int			md_ingest_memory_kb = 196608;
int			md_ingest_workers = 1;
int			md_kafka_timeout_ms = 10000;
int			md_max_worker_slots = 32;
int			md_refresh_history_retention_s = 7 * 86400;
int			md_refresh_work_mem_kb = 98304;
int			md_refresh_workers = 1;
int			md_swap_lock_timeout_ms = 100;
bool		md_workers_enabled = true;

void
md_settings_define(void)
{
	DefineCustomBoolVariable("medallion.allow_direct_writes",
							 "Allows INSERT, UPDATE, DELETE and TRUNCATE on streaming tables in this session.",
							 "Views that read the table are then refreshed in full at their next refresh.",
							 &md_allow_direct_writes, false,
							 PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.backoff_max",
							"Longest pause between two attempts after repeated failures.",
							NULL, &md_backoff_max_ms, 60000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.backoff_min",
							"Pause after a first failure; it doubles with each further one.",
							NULL, &md_backoff_min_ms, 250, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.batch_history_retention",
							"How long the bounds of ingested batches are kept.",
							"Bounds that a view has not read yet are kept for as long as it needs them.",
							&md_batch_history_retention_s, 86400, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.batch_time_limit",
							"How long one streaming table may take of a batch that it shares.",
							"A table that takes longer is read apart from then on, in smaller batches.",
							&md_batch_time_limit_ms, 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.batch_timeout",
							"Time after which an ingest worker gives up storing a table's part of a batch.",
							"It is tried again after a pause, with fewer rows. 0: never.",
							&md_batch_timeout_ms, 60000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.change_log_limit",
							"Size that the change log of one captured relation may have.",
							"A view that has not read a log of this size when it is given up is refreshed in full.",
							&md_change_log_limit_mb, 1024, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.dead_letter_retention",
							"How long dead letters are kept before they are deleted and recorded as gaps.",
							"0 keeps them until they are requeued or discarded.",
							&md_dead_letter_retention_s, 0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomStringVariable("medallion.debug_points",
							   "Named places at which processes stop (with \"!\" die, with \"=SQLSTATE\" fail), for tests.",
							   NULL, &md_debug_points, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.discovery_interval",
							"How often topics are looked at for new partitions, and servers for new topics.",
							NULL, &md_discovery_interval_ms, 30000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.ingest_memory",
							"Memory for fetched records, per ingest worker.",
							"Its Kafka clients share it: the first has half of it, each other half of what is left.",
							&md_ingest_memory_kb, 196608, 4096, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.ingest_workers",
							"Ingest workers per database.",
							NULL, &md_ingest_workers, 1, 0, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.kafka_timeout",
							"Time limit of one request to Kafka from a session.",
							NULL, &md_kafka_timeout_ms, 10000, 100, 600000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("medallion.max_worker_slots",
								"Worker processes that this extension may have in all databases together.",
								"Each takes one of max_worker_processes while it runs.",
								&md_max_worker_slots, 32, 2, 1024,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.refresh_history_retention",
							"How long rows of medallion.refresh_history are kept.",
							NULL, &md_refresh_history_retention_s, 7 * 86400, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.refresh_work_mem",
							"Memory for each sort or hash table of a refresh, where work_mem is less.",
							NULL, &md_refresh_work_mem_kb, 98304, 64, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.refresh_workers",
							"Refresh workers per database.",
							NULL, &md_refresh_workers, 1, 0, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("medallion.swap_lock_timeout",
							"How long readers of a view may have to wait for one attempt to change its columns.",
							"There are up to 100 attempts.",
							&md_swap_lock_timeout_ms, 100, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomBoolVariable("medallion.workers",
							 "Whether background workers run at all.",
							 NULL, &md_workers_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("medallion");
}
