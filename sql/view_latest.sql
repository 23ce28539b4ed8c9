-- DISTINCT ON keeps the first row of each key, and always equals the query.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_latest
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id bigint, kind text, n numeric, at timestamptz, doc json');

-- (kafka_partition, kafka_offset) is unique: the order of these queries is total
CREATE TABLE queries (name text PRIMARY KEY, query text);
INSERT INTO queries VALUES
    ('shown', $$SELECT DISTINCT ON (id) id, kind, n, at, kafka_partition, kafka_offset FROM events ORDER BY id, at DESC, kafka_partition, kafka_offset DESC$$),
    ('hidden', $$SELECT DISTINCT ON (id) id, upper(kind) AS kind, n FROM events ORDER BY id, at DESC, kafka_partition, kafka_offset DESC$$),
    ('ascending', $$SELECT DISTINCT ON (id, kind) kind, n, id FROM events WHERE n IS NOT NULL ORDER BY kind, id, n, at, kafka_partition, kafka_offset$$),
    ('nulls_first', $$SELECT DISTINCT ON (kind) kind, n, at FROM events ORDER BY kind, n NULLS FIRST, at DESC NULLS LAST, kafka_offset, kafka_partition$$),
    ('nulls_last', $$SELECT DISTINCT ON (kind) kind, n, at FROM events ORDER BY kind, n DESC NULLS LAST, at, kafka_offset, kafka_partition$$),
    ('json_beside', $$SELECT DISTINCT ON (id) id, doc::text AS doc FROM events ORDER BY id, kafka_offset DESC, kafka_partition$$),
    ('expression_key', $$SELECT DISTINCT ON (id % 5) id % 5 AS k, kind, n FROM events ORDER BY id % 5, at, kafka_offset, kafka_partition$$),
    ('key_only', $$SELECT DISTINCT ON (kind) kind FROM events$$),
    ('numeric_key', $$SELECT DISTINCT ON (n) n, id FROM events ORDER BY n, id DESC$$),
    ('swapped', $$SELECT DISTINCT ON (id) kind AS n, id, n AS kind, at AS kafka_offset, kafka_offset AS at FROM events ORDER BY id, events.n, events.kafka_offset, kafka_partition$$),
    ('no_order', $$SELECT DISTINCT ON (id) id, (id % 7)::text AS t FROM events$$),
    ('numbered', $$SELECT id, kind, n FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY at DESC, kafka_partition, kafka_offset) AS rn FROM events) s WHERE rn = 1$$),
    ('numbered_with', $$WITH r AS (SELECT id, kind, kind || '!' AS k, n, row_number() OVER (PARTITION BY id, kind ORDER BY n DESC NULLS LAST, at, kafka_partition, kafka_offset) AS place FROM events WHERE id > 3) SELECT id + 1 AS i, k, id, kind, k AS again, place, n FROM r WHERE place < 2$$);
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'incremental')) FROM queries;
SELECT q.name, e.step, e.strategy, e.changes, e.detail
  FROM queries q, medallion.explain_refresh(q.query) e WHERE e.step ~ 'First' ORDER BY q.name;

SELECT setseed(0.17);
CREATE FUNCTION random_rows(n int) RETURNS TABLE (id bigint, kind text, n numeric, at timestamptz, doc json)
    LANGUAGE sql VOLATILE AS $$
    SELECT nullif(floor(random() * 25), 9)::bigint,
           (ARRAY['a', 'b', 'c', NULL, 'A'])[1 + floor(random() * 5)],
           (ARRAY[1.0, 1.00, 2.5, NULL, -3.125, 'NaN'])[1 + floor(random() * 6)],
           nullif('2026-03-01 00:00+00'::timestamptz + floor(random() * 200) * interval '17 minutes', '2026-03-01 17:00+00'),
           json_build_object('x', floor(random() * 3))
      FROM generate_series(1, n)
$$;
CREATE FUNCTION run_batches(batches int) RETURNS TABLE (batch int, name text, differs bigint, strategy text) LANGUAGE plpgsql AS $$
DECLARE
    q record;
    r record;
