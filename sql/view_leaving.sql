-- Merges and first rows over tables whose rows change and go.
SET client_min_messages = warning;
CREATE SCHEMA view_leaving;
SET search_path = view_leaving, public;
\pset null '(null)'
CREATE TABLE facts (id int, kind text, i4 int, must int NOT NULL, n numeric, f8 float8, iv interval, b boolean, at timestamptz);
CREATE TABLE kinds (kind text, name text, factor int);
CREATE TABLE queries (name text PRIMARY KEY, query text, strategy text);
INSERT INTO queries VALUES
    ('plain', $$SELECT kind, count(*) AS n, sum(must) AS s, min(i4) AS low, max(n) AS high FROM facts GROUP BY kind$$, 'merge'),
    ('state', $$SELECT kind, b, sum(i4) AS s, avg(n) AS a, sum(n) FILTER (WHERE b) AS f, min(at) AS first, max(iv) AS long, stddev(i4) AS dev FROM facts GROUP BY kind, b$$, 'merge'),
    ('sums', $$SELECT kind, b, count(*) AS rows, sum(i4) AS i, sum(n) AS n, sum(iv) AS iv, sum(i4 - 5) FILTER (WHERE must > 4) AS f, sum(f8 / 1e20) AS f8 FROM facts WHERE f8 IS DISTINCT FROM 0.5 AND f8 IS DISTINCT FROM 1 AND f8 IS DISTINCT FROM 2 GROUP BY kind, b$$, 'merge'),
    ('bools', $$SELECT kind, bool_and(b) AS every, bool_or(b) AS some, every(b) FILTER (WHERE i4 > 5) AS e FROM facts GROUP BY kind$$, 'merge'),
    ('having', $$SELECT kind, i4 % 3 AS m, count(*) AS n, avg(i4) AS a FROM facts GROUP BY 1, 2 HAVING count(*) > 3$$, 'merge'),
    ('no_keys', $$SELECT count(*) AS n, sum(i4) AS s, min(n) AS low, max(kind) AS high, avg(n) AS a, sum(iv) AS iv FROM facts$$, 'merge'),
    ('distinct_values', $$SELECT kind, count(DISTINCT i4) AS d, count(DISTINCT n) FILTER (WHERE b) AS dn, sum(DISTINCT i4) AS s, count(*) AS n FROM facts GROUP BY kind$$, 'merge'),
    ('distinct_all', $$SELECT count(DISTINCT kind) AS kinds, sum(i4) / nullif(count(DISTINCT i4), 0) AS r FROM facts$$, 'merge'),
    ('distinct_rows', $$SELECT DISTINCT kind, b FROM facts$$, 'merge'),
    ('key_hidden', $$SELECT count(*) AS n, max(i4) AS m FROM facts GROUP BY kind$$, 'merge'),
    ('intervals', $$SELECT kind, sum(iv) AS s, avg(iv) AS a FROM facts GROUP BY kind$$, 'merge'),
    ('joined', $$SELECT k.name, f.b, count(*) AS n, sum(f.i4 * k.factor) AS s, max(f.n) AS high, count(DISTINCT f.id) AS ids FROM facts f JOIN kinds k USING (kind) GROUP BY 1, 2$$, 'merge'),
    ('left_joined', $$SELECT k.name, count(*) AS n, sum(f.must) AS s, count(k.factor) AS known FROM facts f LEFT JOIN kinds k USING (kind) GROUP BY 1$$, 'merge'),
    ('latest', $$SELECT DISTINCT ON (id) id, kind, n, at, i4, must FROM facts ORDER BY id, at DESC, n, kind, i4, must$$, 'latest'),
    ('latest_hidden', $$SELECT DISTINCT ON (kind) kind, id, n FROM facts ORDER BY kind, at DESC NULLS LAST, i4, id, n$$, 'latest'),
    ('latest_joined', $$SELECT DISTINCT ON (f.id) f.id, k.name, k.factor, f.must FROM facts f JOIN kinds k USING (kind) ORDER BY f.id, k.factor DESC NULLS LAST, f.at, k.name, f.must$$, 'latest');
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'incremental')) FROM queries;

