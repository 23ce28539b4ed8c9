# Processes: they come and go with databases, the extension, definitions and
# settings, and no record is lost or doubled over it.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('workers', conf => include_file());

sub sql { my ($query, $database) = @_; return $node->safe_psql($database // 'postgres', $query) }

# Number of processes of a kind, in a database.
sub processes
{
	my ($kind, $database) = @_;
	return "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'medallion $kind'" . (defined $database ? " AND datname = '$database')" : ')');
}

sub send_numbers
{
	my ($topic, $from, $to) = @_;
	produce_lines($kafka, $topic, {}, map { "\\N\t\\N\t$_\t{\"id\": $_}" } $from .. $to);
	return;
}

# The processes of a database, and what they show.
wait_for($node, 'SELECT ' . processes('launcher') . ' = 1 AND ' . processes('supervisor', 'postgres') . ' = 1');
is(sql('SELECT ' . processes('ingest')), 0, 'no ingest worker where there is nothing to read');
create_server($node, 'kafka', $kafka);
my $topic = create_topic($kafka, 'numbers', 4);
sql("CREATE TABLE t (id int) WITH (medallion.server = kafka, medallion.topic = '$topic')");
wait_for($node, 'SELECT ' . processes('ingest', 'postgres') . ' = 1');
send_numbers($topic, 1, 100);
wait_until_caught_up($node, 't', $kafka, $topic);
is(sql(q{SELECT string_agg(kind, ' ' ORDER BY kind) FROM medallion.workers WHERE database = 'postgres'}), 'ingest supervisor', 'medallion.workers');
wait_for($node, q{SELECT rows = 100 AND transactions BETWEEN 1 AND 100 AND bytes > 0 AND pid IN (SELECT pid FROM pg_stat_activity)
	FROM medallion.workers WHERE kind = 'ingest'});
is(sql(q{SELECT count(*) FROM medallion.workers WHERE kind = 'launcher' AND database IS NULL}), 1, 'the launcher belongs to no database');

# A second database.
sql('CREATE DATABASE second');
sql('CREATE EXTENSION pg_medallion', 'second');
wait_for($node, 'SELECT ' . processes('supervisor', 'second') . ' = 1');
create_server($node, 'kafka', $kafka, database => 'second');
sql("CREATE TABLE t (id int) WITH (medallion.server = kafka, medallion.topic = '$topic')", 'second');
wait_until_caught_up($node, 't', $kafka, $topic, 'second');
exactly_once_ok($node, 't', $kafka, $topic, database => 'second');
sql('DROP EXTENSION pg_medallion CASCADE', 'second');
wait_for($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'medallion%' AND datname = 'second'});
pass('DROP EXTENSION ends the processes');
sql('CREATE EXTENSION pg_medallion; DROP TABLE t', 'second');
create_server($node, 'kafka', $kafka, database => 'second');
sql("CREATE TABLE t (id int) WITH (medallion.server = kafka, medallion.topic = '$topic')", 'second');
wait_until_caught_up($node, 't', $kafka, $topic, 'second');
exactly_once_ok($node, 't', $kafka, $topic, database => 'second');

# ALTER DATABASE RENAME, CREATE DATABASE TEMPLATE and DROP DATABASE need a
# database without sessions.
my $generator = start_generator($kafka, $topic, 3000, '--rate', 500);
sql('ALTER DATABASE second RENAME TO renamed');
wait_for($node, 'SELECT ' . processes('ingest', 'renamed') . ' = 1');
sql('CREATE DATABASE clone TEMPLATE renamed');
wait_for($node, 'SELECT ' . processes('supervisor', 'clone') . ' = 1 AND ' . processes('ingest', 'renamed') . ' = 1');
$generator->finish;
wait_until_caught_up($node, 't', $kafka, $topic, 'renamed');
exactly_once_ok($node, 't', $kafka, $topic, database => 'renamed');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'clone' AND backend_type = 'medallion ingest'}), 0, 'a clone does not read');
my $before = sql('SELECT sum(next_offset) FROM medallion.checkpoint', 'clone');
send_numbers($topic, 101, 110);
wait_until_caught_up($node, 't', $kafka, $topic, 'renamed');
is(sql('SELECT sum(next_offset) FROM medallion.checkpoint', 'clone'), $before, 'while the original does');
sql('SELECT medallion.resume_all()', 'clone');
wait_until_caught_up($node, 't', $kafka, $topic, 'clone');
exactly_once_ok($node, 't', $kafka, $topic, database => 'clone');
$generator = start_generator($kafka, $topic, 1000, '--rate', 500);
sql('DROP DATABASE clone');
sql('DROP DATABASE renamed');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'medallion%' AND datname <> 'postgres'}), 0, 'DROP DATABASE ends the processes');
$generator->finish;

