-- GROUPING SETS, ROLLUP and CUBE that merge: a change costs the change, whatever the sets, and the view equals
-- its query: NULL keys beside rolled-up ones, sets that are there twice, the row of the empty set.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_sets
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'a int, b text, c bool, x int, n numeric, f float8');
CREATE TABLE items (a int, b text, c bool, x int, n numeric, f float8);
CREATE TABLE names (a int PRIMARY KEY, name text);
INSERT INTO names SELECT g, 'name ' || g % 3 FROM generate_series(1, 4) g;

CREATE TABLE queries (name text PRIMARY KEY, query text);
INSERT INTO queries VALUES
    ('rollup', $$SELECT a, b, count(*) AS n, sum(x) AS s FROM @ GROUP BY ROLLUP (a, b)$$),
    ('cube', $$SELECT a, b, c, count(x) AS n, min(x) AS low, max(n) AS high, GROUPING(a, b, c) AS g FROM @ GROUP BY CUBE (a, b, c)$$),
    ('keys_alone', $$SELECT b, a FROM @ GROUP BY ROLLUP (a, b)$$),
    ('sets', $$SELECT a, b, sum(n) AS s, avg(x) AS m FROM @ GROUP BY GROUPING SETS ((a), (b))$$),
    ('one_set', $$SELECT a, b, max(x) AS high FROM @ GROUP BY GROUPING SETS ((a, b))$$),
    ('twice', $$SELECT a, b, count(*) AS n, stddev(x) AS d FROM @ GROUP BY GROUPING SETS ((a), ROLLUP (a, b), ())$$),
    ('product', $$SELECT a, c, count(*) AS n FROM @ GROUP BY ROLLUP (a), CUBE (c, a)$$),
    ('product_once', $$SELECT a, c, count(*) AS n FROM @ GROUP BY DISTINCT ROLLUP (a), CUBE (c, a)$$),
    ('composite', $$SELECT a, b, c, sum(x) AS s FROM @ GROUP BY ROLLUP ((a, b), c)$$),
    ('plain_and_rollup', $$SELECT c, a, b, count(*) AS n FROM @ GROUP BY c, ROLLUP (a, b)$$),
    ('grouping', $$SELECT GROUPING(b) AS gb, GROUPING(b, a) AS gba, CASE WHEN GROUPING(a) = 1 THEN 'all' ELSE a::text END AS a, b, sum(x) + 1 AS s FROM @ GROUP BY CUBE (a, b)$$),
    ('having', $$SELECT a, b, count(*) AS n FROM @ GROUP BY CUBE (a, b) HAVING count(*) > 5 AND GROUPING(a) = 0 OR sum(x) < 100$$),
    ('having_empty_set', $$SELECT a, count(*) AS n FROM @ GROUP BY ROLLUP (a) HAVING count(*) = 0 OR count(*) BETWEEN 3 AND 12$$),
    ('distinct', $$SELECT a, c, count(DISTINCT b) AS d, count(*) AS n, sum(DISTINCT x) FILTER (WHERE c) AS s FROM @ GROUP BY CUBE (a, c)$$),
    ('aggregate_of_key', $$SELECT a, b, sum(a) AS s, max(b) AS high, count(a) AS n FROM @ GROUP BY ROLLUP (a, b)$$),
    ('expressions', $$SELECT x % 3 AS m, upper(b) || '!' AS u, count(*) AS n, bool_and(c) AS e FROM @ GROUP BY ROLLUP (x % 3, upper(b) || '!')$$),
    ('key_hidden', $$SELECT b, count(*) AS n FROM @ GROUP BY ROLLUP (a, b)$$),
    ('numeric_key', $$SELECT n, b, count(*) AS c FROM @ GROUP BY CUBE (n, b)$$),
    ('floats', $$SELECT a, sum(f) AS s, var_pop(f) AS v FROM @ GROUP BY ROLLUP (a)$$),
    ('joined', $$SELECT name, b, count(*) AS n, sum(x) AS s FROM @ JOIN names USING (a) GROUP BY ROLLUP (name, b)$$),
    ('dependent', $$SELECT o.name, b, sum(x) AS s FROM @ e JOIN names o ON o.a = e.a GROUP BY GROUPING SETS ((o.a), (o.a, b))$$),
    ('empty_set', $$SELECT count(*) AS n, avg(x) AS m FROM @ GROUP BY ()$$);
CREATE TABLE views AS
    SELECT 'v_' || name AS view, replace(query, '@', 'events') AS query FROM queries UNION ALL
    SELECT 'w_' || name, replace(query, '@', 'items') FROM queries;
