# MedallionTest: PostgreSQL servers with pg_medallion, and Kafka, for TAP tests.
#
#   use MedallionTest;
#   my $kafka = MedallionTest->kafka;                # the run's Apache Kafka
#   my $topic = create_topic($kafka, 'orders', 4);   # a new name for each call
#   produce($kafka, $topic, { key => 'k', value => '{"a": 1}' }, ...);
#   my $node = new_node('main');                     # started, extension created
#   create_server($node, 'kafka', $kafka);
#
# Everything waits on facts; nothing sleeps for a while and hopes.
package MedallionTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Time::HiRes qw(usleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  add_partitions
  becomes_like
  count_crashes
  create_server
  create_topic
  delete_records
  delete_topic
  kafka_tool
  kill_any_worker
  kill_worker
  new_node
  produce
  processes_of
  produce_lines
  signal_broker
  start_broker
  start_mock
  stop_broker
  try_query
  wait_for
  wait_until_caught_up
  watermarks
  worker_pid
  wait_for_crash
);

my $here = __FILE__ =~ s{[^/]*$}{}r;
my $broker_script = "$here../kafka/broker.sh";
my $n_topics = 0;
my %own_brokers;

# Bootstrap servers of the broker that the whole run shares. A test file that
# is run by itself gets a broker of its own.
sub kafka
{
	return $ENV{MD_KAFKA_BOOTSTRAP} // ($own_brokers{shared} //= start_broker('shared'));
}

# Start a broker for this test file alone, for tests that stop or break it;
# the same name continues with the same data and ports. Properties are those
# of Kafka's server.properties; a name with a colon ("listener:TLS" => 'SSL')
# is one of broker.sh's arguments, and version => '...' another version of Kafka.
sub start_broker
{
	my ($name, %properties) = @_;
	my $dir = broker_dir($name);
	my $version = delete $properties{version};
	my @arguments = map { "$_=$properties{$_}" } sort keys %properties;
	push @arguments, "version:$version" if defined $version;
	my $bootstrap = run_and_read('bash', $broker_script, 'start', $dir, @arguments);
	$own_brokers{$name} = $bootstrap;
	return $bootstrap;
}

# Stop a broker of start_broker(); KILL makes it a crash.
sub stop_broker
{
	my ($name, $signal) = @_;
	run_and_read('bash', $broker_script, 'stop', broker_dir($name), $signal // 'TERM');
	return;
}

# Send a signal to a broker that it may live through: STOP and CONT make it stall.
sub signal_broker
{
	my ($name, $signal) = @_;
	my $pid = slurp_file(broker_dir($name) . '/broker.pid') + 0;
	kill $signal, $pid or die "could not send SIG$signal to broker $name: $!";
	return;
}

sub broker_dir
{
	my ($name) = @_;
	return "$PostgreSQL::Test::Utils::tmp_check/kafka_" . ($0 =~ s{.*/|\.pl$}{}gr) . "_$name";
}

END
{
	my $status = $?;
	for my $name (keys %own_brokers)
	{
		eval { stop_broker($name, 'KILL') };
	}
	$? = $status;
}

# Run kafka_tool; returns what it printed, dies if it failed.
sub kafka_tool
{
	return run_and_read('kafka_tool', @_);
}

sub run_and_read
{
	my @command = @_;
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$stdout, '2>', \$stderr)
	  or die "command failed: @command\n$stderr";
	chomp $stdout;
	return $stdout;
}

# Create a topic whose name begins with $name and is new; returns the name.
# Properties are the topic's ('cleanup.policy', ...).
sub create_topic
{
	my ($bootstrap, $name, $partitions, %properties) = @_;
	my $topic = sprintf('%s_%d_%d', $name, $$, ++$n_topics);
	kafka_tool('create', $bootstrap, $topic, $partitions // 1,
		map { "$_=$properties{$_}" } sort keys %properties);
	return $topic;
}

sub delete_topic   { my ($bootstrap, $topic) = @_;            kafka_tool('delete', $bootstrap, $topic);                  return }
sub add_partitions { my ($bootstrap, $topic, $total) = @_;    kafka_tool('add-partitions', $bootstrap, $topic, $total);  return }
sub delete_records { my ($bootstrap, $topic, $p, $before) = @_; kafka_tool('delete-records', $bootstrap, $topic, $p, $before); return }

