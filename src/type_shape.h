/*
 * type_shape.h
 *		What makes values look as they do, besides themselves.
 */
#ifndef MD_TYPE_SHAPE_H
#define MD_TYPE_SHAPE_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* A composite type with a fingerprint of its attributes, or an enum with that of one label. */
typedef struct MdTypeShape
{
	Oid			type;
	int64		shape;
} MdTypeShape;

/* Add the composite types and enums that a type is made of, itself perhaps, to a list of Oid. */
extern List *md_type_shapes_collect(List *types, Oid type);

/* Shapes (of MdTypeShape) of such types as they are now. */
extern List *md_type_shapes_make(List *types);

/*
 * The first type that has lost a shape that it had, InvalidOid if none has.  A label that came
 * to an enum is no loss.
 */
extern Oid	md_type_shapes_lost(List *shapes);

/* Shapes as two arrays, regtype[] and bigint[], that are stored, and back; NIL: false, NULL. */
extern bool md_type_shapes_arrays(List *shapes, Datum *types, Datum *numbers);
extern List *md_type_shapes_of_arrays(Datum types, Datum numbers);

#endif							/* MD_TYPE_SHAPE_H */
