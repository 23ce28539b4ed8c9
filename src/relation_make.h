/*
 * relation_make.h
 *		Making the tables and views that belong to a materialized view.
 */
#ifndef MD_RELATION_MAKE_H
#define MD_RELATION_MAKE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/* Column definitions (of ColumnDef) named as given, of the types of exprs. */
extern List *md_relation_columns(List *names, List *exprs);

/*
 * Make a table owned by `owner`, with its TOAST table and the trigger that keeps
 * direct writes away.  like: storage options and so on of CREATE ... AS, or NULL.
 */
extern Oid	md_relation_make_table(RangeVar *name, List *columns, Oid owner, IntoClause *like);

/* How to make a table whose rows are updated in place: with room on its pages, unless like says how full they are. */
extern IntoClause *md_relation_with_room(IntoClause *like);

/* The same without the trigger. */
extern Oid	md_relation_make_bare_table(RangeVar *name, List *columns, Oid owner,
										IntoClause *like);

/* The guard alone (it is lost when triggers are not restored); idempotent. */
extern void md_relation_guard(Oid relid);

/*
 * Make the definition of a view: `query` as a view in medallion_def, whose
 * columns (of ColumnDef) have the names (of String) of those of the result.
 */
extern Oid	md_relation_make_definition(Oid result, Query *query, List *columns,
										List *column_names);

/* A unique index over columns, NULL equal to NULL; one that is there may have them in any order. */
extern Oid	md_relation_make_unique_index(Oid relid, int count, const AttrNumber *attnums);
extern Oid	md_relation_find_unique_index(Oid relid, int count, const AttrNumber *attnums);
extern bool md_relation_has_unique_index(Oid relid, Oid index_id, int count,
										 const AttrNumber *attnums);

/* An index; definition: "(columns)", the name is made of the suffix or given. */
extern Oid	md_relation_make_index(Oid relid, const char *suffix, const char *definition);
extern void md_relation_make_named_index(Oid relid, const char *name, const char *definition);

/* A state table for a result, named after it with a suffix (" state"). */
extern Oid	md_relation_make_state(Oid result, const char *suffix, List *columns, Oid owner,
								   bool with_room);

/* Part of the result: it goes away with it, and cannot go alone; idempotent. */
extern void md_relation_attach(Oid part, Oid result);

/* Drop a part (index, state table, definition) whose result stays. */
extern void md_relation_drop_part(Oid part);

/* Run one statement of DDL as the owner of the extension. */
extern void md_relation_run_ddl(const char *sql);

/* Cut a part loose from its result, to be attached to another. */
extern void md_relation_detach(Oid part);

/* A name in medallion_def that tells of the result and is free. */
extern char *md_relation_internal_name(Oid result, const char *suffix);

#endif							/* MD_RELATION_MAKE_H */