SELECT count(medallion.create_materialized_view(view, query, NULL, 'incremental')) FROM views;
SELECT view, e.strategy, e.step, e.detail FROM views, medallion.explain_refresh(query) e WHERE e.step ~ 'Aggregate' ORDER BY view COLLATE "C";
SELECT view, differences(view::regclass, query) FROM views WHERE differences(view::regclass, query) <> 0;
TABLE v_rollup;
TABLE w_twice;
TABLE w_having_empty_set;

-- Random changes; keys of few values, NULL among them, 1.0 beside 1.00, all rows gone at times.
CREATE FUNCTION random_rows(n int) RETURNS TABLE (a int, b text, c bool, x int, n numeric, f float8) LANGUAGE sql VOLATILE AS $$
    SELECT nullif(floor(random() * 5)::int, 0), (ARRAY['p', 'q', NULL])[1 + floor(random() * 3)],
           (ARRAY[true, false, NULL])[1 + floor(random() * 3)], nullif(floor(random() * 12)::int, 5),
           (ARRAY[1.0, 1.00, 2.5, NULL, 'NaN'])[1 + floor(random() * 5)], (ARRAY[0.5, 1e20, NULL])[1 + floor(random() * 3)]
      FROM generate_series(1, n) $$;
CREATE FUNCTION run_rounds(rounds int) RETURNS TABLE (round int, view text, differs bigint, strategy text) LANGUAGE plpgsql AS $$
DECLARE
    v record;
    r record;
BEGIN
    FOR round IN 1..rounds LOOP
        PERFORM ingest('events', (random() * 2)::int, format('SELECT * FROM random_rows(%s)', floor(random() * 9)));
        INSERT INTO items SELECT * FROM random_rows((random() * 6)::int);
        DELETE FROM items WHERE random() < CASE WHEN round % 10 = 0 THEN 1 ELSE 0.2 END;
        UPDATE items SET a = nullif(floor(random() * 5)::int, 0), x = x + 1 WHERE random() < 0.2;
        UPDATE names SET name = 'name ' || floor(random() * 3) WHERE random() < 0.1;
        FOR v IN SELECT * FROM views ORDER BY views.view COLLATE "C" LOOP
            CONTINUE WHEN random() < 0.3 AND round < rounds;
            SELECT * INTO r FROM medallion.refresh(v.view::regclass);
            differs := differences(v.view::regclass, v.query);
            IF differs <> 0 AND v.view !~ 'floats' OR r.strategy NOT IN ('merge', 'none') THEN
                view := v.view; strategy := r.strategy;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT setseed(0.3);
SELECT * FROM run_rounds(40);
SELECT view, v.* FROM views, medallion.verify(view::regclass) v;
-- Nothing new: nothing is written. A full refresh finds nothing to change.
SELECT view, r.strategy FROM views, medallion.refresh(view::regclass) r WHERE r.strategy <> 'none';
SELECT view, r.rows_inserted, r.rows_updated, r.rows_deleted FROM views, medallion.refresh(view::regclass, full_refresh => true) r
 WHERE view !~ 'floats' AND r.rows_inserted + r.rows_updated + r.rows_deleted > 0;

-- A row that a refresh changes is updated in place, if the keys tell it or not; others are not written.
TRUNCATE items;
INSERT INTO items VALUES (1, 'p', true, 1), (1, NULL, true, 2), (2, 'q', true, 3);
SELECT count(medallion.refresh('w_rollup')), count(medallion.refresh('w_twice'));
SELECT * FROM w_rollup ORDER BY a, b, n, s;
INSERT INTO items VALUES (1, NULL, true, 10);
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('w_rollup');
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('w_twice');
DELETE FROM items WHERE a = 2;
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('w_rollup');
SELECT * FROM w_rollup ORDER BY a, b, n, s;
-- all rows go: that of the empty set stays
DELETE FROM items;
SELECT strategy, rows_read, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('w_rollup');
TABLE w_rollup;
SELECT count(medallion.refresh('w_twice'));
TABLE w_twice;

