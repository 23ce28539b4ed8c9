# Definition of streaming tables against a broker: the server, the topic, and
# where a table starts.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $kafka = MedallionTest->kafka;
# no worker: what a definition makes must not move
my $node = new_node('streaming_tables', conf => "medallion.workers = off\n");
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# The error of a query that must fail, and its SQLSTATE.
sub error
{
	my ($query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$query");
	return "no error: $out" if $err eq '';
	return $err;
}

# Checkpoints of a table: "partition:start:next ..."
sub checkpoints
{
	my ($table) = @_;
	return sql(qq{SELECT string_agg(format('%s:%s:%s', kafka_partition, start_offset, next_offset), ' ' ORDER BY kafka_partition)
		FROM medallion.stream_partitions WHERE table_name = '$table'::regclass});
}

# Servers
my ($host) = $kafka =~ /^([^,]*)/;
is(sql(q{SELECT broker_count = 1 AND length(cluster_id) > 0 AND latency_ms >= 0 AND library_version <> '' FROM medallion.check_server('kafka')}),
	't', 'check_server tells about the cluster');
like(sql(q{SELECT brokers FROM medallion.check_server('kafka')}), qr/^\S+:\d+$/, 'and its brokers');
my $topic = create_topic($kafka, 'orders', 2, 'retention.ms' => -1);
is(sql(qq{SELECT partitions FROM medallion.list_topics('kafka') WHERE topic = '$topic'}), '2', 'list_topics');

sql(q{CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
	CREATE USER MAPPING FOR CURRENT_USER SERVER nowhere OPTIONS (sasl_password 'geheim')});
my $error = error(q{SET medallion.kafka_timeout = '3s'; SELECT * FROM medallion.check_server('nowhere')});
like($error, qr/ERROR:  08006: could not get an answer from Kafka server "nowhere"/, 'a server that is not there');
like($error, qr/Connection refused/, 'and the reason');
unlike($error, qr/geheim/, 'without the secret');
$error = error(qq{SET medallion.kafka_timeout = '500ms'; SELECT medallion.create_streaming_table('t', 'nowhere', 'x')});
like($error, qr/08006/, 'creation needs the server');
is(sql(q{SELECT to_regclass('t') IS NULL}), 't', 'and leaves nothing behind');

# A question that takes long can be cancelled.
$error = error(q{SET medallion.kafka_timeout = '10min'; SET statement_timeout = '500ms'; SELECT * FROM medallion.check_server('nowhere')});
like($error, qr/57014/, 'a question to Kafka is interrupted');

# Topics
(my $misspelt = $topic) =~ s/orders/ordesr/;
$error = error(qq{SELECT medallion.create_streaming_table('t', 'kafka', '$misspelt')});
like($error, qr/42704: topic "$misspelt" does not exist on server "kafka"/, 'unknown topic');
like($error, qr/HINT:  Perhaps you meant the topic "$topic"/, 'with the nearest');

# Where a table starts
produce($kafka, $topic,
	map({ { partition => 0, timestamp => 1000 * $_, value => '{"a": 1}' } } 1 .. 10),
	map({ { partition => 1, timestamp => 1000 * $_, value => '{"a": 1}' } } 1 .. 5));
delete_records($kafka, $topic, 0, 3);

my %starts = (
	'earliest' => '0:3:3 1:0:0',
	'latest' => '0:10:10 1:5:5',
	'{"0": 4, "1": 5}' => '0:4:4 1:5:5',
	# the sixth record of partition 0; partition 1 ends before
	'1970-01-01 00:00:05.5+00' => '0:5:5 1:5:5',
	'1970-01-01 00:00:03+00' => '0:3:3 1:2:2',
	'2100-01-01' => '0:10:10 1:5:5');
my $n = 0;
for my $start (sort keys %starts)
{
	$n++;
	sql(qq{SELECT medallion.create_streaming_table('start_$n', 'kafka', '$topic', start_at => '$start')});
	is(checkpoints("start_$n"), $starts{$start}, "start_at $start");
	sql(qq{DROP TABLE start_$n});
}
is(sql(q{SELECT count(*) FROM medallion.checkpoint}), '0', 'checkpoints go with the table');

my %refused = (
	'{"0": 4}' => qr/22023: start_at has no offset for partition 1/,
	'{"0": 4, "1": 0, "2": 0}' => qr/22023: start_at names partition 2, but topic "$topic" has 2 partitions/,
	'{"0": 2, "1": 0}' => qr/22023: offset 2 is outside partition 0.*Its offsets go from 3 to 10/s,
	'{"0": 3, "1": 6}' => qr/22023: offset 6 is outside partition 1.*Its offsets go from 0 to 5/s);
for my $start (sort keys %refused)
{
	like(error(qq{SELECT medallion.create_streaming_table('t', 'kafka', '$topic', start_at => '$start')}),
		$refused{$start}, "start_at $start is refused");
}

# The same through DDL; the columns hold, and the state says so.
sql(qq{CREATE TABLE orders (a int) WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.start_at = 'latest')});
is(checkpoints('orders'), '0:10:10 1:5:5', 'start_at in DDL');
is(sql(q{SELECT state, rows, dead_letters FROM medallion.streaming_tables WHERE table_name = 'orders'::regclass}),
	'running|0|0', 'state of a table that has its start');

