-- A row that cannot be computed costs itself only.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_errors
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
SET client_min_messages = notice;
\set SHOW_CONTEXT never
\pset null '(null)'
\a \t on
CREATE FUNCTION errors(v regclass) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(' | ', e.source, kafka_partition || '/' || kafka_offset, row_data, copies, sqlstate, message, attempts)
      FROM medallion.refresh_errors e WHERE e.view = v ORDER BY e.source::text, error_id $$;
CREATE FUNCTION refresh(v regclass) RETURNS text LANGUAGE sql SET client_min_messages = error AS $$
    SELECT concat_ws(' | ', strategy, reason, 'inserted ' || rows_inserted, 'updated ' || rows_updated, 'deleted ' || rows_deleted)
      FROM medallion.refresh(v) $$;

-- Records: the views over them leave out what they cannot compute, and say so.
SELECT make_stream('raw', 'id int, k text, x text');
SELECT ingest('raw', 0, $$SELECT i, 'k' || i % 3, CASE WHEN i % 40 = 7 THEN 'bad' ELSE i::text END FROM generate_series(1, 100) i$$);
SELECT medallion.create_materialized_view('silver', 'SELECT id, k, x::int AS y FROM raw WHERE x <> ''1''', NULL, 'incremental');
SELECT medallion.create_materialized_view('gold', 'SELECT k, sum(x::int) AS s, count(*) AS n FROM raw GROUP BY k', NULL, 'incremental');
SELECT medallion.create_materialized_view('newest', 'SELECT DISTINCT ON (k) k, x::int AS y FROM raw ORDER BY k, kafka_offset DESC', NULL, 'incremental');
SELECT medallion.create_materialized_view('ranked', 'SELECT id, k, rank() OVER (PARTITION BY k ORDER BY x::int) AS r FROM raw', NULL, 'incremental');
SELECT medallion.create_materialized_view('always', 'SELECT k, x::int AS y FROM raw', NULL, 'full');
SELECT errors('silver');
SELECT count(*), count(*) FILTER (WHERE row_data = '{"k": "k1", "x": "bad"}') FROM medallion.refresh_errors;
SELECT ingest('raw', 1, $$VALUES (101, 'k1', '5'), (102, 'k1', 'worse'), (103, 'k2', '6')$$);
SELECT refresh('silver'), refresh('gold'), refresh('newest'), refresh('ranked'), refresh('always');
SELECT refresh('silver'), refresh('gold'), refresh('newest'), refresh('ranked'), refresh('always');
SELECT errors('gold');
SELECT count(*) FROM silver;
SELECT * FROM gold ORDER BY 1;
SELECT differences('silver', $$SELECT id, k, x::int AS y FROM raw WHERE x ~ '^\d+$' AND x <> '1'$$),
       differences('gold', $$SELECT k, sum(x::int), count(*) FROM raw WHERE x ~ '^\d+$' GROUP BY k$$),
       differences('newest', $$SELECT DISTINCT ON (k) k, x::int FROM raw WHERE x ~ '^\d+$' ORDER BY k, kafka_offset DESC, x::int$$),
       differences('ranked', $$SELECT id, k, rank() OVER (PARTITION BY k ORDER BY x::int) FROM raw WHERE x ~ '^\d+$'$$),
       differences('always', $$SELECT k, x::int FROM raw WHERE x ~ '^\d+$'$$);
SELECT * FROM medallion.verify('gold');
SELECT view, state, quarantined_rows FROM medallion.materialized_views ORDER BY view::text;
SELECT * FROM medallion.explain_refresh('gold');
-- a row that has not been read yet does not matter to verify()
SELECT medallion.create_materialized_view('filtered', 'SELECT id FROM raw WHERE x::int > 3', NULL, 'incremental');
SELECT ingest('raw', 1, $$VALUES (104, 'k1', 'unread')$$);
SELECT * FROM medallion.verify('filtered');
SELECT refresh('filtered');