# Definitions change while records come.
sub change_ok
{
	my ($what, @statements) = @_;
	my $more = start_generator($kafka, $topic, 300, '--rate', 1000);
	for my $statement (@statements) { sql($statement) }
	$more->finish;
	return;
}

change_ok('options', q{ALTER TABLE t SET (medallion.flush_interval = '10 ms')}, 'ALTER TABLE t SET (medallion.batch_max_records = 10)');
change_ok('pause', q{SELECT medallion.pause('t')}, q{SELECT medallion.resume('t')});
change_ok('a column', 'ALTER TABLE t ADD COLUMN user_id int', 'ALTER TABLE t ADD COLUMN gone int', 'ALTER TABLE t DROP COLUMN gone');
change_ok('a type', 'ALTER TABLE t ALTER COLUMN user_id TYPE bigint');
change_ok('names', 'ALTER TABLE t RENAME COLUMN user_id TO person', 'CREATE SCHEMA bronze', 'ALTER TABLE t SET SCHEMA bronze', 'ALTER TABLE bronze.t RENAME TO numbers');
change_ok('locks', 'VACUUM FULL bronze.numbers', 'CREATE INDEX ON bronze.numbers (kafka_offset)');
wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
exactly_once_ok($node, 'bronze.numbers', $kafka, $topic);
change_ok('nothing');
wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
is(sql(qq{SELECT count(*) FILTER (WHERE person IS NULL) FROM (SELECT person FROM bronze.numbers ORDER BY kafka_timestamp DESC, kafka_offset DESC LIMIT 100) s}), 0, 'a renamed column is still filled');
wait_for($node, 'SELECT count(*) = 0 FROM medallion.stream_status');

# Another number of workers.
for my $n (2, 3, 1)
{
	$generator = start_generator($kafka, $topic, 1000, '--rate', 1000);
	set_include($node, "medallion.ingest_workers = $n\n");
	wait_for($node, 'SELECT ' . processes('ingest') . " = $n AND (SELECT count(DISTINCT worker_index) = $n FROM medallion.workers WHERE kind = 'ingest')");
	$generator->finish;
	wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
	exactly_once_ok($node, 'bronze.numbers', $kafka, $topic);
}
set_include($node, "medallion.workers = off\n");
wait_for($node, 'SELECT ' . processes('ingest') . ' + ' . processes('supervisor') . ' = 0');
set_include($node, '');
wait_for($node, 'SELECT ' . processes('ingest') . ' = 1');
pass('medallion.workers = off ends them, and on starts them');

# Nothing leaks over pause and resume. The second half must not need more than
# the first: descriptors and threads of the library belong to open clients.
sub open_things
{
	my $pid = worker_pid($node, 'ingest');
	my @counts = map { opendir my $d, "/proc/$pid/$_" or die "/proc/$pid/$_: $!"; scalar(grep { !/^\./ } readdir $d) } qw(fd task);
	return ($pid, @counts);
}

my $other = create_topic($kafka, 'other', 2);
sql("CREATE TABLE other (id int) WITH (medallion.server = kafka, medallion.topic = '$other', medallion.flush_interval = '10 ms')");
send_numbers($other, 1, 10);
wait_until_caught_up($node, 'other', $kafka, $other);
my ($pid, $fds, $threads) = open_things();
for my $n (1 .. 20)
{
	sql(q{SELECT medallion.pause('other')});
	send_numbers($other, $n, $n);
	sql(q{SELECT medallion.resume('other')});
	wait_until_caught_up($node, 'other', $kafka, $other);
}
# Clients that were closed end in the background.
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
my ($pid_after, $fds_after, $threads_after) = open_things();
while (($fds_after > $fds + 3 || $threads_after > $threads + 2) && time < $limit)
{
	usleep(20_000);
	($pid_after, $fds_after, $threads_after) = open_things();
}
is($pid_after, $pid, 'the same worker after 20 cycles');
cmp_ok($fds_after, '<=', $fds + 3, "descriptors do not leak ($fds, $fds_after)");
cmp_ok($threads_after, '<=', $threads + 2, "threads do not leak ($threads, $threads_after)");
exactly_once_ok($node, 'other', $kafka, $other);

