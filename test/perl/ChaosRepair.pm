# ChaosRepair: steps of the chaos harness that are done by SQL: definitions that
# change, locks, pauses, and the ways back of records.
package ChaosRepair;

use strict;
use warnings FATAL => 'all';

use Test::More;

use MedallionTest qw(watermarks);

# Other sessions are at work, topics lose records, brokers go.
our $REPLAY_MAY_FAIL = qr/no longer has offset|could not read topic|sent nothing|could not ask|not in the log|record of topic|does not have offset|Begin the replay/;
my $SEEK_MAY_FAIL = qr/cannot move topic|another session has moved|is not in the log|does not have offset/;
my $INGEST_MAY_FAIL = qr/another session|sent nothing|record of topic|no longer has offsets/;

sub oid { my ($world, $name) = @_; return $world->{tables}{$name}{oid} }

# --- pieces of SQL for steps and for sessions in the background ---

# Dead letters of a table: so many percent of them, the same ones each time.
sub letters
{
	my ($world, $name, $percent) = @_;
	return 'SELECT dead_letter_id, topic, kafka_partition, kafka_offset FROM medallion.dead_letters WHERE table_name = ' . oid($world, $name)
	  . " AND (kafka_offset * 7 + kafka_partition) % 100 < $percent";
}

sub letter_ids { my ($world, $name, $percent) = @_; return 'ARRAY(SELECT dead_letter_id FROM (' . letters($world, $name, $percent) . ') l)' }

sub requeue_query { my ($world, $name, $percent) = @_; return 'SELECT medallion.requeue(' . letter_ids($world, $name, $percent) . ')' }

# The first letters with payloads that their tables can store.
sub correct_query
{
	my ($world, $name, $percent) = @_;
	return q{SELECT medallion.requeue(ARRAY[dead_letter_id], convert_to('{"id": ' || substr(convert_from(kafka_key, 'UTF8'), 2) || ', "name": "fixed", "amount": 2}', 'UTF8'))}
	  . ' FROM (' . letters($world, $name, $percent) . ' ORDER BY 1 LIMIT 20) l JOIN medallion.dead_letters USING (dead_letter_id)';
}

# Which letters may be discarded is known before.
sub discard_query
{
	my ($world, $name, $percent) = @_;
	my @letters = map { [ split /\t/ ] } split /\n/, $world->sql(letters($world, $name, $percent));
	$world->{tables}{$name}{discarded}{ join(':', $world->topic_key($name, $_->[1]), @$_[ 2, 3 ]) } = 1 for @letters;
	return "SELECT medallion.discard('{" . join(',', map { $_->[0] } @letters) . "}')";
}

# A list of offsets of one topic, so many percent of the way between two per partition.
sub offsets_between
{
	my ($percent, $from, $to) = @_;
	my @all;
	for my $p (sort { $a <=> $b } keys %$from)
	{
		next if !defined $to->{$p} || $to->{$p} < $from->{$p};
		push @all, sprintf '"%d": %d', $p, $from->{$p} + int(($to->{$p} - $from->{$p}) * $percent / 100);
	}
	return @all ? '{' . join(', ', @all) . '}' : undef;
}

