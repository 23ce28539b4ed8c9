/*
 * read_point.c
 *		How far something that many transactions write has been read.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "lib/qunique.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "read_point.h"

/* A running or recent transaction's id with its epoch. */
static uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	/* it was assigned before the next one, less than a wraparound ago */
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

static int
compare_ids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

void
md_read_point_make(Snapshot snapshot, bool sees_own, MdReadPoint *point)
{
	FullTransactionId next = ReadNextFullTransactionId();
	FullTransactionId own = GetTopFullTransactionIdIfAny();

	memset(point, 0, sizeof(*point));
	point->xmin = widen(snapshot->xmin, next);
	point->xmax = widen(snapshot->xmax, next);
	point->running = palloc(sizeof(uint64) * (snapshot->xcnt + 1));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		point->running[point->running_count++] = widen(snapshot->xip[i], next);
	if (FullTransactionIdIsValid(own))
	{
		/* a snapshot does not count its own transaction as running */
		uint64		id = U64FromFullTransactionId(own);

		if (id < point->xmax)
			point->running[point->running_count++] = id;
		point->xmin = Min(point->xmin, id);
		if (sees_own)
		{
			point->own = id;
			point->own_command = snapshot->curcid;
		}
	}
	qsort(point->running, point->running_count, sizeof(uint64), compare_ids);
	point->running_count = qunique(point->running, point->running_count, sizeof(uint64),
								   compare_ids);
}

char *
md_json_string(Jsonb *json, const char *key)
{
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(json) ||
		getKeyJsonValueFromContainer(&json->root, key, strlen(key), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* A number and the character after it, if it is `end`; false otherwise. */
static bool
parse_number(char **text, char end, uint64 *number)
{
	char	   *after;

	if (**text < '0' || **text > '9')
		return false;
	*number = strtou64(*text, &after, 10);
	if (*after != end)
		return false;
	*text = after + (end != '\0');
	return true;
}

/* "xmin:xmax:xip,xip", as pg_snapshot is written. */
static bool
parse_snapshot(char *text, MdReadPoint *point)
{
	if (!parse_number(&text, ':', &point->xmin) || !parse_number(&text, ':', &point->xmax))
		return false;
	point->running = palloc(sizeof(uint64) * (strlen(text) / 2 + 1));
	while (*text != '\0')
	{
		char	   *comma = strchr(text, ',');

		if (!parse_number(&text, comma ? ',' : '\0', &point->running[point->running_count++]))
			return false;
	}
	return true;
}

bool
md_read_point_parse(Jsonb *json, MdReadPoint *point)
{
	char	   *snapshot = json ? md_json_string(json, "snapshot") : NULL;
	char	   *own = json ? md_json_string(json, "own") : NULL;
	uint64		command;

	memset(point, 0, sizeof(*point));
	if (snapshot == NULL || !parse_snapshot(snapshot, point))
		return false;
	if (own == NULL)
		return true;
	if (!parse_number(&own, ':', &point->own) || !parse_number(&own, '\0', &command))
		return false;
	point->own_command = (CommandId) command;
	return true;
}

char *
md_read_point_snapshot_text(const MdReadPoint *point)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":", point->xmin, point->xmax);
	for (int i = 0; i < point->running_count; i++)
		appendStringInfo(&text, "%s" UINT64_FORMAT, i > 0 ? "," : "", point->running[i]);
	return text.data;
}

char *
md_read_point_own_text(const MdReadPoint *point)
{
	if (point->own == 0)
		return NULL;
	return psprintf(UINT64_FORMAT ":%u", point->own, point->own_command);
}

bool
md_read_point_sees(const MdReadPoint *point, uint64 xid, CommandId command)
{
	if (xid == point->own)
		return command < point->own_command;
	if (xid < point->xmin)
		return true;
	if (xid >= point->xmax)
		return false;
	return bsearch(&xid, point->running, point->running_count, sizeof(uint64),
				   compare_ids) == NULL;
}

bool
md_read_point_sees_all(const MdReadPoint *point, uint64 first, uint64 last)
{
	if (last >= point->xmax)
		return false;
	for (int i = 0; i < point->running_count; i++)
		if (point->running[i] >= first && point->running[i] <= last)
			return false;
	return true;
}