# Threads and descriptors of an idle client go with the last table of its lane.
sql('DROP TABLE other');
for my $n (1 .. 5) { sql(q{DO $$BEGIN PERFORM medallion.ingest_once('bronze.numbers'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END$$}) }
my $session = background_sql($node);
my $backend = $session->query_safe('SELECT pg_backend_pid()');
chomp $backend;
my $count = sub { opendir my $d, "/proc/$backend/task" or die $!; return scalar(grep { !/^\./ } readdir $d) };
is($count->(), 1, 'a session has one thread');
$session->query(q{SELECT medallion.ingest_once('bronze.numbers')}) for 1 .. 3;
$session->query(q{SELECT medallion.ingest_once('bronze.numbers') / 0});
wait_for($node, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $backend");
# The library's threads end in the background, one last one of ours with them.
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(20_000) while $count->() > 1 && time < $end;
is($count->(), 1, 'and after ingest_once, failed or not, again');
$session->quit;

# Many tables with little each share commits.  All but one, which keeps the
# worker, are paused while records are sent: how long that takes does not count.
sql(q{SELECT medallion.pause('bronze.numbers')});
my @topics = map { create_topic($kafka, 'many') } 1 .. 60;
sql(join "\n", map { "CREATE TABLE many_$_ (id int) WITH (medallion.server = kafka, medallion.topic = '$topics[$_ - 1]', medallion.flush_interval = '1 s');" } 1 .. 60);
wait_for($node, q{SELECT count(*) > 0 FROM medallion.workers WHERE kind = 'ingest' AND pid IS NOT NULL});
send_numbers($_, 1, 1) for $topics[0];
wait_until_caught_up($node, 'many_1', $kafka, $topics[0]);
my $transactions = sql(q{SELECT transactions FROM medallion.workers WHERE kind = 'ingest'});
my $many = q{SELECT count(*) FROM generate_series(2, 60) AS n, medallion.%s(('many_' || n)::regclass)};
sql(sprintf $many, 'pause');
send_numbers($_, 2, 2) for @topics;
sql(sprintf $many, 'resume');
wait_until_caught_up($node, "many_$_", $kafka, $topics[$_ - 1]) for 1 .. 60;
wait_for($node, q{SELECT rows >= 61 FROM medallion.workers WHERE kind = 'ingest'});
my $used = sql(q{SELECT transactions FROM medallion.workers WHERE kind = 'ingest'}) - $transactions;
cmp_ok($used, '<=', 20, "60 tables share commits ($used)");
is(sql('SELECT ' . join(' + ', map { "(SELECT count(*) FROM many_$_)" } 1 .. 60)), 61, 'and each has its record');
sql(join "\n", map { "DROP TABLE many_$_;" } 1 .. 60);
wait_for($node, 'SELECT ' . processes('ingest') . ' = 0');
is(sql('SELECT count(*) FROM medallion.checkpoint'), 4, 'DROP TABLE takes its checkpoints');
sql(q{SELECT medallion.resume('bronze.numbers')});

# A server that takes connections and never answers.  What waits for its first
# answer holds no lock meanwhile, and holds up nobody on the same worker.
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 100) or die $!;
my $failures = q{SELECT coalesce(max(failures), 0) FROM medallion.stream_status WHERE relid = 'waits'::regclass};
my $late = create_topic($kafka, 'late', 2);
send_numbers($late, 1, 3);
create_server($node, 'silent', '127.0.0.1:' . $silent->sockport);
sql(qq{CREATE TABLE waits (id int) WITH (medallion.server = silent, medallion.topic = '$late', medallion.check_topic = false)});
becomes_status($node, 'waits', qr/^08006 could not get an answer from Kafka server "silent"/, 'a server that does not answer: the state says so');
my $failed = sql($failures);
my $locks = 0;
my $latest = time + $PostgreSQL::Test::Utils::timeout_default;
while (sql($failures) < $failed + 3)
{
	die 'it is not asked again' if time > $latest;
	$locks += sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'waits'::regclass AND pid <> pg_backend_pid()});
	send_numbers($topic, 1, 1);
	wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
}
is($locks, 0, 'it is asked without a lock on the table');
becomes_status($node, 'bronze.numbers', qr/^$/, 'and others go on');
sql("ALTER SERVER silent OPTIONS (SET bootstrap_servers '$kafka')");
wait_until_caught_up($node, 'waits', $kafka, $late);
exactly_once_ok($node, 'waits', $kafka, $late);
sql('DROP TABLE waits');
close $silent;

