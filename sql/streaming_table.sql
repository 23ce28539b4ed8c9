-- Streaming tables: definition, change and end, by functions and by DDL. Needs
-- no broker, and one transaction hides it from the workers.
\set ON_ERROR_ROLLBACK on
\pset null '(null)'
BEGIN;
CREATE SCHEMA st;
CREATE SERVER k1 FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '127.0.0.1:1');

CREATE VIEW st.columns AS
    SELECT attrelid::regclass AS table_name,
           string_agg(format('%s %s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' not null' END), ', ' ORDER BY attnum) AS columns
      FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped GROUP BY 1;
CREATE VIEW st.definitions AS
    SELECT relid, server, topic, format, start_at, options, initialized, paused, generation FROM medallion.stream;

-- Columns: those given, those that every table has, and those of a payload
SELECT medallion.create_streaming_table('st.plain', 'k1', 'plain', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.plain_text', 'k1', 'plain', 'text', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.plain_raw', 'k1', 'plain', 'raw', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.typed', 'k1', 'typed', columns => 'id bigint PRIMARY KEY, amount numeric(10,2) CHECK (amount > 0), kafka_offset bigint, "Mixed Case" text DEFAULT ''x'' -- comment', options => '{"check_topic": false}');
CREATE TABLE st.ddl (id bigint, kafka_headers jsonb, rescued_data jsonb)
    WITH (medallion.server = 'k1', medallion.topic = ddl, medallion.check_topic = false, fillfactor = 80, autovacuum_enabled = off);
CREATE TABLE st.ddl_plain () WITH (medallion.server = 'k1', medallion.topic = 'ddl', medallion.format = 'raw', medallion.check_topic = off);
CREATE TABLE st.ddl_like (LIKE st.ddl) WITH (medallion.server = 'k1', medallion.topic = 'ddl', medallion.check_topic = off);
SELECT * FROM st.columns WHERE table_name::text LIKE 'st.%' AND table_name::text NOT IN ('st.columns', 'st.definitions') ORDER BY table_name::text COLLATE "C";
SELECT * FROM st.definitions ORDER BY relid::text COLLATE "C";
SELECT relname, reloptions FROM pg_class WHERE oid = 'st.ddl'::regclass;
SELECT tgrelid::regclass, tgenabled FROM pg_trigger WHERE tgname = 'medallion_guard' AND tgrelid = 'st.ddl'::regclass;
CREATE TABLE IF NOT EXISTS st.ddl (a int) WITH (medallion.server = 'k1', medallion.topic = 'other');

-- NULL is an error that names the argument
SELECT medallion.create_streaming_table(NULL, 'k1', 't');
SELECT medallion.create_streaming_table('st.t', NULL, 't');
SELECT medallion.create_streaming_table('st.t', 'k1', NULL);
SELECT medallion.create_streaming_table('st.t', 'k1', 't', NULL);
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => NULL);
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => NULL);
SELECT medallion.drop_streaming_table(NULL);
SELECT medallion.pause(NULL);
SELECT medallion.resume(NULL);
SELECT medallion.wait_for_offset(NULL, 0, 0, '0');
SELECT medallion.wait_for_offset('st.plain', NULL, 0, '0');
SELECT medallion.wait_for_offset('st.plain', 0, NULL, '0');
SELECT medallion.wait_for_offset('st.plain', 0, 0, NULL);
SELECT medallion.wait_until_caught_up('st.plain', NULL);

-- Servers, topics, formats
SELECT medallion.create_streaming_table('st.t', 'k', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', '', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 'a b', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', '..', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', repeat('x', 250), options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', '^orders_(', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', '^orders_', start_at => '{"0": 1}', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"t": {"0": 1}}', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', 'jsn', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', 'xml', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', 'avro', options => '{"check_topic": false}');
CREATE TABLE st.t (a int) WITH (medallion.server = 'k1');
CREATE TABLE st.t (a int) WITH (medallion.topic = 't');
CREATE TABLE st.t (a int) WITH (medallion.server = 'k1', medallion.topic);
CREATE TABLE st.t (a int) WITH (medallion.server = 'k1', medallion.topic = 't', medallion.topic = 'u');
CREATE TABLE st.t (a int) WITH (medallion.sever = 'k1', medallion.topic = 't');
CREATE TABLE st.t (a int) WITH (medalion.server = 'k1', medallion.topic = 't');

-- Options
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '[]');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": {"ms": 1}}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": null}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_intervall": "1 s"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"nothing like it": 1}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"topic": "u"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": 100}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": "-1 s"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": "2 days"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"flush_interval": "soon"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"batch_max_records": 0}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"batch_max_records": "many"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"batch_max_bytes": "16XB"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"batch_max_bytes": 1}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"on_error": "dead_leter"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"on_gap": "ignore"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"schema_evolution": "add_columns"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"isolation_level": "serializable"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"group_id": ""}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', options => '{"check_topic": "perhaps"}');
SELECT medallion.create_streaming_table('st.options', 'k1', 't', 'raw', options =>
    '{"check_topic": false, "flush_interval": "1.5 s", "batch_max_records": "10", "batch_max_bytes": "2MB", "on_error": "FAIL",
      "on_gap": "fail", "schema_evolution": "none", "isolation_level": "read_uncommitted", "group_id": "g"}');
