-- Aggregates that merge: what is kept, and that it always equals the query.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_merge
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id bigint, kind text, at timestamptz, i2 smallint, i4 int, i8 bigint, n numeric, f8 float8, f4 float4, iv interval, b boolean');

CREATE TABLE queries (name text PRIMARY KEY, query text);
INSERT INTO queries VALUES
    ('by_hour', $$SELECT date_trunc('hour', at) AS hour, kind, count(*) AS n, sum(n) AS total, min(n) AS low, max(n) AS high FROM events GROUP BY 1, 2$$),
    ('state_for_avg', $$SELECT kind, avg(i2) AS a2, avg(i4) AS a4, avg(i8) AS a8, avg(n) AS an, avg(iv) AS aiv FROM events GROUP BY kind$$),
    ('key_hidden', $$SELECT count(*) AS n, max(i4) AS m FROM events GROUP BY kind$$),
    ('one_key_hidden', $$SELECT kind, count(*) AS n FROM events GROUP BY kind, b$$),
    ('expression_key', $$SELECT upper(kind) || '!' AS k, i4 % 3 AS m, count(*) FROM events GROUP BY upper(kind), i4 % 3$$),
    ('no_keys', $$SELECT count(*) AS n, sum(i4) AS s, min(kind) AS low, max(at) AS high FROM events$$),
    ('no_keys_state', $$SELECT count(*) AS n, avg(n) AS a, max(i4) - min(i4) AS spread FROM events$$),
    ('having_no_keys', $$SELECT count(*) AS n FROM events HAVING count(*) > 100$$),
    ('having_grows', $$SELECT kind, b, count(*) AS n FROM events GROUP BY kind, b HAVING count(*) > 20$$),
    ('having_shrinks', $$SELECT kind, b, sum(i4) AS n FROM events GROUP BY kind, b HAVING count(*) < 50$$),
    ('having_null', $$SELECT kind, max(i4) AS n FROM events GROUP BY kind HAVING sum(i4) FILTER (WHERE b) > 100$$),
    ('filters', $$SELECT kind, count(*) FILTER (WHERE b) AS yes, sum(n) FILTER (WHERE NOT b) AS no, min(at) FILTER (WHERE i4 > 50) AS first FROM events GROUP BY kind$$),
    ('expressions', $$SELECT kind, sum(i4) / nullif(count(i4), 0) AS ratio, coalesce(sum(n), 0) + 1 AS plus, count(*)::text || ' rows' AS label FROM events GROUP BY kind$$),
    ('same_twice', $$SELECT kind, kind AS again, count(*) AS n, count(*) AS m FROM events GROUP BY kind$$),
    ('distinct_rows', $$SELECT DISTINCT kind, b FROM events$$),
    ('group_only', $$SELECT kind FROM events GROUP BY kind, b$$),
    ('bools', $$SELECT kind, bool_and(b) AS every, bool_or(b) AS some FROM events GROUP BY kind$$),
    ('sums', $$SELECT kind, sum(i2) AS s2, sum(i4) AS s4, sum(i8) AS s8, sum(n) AS sn, sum(iv) AS siv FROM events GROUP BY kind$$),
    ('numeric_key', $$SELECT n, count(*) AS c FROM events GROUP BY n$$),
    ('subquery', $$SELECT k, count(*) AS n FROM (SELECT lower(kind) AS k, i4 FROM events WHERE i4 IS NOT NULL) s WHERE i4 > 10 GROUP BY k$$),
    ('with_query', $$WITH e AS MATERIALIZED (SELECT kind, i4 FROM events WHERE b) SELECT kind, avg(i4) AS a FROM e GROUP BY kind$$),
    ('union_all', $$SELECT k, sum(v) AS v FROM (SELECT kind AS k, i4 AS v FROM events UNION ALL SELECT 'other', i2 FROM events WHERE b) u GROUP BY k$$),
    ('lateral_rows', $$SELECT x, count(*) AS n FROM events, generate_series(1, i4 % 3) x GROUP BY x$$),
    ('whole_row', $$SELECT to_jsonb(e) ->> 'kind' AS k, count(e) AS n FROM events e GROUP BY 1$$),
    ('sorted', $$SELECT kind, count(*) AS n FROM events GROUP BY kind ORDER BY 2 DESC, 1$$),
    ('variances', $$SELECT kind, stddev(i4) AS s4, stddev_pop(i8) AS p8, var_samp(n) AS vn, var_pop(i2) AS v2, variance(i4) AS v4, stddev_samp(n) FILTER (WHERE b) AS sn FROM events GROUP BY kind$$),
    ('distinct_state', $$SELECT kind, count(*) AS n, count(DISTINCT i4) AS d4, count(DISTINCT n) FILTER (WHERE b) AS dn, count(DISTINCT upper(kind)) AS dk, avg(i4) AS a, sum(DISTINCT i2) AS s2, avg(DISTINCT i4) AS a4, max(DISTINCT at) AS m FROM events GROUP BY kind$$),
    ('distinct_plain', $$SELECT at::date AS day, kind, count(DISTINCT i4) AS users, count(*) AS n, sum(DISTINCT i4) AS s FROM events GROUP BY 1, 2$$),
    ('distinct_all', $$SELECT count(DISTINCT i4) AS users, count(DISTINCT kind) AS kinds, count(*) AS n FROM events$$),
    ('distinct_one', $$SELECT sum(DISTINCT i4) FILTER (WHERE b) AS s FROM events$$),
    ('distinct_one_count', $$SELECT count(DISTINCT kind) AS kinds, count(DISTINCT i4) AS users FROM events$$),
    ('distinct_ratio', $$SELECT at::date AS day, count(*) AS n, sum(n) AS total, count(DISTINCT i4) AS users, sum(i4) / count(DISTINCT i4) AS per_user FROM events GROUP BY 1 HAVING count(DISTINCT i4) > 0$$),
    ('distinct_alone', $$SELECT b, count(DISTINCT at) AS times FROM events GROUP BY b$$),
    ('filtered_sum', $$SELECT kind, sum(i4 ORDER BY id) FILTER (WHERE i2 > 50) AS s, regr_count(i4, i2) AS pairs FROM events GROUP BY kind$$),
    ('constant_key', $$SELECT 'all' AS k, count(*) AS n FROM events GROUP BY 1$$);
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'incremental')) FROM queries;
SELECT q.name, e.step, e.strategy, e.detail
  FROM queries q, medallion.explain_refresh(q.query) e WHERE e.step ~ 'Aggregate' ORDER BY q.name;

