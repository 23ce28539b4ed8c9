/*
 * key_type.c
 *		Types of the arguments of key functions, and the walk over their
 *		values.
 *
 * Each call site looks its types up once and keeps them with its FmgrInfo:
 * the base type under a domain, the type modifier and the collation of the
 * argument's expression, and for containers the element.  Rows of type
 * "record" carry their layout in the value, so fields are looked up when the
 * first value comes, and again when a value of another layout does.
 *
 * Whether a type is taken is the function's decision (MdKeyCall.accept),
 * asked once per type, for containers down to the last element.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "key_hash.h"

/* Built-in scalar types that have a meaning in keys. */
static const struct
{
	Oid			type_oid;
	MdKeyKind	kind;
}			scalar_kinds[] =
{
	{BITOID, MD_KEY_BIT},
	{BOOLOID, MD_KEY_BOOL},
	{BPCHAROID, MD_KEY_BPCHAR},
	{BYTEAOID, MD_KEY_BYTEA},
	{CIDROID, MD_KEY_INET},
	{DATEOID, MD_KEY_DATE},
	{FLOAT4OID, MD_KEY_FLOAT4},
	{FLOAT8OID, MD_KEY_FLOAT8},
	{INETOID, MD_KEY_INET},
	{INT2OID, MD_KEY_INT2},
	{INT4OID, MD_KEY_INT4},
	{INT8OID, MD_KEY_INT8},
	{INTERVALOID, MD_KEY_INTERVAL},
	{JSONBOID, MD_KEY_JSONB},
	{MACADDR8OID, MD_KEY_MACADDR8},
	{MACADDROID, MD_KEY_MACADDR},
	{NAMEOID, MD_KEY_NAME},
	{NUMERICOID, MD_KEY_NUMERIC},
	{TEXTOID, MD_KEY_TEXT},
	{TIMEOID, MD_KEY_TIME},
	{TIMESTAMPOID, MD_KEY_TIMESTAMP},
	{TIMESTAMPTZOID, MD_KEY_TIMESTAMPTZ},
	{TIMETZOID, MD_KEY_TIMETZ},
	{UNKNOWNOID, MD_KEY_CSTRING},
	{UUIDOID, MD_KEY_UUID},
	{VARBITOID, MD_KEY_BIT},
	{VARCHAROID, MD_KEY_TEXT}
};

#define OBJECT_DETAIL "Identifiers of objects differ from one database to another."
#define OBJECT_HINT "Hash the qualified name of the object as text."
#define STORAGE_DETAIL "Its values mean something on one server only."
#define STORAGE_HINT "Hash a column of the data instead."
#define SHAPE_DETAIL "Its equality is approximate, so no bytes stand for a value."
#define SHAPE_HINT "Hash its coordinates, as in (x[0])[0] or x[1]."
#define SEARCH_DETAIL "It depends on the text search configuration it was made with."
#define SEARCH_HINT "Hash the text it was made from."

