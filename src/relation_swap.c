/*
 * relation_swap.c
 *		Putting the rows of one table in the place of another's, at once.
 *
 *		live --> empty files						live --> files of next
 *		next --> rows, indexes				==>		next --> empty files, dropped
 *
 * The table keeps its OID, and so its grants, comments, indexes and what
 * depends on it; only pg_class says where its rows are.  Rows that a transaction
 * has just written are invisible to snapshots older than its commit, so a
 * reader with one would find the table empty: they are frozen before, which
 * makes them visible to all, as REFRESH MATERIALIZED VIEW does.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xloginsert.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "refresh_read.h"
#include "relation_make.h"
#include "relation_swap.h"
#include "settings.h"

/* ----------------------------------------------------------------------
 * Freezing
 * ---------------------------------------------------------------------- */

/* Freeze the live rows of one page that this transaction has written. */
static bool
freeze_page(Page page)
{
	bool		changed = false;

	for (OffsetNumber n = FirstOffsetNumber; n <= PageGetMaxOffsetNumber(page); n++)
	{
		ItemId		item = PageGetItemId(page, n);
		HeapTupleHeader tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple = (HeapTupleHeader) PageGetItem(page, item);
		/* a row that was updated since has a successor, which is not of old */
		if (!(tuple->t_infomask & HEAP_XMAX_INVALID) || HeapTupleHeaderIsHeapOnly(tuple) ||
			!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple)))
			continue;
		tuple->t_infomask |= HEAP_XMIN_FROZEN;
		changed = true;
	}
	return changed;
}

void
md_relation_freeze(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	for (BlockNumber block = 0; block < blocks; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		START_CRIT_SECTION();
		if (freeze_page(BufferGetPage(buffer)))
		{
			MarkBufferDirty(buffer);
			if (RelationNeedsWAL(rel))
				log_newpage_buffer(buffer, true);
		}
		END_CRIT_SECTION();
		UnlockReleaseBuffer(buffer);
	}
	table_close(rel, NoLock);
}

/* ----------------------------------------------------------------------
 * Indexes
 * ---------------------------------------------------------------------- */

/* Does an index read a column that is lost? */
static bool
reads_lost(Oid index_id, Bitmapset *lost)
{
	Relation	index = index_open(index_id, AccessShareLock);
	bool		found = false;

	for (int i = 0; i < index->rd_index->indnatts; i++)
		if (bms_is_member(index->rd_index->indkey.values[i], lost) ||
			/* an expression: which columns it reads does not matter */
			(index->rd_index->indkey.values[i] == 0 && lost != NULL))
			found = true;
	index_close(index, NoLock);
	return found;
}

/* "CREATE UNIQUE INDEX name ON schema.table " */
static char *
index_head(Oid index_id, const char *name, Oid relid)
{
	Relation	index = index_open(index_id, AccessShareLock);
	bool		unique = index->rd_index->indisunique;

	index_close(index, NoLock);
	return psprintf("CREATE %sINDEX %s ON %s ", unique ? "UNIQUE " : "", quote_identifier(name),
					md_read_relation_name(relid));
}

/* What follows that in its definition; NULL for none that is of this form. */
static char *
index_tail(Oid index_id, Oid relid)
{
	char	   *definition = pg_get_indexdef_string(index_id);
	char	   *head = index_head(index_id, get_rel_name(index_id), relid);

	if (strncmp(definition, head, strlen(head)) != 0)
		return NULL;
	return definition + strlen(head);
}

bool
md_relation_same_index(Oid live, Oid live_index, Oid next, Oid next_index)
{
	char	   *tail = index_tail(live_index, live);
	char	   *next_tail = index_tail(next_index, next);

	return tail != NULL && next_tail != NULL && strcmp(tail, next_tail) == 0 &&
		strncmp(index_head(live_index, "", live), index_head(next_index, "", live), 10) == 0;
}

Oid
md_relation_copy_index(Oid index_id, Oid from, Oid to, const char *suffix)
{
	char	   *tail = index_tail(index_id, from);
	Oid			namespace_id = get_rel_namespace(to);
	char	   *name = ChooseRelationName(get_rel_name(to), NULL, suffix, namespace_id, false);

	if (tail == NULL)
		return InvalidOid;
	md_relation_run_ddl(psprintf("%s%s", index_head(index_id, name, to), tail));
	return get_relname_relid(name, namespace_id);
}

