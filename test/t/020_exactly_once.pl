# Exactly once, whatever happens to the processes: producers run while workers
# are killed at random and at each named point of a batch, the server is
# stopped hard and softly, and a second reader gets between a worker and its
# checkpoint. The oracle is the count and the offsets of what is stored.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('exactly_once', conf => include_file() . <<'END');
medallion.ingest_workers = 2
medallion.backoff_max = '200ms'
END
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# Bytes as they are; typed columns with constraints that many records violate,
# some cut short; and a table that is written through INSERT, with a trigger.
my %topic_of = map { $_ => create_topic($kafka, $_, $_ eq 't_raw' ? 3 : 2) } qw(t_raw t_json t_trigger);
my $columns = 'event_id uuid, user_id int, event_type text, amount numeric, ts timestamptz';
sql(<<"END");
CREATE TABLE t_raw () WITH (medallion.server = kafka, medallion.topic = '$topic_of{t_raw}', medallion.format = raw,
	medallion.flush_interval = '10 ms');
CREATE TABLE t_json ($columns, CHECK (user_id % 7 <> 0), CHECK (event_type <> 'refund'))
	WITH (medallion.server = kafka, medallion.topic = '$topic_of{t_json}', medallion.flush_interval = '10 ms', medallion.batch_max_records = 100);
CREATE TABLE seen (p int, o bigint);
CREATE TABLE t_trigger (user_id int UNIQUE)
	WITH (medallion.server = kafka, medallion.topic = '$topic_of{t_trigger}', medallion.flush_interval = '10 ms');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.seen VALUES (NEW.kafka_partition, NEW.kafka_offset); RETURN NEW; END';
CREATE TRIGGER note AFTER INSERT ON t_trigger FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE t_copy () WITH (medallion.server = kafka, medallion.topic = '$topic_of{t_raw}', medallion.format = text);
END
$topic_of{t_copy} = $topic_of{t_raw};

# Views over them are refreshed all the while, and must equal their queries.
my @views = qw(silver gold raw_sizes);
sql(q{
CREATE MATERIALIZED VIEW silver WITH (medallion.refresh_interval = '50 ms', medallion.refresh_mode = incremental) AS
	SELECT medallion.hash_key(user_id) AS user_key, event_type, amount, ts, kafka_partition FROM t_json WHERE amount > 100;
CREATE MATERIALIZED VIEW gold WITH (medallion.refresh_interval = '70 ms', medallion.refresh_mode = incremental) AS
	SELECT date_trunc('minute', ts) AS minute, event_type, count(*), sum(amount), avg(amount), max(amount)
	  FROM silver GROUP BY 1, 2;
CREATE MATERIALIZED VIEW raw_sizes WITH (medallion.refresh_interval = '60 ms', medallion.refresh_mode = incremental) AS
	SELECT kafka_partition, length(payload) AS bytes, count(*), min(kafka_offset) FROM t_raw GROUP BY 1, 2;
});

# Producers, each of which is followed by the next when it is done.
my %first;
my %generator;

sub keep_producing
{
	for my $table (qw(t_raw t_json t_trigger))
	{
		next if $generator{$table} && $generator{$table}->is_running;
		$generator{$table}->finish if $generator{$table};
		$first{$table} //= 0;
		$generator{$table} = start_generator($kafka, $topic_of{$table}, 2000,
			'--rate', 400, '--first', $first{$table}, '--seed', $first{$table}, '--bad-every', 17);
		$first{$table} += 2000;
	}
	return;
}

sub stop_producing
{
	$_->finish for values %generator;
	%generator = ();
	return;
}

my $n_rounds = 0;

sub check_round
{
	my ($what) = @_;
	stop_producing();
	set_include($node, '');
	wait_until_caught_up_all($node, $kafka, 'postgres', %topic_of);
	note $what;
	exactly_once_ok($node, $_, $kafka, $topic_of{$_}) for sort keys %topic_of;
	for my $view (@views)
	{
		sql("SELECT medallion.refresh('$view')");
		is(sql("SELECT count(*) FROM medallion.verify('$view')"), 0, "$view equals its query");
	}
	is(sql('SELECT count(*) FROM (TABLE seen EXCEPT ALL SELECT kafka_partition, kafka_offset FROM t_trigger) s'), 0,
		'the trigger fired for no row that was not stored');
	is(sql('SELECT count(*) FROM (SELECT kafka_partition, kafka_offset FROM t_trigger EXCEPT ALL TABLE seen) s'), 0,
		'and once for each that was');
	return;
}

my $kill_line = qr/terminated by signal 9/;