# [low, high] of each partition, in order.
sub watermarks
{
	my ($bootstrap, $topic) = @_;
	return map { [ (split / /)[ 1, 2 ] ] } split /\n/, kafka_tool('watermarks', $bootstrap, $topic);
}

# Send records and wait until all are in the log; returns how many. A record
# is { partition, timestamp (ms), key, value, headers => [ name, value, ... ] },
# each of which may be missing; strings are bytes, undef is NULL. The words
# 'begin', 'commit' and 'abort' among the records bound transactions; the
# first argument may then be { transactional_id => ... }.
sub produce
{
	my ($bootstrap, $topic, @records) = @_;
	my %options = (@records && ref $records[0] eq 'HASH' && exists $records[0]{transactional_id}) ? %{ shift @records } : ();
	return produce_lines($bootstrap, $topic, \%options, map { format_record($_) } @records);
}

# The same with lines as kafka_produce.c takes them.
sub produce_lines
{
	my ($bootstrap, $topic, $options, @lines) = @_;
	my @command = ('kafka_tool', 'produce', $bootstrap, $topic);
	push @command, '--transactional-id', $options->{transactional_id} if defined $options->{transactional_id};
	push @command, '--codec', $options->{codec} if defined $options->{codec};
	my $input = join('', map { "$_\n" } @lines);
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run(\@command, '<', \$input, '>', \$stdout, '2>', \$stderr) or die "produce failed: $stderr";
	chomp $stdout;
	return $stdout;
}

