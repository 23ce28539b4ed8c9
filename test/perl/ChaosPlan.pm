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

# The streaming tables, and what each is good for.
our %TABLES = (
	orders      => { topic => 'orders', columns => 1, small => 1, check => 1 },
	orders_raw  => { topic => 'orders' },
	orders_all  => { topic => 'orders' },
	events      => { topic => 'events', columns => 1, small => 1, check => 1, trigger => 1 },
	events_copy => { topic => 'events' },
	strict      => { topic => 'strict', small => 1 },
	clicks      => { topic => 'clicks', columns => 1 });
our %TOPICS = (orders => 3, events => 2, strict => 2, clicks => 2);
our @VIEWS = qw(silver gold event_sizes click_names);

my $MAX_PARTITIONS = 6;
my @INGEST_POINTS = qw(ingest-begin ingest-fenced ingest-stored ingest-commit ingest-committed);
my @REFRESH_POINTS = qw(refresh-locked refresh-applied refresh-before-frontier refresh-committed);
my @SCHEMAS = qw(bronze attic);

# Steps: how often, what the world must be like, and what they are given.
#   kafka      the broker is up
#   table      a table that no planned session has locked, of those that match
#   running    and that is not paused either
#   unlocked   no table is locked by a planned session
#   if         a condition of its own
my @KINDS = (
	{ kind => 'kill_at',         weight => 9, kafka => 1, table => 'small', running => 1, make => \&make_kill_at },
	{ kind => 'kill_refresh_at', weight => 3, kafka => 1, table => 'orders', running => 1, make => \&make_kill_refresh_at },
	{ kind => 'kill_session_at', weight => 4, kafka => 1, table => 'any', running => 1, make => \&make_kill_session_at },
	{ kind => 'kill_worker',     weight => 7, make => \&make_kill_worker },
	{ kind => 'stop_server',     weight => 4, make => \&make_stop_server },
	{ kind => 'terminate',       weight => 4, make => \&make_terminate },
	{ kind => 'hold',            weight => 9, kafka => 1, table => 'small', running => 1, make => \&make_hold },
	{ kind => 'stop_broker',     weight => 3, kafka => 1, make => \&make_stop_broker },
	{ kind => 'add_partitions',  weight => 3, kafka => 1, if => \&can_grow, make => \&make_add_partitions },
	{ kind => 'delete_records',  weight => 3, kafka => 1, make => \&make_delete_records },
	{ kind => 'gap',             weight => 4, kafka => 1, unlocked => 1, make => \&make_gap },
	{ kind => 'recreate_topic',  weight => 4, kafka => 1, table => 'clicks', running => 1, make => \&make_recreate },
	{ kind => 'toggle_column',   weight => 4, table => 'columns' },
	{ kind => 'rename_column',   weight => 3, table => 'columns' },
	{ kind => 'rename_table',    weight => 2, table => 'any', make => \&make_rename_table },
	{ kind => 'rename_schema',   weight => 1, unlocked => 1 },
	{ kind => 'check',           weight => 4, table => 'check', make => \&make_check },
	{ kind => 'index',           weight => 2, table => 'any' },
	{ kind => 'vacuum_full',     weight => 3, table => 'any' },
	{ kind => 'lock',            weight => 5, table => 'any', make => \&make_lock },
	{ kind => 'lock_checkpoint', weight => 3, kafka => 1, table => 'any', running => 1, make => \&make_lock_checkpoint },
	{ kind => 'poison',          weight => 4, kafka => 1, make => \&make_poison },
	{ kind => 'stuck',           weight => 3, kafka => 1, table => 'strict', running => 1, make => \&make_stuck },
	{ kind => 'pause',           weight => 4, table => 'any', running => 1, make => \&make_pause },
	{ kind => 'requeue',         weight => 6, table => 'columns', make => \&make_requeue },
	{ kind => 'discard',         weight => 3, table => 'any', make => \&make_percent },
	{ kind => 'expire',          weight => 1, make => sub { } },
	{ kind => 'replay',          weight => 6, kafka => 1, table => 'any', make => \&make_replay },
	{ kind => 'lose',            weight => 2, kafka => 1, table => 'plain', make => \&make_percent },
	{ kind => 'seek',            weight => 4, kafka => 1, table => 'any', make => \&make_seek },
	{ kind => 'ingest_once',     weight => 4, kafka => 1, table => 'any', make => \&make_ingest_once },
	{ kind => 'race',            weight => 5, kafka => 1, table => 'columns', make => \&make_race },
	{ kind => 'workers',         weight => 3, make => \&make_workers },
	{ kind => 'forget_batches',  weight => 1, make => sub { } },
	{ kind => 'alter_options',   weight => 2, table => 'any', make => \&make_alter_options },
	{ kind => 'new_table',       weight => 3, kafka => 1, make => \&make_new_table },
	{ kind => 'drop_table',      weight => 2, table => 'extra', make => sub { my ($plan, $step) = @_; delete $plan->{tables}{ $step->{table} }; return } });

