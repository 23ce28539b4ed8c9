/*
 * refresh_group.c
 *		Views that are brought to one frontier before another reads them.
 *
 * A view that reads one source in two ways must see it at one point: a fact
 * and its dimension, both made of the same stream, never disagree about what
 * has happened.
 *
 *			  events				stream, read up to ..
 *			 /		\
 *		orders	   customers		views:	 120	 100	<- disagree
 *			 \		/
 *			revenue					reads both
 *
 * A source is shared when two ways lead to it that have no view in common but
 * the reader: in terms of graphs, when the reader is its immediate dominator.
 * (Where all ways pass through one view, that view is the shared source.)  All
 * views on the ways to a shared source form the reader's group, and so do those
 * that they need themselves.
 *
 * If the group's stored frontiers agree, the reader is refreshed alone, under
 * no lock but its own.  Else all are refreshed in its transaction, upstream
 * first, under one snapshot.  Locks are taken from the reader upwards, farthest
 * from the sources first, so no two groups can wait for each other.
 *
 * Sources whose changes are not known have no frontier to agree on, and are not
 * counted as shared.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "debug_point.h"
#include "refresh_exec.h"
#include "refresh_group.h"
#include "refresh_read.h"
#include "sql_run.h"
#include "view_catalog.h"

/* One relation that the view reads, directly or through others. */
typedef struct GroupNode
{
	Oid			relid;
	bool		is_view;
	bool		paused;			/* or not ours: nobody but its user refreshes it */
	bool		populated;
	bool		has_frontier;
	int			depth;			/* the longest way to a source without sources */
	int			dominator;		/* in the walk from the present reader; -1: not reached */
	int			reader_count;	/* likewise */
	bool		on_way;			/* likewise: leads to a shared source */
	bool		member;
	bool		visited;
} GroupNode;

/* One relation reads another. */
typedef struct GroupEdge
{
	int			reader;
	int			source;
	char	   *read_position;	/* NULL: never read */
	char	   *position;
} GroupEdge;

/* All that a view reads; node 0 is the view. */
typedef struct GroupGraph
{
	int			node_count;
	GroupNode  *nodes;
	int			edge_count;
	GroupEdge  *edges;
	int		   *order;			/* nodes, readers before what they read */
} GroupGraph;

/* For messages; it outlives the transaction that fails. */
static char current_member[NAMEDATALEN];

const char *
md_refresh_group_current(void)
{
	return current_member[0] != '\0' ? current_member : NULL;
}

/* ----------------------------------------------------------------------
 * The graph
 * ---------------------------------------------------------------------- */

/* Most views read one relation, or none of ours, and need no graph. */
static bool
may_have_group(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	bool		result;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_begin(&saved);
	md_sql_run_cached(&plan,
					  "SELECT count(*) > 1 AND bool_or(v.relid IS NOT NULL)"
					  "  FROM medallion.view_source s"
					  "       LEFT JOIN medallion.view_state v ON v.relid = s.source"
					  " WHERE s.relid = $1", &args, snapshot);
	result = md_sql_bool(0, 1);
	md_view_sql_end(&saved);
	return result;
}

/* The node of a relation, made if there is none. */
static int
find_node(GroupGraph *graph, Oid relid)
{
	for (int i = 0; i < graph->node_count; i++)
		if (graph->nodes[i].relid == relid)
			return i;
	graph->nodes[graph->node_count].relid = relid;
	return graph->node_count++;
}

static int
compare_depth(const void *a, const void *b, void *arg)
{
	const GroupNode *nodes = arg;
	const GroupNode *x = &nodes[*(const int *) a];
	const GroupNode *y = &nodes[*(const int *) b];

	if (x->depth != y->depth)
		return x->depth > y->depth ? -1 : 1;
	return x->relid < y->relid ? -1 : x->relid > y->relid;
}

