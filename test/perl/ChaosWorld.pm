# ChaosWorld: what the chaos harness breaks: a server, a broker, topics, streaming
# tables, views; and what it knows of them.
#
# The harness knows what it has sent, and what Kafka holds: the ledger, which
# is read by a client that has nothing to do with the extension, before
# anything is deleted.  For each incarnation of a topic:
#
#   $topic->{ledger}[partition]{offset} = [ key, md5 of the value ]
#   $topic->{end}[partition], $topic->{low}[partition]: as Kafka says
#   $topic->{deleted}[partition]: all before it was deleted once; a broker that
#       is killed soon afterwards has it again
#   $topic->{sent}{id}
#   $topic->{gone}: it was deleted; what was read of it stays
#
# Topics go by names of the plan's: one that is made anew under its name in Kafka has
# another one here, unless the table that reads it is made anew, too.
#
# A key is "C<id>" or, in a transaction that was aborted, "A<id>".
package ChaosWorld;

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5_hex);
use IPC::Run ();
use Test::More;
use Time::HiRes qw(time usleep);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();

use ChaosPlan;
use ChaosRandom;
use IngestTest qw(include_file);
use MedallionTest qw(create_server create_topic delete_records kafka_tool new_node start_broker stop_broker);

# What a statement may fail with because a server or a session ended under it.
our $ENDED = qr/server closed the connection|connection to server|terminating connection|the database system is|no connection to the server|could not receive data from server|could not send data to server/;

# What other sessions of the harness may do to it; it is tried again.
our $BUSY = qr/deadlock detected|concurrent update|tuple concurrently/;

# The hint to a question that a broker has not answered in time: it may have too
# much to do, and is asked again.
our $UNANSWERED = qr/medallion\.kafka_timeout limits how long a session waits/;

sub new
{
	my ($class, $seed) = @_;
	my $world = bless {
		seed => $seed, name => "seed_$seed", conf => { workers => 1 },
		tables => {}, topics => {}, feeds => {}, background => [], n_background => 0, n_feeds => 0, sessions => {} }, $class;
	$world->{kafka} = start_broker($world->{name});
	$world->{node} = new_node($world->{name}, conf => include_file() . <<'END');
medallion.backoff_max = '200ms'
medallion.discovery_interval = '200ms'
medallion.refresh_workers = 4
medallion.batch_time_limit = '200ms'
medallion.batch_timeout = '3s'
log_statement = none
deadlock_timeout = '200ms'
max_connections = 60
END
	create_server($world->{node}, 'kafka', $world->{kafka},
		reconnect_backoff_ms => 50, reconnect_backoff_max_ms => 200, topic_metadata_refresh_interval_ms => 1000);
	$world->make_topic($_, $ChaosPlan::TOPICS{$_}) for sort keys %ChaosPlan::TOPICS;
	$world->make_tables;
	return $world;
}

# --- the definitions ---

