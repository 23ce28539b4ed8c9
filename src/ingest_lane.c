/*
 * ingest_lane.c
 *		Lanes: which streams share a Kafka client, and what it reads.
 */
#include "postgres.h"

#include "access/relation.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "checkpoint.h"
#include "ingest.h"
#include "server.h"
#include "settings.h"
#include "stream_start.h"
#include "stream_table.h"
#include "stream_topics.h"

/*
 * A broker answers a fetch as soon as there is data, so a long wait costs no
 * latency to those who read already, and saves idle work: a fetch names all
 * partitions.  But what follows a fetch on its connection waits for its answer:
 * who joins a lane (for its leaders, and for the next fetch), and closing the
 * client, which in a session is soon.  So it is short for few streams, and a
 * millisecond for each of many: a partition costs about 4 us per fetch, and
 * idle ones so half a percent of a core, however many there are.
 */
#define MIN_FETCH_WAIT_MS 50
#define MAX_FETCH_WAIT_MS 1000
#define FETCH_WAIT_FOREGROUND_MS 50

/*
 * Each fetch names all partitions of its client, and a broker looks through all
 * of a waiting fetch when a record comes to any of them.  So what very many
 * streams have in common is no reason to share one client.  But a client costs
 * a fifth of a percent of a core when it is idle: the library's timers each wait
 * for their last millisecond by looking at the clock.
 */
#define MAX_LANE_STREAMS 512

/* Less than this is of no use: a fetch may bring as much. */
#define MIN_QUEUE_KB 1024

typedef struct LanePartitionKey
{
	char		topic[MD_KAFKA_TOPIC_LEN];
	int32		partition;
} LanePartitionKey;

typedef struct LanePartition
{
	LanePartitionKey key;
	MdPartition *partition;
} LanePartition;

static LanePartitionKey
partition_key(const char *topic, int32 partition)
{
	LanePartitionKey key;

	memset(&key, 0, sizeof(key));
	strlcpy(key.topic, topic, sizeof(key.topic));
	key.partition = partition;
	return key;
}

