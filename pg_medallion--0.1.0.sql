/* pg_medallion--0.1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_medallion" to load this file. \quit

-- Whoever owns the schema could put functions beside ours.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
                WHERE n.nspname = 'medallion' AND r.rolname <> current_user AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'schema "medallion" belongs to another role, who is not a superuser'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Drop the schema first, or change its owner.';
    END IF;
END
$$;
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
    'system identifier, oid of this database and lineage of the data directory; definitions that carry another one came by restore, clone or a base backup started beside its original, and stay paused until resume_all()';

CREATE FUNCTION medallion.debug_point_id(name text) RETURNS int
    AS 'MODULE_PATHNAME', 'md_debug_point_id'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.debug_point_id(text) IS
    'objid of the advisory lock (classid 1296319556) at which processes wait under medallion.debug_points; for tests';

------------------------------------------------------------------------------
-- Catalog of streaming tables (one row each; written by C code only)
--
-- Tables without a primary key have all columns as replica identity: in a
-- publication of all tables they could not be changed else.
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

CREATE TABLE medallion.stream_topic (
    relid     regclass NOT NULL,
    topic     text NOT NULL,
    found_at  timestamptz NOT NULL DEFAULT now(),
    gone_at   timestamptz,
    PRIMARY KEY (relid, topic)
);
COMMENT ON TABLE medallion.stream_topic IS 'topics that were found to match the pattern of a streaming table';
COMMENT ON COLUMN medallion.stream_topic.gone_at IS 'since when Kafka does not have it, or the pattern does not match it; NULL while it is read';

CREATE TABLE medallion.stream_status (
    relid       regclass NOT NULL,
    topic       text NOT NULL,
    sqlstate    text,
    message     text,
    failures    int NOT NULL DEFAULT 0,
    since       timestamptz,
    retry_at    timestamptz,
    PRIMARY KEY (relid, topic)
);
COMMENT ON TABLE medallion.stream_status IS 'streaming tables whose ingest fails at present, and when it is tried again';
COMMENT ON COLUMN medallion.stream_status.topic IS 'the topic that cannot be read; a pattern: topics cannot be looked for';

CREATE TABLE medallion.checkpoint (
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    start_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL CHECK (next_offset >= 0),
    high_watermark   bigint,
    row_count        bigint NOT NULL DEFAULT 0,
    dead_count       bigint NOT NULL DEFAULT 0,
    last_offset      bigint,
    last_checksum    bigint,
    last_timestamp   timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE medallion.checkpoint IS 'next_offset per streaming table, topic and partition, advanced in the transaction of the batch';
COMMENT ON COLUMN medallion.checkpoint.high_watermark IS 'end of the partition as of updated_at; NULL until it was first read';
COMMENT ON COLUMN medallion.checkpoint.last_offset IS 'the last record before next_offset, which is read again to tell a topic that was deleted and made anew; NULL if it is not known';
COMMENT ON COLUMN medallion.checkpoint.last_checksum IS 'XXH64 of the payload of that record, seeded with that of its key, seeded with its timestamp';

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
ALTER TABLE medallion.batch REPLICA IDENTITY FULL;
COMMENT ON TABLE medallion.batch IS 'bounds of each batch: offsets [first_offset, next_offset) lie in blocks first_block..last_block of filenode';

CREATE TABLE medallion.late_batch (
    relid            regclass NOT NULL,
    topic            text NOT NULL,
    kafka_partition  int NOT NULL,
    first_offset     bigint NOT NULL,
    next_offset      bigint NOT NULL,
    row_count        bigint NOT NULL,
    dead_count       bigint NOT NULL,
    filenode         oid,
    first_block      bigint,
    last_block       bigint,
    stored_at        timestamptz NOT NULL,
    offsets          int8multirange,
    xid              xid8 DEFAULT pg_catalog.pg_current_xact_id()
);
CREATE INDEX late_batch_position ON medallion.late_batch (relid, topic, kafka_partition, next_offset);
ALTER TABLE medallion.late_batch REPLICA IDENTITY FULL;
CREATE INDEX late_batch_xid ON medallion.late_batch (relid, xid) WHERE row_count > 0;
COMMENT ON TABLE medallion.late_batch IS 'rows that were stored behind the checkpoint, by requeue or replay: all lie within these offsets and blocks, among others; readers count the batches, so none is ever deleted';
COMMENT ON COLUMN medallion.late_batch.offsets IS 'those of the rows; NULL: no row was stored, or xid is NULL';
COMMENT ON COLUMN medallion.late_batch.xid IS 'the transaction that stored them; NULL: all views have read them long ago, or it was in another cluster';

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
    failed_at        timestamptz NOT NULL DEFAULT now(),
    attempts         int NOT NULL DEFAULT 1,
    retried_at       timestamptz
);
CREATE INDEX dead_letter_position ON medallion.dead_letter (relid, topic, kafka_partition, kafka_offset);
CREATE INDEX dead_letter_failed_at ON medallion.dead_letter (relid, failed_at);
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
SELECT pg_catalog.pg_extension_config_dump('medallion.stream_topic', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.batch', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.late_batch', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.gap', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.dead_letter_dead_letter_id_seq', '');

-- Dead letters that nobody wants any more leave a gap each, and neighbours one
-- together.
CREATE FUNCTION medallion.dead_letters_to_gaps(dead_letter_ids bigint[], reason text) RETURNS bigint
    LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH gone AS (
        DELETE FROM medallion.dead_letter l WHERE l.dead_letter_id = ANY (dead_letter_ids)
        RETURNING l.relid, l.topic, l.kafka_partition, l.kafka_offset),
    island AS (
        SELECT g.*, g.kafka_offset - dense_rank() OVER (PARTITION BY g.relid, g.topic, g.kafka_partition
                                                        ORDER BY g.kafka_offset) AS nr
          FROM gone g),
    noted AS (
        INSERT INTO medallion.gap AS old (relid, topic, kafka_partition, first_offset, next_offset, reason)
        SELECT i.relid, i.topic, i.kafka_partition, min(i.kafka_offset), max(i.kafka_offset) + 1,
               dead_letters_to_gaps.reason
          FROM island i GROUP BY i.relid, i.topic, i.kafka_partition, i.nr
        ON CONFLICT (relid, topic, kafka_partition, first_offset)
            DO UPDATE SET next_offset = greatest(old.next_offset, excluded.next_offset))
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION medallion.dead_letters_to_gaps(bigint[], text) IS
    'deletes dead letters and records their offsets as gaps; returns how many it deleted';
REVOKE EXECUTE ON FUNCTION medallion.dead_letters_to_gaps(bigint[], text) FROM PUBLIC;

-- Direct writes to streaming tables and to results of views.
CREATE FUNCTION medallion.guard_write() RETURNS trigger
    AS 'MODULE_PATHNAME', 'md_guard_write'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
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
    'creates a table that is fed by a topic, or by all that match a pattern (''^orders_''), or lets them feed a table that exists (columns NULL)';

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
    'takes over the streaming tables and views that came by restore or clone, and are paused since, as far as the caller owns them; those paused by hand stay so';

CREATE FUNCTION medallion.wait_for_offset(
        table_name regclass, kafka_partition int, kafka_offset bigint, timeout interval,
        kafka_topic text DEFAULT NULL)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'md_wait_for_offset'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.wait_for_offset(regclass, int, bigint, interval, text) IS
    'waits until the record at that offset is stored, or a dead letter, or in a gap; false after timeout; kafka_topic: which of those that a pattern matches';

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
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.ingest_once(regclass, int) IS
    'reads a streaming table, paused or not, up to what is the end of its topic now (or max_records), in this transaction; returns the number of records read';

------------------------------------------------------------------------------
-- Ways back: dead letters, skipped and lost records
------------------------------------------------------------------------------

CREATE FUNCTION medallion.requeue(dead_letter_ids bigint[], payload bytea DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_requeue'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.requeue(bigint[], bytea) IS
    'decodes dead letters again with the present definition of their tables, or one of them with a corrected payload, and stores each record once; those that fail again stay; returns the number of records stored; for the owner of the tables';

CREATE FUNCTION medallion.discard(dead_letter_ids bigint[]) RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_discard'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.discard(bigint[]) IS
    'deletes dead letters and records each in medallion.gaps; returns how many there were; for the owner of the tables';

CREATE FUNCTION medallion.seek(table_name regclass, to_position text) RETURNS void
    AS 'MODULE_PATHNAME', 'md_seek'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.seek(regclass, text) IS
    'lets a streaming table go on at a later position (earliest, latest, a timestamp, or {"partition": offset}) and records what it skips in medallion.gaps; for its owner';

CREATE FUNCTION medallion.replay(table_name regclass, from_position text, to_position text DEFAULT NULL)
    RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_replay_sql'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.replay(regclass, text, text) IS
    'reads what lies between two positions again (to_position NULL: up to what was read so far), in this transaction, and stores the records that neither the table nor its dead letters have; returns their number; for its owner';

------------------------------------------------------------------------------
-- Materialized views
------------------------------------------------------------------------------

-- Definitions are kept as real views here, and partial aggregates as tables, so
-- that Postgres tracks what they depend on and follows renames.  Each of these
-- relations goes away with the result that it belongs to.
CREATE SCHEMA medallion_def;
COMMENT ON SCHEMA medallion_def IS
    'definitions of materialized views, and their state tables; of no use by themselves';
GRANT USAGE ON SCHEMA medallion_def TO PUBLIC;

CREATE TABLE medallion.view (
    relid             regclass PRIMARY KEY,
    definition        regclass,
    lost_query        text,
    state_tables      regclass[],
    merge_index       name,
    key_index         name,
    key_columns       smallint[],
    refresh_interval  interval CHECK (refresh_interval > interval '0'),
    refresh_mode      text NOT NULL CHECK (refresh_mode IN ('auto', 'incremental', 'full')),
    settings          jsonb NOT NULL,
    on_error          text NOT NULL DEFAULT 'quarantine' CHECK (on_error IN ('quarantine', 'fail')),
    max_refresh_errors int NOT NULL DEFAULT 1000 CHECK (max_refresh_errors > 0),
    paused            boolean NOT NULL DEFAULT false,
    paused_reason     text,
    origin            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE medallion.view IS 'definition of each materialized view';
COMMENT ON COLUMN medallion.view.relid IS 'the result, a table';
COMMENT ON COLUMN medallion.view.definition IS 'the query, as a view in medallion_def; NULL: lost';
COMMENT ON COLUMN medallion.view.lost_query IS 'the text of a query that cannot be run, because a column of a source was dropped or retyped';
COMMENT ON COLUMN medallion.view.state_tables IS 'what is kept beside the result: partial aggregates per group, distinct values per group, order of the first rows';
COMMENT ON COLUMN medallion.view.merge_index IS 'unique index over the group keys that a merge needs, in the schema of the result (by name: a dump restores indexes after rows)';
COMMENT ON COLUMN medallion.view.key_index IS 'unique index over key_columns, numbers of columns of the result';
COMMENT ON COLUMN medallion.view.refresh_interval IS 'NULL: on demand only';
COMMENT ON COLUMN medallion.view.settings IS 'settings of the session that created the view; every refresh runs under them';
COMMENT ON COLUMN medallion.view.on_error IS 'what becomes of a row that cannot be computed: quarantine leaves it out, fail fails the refresh';
COMMENT ON COLUMN medallion.view.max_refresh_errors IS 'more quarantined rows than this fail the refresh';
COMMENT ON COLUMN medallion.view.origin IS 'database_identity() of the database that defined it';

CREATE TABLE medallion.view_state (
    relid             regclass PRIMARY KEY,
    populated         boolean NOT NULL DEFAULT false,
    refresh_number    bigint NOT NULL DEFAULT 0,
    rewritten_number  bigint NOT NULL DEFAULT 0,
    started_at        timestamptz,
    refreshed_at      timestamptz,
    duration          interval,
    latency           interval,
    strategy          text,
    always_refresh    boolean NOT NULL DEFAULT false,
    recompute_ms      float8,
    recompute_rows    float8,
    change_ms         float8,
    change_rows       float8,
    recomputes        bigint NOT NULL DEFAULT 0,
    shown_types       regtype[],
    type_shapes       bigint[]
) WITH (fillfactor = 50);
COMMENT ON TABLE medallion.view_state IS 'how far each view is';
COMMENT ON COLUMN medallion.view_state.refresh_number IS 'counts the refreshes that changed the result';
COMMENT ON COLUMN medallion.view_state.rewritten_number IS 'the last of them that did more than add rows';
COMMENT ON COLUMN medallion.view_state.refreshed_at IS 'now() of the last refresh';
COMMENT ON COLUMN medallion.view_state.duration IS 'of the last refresh that found something';
COMMENT ON COLUMN medallion.view_state.latency IS 'from the first commit in a source that the last refresh took in to its own; NULL when not known';
COMMENT ON COLUMN medallion.view_state.always_refresh IS 'the result can change although no source did: now(), volatile functions, sources whose changes are not known';
COMMENT ON COLUMN medallion.view_state.recompute_ms IS 'what the last recompute took, over so many rows of the sources (recompute_rows)';
COMMENT ON COLUMN medallion.view_state.change_ms IS 'what the last large change took that was not recomputed, of so many rows (change_rows); NULL: not known, or long ago';
COMMENT ON COLUMN medallion.view_state.recomputes IS 'recomputes since then';
COMMENT ON COLUMN medallion.view_state.shown_types IS 'composite types and enums of values that the query reads, rows of relations as a whole (to_jsonb(t)) among them; NULL: none';
COMMENT ON COLUMN medallion.view_state.type_shapes IS 'what each of these looked like at the last refresh: fingerprints of its attributes, of each label';

CREATE TABLE medallion.view_source (
    relid            regclass NOT NULL,
    source           regclass NOT NULL,
    frontier         jsonb,
    history_changes  bigint,
    late_batches     bigint,
    late_point       jsonb,
    PRIMARY KEY (relid, source)
) WITH (fillfactor = 50);
CREATE INDEX view_source_source ON medallion.view_source (source);
COMMENT ON TABLE medallion.view_source IS 'the relations that each view reads, and how far it has read them';
COMMENT ON COLUMN medallion.view_source.frontier IS
    'a streaming table: {topic: {partition: next_offset}}; a materialized view: {"refresh": refresh_number}; a plain view: {"definition": version}; a captured relation: {"capture": capture_id, "snapshot": pg_snapshot}; NULL when not known';
COMMENT ON COLUMN medallion.view_source.history_changes IS 'of the streaming table when it was read';
COMMENT ON COLUMN medallion.view_source.late_batches IS 'how many batches of late rows of the streaming table have been read';
COMMENT ON COLUMN medallion.view_source.late_point IS 'which ones: {"snapshot": pg_snapshot} of when one was last read; NULL: those without an xid';

-- Rows that an append-only view gained, for the views that read it: those whose
-- xmin is xid, from first_tid to last_tid.  Means nothing in another cluster, so
-- it is not dumped.
CREATE TABLE medallion.view_change (
    relid           regclass NOT NULL,
    refresh_number  bigint NOT NULL,
    xid             xid8 NOT NULL,
    filenode        oid NOT NULL,
    first_tid       tid NOT NULL,
    last_tid        tid NOT NULL,
    row_count       bigint NOT NULL,
    PRIMARY KEY (relid, refresh_number)
);
COMMENT ON TABLE medallion.view_change IS 'where the rows are that an append-only view gained, while a view that reads it has not read them';

-- Capture: statement triggers on a relation copy what changes into a log, a
-- few tables of medallion_def that are written in turn, for the views that read
-- it.  None of it means anything in another cluster, so nothing is dumped; what
-- a restored view lacks is set up anew at its next refresh.
CREATE TABLE medallion.capture (
    relid       regclass PRIMARY KEY,
    capture_id  uuid NOT NULL,
    by_row      boolean NOT NULL,
    shape       bigint NOT NULL,
    reason      text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE medallion.capture IS 'relations whose changes are captured';
COMMENT ON COLUMN medallion.capture.capture_id IS 'another one means that changes may have been missed: readers start anew';
COMMENT ON COLUMN medallion.capture.by_row IS 'by row triggers: logical replication, or a parent table, writes it without statements of its own';
COMMENT ON COLUMN medallion.capture.shape IS 'fingerprint of its columns, partitions and our triggers';
COMMENT ON COLUMN medallion.capture.reason IS 'why it was set up anew';

CREATE TABLE medallion.capture_log (
    log        regclass PRIMARY KEY,
    relid      regclass NOT NULL,
    is_current boolean NOT NULL,
    first_xid  xid8,
    last_xid   xid8
);
CREATE INDEX capture_log_relid ON medallion.capture_log (relid);
COMMENT ON TABLE medallion.capture_log IS 'the tables of the change log of each captured relation; new changes go to the current one';
COMMENT ON COLUMN medallion.capture_log.first_xid IS 'of what it holds, once nobody writes it any more; 0 if it is empty';

CREATE TABLE medallion.capture_mark (
    relid   regclass NOT NULL,
    xid     xid8 NOT NULL,
    reason  text NOT NULL
);
CREATE INDEX capture_mark_relid ON medallion.capture_mark (relid);
ALTER TABLE medallion.capture_mark REPLICA IDENTITY FULL;
COMMENT ON TABLE medallion.capture_mark IS 'changes of captured relations that are not in their log: each reader starts anew once';

CREATE TABLE medallion.view_status (
    relid       regclass PRIMARY KEY,
    sqlstate    text NOT NULL,
    message     text NOT NULL,
    failures    int NOT NULL,
    since       timestamptz NOT NULL,
    retry_at    timestamptz NOT NULL
);
COMMENT ON TABLE medallion.view_status IS 'views whose refresh fails at present, and when it is tried again';

CREATE TABLE medallion.refresh_error (
    error_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid             regclass NOT NULL,
    source            regclass NOT NULL,
    identity_columns  text[] NOT NULL,
    fingerprint       uuid NOT NULL,
    copies            bigint NOT NULL,
    kafka_topic       text,
    kafka_partition   int,
    kafka_offset      bigint,
    row_tid           tid,
    row_data          jsonb,
    sqlstate          text NOT NULL,
    message           text NOT NULL,
    detail            text,
    context           text,
    attempts          int NOT NULL DEFAULT 1,
    failed_at         timestamptz NOT NULL DEFAULT now(),
    tried_at          timestamptz NOT NULL DEFAULT now(),
    retry             boolean NOT NULL DEFAULT false,
    UNIQUE (relid, source, identity_columns, fingerprint)
);
COMMENT ON TABLE medallion.refresh_error IS 'quarantined rows: each view is computed without those of its sources that it cannot be computed with';
COMMENT ON COLUMN medallion.refresh_error.identity_columns IS 'columns of the source by which the row is told: topic, partition and offset of a record, else those that the view reads and the primary key';
COMMENT ON COLUMN medallion.refresh_error.fingerprint IS 'row_fingerprint() of these columns';
COMMENT ON COLUMN medallion.refresh_error.copies IS 'rows of the source that equal it in these columns';
COMMENT ON COLUMN medallion.refresh_error.row_tid IS 'where the row was last seen, to find it without reading the whole source';
COMMENT ON COLUMN medallion.refresh_error.retry IS 'the next refresh tries it again';

CREATE TABLE medallion.refresh_run (
    run_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid          regclass NOT NULL,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    strategy       text,
    reason         text,
    rows_read      bigint,
    rows_inserted  bigint,
    rows_updated   bigint,
    rows_deleted   bigint,
    sqlstate       text,
    message        text,
    refresh_number bigint,
    source_at      timestamptz,
    steps          jsonb
);
CREATE INDEX refresh_run_relid ON medallion.refresh_run (relid, refresh_number);
CREATE INDEX refresh_run_started_at ON medallion.refresh_run (started_at);
COMMENT ON TABLE medallion.refresh_run IS 'refreshes that found something to do, or failed';
COMMENT ON COLUMN medallion.refresh_run.refresh_number IS 'of the view after it; NULL: it failed';
COMMENT ON COLUMN medallion.refresh_run.source_at IS 'the first commit in a source that it took in, at any depth below; NULL when not known';
COMMENT ON COLUMN medallion.refresh_run.steps IS 'what it did with its time: an array of {step, rows, ms}, each kind of step once; NULL: not kept';

SELECT pg_catalog.pg_extension_config_dump('medallion.view', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.view_state', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.view_source', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.refresh_error', '');
SELECT pg_catalog.pg_extension_config_dump('medallion.refresh_error_error_id_seq', '');

CREATE FUNCTION medallion.capture_change() RETURNS trigger
    AS 'MODULE_PATHNAME', 'md_capture_change'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.capture_change() IS
    'trigger that copies changes of a relation into its log; refreshes put it on what incremental views read';

CREATE FUNCTION medallion.captured_frontier(source regclass, read_frontier jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'md_captured_frontier'
    LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED;
COMMENT ON FUNCTION medallion.captured_frontier(regclass, jsonb) IS
    'how far a captured relation is: read_frontier itself when nothing has changed since, NULL when its changes are not known';

CREATE FUNCTION medallion.types_changed(types regtype[], shapes bigint[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'md_types_changed'
    LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.types_changed(regtype[], bigint[]) IS
    'has one of these types other attributes than it had, or other labels, which show in to_jsonb() and texts of its values?';

-- What a view has read of each source, beside how far that source is now.
CREATE VIEW medallion.source_position AS
  SELECT p.*,
         p.frontier IS NULL OR p.frontier IS DISTINCT FROM p.read_frontier
         OR p.history_changes IS DISTINCT FROM p.read_history_changes
         OR p.late_batches IS DISTINCT FROM p.read_late_batches AS changed
    FROM (
    SELECT s.relid, s.source,
           CASE WHEN t.relid IS NOT NULL THEN 'streaming table'
                WHEN u.relid IS NOT NULL THEN 'materialized view'
                WHEN s.frontier ? 'definition' THEN 'view'
                ELSE 'table' END AS kind,
           s.frontier AS read_frontier,
           s.history_changes AS read_history_changes,
           s.late_batches AS read_late_batches,
           s.late_point,
           CASE WHEN t.relid IS NOT NULL THEN
                    (SELECT coalesce(jsonb_object_agg(p.topic, p.offsets), '{}')
                       FROM (SELECT c.topic, jsonb_object_agg(c.kafka_partition, c.next_offset) AS offsets
                               FROM medallion.checkpoint c WHERE c.relid = s.source GROUP BY c.topic) p)
                WHEN u.strategy = 'append' THEN jsonb_build_object('refresh', u.refresh_number)
                WHEN u.relid IS NOT NULL THEN
                    CASE WHEN (s.frontier ->> 'refresh')::bigint = u.refresh_number AND s.frontier ? 'capture' THEN s.frontier
                         ELSE jsonb_build_object('refresh', u.refresh_number)
                              || coalesce(medallion.captured_frontier(s.source, s.frontier), '{}') END
                WHEN s.frontier ? 'definition' THEN
                    (SELECT jsonb_build_object('definition', r.xmin::text) FROM pg_catalog.pg_rewrite r
                      WHERE r.ev_class = s.source AND r.rulename = '_RETURN')
                ELSE medallion.captured_frontier(s.source, s.frontier)
           END AS frontier,
           t.history_changes,
           CASE WHEN t.relid IS NOT NULL THEN
                    (SELECT count(*) FROM medallion.late_batch b
                      WHERE b.relid = t.relid AND b.row_count > 0) END AS late_batches,
           u.rewritten_number
      FROM medallion.view_source s
           LEFT JOIN medallion.stream t ON t.relid = s.source
           LEFT JOIN medallion.view_state u ON u.relid = s.source) p;
COMMENT ON VIEW medallion.source_position IS
    'what each view has read of its sources (read_frontier), beside how far they are now (frontier; NULL: changes are not known); changed: something is new, or may be';

-- Since when something has been waiting to be read, for those that have read
-- their sources and of whose changes the time is known.
CREATE VIEW medallion.source_waiting AS
    SELECT p.relid, p.source, p.changed,
           CASE WHEN p.read_frontier IS NULL OR NOT p.changed THEN NULL
                WHEN p.kind = 'streaming table' THEN
                    least((SELECT min(b.stored_at)
                             FROM medallion.checkpoint c
                                  JOIN medallion.batch b ON b.relid = c.relid AND b.topic = c.topic
                                                        AND b.kafka_partition = c.kafka_partition
                            WHERE c.relid = p.source
                              AND b.next_offset > coalesce((p.read_frontier #>> ARRAY[c.topic, c.kafka_partition::text])::bigint, 0)
                              AND b.next_offset <= c.next_offset),
                          (SELECT min(l.stored_at) FROM medallion.late_batch l
                            WHERE p.late_batches <> p.read_late_batches
                              AND l.relid = p.source AND l.row_count > 0 AND l.xid IS NOT NULL
                              AND pg_visible_in_snapshot(l.xid, (p.late_point ->> 'snapshot')::pg_snapshot) IS NOT TRUE))
                WHEN p.kind = 'materialized view' THEN
                    (SELECT min(r.source_at) FROM medallion.refresh_run r
                      WHERE r.relid = p.source AND r.refresh_number > (p.read_frontier ->> 'refresh')::bigint)
           END AS since
      FROM medallion.source_position p;
COMMENT ON VIEW medallion.source_waiting IS
    'the first commit in each source of a view that the view does not show; NULL when not known';

CREATE FUNCTION medallion.prune_history() RETURNS void
    LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- bounds that some view has not read yet stay
    DELETE FROM medallion.batch b
     WHERE b.stored_at < now() - current_setting('medallion.batch_history_retention')::interval
       AND NOT EXISTS (SELECT FROM medallion.view_source s
                        WHERE s.source = b.relid
                          AND (s.frontier #>> ARRAY[b.topic, b.kafka_partition::text])::bigint < b.next_offset);
    -- of late rows, bounds are kept for replays
    UPDATE medallion.late_batch b SET offsets = NULL, xid = NULL
     WHERE b.stored_at < now() - current_setting('medallion.batch_history_retention')::interval
       AND b.xid IS NOT NULL
       AND NOT EXISTS (SELECT FROM medallion.view_source s
                        WHERE s.source = b.relid AND s.frontier IS NOT NULL
                          AND pg_visible_in_snapshot(b.xid, (s.late_point ->> 'snapshot')::pg_snapshot) IS NOT TRUE);
    DELETE FROM medallion.view_change c
     WHERE NOT EXISTS (SELECT FROM medallion.view_source s
                        WHERE s.source = c.relid
                          AND (s.frontier ->> 'refresh')::bigint < c.refresh_number);
    DELETE FROM medallion.refresh_run
     WHERE started_at < now() - current_setting('medallion.refresh_history_retention')::interval;
    -- those that a session is just requeueing or discarding are left to it
    SELECT medallion.dead_letters_to_gaps(
               ARRAY(SELECT l.dead_letter_id FROM medallion.dead_letter l
                      WHERE current_setting('medallion.dead_letter_retention') <> '0'
                        AND l.failed_at < now() - current_setting('medallion.dead_letter_retention')::interval
                        LIMIT 1000000 FOR UPDATE SKIP LOCKED), 'expired');
END;
COMMENT ON FUNCTION medallion.prune_history() IS
    'deletes bounds of batches, rows of refresh history and dead letters that are older than their settings allow; the supervisor calls it';
REVOKE EXECUTE ON FUNCTION medallion.prune_history() FROM PUBLIC;

CREATE FUNCTION medallion.prune_change_logs() RETURNS void
    AS 'MODULE_PATHNAME', 'md_prune_change_logs'
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.prune_change_logs() IS
    'gives back what all views have read of the logs of captured relations, gives up on logs beyond medallion.change_log_limit, and takes away captures that no view needs; the supervisor calls it';
REVOKE EXECUTE ON FUNCTION medallion.prune_change_logs() FROM PUBLIC;

CREATE FUNCTION medallion.create_materialized_view(
        view_name text, query text,
        refresh_interval interval DEFAULT '1 minute',
        refresh_mode text DEFAULT 'auto',
        key_columns text[] DEFAULT NULL,
        with_data boolean DEFAULT true,
        options jsonb DEFAULT '{}')
    RETURNS regclass
    AS 'MODULE_PATHNAME', 'md_create_materialized_view'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.create_materialized_view(text, text, interval, text, text[], boolean, jsonb) IS
    'makes a table that holds the result of a query and is kept fresh every refresh_interval (NULL: on demand only); options {"sources": {"schema.table": {"refresh_interval": "1 day"}}} gives sources an interval of their own, {"on_error": "fail"} makes a row that cannot be computed fail the refresh instead of being quarantined, {"max_refresh_errors": 10} limits how many are';

CREATE FUNCTION medallion.alter_materialized_view(
        view regclass,
        query text DEFAULT NULL,
        refresh_interval interval DEFAULT interval '-1 second',
        refresh_mode text DEFAULT NULL,
        key_columns text[] DEFAULT '{*}',
        options jsonb DEFAULT '{}')
    RETURNS void
    AS 'MODULE_PATHNAME', 'md_alter_materialized_view'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.alter_materialized_view(regclass, text, interval, text, text[], jsonb) IS
    'changes a materialized view; what is not given stays (a refresh_interval of NULL means on demand only, key_columns of NULL none); a new query is built beside the live result and takes its place at once; columns that stay keep their order, new ones follow; options: on_error, max_refresh_errors';

CREATE FUNCTION medallion.drop_materialized_view(view regclass, cascade boolean DEFAULT false)
    RETURNS void
    AS 'MODULE_PATHNAME', 'md_drop_materialized_view'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.drop_materialized_view(regclass, boolean) IS
    'drops a materialized view, with cascade also what reads it; DROP MATERIALIZED VIEW does the same';

CREATE FUNCTION medallion.refresh(
        view regclass, full_refresh boolean DEFAULT false, only_where text DEFAULT NULL,
        OUT strategy text, OUT reason text, OUT rows_read bigint, OUT rows_inserted bigint,
        OUT rows_updated bigint, OUT rows_deleted bigint, OUT frontier jsonb)
    RETURNS record
    AS 'MODULE_PATHNAME', 'md_refresh'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.refresh(regclass, boolean, text) IS
    'brings a materialized view up to its sources as they are now; strategy is "none" when nothing was new; only_where overwrites just the rows of the result that it selects';

CREATE FUNCTION medallion.refresh_group(view regclass) RETURNS regclass[]
    AS 'MODULE_PATHNAME', 'md_refresh_group'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.refresh_group(regclass) IS
    'the materialized views that a view must read at one frontier, because several ways lead from it to one source: a refresh brings them along unless they are at one; upstream first';

CREATE FUNCTION medallion.explain_refresh(
        query_or_view text,
        OUT step text, OUT strategy text, OUT changes text, OUT detail text, OUT create_index text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_explain_refresh'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.explain_refresh(text) IS
    'how a query, or an existing view, is refreshed, as a tree: one row for the whole, then one per step with its strategy, how its output changes, what is kept for it or forbids more, and below it what is looked up, by which index; create_index would make one that is missing';

-- Like generate_series(1, copies), but planned for one row, which it mostly is.
CREATE FUNCTION medallion.copies(copies bigint) RETURNS SETOF bigint
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1
    AS 'MODULE_PATHNAME', 'md_copies';
COMMENT ON FUNCTION medallion.copies(bigint) IS
    'the numbers from 1 to copies; refreshes make copies of equal rows with it';

-- The condition on the scans of sources that have quarantined rows: looked at
-- before any other, because it costs least, and planned as if it held always.
CREATE FUNCTION medallion.row_fingerprint(VARIADIC row_values "any") RETURNS uuid
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'md_row_fingerprint';
COMMENT ON FUNCTION medallion.row_fingerprint(VARIADIC "any") IS
    '128 bits of the values as they are stored; refreshes tell quarantined rows by it';

CREATE FUNCTION medallion.not_quarantined_support(internal) RETURNS internal
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'md_not_quarantined_support';
COMMENT ON FUNCTION medallion.not_quarantined_support(internal) IS
    'planner support of not_quarantined()';

CREATE FUNCTION medallion.not_quarantined(fingerprints uuid[], VARIADIC row_values "any") RETURNS boolean
    LANGUAGE C IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE COST 0.0001
    SUPPORT medallion.not_quarantined_support
    AS 'MODULE_PATHNAME', 'md_not_quarantined';
COMMENT ON FUNCTION medallion.not_quarantined(uuid[], VARIADIC "any") IS
    'is row_fingerprint() of the values none of these; refreshes leave out quarantined rows by it';

CREATE FUNCTION medallion.retry_refresh_errors(view regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'md_retry_refresh_errors'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.retry_refresh_errors(regclass) IS
    'lets the next refresh of a view try its quarantined rows again, because a function that its query calls was corrected, say; returns how many there are';

CREATE FUNCTION medallion.verify(
        view regclass,
        OUT difference text, OUT row_data jsonb, OUT copies bigint)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_verify'
    LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION medallion.verify(regclass) IS
    'compares a view with its query at the frontier and the time of its last refresh: rows that are missing or extra; no row means that they are equal';

CREATE FUNCTION medallion.try_schedule(
        at timestamptz, intervals interval[], started_at timestamptz[],
        retry_at timestamptz[] DEFAULT '{}', busy_until timestamptz[] DEFAULT '{}', reads text[] DEFAULT '{}',
        OUT pick int, OUT wake_at timestamptz)
    RETURNS record
    AS 'MODULE_PATHNAME', 'md_try_schedule'
    LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION medallion.try_schedule(timestamptz, interval[], timestamptz[], timestamptz[], timestamptz[], text[]) IS
    'which of some views (numbered from 0; started_at NULL: never) a refresh worker would refresh at a time, or when it would look again; for tests';

------------------------------------------------------------------------------
-- Aggregates of partial results
------------------------------------------------------------------------------

-- What var_samp(), corr() and so on of floats are made from; float8_combine() and
-- float8_regr_combine() of Postgres put two of them together.
CREATE AGGREGATE medallion.float8_moments(float8)
    (SFUNC = pg_catalog.float8_accum, STYPE = float8[], INITCOND = '{0,0,0}',
     COMBINEFUNC = pg_catalog.float8_combine, PARALLEL = SAFE);
COMMENT ON AGGREGATE medallion.float8_moments(float8) IS
    'number, sum and sum of squared deviations of floats, as variances keep it; for state of materialized views';

CREATE AGGREGATE medallion.float8_moments(float8, float8)
    (SFUNC = pg_catalog.float8_regr_accum, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}',
     COMBINEFUNC = pg_catalog.float8_regr_combine, PARALLEL = SAFE);
COMMENT ON AGGREGATE medallion.float8_moments(float8, float8) IS
    'what regression functions keep of pairs of floats (Y, X); for state of materialized views';

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

-- The log and state views tell what this says, so it repeats no secret.
CREATE FUNCTION medallion.lock_holders(table_name regclass) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT string_agg(coalesce('process ' || l.pid, 'a prepared transaction')
                      || CASE WHEN l.granted THEN ' holds ' ELSE ' waits for ' END || l.mode
                      || CASE WHEN l.relation = lock_holders.table_name THEN '' ELSE ' on ' || l.relation::regclass END
                      || CASE WHEN a.query IS NULL THEN ''
                              ELSE format(' (%s)', concat_ws(': ', a.state,
                                      CASE WHEN a.query ~* 'user\s+mapping|password|secret' THEN 'a statement that may hold a secret'
                                           ELSE rtrim(left(regexp_replace(a.query, '\s+', ' ', 'g'), 200), ' ;') END)) END,
                      ', ' ORDER BY l.granted DESC, l.pid)
      FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND (l.relation = lock_holders.table_name
            OR l.relation IN (SELECT t.relid FROM pg_partition_tree(lock_holders.table_name) t));
END;
COMMENT ON FUNCTION medallion.lock_holders(regclass) IS
    'which processes hold, or wait for, locks on the table that keep others from writing it; NULL if none. What they do is told to those who may see it in pg_stat_activity';

CREATE FUNCTION medallion.failure_hint(sqlstate text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN f.s = '55P03' THEN 'Let the sessions that hold the lock end their transactions; pg_terminate_backend() ends one that was forgotten.'
                WHEN f.s = '53100' THEN 'Free disk space, or move tables to a tablespace that has some.'
                WHEN f.s = '53200' THEN 'Give the server more memory, or lower batch_max_bytes of the table or medallion.ingest_memory.'
                WHEN f.s = '57014' THEN 'See what is slow for each row: triggers, constraints, expressions of indexes; or raise medallion.batch_timeout.'
                WHEN f.s = '42501' THEN 'Grant the owner of the table what the reason names.'
                WHEN f.s = 'XX001' THEN 'Compare the topic with medallion.stream_partitions. Past records that it has lost: medallion.seek(), or on_gap record; a topic that was made anew: another streaming table.'
                WHEN f.s IN ('42704', 'HV000') THEN 'See with medallion.list_topics() whether Kafka has the topic, and lets the user read it.'
                WHEN f.s LIKE '08%' THEN 'See whether the brokers can be reached, with medallion.check_server().'
                WHEN f.s LIKE '22%' OR f.s LIKE '23%' THEN 'Change the table so that it takes the record, or set on_error to dead_letter.'
                WHEN f.s LIKE '42%' OR f.s LIKE '3F%' THEN 'Correct the definition of the table, or what its triggers and defaults call.'
           END
      FROM (SELECT failure_hint.sqlstate AS s) f;
END;
COMMENT ON FUNCTION medallion.failure_hint(text) IS
    'what to do about a streaming table that fails with this SQLSTATE; NULL where the message says it all';

-- What counts dead letters are subselects: who does not ask for them pays nothing.
CREATE VIEW medallion.streaming_tables WITH (security_barrier) AS
    SELECT s.relid AS table_name, s.server, s.topic, s.format, s.start_at, s.options,
           CASE WHEN s.paused OR s.origin <> medallion.database_identity() THEN 'paused'
                WHEN f.failures > 0 AND f.sqlstate = '55P03' THEN 'waiting'
                WHEN f.failures > 0 THEN 'failing'
                WHEN NOT s.initialized THEN 'starting'
                ELSE 'running' END AS state,
           CASE WHEN s.origin <> medallion.database_identity()
                THEN 'defined in another database: medallion.resume_all() takes it over'
                WHEN s.paused THEN s.paused_reason
                WHEN f.failures > 0 AND f.sqlstate = '55P03'
                THEN f.message || coalesce(': ' || medallion.lock_holders(s.relid), '')
                WHEN f.message IS NOT NULL THEN f.message
                WHEN s.topic LIKE '^%' AND s.initialized AND n.topics = 0 THEN 'no topic matches the pattern'
                END AS reason,
           f.sqlstate, coalesce(f.failures, 0) AS failures, f.since AS failing_since, f.retry_at,
           coalesce(c.rows, 0) + coalesce(b.rows, 0) AS rows,
           (SELECT count(*) FROM medallion.dead_letter l WHERE l.relid = s.relid) AS dead_letters,
           c.lag, c.last_timestamp, c.updated_at, s.created_at,
           (SELECT count(*) FROM medallion.dead_letter l
             WHERE l.relid = s.relid AND l.failed_at > now() - interval '1 hour') AS dead_letters_last_hour,
           (SELECT mode() WITHIN GROUP (ORDER BY l.sqlstate || ': ' || l.message)
              FROM (SELECT l.sqlstate, l.message FROM medallion.dead_letter l
                     WHERE l.relid = s.relid AND l.failed_at > now() - interval '1 hour'
                     ORDER BY l.failed_at DESC LIMIT 1000) l) AS commonest_error,
           (SELECT b.stored_at - b.max_timestamp
              FROM medallion.checkpoint p
                   CROSS JOIN LATERAL (SELECT t.stored_at, t.max_timestamp FROM medallion.batch t
                                        WHERE t.relid = p.relid AND t.topic = p.topic
                                          AND t.kafka_partition = p.kafka_partition
                                        ORDER BY t.next_offset DESC LIMIT 1) b
             WHERE p.relid = s.relid ORDER BY b.stored_at DESC LIMIT 1) AS latency,
           CASE WHEN s.origin <> medallion.database_identity() THEN NULL
                WHEN s.paused AND s.paused_reason NOT LIKE 'paused by %'
                THEN 'Correct the producer, or the table, then requeue or discard its dead letters, and call medallion.resume().'
                WHEN s.paused OR f.message IS NULL THEN NULL
                ELSE medallion.failure_hint(coalesce(f.sqlstate, '57014')) END AS hint,
           n.topics
      FROM medallion.stream s
      JOIN pg_catalog.pg_class r ON r.oid = s.relid
      LEFT JOIN LATERAL (SELECT t.failures, t.sqlstate, t.since, t.retry_at,
                                CASE WHEN t.topic <> s.topic THEN 'topic "' || t.topic || '": ' ELSE '' END || t.message
                                || CASE WHEN t.n > 1 THEN ' (and ' || t.n - 1 || ' more: medallion.stream_topics)' ELSE '' END AS message
                           FROM (SELECT a.*, count(*) OVER () AS n FROM medallion.stream_status a
                                  WHERE a.relid = s.relid) t
                          ORDER BY t.failures = 0, t.topic <> s.topic, t.sqlstate = '55P03', t.since, t.topic LIMIT 1) f ON true
      LEFT JOIN LATERAL (SELECT CASE WHEN s.topic LIKE '^%' THEN count(t.topic) ELSE 1 END::int AS topics
                           FROM medallion.stream_topic t WHERE t.relid = s.relid AND t.gone_at IS NULL) n ON true
      LEFT JOIN LATERAL (SELECT sum(p.row_count)::bigint AS rows,
                                sum(greatest(p.high_watermark - p.next_offset, 0))::bigint AS lag,
                                max(p.last_timestamp) AS last_timestamp, max(p.updated_at) AS updated_at
                           FROM medallion.checkpoint p WHERE p.relid = s.relid) c ON true
      LEFT JOIN LATERAL (SELECT sum(t.row_count)::bigint AS rows
                           FROM medallion.late_batch t WHERE t.relid = s.relid) b ON true
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.streaming_tables IS
    'streaming tables that the caller owns: definition and state; rows and dead_letters count records, lag those that Kafka had beyond at updated_at';
COMMENT ON COLUMN medallion.streaming_tables.state IS
    'running, paused, waiting (for a lock that reason tells of; tried at least each second), failing (reason and sqlstate say why; tried again at retry_at), or starting (start_at is not yet resolved)';
COMMENT ON COLUMN medallion.streaming_tables.hint IS
    'what ends the state waiting or failing; nothing that is stored is lost meanwhile, and it goes on by itself';
COMMENT ON COLUMN medallion.streaming_tables.lag IS
    'records between next_offset and the end of all partitions, as of the last batch of each; NULL until an end was read';
COMMENT ON COLUMN medallion.streaming_tables.latency IS
    'produced to visible: from the time of the newest record of the last batch to its commit';
COMMENT ON COLUMN medallion.streaming_tables.topics IS
    'topics that are read: 1, or those that match the pattern now';
COMMENT ON COLUMN medallion.streaming_tables.commonest_error IS
    'sqlstate and message that most of the last 1000 dead letters of the last hour have';
GRANT SELECT ON medallion.streaming_tables TO PUBLIC;

CREATE VIEW medallion.stream_topics WITH (security_barrier) AS
    SELECT s.relid AS table_name, t.topic,
           CASE WHEN t.gone_at IS NOT NULL THEN 'gone'
                WHEN s.paused OR s.origin <> medallion.database_identity() THEN 'paused'
                WHEN f.failures > 0 AND f.sqlstate = '55P03' THEN 'waiting'
                WHEN f.failures > 0 THEN 'failing'
                WHEN c.partitions IS NULL THEN 'starting'
                ELSE 'running' END AS state,
           CASE WHEN t.gone_at IS NULL THEN f.message
                ELSE 'Kafka does not have it, or the pattern does not match it any more' END AS reason,
           f.sqlstate, coalesce(f.failures, 0) AS failures, f.since AS failing_since, f.retry_at,
           t.found_at, t.gone_at, coalesce(c.partitions, 0) AS partitions, coalesce(c.rows, 0) AS rows,
           c.lag, c.last_timestamp, c.updated_at
      FROM medallion.stream s
      JOIN pg_catalog.pg_class r ON r.oid = s.relid
      CROSS JOIN LATERAL (SELECT s.topic, s.created_at AS found_at, NULL::timestamptz AS gone_at
                           WHERE s.topic NOT LIKE '^%'
                           UNION ALL
                          SELECT t.topic, t.found_at, t.gone_at FROM medallion.stream_topic t
                           WHERE t.relid = s.relid) t
      LEFT JOIN medallion.stream_status f ON f.relid = s.relid AND f.topic = t.topic
      LEFT JOIN LATERAL (SELECT count(*)::int AS partitions,
                                sum(p.row_count + coalesce(b.rows, 0))::bigint AS rows,
                                sum(greatest(p.high_watermark - p.next_offset, 0))::bigint AS lag,
                                max(p.last_timestamp) AS last_timestamp, max(p.updated_at) AS updated_at
                           FROM medallion.checkpoint p
                           LEFT JOIN LATERAL (SELECT sum(l.row_count)::bigint AS rows FROM medallion.late_batch l
                                               WHERE l.relid = p.relid AND l.topic = p.topic
                                                 AND l.kafka_partition = p.kafka_partition) b ON true
                          WHERE p.relid = s.relid AND p.topic = t.topic
                         HAVING count(*) > 0) c ON true
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.stream_topics IS
    'topics of streaming tables that the caller owns: the one that was named, or those that match a pattern, with the state of each';
COMMENT ON COLUMN medallion.stream_topics.state IS
    'running, paused, waiting (for a lock), failing (reason and sqlstate say why; tried again at retry_at), starting, or gone: what was read of it stays, and it is read on if Kafka has it again';
COMMENT ON COLUMN medallion.stream_topics.lag IS
    'records between next_offset and the end of its partitions, as of the last batch of each; of one that is gone: what is known not to have been read';
GRANT SELECT ON medallion.stream_topics TO PUBLIC;

CREATE VIEW medallion.stream_partitions WITH (security_barrier) AS
    SELECT c.relid AS table_name, c.topic, c.kafka_partition, c.start_offset, c.next_offset,
           c.high_watermark, greatest(c.high_watermark - c.next_offset, 0) AS lag,
           c.row_count + coalesce(b.rows, 0) AS rows, c.dead_count + coalesce(b.dead_letters, 0) AS dead_letters,
           c.last_timestamp, c.updated_at
      FROM medallion.checkpoint c JOIN pg_catalog.pg_class r ON r.oid = c.relid
      LEFT JOIN LATERAL (SELECT sum(t.row_count)::bigint AS rows, sum(t.dead_count)::bigint AS dead_letters
                           FROM medallion.late_batch t
                          WHERE t.relid = c.relid AND t.topic = c.topic
                            AND t.kafka_partition = c.kafka_partition) b ON true
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE');
COMMENT ON VIEW medallion.stream_partitions IS
    'partitions of streaming tables that the caller owns: all before next_offset is stored, a dead letter, or in a gap';
COMMENT ON COLUMN medallion.stream_partitions.dead_letters IS
    'records that became dead letters, those included that were requeued or discarded since';
GRANT SELECT ON medallion.stream_partitions TO PUBLIC;

CREATE VIEW medallion.dead_letters WITH (security_barrier) AS
    SELECT l.dead_letter_id, l.relid AS table_name, l.topic, l.kafka_partition, l.kafka_offset,
           l.kafka_timestamp, l.kafka_key, l.payload, l.headers, l.sqlstate, l.message, l.detail,
           l.failed_at, l.attempts, l.retried_at
      FROM medallion.dead_letter l JOIN pg_catalog.pg_class r ON r.oid = l.relid
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE')
        OR (pg_catalog.has_table_privilege(r.oid, 'SELECT')
            AND pg_catalog.has_schema_privilege(r.relnamespace, 'USAGE') AND NOT r.relrowsecurity);
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
        OUT rows bigint, OUT bytes bigint, OUT short_of text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'md_worker_slots'
    LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION medallion.worker_slots() IS
    'the processes of this extension in all databases, from shared memory, and those that a setting is too low for (short_of)';

CREATE VIEW medallion.workers AS
    SELECT d.datname AS database, w.kind, w.worker_index, w.pid, w.started_at, w.last_active_at,
           w.transactions, w.rows, w.bytes,
           CASE WHEN w.short_of IS NOT NULL THEN 'waiting'
                WHEN w.pid IS NULL THEN 'starting'
                ELSE 'running' END AS state,
           CASE WHEN w.short_of IS NOT NULL
                THEN pg_catalog.format('all %s of %s are in use; it starts within seconds when one is free',
                                       pg_catalog.current_setting(w.short_of), w.short_of) END AS reason
      FROM medallion.worker_slots() w LEFT JOIN pg_catalog.pg_database d ON d.oid = w.database_oid;
COMMENT ON VIEW medallion.workers IS
    'processes of this extension: transactions, rows and bytes since started_at';
COMMENT ON COLUMN medallion.workers.state IS
    'running, starting, or waiting: it is wanted, and there is no process for it (reason says which setting is too low)';
GRANT SELECT ON medallion.workers TO PUBLIC;

CREATE VIEW medallion.materialized_views WITH (security_barrier) AS
    WITH RECURSIVE
        -- every view with all views that it shows something of, itself among them
        lineage AS (
            SELECT relid AS view, relid AS part FROM medallion.view
            UNION
            SELECT l.view, s.source FROM lineage l
                   JOIN medallion.view_source s ON s.relid = l.part
                   JOIN medallion.view v ON v.relid = s.source),
        -- what a view has not read waits since then, or at most since its last refresh
        part AS (
            SELECT t.relid, min(coalesce(w.since, t.refreshed_at)) AS since
              FROM medallion.view_state t LEFT JOIN medallion.source_waiting w ON w.relid = t.relid
             WHERE w.changed OR t.always_refresh OR medallion.types_changed(t.shown_types, t.type_shapes) GROUP BY t.relid),
        waiting AS (
            SELECT l.view, min(p.since) AS since FROM lineage l JOIN part p ON p.relid = l.part GROUP BY l.view)
    SELECT v.relid AS view, c.relowner::pg_catalog.regrole AS owner,
           coalesce(pg_catalog.pg_get_viewdef(v.definition), v.lost_query) AS query,
           v.refresh_mode, v.refresh_interval,
           (SELECT pg_catalog.array_agg(a.attname ORDER BY k.n)
              FROM pg_catalog.unnest(v.key_columns) WITH ORDINALITY k(attnum, n)
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = v.relid AND a.attnum = k.attnum) AS key_columns,
           CASE WHEN v.paused OR v.origin <> medallion.database_identity() THEN 'paused'
                WHEN v.definition IS NULL THEN 'broken'
                WHEN f.relid IS NOT NULL THEN 'failing'
                WHEN v.refresh_interval IS NULL THEN 'on demand'
                WHEN NOT s.populated THEN 'starting'
                WHEN s.duration >= v.refresh_interval THEN 'behind'
                ELSE 'scheduled' END AS state,
           coalesce(s.populated, false) AS populated,
           s.strategy, s.refreshed_at, s.duration AS last_duration,
           CASE WHEN NOT s.populated THEN NULL
                WHEN w.since IS NULL THEN interval '0'
                ELSE greatest(pg_catalog.clock_timestamp() - w.since, interval '0') END AS freshness,
           s.latency,
           CASE WHEN v.paused OR v.origin <> medallion.database_identity() THEN NULL
                WHEN v.definition IS NULL THEN NULL
                WHEN f.relid IS NOT NULL THEN f.retry_at
                ELSE s.started_at + v.refresh_interval END AS next_refresh,
           v.paused OR v.origin <> medallion.database_identity() AS paused,
           CASE WHEN v.origin <> medallion.database_identity()
                THEN 'the database was restored or cloned; call medallion.resume_all()'
                ELSE v.paused_reason END AS paused_reason,
           f.sqlstate AS last_sqlstate, f.message AS last_error, f.failures, f.since AS failing_since,
           (SELECT coalesce(pg_catalog.sum(e.copies), 0)::bigint
              FROM medallion.refresh_error e WHERE e.relid = v.relid) AS quarantined_rows,
           v.state_tables,
           pg_catalog.pg_total_relation_size(v.relid) AS result_bytes,
           (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(t)), 0)::bigint
              FROM pg_catalog.unnest(v.state_tables) t) AS state_bytes
      FROM medallion.view v
           JOIN pg_catalog.pg_class c ON c.oid = v.relid
           LEFT JOIN medallion.view_state s ON s.relid = v.relid
           LEFT JOIN medallion.view_status f ON f.relid = v.relid
           LEFT JOIN waiting w ON w.view = v.relid
     WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE')
        OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW medallion.materialized_views IS
    'the materialized views of this database that the reader owns: definition, state, freshness, next refresh, last error';
COMMENT ON COLUMN medallion.materialized_views.state IS
    'scheduled; behind: the last refresh took longer than the interval, so refreshes run back to back; on demand: it has no interval; starting: its first refresh, or the first after a column of a source was retyped, is to come; failing: last_error says why; broken: a column of a source was dropped or retyped so that its query does not fit any more; paused: paused_reason says why';
COMMENT ON COLUMN medallion.materialized_views.freshness IS
    'for how long the oldest commit that it does not show has been waiting in a source, at any depth below; 0: it shows everything; where commits have no known time, since its last refresh';
COMMENT ON COLUMN medallion.materialized_views.latency IS
    'source commit to visible: of the first commit in a source that the last refresh took in; NULL when not known';
COMMENT ON COLUMN medallion.materialized_views.next_refresh IS
    'one interval after the last refresh that found something, so it is past while there is nothing new; after a failure the next attempt';
COMMENT ON COLUMN medallion.materialized_views.quarantined_rows IS
    'rows of its sources that it is computed without, because it cannot be with them: see medallion.refresh_errors';
GRANT SELECT ON medallion.materialized_views TO PUBLIC;

CREATE VIEW medallion.refresh_errors WITH (security_barrier) AS
    SELECT e.error_id, e.relid AS view, e.source, e.kafka_topic, e.kafka_partition, e.kafka_offset,
           e.row_data, e.copies, e.sqlstate, e.message, e.detail, e.context,
           e.failed_at, e.tried_at, e.attempts
      FROM medallion.refresh_error e JOIN pg_catalog.pg_class c ON c.oid = e.relid
     WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW medallion.refresh_errors IS
    'rows of sources that views of the reader are computed without, where they are, and the error of each';
COMMENT ON COLUMN medallion.refresh_errors.row_data IS
    'the columns that the view reads, and the primary key; NULL: too large, or without a JSON form';
COMMENT ON COLUMN medallion.refresh_errors.copies IS
    'rows of the source that equal it in these columns';
GRANT SELECT ON medallion.refresh_errors TO PUBLIC;

CREATE VIEW medallion.refresh_history WITH (security_barrier) AS
    SELECT r.run_id, r.relid AS view, r.started_at, r.finished_at,
           r.finished_at - r.started_at AS duration,
           r.strategy, r.reason, r.rows_read, r.rows_inserted, r.rows_updated, r.rows_deleted,
           r.sqlstate, r.message, r.steps
      FROM medallion.refresh_run r
           JOIN pg_catalog.pg_class c ON c.oid = r.relid
     WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE')
        OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW medallion.refresh_history IS
    'refreshes that found something to do, or failed, of views that the reader owns: strategy, why that one, rows, duration';
COMMENT ON COLUMN medallion.refresh_history.rows_read IS
    'rows that were new, changed or gone in the sources; NULL: not counted';
COMMENT ON COLUMN medallion.refresh_history.steps IS
    'what it did with its time: an array of {step, rows, ms}, each kind of step once; the times add up to duration';
GRANT SELECT ON medallion.refresh_history TO PUBLIC;

CREATE VIEW medallion.captured_tables WITH (security_barrier) AS
    SELECT c.relid AS table_name,
           CASE WHEN c.by_row THEN 'row' ELSE 'statement' END AS triggers,
           (SELECT pg_catalog.array_agg(s.relid ORDER BY s.relid::text)
              FROM medallion.view_source s JOIN medallion.view_state t ON t.relid = s.relid
             WHERE s.source = c.relid AND t.strategy <> 'full') AS readers,
           (SELECT coalesce(sum(pg_catalog.pg_total_relation_size(l.log)), 0)::bigint
              FROM medallion.capture_log l WHERE l.relid = c.relid) AS log_bytes,
           c.reason AS last_reason, c.created_at
      FROM medallion.capture c
           JOIN pg_catalog.pg_class r ON r.oid = c.relid
     WHERE pg_catalog.pg_has_role(r.relowner, 'USAGE')
        OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW medallion.captured_tables IS
    'tables of the reader whose changes are captured for incremental materialized views (readers): by which triggers, how large the log is, why it was set up anew';
GRANT SELECT ON medallion.captured_tables TO PUBLIC;
