/*
 * refresh_merge.h
 *		What strategies merge and latest need to know of a query.
 *
 * Both take the change of a linear query, the input: the FROM and WHERE of the
 * view's query with a target list i1, i2, ... of what is wanted of each row.
 * A merge makes partial aggregates of it by group, and combines them with those
 * that it keeps; latest picks the first row of each key.
 *
 * An input that loses rows too (is_signed) has one more column md_weight, +1 or
 * -1.
 */
#ifndef MD_REFRESH_MERGE_H
#define MD_REFRESH_MERGE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

/* How a column of a merge target takes in a change. */
typedef enum MdCombine
{
	MD_COMBINE_KEY,				/* group key: identifies the row */
	MD_COMBINE_ADD,				/* old + new */
	MD_COMBINE_LEAST,
	MD_COMBINE_GREATEST,
	MD_COMBINE_AND,
	MD_COMBINE_OR,
	MD_COMBINE_MOMENTS			/* of floats: by a function of Postgres */
} MdCombine;

/* A column of the target. */
typedef struct MdMergeColumn
{
	Expr	   *expr;			/* Var (1, n) of the input, or an Aggref over such */
	MdCombine	combine;
	bool		or_zero;		/* 0 where the aggregate of no rows is NULL */
	bool		inexact;		/* what was added cannot be taken away again */
	bool		may_vanish;		/* a sum that is NULL when its last value leaves, before the group does */
	int			value_set;		/* > 0: made of values that came or went */
} MdMergeColumn;

/*
 * The distinct values of a DISTINCT aggregate, kept in a table of their own with
 * the group's keys: key1, key2, ..., value, and with a signed input, copies.
 */
typedef struct MdValueSet
{
	int			value;			/* column of the input */
	int			filter;			/* likewise, boolean; 0: none */
} MdValueSet;

/*
 * A merge.  Its target is the result itself when each column of that is a key
 * or a partial result, and no key is missing; else a state table from which the
 * result's columns are computed.
 */
typedef struct MdMerge
{
	bool		is_signed;
	List	   *inputs;			/* of Expr over the FROM of the query */
	bool		needs_state;
	List	   *columns;		/* of MdMergeColumn, in the order of the target */
	int			key_count;
	List	   *sets;			/* of int, the grouping sets: see refresh_plan_sets.c; NIL: one by all keys */
	int			count_column;	/* count(*), if signed and there are keys; else 0 */
	List	   *value_sets;		/* of MdValueSet */
	/* with a state table */
	List	   *finals;			/* of Expr over Vars (1, n) of its columns */
	Node	   *having;			/* likewise, or NULL */
	List	   *result_keys;	/* of int: column of the result per key of the query; NIL: not all there */
	Query	   *query;			/* whose groups these are */
	Query	   *above;			/* over MD_KEPT_GROUPS: what the result shows of them; NULL: themselves */
} MdMerge;

/* The groups, in a query above them: a WITH query with their columns. */
#define MD_KEPT_GROUPS "medallion_groups"

/*
 * Split an aggregate query into inputs, partial results and final expressions;
 * NULL with *reason, *location if it cannot merge.  is_signed: rows may leave its
 * FROM.  above: what is made of its groups; NULL: the result shows them.
 */
extern MdMerge *md_merge_make(Query *query, bool is_signed, Query *above, char **reason,
							  int *location);

/* Numbers of the key columns of the target. */
extern List *md_merge_keys(const MdMerge *merge);

/*
 * Columns of the result that identify a row under the plan, or with grouping sets
 * the few rows of a key; NIL: none.
 */
extern List *md_merge_result_keys(const MdMerge *merge);

/* refresh_plan_sets.c */

/* Number of keys that the query groups by: all but the number of the set. */
extern int	md_sets_own_keys(const MdMerge *merge);

/* Is key (from 1) one of the set's? */
extern bool md_sets_has_key(const MdMerge *merge, int set, int key);

/* The same as SQL, of a set that is given as SQL. */
extern char *md_sets_having_key(const MdMerge *merge, const char *set, int key);

/* The sets, equal ones once: "(0), (1), (3)". */
extern List *md_sets_distinct(const MdMerge *merge);
extern char *md_sets_values(const MdMerge *merge);

