# Change capture where statements are not all there is: a table that logical
# replication writes, a crash, a prepared transaction, and a dump that is
# restored into another cluster.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $publisher = new_node('publisher', init => { allows_streaming => 'logical' }, conf => 'medallion.workers = off');
my $node = new_node('subscriber', conf => 'medallion.workers = off');

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# Refresh, and say how; the view must then be its query.
sub refresh
{
	my ($view, $how, $what) = @_;
	is(sql(qq{SELECT CASE WHEN strategy IN ('none', 'full') THEN strategy ELSE 'incremental' END FROM medallion.refresh('$view')}),
		$how, $what);
	is(sql(qq{SELECT count(*) FROM medallion.verify('$view')}), 0, "$what: equal to its query");
	return;
}

my $table = 'CREATE TABLE t (id int PRIMARY KEY, grp text, big text)';
$publisher->safe_psql('postgres', "$table; INSERT INTO t SELECT i, 'g' || i % 3, repeat('x', 3000) FROM generate_series(1, 20) i; CREATE PUBLICATION p FOR TABLE t");
sql($table);
sql(q{SELECT medallion.create_materialized_view('v', 'SELECT grp, count(*) AS n, sum(length(big)) FROM t GROUP BY grp', NULL)});
is(sql('SELECT triggers FROM medallion.captured_tables'), 'statement', 'captured by statements at first');
sql('INSERT INTO t VALUES (1001, $$local$$)');

# The first copy and all that follows is applied row by row.
sql("CREATE SUBSCRIPTION s CONNECTION '" . ($publisher->connstr('postgres') =~ s/'/''/gr) . "' PUBLICATION p");
is(sql('SELECT triggers FROM medallion.captured_tables'), 'row', 'by rows from the subscription on');
wait_for($node, q{SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel});
refresh('v', 'full', 'the capture is set up anew once');
$publisher->safe_psql('postgres', q{INSERT INTO t VALUES (21, 'new', 'y'); UPDATE t SET grp = 'moved' WHERE id < 4; DELETE FROM t WHERE id = 5;
	UPDATE t SET grp = grp WHERE id > 10});
$publisher->wait_for_catchup('s');
sql('INSERT INTO t VALUES (1002, $$local$$); DELETE FROM t WHERE id = 1001');
is(sql('SELECT count(*) FROM medallion.verify($$v$$)'), 0, 'what was applied is known');
refresh('v', 'incremental', 'applied changes');
$publisher->safe_psql('postgres', 'TRUNCATE t');
$publisher->wait_for_catchup('s');
is(sql('SELECT count(*) FROM t'), 0, 'TRUNCATE is applied, too');
refresh('v', 'incremental', 'an applied TRUNCATE');
sql('DROP SUBSCRIPTION s');

# A second table, for what follows.
sql('CREATE TABLE u (id int PRIMARY KEY); SELECT medallion.create_materialized_view($$w$$, $$SELECT count(*) AS n FROM u$$, NULL)');
sql(q{INSERT INTO u SELECT generate_series(1, 10)});

# A prepared transaction commits behind a refresh, and a crash loses nothing.
sql(q{BEGIN; INSERT INTO u VALUES (100); PREPARE TRANSACTION 'later'});
refresh('w', 'incremental', 'beside a prepared transaction');
sql('INSERT INTO u VALUES (200)');
$node->stop('immediate');
$node->start;
refresh('w', 'incremental', 'after a crash');
is(sql('SELECT n FROM w'), 11, 'the prepared row is not yet there');
sql(q{COMMIT PREPARED 'later'});
refresh('w', 'incremental', 'what was prepared before');
is(sql('SELECT n FROM w'), 12, 'it is read once');

# Into another cluster: neither triggers nor logs are dumped.
sql('INSERT INTO u VALUES (300)');
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/capture.sql";
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dump');
unlike(slurp_file($dump), qr/medallion_capture|" changes|capture_log/, 'nothing of the capture is in it');
my $other = new_node('other', conf => 'medallion.workers = off', extension => 0);
$other->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('postgres'), '-f', $dump ], 'restore');
$node = $other;
sql('SELECT medallion.resume_all()');
is(sql('SELECT count(*) FROM medallion.captured_tables'), 0, 'nothing is captured there');
sql('INSERT INTO u VALUES (400)');
refresh('w', 'full', 'the first refresh after a restore');
is(sql('SELECT n FROM w'), 14, 'has everything');
sql('INSERT INTO u VALUES (500)');
refresh('w', 'incremental', 'and the next one reads changes');
is(sql('SELECT n FROM w'), 15, 'of the restored table');

done_testing();
