# A streaming table that is partitioned: rows find their partition, what has
# none is a dead letter, partitions come and go while records come, and views
# over the table stay right.
use strict;
use warnings FATAL => 'all';

use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('partitioned');
my $topic = create_topic($kafka, 'events', 2);
my $n = 0;

sub sql { my ($query, $database) = @_; return $node->safe_psql($database // 'postgres', $query) }

# Records of a month each, with ids that were not used before.
sub send_days
{
	my (@days) = @_;
	produce_lines($kafka, $topic, {}, map { $n++; ($n % 2) . "\t\\N\t\\N\t" . qq({"id": $n, "day": "$_", "grp": ") . ('a', 'b', 'c')[ ($n / 3) % 3 ] . '"}' } @days);
	return;
}

sub caught_up { return wait_until_caught_up($node, 'events', $kafka, $topic) }

sub refused_ok
{
	my ($statement, $pattern) = @_;
	my ($ok, undef, $stderr) = try_query($node, $statement);
	ok(!$ok && $stderr =~ $pattern, "refused: $statement") or diag($stderr);
	return;
}

# How the last refresh went, and that the view is right.
sub view_ok
{
	my ($what, $strategy) = @_;
	is(sql(q{SELECT strategy FROM medallion.refresh('per_day')}), $strategy, "$what: the view is refreshed by $strategy") if defined $strategy;
	sql(q{SELECT medallion.refresh('per_day')});
	is(sql(q{SELECT count(*) FROM medallion.verify('per_day')}), 0, "$what: and is what its query says");
	return;
}

create_server($node, 'kafka', $kafka);
sql(<<"END");
CREATE TABLE events (id int, day date, grp text, note text GENERATED ALWAYS AS (grp || '!') STORED, CONSTRAINT positive CHECK (id > 0))
  PARTITION BY RANGE (day) WITH (medallion.server = kafka, medallion.topic = '$topic');
CREATE TABLE january PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE february (gone int, note text, ingested_at timestamptz NOT NULL, grp text, kafka_offset bigint NOT NULL,
  day date, kafka_timestamp timestamptz, id int, kafka_partition int NOT NULL, CONSTRAINT positive CHECK (id > 0));
ALTER TABLE february DROP COLUMN gone, DROP COLUMN note, ADD COLUMN note text GENERATED ALWAYS AS (grp || '!') STORED;
ALTER TABLE events ATTACH PARTITION february FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE march PARTITION OF events FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') PARTITION BY LIST (grp);
CREATE TABLE march_a PARTITION OF march FOR VALUES IN ('a');
CREATE TABLE march_other PARTITION OF march DEFAULT;
CREATE UNIQUE INDEX ON events (id, day, grp);
CREATE INDEX ON events USING brin (kafka_offset);
END
send_days(map { sprintf '2026-%02d-%02d', 1 + $_ % 3, 1 + $_ % 28 } 1 .. 300);
caught_up();
exactly_once_ok($node, 'events', $kafka, $topic);
is(sql(q{SELECT string_agg(concat_ws(' ', t, n), ', ' ORDER BY t::text) FROM (SELECT tableoid::regclass AS t, count(*) AS n FROM events GROUP BY 1) s}),
	'february 100, january 100, march_a 34, march_other 66', 'rows are in their partitions, sub-partitions and the default one');
is(sql(q{SELECT count(*) FROM events WHERE note IS DISTINCT FROM grp || '!' OR grp IS NULL OR day IS NULL}), 0, 'with the columns in another order, and generated ones');
is(sql(q{SET enable_seqscan = off; SELECT count(*) FROM events e WHERE EXISTS (SELECT FROM events i WHERE i.id = e.id AND i.day = e.day)}), 300, 'indexes of partitions have them');
sql(q{CREATE MATERIALIZED VIEW per_day WITH (medallion.refresh_interval = '1 day') AS SELECT day, count(*) AS n, sum(id) AS ids FROM events GROUP BY day});
view_ok('at first');
send_days(map { sprintf '2026-%02d-%02d', 1 + $_ % 3, 1 + $_ % 28 } 1 .. 30);
caught_up();
view_ok('new rows', 'merge');

# What has no partition is a dead letter, and can be requeued when it has one.
# The records beside it are found one by one, some of them bad themselves.
send_days('2026-04-01', '2026-01-05', '2026-03-05', '2026-04-02');
produce_lines($kafka, $topic, {}, "0\t\\N\t\\N\t{\"id\": 0, \"day\": \"2026-01-01\"}", "1\t\\N\t\\N\t{\"id\": 1000, \"day\": \"2026-02-01\", \"grp\": \"a\"}");
caught_up();
exactly_once_ok($node, 'events', $kafka, $topic);
is(sql(q{SELECT string_agg(sqlstate || ' ' || message, E'\n' ORDER BY message) FROM medallion.dead_letters WHERE table_name = 'events'::regclass}),
	qq{23514 new row for relation "january" violates check constraint "positive"\n} . join("\n", ('23514 no partition of relation "events" found for row') x 2), 'a missing partition makes dead letters');
view_ok('beside dead letters', 'merge');
sql(q{CREATE TABLE april PARTITION OF events FOR VALUES FROM ('2026-04-01') TO ('2026-05-01')});
is(sql(q{SELECT medallion.requeue(array_agg(dead_letter_id)) FROM medallion.dead_letters WHERE table_name = 'events'::regclass}), 2, 'requeue() stores them when there is one');
is(sql('SELECT count(*) FROM april'), 2, 'there');
view_ok('requeued');

# Triggers of partitions fire, and those of the table for each statement do not
# keep the others from the short way.
sql(<<'END');
CREATE TABLE seen (id int, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (NEW.id, TG_TABLE_NAME); RETURN NEW; END$$;
CREATE TRIGGER note AFTER INSERT ON january FOR EACH ROW EXECUTE FUNCTION note();
END
send_days('2026-01-07', '2026-02-07', '2026-01-08', '2026-03-07');
caught_up();
is(sql('SELECT string_agg(what, $$ $$) FROM seen'), 'january january', 'a trigger of one partition fires for its rows');
sql('DROP TRIGGER note ON january; CREATE TRIGGER note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION note()');
send_days('2026-01-07', '2026-02-07', '2026-03-07');
caught_up();
is(sql(q{SELECT count(*), count(DISTINCT what) FROM seen}), '5|3', 'one of the table for all');
sql('DROP TRIGGER note ON events');
exactly_once_ok_late();

# Partitions are guarded like the table.
refused_ok(q{INSERT INTO january (id, day, kafka_partition, kafka_offset, ingested_at) VALUES (9, '2026-01-01', 0, 0, now())}, qr/cannot change streaming table "january" directly/);
refused_ok(q{DELETE FROM march_a}, qr/cannot change streaming table/);
refused_ok(q{TRUNCATE february}, qr/cannot change streaming table/);
refused_ok(q{DROP TRIGGER medallion_guard ON january}, qr/cannot drop trigger "medallion_guard"/);
refused_ok(q{ALTER TABLE january SET UNLOGGED}, qr/cannot be a partition of streaming table "events"/);
refused_ok(q{ALTER TABLE events DETACH PARTITION january CONCURRENTLY}, qr/cannot detach a partition of a streaming table concurrently/);
refused_ok(q{CREATE UNLOGGED TABLE may PARTITION OF events FOR VALUES FROM ('2026-05-01') TO ('2026-06-01')}, qr/cannot be a partition/);
refused_ok(q{CREATE TABLE may PARTITION OF events FOR VALUES FROM ('2026-05-01') TO ('2026-06-01') WITH (medallion.server = kafka, medallion.topic = 'x')}, qr/streaming table "events" cannot be part/);
sql(q{SET medallion.allow_direct_writes = on; DELETE FROM february WHERE id IN (SELECT id FROM february ORDER BY id LIMIT 5)});
view_ok('a change that was allowed');
is(sql(q{SELECT medallion.replay('events', 'earliest')}), 5, 'replay() stores what was deleted');
view_ok('replayed');
exactly_once_ok_late();

# bounds of batches do not know of rows that were requeued or replayed: count alone
sub exactly_once_ok_late
{
	my @ends = watermarks($kafka, $topic);
	my $sent = 0;
	$sent += $_->[1] for @ends;
	is(sql(q{SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM (SELECT kafka_partition, kafka_offset FROM events UNION ALL SELECT kafka_partition, kafka_offset FROM medallion.dead_letters) r}),
		"$sent|$sent", 'each record is there once');
	return;
}

# Partitions come and go while records come.
my $generator = start_generator($kafka, my $live_topic = create_topic($kafka, 'live', 2), 10_000_000, '--rate', 1000);
sql(<<"END");
CREATE TABLE live (id bigint) PARTITION BY RANGE (kafka_offset) WITH (medallion.server = kafka, medallion.topic = '$live_topic');
CREATE TABLE live_rest PARTITION OF live DEFAULT;
CREATE TABLE live_far PARTITION OF live FOR VALUES FROM (1000000) TO (2000000);
END
refused_ok('CREATE FOREIGN TABLE live_foreign PARTITION OF live FOR VALUES FROM (2000000) TO (3000000) SERVER kafka', qr/cannot be a partition of streaming table "live"|has no foreign tables/);
for my $round (1 .. 3)
{
	sql('ALTER TABLE live DETACH PARTITION live_far');
	sql('INSERT INTO live_far (id, kafka_partition, kafka_offset, ingested_at) VALUES (1, 0, 1000000, now())');
	sql('DELETE FROM live_far');
	sql('ALTER TABLE live ATTACH PARTITION live_far FOR VALUES FROM (1000000) TO (2000000)');
	sql('VACUUM FULL live_rest');
}
ok($generator->is_running, 'ATTACH and DETACH have their turn while records come, and a detached partition can be written');
$generator->stop;
wait_until_caught_up($node, 'live', $kafka, $live_topic);
exactly_once_ok($node, 'live', $kafka, $live_topic);
is(dead_letters($node, 'live'), '', 'without a dead letter');

# What leaves with a partition leaves the views, what comes with one comes.
sql('ALTER TABLE events DETACH PARTITION february');
view_ok('DETACH', 'full');
is(sql(q{SELECT count(*) FROM per_day WHERE day BETWEEN '2026-02-01' AND '2026-02-28'}), 0, 'with its rows');
sql(q{ALTER TABLE events ATTACH PARTITION february FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')});
view_ok('ATTACH', 'full');
refused_ok('DELETE FROM february', qr/cannot change streaming table/);
sql('DROP TABLE march');
view_ok('DROP TABLE of a partition', 'full');
send_days('2026-03-09', '2026-02-09');
caught_up();
like(dead_letters($node, 'events'), qr/:23514$/, 'its records have no place any more');
sql('CREATE TABLE rest PARTITION OF events DEFAULT');
sql(q{SELECT medallion.requeue(array_agg(dead_letter_id)) FROM medallion.dead_letters WHERE message LIKE 'no partition%'});
is(sql('SELECT count(*) FROM rest'), 1, 'but in a default partition');
send_days('2026-12-09');
caught_up();
is(sql('SELECT count(*) FROM rest'), 2, 'where all goes that has no other');
view_ok('all that');

# A table with history that is adopted, and one that is dropped.
sql(<<"END");
CREATE TABLE old (id int, day date) PARTITION BY HASH (id);
CREATE TABLE old_0 PARTITION OF old FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE old_1 PARTITION OF old FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO old SELECT 100000 + n FROM generate_series(1, 10) AS n;
SELECT medallion.create_streaming_table('old', 'kafka', '$topic');
END
wait_until_caught_up($node, 'old', $kafka, $topic);
is(sql('SELECT count(*) FILTER (WHERE kafka_offset IS NULL), count(*) - count(DISTINCT id) FROM old'), '10|0', 'an adopted table keeps its rows');
refused_ok('DELETE FROM old_1', qr/cannot change streaming table/);
sql('DROP TABLE old');
is(sql(q{SELECT count(*) FROM medallion.stream}), 2, 'DROP TABLE takes its definition along');

# Dump and restore.
my $dump = $node->basedir . '/dump.sql';
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'restore');
is(sql('SELECT count(*) FROM events', 'copy'), sql('SELECT count(*) FROM events'), 'all rows are there');
my ($written, undef, $why) = try_query($node, 'DELETE FROM february', 'copy');
ok(!$written && $why =~ /cannot change streaming table/, 'its partitions are guarded') or diag($why);
sql('SELECT medallion.resume_all()', 'copy');
send_days('2026-01-09', '2026-02-09');
wait_until_caught_up($node, 'events', $kafka, $topic, $_) for 'copy', 'postgres';
is(sql('SELECT count(*) FROM events', 'copy'), sql('SELECT count(*) FROM events'), 'and ingest goes on');

is(count_log($node, qr/terminated by signal|PANIC|TRAP|reference leak/), 0, 'nothing crashed or leaked');
$node->stop('fast');
done_testing();