# Shutdown in each mode, with records on the way.
for my $mode (qw(smart fast immediate))
{
	$generator = start_generator($kafka, $topic, 500, '--rate', 1000);
	$node->stop($mode);
	$node->start;
	$generator->finish;
}
wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
exactly_once_ok($node, 'bronze.numbers', $kafka, $topic);
is(count_log($node, qr/terminated by signal|PANIC/), 0, 'nothing crashed');

# No process left for us: a log line, and recovery when there is one again.
$node->append_conf('postgresql.conf', "max_worker_processes = 3\nmax_parallel_workers = 0\nmax_logical_replication_workers = 0\n");
$node->append_conf('postgresql.conf', "medallion.ingest_workers = 4\n");
$node->restart;
wait_for_log($node, qr/could not start medallion ingest worker \d\n.*\n?.*HINT:  You might need to increase max_worker_processes/);
wait_for($node, 'SELECT ' . processes('ingest') . ' >= 1');
pass('the shortage of processes is logged');
my $short = q{SELECT string_agg(concat_ws(' ', database, kind, worker_index, state, reason), E'\n' ORDER BY kind, worker_index) FROM medallion.workers WHERE pid IS NULL};
my $why = 'waiting all 3 of max_worker_processes are in use; it starts within seconds when one is free';
wait_for($node, q{SELECT count(*) = 3 FROM medallion.workers WHERE pid IS NULL});
is(sql($short), join("\n", map { "postgres ingest $_ $why" } 1 .. 3), 'and medallion.workers shows who is missing, and why');
$node->append_conf('postgresql.conf', "medallion.ingest_workers = 1\n");
$node->reload;
send_numbers($topic, 1, 50);
wait_until_caught_up($node, 'bronze.numbers', $kafka, $topic);
exactly_once_ok($node, 'bronze.numbers', $kafka, $topic);
wait_for($node, q{SELECT count(*) = 0 FROM medallion.workers WHERE pid IS NULL});
sql('CREATE DATABASE third');
sql('CREATE EXTENSION pg_medallion', 'third');
wait_for($node, q{SELECT count(*) = 1 FROM medallion.workers WHERE database = 'third' AND state = 'waiting'});
is(sql($short), "third supervisor 0 $why", 'a supervisor, too');
sql(q{SELECT medallion.pause('bronze.numbers')});
wait_for($node, q{SELECT count(*) = 1 FROM medallion.workers WHERE database = 'third' AND kind = 'supervisor' AND state = 'running'});
is(sql($short), '', 'and it starts when a process is free');
my $busy = background_sql($node, 'third');
$busy->query_safe('SELECT 1');
isnt($node->psql('postgres', 'DROP DATABASE third'), 0, 'DROP DATABASE fails while somebody is connected, and the processes come back');
wait_for($node, q{SELECT count(*) = 1 FROM medallion.workers WHERE database = 'third' AND kind = 'supervisor' AND state = 'running'});
sql('DROP DATABASE third WITH (FORCE)');
is(sql(q{SELECT count(*) FROM medallion.workers WHERE database IS NULL AND kind <> 'launcher'}), 0, 'WITH (FORCE) it ends sessions and processes');
sql(q{SELECT medallion.resume('bronze.numbers')});

# What fills the memory for records does not wait for flush_interval, be it by
# records that are larger than those before.
$node->append_conf('postgresql.conf', "medallion.ingest_memory = '4MB'\n");
$node->restart;
my $large = create_topic($kafka, 'large', 2);
send_numbers($large, 1, 1);
sql(qq{CREATE TABLE large () WITH (medallion.server = kafka, medallion.topic = '$large', medallion.format = text, medallion.flush_interval = '1 h')});
wait_until_caught_up($node, 'large', $kafka, $large);
send_numbers($large, 2, 2);
produce_lines($kafka, $large, {}, map { "\\N\t\\N\t$_\t" . ('x' x 10000) } 3 .. 1500);
wait_for($node, 'SELECT count(*) > 1000 FROM large');
pass('a queue that is full does not wait for flush_interval');

$node->stop('fast');
done_testing();
