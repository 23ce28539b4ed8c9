-- Views that read a view which is given another query, other keys or other columns: after that
-- each equals its query again, by the captured change or by a recompute that says why.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_redefine_readers
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'

-- What is redefined, and how: query, and keys ('': as they are).
CREATE TABLE bases (base text, query text, keys text[]);
INSERT INTO bases VALUES
    ('append', 'SELECT id, k, t::varchar(10) AS t FROM events', NULL),
    ('join', 'SELECT id, k, t::varchar(10) AS t FROM source', NULL),
    ('join with a key', 'SELECT id, k, t::varchar(10) AS t FROM source', '{id}'),
    ('merge', 'SELECT id, max(k) AS k, max(t)::varchar(10) AS t FROM source GROUP BY id', NULL);
CREATE TABLE changes (change text, new_query text, new_keys text);
INSERT INTO changes VALUES
    ('key added', 'SELECT * FROM (%s) q', '{id}'),
    ('key dropped', 'SELECT * FROM (%s) q', NULL),
    ('other key', 'SELECT * FROM (%s) q', '{id,k}'),
    ('rows', 'SELECT * FROM (%s) q WHERE id %% 4 <> 1', ''),
    ('key added, rows', 'SELECT * FROM (%s) q WHERE id %% 4 <> 1', '{id}'),
    ('key dropped, rows', 'SELECT * FROM (%s) q WHERE id %% 4 <> 1', NULL),
    ('other strategy', 'SELECT id, max(k) AS k, max(t)::varchar(10) AS t FROM (%s) q GROUP BY id', ''),
    ('column added', 'SELECT q.*, id * 2 AS twice FROM (%s) q', ''),
    ('column dropped', 'SELECT id, k FROM (%s) q', ''),
    ('column retyped', 'SELECT id, k, t::text AS t FROM (%s) q', ''),
    ('column shortened', 'SELECT id, k, t::varchar(1) AS t FROM (%s) q', ''),
    ('column of another collation, key added', 'SELECT id, k, t COLLATE "C" AS t FROM (%s) q', '{id}');

-- its readers: of each strategy, of two levels, and of both levels at once
CREATE TABLE readers (reader text, query text);
INSERT INTO readers VALUES
    ('r1_total', 'SELECT count(*) AS n FROM v'),
    ('r2_merge', 'SELECT k, count(*) AS n, sum(id) AS s FROM v GROUP BY k'),
    ('r3_join', 'SELECT a.id, b.k FROM v a JOIN v b ON a.k = b.id'),
    ('r4_rows', 'SELECT id + 1 AS i, k FROM v WHERE k > 0'),
    ('r5_latest', 'SELECT DISTINCT ON (k) k, id FROM v ORDER BY k, id DESC'),
    ('r6_top', 'SELECT id, k FROM v ORDER BY id DESC LIMIT 5'),
    ('r7_regroup', 'SELECT k, array_agg(id ORDER BY id) AS a FROM v GROUP BY k'),
    ('r8_window', 'SELECT id, k, rank() OVER (PARTITION BY k ORDER BY id) AS r FROM v'),
    ('r9_above', 'SELECT count(*) AS n, sum(s) AS s FROM r2_merge'),
    ('r9_both', 'SELECT m.k, v.id FROM r2_merge m JOIN v USING (k)');

CREATE PROCEDURE make(of text) LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    DROP TABLE IF EXISTS source CASCADE;
    CREATE TABLE source (id int, k int, t text);
    INSERT INTO source SELECT g, g % 5, 't' || g % 3 FROM generate_series(1, 30) g;
    DROP TABLE IF EXISTS events CASCADE;
    PERFORM make_stream('events', 'id int, k int, t text');
    PERFORM ingest('events', 0, 'SELECT id, k, t FROM source');
    COMMIT;
    PERFORM medallion.create_materialized_view('v', query, NULL, key_columns => keys) FROM bases WHERE base = of;
    FOR r IN SELECT * FROM readers ORDER BY reader LOOP
        PERFORM medallion.create_materialized_view(r.reader, r.query, NULL);
    END LOOP;
    COMMIT;
END $$;
CREATE FUNCTION grow() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ingest('events', 0, 'SELECT m + g, g % 5, ''t'' || g % 3 FROM generate_series(1, 6) g, (SELECT max(id) AS m FROM events) x');
    INSERT INTO source SELECT m + g, g % 5, 't' || g % 3 FROM generate_series(1, 6) g, (SELECT max(id) AS m FROM source) x;
    DELETE FROM source WHERE id IN (SELECT id FROM source ORDER BY id % 7, id LIMIT 3);
    UPDATE source SET k = k + 1 WHERE id % 5 = 2;
