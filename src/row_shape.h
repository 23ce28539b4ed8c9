/*
 * row_shape.h
 *		What makes a row look as it does, besides its values.
 */
#ifndef MD_ROW_SHAPE_H
#define MD_ROW_SHAPE_H

#include "postgres.h"

/*
 * A fingerprint of the names and types of a relation's columns, and of those that they are made
 * of; the same after dump and restore.  0: there is no such relation.
 */
extern int64 md_row_shape(Oid relid);

#endif							/* MD_ROW_SHAPE_H */
