/*
 * stream_define.c
 *		Definition of streaming tables: create, adopt, alter.
 *
 * Everything is checked when a table is defined: the server and the owner's
 * privilege on it, the topic, the format, the options, and that each column
 * can be filled; Kafka is asked for the topic, and start_at becomes offsets.
 * With the option check_topic = false the last part is left to the worker,
 * which calls the same code, so that definitions can be loaded where there is
 * no broker.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "decode.h"
#include "kafka_client.h"
#include "nearest_name.h"
#include "server.h"
#include "settings.h"
#include "stream_child_ddl.h"
#include "stream_define.h"
#include "stream_options.h"
#include "stream_start.h"
#include "stream_state.h"
#include "stream_table.h"
#include "stream_topics.h"
#include "view_catalog.h"
#include "worker_slots.h"

#define MAX_TOPIC_BYTES 249

/* What DDL writes beside the options; a function has arguments for all but one. */
static const char *const definition_names[] = {
	"server", "topic", "format", "start_at", "check_topic", NULL
};
static const char *const function_names[] = {"check_topic", NULL};

void
md_stream_definition_init(MdStreamDefinition *definition)
{
	memset(definition, 0, sizeof(MdStreamDefinition));
	definition->format = "json";
	definition->start_at = "earliest";
	definition->check_topic = true;
}

/*
 * The word that an option is set to.  The grammar takes a bare word for the
 * name of a type, and json has been a keyword since 17 that stands for
 * pg_catalog.json.
 */
static char *
option_word(DefElem *def)
{
	if (def->arg != NULL && IsA(def->arg, TypeName))
	{
		TypeName   *type = (TypeName *) def->arg;

		if (list_length(type->names) == 2 && type->typmods == NIL && type->arrayBounds == NIL &&
			strcmp(strVal(linitial(type->names)), "pg_catalog") == 0)
			return pstrdup(strVal(lsecond(type->names)));
	}
	return defGetString(def);
}

void
md_stream_definition_set(MdStreamDefinition *definition, List *options, bool names_too)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		md_stream_options_check_name(def->defname, names_too ? definition_names : function_names);
		if (strcmp(def->defname, "check_topic") == 0)
			definition->check_topic = defGetBoolean(def);
		else if (names_too && strcmp(def->defname, "server") == 0)
			definition->server = defGetString(def);
		else if (names_too && strcmp(def->defname, "topic") == 0)
			definition->topic = defGetString(def);
		else if (names_too && strcmp(def->defname, "format") == 0)
			definition->format = option_word(def);
		else if (names_too && strcmp(def->defname, "start_at") == 0)
			definition->start_at = defGetString(def);
		else
			definition->options = lappend(definition->options, def);
	}
}

/* ERROR unless it is a format of this version. */
static MdFormat
check_format(const char *name)
{
	static const char *const formats[] = {"raw", "text", "json", NULL};
	static const char *const later[] = {"csv", "avro", "protobuf", NULL};
	int			format = md_format_by_name(name);
	const char *nearest;

	if (format >= 0)
		return format;
	for (int i = 0; later[i] != NULL; i++)
		if (strcmp(name, later[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("format \"%s\" is not supported by this version", name),
					 errhint("Formats are raw, text and json.")));
	nearest = md_nearest_name(name, formats);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized format \"%s\"", name),
			 errdetail("Formats are raw, text and json."),
			 nearest != NULL ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
	return MD_FORMAT_RAW;
}

/* ERROR unless Kafka could have a topic of that name. */
static void
check_topic_name(const char *topic)
{
	Size		len = strlen(topic);

	if (len == 0 || len > MAX_TOPIC_BYTES || strcmp(topic, ".") == 0 || strcmp(topic, "..") == 0 ||
		strspn(topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid topic name \"%s\"", topic),
				 errdetail("Names of topics have 1 to 249 of the characters a-z, A-Z, 0-9, \".\", \"_\" and \"-\".")));
}

Jsonb *
md_stream_definition_check(const MdStreamDefinition *definition, MdStream *stream)
{
	Jsonb	   *options;

	if (definition->server == NULL || definition->topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" is required",
						definition->server == NULL ? "server" : "topic"),
				 errdetail("A streaming table reads a topic of a server.")));
	memset(stream, 0, sizeof(MdStream));
	stream->server = pstrdup(definition->server);
	stream->topic = pstrdup(definition->topic);
	if (md_stream_is_pattern(stream))
		md_topic_pattern_check(definition->topic);
	else
		check_topic_name(definition->topic);
	stream->format = check_format(definition->format);
	stream->start_at = md_stream_start_canonical(definition->start_at, md_stream_is_pattern(stream));
	options = md_stream_options_canonical(NULL, definition->options);
	md_stream_options_apply(stream, options);
	return options;
}