# At each named point of a batch: the process ends itself there, again and
# again, until the setting is taken away.
for my $point (qw(ingest-begin ingest-fenced ingest-stored ingest-commit ingest-committed))
{
	my $before = count_log($node, $kill_line);
	keep_producing();
	set_include($node, "medallion.debug_points = '$point!'\n");
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (count_log($node, $kill_line) < $before + 5)
	{
		die "no death at $point" if time > $deadline;
		keep_producing();
		usleep(20_000);
	}
	set_include($node, '');
	wait_for($node, 'SELECT true');
}
check_round('after deaths at named points');

# Wait until a random number of records more are stored.
sub wait_for_progress
{
	my $sum = 'SELECT sum(next_offset) FROM medallion.checkpoint';
	my $enough = sql($sum) + int(rand(150));
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (1)
	{
		my ($ok, $now) = try_query($node, $sum);
		return if $ok && $now > $enough;
		die "no progress to $enough" if time > $deadline;
		keep_producing();
		usleep(10_000);
	}
	return;
}

for my $n (1 .. 26)
{
	wait_for_progress();
	kill_any_worker($node, 'ingest');
}
check_round('after kills at random');
cmp_ok(count_log($node, $kill_line), '>=', 50, 'at least 50 kills');

for my $mode (qw(immediate fast immediate fast))
{
	wait_for_progress();
	$node->stop($mode);
	keep_producing();
	$node->start;
}
for my $kind (qw(ingest supervisor launcher ingest))
{
	wait_for_progress();
	my $pid = worker_pid($node, $kind);
	sql("SELECT pg_terminate_backend($pid)");
	wait_for($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	pass("$kind is terminated");
}
check_round('after stops and terminations');
is(sql(q{SELECT count(*) FROM (SELECT kafka_partition, kafka_offset, kafka_timestamp, convert_from(payload, 'UTF8') FROM t_raw
	EXCEPT ALL SELECT kafka_partition, kafka_offset, kafka_timestamp, payload FROM t_copy) s}), 0, 'two tables on one topic hold the same');

# A second reader of the same partitions, in the foreground, over and over.
for my $n (1 .. 20)
{
	keep_producing();
	for my $table (qw(t_raw t_json))
	{
		my ($ok, undef, $error) = try_query($node, "SELECT medallion.ingest_once('$table', 50)");
		die $error unless $ok || $error =~ /another session|sent nothing/;
	}
}
check_round('after a second reader in the foreground');

# Stop the worker of a partition just before it moves its checkpoint, and do
# in a session what another worker would have done meanwhile.
sub second_worker_stores
{
	return <<"END";
SET medallion.allow_direct_writes = on;
WITH moved AS (UPDATE medallion.checkpoint SET next_offset = next_offset + 3, row_count = row_count + 3
	WHERE relid = 't_copy'::regclass AND kafka_partition = 0 RETURNING next_offset - 3 AS o),
stored AS (INSERT INTO t_copy (kafka_partition, kafka_offset, ingested_at) SELECT 0, o + i, now() FROM moved, generate_series(0, 2) i)
INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset, row_count, stored_at)
SELECT 't_copy'::regclass, '$topic_of{t_copy}', 0, o, o + 3, 3, now() FROM moved
END
}

my $session = background_sql($node);
$session->query_safe(q{SELECT pg_advisory_lock(1296319556, medallion.debug_point_id('ingest-begin'))});
set_include($node, "medallion.debug_points = 'ingest-begin'\n");
produce($kafka, $topic_of{t_raw}, map { { partition => 0, value => "x$_" } } 1 .. 10);
wait_for($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'medallion ingest%' AND wait_event = 'advisory'});
$session->query_safe(second_worker_stores());
$session->query_safe('SELECT pg_advisory_unlock_all()');
check_round('after another worker stored first');

# The same, while the worker waits for the row that the other one has locked.
$session->query_safe('BEGIN');
$session->query_safe(second_worker_stores());
produce($kafka, $topic_of{t_raw}, map { { partition => 0, value => "y$_" } } 1 .. 10);
wait_for($node, q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.backend_type LIKE 'medallion ingest%' AND NOT l.granted});
$session->query_safe('COMMIT');
check_round('after another worker committed first');

# A session that keeps the row locked and changes nothing holds up, no more.
$session->query_safe('BEGIN');
$session->query_safe(q{SELECT 1 FROM medallion.checkpoint WHERE relid = 't_copy'::regclass FOR UPDATE});
produce($kafka, $topic_of{t_raw}, map { { partition => 0, value => "z$_" } } 1 .. 10);
wait_for($node, q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.backend_type LIKE 'medallion ingest%' AND NOT l.granted});
$session->query_safe('ROLLBACK');
$session->quit;
check_round('after a lock on the checkpoint');
nothing_in_trouble_ok($node);
is(sql(q{SELECT strategy, count(*) FROM medallion.refresh_history WHERE strategy = 'full' GROUP BY 1}), 'full|3',
	'after their first refresh, all views took in new rows only');

$node->stop('fast');
done_testing();
