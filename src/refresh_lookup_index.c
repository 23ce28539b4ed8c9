/*
 * refresh_lookup_index.c
 *		The index that serves a lookup, or the statement that would make it.
 *
 * An index serves when the first of its columns are among the expressions of the
 * lookup, under the operators of their types; the more of them the better.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "refresh_lookup.h"
#include "refresh_read.h"

/* Binary-compatible casts do not matter to an index. */
static Node *
bare(Node *expr)
{
	while (expr != NULL && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr;
}

/* The expression as indexes store theirs. */
static Node *
as_indexed(Node *expr)
{
	return bare(eval_const_expressions(NULL, copyObject(expr)));
}

/* Does column `column` (from 0) of the index hold the expression, to be compared so? */
static bool
holds(Relation index, int column, Node *key, Node *expr, bool is_range)
{
	TypeCacheEntry *type = lookup_type_cache(exprType(expr), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);
	Oid			operator = is_range ? type->lt_opr : type->eq_opr;
	AttrNumber	attnum = index->rd_index->indkey.values[column];
	Oid			collation = index->rd_indcollation[column];

	if (!OidIsValid(operator) || !op_in_opfamily(operator, index->rd_opfamily[column]) ||
		(OidIsValid(collation) && collation != exprCollation(expr)))
		return false;
	if (attnum == 0)
		return equal(bare(key), expr);
	return IsA(expr, Var) && ((Var *) expr)->varattno == attnum;
}

/* How many of the first columns of the index the lookup has values for. */
static int
count_served(Relation index, const MdLookup *lookup)
{
	List	   *keys = RelationGetIndexExpressions(index);
	ListCell   *key = list_head(keys);
	int			limit = lookup->is_range ? 1 : index->rd_index->indnkeyatts;
	Oid			method = index->rd_rel->relam;
	int			served = 0;

	if (!index->rd_index->indisvalid || RelationGetIndexPredicate(index) != NIL ||
		(method != BTREE_AM_OID && method != BRIN_AM_OID &&
		 (method != HASH_AM_OID || lookup->is_range)))
		return 0;
	for (; served < limit; served++)
	{
		Node	   *key_expr = NULL;
		bool		found = false;
		ListCell   *lc;

		if (index->rd_index->indkey.values[served] == 0)
		{
			key_expr = lfirst(key);
			key = lnext(keys, key);
		}
		foreach(lc, lookup->exprs)
			found = found || holds(index, served, key_expr, as_indexed(lfirst(lc)), lookup->is_range);
		if (!found)
			break;
	}
	return served;
}

/* The name of the index that serves best; NULL: none does. */
static char *
find_index(Relation rel, const MdLookup *lookup)
{
	int			best = 0;
	char	   *name = NULL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		int			served = count_served(index, lookup);

		if (served > best)
		{
			best = served;
			name = pstrdup(quote_identifier(RelationGetRelationName(index)));
		}
		index_close(index, AccessShareLock);
	}
	return name;
}

/* Can it stand in an index?  If not, why. */
static char *
why_not_indexed(Node *expr, const char *text)
{
	if (contain_mutable_functions(expr))
		return psprintf("%s is not immutable", text);
	if (!OidIsValid(GetDefaultOpClass(exprType(expr), BTREE_AM_OID)))
		return psprintf("type %s has no order", format_type_be(exprType(expr)));
	return NULL;
}

void
md_lookup_find_index(const MdLookup *lookup, MdLookupIndex *found)
{
	Relation	rel = table_open(lookup->relid, AccessShareLock);
	List	   *context = deparse_context_for(RelationGetRelationName(rel), lookup->relid);
	int			nest_level = NewGUCNestLevel();
	StringInfoData by;
	StringInfoData columns;
	ListCell   *lc;

	/* all names as they must be spelled under any search_path */
	md_restrict_search_path();
	memset(found, 0, sizeof(*found));
	initStringInfo(&by);
	initStringInfo(&columns);
	foreach(lc, lookup->exprs)
	{
		Node	   *expr = lfirst(lc);
		char	   *text = deparse_expression(expr, context, false, false);
		char	   *why = why_not_indexed(expr, text);

		appendStringInfo(&by, "%s%s", by.len > 0 ? ", " : "", text);
		if (why != NULL)
			found->why_none = why;
		else
			appendStringInfo(&columns, IsA(expr, Var) ? "%s%s" : "%s(%s)",
							 columns.len > 0 ? ", " : "", text);
	}
	found->by = by.data;
	found->index = find_index(rel, lookup);
	if (columns.len > 0)
		found->create = psprintf("CREATE INDEX ON %s (%s)", md_read_relation_name(lookup->relid),
								 columns.data);
	AtEOXact_GUC(false, nest_level);
	table_close(rel, NoLock);
}
