-- A streaming table without Kafka: its rows and our bookkeeping are written as
-- an ingest worker writes them.  Superuser only.
SET client_min_messages = warning;
CREATE SCHEMA :test_schema;
SET search_path = :test_schema, public;

CREATE FUNCTION make_stream(name text, columns text) RETURNS regclass LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (%s, kafka_partition int, kafka_offset bigint,
                    kafka_timestamp timestamptz, ingested_at timestamptz)', name, columns);
    INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
        VALUES (name::regclass, 'nowhere', name, 'json', 'earliest', '{}', true, medallion.database_identity());
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

-- The oracle: the view against its query, both ways, counting duplicates.
CREATE FUNCTION differences(view regclass, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$s)) d',
                   view, '(' || query || ')') INTO n;
    RETURN n;
END $$;
