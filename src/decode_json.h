/*
 * decode_json.h
 *		JSON text to values of columns.
 *
 * MdJsonType reads one JSON value as a value of a type; MdJsonRow fills rows
 * from JSON objects by field name: the columns of a table, or the attributes
 * of a composite type.  Both are made once and allocated in
 * CurrentMemoryContext; values they read are allocated in the
 * CurrentMemoryContext of the call.
 */
#ifndef MD_DECODE_JSON_H
#define MD_DECODE_JSON_H

#include "postgres.h"
#include "compat.h"
#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

#include "decode_text.h"

typedef struct MdJsonType MdJsonType;
typedef struct MdJsonRow MdJsonRow;

/* Fields of an object of which is remembered which they are; all beyond share the last. */
#define MD_JSON_PLACES 64

/* One JSON value, as the reader of a type gets it; never null. */
typedef enum MdJsonKind
{
	MD_JSON_STRING,
	MD_JSON_NUMBER,
	MD_JSON_BOOLEAN,
	MD_JSON_OBJECT,
	MD_JSON_ARRAY
} MdJsonKind;

typedef struct MdJsonValue
{
	MdJsonKind	kind;
	MdSlice		text;			/* of a string its text, else the JSON */
	MdSlice		json;			/* as it was written */
} MdJsonValue;

typedef bool (*MdJsonReader) (MdJsonType *type, const MdJsonValue *value,
							  Datum *datum, MdDecodeError *error);

/* How a type is read from JSON. */
struct MdJsonType
{
	Oid			oid;
	int32		typmod;
	MdJsonReader read;
	bool		keeps_json;		/* json and jsonb: strings stay literals */

	/* the type's input function, for what its reader leaves to it */
	FmgrInfo	input;
	Oid			input_param;

	/* arrays: of their elements */
	MdJsonType *element;
	int16		element_len;
	bool		element_byval;
	char		element_align;

	/* composite types */
	TupleDesc	tupdesc;
	uint64		tupdesc_id;		/* of the type cache: another after ALTER TYPE */
	MdJsonRow  *row;

	/* domains: of the type below, which is none */
	MdJsonType *base;
	void	   *domain_cache;
	MemoryContext context;
};

/* One field of an object that somebody wants. */
typedef struct MdJsonField
{
	MdSlice		name;
	int			slot;			/* fields of the same name share one */
	int			index;			/* into values[] and isnull[] */
	MdJsonType *type;
} MdJsonField;

struct MdJsonRow
{
	int			n_fields;
	MdJsonField *fields;
	const char *noun;			/* "column" or "field", for messages */
	const char *current;		/* name of the field that is being read */

	/* Open addressing from names to slots; -1 is free. */
	int16	   *buckets;
	uint32		bucket_mask;
	int			n_slots;
	MdSlice    *slot_names;
	int16		slot_at[MD_JSON_PLACES];	/* of the name that stood there in the last object; -1 */

	/* The object read last: its values, by slot; NULL data: missing. */
	MdSlice    *slot_values;
	bool		rescue;			/* collect fields that nobody wants? */
	StringInfoData rescued;		/* "{" and fields, when not empty */
	bool		any_rescued;
};

/* decode_json.c */
extern bool md_json_parse(MdSlice json, JsonSemAction *actions, JsonLexContext **lex,
						  MdDecodeError *error);
extern bool md_json_check(MdSlice json, bool need_escapes, MdDecodeError *error);
extern bool md_json_unescape(MdSlice literal, MdSlice *text, MdDecodeError *error);
extern bool md_json_to_jsonb(MdSlice json, Datum *value, MdDecodeError *error);
extern bool md_json_split_array(MdSlice json, MdSlice **elements, int *n_elements,
								MdDecodeError *error);

/*
 * decode_json_scan.c: behind the string, or the value, that begins at p.  NULL:
 * not JSON, or more than is looked at there; ask md_json_parse().
 */
extern const char *md_json_scan_string(const char *p, const char *end, bool *has_escapes);
extern const char *md_json_scan_value(const char *p, const char *end);

/* Behind white space at p. */
static inline const char *
md_json_scan_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* decode_json_row.c */
extern MdJsonRow *md_json_row_create(int max_fields, const char *noun);
extern void md_json_row_add_field(MdJsonRow *row, const char *name, int index,
								  Oid type, int32 typmod);
extern bool md_json_row_split(MdJsonRow *row, MdSlice json, MdDecodeError *error);
extern void md_json_row_clear(MdJsonRow *row);
extern bool md_json_row_read(MdJsonRow *row, Datum *values, bool *isnull,
							 MdDecodeError *error);

/* decode_json_type.c */
extern MdJsonType *md_json_type_create(Oid type, int32 typmod);
extern bool md_json_type_read(MdJsonType *type, MdSlice json, Datum *value,
							  bool *isnull, MdDecodeError *error);
extern bool md_json_read_by_input(MdJsonType *type, const MdJsonValue *value,
								  Datum *datum, MdDecodeError *error);
extern bool md_json_fail_syntax(MdJsonType *type, const MdJsonValue *value,
								MdDecodeError *error);
extern bool md_json_fail_range(MdJsonType *type, const MdJsonValue *value,
							   int sqlstate, MdDecodeError *error);

/* decode_json_number.c */
extern bool md_json_read_integer(MdJsonType *type, const MdJsonValue *value,
								 Datum *datum, MdDecodeError *error);
extern bool md_json_read_float(MdJsonType *type, const MdJsonValue *value,
							   Datum *datum, MdDecodeError *error);
extern bool md_json_read_numeric(MdJsonType *type, const MdJsonValue *value,
								 Datum *datum, MdDecodeError *error);

/* decode_json_time.c */
extern bool md_json_read_timestamp(MdJsonType *type, const MdJsonValue *value,
								   Datum *datum, MdDecodeError *error);
extern bool md_json_read_date(MdJsonType *type, const MdJsonValue *value,
							  Datum *datum, MdDecodeError *error);

/* decode_json_nested.c */
extern void md_json_array_init(MdJsonType *type, Oid element);
extern void md_json_composite_init(MdJsonType *type);
extern void md_json_domain_init(MdJsonType *type);
extern bool md_json_domain_check(MdJsonType *type, Datum value, bool isnull);

#endif							/* MD_DECODE_JSON_H */
