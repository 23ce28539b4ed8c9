# A database with streaming tables through pg_dump and pg_restore, into another
# database and into another cluster: everything is there, paused, and goes on
# where it was when it is told to.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('source');
my $other = new_node('target', extension => 0);
$_->safe_psql('postgres', 'CREATE ROLE reader') for $node, $other;

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

my $topic = create_topic($kafka, 'dumped', 2);
create_server($node, 'kafka', $kafka, client_id => 'before');
sql(<<"END");
CREATE USER MAPPING FOR PUBLIC SERVER kafka OPTIONS (sasl_username 'somebody');
GRANT USAGE ON FOREIGN SERVER kafka TO reader;
CREATE SCHEMA bronze;
CREATE TABLE bronze.t (id int CHECK (id <> 13), old_name text) WITH (medallion.server = kafka, medallion.topic = '$topic',
	medallion.flush_interval = '10 ms', medallion.batch_max_records = 7);
ALTER TABLE bronze.t RENAME COLUMN old_name TO new_name;
CREATE INDEX ON bronze.t (id);
GRANT SELECT ON bronze.t TO reader;
END
sub send_ids { my (@ids) = @_; produce($kafka, $topic, map { { partition => $_ % 2, key => $_, value => qq({"id": $_, "old_name": "n$_"}), headers => [ h => $_ ] } } @ids); return }

send_ids(1 .. 20);
wait_until_caught_up($node, 'bronze.t', $kafka, $topic);
sql(q{SELECT medallion.pause('bronze.t')});
send_ids(21 .. 40);
delete_records($kafka, $topic, 0, 14);
sql(q{SELECT medallion.resume('bronze.t')});
wait_until_caught_up($node, 'bronze.t', $kafka, $topic);

# What must come through, of all tables that hold state.
my %state = (
	stream => 'relid::text, server, topic, format, start_at, options, initialized, origin',
	stream_column => 'relid::text, column_name, source_name',
	checkpoint => 'relid::text, topic, kafka_partition, start_offset, next_offset, row_count, dead_count, last_offset, last_checksum',
	batch => 'relid::text, topic, kafka_partition, first_offset, next_offset, row_count',
	dead_letter => 'dead_letter_id, relid::text, topic, kafka_partition, kafka_offset, kafka_key, payload, headers, sqlstate, message',
	gap => 'relid::text, topic, kafka_partition, first_offset, next_offset, reason');

sub state_of
{
	my ($where, $database) = @_;
	return join("\n", map { "$_: " . $where->safe_psql($database, "SELECT $state{$_} FROM medallion.$_ ORDER BY $state{$_}") } sort keys %state)
	  . "\n" . $where->safe_psql($database, 'SELECT * FROM bronze.t ORDER BY kafka_partition, kafka_offset');
}

# The dump is of a moment at which records arrive.
my $generator = start_generator($kafka, $topic, 400, '--rate', 400);
my $dir = "$PostgreSQL::Test::Utils::tmp_check/dump_restore";
mkdir $dir or die $!;
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$dir/custom" ], 'a dump while records arrive');
$generator->finish;
wait_until_caught_up($node, 'bronze.t', $kafka, $topic);

