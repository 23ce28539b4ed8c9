# Seek forward, and replay of what is missing, from a live stream.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;
use RecoveryTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('seek_replay');
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# The error of a query that must fail.
sub error
{
	my ($query) = @_;
	my ($ok, $out, $err) = try_query($node, "\\set VERBOSITY verbose\n$query");
	($ok, $out, $err) = try_query($node, $query);
	return $ok ? "no error: $out" : $err;
}

sub caught_up { my ($table) = @_; return sql(qq{SELECT medallion.wait_until_caught_up('$table', '3 min')}) }

# n records in partition p, a = 1000 * p + offset, a second apart from second 1 on
my %sent;

sub send_records
{
	my ($topic, $p, $n) = @_;
	my $first = $sent{$topic}{$p} // 0;
	produce($kafka, $topic,
		map({ { partition => $p, timestamp => 1000 * ($_ + 1), key => "k$_", value => sprintf('{"a": %d}', 1000 * $p + $_) } } $first .. $first + $n - 1));
	$sent{$topic}{$p} = $first + $n;
	return;
}

# Checkpoints: "partition:start:next ..."
sub checkpoints
{
	my ($table) = @_;
	return sql(qq{SELECT string_agg(format('%s:%s:%s', kafka_partition, start_offset, next_offset), ' ' ORDER BY kafka_partition)
		FROM medallion.stream_partitions WHERE table_name = '$table'::regclass});
}

# Gaps: "partition:first-next:reason ..."
sub gaps
{
	my ($table) = @_;
	return sql(qq{SELECT coalesce(string_agg(format('%s:%s-%s:%s', kafka_partition, first_offset, next_offset, reason), ' ' ORDER BY kafka_partition, first_offset), '')
		FROM medallion.gaps WHERE table_name = '$table'::regclass});
}

# Deletion of a topic is not finished when Kafka has answered.
sub wait_for_topic_gone
{
	my ($name) = @_;
	return wait_for($node, qq{SELECT count(*) = 0 FROM medallion.list_topics('kafka') WHERE topic = '$name'});
}

# --- seek ---

my $topic = create_topic($kafka, 'events', 2, 'retention.ms' => -1);
send_records($topic, $_, 50) for 0, 1;
sql(qq{CREATE TABLE events (a int, kafka_key text)
	WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.flush_interval = '0 ms')});
is(caught_up('events'), 't', 'a table that has read all');
sql(q{SELECT medallion.create_materialized_view('totals', 'SELECT count(*) AS n, sum(a) AS total FROM events', NULL, 'incremental')});

like(error(q{SELECT medallion.seek('events', '{"0": 10}')}),
	qr/cannot move topic "$topic" partition 0 back to offset 10\nDETAIL:  All before offset 50 was read.\nHINT:  .*medallion.replay/, 'back is refused');
like(error(q{SELECT medallion.seek('events', 'earliest')}), qr/cannot move topic "$topic" partition 0 back/, 'to the beginning, too');
like(error(q{SELECT medallion.seek('events', '{"0": 51}')}), qr/offset 51 is outside partition 0 of topic "$topic"\nDETAIL:  Its offsets go from 0 to 50/, 'beyond the end');
like(error(q{SELECT medallion.seek('events', '{"7": 1}')}), qr/to_position names partition 7, which the table does not read/, 'a partition that is not there');

# One partition of two; the other stays
sql(q{SELECT medallion.pause('events')});
send_records($topic, $_, 50) for 0, 1;
sql(q{SELECT medallion.seek('events', '{"0": 70}')});
is(checkpoints('events'), '0:0:70 1:0:50', 'seek moves the named partition');
is(gaps('events'), '0:50-70:skipped by seek', 'and records what it skips');
sql(q{SELECT medallion.seek('events', '{"0": 70}'); SELECT medallion.resume('events')});
is(caught_up('events'), 't', 'reading goes on');
is(sql(q{SELECT count(*) FROM events WHERE kafka_partition = 0 AND kafka_offset BETWEEN 50 AND 69}), '0', 'behind what was skipped');
accounted_ok($node, 'events', $kafka, $topic, 'skipped records are accounted for');

