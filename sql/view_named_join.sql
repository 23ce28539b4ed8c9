-- Joins with a name of their own, over relations whose columns came and went.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_named_join
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
SET client_min_messages = warning;
SELECT make_stream('click', 'gone int, id int, page text');
ALTER TABLE click DROP COLUMN gone;
SELECT ingest('click', 0, $$VALUES (1, 'a'), (2, 'b')$$);

CREATE TABLE visit (gone int, id int, page text);
CREATE TABLE customer (gone int, id int, also_gone int, name text);
ALTER TABLE visit DROP COLUMN gone;
ALTER TABLE customer DROP COLUMN gone, DROP COLUMN also_gone;
INSERT INTO visit VALUES (1, 'home'), (2, 'shop'), (3, 'cart');
INSERT INTO customer VALUES (1, 'one'), (2, 'two');
CREATE VIEW caller AS SELECT id, name FROM customer;

SELECT medallion.create_materialized_view('inner_joined', 'SELECT b, a, n FROM (visit JOIN customer USING (id)) AS j (a, b, n)');
SELECT medallion.create_materialized_view('outer_joined', 'SELECT b, a, n FROM (visit LEFT JOIN customer USING (id)) AS j (a, b, n)');
SELECT medallion.create_materialized_view('whole', 'SELECT to_jsonb(j) AS document FROM (visit FULL JOIN customer USING (id)) AS j (a, b)');
SELECT medallion.create_materialized_view('nested',
    'SELECT k.* FROM ((visit JOIN customer USING (id)) AS j (a, b, n) JOIN customer c ON c.id = j.a) AS k (l, m, o, p, q)');
SELECT medallion.create_materialized_view('staged', 'SELECT b, a, n FROM (visit JOIN customer USING (id)) AS j (a, b, n)',
    options => '{"sources": {"view_named_join.customer": {"refresh_interval": "1 day"}}}');
-- a reference to a row inside of the join
SELECT medallion.create_materialized_view('row_inside',
    'SELECT b, a, n FROM (visit v LEFT JOIN customer c ON c.id = v.id AND to_jsonb(c) IS NOT NULL) AS j (a, b, c, n)',
    options => '{"sources": {"view_named_join.customer": {"refresh_interval": "1 day"}}}');
SELECT medallion.create_materialized_view('called', 'SELECT a, b, n FROM (visit JOIN caller USING (id)) AS j (a, b, n)', NULL, 'full');
SELECT medallion.create_materialized_view('streamed', 'SELECT b, a, n FROM (click JOIN customer USING (id)) AS j (a, b, p, o, k, i, n)');

CREATE FUNCTION verified() RETURNS TABLE (view regclass, strategy text, differences bigint) LANGUAGE sql AS
    $$SELECT v.view, (medallion.refresh(v.view)).strategy, (SELECT count(*) FROM medallion.verify(v.view))
        FROM medallion.materialized_views v WHERE v.view::text NOT LIKE 'medallion_def.%' ORDER BY v.view::text$$;
SELECT * FROM verified();
-- what came since is left out
SELECT ingest('click', 0, $$VALUES (2, 'c')$$);
SELECT * FROM medallion.verify('streamed');
INSERT INTO visit VALUES (4, 'exit');
INSERT INTO customer VALUES (4, 'four');
SELECT * FROM verified();
SELECT * FROM whole ORDER BY document ->> 'a';
-- a column that the row of the join shows
ALTER TABLE customer ADD COLUMN size int;
SELECT * FROM verified();
SELECT * FROM whole ORDER BY document ->> 'a';
DROP TABLE whole;

CREATE OR REPLACE VIEW caller AS SELECT id, name, length(name) AS size FROM customer;
ALTER TABLE customer ADD COLUMN since date;
INSERT INTO visit VALUES (5, 'help');
INSERT INTO customer (id, name, since) VALUES (5, 'five', '2025-01-01');
SELECT * FROM verified();
SELECT * FROM inner_joined ORDER BY 1;
SELECT * FROM outer_joined ORDER BY 1;
SELECT * FROM nested ORDER BY 1;
SELECT * FROM staged ORDER BY 1;
SELECT * FROM row_inside ORDER BY 1;
SELECT * FROM streamed ORDER BY 1;
SELECT * FROM called ORDER BY 1;

DROP SCHEMA view_named_join CASCADE;