MdPartition *
md_ingest_find_partition(MdLane *lane, const char *topic, int32 partition)
{
	LanePartitionKey key;
	LanePartition *entry;

	/* records come in runs */
	if (lane->last_found != NULL && lane->last_found->partition == partition &&
		strcmp(lane->last_found->topic, topic) == 0)
		return lane->last_found;
	key = partition_key(topic, partition);
	entry = hash_search(lane->partitions, &key, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	lane->last_found = entry->partition;
	return entry->partition;
}

/* What streams must have in common to share a lane. */
static char *
lane_key(const MdStream *def, Oid owner)
{
	/* it has nothing in common with others, nor a size of batches that stays */
	if (def->alone)
		return psprintf("%u alone|%s", def->relid, def->topic);
	return psprintf("%s|%u|%d|%s|%d|%d|" INT64_FORMAT, def->server, owner,
					def->read_uncommitted, def->group_id ? def->group_id : "",
					def->flush_interval_ms, def->batch_max_records, def->batch_max_bytes);
}

char *
md_ingest_properties_key(const MdStream *def, Oid owner)
{
	StringInfoData key;
	ListCell   *lc;

	initStringInfo(&key);
	foreach(lc, md_server_properties(def->server, owner))
	{
		MdKafkaProperty *property = lfirst(lc);

		appendStringInfo(&key, "%s=%s\n", property->name, property->value);
	}
	return key.data;
}

static bool
lane_reads_topic(MdLane *lane, const char *topic)
{
	ListCell   *lc;

	foreach(lc, lane->streams)
		if (strcmp(((MdIngestStream *) lfirst(lc))->def->topic, topic) == 0)
			return true;
	return false;
}

/* A session reads by one client, whatever it reads. */
static bool
lane_is_full(const MdLane *lane)
{
	return !lane->foreground && list_length(lane->streams) >= MAX_LANE_STREAMS;
}

/*
 * Memory for the queue of a new lane: half of what the others have left, so
 * that all together stay within medallion.ingest_memory, but for a small one that
 * each needs.  How much a lane will have to do is not known.
 */
static int
queue_share_kb(const List *lanes, bool alone)
{
	int			left_kb = md_ingest_memory_kb;
	ListCell   *lc;

	foreach(lc, lanes)
		left_kb -= ((MdLane *) lfirst(lc))->queue_kb;
	if (alone)
		left_kb = Min(left_kb, md_ingest_memory_kb / 8);
	return Max(left_kb / 2, MIN_QUEUE_KB);
}

static int
fetch_wait_ms(MdShare share)
{
	if (share.foreground)
		return FETCH_WAIT_FOREGROUND_MS;
	return Max(MIN_FETCH_WAIT_MS, Min(share.n_streams, MAX_FETCH_WAIT_MS));
}

/* Open a lane in a context below parent; an error leaves nothing there. */
static MdLane *
open_lane(const List *lanes, const MdStream *def, Oid owner, const char *key, MdShare share,
		  MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "ingest lane",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MdLane	   *lane = palloc0(sizeof(MdLane));
	MdKafkaConsumerConfig config;
	HASHCTL		hash;

	lane->context = context;
	lane->batch_context = AllocSetContextCreate(context, "ingest batch", ALLOCSET_DEFAULT_SIZES);
	lane->key = pstrdup(key);
	lane->properties_key = md_ingest_properties_key(def, owner);
	lane->flush_interval_ms = def->flush_interval_ms;
	lane->queue_kb = queue_share_kb(lanes, def->alone);
	/* a queue that is full before a batch is would wait for flush_interval */
	lane->max_records = md_kafka_queue_max_records(lane->queue_kb) / 2;
	lane->batch_max_records = Min(def->batch_max_records, lane->max_records);
	lane->batch_max_bytes = Min(def->batch_max_bytes, (int64) lane->queue_kb * 1024 / 2);
	lane->mirror = def->group_id != NULL;
	memset(&hash, 0, sizeof(hash));
	hash.keysize = sizeof(LanePartitionKey);
	hash.entrysize = sizeof(LanePartition);
	hash.hcxt = context;
	lane->partitions = hash_create("partitions of a lane", 64, &hash,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	lane->foreground = share.foreground;
	lane->has_time_limit = !share.foreground;
	lane->alone = def->alone;
	config.queue_max_kb = lane->queue_kb;
	config.fetch_wait_ms = fetch_wait_ms(share);
	config.read_uncommitted = def->read_uncommitted;
	config.group_id = def->group_id;
	lane->client = md_kafka_open(md_server_properties(def->server, owner), &config, context);

	/*
	 * A broker answers a connection's requests in order: on the one that reads,
	 * a question would wait behind a fetch that waits for data.
	 */
	lane->asker = md_kafka_open(md_server_properties(def->server, owner), NULL, context);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, parent);
	return lane;
}

MdLane *
md_ingest_find_lane(List **lanes, const MdStream *def, MdShare share, MemoryContext context)
{
	Oid			owner = md_stream_table_owner(def->relid);
	char	   *key = lane_key(def, owner);
	char	   *properties = md_ingest_properties_key(def, owner);
	MdLane	   *lane;
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, *lanes)
	{
		lane = lfirst(lc);
		if (strcmp(lane->key, key) == 0 && strcmp(lane->properties_key, properties) == 0 &&
			!lane_is_full(lane) && !lane_reads_topic(lane, def->topic))
			return lane;
	}
	lane = open_lane(*lanes, def, owner, key, share, context);
	old = MemoryContextSwitchTo(context);
	*lanes = lappend(*lanes, lane);
	MemoryContextSwitchTo(old);
	return lane;
}

