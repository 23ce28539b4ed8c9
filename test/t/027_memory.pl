# Memory of an ingest worker is bounded by a setting, whatever the number of
# partitions and clients and the size of records.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use IngestTest;
use MedallionTest;

my $MB = 1024;    # in kB
my $kafka = MedallionTest->kafka;
my $node = new_node('memory', conf => "medallion.ingest_memory = '32MB'\n" . include_file());
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# Memory of the ingest worker that is its own, in kB.
sub own_memory
{
	my $pid = worker_pid($node, 'ingest');
	my ($kb) = slurp("/proc/$pid/status") =~ /^RssAnon:\s*(\d+) kB/m or die "no RssAnon of $pid";
	return $kb;
}

sub slurp { my ($file) = @_; local $/; open my $in, '<', $file or die "$file: $!"; return <$in> }

# The same when it no longer grows: the library's threads have fetched all that
# they may while the worker is held.
sub settled_memory
{
	my ($last, $same) = (0, 0);
	while ($same < 10)
	{
		usleep(100_000);
		my $now = own_memory();
		$same = $now > $last + 200 ? 0 : $same + 1;
		$last = $now if $now > $last;
	}
	return $last;
}

# An idle worker with a client of its own for a small topic.
my $small = create_topic($kafka, 'small');
produce_lines($kafka, $small, {}, "0\t\\N\t\\N\t1");
sql(qq{CREATE TABLE small () WITH (medallion.server = kafka, medallion.topic = '$small', medallion.format = raw)});
wait_until_caught_up($node, 'small', $kafka, $small);
my $idle = own_memory();

# How much more it needs for topics full of records while a batch is held, and
# while all of them are read.
sub bounded_ok
{
	my ($what, $limit, $topic, @tables) = @_;
	my $gate = background_sql($node);
	$gate->query_safe(q{SELECT pg_advisory_lock(1296319556, medallion.debug_point_id('ingest-begin'))});
	set_include($node, "medallion.debug_points = 'ingest-begin'\n");
	wait_for($node, q{SELECT current_setting('medallion.debug_points') = 'ingest-begin'});
	# in one transaction: the worker opens all clients before it comes to a batch
	sql(join("\n", 'BEGIN;', (map { qq{CREATE TABLE $_ () WITH (medallion.server = kafka, medallion.topic = '$topic', medallion.format = raw, medallion.check_topic = false);} } @tables), 'COMMIT;'));
	produce_lines($kafka, $small, {}, "0\t\\N\t\\N\t1");
	wait_for($node, q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND NOT l.granted AND a.backend_type = 'medallion ingest'});
	my $most = settled_memory();
	$gate->quit;
	set_include($node, '');
	for my $table (@tables)
	{
		my @ends = watermarks($kafka, $topic);
		my $end = 0;
		$end += $_->[1] for @ends;
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
		until (sql(qq{SELECT coalesce(sum(next_offset), 0) FROM medallion.checkpoint WHERE relid = '$table'::regclass}) == $end)
		{
			my $now = own_memory();
			$most = $now if $now > $most;
			die "$table is not read to its end" if time > $deadline;
			usleep(20_000);
		}
		exactly_once_ok($node, $table, $kafka, $topic);
	}
	SKIP:
	{
		skip 'sanitizers keep what is freed', 1 if $ENV{MD_ASAN};
		cmp_ok($most - $idle, '<', $limit, sprintf '%s: %d MB more than the idle worker, with %d MB for records', $what, ($most - $idle) / $MB, 32);
	}
	sql(join("\n", map { "DROP TABLE $_;" } @tables));
	return;
}

my $large = create_topic($kafka, 'large', 24);
produce_lines($kafka, $large, {}, map { ($_ % 24) . "\t\\N\t\\N\t" . ('x' x 600_000) } 1 .. 192);
bounded_ok('6 clients, records of 600 kB in 24 partitions', 192 * $MB, $large, map { "large_$_" } 1 .. 6);
my $tiny = create_topic($kafka, 'tiny', 24);
produce_lines($kafka, $tiny, {}, map { ($_ % 24) . "\t\\N\t\\N\t" . ($_ % 10) } 1 .. 600_000);
bounded_ok('2 clients, records of 1 byte', 192 * $MB, $tiny, map { "tiny_$_" } 1 .. 2);

$node->stop('fast');
done_testing();