static List *
index_list(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	List	   *indexes = RelationGetIndexList(rel);

	table_close(rel, NoLock);
	return indexes;
}

List *
md_relation_copy_indexes(Oid live, Oid next, List *except, Bitmapset *lost)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	foreach(lc, index_list(live))
	{
		MdIndexPair *pair = palloc(sizeof(MdIndexPair));

		pair->live = lfirst_oid(lc);
		if (list_member_oid(except, pair->live) || reads_lost(pair->live, lost))
			continue;
		pair->next = md_relation_copy_index(pair->live, live, next, "index");
		if (OidIsValid(pair->next))
			pairs = lappend(pairs, pair);
	}
	return pairs;
}

/* ----------------------------------------------------------------------
 * Files
 * ---------------------------------------------------------------------- */

#define SWAP(type, a, b) do { type swap_ = (a); (a) = (b); (b) = swap_; } while (0)

/* The toast table belongs to another table now. */
static void
give_toast(Oid toast_id, Oid relid)
{
	ObjectAddress toast;
	ObjectAddress owner;

	if (!OidIsValid(toast_id))
		return;
	ObjectAddressSet(toast, RelationRelationId, toast_id);
	ObjectAddressSet(owner, RelationRelationId, relid);
	deleteDependencyRecordsFor(RelationRelationId, toast_id, false);
	recordDependencyOn(&toast, &owner, DEPENDENCY_INTERNAL);
}

/* Exchange what pg_class says of the files of two tables, or two indexes. */
static void
swap_files(Relation pg_class, Oid first, Oid second)
{
	HeapTuple	tuples[2] = {
		SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(first)),
		SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(second))
	};
	CatalogIndexState state = CatalogOpenIndexes(pg_class);
	Form_pg_class a;
	Form_pg_class b;

	if (!HeapTupleIsValid(tuples[0]) || !HeapTupleIsValid(tuples[1]))
		elog(ERROR, "relation %u or %u is gone", first, second);
	a = (Form_pg_class) GETSTRUCT(tuples[0]);
	b = (Form_pg_class) GETSTRUCT(tuples[1]);
	SWAP(Oid, a->relfilenode, b->relfilenode);
	SWAP(Oid, a->reltablespace, b->reltablespace);
	SWAP(int32, a->relpages, b->relpages);
	SWAP(float4, a->reltuples, b->reltuples);
	SWAP(int32, a->relallvisible, b->relallvisible);
	MD_SWAP_PAGES_FROZEN(a, b);
	SWAP(TransactionId, a->relfrozenxid, b->relfrozenxid);
	SWAP(MultiXactId, a->relminmxid, b->relminmxid);
	SWAP(Oid, a->reltoastrelid, b->reltoastrelid);
	if (a->reltoastrelid != b->reltoastrelid)
	{
		give_toast(a->reltoastrelid, first);
		give_toast(b->reltoastrelid, second);
	}
	for (int i = 0; i < 2; i++)
		CatalogTupleUpdateWithInfo(pg_class, &tuples[i]->t_self, tuples[i], state);
	CatalogCloseIndexes(state);
	CommandCounterIncrement();
}

void
md_relation_swap(Oid live, Oid next, List *pairs)
{
	Relation	pg_class = table_open(RelationRelationId, RowExclusiveLock);
	List	   *paired = NIL;
	ListCell   *lc;

	swap_files(pg_class, live, next);
	foreach(lc, pairs)
	{
		MdIndexPair *pair = lfirst(lc);

		/* one that was dropped meanwhile, or made anew with a column's type */
		if (get_rel_relkind(pair->live) != RELKIND_INDEX)
			continue;
		swap_files(pg_class, pair->live, pair->next);
		paired = lappend_oid(paired, pair->live);
	}
	table_close(pg_class, RowExclusiveLock);
	foreach(lc, index_list(live))
		if (!list_member_oid(paired, lfirst_oid(lc)))
			md_relation_run_ddl(psprintf("REINDEX INDEX %s", md_read_relation_name(lfirst_oid(lc))));
}

/* ---------------------------------------------------------------------- */

void
md_relation_lock_shortly(Oid relid)
{
	int			nest_level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", psprintf("%d", md_swap_lock_timeout_ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	LockRelationOid(relid, AccessExclusiveLock);
	AtEOXact_GUC(true, nest_level);
}
