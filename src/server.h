/*
 * server.h
 *		A Kafka server as its clients need it: privileges and properties.
 */
#ifndef MD_SERVER_H
#define MD_SERVER_H

#include "postgres.h"
#include "nodes/pg_list.h"

/*
 * Oid of the server, which must be one of our wrapper's and which user_id must
 * have USAGE on.  ERROR otherwise, with the nearest name as a hint.
 */
extern Oid	md_server_lookup(const char *server_name, Oid user_id);

/* Is it a server of our wrapper; is it our wrapper?  False for names that are unknown. */
extern bool md_server_is_ours(const char *server_name);
extern bool md_server_wrapper_is_ours(const char *wrapper_name);

/* Is there such a server, and may user_id use it?  For each batch: no catalog is scanned. */
extern bool md_server_is_usable(const char *server_name, Oid user_id);

/*
 * Properties (of MdKafkaProperty, in CurrentMemoryContext) to connect to the
 * server as user_id: the server's options, overlaid by those of the user
 * mapping of user_id, or else of PUBLIC.  Errors as md_server_lookup().
 *
 * Runs in: sessions and workers, inside a transaction.
 */
extern List *md_server_properties(const char *server_name, Oid user_id);

#endif							/* MD_SERVER_H */
