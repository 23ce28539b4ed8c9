/*
 * refresh_state.c
 *		The tables and indexes that a plan needs beside the result.
 *
 *		plan					state table						found by
 *		merge, needs_state		key1.., a column per aggregate	keys
 *		  of grouping sets		key1.., set, likewise			keys, set
 *		merge, a value set		key1.., value [, copies]		keys, value
 *		latest, hidden order	key1.., order1..				keys
 *		top						first1..						reading all of it
 *
 * They are made anew at each rebuild, filled while they have no index, and indexed
 * then: that is several times faster than the other way round.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "refresh_state.h"
#include "refresh_top.h"
#include "refresh_upsert.h"
#include "relation_make.h"
#include "row_index.h"
#include "type_shape.h"

/* A state table that the plan wants. */
typedef struct Wanted
{
	const char *suffix;			/* of its name */
	List	   *columns;		/* of ColumnDef */
	int			key_count;		/* leading columns that identify a row */
	bool		updated;		/* rows are updated in place */
} Wanted;

/* Column definitions under construction. */
typedef struct Columns
{
	List	   *names;
	List	   *exprs;
} Columns;

static void
add_column(Columns *columns, char *name, Expr *expr)
{
	columns->names = lappend(columns->names, makeString(name));
	columns->exprs = lappend(columns->exprs, expr);
}

static Wanted *
make_wanted(const char *suffix, Columns *columns, int key_count, bool updated)
{
	Wanted	   *wanted = palloc(sizeof(Wanted));

	wanted->suffix = suffix;
	wanted->columns = md_relation_columns(columns->names, columns->exprs);
	wanted->key_count = key_count;
	wanted->updated = updated;
	return wanted;
}

/* Names tell what a column is, so that a table that means something else never fits. */
static Wanted *
merge_table(const MdMerge *merge)
{
	static const char *const names[] = {
		[MD_COMBINE_KEY] = "key",
		[MD_COMBINE_ADD] = "add",
		[MD_COMBINE_LEAST] = "least",
		[MD_COMBINE_GREATEST] = "greatest",
		[MD_COMBINE_AND] = "and",
		[MD_COMBINE_OR] = "or",
		[MD_COMBINE_MOMENTS] = "moments",
	};
	Columns		columns = {NIL, NIL};
	ListCell   *lc;

	foreach(lc, merge->columns)
	{
		MdMergeColumn *column = lfirst(lc);

		add_column(&columns, psprintf("%s%s%d", merge->is_signed ? "signed_" : "",
									  IsA(column->expr, GroupingFunc) ? "set" : names[column->combine],
									  list_length(columns.names) + 1), column->expr);
	}
	return make_wanted(" state", &columns, merge->key_count, true);
}

static Wanted *
value_table(const MdMerge *merge, const MdValueSet *set)
{
	Columns		columns = {NIL, NIL};
	ListCell   *lc;

	foreach(lc, md_merge_keys(merge))
	{
		MdMergeColumn *column = list_nth(merge->columns, lfirst_int(lc) - 1);

		add_column(&columns, psprintf("key%d", list_length(columns.names) + 1), column->expr);
	}
	add_column(&columns, "value", list_nth(merge->inputs, set->value - 1));
	if (merge->is_signed)
		add_column(&columns, "copies", (Expr *) makeNullConst(INT8OID, -1, InvalidOid));
	return make_wanted(" values", &columns, merge->key_count + 1, merge->is_signed);
}

static Wanted *
latest_table(const MdLatest *latest)
{
	Columns		columns = {NIL, NIL};
	ListCell   *lc;

	foreach(lc, latest->keys)
		add_column(&columns, psprintf("key%d", list_length(columns.names) + 1),
				   list_nth(latest->inputs, lfirst_int(lc) - 1));
	for (int n = latest->result_count; n < list_length(latest->inputs); n++)
		add_column(&columns, psprintf("order%d", list_length(columns.names) + 1),
				   list_nth(latest->inputs, n));
	return make_wanted(" order", &columns, list_length(latest->keys), true);
}

static Wanted *
top_table(const MdTop *top)
{
	Columns		columns = {NIL, NIL};
	ListCell   *lc;

	foreach(lc, top->exprs)
		add_column(&columns, psprintf("first%d", list_length(columns.names) + 1), lfirst(lc));
	return make_wanted(" top", &columns, 0, false);
}

/* All state tables of a plan (of Wanted), in the order of MdView.state_tables. */
static List *
wanted_tables(const MdPlan *plan)
{
	List	   *tables = NIL;
	ListCell   *lc;

	if (plan->merge != NULL && plan->merge->needs_state)
		tables = lappend(tables, merge_table(plan->merge));
	if (plan->merge != NULL)
		foreach(lc, plan->merge->value_sets)
			tables = lappend(tables, value_table(plan->merge, lfirst(lc)));
	if (plan->latest != NULL && list_length(plan->latest->inputs) > plan->latest->result_count)
		tables = lappend(tables, latest_table(plan->latest));
	if (plan->top != NULL && md_top_has_state(plan->top))
		tables = lappend(tables, top_table(plan->top));
	return tables;
}

