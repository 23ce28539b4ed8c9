/*
 * stable_functions.h
 *		Whether an expression gives the same for the same row at every refresh.
 */
#ifndef MD_STABLE_FUNCTIONS_H
#define MD_STABLE_FUNCTIONS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/primnodes.h"

/* What stands in the way, if anything does. */
typedef struct MdUnstable
{
	char	   *construct;		/* "function now()"; NULL: nothing */
	char	   *why;			/* a clause that explains it */
	int			location;		/* byte offset in the query's text, or -1 */
	bool		is_time;		/* the only thing is the time of the refresh */
} MdUnstable;

/*
 * Look for the first construct in expr (not in subqueries of FROM) whose value
 * can differ from one refresh to the next; true if there is one.
 */
extern bool md_unstable_find(Node *expr, MdUnstable *found);

/* Does now() or the like stand anywhere in it, subqueries included? */
extern bool md_unstable_has_time(Node *node);

/* Replace now(), CURRENT_DATE and the like by what they are at a time. */
extern Node *md_unstable_fix_time(Node *node, TimestampTz time);

#endif							/* MD_STABLE_FUNCTIONS_H */
