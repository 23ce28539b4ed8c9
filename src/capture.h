/*
 * capture.h
 *		Change capture on relations that no checkpoint describes.
 *
 *	 INSERT, UPDATE, ...            refresh
 *	   |  statement trigger            |
 *	   v                               v
 *	 captured relation   ------->   change log   ------->   signed changes
 *
 * A captured relation is an ordinary table, a partitioned table with all of
 * its partitions, or the result of a view of ours.
 *
 * capture.c sets up and takes away, capture_shape.c tells whether all is still
 * in place, capture_log.c owns the tables of the log, capture_write.c fills
 * them, capture_read.c reads them, capture_ddl.c follows DDL.
 */
#ifndef MD_CAPTURE_H
#define MD_CAPTURE_H

#include "postgres.h"
#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "read_point.h"

/* Columns of a table of the log. */
#define MD_LOG_XID_COLUMN 1
#define MD_LOG_ROWS_COLUMN 2
#define MD_LOG_COLUMNS 2

/* Rows of the log up to this size stay in one piece. */
#define MD_LOG_TUPLE_TARGET 8160

/* Rows begin here in md_rows: behind the varlena header.  See capture_row.h. */
#define MD_LOG_ROWS_START VARHDRSZ

typedef struct MdCapture
{
	Oid			relid;
	char	   *id;
	bool		by_row;
	int64		shape;
	char	   *reason;			/* why it was set up anew; NULL: it is the first */
	bool		made_now;		/* by this transaction */
} MdCapture;

/* One table of a log. */
typedef struct MdLogTable
{
	Oid			relid;
	bool		is_current;
	bool		is_sealed;		/* nobody writes it; the bounds are known */
	uint64		first_xid;		/* 0: it is empty */
	uint64		last_xid;
} MdLogTable;

/* ---- capture.c ---- */

/* Load a capture, NULL if there is none. snapshot NULL: what is there now. */
extern MdCapture *md_capture_load(Oid relid, Snapshot snapshot);

/* Why a view of `owner` cannot have changes of a relation captured; NULL: it can. */
extern char *md_capture_obstacle(Oid relid, Oid owner);

/*
 * Have the changes of what an incremental view reads captured, as far as its
 * owner may, and mend what is broken; other sources are passed over.  Before
 * the snapshot is taken under which the view is refreshed.
 */
extern void md_capture_prepare(Oid view);

/* What keeps the changes of a relation from being captured, whoever asks. */
extern char *md_capture_relation_obstacle(Oid relid);

/* Set a capture up anew; all readers start anew. */
extern void md_capture_mend(Oid relid);

/* Put our triggers on a member of a captured relation; or take them away. */
extern void md_capture_add_triggers(Oid root, Oid member, bool by_row);
extern void md_capture_drop_triggers(Oid root, Oid member);

/* Store that the capture has this shape now. */
extern void md_capture_store_shape(Oid relid, int64 shape);

/* All captures whose relation is gone, or that no incremental view reads. */
extern void md_capture_release_unused(void);

/* Call md_capture_release_unused() at the end of this statement. */
extern void md_capture_release_later(void);
extern bool md_capture_release_is_due(void);

/* A relation is being dropped: its capture goes at the end of the statement. */
extern void md_capture_relation_dropped(Oid relid);

/* All captured relations (of Oid). */
extern List *md_capture_list(void);

/*
 * The lock of a captured relation as an object of ours: shared for who begins
 * to read the log, exclusive for who takes something from it.
 */
extern void md_capture_lock_shared(Oid relid);
extern bool md_capture_lock_exclusive(Oid relid);

/* ---- capture_shape.c ---- */

/* The relation and, if it is partitioned, all partitions (of Oid). */
extern List *md_capture_members(Oid relid);

/* Oids of our triggers on a member for the capture of root. */
extern List *md_capture_triggers(Oid root, Oid member);

/* Is the relation written by other than statements of its own? */
extern bool md_capture_needs_rows(List *members);

/* A fingerprint of columns, members and triggers. */
extern int64 md_capture_shape(Oid relid);

/* Is everything as it was when it was last set up? */
extern bool md_capture_is_intact(const MdCapture *capture);

/* What is not, in words. */
extern char *md_capture_what_broke(const MdCapture *capture);

extern Oid	md_capture_function(void);

/* Do all triggers that a member has for the capture of root fire always? */
extern bool md_capture_triggers_fire(Oid root, Oid member);

/* Roots of the captures that a trigger on this relation belongs to (of Oid). */
extern List *md_capture_roots(Oid member);

/* ---- capture_log.c ---- */

/* The tables of a log (of MdLogTable). */
extern List *md_log_tables(Oid relid);

/* Where changes go now, InvalidOid if nowhere. */
extern Oid	md_log_current(Oid relid);

/* Begin a new table of a relation's log. */
extern void md_log_begin(Oid relid);
extern void md_log_drop(Oid relid);

/* Is there a table of the log that was rotated away and not sealed yet? */
extern bool md_log_is_draining(Oid relid);

/* Give back what all readers have read. */
extern void md_log_prune(Oid relid);

/*
 * Was a log rotated here?  Seal what nobody writes any more, in a transaction
 * after that, so that readers of an idle relation do not look at it.
 */
extern bool md_log_settle_is_due(void);
extern void md_log_settle(void);

/* Give up on readers that make logs grow beyond their limit. */
extern void md_log_enforce_limit(Oid relid);

/* ---- capture_write.c ---- */

/*
 * Log rows of `member` one by one: what the triggers do, for who writes past them.  NULL
 * if there is nothing to write to.  expected_rows: about so many will come.
 */
typedef struct MdCaptureWriter MdCaptureWriter;

extern MdCaptureWriter *md_capture_write_begin(Oid root, Relation member, int64 expected_rows);
extern void md_capture_write_put(MdCaptureWriter *writer, TupleTableSlot *row, int32 weight);
extern void md_capture_write_end(MdCaptureWriter *writer);

/* Log all rows that a member has now, or a mark when these are too many. */
extern void md_capture_write_whole(Oid root, Oid member, int weight, const char *what);

/* Has this transaction written to the log? */
extern bool md_capture_wrote(Oid root);

/* Something changed that is not in the log. */
extern void md_capture_write_mark(Oid root, const char *reason);

/* ---- capture_merge.c ---- */

/* Notice statements whose changes triggers do not see. */
extern void md_capture_install_hook(void);

/* ---- capture_read.c ---- */

/*
 * What a stored frontier says of a captured relation.  id and point are
 * palloc'd; false: it says nothing.
 */
extern bool md_captured_parse(Jsonb *frontier, char **id, MdReadPoint *point);

/* Why changes between two points are not known; NULL: they are. */
extern char *md_captured_obstacle(Oid relid, Jsonb *read, Jsonb *now, Snapshot snapshot);

/*
 * Changes between two frontiers, in a tuplestore with the columns of the
 * relation and md_weight (int4), made in the current context.  *only_came: no row went.
 */
extern Tuplestorestate *md_captured_changes(Oid relid, Jsonb *read, Jsonb *now,
											Snapshot snapshot, TupleDesc *tupdesc,
											bool *only_came);

#endif							/* MD_CAPTURE_H */