# The same for a table: by topic if it reads several.
sub position
{
	my ($world, $name, $percent, $from, $to) = @_;
	my %all;
	for my $topic ($world->live_topics_of($name))
	{
		my $list = offsets_between($percent, $from->{$topic} // {}, $to->{$topic} // {});
		$all{$topic} = $list if defined $list;
	}
	return if !%all;
	return (values %all)[0] if !$world->{tables}{$name}{pattern};
	return '{' . join(', ', map { qq("$world->{topics}{$_}{name}": $all{$_}) } sort keys %all) . '}';
}

# {topic}{partition}
sub next_offsets
{
	my ($world, $name) = @_;
	my %next;
	for (split /\n/, $world->sql('SELECT topic, kafka_partition, next_offset FROM medallion.checkpoint WHERE relid = ' . oid($world, $name)))
	{
		my ($topic, $p, $offset) = split /\t/;
		$next{ $world->topic_key($name, $topic) }{$p} = $offset;
	}
	return \%next;
}

# What Kafka says of a topic: by partition, the first offset (0) or the end (1).
sub ends_of_topic
{
	my ($world, $topic, $which) = @_;
	my $n = 0;
	return { map { $n++ => $_->[$which] } watermarks($world->{kafka}, $world->{topics}{$topic}{name}) };
}

sub ends
{
	my ($world, $name, $which) = @_;
	return { map { $_ => ends_of_topic($world, $_, $which) } $world->live_topics_of($name) };
}

sub replay_query
{
	my ($world, $name, $from, $to) = @_;
	my ($low, $next) = (ends($world, $name, 0), next_offsets($world, $name));
	my $from_position = ($from > 0 ? position($world, $name, $from, $low, $next) : undef) // 'earliest';
	my $to_position = $to < 100 ? position($world, $name, $to, $low, $next) : undef;
	return 'SELECT medallion.replay(' . oid($world, $name) . ", '$from_position'" . (defined $to_position ? ", '$to_position'" : '') . ')';
}

sub seek_query
{
	my ($world, $name, $percent) = @_;
	my $to = $percent < 100 ? position($world, $name, $percent, next_offsets($world, $name), ends($world, $name, 1)) : 'latest';
	$world->{tables}{$name}{sought} = 1;
	return defined $to ? 'SELECT medallion.seek(' . oid($world, $name) . ", '$to')" : 'SELECT true';
}

sub has_column
{
	my ($world, $name, $column) = @_;
	return $world->sql('SELECT count(*) FROM pg_attribute WHERE attrelid = ' . oid($world, $name) . " AND attname = '$column' AND NOT attisdropped");
}

# What to run for an action, after the pattern of what it may fail with.
sub queries_for
{
	my ($world, $action, $name, $percent) = @_;
	my $table = $world->table_name($name);
	my $oid = oid($world, $name);
	return ($REPLAY_MAY_FAIL, replay_query($world, $name, 100 - $percent, 100)) if $action eq 'replay';
	return (undef, requeue_query($world, $name, $percent)) if $action eq 'requeue';
	return (undef, correct_query($world, $name, $percent)) if $action eq 'correct';
	return (undef, discard_query($world, $name, $percent)) if $action eq 'discard';
	return ($SEEK_MAY_FAIL, seek_query($world, $name, $percent)) if $action eq 'seek';
	return ($INGEST_MAY_FAIL, "SELECT medallion.ingest_once($oid, $percent)") if $action eq 'ingest_once';
	return (undef, "SELECT medallion.pause($oid)") if $action eq 'pause';
	return ($INGEST_MAY_FAIL, "SELECT medallion.pause($oid)", "SELECT medallion.ingest_once($oid)") if $action eq 'second_reader';
	return (undef, "VACUUM FULL $table") if $action eq 'vacuum_full';
	return (undef, "ALTER TABLE $table " . (has_column($world, $name, 'extra') ? 'DROP COLUMN IF EXISTS extra' : 'ADD COLUMN IF NOT EXISTS extra text'))
	  if $action eq 'toggle_column';
	return (qr/column "\w+" does not exist/, "ALTER TABLE $table RENAME COLUMN " . (has_column($world, $name, 'name') ? 'name TO label' : 'label TO name'))
	  if $action eq 'rename_column';
	return (undef, "ALTER TABLE $table DROP CONSTRAINT IF EXISTS chaos_check",
		$percent % 2 ? "ALTER TABLE $table ADD CONSTRAINT chaos_check CHECK (id % " . (2 + $percent % 9) . ' <> 1) NOT VALID' : ())
	  if $action eq 'check';
	die "unknown action \"$action\"";
}

sub run_action
{
	my ($world, $action, $name, $percent) = @_;
	my ($allowed, @queries) = queries_for($world, $action, $name, $percent);
	$world->sql($_, $allowed) for @queries;
	return;
}

# --- definitions ---

sub do_toggle_column { my ($world, $step) = @_; $world->start_feeds($step); run_action($world, 'toggle_column', $step->{table}, 0); return }
sub do_rename_column { my ($world, $step) = @_; $world->start_feeds($step); run_action($world, 'rename_column', $step->{table}, 0); return }

sub do_rename_table
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my ($schema) = split /\n/, $world->sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE '"
		  . ($step->{schema} eq 'attic' ? 'attic%' : 'bronze') . q{'});
	$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . " SET SCHEMA $schema", qr/already exists/);
	$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . " RENAME TO $step->{to}", qr/already exists/);
	return;
}

