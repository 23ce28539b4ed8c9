# Tables that read all topics that match a pattern: which those are, where each
# begins, and that one in trouble is no matter for the others.  The oracle is the
# count and the offsets of each topic's partitions.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = start_broker('own');
my $node = new_node('topic_patterns', conf => include_file() . <<'END');
medallion.backoff_max = '300ms'
medallion.discovery_interval = '200ms'
END
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub error_of
{
	my ($query) = @_;
	my ($ok, undef, $error) = try_query($node, $query);
	return $ok ? 'none' : $error;
}

sub create { my ($topic, $partitions) = @_; kafka_tool('create', $kafka, $topic, $partitions // 1); return }

my $n_sent = 0;

# Records with ids that go on over all topics.
sub send_to
{
	my ($topic, $partition, $n) = @_;
	produce($kafka, $topic, map { { partition => $partition, value => '{"id": ' . ++$n_sent . '}' } } 1 .. $n);
	return;
}

sub stream_pattern
{
	my ($table, $pattern, $options) = @_;
	sql("CREATE TABLE $table (id int) WITH (medallion.server = kafka, medallion.topic = '$pattern', medallion.flush_interval = '10 ms'"
		  . ($options ? ", $options" : '') . ')');
	return;
}

sub wait_for_topics
{
	my ($table, @topics) = @_;
	return wait_for($node, "SELECT coalesce(string_agg(topic, ' ' ORDER BY topic COLLATE \"C\"), '') = '" . join(' ', sort @topics)
		  . "' FROM medallion.stream_topics WHERE table_name = '$table'::regclass AND state = 'running'");
}

sub topic_state
{
	my ($table, $topic) = @_;
	return sql("SELECT state FROM medallion.stream_topics WHERE table_name = '$table'::regclass AND topic = '$topic'");
}

sub wait_for_state
{
	my ($table, $topic, $state) = @_;
	return wait_for($node, "SELECT state = '$state' FROM medallion.stream_topics WHERE table_name = '$table'::regclass AND topic = '$topic'");
}

# Each offset of each of the topics, from its start on, is there once, with the
# topic's name, and none of another topic.
sub patterns_ok
{
	my ($what, $table, @topics) = @_;
	my @expected;
	for my $topic (sort @topics)
	{
		wait_until_caught_up($node, $table, $kafka, $topic);
		my @ends = watermarks($kafka, $topic);
		push @expected, map { "$topic|$_|$ends[$_][1]|t|t" } grep { $ends[$_][1] > 0 } 0 .. $#ends;
	}
	is(sql(<<"END"), join("\n", @expected), $what);
SELECT c.topic, c.kafka_partition, c.next_offset, coalesce(r.n, 0) = c.next_offset - c.start_offset AND coalesce(r.n, 0) = c.row_count
         + (SELECT coalesce(sum(l.row_count), 0) FROM medallion.late_batch l WHERE l.relid = c.relid AND l.topic = c.topic AND l.kafka_partition = c.kafka_partition),
       r.n IS NULL OR (r.n = r.d AND r.low = c.start_offset AND r.high = c.next_offset - 1)
  FROM medallion.checkpoint c
  FULL JOIN (SELECT kafka_topic, kafka_partition, count(*) AS n, count(DISTINCT kafka_offset) AS d, min(kafka_offset) AS low, max(kafka_offset) AS high
               FROM $table GROUP BY 1, 2) r ON r.kafka_topic = c.topic AND r.kafka_partition = c.kafka_partition
 WHERE c.relid IS NULL OR (c.relid = '$table'::regclass AND c.next_offset > 0 AND NOT EXISTS
       (SELECT FROM medallion.stream_topic t WHERE t.relid = c.relid AND t.topic = c.topic AND t.gone_at IS NOT NULL))
 ORDER BY c.topic COLLATE "C", 2
END
	return;
}

# What cannot be a pattern, or with one.
my $define = sub { my ($topic, $more) = @_; return "CREATE TABLE no (id int) WITH (medallion.server = kafka, medallion.topic = '$topic'" . ($more // '') . ')' };
like(error_of($define->('^orders_(')), qr/invalid regular expression: parentheses \(\) not balanced\n.*pattern of topics "\^orders_\("/s, 'a regular expression that is none');
like(error_of($define->('^' . 'x' x 1000)), qr/pattern of topics is too long/, 'one that is too long');
like(error_of($define->('^o', q{, medallion.start_at = '{"0": 1}'})), qr/invalid start_at.*earliest, latest or a time/s, 'offsets to start at');
like(error_of($define->('orders_.*')), qr/invalid topic name "orders_\.\*"/, 'a pattern begins with ^');

# Those that match are read, by name, and no others.
create('orders_eu', 2);
create('orders_us');
create('more_orders_no');
send_to('orders_eu', $_, 5) for 0, 1;
send_to('orders_us', 0, 3);
send_to('more_orders_no', 0, 3);
stream_pattern('orders', '^orders_');
stream_pattern('late', '^orders_', 'medallion.start_at = latest');
is(sql(q{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0}),
	'id kafka_partition kafka_offset kafka_timestamp ingested_at kafka_topic', 'a column tells the topics apart');
wait_for_topics('orders', 'orders_eu', 'orders_us');
patterns_ok('topics that match', 'orders', 'orders_eu', 'orders_us');
is(sql(q{SELECT topic, state, topics, reason FROM medallion.streaming_tables WHERE table_name = 'orders'::regclass}), '^orders_|running|2|', 'the state names the pattern');
like(error_of('ALTER TABLE orders DROP COLUMN kafka_topic'), qr/cannot drop column "kafka_topic".*tells the topics apart/s, 'that column stays');

# A view over it is kept by the change, topic by topic.
sql(q{CREATE MATERIALIZED VIEW per_topic WITH (medallion.refresh_mode = incremental) AS SELECT kafka_topic, count(*), sum(id) FROM orders GROUP BY 1});

# Topics that come later are read from their beginning, whatever start_at was.
send_to('orders_us', 0, 2);
create('orders_asia', 3);
send_to('orders_asia', $_, 4) for 0 .. 2;
wait_for_topics($_, 'orders_asia', 'orders_eu', 'orders_us') for 'orders', 'late';
patterns_ok('a topic that came later', 'orders', 'orders_asia', 'orders_eu', 'orders_us');
patterns_ok('the same where the first ones began at their ends', 'late', 'orders_asia', 'orders_eu', 'orders_us');
is(sql(q{SELECT string_agg(topic || ':' || kafka_partition || ':' || start_offset, ' ' ORDER BY 1) FROM (SELECT * FROM medallion.checkpoint WHERE relid = 'late'::regclass ORDER BY topic COLLATE "C", kafka_partition) c}),
	'orders_asia:0:0 orders_asia:1:0 orders_asia:2:0 orders_eu:0:5 orders_eu:1:5 orders_us:0:3', 'start_at is for those that were there');
is(sql(q{SELECT strategy FROM medallion.refresh('per_topic')}) . ' ' . sql(q{SELECT count(*) FROM medallion.verify('per_topic')}), 'merge 0', 'the view takes in a new topic as a change');
is(sql(q{SELECT medallion.wait_for_offset('orders', 2, 3, '1 min', 'orders_asia')}), 't', 'wait_for_offset() with a topic');
like(error_of(q{SELECT medallion.wait_for_offset('orders', 2, 3, '1 min')}), qr/argument "kafka_topic" must not be null/, 'and not without');

# Partitions that one of them gets.
add_partitions($kafka, 'orders_us', 3);
send_to('orders_us', $_, 4) for 1, 2;
patterns_ok('partitions that a topic got', 'orders', 'orders_asia', 'orders_eu', 'orders_us');

# A pattern that nothing matches is no error, and is seen.
stream_pattern('nothing', '^nothing_yet$');
is(sql(q{SELECT state, topics, reason FROM medallion.streaming_tables WHERE table_name = 'nothing'::regclass}), 'running|0|no topic matches the pattern', 'nothing matches');
is(sql(q{SELECT medallion.ingest_once('nothing')}) . sql(q{SELECT medallion.wait_until_caught_up('nothing', '3 min')}), '0t', 'nothing is to be read');
create('nothing_yet');
create('nothing_yet_2');
send_to($_, 0, 3) for 'nothing_yet', 'nothing_yet_2';
wait_for_topics('nothing', 'nothing_yet');
patterns_ok('and then something does', 'nothing', 'nothing_yet');

# Kafka's own topics match no pattern, be it one for all.
sql(q{CREATE TABLE everything () WITH (medallion.server = kafka, medallion.topic = '^', medallion.format = raw, medallion.group_id = everything)});
my @all = qw(more_orders_no nothing_yet nothing_yet_2 orders_asia orders_eu orders_us);
wait_for_topics('everything', @all);
wait_for($node, q{SELECT bool_or(topic = '__consumer_offsets') FROM medallion.list_topics('kafka')});
create('all_of_it');
send_to('all_of_it', 0, 2);
wait_for_topics('everything', 'all_of_it', @all);
patterns_ok('all topics but those of Kafka itself', 'everything', 'all_of_it', @all);
sql('DROP TABLE everything');
is(sql(q{SELECT count(*) FROM medallion.stream_topic WHERE relid NOT IN (SELECT relid FROM medallion.stream)}), 0, 'DROP TABLE takes what was found');

# A topic that is gone: the others go on, what was read of it stays; one that
# was made anew under its name is not mixed with it, and costs itself only.
delete_topic($kafka, 'orders_asia');
wait_for_state('orders', 'orders_asia', 'gone');
send_to('orders_eu', 0, 2);
patterns_ok('the others go on', 'orders', 'orders_eu', 'orders_us');
is(sql(q{SELECT state, topics FROM medallion.streaming_tables WHERE table_name = 'orders'::regclass}), 'running|2', 'a topic that is gone is no trouble');
is(sql(q{SELECT count(*) FROM orders WHERE kafka_topic = 'orders_asia'}), 12, 'and its rows stay');
is(count_log($node, qr/topic "orders_asia" of streaming table "orders" is gone/), 1, 'the log says so once');
create('orders_asia', 3);
send_to('orders_asia', $_, 9) for 0 .. 2;
wait_for_state('orders', 'orders_asia', 'failing');
becomes_like($node, q{SELECT sqlstate, reason FROM medallion.streaming_tables WHERE table_name = 'orders'::regclass}, qr/^XX001\|topic "orders_asia": .*deleted and made anew/, 'one that was made anew is recognized');
send_to('orders_eu', 1, 2);
wait_until_caught_up($node, 'orders', $kafka, $_) for 'orders_eu', 'orders_us';
is(sql(q{SELECT count(*) FROM orders WHERE kafka_topic = 'orders_asia'}), 12, 'and not mixed');

# Another pattern: topics that it does not match are read no more.
sql(q{ALTER TABLE orders SET (medallion.topic = '^(?!orders_asia$)orders_')});
wait_for_state('orders', 'orders_asia', 'gone');
patterns_ok('a pattern that leaves one out', 'orders', 'orders_eu', 'orders_us');
is(sql(q{SELECT state, topics FROM medallion.streaming_tables WHERE table_name = 'orders'::regclass}), 'running|2', 'cures the table');
sql(q{ALTER TABLE orders SET (medallion.topic = '^orders_us$')});
wait_for_topics('orders', 'orders_us');
send_to($_, 0, 2) for 'orders_us', 'orders_eu';
patterns_ok('a narrower pattern', 'orders', 'orders_us');
is(topic_state('orders', 'orders_eu'), 'gone', 'which does not match the other');
sql(q{ALTER TABLE orders SET (medallion.topic = '^orders_(eu|us)$')});
wait_for_topics('orders', 'orders_eu', 'orders_us');
patterns_ok('goes on where it was when it matches again', 'orders', 'orders_eu', 'orders_us');
like(error_of(q{ALTER TABLE orders SET (medallion.topic = 'orders_us')}), qr/cannot change option "topic"/, 'a name is another thing');
delete_topic($kafka, 'orders_asia');

# In the foreground: new topics too, and positions by topic.
sql(q{SELECT medallion.pause('orders')});
sql(q{ALTER TABLE orders SET (medallion.topic = '^orders_')});
create('orders_pole');
send_to($_, 0, 3) for 'orders_pole', 'orders_eu';
is(sql(q{SELECT medallion.ingest_once('orders')}), 6, 'ingest_once() reads all of them');
patterns_ok('and finds a new one', 'orders', 'orders_eu', 'orders_pole', 'orders_us');
is(sql(q{SELECT medallion.ingest_once('orders')}), 0, 'and no more');
send_to($_, 0, 4) for 'orders_pole', 'orders_eu';
like(error_of(q{SELECT medallion.seek('orders', '{"0": 4}')}), qr/invalid to_position.*name them, such as/s, 'offsets without a topic');
like(error_of(q{SELECT medallion.seek('orders', '{"orders_x": {"0": 4}}')}), qr/to_position names topic "orders_x" partition 0, which the table does not read/, 'offsets of another topic');
sql(q{SELECT medallion.seek('orders', '{"orders_pole": {"0": 5}}')});
is(sql(q{SELECT topic, kafka_partition, first_offset, next_offset FROM medallion.gaps WHERE table_name = 'orders'::regclass}), 'orders_pole|0|3|5', 'seek() in one topic');
is(sql(q{SELECT medallion.ingest_once('orders')}), 6, 'and the rest is read');
is(sql(q{SELECT medallion.replay('orders', 'earliest')}), 2, 'replay() brings what was skipped');
patterns_ok('and nothing else', 'orders', 'orders_eu', 'orders_pole', 'orders_us');
sql(q{SELECT medallion.resume('orders')});
sql(q{SELECT medallion.refresh('per_topic', full_refresh => true)});
is(sql(q{SELECT count(*) FROM medallion.verify('per_topic')}), 0, 'the view is right');

# Dead letters say of which topic they are, and come back to it.
produce($kafka, 'orders_pole', { value => '{"id": "x"}' });
wait_until_caught_up($node, 'orders', $kafka, 'orders_pole');
is(sql(q{SELECT topic, kafka_offset FROM medallion.dead_letters WHERE table_name = 'orders'::regclass}), 'orders_pole|7', 'a dead letter');
sql(q{SELECT medallion.requeue(array_agg(dead_letter_id), '{"id": 0}') FROM medallion.dead_letters WHERE table_name = 'orders'::regclass});
is(sql(q{SELECT kafka_topic, kafka_offset FROM orders WHERE id = 0}), 'orders_pole|7', 'is requeued');

# A table that exists, and one that read a topic by name.
sql('CREATE TABLE adopted (id int)');
sql(q{SELECT medallion.create_streaming_table('adopted', 'kafka', '^orders_(eu|us)$')});
wait_for_topics('adopted', 'orders_eu', 'orders_us');
patterns_ok('an adopted table', 'adopted', 'orders_eu', 'orders_us');
sql(q{CREATE TABLE named (id int) WITH (medallion.server = kafka, medallion.topic = more_orders_no, medallion.start_at = latest)});
like(error_of(q{ALTER TABLE named SET (medallion.topic = '^more_')}), qr/cannot read topics by a pattern.*ADD COLUMN kafka_topic text/s, 'a table without the column');
sql('ALTER TABLE named ADD COLUMN kafka_topic text');
sql(q{ALTER TABLE named SET (medallion.topic = '^more_', medallion.start_at = earliest)});
wait_for_topics('named', 'more_orders_no');
patterns_ok('before records were read, a name may become a pattern', 'named', 'more_orders_no');

# Where there is no broker yet, the worker does it all.
my $port = $kafka =~ s/.*://r;
create_server($node, 'later', '127.0.0.1:1');
sql(q{CREATE TABLE unchecked (id int) WITH (medallion.server = later, medallion.topic = '^orders_', medallion.start_at = latest, medallion.check_topic = false)});
wait_for($node, q{SELECT state = 'failing' AND sqlstate = '08006' FROM medallion.streaming_tables WHERE table_name = 'unchecked'::regclass});
sql("ALTER SERVER later OPTIONS (SET bootstrap_servers '$kafka')");
wait_for_topics('unchecked', 'orders_eu', 'orders_pole', 'orders_us');
wait_for($node, q{SELECT initialized FROM medallion.stream WHERE relid = 'unchecked'::regclass});
is(sql(q{SELECT count(*) FROM medallion.checkpoint WHERE relid = 'unchecked'::regclass AND start_offset = 0}), 0, 'the first ones start at their ends');
create('orders_new');
send_to('orders_new', 0, 5);
wait_for_topics('unchecked', 'orders_eu', 'orders_new', 'orders_pole', 'orders_us');
patterns_ok('a later one at its beginning', 'unchecked', 'orders_eu', 'orders_new', 'orders_pole', 'orders_us');

# Two workers, kills, topics that come and partitions that come.
set_include($node, "medallion.ingest_workers = 2\n");
my @made;
for my $n (1 .. 6)
{
	push @made, "orders_made_$n";
	create($made[-1], 2);
	send_to($made[-1], $_, 20) for 0, 1;
	kill_any_worker($node, 'ingest') if $n % 2;
	send_to($_, 0, 3) for @made;
}
my @orders = ('orders_eu', 'orders_us', 'orders_pole', 'orders_new', @made);
wait_for_topics($_, @orders) for 'orders', 'unchecked';
patterns_ok("two workers, with kills: $_", $_, @orders) for 'unchecked';
wait_until_caught_up($node, 'orders', $kafka, $_) for @orders;
is(sql(q{SELECT count(*) - count(DISTINCT (kafka_topic, kafka_partition, kafka_offset)) FROM orders}), 0, 'nothing is doubled');
is(sql(q{SELECT sum(next_offset - start_offset) - (SELECT count(*) FROM orders) FROM medallion.checkpoint WHERE relid = 'orders'::regclass}), 0, 'nor lost');
nothing_in_trouble_ok($node);

# More topics than one client is given: the worker reads them by several, a
# session by one.
kafka_tool('create', $kafka, 'many', 1, '--count', 600);
kafka_tool('gen', $kafka, 'many', 1200, '--topics', 600, '--kind', 'stamp');
sql(q{CREATE TABLE many (n bigint) WITH (medallion.server = kafka, medallion.topic = '^many_')});
my $many = 'SELECT count(*), count(DISTINCT (kafka_topic, kafka_offset)), count(DISTINCT n), count(DISTINCT kafka_topic) FROM many';
wait_for($node, 'SELECT count(*) >= 1200 FROM many');
is(sql($many), '1200|1200|1200|600', 'very many topics');
kill_any_worker($node, 'ingest');
kafka_tool('gen', $kafka, 'many', 1200, '--topics', 600, '--kind', 'stamp', '--first', 1200);
wait_for($node, 'SELECT count(*) >= 2400 FROM many');
is(sql($many), '2400|2400|2400|600', 'after a crash');
sql(q{SELECT medallion.pause('many')});
kafka_tool('gen', $kafka, 'many', 600, '--topics', 600, '--kind', 'stamp', '--first', 2400);
is(sql(q{SELECT medallion.ingest_once('many')}), 600, 'in the foreground');
is(sql($many), '3000|3000|3000|600', 'each once');

$node->stop('fast');
done_testing();
