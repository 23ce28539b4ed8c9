-- Columns of sources that are added, dropped or retyped under a view.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_sources
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null '(null)'
SELECT make_stream('events', 'id int, kind text, amount int');
SELECT ingest('events', 0, $$SELECT g, 'k' || g % 3, g * 10 FROM generate_series(1, 9) g$$);
SELECT medallion.create_materialized_view('copies', 'SELECT * FROM events', NULL);
SELECT medallion.create_materialized_view('kinds', 'SELECT kind, count(*) AS n FROM events GROUP BY kind', NULL);
SELECT medallion.create_materialized_view('texts', 'SELECT id, amount::text AS amount FROM events', NULL);
CREATE VIEW plain AS SELECT id, amount FROM events;
SELECT medallion.create_materialized_view('through_plain', 'SELECT sum(id) AS s FROM plain', NULL);
SELECT medallion.create_materialized_view('above', 'SELECT sum(n) AS n FROM kinds', NULL);
CREATE FUNCTION states() RETURNS TABLE (view regclass, state text, populated boolean, sqlstate text, error text) LANGUAGE sql AS
    $$ SELECT view, state, populated, last_sqlstate, last_error FROM medallion.materialized_views ORDER BY view::text $$;

-- Added: queries mean what they meant when they were given; give one again to take in the column.
ALTER TABLE events ADD COLUMN more text;
SELECT strategy FROM medallion.refresh('kinds');
SELECT count(*) FROM medallion.verify('kinds');

-- Retyped: a plain view in between is in the way, as ever; a view of ours is not.
ALTER TABLE events ALTER COLUMN amount TYPE numeric(10, 2);
DROP VIEW plain CASCADE;
ALTER TABLE events ALTER COLUMN amount TYPE numeric(10, 2);
SELECT * FROM states();
-- what it shows is made anew of the new type
SELECT strategy, reason FROM medallion.refresh('texts');
SELECT id, amount FROM texts WHERE id < 3 ORDER BY id;
SELECT count(*) FROM medallion.verify('texts');
SELECT strategy FROM medallion.refresh('kinds');
-- one that does not fit keeps its rows, says what to do, and holds up nobody
SELECT medallion.refresh('copies');
SELECT medallion.verify('copies');
SELECT medallion.explain_refresh('copies');
SELECT count(*), sum(amount) FROM copies;
SELECT query ~ 'amount' AS query FROM medallion.materialized_views WHERE view = 'copies'::regclass;
SELECT medallion.alter_materialized_view('copies', 'SELECT * FROM events');
SELECT sum(amount), count(more) FROM copies;
SELECT count(*) FROM medallion.verify('copies');
SELECT * FROM states();

-- Dropped: without CASCADE refused, with it the rows stay.
ALTER TABLE events DROP COLUMN kind;
ALTER TABLE events DROP COLUMN kind CASCADE;
SELECT * FROM states();
SELECT * FROM kinds ORDER BY kind;
SELECT strategy FROM medallion.refresh('above');
SELECT strategy FROM medallion.refresh('texts');
SELECT medallion.refresh('kinds');
-- paused, resumed, altered otherwise, dropped: all that is possible with it
SELECT medallion.pause('kinds'), medallion.resume('kinds');
SELECT medallion.alter_materialized_view('kinds', refresh_interval => '1 day');
SELECT medallion.alter_materialized_view('kinds', refresh_mode => 'full');
SELECT * FROM states();
SELECT medallion.alter_materialized_view('kinds', 'SELECT more AS kind, count(*) AS n FROM events GROUP BY more', refresh_interval => NULL);
SELECT * FROM kinds ORDER BY kind;
SELECT strategy FROM medallion.refresh('above');
SELECT * FROM states();
DROP MATERIALIZED VIEW copies;

-- Who may not alter the table changes no view; nor does what fails.
CREATE ROLE view_sources_other;
GRANT USAGE ON SCHEMA view_sources TO view_sources_other;
SET ROLE view_sources_other;
ALTER TABLE view_sources.events DROP COLUMN more CASCADE;
RESET ROLE;
ALTER TABLE events ALTER COLUMN more TYPE int USING more::int, ALTER COLUMN absent TYPE int;
SELECT * FROM states();
SET client_min_messages = warning;
DROP SCHEMA view_sources CASCADE;
DROP ROLE view_sources_other;
