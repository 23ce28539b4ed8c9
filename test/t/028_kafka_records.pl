# Records of every kind that Kafka keeps, as they are, and the holes that it
# leaves between them.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use IngestTest;
use MedallionTest;

my $kafka = start_broker('own', 'log.cleaner.backoff.ms' => 100);
# less memory for records than one of them needs
my $node = new_node('kafka_records', conf => include_file() . <<'END');
medallion.backoff_max = '500ms'
medallion.discovery_interval = '200ms'
medallion.ingest_memory = '4MB'
END
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub stream_table
{
	my ($table, $topic, $format, $options) = @_;
	sql("CREATE TABLE $table () WITH (medallion.server = kafka, medallion.topic = '$topic', medallion.format = $format, medallion.flush_interval = '10 ms'" . ($options ? ", $options" : '') . ')');
	return;
}

# Records as large as the topic allows, to the byte: what is a byte longer the
# broker refuses.
my $max = 6_000_000;
my $large = create_topic($kafka, 'large', 1, 'max.message.bytes' => $max);
stream_table('large', $large, 'raw');
my $length = $max - 120;
my @sent;
while (eval { produce($kafka, $large, { key => 'k', value => 'x' x $length }); 1 })
{
	push @sent, $length;
	$length += 8;
	die 'the broker takes all' if @sent > 20;
}
like($@, qr/not delivered.*too large/is, 'a record that is larger than the topic allows is refused');
cmp_ok(scalar @sent, '>', 1, "the largest that it takes has @{[ $sent[-1] ]} bytes of $max");
produce($kafka, $large, { key => 'k', value => 'after' });
wait_until_caught_up($node, 'large', $kafka, $large);
exactly_once_ok($node, 'large', $kafka, $large);
is(sql('SELECT string_agg(length(payload)::text, $$ $$ ORDER BY kafka_offset) FROM large'), join(' ', @sent, 5), 'records of max.message.bytes are stored, in less memory for records than they take');
is(sql(q{SELECT medallion.seek('large', 'latest')}), '', 'and');
stream_table('again', $large, 'raw');
sql(q{SELECT medallion.pause('again')});
sql(q{SELECT medallion.ingest_once('again')});
is(sql('SELECT count(*) FROM again'), @sent + 1, 'by a session, too');

# Every codec, with what compresses well and what does not; a reader that needs
# none of it says the same.
my @random = map { join '', map { chr int rand 256 } 1 .. 5000 } 1 .. 20;
for my $codec (qw(none gzip snappy lz4 zstd))
{
	my $topic = create_topic($kafka, "codec_$codec", 1, 'compression.type' => $codec eq 'none' ? 'uncompressed' : 'producer');
	stream_table("codec_$codec", $topic, 'raw');
	produce_lines($kafka, $topic, { codec => $codec }, map { MedallionTest::format_record({ key => $_, value => ('same ' x 2000) . $_ }) } 1 .. 50);
	produce_lines($kafka, $topic, { codec => $codec }, map { MedallionTest::format_record({ key => $_, value => $random[ $_ - 1 ] }) } 1 .. 20);
	wait_until_caught_up($node, "codec_$codec", $kafka, $topic);
	is(sql("SELECT count(*) FILTER (WHERE payload = convert_to(repeat('same ', 2000) || convert_from(kafka_key, 'UTF8'), 'UTF8')) FROM codec_$codec"), 50, "$codec: what compresses well");
	is(sql("SELECT string_agg(encode(payload, 'hex'), ' ' ORDER BY kafka_offset) FROM codec_$codec WHERE kafka_offset >= 50"),
		join(' ', map { unpack 'H*', $_ } @random), "$codec: what does not");
}

