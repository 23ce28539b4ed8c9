-- Ways back for records, without a broker: what dead letters become, and what
-- is refused. One transaction, so that it leaves nothing behind.
\set ON_ERROR_ROLLBACK on
\pset null '(null)'
BEGIN;
CREATE SERVER recovery FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
SELECT medallion.create_streaming_table('letters', 'recovery', 'letters', 'json',
    'a int CHECK (a > 0), b text, kafka_key text, kafka_headers jsonb', options => '{"check_topic": false}');

-- Letters as a worker writes them; ids are given, so that the output is the same each time
INSERT INTO medallion.dead_letter (dead_letter_id, relid, topic, kafka_partition, kafka_offset, kafka_timestamp,
                                   kafka_key, payload, headers, sqlstate, message)
OVERRIDING SYSTEM VALUE
SELECT -i, 'letters'::regclass, 'letters', 0, i, '2026-01-02 03:04:05.678+00',
       CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN ''::bytea ELSE 'key' END,
       CASE WHEN i IN (3, 4) THEN '{"a": "x"}' WHEN i = 5 THEN '{"a": -1}' ELSE '{"a": 1, "b": "yes"}' END::bytea,
       '[{"name": "h", "value": "v"}, {"name": "h", "value": null}, {"name": "bin", "value_base64": "/wA="},
         {"name_base64": "/w==", "value": ""}]',
       '22P02', 'old'
  FROM generate_series(1, 12) i;

-- Some can be stored now, others not: those that throw, those that do not, and those a constraint refuses
SELECT medallion.requeue('{-5,-1,-2,-2,-3,-100}');
SELECT a, b, kafka_key, kafka_headers, kafka_partition, kafka_offset, kafka_timestamp AT TIME ZONE 'UTC' AS kafka_timestamp
  FROM letters ORDER BY kafka_offset;
SELECT dead_letter_id, sqlstate, message, left(detail, 19) AS detail, attempts, retried_at IS NOT NULL AS retried
  FROM medallion.dead_letters WHERE table_name = 'letters'::regclass ORDER BY kafka_offset;
-- each is stored once, however often it is called
SELECT medallion.requeue('{-1,-2}');

-- A corrected payload
SELECT medallion.requeue('{-3}', '{"a": 3');
SELECT sqlstate, message, detail, attempts, convert_from(payload, 'UTF8') AS payload
  FROM medallion.dead_letters WHERE dead_letter_id = -3;
SELECT medallion.requeue('{-3}', '{"a": 3}');
SELECT medallion.requeue('{-3}', '{"a": 3}');
SELECT medallion.requeue('{-4,-5}', '{"a": 3}');
SELECT medallion.requeue('{}', '{"a": 3}');

-- With the present definition
ALTER TABLE letters DROP CONSTRAINT letters_a_check, ALTER COLUMN a TYPE text, ADD COLUMN c int GENERATED ALWAYS AS (length(b)) STORED;
SELECT medallion.requeue('{-4,-5,-6}');
SELECT a, b, c, kafka_offset FROM letters WHERE kafka_offset > 3 ORDER BY kafka_offset;

-- Discarded: accounted for as gaps, neighbours together
SELECT medallion.discard('{-7,-8,-8,-10,-1,-100}');
SELECT medallion.discard('{-7,-8}');
SELECT first_offset, next_offset, reason FROM medallion.gaps WHERE table_name = 'letters'::regclass ORDER BY 1;

-- Readers are told, and the state counts what is stored
SELECT first_offset, next_offset, row_count, dead_count, filenode = pg_relation_filenode('letters') AS present
  FROM medallion.late_batch WHERE relid = 'letters'::regclass ORDER BY 1;
SELECT rows, dead_letters FROM medallion.streaming_tables WHERE table_name = 'letters'::regclass;

