-- A new query for a view: what changes, and what stays.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_redefine
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id int, kind text, note text');
CREATE FUNCTION grow(n int) RETURNS bigint LANGUAGE sql AS
    $$ SELECT ingest('view_redefine.events', 0, format('SELECT g, ''k'' || g %% 3, repeat(''x'', g * 500) FROM generate_series(1, %s) g', n)) $$;
SELECT grow(9);
-- the view equals its query; what pg_class, pg_index and pg_depend say of it is sound
CREATE FUNCTION sound(view regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
    t oid := (SELECT reltoastrelid FROM pg_class WHERE oid = view);
BEGIN
    SELECT count(*) INTO n FROM medallion.verify(view);
    IF n > 0 THEN RETURN n || ' differences'; END IF;
    IF EXISTS (SELECT FROM pg_index WHERE indrelid = view AND NOT (indisvalid AND indisready)) THEN RETURN 'an invalid index'; END IF;
    IF EXISTS (SELECT FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace AND relkind <> 'i' AND relname LIKE '% next%') THEN RETURN 'something of the next result is left'; END IF;
    IF t <> 0 AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = t AND refobjid = view AND deptype = 'i') THEN RETURN 'a toast table that belongs to another'; END IF;
    IF EXISTS (SELECT FROM medallion.view v WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = v.relid)) THEN RETURN 'a view without a result'; END IF;
    RETURN 'sound';
END $$;
-- how many of its rows does each index find?
CREATE FUNCTION found(query text) RETURNS bigint LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    line text;
    n bigint;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        IF line ~ 'Index' THEN
            EXECUTE 'SELECT count(*) FROM (' || query || ') q' INTO n;
            RETURN n;
        END IF;
    END LOOP;
    RAISE 'no index serves %', query;
END $$;

