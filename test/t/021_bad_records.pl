# A bad record costs itself only: it is kept with its bytes and its error, and
# its neighbours are stored. What waiting can cure is never a dead letter.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use IngestTest;
use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('bad_records', conf => "medallion.backoff_max = '500ms'\nmax_stack_depth = '2MB'\n");
create_server($node, 'kafka', $kafka);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# Send records, each between two good ones, and read them all in one batch.
# Records are [ what, value, sqlstate or undef ]; returns what was expected.
my $id = 1000;

sub send_cases
{
	my ($topic, @cases) = @_;
	my @records;
	my @dead;
	for my $case (@cases)
	{
		my ($what, $value, $sqlstate) = @$case;
		push @records, { value => sprintf('{"id": %d}', $id++) };
		push @dead, '0:' . @records . ":$sqlstate" if defined $sqlstate;
		push @records, { timestamp => 1700000000000, key => "k\xff$what", value => $value, headers => [ h => undef, h => "\xfe", g => 'x' ] };
	}
	push @records, { value => sprintf('{"id": %d}', $id++) };
	produce($kafka, $topic, @records);
	return (\@records, join(' ', @dead));
}

# Each dead letter holds the record as it was.
sub kept_whole_ok
{
	my ($table, $records) = @_;
	my @rows = split /\n/, sql(qq{SELECT kafka_offset, coalesce(encode(payload, 'hex'), 'NULL'), encode(kafka_key, 'hex'),
		headers, extract(epoch FROM kafka_timestamp)::bigint, message <> '' FROM medallion.dead_letter WHERE relid = '$table'::regclass ORDER BY 1});
	my @wrong;
	for my $row (@rows)
	{
		my ($offset, $payload, $key, $headers, $time, $has_message) = split /\|/, $row;
		my $record = $records->[$offset];
		my $expected = defined $record->{value} ? unpack('H*', $record->{value}) : 'NULL';
		push @wrong, $offset unless $payload eq $expected && $key eq unpack('H*', $record->{key}) && $time == 1700000000 && $has_message eq 't'
		  && $headers eq '[{"name": "h", "value": null}, {"name": "h", "value_base64": "/g=="}, {"name": "g", "value": "x"}]';
	}
	is("@wrong", '', "dead letters of $table hold the records as they were");
	return;
}

