# Definitions, checkpoints and rows through pg_dump and restore, and the end of
# the extension.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('streaming_restore');
create_server($node, 'kafka', $kafka);
my $topic = create_topic($kafka, 'restore', 2);
produce($kafka, $topic, map({ { partition => $_ % 2, value => qq({"a": $_}) } } 1 .. 10));

$node->safe_psql('postgres', qq{
	CREATE SCHEMA bronze;
	CREATE TABLE bronze.t (a int) WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.flush_interval = '1 ms');
	ALTER TABLE bronze.t RENAME COLUMN a TO b});
wait_until_caught_up($node, 'bronze.t', $kafka, $topic);

my $dump = "$PostgreSQL::Test::Utils::tmp_check/restore.sql";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'restore');

sub copy { my ($query) = @_; return $node->safe_psql('copy', $query) }

is(copy('SELECT count(*), count(DISTINCT b) FROM bronze.t'), '10|10', 'rows are there');
is(copy(q{SELECT state, reason LIKE 'defined in another database%', options FROM medallion.streaming_tables}),
	'paused|t|{"flush_interval": "1 ms"}', 'the definition is there, and paused');
is(copy(q{SELECT sum(next_offset) FROM medallion.stream_partitions}), '10', 'and so are the checkpoints');
is(copy(q{SELECT tgenabled FROM pg_trigger WHERE tgname = 'medallion_guard'}), 'A', 'and the guard');
my ($ok, $out, $err) = try_query($node, 'DELETE FROM bronze.t', 'copy');
like($err, qr/cannot change streaming table "t" directly/, 'which guards');

# The original goes on; the copy does when it is told to, from where it was.
produce($kafka, $topic, map({ { partition => $_ % 2, value => qq({"a": $_}) } } 11 .. 20));
wait_until_caught_up($node, 'bronze.t', $kafka, $topic);
is(copy('SELECT count(*) FROM bronze.t'), '10', 'a copy does not read by itself');
copy('SELECT medallion.resume_all()');
wait_until_caught_up($node, 'bronze.t', $kafka, $topic, 'copy');
is(copy('SELECT count(*), count(DISTINCT b), count(DISTINCT (kafka_partition, kafka_offset)) FROM bronze.t'), '20|20|20',
	'resumed, it has each record once');
($ok, $out, $err) = try_query($node, 'DROP SERVER kafka', 'copy');
like($err, qr/because streaming tables use it/, 'the server is in use again');

# Both have the same records.
is($node->safe_psql('postgres', 'SELECT count(*) FROM bronze.t'), '20', 'the original has them too');

# The end of the extension leaves the tables, without their guard.
($ok, $out, $err) = try_query($node, 'DROP EXTENSION pg_medallion', 'copy');
like($err, qr/because other objects depend on it/, 'an extension in use is not dropped');
copy('DROP EXTENSION pg_medallion CASCADE');
is(copy('SELECT count(*) FROM bronze.t'), '20', 'rows outlive the extension');
is(copy(q{SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal}), '0', 'the guard does not');
copy('DELETE FROM bronze.t');
wait_for($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'medallion%' AND datname = 'copy'});

# Created again, the extension adopts the table that was left.
copy(qq{CREATE EXTENSION pg_medallion;
	CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$kafka')});
copy(qq{ALTER TABLE bronze.t RENAME COLUMN b TO a; SELECT medallion.create_streaming_table('bronze.t', 'kafka', '$topic')});
wait_until_caught_up($node, 'bronze.t', $kafka, $topic, 'copy');
is(copy('SELECT count(*), count(DISTINCT a) FROM bronze.t'), '20|20', 'a new extension reads into it');

$node->stop('fast');
done_testing();