/* Partitions are dealt out by number, beginning at another worker per table or topic. */
static void
keep_share(MdIngestStream *stream, MdShare share)
{
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, stream->partitions)
	{
		MdPartition *partition = lfirst(lc);
		uint32		first = stream->def->by_pattern ? string_hash(stream->def->topic, MD_KAFKA_TOPIC_LEN) :
			hash_uint32(stream->def->relid);
		uint32		nr = first + (uint32) partition->partition;

		if (nr % (uint32) share.n != (uint32) share.index)
		{
			others = lappend(others, partition);
			stream->partitions = foreach_delete_current(stream->partitions, lc);
		}
	}
	md_ingest_choose_witness(stream, others);
}

/* Partitions as positions for the client. */
static MdKafkaPosition *
positions_of(const List *partitions)
{
	MdKafkaPosition *positions = palloc0(sizeof(MdKafkaPosition) *
										 Max(list_length(partitions), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, partitions)
	{
		MdPartition *partition = lfirst(lc);

		positions[n].topic = partition->topic;
		positions[n].partition = partition->partition;
		positions[n].offset = partition->proving ? partition->last_offset : partition->next_offset;
		n++;
	}
	return positions;
}

/* The stream's partitions, its witness among them. */
static List *
all_partitions(const MdIngestStream *stream)
{
	List	   *partitions = list_copy(stream->partitions);

	return stream->witness == NULL ? partitions : lappend(partitions, stream->witness);
}

void
md_ingest_assign(MdIngestStream *stream)
{
	bool		is_proving = md_ingest_is_proving(stream);
	List	   *partitions = NIL;
	ListCell   *lc;

	stream->waits = stream->witness != NULL;
	foreach(lc, all_partitions(stream))
	{
		MdPartition *partition = lfirst(lc);

		if (partition->assigned)
			continue;
		if (partition->proving || (!is_proving && partition != stream->witness))
			partitions = lappend(partitions, partition);
		else
			stream->waits = true;
	}
	if (partitions == NIL)
		return;
	md_kafka_assign(stream->lane->client, positions_of(partitions), list_length(partitions));
	foreach(lc, partitions)
		((MdPartition *) lfirst(lc))->assigned = true;
}

static void
unassign(MdIngestStream *stream, List *candidates)
{
	List	   *partitions = NIL;
	ListCell   *lc;

	foreach(lc, candidates)
		if (((MdPartition *) lfirst(lc))->assigned)
			partitions = lappend(partitions, lfirst(lc));
	if (partitions == NIL)
		return;
	foreach(lc, partitions)
		((MdPartition *) lfirst(lc))->assigned = false;
	md_kafka_unassign(stream->lane->client, positions_of(partitions), list_length(partitions));
}

/* Let records and events of a partition find it, or find it no more. */
static void
enter_partition(MdLane *lane, MdPartition *partition)
{
	LanePartitionKey key = partition_key(partition->topic, partition->partition);
	LanePartition *entry = hash_search(lane->partitions, &key, HASH_ENTER, NULL);

	entry->partition = partition;
}

static void
remove_partition(MdLane *lane, MdPartition *partition)
{
	LanePartitionKey key = partition_key(partition->topic, partition->partition);
	LanePartition *entry = hash_search(lane->partitions, &key, HASH_FIND, NULL);

	if (entry != NULL && entry->partition == partition)
		hash_search(lane->partitions, &key, HASH_REMOVE, NULL);
	lane->last_found = NULL;
}

void
md_ingest_dismiss_witness(MdIngestStream *stream)
{
	MdPartition *witness = stream->witness;

	if (witness == NULL)
		return;
	stream->witness = NULL;
	remove_partition(stream->lane, witness);
	unassign(stream, list_make1(witness));
}

/* Join the lane: its client reads the stream's partitions from now on. */
static void
join_lane(MdIngestStream *stream, MdLane *lane)
{
	MemoryContext old = MemoryContextSwitchTo(lane->context);
	ListCell   *lc;

	stream->lane = lane;
	lane->streams = lappend(lane->streams, stream);
	MemoryContextSwitchTo(old);
	foreach(lc, all_partitions(stream))
		enter_partition(lane, lfirst(lc));
	md_ingest_assign(stream);
	lane->hurries = lane->flush_interval_ms <= MAX_HURRY_MS;
	/* sessions may have read while no worker did */
	lane->mirror_dirty |= lane->mirror;
}

MdIngestStream *
md_ingest_make_stream(const MdStream *def, MdLane *lane, MemoryContext context)
{
	MdIngestStream *stream = MemoryContextAllocZero(context, sizeof(MdIngestStream));
	Relation	rel = relation_open(def->relid, AccessShareLock);
	MemoryContext old;

	stream->context = context;
	stream->lane = lane;
	stream->owner = rel->rd_rel->relowner;
	old = MemoryContextSwitchTo(context);
	stream->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	MemoryContextSwitchTo(old);
	relation_close(rel, NoLock);

	stream->def = md_catalog_stream(def->relid, context);
	if (stream->def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("streaming table %u does not exist", def->relid)));
	if (def->by_pattern)
	{
		old = MemoryContextSwitchTo(context);
		stream->def = md_stream_of_topic(stream->def, def->topic, true);
		MemoryContextSwitchTo(old);
	}
	stream->decoder = md_decoder_create(stream->def, stream->desc, context);
	stream->needs_headers = md_decoder_needs_headers(stream->decoder);
	md_checkpoint_load(stream);
	stream->n_known = list_length(stream->partitions);
	return stream;
}