my %DEFINITIONS = (
	orders => q{CREATE TABLE bronze.orders (id bigint, name text, amount numeric, kafka_key text)
		WITH (medallion.server = kafka, medallion.topic = '%s', medallion.flush_interval = '10 ms', medallion.batch_max_records = 100)},
	orders_raw => q{CREATE TABLE bronze.orders_raw () WITH (medallion.server = kafka, medallion.topic = '%s', medallion.format = raw)},
	orders_all => q{CREATE TABLE bronze.orders_all () WITH (medallion.server = kafka, medallion.topic = '%s', medallion.format = text,
		medallion.isolation_level = read_uncommitted, medallion.batch_max_records = 1000, medallion.flush_interval = '0 ms')},
	events => q{CREATE TABLE bronze.events (id bigint NOT NULL, name varchar(20), kafka_key text)
			WITH (medallion.server = kafka, medallion.topic = '%s', medallion.flush_interval = '10 ms', medallion.batch_max_records = 100);
		CREATE TABLE public.seen (p int, o bigint);
		CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN INSERT INTO public.seen VALUES (NEW.kafka_partition, NEW.kafka_offset); RETURN NEW; END';
		CREATE TRIGGER note AFTER INSERT ON bronze.events FOR EACH ROW EXECUTE FUNCTION public.note()},
	events_copy => q{CREATE TABLE bronze.events_copy () WITH (medallion.server = kafka, medallion.topic = '%s', medallion.format = raw,
		medallion.batch_max_records = 1000)},
	strict => q{CREATE TABLE bronze.strict (id bigint, kafka_key text) WITH (medallion.server = kafka, medallion.topic = '%s',
		medallion.on_gap = fail, medallion.on_error = fail, medallion.flush_interval = '10 ms', medallion.batch_max_records = 100)},
	clicks => q{CREATE TABLE bronze.clicks (id bigint, name text, kafka_key text) WITH (medallion.server = kafka, medallion.topic = '%s',
		medallion.max_dead_letter_ratio = 0.5, medallion.dead_letter_window = '1 min', medallion.group_id = 'clicks',
		medallion.flush_interval = '20 ms')},
	sensors => q{CREATE TABLE bronze.sensors (id bigint, name text, kafka_key text) WITH (medallion.server = kafka, medallion.topic = '^sensor_',
		medallion.flush_interval = '10 ms', medallion.batch_max_records = 100)},
	orders_parts => q{CREATE TABLE bronze.orders_parts (id bigint, name text, amount numeric, kafka_key text) PARTITION BY LIST ((id % 8))
			WITH (medallion.server = kafka, medallion.topic = '%s', medallion.flush_interval = '10 ms', medallion.batch_max_records = 100);
		CREATE TABLE parts.a PARTITION OF bronze.orders_parts FOR VALUES IN (0, 1);
		CREATE TABLE parts.b PARTITION OF bronze.orders_parts FOR VALUES IN (2, 3);
		CREATE TABLE parts.c PARTITION OF bronze.orders_parts FOR VALUES IN (4, 5) PARTITION BY RANGE (kafka_offset);
		CREATE TABLE parts.c_low PARTITION OF parts.c FOR VALUES FROM (MINVALUE) TO (200);
		CREATE TABLE parts.c_high PARTITION OF parts.c FOR VALUES FROM (200) TO (MAXVALUE);
		CREATE TABLE parts.d PARTITION OF bronze.orders_parts FOR VALUES IN (6);
		CREATE TABLE parts.rest PARTITION OF bronze.orders_parts DEFAULT});

# What the steps of ChaosParts.pm need.
my $HELPERS = <<'END';
CREATE FUNCTION public.drag(bigint) RETURNS boolean LANGUAGE plpgsql AS
	'BEGIN IF $1 % 5 = 0 THEN PERFORM pg_catalog.pg_sleep(0.02); END IF; RETURN true; END';
CREATE FUNCTION public.stall(bigint) RETURNS boolean LANGUAGE plpgsql AS
	'BEGIN IF $1 % 5 = 0 THEN PERFORM pg_catalog.pg_sleep(1000); END IF; RETURN true; END';
CREATE FUNCTION public.drag_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.drag(NEW.id); RETURN NEW; END';
CREATE FUNCTION public.stall_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.stall(NEW.id); RETURN NEW; END';
CREATE TABLE public.dropped (p int, o bigint);
CREATE TABLE public.doubles (p int, o bigint);
END

