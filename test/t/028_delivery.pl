# From continuous to once: flush_interval from 0 to hours, the bounds of a batch,
# runs that end, and progress in a consumer group.  A second table on the same
# topic, which waits for nothing, tells what the first one could have read.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = start_broker('own', 'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'allow.everyone.if.no.acl.found' => 'true');
my $node = new_node('delivery', conf => include_file() . <<'END');
medallion.backoff_max = '500ms'
medallion.discovery_interval = '200ms'
END
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub stream_table
{
	my ($table, $topic, %options) = @_;
	my $list = join '', map { ", medallion.$_ = '$options{$_}'" } sort keys %options;
	sql("CREATE TABLE $table () WITH (medallion.server = kafka, medallion.topic = '$topic', medallion.format = text$list)");
	return;
}

sub send_values { my ($topic, @values) = @_; return produce($kafka, $topic, map { { partition => 0, value => $_ } } @values) }
sub count_of { my ($table) = @_; return sql("SELECT count(*) FROM $table") }
sub batches { my ($table) = @_; return sql("SELECT string_agg(row_count::text, ' ' ORDER BY first_offset) FROM medallion.batch WHERE relid = '$table'::regclass") }

# 0: a record is stored as soon as it is there, and waits for no other.
my $at_once = create_topic($kafka, 'at_once');
stream_table('at_once', $at_once, flush_interval => 0);
for my $n (1 .. 5)
{
	send_values($at_once, "v$n");
	wait_for($node, "SELECT count(*) = $n FROM at_once");
}
is(batches('at_once'), '1 1 1 1 1', 'flush_interval = 0: records that come one by one are stored so');

# The end of a partition that a broker tells is of before it read what it sends along.
my $close = create_topic($kafka, 'close', 4);
stream_table('close_behind', $close, flush_interval => 0);
start_generator($kafka, $close, 60_000, '--rate', 10_000, '--linger', 0)->finish;
wait_until_caught_up($node, 'close_behind', $kafka, $close);
exactly_once_ok($node, 'close_behind', $kafka, $close);
is(count_log($node, qr/ingest into streaming table .* failed/), 0, 'a reader that is close behind its producer does not fail for it');

# Hours: records wait, for others or for somebody who asks for them.
my $hours = create_topic($kafka, 'hours');
stream_table('seen', $hours, flush_interval => 0);
stream_table('hours', $hours, flush_interval => '1 hour', batch_max_records => 10);
send_values($hours, 1 .. 6);
wait_for($node, 'SELECT count(*) = 6 FROM seen');
is(count_of('hours'), 0, 'flush_interval = 1 h: records wait');
is(sql(q{SELECT state FROM medallion.streaming_tables WHERE table_name = 'hours'::regclass}), 'running', 'and that is no trouble');
send_values($hours, 7 .. 23);
wait_for($node, 'SELECT count(*) >= 20 FROM hours');
wait_for($node, 'SELECT count(*) = 23 FROM seen');
like(batches('hours'), qr/^10 /, 'for a batch that is full, and no longer');
send_values($hours, 24 .. 26);
wait_for($node, 'SELECT count(*) = 26 FROM seen');
my $waiting = 26 - count_of('hours');
cmp_ok($waiting, '>=', 3, "what is no full batch waits ($waiting)");
is(sql(q{SELECT medallion.ingest_once('hours')}), $waiting, 'a session that asks for it gets it');
is(count_of('hours'), 26, 'and it is there');
send_values($hours, 27 .. 29);
wait_for($node, 'SELECT count(*) = 29 FROM seen');
is(count_of('hours'), 26, 'what comes then waits again');
sql(q{ALTER TABLE hours SET (medallion.flush_interval = '10 ms')});
exactly_once_ok($node, 'hours', $kafka, $hours) if wait_until_caught_up($node, 'hours', $kafka, $hours);
for my $bad ('-1 s', '61 min', '5', '1 month', 'soon')
{
	my ($ok, undef, $error) = try_query($node, "ALTER TABLE hours SET (medallion.flush_interval = '$bad')");
	ok(!$ok && $error =~ /flush_interval/, "flush_interval = $bad is refused");
}

# What one commit may hold.
# 43 batches of 7, none of which is stored before it is full.
my $bounded = create_topic($kafka, 'bounded');
send_values($bounded, map { 'x' x 600 } 1 .. 301);
stream_table('by_records', $bounded, batch_max_records => 7, flush_interval => '1 hour');
stream_table('by_bytes', $bounded, batch_max_bytes => '3kB');
wait_until_caught_up($node, $_, $kafka, $bounded) for qw(by_records by_bytes);
is(sql(q{SELECT max(row_count) FROM medallion.batch WHERE relid = 'by_records'::regclass}), 7, 'batch_max_records');
is(sql(q{SELECT count(*) FROM medallion.batch WHERE relid = 'by_records'::regclass}), 43, 'and as few batches as that allows');
cmp_ok(sql(q{SELECT max(row_count) FROM medallion.batch WHERE relid = 'by_bytes'::regclass AND first_offset > 0}), '<=', 6, 'batch_max_bytes, once it is known how large records are');
cmp_ok(sql(q{SELECT max(row_count) FROM medallion.batch WHERE relid = 'by_bytes'::regclass}), '<=', 100, 'and not much more before');
exactly_once_ok($node, $_, $kafka, $bounded) for qw(by_records by_bytes);

