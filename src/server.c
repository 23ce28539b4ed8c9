/*
 * server.c
 *		A Kafka server as its clients need it: privileges and properties.
 *
 * A streaming table connects as its owner, so what counts is the owner's USAGE
 * on the server and the owner's user mapping, in workers and in sessions
 * alike; check_server() connects as whoever calls it.  Options were checked
 * when they were set, but by another version perhaps, or before they came by a
 * restore: one that is not allowed now is an error here too.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "kafka_client.h"
#include "nearest_name.h"
#include "server.h"
#include "server_options.h"

/* Wrappers are told by their validator, so that ours may be renamed. */
static bool
is_kafka_wrapper(Oid wrapper_id)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(wrapper_id);
	char	   *function;

	if (!OidIsValid(wrapper->fdwvalidator))
		return false;
	function = get_func_name(wrapper->fdwvalidator);
	return function != NULL && strcmp(function, "kafka_fdw_validator") == 0 &&
		get_func_namespace(wrapper->fdwvalidator) == get_namespace_oid("medallion", true);
}

/* Names of the Kafka servers that user_id may use, for hints. */
static const char **
usable_server_names(Oid user_id)
{
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	const char **names = palloc(sizeof(char *));
	int			n = 0;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (!is_kafka_wrapper(server->srvfdw) ||
			md_server_aclcheck(server->oid, user_id) != ACLCHECK_OK)
			continue;
		names = repalloc(names, (n + 2) * sizeof(char *));
		names[n++] = pstrdup(NameStr(server->srvname));
	}
	names[n] = NULL;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return names;
}

/* ERROR: there is no such server. */
static void
refuse_unknown_server(const char *name, Oid user_id)
{
	const char **names = usable_server_names(user_id);
	const char *nearest = md_nearest_name(name, names);

	if (nearest == NULL && names[0] != NULL && names[1] == NULL)
		nearest = names[0];
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("server \"%s\" does not exist", name),
			 nearest != NULL ? errhint("Perhaps you meant the server \"%s\".", nearest) :
			 errhint("Create one with CREATE SERVER ... FOREIGN DATA WRAPPER kafka.")));
}

Oid
md_server_lookup(const char *server_name, Oid user_id)
{
	ForeignServer *server = GetForeignServerByName(server_name, true);

	if (server == NULL)
		refuse_unknown_server(server_name, user_id);
	if (!is_kafka_wrapper(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a Kafka server", server_name),
				 errdetail("Its foreign-data wrapper is \"%s\".",
						   GetForeignDataWrapper(server->fdwid)->fdwname),
				 errhint("Create one with CREATE SERVER ... FOREIGN DATA WRAPPER kafka.")));
	if (md_server_aclcheck(server->serverid, user_id) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", server_name),
				 errdetail("Role \"%s\" has no USAGE privilege on it.",
						   GetUserNameFromId(user_id, false)),
				 errhint("Its owner can GRANT USAGE ON FOREIGN SERVER %s.",
						 quote_identifier(server_name))));
	return server->serverid;
}

bool
md_server_wrapper_is_ours(const char *wrapper_name)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapperByName(wrapper_name, true);

	return wrapper != NULL && is_kafka_wrapper(wrapper->fdwid);
}

bool
md_server_is_ours(const char *server_name)
{
	ForeignServer *server = GetForeignServerByName(server_name, true);

	return server != NULL && is_kafka_wrapper(server->fdwid);
}

bool
md_server_is_usable(const char *server_name, Oid user_id)
{
	Oid			server_id = get_foreign_server_oid(server_name, true);

	return OidIsValid(server_id) && md_server_aclcheck(server_id, user_id) == ACLCHECK_OK;
}

/* Options of the mapping of user_id, or of PUBLIC; NIL if there is none. */
static List *
mapping_options(Oid server_id, Oid user_id)
{
	Oid			users[2] = {user_id, InvalidOid};

	for (int i = 0; i < lengthof(users); i++)
	{
		HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
											ObjectIdGetDatum(users[i]),
											ObjectIdGetDatum(server_id));
		List	   *options = NIL;
		Datum		value;
		bool		isnull;

		if (!HeapTupleIsValid(tuple))
			continue;
		value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
								Anum_pg_user_mapping_umoptions, &isnull);
		if (!isnull)
			options = untransformRelOptions(value);
		ReleaseSysCache(tuple);
		return options;
	}
	return NIL;
}

/* Add one option to properties, in place of an equal name. */
static List *
overlay_option(List *properties, const DefElem *def)
{
	const MdServerOption *option = md_server_option_by_name(def->defname);
	MdKafkaProperty *property = NULL;
	ListCell   *lc;

	if (option == NULL || option->disposition != MD_OPTION_ALLOWED)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is not allowed", def->defname)));
	if ((option->flags & MD_OPTION_OWN) != 0)
		return properties;

	foreach(lc, properties)
	{
		MdKafkaProperty *other = lfirst(lc);

		if (strcmp(other->name, option->property) == 0)
			property = other;
	}
	if (property == NULL)
	{
		property = palloc(sizeof(MdKafkaProperty));
		properties = lappend(properties, property);
	}
	property->name = option->property;
	property->value = md_server_option_value(option, defGetString(unconstify(DefElem *, def)));
	property->secret = (option->flags & MD_OPTION_SECRET) != 0;
	return properties;
}

List *
md_server_properties(const char *server_name, Oid user_id)
{
	Oid			server_id = md_server_lookup(server_name, user_id);
	List	   *options = list_concat(list_copy(GetForeignServer(server_id)->options),
									  mapping_options(server_id, user_id));
	List	   *properties = NIL;
	ListCell   *lc;

	foreach(lc, options)
		properties = overlay_option(properties, lfirst_node(DefElem, lc));
	return properties;
}
