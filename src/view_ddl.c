/*
 * view_ddl.c
 *		DDL on materialized views.
 */
#include "postgres.h"

#include "ddl.h"

bool
md_view_utility(MdUtility *u)
{
	return false;
}

void
md_view_relation_dropped(Oid relid)
{
}
