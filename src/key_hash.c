/*
 * key_hash.c
 *		hash_key() and hash_key_uuid(): the natural key in, the same surrogate
 *		key out, on any machine.
 *
 * The values become canonical bytes (key_encode.c), and those are hashed:
 * XXH64 with seed 0 to 64 bits, XXH3 to 128 bits.  Neither is cryptographic.
 * The library comes as its header, so that short keys are hashed inline; this
 * is the only file that includes it.
 */
#include "postgres.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "key_hash.h"

PG_FUNCTION_INFO_V1(md_hash_key);
PG_FUNCTION_INFO_V1(md_hash_key_encoding);
PG_FUNCTION_INFO_V1(md_hash_key_uuid);

/*
 * XXH64 of bytes.
 */
uint64
md_key_xxh64(const void *data, Size len, uint64 seed)
{
	return XXH64(data, len, seed);
}

/* SQL: 64-bit surrogate key of the values. Never NULL. */
Datum
md_hash_key(PG_FUNCTION_ARGS)
{
	MdKeyBuffer buffer;
	uint64		hash;

	md_key_buffer_init(&buffer);
	md_key_encode_arguments(fcinfo, &buffer);
	hash = XXH64(buffer.data, buffer.len, 0);
	md_key_buffer_free(&buffer);
	PG_RETURN_INT64((int64) hash);
}

/*
 * SQL: surrogate key of the values as a UUID of version 8 (RFC 9562): 122
 * bits of the 128-bit hash, most significant byte first.  Never NULL.
 */
Datum
md_hash_key_uuid(PG_FUNCTION_ARGS)
{
	MdKeyBuffer buffer;
	XXH128_canonical_t canonical;
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	md_key_buffer_init(&buffer);
	md_key_encode_arguments(fcinfo, &buffer);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(buffer.data, buffer.len));
	md_key_buffer_free(&buffer);

	StaticAssertStmt(sizeof(canonical.digest) == UUID_LEN, "128 bits make a UUID");
	memcpy(uuid->data, canonical.digest, UUID_LEN);
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x80;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	PG_RETURN_UUID_P(uuid);
}

/* SQL: the bytes that the two functions above hash. Never NULL. */
Datum
md_hash_key_encoding(PG_FUNCTION_ARGS)
{
	MdKeyBuffer buffer;
	bytea	   *result;

	md_key_buffer_init(&buffer);
	md_key_encode_arguments(fcinfo, &buffer);
	if (buffer.len > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("encoding of the values is longer than a bytea can be")));
	result = (bytea *) cstring_to_text_with_len(buffer.data, (int) buffer.len);
	md_key_buffer_free(&buffer);
	PG_RETURN_BYTEA_P(result);
}
