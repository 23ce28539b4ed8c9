/*
 * refresh_cost.c
 *		Whether a change is so large that recomputing is cheaper.
 *
 * Work per changed row is a few times that per row of a query over everything, so
 * beyond some share of the sources a recompute wins.  Where that is depends on the
 * query: an aggregate of an aggregate is worse off with 2 % than a filter with half.
 *
 *		change	< 1/40 of each source	->	incremental: a refresh costs the change
 *				  else measured			->	by what both have taken in this view
 *				  else					->	by rows, then by the planner
 *
 * Measured means: a recompute of a result that was there, and a change between a
 * fourth and four times as large, both scaled by rows.  One refresh that was slow for
 * other reasons must not decide for ever, so after RETRY_AFTER recomputes the measure
 * of the change is forgotten.
 *
 * By rows: a recompute reads the sources, and compares result and state with what they
 * were; the change is read, and costs lookups and writes by its strategy (weight_of).
 *
 * The planner knows what rows do not tell, the cost of the query itself.  It is asked
 * while the change is computed, where the numbers of rows on the way are exact, since
 * they have been materialized; before anything is written a refresh can still give up.
 * It is wrong by a factor of three easily, and by more where few rows meet many: so it
 * decides only where the difference is greater, and the change not small against all
 * sources together.
 *
 * What was chosen is measured, and alike changes get the same choice.
 *
 * refresh_mode incremental never comes here, and small tables do not matter.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "nodes/plannodes.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "refresh_cost.h"
#include "sql_run.h"

/* Sources with fewer rows in all are not thought about. */
#define MIN_SOURCE_ROWS 10000

/* A change of less than 1/this of each source is small. */
#define SMALL_SHARE 40

/* A measured change of up to this times as many or as few rows is like this one. */
#define LIKE_FACTOR 4

/* How much dearer than a recompute the change must be. */
#define MARGIN 1.5
#define PLANNED_MARGIN 5.0

#define RETRY_AFTER 20

/* What one refresh may spend. */
typedef struct MdCost
{
	MdRefresh  *refresh;
	double		changed;		/* rows */
	double		total;			/* rows of all sources */
	double		went;			/* of the changed ones; the others came */
	bool		by_planner;
	double		query_cost;		/* of the whole query, by the planner; 0: not asked yet */
} MdCost;

/*
 * About how many rows a relation has, its children included: by its size, or by the
 * counters of writes if these say more.  Rather too many than too few: what is taken
 * for large against the source is recomputed.
 */
static double
relation_rows(Oid relid)
{
	double		rows = 0;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);
		BlockNumber pages;
		double		tuples = 0;
		double		visible;

		if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
			estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
		rows += Max(tuples, md_counted_rows(lfirst_oid(lc)));
		table_close(rel, NoLock);
	}
	return rows;
}

static double
source_rows(const MdRefresh *refresh)
{
	double		rows = 0;
	ListCell   *lc;

	foreach(lc, refresh->plan->source_ids)
		rows += relation_rows(lfirst_oid(lc));
	return rows;
}

/* Rows that came and went in an input, those left out that did both. */
static void
count_net(MdRefresh *refresh, MdInput *input, double *came, double *went)
{
	Query	   *change;

	*came = (double) input->delta.rows;
	*went = 0;
	if (input->change == NULL || input->delta.only_came)
		return;
	change = md_state_changed_relation(refresh->engine, input, true);
	md_sql_run(psprintf("SELECT pg_catalog.sum(n." MD_WEIGHT ") FILTER (WHERE n." MD_WEIGHT " > 0)::pg_catalog.int8,"
						" pg_catalog.sum(- n." MD_WEIGHT ") FILTER (WHERE n." MD_WEIGHT " < 0)::pg_catalog.int8"
						" FROM (%s) n", md_delta_net_text(change, true, false)), NULL, refresh->snapshot);
	*came = (double) md_sql_int64(0, 1);
	*went = (double) md_sql_int64(0, 2);
}

static bool
is_large(double changed, double rows)
{
	return changed * SMALL_SHARE > rows;
}

/* The change against the whole; NULL if it is small, or not known. */
static MdCost *
weigh(MdRefresh *refresh, List *inputs)
{
	MdCost	   *cost = palloc0(sizeof(MdCost));
	double	   *rows = palloc(sizeof(double) * Max(1, list_length(inputs)));
	bool		large = false;

	/* what is small with all that happened is small */
	for (int i = 0; i < list_length(inputs); i++)
	{
		MdInput    *input = list_nth(inputs, i);

		if (input->delta.rows < 0)
			return NULL;
		rows[i] = relation_rows(input->relid);
		cost->total += rows[i];
		large = large || is_large((double) input->delta.rows, rows[i]);
	}
	if (!large || cost->total < MIN_SOURCE_ROWS)
		return NULL;
	large = false;
	for (int i = 0; i < list_length(inputs); i++)
	{
		double		came;
		double		went;

		count_net(refresh, list_nth(inputs, i), &came, &went);
		cost->changed += came + went;
		cost->went += went;
		large = large || is_large(came + went, rows[i]);
	}
	cost->refresh = refresh;
	return large ? cost : NULL;
}

/*
 * What a row that came or went costs, roughly, against reading one: it is looked up
 * and written; one that goes must be found, and takes others of its key along.
 */
