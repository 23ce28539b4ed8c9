# ChaosPlan: what the chaos harness will do, decided by the seed alone.
#
#   my @rounds = ChaosPlan::make_plan($seed, $n_rounds);
#
# A plan is made before anything runs and never looks at a clock, a server or
# an answer, so that a seed stands for one schedule; a plan of fewer rounds is
# the beginning of one of more.  What a step needs to know at run time it is
# told as a part of what it finds there ("the records of partition 1 below 40 %
# of its length").
#
# A round is a list of steps, a step { nr, kind, feeds => [...], ... }.  A feed
# is a burst of records: { topic, first, n, seed, poison (in percent), bad_at,
# transactional, rate, partitions, only }.
package ChaosPlan;

use strict;
use warnings FATAL => 'all';

use ChaosRandom;
use ChaosSteps;

# The streaming tables, and what each is good for: "slow" ones can get rows that take long.
our %TABLES = (
	orders      => { topic => 'orders', columns => 1, small => 1, check => 1, slow => 1 },
	orders_raw  => { topic => 'orders' },
	orders_all  => { topic => 'orders' },
	events      => { topic => 'events', columns => 1, small => 1, check => 1, trigger => 1 },
	events_copy => { topic => 'events' },
	strict      => { topic => 'strict', small => 1 },
	clicks      => { topic => 'clicks', columns => 1 },
	# all topics that the plan calls sensor_N, but some
	sensors      => { pattern => 1, columns => 1, small => 1, check => 1, slow => 1 },
	orders_parts => { topic => 'orders', columns => 1, small => 1, check => 1, slow => 1 });
our @SENSORS = qw(sensor_1 sensor_2);
our %TOPICS = (orders => 3, events => 2, strict => 2, clicks => 2, sensor_1 => 2, sensor_2 => 1);
our @PARTS = qw(a b c d rest);
our @VIEWS = qw(silver gold event_sizes click_names sensor_names part_names);

sub make_plan
{
	my ($seed, $n_rounds) = @_;
	my $plan = bless {
		random => ChaosRandom->new($seed),
		partitions => {%TOPICS},
		next_id => { map { $_ => 0 } keys %TOPICS },
		tables => { map { $_ => {%{ $TABLES{$_} }, name => $_} } keys %TABLES },
		sensors => { map { $_ => { excluded => 0 } } @SENSORS },
		parts => { map { $_ => 0 } @PARTS },
		n_sensors => scalar @SENSORS,
		n_steps => 0,
		n_extra => 0,
		settings => { workers => 1 },
	  },
	  'ChaosPlan';
	return map { [ $plan->make_round ] } 1 .. $n_rounds;
}

sub pick    { my ($plan, @items) = @_; return $items[ $plan->{random}->below(scalar @items) ] }
sub between { my ($plan, $from, $to) = @_; return $from + $plan->{random}->below($to - $from + 1) }
sub chance  { my ($plan, $percent) = @_; return $plan->{random}->below(100) < $percent }

sub make_round
{
	my ($plan) = @_;
	my @steps;
	# at its end a round is set right: nothing is locked, paused or down
	$plan->{broker_back} = 0;
	delete @$_{qw(locked paused dragged)} for values %{ $plan->{tables} };
	$_->{excluded} = 0 for values %{ $plan->{sensors} };
	my $n = $plan->between(6, 10);
	while ($n-- > 0)
	{
		push @steps, $plan->end_what_is_due;
		push @steps, $plan->make_step;
	}
	$_->{nr} = ++$plan->{n_steps} for @steps;
	return @steps;
}

# Steps that end what earlier ones began.
sub end_what_is_due
{
	my ($plan) = @_;
	my @steps;
	if ($plan->{broker_back} && --$plan->{broker_back} == 0)
	{
		push @steps, { kind => 'start_broker', feeds => [] };
	}
	for my $table ($plan->tables)
	{
		if ($table->{locked} && --$table->{locked} == 0)
		{
			push @steps, { kind => 'unlock', table => $table->{name}, feeds => [] };
		}
		if ($table->{paused} && --$table->{paused} == 0)
		{
			push @steps, { kind => 'resume', table => $table->{name}, feeds => [] };
		}
		if ($table->{dragged} && !$table->{locked} && --$table->{dragged} == 0)
		{
			push @steps, { kind => 'unslow', table => $table->{name}, feeds => [] };
		}
	}
	return (@steps, $plan->end_what_tables_miss);
}

