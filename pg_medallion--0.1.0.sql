/* pg_medallion--0.1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_medallion" to load this file. \quit

GRANT USAGE ON SCHEMA medallion TO PUBLIC;

-- Functions may be called by everybody unless REVOKEd below: they check for
-- themselves what the caller owns.

------------------------------------------------------------------------------
-- Identity of this database, so that a copy of it is told from the original
------------------------------------------------------------------------------

CREATE FUNCTION medallion.database_identity() RETURNS text
    AS 'MODULE_PATHNAME', 'md_database_identity'
    LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.database_identity() IS
    'system identifier and oid of this database; definitions that carry another one came by restore or clone and stay paused until resume_all()';

CREATE FUNCTION medallion.debug_point_id(name text) RETURNS int
    AS 'MODULE_PATHNAME', 'md_debug_point_id'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.debug_point_id(text) IS
    'objid of the advisory lock (classid 1296319556) at which processes wait under medallion.debug_points; for tests';

------------------------------------------------------------------------------
-- Catalog of streaming tables (one row each; written by C code only)
------------------------------------------------------------------------------

CREATE TABLE medallion.stream (
    relid           regclass PRIMARY KEY,
    server          name NOT NULL,
    topic           text NOT NULL,
    format          text NOT NULL,
    start_at        text NOT NULL,
    options         jsonb NOT NULL,
    initialized     boolean NOT NULL DEFAULT false,
    paused          boolean NOT NULL DEFAULT false,
    paused_reason   text,
    generation      bigint NOT NULL DEFAULT 1,
    history_changes bigint NOT NULL DEFAULT 0,
    origin          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE medallion.stream IS 'definition of each streaming table';
COMMENT ON COLUMN medallion.stream.initialized IS 'start_at has been resolved for the partitions that the topic had then; later partitions start at their beginning';
COMMENT ON COLUMN medallion.stream.generation IS 'counts changes of the definition; a batch is stored only under the generation it was decoded with';
COMMENT ON COLUMN medallion.stream.history_changes IS 'counts direct writes to the table; views refresh in full when it has moved';
COMMENT ON COLUMN medallion.stream.origin IS 'database_identity() of the database that defined it';

-- A row only where a column is filled from a field of another name: after a
-- rename of the column.
CREATE TABLE medallion.stream_column (
    relid        regclass NOT NULL,
    column_name  name NOT NULL,
    source_name  text NOT NULL,
    PRIMARY KEY (relid, column_name)
);
COMMENT ON TABLE medallion.stream_column IS 'columns that were renamed, with the record field or metadata column that still fills them';

CREATE TABLE medallion.stream_status (
    relid       regclass PRIMARY KEY,
    sqlstate    text,
    message     text,
    failures    int NOT NULL DEFAULT 0,
    since       timestamptz,
    retry_at    timestamptz
);
COMMENT ON TABLE medallion.stream_status IS 'streaming tables whose ingest fails at present, and when it is tried again';

CREATE TABLE medallion.checkpoint (
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    start_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL CHECK (next_offset >= 0),
    high_watermark   bigint,
    row_count        bigint NOT NULL DEFAULT 0,
    dead_count       bigint NOT NULL DEFAULT 0,
    last_timestamp   timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE medallion.checkpoint IS 'next_offset per streaming table, topic and partition, advanced in the transaction of the batch';
COMMENT ON COLUMN medallion.checkpoint.high_watermark IS 'end of the partition as of updated_at; NULL until it was first read';

CREATE TABLE medallion.batch (
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    first_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL,
    row_count        bigint NOT NULL,
    filenode         oid,
    first_block      bigint,
    last_block       bigint,
    max_timestamp    timestamptz,
    stored_at        timestamptz NOT NULL
);
CREATE INDEX batch_position ON medallion.batch (relid, topic, kafka_partition, next_offset);
CREATE INDEX batch_stored_at ON medallion.batch (stored_at);
COMMENT ON TABLE medallion.batch IS 'bounds of each batch: offsets [first_offset, next_offset) lie in blocks first_block..last_block of filenode';

CREATE TABLE medallion.dead_letter (
    dead_letter_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    kafka_offset     bigint NOT NULL,
    kafka_timestamp  timestamptz,
    kafka_key        bytea,
    payload          bytea,
    headers          jsonb,
    sqlstate         text NOT NULL,
    message          text NOT NULL,
    detail           text,
    failed_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letter_position ON medallion.dead_letter (relid, topic, kafka_partition, kafka_offset);
COMMENT ON TABLE medallion.dead_letter IS 'records that could not be stored, with their bytes and their error';

CREATE TABLE medallion.gap (
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    first_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL,
    reason           text NOT NULL,
    recorded_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, topic, kafka_partition, first_offset)
);
COMMENT ON TABLE medallion.gap IS 'ranges of offsets that hold no record for us, and why';

SELECT pg_catalog.pg_extension_config_dump('medallion.stream', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.stream_column', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.batch', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.gap', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.dead_letter_dead_letter_id_seq', '');

CREATE FUNCTION medallion.prune_history() RETURNS void
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    DELETE FROM medallion.batch
     WHERE stored_at < now() - current_setting('medallion.batch_history_retention')::interval;
END;
COMMENT ON FUNCTION medallion.prune_history() IS
    'deletes bounds of batches and rows of refresh history that are older than their settings allow; the supervisor calls it';
REVOKE EXECUTE ON FUNCTION medallion.prune_history() FROM PUBLIC;

-- Direct writes to streaming tables and to results of views.
CREATE FUNCTION medallion.guard_write() RETURNS trigger
    AS 'MODULE_PATHNAME', 'md_guard_write'
    LANGUAGE C;
COMMENT ON FUNCTION medallion.guard_write() IS
    'statement trigger: refuses direct writes to results of views, and to streaming tables unless medallion.allow_direct_writes is on';

------------------------------------------------------------------------------
-- Servers
------------------------------------------------------------------------------

CREATE FUNCTION medallion.kafka_fdw_validator(options text[], catalog oid) RETURNS void
    AS 'MODULE_PATHNAME', 'md_kafka_fdw_validator'
    LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION medallion.kafka_fdw_validator(text[], oid) IS
    'validator of foreign-data wrapper kafka: checks the options of servers and user mappings';

CREATE FOREIGN DATA WRAPPER kafka NO HANDLER VALIDATOR medallion.kafka_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER kafka IS
    'Kafka clusters, for streaming tables; has no foreign tables';

CREATE FUNCTION medallion.kafka_properties(
        OUT name text, OUT option_name text, OUT disposition text, OUT where_allowed text,
        OUT is_secret boolean, OUT reason text, OUT in_library boolean)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_kafka_properties'
    LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 200;
COMMENT ON FUNCTION medallion.kafka_properties() IS
    'every property of librdkafka: whether it may be an option of a server or user mapping, or else why not; in_library: the linked librdkafka knows it';

CREATE FUNCTION medallion.check_server(server_name text,
        OUT brokers text, OUT broker_count int, OUT cluster_id text,
        OUT latency_ms double precision, OUT library_version text)
    RETURNS record
    AS 'MODULE_PATHNAME', 'md_check_server'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED;
COMMENT ON FUNCTION medallion.check_server(text) IS
    'connects to a Kafka server as the caller, within medallion.kafka_timeout; an error says why it cannot';

CREATE FUNCTION medallion.list_topics(server_name text, OUT topic text, OUT partitions int)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_list_topics'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION medallion.list_topics(text) IS
    'topics of a Kafka server that the caller may see there, with their number of partitions';

------------------------------------------------------------------------------
-- Streaming tables
------------------------------------------------------------------------------

CREATE FUNCTION medallion.create_streaming_table(
        table_name text, server text, topic text,
        format text DEFAULT 'json',
        columns text DEFAULT NULL,
        start_at text DEFAULT 'earliest',
        options jsonb DEFAULT '{}')
    RETURNS regclass
    AS 'MODULE_PATHNAME', 'md_create_streaming_table'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.create_streaming_table(text, text, text, text, text, text, jsonb) IS
    'creates a table that is fed by a topic, or lets a topic feed a table that exists (columns NULL)';

CREATE FUNCTION medallion.drop_streaming_table(table_name regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'md_drop_streaming_table'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.drop_streaming_table(regclass) IS
    'drops a streaming table with its rows, checkpoints and dead letters; as DROP TABLE does';

CREATE FUNCTION medallion.pause(relation regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'md_pause'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.pause(regclass) IS
    'stops the ingest of a streaming table, or the refreshes of a view, until resume(); for its owner';

CREATE FUNCTION medallion.resume(relation regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'md_resume'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.resume(regclass) IS
    'ends a pause, and takes over a definition that came by restore or clone; for its owner';

CREATE FUNCTION medallion.resume_all() RETURNS void
    AS 'MODULE_PATHNAME', 'md_resume_all'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.resume_all() IS
    'resumes all streaming tables and views that the caller owns; after a restore, everything comes up paused';

CREATE FUNCTION medallion.wait_for_offset(
        table_name regclass, kafka_partition int, kafka_offset bigint, timeout interval)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'md_wait_for_offset'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.wait_for_offset(regclass, int, bigint, interval) IS
    'waits until the record at that offset is stored, or a dead letter, or in a gap; false after timeout';

CREATE FUNCTION medallion.wait_until_caught_up(table_name regclass, timeout interval)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'md_wait_until_caught_up'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.wait_until_caught_up(regclass, interval) IS
    'asks Kafka for the end of each partition, and waits until all before it is stored; false after timeout';

CREATE FUNCTION medallion.try_decode(
        relation regclass, payload bytea, kafka_key bytea DEFAULT NULL, format text DEFAULT NULL,
        OUT row_values json, OUT sqlstate text, OUT message text, OUT detail text)
    RETURNS record
    AS 'MODULE_PATHNAME', 'md_try_decode'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.try_decode(regclass, bytea, bytea, text) IS
    'the row that a record would become in this table, or the error that it would be a dead letter with; nothing is stored and constraints of the table are not checked; a format of NULL is the table''s own, json for a table that is not streaming; needs SELECT';
GRANT EXECUTE ON FUNCTION medallion.try_decode(regclass, bytea, bytea, text) TO PUBLIC;

CREATE FUNCTION medallion.ingest_once(table_name regclass, max_records int DEFAULT NULL)
    RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_ingest_once_sql'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.ingest_once(regclass, int) IS
    'reads a streaming table, paused or not, up to what is the end of its topic now (or max_records), in this transaction; returns the number of records read';

------------------------------------------------------------------------------
-- Materialized views
------------------------------------------------------------------------------

CREATE TABLE medallion.view (
    relid             regclass PRIMARY KEY,
    refresh_interval  interval,
    paused            boolean NOT NULL DEFAULT false,
    origin            text NOT NULL
);
COMMENT ON TABLE medallion.view IS 'definition of each materialized view';

------------------------------------------------------------------------------
-- Keys
------------------------------------------------------------------------------

CREATE FUNCTION medallion.hash_key(VARIADIC key_values "any") RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_hash_key'
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.hash_key("any") IS
    '64-bit surrogate key of a natural key of any number of values; NULL is a value, the result is never NULL; the same on every machine, version and setting (XXH64 of hash_key_encoding())';

CREATE FUNCTION medallion.hash_key_uuid(VARIADIC key_values "any") RETURNS uuid
    AS 'MODULE_PATHNAME', 'md_hash_key_uuid'
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.hash_key_uuid("any") IS
    'surrogate key like hash_key(), as a version 8 UUID with 122 bits of hash (XXH3 of hash_key_encoding())';

CREATE FUNCTION medallion.hash_key_encoding(VARIADIC key_values "any") RETURNS bytea
    AS 'MODULE_PATHNAME', 'md_hash_key_encoding'
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.hash_key_encoding("any") IS
    'the bytes that hash_key() and hash_key_uuid() hash, for producers in other languages';

CREATE FUNCTION medallion.xxhash64(VARIADIC key_values "any") RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_xxhash64'
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.xxhash64("any") IS
    'equal to Spark''s xxhash64 of the same values: seed 42, a NULL changes nothing, numeric by its declared precision';

CREATE FUNCTION medallion.dbt_surrogate_key(VARIADIC key_values "any") RETURNS text
    AS 'MODULE_PATHNAME', 'md_dbt_surrogate_key'
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.dbt_surrogate_key("any") IS
    'equal to generate_surrogate_key of dbt_utils on Postgres under DateStyle ISO, IntervalStyle postgres, TimeZone UTC: md5 of the values as text, joined by ''-''';

------------------------------------------------------------------------------
-- State
------------------------------------------------------------------------------

CREATE VIEW medallion.streaming_tables WITH (security_barrier) AS
    SELECT s.relid AS table_name, s.server, s.topic, s.format, s.start_at, s.options,
           CASE WHEN s.paused OR s.origin <> medallion.database_identity() THEN 'paused'
                WHEN f.failures > 0 THEN 'failing'
                WHEN NOT s.initialized THEN 'starting'
                ELSE 'running' END AS state,
           CASE WHEN s.origin <> medallion.database_identity()
                THEN 'defined in another database: medallion.resume_all() takes it over'
                WHEN s.paused THEN s.paused_reason
                WHEN f.failures > 0 THEN f.message END AS reason,
           f.sqlstate, coalesce(f.failures, 0) AS failures, f.since AS failing_since, f.retry_at,
           coalesce(c.rows, 0) AS rows, coalesce(d.dead_letters, 0) AS dead_letters,
           c.lag, c.last_timestamp, c.updated_at, s.created_at
      FROM medallion.stream s
      JOIN pg_catalog.pg_class r ON r.oid = s.relid
      LEFT JOIN medallion.stream_status f ON f.relid = s.relid
      LEFT JOIN LATERAL (SELECT sum(p.row_count)::bigint AS rows,
                                sum(greatest(p.high_watermark - p.next_offset, 0))::bigint AS lag,
                                max(p.last_timestamp) AS last_timestamp, max(p.updated_at) AS updated_at
                           FROM medallion.checkpoint p WHERE p.relid = s.relid) c ON true
      LEFT JOIN LATERAL (SELECT count(*) AS dead_letters
                           FROM medallion.dead_letter l WHERE l.relid = s.relid) d ON true
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.streaming_tables IS
    'streaming tables that the caller owns: definition and state; rows and dead_letters count records, lag those that Kafka had beyond at updated_at';
COMMENT ON COLUMN medallion.streaming_tables.state IS
    'running, paused, failing (reason and sqlstate say why; tried again at retry_at), or starting (start_at is not yet resolved)';
COMMENT ON COLUMN medallion.streaming_tables.lag IS
    'records between next_offset and the end of all partitions, as of the last batch of each; NULL until an end was read';
GRANT SELECT ON medallion.streaming_tables TO PUBLIC;

CREATE VIEW medallion.stream_partitions WITH (security_barrier) AS
    SELECT c.relid AS table_name, c.topic, c.kafka_partition, c.start_offset, c.next_offset,
           c.high_watermark, greatest(c.high_watermark - c.next_offset, 0) AS lag,
           c.row_count AS rows, c.dead_count AS dead_letters, c.last_timestamp, c.updated_at
      FROM medallion.checkpoint c JOIN pg_catalog.pg_class r ON r.oid = c.relid
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.stream_partitions IS
    'partitions of streaming tables that the caller owns: all before next_offset is stored, a dead letter, or in a gap';
COMMENT ON COLUMN medallion.stream_partitions.dead_letters IS
    'records that became dead letters, those included that were requeued or discarded since';
GRANT SELECT ON medallion.stream_partitions TO PUBLIC;

CREATE VIEW medallion.dead_letters WITH (security_barrier) AS
    SELECT l.dead_letter_id, l.relid AS table_name, l.topic, l.kafka_partition, l.kafka_offset,
           l.kafka_timestamp, l.kafka_key, l.payload, l.headers, l.sqlstate, l.message, l.detail,
           l.failed_at
      FROM medallion.dead_letter l JOIN pg_catalog.pg_class r ON r.oid = l.relid
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE')
        OR (pg_catalog.has_table_privilege(r.oid, 'SELECT') AND NOT r.relrowsecurity);
COMMENT ON VIEW medallion.dead_letters IS
    'records that could not be stored, with their bytes and their error, of tables that the caller may read';
GRANT SELECT ON medallion.dead_letters TO PUBLIC;

CREATE VIEW medallion.gaps WITH (security_barrier) AS
    SELECT g.relid AS table_name, g.topic, g.kafka_partition, g.first_offset, g.next_offset,
           g.reason, g.recorded_at
      FROM medallion.gap g JOIN pg_catalog.pg_class r ON r.oid = g.relid
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.gaps IS
    'offsets from first_offset up to but without next_offset that hold no record for a table that the caller owns, and why';
GRANT SELECT ON medallion.gaps TO PUBLIC;

CREATE FUNCTION medallion.worker_slots(
        OUT slot int, OUT database_oid oid, OUT kind text, OUT worker_index int, OUT pid int,
        OUT started_at timestamptz, OUT last_active_at timestamptz, OUT transactions bigint,
        OUT rows bigint, OUT bytes bigint)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_worker_slots'
    LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION medallion.worker_slots() IS
    'the processes of this extension in all databases, from shared memory';

CREATE VIEW medallion.workers AS
    SELECT d.datname AS database, w.kind, w.worker_index, w.pid, w.started_at, w.last_active_at,
           w.transactions, w.rows, w.bytes
      FROM medallion.worker_slots() w LEFT JOIN pg_catalog.pg_database d ON d.oid = w.database_oid;
COMMENT ON VIEW medallion.workers IS
    'processes of this extension: transactions, rows and bytes since started_at';
GRANT SELECT ON medallion.workers TO PUBLIC;