-- Tables: a row that is updated is another row.
CREATE TABLE t (id int PRIMARY KEY, k text, x text, note text);
INSERT INTO t SELECT i, 'k' || i % 3, CASE WHEN i IN (3, 8) THEN 'bad' ELSE i::text END FROM generate_series(1, 20) i;
SELECT medallion.create_materialized_view('t_regroup', 'SELECT k, string_agg(x, '','' ORDER BY id) AS l, sum(x::int) FROM t GROUP BY k', NULL, 'incremental');
SELECT medallion.create_materialized_view('t_merge', 'SELECT k, sum(100 / x::int) AS s FROM t GROUP BY k', NULL, 'incremental');
SELECT errors('t_merge');
UPDATE t SET note = 'no matter' WHERE id = 3;
UPDATE t SET x = '8' WHERE id = 8;
INSERT INTO t VALUES (21, 'k0', '0'), (22, 'k9', 'bad');
SELECT refresh('t_regroup'), refresh('t_merge');
SELECT errors('t_regroup');
SELECT errors('t_merge');
SELECT * FROM medallion.verify('t_regroup');
SELECT * FROM medallion.verify('t_merge');
DELETE FROM t WHERE id IN (3, 21);
UPDATE t SET x = 'also bad' WHERE id = 22;
SELECT refresh('t_regroup'), refresh('t_merge');
SELECT errors('t_regroup');
UPDATE t SET x = 22 WHERE id = 22;
SELECT refresh('t_regroup'), refresh('t_merge');
SELECT count(*) FROM medallion.refresh_errors WHERE source = 't'::regclass;
SELECT * FROM medallion.verify('t_regroup');
SELECT * FROM medallion.verify('t_merge');
-- equal rows without a key are one, as often as they are there
CREATE TABLE u (k text, x text);
INSERT INTO u VALUES ('a', '1'), ('a', 'bad'), ('b', '2'), ('a', 'bad');
SELECT medallion.create_materialized_view('u_copy', 'SELECT k, x::int AS y FROM u', NULL, 'incremental');
SELECT errors('u_copy');
INSERT INTO u VALUES ('a', 'bad'), ('c', '3');
SELECT refresh('u_copy');
SELECT errors('u_copy');
DELETE FROM u WHERE ctid = (SELECT min(ctid) FROM u WHERE x = 'bad');
SELECT refresh('u_copy');
SELECT errors('u_copy');
UPDATE u SET x = 4 WHERE x = 'bad';
SELECT refresh('u_copy');
SELECT errors('u_copy');
SELECT * FROM u_copy ORDER BY 1, 2;

-- Views over views; a column by which rows are told goes away.
SELECT medallion.create_materialized_view('v_half', 'SELECT id, k, x::int - 10 AS y FROM t', NULL, 'incremental');
SELECT medallion.create_materialized_view('v_third', 'SELECT k, 60 / y AS z FROM v_half', NULL, 'incremental');
SELECT errors('v_third');
UPDATE t SET x = '11' WHERE id = 10;
SELECT refresh('v_half'), refresh('v_third');
SELECT errors('v_third');
UPDATE t SET x = '10' WHERE id = 10;
SELECT refresh('v_half'), refresh('v_third');
UPDATE t SET x = 'bad' WHERE id = 1;
SELECT refresh('v_half'), errors('v_half');
ALTER TABLE t DROP COLUMN note;
ALTER TABLE t RENAME x TO xx;
SELECT refresh('v_half');
ALTER TABLE t RENAME xx TO x;
SELECT refresh('v_half'), errors('v_half');
SELECT * FROM medallion.verify('v_half');

