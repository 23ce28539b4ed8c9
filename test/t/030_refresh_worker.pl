# Refresh workers: views follow their sources by themselves, one that fails
# holds up nobody, and neither kills nor restores lose or double anything.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest qw(include_file set_include);
use MedallionTest;

my $node = new_node('refresh_worker', conf => include_file());
my $simulate = (__FILE__ =~ s{[^/]*$}{}r) . '../../sql/include/simulate_ingest.sql';

sub sql { my ($query, $database) = @_; return $node->safe_psql($database // 'postgres', "SET search_path = sim, public; $query") }

sub ingest
{
	my ($from, $to) = @_;
	return sql("SELECT ingest('sim.events', 0, 'SELECT g, ''k'' || g % 3 FROM generate_series($from, $to) g')");
}

sub count_log
{
	my ($pattern) = @_;
	return scalar(() = slurp_file($node->logfile) =~ /$pattern/g);
}

my $workers = "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'medallion refresh')";

$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'test_schema=sim', '-d', $node->connstr('postgres'), '-f', $simulate ],
	'a stream without Kafka');
create_server($node, 'nowhere', '127.0.0.1:1');
sql(q{SELECT make_stream('sim.events', 'id int, kind text')});
is(sql("SELECT $workers"), 0, 'no worker where there is nothing to refresh');

# A chain of views keeps itself fresh.
ingest(1, 30);
sql(q{CREATE MATERIALIZED VIEW sim.silver WITH (medallion.refresh_interval = '50 ms') AS SELECT id, upper(kind) AS kind FROM sim.events;
	CREATE MATERIALIZED VIEW sim.gold WITH (medallion.refresh_interval = '50 ms') AS SELECT kind, count(*) AS n, avg(id) AS a FROM sim.silver GROUP BY kind;
	CREATE MATERIALIZED VIEW sim.by_hand WITH (medallion.refresh_interval = none) AS SELECT count(*) AS n FROM sim.events});
wait_for($node, "SELECT $workers = 1");
ingest(31, 60);
wait_for($node, 'SELECT sum(n) = 60 FROM sim.gold');
is(sql('SELECT n FROM sim.by_hand'), 30, 'a view without an interval waits for its user');
is(sql(q{SELECT count(*) FROM medallion.verify('sim.gold')}), 0, 'the chain equals its queries');
is(sql(q{SELECT string_agg(DISTINCT strategy, ' ') FROM medallion.refresh_history WHERE reason IS NULL}), 'append merge', 'and was refreshed by its changes');
wait_for($node, q{SELECT bool_and(freshness = '0') FROM medallion.materialized_views WHERE refresh_interval IS NOT NULL});
wait_for($node, q{SELECT rows > 0 AND transactions >= 2 FROM medallion.workers WHERE kind = 'refresh'});
is(sql(q{SELECT count(*) > 0 FROM medallion.refresh_history WHERE strategy = 'none'}), 'f', 'looking and finding nothing leaves no trace');

# A view that fails says why, is tried again, and holds up nobody.
my $before = count_log('refresh of materialized view sim.ratio fails');
sql(q{CREATE MATERIALIZED VIEW sim.ratio WITH (medallion.refresh_interval = '50 ms', medallion.on_error = fail) AS SELECT id, 100 / (id - 70) AS r FROM sim.events});
ingest(61, 80);
wait_for($node, q{SELECT last_sqlstate = '22012' AND last_error LIKE 'division by zero%' AND failures >= 3 AND next_refresh IS NOT NULL
	FROM medallion.materialized_views WHERE view = 'sim.ratio'::regclass});
