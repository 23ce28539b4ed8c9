/*
 * compat.h
 *		Differences between PostgreSQL 15, 16, 17 and 18.
 *
 * The only file that tests PG_VERSION_NUM: a difference gets a name here, and
 * the rest of the extension uses that name.
 */
#ifndef MD_COMPAT_H
#define MD_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "pg_medallion needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "common/jsonapi.h"
#include "datatype/timestamp.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/relcache.h"
#include "utils/rel.h"

/* The mark of a function that does not return stands first since 18. */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* JSON semantic actions return void in 15 and an error code since 16. */
#if PG_VERSION_NUM >= 160000
#define MD_JSON_ACTION_RESULT JsonParseErrorType
#define MD_JSON_ACTION_RETURN return JSON_SUCCESS
#else
#define MD_JSON_ACTION_RESULT void
#define MD_JSON_ACTION_RETURN return
#endif

/* An escape sequence that the encoding has no character for: 15 throws. */
#if PG_VERSION_NUM >= 160000
#define MD_JSON_IS_UNTRANSLATABLE(result) \
	((result) == JSON_UNICODE_CODE_POINT_ZERO || (result) == JSON_UNICODE_UNTRANSLATABLE)
#else
#define MD_JSON_IS_UNTRANSLATABLE(result) ((result) == JSON_UNICODE_CODE_POINT_ZERO)
#endif

/* Make a lexer over len bytes of json in the database encoding. */
static inline JsonLexContext *
md_json_lexer(char *json, int len, bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, len, GetDatabaseEncoding(),
										need_escapes);
#else
	return makeJsonLexContextCstringLen(json, len, GetDatabaseEncoding(),
										need_escapes);
#endif
}

/* RestrictSearchPath() came with 17; before, the setting does the same. */
static inline void
md_restrict_search_path(void)
{
	set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
					  PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* Live rows by the counters of writes; 0 if nothing is known. */
static inline double
md_counted_rows(Oid relid)
{
	PgStat_StatTabEntry *entry = pgstat_fetch_stat_tabentry(relid);

#if PG_VERSION_NUM >= 160000
	return entry ? (double) entry->live_tuples : 0;
#else
	return entry ? (double) entry->n_live_tuples : 0;
#endif
}

/* Privileges on any kind of object are asked for by one function since 16. */
static inline AclResult
md_server_aclcheck(Oid server_id, Oid user_id)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, server_id, user_id, ACL_USAGE);
#else
	return pg_foreign_server_aclcheck(server_id, user_id, ACL_USAGE);
#endif
}

static inline bool
md_relation_ownercheck(Oid relid, Oid user_id)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, user_id);
#else
	return pg_class_ownercheck(relid, user_id);
#endif
}

static inline bool
md_database_ownercheck(Oid database_id, Oid user_id)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database_id, user_id);
#else
	return pg_database_ownercheck(database_id, user_id);
#endif
}

/* Macros for varlena values have a header of their own since 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Intervals can be infinite since 17. */
#if PG_VERSION_NUM < 170000
#define INTERVAL_NOT_FINITE(i) (false)
#define INTERVAL_IS_NOBEGIN(i) (false)
#endif

/* The number of a relation's file; it changes when the table is rewritten. */
static inline Oid
md_relation_filenode(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	return rel->rd_locator.relNumber;
#else
	return rel->rd_node.relNode;
#endif
}

/* A row in memory may have room before it since 18. */
static inline MinimalTuple
md_form_minimal_tuple(TupleDesc desc, Datum *values, bool *nulls)
{
#if PG_VERSION_NUM >= 180000
	return heap_form_minimal_tuple(desc, values, nulls, 0);
#else
	return heap_form_minimal_tuple(desc, values, nulls);
#endif
}

/* Give a table, its TOAST table and its indexes new, empty files. */
static inline void
md_relation_empty(Relation rel)
{
	Oid			toast_id = rel->rd_rel->reltoastrelid;
	ReindexParams params = {0};

#if PG_VERSION_NUM >= 160000
#define MD_SET_NEW_FILE RelationSetNewRelfilenumber
#else
#define MD_SET_NEW_FILE RelationSetNewRelfilenode
#endif
	MD_SET_NEW_FILE(rel, rel->rd_rel->relpersistence);
	if (OidIsValid(toast_id))
	{
		Relation	toast = table_open(toast_id, AccessExclusiveLock);

		MD_SET_NEW_FILE(toast, toast->rd_rel->relpersistence);
		table_close(toast, NoLock);
	}
#if PG_VERSION_NUM >= 170000
	(void) reindex_relation(NULL, RelationGetRelid(rel), REINDEX_REL_PROCESS_TOAST, &params);
#else
	(void) reindex_relation(RelationGetRelid(rel), REINDEX_REL_PROCESS_TOAST, &params);
#endif
}

/* The index of a table's primary key; never a deferrable one. */
static inline Oid
md_primary_key_index(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/*
 * Let an executor state know the one table that it writes: error messages of
 * constraints look it up to see which columns the user may be shown.
 */
static inline void
md_init_range_table(EState *estate, Relation rel)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	{
		List	   *permissions = NIL;

		addRTEPermissionInfo(&permissions, rte);
#if PG_VERSION_NUM >= 180000
		ExecInitRangeTable(estate, list_make1(rte), permissions, bms_make_singleton(1));
#else
		ExecInitRangeTable(estate, list_make1(rte), permissions);
#endif
	}
#else
	ExecInitRangeTable(estate, list_make1(rte));
#endif
}

