/*
 * refresh_delta.h
 *		The change of a query, from the changes of what it reads.
 *
 * A change is a bag of rows with weights: the column md_weight is +1 for a row
 * that came and -1 for one that went.  Equal rows of opposite sign cancel, and
 * need not have been taken out.
 */
#ifndef MD_REFRESH_DELTA_H
#define MD_REFRESH_DELTA_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "frontier.h"
#include "refresh_steps.h"

#define MD_WEIGHT "md_weight"

/* A source with what is new in it. */
typedef struct MdInput
{
	Oid			relid;
	MdDelta		delta;
	char	   *change;			/* registered relation of a signed change */
} MdInput;

/*
 * What the steps of one refresh share.  The caller is connected to SPI, and
 * has become the owner of the view, with its settings.
 */
typedef struct MdEngine
{
	List	   *inputs;			/* of MdInput: sources that have changed */
	Snapshot	snapshot;
	TimestampTz old_time;		/* now() of the last refresh */
	TimestampTz new_time;
	List	   *relations;		/* registered, of the engine */
	int			relation_count;
	char	   *why_full;		/* found out on the way: recompute; NULL: go on */
	MdSteps    *steps;			/* NULL: time is not kept */
	struct MdCost *cost;		/* what may be spent; NULL: anything */
} MdEngine;

extern MdEngine *md_engine_begin(List *inputs, Snapshot snapshot,
								 TimestampTz old_time, TimestampTz new_time);
extern void md_engine_end(MdEngine *engine);

/* The changes cannot be told: the first reason stands, nothing was written. */
extern void md_engine_give_up(MdEngine *engine, char *why);

/*
 * Run a query and register its rows under a new name, or find those that it has
 * given before (so nothing that it reads may change meanwhile); the number of
 * rows.  The relation is there until md_engine_end().
 */
extern int64 md_engine_materialize(MdEngine *engine, const char *sql, char **name,
								   TupleDesc *tupdesc);

/* Analyze SQL that may name registered relations. */
extern Query *md_engine_analyze(MdEngine *engine, const char *sql);

/* Has anything that the query reads changed, or now() in it moved? */
extern bool md_engine_changes(MdEngine *engine, Query *query);
extern MdInput *md_engine_input(MdEngine *engine, Oid relid);

/*
 * A set of keys: a registered relation with columns k1, k2, ..., each
 * combination once.
 */
typedef struct MdKeys
{
	char	   *name;
	TupleDesc	tupdesc;
	int64		count;
	List	   *patterns;		/* of Bitmapset: columns (from 1) that are NULL */
	bool		as_records;		/* too many of these: compare whole records */
} MdKeys;

/* A query's change: its columns, then md_weight if is_signed, else all is +1. */
typedef struct MdChange
{
	Query	   *query;			/* NULL: nothing can have changed */
	bool		is_signed;
} MdChange;

/*
 * The change of a linear query: FROM, WHERE and a target list without resjunk
 * entries; no grouping, windows, DISTINCT, ORDER BY or LIMIT.
 */
extern void md_delta_linear(MdEngine *engine, Query *linear, MdChange *change);

/* The change of any query, normalized. */
extern void md_delta_block(MdEngine *engine, Query *block, MdChange *change);

/* The values of exprs, which are over the block's FROM, that its change touches. */
extern MdKeys *md_delta_touched(MdEngine *engine, Query *block, List *exprs);

/*
 * SQL that adds up a change: its columns as c1, c2, ..., then md_weight (int8),
 * which is not zero.  Rows that are equal come together, unless `same`: then only those
 * do that are the same (md_target_equal_is_same()), since others may differ in what is
 * made of them.
 */
extern char *md_delta_net_text(Query *query, bool is_signed, bool same);

/* The same of rows with a weight, as a SELECT; exprs (of Expr) have the types of its columns. */
extern char *md_delta_net_rows(List *exprs, const char *rows, bool same);

/* The query as it is now or was, as a bag of rows. */
extern Query *md_state_query(MdEngine *engine, Query *query, bool old);

/*
 * A relation's rows: those before (with md_weight if the change is signed and
 * weights may stand, else net), or its change (with md_weight if rows went).
 */
extern Query *md_state_old_relation(MdEngine *engine, MdInput *input, bool inh, bool weighted);
extern Query *md_state_changed_relation(MdEngine *engine, MdInput *input, bool inh);

/* Run a query (any, its visible columns are the keys) into a set of keys. */
extern MdKeys *md_keys_make(MdEngine *engine, Query *query);
/* "k1, k2, ...", of an alias if there is one. */
extern char *md_keys_columns(const MdKeys *keys, const char *alias);

/*
 * The query as it is now (or was, `old`), restricted to keys: exprs (of Expr
 * over its FROM, by which it may be restricted: its group keys, say) give the
 * columns of keys in order.  Several queries (of Query) whose rows together
 * are it: one for each pattern of NULLs among the keys.
 */
extern List *md_keys_restrict(MdEngine *engine, Query *query, List *exprs, MdKeys *keys,
							  bool old);

/*
 * What is compared with a column of keys: expr with the type's own equality, or
 * with the operator of a pair, of which expr is the outer side.
 */
typedef struct MdMatch
{
	Expr	   *expr;
	int			column;
	OpExpr	   *op;				/* NULL: the type's own equality */
	bool		key_first;		/* the key is op's left argument */
} MdMatch;

/*
 * Restrict a query, in place, to rows that match keys without NULLs, down to
 * the subqueries in its FROM where that is possible.
 */
extern void md_keys_apply(MdEngine *engine, Query *query, List *matches, MdKeys *keys);

/*
 * The same for a block by columns of it (each match's expr is a Var of it), as
 * far as it can be; true if by all of them.
 */
extern bool md_keys_apply_columns(MdEngine *engine, Query *block, List *matches, MdKeys *keys);

/* Restrict the subqueries in FROM to what the rest of it can meet. */
extern void md_keys_narrow(MdEngine *engine, Query *query, int changed);

/* SQL of what the functions above have made. */
extern char *md_delta_text(Query *query);

#endif							/* MD_REFRESH_DELTA_H */