# A worker that has fetched records, and waits to store them, does not store
# those of before
sql(q{ALTER TABLE events SET (medallion.flush_interval = '1 h')});
send_records($topic, $_, 20) for 0, 1;
sql(q{SELECT medallion.seek('events', '1970-01-01 00:01:51+00')});
is(checkpoints('events'), '0:0:110 1:0:110', 'seek to a time');
sql(q{SELECT medallion.seek('events', '{"1": 115}'); ALTER TABLE events SET (medallion.flush_interval = '0 ms')});
is(caught_up('events'), 't', 'reading goes on from there');
is(gaps('events'), '0:50-70:skipped by seek 0:100-110:skipped by seek 1:100-110:skipped by seek 1:110-115:skipped by seek', 'each seek is a gap');
accounted_ok($node, 'events', $kafka, $topic, 'with a worker at work, too');
sql(q{SELECT medallion.pause('events')});
send_records($topic, 0, 5);
sql(q{SELECT medallion.seek('events', 'latest')});
is(checkpoints('events'), '0:0:125 1:0:120', 'seek to the end');
sql(q{SELECT medallion.resume('events')});

# --- replay ---

# A live stream: records arrive while the replay is at work
sql(q{SELECT medallion.refresh('totals')});
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT ' . debug_lock('replay-stored'));
my @racers = map { $node->background_psql('postgres') } 1 .. 2;
$racers[0]->query_until(qr/started/, "SET medallion.debug_points = 'replay-stored';\n\\echo started\nSELECT 'first', medallion.replay('events', '{\"0\": 55}', '{\"0\": 60}');\n");
wait_until_blocked($node, 'first');
is(sql(q{SELECT query LIKE 'replayed 0 of 5 offsets, stored 0 records: SELECT ''first''%' FROM pg_stat_activity WHERE query LIKE '%first%' AND pid <> pg_backend_pid()}),
	't', 'a replay shows its progress');