/* "CASE set WHEN 3 THEN 2 ELSE 1 END": how often a set is there; NULL: each once. */
extern char *md_sets_copies(const MdMerge *merge, const char *set);

/* The number of the empty set, whose row is always there; -1: there is none. */
extern int	md_sets_empty(const MdMerge *merge);

/* GROUP BY of all sets, for a target list that begins with the keys. */
extern List *md_sets_clause(const MdMerge *merge);

/*
 * The first row of each key: DISTINCT ON.  Inputs are the columns of the result, in
 * order, then expressions of ORDER BY that it does not show.
 */
typedef struct MdLatest
{
	bool		is_signed;
	List	   *inputs;			/* of Expr over the FROM of the query */
	int			result_count;	/* this many of them are the result's columns */
	List	   *keys;			/* of int: columns of the result */
	List	   *order;			/* of MdOrder, after the keys */
} MdLatest;

/*
 * Analyze a DISTINCT ON query, and make its order total by the columns of the
 * result; NULL with *reason, *location if the first rows cannot be kept.
 */
extern MdLatest *md_latest_make(Query *query, bool is_signed, char **reason, int *location);

/*
 * SELECT ... FROM (SELECT ..., row_number() OVER (PARTITION BY k ORDER BY o) AS n ...)
 * WHERE n = 1 as DISTINCT ON; NULL if the query is none.
 */
extern Query *md_latest_rewrite(Query *query);

/* refresh_plan_split.c */

typedef struct MdSplitter
{
	MdMerge    *merge;
	Query	   *query;
	char	   *reason;			/* NULL: can be split so far */
	int			location;
} MdSplitter;

extern void md_split_refuse(MdSplitter *splitter, char *reason, int location);

/* A column of the input for an expression over the FROM. */
extern Var *md_split_input(MdSplitter *splitter, Expr *expr);

/* The final expression of an aggregate, over columns of the state table. */
extern Node *md_split_aggregate(MdSplitter *splitter, Aggref *agg);

/*
 * The column that is the aggregate, if it needs no final expression; NULL if it
 * does.
 */
extern MdMergeColumn *md_split_plain(MdSplitter *splitter, Aggref *agg);

/* Values of the type can be compared and indexed. */
extern bool md_split_orderable(Oid type);

/* refresh_plan_sets.c: add the column that tells sets apart, after the other keys. */
extern void md_sets_split(MdSplitter *splitter, List *groups);

/* GROUPING() of some keys, over columns of the state table. */
extern Node *md_sets_split_grouping(MdSplitter *splitter, GroupingFunc *grouping);

/* refresh_partial.c */

/* What the partial aggregates are made of. */
typedef struct MdPartialSource
{
	Query	   *rows;			/* the input's rows; NULL: `relation` */
	const char *relation;		/* with the same columns */
	bool		is_signed;		/* has md_weight */
} MdPartialSource;

/* The input as a query: i1, i2, ... of the query's FROM and WHERE. */
extern Query *md_partial_input(const MdMerge *merge);
extern Query *md_partial_linear(Query *query, List *exprs);

/* A SELECT of nothing yet FROM rows with columns i1, i2, ... of these types. */
extern Query *md_partial_from(List *inputs, const MdPartialSource *source);

/* SELECT of the rows: i1, i2, ... and md_weight. */
extern char *md_partial_rows_text(List *inputs, const MdPartialSource *source);

/* Is there m<n> for the column? */
extern bool md_partial_asks(const MdMergeColumn *column);

/*
 * "SELECT ... AS c1, ... GROUP BY ...": keys and partial aggregates of the rows.
 * Of a signed source c<n> is the balance, or the extreme of the rows that came, and
 * there is m<n> where rows that left may ask for more: the extreme of those, or
 * whether there was any.  with_values: value sets by their aggregates, else NULL.
 */
extern char *md_partial_text(const MdMerge *merge, const MdPartialSource *source,
							 bool with_values);

/* The same of one grouping set, with value sets by their aggregates. */
extern char *md_partial_set_text(const MdMerge *merge, const MdPartialSource *source, int set);

#endif							/* MD_REFRESH_MERGE_H */
