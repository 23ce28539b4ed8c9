-- Views of each strategy, and our own tables, while all tables are published:
-- rows that have no replica identity could not be changed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_publication
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
SELECT make_stream('s', 'id int, kind text, amount text');
SELECT ingest('s', 0, $$SELECT g, 'k' || g % 3, g FROM generate_series(1, 30) g$$);
CREATE TABLE t (id int PRIMARY KEY, kind text, amount numeric);
INSERT INTO t SELECT g, 'k' || g % 3, g FROM generate_series(1, 30) g;

SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;

CREATE FUNCTION make(name text, query text) RETURNS void LANGUAGE sql AS $$
    SELECT FROM medallion.create_materialized_view(name, query, NULL) $$;
SELECT make('v_append', 'SELECT id, amount::int FROM s');
SELECT make('v_merge', 'SELECT kind, avg(amount), count(DISTINCT amount % 7), min(id) FROM t GROUP BY kind');
SELECT make('v_latest', 'SELECT DISTINCT ON (kind) kind, id FROM t ORDER BY kind, amount DESC, id');
SELECT make('v_regroup', 'SELECT kind, array_agg(id ORDER BY id) FROM t GROUP BY kind');
SELECT make('v_window', 'SELECT id, sum(amount) OVER (PARTITION BY kind ORDER BY id) FROM t');
SELECT make('v_join', 'SELECT t.id, u.kind FROM t LEFT JOIN t u ON u.id = t.id + 1');
SELECT make('v_full', 'SELECT id, kind FROM t ORDER BY id LIMIT 5 OFFSET 1');
SELECT make('v_keys', 'SELECT id, amount FROM t WHERE amount > 3');
SELECT medallion.alter_materialized_view('v_keys', key_columns => '{id}');

-- rows come, change and go; one that cannot be computed
SELECT ingest('s', 0, $$VALUES (31, 'k1', '31'), (32, 'k1', 'x')$$);
INSERT INTO t VALUES (31, 'k1', 310), (32, NULL, NULL);
UPDATE t SET amount = amount + 1, kind = 'k' || id % 4 WHERE id < 10;
DELETE FROM t WHERE id BETWEEN 10 AND 15;
SET client_min_messages = error;
SELECT view, (medallion.refresh(view)).strategy FROM medallion.materialized_views WHERE view::text LIKE 'v\_%' ORDER BY view::text COLLATE "C";
SELECT view, (medallion.verify(view)).* FROM medallion.materialized_views WHERE view::text LIKE 'v\_%';

-- and again, by statements of ours about them
SELECT medallion.alter_materialized_view('v_regroup', query => 'SELECT kind, array_agg(id ORDER BY id DESC) FROM t GROUP BY kind');
SELECT medallion.alter_materialized_view('v_merge', query => 'SELECT kind, avg(amount), count(DISTINCT amount % 7), min(id), max(id) FROM t GROUP BY kind');
SELECT strategy FROM medallion.refresh('v_merge', full_refresh => true);
SELECT strategy FROM medallion.refresh('v_merge', only_where => 'kind = ''k1''');
SELECT medallion.retry_refresh_errors('v_append');
SELECT FROM medallion.pause('v_join');
SELECT FROM medallion.resume('v_join');
SELECT FROM medallion.prune_history();
SELECT FROM medallion.prune_change_logs();
-- as after a restore, a change of history and a requeue
UPDATE medallion.batch SET filenode = NULL WHERE relid = 's'::regclass;
DELETE FROM medallion.late_batch WHERE relid = 's'::regclass;
DELETE FROM medallion.capture_mark;
UPDATE t SET amount = amount * 2;
SELECT view, (medallion.refresh(view)).strategy FROM medallion.materialized_views WHERE view::text LIKE 'v\_%' ORDER BY view::text COLLATE "C";
SELECT view, (medallion.verify(view)).* FROM medallion.materialized_views WHERE view::text LIKE 'v\_%';
SELECT view, last_error FROM medallion.materialized_views WHERE last_error IS NOT NULL;
DROP MATERIALIZED VIEW v_merge;
DROP TABLE t CASCADE;
DROP SCHEMA view_publication CASCADE;
DROP PUBLICATION everything;