wait_for($node, 'SELECT sum(n) = 80 FROM sim.gold');
is(count_log('refresh of materialized view sim.ratio fails') - $before, 1, 'one line in the log for all failures');
is(sql(q{SELECT count(*) >= 3 FROM medallion.refresh_history WHERE view = 'sim.ratio'::regclass AND sqlstate = '22012'}), 't', 'and each in the history');
is(sql(q{SELECT count(*) FROM sim.ratio}), 60, 'what it showed stays');
sql(q{SELECT medallion.alter_materialized_view('sim.ratio', 'SELECT id, 100 / nullif(id - 70, 0) AS r FROM sim.events')});
is(sql(q{SELECT count(*), (SELECT count(*) FROM medallion.view_status) FROM sim.ratio}), '80|0', 'a new query cures it');
ingest(81, 90);
wait_for($node, 'SELECT count(*) = 90 FROM sim.ratio');
wait_for($node, 'SELECT count(*) = 90 FROM sim.silver');

# Pause and resume.
sql(q{SELECT medallion.pause('sim.silver')});
ingest(91, 100);
wait_for($node, 'SELECT count(*) = 100 FROM sim.ratio');
is(sql('SELECT count(*) FROM sim.silver'), 90, 'a paused view stays as it is');
is(sql(q{SELECT paused AND next_refresh IS NULL FROM medallion.materialized_views WHERE view = 'sim.silver'::regclass}), 't', 'and says so');
sql(q{SELECT medallion.resume('sim.silver')});
wait_for($node, 'SELECT sum(n) = 100 FROM sim.gold');

# Two workers: while one is held in a refresh, the other goes on.
set_include($node, "medallion.refresh_workers = 2\n");
wait_for($node, "SELECT $workers = 2");
my $lock = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \my $in, '>', \my $out, '2>', \my $err);
$in = "BEGIN; LOCK TABLE sim.ratio IN EXCLUSIVE MODE;\n\\echo held\n";
$lock->pump until $out =~ /held/;
sql("SELECT ingest('sim.events', 0, 'SELECT g, ''k'' || g % 3 FROM generate_series(101, 105) g')");
wait_for($node, 'SELECT sum(n) = 105 FROM sim.gold');
is(sql('SELECT count(*) FROM sim.ratio'), 100, 'while the other view waits');
$in = "COMMIT;\n\\q\n";
$lock->finish;
wait_for($node, 'SELECT count(*) = 105 FROM sim.ratio');

# pg_cancel_backend() ends a refresh, not the worker.
set_include($node, "medallion.debug_points = 'refresh-applied'\n");
wait_for($node, "SELECT $workers = 1");
($in, $out) = ('', '');
$lock = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);
$in = "SELECT pg_advisory_lock(1296319556, medallion.debug_point_id('refresh-applied'));\n\\echo held\n";
$lock->pump until $out =~ /held/;
ingest(106, 110);
my $held = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'medallion refresh' AND wait_event = 'advisory'};
wait_for($node, $held);
like(sql(q{SELECT query FROM pg_stat_activity WHERE backend_type = 'medallion refresh' AND wait_event = 'advisory'}),
	qr/^REFRESH MATERIALIZED VIEW sim\./, 'pg_stat_activity shows the view');
my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'medallion refresh'});
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'medallion refresh'});
wait_for($node, q{SELECT count(*) > 0 FROM medallion.refresh_history WHERE sqlstate = '57014'});
is(sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'medallion refresh'}), $pid, 'the worker lives on');

# SIGTERM while it is held ends it; it comes back.
wait_for($node, $held);
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'medallion refresh'});
wait_for($node, qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'medallion refresh' AND pid <> $pid});
set_include($node, '');
$in = "SELECT pg_advisory_unlock_all();\n\\q\n";
$lock->finish;
wait_for($node, 'SELECT sum(n) = 110 FROM sim.gold');

# Crashes at each point of a refresh.
for my $point (qw(refresh-locked refresh-applied refresh-before-frontier refresh-committed))
{
	my $crashes = count_log('all server processes terminated; reinitializing');
	set_include($node, "medallion.debug_points = '$point!'\n");
	try_query($node, "SELECT sim.ingest('sim.events', 0, 'SELECT g, ''k'' || g % 3 FROM generate_series(1, 10) g')");
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (count_log('all server processes terminated; reinitializing') == $crashes)
	{
		die "no crash at $point" if time > $deadline;
		try_query($node, 'SELECT 1');
	}
	set_include($node, '');
	wait_for($node, 'SELECT (SELECT sum(n) FROM sim.gold) = (SELECT count(*) FROM sim.events)');
	wait_for($node, 'SELECT (SELECT count(*) FROM sim.ratio) = (SELECT count(*) FROM sim.events)');
	is(sql(q{SELECT count(*) FROM medallion.verify('sim.silver') UNION ALL SELECT count(*) FROM medallion.verify('sim.gold') UNION ALL SELECT count(*) FROM medallion.verify('sim.ratio')}),
		"0\n0\n0", "a crash at $point loses and doubles nothing");
}

