/*
 * stream_options.h
 *		The options of a streaming table: names, units, defaults, checks.
 *
 * Options come from DDL or from jsonb, as DefElems with strings, and are
 * stored in medallion.stream in a canonical form: those that were set alone,
 * so that the defaults are the extension's at any time.
 */
#ifndef MD_STREAM_OPTIONS_H
#define MD_STREAM_OPTIONS_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "catalog.h"
#include "compat.h"

/* The members of a jsonb object as DefElems; ERROR unless all are scalars. */
extern List *md_stream_options_from_jsonb(Jsonb *options);

/*
 * Set the options (of DefElem; one without a value is reset to its default)
 * on top of base, which may be NULL.  Returns the canonical form.  ERROR for an
 * unknown name, a repeated one, and a value that cannot be.
 */
extern Jsonb *md_stream_options_canonical(Jsonb *base, List *options);

/* Set the option fields of stream: defaults first, then those of options. */
extern void md_stream_options_apply(MdStream *stream, Jsonb *options);

/*
 * ERROR, with the nearest name, unless name is an option or among more_names
 * (which ends with NULL).
 */
extern void md_stream_options_check_name(const char *name, const char *const *more_names);

#endif							/* MD_STREAM_OPTIONS_H */
