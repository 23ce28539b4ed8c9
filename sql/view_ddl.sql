-- Definitions: DDL, functions, privileges, and what bad input gets.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_ddl
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('s', 'id int, kind text, secret text');
SELECT ingest('s', 0, $$SELECT g, 'k' || g % 2, 'x' FROM generate_series(1, 10) g$$);

-- CREATE
CREATE MATERIALIZED VIEW m (k, n) WITH (medallion.refresh_interval = none, medallion.key_columns = 'k', fillfactor = 60) AS
    SELECT kind, count(*) FROM s GROUP BY 1;
CREATE MATERIALIZED VIEW IF NOT EXISTS m WITH (medallion.refresh_mode = full) AS SELECT 1;
CREATE MATERIALIZED VIEW m WITH (medallion.refresh_mode = full) AS SELECT 1 AS one;
SELECT reloptions, relkind FROM pg_class WHERE oid = 'm'::regclass;
SELECT view, refresh_interval, refresh_mode, key_columns, strategy, populated, paused FROM medallion.materialized_views WHERE view = 'm'::regclass;
TABLE m ORDER BY k;
CREATE MATERIALIZED VIEW empty WITH (medallion.refresh_interval = none) AS TABLE s WITH NO DATA;
SELECT populated, freshness FROM medallion.materialized_views WHERE view = 'empty'::regclass;
SELECT * FROM medallion.verify('empty');
SELECT strategy, reason, rows_inserted FROM medallion.refresh('empty');
-- a plain one is left alone
CREATE MATERIALIZED VIEW plain WITH (fillfactor = 60) AS SELECT 1 AS one;
SELECT relkind FROM pg_class WHERE oid = 'plain'::regclass;
REFRESH MATERIALIZED VIEW plain;

-- Options that are wrong
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_intervall = '1 s') AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.nonsense = 1) AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_mode = incrementel) AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_mode = full, medallion.refresh_mode = full) AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_interval) AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_interval = '0 s') AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_interval = '-1 month') AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_interval = 'soon') AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_mode = full, fillfactr = 60) AS SELECT 1;
CREATE MATERIALIZED VIEW bad (a, b) WITH (medallion.refresh_mode = full) AS SELECT 1;
CREATE MATERIALIZED VIEW bad WITH (medallion.refresh_mode = full) AS SELECT nope FROM s;
SELECT medallion.create_materialized_view(NULL, 'SELECT 1');
SELECT medallion.create_materialized_view('bad', NULL);
SELECT medallion.create_materialized_view('bad', 'SELECT 1', refresh_mode => NULL);
SELECT medallion.create_materialized_view('bad', 'SELECT 1', '-1 s');
SELECT medallion.create_materialized_view('bad', 'SELECT 1', key_columns => '{NULL}');
SELECT medallion.create_materialized_view('bad', 'SELECT 1', options => '{"refresh_intervall": 1}');
SELECT medallion.create_materialized_view('bad', 'SELECT 1', options => '[]');
SELECT medallion.create_materialized_view('no_schema.bad', 'SELECT 1');
SELECT medallion.create_materialized_view('medallion_def.bad', 'SELECT 1');
SELECT medallion.create_materialized_view('pg_temp.bad', 'SELECT 1');

-- Queries that are none
SELECT medallion.create_materialized_view('bad', '');
SELECT medallion.create_materialized_view('bad', 'SELECT 1; SELECT 2');
SELECT medallion.create_materialized_view('bad', 'DELETE FROM s');
SELECT medallion.create_materialized_view('bad', 'SELECT 1 INTO x');
SELECT medallion.create_materialized_view('bad', 'SELECT FROM s');
SELECT medallion.create_materialized_view('bad', 'SELECT * FROM s FOR UPDATE');
SELECT medallion.create_materialized_view('bad', 'WITH d AS (DELETE FROM s RETURNING 1) TABLE d');
SELECT medallion.create_materialized_view('bad', 'SELECT 1 AS a, 2 AS a');
SELECT medallion.create_materialized_view('bad', 'SELECT nope FROM s');
SELECT medallion.create_materialized_view('bad', 'SELECT * FROM nope');
CREATE TEMP TABLE tmp (a int);
SELECT medallion.create_materialized_view('bad', 'SELECT * FROM tmp');
SELECT to_regclass('bad');

