/*
 * refresh_target.c
 *		A table that a refresh writes: its columns as pieces of SQL.
 *
 * The columns of a result are those of its query in order, whatever they have
 * been renamed to; so everything goes by number.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "refresh_read.h"
#include "refresh_target.h"

bool
md_target_is_comparable(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR |
											  TYPECACHE_CMP_PROC);

	return OidIsValid(entry->eq_opr) && OidIsValid(entry->lt_opr) && OidIsValid(entry->cmp_proc);
}

bool
md_target_equal_is_same(Oid type, Oid collation)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	Oid			function = InvalidOid;

	if (OidIsValid(entry->btree_opf))
		function = get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype,
									 BTEQUALIMAGE_PROC);
	return OidIsValid(function) &&
		DatumGetBool(OidFunctionCall1Coll(function, OidIsValid(collation) ? collation : DEFAULT_COLLATION_OID,
										  ObjectIdGetDatum(entry->btree_opintype)));
}

MdTarget *
md_target_make(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	tupdesc = RelationGetDescr(rel);
	MdTarget   *target = palloc0(sizeof(MdTarget));

	target->relid = relid;
	target->name = md_read_relation_name(relid);
	target->columns = palloc0(sizeof(MdTargetColumn) * Max(1, tupdesc->natts));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		MdTargetColumn *column = &target->columns[target->count];

		if (att->attisdropped)
			continue;
		target->count++;
		column->attnum = i + 1;
		column->name = pstrdup(quote_identifier(NameStr(att->attname)));
		column->type = format_type_extended(att->atttypid, att->atttypmod,
											FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
		column->type_id = att->atttypid;
		column->comparable = md_target_is_comparable(att->atttypid);
		column->same = md_target_equal_is_same(att->atttypid, att->attcollation);
	}
	table_close(rel, NoLock);
	return target;
}

/* The lists below differ in what is written for a column. */
static char *
make_list(const MdTarget *target, const char *alias, List *numbers, bool numbered,
		  bool comparable)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= target->count; i++)
	{
		const MdTargetColumn *column;
		int			number = i;

		if (numbers != NIL)
		{
			if (i > list_length(numbers))
				break;
			number = list_nth_int(numbers, i - 1);
		}
		column = &target->columns[number - 1];
		if (list.len > 0)
			appendStringInfoString(&list, ", ");
		if (alias != NULL)
			appendStringInfo(&list, "%s.", alias);
		if (numbered)
			appendStringInfo(&list, "c%d", number);
		else
			appendStringInfoString(&list, column->name);
		if (comparable && !column->comparable)
			appendStringInfoString(&list, "::pg_catalog.text");
	}
	return list.data;
}

char *
md_target_columns(const MdTarget *target, const char *alias, List *numbers)
{
	return make_list(target, alias, numbers, false, false);
}

char *
md_target_comparable(const MdTarget *target, const char *alias, List *numbers)
{
	return make_list(target, alias, numbers, false, true);
}

char *
md_target_numbered(const MdTarget *target, const char *alias, List *numbers)
{
	return make_list(target, alias, numbers, true, false);
}

char *
md_target_numbered_comparable(const MdTarget *target, const char *alias, List *numbers)
{
	return make_list(target, alias, numbers, true, true);
}

char *
md_target_same(const MdTarget *target, const char *alias, bool numbered)
{
	StringInfoData list;

	initStringInfo(&list);
	appendStringInfoString(&list, make_list(target, alias, NIL, numbered, true));
	for (int i = 1; i <= target->count; i++)
	{
		const MdTargetColumn *column = &target->columns[i - 1];

		if (column->comparable && !column->same)
			appendStringInfo(&list, ", %s.%s::pg_catalog.text", alias,
							 numbered ? psprintf("c%d", i) : column->name);
	}
	return list.data;
}

List *
md_target_numbers(const MdTarget *target, int count, const AttrNumber *attnums)
{
	List	   *numbers = NIL;

	for (int k = 0; k < count; k++)
		for (int i = 0; i < target->count; i++)
			if (target->columns[i].attnum == attnums[k])
				numbers = lappend_int(numbers, i + 1);
	return numbers;
}

List *
md_target_others(const MdTarget *target, List *numbers)
{
	List	   *others = NIL;

	for (int i = 1; i <= target->count; i++)
		if (!list_member_int(numbers, i))
			others = lappend_int(others, i);
	return others;
}

char *
md_target_assignments(const MdTarget *target, List *numbers)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, numbers)
		appendStringInfo(&list, "%s%s = n.c%d", list.len > 0 ? ", " : "",
						 target->columns[lfirst_int(lc) - 1].name, lfirst_int(lc));
	return list.data;
}
