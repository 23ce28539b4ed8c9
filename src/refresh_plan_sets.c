/*
 * refresh_plan_sets.c
 *		GROUPING SETS, ROLLUP and CUBE that take in a change.
 *
 * What the change is aggregated to, and what is kept, are the rows of all sets in one
 * table.  A set is known by its number, GROUPING() of all keys: a bit for each, from
 * the left, that is 1 if the set is without the key.  It is the last key of a row,
 * since the others do not tell: a NULL may be a value, too.
 *
 *		SELECT a, b, sum(x) FROM t GROUP BY ROLLUP (a, b)
 *	->	input (i1 = a, i2 = b, i3 = x), sets 0, 1, 3,
 *		state (key1 = i1, key2 = i2, set3 = GROUPING(i1, i2), add4 = sum(i3))
 *
 * A set that is there twice is kept once, and shown twice.  The empty set has its row
 * from the first refresh on, whatever comes and goes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

#include "expr_make.h"
#include "refresh_merge.h"

int
md_sets_own_keys(const MdMerge *merge)
{
	return merge->key_count - (merge->sets != NIL);
}

/* The bit of a key (from 1), GROUPING()'s first argument having the highest. */
static int
bit_number(const MdMerge *merge, int key)
{
	return md_sets_own_keys(merge) - key;
}

bool
md_sets_has_key(const MdMerge *merge, int set, int key)
{
	return ((uint32) set >> bit_number(merge, key) & 1) == 0;
}

List *
md_sets_distinct(const MdMerge *merge)
{
	return list_concat_unique_int(NIL, merge->sets);
}

char *
md_sets_having_key(const MdMerge *merge, const char *set, int key)
{
	return psprintf("(%s & %d) = 0", set, 1 << bit_number(merge, key));
}

char *
md_sets_values(const MdMerge *merge)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, md_sets_distinct(merge))
		appendStringInfo(&list, "%s(%d)", list.len > 0 ? ", " : "", lfirst_int(lc));
	return list.data;
}

char *
md_sets_copies(const MdMerge *merge, const char *set)
{
	StringInfoData list;
	ListCell   *lc;
	ListCell   *other;

	if (list_length(md_sets_distinct(merge)) == list_length(merge->sets))
		return NULL;
	initStringInfo(&list);
	foreach(lc, md_sets_distinct(merge))
	{
		int			copies = 0;

		foreach(other, merge->sets)
			copies += lfirst_int(other) == lfirst_int(lc);
		appendStringInfo(&list, " WHEN %d THEN %d", lfirst_int(lc), copies);
	}
	return psprintf("CASE %s%s END", set, list.data);
}

int
md_sets_empty(const MdMerge *merge)
{
	int			empty;

	if (merge->sets == NIL)
		return -1;
	empty = (int) (((uint32) 1 << md_sets_own_keys(merge)) - 1);
	return list_member_int(merge->sets, empty) ? empty : -1;
}

List *
md_sets_clause(const MdMerge *merge)
{
	GroupingSet *all = makeGroupingSet(GROUPING_SET_SETS, NIL, -1);
	ListCell   *lc;

	foreach(lc, md_sets_distinct(merge))
	{
		List	   *refs = NIL;

		for (int key = 1; key <= md_sets_own_keys(merge); key++)
			if (md_sets_has_key(merge, lfirst_int(lc), key))
				refs = lappend_int(refs, key);
		all->content = lappend(all->content,
							   makeGroupingSet(refs == NIL ? GROUPING_SET_EMPTY : GROUPING_SET_SIMPLE, refs, -1));
	}
	return list_make1(all);
}

/* Rows of the result are looked up by a hash of the keys. */
static void
check_key(MdSplitter *splitter, Expr *key)
{
	Oid			type = exprType((Node *) key);

	if (IsA(key, Const))
		md_split_refuse(splitter, "a constant as a key of GROUPING SETS does not merge", -1);
	else if (!OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
		md_split_refuse(splitter, psprintf("keys of type %s cannot be hashed", format_type_be(type)),
						exprLocation((Node *) key));
}

void
md_sets_split(MdSplitter *splitter, List *groups)
{
	MdMerge    *merge = splitter->merge;
	Query	   *query = splitter->query;
	GroupingFunc *number = makeNode(GroupingFunc);
	MdMergeColumn *column = palloc0(sizeof(MdMergeColumn));
	List	   *keys = NIL;
	ListCell   *lc;
	ListCell   *g;

	foreach(lc, merge->columns)
	{
		Var		   *key = castNode(Var, ((MdMergeColumn *) lfirst(lc))->expr);

		check_key(splitter, list_nth(merge->inputs, key->varattno - 1));
		if (list_member(keys, key))
			md_split_refuse(splitter, "keys of GROUPING SETS that are the same do not merge", -1);
		keys = lappend(keys, copyObject(key));
	}
	foreach(lc, expand_grouping_sets(query->groupingSets, query->groupDistinct, -1))
	{
		uint32		set = 0;

		foreach(g, groups)
			set = set << 1 | !list_member_int(lfirst(lc), lfirst_node(SortGroupClause, g)->tleSortGroupRef);
		merge->sets = lappend_int(merge->sets, (int) set);
	}
	number->args = keys;
	number->location = -1;
	column->expr = (Expr *) number;
	column->combine = MD_COMBINE_KEY;
	merge->columns = lappend(merge->columns, column);
	merge->key_count++;
}

/* Bit `from` of the number as bit `to`. */
static Expr *
move_bit(Expr *number, int from, int to)
{
	Expr	   *bit = from == 0 ? number : md_expr_operate(">>", number, md_expr_int4(from));

	bit = md_expr_operate("&", bit, md_expr_int4(1));
	return to == 0 ? bit : md_expr_operate("<<", bit, md_expr_int4(to));
}

/* The key (from 1) that a number of GROUP BY means. */
static int
key_of(Query *query, Index ref)
{
	int			key = 0;
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		key++;
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == ref)
			return key;
	}
	elog(ERROR, "GROUPING() of what is no key");
}

Node *
md_sets_split_grouping(MdSplitter *splitter, GroupingFunc *grouping)
{
	MdMerge    *merge = splitter->merge;
	int			count = list_length(grouping->refs);
	Expr	   *number = (Expr *) makeVar(1, merge->key_count, INT4OID, -1, InvalidOid, 0);
	Expr	   *result = NULL;
	bool		is_number = count == md_sets_own_keys(merge);
	int			place = 0;
	ListCell   *lc;

	/* without sets every key is there */
	if (merge->sets == NIL || count == 0)
		return (Node *) md_expr_int4(0);
	foreach(lc, grouping->refs)
	{
		int			key = key_of(splitter->query, lfirst_int(lc));
		Expr	   *bit;

		place++;
		is_number = is_number && key == place;
		bit = move_bit(copyObject(number), bit_number(merge, key), count - place);
		result = result == NULL ? bit : md_expr_operate("|", result, bit);
	}
	return (Node *) (is_number ? number : result);
}
