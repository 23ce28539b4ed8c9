/*
 * decode_json_row.c
 *		Objects to rows: fields of a JSON object, by name, to the columns of
 *		a table or the attributes of a composite type.
 *
 * One pass validates the whole object and notes for each wanted field the slice
 * of its value; only then values are read.  So nothing is converted of an object
 * that is no JSON, and of a field that comes twice the last one wins, as in
 * jsonb.  The pass is decode_json_scan.c's; what that is not sure of is done
 * over by Postgres's parser (see decode_json.c), which also finds the errors.
 *
 * Names match exactly, byte for byte; a name with escape sequences is
 * de-escaped first, by Postgres's parser.
 */
#include "postgres.h"

#include "decode_json.h"

/* An object while it is being parsed. */
typedef struct RowParse
{
	JsonLexContext *lex;
	MdJsonRow  *row;
	const char *cursor;			/* the name of the next field lies behind */
	MdSlice		literal;		/* name of the current field, with quotes */
	const char *value;
	MdDecodeError *error;
	bool		failed;			/* a name that is no text */
} RowParse;

/* Hash of a name: its length, its first and its last eight bytes. */
static inline uint32
name_hash(const char *name, int len)
{
	uint64		head = 0;
	uint64		tail = 0;

	if (len >= 8)
	{
		memcpy(&head, name, 8);
		memcpy(&tail, name + len - 8, 8);
	}
	else
	{
		for (int i = 0; i < len; i++)
			head = head << 8 | (unsigned char) name[i];
	}
	head ^= (tail << 29 | tail >> 35) ^ (uint64) len;
	return (uint32) ((head * UINT64CONST(0x9E3779B97F4A7C15)) >> 32);
}

/* The slot of a name, or -1. */
static inline int
find_slot(const MdJsonRow *row, const char *name, int len)
{
	uint32		bucket = name_hash(name, len) & row->bucket_mask;
	int			slot;

	while ((slot = row->buckets[bucket]) >= 0)
	{
		if (row->slot_names[slot].len == len &&
			memcmp(row->slot_names[slot].data, name, len) == 0)
			return slot;
		bucket = (bucket + 1) & row->bucket_mask;
	}
	return -1;
}

/* Make a row without fields; noun names a field in messages. */
MdJsonRow *
md_json_row_create(int max_fields, const char *noun)
{
	MdJsonRow  *row = palloc0(sizeof(MdJsonRow));
	uint32		n_buckets = 16;

	while (n_buckets < (uint32) max_fields * 4)
		n_buckets *= 2;
	row->noun = noun;
	row->fields = palloc0(sizeof(MdJsonField) * Max(max_fields, 1));
	row->buckets = palloc(sizeof(int16) * n_buckets);
	memset(row->buckets, 0xff, sizeof(int16) * n_buckets);
	row->bucket_mask = n_buckets - 1;
	for (int place = 0; place < MD_JSON_PLACES; place++)
		row->slot_at[place] = -1;
	row->slot_names = palloc0(sizeof(MdSlice) * Max(max_fields, 1));
	row->slot_values = palloc0(sizeof(MdSlice) * Max(max_fields, 1));
	return row;
}

/* Give the name a slot, or find the one that it has. */
static int
assign_slot(MdJsonRow *row, MdSlice name)
{
	uint32		bucket;
	int			slot = find_slot(row, name.data, name.len);

	if (slot >= 0)
		return slot;
	bucket = name_hash(name.data, name.len) & row->bucket_mask;
	while (row->buckets[bucket] >= 0)
		bucket = (bucket + 1) & row->bucket_mask;
	slot = row->n_slots++;
	row->buckets[bucket] = slot;
	row->slot_names[slot] = name;
	return slot;
}

/*
 * Have values[index] filled from the field `name`.  Several columns may be
 * filled from one field.
 */