# What a table that is written straight to its storage refuses.
my $direct = create_topic($kafka, 'direct', 1, 'max.message.bytes' => 10485760);
my $deep = sub { my ($n) = @_; return ('[' x $n) . (']' x $n) };
my ($records, $dead) = send_cases($direct,
	[ 'bytes that are not UTF-8', qq({"id": 1, "name": "\xff\xfe"}), '22021' ],
	[ 'NUL byte', qq({"id": 1, "name": "a\0b"}), '22021' ],
	[ 'NUL escape', '{"id": 1, "name": "a\u0000b"}', '22P05' ],
	[ 'NUL escape in jsonb', '{"id": 1, "extra": "a\u0000b"}', '22P05' ],
	[ 'NUL escape in an unknown field', '{"id": 1, "unknown": "a\u0000b"}', undef ],
	[ 'half a surrogate pair', '{"id": 1, "name": "\ud800"}', '22P02' ],
	[ 'empty payload', '', '22P02' ],
	[ 'no JSON', 'hello', '22P02' ],
	[ 'cut short', '{"id": 1, "na', '22P02' ],
	[ 'no object', '[1, 2]', '22P02' ],
	[ 'more than one value', '{"id": 1} {"id": 2}', '22P02' ],
	[ 'a million levels', '{"id": 1, "extra": ' . $deep->(1_000_000) . '}', '54001' ],
	[ 'a million levels of nothing wanted', '{"id": 1, "unknown": ' . $deep->(1_000_000) . '}', '54001' ],
	[ 'integer out of range', '{"id": 99999999999}', '22003' ],
	[ 'integer far out of range', '{"id": 1' . ('0' x 1000) . '}', '22003' ],
	[ 'fraction for an integer', '{"id": 1.5}', '22P02' ],
	[ 'text for an integer', '{"id": "x"}', '22P02' ],
	[ 'numeric that overflows its precision', '{"id": 1, "amount": 123456789012}', '22003' ],
	[ 'numeric with a huge exponent', '{"id": 1, "amount": 1e999999999}', '22003' ],
	[ 'invalid date', '{"id": 1, "at": "2025-02-30T00:00:00Z"}', '22008' ],
	[ 'no date', '{"id": 1, "at": "yesterday-ish"}', '22007' ],
	[ 'CHECK', '{"id": 13}', '23514' ],
	[ 'NOT NULL', '{"name": "no id"}', '23502' ],
	[ 'JSON null for NOT NULL', '{"id": null}', '23502' ],
	[ 'unique index', '{"id": 1000}', '23505' ],
	[ 'domain', '{"id": 1, "positive": -1}', '23514' ],
	[ 'generated column', '{"id": 2000000000}', '22003' ],
	[ 'domain whose check has a code of the server', '{"id": 1, "strange": 0}', 'XX000' ],
	[ 'index expression', '{"id": 7, "divisor": 0}', '22012' ],
	[ '1 MiB', '{"id": 2, "name": "' . ('x' x 1048576) . '"}', undef ],
	[ 'near the limit of a message', '{"id": 3, "name": "' . ('y' x 9900000) . '"}', undef ],
	[ '1 MiB that is bad', '{"id": 3, "name": ' . ('z' x 1048576), '22P02' ],
	[ 'ten thousand levels', '{"id": 4, "extra": ' . $deep->(5_000) . '}', undef ]);
sql(<<"END");
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION is_strange(int) RETURNS boolean LANGUAGE plpgsql AS
	\$\$BEGIN IF \$1 = 0 THEN RAISE 'no' USING ERRCODE = 'XX000'; END IF; RETURN true; END\$\$;