/* Lock the table as batches will, without waiting for anybody. */
static void
lock_table(Oid relid)
{
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the table is locked by another session")));
}

/* The lane's records of this stream go nowhere any more. */
static void
leave_lane(MdIngestStream *stream)
{
	MdLane	   *lane = stream->lane;
	ListCell   *lc;

	foreach(lc, all_partitions(stream))
		remove_partition(lane, lfirst(lc));
	lane->streams = list_delete_ptr(lane->streams, stream);
}

MdIngestStream *
md_ingest_add_stream(List **lanes, const MdStream *def, const MdKafkaSurvey *survey,
					 MdShare share, MemoryContext context)
{
	MdStream	start = *def;
	MemoryContext stream_context = AllocSetContextCreate(context, "ingest stream",
														 ALLOCSET_SMALL_SIZES);
	MdIngestStream *volatile stream = NULL;

	PG_TRY();
	{
		MdLane	   *lane;

		lock_table(def->relid);
		lane = md_ingest_find_lane(lanes, def, share, context);
		/* which marks the definition, and the one given is not ours */
		if (survey != NULL)
			md_stream_initialize(&start, survey);
		stream = md_ingest_make_stream(def, lane, stream_context);
		keep_share(stream, share);
		join_lane(stream, lane);
	}
	PG_CATCH();
	{
		if (stream != NULL)
			leave_lane(stream);
		MemoryContextDelete(stream_context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return stream;
}

void
md_ingest_remove_stream(MdIngestStream *stream)
{
	leave_lane(stream);
	unassign(stream, all_partitions(stream));
	MemoryContextDelete(stream->context);
}

void
md_ingest_unassign(MdPartition *partition)
{
	unassign(partition->stream, list_make1(partition));
}

void
md_ingest_reassign_silent(MdIngestStream *stream)
{
	List	   *silent = NIL;
	ListCell   *lc;

	foreach(lc, all_partitions(stream))
		if (!((MdPartition *) lfirst(lc))->alive)
			silent = lappend(silent, lfirst(lc));
	unassign(stream, silent);
	md_ingest_assign(stream);
}

void
md_ingest_close_lane(MdLane *lane)
{
	md_kafka_close(lane->asker);
	md_kafka_close(lane->client);
	MemoryContextDelete(lane->context);
}