sub do_rename_schema
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $schema = $world->sql(q{SELECT nspname FROM pg_namespace WHERE nspname LIKE 'attic%'});
	$world->sql("ALTER SCHEMA $schema RENAME TO " . ($schema eq 'attic' ? 'attic_2' : 'attic'), qr/does not exist/);
	return;
}

sub do_check
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $table = $world->table_name($step->{table});
	$world->sql("ALTER TABLE $table DROP CONSTRAINT IF EXISTS chaos_check"
		  . ($step->{modulus} ? ", ADD CONSTRAINT chaos_check CHECK (id % $step->{modulus} <> 1) NOT VALID" : ''));
	return;
}

sub do_index
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $table = $world->table_name($step->{table});
	my $concurrently = $step->{table} eq 'orders_parts' ? '' : 'CONCURRENTLY';
	$world->start_background(undef, "CREATE INDEX $concurrently ON $table (kafka_partition, kafka_offset)");
	return;
}

sub do_vacuum_full
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->start_background(undef, 'VACUUM FULL ' . $world->table_name($step->{table}));
	return;
}

sub do_alter_options
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . " SET (medallion.flush_interval = '$step->{flush_ms} ms')");
	return;
}

sub do_new_table
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my ($topic, $low) = ($world->{topics}{ $step->{topic} }, ends_of_topic($world, $step->{topic}, 0));
	my $start = $step->{start_at};
	$start = offsets_between($step->{percent}, $low, ends_of_topic($world, $step->{topic}, 1)) if $start eq 'offsets';
	$topic->{low}[$_] = $low->{$_} for keys %$low;
	$world->sql("SELECT medallion.create_streaming_table('bronze.$step->{table}', 'kafka', '$topic->{name}', '$step->{format}', start_at => '$start')",
		qr/already exists/);
	$world->know_table($step->{table}, "bronze.$step->{table}", [ $step->{topic} ], from_earliest => $start eq 'earliest');
	return;
}

sub drop
{
	my ($world, $name) = @_;
	$world->drop_session("lock_$name");
	$world->join_background;
	my ($ok) = $world->sql('DROP TABLE ' . $world->table_name($name), qr/does not exist/);
	delete $world->{tables}{$name};
	return;
}

sub do_drop_table { my ($world, $step) = @_; $world->start_feeds($step); drop($world, $step->{table}); return }

# --- locks and pauses ---

sub do_lock
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $table = $step->{part} ? "$world->{parts}{ $step->{part} }{oid}::regclass" : oid($world, $step->{table}) . '::regclass';
	$world->hold_session("lock_$step->{table}", 'BEGIN', 'LOCK TABLE ' . $world->sql("SELECT $table") . " IN $step->{mode} MODE");
	return;
}

sub do_unlock { my ($world, $step) = @_; $world->start_feeds($step); $world->drop_session("lock_$step->{table}"); return }

