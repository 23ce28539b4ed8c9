# What a role without superuser can be given: one server, its own tables, their
# dead letters; and nothing that others own, in whatever way it tries.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

my $kafka = MedallionTest->kafka;
my $node = new_node('roles');
create_server($node, $_, $kafka) for qw(kafka other);

sub sql { my ($query, $database) = @_; return $node->safe_psql($database // 'postgres', $query) }

# Output and errors of a role's query, with SQLSTATEs.
sub as
{
	my ($role, $query, $database) = @_;
	my ($rc, $out, $err) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\nSET ROLE $role;\n$query", on_error_stop => 1);
	return $out . $err;
}

sub refused { my ($role, $query, $name) = @_; return like(as($role, $query), qr/ERROR:  42501:/, $name // "refused: $query") }

# Wait for the state and its reason: another may come first, while the worker
# still works with what was set before.
sub state_is
{
	my ($table, $state, $pattern) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $reason;
	wait_for($node, "SELECT state = '$state' FROM medallion.streaming_tables WHERE table_name = '$table'::regclass");
	do
	{
		$reason = sql("SELECT concat(sqlstate, ' ', reason) FROM medallion.streaming_tables WHERE table_name = '$table'::regclass");
	} until ($reason =~ $pattern || time > $deadline);
	return like($reason, $pattern, "$table is $state");
}

sub wait_for_rows { my ($table, $n) = @_; return wait_for($node, "SELECT count(*) = $n FROM $table") }

sql('ALTER DATABASE postgres SET search_path = public');
sql(q{
	CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol; CREATE ROLE dave; CREATE ROLE reader; CREATE ROLE team;
	CREATE SCHEMA alice AUTHORIZATION alice; CREATE SCHEMA bob AUTHORIZATION bob;
	GRANT USAGE ON FOREIGN SERVER kafka TO alice, bob, carol;
	GRANT CREATE ON SCHEMA public TO alice;
	CREATE TABLE log (who name, session_who name, place text); GRANT INSERT, SELECT ON log TO PUBLIC});

#
# What it may
#
my $topic = create_topic($kafka, 'roles', 1);
sub send_one { produce($kafka, $topic, map({ { value => $_ } } @_)); return }

send_one('{"a": 1}', '{"a": "bad"}');
for my $role (qw(alice bob))
{
	is(as($role, qq{SELECT broker_count FROM medallion.check_server('kafka')}), '1', "$role asks the server");
	is(as($role, qq{CREATE TABLE $role.t (a int) WITH (medallion.server = 'kafka', medallion.topic = '$topic')}), '', "$role makes a streaming table");
}
wait_for($node, q{SELECT count(*) = 2 FROM medallion.dead_letters});
is(as('alice', q{SELECT medallion.pause('alice.t'); ALTER TABLE alice.t SET (medallion.flush_interval = '10 ms'); SELECT medallion.ingest_once('alice.t'); SELECT medallion.resume('alice.t')}),
	"\n0\n", 'pauses, alters, reads and resumes it');
is(as('alice', q{SELECT table_name, state, rows, dead_letters FROM medallion.streaming_tables}), 'alice.t|running|1|1', 'sees its state');
is(as('alice', q{SELECT DISTINCT table_name FROM medallion.stream_partitions}), 'alice.t', 'its partitions');
is(as('alice', q{SELECT table_name, convert_from(payload, 'UTF8') FROM medallion.dead_letters}), 'alice.t|{"a": "bad"}', 'its dead letters');
is(as('alice', q{SELECT medallion.create_materialized_view('alice.v', 'SELECT a, count(*) AS n FROM alice.t GROUP BY a', NULL)}), 'alice.v', 'makes a view of it');
is(as('alice', q{SELECT count(*) FROM medallion.verify('alice.v')}), '0', 'and verifies that');
is(as('alice', q{DROP TABLE alice.v}), '', 'and drops it');

#
# What it may not
#
my $letter = sql(q{SELECT dead_letter_id FROM medallion.dead_letters WHERE table_name = 'bob.t'::regclass});
refused('alice', $_) for (
	q{SELECT * FROM medallion.check_server('other')},
	q{SELECT * FROM medallion.list_topics('other')},
	q{CREATE USER MAPPING FOR alice SERVER other OPTIONS (sasl_username 'x')},
	qq{CREATE TABLE alice.x (a int) WITH (medallion.server = 'other', medallion.topic = '$topic')},
	qq{SELECT medallion.create_streaming_table('bob.x', 'kafka', '$topic')},
	q{ALTER TABLE alice.t SET (medallion.server = 'other')},
	q{CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost')},
	q{ALTER SERVER kafka OPTIONS (SET bootstrap_servers 'localhost')},
	(map { "CREATE USER MAPPING FOR alice SERVER kafka OPTIONS ($_ '/etc/passwd')" }
		split /\n/, sql(q{SELECT option_name FROM medallion.kafka_properties() WHERE reason LIKE '%pg_read_server_files%' AND where_allowed LIKE '%mapping%'})),
	q{SET medallion.debug_points = 'ingest-commit!'},
	q{SELECT medallion.prune_history()},
	(map { "SELECT medallion.$_" } q{pause('bob.t')}, q{resume('bob.t')}, q{ingest_once('bob.t')}, q{drop_streaming_table('bob.t')},
		q{wait_for_offset('bob.t', 0, 0, '0')}, q{wait_until_caught_up('bob.t', '0')}, q{seek('bob.t', 'latest')}, q{replay('bob.t', 'earliest')}, q{try_decode('bob.t', '{}')},
		"requeue('{$letter}')", "discard('{$letter}')"),
	q{ALTER TABLE bob.t SET (medallion.flush_interval = '1 s')},
	q{ALTER TABLE bob.t RENAME a TO b},
	q{DROP TABLE bob.t},
	q{SELECT medallion.create_materialized_view('alice.w', 'SELECT a FROM bob.t', NULL)},
	q{COPY alice.t TO '/tmp/x'});
like(as('alice', "CREATE USER MAPPING FOR alice SERVER kafka OPTIONS ($_ 'x')"), qr/ERROR:  HV00D:/, "option $_ is refused")
  for split /\n/, sql(q{SELECT option_name FROM medallion.kafka_properties() WHERE disposition <> 'allowed' AND in_library AND option_name ~ 'plugin|engine|provider|kinit|store|debug|signal|mock'});
is(sql(q{SELECT format('%s %s', c.oid::regclass, p) FROM pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
	WHERE relnamespace IN ('medallion'::regnamespace, 'medallion_def'::regnamespace) AND relkind IN ('r', 'p', 'v')
	  AND has_table_privilege('reader', c.oid, p) AND NOT (relkind = 'v' AND p = 'SELECT' AND relnamespace = 'medallion'::regnamespace)}),
	'', 'no privilege on a table of ours');
is(sql(q{SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'medallion'::regnamespace AND relkind = 'S'
	AND (has_sequence_privilege('reader', c.oid, 'USAGE') OR has_sequence_privilege('reader', c.oid, 'SELECT') OR has_sequence_privilege('reader', c.oid, 'UPDATE'))}),
	'', 'nor on a sequence');
is(sql(q{SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = prolang
	WHERE pronamespace = 'medallion'::regnamespace AND (prosecdef OR lanname NOT IN ('c', 'internal') AND has_function_privilege('reader', p.oid, 'EXECUTE')
		AND NOT (prosqlbody IS NOT NULL AND proconfig = '{"search_path=pg_catalog, pg_temp"}'))}),
	'', 'no function is a security definer, and those in SQL are for us alone, or bound to what they name');
is(sql(q{SELECT bool_or(has_schema_privilege('reader', n, 'CREATE')) FROM unnest('{medallion,medallion_def}'::text[]) n}), 'f', 'nothing can be put into our schemas');
is(as('reader', "SELECT count(*) FROM medallion.$_"), '0', "a role that owns nothing sees nothing in $_")
  for qw(streaming_tables stream_partitions dead_letters gaps materialized_views refresh_history);
is(as('reader', q{SELECT count(*) > 0, count(rows), count(bytes), count(transactions), count(last_active_at) FROM medallion.workers}), 't|0|0|0|0',
	'and of workers that they run, not what they do');
is(sql(q{GRANT pg_read_all_stats TO reader; SET ROLE reader; SELECT count(rows) > 0 FROM medallion.workers}), 't', 'which is for those who monitor');

# The rows of a mapping's own user are the only ones that its change touches.
my $generations = q{SELECT string_agg(generation::text, ' ' ORDER BY relid) FROM medallion.stream};
my $before = sql($generations);
as('bob', q{CREATE USER MAPPING FOR bob SERVER kafka OPTIONS (sasl_username 'b')});
my ($alices, $bobs) = split / /, sql($generations);
is("$alices", (split / /, $before)[0], "a user mapping leaves others' tables alone");
isnt("$bobs", (split / /, $before)[1], "and reaches the user's own");
unlike(as('bob', 'DROP OWNED BY bob'), qr/ERROR/, 'a role drops all that it owns');
is(sql(q{SELECT count(*) FROM medallion.stream}), '1', 'its streaming table among it');
is(sql(q{SELECT count(*) FROM medallion.dead_letter WHERE relid NOT IN (SELECT relid FROM medallion.stream)}), '0', 'with its letters');
sql('GRANT USAGE ON FOREIGN SERVER kafka TO bob; CREATE SCHEMA IF NOT EXISTS bob AUTHORIZATION bob');

# Nobody but who may drop a database makes our processes leave it.
sql('CREATE DATABASE second');
sql('CREATE EXTENSION pg_medallion', 'second');
my $supervisor = worker_pid($node, 'supervisor', 'second');
like(as('alice', $_), qr/ERROR:  42501:/, "refused: $_")
  for ('DROP DATABASE second', 'ALTER DATABASE second RENAME TO third', 'CREATE DATABASE copy TEMPLATE second');
is(worker_pid($node, 'supervisor', 'second'), $supervisor, 'the workers did not leave for it');
sql('DROP DATABASE second');
sql('CREATE DATABASE third; ALTER DATABASE third OWNER TO alice');
sql('SET ROLE alice; CREATE SCHEMA medallion', 'third');
like((try_query($node, 'CREATE EXTENSION pg_medallion', 'third'))[2], qr/schema "medallion" belongs to another role/, "the extension does not move into somebody's schema");
sql('DROP DATABASE third');

#
# Dead letters follow the privilege to read the table
#
my $letters = q{SELECT count(*) FROM medallion.dead_letters};
is(as('dave', $letters), '0', 'no privilege: no letter');
sql('GRANT SELECT (a) ON alice.t TO dave; GRANT USAGE ON SCHEMA alice TO dave');
is(as('dave', $letters), '0', 'nor with that for a column');
sql('REVOKE USAGE ON SCHEMA alice FROM dave; GRANT SELECT ON alice.t TO dave');
is(as('dave', $letters), '0', 'nor without that for the schema');
sql('GRANT USAGE ON SCHEMA alice TO dave');
is(as('dave', $letters), '1', 'with both it is there');
is(as('dave', q{SELECT count(*) FROM medallion.streaming_tables}), '0', 'the state is for the owner');
refused('dave', q{SELECT medallion.discard(array_agg(dead_letter_id)) FROM medallion.dead_letters});
sql('ALTER TABLE alice.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON alice.t FOR SELECT TO dave USING (a = 2)');
is(as('dave', $letters), '0', 'where policies choose the rows, nobody can say which letters');
send_one('{"a": 2}');
wait_for_rows('alice.t', 2);
is(as('dave', 'SELECT a FROM alice.t'), '2', 'policies hold for rows from Kafka');
is(as('alice', $letters), '1', 'the owner sees all letters');
sql('ALTER TABLE alice.t DISABLE ROW LEVEL SECURITY; REVOKE ALL ON alice.t FROM dave; REVOKE ALL ON SCHEMA alice FROM dave; REVOKE ALL ON FOREIGN SERVER kafka FROM dave');

#
# What runs in ingest runs as the owner, and can do no more than that
#
as('alice', q{
	CREATE FUNCTION alice.note(place text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO public.log VALUES (current_user, session_user, place); RETURN true; END $$;
	CREATE FUNCTION alice.only_alice(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN IF current_user <> 'alice' THEN RAISE EXCEPTION 'ran as %', current_user; END IF; RETURN v; END $$;
	CREATE FUNCTION alice.try(statement text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		INSERT INTO public.log VALUES (current_user, session_user, 'done: ' || statement);
	EXCEPTION WHEN others THEN
		INSERT INTO public.log VALUES (current_user, session_user, SQLSTATE || ' ' || statement);
	END $$;
	CREATE FUNCTION alice.fire() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM alice.note(TG_NAME);
		PERFORM alice.try(s) FROM unnest(ARRAY['SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
			'ALTER ROLE alice SUPERUSER', 'LISTEN x', 'CREATE TEMP TABLE medallion_x (a int)', 'PREPARE p AS SELECT 1', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
			'UPDATE medallion.stream SET paused = true', 'COPY public.log TO PROGRAM ''cat''', 'SET search_path = alice']) s;
		RETURN NEW;
	END $$;
	CREATE DOMAIN alice.d AS int CHECK (alice.note('domain'));
	CREATE TYPE alice.pair AS (x alice.d, y int);
	CREATE TABLE alice.traps (a int CHECK (alice.note('check')), b alice.d, c alice.d[], p alice.pair,
		g int GENERATED ALWAYS AS (alice.only_alice(a)) STORED, e int DEFAULT alice.only_alice(1));
	CREATE INDEX ON alice.traps (alice.only_alice(a)) WHERE alice.only_alice(a) > 0;
	CREATE TABLE alice.traps_of_triggers (LIKE alice.traps INCLUDING ALL);
	CREATE TRIGGER before_row BEFORE INSERT ON alice.traps_of_triggers FOR EACH ROW EXECUTE FUNCTION alice.fire();
	CREATE TRIGGER after_statement AFTER INSERT ON alice.traps_of_triggers FOR EACH STATEMENT EXECUTE FUNCTION alice.fire();
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON alice.traps_of_triggers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION alice.fire();
	CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.now() FROM (SELECT alice.note('now')) x $$;
	CREATE FUNCTION public.unnest(oid[], text[]) RETURNS SETOF record LANGUAGE sql AS $$ SELECT 1::oid, 't'::text FROM (SELECT alice.note('unnest')) x $$;
	CREATE FUNCTION public.equal(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT alice.note('=') $$;
	CREATE FUNCTION public.equal(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT alice.note('=') $$;
	CREATE FUNCTION public.equal(oid, oid) RETURNS boolean LANGUAGE sql AS $$ SELECT alice.note('=') $$;
	CREATE FUNCTION public.equal(regclass, oid) RETURNS boolean LANGUAGE sql AS $$ SELECT alice.note('=') $$;
	CREATE FUNCTION public.equal(name, text) RETURNS boolean LANGUAGE sql AS $$ SELECT alice.note('=') $$;
	CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.equal);
	CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.equal);
	CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.equal);
	CREATE OPERATOR public.= (LEFTARG = regclass, RIGHTARG = oid, FUNCTION = public.equal);
	CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.equal);});
my $traps = create_topic($kafka, 'traps', 1);
my $good = '{"a": 1, "b": 2, "c": [3], "p": {"x": 4, "y": 5}}';
produce($kafka, $traps, { value => $good }, { value => '{"a": "bad"}' });
as('alice', qq{SELECT medallion.create_streaming_table('alice.$_', 'kafka', '$traps', options => '{"check_topic": false}')}) for qw(traps traps_of_triggers);
wait_for_rows("alice.$_", 1) for qw(traps traps_of_triggers);

# The same in the session of a superuser whose search_path begins with traps.
my $hostile = 'SET search_path = public, alice, pg_catalog;';
sql(q{SELECT medallion.pause('alice.traps'), medallion.pause('alice.traps_of_triggers')});
produce($kafka, $traps, { value => $good });
for my $table (qw(alice.traps alice.traps_of_triggers))
{
	is(sql("$hostile SELECT medallion.ingest_once('$table')"), '1', "a superuser reads $table");
	is(sql(qq{$hostile SELECT (medallion.try_decode('$table', '$good')).row_values->>'a'}), '1', 'and decodes for it');
	sql("$hostile SELECT medallion.requeue(array_agg(dead_letter_id), '$good') FROM medallion.dead_letters WHERE table_name OPERATOR(pg_catalog.=) '$table'::pg_catalog.regclass");
	is(sql("SELECT count(*) FROM $table"), '3', 'and requeues a record');
	sql("$hostile ALTER TABLE $table SET (medallion.flush_interval = '20 ms'); SELECT medallion.resume('$table')");
}
is(sql(q{SELECT DISTINCT who FROM log}), 'alice', 'all of it ran as the owner');
is(sql(q{SELECT count(*) > 0 FROM log WHERE place = 'deferred'}), 't', 'deferred triggers too');
is(sql(q{SELECT string_agg(DISTINCT place, ', ' ORDER BY place) FROM log WHERE place LIKE 'done: %'}), 'done: SET search_path = alice',
	'and could do nothing that the owner could not');
is(sql(q{SELECT count(DISTINCT place) FROM log WHERE place ~ '^[0-9A-Z]{5} '}), '11', 'each attempt was made');
is(sql(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'alice'}), 'f', 'the role is what it was');
is(sql(q{SELECT count(*) FROM log WHERE place IN ('now', 'unnest', '=')}), '0', 'no function or operator stood in for one of pg_catalog');

# Views: constants of the query are read again only by their owner.
sql('TRUNCATE log');
as('alice', q{SELECT medallion.create_materialized_view('alice.trap', $$SELECT '{1}'::alice.d[] AS c, '(1,2)'::alice.pair AS p, a, alice.note('view') AS n FROM alice.traps$$, NULL)});
sql("$hostile SELECT * FROM medallion.refresh('alice.trap', true); SELECT * FROM medallion.verify('alice.trap'); SELECT * FROM medallion.explain_refresh('alice.trap')");
sql(q{SELECT medallion.alter_materialized_view('alice.trap', refresh_mode => 'full')});
as('alice', q{SELECT medallion.alter_materialized_view('alice.trap', query => $$SELECT '{2}'::alice.d[] AS c, '(1,2)'::alice.pair AS p, a, alice.note('view') AS n FROM alice.traps$$)});
is(sql(q{SELECT DISTINCT who FROM log}), 'alice', 'nothing of a view ran as another role');
is(sql(q{SELECT string_agg(DISTINCT place, ',' ORDER BY place) FROM log}), 'domain,view', 'though it ran');
sql('DROP TABLE alice.trap; DROP TABLE alice.traps_of_triggers; DROP TABLE alice.traps');

#
# Owners that change, and rights that are taken away
#
sql(q{GRANT USAGE, CREATE ON SCHEMA alice TO carol, dave; CREATE USER MAPPING FOR carol SERVER kafka OPTIONS (ssl_certificate_pem 'none'); CREATE USER MAPPING FOR PUBLIC SERVER kafka});
sql('ALTER SERVER kafka OPTIONS (ADD security_protocol $$plaintext$$)');
refused('postgres', 'ALTER TABLE alice.t OWNER TO dave', 'a table is not given to who may not use its server');
sql(q{ALTER USER MAPPING FOR carol SERVER kafka OPTIONS (SET ssl_certificate_pem 'none', ADD sasl_username 'carol'); ALTER SERVER kafka OPTIONS (SET security_protocol 'sasl_plaintext', ADD sasl_mechanism 'PLAIN')});
sql(q{CREATE USER MAPPING FOR alice SERVER kafka OPTIONS (sasl_username 'alice', sasl_password 'x')});
sql('ALTER TABLE alice.t OWNER TO carol');
state_is('alice.t', 'failing', qr/sasl.username and sasl.password must be set/);
sql(q{ALTER SERVER kafka OPTIONS (SET security_protocol 'plaintext', DROP sasl_mechanism); ALTER USER MAPPING FOR carol SERVER kafka OPTIONS (DROP ssl_certificate_pem)});
send_one('{"a": 3}');
wait_for_rows('alice.t', 3);
state_is('alice.t', 'running', qr/^ $/);

# Not by ALTER TABLE: nothing says so to the worker, which looks by itself.
sql('REASSIGN OWNED BY carol TO dave');
send_one('{"a": 4}');
state_is('alice.t', 'failing', qr/^42501 permission denied for foreign server kafka/);
sql('GRANT USAGE ON FOREIGN SERVER kafka TO team; GRANT team TO dave');
wait_for_rows('alice.t', 4);
sql('REVOKE team FROM dave');
send_one('{"a": 5}');
state_is('alice.t', 'failing', qr/^42501 permission denied for foreign server kafka/);
is(sql('SELECT count(*) FROM alice.t'), '4', 'and nothing is stored');
sql('GRANT USAGE ON FOREIGN SERVER kafka TO dave');
wait_for_rows('alice.t', 5);
sql('REVOKE USAGE ON FOREIGN SERVER kafka FROM dave');
state_is('alice.t', 'failing', qr/^42501 permission denied for foreign server kafka/);
sql('GRANT USAGE ON FOREIGN SERVER kafka TO dave');
state_is('alice.t', 'running', qr/^ $/);
sql('REVOKE INSERT ON alice.t FROM dave');
send_one('{"a": 6}');
state_is('alice.t', 'failing', qr/^42501 permission denied for table t/);
sql('GRANT INSERT ON alice.t TO dave');
wait_for_rows('alice.t', 6);

#
# DDL in all its places
#
my $with = "WITH (medallion.server = 'kafka', medallion.topic = '$topic', medallion.check_topic = false)";
as('bob', qq{CREATE FUNCTION bob.make() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS \$\$ BEGIN CREATE TABLE bob.made (a int) $with; END \$\$});
sql('GRANT USAGE ON SCHEMA bob TO alice');
is(as('alice', 'SELECT bob.make()'), '', 'a security definer makes a table');
is(sql(q{SELECT relowner::regrole FROM pg_class WHERE oid = 'bob.made'::regclass}), 'bob', 'which is the definer\'s');
refused('alice', 'DROP TABLE bob.made');
is(as('bob', qq{CREATE TEMP TABLE twice (a int); SET search_path = bob; CREATE TABLE IF NOT EXISTS twice (a int) $with; SET search_path = public; SELECT table_name FROM medallion.streaming_tables ORDER BY 1}),
	"bob.made\nbob.twice", 'a temporary table of the same name is another table');
is(as('bob', qq{SET search_path = bob; SET client_min_messages = error; CREATE TABLE IF NOT EXISTS twice (b int) $with; SELECT count(*) FROM medallion.streaming_tables}), '2', 'IF NOT EXISTS leaves it alone');
is(as('bob', qq{BEGIN; CREATE TABLE bob.gone (a int) $with; SAVEPOINT s; CREATE TABLE bob.gone2 (a int) $with; ROLLBACK TO s; ROLLBACK; SELECT count(*) FROM medallion.streaming_tables}), '2', 'rolled back');
is(sql(q{SELECT count(*) FROM medallion.stream WHERE relid::text ~ 'gone'}), '0', 'nothing remains');
is(as('bob', 'SET client_min_messages = warning; DROP SCHEMA bob CASCADE; SELECT count(*) FROM medallion.streaming_tables'), '0', 'DROP SCHEMA forgets them');
is(sql(q{SELECT count(*) FROM (SELECT relid FROM medallion.stream UNION ALL SELECT relid FROM medallion.checkpoint UNION ALL SELECT relid FROM medallion.dead_letter) x WHERE relid::text ~ '^\d+$'}), '0', 'and nothing is left without a table');

$node->stop('fast');
done_testing();
