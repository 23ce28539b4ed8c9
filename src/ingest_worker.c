/*
 * ingest_worker.c
 *		A process that reads topics into streaming tables.
 */
#include "postgres.h"

#include "storage/ipc.h"

#include "launcher.h"
#include "worker.h"

void
md_ingest_worker_main(Datum arg)
{
	md_worker_begin(DatumGetInt32(arg));
	proc_exit(0);
}
