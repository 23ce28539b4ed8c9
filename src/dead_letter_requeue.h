/*
 * dead_letter_requeue.h
 *		The ways out of the dead letters: into the table, or away.
 *
 * Both take ids in any order, as often as they like: one that is no dead
 * letter (any more) is passed over, for somebody else may have been first.
 * ERROR if one belongs to a table that the user does not own.
 *
 * Both run in a session, inside a transaction.
 */
#ifndef MD_DEAD_LETTER_REQUEUE_H
#define MD_DEAD_LETTER_REQUEUE_H

#include "postgres.h"
#include "utils/array.h"

/*
 * Decode the dead letters (of int8, no nulls) again, with the present
 * definition of their tables, and store them; those that fail again stay, with
 * their new error.  payload, if not NULL, takes the place of the one letter's.
 * Returns the number of records stored.
 */
extern int64 md_dead_letter_requeue(ArrayType *ids, bytea *payload);

/* Delete the dead letters and record each as a gap; returns how many. */
extern int64 md_dead_letter_discard(ArrayType *ids);

#endif							/* MD_DEAD_LETTER_REQUEUE_H */
