-- Types of columns change and no row is written: attributes of composite types and labels of enums, which
-- show in to_jsonb() and in texts.  Values may become equal that were not, and have other hashes.
SET client_min_messages = warning;
CREATE SCHEMA view_types;
SET search_path = view_types, public;
CREATE TYPE pair AS (a int, b text);
CREATE TYPE mood AS ENUM ('low', 'mid', 'high');
CREATE TYPE both_of AS (p pair, m mood);
CREATE DOMAIN some_pair AS pair;
CREATE TYPE moods AS RANGE (subtype = mood);
CREATE FUNCTION pair_of(int, text) RETURNS pair LANGUAGE plpgsql IMMUTABLE AS
    'DECLARE made view_types.pair; BEGIN made.a := $1; made.b := $2; RETURN made; END';
CREATE TABLE t (id int, k int, c pair, m mood, d some_pair, r moods, l pair[]);
INSERT INTO t SELECT g, g % 3, pair_of(g % 2, 'x'), (enum_range(NULL::mood))[g % 3 + 1], pair_of(g, NULL), moods('low', 'mid'), ARRAY[pair_of(g, 'l')]
  FROM generate_series(1, 8) g;
INSERT INTO t VALUES (9);
CREATE TABLE queries (n serial, name text PRIMARY KEY, query text);
INSERT INTO queries (name, query) VALUES
    ('v_composite', 'SELECT id, to_jsonb(c) AS j FROM t'),
    ('v_groups', 'SELECT to_jsonb(c)->''z'' AS z, count(*) AS n FROM t GROUP BY 1'),
    ('v_by_composite', 'SELECT c, count(*) AS n, min(id) AS first FROM t GROUP BY c'),
    ('v_values', 'SELECT k, count(DISTINCT c) AS n FROM t GROUP BY k'),
    ('v_different', 'SELECT DISTINCT c FROM t'),
    ('v_latest', 'SELECT DISTINCT ON (c) c, id FROM t ORDER BY c, id DESC'),
    ('v_join', 'SELECT a.c, b.id FROM t a JOIN t b ON a.k = b.k'),
    ('v_window', 'SELECT id, c, count(*) OVER (PARTITION BY c) AS n FROM t'),
    ('v_sets', 'SELECT c, k, count(*) AS n FROM t GROUP BY GROUPING SETS ((c), (k))'),
    ('v_made', 'SELECT id, row_to_json(pair_of(k, ''y''))::jsonb AS j FROM t'),
    ('v_domain', 'SELECT id, concat(d, l) AS s FROM t'),
    ('v_nested', 'SELECT id, to_jsonb(ROW(c, m)::both_of) AS j FROM t'),
    ('v_enum', 'SELECT id, to_jsonb(m) AS j FROM t'),
    ('v_labels', 'SELECT concat(m) AS m, count(*) AS n FROM t GROUP BY 1'),
    ('v_range', 'SELECT id, to_jsonb(r) AS j FROM t'),
    ('v_constant', 'SELECT id, concat(''low''::mood) AS s FROM t WHERE m <> ''high'''),
    ('v_other', 'SELECT k, count(*) AS n FROM t GROUP BY k'),
    ('v_above', 'SELECT c, sum(n) AS n FROM v_by_composite GROUP BY c');
SELECT count(medallion.create_materialized_view(name, query, NULL, 'incremental')) FROM (SELECT * FROM queries ORDER BY n) q;

-- A constant is kept as the value that it was, so the text that a view was given does not tell.
CREATE FUNCTION query_of(q queries) RETURNS text LANGUAGE sql AS
    'SELECT rtrim(v.query, '';'') FROM medallion.materialized_views v WHERE v.view = q.name::regclass';
\getenv abs_srcdir PG_ABS_SRCDIR
\set ECHO none
\i :abs_srcdir/sql/include/look.sql
\set ECHO all
SELECT * FROM look();
ALTER TYPE pair ADD ATTRIBUTE z int;
SELECT * FROM look();
-- rows are found that were there before, by hashes and keys
DELETE FROM t WHERE id IN (1, 2);
UPDATE t SET c.z = id % 2 WHERE id > 4;
INSERT INTO t (id, k, c) VALUES (10, 1, pair_of(1, 'x'));
SELECT * FROM look();
ALTER TYPE pair RENAME ATTRIBUTE z TO y;
DELETE FROM t WHERE id = 3;
SELECT * FROM look();
SELECT count(*) FROM v_different;
-- values that were different are equal now
ALTER TYPE pair DROP ATTRIBUTE y;
SELECT * FROM look();
SELECT count(*) FROM v_different;
DELETE FROM t WHERE id IN (4, 5);
SELECT * FROM look();

