/*
 * decode.h
 *		From a record's bytes to the values of a row.
 *
 * A decoder is made once per streaming table and definition.  It knows for
 * each column where its value comes from: metadata of the record, the payload
 * as a whole, or a field of the payload.
 */
#ifndef MD_DECODE_H
#define MD_DECODE_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "catalog.h"
#include "record.h"

typedef struct MdDecoder MdDecoder;

/* Why a record cannot be decoded; strings in CurrentMemoryContext. */
typedef struct MdDecodeError
{
	int			sqlstate;		/* as from MAKE_SQLSTATE */
	char	   *message;
	char	   *detail;			/* may be NULL */
} MdDecodeError;

/*
 * Make a decoder for rows of desc, in its own child of context.
 * ERROR when a column cannot be filled: wrong type for a metadata column
 * (ERRCODE_DATATYPE_MISMATCH), a type without input function, and the like;
 * so a caller that defines a streaming table calls it to validate.
 */
extern MdDecoder *md_decoder_create(const MdStream *stream, TupleDesc desc,
									MemoryContext context);
extern void md_decoder_free(MdDecoder *decoder);

/* Does it need record->headers to be fetched? */
extern bool md_decoder_needs_headers(const MdDecoder *decoder);

/*
 * Fill values[] and isnull[] (natts entries each) from the record.  Values by
 * reference are allocated in CurrentMemoryContext, which the caller resets.
 * ingested_at is the batch's timestamp.  Identity and generated columns come out
 * as NULL and are the store's to compute.
 *
 * Returns false and fills *error for bad data that was found without
 * throwing.  May also throw: input functions of types do, and the JSON parser
 * when a value is nested deeper than max_stack_depth allows (class 54, which
 * is the record's fault as 22 and 23 are).  The caller's subtransaction, if
 * any, decides what that means, and md_decoder_describe_thrown() puts it into
 * the form of the errors that are returned.
 *
 * Runs in: ingest worker or session, inside a transaction, as table owner.
 */
extern bool md_decoder_decode(MdDecoder *decoder, const MdRecord *record,
							  TimestampTz ingested_at,
							  Datum *values, bool *isnull,
							  MdDecodeError *error);

/*
 * The error that decoding the last record threw, as if it had been returned:
 * with the column in the message.  Of an error that came after decoding, from
 * storing the row, just sqlstate, message and detail.
 */
extern void md_decoder_describe_thrown(const MdDecoder *decoder,
									   const ErrorData *thrown,
									   MdDecodeError *error);

/* Headers as jsonb: [{"name": text, "value": text or null}, ...]; bytes that
 * are not valid text are base64 under "value_base64". NULL-free; the empty
 * list for no headers. */
extern Jsonb *md_decode_headers(const MdRecord *record);

/* Names and types of metadata columns that every streaming table has, or may
 * declare: kafka_partition, kafka_offset, kafka_timestamp, ingested_at always. */
typedef struct MdMetadataColumn
{
	const char *name;
	Oid			type;			/* InvalidOid: depends on format or declaration */
	bool		always;
} MdMetadataColumn;

extern const MdMetadataColumn md_metadata_columns[];	/* ends with a NULL name */

#endif							/* MD_DECODE_H */
