/*
 * refresh_plan.h
 *		How a query can be refreshed: a tree of nodes, each with a strategy.
 *
 *	   query text --analyze--> Query --md_plan_make--> MdPlan
 *
 * A node takes the changes of its inputs and hands changes of its own output
 * up.  A change is rows with a sign; an output of kind `append` only ever
 * gains rows.  A node that cannot has a reason, and the whole is recomputed.
 */
#ifndef MD_REFRESH_PLAN_H
#define MD_REFRESH_PLAN_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "parser/parser.h"

#include "refresh_merge.h"
#include "refresh_read.h"

typedef enum MdStrategy
{
	MD_STRATEGY_APPEND,			/* rows come, and are inserted */
	MD_STRATEGY_JOIN,			/* rows come and go, one by one */
	MD_STRATEGY_MERGE,
	MD_STRATEGY_REGROUP,		/* rows of touched keys are computed again */
	MD_STRATEGY_WINDOW,			/* likewise, of whole partitions */
	MD_STRATEGY_LATEST,
	MD_STRATEGY_TOP,			/* the first rows by an order are kept first */
	MD_STRATEGY_FULL
} MdStrategy;

extern const char *md_strategy_name(MdStrategy strategy);

typedef enum MdNodeKind
{
	MD_NODE_SCAN,
	MD_NODE_MAP,				/* filter, project, expand */
	MD_NODE_UNION_ALL,
	MD_NODE_AGGREGATE,
	MD_NODE_LATEST,
	MD_NODE_OTHER
} MdNodeKind;

typedef struct MdNode
{
	MdNodeKind	kind;
	char	   *label;			/* what explain_refresh() shows */
	MdStrategy	strategy;
	MdChangeKind changes;		/* of the output */
	char	   *state;			/* what is kept beside the result; NULL: nothing */
	char	   *note;			/* what else is to be said; NULL: nothing */
	char	   *reason;			/* why only full; NULL: it is not */
	bool		by_whole;		/* it is that its rows depend on all of its input */
	int			location;		/* of the construct in the query's text, or -1 */
	List	   *children;		/* of MdNode */
	Query	   *query;			/* of a block, or of what is linear in one */
	struct MdLeaf *leaf;		/* what it is of the linear query above; NULL: none */
	List	   *lookups;		/* of MdLookup, of a scan: see refresh_lookup.h */
} MdNode;

typedef struct MdPlan
{
	Query	   *query;			/* plain views inlined */
	MdNode	   *root;
	MdStrategy	strategy;
	MdChangeKind changes;		/* of the result */
	char	   *reason;			/* why full; NULL otherwise */
	int			location;
	bool		time_dependent; /* reads the time of the refresh */
	bool		repeatable;		/* no volatile function: verify() is exact */
	List	   *source_ids;		/* of Oid: relations that are read, each once */
	List	   *inlined_ids;	/* of Oid: plain views that were inlined */
	List	   *shown_types;	/* of Oid: composite types and enums of values that are read; see type_shape.h */
	Query	   *normal;			/* the query in blocks */
	List	   *keys;			/* of the top block, over its FROM; NIL: none */
	List	   *key_columns;	/* of int: the columns that show them; NIL: not all are */
	bool		keys_unique;	/* one row of the result per key */
	MdMerge    *merge;			/* strategy merge only */
	MdLatest   *latest;			/* strategy latest only */
	struct MdTop *top;			/* strategy top only */
} MdPlan;

/*
 * Analyze a query's text as the current user under the current search_path.
 * Errors are those of the parser, with their position.
 */
extern Query *md_query_analyze(const char *text);

/* Parse a text that is part of a statement, with positions in the text. */
extern List *md_query_parse(const char *text, RawParseMode mode);

/* The query of a relation in medallion_def. */
extern Query *md_query_of_definition(Oid definition);

/* ERROR if a view cannot be made of the query at all, at refresh_mode full. */
extern void md_query_check(Query *query, const char *text);

/* The query as SQL that means the same under any search_path. */
extern char *md_query_text(Query *query);

/*
 * Make a plan, for a view owned by `owner`.  The query is not changed.
 */
extern MdPlan *md_plan_make(Query *query, Oid owner);

/* The same with parts (of MdPart) read in the place of sources. */
extern MdPlan *md_plan_make_over(Query *query, Oid owner, List *parts);

/* refresh_plan_keep.c */

/*
 * Find what can be kept so that the top block takes in a change by itself.  sets
 * (NULL: none): a node that does in one what the root does for each grouping set; it
 * takes the root's place if it can merge.
 */
extern void md_plan_keep(MdPlan *plan, MdNode *sets);

/*
 * Does the time of the refresh stand in what a block shows, or shows groups by?  Groups then
 * move though no row came or left.  In a condition it makes rows pass, and they are a change
 * like others.
 */
extern bool md_plan_values_move(const Query *query);

/* refresh_plan_above.c */

/*
 * Groups that can be kept, where the query makes something of all of them: NULL if there
 * are none, else *groups is the node of them.
 */
extern MdMerge *md_plan_keep_groups(MdPlan *plan, MdNode **groups);

/* "1 key", "2 keys" */
extern char *md_plan_key_count(int count);

/* Fill in what the plan's query reads, and whether it gives the same again. */
extern void md_plan_note_sources(MdPlan *plan, Oid owner);

/* "(a JOIN b ...) AS j": is j meant as a row? What is put in its place has no names. */
extern bool md_plan_has_join_row(Query *query, int *location);

/* Is there a ctid or the like? What stands for a part of a table has none. */
extern bool md_plan_has_system_column(Query *query, int *location);

#endif							/* MD_REFRESH_PLAN_H */
