/*
 * refresh_steps.c
 *		What a refresh does with its time.
 *
 * One step is on at any time, so that the times of all add up to that of the
 * refresh.  What runs inside another step takes the clock over and gives it back:
 *
 *		plan | find changes | compute ... | find keys | ... compute | apply
 *
 * A step that is on several times is shown once, so a refresh has at most as many
 * entries as there are kinds, whatever it does.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "refresh_steps.h"

static const char *const step_names[MD_STEP_COUNT] = {
	[MD_STEP_PLAN] = "plan",
	[MD_STEP_FIND] = "find changes",
	[MD_STEP_KEYS] = "find keys",
	[MD_STEP_COMPUTE] = "compute change",
	[MD_STEP_RECOMPUTE] = "recompute",
	[MD_STEP_STATE] = "update state",
	[MD_STEP_APPLY] = "apply",
	[MD_STEP_INDEX] = "build indexes",
	[MD_STEP_ANALYZE] = "analyze",
	[MD_STEP_STORE] = "store frontier",
	[MD_STEP_PRUNE] = "prune log",
};

void
md_steps_begin(MdSteps *steps)
{
	memset(steps, 0, sizeof(*steps));
	for (int kind = 0; kind < MD_STEP_COUNT; kind++)
		steps->steps[kind].rows = -1;
	steps->running = true;
	steps->current = MD_STEP_PLAN;
	steps->steps[MD_STEP_PLAN].done = true;
	INSTR_TIME_SET_CURRENT(steps->since);
}

MdStepKind
md_step(MdSteps *steps, MdStepKind kind)
{
	instr_time	now;
	MdStepKind	before;

	if (steps == NULL || !steps->running)
		return kind;
	INSTR_TIME_SET_CURRENT(now);
	before = steps->current;
	INSTR_TIME_ACCUM_DIFF(steps->steps[before].time, now, steps->since);
	steps->since = now;
	steps->current = kind;
	steps->steps[kind].done = true;
	return before;
}

void
md_step_rows(MdSteps *steps, MdStepKind kind, int64 rows)
{
	if (steps == NULL || !steps->running || rows < 0)
		return;
	steps->steps[kind].rows = Max(steps->steps[kind].rows, 0) + rows;
}

double
md_steps_ms(MdSteps *steps)
{
	double		ms = 0;

	(void) md_step(steps, steps->current);
	for (int kind = 0; kind < MD_STEP_COUNT; kind++)
		ms += INSTR_TIME_GET_MILLISEC(steps->steps[kind].time);
	return ms;
}

char *
md_steps_json(MdSteps *steps)
{
	StringInfoData json;

	if (!steps->running)
		return NULL;
	/* the current one, too, up to now */
	(void) md_step(steps, steps->current);
	initStringInfo(&json);
	for (int kind = 0; kind < MD_STEP_COUNT; kind++)
	{
		MdStep	   *step = &steps->steps[kind];

		if (!step->done)
			continue;
		appendStringInfo(&json, "%s{\"step\": \"%s\", ", json.len > 0 ? ", " : "[", step_names[kind]);
		if (step->rows >= 0)
			appendStringInfo(&json, "\"rows\": " INT64_FORMAT ", ", step->rows);
		appendStringInfo(&json, "\"ms\": %.3f}", INSTR_TIME_GET_MILLISEC(step->time));
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}
