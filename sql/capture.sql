--
-- Change capture: whatever is done to a table, what was captured takes the
-- present rows back to those of the last refresh (verify before a refresh), and
-- nothing that was missed stays unnoticed.
--
CREATE SCHEMA capture;
SET search_path = capture, public;
SET client_min_messages = warning;
SET check_function_bodies = off;

-- differences at the last frontier; then those after a refresh, and why it was
-- more than reading changes, if it was
CREATE FUNCTION step(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    after bigint;
    broken boolean;
    r record;
BEGIN
    SELECT p.frontier IS NULL INTO broken FROM medallion.source_position p WHERE p.relid = 'v'::regclass;
    SELECT count(*) INTO before FROM medallion.verify('v');
    SELECT * INTO r FROM medallion.refresh('v');
    SELECT count(*) INTO after FROM medallion.verify('v');
    RETURN what || ': ' || CASE WHEN r.strategy IN ('none', 'full') THEN r.strategy ELSE 'incremental' END || ', '
        || CASE WHEN before = 0 THEN 'known' ELSE 'not known' END
        || CASE WHEN broken THEN ', capture was broken' ELSE '' END
        || CASE WHEN after = 0 THEN ', equal' ELSE ', DIFFERS' END;
END $$;

CREATE TABLE t (id int PRIMARY KEY, grp text, v numeric, big text);
INSERT INTO t SELECT i, 'g' || i % 3, i FROM generate_series(1, 20) i;
SELECT medallion.create_materialized_view('v', 'SELECT grp, count(*), sum(v), max(length(big)) FROM t GROUP BY 1',
                                          NULL, with_data => false);
-- set up before the view is filled, so that filling it locks nobody out
SELECT count(*) FROM medallion.captured_tables;
SELECT rows_inserted FROM medallion.refresh('v');
SELECT table_name, triggers, log_bytes FROM medallion.captured_tables;

-- each kind of statement
INSERT INTO t VALUES (101, 'x', 1, 'a'), (102, NULL, NULL, repeat('xyz', 100000));
SELECT step('INSERT');
UPDATE t SET v = v + 1 WHERE id < 5;
SELECT step('UPDATE');
UPDATE t SET v = v;
SELECT log_bytes = 0 OR NOT EXISTS (SELECT FROM medallion.source_position WHERE relid = 'v'::regclass AND changed)
       AS "rows that stay equal are no change" FROM medallion.captured_tables;
DELETE FROM t WHERE id IN (3, 102);
SELECT step('DELETE');
INSERT INTO t VALUES (1, 'upsert', 5), (201, 'upsert', 6) ON CONFLICT (id) DO UPDATE SET v = excluded.v, grp = excluded.grp;
SELECT step('ON CONFLICT');
MERGE INTO t USING (VALUES (1, 50), (2, NULL), (301, 7)) n(id, v) ON t.id = n.id
 WHEN MATCHED AND n.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = n.v
 WHEN NOT MATCHED THEN INSERT VALUES (n.id, 'merged', n.v);
SELECT step('MERGE');
COPY t (id, grp, v) FROM stdin;
401	copied	1
402	copied	\N
\.
SELECT step('COPY');
WITH gone AS (DELETE FROM t WHERE id > 400 RETURNING *) INSERT INTO t SELECT id + 100, grp, v FROM gone;
SELECT step('WITH');
TRUNCATE t;
INSERT INTO t SELECT i, 'g' || i % 3, i FROM generate_series(1, 21) i;
SELECT step('TRUNCATE and reload');
SET session_replication_role = replica;
INSERT INTO t VALUES (501, 'replica', 1);
RESET session_replication_role;
SELECT step('session_replication_role');

-- transactions
BEGIN;
INSERT INTO t VALUES (601, 'own', 1);
SAVEPOINT a;
INSERT INTO t VALUES (602, 'rolled back', 1);
ROLLBACK TO a;
INSERT INTO t VALUES (603, 'own', 1);
SELECT step('own rows');
INSERT INTO t VALUES (604, 'own', 1);
SELECT step('own rows after a refresh');
INSERT INTO t VALUES (605, 'own', 1);
COMMIT;
SELECT step('the rest of them');
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO t VALUES (606, 'own', 1);
SELECT step('REPEATABLE READ');
COMMIT;
SELECT step('and after it');
BEGIN;
INSERT INTO t VALUES (607, 'own', 1);
ROLLBACK;
SELECT step('ROLLBACK');

-- foreign keys
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent SELECT generate_series(1, 1000);
ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE;
DELETE FROM parent WHERE id < 4;
UPDATE parent SET id = id + 5000 WHERE id < 8;
SELECT step('cascades');
ALTER TABLE t DROP CONSTRAINT t_id_fkey;

-- DDL on the table: followed, or noticed
ALTER TABLE t ADD COLUMN extra int;
INSERT INTO t VALUES (701, 'wide', 1, NULL, 5);
SELECT step('ADD COLUMN');
ALTER TABLE t ADD COLUMN filled int DEFAULT 7;
INSERT INTO t VALUES (702, 'wide', 1, NULL, 5);
DELETE FROM t WHERE id = 501;
SELECT step('ADD COLUMN with DEFAULT');
ALTER TABLE t DROP COLUMN extra;
INSERT INTO t (id, grp, v) VALUES (703, 'narrow', 1);
DELETE FROM t WHERE id = 701;
SELECT step('DROP COLUMN');
ALTER TABLE t RENAME COLUMN v TO amount;
UPDATE t SET amount = 9 WHERE id = 703;
SELECT step('RENAME COLUMN');
ALTER TABLE t RENAME TO renamed;
INSERT INTO renamed (id, grp, amount) VALUES (704, 'renamed', 1);
SELECT step('RENAME');
VACUUM FULL renamed;
INSERT INTO renamed (id, grp, amount) VALUES (705, 'vacuumed', 1);
SELECT step('VACUUM FULL');
INSERT INTO renamed (id, grp, amount) VALUES (706, 'rewritten', 1);
ALTER TABLE renamed ALTER COLUMN filled TYPE bigint USING filled * 2;
SELECT * FROM medallion.verify('v');
SELECT rows_deleted FROM medallion.refresh('v');
SELECT step('after a rewrite');
ALTER TABLE renamed DISABLE TRIGGER ALL;
INSERT INTO renamed (id, grp, amount) VALUES (707, 'unseen', 1);
ALTER TABLE renamed ENABLE TRIGGER ALL;
SELECT step('DISABLE TRIGGER');
SELECT last_reason FROM medallion.captured_tables;
INSERT INTO renamed (id, grp, amount) VALUES (708, 'seen again', 1);
SELECT step('mended');
\set VERBOSITY terse
DO $$
BEGIN
    EXECUTE format('DROP TRIGGER %I ON renamed',
                   (SELECT tgname FROM pg_trigger WHERE tgrelid = 'renamed'::regclass
                       AND tgfoid = 'medallion.capture_change'::regproc ORDER BY 1 LIMIT 1));
EXCEPTION WHEN object_in_use THEN
    RAISE WARNING '%', regexp_replace(sqlerrm, '_[0-9]+', '_N');
END $$;

-- a log that nobody reads has a limit
INSERT INTO renamed (id, grp, amount) SELECT i, 'many', 1 FROM generate_series(10000, 60000) i;
SET medallion.change_log_limit = '1MB';
SELECT medallion.prune_change_logs();
SELECT read_frontier AS lost FROM medallion.source_position WHERE relid = 'v'::regclass;
SELECT rows_inserted FROM medallion.refresh('v');
SELECT * FROM medallion.verify('v');
SELECT medallion.prune_change_logs();
SELECT log_bytes < 200000 AS given_up FROM medallion.captured_tables;
INSERT INTO renamed (id, grp, amount) SELECT i, 'more', 1 FROM generate_series(70000, 99000) i;
SELECT (SELECT sum(log_bytes) FROM medallion.captured_tables) < 2000000 AS limited,
       (SELECT string_agg(reason, ',') FROM medallion.capture_mark);
SELECT rows_inserted FROM medallion.refresh('v');
SELECT * FROM medallion.verify('v');
RESET medallion.change_log_limit;

-- logs are emptied in turn
SELECT medallion.alter_materialized_view('v', refresh_mode => 'incremental');
SELECT step('quiet');
INSERT INTO renamed (id, grp, amount) SELECT i, 'a', 1 FROM generate_series(100000, 130000) i;
SELECT step('one');
DELETE FROM renamed WHERE id >= 100000;
SELECT step('two');
INSERT INTO renamed (id, grp, amount) SELECT i, 'a', 1 FROM generate_series(100000, 130000) i;
SELECT step('three');
SELECT medallion.prune_change_logs();
SELECT log_bytes < 100000 AS emptied FROM medallion.captured_tables;

-- it goes with the last incremental view
SELECT medallion.create_materialized_view('v2', 'SELECT id FROM renamed', NULL, with_data => false);
SELECT medallion.drop_materialized_view('v');
SELECT table_name, readers FROM medallion.captured_tables;
DROP TABLE v2;
SELECT count(*) FROM medallion.captured_tables;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'medallion.capture_change'::regproc;
SELECT count(*) FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace;

-- partitioned tables
CREATE TABLE p (id int, grp text, v numeric) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p2 (v numeric, id int, grp text) PARTITION BY RANGE (id);
CREATE TABLE p2a (gone int, grp text, id int, v numeric);
ALTER TABLE p2a DROP COLUMN gone;
ALTER TABLE p2 ATTACH PARTITION p2a FOR VALUES FROM (100) TO (150);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200);
INSERT INTO p SELECT i, 'g' || i % 3, i FROM generate_series(1, 140) i;
SELECT medallion.create_materialized_view('v', 'SELECT grp, count(*), sum(v) FROM p GROUP BY 1',
                                          NULL, with_data => false);
