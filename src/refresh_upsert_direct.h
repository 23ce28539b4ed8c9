/*
 * refresh_upsert_direct.h
 *		Rows into a table by their key, straight to its storage.
 */
#ifndef MD_REFRESH_UPSERT_DIRECT_H
#define MD_REFRESH_UPSERT_DIRECT_H

#include "postgres.h"

#include "refresh_upsert.h"

/*
 * Do the upsert whose rows, in the order of the unique index over its keys, are
 * given by sql.  False, with nothing done, where the table has something that only
 * a statement sees to, or rows are not quite of its columns' types.
 */
extern bool md_upsert_directly(const MdUpsert *upsert, Oid index_id, const char *sql,
							   Snapshot snapshot, MdRun *run);

#endif							/* MD_REFRESH_UPSERT_DIRECT_H */
