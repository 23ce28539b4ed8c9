/*
 * server_functions.c
 *		SQL functions of Kafka servers: the validator of the wrapper, and
 *		questions to a server.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "function_args.h"
#include "kafka_client.h"
#include "kafka_request.h"
#include "server.h"
#include "server_options.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(md_kafka_fdw_validator);
PG_FUNCTION_INFO_V1(md_kafka_properties);
PG_FUNCTION_INFO_V1(md_check_server);
PG_FUNCTION_INFO_V1(md_list_topics);

/* ERROR for an allowed option that the linked librdkafka is too old for. */
static void
check_library(List *options)
{
	List	   *known = NIL;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const MdServerOption *option = md_server_option_by_name(def->defname);
		bool		found = false;
		ListCell   *lc2;

		if ((option->flags & MD_OPTION_OWN) != 0)
			continue;
		if (known == NIL)
			known = md_kafka_property_names();
		foreach(lc2, known)
			found = found || strcmp(lfirst(lc2), option->property) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"%s\" needs a newer librdkafka", def->defname),
					 errdetail("This server has librdkafka %s.", md_kafka_library_version())));
	}
}

/* The validator of foreign-data wrapper kafka. */
Datum
md_kafka_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);

	if (catalog == ForeignServerRelationId || catalog == UserMappingRelationId)
	{
		md_server_options_check(options, catalog == UserMappingRelationId);
		check_library(options);
	}
	else if (catalog != ForeignDataWrapperRelationId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign-data wrapper kafka has no foreign tables"),
				 errhint("A topic is read into a streaming table: see medallion.create_streaming_table().")));
	else if (options != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("foreign-data wrapper kafka has no options"),
				 errhint("Options belong to a server or to a user mapping.")));
	PG_RETURN_VOID();
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* One row of kafka_properties(); option is NULL for a property not on the list. */
static void
put_property(ReturnSetInfo *rsinfo, const char *property,
			 const MdServerOption *option, bool known)
{
	static const char *const dispositions[] = {"allowed", "refused", "reserved"};
	Datum		values[7];
	bool		nulls[7] = {0};
	int			flags = option ? option->flags : 0;
	const char *place = NULL;

	if ((flags & MD_OPTION_ON_SERVER) != 0)
		place = (flags & MD_OPTION_ON_MAPPING) != 0 ? "server, user mapping" : "server";
	else if ((flags & MD_OPTION_ON_MAPPING) != 0)
		place = "user mapping";
	values[0] = CStringGetTextDatum(property);
	values[1] = CStringGetTextDatum(md_server_option_name(property));
	values[2] = CStringGetTextDatum(option ? dispositions[option->disposition] : "unknown");
	values[3] = text_or_null(place, &nulls[3]);
	values[4] = BoolGetDatum((flags & MD_OPTION_SECRET) != 0);
	values[5] = text_or_null((flags & MD_OPTION_FILE) != 0 ?
							 "It names a file: only for members of pg_read_server_files." :
							 option ? option->reason : NULL, &nulls[5]);
	values[6] = BoolGetDatum(known);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Every property of librdkafka's that we or the linked library know. */
Datum
md_kafka_properties(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *known = md_kafka_property_names();
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	for (const MdServerOption *o = md_server_option_list; o->property != NULL; o++)
	{
		bool		in_library = (o->flags & MD_OPTION_OWN) != 0;

		foreach(lc, known)
			in_library = in_library || strcmp(lfirst(lc), o->property) == 0;
		put_property(rsinfo, o->property, o, in_library);
	}
	foreach(lc, known)
		if (md_server_option_by_property(lfirst(lc)) == NULL)
			put_property(rsinfo, lfirst(lc), NULL, true);
	return (Datum) 0;
}

/* Connect to a server as the caller; asks, and tells what it found. */
Datum
md_check_server(PG_FUNCTION_ARGS)
{
	char	   *server_name = md_text_argument(fcinfo, 0, "server_name");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "check of a server",
												  ALLOCSET_DEFAULT_SIZES);
	MdKafkaClient *client = md_kafka_open(md_server_properties(server_name, GetUserId()), NULL, context);
	MdKafkaClusterInfo info;
	instr_time	start;
	instr_time	latency;
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	/* the first answer takes connecting, the second is the round trip */
	md_kafka_request_cluster_info(client, server_name, md_kafka_timeout_ms, &info);
	INSTR_TIME_SET_CURRENT(start);
	md_kafka_request_cluster_info(client, server_name, md_kafka_timeout_ms, &info);
	INSTR_TIME_SET_CURRENT(latency);
	INSTR_TIME_SUBTRACT(latency, start);

	values[0] = CStringGetTextDatum(info.brokers);
	values[1] = Int32GetDatum(info.n_brokers);
	values[2] = text_or_null(info.cluster_id, &nulls[2]);
	values[3] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(latency));
	values[4] = CStringGetTextDatum(md_kafka_library_version());
	MemoryContextDelete(context);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* The topics of a server, as the caller may see them. */
Datum
md_list_topics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *server_name = md_text_argument(fcinfo, 0, "server_name");
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "topics of a server",
												  ALLOCSET_DEFAULT_SIZES);
	MdKafkaClient *client = md_kafka_open(md_server_properties(server_name, GetUserId()), NULL, context);
	List	   *topics = md_kafka_request_topics(client, server_name, md_kafka_timeout_ms);
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, topics)
	{
		MdKafkaTopic *topic = lfirst(lc);
		Datum		values[2] = {CStringGetTextDatum(topic->name),
		Int32GetDatum(topic->n_partitions)};
		bool		nulls[2] = {0};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextDelete(context);
	return (Datum) 0;
}