SELECT rows_inserted FROM medallion.refresh('v');
INSERT INTO p SELECT i, 'root', i FROM generate_series(90, 110) i;
SELECT step('written through the root');
INSERT INTO p1 VALUES (3, 'leaf', 1);
INSERT INTO p2 (id, grp, v) VALUES (120, 'middle', 1);
UPDATE p2a SET v = 5 WHERE id = 121;
DELETE FROM p2a WHERE id = 122;
SELECT step('written to a partition');
UPDATE p SET id = id + 99 WHERE id < 5;
SELECT step('moved between partitions');
CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300);
INSERT INTO p3 VALUES (200, 'new', 1);
SELECT step('CREATE TABLE PARTITION OF');
CREATE TABLE p4 (LIKE p);
INSERT INTO p4 VALUES (400, 'attached', 1);
ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (400) TO (500);
INSERT INTO p4 VALUES (401, 'after', 1);
SELECT step('ATTACH');
ALTER TABLE p DETACH PARTITION p2;
INSERT INTO p2 (id, grp, v) VALUES (125, 'outside', 1);
SELECT step('DETACH');
SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('p2'::regclass, 'p2a'::regclass);
TRUNCATE p3;
SELECT step('TRUNCATE of a partition');
DROP TABLE p4;
SELECT step('DROP of a partition');
CREATE TABLE other (id int) ;
BEGIN;
CREATE SCHEMA passing;
ALTER TABLE p1 SET SCHEMA passing;
DROP SCHEMA passing CASCADE;
COMMIT;
SELECT step('a partition that goes with its schema');
INSERT INTO p VALUES (250, 'left', 1);
SELECT step('mended');

