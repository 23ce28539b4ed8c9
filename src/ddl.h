/*
 * ddl.h
 *		Doors of DDL: the utility hook and the drop hook, and what they call.
 *
 * A handler looks at one utility statement.  It returns false to leave it to
 * the next one and finally to core; or it does the whole work, with
 * md_utility_next() for the part of it that is core's, and returns true.
 * pstmt is a copy that the handler may change.
 */
#ifndef MD_DDL_H
#define MD_DDL_H

#include "postgres.h"
#include "tcop/utility.h"

typedef struct MdUtility
{
	PlannedStmt *pstmt;
	const char *query_string;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *query_env;
	DestReceiver *dest;
	QueryCompletion *completion;
} MdUtility;

/* Run the statement as it now is in u->pstmt through the next hook or core. */
extern void md_utility_next(MdUtility *u);

/* Handlers; the extension exists in this database when they are called. */
extern bool md_stream_utility(MdUtility *u);
extern bool md_view_utility(MdUtility *u);

/*
 * A relation is being dropped (its catalog rows are still there).  Cheap for
 * relations that are not ours.
 */
extern void md_stream_relation_dropped(Oid relid);
extern void md_stream_mapping_dropped(Oid mapping_id);
extern void md_view_relation_dropped(Oid relid);

extern void md_ddl_install_hooks(void);

#endif							/* MD_DDL_H */
