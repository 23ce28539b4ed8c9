/*
 * stream_child_ddl.h
 *		DDL on the partitions of streaming tables.
 */
#ifndef MD_STREAM_CHILD_DDL_H
#define MD_STREAM_CHILD_DDL_H

#include "postgres.h"
#include "nodes/parsenodes.h"

#include "ddl.h"

/* The streaming table that relid is, or is a partition of; InvalidOid: of none. */
extern Oid	md_stream_root(Oid relid);

/* ERROR if the other table of a hierarchy is a streaming table, as a whole. */
extern void md_stream_child_check_relative(RangeVar *other);
extern void md_stream_child_check_commands(List *cmds);

/* CREATE TABLE ... PARTITION OF a streaming table; false if it is not that. */
extern bool md_stream_child_create(MdUtility *u, CreateStmt *stmt);

/* ALTER TABLE of a partition of a streaming table; false if it is not that. */
extern bool md_stream_child_alter(MdUtility *u, AlterTableStmt *stmt, Oid relid);

/*
 * Before and after core runs an ALTER TABLE on streaming table root, or on one
 * of its partitions: partitions may come and go.
 */
extern List *md_stream_child_begin(List *cmds);
extern void md_stream_child_end(Oid root, List *cmds, List *detached);

/* Guard all partitions of a table that becomes a streaming table, or ERROR. */
extern void md_stream_child_guard_all(Oid root);

/* A partition of a streaming table is dropped. */
extern void md_stream_child_dropped(Oid relid);

#endif							/* MD_STREAM_CHILD_DDL_H */
