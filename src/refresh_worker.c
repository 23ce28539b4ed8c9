/*
 * refresh_worker.c
 *		A process that refreshes views when they are due.
 */
#include "postgres.h"

#include "storage/ipc.h"

#include "launcher.h"
#include "worker.h"

void
md_refresh_worker_main(Datum arg)
{
	md_worker_begin(DatumGetInt32(arg));
	proc_exit(0);
}
