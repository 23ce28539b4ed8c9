# Dead letters and their ways out: requeue, discard, expiry, and the pause of a
# table whose input has clearly changed.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;
use RecoveryTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('dead_letters');
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# The error of a query that must fail.
sub error
{
	my ($query) = @_;
	my ($ok, $out, $err) = try_query($node, $query);
	return $ok ? "no error: $out" : $err;
}

sub caught_up { my ($table) = @_; return sql(qq{SELECT medallion.wait_until_caught_up('$table', '3 min')}) }

# A table, a view over it, and records of which every third does not fit
my $topic = create_topic($kafka, 'letters', 2, 'retention.ms' => -1);
sql(qq{CREATE TABLE orders (a int CHECK (a < 1000), note text, kafka_key bytea, kafka_headers jsonb)
	WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.flush_interval = '0 ms')});
sql(q{SELECT medallion.create_materialized_view('totals', 'SELECT count(*) AS n, sum(a) AS total FROM orders', NULL, 'incremental')});
produce($kafka, $topic, map({ {
			partition => $_ % 2, timestamp => 1_700_000_000_123 + $_, key => $_ % 4 == 0 ? undef : "k\xff$_",
			value => $_ % 3 == 0 ? qq({"a": "number $_"}) : qq({"a": $_}),
			headers => [ 'trace', "t$_", 'raw', "\xff\x00", 'none', undef ] } } 1 .. 60));
is(caught_up('orders'), 't', 'the worker goes past bad records');
is(sql(q{SELECT count(*) FROM orders}), '40', 'good ones are stored');
is(sql(q{SELECT count(*) FROM medallion.dead_letters}), '20', 'bad ones are dead letters');
accounted_ok($node, 'orders', $kafka, $topic, 'each record is in one place');
is(sql(q{SELECT dead_letters_last_hour, commonest_error LIKE '22P02: column "a": invalid input syntax%' FROM medallion.streaming_tables}),
	'20|t', 'the state shows how many, and what is wrong');
sql(q{SELECT medallion.refresh('totals')});

# Nothing has changed: they fail again, and stay
my $all = letters($node, 'orders');
is(sql(qq{SELECT medallion.requeue('$all')}), '0', 'requeued without a change, none is stored');
is(sql(q{SELECT count(*), min(attempts), max(attempts) FROM medallion.dead_letters}), '20|2|2', 'they stay, with one more attempt');

# A corrected payload; the record keeps all else
my $one = letters($node, 'orders', 'kafka_partition = 0 AND payload::text = \'{"a": "number 6"}\'::bytea::text');
is(sql(qq{SELECT medallion.requeue('$one', '{"a": 5000}')}), '0', 'a payload that a constraint refuses');
is(sql(qq{SELECT sqlstate, attempts, detail LIKE '%given to requeue()%', payload = '{"a": "number 6"}'::bytea FROM medallion.dead_letters WHERE dead_letter_id = ANY ('$one')}),
	'23514|3|t|t', 'leaves the letter as it was, with the new error');
is(sql(qq{SELECT medallion.requeue('$one', '{"a": 6, "note": "by hand"}')}), '1', 'a corrected payload');
is(sql(qq{SELECT medallion.requeue('$one', '{"a": 6, "note": "by hand"}')}), '0', 'is stored once');
is(sql(q{SELECT a, note, kafka_partition, kafka_key, kafka_timestamp = to_timestamp(1700000000.129), kafka_headers FROM orders WHERE note = 'by hand'}),
	'6|by hand|0|\x6bff36|t|[{"name": "trace", "value": "t6"}, {"name": "raw", "value_base64": "/wA="}, {"name": "none", "value": null}]',
	'with the key, time and headers that it had');
accounted_ok($node, 'orders', $kafka, $topic, 'each record is in one place after a corrected payload');

# A view sees a row that is behind what it has read
is(sql(q{SELECT count(*) FROM medallion.verify('totals')}), '0', 'and equals its query at its frontier before');
is(sql(q{SELECT strategy, rows_read FROM medallion.refresh('totals')}), 'merge|1', 'and takes it in, without a recompute');
is(sql(q{SELECT n = (SELECT count(*) FROM orders), total = (SELECT sum(a) FROM orders) FROM totals}), 't|t', 'a view sees requeued rows');
is(sql(q{SELECT count(*) FROM medallion.verify('totals')}), '0', 'and equals its query');

