-- A streaming table without Kafka: its rows and our bookkeeping are written as
-- an ingest worker writes them.  Superuser only.
SET client_min_messages = warning;
CREATE SCHEMA :test_schema;
SET search_path = :test_schema, public;

CREATE FUNCTION make_stream(name text, columns text, suffix text DEFAULT '', topic text DEFAULT NULL) RETURNS regclass LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (%s, kafka_partition int, kafka_offset bigint,
                    kafka_timestamp timestamptz, ingested_at timestamptz) %s', name, columns, suffix);
    INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
        VALUES (name::regclass, 'nowhere', coalesce(topic, name), 'json', 'earliest', '{}', true, medallion.database_identity());
    EXECUTE format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION medallion.guard_write()', name);
    RETURN name;
END $$;

-- Ingest the rows of a query into a partition, in one batch.
CREATE FUNCTION ingest(streaming_table regclass, partition int, query text, stream_topic text DEFAULT NULL)
    RETURNS bigint LANGUAGE plpgsql
    SET session_replication_role = replica AS $$
DECLARE
    t text := coalesce(stream_topic, (SELECT topic FROM medallion.stream WHERE relid = streaming_table));
    start bigint;
    n bigint;
    first_block bigint;
    last_block bigint;
BEGIN
    INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset)
        VALUES (streaming_table, t, partition, 0, 0) ON CONFLICT DO NOTHING;
    SELECT next_offset INTO start FROM medallion.checkpoint
        WHERE relid = streaming_table AND topic = t AND kafka_partition = partition FOR UPDATE;
    EXECUTE format('WITH i AS (INSERT INTO %s SELECT q.*, %s, %s - 1 + row_number() OVER (), now(), now()
                               FROM (%s) q RETURNING ctid)
                    SELECT count(*), (min(ctid)::text::point)[0], (max(ctid)::text::point)[0] FROM i',
                   streaming_table, partition, start, query)
        INTO n, first_block, last_block;
    INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset, row_count,
                                 filenode, first_block, last_block, stored_at)
        VALUES (streaming_table, t, partition, start, start + n, n, pg_relation_filenode(streaming_table),
                first_block, last_block, now());
    UPDATE medallion.checkpoint SET next_offset = start + n
        WHERE relid = streaming_table AND topic = t AND kafka_partition = partition;
    RETURN n;
END $$;

-- Records of a partition that cannot be stored: dead letters, as JSON objects of
-- the columns of the table.
CREATE FUNCTION ingest_bad(streaming_table regclass, partition int, query text, stream_topic text DEFAULT NULL)
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    t text := coalesce(stream_topic, (SELECT topic FROM medallion.stream WHERE relid = streaming_table));
    columns text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                      WHERE attrelid = streaming_table AND attnum > 0 AND NOT attisdropped
                        AND attname NOT IN ('kafka_partition', 'kafka_offset', 'kafka_timestamp', 'ingested_at'));
    start bigint;
    n bigint;
BEGIN
    INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset)
        VALUES (streaming_table, t, partition, 0, 0) ON CONFLICT DO NOTHING;
    SELECT next_offset INTO start FROM medallion.checkpoint
        WHERE relid = streaming_table AND topic = t AND kafka_partition = partition FOR UPDATE;
    EXECUTE format('INSERT INTO medallion.dead_letter (relid, topic, kafka_partition, kafka_offset, kafka_timestamp,
                                                       payload, sqlstate, message)
                    SELECT %L, %L, %s, %s - 1 + row_number() OVER (), now(),
                           convert_to(to_jsonb(q)::text, ''UTF8''), ''22P02'', ''simulated''
                      FROM (%s) q (%s)', streaming_table, t, partition, start, query, columns);
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset, row_count, stored_at)
        VALUES (streaming_table, t, partition, start, start + n, 0, now());
    UPDATE medallion.checkpoint SET next_offset = start + n, dead_count = dead_count + n
        WHERE relid = streaming_table AND topic = t AND kafka_partition = partition;
    RETURN n;
END $$;

-- Requeue dead letters of a table, those of the lowest ids that nobody else has.
CREATE FUNCTION requeue(streaming_table regclass, letters int DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    SELECT medallion.requeue(ARRAY(SELECT dead_letter_id FROM medallion.dead_letter WHERE relid = streaming_table
                                    ORDER BY dead_letter_id LIMIT letters FOR UPDATE SKIP LOCKED)) $$;

-- The oracle: the view against its query, both ways, counting duplicates.
CREATE FUNCTION differences(view regclass, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$s)) d',
                   view, '(' || query || ')') INTO n;
    RETURN n;
END $$;