/* Has the table the columns that are wanted? */
static bool
table_fits(Oid relid, const Wanted *wanted)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	TupleDesc	tupdesc;
	bool		fits;

	if (rel == NULL)
		return false;
	tupdesc = RelationGetDescr(rel);
	fits = tupdesc->natts == list_length(wanted->columns);
	for (int i = 0; fits && i < tupdesc->natts; i++)
	{
		ColumnDef  *column = list_nth(wanted->columns, i);
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		fits = !att->attisdropped && att->atttypid == column->typeName->typeOid &&
			att->attcollation == column->collOid && strcmp(NameStr(att->attname), column->colname) == 0;
	}
	table_close(rel, NoLock);
	return fits;
}

static void
drop_tables(MdView *view)
{
	ListCell   *lc;

	foreach(lc, view->state_tables)
		if (get_rel_relkind(lfirst_oid(lc)) != '\0')
			md_relation_drop_part(lfirst_oid(lc));
	view->state_tables = NIL;
}

List *
md_state_result_keys(const MdPlan *plan)
{
	return plan->merge ? md_merge_result_keys(plan->merge) :
		plan->latest ? plan->latest->keys :
		plan->strategy == MD_STRATEGY_REGROUP && plan->keys_unique ? plan->key_columns : NIL;
}

void
md_state_index_result(MdView *view, MdPlan *plan)
{
	List	   *plan_keys = md_state_result_keys(plan);
	List	   *keys = md_target_numbers(md_target_make(view->relid), view->key_count, view->keys);
	bool		has_sets = plan->merge != NULL && plan->merge->sets != NIL;

	/* of several sets some rows may have the same keys */
	view->merge_index = has_sets ? md_upsert_ensure_hash(view->relid, view->merge_index, plan_keys) :
		md_upsert_ensure_index(view->relid, view->merge_index, plan_keys, false);
	/* one index serves both if they are the same columns */
	view->key_index = md_upsert_ensure_index(view->relid, view->key_index,
											 !has_sets && equal(keys, plan_keys) ? NIL : keys, true);
}

static bool
shows_composites(const MdTarget *result)
{
	ListCell   *lc;

	for (int i = 0; i < result->count; i++)
		foreach(lc, md_type_shapes_collect(NIL, result->columns[i].type_id))
			if (get_typtype(lfirst_oid(lc)) == TYPTYPE_COMPOSITE)
				return true;
	return false;
}

void
md_state_distrust_composites(MdView *view, MdTarget *result)
{
	List	   *indexes;
	ListCell   *lc;

	if (!shows_composites(result))
		return;
	indexes = list_make3_oid(view->merge_index, view->key_index, md_row_index_find(view->relid));
	foreach(lc, indexes)
		if (OidIsValid(lfirst_oid(lc)))
			md_relation_drop_part(lfirst_oid(lc));
	view->merge_index = InvalidOid;
	view->key_index = InvalidOid;
	result->by_row = true;
}

void
md_state_prepare(MdView *view, MdPlan *plan)
{
	MdView		before = *view;
	List	   *tables = wanted_tables(plan);
	bool		fit = list_length(tables) == list_length(view->state_tables);

	for (int i = 0; fit && i < list_length(tables); i++)
		fit = table_fits(list_nth_oid(view->state_tables, i), list_nth(tables, i));
	if (!fit)
	{
		drop_tables(view);
		if (tables != NIL)
			view->populated = false;
	}
	if (view->populated)
		md_state_index_result(view, plan);
	if (!fit || before.merge_index != view->merge_index || before.key_index != view->key_index)
		md_view_update(view);
}

void
md_state_make(MdView *view, MdPlan *plan)
{
	ListCell   *lc;

	drop_tables(view);
	foreach(lc, wanted_tables(plan))
	{
		Wanted	   *wanted = lfirst(lc);

		view->state_tables = lappend_oid(view->state_tables,
										 md_relation_make_state(view->relid, wanted->suffix,
																wanted->columns, view->owner,
																wanted->updated));
	}
}

void
md_state_index(MdView *view, MdPlan *plan)
{
	ListCell   *table;
	ListCell   *relid;

	forboth(table, wanted_tables(plan), relid, view->state_tables)
	{
		List	   *keys = NIL;

		for (int key = 1; key <= ((Wanted *) lfirst(table))->key_count; key++)
			keys = lappend_int(keys, key);
		(void) md_upsert_ensure_index(lfirst_oid(relid), InvalidOid, keys, false);
	}
	md_state_index_result(view, plan);
	md_view_update(view);
}

/* What the name of a state table ends in, but for a number. */
static const char *
suffix_of(Oid relid)
{
	static const char *const suffixes[] = {" values", " order", " top"};
	const char *name = get_rel_name(relid);

	for (int i = 0; i < lengthof(suffixes); i++)
		if (strstr(name, suffixes[i]) != NULL)
			return suffixes[i];
	return " state";
}

void
md_state_adopt(MdView *view, MdView *next)
{
	ListCell   *lc;

	drop_tables(view);
	view->state_tables = list_copy(next->state_tables);
	foreach(lc, view->state_tables)
	{
		Oid			relid = lfirst_oid(lc);

		md_relation_detach(relid);
		md_relation_attach(relid, view->relid);
		RenameRelationInternal(relid, md_relation_internal_name(view->relid, suffix_of(relid)),
							   false, false);
		CommandCounterIncrement();
	}
	next->state_tables = NIL;
}

MdTarget *
md_state_target(const MdView *view)
{
	return md_target_make(linitial_oid(view->state_tables));
}

MdTarget *
md_state_values(const MdView *view, const MdMerge *merge, int value_set)
{
	return md_target_make(list_nth_oid(view->state_tables, merge->needs_state + value_set - 1));
}
