/*
 * view_catalog.h
 *		Definitions of views in schema medallion, as C structures.
 *
 * All functions connect to SPI by themselves and run as the owner of the
 * extension.  Those with a snapshot read under it; the others write, or read
 * what is committed now.
 */
#ifndef MD_VIEW_CATALOG_H
#define MD_VIEW_CATALOG_H

#include "postgres.h"
#include "access/attnum.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "sql_run.h"

typedef enum MdRefreshMode
{
	MD_MODE_AUTO,
	MD_MODE_INCREMENTAL,
	MD_MODE_FULL
} MdRefreshMode;

extern const char *md_refresh_mode_name(MdRefreshMode mode);

/* ERROR, with the nearest valid name as hint, if it is none. */
extern MdRefreshMode md_refresh_mode_by_name(const char *name);

/* So many quarantined rows are too many, unless told otherwise. */
#define MD_MAX_REFRESH_ERRORS_DEFAULT 1000

/* What refreshes of a view have taken; see refresh_cost.c. */
typedef struct MdViewCost
{
	double		recompute_ms;	/* the last recompute; 0: not known */
	double		recompute_rows; /* of the sources then */
	double		change_ms;		/* the last large change; 0: not known */
	double		change_rows;
	int64		recomputes;		/* since then */
} MdViewCost;

/* One view: medallion.view and medallion.view_state. */
typedef struct MdView
{
	Oid			relid;
	Oid			owner;
	Oid			definition;		/* InvalidOid: lost, see view_sources.c */
	List	   *state_tables;	/* of Oid, in the order in which the plan wants them */
	Oid			merge_index;	/* InvalidOid: none */
	Oid			key_index;		/* InvalidOid: none */
	int			key_count;
	AttrNumber *keys;			/* key_columns */
	Interval   *refresh_interval;	/* NULL: on demand only */
	MdRefreshMode mode;
	Jsonb	   *settings;
	bool		paused;
	bool		foreign_origin;
	bool		on_error_fail;	/* else: quarantine the row */
	int			max_refresh_errors;
	/* state */
	bool		populated;
	int64		refresh_number;
	int64		rewritten_number;
	TimestampTz refreshed_at;	/* 0: never */
	bool		always_refresh;
	TransactionId state_xid;	/* that last wrote the state */
	List	   *type_shapes;	/* of MdTypeShape: of the types whose values the query reads */
	MdViewCost	cost;
} MdView;

/* Load a view in the current context; NULL if relid is none. */
extern MdView *md_view_load(Oid relid, Snapshot snapshot);

/* The same, or an error that names relid. */
extern MdView *md_view_get(Oid relid, Snapshot snapshot);

/* Is relid a view of ours (or, the second, a relation in medallion_def)? */
extern bool md_view_exists(Oid relid);
extern bool md_view_is_internal(Oid relid);

/* ERROR unless the current user owns the view. */
extern void md_view_check_owner(Oid relid);

/* Serialize refreshes of a view; false (conditional) if another holds it. */
extern void md_view_lock(Oid relid);
extern bool md_view_lock_conditional(Oid relid);

/* Serialize changes of a definition, while refreshes go on. */
extern void md_view_lock_definition(Oid relid);

/* Definition. */
extern void md_view_insert(const MdView *view, const char *strategy);
extern void md_view_update(const MdView *view);
extern void md_view_delete(Oid relid);

/* Keep the text of a query that cannot be run; ERROR for a view that has such. */
extern void md_view_store_lost_query(Oid relid, const char *query);
extern void md_view_check_query(const MdView *view);

/* List the view's sources anew (of Oid), as not read yet. */
extern void md_view_reset_sources(Oid relid, List *source_ids, List *inlined_ids);

/* Connect to SPI as the owner of the extension, and back. */
extern void md_view_sql_begin(MdSecurity *saved);
extern void md_view_sql_end(const MdSecurity *saved);

/* One statement of ours, under what is committed now; the number of rows. */
extern uint64 md_view_sql_run(const char *sql, MdSqlArgs *args);

/* Pause or resume; false if relid is no view.  resume makes it ours. */
extern bool md_view_store_paused(Oid relid, bool paused);

extern void md_view_store_origin(Oid relid);

/* All views that are not ours yet, after a restore (of Oid). */
extern List *md_view_foreign_list(void);

/* Would the view read itself, through any of these sources? */
extern bool md_view_is_circular(Oid relid, List *source_ids);

#endif							/* MD_VIEW_CATALOG_H */