sub format_record
{
	my ($record) = @_;
	return $record unless ref $record;
	return join("\t",
		map { escape($_) } @$record{qw(partition timestamp key value)}, @{ $record->{headers} // [] });
}

sub escape
{
	my ($bytes) = @_;
	return '\N' unless defined $bytes;
	utf8::encode($bytes) if utf8::is_utf8($bytes);
	return $bytes =~ s{([\\\t\n\r\0])}{sprintf '\\x%02x', ord $1}ger;
}

# Start librdkafka's mock cluster; returns ($bootstrap, $control), where
# $control->('down 1') runs a command of kafka_mock.c. It ends with $control.
sub start_mock
{
	my (@arguments) = @_;
	my $mock = MedallionTest::Mock->new(@arguments);
	return ($mock->{bootstrap}, sub { $mock->command(@_) });
}

# A server with the extension's library preloaded, started, with the extension
# in the database "postgres"; unlike the module's own default it restarts
# after a crash. Options: conf => lines of configuration, init => options of
# init(), start => 0 leaves it stopped, extension => 0 without the extension.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(%{ $options{init} // {} });
	$node->append_conf('postgresql.conf', <<'END');
shared_preload_libraries = 'pg_medallion'
restart_after_crash = on
max_worker_processes = 32
max_prepared_transactions = 10
medallion.backoff_min = '50ms'
END
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	return $node if defined $options{start} && !$options{start};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_medallion')
	  unless defined $options{extension} && !$options{extension};
	return $node;
}

# CREATE SERVER of the wrapper kafka, with further options (name => value).
sub create_server
{
	my ($node, $name, $bootstrap, %options) = @_;
	my $database = delete $options{database} // 'postgres';
	my $list = join('', map { ", $_ '" . ($options{$_} =~ s/'/''/gr) . "'" } sort keys %options);
	$node->safe_psql($database,
		"CREATE SERVER $name FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap'$list)");
	return;
}

# Wait until the streaming table has stored all that its topic holds now.
# Asks Kafka itself for the ends, so nothing that lags can mislead it.
sub wait_until_caught_up
{
	my ($node, $table, $bootstrap, $topic, $database) = @_;
	my @ends = watermarks($bootstrap, $topic);
	my $conditions = join(' AND ', map {
		"coalesce((SELECT next_offset FROM medallion.checkpoint WHERE relid = '$table'::regclass"
		  . " AND topic = '$topic' AND kafka_partition = $_), 0) >= $ends[$_][1]"
	} grep { $ends[$_][1] > $ends[$_][0] } 0 .. $#ends);
	return 1 if $conditions eq '';
	return wait_for($node, "SELECT $conditions", $database);
}

# Wait until the query gives true. Unlike poll_query_until it lives through a
# server that restarts meanwhile, and dies with what was waited for.
sub wait_for
{
	my ($node, $query, $database) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($ok, $stdout, $stderr);
	while (1)
	{
		($ok, $stdout, $stderr) = try_query($node, $query, $database);
		return 1 if $ok && $stdout eq 't';
		last if time > $deadline;
		usleep(20_000);
	}
	die "timed out waiting for: $query\nlast answer: $stdout$stderr\n" . processes_of($node);
}

# A test: the answer to the query comes to match.  States pass through others,
# and the first one that is seen need not be the one that stays.
sub becomes_like
{
	my ($node, $query, $pattern, $name, $database) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($ok, $stdout, $stderr);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	while (1)
	{
		($ok, $stdout, $stderr) = try_query($node, $query, $database);
		last if ($ok && $stdout =~ $pattern) || time > $deadline;
		usleep(20_000);
	}
	return like($ok ? $stdout : $stderr, $pattern, $name);
}

# What the server's processes do, for whoever asks why a test timed out.
sub processes_of
{
	my ($node) = @_;
	my ($ok, $stdout, $stderr) = try_query($node,
		q{SELECT pid, backend_type, datname, state, wait_event_type, wait_event, left(query, 100) FROM pg_stat_activity});
	return "processes:\n$stdout$stderr\n";
}

# How often the server has restarted after a crash of one of its processes.
sub count_crashes
{
	my ($node) = @_;
	my $n = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	return $n;
}

# Wait until it has done so more than $before times, and answers again. Just
# after a kill it may still answer, because it has not noticed.
sub wait_for_crash
{
	my ($node, $before) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (count_crashes($node) <= $before)
	{
		die 'timed out waiting for the server to notice a crash' if time > $deadline;
		usleep(20_000);
	}
	return wait_for($node, 'SELECT true');
}

# Run a query that may fail; returns (success, output, error output).
sub try_query
{
	my ($node, $query, $database) = @_;
	my ($stdout, $stderr) = ('', '');
	my $ok = IPC::Run::run(
		[ 'psql', '-XAtq', '-d', $node->connstr($database // 'postgres'), '-v', 'ON_ERROR_STOP=1', '-c', $query ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	chomp $stdout;
	return ($ok, $stdout, $stderr);
}

# Pid of a running worker whose backend_type begins with "medallion $kind"
# ("launcher", "supervisor", "ingest", "refresh"); waits until there is one.
sub worker_pid
{
	my ($node, $kind, $database) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $query = "SELECT min(pid) FROM pg_stat_activity WHERE backend_type LIKE 'medallion $kind%'"
	  . (defined $database ? " AND datname = '$database'" : '');
	while (1)
	{
		my ($ok, $pid) = try_query($node, $query);
		return $pid if $ok && $pid ne '';
		die "timed out waiting for a worker: $kind\n" . processes_of($node) if time > $deadline;
		usleep(20_000);
	}
	return;
}

# Send a signal to a process of the server and wait until it is gone. After
# SIGKILL the postmaster restarts all; waits until it takes connections again.
sub kill_worker
{
	my ($node, $pid, $signal) = @_;
	kill $signal, $pid or die "could not send SIG$signal to $pid: $!";
	wait_until_gone($node, $pid, $signal);
	return;
}

# The same with SIGKILL for whichever worker of a kind runs: one whose
# configuration has changed may end by itself between a look and the signal.
sub kill_any_worker
{
	my ($node, $kind) = @_;
	my $pid;
	do { $pid = worker_pid($node, $kind) } until kill 'KILL', $pid;
	wait_until_gone($node, $pid, 'KILL');
	return;
}

sub wait_until_gone
{
	my ($node, $pid, $signal) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (kill 0, $pid)
	{
		die "process $pid did not end after SIG$signal" if time > $deadline;
		usleep(10_000);
	}
	return if $signal ne 'KILL';
	wait_for($node, 'SELECT true');
	return;
}

package MedallionTest::Mock;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, @arguments) = @_;
	my $self = bless { in => '', out => '' }, $class;
	$self->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{run} = IPC::Run::start([ 'kafka_tool', 'mock', @arguments ], '<', \$self->{in}, '>', \$self->{out}, $self->{timer});
	$self->{bootstrap} = $self->read_line;
	return $self;
}

# Send one command line, die unless the answer is "ok".
sub command
{
	my ($self, $line) = @_;
	$self->{in} .= "$line\n";
	my $answer = $self->read_line;
	die "mock cluster: $line: $answer" if $answer ne 'ok';
	return;
}

sub read_line
{
	my ($self) = @_;
	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$self->{run}->pump until $self->{out} =~ s/^(.*)\n//;
	my $line = $1;
	$self->{timer}->reset;
	return $line;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	eval { $self->{run}->finish };
	return;
}

1;