void
md_stream_check_columns(const MdStream *stream)
{
	Relation	rel = relation_open(stream->relid, AccessShareLock);

	md_decoder_free(md_decoder_create(stream, RelationGetDescr(rel), CurrentMemoryContext));
	relation_close(rel, NoLock);
}

/* Ask Kafka for the topic, and turn start_at into checkpoints. */
static void
initialize(MdStream *stream)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "start of a streaming table",
												  ALLOCSET_DEFAULT_SIZES);
	MdKafkaConsumerConfig config = {0};
	MdKafkaClient *client;

	/* the end of a partition depends on whether open transactions count */
	config.read_uncommitted = stream->read_uncommitted;
	client = md_kafka_open(md_server_properties(stream->server, md_stream_table_owner(stream->relid)),
						   &config, context);
	md_stream_initialize_now(stream, client, md_kafka_timeout_ms);
	MemoryContextDelete(context);
}

static void
insert_stream(const MdStream *stream, Jsonb *options)
{
	Oid			argtypes[6] = {OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};
	Datum		args[6];

	args[0] = ObjectIdGetDatum(stream->relid);
	args[1] = CStringGetTextDatum(stream->server);
	args[2] = CStringGetTextDatum(stream->topic);
	args[3] = CStringGetTextDatum(md_format_name(stream->format));
	args[4] = CStringGetTextDatum(stream->start_at);
	args[5] = JsonbPGetDatum(options);
	md_stream_write("INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, origin)"
					" VALUES ($1, $2, $3, $4, $5, $6, medallion.database_identity())",
					6, argtypes, args);
}

void
md_stream_define(Oid relid, const MdStreamDefinition *definition)
{
	MdStream	stream;
	Jsonb	   *options = md_stream_definition_check(definition, &stream);
	Oid			server_id = md_server_lookup(stream.server, md_stream_table_owner(relid));

	stream.relid = relid;
	stream.generation = 1;
	if (md_stream_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is a streaming table already", get_rel_name(relid)),
				 errhint("Use ALTER TABLE ... SET (medallion. ...) to change its options.")));
	if (md_view_exists(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" cannot become a streaming table", get_rel_name(relid)),
				 errdetail("It is the result of a materialized view.")));

	md_stream_table_prepare(relid, md_stream_is_pattern(&stream));
	md_stream_check_columns(&stream);
	md_stream_table_depend(relid, server_id);
	md_stream_child_guard_all(relid);
	insert_stream(&stream, options);
	if (definition->check_topic)
		initialize(&stream);
	md_definitions_changed();
}

Oid
md_stream_create(RangeVar *relation, const char *columns,
				 const MdStreamDefinition *definition)
{
	MdStream	stream;
	Oid			relid;

	md_stream_definition_check(definition, &stream);
	relid = RangeVarGetRelid(relation, NoLock, true);
	if (OidIsValid(relid))
		relid = RangeVarGetRelidExtended(relation,
										 md_stream_table_lock_mode(relid, md_stream_is_pattern(&stream)),
										 RVR_MISSING_OK,
										 RangeVarCallbackOwnsRelation, NULL);
	if (!OidIsValid(relid))
	{
		(void) md_server_lookup(stream.server, GetUserId());
		relid = md_stream_table_create(relation, columns, stream.format,
									   md_stream_is_pattern(&stream));
	}
	else if (columns != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", relation->relname),
				 errhint("To feed the existing table, leave out the argument \"columns\".")));
	md_stream_define(relid, definition);
	return relid;
}

/* The options as they are stored now. */
static Jsonb *
stored_options(Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	MdSecurity	saved;
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(relid)};
	Datum		value;
	bool		isnull;
	Jsonb	   *options;

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("SELECT s.options FROM medallion.stream s WHERE s.relid = $1",
							  1, argtypes, args, NULL, false, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read medallion.stream");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	MemoryContextSwitchTo(context);
	options = DatumGetJsonbPCopy(value);
	SPI_finish();
	md_catalog_restore_user(&saved);
	return options;
}

/* Has any record been stored, or has any failed to be? */
static bool
has_records(Oid relid)
{
	MdSecurity	saved;
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(relid)};
	bool		found;

	md_catalog_become_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("SELECT FROM medallion.checkpoint c WHERE c.relid = $1"
							  " AND c.next_offset OPERATOR(pg_catalog.<>) c.start_offset LIMIT 1",
							  1, argtypes, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read medallion.checkpoint");
	found = SPI_processed > 0;
	SPI_finish();
	md_catalog_restore_user(&saved);
	return found;
}

/* Options that may stand in a definition, and one that may not be reset. */
static void
check_resettable(const DefElem *def)
{
	for (int i = 0; definition_names[i] != NULL; i++)
		if (strcmp(definition_names[i], def->defname) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" cannot be reset", def->defname),
					 errhint("Use SET to give it another value.")));
}