send_records($topic, $_, 10) for 0, 1;
is(caught_up('events'), 't', 'ingest goes on beside a replay');
$racers[1]->query_until(qr/started/, "\\echo started\nSELECT 'second', medallion.replay('events', 'earliest');\n");
wait_until_blocked($node, 'second');
$gate->quit;
is($racers[0]->query('SELECT 1') =~ s/\n1\n*$//r, 'first|5', 'a replay stores what was skipped');
is($racers[1]->query('SELECT 1') =~ s/\n1\n*$//r, 'second|45', 'another waits for it, and stores the rest');
$_->quit for @racers;
is(gaps('events'), '', 'the gaps are gone');
accounted_ok($node, 'events', $kafka, $topic, 'each record is there once');
is(sql(q{SELECT count(*), count(DISTINCT a), bool_and(a = 1000 * kafka_partition + kafka_offset), bool_and(kafka_key = 'k' || kafka_offset) FROM events}),
	'265|265|t|t', 'with its values');
is(sql(q{SELECT medallion.replay('events', 'earliest')}), '0', 'a second replay stores nothing');
is(sql(q{SELECT rows FROM medallion.streaming_tables WHERE table_name = 'events'::regclass}), '265', 'the state counts all of them');
is(sql(q{SELECT count(*) FROM medallion.verify('totals')}), '0', 'a view is as it was before');
is(sql(q{SELECT strategy, rows_read FROM medallion.refresh('totals')}), 'merge|70', 'and takes in 50 replayed rows and 20 new ones, without a recompute');
is(sql(q{SELECT n FROM totals}), '265', 'it sees replayed rows');
is(sql(q{SELECT count(*) FROM medallion.verify('totals')}), '0', 'and equals its query');

# Where the rows of a range lie is known from the bounds of batches
sub replay_debug
{
	my ($arguments) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "SET client_min_messages = debug1; SELECT medallion.replay('events', $arguments)");
	return ($out, $err =~ /looks for rows in blocks/ ? 'blocks' : 'scan');
}
is_deeply([ replay_debug(q{'earliest'}) ], [ 0, 'scan' ], 'a seek leaves a hole in the bounds');
is_deeply([ replay_debug(q{'{"0": 0}', '{"0": 50}'}) ], [ 0, 'blocks' ], 'bounds say where to look');
is_deeply([ replay_debug(q{'{"0": 125}'}) ], [ 0, 'blocks' ], 'to the checkpoint');

# Rows that were lost; they may also have been moved, and are no copies then
sql(q{SET medallion.allow_direct_writes = on; DELETE FROM events WHERE kafka_offset % 10 = 3; UPDATE events SET a = a WHERE kafka_offset < 20});
is_deeply([ replay_debug(q{'{"0": 0}', '{"0": 50}'}) ], [ 5, 'scan' ], 'rows that were lost come back, and bounds are no longer believed');
is(sql(q{SELECT medallion.replay('events', '1970-01-01 00:00:11+00', '1970-01-01 00:01:01+00')}), '6', 'a range of time');
is(sql(q{SELECT medallion.replay('events', 'earliest', 'latest')}), '16', 'and all the rest');
accounted_ok($node, 'events', $kafka, $topic, 'each record is there once after rows were lost');
is(sql(q{SELECT medallion.replay('events', 'latest')}), '0', 'nothing is missing at the end');

# Interrupted: nothing has happened, and the next replay does all of it
sql(q{SET medallion.allow_direct_writes = on; DELETE FROM events WHERE kafka_partition = 1});
$gate = $node->background_psql('postgres');
$gate->query_safe('SELECT ' . debug_lock('replay-stored'));
my $victim = $node->background_psql('postgres', on_error_stop => 0);
$victim->query_until(qr/started/, "SET medallion.debug_points = 'replay-stored';\n\\echo started\nSELECT 'cancelled', medallion.replay('events', 'earliest');\n");
wait_until_blocked($node, 'cancelled');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%cancelled%' AND pid <> pg_backend_pid()});
wait_for($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%cancelled%' AND pid <> pg_backend_pid()});
$gate->quit;
$victim->query('SELECT 1');
like($victim->{stderr}, qr/canceling statement due to user request/, 'a replay can be cancelled');
$victim->quit;
is(sql(q{SELECT count(*) FROM events WHERE kafka_partition = 1}), '0', 'it leaves nothing');
my $crashes = count_crashes($node);
my ($ok) = try_query($node, q{SET medallion.debug_points = 'replay-stored!'; SELECT medallion.replay('events', 'earliest')});
ok(!$ok, 'a session dies in the middle of a replay');
wait_for_crash($node, $crashes);
is(sql(q{SELECT count(*) FROM events WHERE kafka_partition = 1}), '0', 'it leaves nothing either');
is(sql(q{SELECT medallion.replay('events', '{"1": 0}', '{"1": 60}')}), '60', 'a part');
is(sql(q{SELECT medallion.replay('events', '{"1": 40}')}), '70', 'and the next, which overlaps it');
accounted_ok($node, 'events', $kafka, $topic, 'each record is there once after interruptions');

# --- dead letters and replay ---

my $bad = create_topic($kafka, 'bad');
sql(qq{SELECT medallion.create_streaming_table('bad', 'kafka', '$bad', columns => 'a int', options => '{"flush_interval": "0 ms"}')});
produce($kafka, $bad, map({ { partition => 0, value => $_ % 2 ? qq({"a": $_}) : $_ % 4 ? qq({"a": "x$_"}) : "broken $_" } } 0 .. 39));
is(caught_up('bad'), 't', 'a table with dead letters');
is(sql(q{SELECT medallion.replay('bad', 'earliest')}), '0', 'what is a dead letter is not missing');
my $some = letters($node, 'bad', 'kafka_offset < 20');
is(sql(qq{SELECT medallion.discard('$some')}), '10', 'some are discarded');
sql(q{ALTER TABLE bad ALTER COLUMN a TYPE text});
is(sql(q{SELECT medallion.replay('bad', '{"0": 2}', '{"0": 30}')}), '5', 'a replay brings back those that can be stored');
is(sql(q{SELECT string_agg(a, ' ' ORDER BY kafka_offset) FROM bad WHERE a LIKE 'x%'}), 'x2 x6 x10 x14 x18', 'with the present definition');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE kafka_offset < 20) FROM medallion.dead_letters}), '14|4', 'the others are dead letters again');
is(gaps('bad'), '0:0-1:discarded', 'what was not read again is still a gap');
is(sql(q{SELECT medallion.replay('bad', 'earliest')}), '0', 'once');
accounted_ok($node, 'bad', $kafka, $bad, 'each record is in one place');
is(sql(q{SELECT dead_letters FROM medallion.stream_partitions WHERE table_name = 'bad'::regclass}), '25', 'the state counts those that failed again');

