-- Full refresh: any query, and only rows that differ are written.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_full
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'

-- Why a query is recomputed: the construct, and where it stands.
SELECT make_stream('s', 'id int, kind text, at timestamptz, doc json');
CREATE TABLE plain (id int PRIMARY KEY, name text);
CREATE FUNCTION my_stable(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int + $1 FROM plain';
CREATE FUNCTION my_volatile(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT $1';
CREATE TYPE mood AS ENUM ('sad', 'happy');
SELECT q, e.strategy, e.changes, e.detail
  FROM unnest(ARRAY[
    'SELECT * FROM plain',
    'SELECT * FROM s JOIN plain USING (id)',
    'SELECT a.id FROM s a JOIN s b ON a.id = b.id',
    'SELECT count(DISTINCT kind) FROM s',
    'SELECT kind, string_agg(kind, '','') FROM s GROUP BY 1',
    'SELECT kind, row_number() OVER () FROM s',
    'SELECT count(*) OVER (PARTITION BY id), rank() OVER (ORDER BY id) FROM s',
    'SELECT count(*) OVER (PARTITION BY id), row_number() OVER (PARTITION BY kind ORDER BY id) FROM s',
    'SELECT lag(id) OVER (PARTITION BY kind ORDER BY id), row_number() OVER (PARTITION BY id ORDER BY kind) FROM s',
    'SELECT l.name FROM s, LATERAL (SELECT p.name, p.id FROM plain p WHERE p.name < s.kind) l WHERE NOT EXISTS (SELECT FROM s t WHERE t.id = l.id)',
    'SELECT to_jsonb(j) FROM (s JOIN plain USING (id)) AS j',
    'SELECT ctid, id FROM s',
    'SELECT l.name FROM s LEFT JOIN LATERAL (SELECT p.id, p.name || s.kind AS name FROM plain p) l ON l.id = s.id',
    'SELECT p.name FROM s LEFT JOIN plain p ON p.name > (SELECT max(kind) FROM s)',
    'SELECT DISTINCT ON (kind) * FROM s',
    'SELECT * FROM s LIMIT 10',
    'SELECT * FROM s WHERE id IN (SELECT id FROM plain)',
    'SELECT * FROM s WHERE EXISTS (SELECT FROM s)',
    'SELECT id FROM s UNION SELECT id FROM s',
    'SELECT id FROM s EXCEPT SELECT id FROM s',
    'WITH c AS (SELECT random() FROM s) SELECT * FROM c',
    'WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT * FROM c, s',
    'SELECT kind, count(*) FROM s GROUP BY ROLLUP (kind)',
    'SELECT count(*) FROM (SELECT kind, count(*) FROM s GROUP BY kind) g',
    'SELECT * FROM s WHERE at > now() - interval ''1 hour''',
    'SELECT current_date, id FROM s',
    'SELECT clock_timestamp(), id FROM s',
    'SELECT current_user, id FROM s',
    'SELECT my_stable(id) FROM s',
    'SELECT my_volatile(id) FROM s',
    'SELECT * FROM s, generate_series(1, my_volatile(1))',
    'SELECT * FROM s TABLESAMPLE BERNOULLI (50)',
    'SELECT kind::mood::text FROM s',
    'SELECT x.id FROM (VALUES (1)) x(id) LEFT JOIN s ON s.id = x.id',
    'SELECT kind, sum(id) FROM s GROUP BY kind HAVING sum(id) > (SELECT count(*) FROM plain)',
    'SELECT doc::text, count(*) FROM s GROUP BY 1',
    'SELECT id, 1 FROM s UNION ALL SELECT 1, 2',
    'SELECT 1 AS one',
    'SELECT kind, grouping(kind) FROM s GROUP BY kind',
    'SELECT kind, count(*), generate_series(1, 2) FROM s GROUP BY kind',
    'SELECT date_trunc(''hour'', at), to_char(at, ''YYYY''), at::date, extract(hour FROM at), at AT TIME ZONE ''UTC'', concat(id, at) FROM s'
  ]) WITH ORDINALITY u(q, n), medallion.explain_refresh(q) e
 WHERE e.step = 'Query' ORDER BY n;

-- Bags: duplicates, NULLs, types without equality, equal values that differ.
CREATE TABLE src (a int, b text, n numeric, j json, p point, x xml, f float8);
SELECT medallion.create_materialized_view('bag', 'SELECT * FROM src', NULL);
CREATE FUNCTION check_bag() RETURNS TABLE (strategy text, ins bigint, upd bigint, del bigint, same bigint) LANGUAGE sql AS $$
    SELECT r.strategy, r.rows_inserted, r.rows_updated, r.rows_deleted,
           (SELECT count(*) FROM medallion.verify('bag'))
      FROM medallion.refresh('bag') r $$;
INSERT INTO src VALUES (1, 'x', 1.0, '{"a":1}', '(1,2)', '<a/>', 'NaN'), (1, 'x', 1.0, '{"a":1}', '(1,2)', '<a/>', 'NaN'),
    (1, 'x', 1.0, '{"a":1}', '(1,2)', '<a/>', 'NaN');
INSERT INTO src (a, b, n) VALUES (NULL, NULL, NULL), (NULL, NULL, NULL), (2, 'y', 2.0);
SELECT * FROM check_bag();
SELECT * FROM check_bag();
DELETE FROM src WHERE ctid IN (SELECT ctid FROM src WHERE a = 1 LIMIT 2);
DELETE FROM src WHERE ctid = (SELECT ctid FROM src WHERE a IS NULL LIMIT 1);
SELECT * FROM check_bag();
INSERT INTO src SELECT * FROM src;
UPDATE src SET b = 'z', j = '{"a":2}' WHERE a = 1;
SELECT * FROM check_bag();
TABLE bag ORDER BY a, b;
TRUNCATE src;
SELECT * FROM check_bag();
INSERT INTO src (a) SELECT g % 10 FROM generate_series(1, 1000) g;
SELECT * FROM check_bag();
DELETE FROM src WHERE a < 5;
INSERT INTO src (a) SELECT 7 FROM generate_series(1, 50);
SELECT * FROM check_bag();

-- Keys: rows are updated in place, and the query must keep them unique.
INSERT INTO plain SELECT g, 'n' || g FROM generate_series(1, 5) g;
SELECT medallion.create_materialized_view('keyed', 'SELECT id, name FROM plain', NULL, key_columns => '{id}');
UPDATE plain SET name = 'new' WHERE id = 2;
DELETE FROM plain WHERE id = 3;
INSERT INTO plain VALUES (6, NULL);
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('keyed');
UPDATE plain SET id = CASE id WHEN 1 THEN 102 WHEN 2 THEN 101 ELSE id END;
UPDATE plain SET id = id - 100 WHERE id > 100;
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('keyed');
TABLE keyed ORDER BY id;
SELECT * FROM medallion.verify('keyed');
ALTER TABLE plain DROP CONSTRAINT plain_pkey;
INSERT INTO plain VALUES (1, 'twice');
SELECT medallion.refresh('keyed');
INSERT INTO plain VALUES (9, 'a'), (9, 'b');
DELETE FROM plain WHERE name = 'twice';
SELECT medallion.refresh('keyed');
DELETE FROM plain WHERE name = 'b';
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('keyed');
SELECT medallion.create_materialized_view('bad_key', 'SELECT 1 AS id FROM generate_series(1, 2)', NULL, key_columns => '{id}');
SELECT medallion.create_materialized_view('bad_key', 'SELECT 1 AS name', NULL, key_columns => '{nmae}');
SELECT medallion.create_materialized_view('bad_key', 'SELECT 1 AS name', NULL, key_columns => '{name,name}');
SELECT medallion.create_materialized_view('bad_key', 'SELECT ''{}''::json AS j', NULL, key_columns => '{j}');

-- A part of the result, overwritten: the rest stays as it is.
UPDATE plain SET name = 'part ' || id;
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('keyed', only_where => 'id IN (1, 4)');
TABLE keyed ORDER BY id;
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('keyed');
SELECT medallion.refresh('keyed', only_where => 'id = 1) OR (true');
SELECT medallion.refresh('keyed', only_where => 'true FROM plain');
\set VERBOSITY terse
SELECT medallion.refresh('keyed', only_where => 'nonsense = 1');
\set VERBOSITY default
SELECT medallion.refresh('keyed', full_refresh => true, only_where => 'true');

-- now() is the time of the refresh, for verify() too.
SELECT medallion.create_materialized_view('times', $$SELECT now() AS n, current_date AS d, localtimestamp(0) AS l, current_time(3) AS t, id FROM plain$$, NULL);
SELECT * FROM medallion.verify('times');
SELECT strategy, reason, rows_inserted = rows_deleted AS all_rewritten FROM medallion.refresh('times');
SELECT * FROM medallion.verify('times');
SELECT DISTINCT t.n = m.refreshed_at AS same FROM times t, medallion.materialized_views m WHERE m.view = 'times'::regclass;

-- Settings are those of the creation, whatever a session has set.
SELECT ingest('s', 0, $$SELECT 1, 'a', '2026-07-01 23:30:00+00'::timestamptz, NULL::json$$);
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SELECT medallion.create_materialized_view('pinned', $$SELECT at::date AS d, at::text AS t, date_trunc('day', at) AS day, count(*), max((at - at + interval '25 hours')::text) AS i FROM s GROUP BY 1, 2, 3$$, NULL, 'incremental');
RESET TimeZone;
RESET DateStyle;
RESET IntervalStyle;
SELECT ingest('s', 0, $$SELECT 1, 'a', '2026-07-01 23:30:00+00'::timestamptz, NULL::json$$);
SET TimeZone = 'America/New_York';
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('pinned');
RESET TimeZone;
SELECT d, t, count, i FROM pinned;
SELECT * FROM medallion.verify('pinned');

-- Changed without Kafka: a plain table that becomes a streaming table, and back.
CREATE TABLE later (v int, kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz, ingested_at timestamptz);
INSERT INTO later (v) VALUES (1), (1), (2);
SELECT medallion.create_materialized_view('grows_up', 'SELECT v, count(*) AS n, avg(v) AS a FROM later GROUP BY v', NULL);
SELECT strategy, state_tables FROM medallion.materialized_views WHERE view = 'grows_up'::regclass;
INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
    VALUES ('later', 'nowhere', 'later', 'json', 'earliest', '{}', true, medallion.database_identity());
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('grows_up');
SELECT strategy, state_tables FROM medallion.materialized_views WHERE view = 'grows_up'::regclass;
SELECT ingest('later', 0, 'SELECT 2');
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('grows_up');
TABLE grows_up ORDER BY v;
DELETE FROM medallion.stream WHERE relid = 'later'::regclass;
INSERT INTO later (v) VALUES (3);
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('grows_up');
SELECT strategy, state_tables FROM medallion.materialized_views WHERE view = 'grows_up'::regclass;
SELECT * FROM medallion.verify('grows_up');

DROP SCHEMA view_full CASCADE;
