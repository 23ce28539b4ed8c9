/*
 * view_define.h
 *		Creating, changing and dropping materialized views: what the SQL
 *		functions and the DDL have in common.
 */
#ifndef MD_VIEW_DEFINE_H
#define MD_VIEW_DEFINE_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"

#include "refresh_plan.h"
#include "view_catalog.h"
#include "view_error_options.h"

/* What a view is to be. */
typedef struct MdViewSpec
{
	RangeVar   *name;
	Query	   *query;			/* analyzed, not rewritten */
	const char *query_text;		/* that positions in the query refer to */
	bool		inner_text;		/* it is an argument, not the statement */
	List	   *column_names;	/* of String; NIL: the query's */
	Interval   *refresh_interval;	/* NULL: on demand only */
	MdRefreshMode mode;
	List	   *key_columns;	/* of String */
	bool		with_data;
	bool		if_not_exists;
	IntoClause *into;			/* storage parameters and so on; NULL: none */
	MdErrorOptions errors;
	List	   *stages;			/* of MdStageSpec: sources with their own interval */
	bool		is_stage;		/* it is one itself, in medallion_def */
} MdViewSpec;

/* What is to change; what is not set stays. */
typedef struct MdViewChange
{
	Query	   *query;			/* NULL: stays */
	const char *query_text;
	bool		set_interval;
	Interval   *refresh_interval;
	bool		set_mode;
	MdRefreshMode mode;
	bool		set_keys;
	List	   *key_columns;	/* of String */
	MdErrorOptions errors;
} MdViewChange;

/* Create; InvalidOid if it existed and if_not_exists is set. */
extern Oid	md_view_create(MdViewSpec *spec);

/* The following check that the current user owns the view. */
extern void md_view_alter(Oid relid, MdViewChange *change);
extern void md_view_drop(Oid relid, bool cascade);

/* Pause or resume a view; false if relid is none. */
extern bool md_view_set_paused(Oid relid, bool paused);

/*
 * After a restore: tie results and their parts together again, and let the
 * schedule run.  Views of other owners are left alone.
 */
extern void md_view_resume_all(void);

/*
 * Put a new query in the place of the old one (view_redefine.c).  The caller
 * has checked the owner, and holds the lock on the definition.
 */
extern void md_view_redefine(Oid relid, MdViewChange *change);

/* Set key columns from names (of String). */
extern void md_view_set_keys(MdView *view, List *names);

/* ERROR if a view that must be incremental has a plan that is not. */
extern void md_view_check_mode(MdPlan *plan, MdRefreshMode mode, const char *text,
							   bool inner_text);

/* ERROR unless the owner may read all that a query reads. */
extern void md_view_check_privileges(const char *query_text, Oid owner);

/* ERROR unless an interval between refreshes can be that. */
extern void md_view_check_interval(const Interval *interval);

#endif							/* MD_VIEW_DEFINE_H */
