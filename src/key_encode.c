/*
 * key_encode.c
 *		Canonical bytes of a list of values, the input of hash_key().
 *
 * Each value is a tag byte and what follows it, and says itself where it
 * ends: fixed sizes are fixed by the tag, others begin with their length or
 * their number of parts, in four bytes.  So the values of a list can simply
 * follow each other, and two lists have the same bytes only if they have the
 * same values one by one.  A tag stands for values that Postgres can compare,
 * not for one type: values that are equal there have the same bytes here.
 *
 * doc/keys.md specifies these bytes for producers in other languages; they
 * never change.  Nothing here looks at a setting.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/inet.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/varbit.h"

#include "key_hash.h"

#define DAYS_1970_TO_2000 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/* Bits of the byte after the tag of a range. */
#define RANGE_IS_EMPTY		0x01
#define RANGE_NO_LOWER		0x02
#define RANGE_NO_UPPER		0x04
#define RANGE_LOWER_INC		0x08
#define RANGE_UPPER_INC		0x10

static void append_value(const MdKeyCall *call, MdKeyType *type, Datum value,
						 bool isnull, void *state);
static void append_jsonb_node(MdKeyBuffer *buffer, JsonbIterator **iterator,
							  JsonbIteratorToken token, JsonbValue *value);

/*
 * Make room for more bytes, beyond the struct's own.
 */
void
md_key_buffer_grow(MdKeyBuffer *buffer, Size more)
{
	Size		size = Max(buffer->size * 2, buffer->len + more);

	if (buffer->data == buffer->local)
	{
		buffer->data = MemoryContextAllocHuge(CurrentMemoryContext, size);
		memcpy(buffer->data, buffer->local, buffer->len);
	}
	else
		buffer->data = repalloc_huge(buffer->data, size);
	buffer->size = size;
}

/* A day counted from 1970 and a microsecond in it. */
static void
append_day_time(MdKeyBuffer *buffer, char tag, int32 day, int64 microsecond)
{
	md_key_append_byte(buffer, tag);
	md_key_append_uint32(buffer, (uint32) day);
	md_key_append_uint64(buffer, (uint64) microsecond);
}

/* A date is the timestamp of its midnight, as it is in comparisons. */
static void
append_date(MdKeyBuffer *buffer, DateADT date)
{
	append_day_time(buffer, 't',
					DATE_NOT_FINITE(date) ? date : date + DAYS_1970_TO_2000, 0);
}

/* A timestamp, or with tag 'z' one with time zone, in UTC. */
static void
append_timestamp(MdKeyBuffer *buffer, char tag, Timestamp timestamp)
{
	int64		day = timestamp / USECS_PER_DAY;
	int64		microsecond = timestamp % USECS_PER_DAY;

	if (TIMESTAMP_NOT_FINITE(timestamp))
	{
		append_day_time(buffer, tag,
						TIMESTAMP_IS_NOEND(timestamp) ? PG_INT32_MAX : PG_INT32_MIN, 0);
		return;
	}
	if (microsecond < 0)
	{
		microsecond += USECS_PER_DAY;
		day--;
	}
	append_day_time(buffer, tag, (int32) (day + DAYS_1970_TO_2000), microsecond);
}

/* An interval by its length: a month is 30 days and a day 24 hours, as in =. */
static void
append_interval(MdKeyBuffer *buffer, const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day +
		interval->time / USECS_PER_DAY;
	int64		microsecond = interval->time % USECS_PER_DAY;

	if (microsecond < 0)
	{
		microsecond += USECS_PER_DAY;
		days--;
	}
	md_key_append_byte(buffer, 'v');
	md_key_append_uint64(buffer, (uint64) days);
	md_key_append_uint64(buffer, (uint64) microsecond);
}

/* A time with its zone in seconds east of UTC; both count in =. */
static void
append_timetz(MdKeyBuffer *buffer, const TimeTzADT *time)
{
	md_key_append_byte(buffer, 'C');
	md_key_append_uint64(buffer, (uint64) time->time);
	md_key_append_uint32(buffer, (uint32) -time->zone);
}

/* An address: family, length of the network part, all bytes. */
static void
append_inet(MdKeyBuffer *buffer, inet *address)
{
	md_key_append_byte(buffer, 'h');
	md_key_append_byte(buffer, ip_family(address) == PGSQL_AF_INET ? 4 : 6);
	md_key_append_byte(buffer, ip_bits(address));
	md_key_append_bytes(buffer, ip_addr(address), ip_addrsize(address));
}

