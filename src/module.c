/*
 * module.c
 *		Entry of the library: settings, shared memory, hooks, the launcher.
 *
 * Loaded at server start it does all of that.  Loaded later, by the first call
 * of one of its functions, it only defines its settings: key functions work,
 * and whatever needs workers says that it must be preloaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "capture.h"
#include "compat.h"
#include "ddl.h"
#include "launcher.h"
#include "node_identity.h"
#include "settings.h"
#include "worker_slots.h"

MD_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type next_shmem_request_hook = NULL;
static shmem_startup_hook_type next_shmem_startup_hook = NULL;

static void
shmem_request(void)
{
	if (next_shmem_request_hook)
		next_shmem_request_hook();
	md_worker_slots_request();
	md_node_identity_request();
}

static void
shmem_startup(void)
{
	if (next_shmem_startup_hook)
		next_shmem_startup_hook();
	md_worker_slots_init();
	md_node_identity_init();
}

void
_PG_init(void)
{
	md_settings_define();
	if (!process_shared_preload_libraries_in_progress)
		return;

	next_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	next_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	md_ddl_install_hooks();
	md_capture_install_hook();

	/* pg_upgrade starts servers only to look and to load: no workers there */
	if (!IsBinaryUpgrade)
		md_launcher_register();
}