/* Built-in types that have none, with the reason and what to write instead. */
static const struct
{
	Oid			type_oid;
	const char *detail;
	const char *hint;
}			refusals[] =
{
	{BOXOID, SHAPE_DETAIL, SHAPE_HINT},
	{CHAROID, "Its text form differs between major versions.", "Write x::text."},
	{CIDOID, STORAGE_DETAIL, STORAGE_HINT},
	{CIRCLEOID, SHAPE_DETAIL, SHAPE_HINT},
	{JSONOID, "It keeps white space and the order of keys, so that equal documents differ.", "Write x::jsonb."},
	{JSONPATHOID, "It has no equality.", "Write x::text."},
	{LINEOID, SHAPE_DETAIL, SHAPE_HINT},
	{LSEGOID, SHAPE_DETAIL, SHAPE_HINT},
	{MONEYOID, "The setting lc_monetary decides what its values mean.", "Write x::numeric."},
	{OIDOID, OBJECT_DETAIL, "Write x::bigint if it is a plain number, or hash the qualified name of the object."},
	{PATHOID, SHAPE_DETAIL, SHAPE_HINT},
	{PG_LSNOID, STORAGE_DETAIL, STORAGE_HINT},
	{POINTOID, SHAPE_DETAIL, "Hash its coordinates, as in x[0], x[1]."},
	{POLYGONOID, SHAPE_DETAIL, SHAPE_HINT},
	{REGCLASSOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGCOLLATIONOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGCONFIGOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGDICTIONARYOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGNAMESPACEOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGOPERATOROID, OBJECT_DETAIL, OBJECT_HINT},
	{REGOPEROID, OBJECT_DETAIL, OBJECT_HINT},
	{REGPROCEDUREOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGPROCOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGROLEOID, OBJECT_DETAIL, OBJECT_HINT},
	{REGTYPEOID, OBJECT_DETAIL, OBJECT_HINT},
	{TIDOID, STORAGE_DETAIL, STORAGE_HINT},
	{TSQUERYOID, SEARCH_DETAIL, SEARCH_HINT},
	{TSVECTOROID, SEARCH_DETAIL, SEARCH_HINT},
	{XID8OID, STORAGE_DETAIL, STORAGE_HINT},
	{XIDOID, STORAGE_DETAIL, STORAGE_HINT},
	{XMLOID, "It has no equality.", "Write x::text."}
};

/*
 * Refuse a type: name it, say why, and what to write instead.
 */
void
md_key_refuse(const MdKeyCall *call, const MdKeyType *type,
			  const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("function \"%s\" cannot take a value of type %s",
					get_func_name(call->function_oid),
					format_type_be(type->type_oid)),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Refuse a type that no key function takes.
 */
void
md_key_refuse_unsupported(const MdKeyCall *call, const MdKeyType *type)
{
	for (int i = 0; i < lengthof(refusals); i++)
		if (refusals[i].type_oid == type->type_oid)
			md_key_refuse(call, type, refusals[i].detail, refusals[i].hint);

	md_key_refuse(call, type,
				  "No bytes are agreed on for its values.",
				  "Cast it to text, bytea, jsonb or another type whose bytes have a fixed meaning.");
}

/* The kind of a base type; containers are told by the catalog. */
static MdKeyKind
kind_of_type(Oid type_oid)
{
	for (int i = 0; i < lengthof(scalar_kinds); i++)
		if (scalar_kinds[i].type_oid == type_oid)
			return scalar_kinds[i].kind;

	if (OidIsValid(get_element_type(type_oid)))
		return MD_KEY_ARRAY;

	switch (get_typtype(type_oid))
	{
		case TYPTYPE_COMPOSITE:
			return MD_KEY_ROW;
		case TYPTYPE_ENUM:
			return MD_KEY_ENUM;
		case TYPTYPE_MULTIRANGE:
			return MD_KEY_MULTIRANGE;
		case TYPTYPE_RANGE:
			return MD_KEY_RANGE;
		default:
			return type_oid == RECORDOID ? MD_KEY_ROW : MD_KEY_UNSUPPORTED;
	}
}

/*
 * Describe a type, and its elements, allocated in context, if it has some.
 * ERROR if the function does not take it.
 */
static void
resolve_type(const MdKeyCall *call, MemoryContext context, MdKeyType *type,
			 Oid type_oid, int32 typmod, Oid collation)
{
	check_stack_depth();
	memset(type, 0, sizeof(*type));
	type->context = context;
	type->typmod = typmod;
	type->type_oid = getBaseTypeAndTypmod(type_oid, &type->typmod);
	type->collation = collation;
	type->kind = kind_of_type(type->type_oid);
	get_typlenbyvalalign(type->type_oid, &type->len, &type->byval, &type->align);
	call->accept(call, type);

	if (type->kind == MD_KEY_ARRAY)
	{
		type->element = MemoryContextAlloc(context, sizeof(MdKeyType));
		resolve_type(call, context, type->element, get_element_type(type->type_oid),
					 type->typmod, collation);
	}
	else if (type->kind == MD_KEY_RANGE || type->kind == MD_KEY_MULTIRANGE)
	{
		type->range = lookup_type_cache(type->type_oid,
										type->kind == MD_KEY_RANGE ?
										TYPECACHE_RANGE_INFO :
										TYPECACHE_MULTIRANGE_INFO);
		if (type->kind == MD_KEY_MULTIRANGE)
			type->range = type->range->rngtype;
		type->element = MemoryContextAlloc(context, sizeof(MdKeyType));
		resolve_type(call, context, type->element, type->range->rngelemtype->type_id,
					 -1, type->range->rng_collation);
	}
}

/* The type of the expression behind an argument. */
static void
resolve_argument(const MdKeyCall *call, FmgrInfo *flinfo, int i, MdKeyType *type)
{
	Oid			type_oid = get_fn_expr_argtype(flinfo, i);
	Node	   *arg = NULL;

	if (!OidIsValid(type_oid))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the types of the arguments of function \"%s\"",
						get_func_name(call->function_oid)),
				 errdetail("The caller passed no expression that tells them.")));

	if (IsA(flinfo->fn_expr, FuncExpr))
		arg = list_nth(((FuncExpr *) flinfo->fn_expr)->args, i);

	resolve_type(call, call->context, type, type_oid,
				 arg ? exprTypmod(arg) : -1,
				 arg ? exprCollation(arg) : InvalidOid);
}

