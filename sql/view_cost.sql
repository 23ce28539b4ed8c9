-- What a refresh tells of itself, and what it does not do: steps, WAL, statistics; and the
-- choice between a change and a recompute, by cost.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_cost
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all

CREATE TABLE facts (id int PRIMARY KEY, customer int, shop int, amount numeric, weight float8, note text);
INSERT INTO facts SELECT i, i % 4000, i % 1000, i % 97, i, 'n' || i % 11 FROM generate_series(1, 20000) i;
CREATE TABLE shops (shop int PRIMARY KEY, region text);
INSERT INTO shops SELECT i, 'r' || i % 20 FROM generate_series(0, 999) i;
-- (writes that are counted after ANALYZE are counted twice)
SELECT pg_stat_force_next_flush();
ANALYZE facts, shops;
CREATE TABLE queries (name text PRIMARY KEY, query text);
INSERT INTO queries VALUES
    ('sums', $$SELECT customer, count(*) AS n, avg(amount) AS a, min(amount) AS low, count(DISTINCT note) AS notes FROM facts GROUP BY customer$$),
    ('rows', $$SELECT id, amount * 2 AS double FROM facts WHERE note <> 'n3'$$),
    ('joined', $$SELECT f.id, f.amount, s.region FROM facts f JOIN shops s USING (shop)$$),
    ('latest', $$SELECT DISTINCT ON (customer) customer, id, amount FROM facts ORDER BY customer, amount DESC, id$$),
    ('texts', $$SELECT customer, string_agg(note, ',' ORDER BY id) AS notes FROM facts GROUP BY customer$$),
    ('ranks', $$SELECT id, rank() OVER (PARTITION BY customer ORDER BY amount, id) AS r FROM facts$$),
    ('nested', $$SELECT s.region, c.n FROM shops s JOIN (SELECT shop, count(*) AS n, sum(amount) AS total FROM facts GROUP BY shop) c USING (shop)$$);

CREATE FUNCTION last_runs() RETURNS TABLE (name text, strategy text, reason text, rows_read bigint, rows_out bigint) LANGUAGE sql AS $$
    SELECT q.name, h.strategy,
           regexp_replace(regexp_replace(h.reason, 'against \d+', 'against N'), '\d+(\.\d+)?x', 'N.Nx'),
           h.rows_read, h.rows_inserted + h.rows_updated + h.rows_deleted
      FROM queries q, LATERAL (SELECT * FROM medallion.refresh_history h WHERE h.view = ('v_' || q.name)::regclass
                                ORDER BY run_id DESC LIMIT 1) h ORDER BY 1 $$;
-- Refresh all, each under what was measured so far, or under nothing at all.
CREATE FUNCTION refresh_all(forget boolean DEFAULT true) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    IF forget THEN
        UPDATE medallion.view_state SET recompute_ms = NULL, change_ms = NULL, recomputes = 0;
    END IF;
    PERFORM medallion.refresh(('v_' || q.name)::regclass) FROM queries q ORDER BY q.name;
    RETURN QUERY SELECT q.name || ' differs' FROM queries q WHERE differences(('v_' || q.name)::regclass, q.query) <> 0;
END $$;
-- (autovacuum may have been faster than "analyze")
CREATE FUNCTION step_names(run jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(s ->> 'step' || CASE WHEN s ? 'rows' THEN ' ' || (s ->> 'rows') ELSE '' END, ', ' ORDER BY n)
      FROM jsonb_array_elements(run) WITH ORDINALITY u(s, n) WHERE s ->> 'step' <> 'analyze' $$;

-- A first fill leaves statistics of the result and of its state, in its own transaction.
BEGIN;
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL)) FROM queries;
SELECT c.relname, c.reltuples, count(s.attname) > 0 AS statistics
  FROM (SELECT v.relid::oid FROM medallion.view v WHERE v.relid = 'v_sums'::regclass
        UNION ALL SELECT t FROM medallion.view v, unnest(v.state_tables) t WHERE v.relid = 'v_sums'::regclass) r(oid)
       JOIN pg_class c USING (oid)
       LEFT JOIN pg_stats s ON s.schemaname = c.relnamespace::regnamespace::text AND s.tablename = c.relname
 GROUP BY 1, 2 ORDER BY 1;
COMMIT;
-- (what is smaller than 64 kB does without)
SELECT name AS without_statistics FROM queries q
 WHERE NOT EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = 'view_cost' AND s.tablename = 'v_' || q.name);