-- a partition by itself, and a child table, are written by statements on others
SELECT medallion.drop_materialized_view('v');
CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (500) TO (600);
SELECT medallion.create_materialized_view('v', 'SELECT grp, count(*) FROM p5 GROUP BY 1', NULL, with_data => false);
SELECT rows_inserted FROM medallion.refresh('v');
SELECT table_name, triggers FROM medallion.captured_tables;
INSERT INTO p VALUES (500, 'root', 1), (501, 'root', 1), (250, 'elsewhere', 1);
UPDATE p SET grp = 'changed' WHERE id = 501;
UPDATE p SET id = 251 WHERE id = 500;
SELECT step('a partition by itself');
SELECT medallion.drop_materialized_view('v');
CREATE TABLE single (id int, grp text);
SELECT medallion.create_materialized_view('v', 'SELECT grp, count(*) FROM single GROUP BY 1', NULL, with_data => false);
SELECT rows_inserted FROM medallion.refresh('v');
CREATE TABLE mother (id int);
ALTER TABLE single INHERIT mother;
INSERT INTO single VALUES (1, 'a'), (2, 'b');
UPDATE mother SET id = 3 WHERE id = 1;
DELETE FROM mother WHERE id = 2;
SELECT step('a child table');
SELECT triggers, last_reason FROM medallion.captured_tables;
DELETE FROM mother WHERE id = 3;
SELECT step('by row triggers');
SELECT medallion.drop_materialized_view('v');

