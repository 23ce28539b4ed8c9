--
-- Surrogate keys: hash_key, hash_key_uuid, hash_key_encoding, xxhash64,
-- dbt_surrogate_key.  test/keys compares them with other implementations.
--
\pset null '(null)'
SET search_path = medallion, public, pg_catalog;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';

-- Ask whether two expressions are equal in Postgres, and have one key.
CREATE FUNCTION public.is_equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE result boolean;
BEGIN
	EXECUTE format('SELECT (%s) IS NOT DISTINCT FROM (%s)', a, b) INTO result;
	RETURN result;
END $$;
CREATE FUNCTION public.is_one_key(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
	EXECUTE format('SELECT (hash_key(%1$s) = hash_key(%2$s))::int + (hash_key_uuid(%1$s) = hash_key_uuid(%2$s))::int'
				   ' + (hash_key_encoding(%1$s) = hash_key_encoding(%2$s))::int', a, b) INTO n;
	RETURN CASE n WHEN 0 THEN false WHEN 3 THEN true END;	-- null: the functions disagree
END $$;
-- What a call is answered with when it fails.
CREATE FUNCTION public.refusal(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; message text; detail text; hint text;
BEGIN
	EXECUTE 'SELECT ' || call;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', state || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;

--
-- hash_key: values that are equal have one key, others have not
--
SELECT a, b, is_equal(a, b), is_one_key(a, b) FROM (VALUES
	('1', '1::bigint'), ('1', '1::smallint'), ('1', '1.0::numeric'), ('1', '1.00::numeric(10,2)'), ('1', '1::float8'),
	('1', '1::float4'), ('1', '2'), ('0', '''-0''::float8'), ('100', '1e2::numeric'),
	('0.1::float8', '0.1::numeric'), ('0.1::float4', '0.1::float8'), ('0.1::float4', '0.1::numeric'), ('0.5::float4', '0.5::numeric'),
	('9007199254740992::bigint', '9007199254740992::float8'),
	('9223372036854775807', '9223372036854775807::numeric'), ('9223372036854775808::numeric', '9223372036854775808.0::numeric'),
	('''NaN''::float8', '''NaN''::numeric'), ('''Infinity''::float4', '''Infinity''::numeric'),
	('''-Infinity''::float4', '''Infinity''::numeric'), ('NULL::int', 'NULL::bigint'), ('NULL::int', '0')) v(a, b);
SELECT a, b, is_equal(a, b), is_one_key(a, b) FROM (VALUES
	('''a''', '''a''::text'), ('''a''::text', '''a''::varchar(3)'), ('''a''::text', '''a''::name'), ('''a''::text', '''a''::char(3)'),
	('''a''::text', '''a  ''::text'), ('''a''::char(3)', '''a  ''::text'), ('''a''::text', '''A''::text'), ('''''::text', 'NULL::text'),
	('''\x61''::bytea', '''\x6100''::bytea'),
	('''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''::uuid', '''{A0EEBC999C0B4EF8BB6D6BB9BD380A11}''::uuid'),
	('true', 'false')) v(a, b);
SELECT a, b, is_equal(a, b), is_one_key(a, b) FROM (VALUES
	('date ''2024-01-01''', 'timestamp ''2024-01-01 00:00'''), ('date ''2024-01-01''', 'timestamp ''2024-01-01 00:01'''),
	('date ''infinity''', 'timestamp ''infinity'''), ('date ''-infinity''', 'timestamp ''infinity'''),
	('timestamptz ''2024-01-01 00:00+00''', 'timestamptz ''2024-01-01 02:00+02'''),
	('interval ''1 month''', 'interval ''30 days'''), ('interval ''1 day''', 'interval ''24 hours'''),
	('interval ''-1 day''', 'interval ''-24:00:00'''), ('interval ''1 day''', 'interval ''25 hours'''),
	('time ''00:00''', 'time ''24:00'''), ('timetz ''12:00+00''', 'timetz ''13:00+01''')) v(a, b);
SELECT a, b, is_equal(a, b), is_one_key(a, b) FROM (VALUES
	('''{"a": 1, "b": [1.0]}''::jsonb', '''{"b": [1], "a": 1.00}''::jsonb'), ('''{"a": 1}''::jsonb', '''{"a": "1"}''::jsonb'),
	('''1''::jsonb', '''[1]''::jsonb'), ('''{"a": {}}''::jsonb', '''{"a": []}''::jsonb'), ('''null''::jsonb', 'NULL::jsonb'),
	('ARRAY[1,2]::numeric[]', 'ARRAY[1.0,2.00]'), ('ARRAY[1,2]', '''[0:1]={1,2}''::int[]'), ('ARRAY[1,2]', 'ARRAY[[1,2]]'),
	('ARRAY[''a'',NULL]', 'ARRAY[''a'']'), ('ARRAY[''a'',''b'']', 'ARRAY[''a,b'']'), ('''{}''::int[]', 'NULL::int[]'),
	('ROW(1, 1.0)', 'ROW(1, 1.00)'), ('ROW(1, NULL)', 'ROW(1, 2)'),
	('int4range(1, 3)', 'int4range(1, 2, ''[]'')'), ('int4range(1, 1)', '''empty''::int4range'), ('int4range(1, NULL)', 'int4range(NULL, 1)'),
	('numrange(1.0, 2)', 'numrange(1, 2.00)'), ('numrange(1, 2)', 'numrange(1, 2, ''[]'')'),
	('''{[1,3),[3,5)}''::int4multirange', '''{[1,5)}''::int4multirange'), ('''{}''::int4multirange', '''{[1,5)}''::int4multirange'),
	('inet ''10.0.0.1''', 'inet ''10.0.0.1/32'''), ('inet ''10.0.0.0/8''', 'cidr ''10.0.0.0/8'''), ('inet ''10.0.0.1/8''', 'inet ''10.0.0.1'''),
	('''08:00:2b:01:02:03''::macaddr::macaddr8', '''08:00:2b:ff:fe:01:02:03''::macaddr8'),
	('B''101''', 'B''101''::varbit'), ('B''101''', 'B''1010''')) v(a, b);

-- where tuples end
SELECT a, b, is_one_key(a, b) FROM (VALUES
	($$'a-', 'b'$$, $$'a', '-b'$$), ($$'ab', ''$$, $$'a', 'b'$$), ($$'a'$$, $$'a', NULL$$), ($$NULL, 'a'$$, $$'a', NULL$$),
	($$1, 2$$, $$12$$), ($$1$$, $$'1'$$), ($$ROW('a', 'b')$$, $$'a', 'b'$$), ($$ARRAY['a', 'b']$$, $$'a', 'b'$$),
	($$VARIADIC ARRAY['a', 'b']$$, $$'a', 'b'$$), ($$VARIADIC ARRAY['a', NULL]$$, $$'a', NULL$$),
	($$VARIADIC ARRAY[1, 2]$$, $$1, 2.0$$), ($$VARIADIC ARRAY[[1, 2], [3, 4]]$$, $$1, 2, 3, 4$$)) v(a, b);
SELECT hash_key_encoding(VARIADIC '{}'::text[]), hash_key(VARIADIC '{}'::text[]), hash_key(NULL) IS NULL AS null_key;
SELECT refusal('hash_key(VARIADIC NULL::text[])');
SELECT refusal('hash_key()');

-- a string of every length around the sizes of buffers and of blocks of the hash
SELECT count(*), count(DISTINCT hash_key(repeat('x', n))) AS keys, count(DISTINCT hash_key_uuid(repeat('x', n))) AS uuids
FROM generate_series(0, 1200) n;
SELECT bool_and(substr(u, 15, 1) = '8' AND substr(u, 20, 1) IN ('8', '9', 'a', 'b')) AS version_8
FROM (SELECT hash_key_uuid(n)::text AS u FROM generate_series(1, 1000) n) s;

-- toasted and compressed values
CREATE TEMP TABLE big (plain text, packed text);
ALTER TABLE big ALTER plain SET STORAGE EXTERNAL;
INSERT INTO big SELECT s, s FROM (SELECT repeat('0123456789', 20000) AS s) r;
SELECT hash_key(plain) = hash_key(packed) AND hash_key(plain) = hash_key(repeat('0123456789', 20000)) AS same,
	length(hash_key_encoding(plain, packed)) FROM big;

-- domains, enums by label, rows of a table whose columns come and go
CREATE DOMAIN public.amount AS numeric(12,2);
CREATE TYPE public.color AS ENUM ('red', 'green');
CREATE TABLE public.item (id int, gone text, color color, price amount);
INSERT INTO item VALUES (1, 'x', 'red', 1.50);
SELECT hash_key(price) = hash_key(1.5) AS domain, hash_key(color) = hash_key('red') AS label FROM item;
SELECT hash_key_encoding(item) FROM item;
ALTER TABLE item DROP COLUMN gone;
SELECT hash_key_encoding(item), hash_key_encoding(item) = hash_key_encoding(ROW(1, 'red', 1.5)) AS same FROM item;
CREATE DOMAIN public.amounts AS amount[];
SELECT hash_key(ARRAY[1.5, NULL]::amount[]) = hash_key(ARRAY[1.50, NULL]) AS domain_elements,
	hash_key(ARRAY[1.5]::amounts) = hash_key(ARRAY[1.5]) AS domain_of_array;
DROP DOMAIN amounts;
-- rows of different shapes in one call site
SELECT hash_key_encoding(r) FROM (SELECT ROW(1, 'a') AS r UNION ALL SELECT ROW(1) UNION ALL SELECT ROW(1, 'a')) s;

-- documents of great depth are hashed, or end with an error
CREATE TEMP TABLE deep AS SELECT (repeat('[', 5000) || repeat(']', 5000))::jsonb AS document;
SELECT length(hash_key_encoding(document)) FROM deep;
SET max_stack_depth = '100kB';
SELECT split_part(refusal('hash_key(document) FROM deep'), E'\n', 1);
RESET max_stack_depth;

--
-- Types without a stable meaning are refused by name, also for a NULL
--
SELECT expression, refusal(format('hash_key(NULL::%s)', expression)) FROM (VALUES
	('"char"'), ('json'), ('xml'), ('money'), ('oid'), ('regclass'), ('xid'), ('tid'), ('pg_lsn'), ('point'), ('circle'),
	('tsvector'), ('jsonpath'), ('oid[]'), ('point[]'), ('txid_snapshot')) v(expression);
SELECT refusal('hash_key(ROW(1, ''1''::json))');
-- all base types that are taken
SELECT string_agg(format_type(oid, NULL), ', ' ORDER BY typname COLLATE "C")
FROM pg_type WHERE typtype = 'b' AND typcategory <> 'A' AND typnamespace = 'pg_catalog'::regnamespace
	AND refusal(format('hash_key(NULL::%s)', format_type(oid, NULL))) = 'accepted';
-- and every other one is refused with our error
SELECT DISTINCT left(refusal(format('hash_key(NULL::%s)', format_type(oid, NULL))), 6)
FROM pg_type WHERE typtype = 'b' AND typcategory <> 'A' AND typnamespace = 'pg_catalog'::regnamespace;

-- strings whose equality is not that of bytes
CREATE COLLATION public.ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE public.person (name text COLLATE ignore_case, names text[] COLLATE ignore_case);
INSERT INTO person VALUES ('Ann', '{Ann}');
SELECT refusal('hash_key(name) FROM person');
SELECT refusal('hash_key(1, names) FROM person');
SELECT refusal('hash_key(person) FROM person');
SELECT hash_key(lower(name) COLLATE "C") = hash_key('ann') AS same FROM person;

--
-- Where keys are used
--
CREATE TABLE public.customer (
	country text, number int,
	customer_key bigint GENERATED ALWAYS AS (hash_key(country, number)) STORED,
	customer_uuid uuid GENERATED ALWAYS AS (hash_key_uuid(country, number)) STORED);
CREATE UNIQUE INDEX customer_by_key ON customer (hash_key(country, number));
INSERT INTO customer (country, number) SELECT 'DE', n FROM generate_series(1, 1000) n;
INSERT INTO customer (country, number) VALUES (NULL, 1), ('DE', NULL);
SELECT count(DISTINCT customer_key), count(DISTINCT customer_uuid) FROM customer;
SELECT country, number FROM customer WHERE customer_key = hash_key('DE'::varchar, 7::bigint);
INSERT INTO customer (country, number) VALUES (NULL, 1);
ANALYZE customer;
EXPLAIN (COSTS OFF) SELECT * FROM customer WHERE hash_key(country, number) = hash_key('DE', 7);
-- in a prepared statement, in PL/pgSQL, in a parallel plan
PREPARE key(text, int) AS SELECT hash_key($1, $2) = hash_key('DE', 7);
EXECUTE key('DE', 7);
DO $$
DECLARE c text := 'DE'; n numeric := 7.0;
BEGIN
	ASSERT hash_key(c, n) = hash_key('DE', 7);
	n := NULL;
	ASSERT hash_key(c, n) = hash_key('DE', NULL);
END $$;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT count(*) FROM customer WHERE hash_key(number, country) IS NULL;
SELECT count(*) FROM customer WHERE hash_key(country, number) = customer_key AND xxhash64(number) IS NOT NULL
	AND dbt_surrogate_key(number) IS NOT NULL;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;

--
-- xxhash64: that of Spark
--
SELECT xxhash64('Spark', 1), xxhash64(NULL), xxhash64(NULL, 'a') = xxhash64('a', NULL) AS null_changes_nothing;
SELECT xxhash64(1) = xxhash64(1::bigint) AS int_and_bigint, xxhash64(1::smallint) = xxhash64(1) AS short_and_int,
	xxhash64('a'::text, 'b') = xxhash64(VARIADIC ARRAY['a', 'b']) AS variadic, xxhash64(VARIADIC '{}'::int[]) AS nothing;
SELECT refusal('xxhash64(VARIADIC NULL::text[])');

-- the precision of a numeric is found wherever its type says it
CREATE TYPE public.money_of AS (amount numeric(10,2));
CREATE TABLE public.sale (amount numeric(10,2), amounts numeric(10,2)[], named public.amount, composed public.money_of, bare numeric);
INSERT INTO sale VALUES (1.5, '{1.5}', 1.5, ROW(1.5), 1.5);
SELECT DISTINCT h FROM sale, LATERAL (VALUES
	(xxhash64(1.5::numeric(10,2))), (xxhash64(amount)), (xxhash64(amounts)), (xxhash64(amounts[1])), (xxhash64(named)),
	(xxhash64(composed)), (xxhash64((composed).amount)), (xxhash64(bare::numeric(10,2))), (xxhash64(coalesce(amount, 0::numeric(10,2)))),
	(xxhash64(CASE WHEN bare > 1 THEN amount ELSE 0::numeric(10,2) END)), (xxhash64(VARIADIC amounts)), (xxhash64(VARIADIC ARRAY[amount, NULL]::numeric(10,2)[]))) v(h);
SELECT xxhash64(amount) FROM (SELECT amount FROM sale UNION ALL SELECT amount FROM sale ORDER BY 1 LIMIT 1) s;
DO $$
DECLARE price numeric(10,2) := 1.5;
BEGIN
	ASSERT xxhash64(price) = xxhash64(1.5::numeric(10,2));
END $$;
SELECT xxhash64(max) FROM (SELECT max(amount)::numeric(10,2) FROM sale) s;
SELECT call, refusal(call) FROM (VALUES ('xxhash64(1.5)'), ('xxhash64(bare) FROM sale'), ('xxhash64(sum(amount)) FROM sale'),
	('xxhash64(amount * 2) FROM sale'), ('xxhash64(CASE WHEN bare > 1 THEN amount END) FROM sale'), ('xxhash64(ARRAY[1.5, 2])'), ('xxhash64(NULL::numeric)'),
	('xxhash64(1::numeric(39,0))'), ('xxhash64(1::numeric(38,0))'), ('xxhash64(1000::numeric(5,-2))'), ('xxhash64(0.001::numeric(2,3))'),
	('xxhash64(''NaN''::numeric(5,2))'),
	('xxhash64(''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''::uuid)'), ('xxhash64(''{}''::jsonb)'), ('xxhash64(int4range(1,2))'),
	('xxhash64(time ''12:00'')'), ('xxhash64(1::oid)'),
	('xxhash64(date ''infinity'')'), ('xxhash64(timestamp ''-infinity'')'), ('xxhash64(timestamptz ''294276-12-31 00:00+00'')')) v(call);

--
-- dbt_surrogate_key: that of dbt_utils, against its own SQL
--
CREATE TABLE public.dbt (
	b boolean, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, n2 numeric(10,2), t text, v varchar(5), c char(5),
	na name, e color, by bytea, u uuid, d date, ts timestamp, tz timestamptz, ti time, tt timetz, iv interval, j jsonb,
	ip inet, net cidr, m macaddr, m8 macaddr8, bi bit(3), vb varbit, a amount);
INSERT INTO dbt VALUES
	(true, 1, -2, 3, 0.1, 0.30000000000000004, 1.00, 1.5, 'a', 'b', 'c', 'd', 'red', '\x00ff', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
	'2024-02-29', '2024-02-29 12:34:56.5', '2024-02-29 12:34:56.123456+02', '12:34:56', '12:34:56+05:30', '1 year 2 mons -3 days 04:05:06.7',
	'{"b": 1.0, "a": "é"}', '10.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'101', B'10101', 2.50),
	(false, -32768, 0, -9223372036854775808, 'NaN', '-Infinity', 'NaN', -0.01, '', '', '', '', 'green', '', '00000000-0000-0000-0000-000000000000',
	'0044-03-15 BC', '0044-03-15 12:00 BC', '0044-03-15 12:00:00+00 BC', '24:00', '00:00-12', '-1 days', 'null',
	'::1/64', '::/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', B'000', B'', 0),
	(NULL, NULL, NULL, NULL, '-0', 1e300, 1e40, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	'infinity', 'infinity', '-infinity', NULL, NULL, '0', '[]', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
-- each column, as dbt writes it
CREATE FUNCTION public.rows_equal_to_dbt(column_name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM dbt WHERE dbt_surrogate_key(%1$I) ='
				   ' md5(cast(coalesce(cast(%1$I as TEXT), ''_dbt_utils_surrogate_key_null_'') as TEXT))', column_name) INTO n;
	RETURN n;
END $$;
SELECT attname, rows_equal_to_dbt(attname) FROM pg_attribute WHERE attrelid = 'public.dbt'::regclass AND attnum > 0 ORDER BY attnum;
-- several columns
SELECT dbt_surrogate_key(t, i4, b) AS key, dbt_surrogate_key(t, i4, b) =
	md5(cast(coalesce(cast(t as TEXT), '_dbt_utils_surrogate_key_null_') || '-' || coalesce(cast(i4 as TEXT), '_dbt_utils_surrogate_key_null_')
		|| '-' || coalesce(cast(b as TEXT), '_dbt_utils_surrogate_key_null_') as TEXT)) AS equal FROM dbt ORDER BY i4;
SELECT dbt_surrogate_key('a', NULL) = dbt_surrogate_key(VARIADIC ARRAY['a', NULL]) AS variadic, dbt_surrogate_key(NULL) = md5('_dbt_utils_surrogate_key_null_') AS null_key;
SELECT call, refusal(call) FROM (VALUES ('dbt_surrogate_key(ARRAY[1])'), ('dbt_surrogate_key(VARIADIC ARRAY[1])'), ('dbt_surrogate_key(ROW(1))'),
	('dbt_surrogate_key(int4range(1,2))'), ('dbt_surrogate_key(1::oid)'), ('dbt_surrogate_key(''{}''::json)'),
	('dbt_surrogate_key(VARIADIC NULL::int[])')) v(call);

--
-- Settings change no key of any kind
--
CREATE TEMP VIEW all_keys AS
	SELECT i4, hash_key(dbt) AS a, hash_key(f4, f8, by, d, ts, tz, iv) AS b, hash_key_uuid(dbt) AS c,
		xxhash64(f4, f8, t) AS d, dbt_surrogate_key(f4, f8, by, d, ts, tz, ti, tt, iv, j) AS e FROM dbt;
CREATE TEMP TABLE keys_before AS SELECT * FROM all_keys;
SET DateStyle = 'German';
SET IntervalStyle = 'sql_standard';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
SELECT count(*) AS before, (SELECT count(*) FROM (TABLE keys_before INTERSECT TABLE all_keys) s) AS same FROM keys_before;
RESET DateStyle;
RESET IntervalStyle;
RESET TimeZone;
RESET extra_float_digits;
RESET bytea_output;

DROP VIEW all_keys;
DROP TABLE item, person, customer, sale, dbt;
DROP TYPE public.money_of, public.color, public.amount;
DROP COLLATION public.ignore_case;
DROP FUNCTION is_equal, is_one_key, refusal, rows_equal_to_dbt;
