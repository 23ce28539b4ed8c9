-- What is JSON in a record: decode_json_scan.c must accept nothing that Postgres's
-- parser does not, and find the same fields.
SET client_min_messages = warning;
CREATE SCHEMA decode_json_test;
SET search_path = decode_json_test, public;
\pset null '(null)'

CREATE FUNCTION try_json(relation regclass, payload text, OUT row_values json) LANGUAGE sql AS
    $$SELECT d.row_values FROM medallion.try_decode(relation, convert_to(payload, 'UTF8')) AS d$$;

CREATE TABLE same (a json, "b c" json, "A" json);

-- The fields as Postgres sees them; NULL if it sees no object.
CREATE FUNCTION fields_of(payload text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    j json;
BEGIN
    j := payload;
    IF json_typeof(j) <> 'object' THEN
        RETURN NULL;
    END IF;
    RETURN concat_ws(' | ', coalesce(j->'a', 'null')::text, coalesce(j->'b c', 'null')::text, coalesce(j->'A', 'null')::text);
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END $$;

CREATE FUNCTION fields_decoded(payload text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' | ', coalesce(r->'a', 'null')::text, coalesce(r->'b c', 'null')::text, coalesce(r->'A', 'null')::text)
      FROM (SELECT row_values AS r FROM try_json('same', payload)) AS d WHERE r IS NOT NULL
$$;

CREATE TABLE texts AS
WITH records(r) AS (VALUES
    ('{"a":-10.25e+3, "b c":"x\"\u00e9\\y","\u0041":[true,{"a":null}],"z":{}}'),
    (' { "a" : [ ] ,"b c":{ "n" : 0.5E-1 , "m" : [ "" , false ] },"a":"second, with more than eight characters" } '),
    ('{"long enough for two words":1e5,"b c":"' || repeat('é', 9) || '","A":12345678901234567890}')),
characters(c) AS (VALUES ('"'), ('\'), ('{'), ('}'), ('['), (']'), (':'), (','), ('0'), ('1'), ('-'), ('+'), ('.'), ('e'), ('u'), ('n'),
    (' '), (E'\t'), (E'\n'), (E'\x01'), (E'\x1f'), (E'\x7f'), ('é'), ('€'), ('𝄞'))
SELECT r AS payload FROM records
UNION
SELECT overlay(r PLACING c FROM i FOR n) FROM records, characters, generate_series(1, length(r)) AS i, generate_series(0, 1) AS n
UNION
SELECT overlay(r PLACING '' FROM i FOR n) FROM records, generate_series(1, length(r)) AS i, (VALUES (1), (2), (1000)) AS v(n);

SELECT count(*) > 10000 AS many, count(*) FILTER (WHERE fields_of(payload) IS NOT NULL) > 2000 AS some_are_objects FROM texts;
SELECT payload, fields_of(payload), fields_decoded(payload) FROM texts
 WHERE fields_of(payload) IS DISTINCT FROM fields_decoded(payload);

-- objects one after the other by one decoder: which field stood where in the last one is no more than a guess
CREATE TYPE item AS (a json, "b c" json, "A" json);
CREATE TABLE items (list item[]);
CREATE TABLE objects AS
WITH fields(f) AS (VALUES ('"a":1'), ('"b c":"two"'), ('"A":[3]'), ('"other":{"a":4}'), (' "a" : 5'), ('"\u0041":6'), (NULL))
SELECT row_number() OVER (ORDER BY md5(payload)) - 1 AS nr, payload
  FROM (SELECT DISTINCT '{' || concat_ws(',', f1.f, f2.f, f3.f, f4.f) || '}' AS payload
          FROM fields f1, fields f2, fields f3, fields f4) AS o;
SELECT count(*) AS objects, count(*) FILTER (WHERE fields_of(payload) IS DISTINCT FROM
           concat_ws(' | ', coalesce(r->'a', 'null')::text, coalesce(r->'b c', 'null')::text, coalesce(r->'A', 'null')::text)) AS differ
  FROM (SELECT nr, payload, d.list -> nr::int AS r
          FROM objects, (SELECT row_values -> 'list' AS list
                           FROM try_json('items', (SELECT '{"list":[' || string_agg(payload, ',' ORDER BY nr) || ']}' FROM objects))) AS d) AS o;

-- nested as deep as one likes, and wrong at the bottom
SELECT depth, fields_of(t) = fields_decoded(t) AS same, fields_decoded(wrong)
  FROM (VALUES (62), (63), (64), (65), (500)) AS d(depth),
       LATERAL (SELECT '{"a":' || repeat('[', depth) || repeat(']', depth) || '}' AS t,
                       '{"a":' || repeat('[', depth) || '1 2' || repeat(']', depth) || '}' AS wrong) AS texts;

-- a payload as a whole, without fields
CREATE TABLE whole (payload json);

CREATE FUNCTION is_json(payload text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM payload::json;
    RETURN true;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN false;
END $$;

SELECT count(*) FILTER (WHERE is_json(payload)) > 2000 AS some_are_json FROM texts;
SELECT payload, is_json(payload) FROM texts WHERE is_json(payload) IS DISTINCT FROM (try_json('whole', payload) IS NOT NULL);

\set VERBOSITY terse
SET client_min_messages = error;
DROP SCHEMA decode_json_test CASCADE;