BEGIN
    FOR batch IN 1..batches LOOP
        PERFORM ingest('events', (random() * 3)::int, format('SELECT * FROM random_rows(%s)', floor(random() * 12)));
        FOR q IN SELECT * FROM queries LOOP
            CONTINUE WHEN random() < 0.5 AND batch < batches;
            SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
            differs := differences(('v_' || q.name)::regclass, q.query);
            IF differs <> 0 OR r.strategy NOT IN ('latest', 'none') THEN
                name := q.name;
                strategy := r.strategy || coalesce(': ' || r.reason, '');
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT * FROM run_batches(100);
SELECT q.name, v.* FROM queries q, medallion.verify(('v_' || q.name)::regclass) v;
SELECT count(*) FROM v_hidden WHERE id IS NULL;

-- A full refresh finds nothing to change.
SELECT q.name, r.strategy, r.rows_inserted, r.rows_updated, r.rows_deleted
  FROM queries q, medallion.refresh(('v_' || q.name)::regclass, full_refresh => true) r
 WHERE r.rows_inserted + r.rows_updated + r.rows_deleted > 0;
SELECT * FROM run_batches(5);

-- Ties: the smallest of the remaining columns, in whatever order rows arrive.
SELECT medallion.create_materialized_view('v_ties', 'SELECT DISTINCT ON (id) id, kind, n FROM events ORDER BY id, n', NULL, 'incremental');
SELECT medallion.create_materialized_view('v_ties_hidden', 'SELECT DISTINCT ON (id) id, kind FROM events ORDER BY id, n', NULL, 'incremental');
SELECT ingest('events', 0, $$VALUES (1001, 'b', 5.0, now(), NULL::json), (1001, 'c', 5, now(), NULL)$$);
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties');
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties_hidden');
SELECT ingest('events', 0, $$VALUES (1001, 'a', 5.00, now(), NULL::json), (1001, 'a', 7, now(), NULL)$$);
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties');
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties_hidden');
SELECT id, kind, n FROM v_ties WHERE id > 1000;
SELECT id, kind FROM v_ties_hidden WHERE id > 1000;
SELECT * FROM medallion.verify('v_ties') UNION ALL SELECT * FROM medallion.verify('v_ties_hidden');

-- Rows that come later in the order, or again, write nothing.
SELECT ingest('events', 0, $$VALUES (1001, 'a', 8, now(), NULL::json), (1001, 'a', 5, now(), NULL)$$);
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties');
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('v_ties_hidden');