-- Functions on what is no view
SELECT medallion.refresh('s');
SELECT medallion.refresh(0);
SELECT medallion.refresh(NULL);
SELECT * FROM medallion.verify('plain');
SELECT medallion.drop_materialized_view('plain');
SELECT medallion.alter_materialized_view('plain', refresh_mode => 'full');
SELECT * FROM medallion.explain_refresh('plain');
SELECT * FROM medallion.explain_refresh('select nope');

-- Its rows are ours, and its shape
INSERT INTO m VALUES ('x', 1);
UPDATE m SET n = 0;
DELETE FROM m;
TRUNCATE m;
COPY m FROM stdin;
\.
ALTER TABLE m ADD COLUMN x int;
ALTER TABLE m DROP COLUMN n;
ALTER TABLE m ALTER COLUMN n TYPE numeric;
ALTER TABLE m SET UNLOGGED;
ALTER TABLE m ADD CHECK (n > 0);
ALTER TABLE m DISABLE TRIGGER medallion_guard;
ALTER MATERIALIZED VIEW m SET (medallion.nope = 1);
REFRESH MATERIALIZED VIEW m WITH NO DATA;
-- what is allowed
CREATE INDEX m_n ON m (n);
ALTER TABLE m ALTER COLUMN k SET STATISTICS 500;
ALTER MATERIALIZED VIEW m SET (fillfactor = 90, medallion.refresh_interval = '1 hour');
ALTER TABLE m SET (medallion.refresh_mode = incremental);
COMMENT ON MATERIALIZED VIEW m IS 'by kind';
COMMENT ON COLUMN m.n IS 'how many';
SELECT obj_description('m'::regclass), col_description('m'::regclass, 2);
ALTER MATERIALIZED VIEW m RENAME COLUMN n TO how_many;
ALTER MATERIALIZED VIEW m RENAME TO "M 2";
CREATE SCHEMA "view_ddl 2";
ALTER MATERIALIZED VIEW "M 2" SET SCHEMA "view_ddl 2";
SELECT ingest('s', 0, $$SELECT 11, 'k9', 'x'$$);
REFRESH MATERIALIZED VIEW "view_ddl 2"."M 2";
SELECT view, refresh_interval, refresh_mode, query ~ 'AS k,.*FROM s' AS query FROM medallion.materialized_views WHERE view::text ~ 'M 2';
TABLE "view_ddl 2"."M 2" ORDER BY k;
ALTER MATERIALIZED VIEW "view_ddl 2"."M 2" RESET (medallion.refresh_interval, medallion.refresh_mode, medallion.key_columns, fillfactor);
SELECT refresh_interval, refresh_mode, key_columns FROM medallion.materialized_views WHERE view::text ~ 'M 2';
ALTER MATERIALIZED VIEW "view_ddl 2"."M 2" SET SCHEMA view_ddl;
ALTER MATERIALIZED VIEW "M 2" RENAME TO m;
ALTER MATERIALIZED VIEW m SET (medallion.refresh_interval = none);

-- A new query
SELECT medallion.alter_materialized_view('m', 'SELECT upper(kind), count(*) FROM s GROUP BY 1');
SELECT * FROM m ORDER BY 1;
SELECT * FROM medallion.verify('m');
SELECT medallion.alter_materialized_view('m', 'SELECT upper(kind), count(*), avg(id) AS a FROM s GROUP BY 1');
SELECT k, how_many, round(a, 2) FROM m ORDER BY 1;
SELECT ingest('s', 0, $$SELECT 12, 'k9', 'x'$$);
SELECT strategy, rows_updated FROM medallion.refresh('m');
SELECT * FROM medallion.verify('m');
SELECT medallion.alter_materialized_view('m', 'SELECT kind FROM s');
SELECT medallion.alter_materialized_view('m', 'SELECT kind, 1, 2 FROM s');
SELECT medallion.alter_materialized_view('m', 'SELECT k, how_many, a FROM m');
SELECT medallion.create_materialized_view('above_m', 'SELECT * FROM m', NULL);
SELECT medallion.alter_materialized_view('m', 'SELECT k, how_many, a FROM above_m');
SELECT medallion.alter_materialized_view('m', 'SELECT kind, max(random()), 1.5 FROM s GROUP BY 1', refresh_mode => 'incremental');
SELECT medallion.alter_materialized_view('m', key_columns => '{k}', refresh_interval => '2 hours');
SELECT refresh_interval, refresh_mode, key_columns FROM medallion.materialized_views WHERE view = 'm'::regclass;
SELECT medallion.alter_materialized_view('m', key_columns => NULL, refresh_interval => NULL);
SELECT refresh_interval, refresh_mode, key_columns FROM medallion.materialized_views WHERE view = 'm'::regclass;
SELECT medallion.alter_materialized_view('m', refresh_interval => '0');

