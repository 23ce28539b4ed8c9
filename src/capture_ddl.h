/*
 * capture_ddl.h
 *		Following DDL on captured relations.
 */
#ifndef MD_CAPTURE_DDL_H
#define MD_CAPTURE_DDL_H

#include "postgres.h"
#include "nodes/nodes.h"

typedef struct MdCaptureDdl MdCaptureDdl;

/* Around a utility statement; begin refuses to drop our triggers. */
extern MdCaptureDdl *md_capture_ddl_begin(Node *stmt);
extern void md_capture_ddl_end(MdCaptureDdl *ddl);

#endif							/* MD_CAPTURE_DDL_H */
