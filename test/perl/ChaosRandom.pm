# ChaosRandom: numbers that depend on a seed alone, the same in every Perl.
package ChaosRandom;

use strict;
use warnings FATAL => 'all';

use Digest::MD5 ();

sub new
{
	my ($class, $seed) = @_;
	return bless { seed => $seed, n => 0 }, $class;
}

# A number of 0 .. $n - 1.
sub below
{
	my ($self, $n) = @_;
	return unpack('N', Digest::MD5::md5("$self->{seed}/" . $self->{n}++)) % $n;
}

1;