-- What is refused
SELECT medallion.requeue(NULL);
SELECT medallion.requeue('{1,NULL}');
SELECT medallion.requeue('{}');
SELECT medallion.discard(NULL);
SELECT medallion.discard('{NULL}');
SELECT medallion.discard('{}');
CREATE TABLE plain (a int);
SELECT medallion.seek(NULL, 'latest');
SELECT medallion.seek('letters', NULL);
SELECT medallion.seek('letters', 'lastest');
SELECT medallion.seek('letters', '{}');
SELECT medallion.seek('letters', '2026-02-30');
SELECT medallion.seek('plain', 'latest');
SELECT medallion.seek(0, 'latest');
SELECT medallion.replay(NULL, 'earliest');
SELECT medallion.replay('letters', NULL);
SELECT medallion.replay('letters', 'now');
SELECT medallion.replay('letters', 'earliest', '{"0": -1}');
SELECT medallion.replay('plain', 'earliest');
SELECT medallion.replay('letters', 'earliest');

-- Whose they are: one who may read the table sees its letters, and that is all
CREATE ROLE regress_recovery_reader;
CREATE ROLE regress_recovery_stranger;
GRANT SELECT ON letters TO regress_recovery_reader;
SET ROLE regress_recovery_reader;
SELECT count(*) FROM medallion.dead_letters WHERE table_name = 'letters'::regclass;
SELECT medallion.requeue('{-9}');
SELECT medallion.discard('{-9}');
SELECT medallion.seek('letters', 'latest');
SELECT medallion.replay('letters', 'earliest');
SELECT medallion.dead_letters_to_gaps('{-9}', 'x');
SET ROLE regress_recovery_stranger;
SELECT count(*) FROM medallion.dead_letters WHERE table_name = 'letters'::regclass;
SELECT medallion.requeue('{-9}');
SELECT medallion.discard('{-9}');
RESET ROLE;

-- Not the owner's doing: a trigger sees the owner, in a restricted operation
CREATE ROLE regress_recovery_owner;
GRANT USAGE ON FOREIGN SERVER recovery TO regress_recovery_owner;
CREATE FUNCTION pg_temp.who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.b := current_user || ' ' || session_user;
    RETURN NEW;
END $$;
CREATE TRIGGER who BEFORE INSERT ON letters FOR EACH ROW EXECUTE FUNCTION pg_temp.who();
ALTER TABLE letters OWNER TO regress_recovery_owner;
SELECT medallion.requeue('{-9}');
SELECT replace(b, session_user, '(session)') AS b FROM letters WHERE kafka_offset = 9;

-- The limit of dead letters
ALTER TABLE letters SET (medallion.max_dead_letter_ratio = 0.05, medallion.dead_letter_window = '90 s');
SELECT options - 'check_topic' AS options FROM medallion.stream WHERE relid = 'letters'::regclass;
ALTER TABLE letters SET (medallion.max_dead_letter_ratio = 1.5);
ALTER TABLE letters SET (medallion.max_dead_letter_ratio = 'NaN');
ALTER TABLE letters SET (medallion.max_dead_letter_ratio = '0.5x');
ALTER TABLE letters SET (medallion.dead_letter_window = '0 s');
ALTER TABLE letters SET (medallion.dead_letter_window = '5');
ALTER TABLE letters SET (medallion.dead_letter_ratio = 0.5);

-- Left alone for too long: gone, and accounted for
SELECT medallion.prune_history();
SELECT count(*) FROM medallion.dead_letter WHERE relid = 'letters'::regclass;
UPDATE medallion.dead_letter SET failed_at = now() - interval '2 days' WHERE dead_letter_id = -11;
SET LOCAL medallion.dead_letter_retention = 0;
SELECT medallion.prune_history();
SELECT count(*) FROM medallion.dead_letter WHERE relid = 'letters'::regclass;
SET LOCAL medallion.dead_letter_retention = '1d';
SELECT medallion.prune_history();
SELECT dead_letter_id FROM medallion.dead_letter WHERE relid = 'letters'::regclass;
SELECT first_offset, next_offset, reason FROM medallion.gaps WHERE table_name = 'letters'::regclass AND reason = 'expired';
ROLLBACK;
