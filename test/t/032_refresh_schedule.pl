# Order and time of refreshes: independent views in parallel, upstream first,
# views that share a source at one frontier while workers, sessions and ingest
# go on side by side; cancel at any point; a new query under readers.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest qw(include_file set_include);
use MedallionTest;

my $node = new_node('refresh_schedule', conf => include_file() . "wal_level = minimal\nmax_wal_senders = 0\nautovacuum = off\n");
my $simulate = (__FILE__ =~ s{[^/]*$}{}r) . '../../sql/include/simulate_ingest.sql';

sub sql { my ($query) = @_; return $node->safe_psql('postgres', "SET search_path = sim, public; SET medallion.debug_points = ''; $query") }
sub ingest { my ($table, $query) = @_; return sql("SELECT ingest('sim.$table', 0, \$\$$query\$\$)") }

# A session of its own; statements are sent, answers read, one by one.
sub session
{
	my $self = { in => '', out => '', n => 0 };
	$self->{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	return $self;
}
sub ask
{
	my ($self, $query) = @_;
	my $mark = 'done ' . ++$self->{n};
	$self->{out} = '';
	$self->{in} .= "$query;\n\\echo $mark\n";
	$self->{run}->pump until $self->{out} =~ /\Q$mark\E\n/;
	return $self->{out} =~ s/\Q$mark\E\n//r;
}
sub finish { my ($self) = @_; $self->{in} .= "\\q\n"; $self->{run}->finish; return }

my $held = q{FROM pg_stat_activity WHERE backend_type = 'medallion refresh' AND wait_event = 'advisory'};

# Hold refreshes at a point; what is held is a fact.
my $holder;
sub hold
{
	my ($point) = @_;
	$holder //= session();
	ask($holder, "SELECT pg_advisory_lock(1296319556, medallion.debug_point_id('$point'))");
	set_include($node, "medallion.refresh_workers = 2\nmedallion.debug_points = '$point'\n");
	return;
}
sub release
{
	set_include($node, "medallion.refresh_workers = 2\n");
	ask($holder, 'SELECT pg_advisory_unlock_all()');
	return;
}

$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'test_schema=sim', '-d', $node->connstr('postgres'), '-f', $simulate ],
	'streams without Kafka');
create_server($node, 'nowhere', '127.0.0.1:1');
set_include($node, "medallion.refresh_workers = 2\n");

# A wide and deep DAG: 5 streams, 60 views over them, 60 over these, 20 over pairs of them.
sql(q{SELECT count(make_stream('sim.t' || g, 'id int')) FROM generate_series(0, 4) g});
sql(q{SELECT count(medallion.create_materialized_view('sim.silver' || g, format('SELECT id, %s AS n FROM sim.t%s', g, g % 5), '100 ms')) FROM generate_series(0, 59) g});
sql(q{SELECT count(medallion.create_materialized_view('sim.gold' || g, format('SELECT count(*) AS n FROM sim.silver%s', g), '100 ms')) FROM generate_series(0, 59) g});
sql(q{SELECT count(medallion.create_materialized_view('sim.pair' || g, format('SELECT a.n AS a, b.n AS b FROM sim.gold%s a, sim.gold%s b', g, g + 5), '100 ms')) FROM generate_series(0, 19) g});
is(sql(q{SELECT medallion.refresh_group('sim.pair7')}), '{silver12,silver7,gold12,gold7}', 'pairs over one stream are read at one frontier');
ingest("t$_", 'SELECT g FROM generate_series(1, 10) g') for 0 .. 4;
wait_for($node, q{SELECT bool_and(freshness = '0') FROM medallion.materialized_views});
my $sums = sql(q{SELECT string_agg(format('SELECT %L AS view, a, b FROM sim.pair%s', g, g), ' UNION ALL ') FROM generate_series(0, 19) g});
is(sql("SELECT count(*), sum(a), sum(b) FROM ($sums) s"), '20|200|200', 'every view of the DAG shows everything');
is(sql(q{SELECT count(*) FROM medallion.refresh_history WHERE sqlstate IS NOT NULL}), 0, 'without an error, no deadlock among them');

# Looking and finding nothing writes no WAL.
my $quiet = 0;
for (1 .. 20)
{
	my $looks = q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'};
	my $at = sql($looks);
	my $before = sql('SELECT pg_current_wal_insert_lsn()');
	wait_for($node, "SELECT xact_commit > $at + 30 FROM pg_stat_database WHERE datname = 'postgres'");
	$quiet = 1, last if sql('SELECT pg_current_wal_insert_lsn()') eq $before;
}
ok($quiet, '140 idle views write no WAL');
sql(q{SELECT count(medallion.pause(view)) FROM medallion.materialized_views});

# Independent views in parallel.
sql(q{SELECT medallion.resume('sim.silver0'), medallion.resume('sim.silver1')});
hold('refresh-applied');
ingest('t0', 'SELECT 11');
ingest('t1', 'SELECT 11');
wait_for($node, "SELECT count(DISTINCT query) = 2 $held");
pass('two views are refreshed at the same time by two workers');
# a session refreshes a third one meanwhile, and waits for one that is being refreshed
ingest('t2', 'SELECT 11');
is(sql(q{SELECT strategy FROM medallion.refresh('sim.silver2')}), 'append', 'a session refreshes another view beside them');
my $manual = session();
$manual->{in} .= "SET medallion.debug_points = ''; SELECT strategy FROM medallion.refresh('sim.silver0');\n";
$manual->{run}->pump_nb;
wait_for($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'silver0' AND backend_type = 'client backend' AND wait_event_type = 'Lock'});
release();
like(ask($manual, 'SELECT 1'), qr/^none\n/, 'and one of these after the worker, finding nothing new');
finish($manual);