# A requeue and a replay of the same record at once
$gate = $node->background_psql('postgres');
$gate->query_safe('SELECT ' . debug_lock('requeue-slice'));
@racers = map { $node->background_psql('postgres') } 1 .. 2;
$some = letters($node, 'bad', 'kafka_offset = 22');
$racers[0]->query_until(qr/started/, "SET medallion.debug_points = 'requeue-slice';\n\\echo started\nSELECT 'requeue', medallion.requeue('$some');\n");
wait_until_blocked($node, 'requeue');
$racers[1]->query_until(qr/started/, "\\echo started\nSELECT 'replay', medallion.replay('bad', 'earliest');\n");
wait_until_blocked($node, 'replay');
$gate->quit;
is($racers[0]->query('SELECT 1') =~ s/\n1\n*$//r, 'requeue|1', 'a requeue stores its record');
is($racers[1]->query('SELECT 1') =~ s/\n1\n*$//r, 'replay|0', 'a replay at the same time does not');
$_->quit for @racers;
accounted_ok($node, 'bad', $kafka, $bad, 'each record is in one place after a race');

# With on_error = fail, a bad record ends the replay
$some = letters($node, 'bad');
sql(qq{SELECT medallion.discard('$some'); ALTER TABLE bad SET (medallion.on_error = 'fail')});
like(error(q{SELECT medallion.replay('bad', 'earliest')}), qr/record of topic "$bad" partition 0 offset \d+: /, 'with on_error = fail a bad record ends the replay');

# A crowd: sessions that requeue, discard and replay the same records in any
# order, and a worker that stores more of them
my $busy = create_topic($kafka, 'crowd', 2);
sql(qq{CREATE TABLE crowd (a text CHECK (a <> 'bad')) WITH (medallion.server = 'kafka', medallion.topic = '$busy', medallion.flush_interval = '0 ms')});
my @records = map({ { partition => $_ % 2, value => $_ % 3 ? '{"a": "bad"}' : qq({"a": "$_"}) } } 1 .. 1500);
produce($kafka, $busy, @records);
is(caught_up('crowd'), 't', 'a table with many dead letters');
my $few = "ARRAY(SELECT dead_letter_id FROM medallion.dead_letters WHERE table_name = 'crowd'::regclass ORDER BY random() LIMIT";
my @actions = ("SELECT medallion.requeue($few 200));", "SELECT medallion.discard($few 40));", q{SELECT medallion.replay('crowd', 'earliest');},
	q{SELECT medallion.replay('crowd', '{"1": 100}', '{"1": 400}');}, 'SELECT medallion.prune_history();');
my @crowd;
for my $i (0 .. 3)
{
	my %session = (in => join("\n", 'SET client_min_messages = error;', map({ $actions[ ($_ * (2 * $i + 1) + $i) % @actions ] } 0 .. 14)), out => '', err => '');
	push @crowd, \%session;
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
}
produce($kafka, $busy, @records);
sql('ALTER TABLE crowd DROP CONSTRAINT crowd_a_check');
produce($kafka, $busy, @records);
for my $session (@crowd)
{
	ok($session->{run}->finish, 'nobody in a crowd fails') or diag($session->{err});
}
is(caught_up('crowd'), 't', 'the worker goes on');
accounted_ok($node, 'crowd', $kafka, $busy, 'each record is in one place after a crowd');
my $rest = letters($node, 'crowd');
sql(qq{SELECT medallion.requeue('$rest'), medallion.replay('crowd', 'earliest')});
is(sql(q{SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)), (SELECT count(*) FROM medallion.gaps WHERE table_name = 'crowd'::regclass) FROM crowd}),
	'4500|4500|0', 'and all come back, each once');

# --- before the start ---

my $late = create_topic($kafka, 'late', 1, 'retention.ms' => -1);
send_records($late, 0, 40);
sql(qq{SELECT medallion.create_streaming_table('late', 'kafka', '$late', columns => 'a int', start_at => 'latest')});
send_records($late, 0, 10);
is(caught_up('late'), 't', 'a table that starts late');
is(checkpoints('late'), '0:40:50', 'has its start');
is(sql(q{SELECT medallion.replay('late', '{"0": 10}', '{"0": 20}')}), '10', 'records of before the start');
is(checkpoints('late'), '0:10:50', 'move the start');
is(gaps('late'), '0:20-40:before start_at, and not replayed', 'what lies between is a gap');
accounted_ok($node, 'late', $kafka, $late, 'each record is accounted for');
is(sql(q{SELECT medallion.replay('late', 'earliest')}), '30', 'all of them');
is(gaps('late') . checkpoints('late'), '0:0:50', 'no gap is left');
accounted_ok($node, 'late', $kafka, $late, 'each record is there once');