void
md_json_row_add_field(MdJsonRow *row, const char *name, int index,
					  Oid type, int32 typmod)
{
	MdJsonField *field = &row->fields[row->n_fields++];

	field->name.data = pstrdup(name);
	field->name.len = strlen(name);
	field->slot = assign_slot(row, field->name);
	field->index = index;
	field->type = md_json_type_create(type, typmod);
}

/* Forget the last object: all fields are missing. */
void
md_json_row_clear(MdJsonRow *row)
{
	memset(row->slot_values, 0, sizeof(MdSlice) * row->n_slots);
	row->any_rescued = false;
	row->current = NULL;
}

/* At "{" of the outermost object. */
static MD_JSON_ACTION_RESULT
row_object_start(void *state)
{
	RowParse   *parse = state;

	if (parse->lex->lex_level == 0)
		parse->cursor = parse->lex->token_start;
	MD_JSON_ACTION_RETURN;
}

/*
 * A field of the outermost object: the lexer stands on the first token of its
 * value, and the token before was the colon.  Its name is what lies between
 * the last comma or brace and the colon, without white space.
 */
static MD_JSON_ACTION_RESULT
row_field_start(void *state, char *name, bool isnull)
{
	RowParse   *parse = state;

	if (parse->lex->lex_level == 1)
	{
		const char *start = parse->cursor;
		const char *end = parse->lex->prev_token_terminator - 1;

		while (*start != '"')
			start++;
		while (end[-1] != '"')
			end--;
		parse->literal.data = start;
		parse->literal.len = end - start;
		parse->value = parse->lex->token_start;
	}
	MD_JSON_ACTION_RETURN;
}

/* Append a field that nobody wants to the object of such fields. */
static void
rescue_field(MdJsonRow *row, MdSlice literal, MdSlice value)
{
	if (!row->any_rescued)
	{
		initStringInfo(&row->rescued);
		row->any_rescued = true;
	}
	appendStringInfoChar(&row->rescued, row->rescued.len == 0 ? '{' : ',');
	appendBinaryStringInfo(&row->rescued, literal.data, literal.len);
	appendStringInfoChar(&row->rescued, ':');
	appendBinaryStringInfo(&row->rescued, value.data, value.len);
}

/* A field was found: its slot, or -1, and its name as it was written. */
static inline void
note_field(MdJsonRow *row, int slot, MdSlice literal, MdSlice value)
{
	if (slot >= 0)
		row->slot_values[slot] = value;
	else if (row->rescue)
		rescue_field(row, literal, value);
}

/* The name without its quotes. */
static inline MdSlice
without_quotes(MdSlice literal)
{
	return (MdSlice) {literal.data + 1, literal.len - 2};
}

/* The field has ended: keep its slice. */
static MD_JSON_ACTION_RESULT
row_field_end(void *state, char *name, bool isnull)
{
	RowParse   *parse = state;

	if (parse->lex->lex_level == 1 && !parse->failed)
	{
		MdSlice		field_name = without_quotes(parse->literal);
		MdSlice		value = {parse->value,
			parse->lex->prev_token_terminator - parse->value};

		parse->cursor = parse->lex->token_start;
		if (memchr(field_name.data, '\\', field_name.len) != NULL &&
			!md_json_unescape(parse->literal, &field_name, parse->error))
		{
			parse->failed = true;
			MD_JSON_ACTION_RETURN;
		}
		note_field(parse->row, find_slot(parse->row, field_name.data, field_name.len), parse->literal, value);
	}
	MD_JSON_ACTION_RETURN;
}

/* What a JSON value that begins with this character is called. */
static const char *
json_noun(char first)
{
	switch (first)
	{
		case '[':
			return "an array";
		case '"':
			return "a string";
		case 't':
		case 'f':
			return "a boolean";
		case 'n':
			return "null";
		default:
			return "a number";
	}
}

/* Does the name of a slot stand at p, as a string? */
static inline bool
is_name_at(const MdJsonRow *row, int slot, const char *p, const char *end)
{
	MdSlice		name = row->slot_names[slot];

	return end - p > name.len + 1 && *p == '"' && p[name.len + 1] == '"' &&
		memcmp(p + 1, name.data, name.len) == 0;
}

