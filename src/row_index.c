/*
 * row_index.c
 *		The index of a result by a hash of the whole row.
 *
 * Columns whose type cannot be hashed are left out of it.  The index is found
 * again by what it is over, so that a dump and restore keeps it, whatever its
 * name.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "refresh_plan.h"
#include "relation_make.h"
#include "row_index.h"

/* Numbers of the columns that are hashed; NIL: none can be. */
static List *
hashed_columns(const MdTarget *target)
{
	List	   *numbers = NIL;

	for (int i = 1; i <= target->count; i++)
	{
		Oid			type = target->columns[i - 1].type_id;

		if (OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
			numbers = lappend_int(numbers, i);
	}
	return numbers;
}

static char *
hash_of(char *columns)
{
	return psprintf("pg_catalog.hash_record_extended(ROW(%s), 0)", columns);
}

char *
md_row_index_condition(const MdTarget *target, const char *row, const char *numbered)
{
	List	   *columns = hashed_columns(target);

	if (columns == NIL)
		return "true";
	return psprintf("%s = %s", hash_of(md_target_columns(target, row, columns)),
					hash_of(md_target_numbered(target, numbered, columns)));
}

/* Is the index over this expression alone? */
static bool
is_over(Oid index_id, Node *expr)
{
	Relation	index = index_open(index_id, AccessShareLock);
	List	   *expressions = RelationGetIndexExpressions(index);
	bool		is = index->rd_index->indisvalid && index->rd_index->indnatts == 1 &&
		RelationGetIndexPredicate(index) == NIL &&
		list_length(expressions) == 1 && equal(linitial(expressions), expr);

	index_close(index, NoLock);
	return is;
}

static Oid
find_index(const MdTarget *target, const char *hash)
{
	Query	   *query = md_query_analyze(psprintf("SELECT %s FROM %s", hash, target->name));
	Node	   *expr = eval_const_expressions(NULL, (Node *)
											  linitial_node(TargetEntry, query->targetList)->expr);
	Relation	rel = table_open(target->relid, AccessShareLock);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
		if (!OidIsValid(found) && is_over(lfirst_oid(lc), expr))
			found = lfirst_oid(lc);
	table_close(rel, NoLock);
	return found;
}

Oid
md_row_index_find(Oid relid)
{
	MdTarget   *target = md_target_make(relid);
	List	   *columns = hashed_columns(target);
	Oid			found = InvalidOid;
	MdSecurity	saved;

	md_catalog_become_owner(&saved);
	if (columns != NIL)
		found = find_index(target, hash_of(md_target_columns(target, NULL, columns)));
	md_catalog_restore_user(&saved);
	return found;
}

void
md_row_index_ensure(const MdTarget *target)
{
	List	   *columns = hashed_columns(target);
	char	   *hash = hash_of(md_target_columns(target, NULL, columns));

	if (columns == NIL || OidIsValid(find_index(target, hash)))
		return;
	(void) md_relation_make_index(target->relid, "medallion_row", psprintf("(%s)", hash));
}

int64
md_row_index_rows(const MdTarget *target)
{
	Relation	rel = table_open(target->relid, AccessShareLock);
	BlockNumber pages;
	double		tuples;
	double		visible;

	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	table_close(rel, NoLock);
	return (int64) tuples;
}