CREATE ROLE view_redefine_reader;
SELECT medallion.create_materialized_view('v', 'SELECT id, kind, note FROM events', NULL);
CREATE INDEX v_kind ON v (kind);
CREATE INDEX v_part ON v (id) WHERE id > 5;
CREATE INDEX v_upper ON v (upper(kind));
GRANT SELECT ON v TO view_redefine_reader;
GRANT SELECT (id) ON v TO view_redefine_reader;
COMMENT ON TABLE v IS 'a comment';
COMMENT ON COLUMN v.kind IS 'of the column';
COMMENT ON INDEX v_kind IS 'of the index';
ALTER TABLE v SET (fillfactor = 70);
CREATE VIEW plain AS SELECT id, kind FROM v;
SELECT medallion.create_materialized_view('above', 'SELECT kind, count(*) AS n FROM v GROUP BY kind', NULL);
CREATE FUNCTION about_v(OUT grants text, OUT comments text, OUT indexes text, OUT options text) LANGUAGE sql AS $$
    SELECT (SELECT string_agg(DISTINCT grantee || ' ' || column_name, ', ' ORDER BY grantee || ' ' || column_name) FROM information_schema.column_privileges WHERE table_name = 'v' AND grantee = 'view_redefine_reader'),
           concat_ws(', ', obj_description('v'::regclass), col_description('v'::regclass, 2), obj_description('v_kind'::regclass)),
           (SELECT string_agg(indexname, ', ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'v'),
           (SELECT reloptions::text FROM pg_class WHERE oid = 'v'::regclass) $$;
SELECT * FROM about_v();

-- The same columns: only rows that differ are written, and a reader takes them in.
SELECT ctid, id FROM v WHERE id = 9;
SELECT medallion.alter_materialized_view('v', 'SELECT id, kind, note FROM events WHERE id <> 3');
SELECT ctid, id FROM v WHERE id = 9;
SELECT sound('v'), count(*) FROM v;
SELECT strategy, reason, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh_history WHERE view = 'v'::regclass ORDER BY run_id DESC LIMIT 1;
SELECT medallion.refresh('above') IS NULL AS refreshed;
SELECT sound('above'), sum(n) FROM above;
SELECT grow(2);
SELECT strategy, rows_inserted FROM medallion.refresh('v');

-- Columns more: the files are exchanged; everything else stays.
SELECT 'v'::regclass::oid AS v_oid \gset
SELECT medallion.alter_materialized_view('v', 'SELECT id, kind, note, id * 2 AS twice FROM events');
SELECT 'v'::regclass::oid = :v_oid AS same_table, sound('v'), count(*), sum(twice), sum(length(note)) FROM v;
SELECT * FROM about_v();
SELECT found($$SELECT FROM v WHERE kind = 'k1'$$) AS by_kind, found('SELECT FROM v WHERE id > 5') AS by_part, found($$SELECT FROM v WHERE upper(kind) = 'K2'$$) AS by_upper;
SELECT count(*) FROM plain;
SELECT grow(2);
SELECT strategy, rows_inserted FROM medallion.refresh('v');
SELECT strategy, reason IS NOT NULL AS recomputed FROM medallion.refresh('above');
SELECT sound('v'), sound('above'), sum(n) FROM above;
SELECT strategy FROM medallion.refresh('v');

-- Columns less, and of other types; what is used is not touched.
SELECT medallion.alter_materialized_view('v', 'SELECT id::bigint AS id, kind, note, id * 2 AS twice FROM events');
SELECT medallion.alter_materialized_view('v', 'SELECT id, note FROM events');
SELECT medallion.alter_materialized_view('v', 'SELECT id, kind, twice, note FROM (SELECT *, id * 2 AS twice FROM events) e');
SELECT sound('v'), count(*) FROM v;
DROP VIEW plain;
DROP INDEX v_part, v_upper;
SELECT medallion.alter_materialized_view('v', 'SELECT id::bigint AS id, kind, length(note) AS length FROM events');
SELECT attnum, attname, format_type(atttypid, atttypmod), attisdropped FROM pg_attribute WHERE attrelid = 'v'::regclass AND attnum > 0 ORDER BY attnum;
SELECT sound('v'), count(*), sum(id), sum(length) FROM v;
-- once more, over a table with dropped columns
SELECT medallion.alter_materialized_view('v', 'SELECT id::text AS id, kind, length(note) AS length, note FROM events WHERE id > 1');
SELECT sound('v'), count(*), max(id), sum(length) = sum(length(note)) AS equal FROM v;
SELECT * FROM about_v();
SELECT grow(2);
SELECT strategy, rows_inserted FROM medallion.refresh('v');
SELECT strategy IS NOT NULL AS refreshed FROM medallion.refresh('above');
SELECT sound('v'), sound('above'), found($$SELECT FROM v WHERE kind = 'k1'$$) AS by_kind FROM above LIMIT 1;
VACUUM FULL v;
ANALYZE v;
SELECT sound('v'), count(*) FROM v;

-- From rows to groups, to groups with a state table, to other groups, and back.
SELECT medallion.create_materialized_view('g', 'SELECT kind FROM events', NULL);
SELECT medallion.alter_materialized_view('g', 'SELECT kind, count(*) AS n FROM events GROUP BY kind');
SELECT sound('g'), count(*), sum(n), (SELECT string_agg(indexdef, ', ') FROM pg_indexes WHERE tablename = 'g') AS index FROM g;
SELECT medallion.alter_materialized_view('g', 'SELECT kind, count(*) AS n, avg(id) AS a FROM events GROUP BY kind');
SELECT sound('g'), count(*), state_tables FROM g, medallion.materialized_views WHERE view = 'g'::regclass GROUP BY state_tables;
SELECT medallion.alter_materialized_view('g', 'SELECT upper(kind) AS kind, count(*) AS n, avg(id) AS a FROM events WHERE id > 2 GROUP BY 1');
SELECT grow(2);
SELECT strategy, reason FROM medallion.refresh('g');
SELECT sound('g'), count(*), sum(n), state_tables FROM g, medallion.materialized_views WHERE view = 'g'::regclass GROUP BY state_tables;
SELECT medallion.alter_materialized_view('g', 'SELECT kind FROM events', key_columns => NULL);
SELECT sound('g'), count(*), state_tables, (SELECT string_agg(indexdef, ', ') FROM pg_indexes WHERE tablename = 'g') AS index FROM g, medallion.materialized_views WHERE view = 'g'::regclass GROUP BY state_tables;
-- keys with the query
SELECT medallion.alter_materialized_view('g', 'SELECT DISTINCT kind, upper(kind) AS u FROM events', key_columns => '{u}', refresh_mode => 'full', refresh_interval => '1 day');
SELECT refresh_mode, refresh_interval, key_columns, sound(view) FROM medallion.materialized_views WHERE view = 'g'::regclass;
SELECT medallion.alter_materialized_view('g', 'SELECT DISTINCT kind, lower(kind) AS l FROM events');
-- columns of the same types keep their names
SELECT medallion.alter_materialized_view('g', 'SELECT DISTINCT kind, lower(kind) AS l FROM events', key_columns => '{l}');
SELECT refresh_mode, refresh_interval, key_columns, sound(view) FROM medallion.materialized_views WHERE view = 'g'::regclass;

-- A view without rows yet.
SELECT medallion.create_materialized_view('e', 'SELECT id, kind FROM events', NULL, with_data => false, key_columns => '{id}');
SELECT medallion.alter_materialized_view('e', 'SELECT DISTINCT id::text AS id, note FROM events');
SELECT populated, key_columns FROM medallion.materialized_views WHERE view = 'e'::regclass;
SELECT strategy FROM medallion.refresh('e');
SELECT sound('e'), count(*) FROM e;

-- Subscribers get the differences: the files of a published view stay.
SET client_min_messages = error;
CREATE PUBLICATION view_redefine FOR TABLE e;
ALTER TABLE e REPLICA IDENTITY FULL;
RESET client_min_messages;
SELECT pg_relation_filenode('e') AS file \gset
SELECT medallion.alter_materialized_view('e', 'SELECT DISTINCT id::text AS id, note, 1 AS one FROM events');
SELECT sound('e'), count(*), sum(one), pg_relation_filenode('e') = :file AS same_file FROM e;
DROP PUBLICATION view_redefine;

-- An error, and a rollback, leave everything as it was.
-- (majors write the query in the context differently)
\set SHOW_CONTEXT never
SELECT medallion.alter_materialized_view('v', 'SELECT id::text AS id, kind, 1 / (id - 2) AS length FROM events', options => '{"on_error": "fail"}');
\set SHOW_CONTEXT errors
BEGIN;
SELECT medallion.alter_materialized_view('v', 'SELECT id::text AS id, kind, length(note) AS length, note, 7 AS seven FROM events');
SELECT count(*), sum(seven) FROM v;
ROLLBACK;
SELECT sound('v'), count(*), (SELECT count(*) FROM medallion.view) AS views FROM v;
-- twice in one transaction
BEGIN;
SELECT medallion.alter_materialized_view('v', 'SELECT id::text AS id, kind, length(note) AS length, note, 7 AS seven FROM events');
SELECT medallion.alter_materialized_view('v', 'SELECT id::text AS id, kind, length(note) AS length, note, 8::bigint AS seven, 9 AS nine FROM events');
COMMIT;
SELECT sound('v'), count(*), sum(seven), sum(nine) FROM v;
SET client_min_messages = warning;
DROP SCHEMA view_redefine CASCADE;
DROP ROLE view_redefine_reader;
