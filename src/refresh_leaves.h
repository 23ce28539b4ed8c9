/*
 * refresh_leaves.h
 *		The inputs of a linear query, and how each stands in it.
 *
 * A linear position: the query's rows are the sum of those of each row of the
 * input (inner joins, the preserved side of an outer join).  Elsewhere (the
 * nullable side, subqueries in expressions, lateral subqueries with references
 * outwards) a pair of expressions is looked for, outer over the rest of the
 * query and inner over the input, such that a row of the input matters only to
 * rows where they are equal.
 */
#ifndef MD_REFRESH_LEAVES_H
#define MD_REFRESH_LEAVES_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

typedef enum MdLeafKind
{
	MD_LEAF_ENTRY,				/* of the range table */
	MD_LEAF_SUBLINK,			/* subquery in an expression */
	MD_LEAF_TIME				/* a condition of WHERE that moves with now() */
} MdLeafKind;

/* Where a leaf's rows meet the rest. */
typedef enum MdLeafPlace
{
	MD_PLACE_LINEAR,
	MD_PLACE_NULLABLE,			/* right of LEFT JOIN: inner is over the entry */
	MD_PLACE_UNKEYED,			/* the same without a pair */
	MD_PLACE_FULL,				/* either side of FULL JOIN: likewise */
	MD_PLACE_CORRELATED,		/* inner is over FROM of the query `at` */
	MD_PLACE_UNEQUAL,			/* the same without a pair: by other conditions of `at` */
	MD_PLACE_IN,				/* inner is a column of the subquery */
	MD_PLACE_WHOLE				/* no pair: any change may change everything */
} MdLeafPlace;

typedef struct MdPair
{
	Expr	   *outer;			/* of the level of the linear query */
	Expr	   *inner;
	int			column;			/* MD_PLACE_IN */
	OpExpr	   *op;
	bool		outer_first;	/* the operator's left argument */
} MdPair;

typedef struct MdLeaf
{
	MdLeafKind	kind;
	MdLeafPlace place;
	int			rt_index;		/* of an entry */
	int			partner;		/* the other side of a FULL JOIN */
	int			number;			/* of a subquery or condition, from 0 */
	Oid			relid;			/* of a relation */
	Query	   *query;			/* of a subquery */
	Query	   *at;				/* MD_PLACE_CORRELATED, _UNEQUAL: in or equal to query */
	int			depth;			/* of `at` below the linear query */
	List	   *pairs;			/* of MdPair */
	List	   *columns;		/* MD_PLACE_UNEQUAL: of `at`, in those conditions (of Var) */
	bool		null_matters;	/* MD_PLACE_IN: NULL and false differ */
	char	   *why_whole;		/* MD_PLACE_WHOLE */
	int			location;
} MdLeaf;

/* Inputs of a normalized linear query, in an order that copies of it share. */
extern List *md_leaves(Query *linear);

/* Subqueries in expressions of a linear query, in that order (of SubLink). */
extern List *md_leaves_sublinks(Query *linear);

/* An equality that a hash or a merge join could use, of plain expressions. */
extern bool md_is_equality(Node *term);

/* The operator of a pair with the inner or the outer side replaced. */
extern Expr *md_pair_with_inner(MdPair *pair, Expr *inner);
extern Expr *md_pair_with_outer(MdPair *pair, Expr *outer);

/*
 * The rows of a correlated subquery before all else, as a linear query of the
 * inner sides of its pairs, or of its columns; NULL if it depends on more.
 */
extern Query *md_leaf_inner_query(MdLeaf *leaf);

/* Terms of WHERE by which a subquery depends on the query around it. */
extern List *md_leaf_outer_terms(Query *at);

#endif							/* MD_REFRESH_LEAVES_H */
