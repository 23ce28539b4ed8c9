/*
 * stream_options.c
 *		The options of a streaming table: names, units, defaults, checks.
 */
#include "postgres.h"

#include "stream_options.h"

/* Set the option fields of stream: defaults first, then those of options. */
void
md_stream_options_apply(MdStream *stream, Jsonb *options)
{
	stream->flush_interval_ms = 100;
	stream->batch_max_records = 50000;
	stream->batch_max_bytes = 16 * 1024 * 1024;
}
