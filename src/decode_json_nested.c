/*
 * decode_json_nested.c
 *		JSON arrays to arrays, objects to composite types, and domains.
 *
 * A JSON string for an array or a composite type is a literal of that type
 * ('{1,2}', '(1,2)') and goes to its input function.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "decode_json.h"

/* An array while its elements are being read. */
typedef struct ArrayBuild
{
	MdJsonType *element;
	int			depth_max;		/* 1: nested arrays are elements */
	int			leaf_depth;		/* where the elements are; -1: not known yet */
	int			dims[MAXDIM];	/* -1: not known yet */
	Datum	   *values;
	bool	   *nulls;
	int			n_values;
	int			capacity;
} ArrayBuild;

/* Add room for n more elements. */
static void
reserve_elements(ArrayBuild *build, int n)
{
	if (build->n_values + n <= build->capacity)
		return;
	build->capacity = Max(build->n_values + n, build->capacity * 2);
	if (build->values == NULL)
	{
		build->values = palloc_extended(build->capacity * sizeof(Datum), MCXT_ALLOC_HUGE);
		build->nulls = palloc_extended(build->capacity * sizeof(bool), MCXT_ALLOC_HUGE);
		return;
	}
	build->values = repalloc_huge(build->values, build->capacity * sizeof(Datum));
	build->nulls = repalloc_huge(build->nulls, build->capacity * sizeof(bool));
}

/* Arrays of different lengths or depths make no array. */
static bool
fail_shape(MdDecodeError *error)
{
	md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
				   "JSON array does not have the shape of an array");
	error->detail = pstrdup("Nested arrays must all have the same length and depth.");
	return false;
}

/* Read one JSON array, at the given depth of nesting. */
static bool
collect_elements(ArrayBuild *build, MdSlice json, int depth, MdDecodeError *error)
{
	MdSlice    *elements;
	int			n_elements;

	if (!md_json_split_array(json, &elements, &n_elements, error))
		return false;
	if (build->dims[depth] < 0)
		build->dims[depth] = n_elements;
	else if (build->dims[depth] != n_elements)
		return fail_shape(error);

	for (int i = 0; i < n_elements; i++)
	{
		if (elements[i].data[0] == '[' && build->depth_max > 1)
		{
			if (depth + 1 >= build->depth_max)
				return md_decode_fail(error, ERRCODE_INVALID_TEXT_REPRESENTATION,
									  "JSON array has more than %d levels", MAXDIM);
			if (build->leaf_depth >= 0 && build->leaf_depth <= depth)
				return fail_shape(error);
			if (!collect_elements(build, elements[i], depth + 1, error))
				return false;
			continue;
		}

		if (build->leaf_depth < 0)
			build->leaf_depth = depth;
		else if (build->leaf_depth != depth)
			return fail_shape(error);
		reserve_elements(build, 1);
		if (!md_json_type_read(build->element, elements[i],
							   &build->values[build->n_values],
							   &build->nulls[build->n_values], error))
			return md_decode_prefix(error, "element %d", i + 1);
		build->n_values++;
	}
	pfree(elements);
	return true;
}

/* An array, of one or more dimensions. */
static bool
read_array(MdJsonType *type, const MdJsonValue *value, Datum *datum,
		   MdDecodeError *error)
{
	ArrayBuild	build = {.element = type->element, .leaf_depth = -1};
	int			lower_bounds[MAXDIM];

	if (value->kind == MD_JSON_STRING)
		return md_json_read_by_input(type, value, datum, error);
	if (value->kind != MD_JSON_ARRAY)
		return md_json_fail_syntax(type, value, error);

	/* an element of type json may be an array itself */
	build.depth_max = type->element->keeps_json ? 1 : MAXDIM;
	for (int i = 0; i < MAXDIM; i++)
	{
		build.dims[i] = -1;
		lower_bounds[i] = 1;
	}
	if (!collect_elements(&build, value->json, 0, error))
		return false;

	if (build.n_values == 0)
		*datum = PointerGetDatum(construct_empty_array(type->element->oid));
	else
		*datum = PointerGetDatum(construct_md_array(build.values, build.nulls,
													build.leaf_depth + 1, build.dims,
													lower_bounds, type->element->oid,
													type->element_len,
													type->element_byval,
													type->element_align));
	return true;
}

