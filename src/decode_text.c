/*
 * decode_text.c
 *		Bytes of a record as text of this database, and the errors of all
 *		decoders.
 *
 * Text in Kafka is UTF-8.  It is verified once per key, payload or header,
 * never trusted, and converted when the database has another encoding.  A
 * database in SQL_ASCII takes the UTF-8 bytes as they are.  Nothing here
 * throws for bad bytes.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "decode_text.h"

#define MESSAGE_VALUE_MAX_BYTES	64

/* Find the conversion into this database's encoding. Needs a transaction. */
void
md_text_reader_init(MdTextReader *reader)
{
	reader->encoding = GetDatabaseEncoding();
	reader->conversion = InvalidOid;

	if (reader->encoding == PG_UTF8 || reader->encoding == PG_SQL_ASCII)
		return;
	reader->conversion = FindDefaultConversionProc(PG_UTF8, reader->encoding);
	if (!OidIsValid(reader->conversion))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("default conversion function for encoding \"%s\" to \"%s\" does not exist",
						pg_encoding_to_char(PG_UTF8),
						pg_encoding_to_char(reader->encoding))));
}

/* Say which bytes at `position` are not what the encoding asks for. */
static bool
fail_bytes(MdDecodeError *error, int sqlstate, const char *message,
		   const char *data, Size len, Size position)
{
	int			n = pg_encoding_mblen(PG_UTF8, data + position);
	char		hex[MAX_MULTIBYTE_CHAR_LEN * 5 + 1] = "";

	n = Min(Min(n, MAX_MULTIBYTE_CHAR_LEN), (int) (len - position));
	for (int i = 0; i < n; i++)
		snprintf(hex + strlen(hex), sizeof(hex) - strlen(hex), "%s0x%02x",
				 i == 0 ? "" : " ", (unsigned char) data[position + i]);

	md_decode_fail(error, sqlstate, "%s: %s", message, hex);
	error->detail = psprintf("At byte %zu of %zu.", position + 1, len);
	return false;
}

/* Convert verified UTF-8 into the encoding of the database. */
static bool
convert_text(const MdTextReader *reader, const char *data, Size len,
			 MdSlice *text, MdDecodeError *error)
{
	Size		capacity;
	unsigned char *converted;
	int			consumed;

	if (len >= MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return md_decode_fail(error, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
							  "text of %zu bytes is too long to be converted to encoding \"%s\"",
							  len, pg_encoding_to_char(reader->encoding));

	capacity = (len + 1) * MAX_CONVERSION_GROWTH + 1;
	converted = palloc(capacity);
	consumed = pg_do_encoding_conversion_buf(reader->conversion,
											 PG_UTF8, reader->encoding,
											 (unsigned char *) unconstify(char *, data),
											 (int) len, converted, (int) capacity,
											 true);
	if (consumed < len)
		return fail_bytes(error, ERRCODE_UNTRANSLATABLE_CHARACTER,
						  psprintf("character of encoding \"UTF8\" has no equivalent in encoding \"%s\"",
								   pg_encoding_to_char(reader->encoding)),
						  data, len, consumed);

	text->data = (const char *) converted;
	text->len = (int) strlen((const char *) converted);
	return true;
}

/*
 * Verify len bytes and hand them out as text of this database: the bytes
 * themselves, or a converted copy in CurrentMemoryContext.
 */
bool
md_text_read(const MdTextReader *reader, const char *data, Size len,
			 MdSlice *text, MdDecodeError *error)
{
	int			valid = pg_encoding_verifymbstr(PG_UTF8, data, (int) len);

	if (valid < len)
		return fail_bytes(error, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
						  "invalid byte sequence for encoding \"UTF8\"",
						  data, len, valid);

	if (OidIsValid(reader->conversion))
		return convert_text(reader, data, len, text, error);

	text->data = data;
	text->len = (int) len;
	return true;
}

/* Fill *error, without detail. Returns false. */
bool
md_decode_fail(MdDecodeError *error, int sqlstate, const char *format,...)
{
	StringInfoData message;

	initStringInfo(&message);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	error->sqlstate = sqlstate;
	error->message = message.data;
	error->detail = NULL;
	return false;
}

/* Put the place in front of the message: "column \"a\": ...". Returns false. */
bool
md_decode_prefix(MdDecodeError *error, const char *format,...)
{
	char		place[2 * NAMEDATALEN + 64];
	va_list		args;

	va_start(args, format);
	vsnprintf(place, sizeof(place), format, args);
	va_end(args);
	error->message = psprintf("%s: %s", place, error->message);
	return false;
}

/* A NUL-terminated copy for messages, cut at a character's end. */
char *
md_decode_clip(MdSlice text)
{
	if (text.len <= MESSAGE_VALUE_MAX_BYTES)
		return pnstrdup(text.data, text.len);
	return psprintf("%.*s...",
					pg_mbcliplen(text.data, text.len, MESSAGE_VALUE_MAX_BYTES),
					text.data);
}
