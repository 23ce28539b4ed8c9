-- Decoders in a database that is not in UTF-8: text is converted, or refused.
\set home :DBNAME
SET client_min_messages = warning;
CREATE DATABASE decode_latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
\c decode_latin1
SET client_encoding = 'UTF8';
CREATE EXTENSION pg_medallion;
\pset null '(null)'
CREATE TABLE latin1 (U&"gr\00f6\00dfe" text, n int, kafka_key text);
SELECT encode(convert_to(row_values->>U&'gr\00f6\00dfe', 'UTF8'), 'hex') AS size, row_values->'n' AS n, sqlstate,
       -- the message on what an escape means differs between versions
       regexp_replace(message, '^(column "größe": ).*', '\1...') AS message,
       CASE WHEN message LIKE 'payload: %' THEN detail END AS detail
  FROM unnest(ARRAY['{"gr\303\266\303\237e":"\303\251","n":1}', '{"gr\\u00f6\\u00dfe":"\\u00e9","n":2}',
                    '{"n":3,"x":"\342\202\254"}', '{"gr\303\266\303\237e":"\\u20ac"}', '{"n":4,"x":"\\u20ac"}', '{"n":5,"x":"\351"}']::bytea[]) AS payload,
       medallion.try_decode('latin1', payload);
SELECT encode(convert_to(row_values->>'kafka_key', 'UTF8'), 'hex') AS kafka_key, sqlstate, message
  FROM unnest(ARRAY['\303\251', '\342\202\254', '\351']::bytea[]) AS key, medallion.try_decode('latin1', NULL, key);
\c :home
SET client_min_messages = warning;
CREATE DATABASE decode_ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
\c decode_ascii
SET client_encoding = 'UTF8';
CREATE EXTENSION pg_medallion;
\pset null '(null)'
CREATE TABLE ascii (a text);
SELECT encode(convert_to(row_values->>'a', 'SQL_ASCII'), 'hex') AS a, sqlstate, message
  FROM unnest(ARRAY['{"a":"\303\251"}', '{"a":"\351"}']::bytea[]) AS payload, medallion.try_decode('ascii', payload);
\c :home
DROP DATABASE decode_latin1 WITH (FORCE);
DROP DATABASE decode_ascii WITH (FORCE);
