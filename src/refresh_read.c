/*
 * refresh_read.c
 *		Reading a part of a source in the place of the whole.
 *
 * A subquery that stands for a table keeps its attribute numbers: a dropped
 * column is a NULL in its place, and a reference to the whole row is spelled
 * out, because a subquery's row is of no named type.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "refresh_plan.h"
#include "refresh_read.h"
#include "sql_run.h"

const char *
md_change_kind_name(MdChangeKind kind)
{
	static const char *const names[] = {
		[MD_CHANGE_APPEND] = "append",
		[MD_CHANGE_UPSERT] = "upsert",
		[MD_CHANGE_REPLACE] = "replace",
	};

	return names[kind];
}

char *
md_read_relation_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* A relation that is neither a streaming table nor a view of ours. */
static void
describe_other(Oid relid, MdReadable *readable)
{
	readable->changes = MD_CHANGE_REPLACE;
	switch (get_rel_relkind(relid))
	{
		case RELKIND_VIEW:
			readable->kind_name = "view";
			readable->why = "a view that another role owns is not looked into";
			break;
		case RELKIND_FOREIGN_TABLE:
			readable->kind_name = "foreign table";
			readable->why = "changes of a foreign table are not known";
			break;
		case RELKIND_MATVIEW:
			readable->kind_name = "plain materialized view";
			readable->why = "changes of a plain materialized view are not known";
			break;
		case RELKIND_PARTITIONED_TABLE:
			readable->kind_name = "partitioned table";
			readable->why = "changes of an ordinary table are not captured";
			break;
		default:
			readable->kind_name = "table";
			readable->why = "changes of an ordinary table are not captured";
			break;
	}
}

void
md_read_describe(Oid relid, Oid owner, MdReadable *readable)
{
	static SPIPlanPtr plan = NULL;
	MdSecurity	saved;
	MdSqlArgs	args = {0};
	Snapshot	snapshot = md_sql_take_snapshot();
	bool		is_stream;
	bool		is_view;
	bool		is_append;

	md_sql_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	md_catalog_become_owner(&saved);
	SPI_connect();
	md_sql_run_cached(&plan,
					  "SELECT EXISTS (SELECT FROM medallion.stream WHERE relid = $1),"
					  "       EXISTS (SELECT FROM medallion.view WHERE relid = $1),"
					  "       EXISTS (SELECT FROM medallion.view_state"
					  "                WHERE relid = $1 AND strategy = 'append')",
					  &args, snapshot);
	is_stream = md_sql_bool(0, 1);
	is_view = md_sql_bool(0, 2);
	is_append = md_sql_bool(0, 3);
	SPI_finish();
	md_catalog_restore_user(&saved);
	UnregisterSnapshot(snapshot);

	memset(readable, 0, sizeof(*readable));
	if (is_stream)
		readable->kind_name = "streaming table";
	else if (is_view)
	{
		readable->kind_name = "materialized view";
		if (!is_append)
		{
			readable->changes = MD_CHANGE_UPSERT;
			readable->why = "this materialized view changes rows that it has, and these changes are not kept";
		}
	}
	else
		describe_other(relid, readable);

	/* new rows are found by columns that the query itself may not read */
	if (readable->changes == MD_CHANGE_APPEND &&
		pg_class_aclcheck(relid, owner, ACL_SELECT) != ACLCHECK_OK)
	{
		readable->changes = MD_CHANGE_REPLACE;
		readable->why = "its changes can be read only with SELECT on the whole table, not on some columns";
	}
}

/* ---------------------------------------------------------------------- */

typedef struct WholeRow
{
	Oid			relid;
	List	   *names;			/* columns of the row, of String */
	List	   *types;			/* of a subquery's row: of Var */
} WholeRow;

/* Columns of a table as a row expression wants them. */
static List *
table_row(WholeRow *whole, int varno, int sublevels_up)
{
	Relation	rel = table_open(whole->relid, AccessShareLock);
	List	   *args = NIL;

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		args = lappend(args, att->attisdropped ?
					   (Node *) makeNullConst(INT4OID, -1, InvalidOid) :
					   (Node *) makeVar(varno, i + 1, att->atttypid, att->atttypmod,
										att->attcollation, sublevels_up));
	}
	table_close(rel, NoLock);
	return args;
}