CREATE DOMAIN strange AS int CHECK (public.is_strange(VALUE));
CREATE FUNCTION divided(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT \$1 / \$2';
CREATE TABLE t_direct (id int NOT NULL UNIQUE CHECK (id <> 13), name text, at timestamptz, amount numeric(10, 2), extra jsonb,
	positive positive, strange strange, divisor int, product int GENERATED ALWAYS AS (id * 2) STORED)
	WITH (medallion.server = kafka, medallion.topic = '$direct');
CREATE INDEX ON t_direct (divided(id, divisor));
END
wait_until_caught_up($node, 't_direct', $kafka, $direct);
is(dead_letters($node, 't_direct'), $dead, 'what is dead-lettered, and why');
exactly_once_ok($node, 't_direct', $kafka, $direct);
kept_whole_ok('t_direct', $records);
is(sql(q{SELECT string_agg(length(name)::text, ' ' ORDER BY kafka_offset) FROM t_direct WHERE name IS NOT NULL}), '1048576 9900000', 'long records are stored');
like(sql(q{SELECT message FROM medallion.dead_letter WHERE relid = 't_direct'::regclass AND sqlstate = 'XX000'}), qr/column "strange"/, 'an error of an input function names the column');
is(status_of($node, 't_direct'), '', 'nothing is in trouble');

# A tombstone, and what a table without typed columns does with bytes.
my $bytes = create_topic($kafka, 'bytes');
my @values = (undef, '', "a\0b", "\xff\xfe", 'text', join('', map { chr } 0 .. 255));
produce($kafka, $bytes, map { { key => $_, value => $_ } } @values);
sql(join "\n", map { "CREATE TABLE t_$_ () WITH (medallion.server = kafka, medallion.topic = '$bytes', medallion.format = $_);" } qw(raw text json));
wait_until_caught_up($node, "t_$_", $kafka, $bytes) for qw(raw text json);
is(sql(q{SELECT string_agg(coalesce(encode(payload, 'hex'), 'NULL') || '=' || coalesce(encode(kafka_key, 'hex'), 'NULL'), ' ' ORDER BY kafka_offset) FROM t_raw}),
	join(' ', map { my $v = defined $_ ? unpack('H*', $_) : 'NULL'; "$v=$v" } @values), 'raw keeps all bytes');
is(stored($node, 't_text'), '0:0 0:1 0:4', 'text keeps what is text');
is(dead_letters($node, 't_text'), '0:2:22021 0:3:22021 0:5:22021', 'and dead-letters what is not');
is(stored($node, 't_json'), '0:0', 'of these a table of jsonb keeps the tombstone');
is(sql(q{SELECT count(*) FROM medallion.dead_letter WHERE relid = 't_json'::regclass}), 5, 'and dead-letters the rest');
exactly_once_ok($node, $_, $kafka, $bytes) for qw(t_raw t_text t_json);

# What a table that is written by INSERT refuses.
my $insert = create_topic($kafka, 'insert');
($records, $dead) = send_cases($insert,
	[ 'foreign key', '{"id": 1, "ref": 99}', '23503' ],
	[ 'deferred foreign key', '{"id": 1, "late_ref": 99}', '23503' ],
	[ 'deferred unique', '{"id": 1, "late": 5}', undef ],
	[ 'deferred unique again', '{"id": 2, "late": 5}', '23505' ],
	[ 'a trigger raises', '{"id": -1}', 'P0001' ],
	[ 'a trigger raises under a code of its own', '{"id": -2}', 'MY001' ],
	[ 'a trigger divides by zero', '{"id": -3}', '22012' ],
	[ 'an AFTER trigger raises', '{"id": -4}', '22000' ],
	[ 'a trigger leaves the row out', '{"id": -5}', '09000' ],
	[ 'cut short', '{"id": ', '22P02' ]);
sql(<<"END");
CREATE TABLE ref (id int PRIMARY KEY);
CREATE TABLE t_insert (id int, ref int REFERENCES ref, late_ref int REFERENCES ref DEFERRABLE INITIALLY DEFERRED,
	late int UNIQUE DEFERRABLE INITIALLY DEFERRED) WITH (medallion.server = kafka, medallion.topic = '$insert');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF NEW.id = -1 THEN RAISE EXCEPTION 'minus one'; END IF;
	IF NEW.id = -2 THEN RAISE EXCEPTION 'minus two' USING ERRCODE = 'MY001'; END IF;
	IF NEW.id = -3 THEN NEW.id := 1 / 0; END IF;
	IF NEW.id = -5 THEN RETURN NULL; END IF;
	IF NEW.id = -4 AND TG_WHEN = 'AFTER' THEN RAISE EXCEPTION 'minus four' USING ERRCODE = '22000'; END IF;
	RETURN NEW;
END\$\$;
CREATE TRIGGER refuse BEFORE INSERT ON t_insert FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse_after AFTER INSERT ON t_insert FOR EACH ROW EXECUTE FUNCTION refuse();
END
wait_until_caught_up($node, 't_insert', $kafka, $insert);
is(dead_letters($node, 't_insert'), $dead, 'errors of triggers and foreign keys');
exactly_once_ok($node, 't_insert', $kafka, $insert);
kept_whole_ok('t_insert', $records);

# The guard lets ingest into its own table, whatever errors a trigger catches
# there, and into no other.
my $guarded = create_topic($kafka, 'guarded');
produce($kafka, $guarded, map { { value => qq({"id": $_}) } } 1 .. 3);
sql(<<"END");
BEGIN;
CREATE TABLE t_guarded (id int) WITH (medallion.server = kafka, medallion.topic = '$guarded');
CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
	RETURN NEW;
END\$\$;
CREATE TRIGGER a_before_the_guard BEFORE INSERT ON t_guarded FOR EACH STATEMENT EXECUTE FUNCTION catch();
CREATE TRIGGER catch BEFORE INSERT ON t_guarded FOR EACH ROW EXECUTE FUNCTION catch();
COMMIT;
END
wait_until_caught_up($node, 't_guarded', $kafka, $guarded);
is(stored($node, 't_guarded'), '0:0 0:1 0:2', 'triggers may catch errors');
sql(q{CREATE FUNCTION intrude() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.t_raw (kafka_partition, kafka_offset, ingested_at) VALUES (9, 9, now()); RETURN NEW; END';
	CREATE TRIGGER intrude BEFORE INSERT ON t_guarded FOR EACH ROW EXECUTE FUNCTION intrude()});
produce($kafka, $guarded, { value => '{"id": 4}' });
becomes_status($node, 't_guarded', qr/^55000 cannot change streaming table "t_raw" directly/, 'but not write to another streaming table');
sql('DROP TRIGGER intrude ON t_guarded');
wait_until_caught_up($node, 't_guarded', $kafka, $guarded);
exactly_once_ok($node, 't_guarded', $kafka, $guarded);
exactly_once_ok($node, 't_raw', $kafka, $bytes);

# Topics of nothing but poison.
my $poison = create_topic($kafka, 'poison');
produce_lines($kafka, $poison, {}, map { "0\t\\N\t\\N\tnonsense $_" } 1 .. 5000);
my $unwanted = create_topic($kafka, 'unwanted');
produce_lines($kafka, $unwanted, {}, map { "0\t\\N\t\\N\t{\"id\": $_}" } 1 .. 3000);
sql(<<"END");
CREATE TABLE t_poison (id int) WITH (medallion.server = kafka, medallion.topic = '$poison');
CREATE TABLE t_unwanted (id int CHECK (id < 0)) WITH (medallion.server = kafka, medallion.topic = '$unwanted');
END
wait_until_caught_up($node, 't_poison', $kafka, $poison);
wait_until_caught_up($node, 't_unwanted', $kafka, $unwanted);
exactly_once_ok($node, 't_poison', $kafka, $poison);
exactly_once_ok($node, 't_unwanted', $kafka, $unwanted);
is(sql(q{SELECT count(*) FROM medallion.dead_letter WHERE relid = 't_unwanted'::regclass AND sqlstate = '23514' AND message LIKE '%check constraint%'}), 3000, 'each with its error');

# What waiting can cure. Another table, on the same worker, goes on meanwhile.
my %topic = map { $_ => create_topic($kafka, $_, 2) } qw(t_waits t_goes_on);
sql(<<"END");
CREATE TABLE t_waits (id int UNIQUE) WITH (medallion.server = kafka, medallion.topic = '$topic{t_waits}');
CREATE TABLE t_goes_on (id int) WITH (medallion.server = kafka, medallion.topic = '$topic{t_goes_on}');
END
my $session = background_sql($node);
my $n = 0;

sub trouble_ok
{
	my ($what, $pattern, $begin, $end) = @_;
	$n++;
	$session->query_safe($_) for @$begin;
	produce($kafka, $topic{t_waits}, map { { partition => $_ % 2, value => sprintf('{"id": %d}', $n * 100 + $_) } } 0 .. 9);
	wait_for($node, "SELECT count(*) = 1 FROM medallion.stream_status WHERE relid = 't_waits'::regclass AND failures >= 4");
	becomes_status($node, 't_waits', $pattern, "$what: the state says so");
	produce($kafka, $topic{t_goes_on}, map { { partition => $_ % 2, value => '{"id": 1}' } } 0 .. 9);
	wait_until_caught_up($node, 't_goes_on', $kafka, $topic{t_goes_on});
	like(status_of($node, 't_waits'), $pattern, 'and another table goes on meanwhile');
	becomes_status($node, 't_goes_on', qr/^$/, 'without trouble of its own');
	$session->query_safe($_) for @$end;
	wait_until_caught_up($node, 't_waits', $kafka, $topic{t_waits});
	wait_for($node, q{SELECT count(*) = 0 FROM medallion.stream_status});
	is(dead_letters($node, 't_waits'), '', 'and it recovers by itself, with no dead letter');
	return;
}

trouble_ok('a locked table', qr/^55P03 the table is locked/, [ 'BEGIN', 'LOCK TABLE t_waits' ], ['COMMIT']);
is(count_log($node, qr/ingest into streaming table "t_waits" waits for a lock/), 1, 'one log line, however often it was tried');
trouble_ok('a row of a unique index', qr/^55P03 canceling statement due to lock timeout/,
	[ 'BEGIN', 'SET LOCAL medallion.allow_direct_writes = on', 'INSERT INTO t_waits (id, kafka_partition, kafka_offset, ingested_at) VALUES (203, 0, 0, now())' ], ['ROLLBACK']);
trouble_ok('a missing table', qr/^42P01 relation "public.missing" does not exist/,
	[ q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.missing VALUES (NEW.id); RETURN NEW; END'},
		'CREATE TRIGGER note BEFORE INSERT ON t_waits FOR EACH ROW EXECUTE FUNCTION note()' ],
	['CREATE TABLE missing (id int)']);
is(sql('SELECT count(*) FROM missing'), 10, 'and the trigger has seen each record once');
trouble_ok('a missing privilege', qr/^42501 /,
	[ 'CREATE ROLE somebody', 'GRANT USAGE ON FOREIGN SERVER kafka TO somebody', 'GRANT CREATE ON SCHEMA public TO somebody', 'ALTER TABLE t_waits OWNER TO somebody' ],
	['GRANT INSERT ON missing TO somebody']);
exactly_once_ok($node, $_, $kafka, $topic{$_}) for sort keys %topic;

# on_error = fail stops before the bad record and keeps what came before, even
# if a record behind it was found bad earlier.
my $fail = create_topic($kafka, 'fail', 1);
produce($kafka, $fail, map { { value => $_ } } '{"id": 1}', '{"id": 2}', '{"id": 13}', '{"id": 4}', '{"id": ', '{"id": 6}');
sql(qq{CREATE TABLE t_fail (id int, CONSTRAINT unlucky CHECK (id <> 13)) WITH (medallion.server = kafka, medallion.topic = '$fail', medallion.on_error = fail)});
wait_for($node, q{SELECT count(*) = 1 FROM medallion.stream_status WHERE relid = 't_fail'::regclass AND failures > 2});
is(stored($node, 't_fail'), '0:0 0:1', 'on_error = fail keeps what came before');
is(sql(q{SELECT next_offset || ' ' || row_count FROM medallion.checkpoint WHERE relid = 't_fail'::regclass}), '2 2', 'and stops at the bad record');
like(status_of($node, 't_fail'), qr/^23514 .*partition 0 offset 2: .*"unlucky"/, 'and says why');
sql('ALTER TABLE t_fail DROP CONSTRAINT unlucky');
wait_for($node, q{SELECT count(*) = 1 FROM medallion.stream_status WHERE relid = 't_fail'::regclass AND sqlstate = '22P02'});
is(stored($node, 't_fail'), '0:0 0:1 0:2 0:3', 'it goes on when the table takes the record');
sql('ALTER TABLE t_fail SET (medallion.on_error = dead_letter)');
wait_until_caught_up($node, 't_fail', $kafka, $fail);
is(dead_letters($node, 't_fail'), '0:4:22P02', 'or when bad records may be dead letters');
exactly_once_ok($node, 't_fail', $kafka, $fail);
wait_for($node, q{SELECT count(*) = 0 FROM medallion.stream_status});

is(count_log($node, qr/terminated by signal|PANIC|TRAP/), 0, 'nothing crashed');
$session->quit;
$node->stop('fast');
done_testing();
