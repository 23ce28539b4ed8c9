/*
 * dead_letter_record.h
 *		A dead letter as the record that it was.
 */
#ifndef MD_DEAD_LETTER_RECORD_H
#define MD_DEAD_LETTER_RECORD_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

#include "record.h"

/*
 * Read dead letters (ids of int8) as records, in the order of their positions.
 * Returns their number; *records and *ids are allocated in the current memory
 * context.
 */
extern int	md_dead_letter_read(ArrayType *ids, MdRecord **records, int64 **record_ids);

#endif							/* MD_DEAD_LETTER_RECORD_H */
