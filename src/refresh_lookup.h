/*
 * refresh_lookup.h
 *		What a plan looks up in the relations that it reads, and by which index.
 */
#ifndef MD_REFRESH_LOOKUP_H
#define MD_REFRESH_LOOKUP_H

#include "postgres.h"
#include "nodes/pg_list.h"

#include "refresh_plan.h"

/* Rows of a relation that are found by values of expressions. */
typedef struct MdLookup
{
	Oid			relid;
	List	   *exprs;			/* of Expr, over the relation as entry 1 */
	bool		is_range;		/* by a bound instead of values */
	bool		partial;		/* other relations have the rest of the values: there are other ways */
} MdLookup;

/* What serves a lookup. */
typedef struct MdLookupIndex
{
	char	   *by;				/* "day, customer": the expressions */
	char	   *index;			/* quoted name; NULL: there is none */
	char	   *create;			/* the statement that would make one; NULL: none can */
	char	   *why_none;		/* the reason then */
} MdLookupIndex;

/* Fill in MdNode.lookups of all scans below the root. */
extern void md_lookups_find(MdPlan *plan);

/* A lookup by columns (of int, from 1, without dropped ones). */
extern MdLookup *md_lookup_by_columns(Oid relid, List *numbers);

extern void md_lookup_find_index(const MdLookup *lookup, MdLookupIndex *found);

#endif							/* MD_REFRESH_LOOKUP_H */
