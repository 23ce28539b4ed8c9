# What happens on Kafka's side: partitions come, brokers go, records are
# aborted, compressed or deleted, topics are made anew.
#
# Memory that is freed is overwritten here, so that nobody reads it unseen: some
# versions of the library did when topics were made anew.
BEGIN { $ENV{MALLOC_PERTURB_} = 90 }

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = start_broker('own');
my $node = new_node('kafka_side', conf => include_file() . <<'END');
medallion.backoff_max = '500ms'
medallion.discovery_interval = '200ms'
END
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub stream_table
{
	my ($table, $topic, $options, $columns) = @_;
	sql("CREATE TABLE $table (" . ($columns // 'id int') . ") WITH (medallion.server = kafka, medallion.topic = '$topic', medallion.flush_interval = '10 ms'" . ($options ? ", $options" : '') . ')');
	return;
}

sub send_ids
{
	my ($topic, $partition, @ids) = @_;
	produce($kafka, $topic, map { { partition => $partition, value => qq({"id": $_}) } } @ids);
	return;
}

sub wait_for_recovery { my ($table) = @_; return wait_for($node, "SELECT count(*) = 0 FROM medallion.stream_status WHERE relid = '$table'::regclass") }
sub ids { my ($table) = @_; return sql("SELECT string_agg(id::text, ' ' ORDER BY kafka_partition, kafka_offset) FROM $table") }
sub gaps { my ($table) = @_; return sql("SELECT string_agg(kafka_partition || ':' || first_offset || '-' || next_offset, ' ' ORDER BY 1) FROM medallion.gap WHERE relid = '$table'::regclass") }

# Partitions are added.
my $grows = create_topic($kafka, 'grows', 2);
stream_table('grows', $grows);
send_ids($grows, 0, 1 .. 3);
wait_until_caught_up($node, 'grows', $kafka, $grows);
add_partitions($kafka, $grows, 4);
send_ids($grows, 3, 4 .. 6);
wait_until_caught_up($node, 'grows', $kafka, $grows);
is(ids('grows'), '1 2 3 4 5 6', 'a partition that came later is read from its beginning');
exactly_once_ok($node, 'grows', $kafka, $grows);
wait_for($node, q{SELECT count(*) = 4 FROM medallion.checkpoint WHERE relid = 'grows'::regclass});

# Transactions: aborted records never appear, and their offsets are passed.
my $transactions = create_topic($kafka, 'transactions', 1);
stream_table('transactions', $transactions);
stream_table('uncommitted', $transactions, 'medallion.isolation_level = read_uncommitted');
produce($kafka, $transactions, { transactional_id => "side_$$" },
	'begin', { value => '{"id": 1}' }, { value => '{"id": 2}' }, 'commit',
	'begin', { value => '{"id": 3}' }, { value => '{"id": 4}' }, 'abort',
	'begin', { value => '{"id": 5}' }, 'commit',
	'begin', { value => '{"id": 6}' }, 'abort');
is(sql(q{SELECT medallion.wait_until_caught_up('transactions', '3 min')}), 't', 'the end of a topic is reached over control records');
is(ids('transactions'), '1 2 5', 'aborted records do not appear');
is(sql(q{SELECT medallion.wait_until_caught_up('uncommitted', '3 min')}), 't', 'so it is when uncommitted records are read');
is(ids('uncommitted'), '1 2 3 4 5 6', 'which has them all');
is(sql(q{SELECT next_offset || ' ' || row_count FROM medallion.checkpoint WHERE relid = 'transactions'::regclass}), '10 3', 'the checkpoint is at the end');

# Compression.
my $compressed = create_topic($kafka, 'compressed', 1);
stream_table('compressed', $compressed);
produce_lines($kafka, $compressed, { codec => $_ }, map { "0\t\\N\t\\N\t{\"id\": $_}" } 1 .. 500) for qw(gzip snappy lz4 zstd);
wait_until_caught_up($node, 'compressed', $kafka, $compressed);
exactly_once_ok($node, 'compressed', $kafka, $compressed);
is(sql('SELECT count(*) = 2000 AND sum(id) = 4 * 125250 FROM compressed'), 't', 'gzip, snappy, lz4 and zstd');

# Times: the producer's or the broker's.
my @times = map { create_topic($kafka, 'times', 1, 'message.timestamp.type' => $_) } qw(CreateTime LogAppendTime);
for my $n (0, 1)
{
	stream_table("times_$n", $times[$n]);
	produce($kafka, $times[$n], { timestamp => 1600000000123, value => '{"id": 1}' });
	wait_until_caught_up($node, "times_$n", $kafka, $times[$n]);
}
is(sql('SELECT extract(epoch FROM kafka_timestamp) FROM times_0'), '1600000000.123000', 'create time');
is(sql(q{SELECT kafka_timestamp > '2024-01-01' FROM times_1}), 't', 'log-append time');

# Where a table starts.
my $starts = create_topic($kafka, 'starts', 2);
produce($kafka, $starts, map { { partition => $_ % 2, timestamp => 1600000000000 + $_ * 1000, value => qq({"id": $_}) } } 0 .. 9);
stream_table('from_earliest', $starts);
stream_table('from_latest', $starts, 'medallion.start_at = latest');
stream_table('from_time', $starts, q{medallion.start_at = '2020-09-13 12:26:46+00'});
stream_table('from_offsets', $starts, q{medallion.start_at = '{"0": 4, "1": 0}'});
produce($kafka, $starts, map { { partition => $_ % 2, value => qq({"id": $_}) } } 10, 11);
wait_until_caught_up($node, $_, $kafka, $starts) for qw(from_earliest from_latest from_time from_offsets);
is(ids('from_earliest'), '0 2 4 6 8 10 1 3 5 7 9 11', 'earliest');
is(ids('from_latest'), '10 11', 'latest');
is(ids('from_time'), '6 8 10 7 9 11', 'a time');
is(ids('from_offsets'), '8 10 1 3 5 7 9 11', 'offsets');

# Records deleted before they were read.
my $deleted = create_topic($kafka, 'deleted', 2);
for my $policy (qw(record fail))
{
	stream_table("gap_$policy", $deleted, "medallion.on_gap = $policy");
}
send_ids($deleted, $_, 1 .. 4) for 0, 1;
wait_until_caught_up($node, "gap_$_", $kafka, $deleted) for qw(record fail);
sql(qq{SELECT medallion.pause('gap_$_')}) for qw(record fail);
send_ids($deleted, $_, 5 .. 8) for 0, 1;
delete_records($kafka, $deleted, 0, 6);
sql(qq{SELECT medallion.resume('gap_$_')}) for qw(record fail);
wait_until_caught_up($node, 'gap_record', $kafka, $deleted);
is(ids('gap_record'), '1 2 3 4 7 8 1 2 3 4 5 6 7 8', 'on_gap = record goes on behind the gap');
is(gaps('gap_record'), '0:4-6', 'and records it');
becomes_status($node, 'gap_fail', qr/^XX001 .*partition 0 no longer has offsets 4 to 5/, 'on_gap = fail says so');
is(gaps('gap_fail'), '', 'and records none');
unlike(sql('SELECT kafka_offset FROM gap_fail WHERE kafka_partition = 0'), qr/[67]/, 'and reads nothing behind it');
sql('ALTER TABLE gap_fail SET (medallion.on_gap = record)');
wait_until_caught_up($node, 'gap_fail', $kafka, $deleted);
is(gaps('gap_fail'), '0:4-6', 'until the policy changes');
wait_for_recovery('gap_fail');

# All that was read is deleted, and nothing else: no gap.
sql(q{SELECT medallion.pause('gap_record')});
delete_records($kafka, $deleted, $_, 8) for 0, 1;
sql(q{SELECT medallion.resume('gap_record')});
send_ids($deleted, $_, 9) for 0, 1;
wait_until_caught_up($node, 'gap_record', $kafka, $deleted);
is(gaps('gap_record'), '0:4-6', 'deletion of what was read is no gap');
is(ids('gap_record'), '1 2 3 4 7 8 9 1 2 3 4 5 6 7 8 9', 'and does not hold up');

# A foreground run reads on there, too.
sql(q{SELECT medallion.pause('gap_record')});
delete_records($kafka, $deleted, $_, 9) for 0, 1;
send_ids($deleted, $_, 10) for 0, 1;
is(sql(q{SELECT medallion.ingest_once('gap_record')}), 2, 'ingest_once counts what is new');

# So it does when Kafka tells of many partitions bit by bit, that they do not have
# what was read last: some while others are looked at.
my $many = create_topic($kafka, 'many', 12);
stream_table('many', $many);
sql(q{SELECT medallion.pause('many')});
send_ids($many, $_, 1) for 0 .. 11;
is(sql(q{SELECT medallion.ingest_once('many')}), 12, 'many partitions are read');
delete_records($kafka, $many, $_, 1) for 0 .. 11;
send_ids($many, $_, 2) for 0 .. 11;
my $lock = q{pg_advisory_lock(1296319556, medallion.debug_point_id('ingest-out-of-range'))};
my $gate = background_sql($node);
$gate->query_safe("SELECT $lock");
my $reader = background_sql($node);
my $pid = $reader->query_safe('SELECT pg_backend_pid()');
$reader->query_until(qr/started/, q{SET medallion.debug_points = 'ingest-out-of-range';
\echo started
SELECT medallion.ingest_once('many');
});
while (1)
{
	wait_for($node, "SELECT query ~ 'ingest_once' AND (wait_event = 'advisory' OR state = 'idle') FROM pg_stat_activity WHERE pid = $pid");
	last if sql("SELECT state FROM pg_stat_activity WHERE pid = $pid") eq 'idle';
	$gate->query_safe("SELECT pg_advisory_unlock_all(), $lock");
}
$_->quit for $reader, $gate;
is(sql(q{SELECT count(*) || ' ' || sum(id) FROM many}), '24 36', 'ingest_once reads on in many partitions without what was read last');

# A topic that is deleted and made anew is not mixed with the old one, be it
# shorter, as long, or longer than what was read.
for my $n (2, 3, 4, 9)
{
	my $topic = create_topic($kafka, 'anew', 1);
	stream_table("anew_$n", $topic);
	send_ids($topic, 0, 1 .. 4);
	wait_until_caught_up($node, "anew_$n", $kafka, $topic);
	delete_topic($kafka, $topic);
	becomes_status($node, "anew_$n", qr/^HV000 /, 'a topic that is deleted');
	kafka_tool('create', $kafka, $topic, 1);
	send_ids($topic, 0, 101 .. 100 + $n);
	becomes_status($node, "anew_$n", qr/^XX001 .*deleted and made anew/, "a new topic with $n records for one with 4 is recognized");
	my ($ok, undef, $error) = try_query($node, "SELECT medallion.ingest_once('anew_$n')");
	ok($n == 4 || (!$ok && $error =~ /made anew/), 'by a foreground run as well, if there is anything to read');
	is(ids("anew_$n"), '1 2 3 4', 'and not mixed');
	sql("DROP TABLE anew_$n");
}
for my $n (1 .. 3)
{
	my $paused = create_topic($kafka, 'paused', 1);
	stream_table('paused', $paused);
	send_ids($paused, 0, 1 .. 4);
	wait_until_caught_up($node, 'paused', $kafka, $paused);
	sql(q{SELECT medallion.pause('paused')});
	delete_topic($kafka, $paused);
	kafka_tool('create', $kafka, $paused, 1);
	send_ids($paused, 0, 101 .. 120);
	sql(q{SELECT medallion.resume('paused')});
	becomes_status($node, 'paused', qr/^XX001 .*another record at offset 3 .* deleted and made anew/, "so is one that changed while the table was paused ($n)");
	is(ids('paused'), '1 2 3 4', 'and nothing of it is stored');
	sql('DROP TABLE paused');
}

# A partition that was empty proves nothing: it is not read before another has
# told, be that one another worker's.
for my $workers (1, 2)
{
	set_include($node, "medallion.ingest_workers = $workers\n");
	my $topic = create_topic($kafka, 'empty', 3);
	stream_table("empty_$workers", $topic);
	send_ids($topic, 0, 1 .. 4);
	wait_until_caught_up($node, "empty_$workers", $kafka, $topic);
	sql("SELECT medallion.pause('empty_$workers')");
	delete_topic($kafka, $topic);
	kafka_tool('create', $kafka, $topic, 3);
	send_ids($topic, $_, 101 .. 120) for 1, 2;
	sql("SELECT medallion.resume('empty_$workers')");
	becomes_status($node, "empty_$workers", qr/^XX001 .*made anew/, "with $workers workers, partition 0 tells that the topic is another");
	is(ids("empty_$workers"), '1 2 3 4', 'and nothing of the others is stored');
	my $failures = "(SELECT failures FROM medallion.stream_status WHERE relid = 'empty_$workers'::regclass)";
	my $before = sql("SELECT $failures");
	send_ids($topic, 0, 101 .. 110);
	wait_for($node, "SELECT $failures >= $before + 2");
	becomes_status($node, "empty_$workers", qr/^XX001 .*made anew/, 'nor when it is longer');
	sql("SELECT medallion.pause('empty_$workers')");
	sql("SELECT medallion.resume('empty_$workers')");
	wait_for($node, "SELECT failures > 1 FROM medallion.stream_status WHERE relid = 'empty_$workers'::regclass");
	is(ids("empty_$workers"), '1 2 3 4', 'and still nothing is mixed');
	sql("DROP TABLE empty_$workers");
}
set_include($node, '');

# The broker goes away, softly and hard, and comes back: the state says so and
# recovers, without a record's help.
my $restarts = create_topic($kafka, 'restarts', 2);
stream_table('restarts', $restarts);
send_ids($restarts, $_, 1 .. 5) for 0, 1;
wait_until_caught_up($node, 'restarts', $kafka, $restarts);
for my $signal (qw(TERM KILL))
{
	stop_broker('own', $signal);
	becomes_status($node, 'restarts', qr/^08006 .*(refused|down|disconnected)/i, "SIG$signal: the state says that the broker is gone");
	start_broker('own');
	wait_for_recovery('restarts');
	send_ids($restarts, $_, 1 .. 5) for 0, 1;
	wait_until_caught_up($node, 'restarts', $kafka, $restarts);
	exactly_once_ok($node, 'restarts', $kafka, $restarts);
}
wait_for($node, 'SELECT count(*) = 0 FROM medallion.stream_status');
pass('all tables recover');

# Progress is mirrored to a group, and never ahead of what is safe here: the
# server crashes while commits are not flushed.
my $mirrored = create_topic($kafka, 'mirrored', 2);
my $group = "group_$$";
stream_table('mirrored', $mirrored, "medallion.group_id = '$group'");
my $group_offsets = sub { return kafka_tool('group-offsets', $kafka, $group, $mirrored) };
my $wait_for_group = sub {
	my ($expected) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while ((my $now = $group_offsets->()) ne $expected) { die "the group is at $now" if time > $deadline }
	return 1;
};
send_ids($mirrored, $_, 1 .. 5) for 0, 1;
ok($wait_for_group->("0 5\n1 5"), 'progress is mirrored');
sql('SELECT pg_reload_conf()');
$node->append_conf('postgresql.conf', "wal_writer_delay = '10s'\nwal_writer_flush_after = 0\n");
$node->reload;
for my $n (1 .. 4)
{
	send_ids($mirrored, $_, 1 .. 5) for 0, 1;
	wait_until_caught_up($node, 'mirrored', $kafka, $mirrored);
	$node->stop('immediate');
	set_include_stopped($node, "medallion.workers = off\n");
	$node->start;
	my %group = map { split / / } split /\n/, $group_offsets->();
	my %stored = map { split /\|/ } split /\n/, sql(q{SELECT kafka_partition, next_offset FROM medallion.checkpoint WHERE relid = 'mirrored'::regclass});
	my @ahead = grep { $group{$_} > $stored{$_} } sort keys %group;
	is("@ahead", '', "the group is not ahead after a crash ($group{0} of $stored{0})");
	set_include($node, '');
}
wait_until_caught_up($node, 'mirrored', $kafka, $mirrored);
exactly_once_ok($node, 'mirrored', $kafka, $mirrored);
ok($wait_for_group->("0 25\n1 25"), 'a group that lags after a crash is told where we are');

sub set_include_stopped
{
	my ($stopped, $lines) = @_;
	append_to_file($stopped->data_dir . '/test.conf', $lines);
	return;
}

# Librdkafka's mock cluster: errors that are injected.
my ($mock, $control) = start_mock('--brokers', 3, '--topic', 'm:3');
create_server($node, 'mock', $mock);
sql(q{CREATE TABLE m () WITH (medallion.server = mock, medallion.topic = m, medallion.format = raw, medallion.flush_interval = '10 ms')});
my $n_sent = 0;

sub mock_ok
{
	my ($what) = @_;
	kafka_tool('gen', $mock, 'm', 200, '--first', $n_sent);
	$n_sent += 200;
	wait_until_caught_up($node, 'm', $mock, 'm');
	exactly_once_ok($node, 'm', $mock, 'm');
	is(sql('SELECT count(*) FROM m'), $n_sent, $what);
	return;
}

mock_ok('a mock cluster');
for my $error ([ 6, 'not the leader' ], [ 5, 'no leader' ], [ 7, 'timed out' ], [ 3, 'unknown topic' ], [ 56, 'storage error' ], [ -195, 'connection lost' ])
{
	$control->("fail 1 $error->[0] 4");
	mock_ok("fetches that fail: $error->[1]");
	$control->('clear 1');
}
$control->('down 2');
$control->("leader m $_ 1") for 0 .. 2;
mock_ok('a broker is down, and its partitions have moved');
$control->('down -1');
becomes_status($node, 'm', qr/^08006 /, 'all brokers are down');
$control->('up -1');
$control->("leader m $_ " . ($_ + 1)) for 0 .. 2;
wait_for_recovery('m');
mock_ok('all brokers were down');

is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$node->stop('fast');
done_testing();
