-- Servers: the wrapper, its options, and what they refuse. Needs no broker;
-- one transaction, so that it leaves nothing behind.
\set ON_ERROR_ROLLBACK on
\pset null '(null)'
BEGIN;

-- Every property that the linked librdkafka knows is allowed, refused with a
-- reason, or reserved: a new version's properties need a decision first.
SELECT name FROM medallion.kafka_properties() WHERE disposition = 'unknown';
SELECT name FROM medallion.kafka_properties()
 WHERE disposition <> 'allowed' AND (reason IS NULL OR where_allowed IS NOT NULL);
SELECT name FROM medallion.kafka_properties() WHERE disposition = 'allowed' AND where_allowed IS NULL;
SELECT count(*) > 100 AS many FROM medallion.kafka_properties() WHERE in_library;
-- names of options are unique, and of the right form
SELECT option_name FROM medallion.kafka_properties() GROUP BY 1 HAVING count(*) > 1;
SELECT name FROM medallion.kafka_properties() WHERE option_name <> replace(name, '.', '_');
-- aliases and what differs by version are decided alike
SELECT name, disposition, where_allowed, is_secret, reason FROM medallion.kafka_properties()
 WHERE name IN ('bootstrap.servers', 'metadata.broker.list', 'sasl.mechanism', 'sasl.mechanisms', 'sasl.password',
                'ssl.key.location', 'group.id', 'isolation.level', 'schema.registry.url', 'plugin.library.paths')
 ORDER BY name COLLATE "C";
-- all that loads code, runs a command, writes a file or sets a signal
SELECT name FROM medallion.kafka_properties()
 WHERE disposition = 'allowed'
   AND name ~ '^(plugin|ssl\.engine|ssl\.providers|sasl\.kerberos|offset\.store|internal|test\.mock|enable\.auto|auto\.|group\.|debug|log)';
SELECT name, where_allowed FROM medallion.kafka_properties()
 WHERE disposition = 'allowed' AND name ~ '(password|secret|passphrase|key\.pem)' AND NOT is_secret;
SELECT name, where_allowed FROM medallion.kafka_properties() WHERE is_secret AND where_allowed <> 'user mapping';
SELECT name FROM medallion.kafka_properties()
 WHERE disposition = 'allowed' AND name ~ '(location|file)$' AND reason IS NULL;

-- What is needed, and in which form
CREATE SERVER k FOREIGN DATA WRAPPER kafka;
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a:9092,');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a:65536');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a:0');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a:');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers ':9092');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'kafka://a:9092');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '[::1');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '[::1]9092');
CREATE SERVER good_brokers FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a, b:9092 ,[::1]:9092,[fe80::1]');

-- Names: misspelt, in librdkafka's own spelling, refused, reserved, misplaced
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_server 'a');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', securty_protocol 'ssl');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', "client.id" 'x');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', nothing_like_it 'x');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', plugin_library_paths '/tmp/x.so');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', sasl_kerberos_kinit_cmd 'id');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', metadata_broker_list 'a');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', group_id 'x');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', isolation_level 'read_committed');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', test_mock_num_brokers '1');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', bootstrap_servers 'b');

-- Secrets stay out of servers, and out of errors
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', sasl_password 'geheim');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', ssl_key_pem 'geheim');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', schema_registry_url 'http://user:geheim@host');

-- Values
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', security_protocol 'sassl_ssl', sasl_mechanism 'PLAIN');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', socket_timeout_ms '1');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', socket_timeout_ms '60s');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', socket_timeout_ms '99999999999999999999');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', socket_keepalive_enable 'maybe');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', client_id '');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', schema_registry_url 'ftp://host');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', sasl_mechanism 'GSSAPI', security_protocol 'sasl_ssl');

-- Options that ask for each other
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', security_protocol 'sasl_ssl');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', sasl_mechanism 'PLAIN');
CREATE SERVER k FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', security_protocol 'SASL_SSL', sasl_mechanism 'OAUTHBEARER');

CREATE SERVER k FOREIGN DATA WRAPPER kafka
    OPTIONS (bootstrap_servers 'a', security_protocol 'SASL_SSL', sasl_mechanism 'scram-sha-512', ssl_ca_pem 'x', socket_keepalive_enable 'on');
ALTER SERVER k OPTIONS (DROP sasl_mechanism);
ALTER SERVER k OPTIONS (DROP bootstrap_servers);
ALTER SERVER k OPTIONS (SET security_protocol 'tls');
ALTER SERVER k OPTIONS (SET socket_keepalive_enable 'off', ADD client_rack 'r1');

-- User mappings
CREATE USER MAPPING FOR PUBLIC SERVER k OPTIONS (sasl_username 'u', sasl_password 'geheim');
CREATE USER MAPPING FOR CURRENT_USER SERVER k OPTIONS (bootstrap_servers 'b');
CREATE USER MAPPING FOR CURRENT_USER SERVER k OPTIONS (sasl_pasword 'geheim');
CREATE USER MAPPING FOR CURRENT_USER SERVER k OPTIONS (sasl_password '');

-- The wrapper has no options of its own, and no foreign tables
ALTER FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a');
CREATE FOREIGN TABLE f (a int) SERVER k;
CREATE FOREIGN TABLE f (a int) SERVER k OPTIONS (topic 't');

-- Privileges: creating a server is for those who were granted the wrapper
CREATE ROLE md_plain;
CREATE ROLE md_server_owner;
GRANT USAGE ON FOREIGN DATA WRAPPER kafka TO md_server_owner;
SET ROLE md_plain;
CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a');
SELECT * FROM medallion.check_server('k');
SELECT * FROM medallion.list_topics('k');
SET ROLE md_server_owner;
-- files of the machine are for members of pg_read_server_files
CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a', ssl_ca_location '/etc/passwd');
CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'a');
CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (ssl_key_location '/etc/passwd');
CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (sasl_password 'geheim');
RESET ROLE;
GRANT pg_read_server_files TO md_server_owner;
SET ROLE md_server_owner;
ALTER SERVER mine OPTIONS (ADD ssl_ca_location '/etc/passwd');
-- another's secrets are hidden by core, and a server's options hold none
RESET ROLE;
SET ROLE md_plain;
SELECT srvname, usename, umoptions FROM pg_user_mappings WHERE srvname IN ('k', 'mine') ORDER BY 1, 2;
SELECT srvname FROM pg_foreign_server WHERE srvoptions::text LIKE '%geheim%';
RESET ROLE;

-- Questions to servers that are none
SELECT * FROM medallion.check_server(NULL);
SELECT * FROM medallion.check_server('good_broker');
SELECT * FROM medallion.check_server('nothing like it');
SELECT * FROM medallion.list_topics(NULL);
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER of_other FOREIGN DATA WRAPPER other;
SELECT * FROM medallion.check_server('of_other');
-- a wrapper of ours with another name is ours all the same
ALTER FOREIGN DATA WRAPPER kafka RENAME TO topics;
SELECT * FROM medallion.check_server('goood_brokers');

ROLLBACK;