/*
 * Note the fields of an object that is plainly JSON.  false: it may be anything,
 * and what was noted is worth nothing.
 *
 * Objects of a topic have their fields in one order as a rule: the name that stood
 * at a place in the last object is looked for there first.
 */
static bool
scan_fields(MdJsonRow *row, MdSlice json)
{
	const char *end = json.data + json.len;
	const char *p = md_json_scan_space(json.data, end);

	if (p == end || *p != '{')
		return false;
	p = md_json_scan_space(p + 1, end);
	if (p < end && *p == '}')
		return md_json_scan_space(p + 1, end) == end;
	for (int place = 0;; place = Min(place + 1, MD_JSON_PLACES - 1))
	{
		MdSlice		literal = {p, 0};
		MdSlice		value;
		int			slot = row->slot_at[place];

		if (slot >= 0 && is_name_at(row, slot, p, end))
		{
			literal.len = row->slot_names[slot].len + 2;
			p += literal.len;
		}
		else
		{
			bool		has_escapes;

			p = md_json_scan_string(p, end, &has_escapes);
			if (p == NULL || has_escapes)
				return false;
			literal.len = p - literal.data;
			slot = find_slot(row, literal.data + 1, literal.len - 2);
			row->slot_at[place] = slot;
		}
		p = md_json_scan_space(p, end);
		if (p == end || *p != ':')
			return false;
		value.data = md_json_scan_space(p + 1, end);
		p = md_json_scan_value(value.data, end);
		if (p == NULL)
			return false;
		value.len = p - value.data;
		note_field(row, slot, literal, value);
		p = md_json_scan_space(p, end);
		if (p == end)
			return false;
		if (*p == '}')
			return md_json_scan_space(p + 1, end) == end;
		if (*p != ',')
			return false;
		p = md_json_scan_space(p + 1, end);
	}
}

/* The same by Postgres's parser.  false: not JSON, or JSON that is no object. */
static bool
parse_fields(MdJsonRow *row, MdSlice json, MdDecodeError *error)
{
	RowParse	parse = {.row = row, .error = error};
	JsonSemAction actions = {
		.semstate = &parse,
		.object_start = row_object_start,
		.object_field_start = row_field_start,
		.object_field_end = row_field_end
	};

	if (!md_json_parse(json, &actions, &parse.lex, error))
		return false;
	if (parse.failed)
		return md_decode_prefix(error, "name of a field");
	if (parse.cursor == NULL)
	{
		md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
					   "JSON object expected");
		error->detail = psprintf("The value is %s.",
								 json_noun(*md_json_scan_space(json.data, json.data + json.len)));
		return false;
	}
	return true;
}

/*
 * Note the values of the row's fields in an object.  false: not JSON, or JSON
 * that is no object.
 */
bool
md_json_row_split(MdJsonRow *row, MdSlice json, MdDecodeError *error)
{
	md_json_row_clear(row);
	if (!scan_fields(row, json))
	{
		md_json_row_clear(row);
		if (!parse_fields(row, json, error))
			return false;
	}
	if (row->any_rescued)
		appendStringInfoChar(&row->rescued, '}');
	return true;
}

/* Read the fields that were noted; those that are missing are NULL. */
bool
md_json_row_read(MdJsonRow *row, Datum *values, bool *isnull,
				 MdDecodeError *error)
{
	static const MdSlice json_null = {"null", 4};

	for (int i = 0; i < row->n_fields; i++)
	{
		MdJsonField *field = &row->fields[i];
		MdSlice		value = row->slot_values[field->slot];

		row->current = field->name.data;
		if (!md_json_type_read(field->type, value.data ? value : json_null,
							   &values[field->index], &isnull[field->index], error))
			return md_decode_prefix(error, "%s \"%s\"", row->noun, field->name.data);
	}
	row->current = NULL;
	return true;
}