/* Enter a stored row into all indexes of its table. */
static inline List *
md_insert_index_tuples(ResultRelInfo *result_rel, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL, false);
#else
	return ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL);
#endif
}

/*
 * The same where a unique index of those listed may have the key already: the row
 * is entered all the same, and false is returned.
 */
static inline bool
md_try_index_tuples(ResultRelInfo *result_rel, TupleTableSlot *slot, EState *estate, List *indexes)
{
	bool		is_there = false;

#if PG_VERSION_NUM >= 160000
	list_free(ExecInsertIndexTuples(result_rel, slot, estate, false, true, &is_there, indexes, false));
#else
	list_free(ExecInsertIndexTuples(result_rel, slot, estate, false, true, &is_there, indexes));
#endif
	return !is_there;
}

/* Put a row in the place of the one at tid, and into the indexes that must know. */
static inline void
md_update_row(ResultRelInfo *result_rel, EState *estate, ItemPointer tid, TupleTableSlot *slot,
			  Snapshot snapshot)
{
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes indexes;

	simple_table_tuple_update(result_rel->ri_RelationDesc, tid, slot, snapshot, &indexes);
	if (result_rel->ri_NumIndices > 0 && indexes != TU_None)
		list_free(ExecInsertIndexTuples(result_rel, slot, estate, true, false, NULL, NIL,
										indexes == TU_Summarizing));
#else
	bool		indexes;

	simple_table_tuple_update(result_rel->ri_RelationDesc, tid, slot, snapshot, &indexes);
	if (result_rel->ri_NumIndices > 0 && indexes)
		list_free(ExecInsertIndexTuples(result_rel, slot, estate, true, false, NULL, NIL));
#endif
}

/* Is this JSON_VALUE() or JSON_QUERY(), which are there since 17? */
static inline bool
md_is_json_expr(Node *node)
{
#if PG_VERSION_NUM >= 170000
	return IsA(node, JsonExpr);
#else
	return false;
#endif
}

/* Scans of an index can count what they do since 18. */
static inline IndexScanDesc
md_index_beginscan(Relation rel, Relation index, Snapshot snapshot, int n_keys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, n_keys, 0);
#else
	return index_beginscan(rel, index, snapshot, n_keys, 0);
#endif
}

/* How a row of a partitioned table becomes one of a partition; NULL: it is one. */
static inline TupleConversionMap *
md_root_to_child_map(ResultRelInfo *child, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecGetRootToChildMap(child, estate);
#else
	return child->ri_RootToPartitionMap;
#endif
}

/* A set of events to wait for that lives until it is freed. */
static inline WaitEventSet *
md_create_wait_event_set(int n_events)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, n_events);
#else
	return CreateWaitEventSet(TopMemoryContext, n_events);
#endif
}

/* Names of option namespaces are constant since 18. */
#if PG_VERSION_NUM >= 180000
#define MD_RELOPT_NAMESPACE const char *const
#else
#define MD_RELOPT_NAMESPACE char *
#endif

/* Errors in a qualified name can be soft since 16; here they are thrown. */
static inline List *
md_qualified_name(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(name, NULL);
#else
	return stringToQualifiedNameList(name);
#endif
}

/*
 * Since 18 the output of a query refers to expressions of GROUP BY through a
 * range table entry of their own: put the expressions in place, as before.
 */
static inline void
md_flatten_groups(Query *query)
{
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
	{
		query->targetList = (List *) flatten_group_exprs(NULL, query, (Node *) query->targetList);
		query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
		query->hasGroupRTE = false;
	}
#endif
}

/* References to columns of joins replaced by what they stand for. */
static inline Node *
md_flatten_join_vars(Query *query, Node *node)
{
	if (node == NULL)
		return NULL;
#if PG_VERSION_NUM >= 160000
	return flatten_join_alias_vars(NULL, query, node);
#else
	return flatten_join_alias_vars(query, node);
#endif
}

/*
 * Since 16 a Var tells which outer joins may make it NULL.  How it was written,
 * as a column of a join perhaps, is forgotten here too.
 */
static inline void
md_clear_nulling(Var *var)
{
	var->varnosyn = var->varno;
	var->varattnosyn = var->varattno;
#if PG_VERSION_NUM >= 160000
	var->varnullingrels = NULL;
#endif
}

/* The columns of a range table entry; 18 can mean those of OLD or NEW. */
static inline void
md_expand_rte(RangeTblEntry *rte, int rt_index, bool include_dropped, List **names, List **vars)
{
#if PG_VERSION_NUM >= 180000
	expandRTE(rte, rt_index, 0, VAR_RETURNING_DEFAULT, -1, include_dropped, names, vars);
#else
	expandRTE(rte, rt_index, 0, -1, include_dropped, names, vars);
#endif
}

/* PG_MODULE_MAGIC_EXT names the library and its version since 18. */
#if PG_VERSION_NUM >= 180000
#define MD_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "pg_medallion", .version = "0.1.0")
#else
#define MD_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18 counts frozen pages in pg_class too. */
#if PG_VERSION_NUM >= 180000
#define MD_SWAP_PAGES_FROZEN(a, b) \
	do { int32 swap_ = (a)->relallfrozen; (a)->relallfrozen = (b)->relallfrozen; (b)->relallfrozen = swap_; } while (0)
#else
#define MD_SWAP_PAGES_FROZEN(a, b) ((void) 0)
#endif

#endif							/* MD_COMPAT_H */