-- Pause and resume
SELECT medallion.pause('m');
SELECT paused, paused_reason IS NOT NULL AS reason FROM medallion.materialized_views WHERE view = 'm'::regclass;
SELECT medallion.resume('m');
SELECT paused, paused_reason FROM medallion.materialized_views WHERE view = 'm'::regclass;
-- a definition that came by restore
UPDATE medallion.view SET origin = 'elsewhere' WHERE relid = 'm'::regclass;
DELETE FROM pg_depend WHERE refobjid = 'm'::regclass AND deptype = 'i'
   AND objid = (SELECT definition FROM medallion.view WHERE relid = 'm'::regclass);
SELECT paused, paused_reason FROM medallion.materialized_views WHERE view = 'm'::regclass;
SELECT medallion.resume_all();
SELECT paused, paused_reason FROM medallion.materialized_views WHERE view = 'm'::regclass;

-- DROP
DROP TABLE s;
DROP MATERIALIZED VIEW m;
SELECT medallion.drop_materialized_view('m');
DROP MATERIALIZED VIEW IF EXISTS nope, above_m, plain;
SELECT medallion.drop_materialized_view('m', cascade => true);
SELECT count(*) FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace AND relname ~ 'view_ddl.m';
ALTER TABLE s DROP COLUMN kind;
ALTER TABLE s ALTER COLUMN kind TYPE varchar;

