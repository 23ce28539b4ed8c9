/*
 * settings.h
 *		The settings medallion.*: declared, documented and registered once.
 */
#ifndef MD_SETTINGS_H
#define MD_SETTINGS_H

#include "postgres.h"

extern bool md_allow_direct_writes;
extern int	md_backoff_max_ms;
extern int	md_backoff_min_ms;
extern int	md_batch_history_retention_s;
extern int	md_batch_time_limit_ms;
extern int	md_batch_timeout_ms;
extern int	md_change_log_limit_mb;
extern int	md_dead_letter_retention_s;
extern char *md_debug_points;
extern int	md_discovery_interval_ms;
extern int	md_ingest_memory_kb;
extern int	md_ingest_workers;
extern int	md_kafka_timeout_ms;
extern int	md_max_worker_slots;
extern int	md_refresh_history_retention_s;
extern int	md_refresh_work_mem_kb;
extern int	md_refresh_workers;
extern int	md_swap_lock_timeout_ms;
extern bool md_workers_enabled;

/* Register all settings. Called once, from _PG_init. */
extern void md_settings_define(void);

#endif							/* MD_SETTINGS_H */