-- A label that is added is nothing to those that are there.
ALTER TYPE mood ADD VALUE 'none' BEFORE 'low';
SELECT * FROM look();
UPDATE t SET m = 'none' WHERE id = 6;
SELECT * FROM look();
ALTER TYPE mood RENAME VALUE 'mid' TO 'middle';
SELECT * FROM look();
-- exchanged
ALTER TYPE mood RENAME VALUE 'low' TO 'was low';
ALTER TYPE mood RENAME VALUE 'none' TO 'low';
ALTER TYPE mood RENAME VALUE 'was low' TO 'none';
SELECT v.view, v.freshness > interval '0' AS waits FROM medallion.materialized_views v
 WHERE v.view::text IN ('v_labels', 'v_other') ORDER BY 1;
SELECT * FROM look();
-- A new query before the next refresh: what is found by hashes later is found by those of now.
ALTER TYPE pair ADD ATTRIBUTE p int;
SELECT medallion.alter_materialized_view('v_join', query => 'SELECT a.c, b.id FROM t a JOIN t b ON a.k = b.k WHERE b.id <> 100');
SELECT medallion.alter_materialized_view('v_by_composite', query => 'SELECT c, count(*) AS n, max(id) AS first FROM t GROUP BY c');
DELETE FROM t WHERE id IN (7, 8);
SELECT name, strategy, wrong, again FROM look() WHERE name IN ('v_join', 'v_by_composite', 'v_above');
-- of the key of a result
SELECT medallion.create_materialized_view('v_key', 'SELECT c, count(*) AS n FROM t GROUP BY c', NULL, 'auto', ARRAY['c']);
INSERT INTO queries (name, query) VALUES ('v_key', '');
ALTER TYPE pair ADD ATTRIBUTE q int;
SELECT name, strategy, wrong, again FROM look() WHERE name = 'v_key';
SELECT indexdef FROM pg_indexes WHERE tablename = 'v_key';

-- Values of which no column is read by itself.
CREATE TABLE documents (id int, doc jsonb);
INSERT INTO documents VALUES (1, '{"c": {"a": 1, "b": "x"}}');
INSERT INTO queries (name, query) VALUES
    ('v_record', 'SELECT id, to_jsonb(r) AS j FROM documents, jsonb_to_record(doc) AS r(c pair)'),
    ('v_records', 'SELECT id, to_jsonb(r) AS j FROM documents, ROWS FROM (jsonb_to_record(doc) AS (c pair), generate_series(1, 2)) r'),
    ('v_xml', 'SELECT id, to_jsonb(r) AS j FROM documents, XMLTABLE(''/d'' PASSING XMLPARSE(DOCUMENT ''<d><c>(1,x,,)</c></d>'') COLUMNS c pair) r');
SELECT count(medallion.create_materialized_view(name, query)) FROM queries WHERE name IN ('v_record', 'v_records', 'v_xml');
ALTER TYPE pair RENAME ATTRIBUTE q TO o;
SELECT name, strategy, wrong, again FROM look() WHERE name IN ('v_record', 'v_records', 'v_xml');
-- A change of a type that is rolled back takes with it what was read.
BEGIN;
ALTER TYPE pair RENAME ATTRIBUTE o TO p2;
SELECT name, strategy, wrong, again FROM look() WHERE name IN ('v_composite', 'v_record');
SAVEPOINT again;
ALTER TYPE pair RENAME ATTRIBUTE p2 TO p3;
SELECT name, strategy, wrong, again FROM look() WHERE name IN ('v_composite', 'v_record');
ROLLBACK TO again;
SELECT count(*) FROM look();
ROLLBACK;
SELECT count(*) FROM look();
DROP SCHEMA view_types CASCADE;
