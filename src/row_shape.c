/*
 * row_shape.c
 *		What makes a row look as it does, besides its values.
 *
 * to_jsonb(t), t::text and the like show the columns of t under their names.  A column
 * that is added, dropped, renamed or retyped changes what they give for each row, and
 * no row is written.  So a view whose query has such a reference keeps a fingerprint of
 * the columns beside its frontier, and another one is a reason to recompute.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "row_shape.h"

PG_FUNCTION_INFO_V1(md_row_shape_sql);

static uint64 add_relation(uint64 shape, Oid relid);

static uint64
add_text(uint64 shape, const char *text)
{
	return hash_combine64(shape, DatumGetUInt64(hash_any_extended((const unsigned char *) text,
																  strlen(text), 0)));
}

/* A type by its name, and by the columns that it has or is an array of. */
static uint64
add_type(uint64 shape, Oid type)
{
	Oid			element = get_base_element_type(type);
	Oid			base = getBaseType(OidIsValid(element) ? element : type);

	shape = add_text(shape, format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	if (OidIsValid(get_typ_typrelid(base)))
		shape = add_relation(shape, get_typ_typrelid(base));
	return shape;
}

/* No lock is taken: who asks whether something is new does not wait for who is changing it. */
static uint64
add_relation(uint64 shape, Oid relid)
{
	HeapTuple	relation = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	int			count;

	check_stack_depth();
	if (!HeapTupleIsValid(relation))
		return shape;
	count = ((Form_pg_class) GETSTRUCT(relation))->relnatts;
	ReleaseSysCache(relation);
	shape = hash_combine64(shape, 1);
	for (int i = 1; i <= count; i++)
	{
		HeapTuple	tuple = SearchSysCacheAttNum(relid, i);
		Form_pg_attribute att;

		if (!HeapTupleIsValid(tuple))
			continue;			/* dropped */
		att = (Form_pg_attribute) GETSTRUCT(tuple);
		shape = add_text(shape, NameStr(att->attname));
		shape = hash_combine64(shape, (uint32) att->atttypmod);
		shape = add_type(shape, att->atttypid);
		ReleaseSysCache(tuple);
	}
	return hash_combine64(shape, 2);
}

int64
md_row_shape(Oid relid)
{
	return (int64) add_relation(0, relid);
}

/* SQL: the fingerprint of a relation's columns as they are now. */
Datum
md_row_shape_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(md_row_shape(PG_GETARG_OID(0)));
}
