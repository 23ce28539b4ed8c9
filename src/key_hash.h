/*
 * key_hash.h
 *		Surrogate keys from natural keys: what the functions of the schema
 *		share.  doc/keys.md is the specification.
 *
 *		key_type.c		argument types, and the walk over values
 *		key_encode.c	value to canonical bytes
 *		key_number.c	numbers to canonical bytes
 *		key_hash.c		hash_key(), hash_key_uuid(), hash_key_encoding()
 *		key_spark.c		xxhash64()
 *		key_dbt.c		dbt_surrogate_key()
 */
#ifndef MD_KEY_HASH_H
#define MD_KEY_HASH_H

#include "postgres.h"
#include "fmgr.h"
#include "port/pg_bswap.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

#include "compat.h"

/* What a type means to a key; domains count as the type below them. */
typedef enum MdKeyKind
{
	MD_KEY_UNSUPPORTED,
	MD_KEY_ARRAY,
	MD_KEY_BIT,
	MD_KEY_BOOL,
	MD_KEY_BPCHAR,
	MD_KEY_BYTEA,
	MD_KEY_CSTRING,				/* an untyped literal */
	MD_KEY_DATE,
	MD_KEY_DROPPED,				/* a column that is not there any more */
	MD_KEY_ENUM,
	MD_KEY_FLOAT4,
	MD_KEY_FLOAT8,
	MD_KEY_INET,
	MD_KEY_INT2,
	MD_KEY_INT4,
	MD_KEY_INT8,
	MD_KEY_INTERVAL,
	MD_KEY_JSONB,
	MD_KEY_MACADDR,
	MD_KEY_MACADDR8,
	MD_KEY_MULTIRANGE,
	MD_KEY_NAME,
	MD_KEY_NUMERIC,
	MD_KEY_RANGE,
	MD_KEY_ROW,
	MD_KEY_TEXT,
	MD_KEY_TIME,
	MD_KEY_TIMESTAMP,
	MD_KEY_TIMESTAMPTZ,
	MD_KEY_TIMETZ,
	MD_KEY_UUID
} MdKeyKind;

/* A type as one call site needs it; looked up once. */
typedef struct MdKeyType
{
	MemoryContext context;		/* lives as long as this description */
	Oid			type_oid;
	int32		typmod;
	Oid			collation;
	MdKeyKind	kind;
	int16		len;
	bool		byval;
	char		align;
	TypeCacheEntry *range;		/* ranges and multiranges */
	struct MdKeyType *element;	/* arrays, ranges and multiranges */
	uint64		row_id;			/* rows: the layout that fields describe, or 0 */
	MemoryContext row_context;	/* holds the fields of that one layout */
	int			n_fields;
	struct MdKeyType *fields;
} MdKeyType;

/* One call site: lives as long as its FmgrInfo. */
typedef struct MdKeyCall
{
	Oid			function_oid;
	MemoryContext context;
	/* raises an error for a type that the function does not take */
	void		(*accept) (const struct MdKeyCall *call, const MdKeyType *type);
	bool		variadic;		/* one array holds the values */
	int			n_args;
	MdKeyType  *args;
} MdKeyCall;

typedef void (*MdKeyAccept) (const MdKeyCall *call, const MdKeyType *type);
typedef void (*MdKeyVisit) (const MdKeyCall *call, MdKeyType *type,
							Datum value, bool isnull, void *state);

/* Bytes of a key; the common case fits into the struct. */
#define MD_KEY_LOCAL_BYTES 512

typedef struct MdKeyBuffer
{
	char	   *data;
	Size		len;
	Size		size;
	char		local[MD_KEY_LOCAL_BYTES];
} MdKeyBuffer;

/* key_type.c */
extern void md_key_visit_arguments(FunctionCallInfo fcinfo, MdKeyAccept accept,
								   MdKeyVisit visit, void *state);
extern void md_key_visit_array(const MdKeyCall *call, MdKeyType *type, Datum array,
							   MdKeyVisit visit, void *state);
extern int	md_key_row_width(const MdKeyCall *call, MdKeyType *type, Datum row);
extern void md_key_visit_row(const MdKeyCall *call, MdKeyType *type, Datum row,
							 MdKeyVisit visit, void *state);
extern const char *md_key_utf8(const char *text, Size *len);
extern const char *md_key_string(const MdKeyType *type, Datum value, Size *len);
extern void md_key_refuse(const MdKeyCall *call, const MdKeyType *type,
						  const char *detail, const char *hint);
extern void md_key_refuse_unsupported(const MdKeyCall *call, const MdKeyType *type);

/* key_number.c */
extern void md_key_append_integer(MdKeyBuffer *buffer, int64 value);
extern void md_key_append_float(MdKeyBuffer *buffer, double value);
extern void md_key_append_numeric(MdKeyBuffer *buffer, Numeric value);

/* key_encode.c */
extern void md_key_buffer_grow(MdKeyBuffer *buffer, Size more);
extern void md_key_encode_arguments(FunctionCallInfo fcinfo, MdKeyBuffer *buffer);

/* key_hash.c */
extern uint64 md_key_xxh64(const void *data, Size len, uint64 seed);

static inline void
md_key_buffer_init(MdKeyBuffer *buffer)
{
	buffer->data = buffer->local;
	buffer->len = 0;
	buffer->size = MD_KEY_LOCAL_BYTES;
}

static inline void
md_key_buffer_free(MdKeyBuffer *buffer)
{
	if (buffer->data != buffer->local)
		pfree(buffer->data);
}

/* Room for n more bytes, which count as written. */
static inline char *
md_key_reserve(MdKeyBuffer *buffer, Size n)
{
	char	   *place;

	if (unlikely(n > buffer->size - buffer->len))
		md_key_buffer_grow(buffer, n);
	place = buffer->data + buffer->len;
	buffer->len += n;
	return place;
}

static inline void
md_key_append_byte(MdKeyBuffer *buffer, uint8 byte)
{
	*md_key_reserve(buffer, 1) = (char) byte;
}

/* Integers go out with the most significant byte first. */
static inline void
md_key_append_uint32(MdKeyBuffer *buffer, uint32 value)
{
	value = pg_hton32(value);
	memcpy(md_key_reserve(buffer, sizeof(value)), &value, sizeof(value));
}

static inline void
md_key_append_uint64(MdKeyBuffer *buffer, uint64 value)
{
	value = pg_hton64(value);
	memcpy(md_key_reserve(buffer, sizeof(value)), &value, sizeof(value));
}

static inline void
md_key_append_bytes(MdKeyBuffer *buffer, const void *data, Size len)
{
	char	   *place = md_key_reserve(buffer, len);

	if (len > 0)
		memcpy(place, data, len);
}

/* Length, then bytes. */
static inline void
md_key_append_counted(MdKeyBuffer *buffer, const void *data, Size len)
{
	md_key_append_uint32(buffer, (uint32) len);
	md_key_append_bytes(buffer, data, len);
}

#endif							/* MD_KEY_HASH_H */