/*
 * The call site of fcinfo, made at its first call.
 */
static MdKeyCall *
call_of(FunctionCallInfo fcinfo, MdKeyAccept accept)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	MdKeyCall  *call = flinfo->fn_extra;

	if (likely(call != NULL))
		return call;

	call = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(MdKeyCall));
	call->function_oid = flinfo->fn_oid;
	call->context = flinfo->fn_mcxt;
	call->accept = accept;
	call->variadic = get_fn_expr_variadic(flinfo);
	call->n_args = PG_NARGS();
	call->args = MemoryContextAlloc(call->context, sizeof(MdKeyType) * Max(call->n_args, 1));
	for (int i = 0; i < call->n_args; i++)
		resolve_argument(call, flinfo, i, &call->args[i]);

	flinfo->fn_extra = call;
	return call;
}

/*
 * Visit the values that the function was called with, in order: the arguments,
 * or after VARIADIC the elements of the array.
 */
void
md_key_visit_arguments(FunctionCallInfo fcinfo, MdKeyAccept accept,
					   MdKeyVisit visit, void *state)
{
	MdKeyCall  *call = call_of(fcinfo, accept);

	if (call->variadic)
	{
		if (PG_ARGISNULL(0))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the VARIADIC array of function \"%s\" must not be null",
							get_func_name(call->function_oid)),
					 errhint("An array with a null element is a key; a null array says nothing about the values.")));
		md_key_visit_array(call, &call->args[0], PG_GETARG_DATUM(0), visit, state);
		return;
	}

	for (int i = 0; i < call->n_args; i++)
		visit(call, &call->args[i], fcinfo->args[i].value, fcinfo->args[i].isnull, state);
}

/*
 * Visit the elements of an array, in storage order.
 */