my %VIEW_DEFINITIONS = (
	silver => [ 'orders', 'auto', 'SELECT medallion.hash_key(name) AS name_key, id, amount, kafka_partition FROM %s WHERE amount > 1' ],
	gold => [ 'silver', 'auto', 'SELECT name_key, count(*), sum(amount), avg(amount), max(id) FROM %s GROUP BY 1' ],
	event_sizes => [ 'events_copy', 'incremental', 'SELECT kafka_partition, length(payload) AS bytes, count(*), max(kafka_offset) FROM %s GROUP BY 1, 2' ],
	click_names => [ 'clicks', 'auto', 'SELECT name, count(*), min(id) FROM %s GROUP BY 1' ],
	sensor_names => [ 'sensors', 'incremental', 'SELECT kafka_topic, name, count(*), max(kafka_offset) FROM %s GROUP BY 1, 2' ],
	part_names => [ 'orders_parts', 'auto', 'SELECT name, count(*), sum(amount) FROM %s GROUP BY 1' ]);

# A topic, or another incarnation of the one that is called so.
sub make_topic
{
	my ($world, $name, $partitions, $name_in_kafka) = @_;
	my $topic = $world->{topics}{$name} //= { name => $name_in_kafka // create_topic($world->{kafka}, $name, $partitions) };
	@$topic{qw(ledger end low deleted sent)} = ([], [], [ (0) x $partitions ], [ (0) x $partitions ], {});
	return;
}

sub make_tables
{
	my ($world) = @_;
	$world->sql("CREATE SCHEMA bronze; CREATE SCHEMA attic; CREATE SCHEMA gold; CREATE SCHEMA parts; $HELPERS");
	$world->make_table($_) for sort keys %DEFINITIONS;
	$world->{parts}{$_} = { oid => $world->sql("SELECT 'parts.$_'::regclass::oid"), attached => 1 } for @ChaosPlan::PARTS;
	$world->make_view($_) for @ChaosPlan::VIEWS;
	return;
}

sub make_table
{
	my ($world, $name) = @_;
	my @topics = $ChaosPlan::TABLES{$name}{pattern} ? @ChaosPlan::SENSORS : $ChaosPlan::TABLES{$name}{topic};
	# a pattern stands in its definition
	$world->sql($DEFINITIONS{$name} =~ s/%s/$world->{topics}{ $topics[0] }{name}/gr);
	$world->know_table($name, "bronze.$name", \@topics, uncommitted => $name eq 'orders_all',
		from_earliest => 1, pattern => $ChaosPlan::TABLES{$name}{pattern}, excluded => {});
	return;
}

# A table that has just been made.
sub know_table
{
	my ($world, $name, $sql_name, $topics, %more) = @_;
	$world->{tables}{$name} = {
		name => $name, topics => [@$topics], oid => $world->sql("SELECT '$sql_name'::regclass::oid"),
		lows => { map { $_ => [ @{ $world->{topics}{$_}{low} } ] } @$topics }, n_lost => 0, sought => 0, expired => 0, discarded => {}, %more };
	return;
}

sub make_view
{
	my ($world, $name) = @_;
	my ($source, $mode, $query) = @{ $VIEW_DEFINITIONS{$name} };
	my $from = $world->{tables}{$source} ? $world->table_name($source) : "gold.$source";
	$world->sql(sprintf "CREATE MATERIALIZED VIEW gold.$name WITH (medallion.refresh_interval = '100 ms',"
		  . " medallion.refresh_mode = $mode) AS $query", $from);
	return;
}

# A table by its present name: it may have been renamed, or moved.
sub table_name
{
	my ($world, $name) = @_;
	return $world->sql("SELECT $world->{tables}{$name}{oid}::regclass");
}

sub topics_of { my ($world, $name) = @_; return @{ $world->{tables}{$name}{topics} } }

# The topics that a table reads now.
sub live_topics_of
{
	my ($world, $name) = @_;
	return grep { !$world->{topics}{$_}{gone} && !$world->{tables}{$name}{excluded}{$_} } $world->topics_of($name);
}

# What the plan calls a topic of the table.
sub topic_key
{
	my ($world, $name, $name_in_kafka) = @_;
	my ($key) = grep { $world->{topics}{$_}{name} eq $name_in_kafka } $world->topics_of($name);
	return $key // die "table $name reads no topic $name_in_kafka";
}

