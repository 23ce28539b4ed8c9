# Rows that cannot be computed, with refresh workers: they hold up nobody, nor do
# they get lost or come twice by crashes, dumps and restores; only the owner sees them.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest qw(include_file set_include);
use MedallionTest;

my $node = new_node('refresh_errors', conf => include_file());
my $simulate = (__FILE__ =~ s{[^/]*$}{}r) . '../../sql/include/simulate_ingest.sql';

sub sql { my ($query, $database) = @_; return $node->safe_psql($database // 'postgres', "SET search_path = sim, public; SET client_min_messages = error; $query") }
sub ingest { my ($values) = @_; return sql("SELECT ingest('sim.events', 0, \$\$VALUES $values\$\$)") }
sub count_log { my ($pattern) = @_; return scalar(() = slurp_file($node->logfile) =~ /$pattern/g) }

$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'test_schema=sim', '-d', $node->connstr('postgres'), '-f', $simulate ],
	'a stream without Kafka');
create_server($node, 'nowhere', '127.0.0.1:1');
sql(q{SELECT make_stream('sim.events', 'id int, amount text')});
sql(q{CREATE TABLE sim.customers (id int PRIMARY KEY, discount text); INSERT INTO sim.customers VALUES (1, '1'), (2, '2')});
ingest(q{(1, '10'), (2, '20')});

# The workers quarantine a row, say so once, and go on.
sql(q{CREATE MATERIALIZED VIEW sim.silver WITH (medallion.refresh_interval = '50 ms') AS SELECT id, amount::int AS amount FROM sim.events;
	CREATE MATERIALIZED VIEW sim.gold WITH (medallion.refresh_interval = '50 ms') AS SELECT id, sum(amount) AS s FROM sim.silver GROUP BY id;
	CREATE MATERIALIZED VIEW sim.net WITH (medallion.refresh_interval = '50 ms') AS
		SELECT id, amount::int - discount::int AS net FROM sim.events JOIN sim.customers USING (id)});
ingest(q{(1, 'ten'), (1, '30')});
wait_for($node, 'SELECT s = 40 FROM sim.gold WHERE id = 1');
wait_for($node, q{SELECT count(*) = 2 FROM medallion.refresh_errors WHERE kafka_offset = 2});
is(sql(q{SELECT string_agg(coalesce(last_error, 'well') || ' ' || quarantined_rows, ', ' ORDER BY view::text) FROM medallion.materialized_views}), 'well 0, well 1, well 1',
	'no view fails');
is(count_log('WARNING:  1 row could not be computed in materialized view "silver"'), 1, 'the log has a line');
ingest(q{(2, '5')});
wait_for($node, 'SELECT s = 25 FROM sim.gold WHERE id = 2');
is(count_log('WARNING:  1 row could not be computed in materialized view "silver"'), 1, 'and not another one at each refresh');

# A row that is mended comes back by itself.
sql(q{UPDATE sim.customers SET discount = 'none' WHERE id = 2});
wait_for($node, q{SELECT count(*) = 1 FROM medallion.refresh_errors WHERE source = 'sim.customers'::regclass});
is(sql('SELECT count(*) FROM sim.net WHERE id = 2'), 0, 'what it was joined to is left out');
sql(q{UPDATE sim.customers SET discount = '0' WHERE id = 2});
wait_for($node, 'SELECT sum(net) = 25 FROM sim.net WHERE id = 2');
is(sql(q{SELECT count(*) FROM medallion.refresh_errors WHERE source = 'sim.customers'::regclass}), 0, 'it left the quarantine');

