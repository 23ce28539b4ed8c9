-- Views that share a source are read at one frontier.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema consistency
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
CREATE FUNCTION make(name text, query text) RETURNS regclass LANGUAGE sql AS
    $$ SELECT medallion.create_materialized_view(name, query, NULL) $$;
SELECT make_stream('events', 'id int');
CREATE FUNCTION grow(n int) RETURNS bigint LANGUAGE sql AS
    $$ SELECT ingest('consistency.events', 0, format('SELECT g FROM generate_series(1, %s) g', n)) $$;
SELECT grow(3);

-- A fact and its dimension over one stream, and a view that reads both.
SELECT make('facts', 'SELECT id, kafka_offset FROM consistency.events');
SELECT make('dimension', 'SELECT count(*) AS n FROM consistency.events');
SELECT make('joined', 'SELECT (SELECT count(*) FROM consistency.facts) AS facts, n AS dimension FROM consistency.dimension');
SELECT medallion.refresh_group('joined');
SELECT grow(2);
SELECT strategy FROM medallion.refresh('facts');
SELECT grow(2);
-- facts had read 5 events, dimension 3: both are brought to 7
SELECT strategy IN ('full', 'merge') AS refreshed FROM medallion.refresh('joined');
SELECT * FROM joined;
SELECT strategy FROM medallion.refresh('facts') UNION ALL SELECT strategy FROM medallion.refresh('dimension') UNION ALL SELECT strategy FROM medallion.refresh('joined');

-- Where they agree they are read as they are, however much is new below.
SELECT grow(1);
SELECT strategy FROM medallion.refresh('joined');
SELECT * FROM joined;

-- A view that is created reads its sources at one frontier, too.
SELECT strategy FROM medallion.refresh('dimension');
SELECT make('other', 'SELECT max(kafka_offset) + 1 = min(n) AS agree FROM consistency.facts, consistency.dimension');
SELECT * FROM other;

-- So does one that reads the stream itself beside a view over it.
SELECT make('direct', 'SELECT count(*) = min(n) AS agree FROM consistency.events, consistency.dimension');
SELECT medallion.refresh_group('direct');
SELECT grow(5);
SELECT strategy <> 'none' AS refreshed FROM medallion.refresh('direct');
SELECT * FROM direct;

-- Where all ways lead through one view, that one is the shared source.
SELECT make('silver', 'SELECT id FROM consistency.facts');
SELECT make('a', 'SELECT count(*) AS n FROM consistency.silver');
SELECT make('b', 'SELECT sum(id) AS s FROM consistency.silver');
SELECT make('a2', 'SELECT n FROM consistency.a');
SELECT make('top', 'SELECT a.n AS a, a2.n AS a2, s FROM consistency.a, consistency.a2, consistency.b');
SELECT medallion.refresh_group('silver') AS silver, medallion.refresh_group('a2') AS a2, medallion.refresh_group('top') AS top;
SELECT grow(4);
SELECT strategy FROM medallion.refresh('silver');
SELECT strategy FROM medallion.refresh('facts');
SELECT strategy FROM medallion.refresh('silver');
SELECT strategy FROM medallion.refresh('b');
SELECT grow(4);
SELECT strategy <> 'none' AS refreshed FROM medallion.refresh('top');
SELECT a = a2 AS agree, a = (SELECT count(*) FROM silver) AS with_silver, s = (SELECT sum(id) FROM silver) AS all_of_it FROM top;
-- a member's own group comes along
SELECT make('above', 'SELECT other.agree, n FROM consistency.other, consistency.dimension');
SELECT medallion.refresh_group('above');
SELECT grow(1);
SELECT strategy <> 'none' AS refreshed FROM medallion.refresh('above');
SELECT agree, n = (SELECT count(*) FROM events) AS all_of_it FROM above;

-- A member that fails, or that is paused and behind, is said by name.
SELECT medallion.pause('dimension');
SELECT strategy FROM medallion.refresh('joined');
SELECT grow(1);
SELECT strategy FROM medallion.refresh('facts');
SELECT medallion.refresh('joined');
SELECT medallion.resume('dimension');
SELECT strategy <> 'none' AS refreshed FROM medallion.refresh('joined');
SELECT facts = dimension AS agree FROM joined;
SELECT make('ratio', 'SELECT sum(1 / (100 - id)) AS r FROM consistency.events');
ALTER MATERIALIZED VIEW ratio SET (medallion.on_error = fail);
SELECT make('with_ratio', 'SELECT r, n FROM consistency.ratio, consistency.dimension');
SELECT ingest('consistency.events', 0, 'SELECT 100');
SELECT strategy FROM medallion.refresh('dimension');
\set SHOW_CONTEXT never
SELECT medallion.refresh('with_ratio');
SELECT strategy <> 'none' AS refreshed FROM medallion.refresh('joined');
SELECT count(*) FROM medallion.verify('joined');
DROP SCHEMA consistency CASCADE;
