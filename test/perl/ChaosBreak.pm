# ChaosBreak: steps of the chaos harness that break processes, servers and topics.
#
# A function per kind of step, do_KIND($world, $step).  Each ends when what it
# has done is a fact, and leaves alone what the tables make of it: that is the
# oracle's.
package ChaosBreak;

use strict;
use warnings FATAL => 'all';

use Test::More;
use Time::HiRes qw(usleep);

use ChaosOracle;
use ChaosRepair;
use IngestTest qw(count_log);
use MedallionTest qw(add_partitions delete_topic kafka_tool signal_broker start_broker stop_broker);

my $KILL_LINE = qr/terminated by signal 9/;

# Wait until more than $before processes have been killed, and the server is back.
sub wait_for_deaths
{
	my ($world, $before) = @_;
	$world->wait_for(sub { count_log($world->{node}, $KILL_LINE) > $before }, 'a process to die');
	return $world->wait_for('true');
}

sub deaths { my ($world) = @_; return count_log($world->{node}, $KILL_LINE) }

# --- processes ---

sub do_kill_at
{
	my ($world, $step) = @_;
	my $before = deaths($world);
	$world->write_conf(debug_points => "$step->{point}!");
	$world->start_feeds($step);
	wait_for_deaths($world, $before + $step->{times} - 1);
	$world->write_conf(debug_points => '');
	return;
}

sub do_kill_refresh_at
{
	my ($world, $step) = @_;
	my $before = deaths($world);
	$world->write_conf(debug_points => "$step->{point}!");
	$world->start_feeds($step);
	wait_for_deaths($world, $before);
	$world->write_conf(debug_points => '');
	return;
}

# A session that requeues or replays dies on its way, if it gets that far.
sub do_kill_session_at
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $query = $step->{point} =~ /replay/ ? ChaosRepair::replay_query($world, $step->{table}, $step->{percent}, 100)
	  : ChaosRepair::correct_query($world, $step->{table}, 100);
	my $session = $world->start_background($ChaosRepair::REPLAY_MAY_FAIL, "SET medallion.debug_points = '$step->{point}!'", $query);
	$world->join_background;
	$world->wait_for('true');
	return;
}

# Pid of a worker of ours; 0 if there is none because there is nothing to do.
sub worker
{
	my ($world, $worker) = @_;
	my $pid = 0;
	$world->wait_for(sub {
		my ($ok, $answer) = $world->try_sql('SELECT coalesce(min(pid), 0) || \' \' ||'
			  . ' (SELECT count(*) FROM medallion.streaming_tables WHERE state <> \'paused\')'
			  . " FROM pg_stat_activity WHERE backend_type LIKE 'medallion $worker%'");
		my $n;
		($pid, $n) = split / /, $answer if $ok;
		return $ok && ($pid || !$n);
	}, "a worker: $worker");
	return $pid;
}

sub do_kill_worker
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $before = deaths($world);
	my $pid = worker($world, $step->{worker});
	return if !$pid || !kill 'KILL', $pid;
	# one that has ended by itself just then was not killed
	$world->wait_for(sub { deaths($world) > $before || !kill 0, $pid }, 'a process to die');
	$world->wait_for('true');
	return;
}

sub do_terminate
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $pid = worker($world, $step->{worker}) or return;
	$world->sql("SELECT pg_terminate_backend($pid, 60000)");
	$world->wait_for("count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND backend_type LIKE 'medallion $step->{worker}%'");
	return;
}

sub do_stop_server
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->{node}->stop($step->{mode});
	$world->{node}->start;
	return;
}

# Stop a worker within its batch, do something to its table meanwhile, and let
# it go on.
sub do_hold
{
	my ($world, $step) = @_;
	my $held = q{FROM pg_stat_activity WHERE backend_type LIKE 'medallion ingest%' AND wait_event = 'advisory'};
	$world->hold_session('hold', "SELECT pg_advisory_lock(1296319556, medallion.debug_point_id('$step->{point}'))");
	$world->write_conf(debug_points => $step->{point});
	$world->start_feeds($step);
	$world->wait_for("count(*) > 0 $held");
	if ($step->{action} eq 'kill')
	{
		my $before = deaths($world);
		my $pid = $world->sql("SELECT coalesce(min(pid), 0) $held");
		kill 'KILL', $pid if $pid;
		wait_for_deaths($world, $before) if $pid;
	}
	elsif ($step->{action} eq 'terminate')
	{
		$world->sql("SELECT pg_terminate_backend(pid) $held");
	}
	else
	{
		my ($allowed, @queries) = ChaosRepair::queries_for($world, $step->{action}, $step->{table}, $step->{percent});
		my $session = $world->start_background($allowed, q{SET medallion.debug_points = ''}, @queries);
		$world->wait_until_blocked_or_done($session);
	}
	$world->write_conf(debug_points => '');
	$world->drop_session('hold');
	$world->join_background;
	$world->sql("SELECT medallion.resume($world->{tables}{$step->{table}}{oid})") if $step->{action} =~ /pause|second_reader/;
	return;
}

