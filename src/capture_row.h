/*
 * capture_row.h
 *		A row as the change log keeps it.
 */
#ifndef MD_CAPTURE_ROW_H
#define MD_CAPTURE_ROW_H

#include "postgres.h"

#include "access/htup_details.h"
#include "lib/stringinfo.h"

/* Bytes that a row takes. */
extern Size md_log_row_size(MinimalTuple tuple);

/* Append a row, which has nothing out of line, and its weight (1 or -1). */
extern void md_log_row_pack(StringInfo rows, MinimalTuple tuple, int weight);

/*
 * The row at a place, made in the current context with `spare` zeroed bytes behind it;
 * *weight is set, and *size to the bytes that it takes there.
 */
extern MinimalTuple md_log_row_unpack(const char *place, Size spare, int *weight, Size *size);

#endif							/* MD_CAPTURE_ROW_H */
