/*
 * refresh_engine.c
 *		The states of the sources between which a refresh goes, and the
 *		relations that it makes on its way.
 *
 * A source is read in one of four ways:
 *
 *		new			the relation itself
 *		change		the rows that came (+1) and went (-1)
 *		old, net	the rows that there were: where rows were only added, the
 *					others; else (relation + weights turned round), grouped
 *		old			the same with weights instead of grouping, for a place
 *					where weights may stand; an index on the relation serves
 *
 * Changes, sets of keys and the like are run into tuplestores, and registered
 * for the statements that follow under names of their own, with the number of
 * their rows for the planner.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"

#include "compat.h"
#include "refresh_cost.h"
#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_plan.h"
#include "refresh_read.h"
#include "refresh_target.h"
#include "refresh_tree.h"
#include "sql_run.h"
#include "stable_functions.h"

typedef struct Registered
{
	char	   *name;
	Tuplestorestate *store;
	TupleDesc	tupdesc;
	char	   *sql;			/* that gave it; NULL: not ours to run */
} Registered;

/* Remember a store that has been registered, to be given back at the end. */
static Registered *
remember(MdEngine *engine, char *name, Tuplestorestate *store, TupleDesc tupdesc)
{
	Registered *registered = palloc0(sizeof(Registered));

	registered->name = name;
	registered->store = store;
	registered->tupdesc = tupdesc;
	md_diff_register(name, store, tupdesc);
	engine->relations = lappend(engine->relations, registered);
	return registered;
}

/* A signed change, registered; false if there is nothing in it. */
static bool
load_signed(MdEngine *engine, MdInput *input)
{
	char	   *names = md_read_attribute_names(input->relid);

	if (input->delta.store != NULL)
		(void) remember(engine, input->delta.store_name, input->delta.store,
						input->delta.store_desc);
	if (input->delta.rows >= 0)
	{
		/* known, so the store holds it as it is */
		input->change = input->delta.store_name;
		return input->delta.rows > 0;
	}
	input->delta.rows =
		md_engine_materialize(engine,
							  psprintf("SELECT %s, " MD_WEIGHT "::pg_catalog.int4 AS " MD_WEIGHT
									   " FROM (%s) q(%s, " MD_WEIGHT ")", names, input->delta.query,
									   names),
							  &input->change, NULL);
	return input->delta.rows > 0;
}

MdEngine *
md_engine_begin(List *inputs, Snapshot snapshot, TimestampTz old_time, TimestampTz new_time)
{
	MdEngine   *engine = palloc0(sizeof(MdEngine));
	ListCell   *lc;

	engine->snapshot = snapshot;
	engine->old_time = old_time;
	engine->new_time = new_time;
	foreach(lc, inputs)
	{
		MdInput    *input = lfirst(lc);

		if (input->delta.is_signed ? load_signed(engine, input) :
			input->delta.rows != 0 && strcmp(input->delta.condition, "false") != 0)
			engine->inputs = lappend(engine->inputs, input);
	}
	return engine;
}

void
md_engine_end(MdEngine *engine)
{
	ListCell   *lc;

	foreach(lc, engine->relations)
	{
		Registered *registered = lfirst(lc);

		SPI_unregister_relation(registered->name);
		tuplestore_end(registered->store);
	}
	engine->relations = NIL;
}

void
md_engine_give_up(MdEngine *engine, char *why)
{
	if (engine->why_full == NULL)
		engine->why_full = why;
}

/* What the same SQL gave: of a WITH query that is read twice, say. */
static Registered *
find_part(MdEngine *engine, const char *sql)
{
	ListCell   *lc;

	foreach(lc, engine->relations)
	{
		Registered *registered = lfirst(lc);

		if (registered->sql != NULL && strcmp(registered->sql, sql) == 0)
			return registered;
	}
	return NULL;
}

int64
md_engine_materialize(MdEngine *engine, const char *sql, char **name, TupleDesc *tupdesc)
{
	Registered *part = find_part(engine, sql);

	if (part == NULL)
	{
		TupleDesc	columns;
		Tuplestorestate *store;

		/* given up: the columns are asked for, but no row */
		store = md_sql_run_into_store(md_cost_affords(engine, sql) ? sql :
									  psprintf("SELECT * FROM (%s) q LIMIT 0", sql),
									  engine->snapshot, &columns);
		part = remember(engine, psprintf("medallion_part_%d", ++engine->relation_count), store,
						columns);
		part->sql = pstrdup(sql);
	}
	*name = part->name;
	if (tupdesc != NULL)
		*tupdesc = part->tupdesc;
	return tuplestore_tuple_count(part->store);
}

/* References to registered relations, and to groups, in the form that can be printed. */
static bool
name_registered_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_NAMEDTUPLESTORE)
		{
			rte->rtekind = RTE_CTE;
			rte->ctename = rte->enrname;
			rte->ctelevelsup = 0;
		}
		return false;
	}
	if (IsA(node, Query))
	{
		md_flatten_groups((Query *) node);
		return query_tree_walker((Query *) node, name_registered_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, name_registered_walker, context);
}