-- Nothing new: no row of history, no WAL, no transaction id.
CREATE FUNCTION wal_of_idle_refresh(view text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
    least bigint;
BEGIN
    -- the first look at a page may prune it, which is not ours
    FOR i IN 1..5 LOOP
        EXECUTE format('EXPLAIN (ANALYZE, WAL, FORMAT JSON) SELECT * FROM medallion.refresh(%L)', view) INTO plan;
        least := least((plan -> 0 -> 'Plan' ->> 'WAL Bytes')::bigint, least);
    END LOOP;
    RETURN least;
END $$;
SELECT make_stream('events', 'id int, kind text');
SELECT ingest('events', 0, 'SELECT i, ''k'' || i % 3 FROM generate_series(1, 100) i');
SELECT medallion.create_materialized_view('v_events', 'SELECT kind, count(*) AS n FROM events GROUP BY kind', NULL);
SELECT medallion.create_materialized_view('v_above', 'SELECT n, count(*) AS c FROM v_events GROUP BY n', NULL);
SELECT max(run_id) AS last_run FROM medallion.refresh_history \gset
BEGIN;
SELECT view, wal_of_idle_refresh(view) FROM unnest(ARRAY['v_sums', 'v_joined', 'v_nested', 'v_events', 'v_above']) view;
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT count(*) FROM medallion.refresh_history WHERE run_id > :last_run;
-- The measure does measure.
UPDATE facts SET amount = amount WHERE id = 1;
SELECT wal_of_idle_refresh('v_rows');
UPDATE facts SET amount = amount + 1 WHERE id = 1;
EXPLAIN (ANALYZE, WAL, FORMAT JSON) SELECT * FROM medallion.refresh('v_rows') \g (format=unaligned tuples_only=on) |grep -c '"WAL Bytes": [1-9]'

-- A small change costs the change, and says what it did.
UPDATE facts SET amount = amount + 1, note = 'n' || id % 12 WHERE id BETWEEN 100 AND 149;
SELECT refresh_all();
SELECT * FROM last_runs();
SELECT q.name, step_names(h.steps),
       (SELECT sum((s ->> 'ms')::numeric) FROM jsonb_array_elements(h.steps) s) <= extract(epoch FROM h.duration) * 1000 + 1 AS adds_up
  FROM queries q, LATERAL (SELECT * FROM medallion.refresh_history h WHERE h.view = ('v_' || q.name)::regclass
                            ORDER BY run_id DESC LIMIT 1) h ORDER BY 1;
-- As small against its own table, and met by all facts of these shops.
UPDATE shops SET region = 'new' WHERE shop < 10;
SELECT refresh_all();
SELECT * FROM last_runs() WHERE name IN ('joined', 'nested');

-- A large one is recomputed, state included; what comes then is merged into that.
UPDATE facts SET amount = amount + 1, note = 'n' || id % 13 WHERE id % 10 <> 0;
ANALYZE facts;
SELECT refresh_all();
SELECT * FROM last_runs();
SELECT step_names(steps) FROM medallion.refresh_history WHERE view = 'v_sums'::regclass ORDER BY run_id DESC LIMIT 1;
-- Distinct values are as many rows of state as the source has, which the change need not rebuild; without them:
INSERT INTO queries VALUES ('means', $$SELECT customer, count(*) AS n, avg(amount) AS a, max(amount) AS high FROM facts GROUP BY customer$$);
SELECT medallion.create_materialized_view('v_means', query, NULL) FROM queries WHERE name = 'means';
UPDATE facts SET amount = amount + 1 WHERE id % 10 <> 0;
ANALYZE facts;
SELECT refresh_all();
SELECT strategy, reason, rows_out FROM last_runs() WHERE name = 'means';
SELECT step_names(steps) FROM medallion.refresh_history WHERE view = 'v_means'::regclass ORDER BY run_id DESC LIMIT 1;
UPDATE facts SET amount = amount - 3, note = 'n1' WHERE id < 50;
DELETE FROM facts WHERE id BETWEEN 60 AND 70;
SELECT refresh_all();
SELECT * FROM last_runs();

-- Between the two it is the query that decides: all groups are touched by a seventh of the rows.
ANALYZE facts;
UPDATE facts SET amount = amount + 1 WHERE id % 20 = 1 OR id < 2000;
SELECT refresh_all();
SELECT * FROM last_runs();

-- By what both took before; a change unlike it is not decided by that.
UPDATE facts SET amount = amount + 1 WHERE id % 20 = 1;
UPDATE medallion.view_state SET recompute_ms = 100, recompute_rows = 20000, change_ms = 200, change_rows = 2000, recomputes = 0
 WHERE relid = 'v_sums'::regclass;
UPDATE medallion.view_state SET recompute_ms = 100, recompute_rows = 20000, change_ms = 200, change_rows = 100, recomputes = 0
 WHERE relid = 'v_texts'::regclass;
SELECT refresh_all(forget => false);
SELECT name, strategy, regexp_replace(reason, '\d+ ms', 'N ms', 'g') FROM last_runs() WHERE name IN ('sums', 'texts');
UPDATE facts SET amount = amount + 1 WHERE id % 10 <> 0;
UPDATE medallion.view_state SET recompute_ms = 1000, recompute_rows = 20000, change_ms = 500, change_rows = 30000, recomputes = 0
 WHERE relid = 'v_sums'::regclass;
SELECT refresh_all(forget => false);
SELECT name, strategy, reason FROM last_runs() WHERE name = 'sums';
-- What was measured long ago is forgotten.
SELECT change_rows, recomputes FROM medallion.view_state WHERE relid = 'v_sums'::regclass;
UPDATE medallion.view_state SET recomputes = 18 WHERE relid = 'v_sums'::regclass;
SELECT strategy FROM medallion.refresh('v_sums', full_refresh => true);
SELECT change_rows, recomputes FROM medallion.view_state WHERE relid = 'v_sums'::regclass;
SELECT strategy FROM medallion.refresh('v_sums', full_refresh => true);
SELECT change_rows, recomputes FROM medallion.view_state WHERE relid = 'v_sums'::regclass;

-- refresh_mode incremental never recomputes because of cost; rows that only come are merged.
SELECT medallion.alter_materialized_view('v_sums', refresh_mode => 'incremental');
UPDATE facts SET amount = amount + 1 WHERE id % 10 <> 0;
SELECT refresh_all();
SELECT * FROM last_runs() WHERE name = 'sums';
SELECT ingest('events', 0, 'SELECT i, ''k'' || i % 3 FROM generate_series(1, 20000) i');
SELECT strategy, reason, rows_read FROM medallion.refresh('v_events');
INSERT INTO facts SELECT i, i % 4000, i % 1000, i % 97, i, 'n' || i % 11 FROM generate_series(20001, 60000) i;
SELECT refresh_all();
SELECT name, strategy, rows_read FROM last_runs() WHERE name IN ('means', 'joined', 'latest', 'rows');

-- Rows that change over and over are few: what counts is what comes out.
CREATE FUNCTION churn(times int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..times LOOP
        UPDATE facts SET amount = amount + 1 WHERE id <= 300;
    END LOOP;
END $$;
SELECT churn(60);
SELECT refresh_all();
SELECT name, strategy, reason, rows_read FROM last_runs() WHERE name IN ('means', 'joined', 'latest', 'texts', 'ranks');

-- Small tables do not matter.
CREATE TABLE few (id int, k int);
INSERT INTO few SELECT i, i % 7 FROM generate_series(1, 500) i;
SELECT medallion.create_materialized_view('v_few', 'SELECT k, count(*) AS n, sum(id) AS s FROM few GROUP BY k', NULL);
SELECT count(*) FROM pg_stats WHERE tablename = 'v_few';
UPDATE few SET id = id + 1;
SELECT strategy, reason, rows_read FROM medallion.refresh('v_few');

-- A view that was filled while it was empty, and has grown much since, is analyzed again.
SELECT medallion.create_materialized_view('v_grown', 'SELECT id, id::text AS t FROM few', NULL);
INSERT INTO few SELECT i, 1 FROM generate_series(1, 5000) i;
SELECT strategy FROM medallion.refresh('v_grown');
SELECT reltuples FROM pg_class WHERE relname = 'v_grown' AND relnamespace = 'view_cost'::regnamespace;
INSERT INTO few SELECT i, 1 FROM generate_series(1, 20000) i;
SELECT strategy FROM medallion.refresh('v_grown');
SELECT reltuples FROM pg_class WHERE relname = 'v_grown' AND relnamespace = 'view_cost'::regnamespace;
DROP SCHEMA view_cost CASCADE;