# Of which topic a row is, as an expression.
sub topic_expression
{
	my ($world, $name) = @_;
	return 'kafka_topic' if $world->{tables}{$name}{pattern};
	my ($topic) = $world->topics_of($name);
	return "'$world->{topics}{$topic}{name}'::text";
}

sub tables_on
{
	my ($world, $topic) = @_;
	return grep { grep { $_ eq $topic } $world->topics_of($_) } sort keys %{ $world->{tables} };
}

# --- SQL ---

# Run a statement until it is done: a server that starts, locks of others and a
# slow broker only take time.  What it may fail with for good is given as a pattern; the
# result is undef then.  Statements must bear being run again: one whose answer
# was lost may have been committed.
sub sql
{
	my ($world, $query, $allowed) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (1)
	{
		my ($ok, $stdout, $stderr) = $world->try_sql($query);
		return $stdout if $ok;
		return if defined $allowed && $stderr =~ $allowed;
		die "statement failed: $query\n$stderr" if $stderr !~ /$ENDED|$BUSY|$UNANSWERED/ || time > $deadline;
		usleep(50_000);
	}
	return;
}

# One attempt: (success, output, error output).
sub try_sql
{
	my ($world, $query) = @_;
	my ($stdout, $stderr) = ('', '');
	my $ok = IPC::Run::run($world->psql('chaos', $query), '<', \undef, '>', \$stdout, '2>', \$stderr);
	chomp $stdout;
	return ($ok, $stdout, $stderr);
}

# The command line of psql; a statement that hangs is a failure.
sub psql
{
	my ($world, $application, @queries) = @_;
	my $limit = $PostgreSQL::Test::Utils::timeout_default * 1000;
	return [
		'psql', '-XAtq', '-F', "\t", '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d',
		$world->{node}->connstr('postgres') . " application_name=$application options='-c statement_timeout=$limit -c client_min_messages=warning'",
		map { ('-c', $_) } @queries ];
}

# Start statements in a session of its own and go on; join_background() looks
# at how it ended.
sub start_background
{
	my ($world, $allowed, @queries) = @_;
	my $session = { name => 'chaos_' . ++$world->{n_background}, allowed => $allowed, query => join('; ', @queries), out => '', err => '' };
	$session->{run} = IPC::Run::start($world->psql($session->{name}, @queries), '<', \undef, '>', \$session->{out}, '2>', \$session->{err});
	push @{ $world->{background} }, $session;
	return $session;
}

# Wait until all sessions in the background have ended, well or as they may.
sub join_background
{
	my ($world) = @_;
	for my $session (splice @{ $world->{background} })
	{
		next if $session->{run}->finish;
		next if $session->{err} =~ /$ENDED|$BUSY|$UNANSWERED/ || (defined $session->{allowed} && $session->{err} =~ $session->{allowed});
		die "statement failed: $session->{query}\n$session->{err}";
	}
	return;
}

# Wait until a session in the background has ended or waits for a lock.
sub wait_until_blocked_or_done
{
	my ($world, $session) = @_;
	return $world->wait_for(sub {
		$session->{run}->pump_nb if $session->{run}->pumpable;
		return 1 if !$session->{run}->pumpable;
		my ($ok, $n) = $world->try_sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = '$session->{name}' AND wait_event_type = 'Lock'");
		return !$ok || $n;
	}, 'a session to end or wait');
}