-- rows with a byte of nulls and around it, with and without nulls, short and long ones
CREATE FUNCTION steps_of_width(n int, last_type text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE (SELECT format('CREATE TABLE wide (id int, %s, last %s)', string_agg(format('c%s %s', i, (ARRAY['text', 'int'])[1 + i % 2]), ', '), last_type)
               FROM generate_series(2, n - 1) i);
    PERFORM medallion.create_materialized_view('v', 'SELECT * FROM wide', NULL, 'incremental');
    EXECUTE (SELECT format('INSERT INTO wide SELECT g, %s, (g %% 10)::text::%s FROM generate_series(1, 40) g',
                           string_agg(format('CASE WHEN g < 10 OR g %% %s > 0 THEN g %% %s END', i + 1, i), ', '), last_type)
               FROM generate_series(2, n - 1) i);
    INSERT INTO wide (id, c2) SELECT 100, string_agg(md5(g::text), '') FROM generate_series(1, 4000) g;
    RETURN NEXT step('inserted');
    UPDATE wide SET last = NULL WHERE id % 3 = 0;
    UPDATE wide SET c2 = left(c2, 20000) || c2, last = '1' WHERE id % 7 = 0 OR id = 100;
    DELETE FROM wide WHERE id % 5 = 0 AND id < 100;
    RETURN NEXT step('changed');
    DELETE FROM wide WHERE id % 11 = 0 OR id = 100;
    INSERT INTO wide (id, last) VALUES (200, '2');
    ALTER TABLE wide ADD COLUMN more int DEFAULT 7;
    UPDATE wide SET more = 8 WHERE id < 10;
    RETURN NEXT step('another column');
    PERFORM medallion.drop_materialized_view('v');
    DROP TABLE wide;
END $$;
SELECT n, last_type, string_agg(s, '; ') FROM generate_series(6, 9) n, unnest(ARRAY['text', '"char"', 'bigint']) last_type, steps_of_width(n, last_type) s GROUP BY 1, 2 ORDER BY 1, 2;

-- what cannot be captured
CREATE UNLOGGED TABLE unlogged (id int);
CREATE ROLE regress_capture;
GRANT ALL ON SCHEMA capture TO regress_capture;
GRANT SELECT ON single TO regress_capture;
SELECT q, (SELECT e.detail FROM medallion.explain_refresh(q) e WHERE e.detail IS NOT NULL AND e.step LIKE '%Scan%' LIMIT 1)
  FROM unnest(ARRAY['SELECT id FROM unlogged', 'SELECT id FROM mother', 'SELECT oid FROM pg_class']) q;
SET ROLE regress_capture;
SELECT e.changes, e.detail FROM medallion.explain_refresh('SELECT id FROM single') e WHERE e.step LIKE '%Scan%';
RESET ROLE;
GRANT TRIGGER ON single TO regress_capture;
SET ROLE regress_capture;
SELECT e.changes FROM medallion.explain_refresh('SELECT id FROM single') e WHERE e.step LIKE '%Scan%';
RESET ROLE;

DROP SCHEMA capture CASCADE;
DROP ROLE regress_capture;
SELECT count(*) FROM medallion.capture;
SELECT count(*) FROM medallion.capture_log;