static double
weight_of(MdStrategy strategy, bool went)
{
	switch (strategy)
	{
		case MD_STRATEGY_MERGE:
			return went ? 3 : 1;
		case MD_STRATEGY_LATEST:
			return went ? 5 : 1;
		case MD_STRATEGY_JOIN:
			return went ? 9 : 1;
		case MD_STRATEGY_TOP:
			return 1;
		case MD_STRATEGY_REGROUP:
			return 2;
		default:
			return 5;
	}
}

/* The change against a recompute, by rows. */
static double
ratio_by_rows(const MdCost *cost)
{
	const MdView *view = cost->refresh->view;
	MdStrategy	strategy = cost->refresh->plan->strategy;
	double		kept = relation_rows(view->relid);
	ListCell   *lc;

	foreach(lc, view->state_tables)
		kept += relation_rows(lfirst_oid(lc));
	return (weight_of(strategy, false) * (cost->changed - cost->went) +
			weight_of(strategy, true) * cost->went) / (cost->total + 2 * kept);
}

/* ----------------------------------------------------------------------
 * By what it took before
 * ---------------------------------------------------------------------- */

static bool
is_measured(const MdViewCost *kept, double changed)
{
	return kept->recompute_ms > 0 && kept->recompute_rows > 0 && kept->change_ms > 0 &&
		kept->change_rows <= changed * LIKE_FACTOR && changed <= kept->change_rows * LIKE_FACTOR;
}

/* "500 changed rows against 1000 rows of the sources: estimated 2.1x of recomputing" */
static char *
reason_text(const MdCost *cost, double ratio)
{
	return psprintf("%.0f changed rows against %.0f rows of the sources: estimated %.1fx of recomputing",
					cost->changed, cost->total, ratio);
}

void
md_cost_begin(MdRefresh *refresh, List *inputs)
{
	MdViewCost *kept = &refresh->view->cost;
	MdCost	   *cost;
	double		change_ms;
	double		recompute_ms;
	double		ratio;

	/* rows that only come are never recomputed: that would rewrite them for readers */
	if (refresh->view->mode != MD_MODE_AUTO || refresh->plan->strategy == MD_STRATEGY_APPEND)
		return;
	refresh->engine->cost = cost = weigh(refresh, inputs);
	if (cost == NULL)
		return;
	if (!is_measured(kept, cost->changed))
	{
		ratio = ratio_by_rows(cost);
		if (ratio > MARGIN)
			md_engine_give_up(refresh->engine, psprintf("%s (by rows)", reason_text(cost, ratio)));
		/* its guesses at rows of small changes are worth nothing */
		cost->by_planner = cost->changed * SMALL_SHARE > cost->total;
		return;
	}
	change_ms = kept->change_ms * cost->changed / kept->change_rows;
	recompute_ms = kept->recompute_ms * cost->total / kept->recompute_rows;
	if (change_ms > recompute_ms * MARGIN)
		md_engine_give_up(refresh->engine,
						  psprintf("%s (%.0f ms against %.0f ms, by the last ones)",
								   reason_text(cost, change_ms / recompute_ms),
								   change_ms, recompute_ms));
}

/* ----------------------------------------------------------------------
 * By the planner
 * ---------------------------------------------------------------------- */

static double
planned_cost(const char *sql)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	CachedPlan *cached;
	double		cost = 0;
	ListCell   *lc;

	if (plan == NULL)
		elog(ERROR, "could not plan \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	cached = SPI_plan_get_cached_plan(plan);
	if (cached != NULL)
	{
		foreach(lc, cached->stmt_list)
			cost += lfirst_node(PlannedStmt, lc)->planTree->total_cost;
		/* a plan that is not saved has no owner */
		ReleaseCachedPlan(cached, NULL);
	}
	SPI_freeplan(plan);
	return cost;
}

bool
md_cost_affords(MdEngine *engine, const char *sql)
{
	MdCost	   *cost = engine->cost;
	double		ratio;

	if (engine->why_full != NULL)
		return false;
	if (cost == NULL || !cost->by_planner)
		return true;
	if (cost->query_cost == 0)
		cost->query_cost = Max(planned_cost(md_refresh_query_text(cost->refresh->plan->query,
																  cost->refresh->view->refreshed_at)), 1);
	ratio = planned_cost(sql) / cost->query_cost;
	if (ratio <= PLANNED_MARGIN)
		return true;
	md_engine_give_up(engine, psprintf("%s (by the planner)", reason_text(cost, ratio)));
	return false;
}

void
md_cost_settle(MdEngine *engine)
{
	if (engine->cost != NULL)
		engine->cost->by_planner = false;
}

/* ----------------------------------------------------------------------
 * What it took
 * ---------------------------------------------------------------------- */

void
md_cost_note_change(MdRefresh *refresh, double ms)
{
	MdViewCost *kept = &refresh->view->cost;
	MdCost	   *cost = refresh->engine->cost;

	if (cost == NULL)
		return;
	/* like the last one: the mean of both, row by row */
	if (is_measured(kept, cost->changed))
		ms = (ms + kept->change_ms * cost->changed / kept->change_rows) / 2;
	kept->change_ms = ms;
	kept->change_rows = cost->changed;
	kept->recomputes = 0;
}

void
md_cost_note_recompute(MdRefresh *refresh, double ms)
{
	MdViewCost *kept = &refresh->view->cost;

	/* a first fill compares nothing */
	if (refresh->view->refresh_number == 0)
		return;
	kept->recompute_ms = ms;
	kept->recompute_rows = source_rows(refresh);
	if (++kept->recomputes >= RETRY_AFTER)
		kept->change_ms = kept->change_rows = 0;
}