sub check_copy
{
	my ($where, $database, $what) = @_;
	my $copy = sub { my ($query) = @_; return $where->safe_psql($database, $query) };
	my $stored = 'SELECT count(*) FROM bronze.t';
	my $rows = $copy->($stored);
	cmp_ok($rows, '>=', 32, "$what: rows are there");
	is($copy->('SELECT sum(row_count) FROM medallion.checkpoint'), $rows, 'as many as the checkpoints say');
	is($copy->(q{SELECT string_agg(kafka_partition || ':' || first_offset || '-' || next_offset, ' ') FROM medallion.gap}), '0:10-14', 'the gap is there');
	is($copy->(q{SELECT string_agg(encode(payload, 'escape'), ' ') FROM medallion.dead_letter WHERE kafka_offset < 20}), '{"id": 13, "old_name": "n13"}', 'dead letters are there');
	is($copy->(q{SELECT state FROM medallion.streaming_tables}), 'paused', 'the table is paused');
	is($copy->(q{SELECT array_to_string(srvoptions, ' ') FROM pg_foreign_server WHERE srvname = 'kafka'}), "bootstrap_servers=$kafka client_id=before", 'the server is there');
	is($copy->(q{SELECT array_to_string(umoptions, ' ') FROM pg_user_mappings WHERE srvname = 'kafka'}), 'sasl_username=somebody', 'and its user mapping');
	is($copy->(q{SELECT has_server_privilege('reader', 'kafka', 'USAGE') AND has_table_privilege('reader', 'bronze.t', 'SELECT')}), 't', 'and privileges');

	# others are at work where it was restored, and this table stays as it was
	wait_for($where, "SELECT count(*) = 1 FROM medallion.workers WHERE kind = 'supervisor' AND database = '$database'", $database);
	is($copy->("SELECT count(*) FROM medallion.workers WHERE kind = 'ingest' AND database = '$database'"), 0, 'no worker reads for it');
	is($copy->($stored), $rows, 'nothing was read');

	$copy->('SELECT medallion.resume_all()');
	wait_until_caught_up($where, 'bronze.t', $kafka, $topic, $database);
	is(everything($where, $database), everything($node, 'postgres'), 'resumed, it has what the original has');
	is($copy->('SELECT count(*) FROM (SELECT kafka_partition, kafka_offset FROM bronze.t GROUP BY 1, 2 HAVING count(*) > 1) s'), 0, 'once each');
	is($copy->(q{SELECT count(*) FROM bronze.t WHERE id < 41 AND new_name IS DISTINCT FROM 'n' || id}), 0, 'the renamed column is filled');
	is($copy->('SELECT count(*) = max(dead_letter_id) AND count(DISTINCT dead_letter_id) = count(*) FROM medallion.dead_letter'), 't', 'dead letters go on counting');
	return;
}

# Rows and dead letters by position and content, whenever they were stored.
sub everything
{
	my ($where, $database) = @_;
	return $where->safe_psql($database, <<'END');
SELECT kafka_partition, kafka_offset, id, new_name, NULL FROM bronze.t UNION ALL
SELECT kafka_partition, kafka_offset, NULL, sqlstate, payload FROM medallion.dead_letter ORDER BY 1, 2
END
}

for my $copy ([ $node, 'copy', 'another database' ], [ $other, 'postgres', 'another cluster' ])
{
	my ($where, $database, $what) = @$copy;
	$where->safe_psql('postgres', "CREATE DATABASE $database") if $database ne 'postgres';
	$where->command_ok([ 'pg_restore', '--exit-on-error', '-d', $where->connstr($database), "$dir/custom" ], "restore into $what");
	check_copy($where, $database, $what);
}

# A dump at rest comes through to the last bit, as does the dump of a copy.
sql(q{SELECT medallion.pause('bronze.t')});
my $expected = state_of($node, 'postgres');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/plain" ], 'a dump at rest');
$other->safe_psql('postgres', 'CREATE DATABASE plain');
$other->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('plain'), '-f', "$dir/plain" ], 'a plain restore');
is(state_of($other, 'plain'), $expected, 'all state is the same');
$other->command_ok([ 'pg_dump', '-d', $other->connstr('plain'), '-f', "$dir/again" ], 'a dump of the copy');
$other->safe_psql('postgres', 'CREATE DATABASE again');
$other->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('again'), '-f', "$dir/again" ], 'restored again');
is(state_of($other, 'again'), $expected, 'is the same still');

