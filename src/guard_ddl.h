/*
 * guard_ddl.h
 *		Statements that would let rows come, go or change past the guard.
 */
#ifndef MD_GUARD_DDL_H
#define MD_GUARD_DDL_H

#include "postgres.h"

#include "nodes/nodes.h"

/* ERROR for a statement that is refused; the extension exists in this database. */
extern void md_guard_check_statement(Node *stmt);

#endif							/* MD_GUARD_DDL_H */