/* A macaddr counts as the macaddr8 that it casts to. */
static void
append_macaddr(MdKeyBuffer *buffer, const macaddr *address)
{
	const uint8 bytes[] = {'m', address->a, address->b, address->c, 0xff, 0xfe,
	address->d, address->e, address->f};

	md_key_append_bytes(buffer, bytes, sizeof(bytes));
}

static void
append_macaddr8(MdKeyBuffer *buffer, const macaddr8 *address)
{
	const uint8 bytes[] = {'m', address->a, address->b, address->c, address->d,
	address->e, address->f, address->g, address->h};

	md_key_append_bytes(buffer, bytes, sizeof(bytes));
}

/* Bits, first one highest; zeros fill the last byte. */
static void
append_bits(MdKeyBuffer *buffer, VarBit *bits)
{
	md_key_append_byte(buffer, 'k');
	md_key_append_uint32(buffer, VARBITLEN(bits));
	md_key_append_bytes(buffer, VARBITS(bits), VARBITBYTES(bits));
}

/* Strings, and enums by their label. */
static void
append_string(MdKeyBuffer *buffer, const MdKeyType *type, Datum value)
{
	Size		len;
	const char *text = md_key_string(type, value, &len);

	md_key_append_byte(buffer, 's');
	md_key_append_counted(buffer, text, len);
}

static void
append_bytea(MdKeyBuffer *buffer, const bytea *bytes)
{
	md_key_append_byte(buffer, 'x');
	md_key_append_counted(buffer, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

/* Text inside jsonb, without a tag. */
static void
append_jsonb_text(MdKeyBuffer *buffer, const JsonbValue *value)
{
	Size		len = value->val.string.len;
	const char *text = md_key_utf8(value->val.string.val, &len);

	md_key_append_counted(buffer, text, len);
}

static void
append_jsonb_scalar(MdKeyBuffer *buffer, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			md_key_append_byte(buffer, 0);
			break;
		case jbvBool:
			md_key_append_byte(buffer, 'b');
			md_key_append_byte(buffer, value->val.boolean);
			break;
		case jbvNumeric:
			md_key_append_numeric(buffer, value->val.numeric);
			break;
		case jbvString:
			md_key_append_byte(buffer, 's');
			append_jsonb_text(buffer, value);
			break;
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) value->type);
	}
}

/* One pair of an object, as a range of the buffer. */
typedef struct EncodedPair
{
	const char *data;
	Size		len;
} EncodedPair;

static int
compare_pairs(const void *a, const void *b)
{
	const EncodedPair *left = a;
	const EncodedPair *right = b;

	/* keys differ and begin with their length, so the shorter pair suffices */
	return memcmp(left->data, right->data, Min(left->len, right->len));
}

/*
 * Put pairs that were written at starts[0..n) into the order of their keys
 * in UTF-8, by length and then bytes.
 */
static void
sort_jsonb_pairs(MdKeyBuffer *buffer, const Size *starts, int n)
{
	Size		len = buffer->len - starts[0];
	char	   *copy = MemoryContextAllocHuge(CurrentMemoryContext, len);
	char	   *to = buffer->data + starts[0];
	EncodedPair  *pairs = palloc(sizeof(EncodedPair) * n);

	memcpy(copy, to, len);
	for (int i = 0; i < n; i++)
	{
		pairs[i].data = copy + (starts[i] - starts[0]);
		pairs[i].len = (i + 1 < n ? starts[i + 1] : buffer->len) - starts[i];
	}
	qsort(pairs, n, sizeof(EncodedPair), compare_pairs);
	for (int i = 0; i < n; i++)
	{
		memcpy(to, pairs[i].data, pairs[i].len);
		to += pairs[i].len;
	}
	pfree(pairs);
	pfree(copy);
}

/*
 * An object whose pairs follow.  jsonb keeps them in the order that we want,
 * by the database's encoding; where that is not UTF-8 they are sorted anew.
 */
static void
append_jsonb_object(MdKeyBuffer *buffer, JsonbIterator **iterator, int n)
{
	bool		sort = n > 1 && GetDatabaseEncoding() != PG_UTF8;
	Size	   *starts = sort ? palloc(sizeof(Size) * n) : NULL;
	JsonbValue	value;

	md_key_append_byte(buffer, 'o');
	md_key_append_uint32(buffer, n);
	for (int i = 0; JsonbIteratorNext(iterator, &value, false) == WJB_KEY; i++)
	{
		JsonbIteratorToken token;

		if (sort)
			starts[i] = buffer->len;
		append_jsonb_text(buffer, &value);
		token = JsonbIteratorNext(iterator, &value, false);
		append_jsonb_node(buffer, iterator, token, &value);
	}
	if (sort)
	{
		sort_jsonb_pairs(buffer, starts, n);
		pfree(starts);
	}
}

