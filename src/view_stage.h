/*
 * view_stage.h
 *		Sources that a view reads at an interval of their own.
 */
#ifndef MD_VIEW_STAGE_H
#define MD_VIEW_STAGE_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* A source, and how often it is read. */
typedef struct MdStageSpec
{
	Oid			source;
	Interval   *refresh_interval;	/* NULL: on demand only */
} MdStageSpec;

/* The value of the option "sources" as a list of MdStageSpec. */
extern List *md_stage_parse(Jsonb *options);

/*
 * Make the stages of a view that is about to be made under this name, and put
 * them into its query.  Returns them (of Oid), to be attached once it is there.
 */
extern List *md_stage_make(RangeVar *view, List *specs, bool with_data, Query **query);
extern void md_stage_attach(Oid view, List *stages);

/* The stages that a view has (of Oid). */
extern List *md_stage_list(Oid view);

/* Put the stages that a view has into a new query for it. */
extern Query *md_stage_apply(Oid view, Query *query);

/* Bring stages up to date that were never filled; all: every one. */
extern void md_stage_refresh(Oid view, bool all);

#endif							/* MD_VIEW_STAGE_H */