-- Joins: to blame is the row that fails by itself, else the one of the stream.
SELECT make_stream('fact', 'd int, amount text');
CREATE TABLE dim (id int PRIMARY KEY, rate text, name text);
INSERT INTO dim VALUES (1, '10', 'one'), (2, '0', 'zero'), (3, 'x', 'bad'), (4, 'x', 'bad, but not joined');
SELECT ingest('fact', 0, $$VALUES (1, '100'), (1, 'oops'), (2, '5'), (3, '7'), (9, 'not joined'), (1, '30')$$);
SELECT medallion.create_materialized_view('j', 'SELECT name, amount::int / rate::int AS n FROM fact JOIN dim ON dim.id = fact.d', NULL, 'incremental');
SELECT errors('j');
SELECT * FROM j ORDER BY 1, 2;
SELECT * FROM medallion.verify('j');
-- rows are tried again when the other source changes
UPDATE dim SET rate = '5' WHERE id = 2;
SELECT refresh('j');
SELECT refresh('j');
SELECT refresh('j');
UPDATE dim SET rate = '7' WHERE id = 3;
SELECT refresh('j');
SELECT errors('j');
SELECT * FROM j ORDER BY 1, 2;
-- what is new is to blame, and returns when it is mended
UPDATE dim SET rate = '0' WHERE id = 1;
SELECT refresh('j');
SELECT errors('j');
SELECT * FROM j ORDER BY 1, 2;
UPDATE dim SET rate = '1' WHERE id = 1;
SELECT refresh('j');
SELECT * FROM j ORDER BY 1, 2;
SELECT * FROM medallion.verify('j');
-- an old row and a new one that never met
INSERT INTO dim VALUES (5, '0', 'five');
SELECT refresh('j');
SELECT ingest('fact', 0, $$VALUES (5, '100')$$);
UPDATE dim SET rate = '1' WHERE id = 5;
SELECT refresh('j');
SELECT * FROM medallion.verify('j');

