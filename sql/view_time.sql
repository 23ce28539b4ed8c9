-- now() in a condition: rows leave, and come, as time passes, without any change in a source.
SET client_min_messages = warning;
CREATE SCHEMA view_time;
SET search_path = view_time, public;
CREATE TABLE events (id int, kind text, at timestamptz, amount numeric);
CREATE TABLE kinds (kind text, since timestamptz);
CREATE TABLE queries (name text, query text);
INSERT INTO queries VALUES
    ('rows', $$SELECT id, kind FROM events WHERE at > now() - interval '1 hour'$$),
    ('between', $$SELECT id FROM events WHERE at BETWEEN now() - interval '1 hour' AND now() + interval '1 hour'$$),
    ('either', $$SELECT id FROM events WHERE at > now() - interval '1 hour' OR at IS NULL$$),
    ('groups', $$SELECT kind, count(*) AS n, sum(amount) AS s, count(DISTINCT id) AS d FROM events WHERE at > now() - interval '1 hour' GROUP BY kind$$),
    ('whole', $$SELECT count(*) AS n, sum(amount) AS s FROM events WHERE at > now() - interval '1 hour'$$),
    ('joined', $$SELECT e.id, k.kind FROM events e JOIN kinds k USING (kind) WHERE e.at > now() - interval '1 hour' AND k.since < now()$$),
    ('inside', $$SELECT k.kind, n FROM kinds k LEFT JOIN (SELECT kind, count(*) AS n FROM events WHERE at > now() - interval '1 hour' GROUP BY kind) e USING (kind)$$),
    ('recent', $$SELECT kind FROM kinds k WHERE EXISTS (SELECT FROM events e WHERE e.kind = k.kind AND e.at > now() - interval '1 hour')$$),
    ('today', $$SELECT id FROM events WHERE at::date = CURRENT_DATE$$);
SELECT name, e.strategy, e.detail FROM queries, medallion.explain_refresh(query) e WHERE e.step = 'Query';
-- What cannot be done by the rows that pass.
SELECT e.strategy, e.detail FROM medallion.explain_refresh('SELECT id, now() - at AS age FROM events') e WHERE e.step = 'Query';
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL, 'incremental')) FROM queries;
CREATE FUNCTION differences() RETURNS TABLE (name text, strategy text, reason text, difference text, row_data jsonb) LANGUAGE plpgsql AS $$
DECLARE
    q record;
    r record;
BEGIN
    FOR q IN SELECT * FROM queries LOOP
        SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
        name := q.name; strategy := r.strategy; reason := r.reason;
        FOR difference, row_data IN SELECT v.difference, v.row_data FROM medallion.verify(('v_' || q.name)::regclass) v LOOP
            RETURN NEXT;
        END LOOP;
        IF r.strategy = 'full' THEN RETURN NEXT; END IF;
    END LOOP;
END $$;
INSERT INTO events SELECT i, 'k' || i % 3, now() + (i - 50) * interval '3 minutes', i FROM generate_series(1, 100) i;
INSERT INTO events VALUES (0, 'none', NULL, 1), (200, NULL, now(), 1);
INSERT INTO kinds VALUES ('k0', now() - interval '1 day'), ('k1', now() + interval '10 seconds'), ('k9', NULL), (NULL, now());
SELECT * FROM differences();
-- Rows that change and pass at once.
CREATE FUNCTION turn_back(by interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE events SET at = at - by;
    UPDATE kinds SET since = since - by;
END $$;
SELECT turn_back('15 minutes');
SELECT * FROM differences();
-- Rows that pass without a change in any source.
INSERT INTO events SELECT 1000 + i, 'k' || i % 4, now() - interval '1 hour' + i * interval '100 milliseconds', i FROM generate_series(1, 100) i;
SELECT * FROM differences();
SELECT count(*) > 0 AS there FROM v_rows WHERE id > 1000;
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM events WHERE id > 1000 AND at > clock_timestamp() - interval '1 hour') LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;
SELECT * FROM differences();
SELECT count(*) FROM v_rows WHERE id > 1000;
SELECT strategy, rows_read, rows_inserted + rows_updated + rows_deleted AS written FROM medallion.refresh('v_groups');
DROP SCHEMA view_time CASCADE;
