/*
 * refresh_culprits.h
 *		Which rows of the sources is an error of a refresh about?
 */
#ifndef MD_REFRESH_CULPRITS_H
#define MD_REFRESH_CULPRITS_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

#include "refresh_exec.h"

/* Rows of one source among which culprits are sought. */
typedef struct MdSuspects
{
	Oid			relid;
	char	   *condition;		/* on its columns, ctid, xmin; NULL: all its rows */
	Tuplestorestate *store;		/* instead: these rows, with all attributes; NULL: none */
	TupleDesc	tupdesc;
	bool		is_stream;
	double		size;			/* more or less: of the source */
} MdSuspects;

/* Is the error about data, and would it be raised again for the same? */
extern bool md_culprits_is_data_error(const ErrorData *error);

/*
 * Find rows with which the view cannot be computed: MdRefreshErrors that are not
 * stored yet, NIL if no single row is to blame, more than `limit` (-1: none) if
 * there are that many.  errors: rows that are known, and left out.  look_back: a
 * row that is no suspect, and cannot be computed by itself, is to blame before a
 * suspect that it meets.  ERROR for an error that is not about data.
 *
 * Runs in: a refresh, as the owner of the view, connected to SPI.
 */
extern List *md_culprits_find(MdRefresh *refresh, List *errors, List *suspects, int64 limit,
							  bool look_back);

#endif							/* MD_REFRESH_CULPRITS_H */
