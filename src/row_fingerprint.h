/*
 * row_fingerprint.h
 *		Telling rows by a fingerprint of their values.
 */
#ifndef MD_ROW_FINGERPRINT_H
#define MD_ROW_FINGERPRINT_H

/* The SQL functions, with their schema. */
#define MD_ROW_FINGERPRINT "medallion.row_fingerprint"
#define MD_NOT_QUARANTINED "medallion.not_quarantined"

#endif							/* MD_ROW_FINGERPRINT_H */