/* Depths, and from them an order in which readers come first. */
static void
order_nodes(GroupGraph *graph)
{
	bool		changed = true;

	for (int round = 0; changed && round <= graph->node_count; round++)
	{
		changed = false;
		for (int i = 0; i < graph->edge_count; i++)
		{
			GroupNode  *reader = &graph->nodes[graph->edges[i].reader];

			if (reader->depth <= graph->nodes[graph->edges[i].source].depth)
			{
				reader->depth = graph->nodes[graph->edges[i].source].depth + 1;
				changed = true;
			}
		}
	}
	if (changed)
		elog(ERROR, "materialized view %u reads itself", graph->nodes[0].relid);
	graph->order = palloc(sizeof(int) * graph->node_count);
	for (int i = 0; i < graph->node_count; i++)
		graph->order[i] = i;
	qsort_arg(graph->order, graph->node_count, sizeof(int), compare_depth, graph->nodes);
}

static GroupGraph *
load_graph(Oid relid, Snapshot snapshot)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	GroupGraph *graph = palloc0(sizeof(GroupGraph));
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	uint64		rows;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_view_sql_begin(&saved);
	rows = md_sql_run_cached(&plan,
							 "WITH RECURSIVE up AS ("
							 "   SELECT $1 AS relid"
							 "   UNION SELECT s.source::oid FROM up"
							 "     JOIN medallion.view_source s ON s.relid = up.relid"
							 /* a stage (view_stage.c) is read as it is, on purpose */
							 "    WHERE up.relid = $1 OR NOT EXISTS (SELECT FROM pg_class c"
							 "           WHERE c.oid = up.relid AND c.relnamespace = 'medallion_def'::regnamespace))"
							 "SELECT p.relid::oid, p.source::oid, v.relid IS NOT NULL,"
							 "       v.paused OR v.origin <> medallion.database_identity(),"
							 "       t.populated, p.frontier IS NOT NULL,"
							 "       jsonb_build_array(p.read_frontier, p.read_history_changes, p.read_late_batches)::text,"
							 "       jsonb_build_array(p.frontier, p.history_changes, p.late_batches)::text"
							 "  FROM up JOIN medallion.source_position p ON p.relid = up.relid"
							 "       LEFT JOIN medallion.view v ON v.relid = p.source"
							 "       LEFT JOIN medallion.view_state t ON t.relid = p.source"
							 " WHERE p.kind <> 'view'"
							 "   AND (p.relid = $1 OR NOT EXISTS (SELECT FROM pg_class c"
							 "         WHERE c.oid = p.relid AND c.relnamespace = 'medallion_def'::regnamespace))",
							 &args, snapshot);
	graph->nodes = MemoryContextAllocZero(context, sizeof(GroupNode) * (2 * rows + 1));
	graph->edges = MemoryContextAllocZero(context, sizeof(GroupEdge) * (rows + 1));
	(void) find_node(graph, relid);
	for (uint64 i = 0; i < rows; i++)
	{
		GroupEdge  *edge = &graph->edges[graph->edge_count++];
		GroupNode  *source;
		bool		isnull;

		edge->reader = find_node(graph, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
		edge->source = find_node(graph, DatumGetObjectId(md_sql_datum(i, 2, &isnull)));
		source = &graph->nodes[edge->source];
		source->is_view = md_sql_bool(i, 3);
		source->paused = md_sql_bool(i, 4);
		source->populated = md_sql_bool(i, 5);
		source->has_frontier = md_sql_bool(i, 6);
		edge->read_position = MemoryContextStrdup(context, md_sql_string(i, 7));
		edge->position = MemoryContextStrdup(context, md_sql_string(i, 8));
	}
	md_view_sql_end(&saved);
	order_nodes(graph);
	return graph;
}

/* ----------------------------------------------------------------------
 * The group
 * ---------------------------------------------------------------------- */

