# IngestTest: what the tests of ingest share, above MedallionTest.
package IngestTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Test::More;
use Time::HiRes qw(time usleep);

use MedallionTest;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
  background_sql
  becomes_status
  count_log
  dead_letters
  exactly_once_ok
  include_file
  nothing_in_trouble_ok
  set_include
  start_generator
  status_of
  stored
  wait_for_log
  wait_until_caught_up_all
);

# Lines of configuration that a test changes while the server runs, or while
# it cannot be connected to: a file of its own, and a reload.
sub include_file { return "include_if_exists = 'test.conf'\n" }

my $n_includes = 0;

# Ends when all processes have been told: a session that begins with the new
# settings was forked by a postmaster that had signalled them before.
sub set_include
{
	my ($node, $lines) = @_;
	my $file = $node->data_dir . '/test.conf';
	$n_includes++;
	open my $out, '>', "$file.new" or die "$file.new: $!";
	print $out $lines, "test.include = '$n_includes'\n";
	close $out;
	rename "$file.new", $file or die "$file: $!";
	$node->reload;
	wait_for($node, "SELECT current_setting('test.include', true) = '$n_includes'");
	return;
}

# How many lines of the server's log match.
sub count_log
{
	my ($node, $pattern) = @_;
	my $n = () = slurp_file($node->logfile) =~ /$pattern/mg;
	return $n;
}

# Wait until more than $n lines of the log match.
sub wait_for_log
{
	my ($node, $pattern, $n) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (count_log($node, $pattern) <= ($n // 0))
	{
		die "timed out waiting for the log: $pattern\n" . processes_of($node) if time > $deadline;
		usleep(20_000);
	}
	return 1;
}

# Records of kafka_tool gen, by a process in the background: ->is_running tells
# whether it still is, ->finish waits for it and dies if it failed, ->stop ends
# it when what it has sent so far is in the log.
sub start_generator
{
	my ($bootstrap, $topic, $count, @options) = @_;
	return IngestTest::Generator->new('kafka_tool', 'gen', $bootstrap, $topic, $count, @options);
}

# A session that runs statements without waiting for them.
sub background_sql
{
	my ($node, $database) = @_;
	return $node->background_psql($database // 'postgres', on_error_stop => 0);
}

# Rows of a streaming table by position: "partition:offset ..."
sub stored
{
	my ($node, $table, $database) = @_;
	return $node->safe_psql($database // 'postgres',
		qq{SELECT string_agg(kafka_partition || ':' || kafka_offset, ' ' ORDER BY kafka_partition, kafka_offset) FROM $table});
}

# Dead letters of a table: "partition:offset:sqlstate ..."
sub dead_letters
{
	my ($node, $table, $database) = @_;
	return $node->safe_psql($database // 'postgres',
		qq{SELECT string_agg(kafka_partition || ':' || kafka_offset || ':' || sqlstate, ' ' ORDER BY kafka_partition, kafka_offset)
			FROM medallion.dead_letter WHERE relid = '$table'::regclass});
}

# What a streaming table is in trouble for: "sqlstate message", '' for none.
sub status_of
{
	my ($node, $table, $database) = @_;
	return $node->safe_psql($database // 'postgres', status_query($table));
}

sub status_query
{
	my ($table) = @_;
	return qq{SELECT sqlstate || ' ' || message FROM medallion.stream_status WHERE relid = '$table'::regclass};
}

# A test: the table comes to be in the trouble that the pattern tells.
sub becomes_status
{
	my ($node, $table, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes_like($node, status_query($table), $pattern, $name);
}

# What is over is taken out of the state by a transaction of its own, after the
# one that stored the records.
sub nothing_in_trouble_ok
{
	my ($node) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes_like($node, q{SELECT coalesce(string_agg(concat_ws(' ', relid::regclass, topic, sqlstate, message), E'\\n'), '') FROM medallion.stream_status},
		qr/^$/, 'nothing is left in trouble');
}

sub wait_until_caught_up_all
{
	my ($node, $bootstrap, $database, %topic_of) = @_;
	wait_until_caught_up($node, $_, $bootstrap, $topic_of{$_}, $database) for sort keys %topic_of;
	return;
}

# The oracle: bronze plus dead letters hold each offset of the topic from $low
# (default: its first) exactly once; checkpoints and bounds of batches agree.
# Topics must have no holes of their own.
sub exactly_once_ok
{
	my ($node, $table, $bootstrap, $topic, %options) = @_;
	my $database = $options{database} // 'postgres';
	my @ends = watermarks($bootstrap, $topic);
	my $expected = join("\n", map {
		my $low = $options{low}[$_] // $ends[$_][0];
		my $n = $ends[$_][1] - $low;
		join('|', $_, $n, $n, $low, $ends[$_][1] - 1, $ends[$_][1], 't', 't', 't')
	} grep { $ends[$_][1] > $ends[$_][0] } 0 .. $#ends);
	is($node->safe_psql($database, <<"END"), $expected, "$table holds each record exactly once");
WITH r AS (SELECT kafka_partition AS p, kafka_offset AS o, 0 AS dead FROM $table
           UNION ALL
           SELECT kafka_partition, kafka_offset, 1 FROM medallion.dead_letter WHERE relid = '$table'::regclass),
     b AS (SELECT kafka_partition AS p, first_offset, next_offset, row_count,
                  lag(next_offset) OVER (PARTITION BY kafka_partition ORDER BY first_offset) AS before
             FROM medallion.batch WHERE relid = '$table'::regclass)
SELECT c.kafka_partition, count(*), count(DISTINCT o), min(o), max(o), c.next_offset,
       c.row_count = count(*) FILTER (WHERE dead = 0), c.dead_count = sum(dead),
       (SELECT bool_and(coalesce(before, c.start_offset) = first_offset) AND max(next_offset) = c.next_offset
               AND sum(row_count) = c.row_count FROM b WHERE b.p = c.kafka_partition)
  FROM medallion.checkpoint c JOIN r ON r.p = c.kafka_partition
 WHERE c.relid = '$table'::regclass AND c.topic = '$topic'
 GROUP BY c.kafka_partition, c.next_offset, c.start_offset, c.row_count, c.dead_count
 ORDER BY 1
END
	return;
}

package IngestTest::Generator;

use strict;
use warnings FATAL => 'all';

use POSIX ();

sub new
{
	my ($class, @command) = @_;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', '/dev/null';
		exec @command or POSIX::_exit(127);
	}
	return bless { pid => $pid }, $class;
}

sub is_running
{
	my ($self) = @_;
	$self->{status} = $? if !defined $self->{status} && waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid};
	return !defined $self->{status};
}

sub finish
{
	my ($self) = @_;
	if (!defined $self->{status})
	{
		waitpid $self->{pid}, 0;
		$self->{status} = $?;
	}
	die "a generator failed with status $self->{status}" if $self->{status} != 0;
	return;
}

sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid} if $self->is_running;
	$self->finish;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	kill 'KILL', $self->{pid} if $self->is_running;
	return;
}

1;
