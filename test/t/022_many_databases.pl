# A server with more databases than there is shared memory for processes: most of
# them have no extension, and cost a look each.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $databases = 24;
my $node = new_node('many_databases', conf => "medallion.max_worker_slots = 4\nmedallion.refresh_workers = 1");

$node->safe_psql('postgres', "CREATE DATABASE d$_") for 1 .. $databases;
$node->restart;
my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'medallion launcher'};
wait_for($node, "SELECT EXISTS ($launcher)");
my $pid = $node->safe_psql('postgres', $launcher);

# The first that has it among many that do not.
for my $database ('d1', "d$databases")
{
	$node->safe_psql($database, q{CREATE EXTENSION IF NOT EXISTS pg_medallion; CREATE TABLE t (id int);
		CREATE MATERIALIZED VIEW v WITH (medallion.refresh_interval = '50 ms') AS SELECT count(*) AS n FROM t});
	$node->safe_psql($database, 'INSERT INTO t SELECT generate_series(1, 3)');
	wait_for($node, 'SELECT n = 3 FROM v', $database);
	pass("$database: its view is refreshed");
	$node->safe_psql($database, 'DROP EXTENSION pg_medallion CASCADE');
}

# Definitions can be changed while no supervisor finds a slot.
$node->safe_psql("d$_", 'CREATE EXTENSION IF NOT EXISTS pg_medallion; CREATE TABLE IF NOT EXISTS t (id int)') for 2 .. 8;
$node->safe_psql("d$_", q{CREATE MATERIALIZED VIEW v WITH (medallion.refresh_interval = '1 min') AS SELECT count(*) AS n FROM t; SELECT medallion.pause('v')}) for 2 .. 8;
is($node->safe_psql('d5', 'SELECT count(*) FROM v'), 1, 'definitions are made where no process can be');

# As many are short of a process as there is room to say so of, and the extension can still be dropped.
is($node->safe_psql('postgres', $launcher), $pid, 'the launcher is the same');
$node->restart;
wait_for($node, q{SELECT count(*) >= 16 FROM medallion.workers WHERE state = 'waiting' AND reason LIKE '%medallion.max_worker_slots%'}, 'd5');
$pid = $node->safe_psql('postgres', $launcher);
$node->safe_psql("d$_", 'DROP EXTENSION pg_medallion CASCADE') for 2 .. 7;
$node->safe_psql('d8', q{INSERT INTO t VALUES (1); SELECT medallion.alter_materialized_view('v', refresh_interval => '50 ms'); SELECT medallion.resume('v')});
wait_for($node, 'SELECT n = 1 FROM v', 'd8');
pass('and one that waited gets its turn');
$node->safe_psql('postgres', "DROP DATABASE d$_") for 1 .. 7;

is($node->safe_psql('postgres', $launcher), $pid, 'the launcher is the same');
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|too many databases/, 'and nothing failed');
my $lines = () = $log =~ /could not start the medallion supervisor/g;
cmp_ok($lines, '<', $databases, "and the log is no list of databases ($lines lines)");

done_testing();
