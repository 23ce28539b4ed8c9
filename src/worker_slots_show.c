/*
 * worker_slots_show.c
 *		What medallion.workers shows: who runs, and who is wanted and does not.
 *
 * For a worker that cannot be started there is no slot to show, nor a process
 * to ask.  Whoever wants it, a launcher or a supervisor, notes what it is short
 * of beside its database, until it has started or is not wanted any more.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "worker_slots_private.h"

PG_FUNCTION_INFO_V1(md_worker_slots);

const char *
md_shortage_setting(MdShortage shortage)
{
	return shortage == MD_SHORTAGE_SLOTS ? "medallion.max_worker_slots" : "max_worker_processes";
}

void
md_worker_note_shortage(Oid database, MdWorkerKind kind, int worker_index, MdShortage shortage)
{
	uint64		bit = UINT64CONST(1) << worker_index;
	MdDatabaseEntry *entry;

	LWLockAcquire(md_worker_area->lock, LW_EXCLUSIVE);
	/* of so many that are short of workers some need not be shown */
	entry = md_database_entry(database, false);
	if (entry != NULL)
	{
		entry->without_process[kind] &= ~bit;
		entry->without_slot[kind] &= ~bit;
		if (shortage == MD_SHORTAGE_PROCESSES)
			entry->without_process[kind] |= bit;
		if (shortage == MD_SHORTAGE_SLOTS)
			entry->without_slot[kind] |= bit;
	}
	LWLockRelease(md_worker_area->lock);
}

/* A launcher, or the supervisor of a database. */
void
md_worker_forget_shortages(const MdWorkerSlot *supervising)
{
	for (int i = 0; i < md_worker_area->n_databases; i++)
	{
		MdDatabaseEntry *entry = &md_worker_area->databases[i];

		for (int kind = 0; kind < MD_WORKER_KINDS; kind++)
			if (supervising->kind == MD_WORKER_LAUNCHER ? kind == MD_WORKER_SUPERVISOR :
				supervising->kind == MD_WORKER_SUPERVISOR &&
				entry->database == supervising->database && kind != MD_WORKER_SUPERVISOR)
				entry->without_process[kind] = entry->without_slot[kind] = 0;
	}
}

/* Rows of workers that are wanted and not there. */
static void
put_missing_workers(ReturnSetInfo *rsinfo, const MdDatabaseEntry *entry)
{
	for (int kind = 0; kind < MD_WORKER_KINDS; kind++)
		for (int index = 0; index < 64; index++)
		{
			uint64		bit = UINT64CONST(1) << index;
			bool		without_slot = (entry->without_slot[kind] & bit) != 0;
			Datum		values[11] = {0};
			bool		nulls[11] = {true, false, false, false, true, true, true, true, true, true, false};

			if (!without_slot && (entry->without_process[kind] & bit) == 0)
				continue;
			values[1] = ObjectIdGetDatum(entry->database);
			values[2] = CStringGetTextDatum(md_worker_kind_name(kind));
			values[3] = Int32GetDatum(index);
			values[10] = CStringGetTextDatum(md_shortage_setting(without_slot ? MD_SHORTAGE_SLOTS :
																 MD_SHORTAGE_PROCESSES));
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
}

/* SQL: one row per slot in use, and per worker for which there is none. */
Datum
md_worker_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	/* how much all owners' tables take in is a matter for those who monitor */
	bool		figures = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	md_worker_slots_require();
	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(md_worker_area->lock, LW_SHARED);
	for (int i = 0; i < md_worker_area->n_slots; i++)
	{
		MdWorkerSlot *slot = &md_worker_area->slots[i];
		Datum		values[11] = {0};
		bool		nulls[11] = {0};

		if (!slot->in_use)
			continue;
		values[0] = Int32GetDatum(i);
		values[1] = ObjectIdGetDatum(slot->database);
		nulls[1] = !OidIsValid(slot->database);
		values[2] = CStringGetTextDatum(md_worker_kind_name(slot->kind));
		values[3] = Int32GetDatum(slot->worker_index);
		values[4] = Int32GetDatum(slot->pid);
		values[5] = TimestampTzGetDatum(slot->started_at);
		values[6] = TimestampTzGetDatum(slot->last_active_at);
		values[7] = Int64GetDatum(slot->transactions);
		values[8] = Int64GetDatum(slot->rows);
		values[9] = Int64GetDatum(slot->bytes);
		nulls[4] = nulls[5] = slot->pid == 0;
		nulls[6] = slot->pid == 0 || !figures;
		nulls[7] = nulls[8] = nulls[9] = !figures;
		nulls[10] = true;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	for (int i = 0; i < md_worker_area->n_databases; i++)
		if (OidIsValid(md_worker_area->databases[i].database))
			put_missing_workers(rsinfo, &md_worker_area->databases[i]);
	LWLockRelease(md_worker_area->lock);
	return (Datum) 0;
}
