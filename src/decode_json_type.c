/*
 * decode_json_type.c
 *		One JSON value to a value of a Postgres type.
 *
 * Each type has a reader.  The types that records are made of have readers of
 * their own, here, in decode_json_number.c and in decode_json_time.c, which
 * report bad data without throwing.  What those do not know (a string such as
 * "NaN" for a number, "yesterday" for a time) and all other types go to the
 * type's input function, with the text of a string or the JSON of any other
 * value.  Input functions may throw.
 *
 * A record means the same in every session: settings that input functions
 * depend on are fixed while they run (TimeZone UTC, DateStyle MDY, IntervalStyle
 * postgres).  The mapping is described for users in doc/formats.md.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "decode_json.h"
#include "decode_scalar.h"

/* "invalid input syntax for type integer: "abc"", as input functions say it. */
bool
md_json_fail_syntax(MdJsonType *type, const MdJsonValue *value, MdDecodeError *error)
{
	return md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
						  "invalid input syntax for type %s: \"%s\"",
						  format_type_be(type->oid), md_decode_clip(value->text));
}

/* A value that the type has no room for. */
bool
md_json_fail_range(MdJsonType *type, const MdJsonValue *value, int sqlstate,
				   MdDecodeError *error)
{
	return md_decode_fail(error, sqlstate,
						  "value \"%s\" is out of range for type %s",
						  md_decode_clip(value->text), format_type_be(type->oid));
}

/*
 * Read by the type's input function, under fixed settings.  Throws what the
 * function throws.
 */
bool
md_json_read_by_input(MdJsonType *type, const MdJsonValue *value,
					  Datum *datum, MdDecodeError *error)
{
	char	   *text = pnstrdup(value->text.data, value->text.len);
	pg_tz	   *saved_timezone = session_timezone;
	int			saved_date_order = DateOrder;
	int			saved_interval_style = IntervalStyle;

	session_timezone = pg_tzset("UTC");
	DateOrder = DATEORDER_MDY;
	IntervalStyle = INTSTYLE_POSTGRES;
	PG_TRY();
	{
		*datum = InputFunctionCall(&type->input, text, type->input_param,
								   type->typmod);
	}
	PG_FINALLY();
	{
		session_timezone = saved_timezone;
		DateOrder = saved_date_order;
		IntervalStyle = saved_interval_style;
	}
	PG_END_TRY();
	pfree(text);
	return true;
}

/* The input function for strings only. */
static bool
read_string_by_input(MdJsonType *type, const MdJsonValue *value,
					 Datum *datum, MdDecodeError *error)
{
	if (value->kind != MD_JSON_STRING)
	{
		md_json_fail_syntax(type, value, error);
		error->detail = pstrdup("A JSON string is expected.");
		return false;
	}
	return md_json_read_by_input(type, value, datum, error);
}

/* boolean, from true and false, and from the words that boolin knows. */
static bool
read_boolean(MdJsonType *type, const MdJsonValue *value,
			 Datum *datum, MdDecodeError *error)
{
	MdSlice		text = md_scalar_trim(value->text);
	bool		result;

	if (value->kind == MD_JSON_OBJECT || value->kind == MD_JSON_ARRAY ||
		!parse_bool_with_len(text.data, text.len, &result))
		return md_json_fail_syntax(type, value, error);
	*datum = BoolGetDatum(result);
	return true;
}

/*
 * Cut spaces off that varchar(n) and char(n) have no room for; anything else
 * that is too long is an error.
 */
static bool
fit_length(MdJsonType *type, MdSlice *text, MdDecodeError *error)
{
	int			max_chars = type->typmod - VARHDRSZ;
	int			fitting;

	if (type->typmod < VARHDRSZ || text->len <= max_chars)
		return true;
	fitting = pg_mbcharcliplen(text->data, text->len, max_chars);
	for (int i = fitting; i < text->len; i++)
	{
		if (text->data[i] != ' ')
			return md_decode_fail(error, ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
								  "value too long for type %s",
								  format_type_with_typemod(type->oid, type->typmod));
	}
	text->len = fitting;
	return true;
}

/* text and varchar */
static bool
read_text(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	MdSlice		text = value->text;

	if (!fit_length(type, &text, error))
		return false;
	*datum = PointerGetDatum(cstring_to_text_with_len(text.data, text.len));
	return true;
}

/* char(n), which is padded by its input function. */
static bool
read_bpchar(MdJsonType *type, const MdJsonValue *value,
			Datum *datum, MdDecodeError *error)
{
	MdSlice		text = value->text;

	return fit_length(type, &text, error) &&
		md_json_read_by_input(type, value, datum, error);
}

/* An enum: whether the label exists is looked up before enum_in throws. */
static bool
read_enum(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	char	   *label = pnstrdup(value->text.data, value->text.len);

	if (value->text.len >= NAMEDATALEN ||
		!SearchSysCacheExists2(ENUMTYPOIDNAME, ObjectIdGetDatum(type->oid),
							   CStringGetDatum(label)))
		return md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
							  "invalid input value for enum %s: \"%s\"",
							  format_type_be(type->oid), md_decode_clip(value->text));
	pfree(label);
	return md_json_read_by_input(type, value, datum, error);
}