SELECT options FROM st.definitions WHERE relid = 'st.options'::regclass;

-- start_at is checked, and brought into one form
SET TimeZone = 'Asia/Kolkata';
SELECT medallion.create_streaming_table('st.s1', 'k1', 't', 'raw', start_at => '2026-01-02 03:04:05.678', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.s2', 'k1', 't', 'raw', start_at => '{"7": 1, "0": 42}', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.s3', 'k1', 't', 'raw', start_at => 'Latest', options => '{"check_topic": false}');
SELECT relid, start_at FROM st.definitions WHERE relid::text LIKE 'st.s_' ORDER BY relid::text COLLATE "C";
RESET TimeZone;
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => 'earlyest');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '2026-01-01 99:00');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '1969-01-01');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"0": -1}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"0": 1.5}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"0": "1"}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"zero": 1}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"4294967296": 1}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"0": 1, "00": 2}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', start_at => '{"0": 18446744073709551616}');

-- Columns: what is wrong with them is found at once
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => '', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => 'a int, b nosuch', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => 'a int, b int int', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => 'a int) WITH (fillfactor = 10', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => 'a int); DROP SCHEMA st CASCADE; --', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', columns => 'kafka_offset int', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.t', 'k1', 't', 'raw', columns => 'a int', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('nosuch.t', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('a.b.c.d', 'k1', 't', options => '{"check_topic": false}');

-- Kinds of tables that it cannot be
CREATE TEMP TABLE t (a int) WITH (medallion.server = 'k1', medallion.topic = 't', medallion.check_topic = off);
CREATE UNLOGGED TABLE st.t (a int) WITH (medallion.server = 'k1', medallion.topic = 't', medallion.check_topic = off);
CREATE TABLE st.t () INHERITS (st.ddl) WITH (medallion.server = 'k1', medallion.topic = 't', medallion.check_topic = off);
CREATE TABLE st.t () INHERITS (st.ddl);
CREATE TABLE st.t WITH (medallion.server = 'k1', medallion.topic = 't') AS SELECT 1 AS a;

-- Partitioned: the partitions are guarded like the table, and columns that
-- every streaming table has may be the key
CREATE TABLE st.by_time (a int) PARTITION BY RANGE (kafka_timestamp) WITH (medallion.server = 'k1', medallion.topic = 't', medallion.check_topic = off);
CREATE TABLE st.by_time_1 PARTITION OF st.by_time FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (a);
CREATE TABLE st.by_time_2 PARTITION OF st.by_time_1 DEFAULT;
CREATE TABLE st.by_time_3 (LIKE st.by_time);
ALTER TABLE st.by_time ATTACH PARTITION st.by_time_3 DEFAULT;
INSERT INTO st.by_time_2 VALUES (1, 0, 0, '2026-01-01', now());
TRUNCATE st.by_time_1;
SELECT history_changes FROM medallion.stream WHERE relid = 'st.by_time'::regclass;
ALTER TABLE st.by_time_3 DISABLE TRIGGER medallion_guard;
ALTER TABLE st.by_time_3 ENABLE ALWAYS TRIGGER medallion_guard;
SELECT history_changes FROM medallion.stream WHERE relid = 'st.by_time'::regclass;
DROP TRIGGER medallion_guard ON st.by_time_2;
ALTER TRIGGER medallion_guard ON st.by_time_2 RENAME TO unguarded;
ALTER TABLE st.by_time_2 SET UNLOGGED;
ALTER TABLE st.by_time_2 SET (medallion.flush_interval = '2 s');
ALTER TABLE st.by_time DETACH PARTITION st.by_time_1 CONCURRENTLY;
ALTER TABLE st.by_time DETACH PARTITION st.by_time_1;
SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'medallion_guard' AND tgrelid::regclass::text LIKE 'st.by_time%' ORDER BY 1;
INSERT INTO st.by_time_2 VALUES (1, 0, 0, '2026-01-01', now());
ALTER TABLE st.by_time ATTACH PARTITION st.by_time_1 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'medallion_guard' AND tgrelid::regclass::text LIKE 'st.by_time%' ORDER BY 1;
SELECT history_changes FROM medallion.stream WHERE relid = 'st.by_time'::regclass;
ALTER TABLE st.by_time_1 DETACH PARTITION st.by_time_2;
SELECT history_changes FROM medallion.stream WHERE relid = 'st.by_time'::regclass;
CREATE UNLOGGED TABLE st.by_time_4 PARTITION OF st.by_time_1 FOR VALUES IN (4);
SELECT medallion.create_streaming_table('st.by_time_3', 'k1', 't', options => '{"check_topic": false}');
DROP TABLE st.by_time_1;
SELECT history_changes FROM medallion.stream WHERE relid = 'st.by_time'::regclass;
DROP TABLE st.by_time, st.by_time_2;
SELECT count(*) FROM medallion.stream WHERE topic = 't' AND relid::text LIKE 'st.by%';

-- Adoption: an existing table keeps its rows and gets what is missing
CREATE TABLE st.history (id bigint, kafka_partition int);
INSERT INTO st.history VALUES (1), (2);
SELECT medallion.create_streaming_table('st.history', 'k1', 't', columns => 'id bigint', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.history', 'k1', 't', options => '{"check_topic": false}');
SELECT * FROM st.history ORDER BY id;
SELECT columns FROM st.columns WHERE table_name = 'st.history'::regclass;
INSERT INTO st.history VALUES (3);
SELECT medallion.create_streaming_table('st.history', 'k1', 't', options => '{"check_topic": false}');
CREATE VIEW st.v AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW st.mv AS SELECT 1 AS a;
CREATE SEQUENCE st.seq;
CREATE INDEX idx ON st.history (id);
CREATE UNLOGGED TABLE st.unlogged (a int);
CREATE TEMP TABLE temporary (a int);
CREATE TABLE st.parted (a int) PARTITION BY LIST (a);
CREATE TABLE st.part PARTITION OF st.parted DEFAULT;
CREATE TABLE st.parent (a int);
CREATE TABLE st.child () INHERITS (st.parent);
CREATE TABLE st.misfit (a int, kafka_offset text);
SELECT medallion.create_streaming_table('st.v', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.mv', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.seq', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.idx', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.unlogged', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('temporary', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.parted', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.part', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.parent', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.child', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.misfit', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('pg_class', 'k1', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('medallion.gap', 'k1', 't', options => '{"check_topic": false}');

-- ALTER TABLE: our options beside core's, and what is not allowed
CREATE FUNCTION st.generation(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT generation FROM medallion.stream WHERE relid = $1';
SELECT st.generation('st.ddl') AS before \gset
ALTER TABLE st.ddl SET (medallion.flush_interval = '2 s', fillfactor = 70), ADD COLUMN note text;
SELECT st.generation('st.ddl') - :before AS generations, options FROM st.definitions WHERE relid = 'st.ddl'::regclass;
SELECT reloptions FROM pg_class WHERE oid = 'st.ddl'::regclass;
ALTER TABLE st.ddl SET (medallion.on_error = fail, medallion.batch_max_bytes = '1MB');
ALTER TABLE st.ddl SET (medallion.flush_interval = 0);
SELECT options ->> 'flush_interval' AS flush_interval FROM st.definitions WHERE relid = 'st.ddl'::regclass;
ALTER TABLE st.ddl RESET (medallion.flush_interval, medallion.batch_max_bytes, fillfactor);
SELECT options FROM st.definitions WHERE relid = 'st.ddl'::regclass;
ALTER TABLE st.ddl SET (medallion.flush_intervall = '2 s');
ALTER TABLE st.ddl SET (medallion.flush_interval);
ALTER TABLE st.ddl SET (medallion.flush_interval = '1 s'), SET (medallion.flush_interval = '2 s');
ALTER TABLE st.ddl RESET (medallion.topic);
ALTER TABLE st.ddl RESET (medallion.nothing_like_it);
ALTER TABLE st.ddl SET (medallion.format = 'raw');
ALTER TABLE st.ddl SET (medallion.server = 'nosuch');
ALTER TABLE st.ddl SET (medallion.topic = 'other', medallion.start_at = 'latest', medallion.check_topic = false);
SELECT topic, start_at FROM st.definitions WHERE relid = 'st.ddl'::regclass;
ALTER TABLE st.ddl_plain SET (medallion.format = 'text');
SELECT format FROM st.definitions WHERE relid = 'st.ddl_plain'::regclass;
ALTER TABLE st.parent SET (medallion.flush_interval = '2 s');
ALTER TABLE st.ddl SET UNLOGGED;
ALTER TABLE st.ddl INHERIT st.parent;
ALTER TABLE st.parent INHERIT st.ddl;
ALTER TABLE st.parted ATTACH PARTITION st.ddl FOR VALUES IN (1);
ALTER TABLE st.ddl ALTER COLUMN kafka_timestamp TYPE text;
ALTER TABLE st.ddl DROP COLUMN kafka_offset;
ALTER TABLE st.ddl DROP COLUMN IF EXISTS nosuch;
DROP TRIGGER medallion_guard ON st.ddl;
ALTER TRIGGER medallion_guard ON st.ddl RENAME TO unguarded;

-- Renames: what fills a column stays
ALTER TABLE st.ddl RENAME COLUMN id TO order_id;
ALTER TABLE st.ddl RENAME COLUMN order_id TO "Order Id";
ALTER TABLE st.ddl RENAME COLUMN kafka_offset TO position;
SELECT column_name, source_name FROM medallion.stream_column WHERE relid = 'st.ddl'::regclass ORDER BY 1;
ALTER TABLE st.ddl DROP COLUMN position;
ALTER TABLE st.ddl RENAME COLUMN position TO kafka_offset;
ALTER TABLE st.ddl DROP COLUMN "Order Id";
SELECT column_name, source_name FROM medallion.stream_column WHERE relid = 'st.ddl'::regclass;
CREATE SCHEMA st2;
ALTER TABLE st.ddl RENAME TO renamed;
ALTER TABLE st.renamed SET SCHEMA st2;
ALTER SERVER k1 RENAME TO k2;
SELECT relid, server FROM st.definitions WHERE relid = 'st2.renamed'::regclass;
SELECT DISTINCT server FROM medallion.stream;

-- What changes rows, or may change them unseen, counts as a change of history
SELECT history_changes AS before FROM medallion.stream WHERE relid = 'st2.renamed'::regclass \gset
ALTER TABLE st2.renamed ALTER COLUMN note TYPE varchar(10);
ALTER TABLE st2.renamed DISABLE TRIGGER ALL;
ALTER TABLE st2.renamed ENABLE TRIGGER ALL;
SELECT history_changes - :before AS history_changes FROM medallion.stream WHERE relid = 'st2.renamed'::regclass;

-- Servers: a change reaches the tables, and a server in use stays
SELECT st.generation('st2.renamed') AS before \gset
ALTER SERVER k2 OPTIONS (ADD client_id 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER k2 OPTIONS (sasl_username 'u');
ALTER USER MAPPING FOR CURRENT_USER SERVER k2 OPTIONS (SET sasl_username 'v');
DROP USER MAPPING FOR CURRENT_USER SERVER k2;
SELECT st.generation('st2.renamed') - :before AS generations;
DROP SERVER k2;
DROP SERVER k2 CASCADE;
CREATE SERVER k3 FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
ALTER TABLE st2.renamed SET (medallion.server = 'k3', medallion.check_topic = false);
SELECT server FROM st.definitions WHERE relid = 'st2.renamed'::regclass;

-- Pause and resume
SELECT st.generation('st2.renamed') AS before \gset
SELECT medallion.pause('st2.renamed');
SELECT medallion.pause('st2.renamed');
SELECT state, reason = 'paused by ' || current_user AS reason FROM medallion.streaming_tables WHERE table_name = 'st2.renamed'::regclass;
SELECT medallion.resume('st2.renamed');
SELECT medallion.resume('st2.renamed');
SELECT state, reason FROM medallion.streaming_tables WHERE table_name = 'st2.renamed'::regclass;
SELECT st.generation('st2.renamed') - :before AS generations;
SELECT medallion.pause('st.parent');
SELECT medallion.resume('st.parent');
SELECT medallion.pause(0);
SELECT medallion.create_materialized_view('st.mview', 'SELECT 1 AS one');
SELECT medallion.pause('st.mview');
SELECT paused FROM medallion.view WHERE relid = 'st.mview'::regclass;
SELECT medallion.resume('st.mview');
SELECT paused FROM medallion.view WHERE relid = 'st.mview'::regclass;
SELECT medallion.create_streaming_table('st.mview', 'k3', 't', options => '{"check_topic": false}');
DROP TABLE st.mview;

-- A copy of the database comes up paused, and is taken over
SELECT medallion.pause('st.typed');
UPDATE medallion.stream SET origin = 'elsewhere';
DELETE FROM pg_depend WHERE refclassid = 'pg_foreign_server'::regclass AND classid = 'pg_trigger'::regclass;
SELECT DISTINCT state, reason FROM medallion.streaming_tables;
SELECT medallion.resume('st2.renamed');
SELECT state, count(*) FROM medallion.streaming_tables GROUP BY 1 ORDER BY 1;
SELECT medallion.resume_all();
-- what was paused by hand stays so
SELECT state, count(*), min(table_name::text) AS first FROM medallion.streaming_tables GROUP BY 1 ORDER BY 1;
SELECT medallion.resume('st.typed');
SELECT count(DISTINCT objid) = (SELECT count(*) FROM medallion.stream) AS all_depend FROM pg_depend
 WHERE refclassid = 'pg_foreign_server'::regclass AND classid = 'pg_trigger'::regclass;

-- Waiting
SELECT medallion.wait_for_offset('st2.renamed', 0, 0, '10 ms');
SELECT medallion.wait_for_offset('st2.renamed', -1, 0, '10 ms');
SELECT medallion.wait_for_offset('st2.renamed', 0, -1, '10 ms');
SELECT medallion.wait_for_offset('st2.renamed', 0, 0, '-10 ms');
SELECT medallion.wait_for_offset('st.parent', 0, 0, '10 ms');
SELECT medallion.wait_until_caught_up('st.parent', '10 ms');
INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset, high_watermark, row_count, dead_count)
    SELECT relid, topic, 0, 5, 8, 10, 2, 1 FROM medallion.stream WHERE relid = 'st2.renamed'::regclass;
SELECT medallion.wait_for_offset('st2.renamed', 0, 7, '0'), medallion.wait_for_offset('st2.renamed', 0, 8, '0');

-- State
UPDATE medallion.stream SET initialized = true WHERE relid = 'st2.renamed'::regclass;
SELECT state, reason, rows, dead_letters, lag FROM medallion.streaming_tables WHERE table_name = 'st2.renamed'::regclass;
INSERT INTO medallion.stream_status VALUES ('st2.renamed', (SELECT topic FROM medallion.stream WHERE relid = 'st2.renamed'::regclass), '08006', 'no answer', 3, now(), now());
SELECT state, reason, sqlstate, failures FROM medallion.streaming_tables WHERE table_name = 'st2.renamed'::regclass;
SELECT kafka_partition, start_offset, next_offset, high_watermark, lag, rows, dead_letters FROM medallion.stream_partitions;
INSERT INTO medallion.dead_letter (relid, topic, kafka_partition, kafka_offset, payload, sqlstate, message)
    VALUES ('st2.renamed', 'other', 0, 6, 'x', '22P02', 'bad');
INSERT INTO medallion.gap (relid, topic, kafka_partition, first_offset, next_offset, reason) VALUES ('st2.renamed', 'other', 0, 1, 2, 'compacted');
SELECT table_name, kafka_offset, payload, sqlstate FROM medallion.dead_letters;
SELECT table_name, first_offset, next_offset, reason FROM medallion.gaps;
SELECT dead_letters FROM medallion.streaming_tables WHERE table_name = 'st2.renamed'::regclass;

-- Privileges
CREATE ROLE st_owner;
CREATE ROLE st_reader;
GRANT USAGE ON SCHEMA st, st2 TO st_owner, st_reader;
GRANT CREATE ON SCHEMA st TO st_owner;
SET ROLE st_owner;
SELECT medallion.create_streaming_table('st.mine', 'k3', 't', options => '{"check_topic": false}');
CREATE TABLE st.mine (a int) WITH (medallion.server = 'k3', medallion.topic = 't', medallion.check_topic = false);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER k3 TO st_owner;
SET ROLE st_owner;
SELECT medallion.create_streaming_table('st2.mine', 'k3', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.mine', 'k3', 't', options => '{"check_topic": false}');
SELECT medallion.create_streaming_table('st.parent', 'k3', 't', options => '{"check_topic": false}');
SELECT table_name FROM medallion.streaming_tables;
SELECT count(*) FROM medallion.stream_partitions;
SELECT count(*) FROM medallion.dead_letters;
SELECT count(*) FROM medallion.gaps;
SELECT medallion.pause('st2.renamed');
SELECT medallion.resume('st2.renamed');
SELECT medallion.drop_streaming_table('st2.renamed');
ALTER TABLE st2.renamed SET (medallion.flush_interval = '1 s');
ALTER TABLE st2.renamed RENAME COLUMN note TO x;
SELECT medallion.wait_for_offset('st2.renamed', 0, 0, '0');
SELECT count(*) FROM medallion.stream;
UPDATE medallion.checkpoint SET next_offset = 0;
SELECT medallion.pause('st.mine'), medallion.resume('st.mine');
SELECT medallion.resume_all();
-- who may read a table may read its dead letters, and wait for its rows
RESET ROLE;
GRANT SELECT ON st2.renamed TO st_reader;
SET ROLE st_reader;
SELECT count(*) FROM medallion.dead_letters;
SELECT count(*) FROM medallion.streaming_tables;
SELECT medallion.wait_for_offset('st2.renamed', 0, 0, '0');
RESET ROLE;
ALTER TABLE st2.renamed ENABLE ROW LEVEL SECURITY;
SET ROLE st_reader;
SELECT count(*) FROM medallion.dead_letters;
RESET ROLE;
-- a new owner must have the server
ALTER TABLE st.mine OWNER TO st_reader;
REVOKE USAGE ON FOREIGN SERVER k3 FROM st_owner;
ALTER TABLE st.mine ADD COLUMN b int;

-- The end: nothing of a table stays behind
SELECT medallion.drop_streaming_table('st.parent');
CREATE VIEW st.reads AS SELECT 1 AS one FROM st2.renamed;
SELECT medallion.drop_streaming_table('st2.renamed');
DROP VIEW st.reads;
SELECT medallion.drop_streaming_table('st2.renamed');
SELECT count(*) FROM medallion.checkpoint;
SELECT count(*) FROM medallion.dead_letter;
SELECT count(*) FROM medallion.gap;
SELECT count(*) FROM medallion.stream_status;
DROP TABLE st.plain, st.plain_raw;
SET LOCAL client_min_messages = warning;
DROP SCHEMA st CASCADE;
DROP SCHEMA st2 CASCADE;
SELECT count(*) FROM medallion.stream;
SELECT count(*) FROM medallion.stream_column;
DROP SERVER k2;
DROP SERVER k3;

ROLLBACK;
