-- Freshness and latency of views, and the latency of streaming tables, where
-- the test owns the times of commits.
BEGIN;
SELECT plan(19);

CREATE TABLE s (id int, kafka_partition int, kafka_offset bigint);
INSERT INTO medallion.stream (relid, server, topic, format, start_at, options, paused, origin)
	VALUES ('s', 'nowhere', 's', 'json', 'earliest', '{}', true, medallion.database_identity());
INSERT INTO medallion.checkpoint (relid, topic, kafka_partition, start_offset, next_offset) VALUES ('s', 's', 0, 0, 0), ('s', 's', 1, 0, 0);

-- one batch of one record, stored so long ago, and produced so long before
CREATE FUNCTION ingest(partition int, ago interval, produced interval DEFAULT '0') RETURNS void LANGUAGE sql AS $$
	INSERT INTO medallion.batch (relid, topic, kafka_partition, first_offset, next_offset, row_count, max_timestamp, stored_at)
		SELECT relid, topic, kafka_partition, next_offset, next_offset + 1, 1, now() - ago - produced, now() - ago
		  FROM medallion.checkpoint WHERE kafka_partition = partition;
	INSERT INTO s SELECT 1, partition, next_offset FROM medallion.checkpoint WHERE kafka_partition = partition;
	UPDATE medallion.checkpoint SET next_offset = next_offset + 1 WHERE kafka_partition = partition
$$;
-- how many hours ago, NULL for less than one
CREATE FUNCTION hours(what interval) RETURNS int LANGUAGE sql AS
	$$ SELECT nullif(floor(extract(epoch FROM what) / 3600)::int, 0) $$;
CREATE FUNCTION freshness(of regclass) RETURNS interval LANGUAGE sql AS
	$$ SELECT freshness FROM medallion.materialized_views WHERE view = of $$;
CREATE FUNCTION latency(of regclass) RETURNS interval LANGUAGE sql AS
	$$ SELECT latency FROM medallion.materialized_views WHERE view = of $$;
CREATE FUNCTION state(of regclass) RETURNS text LANGUAGE sql AS
	$$ SELECT state FROM medallion.materialized_views WHERE view = of $$;

SELECT ingest(0, '9 hours');
SELECT FROM medallion.create_materialized_view('silver', 'SELECT id, kafka_partition AS p FROM s', NULL);
SELECT FROM medallion.create_materialized_view('gold', 'SELECT p, count(*) AS n FROM silver GROUP BY p', NULL);
SELECT is(freshness('gold'), interval '0', 'a view that shows everything');
SELECT is(latency('gold'), NULL, 'nothing has arrived since it was created');

SELECT ingest(0, '5 hours');
SELECT ingest(1, '3 hours');
SELECT is(hours(freshness('silver')), 5, 'the oldest commit that is not shown counts');
SELECT is(hours(freshness('gold')), 5, 'at any depth below');
SELECT FROM medallion.refresh('silver');
SELECT is(freshness('silver'), interval '0', 'all is shown');
SELECT is(hours(latency('silver')), 5, 'source commit to visible');
SELECT is(hours(freshness('gold')), 5, 'what the view below shows and this one does not waits since it was committed');
SELECT ingest(1, '2 hours');
SELECT FROM medallion.refresh('silver');
SELECT is(hours(latency('silver')), 2, 'latency is of the last refresh');
SELECT is(hours(freshness('gold')), 5, 'two refreshes below: the older one counts');
SELECT FROM medallion.refresh('gold');
SELECT is(hours(latency('gold')), 5, 'and is in the latency of the view above');
SELECT is(freshness('gold'), interval '0', 'which shows everything now');
SELECT ingest(1, '1 hour');
SELECT is(hours(freshness('gold')), 1, 'until the next commit');

SELECT is((SELECT latency FROM medallion.streaming_tables WHERE table_name = 's'::regclass), interval '0', 'produced when it was stored');
SELECT ingest(0, '10 minutes', '7 seconds');
SELECT is((SELECT latency FROM medallion.streaming_tables WHERE table_name = 's'::regclass), interval '7 seconds', 'produced to visible, of the last batch');

-- states
SELECT is(state('gold'), 'on demand');
SELECT FROM medallion.alter_materialized_view('gold', refresh_interval => '10 s');
SELECT is(state('gold'), 'scheduled');
UPDATE medallion.view_state SET duration = '10 s' WHERE relid = 'gold'::regclass;
SELECT is(state('gold'), 'behind', 'a refresh takes longer than the interval');
SELECT FROM medallion.pause('gold');
SELECT is(state('gold'), 'paused');
SELECT FROM medallion.create_materialized_view('empty', 'SELECT id FROM s', with_data => false);
SELECT is(state('empty'), 'starting');

SELECT * FROM finish();
ROLLBACK;
