/*
 * refresh_target.h
 *		A table that a refresh writes: its columns as pieces of SQL.
 */
#ifndef MD_REFRESH_TARGET_H
#define MD_REFRESH_TARGET_H

#include "postgres.h"
#include "access/attnum.h"
#include "nodes/pg_list.h"

typedef struct MdTargetColumn
{
	AttrNumber	attnum;
	char	   *name;			/* quoted */
	char	   *type;			/* qualified, with modifier */
	Oid			type_id;
	bool		comparable;		/* else its text is compared */
	bool		same;			/* equal values are the same */
} MdTargetColumn;

typedef struct MdTarget
{
	Oid			relid;
	char	   *name;			/* qualified and quoted */
	int			count;
	MdTargetColumn *columns;
	List	   *index_keys;		/* of an index that may turn out too small: see md_upsert_try(); NIL: none */
	bool		by_row;			/* rows are replaced as a whole, whatever their key */
} MdTarget;

extern MdTarget *md_target_make(Oid relid);

/* Can values of the type be grouped and joined by equality? */
extern bool md_target_is_comparable(Oid type);

/* Are equal values of the type the same?  Those of numeric are not: 1.0 and 1.00. */
extern bool md_target_equal_is_same(Oid type, Oid collation);

/*
 * Comma-separated: "a.x, a.y"; alias may be NULL.  `numbers` (of int, from 1)
 * picks columns; NIL: all.  The second spells columns so that they compare, the
 * third names them c1, c2, ... after an alias.
 */
extern char *md_target_columns(const MdTarget *target, const char *alias, List *numbers);
extern char *md_target_comparable(const MdTarget *target, const char *alias, List *numbers);
extern char *md_target_numbered(const MdTarget *target, const char *alias, List *numbers);

/* Columns c1, c2, ... spelled so that they compare. */
extern char *md_target_numbered_comparable(const MdTarget *target, const char *alias,
										   List *numbers);

/*
 * All columns, or c1, c2, ..., and the texts of some: in groups by these, rows are
 * the same, and whatever is made of them.
 */
extern char *md_target_same(const MdTarget *target, const char *alias, bool numbered);

/* Column numbers (from 1) of the given attributes, and all but some. */
extern List *md_target_numbers(const MdTarget *target, int count, const AttrNumber *attnums);
extern List *md_target_others(const MdTarget *target, List *numbers);

/* "a = n.c1, b = n.c2" of columns of these numbers, for an UPDATE. */
extern char *md_target_assignments(const MdTarget *target, List *numbers);

#endif							/* MD_REFRESH_TARGET_H */