/* uuid */
static bool
read_uuid(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	if (value->kind != MD_JSON_STRING || md_scalar_uuid(value->text, uuid) != MD_SCALAR_OK)
		return md_json_fail_syntax(type, value, error);
	*datum = UUIDPGetDatum(uuid);
	return true;
}

/* bytea: base64 as JSON producers write bytes, or Postgres's \x form. */
static bool
read_bytea(MdJsonType *type, const MdJsonValue *value,
		   Datum *datum, MdDecodeError *error)
{
	bytea	   *bytes;
	int			len;

	if (value->kind != MD_JSON_STRING)
		return md_json_fail_syntax(type, value, error);
	if (value->text.len >= 2 && value->text.data[0] == '\\' && value->text.data[1] == 'x')
		return md_json_read_by_input(type, value, datum, error);

	len = pg_b64_dec_len(value->text.len);
	bytes = palloc(VARHDRSZ + len);
	len = pg_b64_decode(value->text.data, value->text.len,
						(void *) VARDATA(bytes), len);
	if (len < 0)
	{
		md_json_fail_syntax(type, value, error);
		error->detail = pstrdup("Bytes are expected in base64, or in hexadecimal after \"\\x\".");
		return false;
	}
	SET_VARSIZE(bytes, VARHDRSZ + len);
	*datum = PointerGetDatum(bytes);
	return true;
}

/* json: any value, as it was written. */
static bool
read_json(MdJsonType *type, const MdJsonValue *value,
		  Datum *datum, MdDecodeError *error)
{
	*datum = PointerGetDatum(cstring_to_text_with_len(value->json.data, value->json.len));
	return true;
}

/* jsonb: any value. */
static bool
read_jsonb(MdJsonType *type, const MdJsonValue *value,
		   Datum *datum, MdDecodeError *error)
{
	return md_json_to_jsonb(value->json, datum, error);
}

/* The reader of a type that is neither array, composite nor domain. */
static MdJsonReader
scalar_reader(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return md_json_read_integer;
		case FLOAT4OID:
		case FLOAT8OID:
			return md_json_read_float;
		case NUMERICOID:
			return md_json_read_numeric;
		case BOOLOID:
			return read_boolean;
		case TEXTOID:
		case VARCHAROID:
			return read_text;
		case BPCHAROID:
			return read_bpchar;
		case UUIDOID:
			return read_uuid;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return md_json_read_timestamp;
		case DATEOID:
			return md_json_read_date;
		case TIMEOID:
		case TIMETZOID:
			/* time_in reads 101500 as a quarter past ten */
			return read_string_by_input;
		case BYTEAOID:
			return read_bytea;
		case JSONOID:
			return read_json;
		case JSONBOID:
			return read_jsonb;
		default:
			return type_is_enum(type) ? read_enum : md_json_read_by_input;
	}
}

/* Prepare to read a type; ERROR when it has no input function. */
MdJsonType *
md_json_type_create(Oid oid, int32 typmod)
{
	MdJsonType *type = palloc0(sizeof(MdJsonType));
	Oid			input;
	Oid			element = get_element_type(oid);

	type->oid = oid;
	type->typmod = typmod;
	type->context = CurrentMemoryContext;
	getTypeInputInfo(oid, &input, &type->input_param);
	fmgr_info_cxt(input, &type->input, CurrentMemoryContext);

	if (OidIsValid(element))
		md_json_array_init(type, element);
	else if (get_typtype(oid) == TYPTYPE_COMPOSITE)
		md_json_composite_init(type);
	else if (get_typtype(oid) == TYPTYPE_DOMAIN)
		md_json_domain_init(type);
	else
		type->read = scalar_reader(oid);
	type->keeps_json = type->read == read_json || type->read == read_jsonb ||
		(type->base != NULL && type->base->keeps_json);
	return type;
}

/* What kind of value begins here. */
static inline MdJsonKind
json_kind(char first)
{
	switch (first)
	{
		case '"':
			return MD_JSON_STRING;
		case '{':
			return MD_JSON_OBJECT;
		case '[':
			return MD_JSON_ARRAY;
		case 't':
		case 'f':
			return MD_JSON_BOOLEAN;
		default:
			return MD_JSON_NUMBER;
	}
}

/*
 * Read a slice that has been parsed as one JSON value, without white space
 * around it.  JSON null is NULL.
 */
bool
md_json_type_read(MdJsonType *type, MdSlice json, Datum *datum, bool *isnull,
				  MdDecodeError *error)
{
	MdJsonValue value = {.text = json, .json = json};

	if (json.data[0] == 'n')
	{
		*datum = (Datum) 0;
		*isnull = true;
		return type->base == NULL || md_json_domain_check(type, (Datum) 0, true);
	}

	value.kind = json_kind(json.data[0]);
	if (value.kind == MD_JSON_STRING && !type->keeps_json)
	{
		value.text.data++;
		value.text.len -= 2;
		if (memchr(value.text.data, '\\', value.text.len) != NULL &&
			!md_json_unescape(json, &value.text, error))
			return false;
	}
	*isnull = false;
	return type->read(type, &value, datum, error);
}
