# The chaos harness: carries out the schedules of seeds, and lets the oracle
# judge after each round.  test/chaos starts it; its output is TAP.
#
#   chaos.pl [--seed N|random]... [--rounds N] [--hours N] [--plan]
use strict;
use warnings FATAL => 'all';

use Getopt::Long;
use Test::More;

use PostgreSQL::Test::Utils;

use ChaosBreak;
use ChaosOracle;
use ChaosParts;
use ChaosPlan;
use ChaosRepair;
use ChaosTopics;
use ChaosWorld;
use MedallionTest qw(start_broker);

my ($rounds, $hours, $plan_only, @seeds) = (8, 0, 0);
GetOptions('seed=s' => \@seeds, 'rounds=i' => \$rounds, 'hours=f' => \$hours, 'plan' => \$plan_only)
  or refuse('unknown option; test/chaos --help lists them');
@seeds = ('random') if !@seeds;
for (@seeds)
{
	$_ = int(rand(1_000_000_000)) if $_ eq 'random';
	refuse("--seed takes a number or \"random\", not \"$_\"") if !/^\d+$/;
}
refuse('--rounds takes a number that is greater than 0') if $rounds < 1;
refuse("unknown argument \"$ARGV[0]\"") if @ARGV;

# whoever ends us early ends the servers, too
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { die "ended by a signal\n" };

my $started = time;
while (defined(my $seed = shift @seeds))
{
	diag("seed $seed: $rounds rounds");
	if ($plan_only) { print_plan($seed) }
	else            { last if !run_seed($seed) }
	push @seeds, $seed + 1 if !@seeds && time < $started + $hours * 3600;
}
done_testing();

# The test modules send the error output into a log: this goes around it.
sub refuse
{
	diag("test/chaos: $_[0]");
	exit 2;
}

sub print_plan
{
	my ($seed) = @_;
	my $round = 0;
	for my $steps (ChaosPlan::make_plan($seed, $rounds))
	{
		note('round ', ++$round);
		note(ChaosPlan::describe($_)) for @$steps;
	}
	ok(1, "the schedule of seed $seed");
	return;
}

# Carry out one schedule in a world of its own; false if it failed.
sub run_seed
{
	my ($seed) = @_;
	my @plan = ChaosPlan::make_plan($seed, $rounds);
	my (@done, $world);
	my $round = 0;
	my $ok = eval {
		$world = ChaosWorld->new($seed);
		for my $steps (@plan)
		{
			$round++;
			push @done, "round $round";
			for my $step (@$steps)
			{
				push @done, ChaosPlan::describe($step);
				note($done[-1]);
				do_step($world, $step);
			}
			push @done, "     set right, and judged";
			note($done[-1]);
			settle($world);
			last if !ChaosOracle::world_ok($world, "seed $seed round $round");
		}
		1;
	};
	if (!$ok)
	{
		my $error = $@;
		ok(0, "seed $seed round $round");
		diag($error);
	}
	$ok &&= !$world->{failed};
	tell_failure($seed, $round, $world, @done) if !$ok;
	$world->destroy if $world;
	return $ok;
}

sub do_step
{
	my ($world, $step) = @_;
	my ($code) = grep { defined } map { $_->can("do_$step->{kind}") } qw(ChaosBreak ChaosRepair ChaosTopics ChaosParts);
	die "no step is called \"$step->{kind}\"" if !$code;
	ChaosRepair::ensure_running($world, $step->{table}) if $step->{table} && $world->{tables}{ $step->{table} };
	$code->($world, $step);
	return;
}

# End all mischief and wait until the tables have read everything.
sub settle
{
	my ($world) = @_;
	$world->write_conf(debug_points => '');
	$world->drop_session($_) for keys %{ $world->{sessions} };
	ChaosBreak::do_start_broker($world) if $world->{broker_is_down};
	$world->wait_for('true');
	$world->finish_feeds;
	$world->join_background;
	ChaosParts::quicken_all($world);
	ChaosTopics::widen_all($world);
	for my $name (sort keys %{ $world->{tables} })
	{
		$world->sql("SELECT medallion.resume($world->{tables}{$name}{oid})");
	}
	$world->read_ledger($_) for grep { !$world->{topics}{$_}{gone} } sort keys %{ $world->{topics} };
	ChaosRepair::cure_gap($world, 'strict');
	ChaosRepair::wait_until_caught_up($world, $_) for sort keys %{ $world->{tables} };
	# too many bad records pause a table even with the last of them
	$world->wait_for(sub {
		ChaosRepair::ensure_running($world, 'clicks');
		return $world->sql(q{SELECT count(*) FROM medallion.streaming_tables WHERE state <> 'running'}) eq '0';
	}, 'all tables to run');
	return;
}

sub tell_failure
{
	my ($seed, $round, $world, @done) = @_;
	diag('');
	diag("seed $seed failed in round $round. What was done:");
	diag($_) for @done;
	diag("the state of the tables:\n" . $world->state) if $world && $world->{node};
	diag("to do it again: test/chaos --seed $seed --rounds $round");
	diag('server log: ' . $world->{node}->logfile) if $world && $world->{node};
	return;
}