Query *
md_engine_analyze(MdEngine *engine, const char *sql)
{
	QueryEnvironment *environment = create_queryEnv();
	List	   *trees = raw_parser(sql, RAW_PARSE_DEFAULT);
	int			nest_level;
	Query	   *query;
	ListCell   *lc;

	foreach(lc, engine->relations)
	{
		Registered *registered = lfirst(lc);
		EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

		relation->md.name = registered->name;
		relation->md.tupdesc = registered->tupdesc;
		relation->md.enrtype = ENR_NAMED_TUPLESTORE;
		register_ENR(environment, relation);
	}
	nest_level = NewGUCNestLevel();
	md_restrict_search_path();
	query = parse_analyze_fixedparams(linitial_node(RawStmt, trees), sql, NULL, 0, environment);
	AtEOXact_GUC(false, nest_level);
	(void) name_registered_walker((Node *) query, NULL);
	return query;
}

char *
md_delta_text(Query *query)
{
	Query	   *copy = copyObject(query);

	md_tree_flatten_joins(copy);
	return md_query_text(copy);
}

/* ----------------------------------------------------------------------
 * What has changed
 * ---------------------------------------------------------------------- */

MdInput *
md_engine_input(MdEngine *engine, Oid relid)
{
	ListCell   *lc;

	foreach(lc, engine->inputs)
		if (((MdInput *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

static bool
changes_walker(Node *node, MdEngine *engine)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_RELATION &&
			((RangeTblEntry *) node)->inFromCl &&
			md_engine_input(engine, ((RangeTblEntry *) node)->relid) != NULL;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, changes_walker, engine, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, changes_walker, engine);
}

bool
md_engine_changes(MdEngine *engine, Query *query)
{
	return changes_walker((Node *) query, engine) ||
		(engine->old_time != engine->new_time && md_unstable_has_time((Node *) query));
}

/* ----------------------------------------------------------------------
 * Parts of relations
 * ---------------------------------------------------------------------- */

Query *
md_state_changed_relation(MdEngine *engine, MdInput *input, bool inh)
{
	if (input->delta.is_signed)
		return md_engine_analyze(engine, psprintf("SELECT %s%s FROM %s",
												  md_read_attribute_names(input->relid),
												  input->delta.only_came ? "" : ", " MD_WEIGHT,
												  input->change));
	return md_engine_analyze(engine, psprintf("SELECT %s FROM %s%s WHERE %s",
											  md_read_attributes(input->relid),
											  inh ? "" : "ONLY ",
											  md_read_relation_name(input->relid),
											  input->delta.condition));
}

/* The columns of a relation for grouping rows that are the same: by text where there is no equality. */
static void
group_columns(Oid relid, char **output, char **groups)
{
	MdTarget   *target = md_target_make(relid);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < target->count; i++)
	{
		MdTargetColumn *column = &target->columns[i];

		if (column->comparable)
			appendStringInfo(&list, "%su.%s", list.len > 0 ? ", " : "", column->name);
		else
			appendStringInfo(&list, "%s(u.%s::pg_catalog.text)::%s AS %s",
							 list.len > 0 ? ", " : "", column->name, column->type, column->name);
	}
	*output = list.data;
	*groups = md_target_same(target, "u", false);
}

Query *
md_state_old_relation(MdEngine *engine, MdInput *input, bool inh, bool weighted)
{
	char	   *name = psprintf("%s%s", inh ? "" : "ONLY ", md_read_relation_name(input->relid));
	char	   *columns = md_read_attribute_names(input->relid);
	char	   *all = md_read_attributes(input->relid);
	char	   *output;
	char	   *groups;

	if (!input->delta.is_signed)
		return md_engine_analyze(engine, psprintf("SELECT %s FROM %s WHERE %s", all, name,
												  input->delta.old_condition ?
												  input->delta.old_condition :
												  psprintf("(%s) IS NOT TRUE", input->delta.condition)));
	if (weighted)
		return md_engine_analyze(engine,
								 psprintf("SELECT %s, 1 AS " MD_WEIGHT " FROM %s UNION ALL"
										  " SELECT %s, - " MD_WEIGHT " FROM %s",
										  all, name, columns, input->change));
	group_columns(input->relid, &output, &groups);
	return md_engine_analyze(engine,
							 psprintf("SELECT %s FROM (SELECT %s, pg_catalog.sum(u." MD_WEIGHT ") AS " MD_WEIGHT
									  " FROM (SELECT %s, 1 AS " MD_WEIGHT " FROM %s UNION ALL"
									  "       SELECT %s, - " MD_WEIGHT " FROM %s) u"
									  " GROUP BY %s HAVING pg_catalog.sum(u." MD_WEIGHT ") > 0) v,"
									  " LATERAL medallion.copies(v." MD_WEIGHT ") \"?copies?\"(\"?copy?\")",
									  all, output, all, name, columns, input->change, groups));
}

static bool
old_walker(Node *node, MdEngine *engine)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		int			rt_count = list_length(query->rtable);

		/* below first: what is put in here must not be walked */
		(void) query_tree_walker(query, old_walker, engine, QTW_IGNORE_JOINALIASES);
		for (int i = 1; i <= rt_count; i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);
			MdInput    *input;

			if (rte->rtekind != RTE_RELATION || !rte->inFromCl)
				continue;
			input = md_engine_input(engine, rte->relid);
			if (input != NULL)
				md_read_replace_rte(query, i, md_state_old_relation(engine, input, rte->inh, false));
		}
		return false;
	}
	return expression_tree_walker(node, old_walker, engine);
}

Query *
md_state_query(MdEngine *engine, Query *query, bool old)
{
	Query	   *copy = (Query *) md_unstable_fix_time((Node *) copyObject(query),
													  old ? engine->old_time : engine->new_time);

	if (old)
		(void) old_walker((Node *) copy, engine);
	return copy;
}