# Somebody else has the checkpoints: the worker waits, or comes again.
sub do_lock_checkpoint
{
	my ($world, $step) = @_;
	ensure_running($world, $step->{table});
	$world->hold_session('checkpoint', 'BEGIN', 'SELECT count(*) FROM (SELECT FROM medallion.checkpoint WHERE relid = '
		  . oid($world, $step->{table}) . ' FOR UPDATE) c');
	$world->start_feeds($step);
	$world->wait_for(q{count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type LIKE 'medallion ingest%' AND NOT l.granted});
	$world->drop_session('checkpoint');
	return;
}

sub do_pause  { my ($world, $step) = @_; $world->start_feeds($step); $world->sql('SELECT medallion.pause(' . oid($world, $step->{table}) . ')');  return }
sub do_resume { my ($world, $step) = @_; $world->start_feeds($step); $world->sql('SELECT medallion.resume(' . oid($world, $step->{table}) . ')'); return }

# A table that paused itself, because of too many bad records, is resumed.
sub ensure_running
{
	my ($world, $name) = @_;
	$world->sql('SELECT medallion.resume(table_name) FROM medallion.streaming_tables WHERE table_name = ' . oid($world, $name)
		  . q{ AND state = 'paused' AND reason LIKE '%max_dead_letter_ratio%'});
	return;
}

# Wait until a table has stored all of the ledger.
sub wait_until_caught_up
{
	my ($world, $name) = @_;
	$world->wait_for(sub {
		ensure_running($world, $name);
		my $next = next_offsets($world, $name);
		for my $topic ($world->live_topics_of($name))
		{
			my $end = $world->{topics}{$topic}{end};
			return 0 if grep { ($next->{$topic}{$_} // -1) < $end->[$_] } 0 .. $#$end;
		}
		return 1;
	}, "$name to catch up");
	return;
}

# A table with on_gap = fail says what it misses, until the policy changes.
sub cure_gap
{
	my ($world, $name) = @_;
	my $table = $world->{tables}{$name};
	my $lows = $world->{topics}{ $table->{topics}[0] }{low};
	my $behind = 'SELECT count(*) > 0 FROM medallion.checkpoint JOIN (VALUES ' . join(', ', map { "($_, $lows->[$_])" } 0 .. $#$lows)
	  . ") l (p, low) ON p = kafka_partition WHERE relid = $table->{oid} AND next_offset < low";
	return if $world->sql($behind) ne 't';
	$world->wait_for("count(*) = 1 FROM medallion.streaming_tables WHERE table_name = $table->{oid} AND state = 'failing'"
		  . " AND sqlstate = 'XX001' AND reason LIKE '%no longer has offsets%'");
	$world->sql('ALTER TABLE ' . $world->table_name($name) . ' SET (medallion.on_gap = record)');
	$world->wait_for("NOT ($behind)");
	$world->sql('ALTER TABLE ' . $world->table_name($name) . ' SET (medallion.on_gap = fail)');
	return;
}

# --- poison and ways back ---

sub do_poison { my ($world, $step) = @_; $world->start_feeds($step); return }

# One bad record stops a partition of a table with on_error = fail.
sub do_stuck
{
	my ($world, $step) = @_;
	my $oid = oid($world, $step->{table});
	my $stuck = "FROM medallion.streaming_tables WHERE table_name = $oid AND state = 'failing' AND sqlstate LIKE '22%'";
	$world->start_feeds($step);
	$world->wait_for("count(*) = 1 $stuck");
	if ($step->{cure} eq 'seek')
	{
		my ($p, $offset) = $world->sql("SELECT reason $stuck") =~ /partition (\d+) offset (\d+)/ or die 'the reason names no record';
		$world->{tables}{ $step->{table} }{sought} = 1;
		$world->sql("SELECT medallion.seek($oid, '{\"$p\": " . ($offset + 1) . "}')", $SEEK_MAY_FAIL);
	}
	else
	{
		$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . ' SET (medallion.on_error = dead_letter)');
	}
	$world->wait_for("NOT EXISTS (SELECT $stuck)");
	$world->finish_feed('strict');
	$world->read_ledger('strict');
	wait_until_caught_up($world, $step->{table});
	$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . ' SET (medallion.on_error = fail)');
	return;
}

sub do_requeue
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->sql('ALTER TABLE ' . $world->table_name($step->{table}) . ' DROP CONSTRAINT IF EXISTS chaos_check') if $step->{uncheck};
	run_action($world, $step->{corrected} ? 'correct' : 'requeue', $step->{table}, $step->{percent});
	return;
}