-- Privileges
CREATE ROLE regress_view_owner;
CREATE ROLE regress_view_other;
GRANT ALL ON SCHEMA view_ddl TO regress_view_owner;
GRANT USAGE ON SCHEMA view_ddl TO regress_view_other;
SET ROLE regress_view_owner;
SELECT medallion.create_materialized_view('mine', 'SELECT id, kind FROM s', NULL);
RESET ROLE;
GRANT SELECT (id, kind, kafka_partition, kafka_offset) ON s TO regress_view_owner;
SET ROLE regress_view_owner;
SELECT medallion.create_materialized_view('mine', 'SELECT secret FROM s', NULL);
SELECT medallion.create_materialized_view('mine', 'SELECT kind, avg(id) AS a FROM s GROUP BY 1', NULL);
RESET ROLE;
SELECT ingest('s', 0, $$SELECT 13, 'k9', 'x'$$);
SET ROLE regress_view_owner;
SELECT strategy, reason FROM medallion.refresh('mine');
SELECT * FROM medallion.verify('mine');
-- with SELECT on all of it, it is refreshed by its changes
RESET ROLE;
GRANT SELECT ON s TO regress_view_owner;
SELECT ingest('s', 0, $$SELECT 13, 'k9', 'x'$$);
SET ROLE regress_view_owner;
SELECT strategy, reason FROM medallion.refresh('mine');
RESET ROLE;
SELECT ingest('s', 0, $$SELECT 13, 'k9', 'x'$$);
SET ROLE regress_view_owner;
SELECT strategy, reason FROM medallion.refresh('mine');
SELECT view, owner FROM medallion.materialized_views;
SELECT DISTINCT view FROM medallion.refresh_history;
SELECT * FROM medallion.view;
INSERT INTO medallion_def."view_ddl.mine state" DEFAULT VALUES;
SELECT * FROM medallion_def."view_ddl.mine";
DROP VIEW medallion_def."view_ddl.mine";
SET ROLE regress_view_other;
SELECT medallion.create_materialized_view('yours', 'SELECT 1', NULL);
SELECT view FROM medallion.materialized_views;
SELECT medallion.refresh('mine');
SELECT * FROM medallion.verify('mine');
SELECT * FROM medallion.explain_refresh('mine');
SELECT medallion.alter_materialized_view('mine', 'SELECT 1');
SELECT medallion.drop_materialized_view('mine');
SELECT medallion.pause('mine');
REFRESH MATERIALIZED VIEW mine;
DROP MATERIALIZED VIEW mine;
ALTER MATERIALIZED VIEW mine SET (medallion.refresh_interval = none);
RESET ROLE;
-- a privilege that is taken away stops the refresh
SELECT ingest('s', 0, $$SELECT 13, 'k9', 'x'$$);
REVOKE ALL ON s FROM regress_view_owner;
REVOKE SELECT (id, kind, kafka_partition, kafka_offset) ON s FROM regress_view_owner;
\set SHOW_CONTEXT never
SELECT medallion.refresh('mine');
\set SHOW_CONTEXT errors
GRANT SELECT ON s TO regress_view_owner;
SELECT strategy FROM medallion.refresh('mine');
-- a new owner owns all of it
ALTER MATERIALIZED VIEW mine OWNER TO regress_view_other;
SELECT relowner::regrole FROM pg_class WHERE relname = 'view_ddl.mine state';
GRANT SELECT ON s TO regress_view_other;
SELECT ingest('s', 0, $$SELECT 13, 'k9', 'x'$$);
SET ROLE regress_view_other;
SELECT strategy FROM medallion.refresh('mine');
SELECT * FROM medallion.verify('mine');
RESET ROLE;
-- what the query calls runs as the owner, and cannot leave that role
CREATE FUNCTION who() RETURNS text VOLATILE LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION escape() RETURNS text VOLATILE LANGUAGE plpgsql AS $$BEGIN RESET ROLE; RETURN current_user; END$$;
GRANT CREATE ON SCHEMA view_ddl TO regress_view_other;
SET ROLE regress_view_other;
SELECT medallion.create_materialized_view('w', 'SELECT who() AS who, current_user AS u', NULL);
SELECT medallion.create_materialized_view('e', 'SELECT escape()', NULL);
RESET ROLE;
SELECT strategy FROM medallion.refresh('w');
TABLE w;
-- a view of another role is not looked into
CREATE VIEW hidden AS SELECT id FROM s WHERE secret IS NOT NULL;
GRANT SELECT ON hidden TO regress_view_other;
REVOKE ALL ON s FROM regress_view_other;
SET ROLE regress_view_other;
SELECT medallion.create_materialized_view('through', 'SELECT count(*) FROM hidden', NULL);
SELECT strategy, detail FROM medallion.explain_refresh('through') WHERE step = 'Query';
TABLE through;
RESET ROLE;
-- row-level security
ALTER TABLE s ENABLE ROW LEVEL SECURITY;
SET ROLE regress_view_owner;
SELECT medallion.create_materialized_view('rls', 'SELECT id FROM s', NULL);
RESET ROLE;

-- NULL is an error where no row, or nothing, would look like success
SELECT * FROM medallion.verify(NULL);
SELECT * FROM medallion.explain_refresh(NULL);
SELECT medallion.refresh_group(NULL);
SELECT medallion.retry_refresh_errors(NULL);
SELECT medallion.drop_materialized_view(NULL);
SELECT medallion.refresh_group(0);

-- an interval whose end no calendar has would break the state views of all
SELECT medallion.create_materialized_view('long', 'SELECT id FROM s', '178000000 years');
SELECT medallion.create_materialized_view('long', 'SELECT id FROM s', '101 years');
SELECT medallion.create_materialized_view('long', 'SELECT id FROM s', '100 years');
ALTER MATERIALIZED VIEW long SET (medallion.refresh_interval = '36001 days');
SELECT refresh_interval, state, next_refresh > now() AS later FROM medallion.materialized_views WHERE view = 'long'::regclass;

DROP SCHEMA view_ddl, "view_ddl 2" CASCADE;
DROP ROLE regress_view_owner, regress_view_other;
SELECT count(*) FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace;
