/*
 * dead_letter.h
 *		Keeps records that could not be stored, with their error.
 */
#ifndef MD_DEAD_LETTER_H
#define MD_DEAD_LETTER_H

#include "postgres.h"

#include "record.h"

/*
 * Write a dead letter in the caller's transaction, as the extension's owner.
 * Fetches the record's headers.  sqlstate as from MAKE_SQLSTATE; detail may be
 * NULL.
 */
extern void md_dead_letter_write(Oid relid, MdRecord *record, int sqlstate,
								 const char *message, const char *detail);

/* Text of an error, which may quote bytes of the record that are no text. */
extern Datum md_dead_letter_text(const char *message);

#endif							/* MD_DEAD_LETTER_H */