# With the present definition. Two sessions want the same letters at once: one
# has them locked, the other waits for it and finds them gone.
sql(q{SELECT medallion.drop_materialized_view('totals')});
sql(q{ALTER TABLE orders DROP CONSTRAINT orders_a_check, ALTER COLUMN a TYPE text});
$all = letters($node, 'orders');
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT ' . debug_lock('requeue-slice'));
my @racers = map { $node->background_psql('postgres') } 1 .. 2;
$racers[0]->query_until(qr/started/, "SET medallion.debug_points = 'requeue-slice';\n\\echo started\nSELECT 'first', medallion.requeue('$all');\n");
wait_until_blocked($node, 'first');
$racers[1]->query_until(qr/started/, "\\echo started\nSELECT 'second', medallion.requeue('$all');\n");
wait_until_blocked($node, 'second');
$gate->quit;
is($racers[0]->query('SELECT 1') =~ s/\n1\n*$//r, 'first|19', 'of two sessions, the first stores the records');
is($racers[1]->query('SELECT 1') =~ s/\n1\n*$//r, 'second|0', 'the second finds nothing to store');
$_->quit for @racers;
is(sql(q{SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM orders}), '60|60', 'each is stored once');
is(sql(q{SELECT rows, dead_letters FROM medallion.streaming_tables}), '60|0', 'the state counts them');
accounted_ok($node, 'orders', $kafka, $topic, 'each record is in one place after a race');

# Many at once, over several slices, while the worker ingests; the session
# dies in the middle, the server restarts, and nothing has happened.
my $many = create_topic($kafka, 'many');
sql(qq{SELECT medallion.create_streaming_table('many', 'kafka', '$many', columns => 'a int')});
produce($kafka, $many, map({ { partition => 0, value => qq({"a": "x$_"}) } } 1 .. 2500));
is(caught_up('many'), 't', 'a topic of bad records');
sql(q{ALTER TABLE many ALTER COLUMN a TYPE text});
sql(q{SELECT medallion.create_materialized_view('first_letters', 'SELECT left(a, 1) AS letter, count(*) AS n FROM many GROUP BY 1', NULL, 'incremental')});
sub first_letters { return sql(q{SELECT strategy, (SELECT count(*) FROM medallion.verify('first_letters')) FROM medallion.refresh('first_letters')}) }
$all = letters($node, 'many');
my $crashes = count_crashes($node);
my ($ok, $out, $err) = try_query($node, "SET medallion.debug_points = 'requeue-slice!'; SELECT medallion.requeue('$all')");
ok(!$ok, 'a session dies in the middle of a requeue');
wait_for_crash($node, $crashes);
is(sql(q{SELECT (SELECT count(*) FROM many), (SELECT count(*) FROM medallion.dead_letters WHERE table_name = 'many'::regclass)}),
	'0|2500', 'and nothing has happened');
is(sql(qq{BEGIN; SELECT medallion.requeue('$all'); ROLLBACK}), '2500', 'so does one that is rolled back');
is(sql(q{SELECT count(*) FROM many}), '0', 'it leaves nothing');
produce($kafka, $many, map({ { partition => 0, value => qq({"a": "y$_"}) } } 1 .. 100));
is(sql(qq{SELECT medallion.requeue('$all')}), '2500', 'the next one stores all of them');
is(caught_up('many'), 't', 'while ingest goes on');
accounted_ok($node, 'many', $kafka, $many, 'each record is in one place after a crash');
is(first_letters(), 'merge|0', 'a view takes in what was requeued and what was ingested');

# An open transaction of a requeue does not hold up the worker
produce($kafka, $many, { partition => 0, value => '{"a": {' });
is(caught_up('many'), 't', 'one more bad record');
my $open = $node->background_psql('postgres');
$one = letters($node, 'many');
is($open->query_safe(qq{BEGIN; SELECT medallion.requeue('$one', '{"a": "open"}')}) =~ s/\n*$//r, '1', 'a requeue whose transaction stays open');
produce($kafka, $many, { partition => 0, value => '{"a": "after"}' });
is(caught_up('many'), 't', 'does not hold up the worker');
is(sql(q{SELECT count(*) FROM many WHERE a = 'after'}), '1', 'which stores what comes');
is(first_letters(), 'merge|0', 'nor a view over it');
$open->query_safe('COMMIT');
$open->quit;
is(first_letters(), 'merge|0', 'which takes in the requeued row once that is committed');
is(sql(q{SELECT string_agg(letter || n, ' ' ORDER BY letter COLLATE "C") FROM first_letters}), 'a1 o1 x2500 y100', 'once');
is(first_letters(), 'none|0', 'and has no more to do');
accounted_ok($node, 'many', $kafka, $many, 'each record is in one place after an open transaction');

# Discarded and expired ones are gaps
produce($kafka, $many, map({ { partition => 0, value => "bad $_" } } 1 .. 9));
is(caught_up('many'), 't', 'more bad records');
$all = letters($node, 'many', 'kafka_offset % 3 <> 0');
is(sql(qq{SELECT medallion.discard('$all')}), '6', 'discard');
is(sql(qq{SELECT medallion.discard('$all')}), '0', 'discard once');
accounted_ok($node, 'many', $kafka, $many, 'discarded records are accounted for');
sql(q{UPDATE medallion.dead_letter SET failed_at = now() - interval '1 hour' WHERE relid = 'many'::regclass});
sql(q{SELECT medallion.prune_history()});
is(sql(q{SELECT count(*) FROM medallion.dead_letter}), '3', 'they are kept for ever by default');
my $holder = $node->background_psql('postgres');
$one = letters($node, 'many', 'true') =~ s/,.*/}/r;
$holder->query("BEGIN; SELECT medallion.requeue('$one')");
sql(q{SET medallion.dead_letter_retention = '10min'; SELECT medallion.prune_history()});
is(letters($node, 'many'), $one, 'the retention deletes old ones, and leaves those that somebody requeues');
$holder->query('COMMIT');
$holder->quit;
is(sql(q{SELECT sum(next_offset - first_offset) FROM medallion.gaps WHERE reason = 'expired'}), '2', 'expired ones are gaps');
accounted_ok($node, 'many', $kafka, $many, 'expired records are accounted for');

# A table whose input has clearly changed is paused; its neighbour on the same
# worker is not, nor one whose ratio stays within its limit
my $wrong = create_topic($kafka, 'wrong');
sql(qq{SELECT medallion.create_streaming_table('$_->[0]', 'kafka', '$wrong', columns => 'a int',
	options => '{"max_dead_letter_ratio": $_->[1], "flush_interval": "0 ms"}')}) for [ 'strict', 0.2 ], [ 'lenient', 0.95 ];
sub state_of { my ($table) = @_; return sql(qq{SELECT state, reason FROM medallion.streaming_tables WHERE table_name = '$table'::regclass}) }
produce($kafka, $wrong, map({ { partition => 0, value => '{"a": "many"}' } } 1 .. 90), map({ { partition => 0, value => 'few' } } 1 .. 9));
is(caught_up('strict'), 't', 'fewer than 100 records');
is(state_of('strict'), 'running|', 'say nothing');
produce($kafka, $wrong, map({ { partition => 0, value => qq({"a": $_}) } } 1 .. 20), { partition => 0, value => '{"a": "many"}' });
wait_for($node, q{SELECT state = 'paused' FROM medallion.streaming_tables WHERE table_name = 'strict'::regclass});
like(state_of('strict'), qr/^paused\|\d+ of 1\d\d records could not be stored, more than max_dead_letter_ratio 0.2 allows; commonest error: 22P02: column "a": invalid input syntax for type integer: "many"$/,
	'more pause the table, and say why');
like(sql(q{SELECT hint FROM medallion.streaming_tables WHERE table_name = 'strict'::regclass}),
	qr/requeue or discard its dead letters, and call medallion\.resume\(\)/, 'and what to do');
is(caught_up('lenient'), 't', 'the other table reads on');
is(state_of('lenient'), 'running|', 'within its limit');
accounted_ok($node, 'strict', $kafka, $wrong, 'what was read before the pause is accounted for');
like(slurp_file($node->logfile), qr/LOG:  pausing ingest into streaming table "strict": /, 'the log has it');
sql(q{ALTER TABLE strict ALTER COLUMN a TYPE text});
$all = letters($node, 'strict', q{payload::text LIKE '\x7b%'});
is(sql(qq{SELECT medallion.requeue('$all')}), sql(qq{SELECT cardinality('$all'::bigint[])}), 'letters of a paused table can be requeued');
sql(q{SELECT medallion.resume('strict')});
produce($kafka, $wrong, map({ { partition => 0, value => 'few' } } 1 .. 5), map({ { partition => 0, value => '{"a": 1}' } } 1 .. 100));
is(caught_up('strict'), 't', 'resumed');
is(state_of('strict'), 'running|', 'and what was before no longer counts');
accounted_ok($node, 'strict', $kafka, $wrong, 'each record is in one place');

$node->stop('fast');
done_testing();
