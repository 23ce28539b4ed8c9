/*
 * server_options.c
 *		Checks of the options of Kafka servers and user mappings.
 *
 * Anybody may read the options of a server in pg_foreign_server, so secrets
 * are refused there; those of a user mapping are shown to its user, and to the
 * server's owner for the public one, by pg_user_mappings.  No error of this
 * file shows a value that is, or might be, a secret.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "nearest_name.h"
#include "server_options.h"

char *
md_server_option_name(const char *property)
{
	char	   *name = pstrdup(property);

	for (char *c = name; *c != '\0'; c++)
		if (*c == '.')
			*c = '_';
	return name;
}

const MdServerOption *
md_server_option_by_property(const char *property)
{
	for (const MdServerOption *o = md_server_option_list; o->property != NULL; o++)
		if (strcmp(o->property, property) == 0)
			return o;
	return NULL;
}

/* Is name what md_server_option_name() makes of property? */
static bool
is_name_of(const char *name, const char *property)
{
	for (; *name != '\0' && *property != '\0'; name++, property++)
		if (*name != (*property == '.' ? '_' : *property))
			return false;
	return *name == *property;
}

const MdServerOption *
md_server_option_by_name(const char *name)
{
	for (const MdServerOption *o = md_server_option_list; o->property != NULL; o++)
		if (is_name_of(name, o->property))
			return o;
	return NULL;
}

const char *
md_server_option_value(const MdServerOption *option, const char *value)
{
	bool		boolean;

	if (option->type == MD_OPTION_BOOLEAN && parse_bool(value, &boolean))
		return boolean ? "true" : "false";
	if (option->type == MD_OPTION_ENUM)
		for (const char *const *v = option->values; *v != NULL; v++)
			if (pg_strcasecmp(*v, value) == 0)
				return *v;
	return value;
}

/* The names that may stand on a server or in a mapping, for hints. */
static const char **
allowed_names(int place)
{
	const char **names;
	int			n = 0;

	for (const MdServerOption *o = md_server_option_list; o->property != NULL; o++)
		n++;
	names = palloc((n + 1) * sizeof(char *));
	n = 0;
	for (const MdServerOption *o = md_server_option_list; o->property != NULL; o++)
		if (o->disposition == MD_OPTION_ALLOWED && (o->flags & place) != 0)
			names[n++] = md_server_option_name(o->property);
	names[n] = NULL;
	return names;
}

/* ERROR for a name that is not on the list. */
static void
refuse_unknown(const char *name, int place)
{
	const char *nearest;

	/* librdkafka's own spelling is an understandable mistake */
	if (md_server_option_by_property(name) != NULL)
		nearest = md_server_option_name(name);
	else
		nearest = md_nearest_name(name, allowed_names(place));
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 nearest != NULL ? errhint("Perhaps you meant the option \"%s\".", nearest) :
			 errhint("All options are listed by medallion.kafka_properties().")));
}

/* ERROR unless the option may stand at this place, for this user. */
static void
check_place(const char *name, const MdServerOption *option, int place)
{
	if (option->disposition != MD_OPTION_ALLOWED)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 option->disposition == MD_OPTION_REFUSED ?
				 errmsg("option \"%s\" is not allowed", name) :
				 errmsg("option \"%s\" is set by the extension", name),
				 errdetail("%s", option->reason)));
	if ((option->flags & place) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 place == MD_OPTION_ON_SERVER ?
				 errmsg("option \"%s\" is not allowed on a server", name) :
				 errmsg("option \"%s\" is not allowed in a user mapping", name),
				 (option->flags & MD_OPTION_SECRET) != 0 ?
				 errdetail("Everybody can read the options of a server, and this one is a secret.") : 0,
				 place == MD_OPTION_ON_SERVER ?
				 errhint("Use CREATE USER MAPPING ... OPTIONS (%s ...).", name) :
				 errhint("Use CREATE SERVER or ALTER SERVER ... OPTIONS (%s ...).", name)));
	if ((option->flags & MD_OPTION_FILE) != 0 &&
		!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 errdetail("It names a file of the server's machine, which takes the privileges of role \"%s\".",
						   "pg_read_server_files"),
				 errhint("Give certificates and keys as text instead, in the options ending in \"_pem\".")));
}

/* One entry of bootstrap_servers: host, host:port, [address] or [address]:port. */
static bool
is_broker(const char *entry)
{
	const char *port;
	char	   *end;
	long		number;

	if (entry[0] == '[')
	{
		const char *close = strchr(entry, ']');

		if (close == NULL || close == entry + 1)
			return false;
		port = close + 1;
		if (*port == '\0')
			return true;
		if (*port != ':')
			return false;
	}
	else
	{
		if (strpbrk(entry, " \t\r\n/@") != NULL || entry[0] == ':' || entry[0] == '\0')
			return false;
		port = strchr(entry, ':');
		if (port == NULL)
			return true;
	}
	port++;
	if (*port < '0' || *port > '9')
		return false;
	number = strtol(port, &end, 10);
	return *end == '\0' && number >= 1 && number <= 65535;
}

static bool
are_brokers(const char *value)
{
	char	   *copy = pstrdup(value);

	for (char *entry = copy; entry != NULL;)
	{
		char	   *comma = strchr(entry, ',');
		char	   *last;

		if (comma != NULL)
			*comma = '\0';
		while (*entry == ' ')
			entry++;
		last = entry + strlen(entry);
		while (last > entry && last[-1] == ' ')
			*--last = '\0';
		if (!is_broker(entry))
			return false;
		entry = comma == NULL ? NULL : comma + 1;
	}
	return true;
}

