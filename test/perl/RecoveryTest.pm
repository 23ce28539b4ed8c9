# RecoveryTest: what the tests of dead letters, seek and replay share.
package RecoveryTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Test::More;

use MedallionTest;

our @EXPORT = qw(
  accounted_ok
  letters
  debug_lock
  wait_until_blocked
);

# Ids of a table's dead letters as an array for SQL, of those that $where.
sub letters
{
	my ($node, $table, $where) = @_;
	$where //= 'true';
	return $node->safe_psql('postgres',
		"SELECT coalesce(array_agg(dead_letter_id ORDER BY dead_letter_id), '{}')"
		  . " FROM medallion.dead_letters WHERE table_name = '$table'::regclass AND $where");
}

# SQL that takes the lock at which a process waits under the debug point.
sub debug_lock
{
	my ($point) = @_;
	return "pg_advisory_lock(1296319556, medallion.debug_point_id('$point'))";
}

# Wait until n sessions wait for locks within a query that matches.
sub wait_until_blocked
{
	my ($node, $query, $n) = @_;
	return wait_for($node, 'SELECT count(*) >= ' . ($n // 1) . ' FROM pg_stat_activity'
		  . " WHERE wait_event_type = 'Lock' AND query LIKE '%$query%' AND pid <> pg_backend_pid()");
}

# The oracle: each offset that the topic has before the checkpoint is exactly
# once in the table, in the dead letters, or in a gap, and nothing else is.
# Offsets that hold no record are given as a list of "partition:offset".
sub accounted_ok
{
	my ($node, $table, $bootstrap, $topic, $name, @holes) = @_;
	my @ends = watermarks($bootstrap, $topic);
	my $known = join(', ', map { "($_, $ends[$_][0], $ends[$_][1])" } 0 .. $#ends);
	my $holes = join(', ', "'-1:-1'", map { "'$_'" } @holes);
	is($node->safe_psql('postgres', <<"END"), '', $name);
WITH known AS (
    SELECT c.kafka_partition AS p, o
      FROM medallion.checkpoint c JOIN (VALUES $known) AS k (p, low, high) ON k.p = c.kafka_partition,
           generate_series(greatest(c.start_offset, k.low), least(c.next_offset, k.high) - 1) o
     WHERE c.relid = '$table'::regclass),
held AS (
    SELECT kafka_partition AS p, kafka_offset AS o FROM $table WHERE kafka_offset IS NOT NULL
    UNION ALL
    SELECT kafka_partition, kafka_offset FROM medallion.dead_letter WHERE relid = '$table'::regclass
    UNION ALL
    SELECT kafka_partition, generate_series(first_offset, next_offset - 1) FROM medallion.gap WHERE relid = '$table'::regclass)
SELECT string_agg(format('%s:%s is held %s times', p, o, n), E'\\n' ORDER BY p, o)
  FROM (SELECT k.p, k.o, count(h.o) AS n FROM known k LEFT JOIN held h USING (p, o)
         WHERE k.p || ':' || k.o NOT IN ($holes) GROUP BY 1, 2) x
 WHERE n <> 1
END
	return;
}

1;
