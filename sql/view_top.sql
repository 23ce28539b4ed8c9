-- ORDER BY ... LIMIT keeps its first rows, and always equals the query.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_top
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id bigint, kind text, n numeric, at timestamptz, doc json');
CREATE TABLE t (id int, k int, x int, s text, n numeric, f float8, j json, p int4range);
CREATE TABLE o (id int, k int, y int);

CREATE FUNCTION rows_apart(view regclass, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    c text;
    found bigint;
BEGIN
    SELECT string_agg(quote_ident(attname) || CASE WHEN atttypid = 'json'::regtype THEN '::text' ELSE '' END, ', ' ORDER BY attnum)
      INTO c FROM pg_attribute WHERE attrelid = view AND attnum > 0;
    EXECUTE format('WITH q AS (SELECT %1$s FROM (%2$s) q), v AS (SELECT %1$s FROM %3$s)
                    SELECT (SELECT count(*) FROM (TABLE q EXCEPT ALL TABLE v) x)
                         + (SELECT count(*) FROM (TABLE v EXCEPT ALL TABLE q) x)', c, query, view) INTO found;
    RETURN found;
END $$;

-- has_ties: the query has several answers, of which the view is to have the one that verify() knows
CREATE TABLE queries (name text PRIMARY KEY, has_ties boolean, query text);
INSERT INTO queries VALUES
    -- rows that only come
    ('e_shown', false, $$SELECT id, kind, n, kafka_partition AS kp, kafka_offset AS ko FROM events ORDER BY n DESC, kp, ko LIMIT 7$$),
    ('e_hidden', false, $$SELECT id, kind FROM events ORDER BY at DESC NULLS LAST, kafka_partition, kafka_offset LIMIT 5$$),
    ('e_offset', false, $$SELECT id, kind, n FROM events ORDER BY n NULLS FIRST, id DESC, kind COLLATE "C" LIMIT 4 OFFSET 3$$),
    ('e_ties', true, $$SELECT kind, n FROM events ORDER BY kind LIMIT 6$$),
    ('e_with_ties', false, $$SELECT kind, n FROM events ORDER BY n DESC NULLS LAST FETCH FIRST 3 ROWS WITH TIES$$),
    ('e_json', false, $$SELECT id, doc FROM events ORDER BY kafka_offset DESC, kafka_partition LIMIT 3$$),
    ('e_groups', false, $$SELECT kind, count(*) AS c, sum(id) AS s FROM events GROUP BY kind ORDER BY s DESC NULLS LAST, kind LIMIT 2$$),
    ('e_joined', false, $$SELECT e.id, e.n, o.y FROM events e JOIN o ON o.k = e.id ORDER BY e.n DESC, e.id, o.y LIMIT 6$$),
    -- rows that come and go
    ('all', false, $$SELECT id, k, x, s FROM t ORDER BY x DESC NULLS LAST, id, k, s LIMIT 5$$),
    ('offset', false, $$SELECT id, k, x, s FROM t ORDER BY id, x NULLS FIRST, k DESC, s LIMIT 5 OFFSET 3$$),
    ('hidden', false, $$SELECT id, s FROM t ORDER BY k DESC NULLS LAST, x, id, s LIMIT 6$$),
    ('hidden_expression', false, $$SELECT id, s FROM t WHERE x > 2 ORDER BY abs(k - 3), id + x DESC, id, s LIMIT 3 OFFSET 1$$),
    ('duplicates', false, $$SELECT k FROM t ORDER BY k LIMIT 6$$),
    ('ties', true, $$SELECT k, s FROM t ORDER BY k DESC LIMIT 4$$),
    ('ties_hidden', true, $$SELECT s FROM t ORDER BY k LIMIT 4$$),
    ('with_ties', false, $$SELECT k, x FROM t ORDER BY k FETCH FIRST 3 ROWS WITH TIES$$),
    ('with_ties_hidden', false, $$SELECT x, s FROM t ORDER BY k DESC NULLS LAST FETCH FIRST 2 ROWS WITH TIES$$),
    ('with_ties_offset', true, $$SELECT k FROM t ORDER BY k OFFSET 1 FETCH FIRST 2 ROWS WITH TIES$$),
    ('collated', false, $$SELECT s, id FROM t ORDER BY s COLLATE "C" DESC, id, x LIMIT 5$$),
    ('using_operator', false, $$SELECT x, id FROM t ORDER BY x USING >, id LIMIT 4$$),
    ('numeric', false, $$SELECT n, id FROM t ORDER BY n DESC NULLS LAST, id LIMIT 4$$),
    ('float', false, $$SELECT f, id FROM t ORDER BY f, id LIMIT 4$$),
    ('range', false, $$SELECT p, id FROM t ORDER BY p DESC NULLS LAST, id LIMIT 4$$),
    ('json', true, $$SELECT id, j FROM t ORDER BY id LIMIT 4$$),
    ('none', false, $$SELECT id FROM t ORDER BY id LIMIT 0$$),
    ('none_skipped', false, $$SELECT id FROM t ORDER BY x OFFSET 3 LIMIT 0$$),
    ('no_limit', false, $$SELECT id, x FROM t ORDER BY x LIMIT ALL OFFSET 0$$),
    ('null_limit', false, $$SELECT id, x FROM t ORDER BY x LIMIT NULL$$),
    ('only_offset', false, $$SELECT id, k, x FROM t ORDER BY id, k, x OFFSET 4$$),
    ('computed', false, $$SELECT id, k, x FROM t ORDER BY id, k, x LIMIT 1 + 2 OFFSET '1'::int$$),
    ('subquery_limit', false, $$SELECT id, k, x FROM t ORDER BY id, k, x LIMIT (SELECT 2)$$),
    ('more_than_there_are', false, $$SELECT id, k, x FROM t ORDER BY id LIMIT 1000$$),
    ('too_many', false, $$SELECT id, k, x FROM t ORDER BY id LIMIT 10000000$$),
    ('timed', false, $$SELECT id, k, x FROM t WHERE k < extract(year FROM now()) - 2000 ORDER BY x, id, k LIMIT 4$$),
    -- above other blocks
    ('distinct', false, $$SELECT DISTINCT k, s FROM t ORDER BY k DESC NULLS LAST, s LIMIT 4$$),
    ('distinct_on', false, $$SELECT DISTINCT ON (k) k, x, id, s FROM t ORDER BY k, x DESC, id, s LIMIT 3$$),
    ('groups', false, $$SELECT k, count(*) AS c, sum(x) AS r FROM t GROUP BY k ORDER BY r DESC NULLS LAST, k LIMIT 3$$),
    ('groups_hidden', false, $$SELECT s FROM t GROUP BY s ORDER BY sum(x) DESC NULLS LAST, count(*), s LIMIT 2 OFFSET 1$$),
    ('groups_having', false, $$SELECT k, avg(n) AS a, count(DISTINCT s) AS d, min(x) AS m FROM t GROUP BY k HAVING count(*) > 2 ORDER BY a NULLS FIRST, k LIMIT 3$$),
    ('groups_with_ties', false, $$SELECT k, count(*) AS c FROM t GROUP BY k ORDER BY c DESC FETCH FIRST 2 ROWS WITH TIES$$),
    ('groups_float', false, $$SELECT k, sum(f) AS r FROM t GROUP BY k ORDER BY r DESC NULLS LAST, k LIMIT 2$$),
    ('groups_listed', false, $$SELECT k, array_agg(x ORDER BY x) AS l FROM t GROUP BY k ORDER BY count(*) DESC, k LIMIT 2$$),
    ('groups_sets', false, $$SELECT k, s, sum(x) AS r FROM t GROUP BY ROLLUP (k, s) ORDER BY r DESC NULLS LAST, k, s LIMIT 5$$),
    ('one', false, $$SELECT count(*) AS c, max(x) AS m FROM t ORDER BY 1 LIMIT 1$$),
    ('window', false, $$SELECT id, k, x, rank() OVER (PARTITION BY k ORDER BY x) AS r FROM t ORDER BY r DESC, id, k, x LIMIT 5$$),
    ('join', false, $$SELECT t.id, t.x, o.y FROM t JOIN o ON o.k = t.k ORDER BY o.y DESC NULLS LAST, t.id, t.x LIMIT 6$$),
    ('left_join', false, $$SELECT t.id, t.k, o.y FROM t LEFT JOIN o ON o.k = t.k ORDER BY o.y NULLS FIRST, t.id, t.k LIMIT 6 OFFSET 2$$),
    ('exists', false, $$SELECT id, k, x FROM t WHERE EXISTS (SELECT FROM o WHERE o.id = t.id) ORDER BY x, id, k LIMIT 4$$),
    ('scalar', false, $$SELECT id, k, (SELECT max(y) FROM o WHERE o.k = t.k) AS m FROM t ORDER BY m DESC NULLS LAST, id, k LIMIT 4$$),
    ('union', false, $$SELECT k, x FROM t UNION SELECT k, y FROM o ORDER BY k DESC NULLS LAST, x LIMIT 5$$),
    ('union_all', false, $$SELECT k, x FROM t UNION ALL SELECT k, y FROM o ORDER BY k, x LIMIT 5$$),
    ('except', false, $$SELECT k, x FROM t EXCEPT ALL SELECT k, y FROM o ORDER BY 2 DESC, 1 LIMIT 5$$),
    ('unnested', false, $$SELECT id, unnest(ARRAY[k, x]) AS u FROM t ORDER BY u, id LIMIT 5$$),
    -- below other blocks
    ('below_groups', false, $$SELECT s, count(*) AS c FROM (SELECT id, k, x, s FROM t ORDER BY x DESC NULLS LAST, id, k, s LIMIT 8) d GROUP BY s$$),
    ('below_hidden', false, $$SELECT s, count(*) AS c FROM (SELECT s FROM t ORDER BY k, x, id, s OFFSET 1 LIMIT 8) d GROUP BY s$$),
    ('below_join', false, $$SELECT d.id, d.r, o.y FROM o JOIN (SELECT k AS id, sum(x) AS r FROM t GROUP BY k ORDER BY r DESC NULLS LAST, k LIMIT 2) d ON d.id = o.k$$),
    ('below_looks', false, $$SELECT n::text AS n, count(*) AS c FROM (SELECT n, id FROM t WHERE n = 1 ORDER BY id, n::text LIMIT 3) d GROUP BY n::text$$),
    ('below_with_ties', false, $$SELECT k, max(x) AS m FROM (SELECT k, x FROM t ORDER BY k DESC NULLS LAST FETCH FIRST 3 ROWS WITH TIES) d GROUP BY k$$),
    ('below_union', false, $$(SELECT k, x FROM t ORDER BY x, k LIMIT 3) UNION ALL (SELECT k, y FROM o ORDER BY y DESC NULLS LAST, k LIMIT 2)$$),
    ('below_itself', false, $$SELECT x, id FROM (SELECT x, id, k FROM t ORDER BY x DESC NULLS LAST, id, k LIMIT 9) d ORDER BY k, id, x LIMIT 4$$),
    ('below_in', false, $$SELECT id, y FROM o WHERE k IN (SELECT k FROM t ORDER BY x DESC NULLS LAST, k LIMIT 2)$$),
    ('below_lateral', false, $$SELECT o.id, d.x FROM o, LATERAL (SELECT x, id FROM t WHERE t.k = o.k ORDER BY x, id LIMIT 2) d$$);
INSERT INTO o SELECT g % 12, g % 6, nullif(g % 9, 3) FROM generate_series(1, 30) g;
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'auto')) FROM queries;
SELECT q.name, e.strategy, e.changes, regexp_replace(e.detail, ' \(\d+ (kB|bytes)\)', '') AS detail
  FROM queries q, LATERAL (SELECT * FROM medallion.explain_refresh('v_' || q.name) OFFSET 1 LIMIT 1) e ORDER BY q.name;