# Topics that a pattern leaves out, and partitions that are not in their table.
sub end_what_tables_miss
{
	my ($plan) = @_;
	my @steps;
	for my $topic ($plan->{tables}{sensors}{locked} ? () : sort keys %{ $plan->{sensors} })
	{
		my $state = $plan->{sensors}{$topic};
		push @steps, { kind => 'widen_pattern', table => 'sensors', topic => $topic, feeds => [] }
		  if $state->{excluded} && --$state->{excluded} == 0;
	}
	for my $part ($plan->{tables}{orders_parts}{locked} ? () : @PARTS)
	{
		push @steps, { kind => 'attach_part', table => 'orders_parts', part => $part, feeds => [] }
		  if $plan->{parts}{$part} && --$plan->{parts}{$part} == 0;
	}
	return @steps;
}

sub tables { my ($plan) = @_; return map { $plan->{tables}{$_} } sort keys %{ $plan->{tables} } }

# Tables that a step of this kind may take.
sub tables_for
{
	my ($plan, $kind) = @_;
	my $what = $kind->{table};
	return grep {
		     !$_->{locked}
		  && !($kind->{running} && $_->{paused})
		  && ($what eq 'any' || ($what eq 'plain' ? !$_->{trigger} && $_->{name} ne 'strict' : $_->{$what}) || $_->{name} eq $what)
	} $plan->tables;
}

sub make_step
{
	my ($plan) = @_;
	my $kind;
	my @possible = grep {
		     !($_->{kafka} && $plan->{broker_back})
		  && (!$_->{if} || $_->{if}->($plan))
		  && !($_->{unlocked} && grep { $_->{locked} } $plan->tables)
		  && (!$_->{table} || $plan->tables_for($_))
	} @ChaosSteps::KINDS;
	my $total = 0;
	$total += $_->{weight} for @possible;
	my $n = $plan->{random}->below($total);
	for (@possible)
	{
		$kind = $_;
		last if ($n -= $_->{weight}) < 0;
	}
	my $step = { kind => $kind->{kind}, feeds => [] };
	$step->{table} = $plan->pick($plan->tables_for($kind))->{name} if $kind->{table};
	# a stream goes on under most steps
	if (!$plan->{broker_back} && $plan->chance(80))
	{
		for my $topic (sort keys %{ $plan->{partitions} })
		{
			$plan->add_feed($step, $topic) if $plan->chance(45);
		}
	}
	$kind->{make}->($plan, $step) if $kind->{make};
	return $step;
}

# Let records be sent to a topic at the beginning of a step: at most one feed
# for each topic, which takes further wishes.
sub add_feed
{
	my ($plan, $step, $topic, %wishes) = @_;
	my ($feed) = grep { $_->{topic} eq $topic } @{ $step->{feeds} };
	if (!$feed)
	{
		$feed = {
			topic => $topic,
			n => $plan->between(20, 400),
			seed => $plan->{random}->below(1_000_000_000),
			poison => $topic ne 'strict' && $plan->chance(40) ? $plan->pick(1, 2, 5) : 0,
			transactional => $plan->chance(30) ? 1 : 0,
			rate => $plan->pick(0, 0, 300, 1000),
			partitions => $plan->{partitions}{$topic} };
		$feed->{only} = $plan->{random}->below($feed->{partitions}) if $plan->chance(15);
		push @{ $step->{feeds} }, $feed;
	}
	else
	{
		$plan->{next_id}{$topic} = $feed->{first};
	}
	@$feed{ keys %wishes } = values %wishes;
	$feed->{first} = $plan->{next_id}{$topic};
	$plan->{next_id}{$topic} += $feed->{n};
	return $feed;
}

# The topic of a table, or one of those that its pattern finds.
sub topic_of { my ($plan, $name) = @_; return $plan->{tables}{$name}{topic} // $plan->pick($plan->read_sensors) }

sub read_sensors { my ($plan) = @_; return grep { !$plan->{sensors}{$_}{excluded} } sort keys %{ $plan->{sensors} } }
sub all_sensors  { my ($plan) = @_; return grep { /^sensor_/ } sort keys %{ $plan->{partitions} } }

# One line for people: what a step does, and what is sent meanwhile.
sub describe
{
	my ($step) = @_;
	my @words;
	for my $name (sort grep { !/^(nr|kind|feeds|second_feed)$/ } keys %$step)
	{
		my $value = $step->{$name};
		push @words, "$name=" . (ref $value ? join(',', @$value) : $value);
	}
	return join(' ', sprintf('%3d. %s', $step->{nr}, $step->{kind}), @words,
		map { describe_feed($_) } @{ $step->{feeds} }, $step->{second_feed} // ());
}

sub describe_feed
{
	my ($feed) = @_;
	return sprintf('[%s %d-%d%s%s%s%s]', $feed->{topic}, $feed->{first}, $feed->{first} + $feed->{n} - 1,
		$feed->{poison} ? " poison $feed->{poison}%" : defined $feed->{bad_at} ? " $feed->{bad_at} is poison" : '', $feed->{transactional} ? ' transactions' : '',
		$feed->{rate} ? " $feed->{rate}/s" : '', defined $feed->{only} ? " to partition $feed->{only}" : '');
}

1;
