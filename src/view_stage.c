/*
 * view_stage.c
 *		Sources that a view reads at an interval of their own.
 *
 *		bronze.events ------------------------------+
 *													v		every minute
 *		batch.customers --> stage: SELECT * ---> gold.sales
 *							 once a day
 *
 * Between two readings of such a source the view must see it as it was at the
 * last one, in every join.  So the source is copied to a stage, which is a
 * materialized view like any other, in medallion_def, with the source's interval;
 * and the view reads the stage.  What is new in the source is then what changed
 * in the stage: of a captured table or a streaming table its changes, of a
 * foreign table, or one that was emptied and filled again with mostly the same
 * rows, what a comparison finds to differ.
 *
 * A stage belongs to the view: it is dropped, paused and resumed with it.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "refresh_exec.h"
#include "refresh_group.h"
#include "refresh_plan.h"
#include "refresh_read.h"
#include "relation_make.h"
#include "sql_run.h"
#include "view_define.h"
#include "view_stage.h"

static void
report_option(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid option \"sources\": %s", message),
			 errhint("It looks like {\"sources\": {\"schema.table\": {\"refresh_interval\": \"1 day\"}}}.")));
}

/* {"refresh_interval": "1 day"} of one source. */
static Interval *
parse_interval(JsonbContainer *container)
{
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbValue	key;
	JsonbValue	value;
	char	   *name;

	(void) JsonbIteratorNext(&iterator, &key, true);
	if (JsonbIteratorNext(&iterator, &key, true) != WJB_KEY)
		report_option("a source needs a refresh_interval");
	(void) JsonbIteratorNext(&iterator, &value, true);
	name = pnstrdup(key.val.string.val, key.val.string.len);
	if (strcmp(name, "refresh_interval") != 0)
		report_option(psprintf("\"%s\" is no setting of a source", name));
	if (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
		report_option(psprintf("\"%s\" is no setting of a source",
							   pnstrdup(key.val.string.val, key.val.string.len)));
	if (value.type == jbvNull)
		return NULL;
	if (value.type != jbvString)
		report_option("refresh_interval must be a string or null");
	return DatumGetIntervalP(DirectFunctionCall3(interval_in,
												 CStringGetDatum(pnstrdup(value.val.string.val,
																		  value.val.string.len)),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

List *
md_stage_parse(Jsonb *options)
{
	JsonbValue	sources;
	JsonbValue	key;
	JsonbValue	value;
	JsonbIterator *iterator;
	List	   *specs = NIL;

	if (getKeyJsonValueFromContainer(&options->root, "sources", 7, &sources) == NULL)
		return NIL;
	if (sources.type != jbvBinary || !JsonContainerIsObject(sources.val.binary.data))
		report_option("it must be an object");
	iterator = JsonbIteratorInit(sources.val.binary.data);
	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		MdStageSpec *spec = palloc(sizeof(MdStageSpec));
		List	   *name = md_qualified_name(pnstrdup(key.val.string.val, key.val.string.len));

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			report_option("a source needs a refresh_interval");
		spec->source = RangeVarGetRelid(makeRangeVarFromNameList(name), AccessShareLock, false);
		spec->refresh_interval = parse_interval(value.val.binary.data);
		md_view_check_interval(spec->refresh_interval);
		specs = lappend(specs, spec);
	}
	return specs;
}

/* ---------------------------------------------------------------------- */

static bool
reads_walker(Node *node, Oid *relid)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_RELATION &&
			((RangeTblEntry *) node)->relid == *relid;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_walker, relid, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_walker, relid);
}

/* "gold.sales source batch.customers", in medallion_def. */
static RangeVar *
stage_name(RangeVar *view, Oid source)
{
	Oid			namespace_id = get_namespace_oid("medallion_def", false);
	char	   *base = psprintf("%s.%s source %s",
								get_namespace_name(RangeVarGetCreationNamespace(view)),
								view->relname, md_read_relation_name(source));

	for (int n = 1;; n++)
	{
		char	   *tail = n == 1 ? pstrdup("") : psprintf(" %d", n);
		int			room = NAMEDATALEN - 1 - strlen(tail);
		char	   *name = psprintf("%.*s%s", pg_mbcliplen(base, strlen(base), room), base, tail);

		if (!OidIsValid(get_relname_relid(name, namespace_id)))
			return makeRangeVar("medallion_def", name, -1);
	}
}

/* "SELECT a, b FROM source": what a stage holds. */
static char *
stage_query(Oid source)
{
	Relation	rel = table_open(source, AccessShareLock);
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (!att->attisdropped)
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? ", " : "SELECT ",
							 quote_identifier(NameStr(att->attname)));
	}
	appendStringInfo(&sql, " FROM %s", md_read_relation_name(source));
	table_close(rel, NoLock);
	return sql.data;
}

