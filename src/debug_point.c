/*
 * debug_point.c
 *		Named places at which a test can stop or kill a process.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "debug_point.h"

PG_FUNCTION_INFO_V1(md_debug_point_id);

/* The objid of the advisory lock under the named point. */
static uint32
debug_point_id(const char *name)
{
	return hash_bytes((const unsigned char *) name, strlen(name)) & 0x7fffffff;
}

/* Look `name` up in the comma-separated setting; *kill tells "name!". */
static bool
debug_point_is_set(const char *name, bool *kill_self)
{
	const char *p = md_debug_points;
	size_t		len = strlen(name);

	while (*p)
	{
		size_t		word = strcspn(p, ", ");

		*kill_self = word == len + 1 && p[len] == '!';
		if ((word == len || *kill_self) && strncmp(p, name, len) == 0)
			return true;
		p += word;
		p += strspn(p, ", ");
	}
	return false;
}

/*
 * Wait at, or die at, the named point if the setting says so.
 * Runs in: any process, with or without a transaction.
 */
void
md_debug_point_reach(const char *name)
{
	LOCKTAG		tag;
	bool		kill_self;

	if (!debug_point_is_set(name, &kill_self))
		return;
	if (kill_self)
		kill(MyProcPid, SIGKILL);

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, MD_DEBUG_POINT_CLASS,
						 debug_point_id(name), 2);
	(void) LockAcquire(&tag, ShareLock, true, false);
	LockRelease(&tag, ShareLock, true);
}

/* SQL: the objid to give to pg_advisory_lock(class, objid) for a point. */
Datum
md_debug_point_id(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT32((int32) debug_point_id(name));
}
