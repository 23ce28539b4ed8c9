/*
 * stream_ddl.c
 *		DDL on streaming tables: CREATE TABLE, ALTER TABLE ... SET, renames.
 */
#include "postgres.h"

#include "ddl.h"

bool
md_stream_utility(MdUtility *u)
{
	return false;
}

void
md_stream_relation_dropped(Oid relid)
{
}
