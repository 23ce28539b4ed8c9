/*
 * view_ddl.c
 *		DDL on materialized views.
 */
#include "postgres.h"

#include "ddl.h"
#include "view_catalog.h"
#include "worker_slots.h"

bool
md_view_utility(MdUtility *u)
{
	return false;
}

void
md_view_relation_dropped(Oid relid)
{
	if (!md_view_exists(relid))
		return;
	md_view_delete(relid);
	md_definitions_changed();
}
