/*
 * type_shape.c
 *		What makes values look as they do, besides themselves.
 *
 * to_jsonb(c), c::text and the like show the attributes of a composite value under their
 * names, and an enum's value by its label; t as a whole is a composite value of table t.
 * ALTER TYPE and ALTER TABLE change what they give for each row, and no row is written.
 * An attribute that is dropped even makes values equal that were not.  So a view keeps,
 * for each type of such values in its query, what the type looked like, and another
 * look is a reason to recompute.
 *
 *		composite type	-> one fingerprint of names and types of its attributes
 *		enum			-> one of each label, with the OID of the value that has it
 *
 * A label that is added changes nothing that was there, so an enum must still have what
 * was noted, and may have more.  Labels may be exchanged between values, which only OIDs
 * tell; a dump does not keep these, and costs the readers of an enum one recompute.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "type_shape.h"

PG_FUNCTION_INFO_V1(md_types_changed);

/* The type that a domain, array or range is made of. */
static Oid
innermost(Oid type)
{
	for (;;)
	{
		Oid			inner = getBaseType(type);
		Oid			next = get_element_type(inner);

		if (!OidIsValid(next))
			next = get_multirange_range(inner);
		if (!OidIsValid(next))
			next = get_range_subtype(inner);
		if (!OidIsValid(next))
			return inner;
		type = next;
	}
}

/* The columns of a relation that are there, copied; NIL: it is gone. */
static List *
attributes_of(Oid relid)
{
	HeapTuple	relation = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	List	   *attributes = NIL;
	int			count;

	if (!HeapTupleIsValid(relation))
		return NIL;
	count = ((Form_pg_class) GETSTRUCT(relation))->relnatts;
	ReleaseSysCache(relation);
	for (int i = 1; i <= count; i++)
	{
		HeapTuple	tuple = SearchSysCacheAttNum(relid, i);

		if (!HeapTupleIsValid(tuple))
			continue;			/* dropped */
		attributes = lappend(attributes, memcpy(palloc(sizeof(FormData_pg_attribute)),
												GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE));
		ReleaseSysCache(tuple);
	}
	return attributes;
}

List *
md_type_shapes_collect(List *types, Oid type)
{
	ListCell   *lc;

	check_stack_depth();
	/* those of Postgres stay as they are */
	if (type < FirstNormalObjectId)
		return types;
	type = innermost(type);
	if (list_member_oid(types, type))
		return types;
	if (get_typtype(type) == TYPTYPE_ENUM)
		return lappend_oid(types, type);
	if (get_typtype(type) != TYPTYPE_COMPOSITE)
		return types;
	types = lappend_oid(types, type);
	foreach(lc, attributes_of(get_typ_typrelid(type)))
		types = md_type_shapes_collect(types, ((Form_pg_attribute) lfirst(lc))->atttypid);
	return types;
}

/* ---------------------------------------------------------------------- */

static uint64
add_text(uint64 shape, const char *text)
{
	return hash_combine64(shape, DatumGetUInt64(hash_any_extended((const unsigned char *) text,
																  strlen(text), 0)));
}

static List *
add_shape(List *shapes, Oid type, uint64 number)
{
	MdTypeShape *shape = palloc(sizeof(MdTypeShape));

	shape->type = type;
	shape->shape = (int64) number;
	return lappend(shapes, shape);
}

/* No lock is taken: who asks whether something is new does not wait for who is changing it. */
static List *
add_composite(List *shapes, Oid type)
{
	uint64		number = 1;
	ListCell   *lc;

	foreach(lc, attributes_of(get_typ_typrelid(type)))
	{
		Form_pg_attribute att = lfirst(lc);

		number = add_text(number, NameStr(att->attname));
		number = hash_combine64(number, (uint32) att->atttypmod);
		number = add_text(number, format_type_extended(att->atttypid, -1, FORMAT_TYPE_FORCE_QUALIFY));
	}
	return add_shape(shapes, type, number);
}

static List *
add_enum(List *shapes, Oid type)
{
	CatCList   *labels = SearchSysCacheList1(ENUMTYPOIDNAME, ObjectIdGetDatum(type));

	for (int i = 0; i < labels->n_members; i++)
	{
		Form_pg_enum label = (Form_pg_enum) GETSTRUCT(&labels->members[i]->tuple);

		shapes = add_shape(shapes, type, add_text(label->oid, NameStr(label->enumlabel)));
	}
	ReleaseCatCacheList(labels);
	return shapes;
}

List *
md_type_shapes_make(List *types)
{
	List	   *shapes = NIL;
	ListCell   *lc;

	foreach(lc, types)
		shapes = get_typtype(lfirst_oid(lc)) == TYPTYPE_ENUM ? add_enum(shapes, lfirst_oid(lc)) :
			add_composite(shapes, lfirst_oid(lc));
	return shapes;
}

static bool
has_shape(List *shapes, const MdTypeShape *wanted)
{
	ListCell   *lc;

	foreach(lc, shapes)
		if (((MdTypeShape *) lfirst(lc))->shape == wanted->shape)
			return true;
	return false;
}

Oid
md_type_shapes_lost(List *shapes)
{
	List	   *now = NIL;
	Oid			type = InvalidOid;
	ListCell   *lc;

	/* those of a type are together */
	foreach(lc, shapes)
	{
		MdTypeShape *shape = lfirst(lc);

		if (shape->type != type)
			now = md_type_shapes_make(list_make1_oid(shape->type));
		type = shape->type;
		if (!has_shape(now, shape))
			return type;
	}
	return InvalidOid;
}

/* ---------------------------------------------------------------------- */

bool
md_type_shapes_arrays(List *shapes, Datum *types, Datum *numbers)
{
	Datum	   *type_values = palloc(sizeof(Datum) * Max(1, list_length(shapes)));
	Datum	   *number_values = palloc(sizeof(Datum) * Max(1, list_length(shapes)));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, shapes)
	{
		MdTypeShape *shape = lfirst(lc);

		type_values[count] = ObjectIdGetDatum(shape->type);
		number_values[count++] = Int64GetDatum(shape->shape);
	}
	*types = PointerGetDatum(construct_array(type_values, count, REGTYPEOID, sizeof(Oid), true, TYPALIGN_INT));
	*numbers = PointerGetDatum(construct_array(number_values, count, INT8OID, sizeof(int64),
											   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return count > 0;
}

List *
md_type_shapes_of_arrays(Datum types, Datum numbers)
{
	List	   *shapes = NIL;
	Datum	   *type_values;
	Datum	   *number_values;
	int			count;
	int			number_count;

	deconstruct_array(DatumGetArrayTypeP(types), REGTYPEOID, sizeof(Oid), true, TYPALIGN_INT,
					  &type_values, NULL, &count);
	deconstruct_array(DatumGetArrayTypeP(numbers), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &number_values, NULL, &number_count);
	for (int i = 0; i < Min(count, number_count); i++)
		shapes = add_shape(shapes, DatumGetObjectId(type_values[i]),
						   (uint64) DatumGetInt64(number_values[i]));
	return shapes;
}

/* SQL: has a type lost a shape that it had? */
Datum
md_types_changed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(OidIsValid(md_type_shapes_lost(md_type_shapes_of_arrays(PG_GETARG_DATUM(0),
																			PG_GETARG_DATUM(1)))));
}
