/*
 * dead_letter.h
 *		Keeps records that could not be stored, with their error.
 *
 * Dead letters are collected and written many at a time, in the caller's
 * transaction, as the extension's owner.
 */
#ifndef MD_DEAD_LETTER_H
#define MD_DEAD_LETTER_H

#include "postgres.h"

#include "decode.h"
#include "record.h"

typedef struct MdDeadLetters MdDeadLetters;

/* An empty collection for one table, in context. */
extern MdDeadLetters *md_dead_letters_create(Oid relid, MemoryContext context);

/*
 * Add a record with its error; all of both is copied.  Writes what was
 * collected when that is much.
 */
extern void md_dead_letters_add(MdDeadLetters *letters, const MdRecord *record,
								const MdDecodeError *error);

/* Write those not yet written; not later than the caller's other work ends. */
extern void md_dead_letters_write(MdDeadLetters *letters);

/* Text of an error, which may quote bytes of the record that are no text. */
extern Datum md_dead_letter_text(const char *message);

#endif							/* MD_DEAD_LETTER_H */