-- Rows that take more than the memory of a refresh are written in parts, with keys of one part in the next.
SELECT medallion.create_materialized_view('v_ties_by_kind', 'SELECT kind, count(*), sum(n) FROM v_ties GROUP BY kind', NULL, 'incremental');
SET work_mem = '64kB';
SET medallion.refresh_work_mem = '64kB';
SELECT ingest('events', 0, $$SELECT 2000 + g % 700, chr(97 + g % 5), g * 7919 % 5003, now(), NULL::json FROM generate_series(1, 5000) g$$);
SELECT strategy, rows_inserted, rows_updated > 700 AS in_parts FROM medallion.refresh('v_ties');
SELECT strategy, rows_inserted FROM medallion.refresh('v_ties_by_kind');
SELECT ingest('events', 0, $$SELECT 2000 + g % 900, chr(97 + g % 5), g * 7927 % 5003 - 1, now(), NULL::json FROM generate_series(1, 5000) g$$);
SELECT strategy, rows_inserted, rows_updated > 0 AS updated FROM medallion.refresh('v_ties');
SELECT strategy, rows_inserted FROM medallion.refresh('v_ties_by_kind');
SELECT * FROM medallion.verify('v_ties') UNION ALL SELECT * FROM medallion.verify('v_ties_by_kind');
-- The query sees nothing of what its own rows became, as a statement does not; what was written takes no memory.
CREATE TABLE items (id int, n int, body text);
CREATE FUNCTION rows_seen(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RETURN (SELECT count(*) FROM view_latest.v_items); END';
CREATE FUNCTION memory_used(int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RETURN CASE WHEN $1 % 250 = 0 THEN (SELECT sum(total_bytes) FROM pg_backend_memory_contexts) END; END';
SELECT medallion.create_materialized_view('v_items',
    'SELECT DISTINCT ON (id) id, n, body, rows_seen(id) AS seen, memory_used(id) AS used FROM items ORDER BY id, n', NULL, 'incremental');
-- long enough to be compressed, and too short to be moved out of line then
INSERT INTO items SELECT g, 1, (SELECT string_agg(md5((g * 100 + i)::text), '') FROM generate_series(1, 55) i) || repeat(' ', 1800)
  FROM generate_series(1, 3000) g;
SELECT strategy, rows_inserted FROM medallion.refresh('v_items');
SELECT seen, count(*), max(used) - min(used) < 1000000 AS steady FROM v_items GROUP BY seen;
RESET work_mem;
RESET medallion.refresh_work_mem;

-- Keys of all kinds in the order of their index, one that the owner made, too.
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE keyed (alike text, number numeric, folded text COLLATE ignore_case, padded char(9), at timestamptz, both_of pair, list int[], n int);
CREATE TABLE keyed_views AS
    SELECT 'k_' || key AS name, format('SELECT %s, n, number AS x FROM keyed', key) AS plain,
           format('SELECT DISTINCT ON (%s) %1$s, n, number AS x FROM keyed ORDER BY %1$s, n %s, number', key, how) AS query, index
      FROM (VALUES ('alike', 'DESC NULLS LAST', 'alike DESC NULLS LAST'), ('number', 'NULLS FIRST', 'number NULLS FIRST'),
                   ('folded', '', 'folded COLLATE "C"'), ('padded', 'DESC', NULL), ('at', '', 'at DESC'),
                   ('both_of', '', 'both_of record_image_ops'), ('list', 'DESC', NULL)) v(key, how, index);
SELECT count(medallion.create_materialized_view(name, plain, NULL, 'incremental')) FROM keyed_views;
SELECT format('CREATE UNIQUE INDEX %s ON %s (%s) NULLS NOT DISTINCT', name || '_own', name, index) FROM keyed_views WHERE index <> '' \gexec
SELECT count(medallion.alter_materialized_view(name::regclass, query => query)) FROM keyed_views;
-- those whose equality is another one do not serve
SELECT indexdef FROM pg_indexes WHERE tablename ~ '^k_' ORDER BY tablename, indexname;
CREATE FUNCTION put(seed bigint, rows int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO keyed SELECT CASE WHEN r % 17 > 0 THEN repeat('alike ', 5) || r % 3000 END,
                             CASE WHEN r % 13 > 0 THEN (r % 2000)::numeric / 7 WHEN r % 2 = 0 THEN 'NaN' END,
                             CASE WHEN r % 11 = 0 THEN NULL WHEN r % 2 = 0 THEN upper(md5((r % 2001)::text)) ELSE md5((r % 2001)::text) END,
                             (r % 500)::text, '2020-01-01'::timestamptz + (r % 2500) * interval '1 min',
                             CASE WHEN r % 19 > 0 THEN ROW(r % 40, CASE WHEN r % 3 > 0 THEN 'u' || r % 50 END)::pair END,
                             ARRAY[r % 60, r % 70], CASE WHEN r % 23 > 0 THEN r * 7919 % 100003 END
      FROM (SELECT (g + $1) * 2654435761 % 1000003 AS r FROM generate_series(1, $2) g) s $$;
CREATE FUNCTION refresh_keyed() RETURNS TABLE (name text, strategy text, differ bigint) LANGUAGE sql AS $$
    SELECT name, (SELECT strategy FROM medallion.refresh(name::regclass)), (SELECT count(*) FROM medallion.verify(name::regclass))
      FROM keyed_views ORDER BY name $$;
SELECT put(1, 12000);
SELECT * FROM refresh_keyed();
SELECT put(5000, 3000);
SET work_mem = '64kB';
SET medallion.refresh_work_mem = '64kB';
SELECT * FROM refresh_keyed();
RESET work_mem;
RESET medallion.refresh_work_mem;

-- What is not kept by its first row.
SELECT query, strategy, detail FROM unnest(ARRAY[
    'SELECT DISTINCT ON (id) kind FROM events ORDER BY id',
    'SELECT DISTINCT ON (kind) kind, count(*) FROM events GROUP BY kind, id ORDER BY kind, 2',
    'SELECT id FROM (SELECT *, row_number() OVER (ORDER BY at) AS rn FROM events) s WHERE rn = 1',
    'SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY at) AS rn FROM events) s WHERE rn = 2',
    'SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY at) AS rn FROM events) s WHERE rn = 1 AND n > 0',
    'SELECT id FROM (SELECT *, rank() OVER (PARTITION BY id ORDER BY at) AS rn FROM events) s WHERE rn = 1']) query,
    LATERAL (SELECT strategy, detail FROM medallion.explain_refresh(query) LIMIT 1) e;

DROP SCHEMA view_latest CASCADE;
