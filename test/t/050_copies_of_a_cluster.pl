# A standby that is promoted goes on where its primary was; a base backup that
# is started beside its original does not read by itself.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $kafka = MedallionTest->kafka;
my $primary = new_node('primary', init => { allows_streaming => 1, has_archiving => 1 });
create_server($primary, 'kafka', $kafka);
my $topic = create_topic($kafka, 'copies', 2);
my $produced = 0;

# Ten more records, over both partitions.
sub produce_more
{
	produce($kafka, $topic, map({ { partition => $_ % 2, value => qq({"a": $_}) } } $produced + 1 .. $produced + 10));
	$produced += 10;
	return;
}

# The table holds each of the records once.
sub holds
{
	my ($node, $expected, $what) = @_;
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT a), coalesce(max(a), 0) FROM bronze.t'),
		"$expected|$expected|$expected", $what);
	return;
}

my $state = q{SELECT state || coalesce(': ' || reason, '') FROM medallion.streaming_tables};
my $paused = qr/^paused: defined in another database/;

produce_more();
$primary->safe_psql('postgres', qq{
	CREATE SCHEMA bronze;
	CREATE TABLE bronze.t (a int) WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.flush_interval = '1 ms');
	SELECT medallion.create_materialized_view('gold', 'SELECT a % 2 AS parity, count(*) FROM bronze.t GROUP BY 1', refresh_interval => NULL)});
wait_until_caught_up($primary, 'bronze.t', $kafka, $topic);
my $identity = $primary->safe_psql('postgres', 'SELECT medallion.database_identity()');
$primary->restart;
is($primary->safe_psql('postgres', 'SELECT medallion.database_identity()'), $identity, 'a restart changes nothing');
$primary->backup('backup');

# Beside the original.
my $beside = PostgreSQL::Test::Cluster->new('beside');
$beside->init_from_backup($primary, 'backup');
$beside->append_conf('postgresql.conf', 'archive_mode = off');
$beside->start;
like($beside->safe_psql('postgres', $state), $paused, 'a base backup beside its original is paused');
is($beside->safe_psql('postgres', 'SELECT paused FROM medallion.materialized_views'), 't', 'and so are its views');
like(slurp_file($beside->logfile), qr/this data directory is a copy of another one/, 'and the log says why');
$beside->restart;
like($beside->safe_psql('postgres', $state), $paused, 'it stays so');
produce_more();
wait_until_caught_up($primary, 'bronze.t', $kafka, $topic);
holds($primary, 20, 'the original goes on');
holds($beside, 10, 'the copy does not');

# A point in time of the archive, beside the original.
my $restored = PostgreSQL::Test::Cluster->new('restored');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$restored->init_from_backup($primary, 'backup', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_action = 'promote'");
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
like($restored->safe_psql('postgres', $state), $paused, 'so is what was recovered from the archive');
$restored->stop;

# A standby follows, is promoted when its primary is no more, and goes on.
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'archive_mode = off');
$standby->start;
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT medallion.database_identity()'), $identity, 'a standby is of the lineage of its primary');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'medallion%'}),
	'0', 'and has no workers');
$primary->stop('immediate');
produce_more();
$standby->promote;
wait_until_caught_up($standby, 'bronze.t', $kafka, $topic);
holds($standby, 30, 'promoted, it has each record once');
$standby->restart;
produce_more();
wait_until_caught_up($standby, 'bronze.t', $kafka, $topic);
holds($standby, 40, 'and after a restart, too');
$standby->safe_psql('postgres', q{SELECT medallion.refresh('gold')});
is($standby->safe_psql('postgres', q{SELECT count(*) FROM medallion.verify('gold')}), '0', 'its views are what their queries say');

# The copy goes on from its own checkpoint, when it is told to.
$beside->safe_psql('postgres', 'SELECT medallion.resume_all()');
wait_until_caught_up($beside, 'bronze.t', $kafka, $topic);
holds($beside, 40, 'resumed, the copy has each record once');
$beside->restart;
is($beside->safe_psql('postgres', 'SELECT paused FROM medallion.materialized_views'), 'f', 'and stays resumed');

# Trouble with the file pauses, and does not keep the server from starting.
$beside->stop;
my $file = $beside->data_dir . '/pg_medallion.node';
open(my $handle, '>', $file) or die "$file: $!";
close($handle);
$beside->start;
like($beside->safe_psql('postgres', $state), $paused, 'who lost its lineage is paused');

$standby->stop;
$beside->stop;
done_testing();
