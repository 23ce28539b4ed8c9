/*
 * refresh_culprit_row.h
 *		What is kept of a row that a view cannot be computed with.
 */
#ifndef MD_REFRESH_CULPRIT_ROW_H
#define MD_REFRESH_CULPRIT_ROW_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "storage/block.h"
#include "utils/snapshot.h"

#include "refresh_culprits.h"
#include "refresh_errors.h"

/* The registered relation with the row, which has all attributes of its source. */
#define MD_SUSPECTS "medallion_suspects"

/* The columns that a row is told by where it has no offset (of char *): has it a key? */
extern List *md_culprit_columns(Query *normal, Oid relid, bool *has_key);

/*
 * Of the only row in MD_SUSPECTS, which failed for a reason.  It is in these blocks
 * of its source; to is 0 if that is not known.
 */
extern MdRefreshError *md_culprit_row(Query *normal, const MdSuspects *suspects,
									  BlockNumber from, BlockNumber to,
									  const ErrorData *reason, Snapshot snapshot);

#endif							/* MD_REFRESH_CULPRIT_ROW_H */
