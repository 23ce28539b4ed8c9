# Credentials: they come from user mappings, count per owner, and show nowhere.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;

# A broker with a listener that wants a password, beside the plain one.
my $plain = start_broker('secure', 'listener:SASL_PLAINTEXT' => 'SASL_PLAINTEXT', 'sasl.enabled.mechanisms' => 'PLAIN',
	'listener.name.sasl_plaintext.plain.sasl.jaas.config' =>
	  'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="geheim" user_other="ebenso";');
my ($port) = slurp_file(MedallionTest::broker_dir('secure') . '/server.properties') =~ m{^advertised\.listeners=.*\bSASL_PLAINTEXT://[^,]*:(\d+)}m;

my $topic = create_topic($plain, 'secret', 1);
produce($plain, $topic, map({ { value => qq({"a": $_}) } } 1 .. 3));

# What the extension logs, without the statements that set the passwords.
my $node = new_node('server_security', conf => "log_statement = none\n");
create_server($node, 'secure', "127.0.0.1:$port", broker_address_family => 'v4', security_protocol => 'SASL_PLAINTEXT', sasl_mechanism => 'PLAIN');
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN; CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER secure TO app, other;
	CREATE SCHEMA app AUTHORIZATION app});

sub as
{
	my ($role, $query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE $role;\n$query", on_error_stop => 0);
	return $out . $err;
}

# Without credentials, with wrong ones, with another's, with the right ones
like(as('app', q{SELECT * FROM medallion.check_server('secure')}), qr/ERROR/, 'no user mapping');
as('app', q{CREATE USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (sasl_username 'app', sasl_password 'falsch')});
my $error = as('app', q{SET medallion.kafka_timeout = '5min'; SELECT * FROM medallion.check_server('secure')});
like($error, qr/08006: could not get an answer from Kafka server "secure"/, 'wrong password');
like($error, qr/[Aa]uthentication failed/, 'the reason');
unlike($error, qr/falsch/, 'and not the password');
like(as('app', qq{SELECT medallion.create_streaming_table('app.t', 'secure', '$topic')}), qr/08006/, 'nor can it be read');
as('other', q{CREATE USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (sasl_username 'other', sasl_password 'ebenso')});
is(as('other', q{SELECT broker_count FROM medallion.check_server('secure')}), '1', 'another user has other credentials');
like(as('app', q{SELECT * FROM medallion.check_server('secure')}), qr/08006/, 'which do not count for the first');
as('app', q{ALTER USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (SET sasl_password 'geheim')});
is(as('app', q{SELECT broker_count FROM medallion.check_server('secure')}), '1', 'right password');

# A worker connects as the owner of the table.
is(as('app', qq{CREATE TABLE app.t (a int) WITH (medallion.server = 'secure', medallion.topic = '$topic')}), '', 'a streaming table');
wait_for($node, 'SELECT count(*) = 3 FROM app.t');

# A password that changes: the worker fails, says so, and recovers.
as('app', q{ALTER USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (SET sasl_password 'falsch')});
wait_for($node, q{SELECT state = 'failing' AND sqlstate = '08006' AND reason ILIKE '%authentication failed%' FROM medallion.streaming_tables});
produce($plain, $topic, { value => '{"a": 4}' });
as('app', q{ALTER USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (SET sasl_password 'geheim')});
wait_for($node, 'SELECT count(*) = 4 FROM app.t');
wait_for($node, q{SELECT state = 'running' FROM medallion.streaming_tables});
is($node->safe_psql('postgres', 'SELECT count(DISTINCT a) FROM app.t'), '4', 'each record once');

# A right that is taken away counts at the next connection.
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER secure FROM app; ALTER SERVER secure OPTIONS (ADD client_rack $$r$$)');
wait_for($node, q{SELECT state = 'failing' AND sqlstate = '42501' FROM medallion.streaming_tables});

# Nothing that others can see holds a password.
my $seen = join("\n", map { $node->safe_psql('postgres', "SET ROLE other; SELECT v.*::text FROM $_ v") }
	qw(pg_foreign_server pg_stat_activity medallion.streaming_tables medallion.workers));
unlike($seen, qr/geheim|falsch/, 'no password in views');
is(as('other', q{SELECT umoptions IS NULL FROM pg_user_mappings WHERE usename = 'app'}), 't', 'nor in the mappings of others');
unlike($node->safe_psql('postgres', 'SELECT string_agg(s::text, chr(10)) FROM medallion.stream_status s'), qr/geheim|falsch/, 'nor in the state');
unlike(slurp_file($node->logfile), qr/geheim|falsch|ebenso/, 'nor in the log');

$node->stop('fast');
done_testing();
