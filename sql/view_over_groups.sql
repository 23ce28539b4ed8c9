-- Windows over all groups, and first ones of these: groups are kept, and what is above them is computed
-- of all that are kept.  It always equals the query.
\getenv abs_srcdir PG_ABS_SRCDIR
SET client_min_messages = warning;
CREATE SCHEMA view_over_groups;
SET search_path = view_over_groups, public;
CREATE TABLE t (id int, k int, x int, s varchar(8) COLLATE "C", n numeric, f float8);
CREATE TABLE o (k int, name text);
CREATE TABLE queries (n serial, name text PRIMARY KEY, query text);
INSERT INTO queries (name, query) VALUES
    ('v_rank', 'SELECT k, sum(x) AS total, rank() OVER (ORDER BY sum(x) DESC NULLS LAST) AS r FROM t GROUP BY k'),
    ('v_share', 'SELECT k, count(*) AS c, round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS share FROM t GROUP BY k'),
    ('v_running', 'SELECT k, sum(sum(x)) OVER (ORDER BY k) AS running, lag(count(*)) OVER (ORDER BY k NULLS FIRST) AS before FROM t GROUP BY k'),
    ('v_ties', 'SELECT s, count(*) AS c, row_number() OVER (ORDER BY count(*) DESC) AS place, ntile(2) OVER (ORDER BY count(*)) AS half FROM t GROUP BY s'),
    ('v_moving', 'SELECT k, avg(max(x)) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS m, first_value(min(x)) OVER (ORDER BY k) AS f FROM t GROUP BY k'),
    ('v_both', 'SELECT s, k, count(*) AS c, rank() OVER (PARTITION BY s ORDER BY count(*)) AS r, sum(count(*)) OVER () AS w FROM t GROUP BY s, k'),
    ('v_hidden', 'SELECT count(*) AS c, dense_rank() OVER (ORDER BY count(*)) AS r FROM t GROUP BY k, s'),
    ('v_having', 'SELECT k, avg(n) AS a, percent_rank() OVER (ORDER BY avg(n)) AS p FROM t GROUP BY k HAVING count(*) > 2'),
    ('v_filtered', 'SELECT k, total, r + 1 AS r FROM (SELECT k, sum(x) AS total, rank() OVER (ORDER BY sum(x), k) AS r FROM t GROUP BY k) q WHERE r % 2 = 1'),
    ('v_first', 'SELECT k, c FROM (SELECT k, c, row_number() OVER (ORDER BY c DESC) AS r FROM (SELECT k, count(*) AS c FROM t WHERE x > 3 GROUP BY k) g) q WHERE r <= 2'),
    ('v_limit', 'SELECT k, count(DISTINCT s) AS d, rank() OVER (ORDER BY count(DISTINCT s)) AS r FROM t GROUP BY k ORDER BY r, k LIMIT 3'),
    ('v_limit_of', 'SELECT k, c FROM (SELECT k, count(*) AS c FROM t GROUP BY k) g WHERE c > 1 ORDER BY c DESC, k LIMIT 2 OFFSET 1'),
    ('v_limit_below', 'SELECT k, c, sum(c) OVER () AS w FROM (SELECT k, count(*) AS c FROM t GROUP BY k ORDER BY c DESC, k LIMIT 3) g'),
    ('v_offset', 'SELECT k, min(x) AS m FROM t GROUP BY k ORDER BY m DESC NULLS LAST, k OFFSET 2'),
    ('v_limit_subquery', 'SELECT k, max(x) AS m FROM t GROUP BY k ORDER BY m DESC NULLS LAST, k LIMIT (SELECT 2)'),
    ('v_distinct', 'SELECT DISTINCT count(*) AS c, dense_rank() OVER (ORDER BY count(*)) AS r FROM t GROUP BY k'),
    ('v_distinct_on', 'SELECT DISTINCT ON (c) c, k, r FROM (SELECT k, count(*) AS c, rank() OVER (ORDER BY max(x)) AS r FROM t GROUP BY k) q ORDER BY c, k'),
    ('v_of_distinct', 'SELECT s, k, row_number() OVER (ORDER BY s, k) AS n FROM (SELECT DISTINCT s, k FROM t) d'),
    ('v_one', 'SELECT count(*) AS c, sum(x) AS total, sum(sum(x)) OVER () AS same FROM t'),
    ('v_joined', 'SELECT o.name, sum(t.x) AS total, rank() OVER (ORDER BY sum(t.x) DESC NULLS LAST) AS r FROM t LEFT JOIN o USING (k) GROUP BY o.name'),
    ('v_joins', 'SELECT p.name, count(DISTINCT a.s) AS d, count(*) AS c FROM o q LEFT JOIN (o p FULL JOIN t a ON a.k = p.k) ON p.k = q.k JOIN o r ON r.k >= q.k GROUP BY p.name ORDER BY d DESC, name LIMIT 2'),
    ('v_unnested', 'SELECT k, u, rank() OVER (ORDER BY c, u) AS r FROM (SELECT k, count(*) AS c FROM t GROUP BY k) g, LATERAL unnest(ARRAY[c, k]) u'),
    -- what is not told by kept groups, or not by their order
    ('v_float', 'SELECT k, sum(f) AS total, rank() OVER (ORDER BY sum(f)) AS r FROM t GROUP BY k'),
    ('v_listed', 'SELECT k, array_agg(x ORDER BY x) AS l, rank() OVER (ORDER BY count(*), k) AS r FROM t GROUP BY k'),
    ('v_rows', 'SELECT id, rank() OVER (ORDER BY x, id) AS r FROM t'),
    ('v_several', 'SELECT g.k, o.name, rank() OVER (ORDER BY g.c, g.k, o.name) AS r FROM (SELECT k, count(*) AS c FROM t GROUP BY k) g JOIN o USING (k)');
