/*
 * refresh_analyze.c
 *		Statistics of what refreshes write.
 *
 * A result and its state are filled in one transaction and joined in the next,
 * seconds later, long before autovacuum comes by; without statistics of its keys
 * a merge into millions of groups is planned as one into 200.  So the refresh
 * itself analyzes a table that has none, or is four times as large as when its size was
 * last noted, which happens log(n) times while it grows; the rest is left to autovacuum.
 *
 * It happens in the transaction of the refresh, which sees the rows that it has
 * written.  ANALYZE needs a lock that VACUUM, CREATE INDEX CONCURRENTLY and another
 * ANALYZE hold, and readers and writers do not.  A refresh never waits for it: who
 * holds it is about to leave statistics, or the next refresh tries again.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "refresh_analyze.h"
#include "refresh_read.h"

/* What is smaller (64 kB) is planned well enough by its size. */
#define MIN_PAGES 8

/* Statistics of a table are good until it is so many times as large. */
#define GROWTH 4

/* Has any column statistics? */
static bool
has_statistics(Relation rel)
{
	for (int attno = 1; attno <= RelationGetNumberOfAttributes(rel); attno++)
		if (SearchSysCacheExists3(STATRELATTINH, ObjectIdGetDatum(RelationGetRelid(rel)),
								  Int16GetDatum(attno), BoolGetDatum(false)))
			return true;
	return false;
}

/* Statistics that nobody wants (ALTER COLUMN SET STATISTICS 0) are not asked for again. */
static bool
was_analyzed(Oid relid)
{
	PgStat_StatTabEntry *entry = pgstat_fetch_stat_tabentry(relid);

	return entry != NULL && entry->analyze_count > 0;
}

static bool
needs_analyze(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	bool		needs = pages >= MIN_PAGES &&
		(pages / GROWTH >= (BlockNumber) Max(rel->rd_rel->relpages, 0) ||
		 (!has_statistics(rel) && !was_analyzed(relid)));

	table_close(rel, NoLock);
	return needs;
}

static void
analyze(Oid relid)
{
	char	   *sql = psprintf("ANALYZE %s", md_read_relation_name(relid));
	int			code = SPI_execute(sql, false, 0);

	if (code != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(code));
}

void
md_analyze_view(const MdView *view, MdSteps *steps)
{
	List	   *relids = lcons_oid(view->relid, list_copy(view->state_tables));
	MdStepKind	step;
	int			nest_level;
	ListCell   *lc;

	foreach(lc, relids)
	{
		if (!needs_analyze(lfirst_oid(lc)) ||
			!ConditionalLockRelationOid(lfirst_oid(lc), ShareUpdateExclusiveLock))
			continue;
		step = md_step(steps, MD_STEP_ANALYZE);
		nest_level = NewGUCNestLevel();
		/* pauses are for work that nobody waits for */
		(void) set_config_option("vacuum_cost_delay", "0", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		analyze(lfirst_oid(lc));
		AtEOXact_GUC(false, nest_level);
		(void) md_step(steps, step);
	}
}