# After a function was mended, the schedule tries again when it is told to.
sql(q{CREATE FUNCTION sim.parse(x text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN x::int; END';
	CREATE MATERIALIZED VIEW sim.parsed WITH (medallion.refresh_interval = '50 ms') AS SELECT id, sim.parse(amount) AS amount FROM sim.events;
	CREATE OR REPLACE FUNCTION sim.parse(x text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN replace(x, ''ten'', ''10'')::int; END'});
is(sql(q{SELECT medallion.retry_refresh_errors('sim.parsed')}), 1, 'one row to be tried');
wait_for($node, 'SELECT sum(amount) = 75 FROM sim.parsed');
is(sql(q{SELECT strategy || ': ' || reason FROM medallion.refresh_history WHERE view = 'sim.parsed'::regclass ORDER BY run_id DESC LIMIT 1}),
	'append: 1 quarantined row returned', 'at the cost of a new row');

# A crash between the rows and the frontier: neither is there, then both, once.
set_include($node, "medallion.workers = off\n");
wait_for($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'medallion refresh'});
ingest(q{(1, 'eleven'), (1, '11')});
for my $point ('refresh-applied', 'refresh-before-frontier')
{
	my $crashes = count_crashes($node);
	my ($code) = $node->psql('postgres', "SET client_min_messages = error; SET medallion.debug_points = '$point!'; SELECT medallion.refresh('sim.silver')");
	isnt($code, 0, "killed at $point");
	wait_for_crash($node, $crashes);
	is(sql(q{SELECT count(*) FROM medallion.refresh_errors WHERE view = 'sim.silver'::regclass}), 1, 'nothing of the refresh is there');
}
is(sql(q{SELECT strategy || ' ' || rows_inserted FROM medallion.refresh('sim.silver')}), 'append 1', 'the next one goes on');
is(sql(q{SELECT count(*), (SELECT count(*) FROM medallion.verify('sim.silver')) FROM medallion.refresh_errors WHERE view = 'sim.silver'::regclass}), '2|0', 'and is complete');

# Only the owner sees the rows.
sql('CREATE ROLE stranger; GRANT USAGE ON SCHEMA sim TO stranger; GRANT SELECT ON ALL TABLES IN SCHEMA sim TO stranger');
is(sql('SET ROLE stranger; SELECT count(*) FROM medallion.refresh_errors'), 0, 'a stranger sees none');
for my $call (q{SELECT medallion.retry_refresh_errors('sim.silver')}, q{SELECT * FROM medallion.refresh_error},
	q{UPDATE medallion.refresh_errors SET message = 'x'})
{
	my ($code, undef, $error) = $node->psql('postgres', "SET ROLE stranger; $call");
	like($error, qr/must be owner|permission denied|cannot update view/, "a stranger cannot: $call");
}

# A dump carries the quarantine, and a copy goes on with it.
sql(q{SELECT medallion.refresh(v::regclass) FROM unnest(ARRAY['silver', 'gold', 'net', 'parsed']) v});
my $errors = q{SELECT string_agg(concat_ws(' ', view, source, kafka_offset, row_data, message, attempts), chr(10) ORDER BY view::text, kafka_offset) FROM medallion.refresh_errors};
my $before = sql($errors);
my $dump = "$PostgreSQL::Test::Utils::tmp_check/refresh_errors.dump";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'a dump');
sql('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'a restore');
is(sql($errors, 'copy'), $before, 'the rows are there');
sql('SELECT medallion.resume_all()', 'copy');
is(sql(q{SELECT count(*) FROM medallion.verify('sim.silver')}, 'copy'), 0, 'and are left out');
sql(q{SET medallion.allow_direct_writes = on;
	DO $do$
	DECLARE
		before bigint := (SELECT history_changes FROM medallion.stream);
	BEGIN
		PERFORM ingest('sim.events', 0, $$VALUES (2, 'twelve'), (2, '12')$$);
		UPDATE medallion.stream SET history_changes = before;
	END $do$}, 'copy');
sql(q{SELECT medallion.refresh(v::regclass) FROM unnest(ARRAY['silver', 'gold', 'net', 'parsed']) v}, 'copy');
is(sql(q{SELECT string_agg(view || ' ' || copies, ', ' ORDER BY view::text) FROM (SELECT view, sum(copies) AS copies FROM medallion.refresh_errors GROUP BY view) e}, 'copy'),
	'net 3, parsed 2, silver 3', 'more are added');
is(sql(q{SELECT sum(n) FROM (SELECT (SELECT count(*) FROM medallion.verify(v::regclass)) AS n FROM unnest(ARRAY['silver', 'gold', 'net', 'parsed']) v) x}, 'copy'), 0,
	'all views of the copy are what their queries say');

is(count_log('PANIC|TRAP'), 0, 'nothing crashed by itself');
$node->stop('fast');
done_testing();
