# ChaosTopics: steps of the chaos harness about the table that reads topics by a
# pattern: topics come, go, are made anew, are left out and let in again.
package ChaosTopics;

use strict;
use warnings FATAL => 'all';

use Test::More;

use ChaosBreak;
use ChaosOracle;
use ChaosRepair;
use MedallionTest qw(delete_topic kafka_tool);

# How the table sees a topic, as a condition.
sub topic_state
{
	my ($world, $topic, $condition) = @_;
	return "count(*) = 1 FROM medallion.stream_topics WHERE table_name = $world->{tables}{sensors}{oid}"
	  . " AND topic = '$world->{topics}{$topic}{name}' AND $condition";
}

# All topics of its name but those that are left out.
sub set_pattern
{
	my ($world) = @_;
	my @names = map { $world->{topics}{$_}{name} } sort keys %{ $world->{tables}{sensors}{excluded} };
	my $pattern = @names ? '^(?!(?:' . join('|', @names) . ')$)sensor_' : '^sensor_';
	$world->sql('ALTER TABLE ' . $world->table_name('sensors') . " SET (medallion.topic = '$pattern')");
	return;
}

# A topic comes, with records.
sub begin_topic
{
	my ($world, $key, $step, $name_in_kafka) = @_;
	kafka_tool('create', $world->{kafka}, $name_in_kafka, $step->{total}) if defined $name_in_kafka;
	$world->make_topic($key, $step->{total}, $name_in_kafka);
	$world->start_feed($step->{second_feed});
	return;
}

sub do_add_topic
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	# the table reads it as soon as it is there
	push @{ $world->{tables}{sensors}{topics} }, $step->{topic};
	$world->{tables}{sensors}{lows}{ $step->{topic} } = [ (0) x $step->{total} ];
	begin_topic($world, $step->{topic}, $step);
	return;
}

# Let the table have all that a topic holds, and drop those that read it alone.
sub read_all
{
	my ($world, $topic) = @_;
	$world->join_background;
	ChaosRepair::drop($world, $_) for grep { $_ ne 'sensors' } $world->tables_on($topic);
	$world->finish_feed($topic);
	$world->read_ledger($topic);
	ChaosRepair::wait_until_caught_up($world, 'sensors');
	return;
}

sub delete_read
{
	my ($world, $topic) = @_;
	delete_topic($world->{kafka}, $world->{topics}{$topic}{name});
	$world->{topics}{$topic}{gone} = 1;
	return;
}

sub do_drop_topic
{
	my ($world, $step) = @_;
	my $is_read = grep { $_ eq $step->{topic} } $world->topics_of('sensors');
	$world->start_feeds($step);
	read_all($world, $step->{topic});
	delete_read($world, $step->{topic});
	$world->wait_for(topic_state($world, $step->{topic}, q{state = 'gone'})) if $is_read;
	return;
}

# Of a topic that is made anew under its name nothing is stored, and the others
# go on; the cure is a pattern that leaves it out, and a table of its own.
sub do_remake_topic
{
	my ($world, $step) = @_;
	my ($table, $old, $name) = ($world->{tables}{sensors}, $step->{topic}, $world->{topics}{ $step->{topic} }{name});
	my $n_partitions = @{ $world->{topics}{$old}{end} };
	$world->start_feeds($step);
	read_all($world, $old);
	$world->sql("SELECT medallion.pause($table->{oid})") if $step->{while} eq 'paused';
	$world->{node}->stop('fast') if $step->{while} eq 'stopped';
	delete_read($world, $old);
	$world->wait_for(topic_state($world, $old, q{state = 'gone'})) if $step->{while} eq 'gone';
	begin_topic($world, $step->{anew}, $step, $name);
	ChaosBreak::do_kill_worker($world, { worker => 'ingest', feeds => [] }) if $step->{while} eq 'killed';
	$world->finish_feed($step->{anew});
	$world->{node}->start if $step->{while} eq 'stopped';
	$world->sql("SELECT medallion.resume($table->{oid})") if $step->{while} eq 'paused';
	# a partition that is no more is told as such
	$world->wait_for(topic_state($world, $old,
			$step->{total} < $n_partitions ? q{state = 'failing' AND sqlstate IN ('HV000', 'XX001')}
			: q{state = 'failing' AND sqlstate = 'XX001' AND reason LIKE '%made anew%'}));
	ok(1, "step $step->{nr}: the state says that the topic was made anew");
	ChaosOracle::table_ok($world, 'sensors', { $old => $world->{topics}{$old} }, "step $step->{nr}: nothing of the new topic is in the old one's table");

	$table->{excluded}{$old} = 1;
	set_pattern($world);
	$world->wait_for(topic_state($world, $old, q{state = 'gone'}));
	$world->sql("SELECT medallion.create_streaming_table('bronze.$step->{extra}', 'kafka', '$name', 'raw')", qr/already exists/);
	$world->know_table($step->{extra}, "bronze.$step->{extra}", [ $step->{anew} ], from_earliest => 1);
	return;
}

sub do_narrow_pattern
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->{tables}{sensors}{excluded}{ $step->{topic} } = 1;
	set_pattern($world);
	return;
}

sub do_widen_pattern
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	delete $world->{tables}{sensors}{excluded}{ $step->{topic} };
	set_pattern($world);
	return;
}

# Let in all topics that are there and were left out.
sub widen_all
{
	my ($world) = @_;
	my $excluded = $world->{tables}{sensors}{excluded};
	my @there = grep { !$world->{topics}{$_}{gone} } keys %$excluded or return;
	delete @$excluded{@there};
	set_pattern($world);
	return;
}

1;