sub make_plan
{
	my ($seed, $n_rounds) = @_;
	my $plan = bless {
		random => ChaosRandom->new($seed),
		partitions => {%TOPICS},
		next_id => { map { $_ => 0 } keys %TOPICS },
		tables => { map { $_ => {%{ $TABLES{$_} }, name => $_} } keys %TABLES },
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
	delete @$_{qw(locked paused)} for values %{ $plan->{tables} };
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
	} @KINDS;
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

sub topic_of { my ($plan, $name) = @_; return $plan->{tables}{$name}{topic} }

# More batches than deaths, of records that all count.
sub make_kill_at
{
	my ($plan, $step) = @_;
	$step->{point} = $plan->pick(@INGEST_POINTS);
	$step->{times} = $plan->between(1, 3);
	$plan->add_feed($step, $plan->topic_of($step->{table}), n => $plan->between(500, 700), transactional => 0, rate => 0);
	return;
}

sub make_kill_refresh_at
{
	my ($plan, $step) = @_;
	$step->{point} = $plan->pick(@REFRESH_POINTS);
	$plan->add_feed($step, 'orders', n => $plan->between(300, 500), transactional => 0, poison => 0);
	return;
}

sub make_kill_session_at
{
	my ($plan, $step) = @_;
	$step->{point} = $plan->pick(qw(replay-begin replay-stored requeue-locked requeue-slice requeue-slice));
	$step->{table} = 'orders' if $step->{point} =~ /requeue/ && !$plan->{tables}{orders}{locked};
	$step->{percent} = $plan->between(0, 60);
	return;
}

sub make_kill_worker { my ($plan, $step) = @_; $step->{worker} = $plan->pick(qw(ingest ingest ingest ingest refresh supervisor launcher)); return }
sub make_stop_server { my ($plan, $step) = @_; $step->{mode} = $plan->pick(qw(immediate immediate fast)); return }
sub make_terminate   { my ($plan, $step) = @_; $step->{worker} = $plan->pick(qw(ingest ingest refresh supervisor launcher)); return }
sub make_percent     { my ($plan, $step) = @_; $step->{percent} = $plan->between(10, 100); return }

sub make_hold
{
	my ($plan, $step) = @_;
	$step->{point} = $plan->pick(@INGEST_POINTS);
	$step->{action} = $plan->pick(qw(seek pause ingest_once toggle_column rename_column check requeue correct replay
		  vacuum_full kill terminate second_reader));
	$step->{percent} = $plan->between(10, 100);
	# what needs columns is done to a table that has some
	$step->{action} = 'ingest_once'
	  if $step->{action} =~ /column|check/ && !$plan->{tables}{ $step->{table} }{columns};
	$plan->add_feed($step, $plan->topic_of($step->{table}), n => $plan->between(100, 300), transactional => 0);
	return;
}

sub make_stop_broker
{
	my ($plan, $step) = @_;
	$step->{signal} = $plan->pick(qw(TERM KILL KILL STOP));
	# a transaction that is open when its broker goes holds up readers for a minute
	$_->{transactional} = 0 for @{ $step->{feeds} };
	$plan->{broker_back} = $plan->between(1, 3);
	return;
}

sub can_grow { my ($plan) = @_; return grep { $plan->{partitions}{$_} < $MAX_PARTITIONS } sort keys %{ $plan->{partitions} } }

sub make_add_partitions
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick($plan->can_grow);
	$step->{total} = ++$plan->{partitions}{ $step->{topic} };
	return;
}

sub make_delete_records
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick(qw(orders events clicks));
	$step->{partition} = $plan->{random}->below($plan->{partitions}{ $step->{topic} });
	$step->{percent} = $plan->between(10, 100);
	return;
}

sub make_gap
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick(sort keys %{ $plan->{partitions} });
	$step->{percent} = $plan->between(10, 100);
	$plan->add_feed($step, $step->{topic});
	return;
}