# Two views over one stream and a reader of both, each on its own interval.
sql(q{SELECT make_stream('sim.events', 'id int');
	SELECT medallion.create_materialized_view('sim.facts', 'SELECT id FROM sim.events', '30 ms'),
	       medallion.create_materialized_view('sim.dimension', 'SELECT count(*) AS n FROM sim.events', '70 ms'),
	       medallion.create_materialized_view('sim.reader', 'SELECT (SELECT count(*) FROM sim.facts) AS facts, n AS dimension FROM sim.dimension', '50 ms')});
my ($seen, $wrong) = ({}, 0);
for my $i (1 .. 40)
{
	ingest('events', "SELECT g FROM generate_series(1, $i) g");
	my ($facts, $dimension) = split /\|/, sql('SELECT * FROM sim.reader');
	$seen->{$facts} = 1;
	$wrong++ if $facts != $dimension;
	# at some points, not at the end alone
	wait_for($node, 'SELECT facts = ' . $i * ($i + 1) / 2 . ' FROM sim.reader') if $i % 10 == 0;
}
is($wrong, 0, 'a fact and its dimension never disagree');
cmp_ok(scalar keys %$seen, '>', 3, 'at many points of time');

# One of them is paused and behind: the reader says so, and goes on when it can.
sql(q{SELECT medallion.pause('sim.dimension')});
ingest('events', 'SELECT 1');
wait_for($node, q{SELECT state = 'failing' AND last_sqlstate = '55000' AND last_error ~ 'at one frontier\nDETAIL:  .* is paused.*\nHINT:  Call medallion.resume' FROM medallion.materialized_views WHERE view = 'sim.reader'::regclass});
is(sql('SELECT * FROM sim.reader'), '820|820', 'it shows what it showed');
sql(q{SELECT medallion.resume('sim.dimension')});
wait_for($node, 'SELECT facts = 821 AND dimension = 821 FROM sim.reader');

# pg_cancel_backend() at each point of a refresh, of one view and of a group: the
# dimension is not due by itself, so the reader brings it along.
sql(q{SELECT medallion.alter_materialized_view('sim.dimension', refresh_interval => '1 day')});
for my $point (qw(refresh-locked refresh-group-locked refresh-applied refresh-before-frontier))
{
	my $cancelled = q{SELECT count(*) FROM medallion.refresh_history WHERE sqlstate = '57014'};
	my $before = sql($cancelled);
	hold($point);
	ingest('events', 'SELECT 1');
	wait_for($node, "SELECT count(*) > 0 $held");
	my $pid = sql("SELECT min(pid) $held");
	sql("SELECT pg_cancel_backend($pid)");
	wait_for($node, "SELECT ($cancelled) > $before");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND backend_type = 'medallion refresh'"), 1, "cancelled at $point, the worker lives on");
	release();
	wait_for($node, 'SELECT facts = (SELECT count(*) FROM sim.events) AND dimension = facts FROM sim.reader');
}
wait_for($node, q{SELECT bool_and(last_error IS NULL) FROM medallion.materialized_views WHERE NOT paused});
is(sql(q{SELECT count(*) FROM medallion.verify('sim.facts') UNION ALL SELECT count(*) FROM medallion.verify('sim.dimension')}), "0\n0", 'and nothing is lost or doubled');

# A refresh that takes longer than its interval runs back to back, says so, and starves nobody.
sql(q{CREATE MATERIALIZED VIEW sim.slow WITH (medallion.refresh_interval = '20 ms', medallion.refresh_mode = full) AS SELECT pg_sleep(0.05)::text AS slept});
wait_for($node, q{SELECT state = 'behind' AND last_duration >= refresh_interval FROM medallion.materialized_views WHERE view = 'sim.slow'::regclass});
set_include($node, "medallion.refresh_workers = 1\n");
ingest('events', 'SELECT 1');
wait_for($node, 'SELECT facts = (SELECT count(*) FROM sim.events) FROM sim.reader');
pass('the others go on with one worker');
sql('DROP MATERIALIZED VIEW sim.slow');

# Readers while the query changes, columns come and go: the old or the new, never nothing.
sql(q{CREATE MATERIALIZED VIEW sim.read WITH (medallion.refresh_interval = none) AS SELECT id FROM sim.t0;
	CREATE INDEX ON sim.read (id)});
my $rows = sql('SELECT count(*) FROM sim.read');
my $reader = session();
my ($changes, $n_asked, $n_answered) = (0, 0, 0);
# until there were enough changes, however slow they are
while ($changes < 3 || $n_answered < $n_asked)
{
	if ($n_answered == $n_asked)
	{
		$reader->{in} .= "SELECT count(*) FROM sim.read; SELECT count(*) FROM sim.read WHERE id > 0;\n" x 2000 . "\\echo end\n";
		$n_asked++;
	}
	my $twice = $changes++ % 2 ? '' : ', -id AS minus';
	my $all = $changes % 3 ? '' : ' UNION ALL SELECT id' . ($twice && ', -id') . ' FROM sim.t0';
	sql("SELECT medallion.alter_materialized_view('sim.read', 'SELECT id$twice FROM sim.t0$all')");
	$reader->{run}->pump_nb;
	$n_answered = () = $reader->{out} =~ /end\n/g;
}
finish($reader);
my %counts = map { $_ => 1 } grep { /^\d+$/ } split /\n/, $reader->{out};
is(join(' ', sort { $a <=> $b } keys %counts), join(' ', $rows, 2 * $rows), 'readers see one of the two results')
	or diag($reader->{err});
note("the query changed $changes times");
is($reader->{err}, '', 'and no error');

finish($holder);
done_testing();
