/*
 * refresh_part.h
 *		Recomputing the rows of a view that a condition selects, and no others.
 */
#ifndef MD_REFRESH_PART_H
#define MD_REFRESH_PART_H

#include "refresh_exec.h"

/*
 * Overwrite the rows for which only_where holds with those of the query as of
 * the stored frontier: what is newer comes with the next refresh.
 */
extern void md_part_apply(MdRefresh *refresh, const char *only_where);

#endif							/* MD_REFRESH_PART_H */
