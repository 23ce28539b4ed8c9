# ChaosOracle: is every record that was sent exactly once in bronze, in the dead
# letters or in a recorded gap, and is nothing else there?
#
# The truth is the ledger (ChaosWorld), which was read from Kafka by another
# client, and what the producers were told to send.  A gap counts only where
# the harness has made one: where it deleted records, sought, discarded.
package ChaosOracle;

use strict;
use warnings FATAL => 'all';

use Test::More;

use ChaosParts;
use ChaosPlan;

my $MAX_PROBLEMS = 20;

# Is what was sent in the ledger, each record once?
sub ledger_ok
{
	my ($world, $name, $what) = @_;
	my $topic = $world->{topics}{$name};
	my %seen;
	for my $ledger (@{ $topic->{ledger} })
	{
		$seen{ substr $_->[0], 1 }++ for values %{ $ledger // {} };
	}
	my @problems = map { "record $_ is in the topic " . ($seen{$_} // 0) . ' times' }
	  grep { ($seen{$_} // 0) != 1 } sort { $a <=> $b } keys %{ $topic->{sent} };
	return report($world, \@problems, "$what: topic $name holds what was sent to it");
}

sub report
{
	my ($world, $problems, $what) = @_;
	return ok(1, $what) if !@$problems;
	ok(0, $what);
	diag($_) for @$problems > $MAX_PROBLEMS ? (@$problems[ 0 .. $MAX_PROBLEMS - 1 ], '... ' . @$problems . ' problems in all') : @$problems;
	$world->{failed} = 1;
	return 0;
}

# Rows of a query, each a reference to its columns.
sub rows { my ($world, $query) = @_; return map { [ split /\t/, $_, -1 ] } split /\n/, $world->sql($query) }

# What a table, its dead letters and its gaps hold:
# {topic in Kafka}{partition}{offset} = [ what and where, ... ]
sub load_held
{
	my ($world, $table, $problems) = @_;
	my %held;
	my $name = $world->sql("SELECT $table->{oid}::regclass");
	my ($key_type, $payload_type) = map {
		$world->sql("SELECT coalesce((SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $table->{oid} AND attname = '$_'), '')")
	} qw(kafka_key payload);
	my $key = $key_type eq 'bytea' ? q{convert_from(kafka_key, 'UTF8')} : 'kafka_key';
	my $payload = $payload_type eq 'bytea' ? 'md5(payload)' : $payload_type eq 'text' ? q{md5(convert_to(payload, 'UTF8'))} : q{'-'};
	my $topic = $world->topic_expression($table->{name});
	push @{ $held{ $_->[0] }{ $_->[1] }{ $_->[2] } }, [ 'row', @$_[ 3, 4 ] ]
	  for rows($world, "SELECT $topic, kafka_partition, kafka_offset, $key, coalesce($payload, '') FROM $name");
	push @{ $held{ $_->[0] }{ $_->[1] }{ $_->[2] } }, [ 'dead letter', @$_[ 3, 4 ] ]
	  for rows($world, q{SELECT topic, kafka_partition, kafka_offset, convert_from(kafka_key, 'UTF8'), coalesce(md5(payload), '')}
		  . " FROM medallion.dead_letters WHERE table_name = $table->{oid}");
	for (rows($world, "SELECT topic, kafka_partition, first_offset, next_offset, reason FROM medallion.gaps WHERE table_name = $table->{oid}"))
	{
		my ($t, $p, $first, $next, $reason) = @$_;
		push @$problems, "$t partition $p has an empty gap at offset $first" if $first >= $next;
		push @{ $held{$t}{$p}{$_} }, [ 'gap', $reason ] for $first .. $next - 1;
	}
	return \%held;
}

# Has the harness given cause for this gap?
sub gap_is_due
{
	my ($table, $key, $topic, $p, $offset, $reason) = @_;
	return $offset < ($topic->{deleted}[$p] // 0) if $reason =~ /deleted in Kafka/;
	return $table->{sought} if $reason eq 'skipped by seek';
	return $table->{expired} if $reason eq 'expired';
	return $table->{discarded}{"$key:$p:$offset"} if $reason eq 'discarded';
	return !$table->{from_earliest} if $reason =~ /^before start_at/;
	return 0;
}

# What is wrong with what is held of one offset; '' if nothing is.
sub offset_problem
{
	my ($table, $key, $topic, $p, $offset, $held) = @_;
	my $record = $topic->{ledger}[$p]{$offset};
	my @copies = grep { $_->[0] ne 'gap' } @$held;
	my @gaps = grep { $_->[0] eq 'gap' } @$held;

	return 'is in ' . @gaps . ' gaps' if @gaps > 1;
	return "is in a gap that nothing has caused: $gaps[0][1]" if @gaps && !gap_is_due($table, $key, $topic, $p, $offset, $gaps[0][1]);
	if (!defined $record || ($record->[0] =~ /^A/ && !$table->{uncommitted}))
	{
		return '' if !@copies;
		return (defined $record ? 'was aborted' : 'was never sent') . " and is held as a $copies[0][0]";
	}
	return '' if !@$held && $table->{elsewhere}{"$p:$offset"};
	return "($record->[0]) is held " . @$held . ' times: ' . join(', ', map { $_->[0] } @$held) if @$held != 1;
	return '' if @gaps;
	return "($record->[0]) is held as the record of another key, $copies[0][1]" if $copies[0][1] ne $record->[0];
	return "($record->[0]) is held with another value"
	  if $copies[0][2] ne $record->[1] && !($copies[0][0] eq 'row' && $copies[0][2] eq '-')
	  && !($copies[0][0] eq 'row' && $copies[0][2] eq '' && $record->[1] eq '');
	return '';
}

# One table against the ledgers of its topics, or of some of them.  With at_end,
# they are all, and it must have read all.
sub table_problems
{
	my ($world, $name, $topics, $at_end) = @_;
	my $table = $world->{tables}{$name};
	my @problems;
	$table->{elsewhere} = ChaosParts::rows_elsewhere($world) if $name eq 'orders_parts';
	my $held = load_held($world, $table, \@problems);
	my %checkpoint;
	$checkpoint{ $_->[0] }{ $_->[1] } = $_
	  for rows($world, "SELECT topic, kafka_partition, start_offset, next_offset FROM medallion.checkpoint WHERE relid = $table->{oid}");
	for my $key (sort keys %$topics)
	{
		my $topic = $topics->{$key};
		push @problems, map { "$key $_" } topic_problems($table, $key, $topic, $checkpoint{ $topic->{name} } // {}, $held->{ $topic->{name} }, $at_end);
	}
	for my $t ($at_end ? sort keys %$held : map { $_->{name} } values %$topics)
	{
		for my $p (sort keys %{ $held->{$t} })
		{
			push @problems, "$t partition $p offset $_ is held as a $held->{$t}{$p}{$_}[0][0], outside what was read" for sort { $a <=> $b } keys %{ $held->{$t}{$p} };
		}
	}
	return @problems;
}

# One topic of a table; what is held of its offsets is taken out of $held.
sub topic_problems
{
	my ($table, $key, $topic, $checkpoint, $held, $at_end) = @_;
	my $lows = $table->{lows}{$key};
	my @problems;
	for my $p (0 .. $#{ $topic->{end} })
	{
		my $known = $checkpoint->{$p};
		if (!$known)
		{
			push @problems, "partition $p has no checkpoint" if $at_end;
			next;
		}
		my ($start, $next) = @$known[ 2, 3 ];
		push @problems, "partition $p is read up to offset $next, of $topic->{end}[$p]" if $next > $topic->{end}[$p] || ($at_end && $next < $topic->{end}[$p]);
		push @problems, "partition $p starts at offset $start, beyond $lows->[$p]"
		  if $table->{from_earliest} && defined $lows->[$p] && $start > $lows->[$p];
		for my $offset ($start .. $next - 1)
		{
			my $problem = offset_problem($table, $key, $topic, $p, $offset, delete $held->{$p}{$offset} // []);
			push @problems, "partition $p offset $offset $problem" if $problem ne '';
		}
	}
	return @problems;
}

sub table_ok
{
	my ($world, $name, $topics, $what) = @_;
	my @problems = table_problems($world, $name, $topics, 0);
	return report($world, \@problems, $what);
}

# What the state views count, against what there is.
sub state_problems
{
	my ($world, $name) = @_;
	my $table = $world->{tables}{$name};
	my ($state, $reason, $rows, $letters) = @{ (rows($world, "SELECT state, reason, rows, dead_letters FROM medallion.streaming_tables WHERE table_name = $table->{oid}"))[0] };
	my ($n_rows, $n_letters) = map { $world->sql($_) } 'SELECT count(*) FROM ' . $world->table_name($name),
	  "SELECT count(*) FROM medallion.dead_letters WHERE table_name = $table->{oid}";
	$n_rows += ChaosParts::n_rows_elsewhere($world) if $name eq 'orders_parts';
	my @problems;
	push @problems, "its state is $state: $reason" if $state ne 'running';
	push @problems, "the state counts $rows rows, there are $n_rows, and $table->{n_lost} were deleted"
	  if $rows != $n_rows + $table->{n_lost} && !$table->{count_unknown};
	push @problems, "the state counts $letters dead letters, there are $n_letters" if $letters != $n_letters;
	return @problems;
}

sub trigger_problems
{
	my ($world) = @_;
	my $events = $world->table_name('events');
	return map { my ($p, $o) = @$_; "the trigger has not fired once for partition $p offset $o" } rows($world,
		'SELECT p, o, count(*) FILTER (WHERE t = 0), count(*) FILTER (WHERE t = 1) FROM'
		  . " (SELECT p, o, 0 AS t FROM public.seen UNION ALL SELECT kafka_partition, kafka_offset, 1 FROM $events) u"
		  . ' GROUP BY 1, 2 HAVING count(*) FILTER (WHERE t = 0) <> count(*) FILTER (WHERE t = 1) ORDER BY 1, 2');
}

# All of it, when everything is set right and has caught up.
sub world_ok
{
	my ($world, $what) = @_;
	ledger_ok($world, $_, $what) for sort keys %{ $world->{topics} };
	for my $name (sort keys %{ $world->{tables} })
	{
		my %topics = map { $_ => $world->{topics}{$_} } $world->topics_of($name);
		my @problems = table_problems($world, $name, \%topics, 1);
		push @problems, state_problems($world, $name);
		push @problems, trigger_problems($world) if $name eq 'events';
		report($world, \@problems, "$what: table $name holds each record exactly once");
	}
	for my $view (@ChaosPlan::VIEWS)
	{
		# with refresh_mode = incremental, rows that came late must be let in
		$world->sql("SELECT medallion.refresh('gold.$view')", qr/cannot refresh materialized view "\w+" incrementally/)
		  // $world->sql("SELECT medallion.refresh('gold.$view', full_refresh => true)");
		my @problems = map { "$_->[0]: $_->[1], $_->[2] times" } rows($world, "SELECT * FROM medallion.verify('gold.$view')");
		report($world, \@problems, "$what: view $view equals its query");
	}
	return !$world->{failed};
}

1;