-- What takes part in other things: views above, unique columns, keys that no index entry can hold, only_where, a new query.
INSERT INTO items SELECT g % 3, 'b' || g % 2, g % 5 = 0, g FROM generate_series(1, 20) g;
SELECT medallion.create_materialized_view('w_above', 'SELECT n, count(*) AS groups FROM w_rollup GROUP BY n', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_keyed', 'SELECT a, c, GROUPING(a, c) AS g, sum(x) AS s FROM items GROUP BY CUBE (a, c)', NULL, 'incremental', ARRAY['a', 'c', 'g']);
SELECT medallion.create_materialized_view('w_long', 'SELECT a, b, sum(x) AS s, count(DISTINCT x) AS d FROM items GROUP BY CUBE (a, b)', NULL, 'incremental');
INSERT INTO views VALUES
    ('w_above', 'SELECT n, count(*) AS groups FROM w_rollup GROUP BY n'),
    ('w_keyed', 'SELECT a, c, GROUPING(a, c) AS g, sum(x) AS s FROM items GROUP BY CUBE (a, c)'),
    ('w_long', 'SELECT a, b, sum(x) AS s, count(DISTINCT x) AS d FROM items GROUP BY CUBE (a, b)');
INSERT INTO items SELECT 1, string_agg(sha512((g || '-' || h)::bytea)::text, ''), true, 1 FROM generate_series(1, 100) g, generate_series(1, 2) h GROUP BY h;
SELECT * FROM run_rounds(5);
SELECT view, v.difference FROM views, medallion.verify(view::regclass) v;
SELECT * FROM medallion.explain_refresh('w_keyed') WHERE step ~ 'Lookup|Aggregate' AND detail !~ 'keeps' ORDER BY step;
SELECT step, strategy, regexp_replace(detail, ' .[0-9]+ .*', '') AS detail, create_index FROM medallion.explain_refresh('SELECT a, b, max(x) AS m FROM items GROUP BY CUBE (a, b)');
SELECT view, r.strategy, r.reason FROM views, medallion.refresh(view::regclass, only_where => 'a = 1') r
 WHERE view IN ('w_rollup', 'w_twice', 'w_distinct', 'v_distinct') ORDER BY 1;
SELECT * FROM run_rounds(3);
SELECT medallion.alter_materialized_view('w_rollup', query => 'SELECT a, b, count(*) AS n, sum(x) AS s FROM items GROUP BY CUBE (a, b)');
UPDATE views SET query = 'SELECT a, b, count(*) AS n, sum(x) AS s FROM items GROUP BY CUBE (a, b)' WHERE view = 'w_rollup';
SELECT medallion.alter_materialized_view('w_cube', query => 'SELECT a, b, c, array_agg(x ORDER BY x) AS n, min(x) AS low, max(n) AS high, GROUPING(a, b, c) AS g FROM items GROUP BY CUBE (a, b, c)');
DELETE FROM views WHERE view = 'w_cube';
SELECT * FROM run_rounds(3);
SELECT view, v.difference FROM views, medallion.verify(view::regclass) v;
SELECT strategy FROM medallion.refresh('w_cube');
SELECT * FROM medallion.verify('w_cube');

-- Row values with a NULL in them are distinct values, too.
CREATE TYPE pair AS (a int, b text);
SELECT medallion.create_materialized_view('w_pairs', 'SELECT a, count(DISTINCT (a, b)::pair) AS d FROM items GROUP BY ROLLUP (a)', NULL, 'incremental');
INSERT INTO items VALUES (7, NULL), (7, 'p'), (NULL, NULL);
SELECT strategy FROM medallion.refresh('w_pairs');
SELECT differences('w_pairs', 'SELECT a, count(DISTINCT (a, b)::pair) AS d FROM items GROUP BY ROLLUP (a)');

-- What does not merge.
SELECT q.query, e.strategy FROM (VALUES
    ('SELECT a, array_agg(x ORDER BY x) AS xs FROM items GROUP BY ROLLUP (a)'),
    ('SELECT a, count(*) AS n FROM items GROUP BY ROLLUP (a) HAVING count(*) > (SELECT count(*) FROM names)'),
    ('SELECT count(*) AS n FROM items GROUP BY GROUPING SETS ((), ())'),
    ('SELECT k, count(*) AS n FROM (SELECT b::varbit AS k FROM items) i GROUP BY ROLLUP (k)'),
    ('SELECT DISTINCT a, count(*) AS n FROM items GROUP BY ROLLUP (a)'),
    ('SELECT a, rank() OVER (PARTITION BY a ORDER BY count(*)) AS r FROM items GROUP BY ROLLUP (a, b)')) q(query),
    medallion.explain_refresh(q.query) e WHERE e.step = 'Query';

DROP SCHEMA view_sets CASCADE;
SELECT count(*) FROM medallion.view WHERE relid::text LIKE 'view_sets%';