-- Nothing was read yet: the aggregates of no rows.
SELECT name, differences(('v_' || name)::regclass, query) FROM queries
 WHERE differences(('v_' || name)::regclass, query) <> 0;
TABLE v_no_keys;
TABLE v_having_no_keys;
TABLE v_distinct_one;
TABLE v_distinct_one_count;

-- 200 random batches, each refresh incremental, all views equal to their
-- queries after each.  NULL keys, late rows, 1.0 beside 1.00, duplicates.
SELECT setseed(0.42);
CREATE FUNCTION random_rows(n int) RETURNS TABLE (id bigint, kind text, at timestamptz, i2 smallint, i4 int, i8 bigint,
    n numeric, f8 float8, f4 float4, iv interval, b boolean) LANGUAGE sql VOLATILE AS $$
    SELECT (random() * 1000)::bigint,
           (ARRAY['a', 'b', 'c', NULL, 'A'])[1 + floor(random() * 5)],
           '2026-03-01 00:00+00'::timestamptz + floor(random() * 200) * interval '17 minutes',
           nullif(floor(random() * 100), 50)::smallint, nullif(floor(random() * 100), 7)::int,
           (random() * 1e15)::bigint,
           (ARRAY[1.0, 1.00, 2.5, NULL, -3.125, 1e20])[1 + floor(random() * 6)],
           random(), random()::real, floor(random() * 1000) * interval '1 minute',
           (ARRAY[true, false, NULL])[1 + floor(random() * 3)]
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
            -- not each view at each batch, so that several batches come at once
            CONTINUE WHEN random() < 0.5 AND batch < batches;
            SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
            differs := differences(('v_' || q.name)::regclass, q.query);
            IF differs <> 0 OR r.strategy NOT IN ('merge', 'none') THEN
                name := q.name;
                strategy := r.strategy || coalesce(': ' || r.reason, '');
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT * FROM run_batches(120);
SELECT q.name, v.* FROM queries q, medallion.verify(('v_' || q.name)::regclass) v;
SELECT count(*) > 500 AS many_rows FROM events;
-- every one of them has found groups again by their NULL key
SELECT count(*) FILTER (WHERE kind IS NULL) AS null_keys FROM v_by_hour GROUP BY hour HAVING count(*) FILTER (WHERE kind IS NULL) > 1;

-- A full refresh finds nothing to change.
SELECT q.name, r.strategy, r.rows_inserted, r.rows_updated, r.rows_deleted
  FROM queries q, medallion.refresh(('v_' || q.name)::regclass, full_refresh => true) r
 WHERE r.rows_inserted + r.rows_updated + r.rows_deleted > 0;

-- Floating point: equal within the stated tolerance.
SELECT medallion.create_materialized_view('v_floats', 'SELECT kind, sum(f8) AS s8, avg(f8) AS a8, sum(f4) AS s4, avg(f4) AS a4, stddev(f8) AS d8, var_pop(f4) AS v4, corr(f8, f4) AS c, regr_slope(f8, f4) AS slope, covar_pop(f8, i4) AS cov FROM events GROUP BY kind', NULL, 'incremental');
SELECT ingest('events', 0, 'SELECT * FROM random_rows(500)');
SELECT strategy FROM medallion.refresh('v_floats');
SELECT * FROM medallion.verify('v_floats');

-- Unchanged groups are not written again.
SELECT medallion.create_materialized_view('v_max', 'SELECT kind, max(i4) AS high FROM events GROUP BY kind', NULL);
SELECT ingest('events', 0, $$SELECT 1, 'a', now(), 1, -5, 1, 1, 1, 1, '1 s'::interval, true$$);
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_max');
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_max');

-- A state table is lost with its view, and only with it.
SELECT state_tables FROM medallion.materialized_views WHERE view = 'v_state_for_avg'::regclass;
DROP TABLE medallion_def."view_merge.v_state_for_avg state";
INSERT INTO medallion_def."view_merge.v_state_for_avg state" DEFAULT VALUES;
ALTER TABLE medallion_def."view_merge.v_state_for_avg state" ADD COLUMN x int;
DROP MATERIALIZED VIEW v_state_for_avg;
SELECT to_regclass('medallion_def."view_merge.v_state_for_avg state"');

DROP SCHEMA view_merge CASCADE;
SELECT count(*) FROM medallion.view WHERE relid::text LIKE 'view_merge%';
