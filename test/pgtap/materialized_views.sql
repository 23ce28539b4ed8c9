-- Contracts of the functions and views of materialized views: names of
-- arguments, volatility, strictness, parallel safety, comments, privileges.
BEGIN;
SELECT plan(54);

CREATE TEMP TABLE contract (name name PRIMARY KEY, arguments text, result text, volatility text, strict boolean, parallel "char");
INSERT INTO contract VALUES
	('create_materialized_view', 'view_name text, query text, refresh_interval interval DEFAULT ''00:01:00''::interval, refresh_mode text DEFAULT ''auto''::text, key_columns text[] DEFAULT NULL::text[], with_data boolean DEFAULT true, options jsonb DEFAULT ''{}''::jsonb', 'regclass', 'v', false, 'u'),
	('alter_materialized_view', 'view regclass, query text DEFAULT NULL::text, refresh_interval interval DEFAULT ''-00:00:01''::interval, refresh_mode text DEFAULT NULL::text, key_columns text[] DEFAULT ''{*}''::text[], options jsonb DEFAULT ''{}''::jsonb', 'void', 'v', false, 'u'),
	('drop_materialized_view', 'view regclass, cascade boolean DEFAULT false', 'void', 'v', false, 'u'),
	('refresh', 'view regclass, full_refresh boolean DEFAULT false, only_where text DEFAULT NULL::text, OUT strategy text, OUT reason text, OUT rows_read bigint, OUT rows_inserted bigint, OUT rows_updated bigint, OUT rows_deleted bigint, OUT frontier jsonb', 'record', 'v', false, 'u'),
	('refresh_group', 'view regclass', 'regclass[]', 'v', false, 'u'),
	('explain_refresh', 'query_or_view text, OUT step text, OUT strategy text, OUT changes text, OUT detail text, OUT create_index text', 'SETOF record', 'v', false, 'u'),
	('retry_refresh_errors', 'view regclass', 'bigint', 'v', false, 'u'),
	('row_fingerprint', 'VARIADIC row_values "any"', 'uuid', 'i', false, 's'),
	('not_quarantined', 'fingerprints uuid[], VARIADIC row_values "any"', 'boolean', 'i', false, 's'),
	('verify', 'view regclass, OUT difference text, OUT row_data jsonb, OUT copies bigint', 'SETOF record', 'v', false, 'u');

SELECT is(pg_get_function_arguments(p.oid), c.arguments, format('arguments of %s', name))
  FROM contract c JOIN pg_proc p ON p.proname = c.name AND p.pronamespace = 'medallion'::regnamespace;
SELECT is(pg_get_function_result(p.oid) || ' ' || p.provolatile::text || ' ' || p.proisstrict || ' ' || p.proparallel::text,
		c.result || ' ' || c.volatility || ' ' || c.strict || ' ' || c.parallel::text, format('result and properties of %s', name))
  FROM contract c JOIN pg_proc p ON p.proname = c.name AND p.pronamespace = 'medallion'::regnamespace;
SELECT ok(length(obj_description(p.oid, 'pg_proc')) > 40, format('%s has a comment', name))
  FROM contract c JOIN pg_proc p ON p.proname = c.name AND p.pronamespace = 'medallion'::regnamespace;
SELECT function_privs_are('medallion', 'prune_history', ARRAY[]::text[], 'public', ARRAY[]::text[]);

-- what anyone may read, and what nobody else may
SELECT ok(has_table_privilege('public', 'medallion.' || v, 'SELECT'), format('everyone may read %s', v))
  FROM unnest(ARRAY['materialized_views', 'refresh_history', 'refresh_errors']) v;
SELECT ok(NOT has_table_privilege('public', 'medallion.' || t, 'SELECT, INSERT, UPDATE, DELETE'), format('%s is ours', t))
  FROM unnest(ARRAY['view', 'view_state', 'view_source', 'view_change', 'view_status', 'refresh_run', 'refresh_error', 'source_position', 'source_waiting']) t;
