/*
 * read_point.h
 *		How far something that many transactions write has been read.
 *
 * A snapshot with 64-bit transaction ids: a row is behind the point if the
 * transaction that wrote it was visible when the point was made.  A number, a
 * time or an LSN would not do: a transaction that began earlier may commit
 * later.
 *
 * As JSON: {"snapshot": "xmin:xmax:xip,...", "own": "xid:command"}, beside keys
 * of others.  "own" is there when the transaction that made the point had
 * written before: it has seen its own rows of earlier commands.
 */
#ifndef MD_READ_POINT_H
#define MD_READ_POINT_H

#include "postgres.h"
#include "access/htup.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

typedef struct MdReadPoint
{
	uint64		xmin;			/* older ones are visible */
	uint64		xmax;			/* these and newer ones are not */
	int			running_count;
	uint64	   *running;		/* between them, not visible either; ascending */
	uint64		own;			/* 0: none */
	CommandId	own_command;	/* of own, earlier commands are visible */
} MdReadPoint;

/*
 * What the snapshot sees; sees_own: with what this transaction has written
 * before now.
 */
extern void md_read_point_make(Snapshot snapshot, bool sees_own, MdReadPoint *point);

/* Out of JSON; false if there is none in it. */
extern bool md_read_point_parse(Jsonb *json, MdReadPoint *point);

/* Text of the values of the keys "snapshot" and "own" (NULL: none). */
extern char *md_read_point_snapshot_text(const MdReadPoint *point);
extern char *md_read_point_own_text(const MdReadPoint *point);

/* Was a row of this transaction and command there? */
extern bool md_read_point_sees(const MdReadPoint *point, uint64 xid, CommandId command);

/* Were all rows of transactions first to last there, whatever their command? */
extern bool md_read_point_sees_all(const MdReadPoint *point, uint64 first, uint64 last);

/* The value of a key of a JSON object if it is a string, or NULL. */
extern char *md_json_string(Jsonb *json, const char *key);

#endif							/* MD_READ_POINT_H */