# The new topic has any number of partitions, and records in any of them.
sub make_recreate
{
	my ($plan, $step) = @_;
	my $partitions = $plan->between(1, 3);
	$plan->add_feed($step, 'clicks', transactional => 0, rate => 0);
	# after a seek, nothing is known of partitions that get no record
	if ($plan->chance(50))
	{
		$step->{seek_first} = 1;
		$step->{feeds}[-1]{only} //= $plan->{random}->below($plan->{partitions}{clicks});
	}
	$step->{topic} = 'clicks';
	$step->{while} = $plan->pick(qw(running running paused stopped killed));
	$plan->{partitions}{clicks} = $step->{total} = $partitions;
	my $later = { feeds => [] };
	$plan->add_feed($later, 'clicks', n => $plan->pick(1, 5, 50, 500, 1500), transactional => 0, rate => 0, poison => 0);
	$step->{second_feed} = $later->{feeds}[0];
	# it takes all tables of the topic along
	delete $plan->{tables}{$_} for grep { $plan->{tables}{$_}{extra} && $plan->{tables}{$_}{topic} eq 'clicks' } keys %{ $plan->{tables} };
	return;
}

sub make_rename_table
{
	my ($plan, $step) = @_;
	$step->{to} = "$step->{table}_" . $plan->between(1, 9);
	$step->{schema} = $plan->pick(@SCHEMAS);
	return;
}

sub make_check
{
	my ($plan, $step) = @_;
	$step->{modulus} = $plan->pick(0, 3, 7, 20);
	return;
}

sub make_lock
{
	my ($plan, $step) = @_;
	$step->{mode} = $plan->pick('ACCESS EXCLUSIVE', 'ACCESS EXCLUSIVE', 'EXCLUSIVE', 'SHARE', 'ROW EXCLUSIVE');
	$plan->{tables}{ $step->{table} }{locked} = $plan->between(1, 3);
	return;
}

sub make_lock_checkpoint
{
	my ($plan, $step) = @_;
	$plan->add_feed($step, $plan->topic_of($step->{table}), transactional => 0);
	return;
}

sub make_poison
{
	my ($plan, $step) = @_;
	my $topic = $plan->pick(qw(orders events clicks));
	$plan->add_feed($step, $topic, n => $plan->between(150, 400), poison => $plan->pick(30, 60, 100));
	return;
}

sub make_stuck
{
	my ($plan, $step) = @_;
	my $n = $plan->between(100, 200);
	$plan->add_feed($step, 'strict', n => $n, transactional => 0, bad_at => $plan->{random}->below($n));
	$step->{cure} = $plan->pick(qw(dead_letter seek));
	return;
}

sub make_pause
{
	my ($plan, $step) = @_;
	$plan->{tables}{ $step->{table} }{paused} = $plan->between(1, 4);
	return;
}

sub make_requeue
{
	my ($plan, $step) = @_;
	$plan->make_percent($step);
	$step->{corrected} = $plan->chance(50) ? 1 : 0;
	$step->{uncheck} = $plan->chance(50) ? 1 : 0;
	return;
}

sub make_replay
{
	my ($plan, $step) = @_;
	$step->{from} = $plan->chance(40) ? 0 : $plan->between(0, 80);
	$step->{to} = $plan->chance(50) ? 100 : $plan->between($step->{from}, 100);
	# in the background others go on, and may kill it
	$step->{background} = $plan->chance(50) ? 1 : 0;
	return;
}

sub make_seek
{
	my ($plan, $step) = @_;
	$step->{percent} = $plan->pick(0, 20, 50, 90, 100);
	$step->{pause_first} = $plan->chance(50) ? 1 : 0;
	$plan->add_feed($step, $plan->topic_of($step->{table}));
	return;
}

sub make_ingest_once
{
	my ($plan, $step) = @_;
	$step->{max_records} = $plan->pick(1, 10, 100, 0);
	$step->{times} = $plan->between(1, 4);
	$plan->add_feed($step, $plan->topic_of($step->{table}));
	return;
}

sub make_race
{
	my ($plan, $step) = @_;
	$step->{sessions} = [ map { $plan->pick(qw(requeue correct correct discard replay ingest_once)) } 1 .. $plan->between(2, 4) ];
	$step->{percent} = $plan->between(30, 100);
	return;
}

sub make_workers
{
	my ($plan, $step) = @_;
	$step->{n} = $plan->{settings}{workers} = $plan->pick(grep { $_ != $plan->{settings}{workers} } 1 .. 3);
	return;
}

sub make_alter_options
{
	my ($plan, $step) = @_;
	$step->{flush_ms} = $plan->pick(0, 10, 10, 50, 200);
	return;
}

sub make_new_table
{
	my ($plan, $step) = @_;
	my $name = 'extra_' . ++$plan->{n_extra};
	$step->{table} = $name;
	$step->{topic} = $plan->pick(sort keys %{ $plan->{partitions} });
	$step->{start_at} = $plan->pick(qw(earliest latest offsets));
	$step->{percent} = $plan->between(0, 100);
	$step->{format} = $plan->pick(qw(raw text));
	$plan->{tables}{$name} = { name => $name, topic => $step->{topic}, extra => 1 };
	return;
}

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
