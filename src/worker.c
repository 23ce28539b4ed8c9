/*
 * worker.c
 *		What every one of our processes does alike: start, stop, be started.
 *
 * None is restarted by the postmaster but the launcher: the supervisor is
 * started by the launcher and the others by their supervisor, so that there is
 * one owner of each decision.  SIGTERM is handled by die(), which takes effect
 * at the next CHECK_FOR_INTERRUPTS, even inside a long statement.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "settings.h"
#include "worker.h"

static Oid	my_database = InvalidOid;

void
md_worker_fix_setting(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Settings that a configuration file or ALTER DATABASE may carry for sessions,
 * and that must not matter here.
 */
static void
fix_settings(void)
{
	static const char *const fixed[][2] = {
		{"role", "none"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"search_path", "pg_catalog, pg_temp"},
		{"standard_conforming_strings", "on"},
		{"array_nulls", "on"},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
	};

	for (int i = 0; i < lengthof(fixed); i++)
		md_worker_fix_setting(fixed[i][0], fixed[i][1]);
}

void
md_worker_begin(int slot)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	md_worker_slot_claim(slot);
	my_database = md_worker_slot_database(slot);
	if (OidIsValid(my_database))
		BackgroundWorkerInitializeConnectionByOid(my_database, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/*
	 * A process begins with SIGHUP ignored, so it hears nothing of a reload
	 * that came since it was forked; it has settings of before then.
	 */
	ProcessConfigFile(PGC_SIGHUP);
	fix_settings();
}

bool
md_worker_start(int slot, Oid database, MdWorkerKind kind,
				BackgroundWorkerHandle **handle)
{
	static const char *const mains[] = {
		[MD_WORKER_LAUNCHER] = "md_launcher_main",
		[MD_WORKER_SUPERVISOR] = "md_supervisor_main",
		[MD_WORKER_INGEST] = "md_ingest_worker_main",
		[MD_WORKER_REFRESH] = "md_refresh_worker_main",
	};
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(slot);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "pg_medallion", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, mains[kind], BGW_MAXLEN);
	snprintf(worker.bgw_type, BGW_MAXLEN, "medallion %s", md_worker_kind_name(kind));
	snprintf(worker.bgw_name, BGW_MAXLEN, "medallion %s of database %u",
			 md_worker_kind_name(kind), database);

	/* the handle must outlive the caller's cycle */
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!started)
		md_worker_slot_free(slot);
	return started;
}

bool
md_worker_check(void)
{
	CHECK_FOR_INTERRUPTS();
	if (OidIsValid(my_database) && md_database_is_blocked(my_database))
		proc_exit(0);
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

bool
md_worker_has_news(uint64 generation)
{
	return ConfigReloadPending ||
		(OidIsValid(my_database) &&
		 (md_database_is_blocked(my_database) ||
		  md_definitions_generation() != generation));
}

int
md_worker_backoff_ms(int failures)
{
	double		ms = md_backoff_min_ms;

	for (int i = 1; i < failures && ms < md_backoff_max_ms; i++)
		ms *= 2;
	ms = Min(ms, md_backoff_max_ms);
	/* up to a fifth less, so that many that failed together part again */
	return Max(1, (int) (ms * (1.0 - 0.2 * pg_prng_double(&pg_global_prng_state))));
}
