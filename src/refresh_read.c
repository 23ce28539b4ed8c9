/*
 * refresh_read.c
 *		Reading a part of a source in the place of the whole.
 *
 * A subquery that stands for a table keeps its attribute numbers: a dropped
 * column is a NULL in its place, and a reference to the whole row is spelled
 * out, because a subquery's row is of no named type.  Where an outer join may
 * leave no row, a further column tells a row of NULLs from none.
 *
 * A join lists the columns of its inputs, and a join that has a name cannot be
 * printed over a subquery that has others: PostgreSQL knows columns that came
 * or went for relations alone, and reads past the end of the join's list.  So
 * in a query as it was written, the subquery has the columns that are listed.
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "refresh_plan.h"
#include "refresh_read.h"
#include "refresh_tree.h"

char *
md_read_operator(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

char *
md_read_relation_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

typedef struct WholeRow
{
	Oid			relid;
	List	   *names;			/* columns of the row, of String */
	List	   *types;			/* of a subquery's row: of Var */
	Query	   *subquery;		/* that comes in its place */
	bool		nullable;		/* there may be no row */
	AttrNumber	marker;			/* column of subquery that is never NULL; 0: not known yet */
} WholeRow;

/* Does the entry stand where an outer join may leave no row of it? */
static bool
is_nullable(Node *from, int rt_index, bool nullable)
{
	JoinExpr   *join = (JoinExpr *) from;
	ListCell   *lc;

	if (IsA(from, RangeTblRef))
		return nullable && ((RangeTblRef *) from)->rtindex == rt_index;
	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			if (is_nullable(lfirst(lc), rt_index, nullable))
				return true;
		return false;
	}
	return is_nullable(join->larg, rt_index, nullable || join->jointype == JOIN_RIGHT ||
					   join->jointype == JOIN_FULL) ||
		is_nullable(join->rarg, rt_index, nullable || join->jointype == JOIN_LEFT ||
					join->jointype == JOIN_FULL);
}

/* CASE WHEN the subquery has a row THEN row END */
static Node *
row_if_there(WholeRow *whole, Node *row, int varno, int sublevels_up)
{
	CaseExpr   *there = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	if (whole->marker == 0)
	{
		whole->subquery = md_tree_wrap(whole->subquery, "w");
		md_tree_add_column(whole->subquery, (Expr *) makeBoolConst(true, false), "?there?");
		whole->marker = md_tree_width(whole->subquery);
	}
	when->expr = md_tree_is_null((Expr *) makeVar(varno, whole->marker, BOOLOID, -1, InvalidOid,
												  sublevels_up), false);
	when->result = (Expr *) row;
	when->location = -1;
	there->casetype = exprType(row);
	there->args = list_make1(when);
	there->defresult = (Expr *) makeNullConst(there->casetype, -1, InvalidOid);
	there->location = -1;
	return (Node *) there;
}

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
	if (!whole->nullable)
		return (Node *) row;
	return row_if_there(whole, (Node *) row, context->target_varno, context->sublevels_up);
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
	WholeRow	whole = {.subquery = subquery};
	List	   *names = NIL;
	ListCell   *lc;

	describe_row(rte, rt_index, &whole);
	whole.nullable = is_nullable((Node *) query->jointree, rt_index, false);
	if (whole.relid != InvalidOid || whole.types != NIL)
		*query = *(Query *) replace_rte_variables((Node *) query, rt_index, 0,
												  expand_whole_row, &whole, NULL);
	subquery = whole.subquery;
	foreach(lc, subquery->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			names = lappend(names, makeString(pstrdup(target->resname)));
	}
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

/* Where the join right above an input lists its columns; NULL: there is none. */
static List **
listed_columns(Query *query, Node *from, int rt_index)
{
	List	  **found = NULL;
	ListCell   *lc;

	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			if (found == NULL)
				found = listed_columns(query, lfirst(lc), rt_index);
	}
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;
		RangeTblEntry *rte = rt_fetch(join->rtindex, query->rtable);

		if (IsA(join->larg, RangeTblRef) && ((RangeTblRef *) join->larg)->rtindex == rt_index)
			return &rte->joinleftcols;
		if (IsA(join->rarg, RangeTblRef) && ((RangeTblRef *) join->rarg)->rtindex == rt_index)
			return &rte->joinrightcols;
		found = listed_columns(query, join->larg, rt_index);
		if (found == NULL)
			found = listed_columns(query, join->rarg, rt_index);
	}
	return found;
}

typedef struct UsedColumns
{
	int			rt_index;
	Index		levels_up;
	Bitmapset  *numbers;
} UsedColumns;

/* The columns of an input that are referred to, by joins' lists apart. */
static bool
used_columns_walker(Node *node, UsedColumns *used)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == used->rt_index && var->varlevelsup == used->levels_up && var->varattno > 0)
			used->numbers = bms_add_member(used->numbers, var->varattno);
		return false;
	}
	if (IsA(node, Query))
	{
		bool		found;

		used->levels_up++;
		found = query_tree_walker((Query *) node, used_columns_walker, used, QTW_IGNORE_JOINALIASES);
		used->levels_up--;
		return found;
	}
	return expression_tree_walker(node, used_columns_walker, used);
}