# Wait until a condition holds: a piece of SQL, or code.
sub wait_for
{
	my ($world, $condition, $what) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (1)
	{
		if (ref $condition)
		{
			return 1 if $condition->();
		}
		else
		{
			my ($ok, $answer) = $world->try_sql("SELECT $condition");
			return 1 if $ok && $answer eq 't';
		}
		die 'timed out waiting for ' . ($what // $condition) . "\n" . $world->state if time > $deadline;
		usleep(20_000);
	}
	return;
}

# The state of all tables, for those who read why something failed.
sub state
{
	my ($world) = @_;
	my ($ok, $state) = $world->try_sql('SELECT t.table_name, t.state, t.sqlstate, t.reason, p.topic, p.kafka_partition, p.start_offset, p.next_offset, p.high_watermark'
		  . ' FROM medallion.streaming_tables t LEFT JOIN medallion.stream_partitions p USING (table_name) ORDER BY 1, 5, 6');
	return $ok ? $state : '(the server does not answer)';
}

# --- a session that holds locks ---

sub hold_session
{
	my ($world, $name, @queries) = @_;
	$world->drop_session($name);
	my $session = $world->{node}->background_psql('postgres', on_error_stop => 0);
	$world->{sessions}{$name} = $session;
	# a session that the server lost holds nothing
	eval { $session->query($_) for @queries; 1 } or note("session $name ended");
	return;
}

sub drop_session
{
	my ($world, $name) = @_;
	my $session = delete $world->{sessions}{$name} or return;
	eval { $session->quit; 1 } or eval { $session->{run}->kill_kill };
	return;
}

# --- configuration ---

sub write_conf
{
	my ($world, %changes) = @_;
	my $conf = $world->{conf};
	@$conf{ keys %changes } = values %changes;
	my $lines = "medallion.ingest_workers = $conf->{workers}\n";
	$lines .= "medallion.debug_points = '$conf->{debug_points}'\n" if $conf->{debug_points};
	$lines .= "medallion.batch_history_retention = 0\n" if $conf->{forget_batches};
	my $n = ++$world->{n_confs};
	$lines .= "test.conf = '$n'\n";
	my $file = $world->{node}->data_dir . '/test.conf';
	open my $out, '>', "$file.new" or die "$file.new: $!";
	print $out $lines;
	close $out;
	rename "$file.new", $file or die "$file: $!";
	# a server that starts reads the file by itself
	return if !$world->{node}->{_pid};
	kill 'HUP', $world->{node}->{_pid};
	# a session that begins with them was forked when all processes had been told
	$world->wait_for("current_setting('test.conf', true) = '$n'");
	return;
}

# --- records ---

my @POISON = (
	sub { qq({"id": $_[0], "na) },
	sub { qq({"id": "twelve", "name": "n$_[0]"}) },
	sub { qq({"id": $_[0], "name": "n\xff\xfe$_[0]", "amount": 1}) },
	sub { qq({"id": $_[0], "name": "a\\u0000b", "amount": 1}) },
	sub { qq({"id": 1e30, "name": "n$_[0]", "amount": "much"}) },
	sub { '' },
	sub { qq([$_[0]]) },
	sub { qq({"id": null, "name": "a name that is too long for its column", "amount": 1.5}) });

# The lines of a feed for kafka_tool produce; the same for the same feed.
sub feed_lines
{
	my ($feed) = @_;
	my $random = ChaosRandom->new("feed $feed->{seed}");
	my ($left, $outcome, @lines) = (0, 'commit');
	for my $id ($feed->{first} .. $feed->{first} + $feed->{n} - 1)
	{
		if ($feed->{transactional} && $left-- == 0)
		{
			push @lines, $outcome if @lines;
			push @lines, 'begin';
			$outcome = $random->below(10) < 7 ? 'commit' : 'abort';
			$left = $random->below(50);
		}
		my $p = $random->below($feed->{partitions});
		$p = $feed->{only} if defined $feed->{only};
		my $value = sprintf '{"id": %d, "name": "n%d", "amount": %d.%02d, "extra": "x%d"%s}', $id, $id % 50, $random->below(20),
		  $id % 100, $id % 3, $random->below(200) ? '' : ', "filler": "' . 'z' x 20_000 . '"';
		$value = $POISON[ $random->below(scalar @POISON) ]->($id) if $random->below(100) < $feed->{poison};
		$value =~ s{([\\\t\n\r\0])}{sprintf '\\x%02x', ord $1}ge;
		$value = '\N' if !$random->below(100);
		$value = $POISON[0]->($id) if defined $feed->{bad_at} && $id == $feed->{first} + $feed->{bad_at};
		push @lines, join("\t", $p, '\N', ($outcome eq 'abort' ? 'A' : 'C') . $id, $value);
	}
	push @lines, $outcome if $feed->{transactional};
	return @lines;
}

# Send a feed in the background; the topic's last one is waited for first.
sub start_feed
{
	my ($world, $feed) = @_;
	$world->finish_feed($feed->{topic});
	my @options;
	push @options, '--transactional-id', "chaos_$world->{seed}_$feed->{topic}_$feed->{first}" if $feed->{transactional};
	push @options, '--rate', $feed->{rate} if $feed->{rate};
	$world->{feed_dir} //= PostgreSQL::Test::Utils::tempdir();
	my $file = "$world->{feed_dir}/$feed->{topic}";
	open my $out, '>:raw', $file or die "$file: $!";
	print $out map { "$_\n" } feed_lines($feed);
	close $out;
	my $state = { feed => $feed, out => '', err => '' };
	$state->{run} = IPC::Run::start([ 'kafka_tool', 'produce', $world->{kafka}, $world->{topics}{ $feed->{topic} }{name}, @options ],
		'<', $file, '>', \$state->{out}, '2>', \$state->{err});
	$world->{feeds}{ $feed->{topic} } = $state;
	return;
}

sub start_feeds { my ($world, $step) = @_; $world->start_feed($_) for @{ $step->{feeds} }; return }

# Wait until all of a topic's records are in the log.
sub finish_feed
{
	my ($world, $topic) = @_;
	my $state = delete $world->{feeds}{$topic} or return;
	$state->{run}->finish or die "could not send records: $state->{err}";
	my $sent = $world->{topics}{$topic}{sent};
	$sent->{$_} = 1 for $state->{feed}{first} .. $state->{feed}{first} + $state->{feed}{n} - 1;
	return;
}

sub finish_feeds { my ($world) = @_; $world->finish_feed($_) for sort keys %{ $world->{feeds} }; return }

# Read what the topic holds beyond what is known of it.
sub read_ledger
{
	my ($world, $name) = @_;
	my $topic = $world->{topics}{$name};
	my @from = map { "$_:$topic->{end}[$_]" } 0 .. $#{ $topic->{end} };
	for my $line (split /\n/, kafka_tool('dump', $world->{kafka}, $topic->{name}, @from))
	{
		my ($p, $offset, $key, $value) = split /\t/, $line, -1;
		if ($p eq 'end')
		{
			# end, partition, low, high
			$topic->{low}[$offset] = $key;
			$topic->{end}[$offset] = $value;
			next;
		}
		$topic->{ledger}[$p]{$offset} = [ pack('H*', $key), $value eq '\N' ? '' : md5_hex(pack 'H*', $value) ];
	}
	return;
}

# Delete all of a partition before a point of it; what is deleted is known.
sub delete_before
{
	my ($world, $name, $p, $percent) = @_;
	my $topic = $world->{topics}{$name};
	$world->read_ledger($name);
	my ($low, $end) = ($topic->{low}[$p], $topic->{end}[$p]);
	my $before = $low + int(($end - $low) * $percent / 100);
	return if $before == $low;
	delete_records($world->{kafka}, $topic->{name}, $p, $before);
	$topic->{low}[$p] = $before;
	$topic->{deleted}[$p] = $before if $before > ($topic->{deleted}[$p] // 0);
	return;
}

sub destroy
{
	my ($world) = @_;
	$world->drop_session($_) for keys %{ $world->{sessions} };
	$world->{node}->stop('immediate') if $world->{node}->{_pid};
	stop_broker($world->{name}, 'KILL');
	return;
}

1;
