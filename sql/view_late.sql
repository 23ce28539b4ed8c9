-- Late rows: records that are stored behind a streaming table's checkpoint reach
-- the views over it as what they are, rows that came.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_late
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
-- none of them may ever be recomputed
CREATE FUNCTION make(name text, query text) RETURNS regclass LANGUAGE sql AS
    $$ SELECT medallion.create_materialized_view(name, query, NULL, 'incremental') $$;
CREATE FUNCTION wrong(OUT view regclass, OUT differences bigint) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT v.view, count(d.difference) FROM medallion.materialized_views v LEFT JOIN LATERAL medallion.verify(v.view) d ON true
     GROUP BY 1 HAVING count(d.difference) > 0 $$;
-- what refreshes do, in the order in which the views were made
CREATE FUNCTION refreshed(OUT view text, OUT strategy text, OUT reason text, OUT rows_read bigint) RETURNS SETOF record
    LANGUAGE plpgsql AS $$
BEGIN
    FOR view IN SELECT c.relname FROM medallion.view v JOIN pg_class c ON c.oid = v.relid
                 WHERE c.relnamespace = 'view_late'::regnamespace ORDER BY c.oid LOOP
        SELECT r.strategy, r.reason, r.rows_read INTO strategy, reason, rows_read FROM medallion.refresh(view::regclass) r;
        RETURN NEXT;
    END LOOP;
END $$;

SELECT make_stream('events', 'id int, kind text, amount int');
SELECT make_stream('kinds', 'kind text, name text');
SELECT ingest('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(1, 20) g$$),
       ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(21, 30) g$$),
       ingest('events', 1, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(31, 40) g$$),
       ingest('kinds', 0, $$VALUES ('k0', 'zero'), ('k1', 'one')$$),
       ingest_bad('kinds', 0, $$VALUES ('k2', 'two'), ('k3', 'three')$$);
SELECT make('copied', 'SELECT id, kind, amount FROM events WHERE amount > 0'),
       make('joined', 'SELECT e.id, k.name FROM events e JOIN kinds k USING (kind)'),
       make('outer_joined', 'SELECT e.id, k.name, (SELECT count(*) FROM events o WHERE o.kind = e.kind) AS n FROM events e LEFT JOIN kinds k USING (kind)'),
       make('counted', 'SELECT kind, count(*) AS n, sum(amount) AS s, max(id) AS m FROM events GROUP BY kind'),
       make('collected', 'SELECT kind, array_agg(id ORDER BY id) AS ids FROM events GROUP BY kind'),
       make('latest', 'SELECT DISTINCT ON (kind) kind, id, amount FROM events ORDER BY kind, amount DESC, id'),
       make('ranked', 'SELECT id, kind, rank() OVER (PARTITION BY kind ORDER BY amount) AS r FROM events'),
       make('above', 'SELECT count(*) AS n, sum(amount) AS s FROM copied'),
       make('far_above', 'SELECT a.n, c.kind, c.n AS of_kind FROM counted c, above a');
SELECT * FROM refreshed();

-- one letter
SELECT requeue('events', 1);
SELECT offsets, row_count, xid = pg_current_xact_id() AS own, filenode = pg_relation_filenode('events') AS present
  FROM medallion.late_batch WHERE relid = 'events'::regclass;
-- at the frontier, views are as they were
SELECT * FROM wrong();
SELECT * FROM refreshed();
SELECT * FROM wrong();
SELECT * FROM refreshed() WHERE strategy <> 'none';
SELECT differences('copied', 'SELECT id, kind, amount FROM events WHERE amount > 0'), differences('counted', 'SELECT kind, count(*), sum(amount), max(id) FROM events GROUP BY kind');

-- some that lie apart, of both streams, with new records and new letters beside them
CREATE FUNCTION requeue_every(streaming_table regclass, step int) RETURNS bigint LANGUAGE sql AS $$
    SELECT medallion.requeue(ARRAY(SELECT dead_letter_id FROM medallion.dead_letter
                                    WHERE relid = streaming_table AND kafka_offset % step = 0)) $$;
SELECT ingest('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(41, 45) g$$),
       ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(46, 50) g$$),
       ingest('events', 2, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(51, 55) g$$),
       ingest_bad('events', 2, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(56, 60) g$$);
SELECT requeue_every('events', 3), requeue('kinds', 1);
SELECT topic, kafka_partition, offsets FROM medallion.late_batch WHERE relid = 'events'::regclass ORDER BY 2, 3;
SELECT * FROM wrong();
SELECT * FROM refreshed();
SELECT * FROM wrong();

-- only_where overwrites rows as of the frontier, where late rows are not there yet
SELECT requeue_every('events', 2), requeue('kinds');
SELECT v, r.rows_inserted + r.rows_updated + r.rows_deleted AS written
  FROM unnest(ARRAY['copied', 'counted', 'collected', 'latest', 'ranked']) v,
       LATERAL medallion.refresh(v::regclass, only_where => 'kind = ''k1''') r;