/* http or https, with a host, and without a user or password in it. */
static bool
is_url(const char *value)
{
	const char *host;
	Size		len;

	if (pg_strncasecmp(value, "http://", 7) == 0)
		host = value + 7;
	else if (pg_strncasecmp(value, "https://", 8) == 0)
		host = value + 8;
	else
		return false;
	len = strcspn(host, "/?#");
	return len > 0 && memchr(host, '@', len) == NULL && strpbrk(value, " \t\r\n") == NULL;
}

/* "a, b, c", for a detail. */
static char *
list_values(const char *const *values)
{
	StringInfoData text;

	initStringInfo(&text);
	for (const char *const *v = values; *v != NULL; v++)
		appendStringInfo(&text, "%s%s", v == values ? "" : ", ", *v);
	return text.data;
}

/* ERROR for a value that librdkafka would refuse, where we can tell. */
static void
check_value(const char *name, const MdServerOption *option, const char *value)
{
	bool		boolean;
	int64		number;
	char	   *end;
	const char *nearest;

	switch (option->type)
	{
		case MD_OPTION_STRING:
			if (value[0] == '\0')
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						 errmsg("option \"%s\" must not be empty", name)));
			return;
		case MD_OPTION_BOOLEAN:
			if (parse_bool(value, &boolean))
				return;
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
					 errdetail("It is \"true\" or \"false\".")));
			break;
		case MD_OPTION_INTEGER:
			errno = 0;
			number = strtoi64(value, &end, 10);
			if (value[0] != '\0' && *end == '\0' && errno == 0 &&
				number >= option->min && number <= option->max)
				return;
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
					 errdetail("It is a whole number from " INT64_FORMAT " to " INT64_FORMAT ".",
							   option->min, option->max)));
			break;
		case MD_OPTION_ENUM:
			for (const char *const *v = option->values; *v != NULL; v++)
				if (pg_strcasecmp(*v, value) == 0)
					return;
			nearest = md_nearest_name(value, option->values);
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
					 errdetail("Its values are %s.", list_values(option->values)),
					 nearest != NULL ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
			break;
		case MD_OPTION_BROKERS:
			if (are_brokers(value))
				return;
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
					 errdetail("It is a list of host:port, separated by commas.")));
			break;
		case MD_OPTION_URL:
			if (is_url(value))
				return;
			/* not shown: it may hold a password by mistake */
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\"", name),
					 errdetail("It is a URL that begins with http:// or https:// and has no user and no password in it.")));
	}
}

/*
 * Everybody can read the options of a server: a file of certificates may have
 * come with its key.
 */
static void
check_for_private_key(const char *name, const char *value)
{
	if (strstr(value, "PRIVATE KEY-----") == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"%s\" of a server must not hold a private key", name),
			 errdetail("Everybody can read the options of a server."),
			 errhint("Use CREATE USER MAPPING ... OPTIONS (ssl_key_pem ...).")));
}

/* Options of a server that ask for each other. */
static void
check_combination(const char *brokers, const char *protocol,
				  const char *mechanism, const char *oauth_method)
{
	if (brokers == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required", "bootstrap_servers"),
				 errhint("Name one or more brokers: OPTIONS (bootstrap_servers 'host:9092').")));
	/* librdkafka's default mechanism is Kerberos, which is not allowed */
	if (protocol != NULL && pg_strncasecmp(protocol, "sasl_", 5) == 0 && mechanism == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required", "sasl_mechanism"),
				 errdetail("The option \"security_protocol\" asks for SASL.")));
	if (mechanism != NULL &&
		(protocol == NULL || pg_strncasecmp(protocol, "sasl_", 5) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" has no effect without SASL", "sasl_mechanism"),
				 errhint("Set \"security_protocol\" to \"sasl_ssl\" or \"sasl_plaintext\".")));
	if (mechanism != NULL && pg_strcasecmp(mechanism, "OAUTHBEARER") == 0 && oauth_method == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required", "sasl_oauthbearer_method"),
				 errhint("Set it to \"oidc\".")));
}

void
md_server_options_check(List *options, bool is_mapping)
{
	int			place = is_mapping ? MD_OPTION_ON_MAPPING : MD_OPTION_ON_SERVER;
	const char *brokers = NULL;
	const char *protocol = NULL;
	const char *mechanism = NULL;
	const char *oauth_method = NULL;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const MdServerOption *option = md_server_option_by_name(def->defname);
		const char *value = defGetString(def);

		if (option == NULL)
			refuse_unknown(def->defname, place);
		check_place(def->defname, option, place);
		check_value(def->defname, option, value);
		if (!is_mapping)
			check_for_private_key(def->defname, value);

		if (strcmp(def->defname, "bootstrap_servers") == 0)
			brokers = value;
		else if (strcmp(def->defname, "security_protocol") == 0)
			protocol = value;
		else if (strcmp(def->defname, "sasl_mechanism") == 0)
			mechanism = value;
		else if (strcmp(def->defname, "sasl_oauthbearer_method") == 0)
			oauth_method = value;
	}
	if (!is_mapping)
		check_combination(brokers, protocol, mechanism, oauth_method);
}