/* Is the change one of a pattern into another, which leaves alone what was read? */
static bool
is_other_pattern(const MdStream *stream, const MdStream *old)
{
	return md_stream_is_pattern(stream) && md_stream_is_pattern(old) &&
		strcmp(stream->server, old->server) == 0 && strcmp(stream->start_at, old->start_at) == 0;
}

/* ERROR unless rows tell of which of the topics they are. */
static void
check_tells_topics(const MdStream *stream)
{
	Relation	rel = relation_open(stream->relid, AccessShareLock);
	bool		found = false;

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		found |= !att->attisdropped &&
			strcmp(md_stream_column_source(stream, NameStr(att->attname)), "kafka_topic") == 0;
	}
	relation_close(rel, AccessShareLock);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streaming table \"%s\" cannot read topics by a pattern",
						get_rel_name(stream->relid)),
				 errdetail("It has no column that tells them apart."),
				 errhint("Add it first: ALTER TABLE ... ADD COLUMN kafka_topic text.")));
}

/* The position in Kafka is another one: only before anything was read. */
static void
move_start(MdStream *stream, const MdStream *old, bool check_topic)
{
	Oid			argtypes[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(stream->relid)};

	if (has_records(stream->relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot change option \"%s\" of streaming table \"%s\"",
						strcmp(stream->server, old->server) != 0 ? "server" :
						strcmp(stream->topic, old->topic) != 0 ? "topic" : "start_at",
						get_rel_name(stream->relid)),
				 errdetail("Records have been read, and their offsets belong to the server and topic that it has."),
				 errhint("Create another streaming table, and let a view read both.")));
	md_stream_write("UPDATE medallion.stream SET initialized = false WHERE relid = $1", 1, argtypes, args);
	md_stream_write("DELETE FROM medallion.checkpoint WHERE relid = $1", 1, argtypes, args);
	md_stream_write("DELETE FROM medallion.stream_topic WHERE relid = $1", 1, argtypes, args);
	md_stream_write("DELETE FROM medallion.stream_status WHERE relid = $1", 1, argtypes, args);
	stream->initialized = false;
	if (check_topic)
		initialize(stream);
}

static void
update_stream(const MdStream *stream, Jsonb *options)
{
	Oid			argtypes[7] = {OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, BOOLOID};
	Datum		args[7];

	args[0] = ObjectIdGetDatum(stream->relid);
	args[1] = CStringGetTextDatum(stream->server);
	args[2] = CStringGetTextDatum(stream->topic);
	args[3] = CStringGetTextDatum(md_format_name(stream->format));
	args[4] = CStringGetTextDatum(stream->start_at);
	args[5] = JsonbPGetDatum(options);
	args[6] = BoolGetDatum(stream->initialized);
	md_stream_write("UPDATE medallion.stream SET server = $2, topic = $3, format = $4, start_at = $5,"
					" options = $6, initialized = $7, generation = generation + 1 WHERE relid = $1",
					7, argtypes, args);
}

void
md_stream_alter(Oid relid, List *options)
{
	MdStream   *old = md_stream_load(relid);
	MdStream	stream;
	MdStreamDefinition definition;
	Jsonb	   *canonical;
	ListCell   *lc;

	md_stream_definition_init(&definition);
	definition.server = old->server;
	definition.topic = old->topic;
	definition.format = md_format_name(old->format);
	definition.start_at = old->start_at;
	foreach(lc, options)
		if (lfirst_node(DefElem, lc)->arg == NULL)
			check_resettable(lfirst_node(DefElem, lc));
	md_stream_definition_set(&definition, options, true);
	canonical = md_stream_options_canonical(stored_options(relid), definition.options);
	definition.options = NIL;
	(void) md_stream_definition_check(&definition, &stream);
	md_stream_options_apply(&stream, canonical);

	stream.relid = relid;
	stream.generation = old->generation;
	stream.initialized = old->initialized;
	stream.column_sources = old->column_sources;
	md_stream_check_columns(&stream);
	if (strcmp(stream.server, old->server) != 0)
		md_stream_table_depend(relid, md_server_lookup(stream.server, md_stream_table_owner(relid)));
	if (md_stream_is_pattern(&stream))
		check_tells_topics(&stream);
	if (is_other_pattern(&stream, old))
		md_stream_pattern_changed(&stream);
	else if (strcmp(stream.server, old->server) != 0 ||
			 strcmp(stream.topic, old->topic) != 0 ||
			 strcmp(stream.start_at, old->start_at) != 0)
		move_start(&stream, old, definition.check_topic);
	update_stream(&stream, canonical);
	md_definitions_changed();
}
