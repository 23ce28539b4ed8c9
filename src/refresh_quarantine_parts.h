/*
 * refresh_quarantine_parts.h
 *		What the files refresh_quarantine*.c share.
 */
#ifndef MD_REFRESH_QUARANTINE_PARTS_H
#define MD_REFRESH_QUARANTINE_PARTS_H

#include "postgres.h"

#include "frontier.h"
#include "refresh_culprits.h"
#include "refresh_exec.h"

/* Was the last attempt one by changes alone? */
extern bool md_quarantine_is_incremental(const MdRefresh *refresh);

/* A source that the plan reads, NULL if it is none. */
extern MdSource *md_quarantine_source(const MdRefresh *refresh, Oid relid);

/* All rows of a source as suspects. */
extern MdSuspects *md_quarantine_suspects(MdSource *source);

/* Set how many rows each of the errors stands for after the refresh. */
extern void md_quarantine_count(MdRefresh *refresh, List *errors);

/*
 * Why the view must be computed anew when these rows, which an incremental attempt
 * failed by, are left out; NULL: it need not.
 */
extern char *md_quarantine_why_anew(MdRefresh *refresh, List *found);

/* Mark rows that can be computed again to be let in; all: look at all. */
extern void md_quarantine_try_again(MdRefresh *refresh, bool all);

#endif							/* MD_REFRESH_QUARANTINE_PARTS_H */
