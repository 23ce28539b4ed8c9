/*
 * decode_headers.c
 *		Headers of a record as jsonb.
 *
 * An array, since names may repeat and their order has a meaning:
 * [{"name": "trace", "value": "a1"}, {"name": "flag", "value": null}].  A value
 * that is no text (or no text in this database) is kept in base64 as
 * "value_base64", a name likewise as "name_base64".  There is no way to fail.
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "decode.h"
#include "decode_text.h"

/* Push one string, as key of an object or as value. */
static void
push_string(JsonbParseState **state, JsonbIteratorToken token, MdSlice text)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, text.data);
	value.val.string.len = text.len;
	pushJsonbValue(state, token, &value);
}

/* Push the pair `key`: text, or "key_base64": bytes in base64. */
static void
push_text_or_bytes(JsonbParseState **state, const MdTextReader *reader,
				   const char *key, const char *data, Size len)
{
	MdSlice		text;
	MdDecodeError ignored;

	if (!md_text_read(reader, data, len, &text, &ignored))
	{
		int			capacity = pg_b64_enc_len((int) len);
		char	   *encoded = palloc(capacity);

		key = psprintf("%s_base64", key);
		text.len = pg_b64_encode((const void *) data, (int) len, encoded, capacity);
		text.data = encoded;
	}
	push_string(state, WJB_KEY, (MdSlice) {key, strlen(key)});
	push_string(state, WJB_VALUE, text);
}

/* An array without elements, which is what most records have. */
static Jsonb *
no_headers(void)
{
	Jsonb	   *empty = palloc(offsetof(Jsonb, root) + sizeof(uint32));

	SET_VARSIZE(empty, offsetof(Jsonb, root) + sizeof(uint32));
	empty->root.header = JB_FARRAY;
	return empty;
}

/* All headers of a record, which the caller has had fetched. */
Jsonb *
md_decode_headers(const MdRecord *record)
{
	JsonbParseState *state = NULL;
	MdTextReader reader;
	JsonbValue *result;

	if (record->n_headers < 0)
		elog(ERROR, "headers of the record have not been fetched");

	if (record->n_headers == 0)
		return no_headers();
	md_text_reader_init(&reader);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < record->n_headers; i++)
	{
		const MdHeader *header = &record->headers[i];

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_text_or_bytes(&state, &reader, "name", header->name, strlen(header->name));
		if (header->value != NULL)
			push_text_or_bytes(&state, &reader, "value", header->value, header->value_len);
		else
		{
			JsonbValue	null = {.type = jbvNull};

			push_string(&state, WJB_KEY, (MdSlice) {"value", 5});
			pushJsonbValue(&state, WJB_VALUE, &null);
		}
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	result = pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return JsonbValueToJsonb(result);
}