SELECT * FROM wrong();
SELECT * FROM refreshed() WHERE strategy NOT IN ('append', 'join', 'merge', 'regroup', 'latest', 'window');
SELECT * FROM wrong();

-- refreshes in the transaction that requeues, before and after, with a part of it undone
BEGIN;
SELECT requeue('events', 1);
SELECT strategy, rows_read FROM medallion.refresh('copied');
SELECT requeue('events', 1);
SELECT strategy, rows_read FROM medallion.refresh('copied');
SAVEPOINT a;
SELECT requeue('events', 1);
SELECT strategy, rows_read FROM medallion.refresh('copied');
ROLLBACK TO a;
SELECT strategy, rows_read FROM medallion.refresh('copied');
SELECT * FROM wrong();
SELECT requeue('events', 2);
COMMIT;
SELECT strategy, rows_read FROM medallion.refresh('copied');
SELECT strategy, rows_read FROM medallion.refresh('counted');
SELECT * FROM wrong();
BEGIN;
SELECT requeue('events');
SELECT strategy, rows_read FROM medallion.refresh('copied');
ROLLBACK;
SELECT strategy FROM medallion.refresh('copied');
SELECT requeue('events');
SELECT strategy, reason FROM medallion.refresh('copied');
SELECT count(*) FROM medallion.dead_letter WHERE relid = 'events'::regclass;

-- a view that is made in between has read what was there
SELECT ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(61, 70) g$$);
SELECT requeue('events', 3);
SELECT make('newcomer', 'SELECT id % 2 AS odd, count(*) AS n FROM events GROUP BY 1');
SELECT requeue('events', 3);
SELECT strategy, rows_read FROM medallion.refresh('newcomer');
SELECT * FROM wrong();
SELECT * FROM refreshed() WHERE strategy NOT IN ('append', 'join', 'merge', 'regroup', 'latest', 'window');
SELECT * FROM wrong();

-- a rewrite moves rows: they are looked for in the whole table
SELECT requeue('events', 2);
VACUUM FULL events;
SELECT * FROM refreshed() WHERE strategy <> 'none';
SELECT * FROM wrong();
-- in the new file bounds hold again, whatever was there before
SELECT requeue('events', 1);
SELECT strategy, reason, rows_read FROM medallion.refresh('copied');

-- a gap within a batch, and offsets that were none but replayed, leave no hole in the bounds
SELECT ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(71, 80) g$$) AS letters;
SELECT medallion.discard(ARRAY(SELECT dead_letter_id FROM medallion.dead_letter WHERE kafka_offset % 4 = 0)) AS discarded,
       ingest('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(81, 90) g$$) AS records;
SELECT strategy, reason, rows_read FROM medallion.refresh('copied');
SELECT ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(91, 95) g$$) AS letters;
DELETE FROM medallion.batch WHERE next_offset = (SELECT max(next_offset) FROM medallion.batch WHERE kafka_partition = 0);
SELECT ingest('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(96, 99) g$$) AS records, requeue('events') > 5 AS all;
SELECT strategy, reason, rows_read FROM medallion.refresh('copied');
SELECT * FROM wrong();
SELECT ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(101, 110) g$$);

-- what all have read is given up, what one has not read stays
SELECT requeue('events', 1);
SELECT strategy FROM medallion.refresh('copied');
UPDATE medallion.late_batch SET stored_at = now() - interval '2 days';
SELECT medallion.prune_history();
SELECT relid, count(*) > 2 AS many, count(offsets) AS kept FROM medallion.late_batch GROUP BY 1 ORDER BY 1;
SELECT * FROM refreshed() WHERE strategy NOT IN ('append', 'join', 'merge', 'regroup', 'latest', 'window', 'none');
SELECT * FROM wrong();
SELECT medallion.prune_history();
SELECT count(*) > 0 AS counted, count(offsets) + count(xid) AS kept FROM medallion.late_batch WHERE relid = 'events'::regclass;
SELECT ingest_bad('events', 0, $$SELECT g, 'k' || g % 4, g * 10 FROM generate_series(111, 120) g$$), requeue('events', 2);
SELECT * FROM refreshed() WHERE strategy NOT IN ('append', 'join', 'merge', 'regroup', 'latest', 'window', 'none');
SELECT * FROM wrong();

