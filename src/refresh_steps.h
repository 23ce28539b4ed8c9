/*
 * refresh_steps.h
 *		What a refresh does with its time.
 */
#ifndef MD_REFRESH_STEPS_H
#define MD_REFRESH_STEPS_H

#include "postgres.h"
#include "portability/instr_time.h"

/* In the order in which they are shown. */
typedef enum MdStepKind
{
	MD_STEP_PLAN,				/* the definition, the strategy, what else is not below */
	MD_STEP_FIND,				/* what is new in the sources */
	MD_STEP_KEYS,				/* keys that the change touches */
	MD_STEP_COMPUTE,			/* the change of the result */
	MD_STEP_RECOMPUTE,			/* the query, and what differs from the result */
	MD_STEP_STATE,				/* what is kept beside the result */
	MD_STEP_APPLY,				/* rows of the result written */
	MD_STEP_INDEX,				/* indexes made */
	MD_STEP_ANALYZE,
	MD_STEP_STORE,				/* the frontier */
	MD_STEP_PRUNE				/* change logs given back */
} MdStepKind;

#define MD_STEP_COUNT (MD_STEP_PRUNE + 1)

typedef struct MdStep
{
	bool		done;
	int64		rows;			/* -1: does not count any */
	instr_time	time;
} MdStep;

/* All zero: time is not kept. */
typedef struct MdSteps
{
	bool		running;
	MdStepKind	current;
	instr_time	since;			/* of the current step */
	MdStep		steps[MD_STEP_COUNT];
} MdSteps;

/* The first step begins. */
extern void md_steps_begin(MdSteps *steps);

/*
 * Another step begins, or goes on; returns the one that was on, for whoever gives
 * way to it again.  NULL or all zero: nothing happens.
 */
extern MdStepKind md_step(MdSteps *steps, MdStepKind kind);

/* The step read, found or wrote these rows. */
extern void md_step_rows(MdSteps *steps, MdStepKind kind, int64 rows);

/* Milliseconds that all of them have taken so far. */
extern double md_steps_ms(MdSteps *steps);

/*
 * [{"step": "find changes", "rows": 100, "ms": 1.25}, ...]: an entry per kind at the
 * most, rows only where there are any to count.  NULL if time was not kept.
 */
extern char *md_steps_json(MdSteps *steps);

#endif							/* MD_REFRESH_STEPS_H */