static Oid
make_stage(RangeVar *view, MdStageSpec *spec, bool with_data)
{
	MdViewSpec	stage = {0};

	stage.name = stage_name(view, spec->source);
	stage.query_text = stage_query(spec->source);
	stage.query = md_query_analyze(stage.query_text);
	stage.inner_text = true;
	stage.refresh_interval = spec->refresh_interval;
	stage.mode = MD_MODE_AUTO;
	stage.with_data = with_data;
	stage.is_stage = true;
	return md_view_create(&stage);
}

/* The stage, to be read in the place of its source. */
static MdPart *
stage_part(Oid source, Oid stage)
{
	MdPart	   *part = palloc0(sizeof(MdPart));

	part->relid = source;
	part->query = psprintf("SELECT %s FROM %s", md_read_attributes(source),
						   md_read_relation_name(stage));
	return part;
}

List *
md_stage_make(RangeVar *view, List *specs, bool with_data, Query **query)
{
	List	   *stages = NIL;
	List	   *parts = NIL;
	ListCell   *lc;

	foreach(lc, specs)
	{
		MdStageSpec *spec = lfirst(lc);
		Oid			stage;

		if (!query_tree_walker(*query, reads_walker, &spec->source, QTW_EXAMINE_RTES_BEFORE))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid option \"sources\": the query does not read \"%s\"",
							get_rel_name(spec->source)),
					 errhint("Name relations that stand in the query itself, not those that views in it read.")));
		stage = make_stage(view, spec, with_data);
		stages = lappend_oid(stages, stage);
		parts = lappend(parts, stage_part(spec->source, stage));
	}
	if (parts != NIL)
		*query = md_read_substitute(*query, parts);
	return stages;
}

void
md_stage_attach(Oid view, List *stages)
{
	ListCell   *lc;

	foreach(lc, stages)
		md_relation_attach(lfirst_oid(lc), view);
}

/* Stages of a view, and what they copy, side by side. */
static List *
load_stages(Oid view, List **sources)
{
	MemoryContext context = CurrentMemoryContext;
	Snapshot	snapshot = md_sql_take_snapshot();
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	List	   *stages = NIL;
	uint64		rows;

	*sources = NIL;
	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(view), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	rows = md_sql_run("SELECT s.source::oid, b.source::oid FROM medallion.view_source s"
					  "  JOIN pg_class c ON c.oid = s.source AND c.relnamespace = 'medallion_def'::regnamespace"
					  "  JOIN medallion.view_source b ON b.relid = s.source"
					  " WHERE s.relid = $1 ORDER BY 1", &args, snapshot);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		stages = lappend_oid(stages, DatumGetObjectId(md_sql_datum(i, 1, &isnull)));
		*sources = lappend_oid(*sources, DatumGetObjectId(md_sql_datum(i, 2, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);
	return stages;
}

List *
md_stage_list(Oid view)
{
	List	   *sources;

	return load_stages(view, &sources);
}

Query *
md_stage_apply(Oid view, Query *query)
{
	List	   *sources;
	List	   *stages = load_stages(view, &sources);
	List	   *parts = NIL;
	ListCell   *stage;
	ListCell   *source;

	forboth(stage, stages, source, sources)
		parts = lappend(parts, stage_part(lfirst_oid(source), lfirst_oid(stage)));
	return parts == NIL ? query : md_read_substitute(query, parts);
}

void
md_stage_refresh(Oid view, bool all)
{
	ListCell   *lc;

	foreach(lc, md_stage_list(view))
	{
		Snapshot	snapshot = md_sql_take_snapshot();
		MdView	   *stage = md_view_load(lfirst_oid(lc), snapshot);
		MdRun		run;

		UnregisterSnapshot(snapshot);
		if (stage != NULL && (all || !stage->populated))
			(void) md_refresh_consistent(stage->relid, false, true, &run, NULL);
	}
}
