/*
 * late_rows.h
 *		Stores records behind a streaming table's checkpoint: requeued and
 *		replayed ones.
 *
 * They go through the same decoder and into the same storage as those of a
 * batch, but no checkpoint moves.  That a record is stored once is the
 * caller's to see to: by taking its dead letter, or by looking whether it is
 * there, under a lock that keeps others from doing the same.
 *
 * All functions run in a session, inside a transaction.
 */
#ifndef MD_LATE_ROWS_H
#define MD_LATE_ROWS_H

#include "postgres.h"
#include "storage/lockdefs.h"

#include "catalog.h"
#include "decode.h"
#include "ingest.h"

typedef struct MdLateRows MdLateRows;

/*
 * Keep others from storing late rows of the table until the end of the
 * transaction: requeues share the lock (ShareLock), a replay has it alone
 * (ExclusiveLock).  Workers do not take it.
 */
extern void md_late_rows_lock(Oid relid, LOCKMODE mode);

/*
 * Begin to store late rows of a table that the caller has locked
 * (RowExclusiveLock); all memory is a child of context.
 */
extern MdLateRows *md_late_rows_begin(const MdStream *def, MemoryContext context);

/*
 * Store n records, in a subtransaction.  Returns those that cannot be stored
 * (of MdBadRecord, valid until the next call).  Throws any error that is not the
 * fault of a record.
 */
extern List *md_late_rows_store(MdLateRows *late, MdRecord *records, int n);

/* Count a record that was not stored but became a dead letter. */
extern void md_late_rows_count_dead(MdLateRows *late, const MdRecord *record);

/* Let readers of the table know which rows were stored; returns their number. */
extern int64 md_late_rows_end(MdLateRows *late);

#endif							/* MD_LATE_ROWS_H */