-- a late row that cannot be computed costs itself only
SELECT make('divided', 'SELECT id, 1000 / amount AS share FROM events');
SELECT ingest_bad('events', 3, $$VALUES (201, 'k1', 10), (202, 'k2', 0), (203, 'k3', 100)$$) AS letters;
SELECT medallion.requeue(ARRAY(SELECT dead_letter_id FROM medallion.dead_letter WHERE kafka_partition = 3)) AS stored;
SELECT strategy, rows_inserted FROM medallion.refresh('divided');
SELECT kafka_partition, kafka_offset, message FROM medallion.refresh_errors;
SELECT * FROM wrong();
SELECT id, share FROM divided WHERE id > 200 ORDER BY id;
SELECT medallion.drop_materialized_view('divided');

-- in another cluster: what had been read counts as read, what had not been is not known
SELECT requeue('events', 1);
SELECT strategy FROM medallion.refresh('counted');
UPDATE medallion.late_batch SET filenode = NULL, offsets = NULL, xid = NULL WHERE relid = 'events'::regclass;
UPDATE medallion.view_source SET late_point = NULL WHERE source = 'events'::regclass;
SELECT * FROM medallion.verify('copied');
SELECT * FROM medallion.refresh('copied');
SELECT strategy, reason FROM medallion.refresh('copied', full_refresh => true);
SELECT requeue('events', 1);
SELECT strategy, rows_read FROM medallion.refresh('counted');
SELECT strategy, rows_read FROM medallion.refresh('copied');
SELECT * FROM medallion.verify('counted');
SELECT * FROM medallion.verify('copied');
DROP TABLE events CASCADE;
DROP TABLE kinds CASCADE;
SELECT count(*) FROM medallion.late_batch;

-- A stage is a reader of its own, and its reader gets what it got
SELECT make_stream('staged', 'id int, v text');
SELECT make_stream('live', 'id int');
SELECT ingest('staged', 0, $$SELECT g, 'v' || g FROM generate_series(1, 5) g$$),
       ingest_bad('staged', 0, $$SELECT g, 'v' || g FROM generate_series(6, 9) g$$),
       ingest('live', 0, $$SELECT g FROM generate_series(1, 9) g$$);
SELECT medallion.create_materialized_view('hybrid', 'SELECT id, v FROM live LEFT JOIN staged USING (id)', NULL, 'incremental',
    options => '{"sources": {"view_late.staged": {"refresh_interval": "1 day"}}}');
SELECT requeue('staged', 2);
SELECT strategy FROM medallion.refresh('hybrid');
SELECT relid AS stage FROM medallion.view WHERE relid::text LIKE 'medallion_def.%' \gset
SELECT strategy, rows_read FROM medallion.refresh(:'stage');
SELECT strategy, rows_inserted, rows_deleted FROM medallion.refresh('hybrid');
SELECT * FROM wrong();
SELECT count(v) FROM hybrid;
DROP TABLE staged, live CASCADE;

-- A partitioned table: rows are looked for by offset
SELECT make_stream('parts', 'id int', 'PARTITION BY RANGE (id)');
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_high PARTITION OF parts DEFAULT;
SELECT ingest('parts', 0, $$SELECT g FROM generate_series(1, 15) g$$), ingest_bad('parts', 0, $$SELECT g FROM generate_series(5, 25, 5) g$$);
SELECT make('of_parts', 'SELECT id, count(*) AS n FROM parts GROUP BY id');
SELECT requeue_every('parts', 2), ingest('parts', 0, 'SELECT 100');
SELECT * FROM wrong();
SELECT strategy, reason FROM medallion.refresh('of_parts');
SELECT * FROM wrong();
SELECT requeue('parts');
SELECT strategy, rows_inserted, rows_updated FROM medallion.refresh('of_parts');
SELECT * FROM wrong();
DROP TABLE parts CASCADE;

-- A pattern of topics: one offset is one record in each
SELECT make_stream('many', 'kafka_topic text, id int', '', '^t');
SELECT ingest('many', 0, $$SELECT 't1', g FROM generate_series(1, 4) g$$, 't1'),
       ingest_bad('many', 0, $$SELECT 't1', g FROM generate_series(5, 9) g$$, 't1'),
       ingest('many', 0, $$SELECT 't''2', g FROM generate_series(101, 110) g$$, 't''2'),
       ingest_bad('many', 0, $$SELECT 't''2', g FROM generate_series(111, 113) g$$, 't''2');
SELECT make('of_many', 'SELECT kafka_topic, count(*) AS n, sum(id) AS s FROM many GROUP BY 1');
SELECT requeue_every('many', 2);
SELECT * FROM wrong();
SELECT strategy, rows_read FROM medallion.refresh('of_many');
SELECT * FROM wrong();
SELECT ingest('many', 0, $$SELECT 't3', g FROM generate_series(1, 4) g$$, 't3'), requeue('many');
SELECT strategy, rows_read FROM medallion.refresh('of_many');
SELECT * FROM wrong();
SELECT * FROM of_many ORDER BY 1;
SET client_min_messages = warning;
DROP SCHEMA view_late CASCADE;
