-- Statements that would let rows come, go or change past the guard, and calls
-- that write in a transaction that may not.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema guard
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
SELECT make_stream('s', 'id int, kind text');
SELECT ingest('s', 0, $$SELECT g, 'k' || g % 2 FROM generate_series(1, 10) g$$);
CREATE TABLE t (id int, kind text);
CREATE MATERIALIZED VIEW v WITH (medallion.refresh_interval = none) AS SELECT id, kind FROM s;
CREATE MATERIALIZED VIEW m WITH (medallion.refresh_interval = none) AS SELECT kind, avg(id) FROM s GROUP BY 1;
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';

-- Rules: a COPY passes by them, and INSERT does what they say
CREATE RULE r AS ON INSERT TO v DO INSTEAD NOTHING;
CREATE RULE r AS ON DELETE TO v DO ALSO SELECT 1;
CREATE RULE r AS ON UPDATE TO medallion_def."guard.m state" DO INSTEAD NOTHING;
CREATE RULE r AS ON INSERT TO s DO INSTEAD NOTHING;
CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING;
SET client_min_messages = error;
CREATE SERVER guard FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
RESET client_min_messages;
SELECT medallion.create_streaming_table('t', 'guard', 't', options => '{"check_topic": false}');
CREATE TABLE p (id int) PARTITION BY LIST (id) WITH (medallion.server = 'guard', medallion.topic = 'p', medallion.check_topic = false);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE RULE r AS ON INSERT TO p1 DO INSTEAD NOTHING;
CREATE TABLE p2 (LIKE p1);
CREATE RULE r AS ON INSERT TO p2 DO INSTEAD NOTHING;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);

-- Triggers before a row
CREATE TRIGGER g BEFORE INSERT ON v FOR EACH ROW EXECUTE FUNCTION skip();
CREATE TRIGGER g AFTER INSERT ON v FOR EACH ROW EXECUTE FUNCTION skip();
CREATE TRIGGER g BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION skip();

-- The guard itself
DROP TRIGGER medallion_guard ON v;
DROP TRIGGER medallion_guard ON medallion_def."guard.m state";
DROP TRIGGER IF EXISTS medallion_guard ON p1;
ALTER TRIGGER medallion_guard ON v RENAME TO other;
ALTER TRIGGER medallion_guard ON p RENAME TO other;
DROP TRIGGER nonesuch ON v;

-- Hierarchies
CREATE TABLE child () INHERITS (v);
CREATE TABLE child (id int, kind text);
ALTER TABLE child INHERIT v;
ALTER TABLE v INHERIT child;
CREATE TABLE parent (id int, kind text) PARTITION BY LIST (id);
ALTER TABLE parent ATTACH PARTITION v FOR VALUES IN (1);

-- Schemas
ALTER SCHEMA medallion RENAME TO other;
ALTER SCHEMA medallion_def RENAME TO other;
ALTER MATERIALIZED VIEW v SET SCHEMA medallion_def;
ALTER TABLE v SET SCHEMA medallion;
ALTER TABLE p SET SCHEMA medallion;
SELECT medallion.create_materialized_view('medallion.w', 'SELECT 1 AS one');
SELECT medallion.create_materialized_view('medallion_def.w', 'SELECT 1 AS one');

-- A condition that is not true of a row twice would lose rows
SELECT * FROM medallion.refresh('v', only_where => 'random() < 0.5');
SELECT * FROM medallion.refresh('m', only_where => 'kind = (SELECT ''k'' || (random() * 10)::int)');
SELECT strategy, rows_inserted, rows_deleted FROM medallion.refresh('v', only_where => 'id < 5 -- the first');
SELECT strategy, rows_inserted, rows_deleted FROM medallion.refresh('m', only_where => 'kind = ''k1'' -- half');
SELECT * FROM medallion.refresh('v', only_where => 'nonesuch = 1');
SELECT * FROM medallion.verify('v');

-- Transactions that may not write
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || sqlerrm;
END $$;
BEGIN READ ONLY;
SELECT try(format('SELECT medallion.%s', call)) FROM unnest(ARRAY[
    $$create_streaming_table('w', 'guard', 'w')$$, $$drop_streaming_table('p')$$, $$pause('s')$$, $$pause('v')$$, $$resume('s')$$,
    $$resume('v')$$, $$resume_all()$$, $$ingest_once('s')$$, $$requeue('{1}')$$, $$discard('{1}')$$, $$seek('s', 'latest')$$,
    $$replay('s', 'earliest')$$, $$create_materialized_view('w', 'SELECT 1 AS one')$$, $$alter_materialized_view('v', refresh_mode => 'full')$$,
    $$refresh('v')$$, $$drop_materialized_view('v')$$, $$retry_refresh_errors('v')$$]) call;
-- and what they may do
SELECT try(format('SELECT medallion.%s', call)) FROM unnest(ARRAY[
    $$verify('v')$$, $$explain_refresh('v')$$, $$explain_refresh('SELECT id FROM s')$$, $$refresh_group('v')$$, $$try_decode('s', '{}')$$,
    $$wait_for_offset('s', 0, 9, '1 s')$$]) call;
ROLLBACK;

SET client_min_messages = warning;
DROP SCHEMA guard CASCADE;
DROP SERVER guard;