sub do_workers { my ($world, $step) = @_; $world->start_feeds($step); $world->write_conf(workers => $step->{n}); return }

# --- Kafka ---

# What is open in a transaction is finished first: a broker that comes back
# lets readers wait for it for a minute.
sub do_stop_broker
{
	my ($world, $step) = @_;
	$world->finish_feeds;
	$world->start_feeds($step);
	# one that stalls keeps its connections, and answers nothing
	if ($step->{signal} eq 'STOP') { signal_broker($world->{name}, 'STOP') }
	else                           { stop_broker($world->{name}, $step->{signal}) }
	$world->{broker_is_down} = $step->{signal};
	return;
}

sub do_start_broker
{
	my ($world) = @_;
	if ($world->{broker_is_down} eq 'STOP') { signal_broker($world->{name}, 'CONT') }
	else                                    { start_broker($world->{name}) }
	$world->{broker_is_down} = 0;
	return;
}

sub do_add_partitions
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	add_partitions($world->{kafka}, $world->{topics}{ $step->{topic} }{name}, $step->{total});
	return;
}

sub do_delete_records
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->delete_before($step->{topic}, $step->{partition}, $step->{percent});
	return;
}

# Delete records that nobody has read.
sub do_gap
{
	my ($world, $step) = @_;
	my @tables = grep { $world->sql("SELECT NOT paused FROM medallion.stream WHERE relid = $world->{tables}{$_}{oid}") eq 't' }
	  $world->tables_on($step->{topic});
	$world->sql("SELECT medallion.pause($world->{tables}{$_}{oid})") for @tables;
	$world->start_feeds($step);
	$world->finish_feed($step->{topic});
	$world->read_ledger($step->{topic});
	$world->delete_before($step->{topic}, $_, $step->{percent}) for 0 .. $#{ $world->{topics}{ $step->{topic} }{end} };
	$world->sql("SELECT medallion.resume($world->{tables}{$_}{oid})") for @tables;
	ChaosRepair::cure_gap($world, 'strict') if grep { $_ eq 'strict' } @tables;
	return;
}

# A topic that is deleted and made anew: the state says so, nothing of the new
# one is mixed with the old one, and the cure is a new table.
sub do_recreate_topic
{
	my ($world, $step) = @_;
	my $topic = $world->{topics}{ $step->{topic} };
	$world->join_background;
	ChaosRepair::drop($world, $_) for grep { $_ ne 'clicks' } $world->tables_on($step->{topic});
	$world->finish_feed($step->{topic});
	ChaosRepair::run_action($world, 'seek', 'clicks', 100) if $step->{seek_first};
	$world->start_feeds($step);
	$world->finish_feed($step->{topic});
	$world->read_ledger($step->{topic});
	ChaosRepair::wait_until_caught_up($world, 'clicks');

	my $oid = $world->{tables}{clicks}{oid};
	my $n_partitions = @{ $topic->{end} };
	my $told = "count(*) = 1 FROM medallion.streaming_tables WHERE table_name = $oid AND state = 'failing' AND sqlstate";
	$world->sql("SELECT medallion.pause($oid)") if $step->{while} eq 'paused';
	$world->{node}->stop('fast') if $step->{while} eq 'stopped';
	delete_topic($world->{kafka}, $topic->{name});
	$world->wait_for("$told IN ('HV000', 'XX001')") if $step->{while} =~ /running|killed/;
	kafka_tool('create', $world->{kafka}, $topic->{name}, $step->{total});
	do_kill_worker($world, { worker => 'ingest', feeds => [] }) if $step->{while} eq 'killed';
	my %old = %$topic;
	$world->make_topic($step->{topic}, $step->{total});
	$world->start_feed($step->{second_feed});
	$world->finish_feed($step->{topic});
	$world->{node}->start if $step->{while} eq 'stopped';
	$world->sql("SELECT medallion.resume($oid)") if $step->{while} eq 'paused';
	# a partition that is no more is told as such
	$world->wait_for($told . ($step->{total} < $n_partitions ? " IN ('HV000', 'XX001')" : " = 'XX001' AND reason LIKE '%made anew%'"));
	ok(1, "step $step->{nr}: the state says that the topic was made anew");
	ChaosOracle::table_ok($world, 'clicks', { clicks => \%old }, "step $step->{nr}: nothing of the new topic is in the old one's table");

	$world->sql("DROP MATERIALIZED VIEW IF EXISTS gold.click_names");
	ChaosRepair::drop($world, 'clicks');
	$world->make_table('clicks');
	$world->make_view('click_names');
	return;
}

1;
