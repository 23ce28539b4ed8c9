/*
 * refresh_probe.h
 *		Trying whether a part of a query can be computed with some rows.
 */
#ifndef MD_REFRESH_PROBE_H
#define MD_REFRESH_PROBE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

#include "refresh_read.h"

/*
 * A place of a relation in a block of a query, such that the rows of the block
 * before grouping and the like are a sum over the relation's rows.
 */
typedef struct MdProbe
{
	Query	   *block;
	int			place;			/* among such places of any of relids in the block */
	List	   *relids;
	int			entry;			/* of the block's FROM that the place is in */
	bool		is_joined;		/* the block has other entries */
	Oid			relid;
} MdProbe;

/* All places of the relations in a normalized query, inner blocks first (of MdProbe). */
extern List *md_probes(Query *normal, List *relids);

/*
 * SQL that computes all that the block computes of the rows of `rows` (which
 * stands for the relation in its place) and all other rows; `others` are read in
 * the place of other relations.
 */
extern char *md_probe_text(const MdProbe *probe, const MdPart *rows, List *others,
						   TimestampTz time);

/*
 * SQL that computes what in the block's expressions and conditions depends on the
 * entry alone, guarded or not; NULL if there is no such thing.
 */
extern char *md_probe_own_text(const MdProbe *probe, const MdPart *rows, TimestampTz time);

#endif							/* MD_REFRESH_PROBE_H */
