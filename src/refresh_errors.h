/*
 * refresh_errors.h
 *		Rows of sources that a view cannot be computed with: medallion.refresh_error.
 *
 * A quarantined row is left out of every reading of its source for the view,
 * new and old states alike:
 *
 *		view = query over (sources without their quarantined rows)
 *
 * so changes stay consistent, and verify() compares with the same.  A row is
 * told by a fingerprint of some columns: of a streaming table topic, partition
 * and offset, else of the columns that the view reads and of a primary key.
 */
#ifndef MD_REFRESH_ERRORS_H
#define MD_REFRESH_ERRORS_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

typedef struct MdRefreshError
{
	int64		error_id;		/* 0: not stored yet */
	Oid			source;
	List	   *columns;		/* of char *: names, that the fingerprint is of */
	char	   *fingerprint;	/* a uuid */
	int64		copies;			/* rows of it in the source */
	char	   *tid;			/* of the only one, unless it has moved since; NULL: not known */
	char	   *stored_tid;		/* the same as it is stored */
	bool		retry;			/* asked for by a user */
	bool		lost;			/* a column is gone: rows cannot be told by it */
	bool		returns;		/* can be computed again: let in by this refresh */
	bool		tried;			/* and cannot */
	bool		again;			/* but perhaps when nothing else changes */
	/* of one that is not stored yet */
	bool		was_there;		/* a row that is not new in its source */
	char	   *topic;			/* NULL: not of a record, or not known */
	int			partition;		/* -1: not of a record */
	int64		offset;
	Jsonb	   *row_data;		/* NULL: too large, or without a JSON form */
	char	   *sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *context;		/* NULL: none */
} MdRefreshError;

/* All of a view, in the current context. */
extern List *md_errors_load(Oid view, Snapshot snapshot);

/* Copies of them, with all that belongs to them, in the current context. */
extern List *md_errors_copy(List *errors);

/* Number of rows. */
extern int64 md_errors_count(List *errors);

/*
 * Conditions on the columns of a source: rows that are none of these; rows that
 * are one of those that return.  NULL: there are none of them.
 */
extern char *md_errors_condition(List *errors, Oid source);
extern char *md_errors_return_condition(List *errors, Oid source);

/* The same where they were last seen; NULL: not known of all that return. */
extern char *md_errors_return_tids(List *errors, Oid source);

/* What is read in the place of sources that have such rows (of MdPart). */
extern List *md_errors_parts(List *errors);

/* "row_fingerprint(a, b)" of these columns, as text, as SQL. */
extern char *md_errors_fingerprint(List *columns);

/* Are these the same names in the same order? */
extern bool md_errors_same_columns(List *a, List *b);

/* Do both stand for rows of one source, told by the same columns? */
extern bool md_errors_same_kind(const MdRefreshError *a, const MdRefreshError *b);

/* Insert, update, and delete those of no copies or that returned. */
extern void md_errors_store(Oid view, List *errors, Snapshot snapshot);

/* Put all of a view under another view, in the place of those there. */
extern void md_errors_move(Oid from, Oid to);

/* Let the next refresh try them all; the number of rows. */
extern int64 md_errors_retry(Oid view);

/* Forget them all: the next refresh computes the view anew. */
extern void md_errors_forget(Oid view);

#endif							/* MD_REFRESH_ERRORS_H */
