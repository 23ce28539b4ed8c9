-- What the documents name exists, and what exists is named in them.
\set readme `cat README.md`
\set documents `cat README.md doc/*.md`
BEGIN;
SELECT plan(6);

CREATE TEMP TABLE document AS SELECT :'documents' AS text, :'readme' AS readme;

-- medallion.x in prose or SQL: a setting, an option, a relation or a function
CREATE TEMP TABLE named AS
    SELECT DISTINCT m[1] AS name FROM document, regexp_matches(text, '\mmedallion\.([a-z_][a-z_0-9]*)', 'g') m;
CREATE TEMP TABLE option AS
    SELECT unnest(ARRAY['server', 'topic', 'format', 'start_at', 'check_topic', 'flush_interval', 'batch_max_records', 'batch_max_bytes',
                        'max_dead_letter_ratio', 'dead_letter_window', 'on_error', 'on_gap', 'isolation_level', 'group_id', 'schema_evolution',
                        'refresh_interval', 'refresh_mode', 'key_columns', 'max_refresh_errors']) AS name;
SELECT is_empty($$SELECT name FROM named n
     WHERE NOT EXISTS (SELECT FROM pg_settings s WHERE s.name = 'medallion.' || n.name)
       AND NOT EXISTS (SELECT FROM option o WHERE o.name = n.name)
       AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'medallion'::regnamespace AND c.relname = n.name)
       AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'medallion'::regnamespace AND p.proname = n.name)$$,
    'what the documents name as medallion.... exists');

SELECT is_empty($$SELECT s.name FROM pg_settings s, document
     WHERE s.name LIKE 'medallion.%' AND s.name <> 'medallion.debug_points' AND strpos(readme, '`' || s.name || '`') = 0$$,
    'every setting is in the README, but for the one of tests');
SELECT is_empty($$SELECT o.name FROM option o, document WHERE strpos(text, '`' || o.name || '`') = 0 AND o.name NOT IN ('server', 'topic', 'format')$$,
    'every option is in a table of options');
SELECT is_empty($$SELECT c.relname FROM pg_class c, document
     WHERE c.relnamespace = 'medallion'::regnamespace AND c.relkind = 'v' AND has_table_privilege('public', c.oid, 'SELECT')
       AND strpos(text, '`medallion.' || c.relname || '`') = 0$$, 'every state view is named');
-- for refreshes, triggers, catalogs and tests alone
SELECT is_empty($$SELECT p.proname FROM pg_proc p, document
     WHERE p.pronamespace = 'medallion'::regnamespace AND p.prokind = 'f' AND has_function_privilege('public', p.oid, 'EXECUTE')
       AND p.proname NOT IN ('guard_write', 'capture_change', 'captured_frontier', 'types_changed', 'copies', 'row_fingerprint', 'not_quarantined', 'not_quarantined_support',
                             'kafka_fdw_validator', 'worker_slots', 'failure_hint', 'database_identity', 'debug_point_id', 'try_schedule')
       AND text !~ ('\m' || p.proname || '\M')$$, 'every function for people is named');

SELECT is_empty($$SELECT m[1] FROM document, regexp_matches(text, '^([A-Z_]{5,})$', 'gn') m$$, 'no place was left to be filled in');

SELECT * FROM finish();
ROLLBACK;
