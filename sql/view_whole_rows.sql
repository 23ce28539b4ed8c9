-- Views that show rows as a whole, to_jsonb(t) and the like: a column that is added, dropped or renamed
-- changes what they show, and no row is written.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_whole_rows
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
CREATE TYPE inner_part AS (x int);
CREATE TYPE part AS (a int, i inner_part[]);
CREATE TABLE t (id int PRIMARY KEY, k int, c part);
INSERT INTO t SELECT g, g % 3, row(g, ARRAY[row(g)::inner_part])::part FROM generate_series(1, 6) g;
INSERT INTO t VALUES (7, NULL, NULL);
CREATE TABLE p (k int, v int) PARTITION BY LIST (k);
CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p_rest PARTITION OF p DEFAULT;
INSERT INTO p VALUES (1, 1), (2, 2), (NULL, 3);
SELECT make_stream('s', 'k int, v text');
SELECT ingest('s', 0, 'VALUES (1, ''a''), (2, NULL)');
CREATE VIEW plain AS SELECT to_jsonb(t) AS j, t.k FROM t;
CREATE VIEW narrow AS SELECT id, k FROM t;
CREATE FUNCTION shown(t) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT to_jsonb($1)::text';
CREATE TABLE queries (n serial, name text PRIMARY KEY, query text);
INSERT INTO queries (name, query) VALUES
    ('v_json', 'SELECT to_jsonb(t) AS j FROM t'),
    ('v_text', 'SELECT k, to_jsonb(t)::text AS r FROM t WHERE k > 0'),
    ('v_outer', 'SELECT a.id, row_to_json(b)::text AS r FROM t a LEFT JOIN t b ON a.id = b.k'),
    ('v_function', 'SELECT id, shown(t) AS r FROM t'),
    ('v_groups', 'SELECT k, max(to_jsonb(t)::text) AS m, count(*) AS n FROM t GROUP BY k'),
    ('v_keys', 'SELECT to_jsonb(t) - ''id'' AS j, count(*) AS n FROM t GROUP BY 1'),
    ('v_latest', 'SELECT DISTINCT ON (k) k, to_jsonb(t) AS j FROM t ORDER BY k, id DESC'),
    ('v_window', 'SELECT id, first_value(to_jsonb(t)::text) OVER (PARTITION BY k ORDER BY id) AS f FROM t'),
    ('v_first', 'SELECT id, to_jsonb(t) AS j FROM t ORDER BY id LIMIT 2'),
    ('v_below', 'SELECT k, (SELECT to_jsonb(t)::text FROM t WHERE t.id = o.k) AS r FROM p o'),
    ('v_plain', 'SELECT j, k FROM plain'),
    ('v_parts', 'SELECT to_jsonb(p) AS j FROM p'),
    ('v_stream', 'SELECT to_jsonb(s)->''w'' AS r FROM s'),
    ('v_stream_groups', 'SELECT s.k, max((to_jsonb(s) - ''kafka_timestamp'' - ''ingested_at'')::text) AS m FROM s GROUP BY s.k'),
    -- columns are those of the text
    ('v_columns', 'SELECT to_jsonb(d) AS j FROM (SELECT id, k FROM t) d'),
    ('v_some', 'SELECT to_jsonb(narrow) AS j FROM narrow'),
    ('v_other', 'SELECT k, count(*) AS n FROM t GROUP BY k'),
    -- of views of ours
    ('v_base', 'SELECT id, k FROM t'),
    ('v_over', 'SELECT to_jsonb(v_base) AS j FROM v_base'),
    ('v_over_groups', 'SELECT r, count(*) AS n FROM v_text GROUP BY r');
SELECT count(medallion.create_materialized_view(name, query, NULL, CASE WHEN name = 'v_over' THEN 'auto' ELSE 'incremental' END)) FROM (SELECT * FROM queries ORDER BY n) q;

CREATE FUNCTION query_of(q queries) RETURNS text LANGUAGE sql AS 'SELECT q.query';
\set ECHO none
\i :abs_srcdir/sql/include/look.sql
\set ECHO all
SELECT * FROM look();
ALTER TABLE t ADD COLUMN extra int DEFAULT 5;
SELECT * FROM look();
-- together with changes
ALTER TABLE t RENAME COLUMN extra TO more;
INSERT INTO t VALUES (8, 1, NULL, 9);
DELETE FROM t WHERE id = 1;
SELECT * FROM look();
ALTER TABLE t DROP COLUMN more;
SELECT * FROM look();
UPDATE t SET k = 2 WHERE id IN (2, 3);
DELETE FROM t WHERE id = 8;
SELECT * FROM look();
-- what the columns are made of
ALTER TYPE inner_part ADD ATTRIBUTE y int;
SELECT * FROM look();
-- a constraint is no column
ALTER TABLE t ADD CHECK (id > 0), ALTER k SET DEFAULT 3;
SELECT * FROM look();
ALTER TABLE p ADD COLUMN w text;
ALTER TABLE s ADD COLUMN w text DEFAULT 'new';
SELECT * FROM look();
UPDATE p SET k = 3 - k;
DO $$ BEGIN PERFORM medallion.alter_materialized_view('v_base', 'SELECT id, k, 1 AS one FROM t'); END $$;
UPDATE queries SET query = 'SELECT id, k, 1 AS one FROM t' WHERE name = 'v_base';
SELECT * FROM look();

-- A part that is refreshed has the new column, and the rest gets it later.
ALTER TABLE t ADD COLUMN late int;
SELECT strategy FROM medallion.refresh('v_text', only_where => 'k = 1');
SELECT strategy, reason FROM medallion.refresh('v_text');
SELECT count(*) FROM medallion.verify('v_text');
-- Such a view is due, and is not said to be fresh.
ALTER TABLE s ADD COLUMN again int;
CREATE VIEW reshaped AS SELECT relid FROM medallion.view_state WHERE medallion.types_changed(shown_types, type_shapes);
SELECT relid, shown_types FROM reshaped JOIN medallion.view_state USING (relid) ORDER BY 1;
ALTER TABLE s DROP COLUMN again;
SELECT count(*) FROM reshaped WHERE relid::text LIKE 'v_stream%';
DROP SCHEMA view_whole_rows CASCADE;