void
md_key_visit_array(const MdKeyCall *call, MdKeyType *type, Datum array,
				   MdKeyVisit visit, void *state)
{
	MdKeyType  *element = type->element;
	ArrayType  *flat = DatumGetArrayTypeP(array);
	Datum	   *values;
	bool	   *nulls;
	int			n;

	check_stack_depth();
	/* the array may name a domain over the element's type */
	deconstruct_array(flat, ARR_ELEMTYPE(flat), element->len, element->byval,
					  element->align, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		visit(call, element, values[i], nulls[i], state);

	if (values)
		pfree(values);
	if (nulls)
		pfree(nulls);
	if ((Pointer) flat != DatumGetPointer(array))
		pfree(flat);
}

/*
 * Describe the columns of a row whose layout is not that of the last one.
 * Rows of several layouts may alternate, so the former one's is freed.
 */
static void
resolve_row(const MdKeyCall *call, MdKeyType *type, TupleDesc desc, uint64 row_id)
{
	type->row_id = 0;
	if (type->row_context == NULL)
		type->row_context = AllocSetContextCreate(type->context,
												  "columns of a key's row",
												  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(type->row_context);
	type->n_fields = desc->natts;
	type->fields = MemoryContextAllocZero(type->row_context,
										  sizeof(MdKeyType) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			type->fields[i].kind = MD_KEY_DROPPED;
		else
			resolve_type(call, type->row_context, &type->fields[i], attribute->atttypid,
						 attribute->atttypmod, attribute->attcollation);
	}
	type->row_id = row_id;
}

/* The layout of a row, with type->fields made to describe it. */
static TupleDesc
row_layout(const MdKeyCall *call, MdKeyType *type, HeapTupleHeader row)
{
	Oid			type_oid = HeapTupleHeaderGetTypeId(row);
	int32		typmod = HeapTupleHeaderGetTypMod(row);
	TupleDesc	desc = lookup_rowtype_tupdesc(type_oid, typmod);
	uint64		row_id = assign_record_type_identifier(type_oid, typmod);

	if (row_id != type->row_id)
		resolve_row(call, type, desc, row_id);
	return desc;
}

/*
 * Number of columns that a row has, without dropped ones.
 */
int
md_key_row_width(const MdKeyCall *call, MdKeyType *type, Datum row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	TupleDesc	desc = row_layout(call, type, header);
	int			width = 0;

	for (int i = 0; i < type->n_fields; i++)
		if (type->fields[i].kind != MD_KEY_DROPPED)
			width++;
	ReleaseTupleDesc(desc);
	return width;
}

/*
 * Visit the columns of a row, without dropped ones.
 */
void
md_key_visit_row(const MdKeyCall *call, MdKeyType *type, Datum row,
				 MdKeyVisit visit, void *state)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	TupleDesc	desc = row_layout(call, type, header);
	HeapTupleData tuple;
	Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));

	check_stack_depth();
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);

	for (int i = 0; i < type->n_fields; i++)
		if (type->fields[i].kind != MD_KEY_DROPPED)
			visit(call, &type->fields[i], values[i], nulls[i], state);

	pfree(values);
	pfree(nulls);
	ReleaseTupleDesc(desc);
}

/*
 * Text of the database's encoding as UTF-8: the same pointer when it is
 * already, or plain ASCII.  ERROR if it has no such form.
 */
const char *
md_key_utf8(const char *text, Size *len)
{
	char	   *converted;
	Size		i = 0;

	if (likely(GetDatabaseEncoding() == PG_UTF8))
		return text;
	while (i < *len && !IS_HIGHBIT_SET(text[i]))
		i++;
	if (i == *len)
		return text;

	converted = pg_server_to_any(text, (int) *len, PG_UTF8);
	if (converted != text)
		*len = strlen(converted);
	return converted;
}

/* Label of an enum's value. */
static const char *
enum_label(Datum value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, value);
	char	   *label;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid internal value for enum: %u", DatumGetObjectId(value))));
	label = pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	ReleaseSysCache(tuple);
	return label;
}

/*
 * A string or an enum's label as UTF-8.  Trailing blanks of char(n) are left
 * off, as a cast to text does.
 */
const char *
md_key_string(const MdKeyType *type, Datum value, Size *len)
{
	const char *text;

	switch (type->kind)
	{
		case MD_KEY_CSTRING:
			text = DatumGetCString(value);
			*len = strlen(text);
			break;
		case MD_KEY_ENUM:
			text = enum_label(value);
			*len = strlen(text);
			break;
		case MD_KEY_NAME:
			text = NameStr(*DatumGetName(value));
			*len = strlen(text);
			break;
		default:
			{
				struct varlena *varlena = PG_DETOAST_DATUM_PACKED(value);

				text = VARDATA_ANY(varlena);
				*len = VARSIZE_ANY_EXHDR(varlena);
				if (type->kind == MD_KEY_BPCHAR)
					*len = bpchartruelen(unconstify(char *, text), (int) *len);
			}
	}
	return md_key_utf8(text, len);
}
