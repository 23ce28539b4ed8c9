--
-- Sources that a view reads at an interval of their own.
--
CREATE SCHEMA view_stages;
SET search_path = view_stages, public;
SET client_min_messages = warning;
CREATE FUNCTION incremental(view regclass) RETURNS text LANGUAGE sql AS
    $$SELECT CASE WHEN strategy IN ('none', 'full') THEN strategy ELSE 'incremental' END
          || ' +' || rows_inserted || ' -' || rows_deleted || ' ~' || rows_updated FROM medallion.refresh(view)$$;

CREATE TABLE event (id int, amount int);
INSERT INTO event SELECT i, i FROM generate_series(1, 4) i;
CREATE TABLE customer (gone int, id int, name text);
ALTER TABLE customer DROP COLUMN gone;
INSERT INTO customer SELECT i, 'name ' || i FROM generate_series(1, 100) i;
CREATE TABLE region_base (id int, region text);
INSERT INTO region_base SELECT i, 'region ' || i % 3 FROM generate_series(1, 100) i;
-- changes of a plain materialized view are not known: it is compared
CREATE MATERIALIZED VIEW region AS SELECT * FROM region_base;

SELECT medallion.create_materialized_view('hybrid',
    'SELECT id, amount, c.name, r.region, c FROM event JOIN customer c USING (id) LEFT JOIN region r USING (id)', NULL,
    options => '{"sources": {"view_stages.customer": {"refresh_interval": "1 day"}, "region": {"refresh_interval": "1 hour"}}}');
SELECT * FROM hybrid ORDER BY 1;
SELECT view, refresh_interval FROM medallion.materialized_views ORDER BY view::text;

-- what is streamed is fresh, what is read daily is as it was
INSERT INTO event VALUES (5, 5);
UPDATE customer SET name = 'changed' WHERE id IN (1, 5);
UPDATE region_base SET region = 'moved' WHERE id = 2;
REFRESH MATERIALIZED VIEW region;
SELECT incremental('hybrid');
SELECT * FROM medallion.verify('hybrid');
SELECT * FROM hybrid ORDER BY 1;
SELECT incremental('medallion_def."view_stages.hybrid source view_stages.customer"');
SELECT incremental('hybrid');
SELECT incremental('medallion_def."view_stages.hybrid source view_stages.region"');
SELECT incremental('hybrid');
SELECT * FROM medallion.verify('hybrid');
SELECT * FROM hybrid ORDER BY 1;

-- rewritten with mostly the same rows: only what differs is applied
TRUNCATE customer;
INSERT INTO customer SELECT i, 'name ' || i FROM generate_series(100, 2, -1) i;
SELECT incremental('medallion_def."view_stages.hybrid source view_stages.customer"');
SELECT incremental('hybrid');
SELECT * FROM hybrid ORDER BY 1;

-- full_refresh reads them now
INSERT INTO customer VALUES (1, 'back');
SELECT strategy FROM medallion.refresh('hybrid', full_refresh => true);
SELECT * FROM hybrid WHERE id = 1;

-- they follow the view
SELECT medallion.pause('hybrid');
SELECT view, paused FROM medallion.materialized_views ORDER BY view::text;
SELECT medallion.resume('hybrid');
SELECT medallion.alter_materialized_view('hybrid', query =>
    'SELECT id, amount, c.name, r.region, c, 1 AS one FROM event JOIN customer c USING (id) LEFT JOIN region r USING (id) WHERE id > 2');
SELECT view, refresh_interval FROM medallion.materialized_views ORDER BY view::text;
SELECT * FROM medallion.verify('hybrid');
DROP TABLE customer;
DROP TABLE hybrid;
SELECT count(*) FROM medallion.materialized_views;
SELECT count(*) FROM pg_class WHERE relnamespace = 'medallion_def'::regnamespace;

-- filled at the first refresh
SELECT medallion.create_materialized_view('later', 'SELECT count(*) AS n FROM customer', NULL, with_data => false,
    options => '{"sources": {"customer": {"refresh_interval": null}}}');
SELECT incremental('later');
SELECT * FROM later;

-- mistakes
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": {"customer": {"refresh_interval": "1 day"}}}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": {"event": {"interval": "1 day"}}}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": {"event": {"refresh_interval": "-1 day"}}}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": {"event": {"refresh_interval": 5}}}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": {"nosuch": {"refresh_interval": "1 day"}}}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"sources": 5}');
SELECT medallion.create_materialized_view('wrong', 'SELECT 1 AS a FROM event', options => '{"source": 5}');

DROP SCHEMA view_stages CASCADE;
SELECT count(*) FROM medallion.view;
