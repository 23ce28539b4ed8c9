/*
 * stream_state.h
 *		Changes of the catalog of streaming tables that DDL and the SQL
 *		functions share.
 *
 * All of them run in a session, inside a transaction, write as the owner of
 * the extension, and leave it to the caller to have checked who may.  Those
 * that change what a worker does also let the workers know after the commit.
 */
#ifndef MD_STREAM_STATE_H
#define MD_STREAM_STATE_H

#include "postgres.h"

#include "catalog.h"

/* Is it a streaming table?  Costs one index probe, and no SPI. */
extern bool md_stream_exists(Oid relid);

/*
 * Run one statement that writes or locks rows of our tables as the owner of
 * the extension; returns the number of rows.
 */
extern uint64 md_stream_write(const char *sql, int nargs, Oid *argtypes, Datum *args);

/*
 * The definition as it is now, whatever snapshot the statement has, of a
 * streaming table that is locked.
 */
extern MdStream *md_stream_load(Oid relid);

/*
 * Wait for a batch that is being stored, keep the next one waiting, and load.
 * ERROR if the table was dropped meanwhile.
 */
extern MdStream *md_stream_lock(Oid relid);

/* A server changed, or the mapping of a user (InvalidOid: of PUBLIC); or it has a new name. */
extern void md_stream_server_changed(const char *server_name);
extern void md_stream_mapping_changed(const char *server_name, Oid user_id);
extern void md_stream_server_renamed(const char *old_name, const char *new_name);

/* ERROR if a streaming table uses the server. */
extern void md_stream_server_check_unused(const char *server_name);

/* A column has a new name: it is still filled from where it was. */
extern void md_stream_column_renamed(Oid relid, const char *old_name, const char *new_name);
extern void md_stream_column_dropped(Oid relid, const char *name);

/* Where a column is filled from: its own name unless it was renamed. */
extern const char *md_stream_column_source(const MdStream *stream, const char *column_name);

/* Forget all about a table: its definition, checkpoints, dead letters, gaps. */
extern void md_stream_forget(Oid relid);

extern void md_stream_pause(Oid relid);

/*
 * Resume; a streaming table that came by restore or clone is taken over by
 * this database, and its dependency on the server is made anew.
 */
extern void md_stream_resume(Oid relid);

/*
 * Take over all that came by restore or clone and that the user owns.  Tables
 * that were paused by hand stay paused.
 */
extern void md_stream_resume_all(void);

#endif							/* MD_STREAM_STATE_H */
