-- Views that only gain rows, views over them, and what makes a refresh recompute.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_append
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('raw', 'id int, kind text, tags text[], doc jsonb');
CREATE VIEW cleaned AS SELECT id, lower(kind) AS kind, doc FROM raw WHERE id IS NOT NULL;

CREATE TABLE queries (name text PRIMARY KEY, query text);
INSERT INTO queries VALUES
    ('silver', $$SELECT id, upper(kind) AS kind, doc FROM raw WHERE id > 3$$),
    ('exploded', $$SELECT id, t FROM raw, unnest(tags) t$$),
    ('left_lateral', $$SELECT id, t FROM raw LEFT JOIN LATERAL unnest(tags) t ON true$$),
    ('srf', $$SELECT id, jsonb_object_keys(doc) AS k FROM raw$$),
    ('both', $$SELECT id, kind FROM raw WHERE id < 5 UNION ALL SELECT id, 'again' FROM raw WHERE kind = 'b'$$),
    ('through_view', $$SELECT c.*, c AS whole FROM cleaned c$$),
    ('with_values', $$SELECT r.id, v.label FROM raw r JOIN (VALUES ('a', 'first'), ('b', 'second')) v(kind, label) ON v.kind = r.kind$$),
    ('with_queries', $$WITH a (i, k) AS (SELECT id, kind FROM raw WHERE id > 2), b AS (SELECT i, k AS kk, a AS whole FROM a) SELECT i, kk FROM b UNION ALL SELECT i + 100, k FROM a$$),
    ('whole', $$SELECT r, to_json(r) ->> 'kind' AS kind FROM raw r$$),
    ('local_time', $$SELECT id, to_char(kafka_timestamp, 'YYYY') AS year, kafka_timestamp::date = kafka_timestamp::timestamp AS midnight FROM raw$$);
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'incremental')) FROM queries;
SELECT medallion.create_materialized_view('w_count', 'SELECT kind, count(*) AS n, avg(id) AS a FROM v_silver GROUP BY kind', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_copy', 'SELECT * FROM v_exploded WHERE id % 2 = 0', NULL, 'incremental');
SELECT medallion.create_materialized_view('x_sum', 'SELECT t, sum(id) AS s FROM w_copy GROUP BY t', NULL, 'incremental');
INSERT INTO queries VALUES
    ('w_count', 'SELECT kind, count(*) AS n, avg(id) AS a FROM v_silver GROUP BY kind'),
    ('w_copy', 'SELECT * FROM v_exploded WHERE id % 2 = 0'),
    ('x_sum', 'SELECT t, sum(id) AS s FROM w_copy GROUP BY t');
SELECT * FROM medallion.explain_refresh('x_sum');
SELECT * FROM medallion.explain_refresh('v_through_view');
SELECT * FROM medallion.explain_refresh('v_both');

CREATE FUNCTION rows_of(n int) RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT floor(random() * 10)::int, (ARRAY[''a'', ''b'', NULL])[1 + floor(random() * 3)],
                          (ARRAY[''{x,y,x}'', ''{}'', NULL, ''{z}''])[1 + floor(random() * 4)]::text[],
                          ''{"p": 1, "q": [2]}''::jsonb FROM generate_series(1, %s)', n) $$;
-- Each refresh in a transaction of its own: a view tells its readers which
-- transaction added which rows.
CREATE PROCEDURE run_batches(batches int) LANGUAGE plpgsql AS $$
DECLARE
    v regclass;
    s text;
BEGIN
    FOR i IN 1..batches LOOP
        PERFORM view_append.ingest('view_append.raw', (random() * 2)::int, view_append.rows_of((random() * 9)::int));
        COMMIT;
        FOR v IN SELECT relid FROM medallion.view WHERE relid::text ~ '(v|w|x)_' ORDER BY random() LOOP
            CONTINUE WHEN random() < 0.3;
            SELECT strategy || coalesce(' ' || reason, '') INTO s FROM medallion.refresh(v);
            IF s NOT IN ('append', 'merge', 'none') THEN
                RAISE WARNING '%: %', v, s;
            END IF;
            COMMIT;
            PERFORM FROM medallion.verify(v);
            IF FOUND THEN
                RAISE WARNING '% differs in batch %', v, i;
            END IF;
            COMMIT;
        END LOOP;
    END LOOP;
END $$;
SELECT setseed(0.5);
CALL run_batches(60);
-- bring all up in order, and ask the oracle that is not ours
SELECT r.strategy IN ('append', 'merge', 'none') AS incremental, count(*) FROM queries q,
  LATERAL (SELECT strategy FROM medallion.refresh((CASE WHEN q.name ~ '^[wx]_' THEN q.name ELSE 'v_' || q.name END)::regclass)) r
 WHERE q.name !~ '^[wx]_' GROUP BY 1;
SELECT strategy FROM medallion.refresh('w_copy');
SELECT strategy FROM medallion.refresh('w_count');
SELECT strategy FROM medallion.refresh('x_sum');
SELECT name, differences((CASE WHEN name ~ '^[wx]_' THEN name ELSE 'v_' || name END)::regclass, query) FROM queries
 WHERE name NOT IN ('whole', 'through_view') ORDER BY name;
SELECT count(*) FROM v_whole EXCEPT SELECT count(*) FROM raw;

-- verify() sees what is missing and what is extra, and how many copies.
SET session_replication_role = replica;
DELETE FROM v_exploded WHERE ctid = (SELECT min(ctid) FROM v_exploded WHERE id = 1);
INSERT INTO v_exploded VALUES (-1, 'mine'), (-1, 'mine'), (NULL, NULL);
RESET session_replication_role;
SELECT difference, row_data - 't' AS row_data, copies FROM medallion.verify('v_exploded') ORDER BY 1, 2;
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_exploded', full_refresh => true);
SELECT * FROM medallion.verify('v_exploded');

-- Its reader cannot know what a full refresh has changed.
SELECT strategy, reason FROM medallion.refresh('w_copy');
ALTER MATERIALIZED VIEW w_copy SET (medallion.refresh_mode = auto);
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('w_copy');
SELECT * FROM medallion.verify('w_copy');

-- verify() at the frontier while more is ingested, and above a view that went on.
SELECT ingest('raw', 0, rows_of(20));
SELECT * FROM medallion.verify('v_silver');
SELECT strategy FROM medallion.refresh('v_silver');
SELECT * FROM medallion.verify('w_count');
SELECT freshness = '0' AS fresh FROM medallion.materialized_views WHERE view = 'w_count'::regclass;
SELECT strategy, rows_read > 0 AS some FROM medallion.refresh('w_count');
SELECT freshness = '0' AS fresh FROM medallion.materialized_views WHERE view = 'w_count'::regclass;

-- Two refreshes in one transaction are told apart by their subtransactions.
BEGIN;
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
COMMIT;
SELECT strategy, reason FROM medallion.refresh('w_count');
SELECT * FROM medallion.verify('w_count');
ALTER MATERIALIZED VIEW v_silver SET (medallion.on_error = fail);

-- So are those of a view that fails by any row: a reader takes what it has not read.
BEGIN;
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
SELECT strategy, reason FROM medallion.refresh('w_count');
SAVEPOINT s;
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
ROLLBACK TO s;
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
RELEASE s;
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
COMMIT;
SELECT strategy, reason, rows_read FROM medallion.refresh('w_count');
SELECT * FROM medallion.verify('w_count');
ALTER MATERIALIZED VIEW w_count SET (medallion.refresh_mode = auto);
SELECT strategy, reason FROM medallion.refresh('w_count');
SELECT * FROM medallion.verify('w_count');

-- A rewrite of the upstream's table, and of the stream's.
SELECT ingest('raw', 0, rows_of(20));
SELECT strategy FROM medallion.refresh('v_silver');
VACUUM FULL v_silver;
SELECT strategy, reason FROM medallion.refresh('w_count');
SELECT * FROM medallion.verify('w_count');
SELECT ingest('raw', 0, rows_of(20));
VACUUM FULL raw;
SELECT strategy, reason, rows_read FROM medallion.refresh('v_silver');
SELECT * FROM medallion.verify('v_silver');

-- Bounds that were pruned, and a gap between batches.
SELECT ingest('raw', 1, rows_of(20));
DELETE FROM medallion.batch WHERE relid = 'raw'::regclass;
SELECT strategy, reason FROM medallion.refresh('v_silver');
SELECT ingest('raw', 1, rows_of(5));
INSERT INTO medallion.gap SELECT relid, topic, kafka_partition, next_offset, next_offset + 100, 'aborted'
  FROM medallion.checkpoint WHERE relid = 'raw'::regclass AND kafka_partition = 1;
UPDATE medallion.checkpoint SET next_offset = next_offset + 100 WHERE relid = 'raw'::regclass AND kafka_partition = 1;
SELECT ingest('raw', 1, rows_of(5));
SELECT strategy, reason, rows_read FROM medallion.refresh('v_silver');
SELECT * FROM medallion.verify('v_silver');

-- Direct writes to the stream's history.
UPDATE raw SET id = id + 1 WHERE id = 5;
SET medallion.allow_direct_writes = on;
UPDATE raw SET id = id + 1 WHERE id = 5;
RESET medallion.allow_direct_writes;
SELECT strategy, reason FROM medallion.refresh('v_silver');
ALTER MATERIALIZED VIEW v_silver SET (medallion.refresh_mode = auto);
SELECT strategy, reason FROM medallion.refresh('v_silver');
SELECT * FROM medallion.verify('v_silver');

-- A partition that was set back.
BEGIN;
UPDATE medallion.checkpoint SET next_offset = 0 WHERE relid = 'raw'::regclass AND kafka_partition = 2;
SELECT strategy, reason FROM medallion.refresh('v_silver');
ROLLBACK;

-- An inlined view that is redefined.
CREATE OR REPLACE VIEW cleaned AS SELECT id, upper(kind) AS kind, doc FROM raw WHERE id IS NOT NULL;
ALTER MATERIALIZED VIEW v_through_view SET (medallion.refresh_mode = auto);
SELECT strategy, reason FROM medallion.refresh('v_through_view');
SELECT * FROM medallion.verify('v_through_view');

-- Renames anywhere.
ALTER TABLE raw RENAME COLUMN id TO identifier;
ALTER TABLE raw RENAME COLUMN kafka_offset TO pos;
ALTER TABLE raw RENAME TO raw_events;
ALTER TABLE v_silver RENAME COLUMN doc TO document;
ALTER TABLE raw_events DROP COLUMN tags CASCADE;
SELECT ingest('raw_events', 0, $$SELECT 7, 'a', '{"n": 1}'::jsonb$$);
SELECT strategy, reason, rows_inserted FROM medallion.refresh('v_silver');
SELECT strategy, reason FROM medallion.refresh('v_both', full_refresh => true);
SELECT * FROM medallion.verify('v_both');
SELECT * FROM medallion.verify('v_silver');

-- History of an adopted table is read by the first refresh; several topics.
CREATE TABLE old (v int, kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz, ingested_at timestamptz, kafka_topic text);
INSERT INTO old (v) SELECT g FROM generate_series(1, 10) g;
INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
    VALUES ('old', 'nowhere', '^topic', 'json', 'earliest', '{}', true, medallion.database_identity());
SELECT medallion.create_materialized_view('v_old', 'SELECT kafka_topic AS t, kafka_partition, sum(v) AS s FROM old GROUP BY 1, 2', NULL, 'incremental');
CREATE FUNCTION ingest_old(t text, v int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset)
        VALUES ('old', t, 0, 0, 1) ON CONFLICT (relid, topic, kafka_partition) DO UPDATE SET next_offset = checkpoint.next_offset + 1;
    INSERT INTO old SELECT v, 0, next_offset - 1, now(), now(), t FROM medallion.checkpoint WHERE relid = 'old'::regclass AND topic = t;
$$;
SELECT ingest_old('topic1', 5), ingest_old('topic1', 6), ingest_old('topic2', 7);
SELECT strategy, reason FROM medallion.refresh('v_old');
SELECT ingest_old('topic2', 8);
SELECT strategy, reason, frontier FROM medallion.refresh('v_old');
SELECT * FROM v_old ORDER BY 1, 2;
SELECT * FROM medallion.verify('v_old');

DROP SCHEMA view_append CASCADE;
