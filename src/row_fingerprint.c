/*
 * row_fingerprint.c
 *		Telling rows by a fingerprint of their values.
 *
 * A refresh leaves out rows that are quarantined (refresh_errors.h) by a
 * condition on the scan of their source:
 *
 *		FROM bronze.orders WHERE medallion.not_quarantined('{...}', a, b)
 *
 * It must be looked at before any other condition, because that is where the
 * row may fail.  Postgres orders the conditions of a scan by their cost, so this
 * one is declared to cost next to nothing, and to let all rows through.
 *
 * The fingerprint is 128 bits over the bytes of the values as they are stored:
 * rows with equal ones give the same in any expression.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

#include "row_fingerprint.h"

PG_FUNCTION_INFO_V1(md_row_fingerprint);
PG_FUNCTION_INFO_V1(md_not_quarantined);
PG_FUNCTION_INFO_V1(md_not_quarantined_support);

typedef struct ValueType
{
	int16		length;
	bool		by_value;
} ValueType;

/* What a call site knows, for as long as its query runs. */
typedef struct CallSite
{
	int			count;			/* of fingerprints */
	pg_uuid_t  *fingerprints;	/* sorted; NULL: not read yet */
	bool		is_constant;	/* they are the same at each call */
	ValueType	types[FLEXIBLE_ARRAY_MEMBER];	/* of all arguments */
} CallSite;

static CallSite *
call_site(FunctionCallInfo fcinfo)
{
	CallSite   *site = fcinfo->flinfo->fn_extra;

	if (site != NULL)
		return site;
	if (get_fn_expr_variadic(fcinfo->flinfo))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("values must be given one by one, not as a VARIADIC array")));
	site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
								  offsetof(CallSite, types) + sizeof(ValueType) * PG_NARGS());
	for (int i = 0; i < PG_NARGS(); i++)
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, i);

		if (!OidIsValid(type))
			elog(ERROR, "could not determine type of argument %d", i + 1);
		get_typlenbyval(type, &site->types[i].length, &site->types[i].by_value);
	}
	site->is_constant = get_fn_expr_arg_stable(fcinfo->flinfo, 0);
	fcinfo->flinfo->fn_extra = site;
	return site;
}

static void
add_bytes(uint64 *hash, const void *bytes, Size length)
{
	for (int i = 0; i < 2; i++)
		hash[i] = hash_bytes_extended(bytes, (int) length, hash[i]);
}

static void
add_value(uint64 *hash, Datum value, bool is_null, const ValueType *type)
{
	struct varlena *packed;
	int64		length;

	if (is_null)
	{
		length = -1;
		add_bytes(hash, &length, sizeof(length));
	}
	else if (type->by_value)
		add_bytes(hash, &value, sizeof(Datum));
	else if (type->length > 0)
		add_bytes(hash, DatumGetPointer(value), type->length);
	else if (type->length == -2)
		add_bytes(hash, DatumGetCString(value), strlen(DatumGetCString(value)) + 1);
	else
	{
		packed = PG_DETOAST_DATUM_PACKED(value);
		length = VARSIZE_ANY_EXHDR(packed);
		/* so that 'ab', 'c' is not 'a', 'bc' */
		add_bytes(hash, &length, sizeof(length));
		add_bytes(hash, VARDATA_ANY(packed), length);
		if ((Pointer) packed != DatumGetPointer(value))
			pfree(packed);
	}
}

/* Of the arguments from number `first`. */
static void
fingerprint_arguments(FunctionCallInfo fcinfo, const CallSite *site, int first, pg_uuid_t *result)
{
	/* any two constants that differ */
	uint64		hash[2] = {UINT64CONST(0x6d6564616c6c696f), UINT64CONST(0x71756172616e7469)};

	for (int i = first; i < PG_NARGS(); i++)
		add_value(hash, fcinfo->args[i].value, fcinfo->args[i].isnull, &site->types[i]);
	memcpy(result->data, hash, UUID_LEN);
}

/*
 * row_fingerprint(VARIADIC "any") returns uuid: never NULL, NULLs are values.
 */
Datum
md_row_fingerprint(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *result = palloc(sizeof(pg_uuid_t));

	fingerprint_arguments(fcinfo, call_site(fcinfo), 0, result);
	PG_RETURN_UUID_P(result);
}

static int
compare_fingerprints(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/* The first argument as a sorted array that stays for the call site. */
static void
read_fingerprints(FunctionCallInfo fcinfo, CallSite *site)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (site->fingerprints != NULL)
		pfree(site->fingerprints);
	site->count = 0;
	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, ARR_ELEMTYPE(array), UUID_LEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &count);
	site->fingerprints = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt,
											sizeof(pg_uuid_t) * Max(1, count));
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			site->fingerprints[site->count++] = *DatumGetUUIDP(elements[i]);
	qsort(site->fingerprints, site->count, sizeof(pg_uuid_t), compare_fingerprints);
	pfree(elements);
	pfree(nulls);
}

/*
 * not_quarantined(uuid[], VARIADIC "any") returns boolean: is the fingerprint
 * of the values none of these?  Never NULL; of no fingerprints (NULL) it is true.
 */
Datum
md_not_quarantined(PG_FUNCTION_ARGS)
{
	CallSite   *site = call_site(fcinfo);
	pg_uuid_t	own;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	if (site->fingerprints == NULL || !site->is_constant)
		read_fingerprints(fcinfo, site);
	fingerprint_arguments(fcinfo, site, 1, &own);
	PG_RETURN_BOOL(bsearch(&own, site->fingerprints, site->count, sizeof(pg_uuid_t),
						   compare_fingerprints) == NULL);
}

/* For the planner: it lets all rows through. */
Datum
md_not_quarantined_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = 1.0;
	PG_RETURN_POINTER(request);
}
