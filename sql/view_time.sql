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
    ('hours', $$SELECT date_trunc('hour', at) AS hour, kind, count(*) AS n, sum(amount) AS s, count(DISTINCT id) AS d FROM events WHERE at > now() - interval '24 hours' GROUP BY 1, 2$$),
    ('days', $$SELECT at::date AS day, count(*) AS n, sum(amount) / count(DISTINCT kind) AS per_kind FROM events WHERE at > now() - interval '2 hours' GROUP BY 1$$),
    ('extremes', $$SELECT kind, min(at) AS first, max(id) AS id, avg(id::float8) AS mean FROM events WHERE at BETWEEN now() - interval '1 hour' AND now() GROUP BY kind HAVING count(*) > 2$$),
    ('distinct', $$SELECT DISTINCT kind, id % 5 AS rest FROM events WHERE at > now() - interval '1 hour'$$),
    ('sets', $$SELECT kind, id % 3 AS rest, count(*) AS n, sum(amount) AS s FROM events WHERE at > now() - interval '1 hour' GROUP BY ROLLUP (1, 2)$$),
    ('largest', $$SELECT kind, sum(amount) AS s FROM events WHERE at > now() - interval '1 hour' GROUP BY kind ORDER BY s DESC, kind LIMIT 2$$),
    ('ranked', $$SELECT kind, count(*) AS n, rank() OVER (ORDER BY count(*) DESC) AS r FROM events WHERE at > now() - interval '1 hour' GROUP BY kind$$),
    ('outer', $$SELECT k.kind, count(e.id) AS n FROM kinds k LEFT JOIN (SELECT * FROM events WHERE at > now() - interval '1 hour') e USING (kind) GROUP BY k.kind$$),
    ('snapshot', $$SELECT now() AS time, count(*) AS n, sum(amount) AS s FROM events WHERE at > now() - interval '1 hour'$$),
    ('ages', $$SELECT count(*) FILTER (WHERE at > now() - interval '1 hour') AS young, count(*) AS n FROM events$$),
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
-- A part is overwritten by what the query gave at the time that the rest shows.
INSERT INTO events SELECT 2000 + i, 'k1', now() - interval '1 hour' + i * interval '50 milliseconds', i FROM generate_series(1, 20) i;
SELECT count(medallion.refresh('v_groups'));
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM events WHERE id >= 2000 AND at > clock_timestamp() - interval '1 hour') LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;
SELECT strategy, rows_inserted, rows_updated, rows_deleted FROM medallion.refresh('v_groups', only_where => 'kind = ''k1''');
SELECT * FROM medallion.verify('v_groups');
SELECT * FROM differences();
DROP SCHEMA view_time CASCADE;
