# Brokers that stop, stall, lie about who leads, and come back: nothing is lost
# or doubled, the state says what is wrong while it lasts, and it goes on by itself.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = start_broker('own');
my $node = new_node('broken_brokers', conf => include_file() . <<'END');
medallion.backoff_max = '500ms'
medallion.discovery_interval = '500ms'
END
# what a stalled broker costs is bounded by the library's time limit for an answer
create_server($node, 'kafka', $kafka, socket_timeout_ms => 1500);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub stream_table
{
	my ($table, $server, $topic, $options) = @_;
	sql("CREATE TABLE $table () WITH (medallion.server = $server, medallion.topic = '$topic', medallion.format = raw, medallion.flush_interval = '10 ms'" . ($options ? ", $options" : '') . ')');
	return;
}

sub wait_for_state
{
	my ($table, $state) = @_;
	return wait_for($node, "SELECT state = '$state' FROM medallion.streaming_tables WHERE table_name = '$table'::regclass");
}

# A test: the table comes to fail for the reason that the pattern tells.
sub comes_to_fail
{
	my ($table, $pattern, $name) = @_;
	return becomes_like($node, "SELECT sqlstate || ' ' || reason FROM medallion.streaming_tables WHERE table_name = '$table'::regclass AND state = 'failing'",
		$pattern, $name);
}

my %n_sent;

