/*
 * node_identity.c
 *		Is this data directory the one that it was, or a copy of it?
 *
 * A base backup that is started beside its original has the same system
 * identifier, and would consume the same topics.  A file in the data directory
 * remembers a random lineage, and which file pg_control was when the server
 * last started: that one is written in place for ever, so a copy of the
 * directory has another inode and another time of birth.
 *
 *		the same file					the lineage stays
 *		another, with standby.signal	a standby: the lineage stays, for it
 *										is to follow its primary
 *		another, without				a copy: a new lineage
 *		no file							the first start: a new lineage
 *
 * The lineage is a part of the database's identity, under which streaming
 * tables and views were defined; under a new one they are paused until
 * resume_all().  What is not seen is a copy of the whole device, below the
 * file system.
 *
 * Runs in: the postmaster, at its start; trouble with the file is no reason
 * not to start, so it is logged, and the lineage is then new.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "node_identity.h"

#define NODE_FILE "pg_medallion.node"
#define CONTROL_FILE "global/pg_control"
#define LINEAGE_BYTES 8
#define LINEAGE_LENGTH (2 * LINEAGE_BYTES)

typedef struct NodeIdentity
{
	char		lineage[LINEAGE_LENGTH + 1];
	char		place[64];		/* which file pg_control is */
} NodeIdentity;

static NodeIdentity *shared = NULL;

void
md_node_identity_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(NodeIdentity)));
}

const char *
md_node_lineage(void)
{
	return shared ? shared->lineage : "";
}

/* Inode and, where the file system knows it, time of birth of pg_control. */
static bool
find_place(char *place, size_t size)
{
#ifdef STATX_BTIME
	struct statx found;

	if (statx(AT_FDCWD, CONTROL_FILE, 0, STATX_INO | STATX_BTIME, &found) == 0)
	{
		bool		has_birth = (found.stx_mask & STATX_BTIME) != 0;

		snprintf(place, size, "%llu:%lld.%09u", (unsigned long long) found.stx_ino,
				 has_birth ? (long long) found.stx_btime.tv_sec : 0,
				 has_birth ? found.stx_btime.tv_nsec : 0);
		return true;
	}
#endif
	{
		struct stat status;

		if (stat(CONTROL_FILE, &status) != 0)
			return false;
		snprintf(place, size, "%llu", (unsigned long long) status.st_ino);
		return true;
	}
}

/* "lineage place" */
static bool
read_node_file(NodeIdentity *stored)
{
	FILE	   *file = AllocateFile(NODE_FILE, "r");
	bool		complete;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", NODE_FILE)));
		return false;
	}
	complete = fscanf(file, "%16[0-9a-f] %63[0-9:.]", stored->lineage, stored->place) == 2 &&
		strlen(stored->lineage) == LINEAGE_LENGTH;
	FreeFile(file);
	return complete;
}

static void
write_node_file(const NodeIdentity *node)
{
	FILE	   *file = AllocateFile(NODE_FILE ".tmp", "w");
	bool		written = file != NULL && fprintf(file, "%s %s\n", node->lineage, node->place) > 0;

	if (file != NULL && FreeFile(file) != 0)
		written = false;
	if (!written || durable_rename(NODE_FILE ".tmp", NODE_FILE, LOG) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", NODE_FILE),
				 errdetail("Streaming tables and materialized views will be paused at the next start.")));
}

static void
new_lineage(NodeIdentity *node)
{
	unsigned char bytes[LINEAGE_BYTES];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random lineage for this data directory")));
	for (int i = 0; i < LINEAGE_BYTES; i++)
		snprintf(node->lineage + 2 * i, 3, "%02x", bytes[i]);
}

/* Decide whether this is the directory that it was, and remember it. */
static void
identify(NodeIdentity *node)
{
	NodeIdentity stored = {0};
	bool		known = read_node_file(&stored);
	struct stat status;
	bool		is_standby = stat(STANDBY_SIGNAL_FILE, &status) == 0;

	if (!find_place(node->place, sizeof(node->place)))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", CONTROL_FILE)));
		strlcpy(node->place, "0", sizeof(node->place));
	}
	if (known && (is_standby || strcmp(stored.place, node->place) == 0))
		strlcpy(node->lineage, stored.lineage, sizeof(node->lineage));
	else
	{
		new_lineage(node);
		if (known)
			ereport(LOG,
					(errmsg("this data directory is a copy of another one: streaming tables and materialized views of pg_medallion in it are paused"),
					 errhint("If the original is no more, call medallion.resume_all() in each database.")));
	}
	if (!known || strcmp(stored.place, node->place) != 0 ||
		strcmp(stored.lineage, node->lineage) != 0)
		write_node_file(node);
}

void
md_node_identity_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("pg_medallion node", sizeof(NodeIdentity), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(NodeIdentity));
		identify(shared);
	}
	LWLockRelease(AddinShmemInitLock);
}
