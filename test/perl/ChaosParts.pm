# ChaosParts: steps of the chaos harness about the partitioned table, whose
# partitions are detached, dropped, made again and attached, and about rows that
# take long to store.
#
#   $world->{parts}{name} = { oid, attached }; oid 0: it was dropped
#
# Rows of a partition that is detached are kept, but are not in the table: a replay
# stores them again.  Who attaches it, deletes them from it first, and moves
# what other partitions hold in its place.
package ChaosParts;

use strict;
use warnings FATAL => 'all';

use Test::More;

my %VALUES = (a => '0, 1', b => '2, 3', c => '4, 5', d => '6');

# Without this a statement whose answer was lost would be done twice.
my $IS_PARTITION = 'EXISTS (SELECT FROM pg_inherits WHERE inhrelid = part)';

my $DETACH = <<"END";
DO \$do\$
DECLARE part regclass := %s; parent regclass := %s; is_to_drop boolean := %s;
BEGIN
	IF $IS_PARTITION THEN
		EXECUTE format('ALTER TABLE %%s DETACH PARTITION %%s', parent, part);
	END IF;
	IF is_to_drop THEN
		EXECUTE format('INSERT INTO public.dropped SELECT kafka_partition, kafka_offset FROM %%s', part);
		EXECUTE format('DROP TABLE %%s', part);
	END IF;
END \$do\$
END

my $ATTACH = <<"END";
DO \$do\$
DECLARE part regclass := %s; parent regclass := %s; parts_values text := '%s'; others text := '%s'; item record; columns text; moved text;
BEGIN
	IF $IS_PARTITION THEN RETURN; END IF;
	PERFORM set_config('medallion.allow_direct_writes', 'on', true);
	EXECUTE format('LOCK TABLE %%s', parent);
	-- what was changed in one of them
	FOR item IN SELECT t, c FROM (VALUES (parent), (part)) t (t), (VALUES ('chaos_check'), ('chaos_slow')) c (c) LOOP
		EXECUTE format('ALTER TABLE %%s DROP CONSTRAINT IF EXISTS %%I', item.t, item.c);
	END LOOP;
	FOR item IN SELECT attname AS name FROM pg_attribute a WHERE attrelid = part AND attnum > 0 AND NOT attisdropped AND NOT EXISTS
		(SELECT FROM pg_attribute p WHERE p.attrelid = parent AND p.attname = a.attname AND NOT p.attisdropped) LOOP
		EXECUTE format('ALTER TABLE %%s DROP COLUMN %%I', part, item.name);
	END LOOP;
	FOR item IN SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute a WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped AND NOT EXISTS
		(SELECT FROM pg_attribute p WHERE p.attrelid = part AND p.attname = a.attname AND NOT p.attisdropped) LOOP
		EXECUTE format('ALTER TABLE %%s ADD COLUMN %%I %%s', part, item.name, item.type);
	END LOOP;
	EXECUTE format('WITH d AS (DELETE FROM %%s d WHERE EXISTS (SELECT FROM %%s t WHERE t.kafka_partition = d.kafka_partition AND t.kafka_offset = d.kafka_offset)'
		'  OR EXISTS (SELECT FROM medallion.dead_letters l WHERE l.table_name = %%s AND l.kafka_partition = d.kafka_partition AND l.kafka_offset = d.kafka_offset)'
		'  RETURNING kafka_partition, kafka_offset) INSERT INTO public.doubles SELECT * FROM d', part, parent, parent::oid);
	SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped;
	moved := 'WITH moved AS (DELETE FROM %%s WHERE id %%%% 8 IN (%%s) RETURNING %%s) INSERT INTO %%s (%%3\$s) SELECT %%3\$s FROM moved';
	IF parts_values <> '' THEN
		EXECUTE format(moved, parent, parts_values, columns, part);
		EXECUTE format('ALTER TABLE %%s ATTACH PARTITION %%s FOR VALUES IN (%%s)', parent, part, parts_values);
	ELSE
		EXECUTE format(moved, part, others, columns, parent);
		EXECUTE format('ALTER TABLE %%s ATTACH PARTITION %%s DEFAULT', parent, part);
	END IF;
END \$do\$
END

sub oid { my ($world) = @_; return $world->{tables}{orders_parts}{oid} }