CREATE FUNCTION differences(view regclass, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$s)) d',
                   view, '(' || query || ')') INTO n;
    RETURN n;
END $$;
CREATE FUNCTION random_facts(n int) RETURNS SETOF facts LANGUAGE sql VOLATILE AS $$
    SELECT nullif(floor(random() * 15), 7)::int, (ARRAY['a', 'b', 'c', NULL, 'd'])[1 + floor(random() * 5)],
           nullif(floor(random() * 10), 4)::int, floor(random() * 10)::int,
           (ARRAY[1.0, 1.00, 2.5, NULL, -3.125, 'NaN', 'Infinity'])[1 + floor(random() * (CASE WHEN random() < 0.1 THEN 7 ELSE 5 END))],
           (ARRAY[1e20, 1, -1e20, 0.5, NULL])[1 + floor(random() * 5)], floor(random() * 10) * interval '1 hour',
           (ARRAY[true, false, NULL])[1 + floor(random() * 3)],
           '2026-03-01 00:00+00'::timestamptz + floor(random() * 20) * interval '1 hour'
      FROM generate_series(1, n)
$$;
-- One random step: rows come, change, move between groups, go, or all of it.
CREATE FUNCTION change_something() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r float := random();
BEGIN
    IF r < 0.5 THEN INSERT INTO facts SELECT * FROM random_facts(floor(random() * 8)::int); END IF;
    IF random() < 0.3 THEN UPDATE facts SET i4 = nullif(i4 + 1, 6), n = n * 2 WHERE random() < 0.1; END IF;
    IF random() < 0.3 THEN UPDATE facts SET kind = 'b', at = at + interval '1 minute' WHERE random() < 0.05; END IF;
    IF random() < 0.3 THEN UPDATE facts SET f8 = 2 WHERE random() < 0.1; END IF;
    IF random() < 0.4 THEN DELETE FROM facts WHERE random() < 0.15; END IF;
    IF random() < 0.03 THEN DELETE FROM facts; END IF;
    IF random() < 0.1 THEN INSERT INTO kinds SELECT kind, upper(kind), floor(random() * 3)::int FROM random_facts(1); END IF;
    IF random() < 0.1 THEN UPDATE kinds SET factor = factor + 1 WHERE random() < 0.3; END IF;
    IF random() < 0.1 THEN DELETE FROM kinds WHERE random() < 0.3; END IF;
END $$;
CREATE FUNCTION run_steps(steps int) RETURNS TABLE (step int, name text, differs bigint, strategy text) LANGUAGE plpgsql AS $$
DECLARE
    q record;
    r record;
BEGIN
    FOR step IN 1..steps LOOP
        PERFORM change_something();
        FOR q IN SELECT * FROM queries LOOP
            CONTINUE WHEN random() < 0.4 AND step < steps;
            SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
            differs := differences(('v_' || q.name)::regclass, q.query);
            IF differs <> 0 OR r.strategy NOT IN (q.strategy, 'none') THEN
                name := q.name;
                strategy := r.strategy || coalesce(': ' || r.reason, '');
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT setseed(0.3);
SELECT * FROM run_steps(40);
SELECT q.name, v.* FROM queries q, medallion.verify(('v_' || q.name)::regclass) v;

-- A full refresh finds nothing to change, and the state that it makes is as good.
SELECT q.name, r.rows_inserted, r.rows_updated, r.rows_deleted
  FROM queries q, medallion.refresh(('v_' || q.name)::regclass, full_refresh => true) r
 WHERE r.rows_inserted + r.rows_updated + r.rows_deleted > 0;
SELECT * FROM run_steps(5);

