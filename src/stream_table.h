/*
 * stream_table.h
 *		The table behind a streaming table: its columns, its guard.
 */
#ifndef MD_STREAM_TABLE_H
#define MD_STREAM_TABLE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"

#include "catalog.h"

/* Name of the guard trigger. */
#define MD_STREAM_GUARD "medallion_guard"

/*
 * Complete the CREATE TABLE statement of a streaming table: the columns of a
 * payload of that format when it has none at all, and the metadata columns
 * that it does not declare.  ERROR for clauses that a streaming table cannot
 * have (temporary, unlogged, inherited, ...).
 */
extern void md_stream_table_complete(CreateStmt *stmt, MdFormat format, bool is_pattern);

/* Create it: columns is a list as in CREATE TABLE, or NULL. */
extern Oid	md_stream_table_create(RangeVar *relation, const char *columns,
								   MdFormat format, bool is_pattern);

/*
 * The lock that md_stream_table_prepare() needs on an existing table: stronger
 * when columns are to be added.  Taking it at once avoids a deadlock with
 * somebody who reads the table and then writes to it.
 */
extern LOCKMODE md_stream_table_lock_mode(Oid relid, bool is_pattern);

/*
 * Make an existing table, which the caller has locked, ready to be fed: ERROR
 * unless it may be, metadata columns, guard trigger.
 */
extern void md_stream_table_prepare(Oid relid, bool is_pattern);

/*
 * Let the guard trigger depend on the server, so that the server cannot be
 * dropped under the table, and DROP EXTENSION ... CASCADE still leaves the
 * table.  The trigger is made anew if it is gone.
 */
extern void md_stream_table_depend(Oid relid, Oid server_id);

/* Make the guard trigger. */
extern void md_stream_table_guard(Oid relid);

/* ERROR if there is no such relation (any more). */
extern Oid	md_stream_table_owner(Oid relid);

/* ERROR unless the user owns the table. */
extern void md_stream_table_check_owner(Oid relid);

/* Its name, quoted and with its schema. */
extern char *md_stream_table_name(Oid relid);

/* Does it have rules?  The caller holds a lock on the table. */
extern bool md_stream_table_has_rules(Oid relid);

#endif							/* MD_STREAM_TABLE_H */