SELECT setseed(0.41);
CREATE FUNCTION roll(n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT nullif(floor(random() * n)::int, 0) $$;
CREATE FUNCTION word() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT (ARRAY['p', 'q', 'R', NULL, 's', 'P'])[1 + floor(random() * 6)] $$;
CREATE FUNCTION more(rows int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO t SELECT roll(40), roll(7), roll(30), word(), (ARRAY[1.0, 1.00, 2.5, NULL, 'NaN', -1])[1 + floor(random() * 6)],
                         (ARRAY[0.5, 0.25, -0.0, NULL, 'Infinity', 3])[1 + floor(random() * 6)], '{"a": 1}', int4range(roll(3), roll(5) + 6)
      FROM generate_series(1, rows) $$;
-- Rows that come first by many orders go, and others come: often too few are left.
CREATE FUNCTION churn() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    dice float := random();
    c text := (ARRAY['x', 'k', 'id', 's', 'n', 'f'])[1 + floor(random() * 6)];
BEGIN
    PERFORM ingest('events', floor(random() * 3)::int, $q$SELECT roll(25), word(), (ARRAY[1.0, 1.00, 2.5, NULL, -3.125, 'NaN'])[1 + floor(random() * 6)],
                                      nullif('2026-03-01 00:00+00'::timestamptz + floor(random() * 200) * interval '17 minutes', '2026-03-01 17:00+00'),
                                      json_build_object('x', floor(random() * 3)) FROM generate_series(1, 1 + floor(random() * 6)::int)$q$)
       WHERE random() < 0.7;
    IF dice < 0.3 THEN
        PERFORM more(floor(random() * 9)::int);
    ELSIF dice < 0.5 THEN
        EXECUTE format('DELETE FROM t WHERE ctid IN (SELECT ctid FROM t ORDER BY %I %s LIMIT %s)', c,
                       (ARRAY['', 'DESC', 'DESC NULLS LAST', 'NULLS FIRST'])[1 + floor(random() * 4)], 1 + floor(random() * 6));
    ELSIF dice < 0.65 THEN
        EXECUTE format('UPDATE t SET x = roll(30), n = 2.5 WHERE ctid IN (SELECT ctid FROM t ORDER BY %I %s LIMIT %s)', c,
                       (ARRAY['', 'DESC', 'DESC NULLS LAST', 'NULLS FIRST'])[1 + floor(random() * 4)], 1 + floor(random() * 6));
    ELSIF dice < 0.75 THEN
        UPDATE t SET k = roll(7), n = n + 0.00, f = f * 2 WHERE random() < 0.15;
    ELSIF dice < 0.8 THEN
        DELETE FROM t WHERE random() < 0.4;
    ELSIF dice < 0.82 THEN
        TRUNCATE t;
    ELSIF dice < 0.9 THEN
        INSERT INTO t SELECT * FROM t ORDER BY x LIMIT 3;
    ELSIF dice < 0.95 THEN
        INSERT INTO o VALUES (roll(12), roll(6), roll(9)), (roll(12), roll(6), roll(9));
    ELSE
        DELETE FROM o WHERE ctid IN (SELECT ctid FROM o ORDER BY y DESC LIMIT 2);
    END IF;
END $$;
-- Refreshes whose result is not that of the query, and how often the query was run again.
CREATE TABLE runs (name text, strategy text, reason text);
CREATE FUNCTION run_rounds(rounds int) RETURNS TABLE (in_round int, name text, differs bigint, strategy text) LANGUAGE plpgsql AS $$
DECLARE
    q record;
    r record;
BEGIN
    FOR round IN 1..rounds LOOP
        FOR i IN 1..1 + floor(random() * 3) LOOP
            PERFORM churn();
        END LOOP;
        FOR q IN SELECT * FROM queries LOOP
            CONTINUE WHEN random() < 0.4 AND round < rounds;
            SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
            INSERT INTO runs VALUES (q.name, r.strategy, r.reason);
            differs := CASE WHEN NOT q.has_ties THEN rows_apart(('v_' || q.name)::regclass, q.query) ELSE 0 END
                     + (SELECT count(*) FROM medallion.verify(('v_' || q.name)::regclass));
            IF differs <> 0 THEN
                in_round := round;
                name := q.name;
                strategy := r.strategy || coalesce(': ' || r.reason, '');
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT more(60);
SELECT * FROM run_rounds(60);
-- Each was brought up to date by its changes, and some of those that lose rows were run again.
SELECT name, bool_or(reason ~ 'are left') AS ran_again, string_agg(DISTINCT reason, '; ') FILTER (WHERE reason !~ 'are left') AS others
  FROM runs WHERE strategy = 'full' GROUP BY name ORDER BY name;
SELECT name FROM queries q WHERE name NOT IN ('none', 'none_skipped') AND NOT EXISTS (SELECT FROM runs r WHERE r.name = q.name AND r.strategy NOT IN ('full', 'none'));
-- A full refresh finds nothing to change.
SELECT q.name, r.strategy, r.rows_inserted, r.rows_updated, r.rows_deleted
  FROM queries q, medallion.refresh(('v_' || q.name)::regclass, full_refresh => true) r
 WHERE NOT q.has_ties AND r.rows_inserted + r.rows_updated + r.rows_deleted > 0;
SELECT * FROM run_rounds(3);

-- What is written: rows that come into the first ones, and those that leave them.
TRUNCATE t;
INSERT INTO t (id, k, x) SELECT g, g % 3, g * 10 FROM generate_series(1, 40) g;
SELECT medallion.create_materialized_view('top', 'SELECT id, x FROM t ORDER BY x DESC, id LIMIT 4', NULL, 'incremental', key_columns => '{id}');
CREATE FUNCTION refreshed(OUT strategy text, OUT reason text, OUT came bigint, OUT went bigint, OUT ids text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT r.strategy, r.reason, r.rows_inserted, r.rows_deleted INTO strategy, reason, came, went FROM medallion.refresh('top') r;
    SELECT string_agg(id::text, ' ' ORDER BY x DESC, id) INTO ids FROM top;
END $$;
SELECT * FROM refreshed();
INSERT INTO t (id, x) VALUES (100, 385), (101, 7);
SELECT * FROM refreshed();
INSERT INTO t (id, x) VALUES (102, 6);
SELECT * FROM refreshed();
DELETE FROM t WHERE id IN (40, 39);
SELECT * FROM refreshed();
-- of the eight that were kept five are left, then three
DELETE FROM t WHERE id = 38;
SELECT * FROM refreshed();
UPDATE t SET x = 5 WHERE id IN (37, 36);
SELECT * FROM refreshed();
DELETE FROM t WHERE x > 0;
SELECT * FROM refreshed();
INSERT INTO t (id, x) VALUES (1, 1), (2, 2);
SELECT * FROM refreshed();
INSERT INTO t (id, x) VALUES (3, 3), (4, 4), (5, 5), (6, 6), (7, 7);
SELECT * FROM refreshed();
SELECT strategy, reason FROM medallion.refresh_history WHERE view = 'top'::regclass ORDER BY run_id;
SELECT step, strategy, regexp_replace(detail, ' \(\d+ (kB|bytes)\)', '') AS detail FROM medallion.explain_refresh('top');

-- Part of the rows; another query; a view that reads it; a key.
UPDATE t SET x = x + 1;
SELECT strategy, reason, rows_inserted, rows_deleted FROM medallion.refresh('top', only_where => 'id > 5');
SELECT * FROM refreshed();
SELECT * FROM medallion.verify('top');
SELECT medallion.create_materialized_view('above', 'SELECT count(*) AS n, sum(x) AS s FROM top', NULL, 'incremental');
SELECT medallion.alter_materialized_view('top', query => 'SELECT id, x FROM t ORDER BY x DESC, id OFFSET 1 LIMIT 3');
SELECT * FROM refreshed();
SELECT strategy FROM medallion.refresh('above');
UPDATE t SET x = 100 WHERE id = 1;
SELECT * FROM refreshed();
UPDATE t SET x = 50 WHERE id = 7;
SELECT * FROM refreshed();
SELECT strategy FROM medallion.refresh('above');
TABLE above;
SELECT * FROM medallion.verify('top') UNION ALL SELECT * FROM medallion.verify('above');
SELECT medallion.create_materialized_view('best', 'SELECT k, sum(x) AS s FROM t GROUP BY k ORDER BY s DESC NULLS LAST, k LIMIT 2', NULL, 'incremental');
UPDATE t SET k = id % 3;
SELECT strategy, reason FROM medallion.refresh('best', only_where => 'k = 1');
SELECT strategy FROM medallion.refresh('best');
SELECT * FROM medallion.verify('best');

-- Rows that cannot be computed are left out, and come in when they can.
CREATE TABLE raw (id int, v text);
INSERT INTO raw SELECT g, g::text FROM generate_series(1, 9) g;
SELECT medallion.create_materialized_view('parsed', 'SELECT id, v::int AS v FROM raw ORDER BY v::int DESC, id LIMIT 3', NULL, 'incremental');
INSERT INTO raw VALUES (10, 'ten'), (11, '11');
SELECT strategy, reason FROM medallion.refresh('parsed');
TABLE parsed ORDER BY v;
UPDATE raw SET v = '10' WHERE id = 10;
DELETE FROM raw WHERE id = 9;
SELECT strategy, reason FROM medallion.refresh('parsed');
TABLE parsed ORDER BY v;
SELECT * FROM medallion.verify('parsed');
DROP SCHEMA view_top CASCADE;
