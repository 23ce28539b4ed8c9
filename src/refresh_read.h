/*
 * refresh_read.h
 *		Reading a part of a source in the place of the whole.
 *
 * A query over the change of a source is the query itself with that source
 * replaced by a subquery of the same columns:
 *
 *		FROM bronze.orders o
 *	->	FROM (SELECT order_id, ... FROM bronze.orders WHERE <new rows>) o
 */
#ifndef MD_REFRESH_READ_H
#define MD_REFRESH_READ_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

typedef enum MdChangeKind
{
	MD_CHANGE_APPEND,			/* rows are added, and stay as they are */
	MD_CHANGE_UPSERT,			/* rows change, one by one */
	MD_CHANGE_REPLACE			/* anything, unseen */
} MdChangeKind;

extern const char *md_change_kind_name(MdChangeKind kind);

/* What is known of the changes of a relation. */
typedef struct MdReadable
{
	MdChangeKind changes;
	char	   *kind_name;		/* "streaming table" */
	char	   *why;			/* changes cannot be read alone; NULL: they can */
} MdReadable;

/* As a view of `owner` would read it. */
extern void md_read_describe(Oid relid, Oid owner, MdReadable *readable);

/* Rows of a source that are to be read: an SQL condition on its columns. */
typedef struct MdPart
{
	Oid			relid;
	char	   *condition;
} MdPart;

/* Copy the query with each source in `parts` (of MdPart) read in part. */
extern Query *md_read_substitute(Query *query, List *parts);

/* Make a range table entry a subquery, in place. */
extern void md_read_replace_rte(Query *query, int rt_index, Query *subquery);

/*
 * "a, b, c": columns in the order of their numbers.  A dropped one is called
 * "?droppedN?", and is NULL under this name (make_dropped) or a column of it.
 */
extern char *md_read_columns(Oid relid, bool make_dropped);

/* The qualified and quoted name of a relation. */
extern char *md_read_relation_name(Oid relid);

#endif							/* MD_REFRESH_READ_H */