# Nothing was read yet: the start may be moved.
sql(q{ALTER TABLE orders SET (medallion.start_at = 'earliest')});
is(checkpoints('orders'), '0:3:3 1:0:0', 'start_at is moved');

# Waiting for what is there already, and for what is not.
is(sql(q{SELECT medallion.wait_for_offset('orders', 0, 2, '0')}), 't', 'an offset before the checkpoint');
is(sql(q{SELECT medallion.wait_for_offset('orders', 0, 3, '100 ms')}), 'f', 'an offset after it');
is(sql(q{SELECT medallion.wait_until_caught_up('orders', '1 s')}), 'f', 'records are missing');
like(error(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT medallion.wait_for_offset('orders', 0, 3, '1 min')}),
	qr/25001: cannot wait for records/, 'a transaction that would not see the records');
$error = error(q{SET statement_timeout = '300ms'; SELECT medallion.wait_for_offset('orders', 0, 3, '1000 years')});
like($error, qr/57014/, 'waiting is interrupted');

# With workers, all of it arrives.
$node->append_conf('postgresql.conf', "medallion.workers = on\n");
$node->reload;
is(sql(q{SELECT medallion.wait_until_caught_up('orders', '3 min')}), 't', 'all records are there');
is(sql(q{SELECT count(*), min(kafka_offset) FROM orders WHERE kafka_partition = 0}), '7|3', 'from the start on');
is(sql(q{SELECT count(*) FROM orders}), '12', 'of both partitions');
like(error(q{ALTER TABLE orders SET (medallion.start_at = 'latest')}), qr/55000: cannot change option "start_at"/,
	'the start stays once records were read');
like(error(qq{ALTER TABLE orders SET (medallion.topic = 'other', medallion.check_topic = false)}),
	qr/55000: cannot change option "topic"/, 'and so does the topic');

# Paused: nothing arrives; resumed: all of it does.
sql(q{SELECT medallion.pause('orders')});
is(sql(q{SELECT state, reason LIKE 'paused by %' FROM medallion.streaming_tables}), 'paused|t', 'paused');
produce($kafka, $topic, { partition => 0, value => '{"a": 2}' });
is(sql(q{SELECT medallion.wait_until_caught_up('orders', '300 ms')}), 'f', 'nothing is read while paused');
sql(q{SELECT medallion.resume('orders')});
is(sql(q{SELECT medallion.wait_until_caught_up('orders', '3 min')}), 't', 'resumed');

# A column that is renamed is still filled; so is one that is new.
sql(q{ALTER TABLE orders RENAME COLUMN a TO b; ALTER TABLE orders ADD COLUMN c text;
	ALTER TABLE orders RENAME TO renamed; ALTER SERVER kafka RENAME TO cluster});
produce($kafka, $topic, { partition => 1, value => '{"a": 3, "c": "x"}' });
is(sql(q{SELECT medallion.wait_until_caught_up('renamed', '3 min')}), 't', 'after renames');
is(sql(q{SELECT b, c FROM renamed WHERE b = 3}), '3|x', 'columns are filled after renames');

# Adopted: history stays, and what arrives is added to it.
sql(q{CREATE TABLE history (a int); INSERT INTO history VALUES (100), (200)});
sql(qq{SELECT medallion.create_streaming_table('history', 'cluster', '$topic')});
is(sql(q{SELECT medallion.wait_until_caught_up('history', '3 min')}), 't', 'an adopted table');
is(sql(q{SELECT count(*), count(kafka_offset) FROM history}), '16|14', 'keeps its rows and gets new ones');

# A definition that waits for its broker: the worker resolves the start.
sql(qq{SELECT medallion.create_streaming_table('later', 'cluster', '$topic', options => '{"check_topic": false}')});
is(sql(q{SELECT medallion.wait_until_caught_up('later', '3 min')}), 't', 'the worker resolves the start');
is(sql(q{SELECT count(*) FROM later}), '14', 'and reads from it');

# A new partition is read from its beginning, whatever start_at is.
sql(qq{SELECT medallion.create_streaming_table('grows', 'cluster', '$topic', start_at => 'latest')});
add_partitions($kafka, $topic, 3);
produce($kafka, $topic, map({ { partition => 2, value => '{"a": 4}' } } 1 .. 3));
# the worker may be the first to see it, and that ends a run under way
wait_for($node, q{SELECT medallion.ingest_once('grows') >= 0});
is(sql(q{SELECT count(*), min(kafka_partition), min(kafka_offset) FROM grows}), '3|2|0', 'a new partition is read from its beginning');

$node->stop('fast');
done_testing();
