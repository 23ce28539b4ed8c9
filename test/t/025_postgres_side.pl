# What Postgres does to its writers: locks, full disks, slow triggers, processes
# that are not to be had.  Each costs the table that it concerns, is told in the
# state views with what to do, and passes by itself.
use strict;
use warnings FATAL => 'all';

use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('postgres_side', conf => include_file());
my $n = 0;

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# Records of both partitions of a topic, with ids that were not used before.
sub send_some
{
	my ($topic, $count) = @_;
	produce_lines($kafka, $topic, {}, map { $n++; ($_ % 2) . "\t\\N\t\\N\t{\"id\": $n, \"ref\": 1}" } 1 .. ($count // 10));
	return;
}

sub becomes_state
{
	my ($table, $pattern, $name) = @_;
	return becomes_like($node, qq{SELECT concat_ws(' ', state, sqlstate, reason, 'HINT', hint) FROM medallion.streaming_tables WHERE table_name = '$table'::regclass},
		$pattern, $name);
}

create_server($node, 'kafka', $kafka);
my %topic = map { $_ => create_topic($kafka, $_, 2) } qw(held beside);
sql(<<"END");
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE held (id int UNIQUE, ref int REFERENCES parent) WITH (medallion.server = kafka, medallion.topic = '$topic{held}');
CREATE TABLE beside (id int) WITH (medallion.server = kafka, medallion.topic = '$topic{beside}');
END
send_some($topic{$_}) for sort keys %topic;
wait_until_caught_up_all($node, $kafka, 'postgres', %topic);

# Locks that are held while records come: the table waits and says for whom, a
# table on the same worker does not, and when the lock is gone all goes on.
my $session = background_sql($node);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
chomp $pid;

sub lock_ok
{
	my ($what, $state, $begin, $end, $attempts) = @_;
	$attempts //= 2;
	$session->query_safe($_) for @$begin;
	send_some($topic{held});
	wait_for($node, "SELECT count(*) = 1 FROM medallion.stream_status WHERE relid = 'held'::regclass AND failures >= $attempts AND sqlstate = '55P03'");
	is(sql(q{SELECT count(*) FROM medallion.stream_status WHERE retry_at > clock_timestamp() + interval '1 s'}), 0, "$what: it is tried again within a second");
	becomes_state('held', $state, 'the state says who holds it up');
	send_some($topic{beside});
	wait_until_caught_up($node, 'beside', $kafka, $topic{beside});
	becomes_status($node, 'beside', qr/^$/, 'another table goes on');
	$session->query_safe($_) for @$end;
	wait_until_caught_up($node, 'held', $kafka, $topic{held});
	wait_for($node, q{SELECT state = 'running' AND failures = 0 FROM medallion.streaming_tables WHERE table_name = 'held'::regclass});
	return;
}

lock_ok('LOCK TABLE', qr/^waiting 55P03 the table is locked by another session: process $pid holds AccessExclusiveLock \(idle in transaction: LOCK TABLE held\) HINT Let the sessions/,
	[ 'BEGIN', 'LOCK TABLE held' ], ['COMMIT'], 8);
is(count_log($node, qr/"held" waits for a lock\n.*DETAIL:  process $pid holds AccessExclusiveLock \(idle in transaction: LOCK TABLE held\)\.\n.*HINT:  It goes on by itself/), 1, 'so does the log, once');
is(count_log($node, qr/"held" goes on after/), 1, 'and that it is over');
lock_ok('CREATE INDEX', qr/^waiting .* process $pid holds ShareLock/, [ 'BEGIN', 'CREATE INDEX held_offset ON held (kafka_offset)' ], ['COMMIT']);
lock_ok('ALTER TABLE', qr/^waiting .* process $pid holds AccessExclusiveLock \(idle in transaction: ALTER TABLE/, [ 'BEGIN', 'ALTER TABLE held ADD COLUMN note text' ], ['COMMIT']);
lock_ok('ALTER TABLE, rolled back', qr/^waiting /, [ 'BEGIN', 'ALTER TABLE held DROP COLUMN note' ], ['ROLLBACK']);
lock_ok('a prepared transaction', qr/^waiting .* a prepared transaction holds ExclusiveLock HINT/, [ 'BEGIN', 'LOCK TABLE held IN EXCLUSIVE MODE', q{PREPARE TRANSACTION 'forgotten'} ], [q{COMMIT PREPARED 'forgotten'}]);
lock_ok('a row that a foreign key refers to', qr/^waiting 55P03 canceling statement due to lock timeout, while locking tuple \(0,1\) in relation "parent" HINT/,
	[ 'BEGIN', 'SELECT FROM parent FOR UPDATE' ], ['COMMIT']);
lock_ok('a checkpoint', qr/^waiting 55P03 its checkpoint is locked by another session/,
	[ 'BEGIN', q{SELECT FROM medallion.checkpoint WHERE relid = 'held'::regclass FOR UPDATE} ], ['COMMIT']);

# One who waits for the table himself goes before the next batch.
my $reader = background_sql($node);
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM held');
$session->query_until(qr/begins/, "\\echo begins\nVACUUM FULL held;\n");
wait_for($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid");
send_some($topic{held});
becomes_state('held', qr/^waiting .* process $pid waits for AccessExclusiveLock \(active: VACUUM FULL held\)/, 'a statement that waits for a reader');
$reader->query_safe('COMMIT');
wait_until_caught_up($node, 'held', $kafka, $topic{held});
$session->query_safe('SELECT 1');
$reader->quit;

# What is done to a table that is written all the time gets its turn.
my $generator = start_generator($kafka, $topic{held}, 10_000_000, '--rate', 1000);
sql($_)
  for 'VACUUM FULL held', 'CREATE INDEX CONCURRENTLY held_at ON held (ingested_at)', 'REINDEX TABLE CONCURRENTLY held', 'CLUSTER held USING held_at',
  'ALTER TABLE held ADD COLUMN more int', 'ALTER TABLE held RENAME COLUMN more TO less', 'ALTER TABLE held DROP COLUMN less',
  'ALTER TABLE held ADD CHECK (kafka_offset >= 0)', 'DROP INDEX CONCURRENTLY held_at', 'ANALYZE held';
ok($generator->is_running, 'DDL and maintenance have their turn while records come');
$generator->stop;
wait_until_caught_up($node, 'held', $kafka, $topic{held});
is(dead_letters($node, 'held'), '', 'none of this made a dead letter');
exactly_once_ok($node, $_, $kafka, $topic{$_}) for sort keys %topic;

# A full disk.  In one table alone, as if it had a tablespace of its own: the
# others go on; in tables that all of them need, at each place of a batch.
sql(q{CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END$$;
	CREATE TRIGGER fill BEFORE INSERT ON held FOR EACH ROW EXECUTE FUNCTION fill()});
send_some($topic{$_}) for sort keys %topic;
wait_for($node, q{SELECT failures >= 2 FROM medallion.streaming_tables WHERE table_name = 'held'::regclass});
becomes_state('held', qr/^failing 53100 could not extend file HINT Free disk space/, 'a full disk of one table: the state says what to do');
wait_until_caught_up($node, 'beside', $kafka, $topic{beside});
becomes_status($node, 'beside', qr/^$/, 'and the others go on');
sql('DROP TRIGGER fill ON held');
wait_until_caught_up($node, 'held', $kafka, $topic{held});
for my $point (qw(ingest-begin ingest-fenced ingest-stored ingest-commit))
{
	set_include($node, "medallion.debug_points = '$point=53100'\n");
	send_some($topic{$_}) for sort keys %topic;
	wait_for($node, q{SELECT count(*) = 2 FROM medallion.streaming_tables WHERE failures >= 3 AND retry_at > failing_since});
	becomes_state('beside', qr/^failing 53100 .* at point "$point" HINT Free disk space/, "a full disk at $point");
	set_include($node, '');
	wait_until_caught_up_all($node, $kafka, 'postgres', %topic);
	wait_for($node, q{SELECT bool_and(state = 'running') FROM medallion.streaming_tables});
}
is(dead_letters($node, 'held') . dead_letters($node, 'beside'), '', 'no dead letter came of it');
exactly_once_ok($node, $_, $kafka, $topic{$_}) for sort keys %topic;

# Rows that are slow to store: the table is cut short and read apart, and the
# others need not wait for it; when it is fast again it comes back.
set_include($node, "medallion.batch_time_limit = '200ms'\n");
sub slow_ok
{
	my ($what, $begin, $end) = @_;
	sql($begin);
	# so many that they cannot all be stored while we look
	send_some($topic{held}, 20_000);
	wait_for($node, q{SELECT state = 'running' AND reason ~ '^storing its rows is slow, about \d+ a second: it is read apart' AND hint ~ '^See what is slow'
		FROM medallion.streaming_tables WHERE table_name = 'held'::regclass});
	for (1 .. 3)
	{
		send_some($topic{beside});
		wait_until_caught_up($node, 'beside', $kafka, $topic{beside});
	}
	my $lag = sql(q{SELECT sum(high_watermark - next_offset) FROM medallion.checkpoint WHERE relid = 'held'::regclass});
	cmp_ok($lag, '>', 0, "$what: others need not wait for a slow table ($lag records behind)");
	is(sql(q{SELECT bool_and(last_offset < next_offset AND last_checksum IS NOT NULL) FROM medallion.checkpoint WHERE relid = 'held'::regclass}), 't', 'the last record of a batch that was cut is known');
	sql($end);
	wait_until_caught_up($node, 'held', $kafka, $topic{held});
	wait_for($node, q{SELECT reason IS NULL FROM medallion.streaming_tables WHERE table_name = 'held'::regclass});
	is(count_log($node, qr/storing rows of streaming table "held" is slow: \d+ in \d+ ms/), 1, 'it comes back when it has no backlog; one log line, however often this is');
	exactly_once_ok($node, 'held', $kafka, $topic{held});
	return;
}
sql('CREATE FUNCTION slow(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.005); RETURN true; END$$;
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END$$');
sql('ALTER TABLE held DROP CONSTRAINT held_ref_fkey');
slow_ok('a CHECK', 'ALTER TABLE held ADD CONSTRAINT slow CHECK (slow(id)) NOT VALID', 'ALTER TABLE held DROP CONSTRAINT slow');
slow_ok('a trigger', 'CREATE TRIGGER slow BEFORE INSERT ON held FOR EACH ROW EXECUTE FUNCTION slow()', 'DROP TRIGGER slow ON held');

# A row that takes for ever.
set_include($node, "medallion.batch_timeout = '300ms'\n");
sql('CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.id % 10 = 0 THEN PERFORM pg_sleep(3600); END IF; RETURN NEW; END$$;
	CREATE TRIGGER hang BEFORE INSERT ON held FOR EACH ROW EXECUTE FUNCTION hang()');
send_some($topic{held}, 40);
wait_for($node, q{SELECT failures >= 3 FROM medallion.streaming_tables WHERE table_name = 'held'::regclass});
becomes_state('held', qr/^failing 57014 .*timeout, SQL statement "SELECT pg_sleep.* HINT See what is slow for each row.*medallion\.batch_timeout/, 'a trigger that does not end is given up, and said');
send_some($topic{beside});
wait_until_caught_up($node, 'beside', $kafka, $topic{beside});
becomes_status($node, 'beside', qr/^$/, 'and the others go on');
sql('DROP TRIGGER hang ON held');
wait_until_caught_up($node, 'held', $kafka, $topic{held});
is(dead_letters($node, 'held'), '', 'nothing became a dead letter');
exactly_once_ok($node, $_, $kafka, $topic{$_}) for sort keys %topic;
set_include($node, '');

$session->quit;
is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$node->stop('fast');
done_testing();