/* The nearest node through which all ways to both lead. */
static int
common_dominator(const GroupGraph *graph, int a, int b)
{
	while (a != b)
	{
		/* dominators have greater depths than what they dominate */
		if (graph->nodes[a].depth < graph->nodes[b].depth ||
			(graph->nodes[a].depth == graph->nodes[b].depth && a > b))
			a = graph->nodes[a].dominator;
		else
			b = graph->nodes[b].dominator;
	}
	return a;
}

/* Dominators of all that `root` reads, in the walk that begins there. */
static void
walk_from(GroupGraph *graph, int root)
{
	for (int i = 0; i < graph->node_count; i++)
	{
		graph->nodes[i].dominator = -1;
		graph->nodes[i].reader_count = 0;
		graph->nodes[i].on_way = false;
	}
	graph->nodes[root].dominator = root;
	for (int k = 0; k < graph->node_count; k++)
	{
		int			reader = graph->order[k];

		if (graph->nodes[reader].dominator < 0)
			continue;
		for (int i = 0; i < graph->edge_count; i++)
		{
			GroupNode  *source = &graph->nodes[graph->edges[i].source];

			if (graph->edges[i].reader != reader)
				continue;
			source->dominator = source->dominator < 0 ? reader :
				common_dominator(graph, source->dominator, reader);
			source->reader_count++;
		}
	}
}

static bool
is_shared(const GroupGraph *graph, int node, int root)
{
	return node != root && graph->nodes[node].dominator == root &&
		graph->nodes[node].reader_count > 1 && graph->nodes[node].has_frontier;
}

/* Mark what lies on the ways from `root` to its shared sources. */
static void
mark_ways(GroupGraph *graph, int root)
{
	walk_from(graph, root);
	/* from the sources up: a reader of what is on the way is on the way */
	for (int k = graph->node_count - 1; k >= 0; k--)
	{
		int			node = graph->order[k];

		if (graph->nodes[node].dominator < 0)
			continue;
		for (int i = 0; i < graph->edge_count; i++)
			if (graph->edges[i].reader == node &&
				(graph->nodes[graph->edges[i].source].on_way ||
				 is_shared(graph, graph->edges[i].source, root)))
				graph->nodes[node].on_way = true;
	}
}

/*
 * Do all that read a shared source of the view at the top, on a way to it,
 * agree on it, and have those on the way read each other?  The view itself
 * will read everything as it is now.
 */
static bool
frontiers_agree(const GroupGraph *graph)
{
	const char **agreed = palloc0(sizeof(char *) * graph->node_count);

	for (int i = 0; i < graph->edge_count; i++)
	{
		const GroupEdge *edge = &graph->edges[i];
		const GroupNode *source = &graph->nodes[edge->source];
		/* positions of what has nothing new may differ, and mean the same */
		const char *position = edge->reader == 0 ||
			strcmp(edge->read_position, edge->position) == 0 ? "now" : edge->read_position;

		if (!graph->nodes[edge->reader].on_way)
			continue;
		if (source->on_way && (!source->populated || strcmp(position, "now") != 0))
			return false;
		if (!is_shared(graph, edge->source, 0))
			continue;
		if (agreed[edge->source] != NULL && strcmp(agreed[edge->source], position) != 0)
			return false;
		agreed[edge->source] = position;
	}
	return true;
}

/* Add the group of `root`, and the groups that its members need. */
static void
collect(GroupGraph *graph, int root)
{
	bool	   *on_way = palloc(sizeof(bool) * graph->node_count);

	graph->nodes[root].visited = true;
	mark_ways(graph, root);
	for (int i = 0; i < graph->node_count; i++)
		on_way[i] = i != root && graph->nodes[i].on_way;
	for (int i = 0; i < graph->node_count; i++)
	{
		if (!on_way[i])
			continue;
		graph->nodes[i].member = true;
		if (!graph->nodes[i].visited)
			collect(graph, i);
	}
	pfree(on_way);
}