# Headers: none, empty, NULL, twice, of bytes; keys and values that are NULL or empty.
my $odd = create_topic($kafka, 'odd', 1);
stream_table($_, $odd, $_ =~ s/odd_//r) for qw(odd_raw odd_text odd_json);
my @odd = (
	{ key => undef, value => undef, headers => [ h => undef ] },
	{ key => '', value => 'null', headers => [ h => '', h => undef, h => 'x' ] },
	{ key => 'k', value => '{}', headers => [ '' => 'nameless', "\xc3\xa4" => "\xff" ] },
	{ key => 'k', value => '1', headers => [] },
	{ key => 'k', value => '"s"', headers => [ map { ("h$_" => $_) } 1 .. 25 ] });
produce($kafka, $odd, @odd);
wait_until_caught_up($node, $_, $kafka, $odd) for qw(odd_raw odd_text odd_json);
for my $table (qw(odd_raw odd_text odd_json))
{
	is(sql("SELECT kafka_headers FROM $table WHERE kafka_offset < 4 ORDER BY kafka_offset"), <<'END' =~ s/\n\z//r, "$table: headers");
[{"name": "h", "value": null}]
[{"name": "h", "value": ""}, {"name": "h", "value": null}, {"name": "h", "value": "x"}]
[{"name": "", "value": "nameless"}, {"name": "ä", "value_base64": "/w=="}]
[]
END
	is(sql("SELECT jsonb_array_length(kafka_headers) FROM $table WHERE kafka_offset = 4"), 25, "$table: many headers");
	is(sql("SELECT string_agg((kafka_key IS NULL)::text || ' ' || (payload IS NULL)::text, ', ' ORDER BY kafka_offset) FROM $table WHERE kafka_offset < 3"),
		'true true, false false, false false', "$table: NULL is not empty");
}

# Times: the producer's, the broker's, of long ago.
my @times = map { create_topic($kafka, 'times', 1, 'message.timestamp.type' => $_, 'retention.ms' => -1, 'message.timestamp.after.max.ms' => '9223372036854775807') } qw(CreateTime LogAppendTime);
stream_table("times_$_", $times[$_], 'text') for 0, 1;
produce($kafka, $_, map { { timestamp => $_, value => $_ } } 1, 1_600_000_000_123, 4_000_000_000_000) for $times[0];
produce($kafka, $times[1], { timestamp => 1, value => 'x' });
wait_until_caught_up($node, "times_$_", $kafka, $times[$_]) for 0, 1;
is(sql(q{SELECT string_agg((extract(epoch FROM kafka_timestamp) * 1000)::bigint::text, ' ' ORDER BY kafka_offset) FROM times_0}), '1 1600000000123 4000000000000', 'create time');
is(sql(q{SELECT kafka_timestamp > '2024-01-01' FROM times_1}), 't', 'log-append time');

# Compaction leaves holes and takes tombstones; what was read before it stays.
# Its segments are closed soon, so that all but the last records can be compacted.
my $compacted = create_topic($kafka, 'compacted', 1, 'cleanup.policy' => 'compact', 'segment.ms' => 50, 'min.cleanable.dirty.ratio' => 0.01,
	'delete.retention.ms' => 0, 'min.compaction.lag.ms' => 0, 'max.compaction.lag.ms' => 100);

# Until of what was sent under each key nothing is left but the last record.
sub wait_for_compaction
{
	my ($topic, @values) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my %left = map { unpack('H*', $_) => 1 } @values;
	while (grep { !$left{ (split /\t/)[3] // '' } } grep { /^\d/ && !/\t\\N$/ } split /\n/, kafka_tool('dump', $kafka, $topic))
	{
		die "the topic is not compacted:\n" . kafka_tool('dump', $kafka, $topic) if time > $deadline;
		# only closed segments are compacted
		produce($kafka, $topic, { key => 'filler', value => 'f' });
		usleep(100_000);
	}
	return;
}

stream_table('before', $compacted, 'text');
produce($kafka, $compacted, map { { key => $_ % 5, value => "v$_" } } 1 .. 100);
produce($kafka, $compacted, { key => 0, value => undef });
wait_until_caught_up($node, 'before', $kafka, $compacted);
sql(q{SELECT medallion.pause('before')});
my $read = sql(q{SELECT count(*) FROM before});
my $next = sql(q{SELECT next_offset FROM medallion.checkpoint WHERE relid = 'before'::regclass});
wait_for_compaction($compacted, 'f', map { "v$_" } 96 .. 99);
stream_table('after', $compacted, 'text');
is(sql(q{SELECT medallion.wait_until_caught_up('after', '3 min')}), 't', 'a compacted topic is read to its end');
is(sql(q{SELECT string_agg(kafka_key || '=' || coalesce(payload, 'NULL'), ' ' ORDER BY kafka_key) FROM after WHERE kafka_key <> 'filler' AND payload IS NOT NULL}), '1=v96 2=v97 3=v98 4=v99', 'what compaction left of it');
cmp_ok(sql(q{SELECT max(kafka_offset) - count(*) FROM after}), '>', 50, 'there are holes');
sql(q{SELECT medallion.resume('before')});
is(sql(q{SELECT medallion.wait_until_caught_up('before', '3 min')}), 't', 'who was here before goes on');
is(sql("SELECT count(*) FROM before WHERE kafka_offset < $next"), $read, 'and keeps what it had');
# compaction goes on, so who read earlier may have more
is(sql("SELECT count(*) FROM before WHERE kafka_offset >= $next AND kafka_offset NOT IN (SELECT kafka_offset FROM after)"), 0, 'what it read from there on was there for both');
my $left = join(',', grep { $_ >= $next } map { (split /\t/)[1] } grep { /^\d/ } split /\n/, kafka_tool('dump', $kafka, $compacted));
is(sql("SELECT count(*) FROM unnest('{$left}'::bigint[]) AS o WHERE o NOT IN (SELECT kafka_offset FROM before)"), 0, 'and it has all that is left');
is(sql(q{SELECT count(*) FROM before} ) - sql(q{SELECT count(DISTINCT kafka_offset) FROM before}), 0, 'nothing is doubled');
is(sql(q{SELECT count(*) FROM medallion.gaps}) - sql(q{SELECT count(*) FROM medallion.gaps WHERE table_name = 'large'::regclass}), 0, 'compaction is no gap');

# Transactions in a compacted topic, and partitions full of aborted ones.
my $aborted = create_topic($kafka, 'aborted', 2);
stream_table('committed', $aborted, 'text');
produce($kafka, $aborted, { transactional_id => "records_$$" },
	(map { my $n = $_; ('begin', (map { { partition => $_ % 2, value => ($n % 3 ? 'aborted' : 'committed') . $n } } 0 .. 9), $n % 3 ? 'abort' : 'commit') } 1 .. 12));
is(sql(q{SELECT medallion.wait_until_caught_up('committed', '3 min')}), 't', 'the end of partitions with aborted transactions is reached');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE payload LIKE 'committed%'), count(DISTINCT (kafka_partition, kafka_offset)) FROM committed}), '40|40|40', 'aborted records never appear');
is(sql(q{SELECT medallion.pause('committed'); SELECT medallion.ingest_once('committed')}), "\n0", 'and a session finds nothing more');

# A transaction that is open holds up what comes behind it, and nothing of it is lost.
stream_table('uncommitted', $aborted, 'text', 'medallion.isolation_level = read_uncommitted');
my ($in, $out) = ("begin\n0\t\\N\t\\N\topen\nflush\n", '');
my $producer = IPC::Run::start([ 'kafka_tool', 'produce', $kafka, $aborted, '--transactional-id', "open_$$" ], '<', \$in, '>', \$out);
$producer->pump while length $in;
wait_for($node, q{SELECT count(*) = 1 FROM uncommitted WHERE payload = 'open'});
produce($kafka, $aborted, { partition => 0, value => 'behind' }, { partition => 1, value => 'beside' });
sql(q{SELECT medallion.resume('committed')});
wait_for($node, q{SELECT count(*) = 1 FROM committed WHERE payload = 'beside'});
is(sql(q{SELECT count(*) FROM committed WHERE payload IN ('open', 'behind')}), 0, 'records behind an open transaction wait');
$in .= "commit\n";
$producer->pump while length $in;
wait_for($node, q{SELECT string_agg(payload, ' ' ORDER BY kafka_offset) = 'open behind' FROM committed WHERE payload IN ('open', 'behind')});
pass('until it ends');
$producer->finish;

nothing_in_trouble_ok($node);
is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$node->stop('fast');
done_testing();
