/*
 * frontier.h
 *		How far a view has read its sources, and what is new in them.
 *
 * A frontier is per source: of a streaming table its checkpoint, of a view of
 * ours the number of its last refresh.  Both are advanced in the transaction
 * that writes the rows, and have one writer at a time, so a snapshot that sees
 * the number sees the rows, and the other way round.  Of a captured relation,
 * and of the late rows of a streaming table, which many transactions write, it is
 * a snapshot (capture_read.c, frontier_stream.c).
 */
#ifndef MD_FRONTIER_H
#define MD_FRONTIER_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "refresh_read.h"

typedef enum MdSourceKind
{
	MD_SOURCE_STREAM,
	MD_SOURCE_VIEW,
	MD_SOURCE_INLINED,			/* a plain view whose text the plan contains */
	MD_SOURCE_TABLE				/* anything else: captured, or changes are not known */
} MdSourceKind;

typedef struct MdSource
{
	Oid			relid;
	MdSourceKind kind;
	Jsonb	   *read_frontier;	/* NULL: never read */
	Jsonb	   *frontier;		/* as of the snapshot; NULL: not known */
	int64		read_history_changes;
	int64		history_changes;
	int64		read_late_batches;	/* batches of late rows, of a streaming table */
	int64		late_batches;
	Jsonb	   *late_point;		/* a read point of them; NULL: those of no transaction */
	int64		rewritten_number;	/* of a view */
	bool		changed;		/* or perhaps changed */
	bool		is_captured;	/* the frontier is one of its capture */
} MdSource;

/*
 * What is new in a source.  Rows that were only added are told apart by a
 * condition on the relation itself; changes with a sign are rows of a query,
 * with the columns of the relation in their order and under their names (a
 * dropped one is a NULL) and md_weight, +1 for each row that came and -1 for
 * each that went.  Equal rows of opposite sign may be among them: net first.
 */
typedef struct MdDelta
{
	char	   *why_full;		/* not known: recompute; NULL: known */
	bool		is_signed;		/* rows went, too: see query */
	char	   *condition;		/* !is_signed: of the new rows, on columns, ctid, xmin */
	char	   *old_condition;	/* !is_signed: of the rows read before; NULL: no cheap one */
	char	   *query;			/* is_signed: SELECT columns, md_weight (int4) */
	bool		only_came;		/* is_signed: no row went */
	/* is_signed: query reads a relation of this name; see md_diff_register() */
	char	   *store_name;
	Tuplestorestate *store;
	TupleDesc	store_desc;
	char	   *note;			/* for the history; NULL: nothing to say */
	int64		rows;			/* -1: not known */
} MdDelta;

/* The relation's present file, by which recorded places of rows are known to hold. */
extern Oid	md_frontier_filenode(Oid relid);

/*
 * Lock the sources of a view against what a snapshot does not hide, before the snapshot
 * is taken that it is read under (frontier_hold.c).  ERROR in a transaction that has one already,
 * and a source was changed so since.
 */
extern void md_frontier_hold(Oid view);

/* The sources of a view, in the current context. */
extern List *md_frontier_load(Oid view, Snapshot snapshot);

/* Which of these views have anything to do: news[i] for relids[i]. */
extern void md_frontier_find_news(const Oid *relids, int count, bool *news, Snapshot snapshot);

/* Frontiers of all sources as {"schema.table": frontier}; for people. */
extern Jsonb *md_frontier_summary(List *sources);

/* Store the frontiers of the sources as those of the view. */
extern void md_frontier_store(Oid view, List *sources, Snapshot snapshot);

/* Give back what all readers of these sources have read now. */
extern void md_frontier_prune(List *sources);

/* What is new in a source that the plan reads by its changes. */
extern void md_frontier_delta(MdSource *source, Snapshot snapshot, MdDelta *delta);

/*
 * What a source was at the stored frontier, as a part to be read in its place;
 * false: it is the same now, or not known.  ERROR if it cannot be told any
 * more.
 */
extern bool md_frontier_read_part(MdSource *source, Snapshot snapshot, MdPart *part);

#endif							/* MD_FRONTIER_H */