END $$;
CREATE FUNCTION alter_v(how text, of text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    q text := (SELECT format(new_query, (SELECT query FROM bases WHERE base = of)) FROM changes WHERE change = how);
    k text := (SELECT new_keys FROM changes WHERE change = how);
BEGIN
    IF k = '' THEN
        PERFORM medallion.alter_materialized_view('v', q);
    ELSE
        PERFORM medallion.alter_materialized_view('v', q, key_columns => k::text[]);
    END IF;
END $$;

-- Refresh all, each in a transaction of its own, and compare.
CREATE TABLE outcomes (what text, view text, strategy text, reason text, differences bigint);
CREATE PROCEDURE settle(what text) LANGUAGE plpgsql AS $$
DECLARE
    name text;
    how text;
    why text;
BEGIN
    FOR name IN SELECT 'v' UNION ALL (SELECT reader FROM readers ORDER BY 1) LOOP
        SELECT strategy, reason INTO how, why FROM medallion.refresh(name::regclass);
        COMMIT;
        INSERT INTO outcomes SELECT what, name, how, why, (SELECT count(*) FROM medallion.verify(name::regclass));
        COMMIT;
    END LOOP;
END $$;

CREATE PROCEDURE check_changes(timing text) LANGUAGE plpgsql AS $$
DECLARE
    c record;
    name text;
BEGIN
    FOR c IN SELECT base, change, format('%s, %s, %s', base, change, timing) AS what
               FROM bases, changes WHERE NOT (base = 'merge' AND new_keys = '{id,k}') ORDER BY base, change LOOP
        CALL make(c.base);
        PERFORM grow();
        COMMIT;
        IF timing = 'readers behind' THEN
            PERFORM medallion.refresh('v');
            COMMIT;
        END IF;
        PERFORM alter_v(c.change, c.base);
        IF timing = 'readers in the same transaction' THEN
            FOR name IN SELECT reader FROM readers ORDER BY 1 LOOP
                PERFORM medallion.refresh(name::regclass);
            END LOOP;
        END IF;
        COMMIT;
        CALL settle(c.what);
        PERFORM grow();
        COMMIT;
        CALL settle(c.what || ', later');
    END LOOP;
END $$;
CALL check_changes('all behind');
CALL check_changes('readers behind');
CALL check_changes('readers in the same transaction');
SELECT count(*), count(*) FILTER (WHERE differences > 0) AS wrong FROM outcomes;
SELECT * FROM outcomes WHERE differences > 0 ORDER BY what, view LIMIT 20;
-- why readers recompute, and that they do so once
SELECT split_part(what, ', all', 1) AS change, string_agg(DISTINCT regexp_replace(reason, 'view_redefine_readers', 's'), '; ') AS reasons
  FROM outcomes WHERE what LIKE 'join, %all behind' AND view = 'r1_total' GROUP BY 1 ORDER BY 1;
SELECT DISTINCT reason FROM outcomes WHERE what LIKE '%later' AND view <> 'v' AND reason IS NOT NULL;

-- Nothing new in the source: of rows that stay, none is lost.
CALL make('join');
SELECT n FROM r1_total;
SELECT alter_v('key added', 'join');
SELECT strategy, reason, rows_inserted + rows_updated + rows_deleted AS written FROM medallion.refresh('r1_total');
SELECT n FROM r1_total;

-- The index that is made for rows that go is over all columns: it goes with the old ones.
SELECT grow();
SELECT strategy FROM medallion.refresh('v');
SELECT indexname FROM pg_indexes WHERE tablename = 'v' ORDER BY 1;
SELECT alter_v('column retyped', 'join');
SELECT indexname FROM pg_indexes WHERE tablename = 'v' ORDER BY 1;
SELECT grow();
SELECT strategy FROM medallion.refresh('v');
SELECT alter_v('key dropped', 'join');
SELECT indexname FROM pg_indexes WHERE tablename = 'v' ORDER BY 1;
CALL settle('index');

-- There and back, before a reader looks: the columns are as they were, the rows came past the log.
TRUNCATE outcomes;
CREATE PROCEDURE check_and_back(of text, first text) LANGUAGE plpgsql AS $$
DECLARE
    what text := format('%s, %s, and back', of, first);
BEGIN
    CALL make(of);
    PERFORM grow();
    PERFORM medallion.refresh('v');
    COMMIT;
    PERFORM alter_v(first, of);
    COMMIT;
    PERFORM grow();
    PERFORM medallion.refresh('v');
    COMMIT;
    PERFORM medallion.alter_materialized_view('v', query, key_columns => keys) FROM bases WHERE base = of;
    COMMIT;
    PERFORM grow();
    COMMIT;
    CALL settle(what);
    PERFORM grow();
    COMMIT;
    CALL settle(what || ', later');
END $$;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT change FROM changes ORDER BY 1 LOOP
        CALL check_and_back('join', name);
        CALL check_and_back('append', name);
    END LOOP;
END $$;
SELECT count(*), count(*) FILTER (WHERE differences > 0) AS wrong FROM outcomes;
SELECT * FROM outcomes WHERE differences > 0 ORDER BY what, view LIMIT 20;

-- A rollback leaves readers what they had, and their changes.
CALL make('join');
SELECT grow();
SELECT strategy FROM medallion.refresh('v');
BEGIN;
SELECT alter_v('key added, rows', 'join');
SELECT n = (SELECT count(*) FROM v) AS equal FROM r1_total;
SELECT strategy, reason FROM medallion.refresh('r1_total');
SELECT n = (SELECT count(*) FROM v) AS equal FROM r1_total;
ROLLBACK;
SELECT strategy, reason FROM medallion.refresh('r1_total');
SELECT n = (SELECT count(*) FROM v) AS equal FROM r1_total;

-- The files of a published view stay, and readers take in what is written; a column that gets another
-- type is written anew, past the log.
CALL make('join');
SET client_min_messages = error;
CREATE PUBLICATION view_redefine_readers FOR TABLE v;
ALTER TABLE v REPLICA IDENTITY FULL;
TRUNCATE outcomes;
SELECT alter_v('key added, rows', 'join');
CALL settle('published, key added');
SELECT alter_v('column shortened', 'join');
CALL settle('published, column shortened');
SELECT grow();
CALL settle('published, later');
SELECT what, strategy, reason, differences FROM outcomes WHERE view = 'r1_total';
SELECT count(*), count(*) FILTER (WHERE differences > 0) AS wrong FROM outcomes;
DROP PUBLICATION view_redefine_readers;

-- A cursor that is open on the view.
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM v;
FETCH 1 FROM c;
SELECT alter_v('key dropped', 'join');
ROLLBACK;
DROP SCHEMA view_redefine_readers CASCADE;
