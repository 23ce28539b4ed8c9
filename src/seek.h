/*
 * seek.h
 *		Moves a streaming table's checkpoints forward.
 */
#ifndef MD_SEEK_H
#define MD_SEEK_H

#include "postgres.h"

/*
 * Move the checkpoints to a position in the form of start_at; partitions that a
 * list of offsets does not name stay where they are.  What is passed over is
 * recorded as gaps.  ERROR if one of them would move back.
 *
 * Runs in: sessions, inside a transaction; the caller has checked who may.
 */
extern void md_stream_seek(Oid relid, const char *to_position);

#endif							/* MD_SEEK_H */