-- Changes that cancel write nothing.
INSERT INTO facts VALUES (99, 'z', 1, 1, 1, 1, '1 hour', true, '2026-01-01');
SELECT count(*) FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r;
BEGIN;
UPDATE facts SET i4 = i4 + 1, n = n + 1;
UPDATE facts SET i4 = i4 - 1, n = n - 1;
COMMIT;
SELECT q.name, r.strategy, r.rows_inserted, r.rows_updated, r.rows_deleted
  FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r
 WHERE r.rows_inserted + r.rows_updated + r.rows_deleted > 0;

-- Groups go away with their last row, in the state too.
DELETE FROM facts;
SELECT q.name, r.strategy FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r WHERE r.strategy NOT IN ('merge', 'latest');
TABLE v_no_keys;
SELECT (SELECT count(*) FROM v_plain), (SELECT count(*) FROM v_state), (SELECT count(*) FROM v_latest), (SELECT count(*) FROM v_latest_hidden),
       (SELECT count(*) FROM medallion_def."view_leaving.v_state state"), (SELECT count(*) FROM medallion_def."view_leaving.v_distinct_values values"),
       (SELECT count(*) FROM medallion_def."view_leaving.v_latest_hidden order");

-- A key that is too long for the entry of an index.
SELECT medallion.create_materialized_view('v_long', 'SELECT kind, count(*) AS n, count(DISTINCT i4) AS d FROM facts GROUP BY kind', NULL, 'incremental'),
       medallion.create_materialized_view('v_long_state', 'SELECT kind, b, avg(i4) AS a, count(DISTINCT kind) AS d FROM facts GROUP BY kind, b HAVING count(*) < 9', NULL, 'incremental'),
       medallion.create_materialized_view('v_long_latest', 'SELECT DISTINCT ON (kind) kind, i4 FROM facts ORDER BY kind, at, i4', NULL, 'incremental'),
       medallion.create_materialized_view('v_long_regroup', 'SELECT kind, array_agg(i4 ORDER BY i4) AS a FROM facts GROUP BY kind', NULL, 'incremental'),
       medallion.create_materialized_view('v_long_distinct', 'SELECT DISTINCT kind, b, count(*) OVER (PARTITION BY i4 % 2) AS n FROM facts', NULL, 'incremental');
INSERT INTO queries SELECT substr(view::text, 3), rtrim(query, ';'), strategy FROM medallion.materialized_views WHERE view::text LIKE 'v_long%';
CREATE FUNCTION long_key(n int) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(md5(n || '-' || g), '') FROM generate_series(1, 200) g $$;
INSERT INTO facts SELECT g, CASE WHEN g % 3 > 0 THEN 'k' || g % 3 END, g, g, g, g, NULL, true, '2026-01-01' FROM generate_series(1, 20) g;
SELECT q.name, r.strategy, differences(('v_' || q.name)::regclass, q.query) FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r WHERE q.name LIKE 'long%' ORDER BY 1;
INSERT INTO facts SELECT g, long_key(g % 4), g, g, g, g, NULL, g % 2 = 0, '2026-01-01' FROM generate_series(1, 20) g;
SELECT q.name, r.strategy, differences(('v_' || q.name)::regclass, q.query) FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r WHERE q.name LIKE 'long%' ORDER BY 1;
INSERT INTO facts SELECT g, CASE WHEN g % 5 > 0 THEN long_key(g % 5) END, g + 5, g, g, g, NULL, g % 2 = 0, '2025-01-01' FROM generate_series(1, 30) g;
DELETE FROM facts WHERE kind = long_key(3);
UPDATE facts SET i4 = 100, kind = 'short' WHERE kind = long_key(2);
SELECT q.name, r.strategy, differences(('v_' || q.name)::regclass, q.query) FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r WHERE q.name LIKE 'long%' ORDER BY 1;
SELECT tablename, indexdef ~ 'hash_record_extended' AS by_hash FROM pg_indexes WHERE tablename LIKE '%v_long%' ORDER BY 1;
SELECT q.name, r.strategy, differences(('v_' || q.name)::regclass, q.query) FROM queries q, medallion.refresh(('v_' || q.name)::regclass, full_refresh => true) r WHERE q.name LIKE 'long%' ORDER BY 1;
INSERT INTO facts SELECT g, long_key(g), g + 5, g, g, g, NULL, g % 2 = 0, '2025-01-01' FROM generate_series(1, 10) g;
SELECT q.name, r.strategy, differences(('v_' || q.name)::regclass, q.query) FROM queries q, medallion.refresh(('v_' || q.name)::regclass) r WHERE q.name LIKE 'long%' ORDER BY 1;
SELECT medallion.drop_materialized_view('v_long');
SELECT medallion.create_materialized_view('v_long', 'SELECT kind, count(*) AS n FROM facts GROUP BY kind', NULL, 'incremental');
INSERT INTO facts SELECT g, long_key(g), g + 5, g, g, g, NULL, g % 2 = 0, '2025-01-01' FROM generate_series(1, 20) g;
SELECT r.strategy, differences('v_long', 'SELECT kind, count(*) AS n FROM facts GROUP BY kind') FROM medallion.refresh('v_long') r;