-- some number rows that tie, for which the query has several answers: verify() knows the one that is taken
CREATE FUNCTION query_of(q queries) RETURNS text LANGUAGE sql AS
    $$SELECT CASE WHEN q.name IN ('v_ties', 'v_first') THEN 'TABLE ' || q.name ELSE q.query END$$;
\set ECHO none
\i :abs_srcdir/sql/include/look.sql
\set ECHO all
INSERT INTO o VALUES (1, 'a'), (2, 'b'), (3, 'a'), (NULL, 'n');
CREATE FUNCTION more(rows int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO t SELECT random() * 50, nullif((random() * 6)::int, 0), nullif((random() * 20)::int, 7), (ARRAY['p', 'q', 'R', NULL, 'longer'])[1 + (random() * 4)::int],
                         (ARRAY[1.0, 1.00, 2.5, NULL, -1])[1 + (random() * 4)::int], random()
      FROM generate_series(1, rows) $$;
SELECT setseed(0.17);
SELECT more(40);
SELECT count(medallion.create_materialized_view(name, query, NULL)) FROM queries;
SELECT name, strategy, detail FROM queries, LATERAL (SELECT * FROM medallion.explain_refresh(query) WHERE step = 'Query') e ORDER BY n;
SELECT step, strategy, changes, detail FROM medallion.explain_refresh((SELECT query FROM queries WHERE name = 'v_filtered'));
-- functions that show an order of rows which no one has told
SELECT q, e.strategy, e.detail FROM unnest(ARRAY[
    'SELECT k, row_number() OVER () FROM t GROUP BY k',
    'SELECT k, array_agg(k) OVER () FROM t GROUP BY k',
    'SELECT k, string_agg(s, '','') OVER (ORDER BY count(*)) FROM t GROUP BY k, s',
    'SELECT k, last_value(k) OVER (ORDER BY count(*)) FROM t GROUP BY k',
    'SELECT k, count(*), rank() OVER (ORDER BY random()) FROM t GROUP BY k',
    'SELECT k, count(*), rank() OVER (ORDER BY count(*)), now() FROM t GROUP BY k',
    'SELECT k, count(*), rank() OVER (ORDER BY count(*)) FROM t WHERE x > extract(hour FROM now()) GROUP BY k',
    'SELECT * FROM (SELECT k, count(*) AS c, rank() OVER (ORDER BY count(*)) FROM t GROUP BY k) q WHERE c > extract(hour FROM now())',
    'SELECT k, count(*), rank() OVER (ORDER BY count(*)) FROM t GROUP BY k LIMIT 3',
    'SELECT k, count(*), rank() OVER (ORDER BY count(*)) FROM t GROUP BY ROLLUP (k)'
  ]) WITH ORDINALITY u(q, n), medallion.explain_refresh(q) e WHERE e.step = 'Query' ORDER BY n;

-- Refreshes that are wrong, or find something again; and how each of the views came to be.
CREATE TABLE runs (name text, strategy text, reason text);
CREATE FUNCTION rounds(count int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    dice float;
    rounds text;
BEGIN
    FOR i IN 1..count LOOP
        dice := random();
        IF dice < 0.4 THEN
            PERFORM more((random() * 6)::int);
        ELSIF dice < 0.6 THEN
            DELETE FROM t WHERE random() < 0.1;
        ELSIF dice < 0.8 THEN
            UPDATE t SET x = x + 1, k = nullif((random() * 6)::int, 0) WHERE random() < 0.1;
        ELSIF dice < 0.85 THEN
            DELETE FROM t WHERE k = (SELECT min(k) FROM t);
        ELSIF dice < 0.9 THEN
            UPDATE o SET name = (ARRAY['a', 'b', 'c'])[1 + (random() * 2)::int] WHERE random() < 0.5;
        ELSIF dice < 0.95 THEN
            UPDATE t SET n = n + 0.00 WHERE random() < 0.3;
        ELSE
            TRUNCATE t;
            PERFORM more(25);
        END IF;
        FOR r IN SELECT * FROM look() LOOP
            INSERT INTO runs VALUES (r.name, r.strategy, r.reason);
            CONTINUE WHEN r.wrong = 0 AND r.again IS NULL;
            rounds := concat_ws(' ', i, r.name, r.strategy, r.wrong, r.again);
            RETURN NEXT rounds;
        END LOOP;
    END LOOP;
END $$;
SELECT * FROM rounds(25);
SELECT name, strategy, reason FROM runs WHERE reason !~ 'rewritten' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT name FROM queries EXCEPT SELECT name FROM runs WHERE strategy IN ('merge', 'top', 'join') ORDER BY 1;

-- Groups that come and go, with their state; no group at all.
DELETE FROM t;
SELECT name, strategy, wrong, again FROM look();
SELECT * FROM v_one;
INSERT INTO t VALUES (1, 1, 10, 'p', 1, 1), (2, 2, 30, 'q', 2, 2), (3, 3, 20, NULL, 3, 3);
SELECT name, strategy, wrong, again FROM look() WHERE strategy <> 'merge' OR wrong <> 0 OR again IS NOT NULL;
SELECT * FROM v_rank ORDER BY r;
-- a change of one group moves others
UPDATE t SET x = 40 WHERE id = 1;
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_rank');
SELECT * FROM v_rank ORDER BY r;

-- Part by part: the groups are made anew, and of the result what is selected.
UPDATE t SET x = 5 WHERE id = 1;
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_rank', only_where => 'k = 1');
SELECT * FROM v_rank ORDER BY k;
SELECT strategy FROM medallion.refresh('v_rank');
SELECT * FROM v_rank ORDER BY k;
SELECT * FROM medallion.verify('v_rank');

-- It is incremental: refused when it would have to be recomputed, read by others by its changes, and redefined.
SELECT medallion.create_materialized_view('strict', 'SELECT k, sum(x) AS total, rank() OVER (ORDER BY sum(x) DESC) AS r FROM t GROUP BY k', NULL, 'incremental', key_columns => '{k}');
SELECT medallion.create_materialized_view('reader', 'SELECT r, count(*) AS c FROM strict GROUP BY r', NULL, 'incremental');
UPDATE t SET x = 31 WHERE id = 1;
SELECT v, strategy, rows_inserted, rows_updated, rows_deleted FROM unnest(ARRAY['strict', 'reader']) v, medallion.refresh(v::regclass);
SELECT * FROM strict ORDER BY r;
SELECT medallion.alter_materialized_view('strict', 'SELECT k, sum(x) AS total, rank() OVER (ORDER BY sum(x)) AS r FROM t GROUP BY k');
SELECT * FROM strict ORDER BY r;
INSERT INTO t VALUES (4, 4, 25, 'p', 1, 1);
SELECT v, strategy, rows_inserted, rows_updated, rows_deleted FROM unnest(ARRAY['strict', 'reader']) v, medallion.refresh(v::regclass);
SELECT v, d.* FROM unnest(ARRAY['strict', 'reader']) v, medallion.verify(v::regclass) d;
DROP SCHEMA view_over_groups CASCADE;
