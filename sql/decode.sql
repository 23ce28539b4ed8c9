-- Decoders: what becomes of a record, through medallion.try_decode().
SET client_min_messages = warning;
CREATE SCHEMA decode_test;
SET search_path = decode_test, public;
\pset null '(null)'

CREATE FUNCTION try_json(relation regclass, payload text, OUT row_values json, OUT sqlstate text, OUT message text, OUT detail text)
    LANGUAGE sql AS
    $$SELECT * FROM medallion.try_decode(relation, convert_to(payload, 'UTF8'))$$;

-- One value of any type: the value as JSON shows it, or its error.
CREATE FUNCTION decoded(type text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    name text := 'one_' || md5(type);
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (v %s)', name, type);
    END IF;
    SELECT * INTO r FROM try_json(name::regclass, '{"v":' || value || '}');
    IF r.sqlstate IS NOT NULL THEN
        RETURN r.sqlstate || ' ' || r.message || coalesce(' (' || r.detail || ')', '');
    ELSIF type = 'json' THEN
        -- the operators of json refuse some values that the type holds
        RETURN substr(r.row_values::text, length('{"v":') + 1, length(r.row_values::text) - length('{"v":}'));
    END IF;
    RETURN r.row_values->>'v';
END $$;

-- What SQL makes of a literal of that type: the value as JSON shows it, or its sqlstate.
CREATE FUNCTION cast_as(type text, literal text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT to_json(CAST(%L AS %s)) #>> ''{}''', literal, type) INTO result;
    RETURN result;
EXCEPTION WHEN data_exception THEN
    RETURN SQLSTATE;
END $$;

--
-- The mapping, type by type
--
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN required AS text NOT NULL;
CREATE TYPE point3 AS (x int, "Y" numeric(4,1), label text);
CREATE TYPE line3 AS (name text, points point3[], at timestamptz);

SELECT type, json, decoded(type, json)
  FROM (VALUES
    ('smallint', '32767'), ('smallint', '32768'), ('smallint', '-32768'), ('smallint', '-32769'),
    ('int', '1.0'), ('int', '1e3'), ('int', '10e-1'), ('int', '1.5'), ('int', '1e-1'), ('int', '1e30'), ('int', '-0.0'),
    ('int', '"12"'), ('int', '" 12 "'), ('int', '"+7"'), ('int', '"abc"'), ('int', '""'), ('int', 'true'), ('int', '[1]'),
    ('int', '2147483648'), ('int', 'null'),
    ('bigint', '9223372036854775807'), ('bigint', '9223372036854775808'), ('bigint', '-9223372036854775808'),
    ('bigint', '9223372036854775807.000'), ('bigint', '-9223372036854775809'), ('bigint', '"1_000"'),
    ('real', '1.5'), ('real', '1e39'), ('real', '1e-50'), ('real', '"NaN"'), ('real', 'false'),
    ('double precision', '0.1'), ('double precision', '1e400'), ('double precision', '"-Infinity"'), ('double precision', '{}'),
    ('numeric', '1.50'), ('numeric', '"1.50"'), ('numeric', '1e3'), ('numeric', 'true'), ('numeric', '"NaN"'), ('numeric', '"x"'), ('numeric', '""'), ('numeric', '"-"'), ('numeric', '" 12.5 "'), ('numeric', '"12x"'), ('real', '""'), ('real', '" -inf "'), ('real', '"."'),
    ('numeric(5,2)', '999.994'), ('numeric(5,2)', '999.995'), ('numeric(5,2)', '1000'), ('numeric(5,2)', '-1000'),
    ('boolean', 'true'), ('boolean', '"off"'), ('boolean', '1'), ('boolean', '2'), ('boolean', '{}'),
    ('text', '"a\"b\u00e9\ud83d\ude00"'), ('text', '12.50'), ('text', 'true'), ('text', '{"a": [1, "x"]}'), ('text', '""'),
    ('text', '"a\u0000b"'), ('text', '"\ud83d"'), ('text', 'null'), ('text', '"null"'),
    ('varchar(3)', '"héé"'), ('varchar(3)', '"abc   "'), ('varchar(3)', '"abcd"'), ('varchar(3)', '1234'),
    ('char(3)', '"ab"'), ('char(3)', '"abcd"'), ('char(3)', '"héé   "'), ('varchar', '"abcd"'), ('char(3)', 'true'),
    ('uuid', '"6F1C2A3E-1111-2222-3333-0123456789ab"'), ('uuid', '"{6f1c2a3e-11112222-33330123-456789ab}"'), ('uuid', '"{6f1c2a3e11112222333-30123456789ab}"'), ('uuid', '"6f1c2a3e-1111-2222-3333-0123456789ab-"'), ('uuid', '"{}"'), ('uuid', '""'),
    ('uuid', '"6f1c2a3e111122223333-0123456789ab"'), ('uuid', '"6f1c2a3e-1111-2222-3333-0123456789ag"'), ('uuid', '7'),
    ('bytea', '"aGVsbG8="'), ('bytea', '"\\x0aFF"'), ('bytea', '""'), ('bytea', '"a*"'), ('bytea', '"\\xzz"'), ('bytea', '1'),
    ('json', '{"b":1, "a":  "\u0000"}'), ('json', '"a\"b"'), ('json', 'null'),
    ('jsonb', '{"b":1, "a":[true,null]}'), ('jsonb', '"a\"b"'), ('jsonb', '"\u0000"'), ('jsonb', 'null'),
    ('mood', '"happy"'), ('mood', '"angry"'), ('mood', '1'), ('mood', '"' || repeat('x', 70) || '"'), ('int4range', '"[1,5)"'), ('inet', '"10.0.0.1/8"'), ('inet', '"x"'),
    ('point', '"(1,2)"'), ('interval', '"1 day 02:00"'), ('time', '"10:15"'), ('time', '101500'), ('tsvector', '"a b"'),
    ('positive', '1'), ('positive', '0'), ('positive', '"x"'), ('positive', 'null'), ('required', '"a"'), ('required', 'null'),
    ('int[]', '[1, 2.0, null, "4"]'), ('int[]', '[]'), ('int[]', '[[1,2],[3,4]]'), ('int[]', '[[1,2],[3]]'), ('int[]', '[[1],2]'),
    ('int[]', '[1,[2]]'), ('int[]', '[[],[]]'), ('int[]', '[1,"x"]'), ('int[]', '"{1,2}"'), ('int[]', '1'), ('int[]', '[[[[[[[1]]]]]]]'),
    ('numeric(4,1)[]', '[1.25, 1]'), ('text[]', '["a\"", "b,c", 1]'), ('jsonb[]', '[[1], {"a":2}, null]'), ('positive[]', '[1,0]'),
    ('timestamptz[]', '["2024-01-01T00:00:00Z", 1700000000]'),
    ('point3', '{"Y": 1.25, "x": 1, "other": true}'), ('point3', '{"y": 1}'), ('point3', '{"x": "a"}'), ('point3', '"(1,2,z)"'), ('point3', '[1]'),
    ('point3[]', '[{"x":1},{"x":2,"label":"b"}]'),
    ('line3', '{"name":"l","points":[{"x":1,"label":"a"},null,{"x":3}],"at":"2024-01-01 10:00"}'),
    ('line3', '{"points":[{"x":1},{"x":1.5}]}')
  ) AS t (type, json);

--
-- Times. A number is a time since 1970 whose unit its size tells.
--
SELECT type, json, decoded(type, json)
  FROM (VALUES
    ('timestamptz', '0'), ('timestamptz', '1700000000'), ('timestamptz', '1700000000.123456'), ('timestamptz', '1.7000000001235E9'),
    ('timestamptz', '1700000000123'), ('timestamptz', '1700000000123.456'), ('timestamptz', '1700000000123456'),
    ('timestamptz', '1700000000123456789'), ('timestamptz', '-1700000000123456500'), ('timestamptz', '99999999999'),
    ('timestamptz', '100000000000'), ('timestamptz', '-100000000000'), ('timestamptz', '99999999999999'), ('timestamptz', '100000000000000'),
    ('timestamptz', '99999999999999999'), ('timestamptz', '100000000000000000'), ('timestamptz', '999999999999999999'),
    ('timestamptz', '1e17'), ('timestamptz', '1e18'), ('timestamptz', '1e30'), ('timestamptz', '9223372036854775807'), ('timestamptz', '9223372036854775808'), ('timestamptz', '1e-30'), ('timestamptz', '1700000000.00000000000000000001'),
    ('timestamptz(0)', '1700000000.5'), ('timestamptz(3)', '"2024-01-01T00:00:00.0005Z"'),
    ('timestamp', '1700000000'), ('timestamp', '"2024-02-29T12:00:00+02:00"'), ('timestamptz', 'true'), ('timestamptz', '"2023-02-29"'), ('timestamptz', '""'),
    ('date', '19782'), ('date', '-1'), ('date', '9999999'), ('date', '10000000'), ('date', '1700000000'), ('date', '1700000000123'), ('date', '-86400000001'),
    ('date', '"2024-02-29"'), ('date', '"2024-02-29T23:59:59-05:00"'), ('date', '1.5'), ('date', '9999999.5'), ('date', '1e3'), ('date', '1e10'), ('date', '1e40'), ('date', '-2451545'), ('date', '-2451546'), ('date', '{}'), ('date', '" "')
  ) AS t (type, json);

-- The record means the same whatever the session is set to.
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SELECT json, decoded('timestamptz', json) FROM (VALUES ('"2024-07-01 12:00"'), ('"07/01/2024 12:00"'), ('"July 1, 2024"'), ('"20240701T120000Z"')) AS t (json);
SELECT decoded('interval', '"-1 2:03:04"'), decoded('tstzrange', '"[2024-07-01,2024-07-02)"');
SHOW TimeZone; SHOW DateStyle; SHOW IntervalStyle;
RESET TimeZone;
RESET DateStyle;
RESET IntervalStyle;

--
-- Our readers against Postgres's input functions: no differences
--
CREATE TABLE numbers AS
    SELECT sign || mantissa || exponent AS literal
      FROM unnest(ARRAY['', '-']) AS sign,
           unnest(ARRAY['0', '0.0', '1', '7.5', '10', '12.50', '0.005', '1.005', '99.995', '999.99', '9999999999.99', '9999999999.995',
                        '123456789012345678', '999999999999999999', '1234567890123456789', '0.000000000000000001', '0.1234567890123456789',
                        '123456789.123456789', '100000000000000000000000000000.5']) AS mantissa,
           unnest(ARRAY['', 'e0', 'e3', 'E+5', 'e-3', 'E-20', 'e18', 'e308', 'e400']) AS exponent;
SELECT count(*) FROM numbers;
SELECT type, literal, decoded(type, json) AS decoded, cast_as(type, literal) AS expected
  FROM numbers,
       unnest(ARRAY['numeric', 'numeric(12,2)', 'numeric(3,0)', 'numeric(20,15)', 'numeric(38,10)', 'numeric(3,5)', 'numeric(6,-2)', 'numeric(18)', 'real', 'double precision']) AS type,
       LATERAL (VALUES (literal), (to_json(literal)::text)) AS j (json)
 WHERE split_part(decoded(type, json), ' ', 1) IS DISTINCT FROM cast_as(type, literal);

-- Integers: all that numeric holds without a fraction and in range.
SELECT type, literal, decoded(type, literal)
  FROM numbers, (VALUES ('smallint', 16), ('int', 32), ('bigint', 64)) AS t (type, bits),
       LATERAL (SELECT literal::numeric AS n, literal::numeric BETWEEN -(2::numeric ^ (bits - 1)) AND 2::numeric ^ (bits - 1) - 1 AS fits) AS x
 WHERE CASE WHEN fits AND n = trunc(n) THEN decoded(type, literal) IS DISTINCT FROM trunc(n)::text
            ELSE decoded(type, literal) !~ '^22(003|P02) ' END;

CREATE TABLE times AS
    WITH day AS (
        SELECT unnest(ARRAY['2024-02-29', '2023-02-29', '0001-01-01', '0000-01-01', '9999-12-31', '1969-12-31', '2000-13-01', '2024-04-31', '24-01-01', '2024-1-1']) AS day),
    separator AS (SELECT unnest(ARRAY['T', ' ', 't', '  ']) AS separator),
    clock AS (
        SELECT unnest(ARRAY['00:00', '23:59:59', '24:00:00', '12:60:00', '12:00:60', '12:34:56.7', '12:34:56.123456', '12:34:56.1234565', '23:59:59.9999999',
                            '12:34:56.', '12:34:56.123456789', '12:34:56,5', '1:02:03', '123456']) AS clock),
    zone AS (
        SELECT unnest(ARRAY['', 'Z', 'z', ' Z', '+02', '-0330', '+05:45', '+15:59', '+16:00', '+02:00:30', '+2', ' UTC', ' Europe/Berlin', 'x']) AS zone)
    SELECT day || separator || clock AS literal FROM day, separator, clock
    UNION SELECT '2024-02-29T' || clock || zone FROM clock, zone
    UNION SELECT day || ' 12:34:56.7' || zone FROM day, zone
    UNION SELECT day FROM day;
SELECT count(*) FROM times;
SET TimeZone = 'UTC';
SELECT type, literal, decoded(type, to_json(literal)::text) AS decoded, cast_as(type, literal) AS expected
  FROM times, unnest(ARRAY['timestamptz', 'timestamp', 'date', 'timestamptz(2)']) AS type
 WHERE regexp_replace(decoded(type, to_json(literal)::text), '^(22...) .*', '\1') IS DISTINCT FROM cast_as(type, literal);
RESET TimeZone;

--
-- Fields: white space, order, duplicates, escapes, names that look alike
--
CREATE TABLE fields (a int, "B" int, "ümlaut" text, "with ""quote""" text, abcdefgh1 int, abcdefgh2 int, gone int, rescued_data jsonb);
ALTER TABLE fields DROP COLUMN gone;
SELECT payload, row_values, sqlstate, message, detail
  FROM unnest(ARRAY[
    E' \n{ "a" :\t1 ,\r\n"B":2} ', '{"b":1,"A":2}', '{"a":1,"a":2}', '{"a":"x","a":2}', '{"a":1,"a":null}',
    '{"\u0061":5,"\u00fcmlaut":"u","with \"quote\"":"q"}', '{"abcdefgh2":2,"abcdefgh1":1}', '{"gone":1}', '{}',
    '{"x":{"y":[1,{"a":3}]},"a":1,"z":"s","z":"t","":0}', '{"a":{"a":1}}', '{"x":"\u0000"}', '{"x\u0000":1}', '{"x":"\\u0000"}',
    '[{"a":1}]', '"a"', '12', 'null', 'true',
    '', ' ', '{', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{"a" 1}', '{"a":1 "B":2}', '{a:1}', '{"a":01}', '{"a":.5}', '{"a":nul}', '{"a":1}}', E'{"a":"\t"}']) AS payload,
       LATERAL try_json('fields', payload);
SELECT sqlstate, message FROM try_json('fields', '{"a":"\q"}');
SELECT sqlstate, message FROM try_json('fields', '{"a":"' || repeat('x', 1000) || '"}');
SELECT sqlstate, message, length(detail) FROM try_json('fields', '{"a":' || repeat('x', 1000) || '}');

-- Slices of fields are what Postgres's own operators find.
CREATE TABLE slices (a text, b text, c text, d text);
WITH document AS (
    SELECT '{' || ws || '"a"' || ws || ':' || ws || x || ws || ',' || ws || '"skip":' || y || ',' || ws || '"b":' || y || ws || ',"c" :' || x || ',"\u0064":' || y || ws || '}' AS json
      FROM unnest(ARRAY['', ' ', E'\t\r\n ']) AS ws,
           unnest(ARRAY['1', '-0.5e10', '"s"', '""', '"\\\\"', '"\""', '"},{"', 'true', 'null', '[]', '[1, [2] ]', '{}', '{"a":{"b":"]"}}']) AS x,
           unnest(ARRAY['2', '"a:b,c"', 'false', 'null', '[{"a":1},"["]', '{ "c" : [ ] }']) AS y)
SELECT count(*) AS documents,
       count(*) FILTER (WHERE row_values::jsonb IS DISTINCT FROM
           jsonb_build_object('a', json::json->>'a', 'b', json::json->>'b', 'c', json::json->>'c', 'd', json::json->>'d')) AS differ
  FROM document, try_json('slices', json);

--
-- Whole payloads and metadata, by format
--
CREATE TABLE payload_bytea (kafka_partition int, kafka_offset bigint, kafka_timestamp timestamptz, kafka_topic text, kafka_key bytea, kafka_headers jsonb, payload bytea);
CREATE TABLE payload_text (kafka_key text, payload text);
CREATE TABLE payload_json (payload json);
CREATE TABLE payload_jsonb (kafka_key jsonb, payload jsonb);
SELECT relation, format, encode(payload, 'escape') AS payload, row_values, sqlstate, message, detail
  FROM unnest(ARRAY['payload_bytea', 'payload_text', 'payload_json', 'payload_jsonb']::regclass[]) AS relation,
       unnest(ARRAY['raw', 'text', 'json']) AS format,
       unnest(ARRAY['', 'plain', '{"a": "\\u0000"}', '[1,  2]', '\303\251\377', 'a\000b', NULL]::bytea[]) WITH ORDINALITY AS p (payload, i),
       medallion.try_decode(relation, payload, format => format)
 ORDER BY relation::text, format, i;
SELECT relation, row_values->'kafka_key' AS kafka_key, sqlstate, message
  FROM unnest(ARRAY['payload_bytea', 'payload_text', 'payload_jsonb']::regclass[]) AS relation,
       unnest(ARRAY['{"k":1}', 'k', '', '\377', NULL]::bytea[]) WITH ORDINALITY AS k (key, i),
       medallion.try_decode(relation, NULL, key)
 ORDER BY relation::text, i;

-- A tombstone is a row of NULLs.
SELECT * FROM medallion.try_decode('fields', NULL);
CREATE TABLE must_have (v required);
SELECT * FROM medallion.try_decode('must_have', NULL);

-- Identity and generated columns are not filled.
CREATE TABLE computed (id bigint GENERATED ALWAYS AS IDENTITY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, rescued_data jsonb);
SELECT row_values FROM try_json('computed', '{"id":7,"a":1,"twice":9}');

-- A renamed column keeps its source; a new column of that name shares it.
CREATE TABLE renamed (b int, part int, a int, kafka_partition text);
INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, origin)
    VALUES ('renamed', 's', 't', 'json', 'earliest', '{}', medallion.database_identity());
INSERT INTO medallion.stream_column VALUES ('renamed', 'b', 'a'), ('renamed', 'part', 'kafka_partition'), ('renamed', 'kafka_partition', 'note');
SELECT row_values FROM try_json('renamed', '{"a":1,"b":2,"note":"n"}');
UPDATE medallion.stream_column SET source_name = 'payload' WHERE relid = 'renamed'::regclass AND column_name = 'kafka_partition';
ALTER TABLE renamed ADD COLUMN payload jsonb;
DELETE FROM medallion.stream_column WHERE relid = 'renamed'::regclass;
DELETE FROM medallion.stream WHERE relid = 'renamed'::regclass;

--
-- Sizes
--
SELECT length(row_values->>'a') FROM try_json('slices', '{"a":"' || repeat('x', 1048576) || '"}');
SELECT length(row_values->>'a') FROM try_json('slices', '{"a":"' || repeat('\n', 1048576) || '"}');
SELECT octet_length(row_values->'payload'->>'a') FROM medallion.try_decode('payload_jsonb', convert_to('{"a":"' || repeat('é', 524288) || '"}', 'UTF8'));
CREATE TABLE lists (l int[]);
SELECT json_array_length(row_values->'l') FROM try_json('lists', '{"l":[' || repeat('1,', 300000) || '2]}');
SELECT sqlstate, message FROM try_json('slices', '{"a":' || repeat('[', 100000) || repeat(']', 100000) || '}');
SELECT sqlstate, message FROM medallion.try_decode('payload_jsonb', convert_to(repeat('{"a":', 100000) || '1' || repeat('}', 100000), 'UTF8'));
SELECT coalesce(sqlstate, 'stored') IN ('54001', 'stored') AS survived
  FROM try_json('slices', '{"a":' || repeat('[', 10000) || repeat(']', 10000) || '}');

--
-- Tables that cannot be filled
--
CREATE FUNCTION refusal(columns text, format text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    text_ text; detail_ text; hint_ text;
BEGIN
    EXECUTE 'CREATE TEMP TABLE refused (' || columns || ')';
    PERFORM medallion.try_decode('refused', '', format => refusal.format);
    DROP TABLE refused;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS text_ = MESSAGE_TEXT, detail_ = PG_EXCEPTION_DETAIL, hint_ = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || text_ || ' (' || detail_ || hint_ || ')';
END $$;
SELECT columns, format, refusal(columns, format)
  FROM (VALUES ('kafka_partition bigint', 'json'), ('kafka_offset int', 'raw'), ('kafka_timestamp timestamp', 'text'), ('ingested_at text', 'json'),
               ('kafka_topic name', 'json'), ('kafka_key int', 'json'), ('kafka_headers json', 'json'), ('payload xml', 'raw'), ('payload varchar', 'text'),
               ('rescued_data text', 'json'), ('rescued_data jsonb', 'raw'), ('a int', 'raw'), ('a int', 'text'), ('a int', 'jsno'),
               ('id int GENERATED ALWAYS AS IDENTITY, payload text', 'raw')) AS t (columns, format);
SELECT medallion.try_decode(NULL, '');
SELECT medallion.try_decode(1, '');
CREATE VIEW no_table AS SELECT 1 AS a;
SELECT medallion.try_decode('no_table', '');

-- An error that is not the record's is an error.
CREATE FUNCTION cancelled(int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'stop' USING ERRCODE = 'query_canceled'; END $$;
CREATE DOMAIN cancelling AS int CHECK (cancelled(VALUE));
CREATE TABLE cancels (v cancelling);
SELECT * FROM try_json('cancels', '{"v":1}');

-- Whoever may read the table may try.
CREATE ROLE decode_reader;
GRANT USAGE ON SCHEMA decode_test TO decode_reader;
GRANT SELECT ON payload_text TO decode_reader;
SET ROLE decode_reader;
SELECT row_values FROM medallion.try_decode('payload_text', 'x', format => 'text');
SELECT row_values FROM medallion.try_decode('payload_json', '1');
RESET ROLE;
DROP OWNED BY decode_reader;
DROP ROLE decode_reader;

\set VERBOSITY terse
SET client_min_messages = error;
DROP SCHEMA decode_test CASCADE;
