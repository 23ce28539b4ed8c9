/*
 * view_columns.h
 *		The columns of a result, and how a new query changes them.
 */
#ifndef MD_VIEW_COLUMNS_H
#define MD_VIEW_COLUMNS_H

#include "postgres.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

typedef struct MdColumnChange
{
	List	   *names;			/* of String: the result's columns under the new query */
	List	   *columns;		/* of ColumnDef: likewise */
	List	   *commands;		/* of AlterTableCmd, for a table without rows; NIL: none */
	Bitmapset  *lost;			/* attribute numbers that are dropped or get another type */
	List	   *layout;			/* of ColumnDef per attribute number, NULL for dropped ones */
} MdColumnChange;

/* Names (of String) and expressions of a query's columns; given names go first. */
extern void md_view_output_columns(Query *query, List *given_names, List **names, List **exprs);

/*
 * How the columns of a result must change for a query.  ERROR if they cannot,
 * or if something depends on a column that would be lost.
 */
extern MdColumnChange *md_view_columns_compare(Oid relid, Query *query);

/* Do it; the table is locked exclusively, and the values of retyped columns are lost. */
extern void md_view_columns_change(Oid relid, const MdColumnChange *change);

#endif							/* MD_VIEW_COLUMNS_H */