# Available-now: until caught up, then nothing until called.
my $now = create_topic($kafka, 'now', 2);
my $group = "delivery_$$";
stream_table('watches', $now, flush_interval => 0);
stream_table('on_demand', $now, group_id => $group);
sql(q{SELECT medallion.pause('on_demand')});
produce($kafka, $now, map { { partition => $_ % 2, value => $_ } } 1 .. 20);
wait_for($node, 'SELECT count(*) = 20 FROM watches');
is(count_of('on_demand'), 0, 'nothing comes before it is called');
is(sql(q{SELECT medallion.ingest_once('on_demand', 5)}), 5, 'max_records bounds a run');
is(sql(q{SELECT medallion.ingest_once('on_demand')}), 15, 'a run reads up to the end');
is(sql(q{SELECT medallion.ingest_once('on_demand')}), 0, 'and there is nothing more');
add_partitions($kafka, $now, 3);
produce($kafka, $now, map { { partition => 2, value => $_ } } 1 .. 5);
wait_for($node, 'SELECT count(*) = 25 FROM watches');
is(count_of('on_demand'), 20, 'nothing comes until it is called again');
is(sql(q{SELECT medallion.ingest_once('on_demand')}), 5, 'with the partitions that came meanwhile');

# A run ends at what was the end when it began, though records keep coming; and
# one that is rolled back has not happened.
my $generator = start_generator($kafka, $now, 10_000_000, '--rate', 1000);
sql(q{SELECT medallion.ingest_once('on_demand')}) for 1 .. 5;
ok($generator->is_running, 'runs end while records come');
$generator->stop;
my $before = count_of('on_demand');
produce($kafka, $now, map { { partition => 0, value => 'undone' } } 1 .. 3);
sql(q{DO $$ BEGIN PERFORM medallion.ingest_once('on_demand'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END $$});
is(sql(q{SELECT count(*) FROM on_demand WHERE payload = 'undone'}), 0, 'a run that is rolled back has not happened');
sql(q{SELECT medallion.ingest_once('on_demand')});
exactly_once_ok($node, 'on_demand', $kafka, $now);

# Progress in the group is the workers': it follows when they read the table.
my $group_offsets = sub { return kafka_tool('group-offsets', $kafka, $group, $now) };
my $wait_for_group = sub {
	my $expected = join "\n", map { "$_ " . (watermarks($kafka, $now))[$_][1] } 0 .. 2;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while ((my $at = $group_offsets->()) ne $expected) { die "the group is at $at" if time > $deadline }
	return 1;
};
sql(q{SELECT medallion.resume('on_demand')});
ok($wait_for_group->(), 'the group is told what sessions have read, when a worker reads the table');
send_values($now, 'more');
ok($wait_for_group->(), 'and what comes then');

# Partitions that a session gave their start are read by a worker that runs.
my $shared = create_topic($kafka, 'shared', 1);
stream_table('shared', $shared, flush_interval => 0);
set_include($node, "medallion.discovery_interval = '1h'\n");
send_values($shared, 1);
wait_until_caught_up($node, 'shared', $kafka, $shared);
add_partitions($kafka, $shared, 3);
sql(q{SELECT medallion.ingest_once('shared')});
set_include($node, '');
produce($kafka, $shared, map { { partition => $_, value => $_ } } 0 .. 2);
wait_until_caught_up($node, 'shared', $kafka, $shared);
exactly_once_ok($node, 'shared', $kafka, $shared);

# Rights that the user loses in Kafka, and gets again: to read, and to see.
my $guarded = create_topic($kafka, 'guarded', 2);
stream_table('guarded', $guarded, flush_interval => 0);
stream_table('guarded_pattern', "^$guarded", flush_interval => 0);
produce($kafka, $guarded, map { { partition => $_ % 2, value => $_ } } 1 .. 10);
wait_until_caught_up($node, $_, $kafka, $guarded) for qw(guarded guarded_pattern);
my $becomes_state = sub {
	my ($table, $pattern, $name) = @_;
	return becomes_like($node, "SELECT concat_ws(' ', state, sqlstate, reason) FROM medallion.streaming_tables WHERE table_name = '$table'::regclass", $pattern, $name);
};
my $wait_for_state = sub { my ($table, $state) = @_; return wait_for($node, "SELECT state = '$state' FROM medallion.stream_topics WHERE table_name = '$table'::regclass") };
kafka_tool('deny', $kafka, $guarded, 'read');
produce($kafka, $guarded, map { { partition => $_ % 2, value => $_ } } 11 .. 20);
$becomes_state->($_, qr/^failing HV000 .*authorization failed/i, "without the right to read: $_") for qw(guarded guarded_pattern);
kafka_tool('allow', $kafka, $guarded);
$wait_for_state->($_, 'running') for qw(guarded guarded_pattern);
wait_until_caught_up($node, $_, $kafka, $guarded) for qw(guarded guarded_pattern);
exactly_once_ok($node, $_, $kafka, $guarded) for qw(guarded guarded_pattern);
kafka_tool('deny', $kafka, $guarded, 'describe');
$wait_for_state->('guarded_pattern', 'gone');
$becomes_state->('guarded_pattern', qr/^running no topic matches the pattern$/, 'a topic that may not be seen does not exist for a pattern');
$becomes_state->('guarded', qr/^failing HV000 /, 'and is in trouble where it was named');
kafka_tool('allow', $kafka, $guarded);
$wait_for_state->($_, 'running') for qw(guarded guarded_pattern);
produce($kafka, $guarded, map { { partition => $_ % 2, value => $_ } } 21 .. 30);
wait_until_caught_up($node, $_, $kafka, $guarded) for qw(guarded guarded_pattern);
exactly_once_ok($node, $_, $kafka, $guarded) for qw(guarded guarded_pattern);

nothing_in_trouble_ok($node);
is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$node->stop('fast');
done_testing();
