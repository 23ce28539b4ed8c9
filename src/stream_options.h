/*
 * stream_options.h
 *		The options of a streaming table: names, units, defaults, checks.
 */
#ifndef MD_STREAM_OPTIONS_H
#define MD_STREAM_OPTIONS_H

#include "postgres.h"
#include "utils/jsonb.h"

#include "catalog.h"

/* Set the option fields of stream: defaults first, then those of options. */
extern void md_stream_options_apply(MdStream *stream, Jsonb *options);

#endif							/* MD_STREAM_OPTIONS_H */