# The topic is another one when the copy is resumed: it is not mixed.
$other->safe_psql('plain', 'SELECT 1');
my $replaced = create_topic($kafka, 'replaced', 1);
sql("CREATE TABLE r (id int) WITH (medallion.server = kafka, medallion.topic = '$replaced')");
produce($kafka, $replaced, map { { value => qq({"id": $_}) } } 1 .. 3);
wait_until_caught_up($node, 'r', $kafka, $replaced);
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/replaced" ], 'a dump');
sql('DROP TABLE r');
delete_topic($kafka, $replaced);
kafka_tool('create', $kafka, $replaced, 1);
produce($kafka, $replaced, map { { value => qq({"id": $_}) } } 11 .. 19);
$other->safe_psql('postgres', 'CREATE DATABASE replaced');
$other->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('replaced'), '-f', "$dir/replaced" ], 'is restored');
$other->safe_psql('replaced', 'SELECT medallion.resume_all()');
wait_for($other, q{SELECT count(*) = 1 FROM medallion.stream_status WHERE message LIKE '%made anew%'}, 'replaced');
is($other->safe_psql('replaced', q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM r}), '1 2 3', 'a topic that was replaced since the dump is not mixed');

# Late rows: what a view had read of them it has read; what it had not is not
# known where transactions have other ids, and the view starts anew, once.
my $late = create_topic($kafka, 'late', 1);
sql("CREATE TABLE late (id int CONSTRAINT small CHECK (id < 3)) WITH (medallion.server = kafka, medallion.topic = '$late')");
produce($kafka, $late, map { { value => qq({"id": $_}) } } 1 .. 9);
wait_until_caught_up($node, 'late', $kafka, $late);
sql('ALTER TABLE late DROP CONSTRAINT small');
sql("SELECT medallion.create_materialized_view('$_', 'SELECT count(*) AS n, sum(id) AS s FROM late', NULL)") for 'seen', 'unseen';

sub requeue
{
	my ($where, $database, $id) = @_;
	return $where->safe_psql($database, qq{SELECT medallion.requeue(ARRAY(SELECT dead_letter_id FROM medallion.dead_letters
		WHERE table_name = 'late'::regclass AND payload = '{"id": $id}'::bytea))});
}

# "strategy reason", or how many differences there are
sub refresh
{
	my ($where, $database, $view) = @_;
	return $where->safe_psql($database, "SELECT concat_ws(' ', strategy, reason) FROM medallion.refresh('$view')")
	  . $where->safe_psql($database, "SELECT ', ' || count(*) || ' differ' FROM medallion.verify('$view') HAVING count(*) > 0");
}

is(requeue($node, 'postgres', 3), 1, 'a late row');
is(refresh($node, 'postgres', $_), 'merge', 'that two views read') for 'seen', 'unseen';
is(requeue($node, 'postgres', 4), 1, 'and another');
is(refresh($node, 'postgres', 'seen'), 'merge', 'that one of them reads');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/late" ], 'a dump');
for my $copy ([ $node, 'late', 'the same cluster' ], [ $other, 'late', 'another cluster' ])
{
	my ($where, $database, $what) = @$copy;
	$where->safe_psql('postgres', "CREATE DATABASE $database");
	$where->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $where->connstr($database), '-f', "$dir/late" ], "a restore into $what");
	$where->safe_psql($database, 'SELECT medallion.resume_all()');
	is(refresh($where, $database, 'seen'), 'none', 'a view that had read them has nothing to do');
	is(refresh($where, $database, 'unseen'), 'full which late rows of public.late are new is not known', 'the other one starts anew');
	is(requeue($where, $database, 5), 1, 'a late row in the copy');
	is(refresh($where, $database, $_), 'merge', 'is read as one that came') for 'seen', 'unseen';
	is($where->safe_psql($database, 'SELECT seen.n, seen.s, unseen.n, unseen.s FROM seen, unseen'), '5|15|5|15', 'once');
}
is(refresh($node, 'postgres', 'unseen'), 'merge', 'the original goes on as it was');

is(count_log($_, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed') for $node, $other;
$_->stop('fast') for $node, $other;
done_testing();
