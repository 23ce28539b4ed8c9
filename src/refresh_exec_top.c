/*
 * refresh_exec_top.c
 *		The first rows by an order, kept first.
 *
 *		kept rows --the change of the input--> kept rows --OFFSET, LIMIT--> result
 *
 * The kept rows are the result itself where that shows all that it is sorted by, from
 * the first row on, and rows only come; else they are in a table beside it.  When too
 * few of them are left, the query is run again.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "refresh_cost.h"
#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_exec_merge.h"
#include "refresh_normal.h"
#include "refresh_state.h"
#include "refresh_top.h"

#define FIRST "medallion_first"

/* The table beside the result; NULL: there is none. */
static MdTarget *
kept_table(MdRefresh *refresh)
{
	return md_top_has_state(refresh->plan->top) ? md_state_target(refresh->view) : NULL;
}

/* SELECT of the kept rows as c1, c2, ... */
static char *
kept_text(MdRefresh *refresh)
{
	MdTarget   *state = kept_table(refresh);
	const MdTarget *table = state != NULL ? state : refresh->result;

	return psprintf("SELECT k.* FROM (SELECT %s FROM %s) k(%s)", md_target_columns(table, NULL, NIL), table->name,
					md_top_columns(refresh->plan->top, NULL));
}

/* Rows of a relation in the place of those that are kept and shown. */
static void
replace_rows(MdRefresh *refresh, const char *name)
{
	MdTop	   *top = refresh->plan->top;
	MdTarget   *state = kept_table(refresh);

	md_diff_apply(refresh->result, md_top_shown_text(top, name), md_refresh_unique_columns(refresh), NULL,
				  refresh->snapshot, &refresh->run);
	if (state != NULL)
	{
		MdRun		state_run = {0};
		MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_STATE);

		md_diff_apply(state, psprintf("SELECT %s FROM %s k", md_top_columns(top, "k"), name), NIL, NULL,
					  refresh->snapshot, &state_run);
		md_step_rows(&refresh->run.steps, MD_STEP_STATE, state_run.rows_inserted + state_run.rows_deleted);
		(void) md_step(&refresh->run.steps, step);
	}
}

/* The query again: a recompute, but for the tables, which stay. */
static void
read_again(MdRefresh *refresh)
{
	MdTop	   *top = refresh->plan->top;
	MdStepKind	step = md_step(&refresh->run.steps, MD_STEP_RECOMPUTE);
	char	   *name;

	/* no measure of what a change costs */
	refresh->engine->cost = NULL;
	refresh->run.strategy = "full";
	refresh->run.reason = psprintf("fewer than " INT64_FORMAT " of the first rows are left", md_top_needed(top));
	(void) md_engine_materialize(refresh->engine,
								 psprintf("SELECT k.* FROM (%s) k(%s)",
										  md_delta_text(md_state_query(refresh->engine,
																	   md_top_query(top, refresh->plan->normal), false)),
										  md_top_columns(top, NULL)),
								 &name, NULL);
	replace_rows(refresh, name);
	(void) md_step(&refresh->run.steps, step);
}

void
md_top_apply(MdRefresh *refresh)
{
	MdTop	   *top = refresh->plan->top;
	MdEngine   *engine = refresh->engine;
	MdChange	change;
	MdTopShift	shift;
	char	   *name;

	if (top->count == 0 || !md_engine_changes(engine, refresh->plan->normal))
		return;
	md_delta_linear(engine, md_block_input(refresh->plan->normal, top->exprs), &change);
	if (change.query == NULL || engine->why_full != NULL)
		return;
	shift = md_top_shift(engine, top, kept_text(refresh), &change, false, false, &name);
	if (engine->why_full != NULL)
		return;
	/* from here on it is written */
	md_cost_settle(engine);
	switch (shift)
	{
		case MD_TOP_SAME:
			break;
		case MD_TOP_SHIFTED:
			replace_rows(refresh, name);
			break;
		case MD_TOP_SHORT:
			read_again(refresh);
			break;
		case MD_TOP_LOST:
			md_engine_give_up(engine, "rows that go were not all found among those that are kept");
			break;
	}
}

void
md_top_rebuild(MdRefresh *refresh)
{
	MdPlan	   *plan = refresh->plan;
	MdTop	   *top = plan->top;
	MdTarget   *state = kept_table(refresh);
	char	   *query = md_refresh_query_text(plan->query, refresh->view->refreshed_at);
	MdNamedStore stored = {0};
	MdRun		state_run = {0};
	MdStepKind	step;

	if (state != NULL)
	{
		/* from a try that failed */
		(void) SPI_unregister_relation(FIRST);
		md_relation_read(&stored, FIRST,
						 psprintf("SELECT k.* FROM (%s) k(%s)",
								  md_refresh_query_text(md_top_query(top, plan->query), refresh->view->refreshed_at),
								  md_top_columns(top, NULL)),
						 refresh->snapshot);
		step = md_step(&refresh->run.steps, MD_STEP_STATE);
		md_diff_fill(state, psprintf("SELECT %s FROM " FIRST " k", md_top_columns(top, "k")), refresh->snapshot,
					 &state_run);
		md_step_rows(&refresh->run.steps, MD_STEP_STATE, state_run.rows_inserted);
		(void) md_step(&refresh->run.steps, step);
		query = md_top_shown_text(top, FIRST);
	}
	if (refresh->view->refresh_number == 0)
		md_diff_fill(refresh->result, query, refresh->snapshot, &refresh->run);
	else
		md_diff_apply(refresh->result, query, md_refresh_unique_columns(refresh), NULL, refresh->snapshot,
					  &refresh->run);
	if (stored.store != NULL)
		md_relation_forget(&stored);
}