/* An array whose elements follow; a scalar document is one without the array. */
static void
append_jsonb_array(MdKeyBuffer *buffer, JsonbIterator **iterator, int n, bool scalar)
{
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!scalar)
	{
		md_key_append_byte(buffer, 'l');
		md_key_append_uint32(buffer, n);
	}
	while ((token = JsonbIteratorNext(iterator, &value, false)) != WJB_END_ARRAY)
		append_jsonb_node(buffer, iterator, token, &value);
}

static void
append_jsonb_node(MdKeyBuffer *buffer, JsonbIterator **iterator,
				  JsonbIteratorToken token, JsonbValue *value)
{
	check_stack_depth();
	if (token == WJB_BEGIN_OBJECT)
		append_jsonb_object(buffer, iterator, value->val.object.nPairs);
	else if (token == WJB_BEGIN_ARRAY)
		append_jsonb_array(buffer, iterator, value->val.array.nElems,
						   value->val.array.rawScalar);
	else
		append_jsonb_scalar(buffer, value);
}

static void
append_jsonb(MdKeyBuffer *buffer, Jsonb *document)
{
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	JsonbValue	value;
	JsonbIteratorToken token = JsonbIteratorNext(&iterator, &value, false);

	md_key_append_byte(buffer, 'j');
	append_jsonb_node(buffer, &iterator, token, &value);
}

/* An array: number of dimensions, length and lower bound of each, elements. */
static void
append_array(const MdKeyCall *call, MdKeyType *type, Datum value, MdKeyBuffer *buffer)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int			ndim = ARR_NDIM(array);

	md_key_append_byte(buffer, 'a');
	md_key_append_byte(buffer, ndim);
	for (int i = 0; i < ndim; i++)
	{
		md_key_append_uint32(buffer, ARR_DIMS(array)[i]);
		md_key_append_uint32(buffer, (uint32) ARR_LBOUND(array)[i]);
	}
	md_key_visit_array(call, type, PointerGetDatum(array), append_value, buffer);
}

static void
append_row(const MdKeyCall *call, MdKeyType *type, Datum value, MdKeyBuffer *buffer)
{
	Datum		row = PointerGetDatum(DatumGetHeapTupleHeader(value));

	md_key_append_byte(buffer, 'r');
	md_key_append_uint32(buffer, md_key_row_width(call, type, row));
	md_key_visit_row(call, type, row, append_value, buffer);
}

/* A range without its tag. */
static void
append_range(const MdKeyCall *call, MdKeyType *type, const RangeType *range,
			 MdKeyBuffer *buffer)
{
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;

	range_deserialize(type->range, range, &lower, &upper, &empty);
	if (empty)
	{
		md_key_append_byte(buffer, RANGE_IS_EMPTY);
		return;
	}
	md_key_append_byte(buffer,
					   (lower.infinite ? RANGE_NO_LOWER : lower.inclusive ? RANGE_LOWER_INC : 0) |
					   (upper.infinite ? RANGE_NO_UPPER : upper.inclusive ? RANGE_UPPER_INC : 0));
	if (!lower.infinite)
		append_value(call, type->element, lower.val, false, buffer);
	if (!upper.infinite)
		append_value(call, type->element, upper.val, false, buffer);
}

static void
append_multirange(const MdKeyCall *call, MdKeyType *type, Datum value, MdKeyBuffer *buffer)
{
	RangeType **ranges;
	int32		n;

	multirange_deserialize(type->range, DatumGetMultirangeTypeP(value), &n, &ranges);
	md_key_append_byte(buffer, 'G');
	md_key_append_uint32(buffer, n);
	for (int i = 0; i < n; i++)
		append_range(call, type, ranges[i], buffer);
}

