# The extension installs, its processes come up and end, and the test broker
# and the mock cluster keep what they are given.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $node = new_node('smoke');

is($node->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_medallion'}),
	'0.1.0', 'extension is created');

my $launcher = worker_pid($node, 'launcher');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'medallion launcher%'}),
	'1', 'one launcher runs');
wait_for($node, "SELECT count(*) = 1 FROM medallion.workers WHERE pid = $launcher");
wait_for($node, q{SELECT count(*) = 1 FROM medallion.workers WHERE kind = 'supervisor' AND database = 'postgres'});

kill_worker($node, $launcher, 'KILL');
isnt(worker_pid($node, 'launcher'), $launcher, 'a new launcher after a crash');
wait_for($node, q{SELECT count(*) = 1 FROM medallion.workers WHERE kind = 'supervisor' AND database = 'postgres'});

$node->safe_psql('postgres', 'DROP EXTENSION pg_medallion');
wait_for($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'medallion%' AND datname = 'postgres'});
$node->stop('fast');

# Bytes of every kind, as another client reads them back.
my $kafka = MedallionTest->kafka;
my $topic = create_topic($kafka, 'smoke', 2, 'retention.ms' => -1);
my $bytes = join('', map { chr } 0 .. 255);
is(produce($kafka, $topic,
		{ partition => 0, key => undef, value => undef },
		{ partition => 1, key => '', value => '' },
		{ partition => 1, timestamp => 1700000000000, key => $bytes, value => $bytes, headers => [ h => undef, h => 'x' ] }),
	3, 'records are delivered');
is_deeply([ watermarks($kafka, $topic) ], [ [ 0, 1 ], [ 0, 2 ] ], 'in the partitions asked for');
delete_records($kafka, $topic, 1, 1);
is_deeply([ watermarks($kafka, $topic) ], [ [ 0, 1 ], [ 1, 2 ] ], 'records are deleted');
add_partitions($kafka, $topic, 3);
is(scalar(watermarks($kafka, $topic)), 3, 'a partition is added');

# Transactions: one record, its commit, two aborted records, their abort.
my $transactions = create_topic($kafka, 'transactions', 1);
produce($kafka, $transactions, { transactional_id => "smoke_$$" },
	'begin', { value => 'a' }, 'commit', 'begin', { value => 'b' }, { value => 'c' }, 'abort');
is_deeply([ watermarks($kafka, $transactions) ], [ [ 0, 5 ] ], 'control records take offsets');
delete_topic($kafka, $transactions);

my ($mock, $control) = start_mock('--topic', 'm:3');
is(kafka_tool('gen', $mock, 'm', 100), 100, 'generated records are delivered to the mock cluster');
$control->('topic another 1');
is_deeply([ watermarks($mock, 'another') ], [ [ 0, 0 ] ], 'the mock cluster takes commands');

done_testing();
