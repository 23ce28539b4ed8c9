-- explain_refresh() as a tree: what is kept, what is looked up, and the index that is used or missing.
\getenv abs_srcdir PG_ABS_SRCDIR
\set test_schema view_explain
\set ECHO none
\i :abs_srcdir/sql/include/simulate_ingest.sql
\set ECHO all
\pset null ''
-- sizes differ between majors
CREATE FUNCTION tree(query_or_view text) RETURNS TABLE (step text, strategy text, detail text, create_index text) LANGUAGE sql AS $$
    SELECT step, strategy, regexp_replace(detail, '\d+ (bytes|kB|MB)', 'N kB', 'g'), create_index
      FROM medallion.explain_refresh(query_or_view) $$;

CREATE TABLE orders (id bigint, customer int, product int, placed_at timestamp, seen_at timestamptz, amount numeric, code varchar(20));
CREATE TABLE customers (id int PRIMARY KEY, region text, doc json);
SELECT make_stream('clicks', 'customer int, page text, at timestamptz');
INSERT INTO orders SELECT i, i % 500, i % 50, timestamp '2026-01-01' + i * interval '1 min', now(), i % 97, 'c' || i % 100 FROM generate_series(1, 20000) i;
INSERT INTO customers SELECT i, 'r' || i % 5 FROM generate_series(0, 499) i;
ANALYZE orders, customers;

-- A join is met from both sides; of several ways by the keys one is enough.
SELECT medallion.create_materialized_view('by_region', $$SELECT c.region, o.product, sum(o.amount) AS s, avg(o.amount) AS a, count(*) AS n
    FROM orders o JOIN customers c ON c.id = o.customer GROUP BY 1, 2$$, NULL, 'incremental');
SELECT * FROM tree('by_region');
-- What it says is what helps: the statement makes the index, and the refresh uses it.
SELECT create_index FROM tree('by_region') WHERE create_index IS NOT NULL AND step ~ 'customer' \gexec
ANALYZE orders;
SELECT * FROM tree('by_region');
SELECT pg_stat_force_next_flush();
SELECT coalesce(idx_scan, 0) AS before FROM pg_stat_user_indexes WHERE indexrelname = 'orders_customer_idx' \gset
UPDATE customers SET region = 'moved' WHERE id = 7;
SELECT strategy, rows_read FROM medallion.refresh('by_region');
SELECT count(*) FROM medallion.verify('by_region');
SELECT pg_stat_force_next_flush();
SELECT idx_scan > :before AS used FROM pg_stat_user_indexes WHERE indexrelname = 'orders_customer_idx';

-- Indexes of results are made by refreshes, or by people; window functions need one of people's.
SELECT medallion.create_materialized_view('ranked', $$SELECT id, customer, rank() OVER (PARTITION BY customer ORDER BY amount, id) AS r FROM orders$$, NULL, 'incremental');
SELECT * FROM tree('ranked');
SELECT create_index FROM tree('ranked') WHERE create_index IS NOT NULL \gexec
SELECT * FROM tree('ranked');
ANALYZE ranked;
UPDATE orders SET amount = 1000 WHERE id = 77;
SELECT strategy, rows_read FROM medallion.refresh('ranked');
SELECT pg_stat_force_next_flush();
SELECT idx_scan > 0 AS used FROM pg_stat_user_indexes WHERE indexrelname = 'ranked_customer_idx';