-- Functions of users, domains, set operations, subqueries.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION parse(x text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF x = 'bad' THEN RAISE EXCEPTION 'cannot parse %', x; END IF;
    RETURN x::int;
END $$;
CREATE TABLE w (id int PRIMARY KEY, x text);
INSERT INTO w VALUES (1, '1'), (2, 'bad'), (3, '-3'), (4, '4');
SELECT medallion.create_materialized_view('w_parse', 'SELECT id % 2 AS odd, sum(parse(x)) AS s FROM w GROUP BY 1', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_domain', 'SELECT id, parse(x)::positive AS p FROM w', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_union', 'SELECT id AS a FROM w UNION SELECT parse(x) FROM w WHERE id > 1', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_all', 'SELECT sum(a) AS s FROM (SELECT id AS a FROM w UNION ALL SELECT parse(x) FROM w) u', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_in', 'SELECT id FROM fact JOIN w ON w.id = fact.d WHERE fact.d IN (SELECT parse(x) FROM w)', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_having', 'WITH c AS (SELECT id, parse(x) AS p FROM w WHERE id < 4) SELECT p % 2 AS odd, count(*) AS n FROM c GROUP BY 1 HAVING count(*) > 0', NULL, 'incremental');
SELECT medallion.create_materialized_view('w_guarded', 'SELECT id, CASE WHEN x ~ ''^-?\d+$'' THEN x::int END AS p FROM w', NULL, 'incremental');
SELECT view, row_data, sqlstate, message FROM medallion.refresh_errors WHERE source = 'w'::regclass ORDER BY view::text, error_id;
CREATE OR REPLACE FUNCTION parse(x text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF x = 'bad' THEN RETURN 1000; END IF;
    RETURN x::int;
END $$;
SELECT refresh('w_parse');
SELECT medallion.retry_refresh_errors('w_parse'), medallion.retry_refresh_errors('w_domain'), medallion.retry_refresh_errors('w_guarded');
SELECT refresh('w_parse'), refresh('w_domain');
SELECT refresh('w_parse'), refresh('w_domain');
SELECT errors('w_domain');
SELECT * FROM w_parse ORDER BY 1;
SELECT * FROM medallion.verify('w_parse');
SELECT strategy, reason, rows_updated FROM medallion.refresh('w_union', full_refresh => true);
SELECT * FROM medallion.verify('w_union');

-- What is not the fault of single rows fails, as does a row in a part that is not new.
SELECT medallion.create_materialized_view('never', 'SELECT id % 2 AS odd, 10 / (count(*) - 2) AS n FROM w GROUP BY 1', NULL);
SELECT medallion.create_materialized_view('outer_side', 'SELECT w.id, dim.rate::int AS rate FROM w LEFT JOIN dim USING (id) WHERE w.id < 3', NULL);
\set VERBOSITY terse
SELECT medallion.create_materialized_view('system_column', 'SELECT tableoid::int AS o, x::positive AS p FROM w', NULL);
SELECT medallion.create_materialized_view('sampled', 'SELECT x::positive AS p FROM w TABLESAMPLE system (100)', NULL);
UPDATE dim SET rate = 'oops' WHERE id = 1;
SELECT refresh('outer_side');
SELECT errors('outer_side');
UPDATE dim SET rate = '2' WHERE id = 1;
SELECT refresh('outer_side');

-- Options.
SELECT medallion.create_materialized_view('limited', 'SELECT x::int FROM raw WHERE kafka_partition = 1', NULL, options => '{"max_refresh_errors": 2}');
SELECT errors('limited');
SELECT ingest('raw', 1, $$VALUES (105, 'k1', 'one too many'), (106, 'k1', '106')$$);
\set VERBOSITY default
SELECT medallion.refresh('limited');
SELECT medallion.alter_materialized_view('limited', options => '{"max_refresh_errors": 3}');
SELECT refresh('limited');
CREATE MATERIALIZED VIEW failing WITH (medallion.refresh_interval = 'none', medallion.on_error = 'fail') AS SELECT x::int FROM raw WHERE kafka_partition = 1;
\set VERBOSITY terse
CREATE MATERIALIZED VIEW failing WITH (medallion.refresh_interval = 'none', medallion.on_error = 'quarantine', medallion.max_refresh_errors = 3) AS SELECT x::int FROM raw WHERE kafka_partition = 1;
ALTER MATERIALIZED VIEW failing SET (medallion.on_error = 'fail');
SELECT errors('failing');
SELECT refresh('failing');
SELECT count(*) FROM failing;
ALTER MATERIALIZED VIEW failing RESET (medallion.on_error);
SELECT refresh('failing');
\set VERBOSITY default
SELECT medallion.alter_materialized_view('failing', options => '{"on_errors": "fail"}');
SELECT medallion.alter_materialized_view('failing', options => '{"on_error": "quarantin"}');
SELECT medallion.alter_materialized_view('failing', options => '{"max_refresh_errors": 0}');
SELECT medallion.alter_materialized_view('failing', options => '{"sources": {}}');
ALTER MATERIALIZED VIEW failing SET (medallion.max_refresh_errors = 'many');
ALTER MATERIALIZED VIEW failing SET (medallion.on_error = 'fail', medallion.on_error = 'fail');
SELECT medallion.retry_refresh_errors('raw');

-- Another query, and the end.
SELECT medallion.alter_materialized_view('failing', 'SELECT nullif(x, ''worse'')::int AS x FROM raw WHERE kafka_partition = 1');
SELECT errors('failing');
SELECT * FROM medallion.verify('failing');
DROP MATERIALIZED VIEW failing;
SELECT count(*) FROM medallion.refresh_error e WHERE NOT EXISTS (SELECT FROM medallion.view v WHERE v.relid = e.relid);

-- A sequence of random changes; each view against its query over what is well.
CREATE TABLE b (id int, k int, x text);
CREATE TABLE c (k int PRIMARY KEY, d text);
INSERT INTO c SELECT i, i::text FROM generate_series(0, 4) i;
SELECT make_stream('s', 'k int, x text');
CREATE FUNCTION is_int(x text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT x ~ '^\d+$' $$;
CREATE TABLE pairs (name text, query text, well text);
INSERT INTO pairs VALUES
    ('r_append', 'SELECT k, x::int AS y FROM s WHERE x::int >= 0', 'SELECT k, x::int FROM s WHERE is_int(x)'),
    ('r_merge', 'SELECT k, sum(x::int) AS s, min(x::int) AS m, count(DISTINCT x::int) AS n FROM s GROUP BY k', 'SELECT k, sum(x::int), min(x::int), count(DISTINCT x::int) FROM s WHERE is_int(x) GROUP BY k'),
    ('r_signed', 'SELECT k, 10 / x::int AS y FROM b', 'SELECT k, 10 / x::int FROM b WHERE CASE WHEN is_int(x) THEN x::int <> 0 END'),
    ('r_groups', 'SELECT k, sum(x::int) AS s, count(*) AS n FROM b GROUP BY k', 'SELECT k, sum(x::int), count(*) FROM b WHERE is_int(x) GROUP BY k'),
    ('r_agg', 'SELECT k, array_agg(x::int ORDER BY x::int) AS l FROM b GROUP BY k', 'SELECT k, array_agg(x::int ORDER BY x::int) FROM b WHERE is_int(x) GROUP BY k'),
    ('r_distinct', 'SELECT DISTINCT x::int AS y FROM b', 'SELECT DISTINCT x::int FROM b WHERE is_int(x)'),
    ('r_full', 'SELECT k, x::int AS y FROM b', 'SELECT k, x::int FROM b WHERE is_int(x)'),
    ('r_join', 'SELECT b.k, b.x::int + c.d::int AS y FROM b JOIN c ON c.k = b.k', 'SELECT b.k, b.x::int + c.d::int FROM (SELECT * FROM b WHERE is_int(x) OFFSET 0) b JOIN (SELECT * FROM c WHERE is_int(d) OFFSET 0) c ON c.k = b.k');
CREATE FUNCTION check_all() RETURNS SETOF text LANGUAGE plpgsql SET client_min_messages = error AS $$
DECLARE
    p record;
    n bigint;
BEGIN
    FOR p IN SELECT * FROM pairs LOOP
        PERFORM medallion.refresh(p.name);
        SELECT differences(p.name::regclass, p.well) + (SELECT count(*) FROM medallion.verify(p.name)) INTO n;
        IF n > 0 THEN
            RETURN NEXT p.name || ' differs';
        END IF;
        -- rows that met what has just left return with the next
        PERFORM medallion.refresh(p.name);
        SELECT count(*) INTO n FROM medallion.refresh(p.name) r WHERE r.strategy <> 'none' AND p.name <> 'r_full';
        IF n > 0 THEN
            RETURN NEXT p.name || ' is not settled';
        END IF;
    END LOOP;
END $$;
CREATE FUNCTION value() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT (ARRAY['1', '2', '3', '4', '5', '6', '7', 'bad', 'worse', '0'])[1 + floor(random() * 10)::int] $$;
SELECT setseed(0.42);
SET client_min_messages = error;
SELECT count(medallion.create_materialized_view(name, query, NULL, CASE name WHEN 'r_full' THEN 'full' ELSE 'incremental' END)) FROM pairs;
DO $$
DECLARE
    wrong text;
BEGIN
    FOR round IN 1 .. 25 LOOP
        FOR i IN 1 .. 1 + floor(random() * 4) LOOP
            CASE floor(random() * 8)
                WHEN 0, 1 THEN PERFORM ingest('s', 0, 'SELECT floor(random() * 5)::int, value() FROM generate_series(1, 4)');
                WHEN 2, 3 THEN INSERT INTO b SELECT i, floor(random() * 5), value() FROM generate_series(1, 3);
                WHEN 4 THEN UPDATE b SET x = value() WHERE random() < 0.3;
                WHEN 5 THEN DELETE FROM b WHERE random() < 0.2;
                WHEN 6 THEN UPDATE c SET d = value() WHERE random() < 0.3;
                ELSE UPDATE b SET k = floor(random() * 5) WHERE random() < 0.2;
            END CASE;
        END LOOP;
        SELECT string_agg(w, ', ') INTO wrong FROM check_all() w;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION 'round %: %', round, wrong;
        END IF;
    END LOOP;
END $$;
SELECT count(*) > 0 FROM medallion.refresh_errors WHERE view::text LIKE 'r\_%';
SELECT count(*) FROM medallion.refresh_errors e WHERE view IN ('r_groups'::regclass, 'r_agg'::regclass)
   AND copies <> (SELECT count(*) FROM b WHERE b.k = (row_data ->> 'k')::int AND b.x = row_data ->> 'x');
UPDATE b SET x = '1';
UPDATE c SET d = '1';
SELECT * FROM check_all();
SELECT count(*) FROM medallion.refresh_errors WHERE source IN ('b'::regclass, 'c'::regclass);
SET client_min_messages = warning;
SET client_min_messages = error;
-- Grouping sets: such a row is in no group of any of them, and comes to all when it can be computed.
CREATE TABLE facts (id int PRIMARY KEY, a int, b text, x text);
INSERT INTO facts SELECT i, i % 3, 'b' || i % 2, CASE WHEN i IN (4, 9) THEN 'bad' ELSE i::text END FROM generate_series(1, 12) i;
INSERT INTO facts VALUES (13, NULL, NULL, 'alone');
CREATE TABLE set_queries (view text PRIMARY KEY, query text);
INSERT INTO set_queries VALUES
    ('sets_sum', 'SELECT a, b, GROUPING(a, b) AS g, sum(x::int) AS s, count(*) AS n FROM @ GROUP BY ROLLUP (a, b)'),
    ('sets_key', 'SELECT x::int % 4 AS m, a, max(x) AS high FROM @ GROUP BY CUBE (x::int % 4, a)'),
    ('sets_values', 'SELECT b, count(DISTINCT 100 / (x::int - 1)) AS d FROM @ GROUP BY GROUPING SETS ((a), (b), ())'),
    ('sets_listed', 'SELECT a, string_agg(x, '','' ORDER BY x::int) AS l FROM @ GROUP BY ROLLUP (a)');
SELECT view, count(medallion.create_materialized_view(view, replace(query, '@', 'facts'), NULL, 'incremental')) FROM set_queries GROUP BY 1 ORDER BY 1;
CREATE VIEW left_out AS
    SELECT e.view, string_agg(e.row_data ->> 'id', ',' ORDER BY error_id) FROM medallion.refresh_errors e
     WHERE e.source = 'facts'::regclass GROUP BY 1 ORDER BY e.view::text;
-- how they differ from their query over the rows that can be computed
CREATE FUNCTION look_at_sets() RETURNS TABLE (view text, did text, differ bigint, verify bigint) LANGUAGE sql AS $$
    SELECT q.view, refresh(q.view::regclass),
           differences(q.view::regclass, replace(q.query, '@', CASE q.view WHEN 'sets_values'
                       THEN '(SELECT * FROM facts WHERE x ~ ''^\d+$'' AND x <> ''1'') f' ELSE '(SELECT * FROM facts WHERE x ~ ''^\d+$'') f' END)),
           (SELECT count(*) FROM medallion.verify(q.view::regclass))
      FROM set_queries q ORDER BY 1 $$;
SELECT * FROM look_at_sets();
TABLE left_out;
-- others of their groups come and go; more that fail come, one of them with a good row of a new group
INSERT INTO facts VALUES (14, 7, 'b7', 'worse'), (15, 7, 'b7', '15'), (16, 1, NULL, '1');
DELETE FROM facts WHERE id IN (1, 7);
SELECT * FROM look_at_sets();
TABLE left_out;
-- corrected, gone, and gone bad
UPDATE facts SET x = '9' WHERE id = 9;
UPDATE facts SET x = 'gone bad' WHERE id = 15;
DELETE FROM facts WHERE id IN (4, 16);
SELECT * FROM look_at_sets();
TABLE left_out;
DELETE FROM facts WHERE x ~ '^\d+$';
SELECT * FROM look_at_sets();
TABLE left_out;
UPDATE facts SET x = id;
SELECT * FROM look_at_sets();
SELECT * FROM look_at_sets();
TABLE left_out;

-- Errors that have other codes than the class of data.
CREATE TABLE odd (id int PRIMARY KEY, v numeric);
CREATE FUNCTION checked(numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF $1 = 7 THEN RAISE 'seven' USING ERRCODE = 'MY001'; END IF;
    ASSERT $1 <> 8, 'eight';
    RETURN $1;
END $$;
INSERT INTO odd VALUES (1, 1), (2, 'NaN'), (3, 7);
SELECT medallion.create_materialized_view('odd_rows', 'SELECT id, checked(v) AS c, v::bigint AS i, cardinality(array_fill(0, ARRAY[v::int])) AS n FROM odd', NULL);
INSERT INTO odd VALUES (4, 8), (5, 'Infinity'), (6, 2000000000), (7, 2);
SELECT strategy, rows_inserted FROM medallion.refresh('odd_rows');
TABLE odd_rows ORDER BY id;
SELECT row_data ->> 'id' AS id, sqlstate, message FROM medallion.refresh_errors WHERE view = 'odd_rows'::regclass ORDER BY 1;
UPDATE odd SET v = 3 WHERE id IN (2, 6);
SELECT strategy, rows_inserted FROM medallion.refresh('odd_rows');
TABLE odd_rows ORDER BY id;

DROP SCHEMA view_errors CASCADE;
SELECT count(*) FROM medallion.view;
SELECT count(*) FROM medallion.refresh_error;
