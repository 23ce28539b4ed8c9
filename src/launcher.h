/*
 * launcher.h
 *		The one process per server that starts a supervisor per database.
 */
#ifndef MD_LAUNCHER_H
#define MD_LAUNCHER_H

#include "postgres.h"

extern void md_launcher_register(void);
extern PGDLLEXPORT void md_launcher_main(Datum arg);
extern PGDLLEXPORT void md_supervisor_main(Datum arg);
extern PGDLLEXPORT void md_ingest_worker_main(Datum arg);
extern PGDLLEXPORT void md_refresh_worker_main(Datum arg);

#endif							/* MD_LAUNCHER_H */