-- Expressions, as they can be indexed and as they cannot.
SELECT * FROM tree($$SELECT date_trunc('day', placed_at) AS day, lower(code) AS c, string_agg(code, ',' ORDER BY id) FROM orders GROUP BY 1, 2$$);
SELECT create_index FROM tree($$SELECT date_trunc('day', placed_at) AS day, lower(code) AS c, string_agg(code, ',' ORDER BY id) FROM orders GROUP BY 1, 2$$) WHERE create_index IS NOT NULL \gexec
SELECT * FROM tree($$SELECT date_trunc('day', placed_at) AS day, lower(code) AS c, string_agg(code, ',' ORDER BY id) FROM orders GROUP BY 1, 2$$);
SELECT * FROM tree($$SELECT date_trunc('day', seen_at) AS day, string_agg(code, ',' ORDER BY id) FROM orders GROUP BY 1$$);
SELECT * FROM tree($$SELECT code, max(amount) AS m FROM orders GROUP BY code$$);
CREATE INDEX ON orders (code);
SELECT step, detail FROM tree($$SELECT code, max(amount) AS m FROM orders GROUP BY code$$) WHERE step ~ 'Lookup';
-- An index over part of the rows, and one that is in the making, do not serve.
CREATE INDEX part ON orders (product) WHERE amount > 5;
SELECT step, detail, create_index FROM tree($$SELECT product, max(amount) AS m FROM orders GROUP BY product$$) WHERE step ~ 'Lookup by';
DROP INDEX part;
CREATE INDEX hashed ON orders USING hash (product);
SELECT step, detail, create_index FROM tree($$SELECT product, max(amount) AS m FROM orders GROUP BY product$$) WHERE step ~ 'Lookup by';

-- Below joins, in subqueries of all places, and through the columns of subqueries.
SELECT * FROM tree($$SELECT c.id, c.region, x.n FROM customers c LEFT JOIN (SELECT customer, count(*) AS n FROM orders GROUP BY customer) x ON x.customer = c.id$$);
SELECT * FROM tree($$SELECT c.id FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND o.amount > 90)
    AND c.id NOT IN (SELECT product FROM orders) AND c.region <> (SELECT min(code) FROM orders o WHERE o.product = c.id)$$);
SELECT * FROM tree($$SELECT c.id, x.n FROM customers c, LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer < c.id) x WHERE x.n = c.id$$);
SELECT * FROM tree($$SELECT c.id, o.code FROM customers c LEFT JOIN orders o ON o.customer > c.id$$);
SELECT * FROM tree($$SELECT customer FROM orders UNION SELECT id FROM customers$$);
SELECT * FROM tree($$SELECT customer, page, count(*) AS n FROM clicks WHERE at > now() - interval '1 hour' GROUP BY 1, 2$$);
SELECT * FROM tree($$SELECT DISTINCT ON (customer) customer, page FROM clicks ORDER BY customer, at DESC$$);
SELECT * FROM tree($$SELECT customer, page FROM clicks WHERE page <> '/'$$);
SELECT * FROM tree($$SELECT code, amount FROM orders ORDER BY amount DESC, id LIMIT 10$$);

-- Names that must be quoted, under any search_path.
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Odd ""Table" ("the key" int, "select" text);
CREATE FUNCTION "Odd Schema"."Twice"(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
INSERT INTO "Odd Schema"."Odd ""Table" VALUES (1, 'a'), (2, 'b');
SELECT * FROM tree($$SELECT "the key" % 5 AS m, "Odd Schema"."Twice"("the key") AS "two ", "select", string_agg("select", '') AS s
    FROM "Odd Schema"."Odd ""Table" GROUP BY 1, 2, 3$$);
SELECT create_index FROM tree($$SELECT "the key" % 5 AS m, "Odd Schema"."Twice"("the key") AS "two ", "select", string_agg("select", '') AS s
    FROM "Odd Schema"."Odd ""Table" GROUP BY 1, 2, 3$$) WHERE create_index IS NOT NULL \gexec
SELECT step, detail, create_index FROM tree($$SELECT "the key" % 5 AS m, "Odd Schema"."Twice"("the key") AS "two ", "select", string_agg("select", '') AS s
    FROM "Odd Schema"."Odd ""Table" GROUP BY 1, 2, 3$$) WHERE step ~ 'Lookup by';

-- Nothing is looked up by what is recomputed.
SELECT * FROM tree($$SELECT o.id, random() AS r FROM orders o JOIN customers c ON c.id = o.customer$$);
SELECT medallion.alter_materialized_view('by_region', refresh_mode => 'full');
SELECT step, strategy, detail FROM tree('by_region');
DROP SCHEMA view_explain, "Odd Schema" CASCADE;
