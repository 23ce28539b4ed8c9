# Brokers that ask for certificates and passwords: each way works from the first
# question to the last row, each mistake is told by its name, costs one line in
# the log, and is over when it is mended; and no secret shows anywhere.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use MedallionTest;
use SecureBroker;

my %passwords = %SecureBroker::passwords;
my $secure = SecureBroker->start('secure');

# Brokers of Kafka 4.0 and later refuse the SCRAM of an older librdkafka.
my @version = map { $_ } kafka_tool('version') =~ /^(\d+)\.(\d+)\.(\d+)/;
my $old_library = sprintf('%03d%03d%03d', @version) lt '002006001';
my $scram = $old_library ? SecureBroker->start('scram', version => '3.7.0') : $secure;

my $node = new_node('tls_sasl', conf => "log_statement = none\nlog_min_messages = debug1\n");

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

# A query of a role that must not fail.
sub as
{
	my ($role, $query) = @_;
	return sql("SET ROLE $role;\n$query");
}

# The error of a role's query that must fail, and its SQLSTATE.
sub error
{
	my ($role, $query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE $role;\n$query");
	return $err eq '' ? "no error: $out" : $err;
}

sub options
{
	my ($verb, %options) = @_;
	return 'OPTIONS (' . join(', ', map { "$verb $_ '$options{$_}'" } sort keys %options) . ')';
}

# Every string that must not show; of keys a line in their middle.
my %wrong = (password => 'WrongSecret99', key_password => 'WrongKeySecret98');
my @secrets = (values %passwords, values %wrong, 'NewSecret2025');
for my $key (qw(client_key encrypted_key expired_key stranger_key))
{
	my @lines = split /\n/, $secure->pem($key);
	push @secrets, $lines[ @lines / 2 ];
}
my $secret = join('|', map { quotemeta } @secrets);

sub log_lines
{
	my ($offset, $pattern) = @_;
	return scalar(grep { /$pattern/ } split /\n/, slurp_file($node->logfile, $offset));
}

# How a table is fed: listener, options of the server, those of the mapping.
my %ways = (
	tls => [ $secure, 'SSL', {}, undef ],
	mtls => [ $secure, 'MTLS', {}, { ssl_certificate_pem => $secure->pem('client'), ssl_key_pem => $secure->pem('client_key') } ],
	mtls_encrypted => [ $secure, 'MTLS', {}, { ssl_certificate_pem => $secure->pem('client'),
			ssl_key_pem => $secure->pem('encrypted_key'), ssl_key_password => $passwords{key} } ],
	plain_tls => [ $secure, 'SASL_SSL', { sasl_mechanism => 'PLAIN' }, { sasl_username => 'alice', sasl_password => $passwords{alice} } ],
	plain => [ $secure, 'SASL_PLAINTEXT', { sasl_mechanism => 'PLAIN' }, { sasl_username => 'bob', sasl_password => $passwords{bob} } ],
	scram_256_tls => [ $scram, 'SASL_SSL', { sasl_mechanism => 'SCRAM-SHA-256' }, { sasl_username => 'alice', sasl_password => $passwords{alice} } ],
	scram_256 => [ $scram, 'SASL_PLAINTEXT', { sasl_mechanism => 'SCRAM-SHA-256' }, { sasl_username => 'alice', sasl_password => $passwords{alice} } ],
	scram_512_tls => [ $scram, 'SASL_SSL', { sasl_mechanism => 'SCRAM-SHA-512' }, { sasl_username => 'bob', sasl_password => $passwords{bob} } ],
	scram_512 => [ $scram, 'SASL_PLAINTEXT', { sasl_mechanism => 'SCRAM-SHA-512' }, { sasl_username => 'bob', sasl_password => $passwords{bob} } ]);

sub protocol { my ($listener) = @_; return $listener eq 'MTLS' ? 'ssl' : lc $listener }

sub produce_three
{
	my ($way) = @_;
	my $broker = $ways{$way}[0];
	$ways{$way}[4] //= create_topic($broker->plain, $way);
	produce($broker->plain, $ways{$way}[4], map({ { value => qq({"a": $_}) } } 1 .. 3));
	return;
}

my %n_rows;

# Three more records; all must arrive, once each.
sub all_arrive
{
	my ($way, $what) = @_;
	produce_three($way);
	$n_rows{$way} += 3;
	wait_for($node, "SELECT count(*) >= $n_rows{$way} FROM $way.t");
	wait_for($node, "SELECT state = 'running' FROM medallion.streaming_tables WHERE table_name = '$way.t'::regclass");
	is(sql("SELECT count(*), count(DISTINCT kafka_offset) FROM $way.t"), "$n_rows{$way}|$n_rows{$way}", $what);
	return;
}

for my $way (sort keys %ways)
{
	my ($broker, $listener, $server, $mapping) = @{ $ways{$way} };
	my %server = (bootstrap_servers => $broker->address($listener), security_protocol => protocol($listener),
		broker_address_family => 'v4', reconnect_backoff_ms => 10, reconnect_backoff_max_ms => 50, %$server);
	$server{ssl_ca_pem} = $broker->pem('ca') if $listener ne 'SASL_PLAINTEXT';
	sql("CREATE ROLE $way; CREATE SCHEMA $way AUTHORIZATION $way; CREATE SERVER $way FOREIGN DATA WRAPPER kafka "
		  . options('', %server) . "; GRANT USAGE ON FOREIGN SERVER $way TO $way");
	as($way, "CREATE USER MAPPING FOR CURRENT_USER SERVER $way " . options('', %$mapping)) if $mapping;
	is(as($way, "SELECT broker_count FROM medallion.check_server('$way')"), '1', "$way: check_server");
	produce_three($way);
	as($way, "CREATE TABLE $way.t (a int) WITH (medallion.server = '$way', medallion.topic = '$ways{$way}[4]')");
	$n_rows{$way} = 3;
	all_arrive($way, "$way: all records arrive");
}

# What is broken, on which way, how it is mended, and what is said of it. Each
# is tried by check_server and by the worker, which goes on by itself.
sub server  { my ($way, $options) = @_; return "ALTER SERVER $way $options" }
sub mapping { my ($way, $options) = @_; return "ALTER USER MAPPING FOR $way SERVER $way $options" }

my ($port) = $secure->address('SSL') =~ /:(\d+)$/;
my ($plain_port) = $secure->plain =~ /:(\d+)$/;
my $right_ca = options('SET', ssl_ca_pem => $secure->pem('ca'));
my $client = options('SET', ssl_certificate_pem => $secure->pem('client'), ssl_key_pem => $secure->pem('client_key'));
# What a broker answers; newer clients do not even show a certificate that it would not trust.
my $stranger = qr/alert (certificate unknown|unknown ca|bad certificate|certificate required)/;
my @mistakes = (
	[ 'wrong authority', 'tls', server('tls', options('SET', ssl_ca_pem => $secure->pem('other_ca'))), server('tls', $right_ca),
		qr/not signed by an authority that is trusted here/ ],
	[ 'no authority', 'tls', server('tls', 'OPTIONS (DROP ssl_ca_pem)'), server('tls', $right_ca =~ s/SET/ADD/r),
		qr/not signed by an authority that is trusted here/ ],
	[ 'wrong host name', 'tls', server('tls', "OPTIONS (SET bootstrap_servers '127.0.0.1:$port')"),
		server('tls', "OPTIONS (SET bootstrap_servers 'localhost:$port')"), qr/certificate is for another host/ ],
	[ 'no TLS on the listener', 'tls', server('tls', "OPTIONS (SET bootstrap_servers '127.0.0.1:$plain_port')"),
		server('tls', "OPTIONS (SET bootstrap_servers 'localhost:$port')"), qr/handshake failed/, qr/may speak no TLS/ ],
	[ 'no certificate', 'mtls', mapping('mtls', 'OPTIONS (DROP ssl_certificate_pem, DROP ssl_key_pem)'),
		mapping('mtls', $client =~ s/SET/ADD/gr), qr/alert (bad certificate|certificate required)/,
		qr/refuses the client's certificate|asks for a certificate/ ],
	[ 'expired certificate', 'mtls', mapping('mtls', options('SET', ssl_certificate_pem => $secure->pem('expired'), ssl_key_pem => $secure->pem('expired_key'))),
		mapping('mtls', $client), qr/alert certificate (unknown|expired)/, qr/expired/ ],
	[ 'certificate of a stranger', 'mtls', mapping('mtls', options('SET', ssl_certificate_pem => $secure->pem('stranger'), ssl_key_pem => $secure->pem('stranger_key'))),
		mapping('mtls', $client), $stranger, qr/authority that/ ],
	[ 'key of another certificate', 'mtls', mapping('mtls', options('SET', ssl_key_pem => $secure->pem('stranger_key'))),
		mapping('mtls', $client), qr/key values mismatch/ ],
	[ 'wrong passphrase', 'mtls_encrypted', mapping('mtls_encrypted', "OPTIONS (SET ssl_key_password '$wrong{key_password}')"),
		mapping('mtls_encrypted', "OPTIONS (SET ssl_key_password '$passwords{key}')"), qr/ssl\.key\.pem failed/ ],
	[ 'wrong password', 'plain_tls', mapping('plain_tls', "OPTIONS (SET sasl_password '$wrong{password}')"),
		mapping('plain_tls', "OPTIONS (SET sasl_password '$passwords{alice}')"), qr/Invalid username or password/, qr/sasl_password/ ],
	[ 'no password', 'plain', mapping('plain', 'OPTIONS (DROP sasl_password)'),
		mapping('plain', "OPTIONS (ADD sasl_password '$passwords{bob}')"), qr/sasl.username and sasl.password must be set/ ],
	[ 'wrong SCRAM password', 'scram_256', mapping('scram_256', "OPTIONS (SET sasl_password '$wrong{password}')"),
		mapping('scram_256', "OPTIONS (SET sasl_password '$passwords{alice}')"), qr/invalid credentials with SASL mechanism SCRAM-SHA-256/ ],
	[ 'wrong mechanism', 'scram_512', server('scram_512', "OPTIONS (SET sasl_mechanism 'SCRAM-SHA-256')"),
		server('scram_512', "OPTIONS (SET sasl_mechanism 'SCRAM-SHA-512')"), qr/invalid credentials with SASL mechanism SCRAM-SHA-256/ ]);

for my $mistake (@mistakes)
{
	my ($name, $way, $break, $mend, $says, $hint) = @$mistake;
	my $offset = -s $node->logfile;
	sql($break);
	my $error = error($way, "SELECT * FROM medallion.check_server('$way')");
	like($error, qr/^psql\S* ERROR:  (08006|HV00L): .*$says/m, "$name: check_server says so");
	like($error, $hint, "$name: and what to look at") if $hint;
	unlike($error, qr/$secret/, "$name: without a secret");
	wait_for($node, "SELECT state = 'failing' FROM medallion.streaming_tables WHERE table_name = '$way.t'::regclass");
	error($way, "SET medallion.kafka_timeout = '2s'; SELECT * FROM medallion.check_server('$way')") for 1 .. 3;
	becomes_like($node, "SELECT sqlstate || ' ' || reason FROM medallion.streaming_tables WHERE table_name = '$way.t'::regclass",
		qr/^(08006|HV00L) .*$says/, "$name: so does the state");
	is(log_lines($offset, qr/ LOG: .*ingest into streaming table "t" failed/), 1, "$name: one line in the log for all attempts");
	sql($mend);
	all_arrive($way, "$name: mended");
}

# A password is changed at the broker, then in the mapping.
my $offset = -s $node->logfile;
$secure->change_password('alice', 'NewSecret2025');
produce_three('plain_tls');
$n_rows{plain_tls} += 3;
wait_for($node, q{SELECT state = 'failing' AND reason LIKE '%Invalid username or password%' FROM medallion.streaming_tables WHERE table_name = 'plain_tls.t'::regclass});
is(sql('SELECT count(*) FROM plain_tls.t'), $n_rows{plain_tls} - 3, 'the old password reads nothing');
sql(mapping('plain_tls', q{OPTIONS (SET sasl_password 'NewSecret2025')}));
all_arrive('plain_tls', 'the new one reads all');
all_arrive($_, "$_: goes on after the broker's restart") for qw(tls mtls plain);

SKIP:
{
	skip 'this librdkafka has the SCRAM of today', 1 unless $old_library;
	sql('CREATE SERVER today FOREIGN DATA WRAPPER kafka '
		  . options('', bootstrap_servers => $secure->address('SASL_PLAINTEXT'), security_protocol => 'sasl_plaintext',
			sasl_mechanism => 'SCRAM-SHA-512', broker_address_family => 'v4')
		  . "; GRANT USAGE ON FOREIGN SERVER today TO plain; CREATE USER MAPPING FOR plain SERVER today OPTIONS (sasl_username 'bob', sasl_password '$passwords{bob}')");
	like(error('plain', q{SELECT * FROM medallion.check_server('today')}), qr/HINT:.*librdkafka \S+ cannot use SCRAM with brokers of Kafka 4/,
		'SCRAM that is too old for the broker is told from a wrong password');
}

# A statement that fails is not written to the log with its secret.
for my $statement (
	"CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (sasl_password '$passwords{bob}')",
	"CREATE USER MAPPING FOR PUBLIC SERVER plain OPTIONS (sasl_pasword '$passwords{bob}')",
	"ALTER USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (ADD sasl_password '$passwords{bob}')",
	"ALTER USER MAPPING FOR PUBLIC SERVER plain OPTIONS (SET sasl_password '$passwords{bob}')")
{
	like(error('plain', $statement), qr/ERROR/, 'refused: ' . substr($statement, 0, 40));
}
like(error('postgres', 'ALTER SERVER tls OPTIONS (SET ssl_ca_pem \'' . $secure->pem('ca') . $secure->pem('client_key') . "')"),
	qr/must not hold a private key/, 'a key has no place in the options of a server');

like(error('postgres', "CREATE SERVER unsafe FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost', sasl_password '$passwords{bob}')"),
	qr/sasl_password" is not allowed on a server/, 'nor has a password');

# Nowhere: the log, what a superuser sees of us, what others see, dumps.
my $log = slurp_file($node->logfile);
ok($log !~ /($secret)/, 'no secret in the log') or diag("there is $1");
my $relations = sql(q{SELECT string_agg(format('SELECT %L AS r, t::text FROM %s t', c.oid::regclass, c.oid::regclass), ' UNION ALL ')
	FROM pg_class c WHERE relnamespace = 'medallion'::regnamespace AND relkind IN ('r', 'v')});
unlike(sql($relations), qr/$secret/, 'nor in any table or view of schema medallion');
unlike(sql(q{SELECT string_agg(a::text, chr(10)) FROM pg_stat_activity a}), qr/$secret/, 'nor in pg_stat_activity');
unlike(sql(q{SELECT string_agg(s::text, chr(10)) FROM pg_foreign_server s}), qr/$secret/, 'nor in the options of servers');
unlike(sql(q{SELECT string_agg(p::text, chr(10)) FROM medallion.kafka_properties() p}), qr/$secret/, 'nor among the properties');
sql('ALTER ROLE tls LOGIN');
my ($dump, $complaints) = ('', '');
ok(IPC::Run::run([ 'pg_dump', '-s', '-U', 'tls', '-T', '*.*', '-d', $node->connstr('postgres') ],
		'<', \undef, '>', \$dump, '2>', \$complaints), 'a role can dump what is not ours') or diag($complaints);
like($dump, qr/CREATE USER MAPPING FOR plain_tls SERVER plain_tls/, 'with the mappings of others');
unlike($dump . $complaints, qr/$secret/, 'but not what is in them');
is(as('tls', q{SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL}), '0', 'nor are these seen in pg_user_mappings');

$node->stop('fast');
done_testing();
