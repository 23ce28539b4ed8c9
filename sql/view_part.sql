-- refresh(view, only_where => ...): a part of the result is overwritten, and of its
-- state; the rest stays, even where it is wrong, and the next refresh goes on from there.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_part
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id int, kind text, amount int');
SELECT ingest('events', 0, $$SELECT g, nullif('k' || g % 4, 'k3'), g * 10 FROM generate_series(1, 20) g$$);
CREATE FUNCTION make(name text, query text) RETURNS regclass LANGUAGE sql AS
    $$ SELECT medallion.create_materialized_view(name, query, NULL) $$;
SELECT make('copied', 'SELECT id, kind, amount FROM events'),
       make('counted', 'SELECT kind, count(*) AS n, sum(amount) AS s FROM events GROUP BY kind'),
       make('averaged', 'SELECT kind, avg(amount) AS a, count(DISTINCT id % 5) AS d FROM events GROUP BY kind HAVING count(*) > 1'),
       make('valued', 'SELECT count(DISTINCT amount) AS d, kind, sum(amount) AS s FROM events GROUP BY kind'),
       make('latest', 'SELECT DISTINCT ON (kind) kind, amount FROM events ORDER BY kind, id DESC'),
       make('ranked', 'SELECT id, kind, rank() OVER (PARTITION BY kind ORDER BY amount) AS r FROM events'),
       make('hidden', 'SELECT avg(amount) AS a FROM events GROUP BY kind'),
       make('total', 'SELECT avg(amount) AS a, max(id) AS m FROM events');
-- history is changed under them: amounts of two kinds
SET medallion.allow_direct_writes = on;
DO $$
DECLARE
    before bigint := (SELECT history_changes FROM medallion.stream);
BEGIN
    UPDATE events SET amount = amount + 1 WHERE kind IN ('k1', 'k2') OR kind IS NULL;
    -- as if it had not been noticed, so that the next refresh is incremental
    UPDATE medallion.stream SET history_changes = before;
END $$;
RESET medallion.allow_direct_writes;
CREATE FUNCTION wrong(OUT view text, OUT kinds text) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT name, (SELECT string_agg(DISTINCT coalesce(v.row_data ->> 'kind', 'NULL'), ' ') FROM medallion.verify(name::regclass) v)
      FROM unnest(ARRAY['copied', 'counted', 'averaged', 'valued', 'latest', 'ranked']) name $$;
SELECT * FROM wrong();
SELECT v, r.strategy, r.reason, r.rows_inserted, r.rows_updated, r.rows_deleted FROM unnest(ARRAY['copied', 'counted', 'averaged', 'valued', 'latest', 'ranked']) v, LATERAL medallion.refresh(v::regclass, only_where => 'kind = ''k1''') r;
-- k1 is right now, and nothing else was touched
SELECT * FROM wrong();
SELECT v, (medallion.refresh(v::regclass, only_where => 'kind IS NULL')).rows_updated >= 0 AS refreshed FROM unnest(ARRAY['copied', 'counted', 'averaged', 'valued', 'latest', 'ranked']) v;
SELECT * FROM wrong();
-- a condition on what is computed: rows for which it holds before or after
SELECT strategy, rows_updated FROM medallion.refresh('averaged', only_where => 'a > 100 AND kind = ''k2''');
SELECT * FROM wrong() WHERE view = 'averaged';
-- the next refresh merges into the new state
SELECT ingest('events', 0, $$SELECT g, 'k' || g % 4, g FROM generate_series(1, 9) g$$);
SELECT v, (medallion.refresh(v::regclass)).strategy FROM unnest(ARRAY['counted', 'averaged', 'valued', 'latest', 'ranked']) v;
SELECT * FROM wrong();
-- at the frontier: what is newer stays for the next refresh
SELECT ingest('events', 0, $$SELECT 100, 'k1', 1000$$);
SELECT v, (medallion.refresh(v::regclass, only_where => 'kind = ''k1''')).rows_updated FROM unnest(ARRAY['counted', 'averaged', 'valued', 'latest']) v;
SELECT * FROM wrong() WHERE view IN ('counted', 'averaged', 'valued', 'latest');
SELECT v, (medallion.refresh(v::regclass)).strategy FROM unnest(ARRAY['counted', 'averaged', 'valued', 'latest']) v;
SELECT * FROM wrong() WHERE view IN ('counted', 'averaged', 'valued', 'latest');
SELECT n, s FROM counted WHERE kind = 'k1';
-- all of it
SELECT strategy FROM medallion.refresh('averaged', only_where => 'true');
SELECT * FROM wrong() WHERE view = 'averaged';
-- where the group keys are not shown, rows and state cannot be matched
SELECT medallion.refresh('hidden', only_where => 'a > 0');
SELECT medallion.refresh('total', only_where => 'true');
SELECT count(*) FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace AND relname ~ ' part';
SET client_min_messages = warning;
DROP SCHEMA view_part CASCADE;
