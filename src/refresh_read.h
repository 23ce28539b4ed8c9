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
#include "access/tupdesc.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

typedef enum MdChangeKind
{
	MD_CHANGE_APPEND,			/* rows are added, and stay as they are */
	MD_CHANGE_UPSERT,			/* rows change, one by one */
	MD_CHANGE_REPLACE			/* anything, unseen */
} MdChangeKind;

extern const char *md_change_kind_name(MdChangeKind kind);

/* What is known of the changes of a relation (source_describe.c). */
typedef struct MdReadable
{
	MdChangeKind changes;
	char	   *kind_name;		/* "streaming table" */
	char	   *why;			/* changes cannot be read alone; NULL: they can */
} MdReadable;

/* As a view of `owner` would read it. */
extern void md_read_describe(Oid relid, Oid owner, MdReadable *readable);

/*
 * Rows of a source that are to be read: an SQL condition on its columns, or a
 * query with its columns in their order (dropped ones as integers), which may
 * read a registered tuplestore of these columns and md_weight.
 */
typedef struct MdPart
{
	Oid			relid;
	char	   *condition;
	char	   *query;			/* instead of a condition; NULL: none */
	bool		is_fenced;		/* no condition of the query is looked at before */
	char	   *store_name;		/* that the query reads; NULL: none */
	Tuplestorestate *store;		/* to be registered under this name */
	TupleDesc	store_desc;
} MdPart;

/* "a, b, NULL::int4 AS "?dropped3?"": all attributes of a relation, by name. */
extern char *md_read_attributes(Oid relid);

/* The same names alone, of a query that has all of them as columns. */
extern char *md_read_attribute_names(Oid relid);

/* What is read in the place of a source, as a query. */
extern Query *md_read_part_query(const MdPart *part, bool with_children);

/* Copy the query with each source in `parts` (of MdPart) read in part. */
extern Query *md_read_substitute(Query *query, List *parts);

/* Make a range table entry a subquery, in place. */
extern void md_read_replace_rte(Query *query, int rt_index, Query *subquery);

/* The same for a relation in a query as it was written, whose joins may have names. */
extern void md_read_replace_relation(Query *query, int rt_index, Query *subquery);

/* "OPERATOR(schema.name)" */
extern char *md_read_operator(Oid operator);

/* The qualified and quoted name of a relation. */
extern char *md_read_relation_name(Oid relid);

#endif							/* MD_REFRESH_READ_H */