/* Members, readers first; *agree: they are at one frontier as they are. */
static List *
find_members(Oid relid, Snapshot snapshot, bool *agree, Oid *paused)
{
	GroupGraph *graph;
	List	   *members = NIL;

	*agree = true;
	*paused = InvalidOid;
	if (!may_have_group(relid, snapshot))
		return NIL;
	graph = load_graph(relid, snapshot);
	mark_ways(graph, 0);
	*agree = frontiers_agree(graph);
	collect(graph, 0);
	for (int k = 0; k < graph->node_count; k++)
	{
		GroupNode  *node = &graph->nodes[graph->order[k]];

		if (!node->member)
			continue;
		members = lappend_oid(members, node->relid);
		if (node->paused)
			*paused = node->relid;
	}
	return members;
}

List *
md_refresh_group_members(Oid relid, Snapshot snapshot)
{
	bool		agree;
	Oid			paused;
	List	   *upstream_first = NIL;
	ListCell   *lc;

	foreach(lc, find_members(relid, snapshot, &agree, &paused))
		upstream_first = lcons_oid(lfirst_oid(lc), upstream_first);
	return upstream_first;
}

/* ----------------------------------------------------------------------
 * Refreshing it
 * ---------------------------------------------------------------------- */

static void
report_paused(Oid relid, Oid paused)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot read the sources of materialized view \"%s\" at one frontier",
					get_rel_name(relid)),
			 errdetail("Materialized view \"%s\" is paused, and reads a source that others which \"%s\" reads have read farther.",
					   get_rel_name(paused), get_rel_name(relid)),
			 errhint("Call medallion.resume('%s'), or medallion.pause('%s').",
					 md_read_relation_name(paused), md_read_relation_name(relid))));
}

/* Lock the members, readers first; false if one is held by another process. */
static bool
lock_members(List *members, bool wait)
{
	ListCell   *lc;

	foreach(lc, members)
	{
		if (!wait && !md_view_lock_conditional(lfirst_oid(lc)))
			return false;
		md_refresh_lock(lfirst_oid(lc));
	}
	return true;
}

/* Where an error came from that is not the view's own; arg: its name. */
static void
member_context(void *arg)
{
	errcontext("refresh of materialized view \"%s\", which \"%s\" reads together with others over the same source",
			   current_member, (const char *) arg);
}

static void
refresh_members(Oid relid, List *members, Snapshot snapshot)
{
	ErrorContextCallback context = {error_context_stack, member_context, get_rel_name(relid)};

	error_context_stack = &context;
	for (int i = list_length(members) - 1; i >= 0; i--)
	{
		MdRun		run;

		strlcpy(current_member, get_rel_name(list_nth_oid(members, i)), NAMEDATALEN);
		md_refresh_under(list_nth_oid(members, i), false, snapshot, &run, NULL);
	}
	error_context_stack = context.previous;
	current_member[0] = '\0';
}

bool
md_refresh_consistent(Oid relid, bool full, bool wait, MdRun *run, Jsonb **frontier)
{
	Snapshot	snapshot;
	List	   *members;
	List	   *locked = NIL;
	Oid			paused;
	bool		agree;

	current_member[0] = '\0';
	md_refresh_lock(relid);
	snapshot = md_sql_take_snapshot();
	members = find_members(relid, snapshot, &agree, &paused);
	/* the group may change until it is locked */
	while (!agree && list_difference_oid(members, locked) != NIL)
	{
		if (OidIsValid(paused))
			report_paused(relid, paused);
		UnregisterSnapshot(snapshot);
		if (!lock_members(list_difference_oid(members, locked), wait))
			return false;
		locked = list_concat_unique_oid(locked, members);
		MD_DEBUG_POINT("refresh-group-locked");
		snapshot = md_sql_take_snapshot();
		members = find_members(relid, snapshot, &agree, &paused);
	}
	if (!agree)
		refresh_members(relid, members, snapshot);
	md_refresh_under(relid, full, snapshot, run, frontier);
	UnregisterSnapshot(snapshot);
	return true;
}