# --- transactions: holes in the offsets, and records that never were ---

my $tx = create_topic($kafka, 'tx');
sql(qq{SELECT medallion.create_streaming_table('tx', 'kafka', '$tx', columns => 'a int')});
produce($kafka, $tx, { transactional_id => "tx$$" },
	'begin', map({ { partition => 0, value => qq({"a": $_}) } } 0 .. 9), 'commit',
	'begin', map({ { partition => 0, value => qq({"a": -$_}) } } 1 .. 10), 'abort',
	'begin', map({ { partition => 0, value => qq({"a": $_}) } } 10 .. 19), 'commit');
is(caught_up('tx'), 't', 'a table of transactions');
is(sql(q{SELECT count(*), min(a) FROM tx}), '20|0', 'has what was committed');
sql(q{SET medallion.allow_direct_writes = on; DELETE FROM tx});
is(sql(q{SELECT medallion.replay('tx', 'earliest')}), '20', 'and so has a replay of all');
is(sql(q{SELECT count(DISTINCT a), min(a) FROM tx}), '20|0', 'without what was aborted');
is(sql(q{SELECT medallion.replay('tx', 'earliest')}), '0', 'once');
sql(q{ALTER TABLE tx RENAME COLUMN kafka_offset TO "Position"; ALTER TABLE tx RENAME COLUMN kafka_partition TO p;
	SET medallion.allow_direct_writes = on; DELETE FROM tx WHERE a > 14});
is(sql(q{SELECT medallion.replay('tx', 'earliest')}), '5', 'columns with other names tell what is there');
is(sql(q{SELECT count("Position"), count(DISTINCT a) FROM tx}), '20|20', 'and are filled');
sql(qq{CREATE TABLE adopted (a int); INSERT INTO adopted SELECT generate_series(0, 4); SELECT medallion.create_streaming_table('adopted', 'kafka', '$tx')});
is(caught_up('adopted'), 't', 'a table with rows of its own');
sql(q{SET medallion.allow_direct_writes = on; DELETE FROM adopted WHERE a < 10 AND kafka_offset IS NOT NULL});
is(sql(q{SELECT medallion.replay('adopted', 'earliest')}), '10', 'rows without an offset do not count');
is(sql(q{SELECT count(*), count(kafka_offset), count(DISTINCT kafka_offset) FROM adopted}), '25|20|20', 'and stay');

# Deleted in Kafka: no longer to be had, and it says so
delete_records($kafka, $late, 0, 5);
like(error(q{SELECT medallion.replay('late', '{"0": 2}')}), qr/offset 2 is outside partition 0/, 'what Kafka no longer has');
is(sql(q{SET medallion.allow_direct_writes = on; DELETE FROM late; SELECT medallion.replay('late', 'earliest')}), '45', 'the rest can be replayed');
like(error(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT medallion.replay('late', 'earliest')}), qr/needs a READ COMMITTED transaction/, 'not with an old snapshot');

# A topic that was deleted and made anew is never mixed with the one of before,
# whether it is shorter or longer now. No worker has read it: librdkafka 2.0 may
# not end when a topic that it has read is deleted (its issue 4362).
my $remade = create_topic($kafka, 'remade', 1, 'retention.ms' => -1);
send_records($remade, 0, 50);
sql(qq{BEGIN; SELECT medallion.create_streaming_table('remade', 'kafka', '$remade', columns => 'a int'); SELECT medallion.pause('remade'); COMMIT});
is(sql(q{SELECT medallion.ingest_once('remade')}), '50', 'a topic that is read in the foreground');
for my $n (30, 300)
{
	delete_topic($kafka, $remade);
	wait_for_topic_gone($remade);
	kafka_tool('create', $kafka, $remade, 1);
	produce($kafka, $remade, map({ { partition => 0, value => '{"a": -1}' } } 1 .. $n));
	like(error(qq{SELECT medallion.$_}), qr/topic "$remade" was deleted and made anew/, "a topic made anew with $n records is refused: $_")
	  for q{seek('remade', 'latest')}, q{replay('remade', 'earliest')};
}
is(sql(q{SELECT count(*), min(a) FROM remade}), '50|0', 'none of its records is stored');

$node->stop('fast');
done_testing();
