-- Contracts of the key functions: what the catalog promises about them, who
-- may call them, and that they hold for a plain user.
BEGIN;
SELECT plan(5 * 7 + 6);

CREATE TEMP TABLE key_function (name name, returns text);
INSERT INTO key_function VALUES ('hash_key', 'bigint'), ('hash_key_uuid', 'uuid'), ('hash_key_encoding', 'bytea'),
	('xxhash64', 'bigint'), ('dbt_surrogate_key', 'text');

SELECT has_function('medallion', name, ARRAY['"any"']) FROM key_function;
SELECT function_returns('medallion', name, ARRAY['"any"'], returns) FROM key_function;
SELECT volatility_is('medallion', name, ARRAY['"any"'], 'immutable') FROM key_function;
SELECT isnt_strict('medallion', name, ARRAY['"any"']) FROM key_function;
SELECT is(proparallel, 's', format('%s is parallel safe', proname)) FROM key_function, pg_proc
	WHERE proname = name AND pronamespace = 'medallion'::regnamespace;
SELECT ok(provariadic = '"any"'::regtype AND proargnames = ARRAY['key_values'], format('%s takes VARIADIC key_values "any"', proname))
	FROM key_function, pg_proc WHERE proname = name AND pronamespace = 'medallion'::regnamespace;
SELECT ok(length(obj_description(oid, 'pg_proc')) > 20, format('%s has a comment', proname)) FROM key_function, pg_proc
	WHERE proname = name AND pronamespace = 'medallion'::regnamespace;

-- every user may call them, with any search_path
CREATE ROLE medallion_test_key_user;
SET LOCAL ROLE medallion_test_key_user;
SET LOCAL search_path = public;
SELECT lives_ok($$SELECT medallion.hash_key('a', 1), medallion.hash_key_uuid('a', 1), medallion.hash_key_encoding('a', 1),
	medallion.xxhash64('a', 1), medallion.dbt_surrogate_key('a', 1)$$, 'a user without privileges makes keys');
RESET ROLE;

-- keys that must be these for ever
SELECT is(medallion.hash_key('DE', 4711), 5624620676399671598, 'hash_key of a tuple');
SELECT is(medallion.hash_key_uuid('DE', 4711), 'a7a0c499-0ccc-8733-82c4-113c0df1a64e', 'hash_key_uuid of a tuple');
SELECT is(medallion.hash_key_encoding('DE', 4711), '\x73000000024445690000000000001267', 'hash_key_encoding of a tuple');
SELECT is(medallion.xxhash64('Spark', 1), -4449867541325528513, 'xxhash64 of a tuple');
SELECT is(medallion.dbt_surrogate_key('DE', NULL, 4711), md5('DE-_dbt_utils_surrogate_key_null_-4711'), 'dbt_surrogate_key of a tuple');

SELECT * FROM finish();
ROLLBACK;
