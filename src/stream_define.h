/*
 * stream_define.h
 *		Definition of streaming tables: create, adopt, alter.
 *
 * The SQL functions and DDL both come here, so that a name, a default or a
 * check cannot differ between them.
 */
#ifndef MD_STREAM_DEFINE_H
#define MD_STREAM_DEFINE_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

#include "catalog.h"

/* What the user wrote, and what was made of it. */
typedef struct MdStreamDefinition
{
	const char *server;
	const char *topic;
	const char *format;
	const char *start_at;
	List	   *options;		/* of DefElem, without the above */
	bool		check_topic;	/* ask Kafka now; an option beside the others */
} MdStreamDefinition;

/* Defaults: format json, start_at earliest, check_topic. */
extern void md_stream_definition_init(MdStreamDefinition *definition);

/*
 * Put options (of DefElem) into definition: server, topic, format and start_at
 * too if names_too, as DDL writes them.
 */
extern void md_stream_definition_set(MdStreamDefinition *definition, List *options,
									 bool names_too);

/*
 * All checks that need neither a table nor the network.  Fills *stream and
 * returns the options' canonical form.
 */
extern Jsonb *md_stream_definition_check(const MdStreamDefinition *definition,
										 MdStream *stream);

/*
 * Make relid, created just now or adopted, a streaming table.  The caller
 * owns it and holds a lock as for CREATE TRIGGER.
 */
extern void md_stream_define(Oid relid, const MdStreamDefinition *definition);

/* Create the table, or adopt it if it exists and columns is NULL. */
extern Oid	md_stream_create(RangeVar *relation, const char *columns,
							 const MdStreamDefinition *definition);

/* Set and reset (of DefElem; arg NULL) options of a streaming table, locked. */
extern void md_stream_alter(Oid relid, List *options);

/* ERROR if the columns of the table, as they are now, cannot be filled. */
extern void md_stream_check_columns(const MdStream *stream);

#endif							/* MD_STREAM_DEFINE_H */