/* One value of any type that was accepted. */
static void
append_value(const MdKeyCall *call, MdKeyType *type, Datum value, bool isnull, void *state)
{
	MdKeyBuffer *buffer = state;

	if (isnull)
	{
		md_key_append_byte(buffer, 0);
		return;
	}

	switch (type->kind)
	{
		case MD_KEY_BOOL:
			md_key_append_byte(buffer, 'b');
			md_key_append_byte(buffer, DatumGetBool(value));
			break;
		case MD_KEY_INT2:
			md_key_append_integer(buffer, DatumGetInt16(value));
			break;
		case MD_KEY_INT4:
			md_key_append_integer(buffer, DatumGetInt32(value));
			break;
		case MD_KEY_INT8:
			md_key_append_integer(buffer, DatumGetInt64(value));
			break;
		case MD_KEY_FLOAT4:
			md_key_append_float(buffer, DatumGetFloat4(value));
			break;
		case MD_KEY_FLOAT8:
			md_key_append_float(buffer, DatumGetFloat8(value));
			break;
		case MD_KEY_NUMERIC:
			md_key_append_numeric(buffer, DatumGetNumeric(value));
			break;
		case MD_KEY_BPCHAR:
		case MD_KEY_CSTRING:
		case MD_KEY_ENUM:
		case MD_KEY_NAME:
		case MD_KEY_TEXT:
			append_string(buffer, type, value);
			break;
		case MD_KEY_BYTEA:
			append_bytea(buffer, DatumGetByteaPP(value));
			break;
		case MD_KEY_UUID:
			md_key_append_byte(buffer, 'u');
			md_key_append_bytes(buffer, DatumGetUUIDP(value)->data, UUID_LEN);
			break;
		case MD_KEY_DATE:
			append_date(buffer, DatumGetDateADT(value));
			break;
		case MD_KEY_TIMESTAMP:
			append_timestamp(buffer, 't', DatumGetTimestamp(value));
			break;
		case MD_KEY_TIMESTAMPTZ:
			append_timestamp(buffer, 'z', DatumGetTimestampTz(value));
			break;
		case MD_KEY_TIME:
			md_key_append_byte(buffer, 'c');
			md_key_append_uint64(buffer, (uint64) DatumGetTimeADT(value));
			break;
		case MD_KEY_TIMETZ:
			append_timetz(buffer, DatumGetTimeTzADTP(value));
			break;
		case MD_KEY_INTERVAL:
			append_interval(buffer, DatumGetIntervalP(value));
			break;
		case MD_KEY_INET:
			append_inet(buffer, DatumGetInetPP(value));
			break;
		case MD_KEY_MACADDR:
			append_macaddr(buffer, DatumGetMacaddrP(value));
			break;
		case MD_KEY_MACADDR8:
			append_macaddr8(buffer, DatumGetMacaddr8P(value));
			break;
		case MD_KEY_BIT:
			append_bits(buffer, DatumGetVarBitP(value));
			break;
		case MD_KEY_JSONB:
			append_jsonb(buffer, DatumGetJsonbP(value));
			break;
		case MD_KEY_ARRAY:
			append_array(call, type, value, buffer);
			break;
		case MD_KEY_ROW:
			append_row(call, type, value, buffer);
			break;
		case MD_KEY_RANGE:
			md_key_append_byte(buffer, 'g');
			append_range(call, type, DatumGetRangeTypeP(value), buffer);
			break;
		case MD_KEY_MULTIRANGE:
			append_multirange(call, type, value, buffer);
			break;
		case MD_KEY_UNSUPPORTED:
		case MD_KEY_DROPPED:
			elog(ERROR, "no encoding for type %u", type->type_oid);
	}
}

/*
 * Types that can be hashed.  Under a nondeterministic collation strings of
 * different bytes may be equal, and no bytes stand for them all.
 */
static void
accept_encodable(const MdKeyCall *call, const MdKeyType *type)
{
	if (type->kind == MD_KEY_UNSUPPORTED)
		md_key_refuse_unsupported(call, type);

	if ((type->kind == MD_KEY_TEXT || type->kind == MD_KEY_BPCHAR || type->kind == MD_KEY_NAME) &&
		OidIsValid(type->collation) && !get_collation_isdeterministic(type->collation))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function \"%s\" cannot take a string of nondeterministic collation \"%s\"",
						get_func_name(call->function_oid),
						get_collation_name(type->collation)),
				 errdetail("Equal strings may have different bytes under it, and would have different keys."),
				 errhint("Hash a normalized form of the string, as in lower(x) COLLATE \"C\".")));
}

/*
 * Append the encoding of the arguments of a function; those that are not
 * encodable are an ERROR.
 */
void
md_key_encode_arguments(FunctionCallInfo fcinfo, MdKeyBuffer *buffer)
{
	md_key_visit_arguments(fcinfo, accept_encodable, append_value, buffer);
}
