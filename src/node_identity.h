/*
 * node_identity.h
 *		Is this data directory the one that it was, or a copy of it?
 */
#ifndef MD_NODE_IDENTITY_H
#define MD_NODE_IDENTITY_H

/* In the server's start: shared memory for it, and the look at the data directory. */
extern void md_node_identity_request(void);
extern void md_node_identity_init(void);

/*
 * The lineage of this data directory: the same in a server and in its
 * standbys, before and after they are promoted, and another in a copy that was
 * started by itself.  "" if the library is not preloaded.
 */
extern const char *md_node_lineage(void);

#endif							/* MD_NODE_IDENTITY_H */