sub detach
{
	my ($world, $step, $is_to_drop) = @_;
	my $part = $world->{parts}{ $step->{part} };
	$world->join_background;
	$world->start_feeds($step);
	$world->sql(sprintf($DETACH, $part->{oid}, oid($world), $is_to_drop ? 'true' : 'false'), $is_to_drop ? qr/relation "\d+" does not exist/ : undef);
	$part->{attached} = 0;
	$part->{oid} = 0 if $is_to_drop;
	return;
}

sub do_detach_part { my ($world, $step) = @_; detach($world, $step, 0); return }
sub do_drop_part   { my ($world, $step) = @_; detach($world, $step, 1); return }

sub do_attach_part
{
	my ($world, $step) = @_;
	my ($name, $part) = ($step->{part}, $world->{parts}{ $step->{part} });
	$world->join_background;
	$world->start_feeds($step);
	if (!$part->{oid})
	{
		my $table = "parts.${name}_$step->{nr}";
		$world->sql("CREATE TABLE $table (LIKE " . $world->table_name('orders_parts') . ')', qr/already exists/);
		$part->{oid} = $world->sql("SELECT '$table'::regclass::oid");
	}
	my $others = join(', ', map { $VALUES{$_} } grep { $VALUES{$_} && $world->{parts}{$_}{attached} } sort keys %{ $world->{parts} });
	$world->sql(sprintf($ATTACH, $part->{oid}, oid($world), $VALUES{$name} // '', $others || 'NULL'));
	$part->{attached} = 1;
	return;
}

sub detached { my ($world) = @_; return grep { $_->{oid} && !$_->{attached} } values %{ $world->{parts} } }

# What was in the table and left it with a partition: {"partition:offset"}
sub rows_elsewhere
{
	my ($world) = @_;
	my @tables = map { $world->sql("SELECT $_->{oid}::regclass") } detached($world);
	return { map { $_ => 1 } map { split /\n/, $world->sql($_) } 'SELECT p || \':\' || o FROM public.dropped',
		map { "SELECT kafka_partition || ':' || kafka_offset FROM $_" } @tables };
}

# How many rows the table has had that are not there any more.
sub n_rows_elsewhere
{
	my ($world) = @_;
	my $n = $world->sql('SELECT (SELECT count(*) FROM public.dropped) + (SELECT count(*) FROM public.doubles)');
	$n += $world->sql('SELECT count(*) FROM ' . $world->sql("SELECT $_->{oid}::regclass")) for detached($world);
	return $n;
}

# --- rows that take long ---

# Statements that make rows of a table quick again.
sub quick
{
	my ($world, $name) = @_;
	my $table = $world->table_name($name);
	return "DROP TRIGGER IF EXISTS chaos_slow ON $table; ALTER TABLE $table DROP CONSTRAINT IF EXISTS chaos_slow";
}

sub slow
{
	my ($world, $name, $by, $function) = @_;
	my $table = $world->table_name($name);
	$world->sql(quick($world, $name) . '; ' . ($by eq 'trigger'
			? "CREATE TRIGGER chaos_slow BEFORE INSERT ON $table FOR EACH ROW EXECUTE FUNCTION public.${function}_row()"
			: "ALTER TABLE $table ADD CONSTRAINT chaos_slow CHECK (public.$function(id)) NOT VALID"));
	return;
}

# The state says that a table's rows are slow; the others go on meanwhile.
sub do_slow
{
	my ($world, $step) = @_;
	slow($world, $step->{table}, $step->{by}, 'drag');
	$world->start_feeds($step);
	$world->wait_for(q{count(*) = 1 FROM medallion.streaming_tables WHERE reason LIKE '%rows is slow%' AND table_name = } . $world->{tables}{ $step->{table} }{oid});
	return;
}

sub do_unslow { my ($world, $step) = @_; $world->start_feeds($step); $world->sql(quick($world, $step->{table})); return }

# A row that does not end is given up, and told.
sub do_stall
{
	my ($world, $step) = @_;
	slow($world, $step->{table}, $step->{by}, 'stall');
	$world->start_feeds($step);
	$world->wait_for(q{count(*) = 1 FROM medallion.streaming_tables WHERE state = 'failing' AND sqlstate = '57014' AND table_name = } . $world->{tables}{ $step->{table} }{oid});
	$world->sql(quick($world, $step->{table}));
	return;
}

sub quicken_all { my ($world) = @_; $world->sql(quick($world, $_)) for grep { $ChaosPlan::TABLES{$_}{slow} } sort keys %ChaosPlan::TABLES; return }

1;
