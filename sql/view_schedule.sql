-- Which view is refreshed next, at times that the test owns.
SET TimeZone = 'UTC';
\pset null '(null)'
CREATE FUNCTION pg_temp.pick(at text, intervals text, started text, retry text DEFAULT '{}', busy text DEFAULT '{}', reads text[] DEFAULT '{}')
    RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN pick IS NOT NULL THEN 'view ' || pick ELSE 'wait until ' || wake_at::time(3) END
      FROM medallion.try_schedule(('2026-01-01 ' || at)::timestamptz, intervals::interval[],
        (SELECT coalesce(array_agg(CASE WHEN t <> '' THEN ('2026-01-01 ' || t)::timestamptz END ORDER BY n), '{}') FROM regexp_split_to_table(started, ',') WITH ORDINALITY r(t, n)),
        (SELECT coalesce(array_agg(CASE WHEN t <> '' THEN ('2026-01-01 ' || t)::timestamptz END ORDER BY n), '{}') FROM regexp_split_to_table(nullif(retry, '{}'), ',') WITH ORDINALITY r(t, n)),
        (SELECT coalesce(array_agg(CASE WHEN t <> '' THEN ('2026-01-01 ' || t)::timestamptz END ORDER BY n), '{}') FROM regexp_split_to_table(nullif(busy, '{}'), ',') WITH ORDINALITY r(t, n)),
        reads) $$;

-- start to start: due one interval after the last start
SELECT pg_temp.pick('10:00:59.999', '{1 min}', '10:00:00') AS early, pg_temp.pick('10:01', '{1 min}', '10:00:00') AS due;
-- a view that never ran is due, before all others
SELECT pg_temp.pick('10:00', '{1 min, 1 min}', '09:00,') AS never_ran;
-- nothing scheduled: until something changes
SELECT pick, wake_at FROM medallion.try_schedule('2026-01-01', '{}', '{}');
-- missed intervals run once: after one start it is due one interval later
SELECT pg_temp.pick('12:00', '{1 min}', '10:00:00') AS late, pg_temp.pick('12:00:01', '{1 min}', '12:00:00') AS after;
-- the one that waited longest first
SELECT pg_temp.pick('10:10', '{1 min, 1 min, 1 min}', '10:03,10:01,10:02') AS oldest;
-- upstream first when both are due at the same time, whatever the order
SELECT pg_temp.pick('10:01', '{1 min, 1 min}', '10:00,10:00', reads => '{1, ""}') AS upstream,
       pg_temp.pick('10:01', '{1 min, 1 min, 1 min}', '10:00,10:00,10:00', reads => '{1, 2, ""}') AS topmost,
       pg_temp.pick('10:01', '{1 min, 1 min, 1 min}', ',,', reads => '{1, 2, ""}') AS first_time;
-- a reader that became due before its upstream does not wait for it
SELECT pg_temp.pick('10:05', '{1 min, 1 min}', '10:00,10:03', reads => '{1, ""}') AS reader;
-- so an upstream that takes longer than its interval does not starve its readers
SELECT pg_temp.pick('10:05:00', '{1 s, 1 s}', '10:00:00,10:04:00', reads => '{1, ""}') AS reader;
-- waiting for an upstream that another process refreshes
SELECT pg_temp.pick('10:01', '{1 min, 1 min}', '10:00,10:00', busy => ',10:01:01', reads => '{1, ""}') AS busy,
       pg_temp.pick('10:01:01', '{1 min, 1 min}', '10:00,10:00', busy => ',10:01:01', reads => '{1, ""}') AS looked_at_again,
       pg_temp.pick('10:01', '{1 min, 1 min}', '10:00,10:00', busy => ',10:01:01') AS unrelated;
-- a view that fails is due at its next attempt; others, and its readers, go on
SELECT pg_temp.pick('10:05', '{1 min, 1 min}', '10:00,10:00', '10:05:30,', reads => '{"", 0}') AS reader,
       pg_temp.pick('10:05', '{1 min}', '10:00', '10:05:30') AS waits,
       pg_temp.pick('10:05:30', '{1 min}', '10:00', '10:05:30') AS again;
-- intervals with months and days
SELECT pick, wake_at FROM medallion.try_schedule('2026-02-28 10:00+00', '{1 mon}', '{2026-01-31 10:00+00}');
SELECT pick, wake_at FROM medallion.try_schedule('2026-02-28 09:59+00', '{1 mon}', '{2026-01-31 10:00+00}');
SELECT medallion.try_schedule('2026-01-01', '{NULL}', '{}');
SELECT medallion.try_schedule('2026-01-01', '{1 s}', '{}', reads => '{7}');
