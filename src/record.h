/*
 * record.h
 *		A Kafka record as every layer above the client sees it.
 *
 * Pointers lead into memory of the client and stay valid until the client's
 * batch is released; nothing here is NUL-terminated.  NULL and empty differ:
 * a NULL key or payload has a NULL pointer, an empty one a length of 0.
 */
#ifndef MD_RECORD_H
#define MD_RECORD_H

#include "postgres.h"

typedef struct MdHeader
{
	const char *name;			/* NUL-terminated, not known to be valid text */
	const char *value;			/* NULL for a header without a value */
	Size		value_len;
} MdHeader;

typedef struct MdRecord
{
	const char *topic;			/* NUL-terminated, one pointer per topic */
	int32		partition;
	int64		offset;
	int64		timestamp_ms;	/* since 1970 UTC; -1: the record has none */
	const char *key;
	Size		key_len;
	const char *payload;		/* NULL: a tombstone */
	Size		payload_len;
	const MdHeader *headers;	/* in order, names may repeat */
	int			n_headers;		/* -1: not fetched from the client yet */
	void	   *handle;			/* the client's own */
} MdRecord;

#endif							/* MD_RECORD_H */
