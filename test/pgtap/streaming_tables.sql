-- Contracts of the functions and views of servers and streaming tables: names
-- of arguments, volatility, strictness, parallel safety, comments, privileges.
SELECT plan(64);

CREATE TEMP TABLE contract (function regprocedure, arguments text, volatility "char", parallel "char", strict bool);
INSERT INTO contract VALUES
    ('medallion.kafka_fdw_validator(text[],oid)', 'options text[], catalog oid', 's', 'r', true),
    ('medallion.kafka_properties()', 'OUT name text, OUT option_name text, OUT disposition text, OUT where_allowed text, OUT is_secret boolean, OUT reason text, OUT in_library boolean', 's', 's', true),
    ('medallion.check_server(text)', 'server_name text, OUT brokers text, OUT broker_count integer, OUT cluster_id text, OUT latency_ms double precision, OUT library_version text', 'v', 'r', false),
    ('medallion.list_topics(text)', 'server_name text, OUT topic text, OUT partitions integer', 'v', 'r', false),
    ('medallion.create_streaming_table(text,text,text,text,text,text,jsonb)', $$table_name text, server text, topic text, format text DEFAULT 'json'::text, columns text DEFAULT NULL::text, start_at text DEFAULT 'earliest'::text, options jsonb DEFAULT '{}'::jsonb$$, 'v', 'u', false),
    ('medallion.drop_streaming_table(regclass)', 'table_name regclass', 'v', 'u', false),
    ('medallion.pause(regclass)', 'relation regclass', 'v', 'u', false),
    ('medallion.resume(regclass)', 'relation regclass', 'v', 'u', false),
    ('medallion.resume_all()', '', 'v', 'u', false),
    ('medallion.wait_for_offset(regclass,integer,bigint,interval,text)', 'table_name regclass, kafka_partition integer, kafka_offset bigint, timeout interval, kafka_topic text DEFAULT NULL::text', 'v', 'u', false),
    ('medallion.wait_until_caught_up(regclass,interval)', 'table_name regclass, timeout interval', 'v', 'u', false);

SELECT is(pg_get_function_arguments(function), arguments, 'arguments of ' || function) FROM contract;
SELECT is(row(provolatile, proparallel, proisstrict), row(volatility, parallel, strict), 'kind of ' || function)
  FROM contract JOIN pg_proc ON oid = function;
SELECT isnt(obj_description(function, 'pg_proc'), NULL, 'comment on ' || function) FROM contract;
SELECT ok(has_function_privilege('public', function, 'EXECUTE'), 'everybody may call ' || function) FROM contract;

-- Views: everybody may read them, nobody sees what belongs to others
CREATE TEMP TABLE state_view (name regclass);
INSERT INTO state_view VALUES ('medallion.streaming_tables'), ('medallion.stream_topics'), ('medallion.stream_partitions'), ('medallion.dead_letters'), ('medallion.gaps');
SELECT isnt(obj_description(name, 'pg_class'), NULL, 'comment on ' || name) FROM state_view;
SELECT ok(has_table_privilege('public', name, 'SELECT'), 'everybody may read ' || name) FROM state_view;
SELECT is(reloptions, ARRAY['security_barrier=true'], 'no leak through ' || name) FROM state_view JOIN pg_class ON oid = name;

-- Tables: nobody but the owner of the extension
SELECT is_empty($$
    SELECT oid::regclass FROM pg_class
     WHERE relnamespace = 'medallion'::regnamespace AND relkind IN ('r', 'S')
       AND (has_table_privilege('public', oid, 'SELECT') OR has_table_privilege('public', oid, 'INSERT')
            OR has_table_privilege('public', oid, 'UPDATE') OR has_table_privilege('public', oid, 'DELETE'))$$,
    'tables of the extension are its owner''s alone');

SELECT ok(NOT has_foreign_data_wrapper_privilege('public', 'kafka', 'USAGE'), 'creating servers is not for everybody');
SELECT isnt(obj_description(oid, 'pg_foreign_data_wrapper'), NULL, 'comment on the wrapper') FROM pg_foreign_data_wrapper WHERE fdwname = 'kafka';
SELECT is(fdwhandler, 0::oid, 'the wrapper has no foreign tables') FROM pg_foreign_data_wrapper WHERE fdwname = 'kafka';
SELECT is_empty($$
    SELECT name FROM medallion.kafka_properties() WHERE disposition = 'unknown'$$, 'each property is decided upon');

SELECT * FROM finish();
