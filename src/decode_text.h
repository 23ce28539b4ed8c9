/*
 * decode_text.h
 *		Bytes of a record as text of this database, and the errors of all
 *		decoders.
 */
#ifndef MD_DECODE_TEXT_H
#define MD_DECODE_TEXT_H

#include "postgres.h"

#include "decode.h"

/* Bytes inside of a record or of memory of the record; not NUL-terminated. */
typedef struct MdSlice
{
	const char *data;
	int			len;
} MdSlice;

/* How UTF-8, the encoding of Kafka's text, gets into this database. */
typedef struct MdTextReader
{
	int			encoding;		/* the database's */
	Oid			conversion;		/* InvalidOid: none needed */
} MdTextReader;

extern void md_text_reader_init(MdTextReader *reader);
extern bool md_text_read(const MdTextReader *reader, const char *data, Size len,
						 MdSlice *text, MdDecodeError *error);

/* Error of a record; both return false, for "return md_decode_fail(...)". */
extern bool md_decode_fail(MdDecodeError *error, int sqlstate,
						   const char *format,...) pg_attribute_printf(3, 4);
extern bool md_decode_prefix(MdDecodeError *error,
							 const char *format,...) pg_attribute_printf(2, 3);

/* A copy for messages: at most 64 bytes, then "...". */
extern char *md_decode_clip(MdSlice text);

#endif							/* MD_DECODE_TEXT_H */