sub send_more
{
	my ($bootstrap, $topic, $n) = @_;
	kafka_tool('gen', $bootstrap, $topic, $n // 200, '--first', $n_sent{$topic} //= 0);
	$n_sent{$topic} += $n // 200;
	return;
}

sub all_there_ok
{
	my ($what, $table, $bootstrap, $topic) = @_;
	wait_until_caught_up($node, $table, $bootstrap, $topic);
	note $what;
	exactly_once_ok($node, $table, $bootstrap, $topic);
	return;
}

# A broker that is stopped in the middle of a connection: the network is fine,
# and nothing answers. With what is idle and what is read at full speed.
my $idle = create_topic($kafka, 'idle', 2);
my $busy = create_topic($kafka, 'busy', 2);
stream_table('idle', 'kafka', $idle);
stream_table('busy', 'kafka', $busy);
stream_table('by_pattern', 'kafka', "^${busy}\$");
# one that stores nothing for an hour, and one of a server whose connections have a minute to answer
sql("CREATE TABLE patient () WITH (medallion.server = kafka, medallion.topic = '$idle', medallion.format = raw, medallion.flush_interval = '1 h')");
create_server($node, 'defaults', $kafka);
stream_table('defaults', 'defaults', $idle);
my @all = qw(idle busy by_pattern patient defaults);
send_more($kafka, $_) for $idle, $busy;
all_there_ok('before', 'idle', $kafka, $idle);
for my $n (1, 2)
{
	my $read = q{SELECT sum(next_offset) FROM medallion.checkpoint WHERE relid = 'busy'::regclass};
	my $before = sql($read);
	my $generator = start_generator($kafka, $busy, 20000, '--first', $n_sent{$busy} //= 0);
	$n_sent{$busy} += 20000;
	wait_for($node, "SELECT ($read) > $before");
	signal_broker('own', 'STOP');
	for my $table (@all)
	{
		comes_to_fail($table, qr/^08006 .*(timed out|no answer|answer|down|disconnect)/i, "a broker that stalls ($n): $table says so");
	}
	my ($ok, undef, $error) = try_query($node, q{SET medallion.kafka_timeout = '1s'; SELECT medallion.ingest_once('idle')});
	ok(!$ok && $error =~ /could not get an answer from Kafka server "kafka"/, 'a session is told so, too');
	signal_broker('own', 'CONT');
	wait_for_state($_, 'running') for @all;
	pass('and all go on by themselves');
	$generator->finish;
	send_more($kafka, $idle, 10);
	all_there_ok("after a stall ($n)", 'idle', $kafka, $idle);
	all_there_ok("after a stall ($n)", 'defaults', $kafka, $idle);
	all_there_ok("after a stall ($n)", 'busy', $kafka, $busy);
	all_there_ok("after a stall ($n)", 'by_pattern', $kafka, $busy);
}

# Restarted while it stalls, and restarted while records come.
signal_broker('own', 'STOP');
wait_for_state('idle', 'failing');
stop_broker('own', 'KILL');
start_broker('own');
wait_for_state($_, 'running') for qw(idle busy by_pattern);
send_more($kafka, $_) for $idle, $busy;
all_there_ok('a broker that stalled was replaced', 'idle', $kafka, $idle);
all_there_ok('a broker that stalled was replaced', 'by_pattern', $kafka, $busy);
for my $signal (qw(TERM KILL))
{
	my $generator = start_generator($kafka, $busy, 5000, '--rate', 2000, '--first', $n_sent{$busy});
	$n_sent{$busy} += 5000;
	stop_broker('own', $signal);
	start_broker('own');
	$generator->finish;
	all_there_ok("a restart by SIG$signal under load", 'busy', $kafka, $busy);
	all_there_ok("a restart by SIG$signal under load", 'by_pattern', $kafka, $busy);
}

# A table is defined while no broker is there, and begins when there is one.
stop_broker('own');
my ($ok, undef, $error) = try_query($node, qq{SET medallion.kafka_timeout = '500ms'; CREATE TABLE never () WITH (medallion.server = kafka, medallion.topic = '$busy')});
ok(!$ok && $error =~ /could not get an answer from Kafka server "kafka"/, 'a definition is refused while there is no broker');
stream_table('early', 'kafka', $busy, 'medallion.check_topic = false');
comes_to_fail('early', qr/^08006 could not get an answer from Kafka server "kafka"/, 'unless it is not checked');
start_broker('own');
all_there_ok('it begins by itself', 'early', $kafka, $busy);
wait_for_state('early', 'running');

# Librdkafka's mock cluster: three brokers, and what only it can do.
my ($mock, $control) = start_mock('--brokers', 3, '--topic', 'm:3');
create_server($node, 'mock', $mock, socket_timeout_ms => 1000);
stream_table('m', 'mock', 'm');
stream_table('mp', 'mock', '^m');
sub mock_ok { my ($what) = @_; send_more($mock, 'm', 100); all_there_ok($what, $_, $mock, 'm') for 'm', 'mp'; return }
mock_ok('a mock cluster');

# Leaders move while records come, to and fro.
my $generator = start_generator($mock, 'm', 3000, '--rate', 1000, '--first', $n_sent{m});
$n_sent{m} += 3000;
for my $n (1 .. 30)
{
	$control->('leader m ' . ($n % 3) . ' ' . (1 + int($n / 3) % 3));
	wait_for($node, 'SELECT count(*) >= ' . ($n * 50) . ' FROM m');
}
$generator->finish;
mock_ok('leaders moved 30 times');

# No leader at all, for a while: the partition waits, its neighbours go on. The
# broker that led it is away meanwhile, for newer mock clusters crash when they
# are asked for records of such a partition.
$control->("leader m $_ " . ($_ + 1)) for 0 .. 2;
mock_ok('each broker leads one');
$control->('down 2');
$control->('leader m 1 -1');
produce($mock, 'm', map { { partition => $_, value => 'x' } } 0, 2, 2);
wait_for($node, q{SELECT count(*) = 3 FROM m WHERE payload = 'x'});
$control->('leader m 1 2');
$control->('up 2');
mock_ok('a partition was without a leader');

# One of three brokers cannot be reached, and what it leads does not move: its
# partition waits, the state says so, and the neighbours go on.
wait_for($node, q{SELECT count(*) = 0 FROM medallion.stream_status});
$control->('down 2');
comes_to_fail($_, qr/^08006 .*\/2: /, "one broker of three is not there: $_ says which") for 'm', 'mp';
produce($mock, 'm', map { { partition => $_, value => 'beside' } } 0, 2);
wait_for($node, "SELECT count(*) = 2 FROM $_ WHERE payload = 'beside'") for 'm', 'mp';
$control->('leader m 1 3');
wait_for_state($_, 'running') for 'm', 'mp';
pass('until another leads what it had');
$control->('leader m 1 2');
$control->('up 2');
mock_ok('and it is back');

# Brokers that are slow: slower than a question waits, and than an answer may take.
for my $rtt (300, 1500)
{
	$control->("rtt $_ $rtt") for 1 .. 3;
	wait_for_state('m', 'failing') if $rtt > 1000;
	$control->("rtt $_ 0") for 1 .. 3;
	wait_for_state($_, 'running') for 'm', 'mp';
	mock_ok("answers that took $rtt ms");
}

# What workers ask fails: list offsets (2), metadata (3), for a table that
# begins, for its new partitions, and for a pattern.
for my $request (2, 3)
{
	for my $code (7, 6, 41, -195)
	{
		my $name = "asks_${request}_" . abs $code;
		$control->("fail $request $code 3");
		stream_table($name, 'mock', 'm', 'medallion.check_topic = false');
		stream_table("p$name", 'mock', '^m$', 'medallion.check_topic = false');
		all_there_ok("request $request fails with $code", $_, $mock, 'm') for $name, "p$name";
		wait_for_state($_, 'running') for $name, "p$name";
		sql("DROP TABLE $name; DROP TABLE p$name");
		$control->("clear $request");
	}
}
$control->('topic-error m 3');
stream_table('unknown', 'mock', 'm', 'medallion.check_topic = false');
comes_to_fail('unknown', qr/^42704 topic "m" does not exist on server "mock"/, 'a topic that is not there yet');
$control->('topic-error m 0');
all_there_ok('a topic that was not there', 'unknown', $mock, 'm');

# All brokers go, one after the other, and come back in another order.
my $lines = count_log($node, qr/ingest into streaming table "m" failed/);
$control->("down $_") for 1 .. 3;
comes_to_fail($_, qr/^08006 /, "no broker is left: $_") for 'm', 'mp';
my $unreachable = sql(q{SELECT failures FROM medallion.streaming_tables WHERE table_name = 'm'::regclass});
wait_for($node, "SELECT failures > $unreachable + 1 AND retry_at > now() FROM medallion.streaming_tables WHERE table_name = 'm'::regclass");
$lines = count_log($node, qr/ingest into streaming table "m" failed/) - $lines;
cmp_ok($lines, '<', 10, "the log does not fill while it lasts ($lines lines)");
$control->("up $_") for 3, 1, 2;
wait_for_state($_, 'running') for 'm', 'mp';
mock_ok('all brokers were gone');

nothing_in_trouble_ok($node);
is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$node->stop('fast');
done_testing();