/* A query with some of its visible columns alone: it is a plain one, or a part of FROM. */
static Query *
select_columns(Query *query, Bitmapset *kept)
{
	bool		plain = query->setOperations == NULL && query->distinctClause == NIL && !query->hasTargetSRFs;
	Query	   *outer = md_tree_select();
	List	   *targets = NIL;
	ListCell   *lc;
	int			number = 0;
	int			inner;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk || bms_is_member(++number, kept))
			targets = lappend(targets, target);
		else if (target->ressortgroupref != 0)
			plain = false;
	}
	if (plain)
	{
		foreach(lc, targets)
			lfirst_node(TargetEntry, lc)->resno = foreach_current_index(lc) + 1;
		query->targetList = targets;
		return query;
	}
	inner = md_tree_add_subquery(outer, query, "a");
	for (number = -1; (number = bms_next_member(kept, number)) >= 0;)
		md_tree_add_column(outer, (Expr *) md_tree_column(outer, inner, number),
						   md_tree_target(query, number)->resname);
	return outer;
}

/* Leave an input some of its columns, and number them anew. */
static void
keep_columns(Query *query, int rt_index, Bitmapset *kept)
{
	RangeTblEntry *rte = rt_fetch(rt_index, query->rtable);
	AttrMap    *map = make_attrmap(md_tree_width(rte->subquery));
	List	   *names = NIL;
	ListCell   *lc;
	bool		has_whole_row;

	for (int number = -1, n = 1; (number = bms_next_member(kept, number)) >= 0; n++)
	{
		map->attnums[number - 1] = n;
		names = lappend(names, list_nth(rte->eref->colnames, number - 1));
	}
	*query = *(Query *) map_variable_attnos((Node *) query, rt_index, 0, map, InvalidOid, &has_whole_row);
	rte = rt_fetch(rt_index, query->rtable);
	rte->subquery = select_columns(rte->subquery, kept);
	rte->eref->colnames = names;
	foreach(lc, *listed_columns(query, (Node *) query->jointree, rt_index))
		if (lfirst_int(lc) > 0)
			lfirst_int(lc) = map->attnums[lfirst_int(lc) - 1];
}

static bool
has_named_join(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_JOIN && rte->alias != NULL)
			return true;
	}
	return false;
}

void
md_read_replace_relation(Query *query, int rt_index, Query *subquery)
{
	UsedColumns used = {.rt_index = rt_index};
	Bitmapset  *kept = NULL;
	List	  **listed;
	ListCell   *lc;
	int			location;

	md_read_replace_rte(query, rt_index, subquery);
	listed = listed_columns(query, (Node *) query->jointree, rt_index);
	if (listed == NULL)
		return;
	foreach(lc, *listed)
		if (lfirst_int(lc) > 0)
			kept = bms_add_member(kept, lfirst_int(lc));
	(void) query_tree_walker(query, used_columns_walker, &used, QTW_IGNORE_JOINALIASES);
	if (!bms_is_subset(used.numbers, kept))
	{
		/* what a whole row needs besides: joins are listed anew, without names */
		if (!md_plan_has_join_row(query, &location))
		{
			md_tree_flatten_joins(query);
			return;
		}
		if (has_named_join(query))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a query with the row of a join as a whole cannot refer to the row of \"%s\" inside of it",
							rt_fetch(rt_index, query->rtable)->eref->aliasname)));
	}
	kept = bms_union(kept, used.numbers);
	if (bms_num_members(kept) < md_tree_width(rt_fetch(rt_index, query->rtable)->subquery))
		keep_columns(query, rt_index, kept);
}

/* Columns by name, in order; dropped ones are named, or made as NULLs. */
static char *
list_attributes(Oid relid, bool make_dropped)
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
		else
			appendStringInfo(&list, "%s\"?dropped%d?\"",
							 make_dropped ? "NULL::pg_catalog.int4 AS " : "", i + 1);
	}
	table_close(rel, NoLock);
	return list.data;
}

char *
md_read_attributes(Oid relid)
{
	return list_attributes(relid, true);
}

char *
md_read_attribute_names(Oid relid)
{
	return list_attributes(relid, false);
}

/*
 * A query over a registered tuplestore.  The parser here does not know it, and
 * a reference to it cannot be spelled out again; so it is analyzed as a WITH
 * query of that name, of which the reference alone is kept.
 */
static Query *
store_query(const MdPart *part)
{
	Query	   *query;

	query = md_query_analyze(psprintf("WITH %s AS (SELECT %s, 0::pg_catalog.int4 AS md_weight FROM %s) %s",
									  quote_identifier(part->store_name),
									  md_read_attributes(part->relid),
									  md_read_relation_name(part->relid), part->query));
	query->cteList = NIL;
	return query;
}

/*
 * The same part, such that Postgres moves no condition of the query into it, where
 * it might be looked at for rows that the part leaves out.
 */
static const MdPart *
fence(const MdPart *part)
{
	MdPart	   *fenced = palloc(sizeof(MdPart));

	*fenced = *part;
	fenced->is_fenced = false;
	if (part->query != NULL)
		fenced->query = psprintf("%s OFFSET 0", part->query);
	else
		fenced->condition = psprintf("%s OFFSET 0", part->condition);
	return fenced;
}

Query *
md_read_part_query(const MdPart *part, bool with_children)
{
	Query	   *query;
	int			nest_level = NewGUCNestLevel();

	md_restrict_search_path();
	if (part->is_fenced)
		query = md_read_part_query(fence(part), with_children);
	else if (part->store_name != NULL)
		query = store_query(part);
	else if (part->query != NULL)
		query = md_query_analyze(part->query);
	else
		query = md_query_analyze(psprintf("SELECT %s FROM %s%s WHERE %s",
										  md_read_attributes(part->relid),
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
				md_read_replace_relation(query, i, md_read_part_query(part, rte->inh));
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