SELECT is((SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = 'medallion'::regnamespace AND relkind = 'v'
	AND has_table_privilege('public', oid, 'SELECT') AND NOT coalesce(reloptions, '{}') @> '{security_barrier=true}'), 'workers',
	'no function of a reader is called for rows that are not his; workers shows the same rows to all');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'medallion'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL$$,
	'every function has a comment');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'medallion'::regnamespace AND pronargs > 0 AND prokind = 'f'
	AND prorettype <> 'internal'::regtype AND (proargnames IS NULL OR '' = ANY (proargnames))$$, 'every argument has a name');
SELECT ok(NOT has_schema_privilege('public', 'medallion_def', 'CREATE'), 'nobody makes things in medallion_def');
SELECT columns_are('medallion', 'materialized_views', ARRAY['view', 'owner', 'query', 'refresh_mode', 'refresh_interval', 'key_columns',
	'state', 'populated', 'strategy', 'refreshed_at', 'last_duration', 'freshness', 'latency', 'next_refresh', 'paused', 'paused_reason', 'last_sqlstate', 'last_error',
	'failures', 'failing_since', 'quarantined_rows', 'state_tables', 'result_bytes', 'state_bytes']);
SELECT columns_are('medallion', 'refresh_history', ARRAY['run_id', 'view', 'started_at', 'finished_at', 'duration', 'strategy', 'reason',
	'rows_read', 'rows_inserted', 'rows_updated', 'rows_deleted', 'sqlstate', 'message', 'steps']);
SELECT columns_are('medallion', 'refresh_errors', ARRAY['error_id', 'view', 'source', 'kafka_topic', 'kafka_partition', 'kafka_offset',
	'row_data', 'copies', 'sqlstate', 'message', 'detail', 'context', 'failed_at', 'tried_at', 'attempts']);

-- fingerprints: NULL is a value, and where one value ends matters; the planner counts on all rows
SELECT ok(medallion.row_fingerprint('a'::text, 1, NULL::text) = medallion.row_fingerprint('a'::text, 1, NULL::text), 'a fingerprint is of the values');
SELECT is((SELECT count(DISTINCT f)::int FROM (VALUES (medallion.row_fingerprint('ab'::text, 'c'::text)), (medallion.row_fingerprint('a'::text, 'bc'::text)),
		(medallion.row_fingerprint('ab'::text, NULL::text)), (medallion.row_fingerprint(NULL::text, 'ab'::text)), (medallion.row_fingerprint('ab'::text, ''::text))) v(f)), 5, 'other values have others');

-- history that nobody needs goes, and what a view has yet to read stays
CREATE TABLE s (id int, kafka_partition int, kafka_offset bigint);
INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
	VALUES ('s', 'nowhere', 's', 'json', 'earliest', '{}', true, medallion.database_identity());
INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset) VALUES ('s', 's', 0, 0, 10);
SELECT FROM medallion.create_materialized_view('v', 'SELECT id FROM s', NULL);
INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset, row_count, stored_at)
	VALUES ('s', 's', 0, 0, 10, 10, now() - interval '1 year'), ('s', 's', 0, 10, 20, 10, now() - interval '1 year'), ('s', 's', 0, 20, 30, 10, now());
UPDATE medallion.refresh_run SET started_at = now() - interval '1 year' WHERE relid = 'v'::regclass;
SELECT FROM medallion.prune_history();
SELECT results_eq($$SELECT first_offset FROM medallion.batch WHERE relid = 's'::regclass ORDER BY 1$$, ARRAY[10, 20]::bigint[], 'bounds that the view has not read are kept');
SELECT is_empty($$SELECT FROM medallion.refresh_run WHERE relid = 'v'::regclass$$, 'old runs are not');

SELECT * FROM finish();
ROLLBACK;
