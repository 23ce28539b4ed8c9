# SecureBroker: an Apache Kafka broker that asks for certificates and passwords,
# and the certificates that it takes.
#
#   my $secure = SecureBroker->start('secure', version => ...);
#   $secure->plain                  bootstrap servers without any of it, for tools
#   $secure->address('SSL')         of the listener of that name:
#       SSL             TLS, the broker shows a certificate of a private CA
#       MTLS            TLS, the client must show one as well
#       SASL_SSL        TLS, and a user with PLAIN or SCRAM
#       SASL_PLAINTEXT  the same without TLS
#   $secure->pem('ca')              text of a file: ca, other_ca, client,
#                                   client_key, encrypted_key, expired,
#                                   expired_key, stranger, stranger_key
#
# The broker's certificate is for "localhost" alone, not for 127.0.0.1.
package SecureBroker;

use strict;
use warnings FATAL => 'all';

use File::Path qw(make_path);
use IPC::Run;

use MedallionTest;
use PostgreSQL::Test::Utils;

# Passwords of users; each is a word that is nowhere else.
our %passwords = (
	alice => 'AlicesSecret4711',
	bob => 'BobsSecret0815',
	key => 'KeysSecret1234');

my @mechanisms = ('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512');

sub start
{
	my ($class, $name, %options) = @_;
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/certificates_" . ($0 =~ s{.*/|\.pl$}{}gr) . "_$name";
	my $self = bless { name => $name, dir => $dir }, $class;
	make_path($dir);
	$self->make_certificates;
	$self->{plain} = start_broker($name, $self->properties, %options);
	return $self;
}

sub plain { return $_[0]{plain} }

sub pem { return slurp_file("$_[0]{dir}/$_[1].pem") }

sub address
{
	my ($self, $listener) = @_;
	my $properties = slurp_file(MedallionTest::broker_dir($self->{name}) . '/server.properties');
	$properties =~ m{^advertised\.listeners=.*\b\Q$listener\E://([^,\s]+)}m or die "no listener $listener";
	return $1;
}

# Stop the broker, give a user of PLAIN another password, and start it again.
sub change_password
{
	my ($self, $user, $password) = @_;
	my $file = MedallionTest::broker_dir($self->{name}) . '/server.properties';
	stop_broker($self->{name});
	my $properties = slurp_file($file) =~ s/(user_$user=)"[^"]*"/$1"$password"/gr;
	open my $out, '>', $file or die "could not write $file: $!";
	print $out $properties;
	close $out;
	start_broker($self->{name});
	return;
}

sub properties
{
	my ($self) = @_;
	my $users = join(' ', map { "user_$_=\"$passwords{$_}\"" } qw(alice bob));
	my %properties = (
		(map { ("listener:$_" => /SASL/ ? $_ : 'SSL') } qw(SSL MTLS SASL_SSL SASL_PLAINTEXT)),
		'ssl.keystore.type' => 'PEM',
		'ssl.keystore.location' => "$self->{dir}/broker_store.pem",
		'ssl.truststore.type' => 'PEM',
		'ssl.truststore.location' => "$self->{dir}/ca.pem",
		'listener.name.mtls.ssl.client.auth' => 'required',
		'sasl.enabled.mechanisms' => join(',', @mechanisms),
		'scram:SCRAM-SHA-256' => "[name=alice,password=$passwords{alice}]",
		'scram:SCRAM-SHA-512' => "[name=bob,password=$passwords{bob}]");
	for my $listener (qw(sasl_ssl sasl_plaintext))
	{
		for my $mechanism (map { lc } @mechanisms)
		{
			my $module = $mechanism eq 'plain' ? "plain.PlainLoginModule required $users" : 'scram.ScramLoginModule required';
			$properties{"listener.name.$listener.$mechanism.sasl.jaas.config"} =
			  "org.apache.kafka.common.security.$module;";
		}
	}
	return %properties;
}

sub openssl
{
	my ($self, @arguments) = @_;
	my $output = '';
	IPC::Run::run([ 'openssl', @arguments ], '<', \undef, '>&', \$output, init => sub { chdir $self->{dir} or die $! })
	  or die "openssl @arguments failed:\n$output";
	return;
}

# A key and a certificate that $ca signs, valid for $days from now, or expired
# with a negative number; the extension is subjectAltName or another.
sub make_certificate
{
	my ($self, $name, $ca, $days, $extension) = @_;
	my @extension = defined $extension ? ('-addext', $extension) : ();
	$self->openssl(qw(req -newkey rsa:2048 -nodes -keyout), "${name}_key.pem", '-out', "$name.csr", '-subj', "/CN=$name", @extension);
	$self->openssl(qw(ca -batch -notext -config ca.cnf -name), $ca, '-in', "$name.csr", '-out', "$name.pem",
		'-startdate', '20200101000000Z', '-enddate', $days < 0 ? '20200201000000Z' : '20991231235959Z');
	return;
}

sub make_certificates
{
	my ($self) = @_;
	my $config = '';
	for my $ca (qw(ca other_ca))
	{
		$self->openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout), "${ca}_key.pem", '-out', "$ca.pem", '-subj', "/CN=$ca");
		open my $index, '>', "$self->{dir}/$ca.index" or die $!;
		close $index;
		make_path("$self->{dir}/$ca.new");
		$config .= <<"END";
[$ca]
database = $ca.index
new_certs_dir = $ca.new
certificate = $ca.pem
private_key = ${ca}_key.pem
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
END
	}
	open my $file, '>', "$self->{dir}/ca.cnf" or die $!;
	print $file "$config\[any]\ncommonName = supplied\n";
	close $file;

	$self->make_certificate('broker', 'ca', 1, 'subjectAltName=DNS:localhost');
	$self->make_certificate('client', 'ca', 1);
	$self->make_certificate('expired', 'ca', -1);
	$self->make_certificate('stranger', 'other_ca', 1);
	$self->openssl(qw(pkcs8 -topk8 -in client_key.pem -out encrypted_key.pem -passout), "pass:$passwords{key}");
	open my $store, '>', "$self->{dir}/broker_store.pem" or die $!;
	print $store $self->pem('broker_key'), $self->pem('broker'), $self->pem('ca');
	close $store;
	return;
}

1;