# Dump and restore: all is there and paused; the copy goes on when it is told to.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/refresh.sql";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dump');
sql('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'restore');
is(sql('SELECT sum(n) = (SELECT count(*) FROM sim.events) FROM sim.gold', 'copy'), 't', 'results are there');
is(sql('SELECT bool_and(paused) FROM medallion.materialized_views', 'copy'), 't', 'and paused');
is(sql(q{SELECT count(*) FROM medallion.verify('sim.gold')}, 'copy'), 0, 'and equal to their queries');
sql('SELECT medallion.resume_all()', 'copy');
is(sql('SELECT bool_or(paused) FROM medallion.materialized_views', 'copy'), 'f', 'resume_all() wakes them');
sql(q{SET medallion.allow_direct_writes = on;
	DO $$
	DECLARE
		before bigint := (SELECT history_changes FROM medallion.stream);
	BEGIN
		PERFORM ingest('sim.events', 0, 'SELECT 1, ''k1''');
		UPDATE medallion.stream SET history_changes = before;
	END $$}, 'copy');
wait_for($node, 'SELECT sum(n) = (SELECT count(*) FROM sim.events) FROM sim.gold', 'copy');
is(sql(q{SELECT count(*) FROM medallion.verify('sim.gold')}, 'copy'), 0, 'and the views go on, equal to their queries');
my ($ok, $output, $error) = try_query($node, 'INSERT INTO sim.gold DEFAULT VALUES', 'copy');
like($error, qr/cannot change materialized view "gold"/, 'the guard is back');
sql('DROP MATERIALIZED VIEW sim.gold', 'copy');
is(sql(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'sim.gold%'}, 'copy'), 0, 'dropping the result drops its parts');

# What a database sets for its sessions is not meant for workers.
my @settings = ('default_transaction_read_only = on', 'default_transaction_isolation = serializable', 'default_transaction_deferrable = on',
	'lock_timeout = 1', 'statement_timeout = 1', 'session_replication_role = replica', 'row_security = off', 'role = reader',
	q{search_path = ''}, 'standard_conforming_strings = off', 'array_nulls = off');
my $started = sql('SELECT now()');
sql('CREATE ROLE reader');
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'default_transaction_read_only=off', 'default_transaction_isolation=read\\ committed', 'lock_timeout=0',
	'statement_timeout=0', 'session_replication_role=origin', 'row_security=on', 'role=none';
sql("ALTER DATABASE postgres SET $_") for @settings;
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'medallion%' AND datname = 'postgres'");
wait_for($node, "SELECT count(*) = 2 AND min(started_at) > '$started' FROM medallion.workers WHERE database = 'postgres' AND pid IS NOT NULL");
my $rows = sql('SELECT count(*) FROM sim.events');
sql("SELECT ingest('sim.events', 0, 'SELECT g, ''k1'' FROM generate_series(1, 10) g')");
wait_for($node, "SELECT sum(n) = $rows + 10 FROM sim.gold");
is(sql(q{SELECT string_agg(last_error, '; ') FROM medallion.materialized_views}), '', 'settings for sessions do not reach workers');
sql('ALTER DATABASE postgres RESET ALL');
delete $ENV{PGOPTIONS};
sql('DROP ROLE reader');

# The end.
sql('DROP EXTENSION pg_medallion CASCADE', 'copy');
sql('DROP DATABASE copy');
sql('DROP MATERIALIZED VIEW sim.gold, sim.silver, sim.ratio');
wait_for($node, "SELECT $workers = 0");
pass('without scheduled views there is no worker');

done_testing();