-- One group of values alone, which is there without any row.
CREATE TABLE nothing (k int, f int);
SELECT medallion.create_materialized_view('distinct_only', 'SELECT count(DISTINCT k) AS c FROM nothing', NULL, 'incremental');
SELECT medallion.create_materialized_view('distinct_having', 'SELECT count(DISTINCT k) AS c, sum(DISTINCT f) AS s FROM nothing HAVING count(DISTINCT k) > 1', NULL, 'incremental');
CREATE FUNCTION refresh_distinct(OUT only_c bigint, OUT having_c bigint, OUT s bigint, OUT differences bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM medallion.refresh('distinct_only'), medallion.refresh('distinct_having');
	SELECT d.c INTO only_c FROM distinct_only d;
	SELECT d.c, d.s INTO having_c, s FROM distinct_having d;
	SELECT count(*) INTO differences FROM (SELECT FROM medallion.verify('distinct_only') UNION ALL SELECT FROM medallion.verify('distinct_having')) v;
END $$;
SELECT * FROM refresh_distinct();
INSERT INTO nothing VALUES (1, 1);
SELECT * FROM refresh_distinct();
INSERT INTO nothing VALUES (1, 2), (3, 3), (NULL, NULL);
SELECT * FROM refresh_distinct();
DELETE FROM nothing WHERE k = 1;
SELECT * FROM refresh_distinct();
DELETE FROM nothing;
SELECT * FROM refresh_distinct();

-- A sum whose last value left is NULL, one that comes to 0 is not; neither needs state.
CREATE TABLE pairs (k int, x int, y numeric);
INSERT INTO pairs VALUES (1, 5, 0), (1, -5, 0), (1, NULL, NULL), (2, 0, 1.5), (2, NULL, NULL), (3, NULL, NULL);
SELECT medallion.create_materialized_view('sums', 'SELECT k, count(*), sum(x) AS x, sum(y) AS y FROM pairs GROUP BY k', NULL, 'incremental');
SELECT state_bytes FROM medallion.materialized_views WHERE view = 'sums'::regclass;
TABLE sums ORDER BY k;
DELETE FROM pairs WHERE x IN (5, 0);
SELECT strategy FROM medallion.refresh('sums');
TABLE sums ORDER BY k;
INSERT INTO pairs VALUES (3, 7, 7), (4, 1, 1), (4, NULL, NULL);
DELETE FROM pairs WHERE x = -5;
DELETE FROM pairs WHERE k = 4 AND x = 1;
SELECT strategy FROM medallion.refresh('sums');
TABLE sums ORDER BY k;
SELECT * FROM medallion.verify('sums');

DROP SCHEMA view_leaving CASCADE;