/* Prepare to read an array type. */
void
md_json_array_init(MdJsonType *type, Oid element)
{
	type->element = md_json_type_create(element, type->typmod);
	get_typlenbyvalalign(element, &type->element_len, &type->element_byval,
						 &type->element_align);
	type->read = read_array;
}

/* Look the attributes of a composite type up, as they are now. */
static void
load_composite(MdJsonType *type)
{
	MemoryContext old_context = MemoryContextSwitchTo(type->context);

	type->tupdesc = lookup_rowtype_tupdesc_copy(type->oid, -1);
	type->tupdesc_id = lookup_type_cache(type->oid, TYPECACHE_TUPDESC)->tupDesc_identifier;
	type->row = md_json_row_create(type->tupdesc->natts, "field");
	for (int i = 0; i < type->tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(type->tupdesc, i);

		if (!att->attisdropped)
			md_json_row_add_field(type->row, NameStr(att->attname), i,
								  att->atttypid, att->atttypmod);
	}
	MemoryContextSwitchTo(old_context);
}

/*
 * Follow ALTER TYPE, which does not touch the tables that use the type.  The
 * former attributes stay allocated until the decoder goes.
 */
static void
refresh_composite(MdJsonType *type)
{
	TypeCacheEntry *entry = lookup_type_cache(type->oid, TYPECACHE_TUPDESC);

	if (entry->tupDesc_identifier != type->tupdesc_id)
		load_composite(type);
}

/* A composite type: its attributes by name, others are ignored. */
static bool
read_composite(MdJsonType *type, const MdJsonValue *value, Datum *datum,
			   MdDecodeError *error)
{
	int			natts;
	Datum	   *values;
	bool	   *nulls;
	HeapTuple	tuple;

	if (value->kind == MD_JSON_STRING)
		return md_json_read_by_input(type, value, datum, error);
	if (value->kind != MD_JSON_OBJECT)
		return md_json_fail_syntax(type, value, error);

	refresh_composite(type);
	natts = type->tupdesc->natts;
	values = palloc0(natts * sizeof(Datum));
	nulls = palloc(natts * sizeof(bool));
	memset(nulls, true, natts * sizeof(bool));
	if (!md_json_row_split(type->row, value->json, error) ||
		!md_json_row_read(type->row, values, nulls, error))
		return false;

	tuple = heap_form_tuple(type->tupdesc, values, nulls);
	*datum = heap_copy_tuple_as_datum(tuple, type->tupdesc);
	return true;
}

/* Prepare to read a composite type. */
void
md_json_composite_init(MdJsonType *type)
{
	load_composite(type);
	type->read = read_composite;
}

/* Check the constraints of a domain; throws when one is not met. */
bool
md_json_domain_check(MdJsonType *type, Datum value, bool isnull)
{
	domain_check(value, isnull, type->oid, &type->domain_cache, type->context);
	return true;
}

/* A domain: its base type, then its constraints. */
static bool
read_domain(MdJsonType *type, const MdJsonValue *value, Datum *datum,
			MdDecodeError *error)
{
	return type->base->read(type->base, value, datum, error) &&
		md_json_domain_check(type, *datum, false);
}

/* Prepare to read a domain, over whatever it is in the end. */
void
md_json_domain_init(MdJsonType *type)
{
	int32		typmod = type->typmod;
	Oid			base = getBaseTypeAndTypmod(type->oid, &typmod);

	type->base = md_json_type_create(base, typmod);
	type->read = read_domain;
}