/* Spell out a reference to a whole row; other references stay. */
static Node *
expand_whole_row(Var *var, replace_rte_variables_context *context)
{
	WholeRow   *whole = context->callback_arg;
	RowExpr    *row;

	if (var->varattno != 0)
		return copyObject((Node *) var);
	row = makeNode(RowExpr);
	if (OidIsValid(whole->relid))
		row->args = table_row(whole, context->target_varno, context->sublevels_up);
	else
	{
		row->args = copyObject(whole->types);
		IncrementVarSublevelsUp((Node *) row->args, context->sublevels_up, 0);
	}
	row->row_typeid = var->vartype;
	row->row_format = COERCE_EXPLICIT_CAST;
	row->colnames = copyObject(whole->names);
	row->location = var->location;
	return (Node *) row;
}

/* The columns that a reference to the whole row means. */
static void
describe_row(RangeTblEntry *rte, int rt_index, WholeRow *whole)
{
	ListCell   *lc;

	whole->relid = rte->rtekind == RTE_RELATION ? rte->relid : InvalidOid;
	whole->names = copyObject(rte->eref->colnames);
	if (rte->rtekind != RTE_SUBQUERY)
		return;
	foreach(lc, rte->subquery->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			whole->types = lappend(whole->types,
								   makeVarFromTargetEntry(rt_index, target));
	}
}

void
md_read_replace_rte(Query *query, int rt_index, Query *subquery)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);
	WholeRow	whole = {InvalidOid, NIL, NIL};
	List	   *names = NIL;
	ListCell   *lc;

	describe_row(rte, rt_index, &whole);
	foreach(lc, subquery->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			names = lappend(names, makeString(pstrdup(target->resname)));
	}
	if (whole.relid != InvalidOid || whole.types != NIL)
		*query = *(Query *) replace_rte_variables((Node *) query, rt_index, 0,
												  expand_whole_row, &whole, NULL);
	rte = rt_fetch(rt_index, query->rtable);
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = subquery;
	rte->alias = makeAlias(rte->eref->aliasname, NIL);
	rte->eref = makeAlias(rte->eref->aliasname, names);
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->rellockmode = 0;
	rte->tablesample = NULL;
	rte->inh = false;
	rte->ctename = NULL;
	rte->coltypes = NIL;
	rte->coltypmods = NIL;
	rte->colcollations = NIL;
}

char *
md_read_columns(Oid relid, bool make_dropped)
{
	Relation	rel = table_open(relid, AccessShareLock);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (i > 0)
			appendStringInfoString(&list, ", ");
		if (!att->attisdropped)
			appendStringInfoString(&list, quote_identifier(NameStr(att->attname)));
		else if (make_dropped)
			appendStringInfo(&list, "NULL::pg_catalog.int4 AS \"?dropped%d?\"", i + 1);
		else
			appendStringInfo(&list, "\"?dropped%d?\"", i + 1);
	}
	table_close(rel, NoLock);
	return list.data;
}

/* "SELECT its columns FROM it WHERE condition" as a query. */
static Query *
part_query(const MdPart *part, bool with_children)
{
	int			nest_level = NewGUCNestLevel();
	Query	   *query;

	md_restrict_search_path();
	query = md_query_analyze(psprintf("SELECT %s FROM %s%s WHERE %s",
									  md_read_columns(part->relid, true),
									  with_children ? "" : "ONLY ",
									  md_read_relation_name(part->relid), part->condition));
	AtEOXact_GUC(false, nest_level);
	return query;
}

static MdPart *
find_part(List *parts, RangeTblEntry *rte)
{
	ListCell   *lc;

	/* OLD and NEW of a view's rule are not in FROM */
	if (rte->rtekind != RTE_RELATION || !rte->inFromCl)
		return NULL;
	foreach(lc, parts)
	{
		MdPart	   *part = lfirst(lc);

		if (part->relid == rte->relid)
			return part;
	}
	return NULL;
}

static bool
substitute_walker(Node *node, List *parts)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		int			rt_count = list_length(query->rtable);

		/* below first: what is put in here must not be walked */
		(void) query_tree_walker(query, substitute_walker, parts, 0);
		for (int i = 1; i <= rt_count; i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);
			MdPart	   *part = find_part(parts, rte);

			if (part != NULL)
				md_read_replace_rte(query, i, part_query(part, rte->inh));
		}
		return false;
	}
	return expression_tree_walker(node, substitute_walker, parts);
}

Query *
md_read_substitute(Query *query, List *parts)
{
	Query	   *copy = copyObject(query);

	(void) substitute_walker((Node *) copy, parts);
	return copy;
}