sub do_discard { my ($world, $step) = @_; $world->start_feeds($step); run_action($world, 'discard', $step->{table}, $step->{percent}); return }

# Dead letters that are older than a second expire.
sub do_expire
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$_->{expired} = 1 for values %{ $world->{tables} };
	$world->sql(q{SET medallion.dead_letter_retention = '1s'; SELECT medallion.prune_history()});
	return;
}

# Bounds of batches are forgotten: a replay then looks at the whole table.
sub do_forget_batches
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	$world->write_conf(forget_batches => 1);
	$world->wait_for(q{current_setting('medallion.batch_history_retention') = '0'});
	$world->sql('SELECT medallion.prune_history()');
	$world->write_conf(forget_batches => 0);
	return;
}

sub do_replay
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $query = replay_query($world, $step->{table}, $step->{from}, $step->{to});
	if ($step->{background}) { $world->start_background($REPLAY_MAY_FAIL, $query) }
	else                     { $world->sql($query, $REPLAY_MAY_FAIL) }
	return;
}

# Somebody deletes rows; a replay brings them back.
sub do_lose
{
	my ($world, $step) = @_;
	my $table = $world->{tables}{ $step->{table} };
	$world->start_feeds($step);
	my $low = ends($world, $step->{table}, 0);
	my @from;
	for my $topic (sort keys %$low)
	{
		push @from, map { "('$world->{topics}{$topic}{name}', $_, $low->{$topic}{$_})" } sort keys %{ $low->{$topic} };
	}
	my ($ok, $n) = $world->try_sql('SET medallion.allow_direct_writes = on; WITH gone AS (DELETE FROM ' . $world->table_name($step->{table})
		  . ' USING (VALUES ' . join(', ', @from) . ') k (t, p, low) WHERE ' . $world->topic_expression($step->{table})
		  . " = t AND kafka_partition = p AND kafka_offset >= low AND (kafka_offset * 7 + p) % 100 < $step->{percent} RETURNING 1) SELECT count(*) FROM gone");
	if ($ok) { $table->{n_lost} += $n }
	else     { $table->{count_unknown} = 1 }
	$world->sql('SELECT medallion.replay(' . oid($world, $step->{table}) . q{, 'earliest')});
	return;
}

sub do_seek
{
	my ($world, $step) = @_;
	$world->sql('SELECT medallion.pause(' . oid($world, $step->{table}) . ')') if $step->{pause_first};
	$world->start_feeds($step);
	$world->finish_feed($_) for $world->topics_of($step->{table});
	run_action($world, 'seek', $step->{table}, $step->{percent});
	$world->sql('SELECT medallion.resume(' . oid($world, $step->{table}) . ')') if $step->{pause_first};
	return;
}

sub do_ingest_once
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	my $query = 'SELECT medallion.ingest_once(' . oid($world, $step->{table}) . ($step->{max_records} ? ", $step->{max_records})" : ')');
	$world->sql($query, $INGEST_MAY_FAIL) for 1 .. $step->{times};
	return;
}

# Several sessions do what they can to the same records.
sub do_race
{
	my ($world, $step) = @_;
	$world->start_feeds($step);
	for my $action (@{ $step->{sessions} })
	{
		my ($allowed, @queries) = queries_for($world, $action, $step->{table}, $step->{percent});
		$world->start_background($allowed, @queries);
	}
	return;
}

1;
