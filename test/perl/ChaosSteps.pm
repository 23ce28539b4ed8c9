# ChaosSteps: the kinds of steps that a plan of the chaos harness has (ChaosPlan),
# how often, when they can be, and what each is given.
package ChaosSteps;

use strict;
use warnings FATAL => 'all';

my $MAX_PARTITIONS = 6;
my $MAX_SENSORS = 4;
my @INGEST_POINTS = qw(ingest-begin ingest-fenced ingest-stored ingest-commit ingest-committed);
my @REFRESH_POINTS = qw(refresh-locked refresh-applied refresh-before-frontier refresh-committed);
my @SCHEMAS = qw(bronze attic);

# Steps: how often, what the world must be like, and what they are given.
#   kafka      the broker is up
#   table      a table that no planned session has locked, of those that match
#   running    and that is not paused either
#   unlocked   no table is locked by a planned session
#   if         a condition of its own
our @KINDS = (
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
	{ kind => 'add_topic',       weight => 4, kafka => 1, if => \&can_add_topic, make => \&make_add_topic },
	{ kind => 'drop_topic',      weight => 3, kafka => 1, table => 'sensors', running => 1, if => \&can_drop_topic, make => \&make_drop_topic },
	{ kind => 'remake_topic',    weight => 4, kafka => 1, table => 'sensors', running => 1, if => \&can_spare_topic, make => \&make_remake_topic },
	{ kind => 'narrow_pattern',  weight => 3, table => 'sensors', if => \&can_spare_topic, make => \&make_narrow_pattern },
	{ kind => 'detach_part',     weight => 5, table => 'orders_parts', if => \&can_detach, make => \&make_detach_part },
	{ kind => 'drop_part',       weight => 3, table => 'orders_parts', if => \&can_detach, make => \&make_detach_part },
	{ kind => 'slow',            weight => 6, kafka => 1, table => 'slow', running => 1, make => \&make_slow },
	{ kind => 'stall',           weight => 3, kafka => 1, table => 'slow', running => 1, make => \&make_slow },
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
	$step->{topic} = $plan->pick(can_grow($plan));
	$step->{total} = ++$plan->{partitions}{ $step->{topic} };
	return;
}

sub make_delete_records
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick(qw(orders events clicks), $plan->all_sensors);
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
	forget_extras($plan, 'clicks');
	return;
}

# A topic that is deleted takes the tables along that were made for it alone.
sub forget_extras
{
	my ($plan, $topic) = @_;
	delete $plan->{tables}{$_} for grep { $plan->{tables}{$_}{extra} && $plan->{tables}{$_}{topic} eq $topic } keys %{ $plan->{tables} };
	return;
}

sub can_add_topic   { my ($plan) = @_; return $plan->all_sensors < $MAX_SENSORS }
sub can_spare_topic { my ($plan) = @_; return $plan->read_sensors > 1 }

# Topics that were made anew are of no pattern; of the others one stays.
sub can_drop_topic
{
	my ($plan) = @_;
	return ((grep { !$plan->{sensors}{$_} } $plan->all_sensors), can_spare_topic($plan) ? $plan->read_sensors : ());
}

# A new topic, and the records that it begins with.
sub new_sensor
{
	my ($plan, $step) = @_;
	my $name = 'sensor_' . ++$plan->{n_sensors};
	$plan->{partitions}{$name} = $step->{total} = $plan->between(1, 3);
	$plan->{next_id}{$name} = 0;
	my $later = { feeds => [] };
	$plan->add_feed($later, $name, n => $plan->pick(1, 5, 50, 300), transactional => 0, rate => 0, poison => 0);
	$step->{second_feed} = $later->{feeds}[0];
	return $name;
}

sub make_add_topic
{
	my ($plan, $step) = @_;
	$step->{topic} = new_sensor($plan, $step);
	$plan->{sensors}{ $step->{topic} } = { excluded => 0 };
	return;
}

sub make_drop_topic
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick(can_drop_topic($plan));
	$plan->add_feed($step, $step->{topic}, transactional => 0);
	forget_sensor($plan, $step->{topic});
	return;
}

sub forget_sensor
{
	my ($plan, $topic) = @_;
	delete $plan->{$_}{$topic} for qw(sensors partitions);
	forget_extras($plan, $topic);
	return;
}

# Another topic of the same name in Kafka; a table of its own reads it.
sub make_remake_topic
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick($plan->read_sensors);
	$plan->add_feed($step, $step->{topic}, transactional => 0, rate => 0);
	forget_sensor($plan, $step->{topic});
	$step->{while} = $plan->pick(qw(running gone paused stopped killed));
	$step->{anew} = new_sensor($plan, $step);
	$step->{extra} = 'extra_' . ++$plan->{n_extra};
	$plan->{tables}{ $step->{extra} } = { name => $step->{extra}, topic => $step->{anew}, extra => 1 };
	return;
}

sub make_narrow_pattern
{
	my ($plan, $step) = @_;
	$step->{topic} = $plan->pick($plan->read_sensors);
	$plan->{sensors}{ $step->{topic} }{excluded} = $plan->between(1, 3);
	return;
}

sub can_detach { my ($plan) = @_; return grep { !$plan->{parts}{$_} } @ChaosPlan::PARTS }

# It comes back, or another one in its place, also in a later round.
sub make_detach_part
{
	my ($plan, $step) = @_;
	$step->{part} = $plan->pick(can_detach($plan));
	$plan->{parts}{ $step->{part} } = $plan->between(1, 6);
	$plan->add_feed($step, 'orders') if $plan->chance(50);
	return;
}

# Rows take long from here on; more of them come than a batch holds.
sub make_slow
{
	my ($plan, $step) = @_;
	$step->{by} = $plan->pick(qw(trigger check));
	$plan->{tables}{ $step->{table} }{dragged} = $plan->between(1, 3) if $step->{kind} eq 'slow';
	$plan->add_feed($step, $plan->topic_of($step->{table}), n => $plan->between(500, 700), transactional => 0, poison => 0, rate => 0);
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
	$step->{part} = $plan->pick(can_detach($plan)) if $step->{table} eq 'orders_parts' && can_detach($plan) && $plan->chance(50);
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
	my $topic = $plan->pick(qw(orders events clicks), $plan->all_sensors);
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
	make_percent($plan, $step);
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

1;
