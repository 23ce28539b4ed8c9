/*
 * debug_point.c
 *		Named places at which a test can stop or kill a process, or have it fail.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"

#include "debug_point.h"

PG_FUNCTION_INFO_V1(md_debug_point_id);

/* The objid of the advisory lock under the named point. */
static uint32
debug_point_id(const char *name)
{
	return hash_bytes((const unsigned char *) name, strlen(name)) & 0x7fffffff;
}

/* What a process does at a point. */
typedef enum Reaction
{
	REACTION_NONE,
	REACTION_STOP,				/* "name": wait for the advisory lock */
	REACTION_DIE,				/* "name!" */
	REACTION_FAIL				/* "name=SQLSTATE" */
} Reaction;

/* Look `name` up in the comma-separated setting. */
static Reaction
debug_point_reaction(const char *name, int *sqlstate)
{
	const char *p = md_debug_points;
	size_t		len = strlen(name);

	while (*p)
	{
		size_t		word = strcspn(p, ", ");

		if (word >= len && strncmp(p, name, len) == 0)
		{
			if (word == len)
				return REACTION_STOP;
			if (word == len + 1 && p[len] == '!')
				return REACTION_DIE;
			if (word == len + 6 && p[len] == '=')
			{
				*sqlstate = MAKE_SQLSTATE(p[len + 1], p[len + 2], p[len + 3], p[len + 4], p[len + 5]);
				return REACTION_FAIL;
			}
		}
		p += word;
		p += strspn(p, ", ");
	}
	return REACTION_NONE;
}

/*
 * Wait, die or fail at the named point if the setting says so.
 * Runs in: any process, with or without a transaction.
 */
void
md_debug_point_reach(const char *name)
{
	LOCKTAG		tag;
	int			lock_timeout = LockTimeout;
	/* a wait that is cancelled may end with the lock, which goes with its transaction then */
	bool		for_session = !IsTransactionState();
	int			sqlstate = 0;
	Reaction	reaction = debug_point_reaction(name, &sqlstate);

	if (reaction == REACTION_NONE)
		return;
	if (reaction == REACTION_DIE)
		kill(MyProcPid, SIGKILL);
	if (reaction == REACTION_FAIL)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("the setting medallion.debug_points has process %d fail at point \"%s\"",
						MyProcPid, name)));

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, MD_DEBUG_POINT_CLASS,
						 debug_point_id(name), 2);
	LockTimeout = 0;
	PG_TRY();
	{
		(void) LockAcquire(&tag, ShareLock, for_session, false);
	}
	PG_FINALLY();
	{
		LockTimeout = lock_timeout;
	}
	PG_END_TRY();
	LockRelease(&tag, ShareLock, for_session);
}

/* SQL: the objid to give to pg_advisory_lock(class, objid) for a point. */
Datum
md_debug_point_id(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT32((int32) debug_point_id(name));
}
