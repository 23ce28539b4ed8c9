/*
 * refresh_upsert_direct.h
 *		Rows into a table by their key, straight to its storage.
 */
#ifndef MD_REFRESH_UPSERT_DIRECT_H
#define MD_REFRESH_UPSERT_DIRECT_H

#include "postgres.h"

#include "refresh_upsert.h"

/*
 * Do the upsert through the unique index over its keys.  False, with nothing done,
 * where the table has something that only a statement sees to, or rows are not quite
 * of its columns' types.  Rows that take more than work_mem are written in parts.
 */
extern bool md_upsert_directly(const MdUpsert *upsert, Oid index_id,
							   Snapshot snapshot, MdRun *run);

#endif							/* MD_REFRESH_UPSERT_DIRECT_H */
