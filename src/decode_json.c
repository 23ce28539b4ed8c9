/*
 * decode_json.c
 *		Postgres's JSON parser over slices of a record.
 *
 * The grammar is Postgres's own: pg_parse_json() with the callbacks that the
 * caller needs, and its return code instead of an error.  Whole records are looked
 * at by decode_json_scan.c first, which is faster and accepts nothing else.  The lexer
 * is run without de-escaping, so it allocates nothing per token; callbacks
 * note where names and values begin and end, and who wants a string's value
 * calls md_json_unescape(), which is the same lexer with de-escaping, for the
 * few literals that have a backslash.
 *
 * Such a parse accepts what type json accepts; the additional demands of
 * jsonb and of text (surrogate pairs complete, no \u0000) are met where a
 * value is turned into one.
 *
 * Nesting is limited by max_stack_depth, whose error the parser throws.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "decode_json.h"

#define DETAIL_MAX_BYTES	400

/* Elements of the array that is being split. */
typedef struct ArraySplit
{
	JsonLexContext *lex;
	MdSlice    *elements;
	int			n_elements;
	int			capacity;
} ArraySplit;

/* Turn a return code of the parser into an error of the record. */
static bool
fail_json(JsonParseErrorType result, JsonLexContext *lex, MdDecodeError *error)
{
	char	   *detail = json_errdetail(result, lex);
	int			len = strlen(detail);
	int			clipped = pg_mbcliplen(detail, len, DETAIL_MAX_BYTES);

	if (MD_JSON_IS_UNTRANSLATABLE(result))
		md_decode_fail(error, ERRCODE_UNTRANSLATABLE_CHARACTER,
					   "unsupported Unicode escape sequence");
	else
		md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
					   "invalid input syntax for type json");
	if (clipped < len)
		detail = psprintf("%.*s...", clipped, detail);
	if (lex->token_start != NULL)
		detail = psprintf("%s At byte %zd of %d.", detail,
						  lex->token_start - lex->input + 1, (int) lex->input_length);
	error->detail = detail;
	return false;
}

/*
 * Parse json with these actions, without de-escaping: names that they are
 * given are NULL.  The lexer is handed out before the first of them runs.
 */
bool
md_json_parse(MdSlice json, JsonSemAction *actions, JsonLexContext **lex,
			  MdDecodeError *error)
{
	JsonParseErrorType result;

	*lex = md_json_lexer(unconstify(char *, json.data), json.len, false);
	result = pg_parse_json(*lex, actions);
	if (result != JSON_SUCCESS)
		return fail_json(result, *lex, error);
	return true;
}

/* Is this JSON that decode_json_scan.c is sure of? */
static bool
is_plainly_json(MdSlice json)
{
	const char *end = json.data + json.len;
	const char *p = md_json_scan_value(md_json_scan_space(json.data, end), end);

	return p != NULL && md_json_scan_space(p, end) == end;
}

/*
 * Is this JSON?  With need_escapes escape sequences must also have a meaning
 * as text, as jsonb demands.
 */
bool
md_json_check(MdSlice json, bool need_escapes, MdDecodeError *error)
{
	JsonLexContext *lex;
	JsonParseErrorType result;

	if (!need_escapes && is_plainly_json(json))
		return true;
	lex = md_json_lexer(unconstify(char *, json.data), json.len, need_escapes);
	result = pg_parse_json(lex, &nullSemAction);
	if (result != JSON_SUCCESS)
		return fail_json(result, lex, error);
	return true;
}

/* The text of a string literal; its quotes are part of the slice. */
bool
md_json_unescape(MdSlice literal, MdSlice *text, MdDecodeError *error)
{
	JsonLexContext *lex;
	JsonParseErrorType result;

	lex = md_json_lexer(unconstify(char *, literal.data), literal.len, true);
	result = json_lex(lex);
	if (result != JSON_SUCCESS)
		return fail_json(result, lex, error);
	text->data = lex->strval->data;
	text->len = lex->strval->len;
	return true;
}

/*
 * A slice that parses as JSON, as jsonb.  Numbers that no numeric can hold
 * throw.
 */
bool
md_json_to_jsonb(MdSlice json, Datum *value, MdDecodeError *error)
{
	char	   *copy;

	if (memchr(json.data, '\\', json.len) != NULL &&
		!md_json_check(json, true, error))
		return false;

	copy = pnstrdup(json.data, json.len);
	*value = DirectFunctionCall1(jsonb_in, CStringGetDatum(copy));
	pfree(copy);
	return true;
}

/* Note where an element of the outermost array begins. */
static MD_JSON_ACTION_RESULT
array_element_start(void *state, bool isnull)
{
	ArraySplit *split = state;

	if (split->lex->lex_level == 1)
	{
		if (split->n_elements == split->capacity)
		{
			split->capacity *= 2;
			split->elements = repalloc_huge(split->elements,
											split->capacity * sizeof(MdSlice));
		}
		split->elements[split->n_elements].data = split->lex->token_start;
	}
	MD_JSON_ACTION_RETURN;
}

/* Note where it ended: the lexer has gone on to the next token. */
static MD_JSON_ACTION_RESULT
array_element_end(void *state, bool isnull)
{
	ArraySplit *split = state;

	if (split->lex->lex_level == 1)
	{
		MdSlice    *element = &split->elements[split->n_elements++];

		element->len = split->lex->prev_token_terminator - element->data;
	}
	MD_JSON_ACTION_RETURN;
}

/* Slices of the elements of a JSON array; json must begin with "[". */
bool
md_json_split_array(MdSlice json, MdSlice **elements, int *n_elements,
					MdDecodeError *error)
{
	ArraySplit	split = {.capacity = 16};
	JsonSemAction actions = {
		.semstate = &split,
		.array_element_start = array_element_start,
		.array_element_end = array_element_end
	};

	split.elements = palloc(split.capacity * sizeof(MdSlice));
	if (!md_json_parse(json, &actions, &split.lex, error))
		return false;
	*elements = split.elements;
	*n_elements = split.n_elements;
	return true;
}
