-- What the engine does with rows that come and go, for every kind of query: after each of some random rounds of
-- inserts, updates and deletes in three tables each view equals its query, duplicates counted.
\set test_schema view_changes
SET client_min_messages = warning;
CREATE SCHEMA view_changes;
SET search_path = view_changes, public;
\pset null '(null)'
CREATE TABLE a (id int, k int, x int, s text);
CREATE TABLE b (id int, k int, y int, t text);
CREATE TABLE c (gone int, id int, j json, z numeric, k int);
ALTER TABLE c DROP COLUMN gone;

CREATE FUNCTION roll(n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT nullif(floor(random() * n)::int, 0) $$;
CREATE FUNCTION word() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT (ARRAY['p', 'q', 'r', NULL, 's'])[1 + floor(random() * 5)] $$;
-- Several statements on each table: rows inserted and deleted between two refreshes, updated twice, equal rows.
CREATE FUNCTION churn() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t text;
    dice float;
    n int;
BEGIN
    FOREACH t IN ARRAY ARRAY['a', 'b', 'c'] LOOP
        CONTINUE WHEN random() < 0.25;
        FOR i IN 1..1 + floor(random() * 3) LOOP
            dice := random();
            n := floor(random() * 4);
            IF dice < 0.5 AND t = 'a' THEN
                INSERT INTO a SELECT roll(12), roll(6), roll(20), word() FROM generate_series(1, n);
            ELSIF dice < 0.5 AND t = 'b' THEN
                INSERT INTO b SELECT roll(12), roll(6), roll(20), word() FROM generate_series(1, n);
            ELSIF dice < 0.5 THEN
                INSERT INTO c SELECT roll(12), (ARRAY['{"a":1}', '[1]', NULL])[1 + floor(random() * 3)]::json,
                                     (ARRAY[1.0, 1.00, 2.5, NULL])[1 + floor(random() * 4)], roll(6) FROM generate_series(1, n);
            ELSIF dice < 0.7 THEN
                EXECUTE format('DELETE FROM %I WHERE ctid IN (SELECT ctid FROM %1$I ORDER BY random() LIMIT %s)', t, n);
            ELSIF dice < 0.75 THEN
                EXECUTE format('DELETE FROM %I WHERE random() < 0.4', t);
            ELSIF t = 'a' THEN
                UPDATE a SET k = roll(6), x = CASE WHEN random() < 0.5 THEN x ELSE roll(20) END WHERE random() < 0.2;
            ELSIF t = 'b' THEN
                UPDATE b SET k = roll(6), t = word() WHERE random() < 0.2;
            ELSE
                UPDATE c SET k = roll(6), z = 2.5 WHERE random() < 0.2;
            END IF;
        END LOOP;
    END LOOP;
END $$;
-- Rows of the view that its query has not, and the other way round.
CREATE FUNCTION differences(view text, query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
    c text;
BEGIN
    SELECT string_agg(quote_ident(attname) || CASE WHEN atttypid = 'json'::regtype THEN '::text' ELSE '' END, ', ' ORDER BY attnum)
      INTO c FROM pg_attribute WHERE attrelid = view::regclass AND attnum > 0;
    EXECUTE format('WITH q AS (SELECT %1$s FROM (%2$s) q), v AS (SELECT %1$s FROM %3$s)
                    SELECT (SELECT count(*) FROM (TABLE q EXCEPT ALL TABLE v) x)
                         + (SELECT count(*) FROM (TABLE v EXCEPT ALL TABLE q) x)', c, query, view::regclass) INTO n;
    RETURN n;
END $$;
CREATE TABLE queries (number int GENERATED ALWAYS AS IDENTITY, name text, query text);
INSERT INTO queries (name, query) VALUES
    ('filter', $$select id, x+1 as x1, s from a where x > 5$$),
    ('json', $$select id, j, z from c where k > 1$$),
    ('srf', $$select id, generate_series(1, k) g from a$$),
    ('lat', $$select a.id, g from a, generate_series(1, a.k) g$$),
    ('j2', $$select a.id, b.id as bid, x, y from a join b on a.k=b.k$$),
    ('j2using', $$select id, k, x, y from a join b using (id, k)$$),
    ('j3', $$select a.id, b.id as bid, c.id as cid, z from a join b on a.k=b.k join c on c.k=b.k where a.x > b.y$$),
    ('self', $$select p.id, q.id as qid from a p join a q on p.k=q.k and p.x < q.x$$),
    ('cross', $$select a.id, b.id as bid from a, b where a.x+b.y > 25$$),
    ('left1', $$select a.id, a.x, b.y from a left join b on a.k=b.k$$),
    ('left2', $$select a.id, b.y, c.z from a left join b on a.k=b.k left join c on c.k=b.id$$),
    ('left3', $$select a.id, q.y, q.z from a left join (b join c on b.id=c.id) as q(i1,k1,y,t,i2,j,z,k2) on q.k1 = a.k$$),
    ('leftq', $$select a.id, b.y from a left join b on a.k=b.k and b.y > 5 where b.y is null or a.x > 3$$),
    ('right1', $$select a.id, b.y, b.t from a right join b on a.k=b.k$$),
    ('full1', $$select a.id, b.y, coalesce(a.k,b.k) kk from a full join b on a.k=b.k$$),
    ('full2', $$select k, x, y from a full join b using (k)$$),
    ('full3', $$select k, x, y, z from a full join b using (k) full join c using (k)$$),
    ('leftself', $$select p.id, q.x from a p left join a q on p.k=q.id$$),
    ('exists1', $$select * from a where exists (select 1 from b where b.k=a.k and b.y > 4)$$),
    ('nexists1', $$select * from a where not exists (select 1 from b where b.k=a.k and b.y > a.x)$$),
    ('in1', $$select * from a where k in (select k from b where y > 5)$$),
    ('in2', $$select * from a where (k, x) in (select k, y from b)$$),
    ('notin1', $$select * from a where k not in (select k from b where y > 10)$$),
    ('inor', $$select * from a where k in (select k from b) or x > 10$$),
    ('inlist', $$select id, k in (select k from b) as found from a$$),
    ('scalar1', $$select id, (select max(y) from b where b.k=a.k) m from a$$),
    ('scalar2', $$select * from a where x > (select avg(y) from b where b.k=a.k)$$),
    ('scalar3', $$select * from a where x > (select avg(y) from b)$$),
    ('scalarcase', $$select id, case when x > 5 then (select count(*) from b where b.k = a.k) else -1 end n from a$$),
    ('scalarlim', $$select id, (select y from b where b.k=a.k order by y desc nulls last, id, t limit 1) m from a$$),
    ('arr', $$select id, array(select y from b where b.k=a.k order by y) m from a$$),
    ('lateral1', $$select a.id, l.m from a, lateral (select max(y) m from b where b.k=a.k) l$$),
    ('lateral2', $$select a.id, l.y from a left join lateral (select y from b where b.k=a.k order by y, id, t limit 2) l on true$$),
    ('group1', $$select k, count(*), sum(x), min(x), max(x) from a group by k$$),
    ('group2', $$select k, s, count(distinct x), array_agg(x order by x), string_agg(s, ',' order by s) from a group by k, s$$),
    ('grouphid', $$select count(*), sum(x) from a group by k$$),
    ('groupexpr', $$select upper(s) u, k%2 m, count(*) from a group by upper(s), k%2$$),
    ('having', $$select k, sum(x) from a group by k having count(*) > 2$$),
    ('havingsub', $$select k, sum(x) from a group by k having sum(x) > (select avg(y)*3 from b)$$),
    ('havingsub2', $$select k, sum(x) from a group by k having sum(x) > (select sum(y) from b where b.k = a.k)$$),
    ('groupj', $$select b.t, count(*), sum(a.x*b.y) from a join b on a.k=b.k group by b.t$$),
    ('grouplj', $$select a.k, count(b.id), sum(b.y) from a left join b on a.id=b.id group by a.k$$),
    ('one', $$select count(*), sum(x), max(s) from a$$),
    ('onej', $$select count(*), sum(x) from a join b using (k)$$),
    ('one_having', $$select count(*) from a having count(*) > 10$$),
    ('rollup', $$select k, s, count(*), grouping(k,s) g from a group by rollup(k,s)$$),
    ('cube', $$select k, s, sum(x) from a group by cube(k,s) having sum(x) > 3$$),
    ('gsets', $$select k, s, count(*) from a group by grouping sets ((k),(s),())$$),
    ('rollwin', $$select k, s, sum(x) sx, rank() over (partition by k order by sum(x), s) from a group by rollup(k,s)$$),
    ('nest1', $$select n, count(*) from (select k, count(*) n from a group by k) q group by n$$),
    ('nest2', $$select b.id, q.n from b join (select k, count(*) n from a group by k) q on q.k=b.k$$),
    ('nest3', $$select b.id, q.n from b left join (select k, count(*) n from a group by k) q on q.k=b.k$$),
    ('nest4', $$select max(n) from (select k, count(*) n from a group by k) q$$),
    ('win1', $$select id, k, x, row_number() over (partition by k order by x, id, s) from a$$),
    ('win2', $$select id, k, sum(x) over (partition by k), lag(x) over (partition by k, s order by x, id) from a$$),
    ('win3', $$select * from (select *, row_number() over (partition by k order by x desc nulls last, id, s) rn from a) q where rn=1$$),
    ('win4', $$select id, sum(x) over (partition by k), count(*) over (partition by s), rank() over (partition by s order by x) from a$$),
    ('win5', $$select k, sum(x) over (partition by k) - max(x) over (partition by s) d, count(*) over (partition by id) from a where x > 2$$),
    ('win6', $$select s, sum(x) over (partition by k) m, (select max(y) from b where b.k = a.k) y, lag(x) over (partition by s order by x, id, k) from a$$),
    ('win7', $$select * from (select k, s, rank() over (partition by k%2 order by sum(x)) r, max(sum(x)) over (partition by s) m from a group by k, s) q where r <= 3$$),
    ('wingroup', $$select k, sum(x), rank() over (partition by k%2 order by sum(x)) from a group by k$$),
    ('distinct1', $$select distinct k, s from a$$),
    ('distinct2', $$select distinct k from (select k from a union all select k from b) q$$),
    ('distincton', $$select distinct on (k) k, x, id, s from a order by k, x desc nulls last, id, s$$),
    ('union1', $$select k, x from a union select k, y from b$$),
    ('unionall', $$select k, x from a union all select k, y from b$$),
    ('intersect1', $$select k from a intersect select k from b$$),
    ('intersectall', $$select k from a intersect all select k from b$$),
    ('except1', $$select k, x from a except select k, y from b$$),
    ('exceptall', $$select k from a except all select k from b$$),
    ('setmix', $$select k from a union all (select k from b except select k from c)$$),
    ('topn', $$select id, k, x, s from a order by x desc nulls last, id, k, s limit 5$$),
    ('topngroup', $$select k, count(*) from a group by k order by 2 desc, 1 limit 3$$),
    ('topoff', $$select id, x, k, s from a order by id, x, k, s offset 2 limit 5$$),
    ('cte', $$with q as (select k, sum(x) sx from a group by k) select p.k, p.sx from q p where p.sx = (select max(sx) from q)$$),
    ('cte2', $$with q as (select k, sum(x) sx from a group by k) select p.k, r.sx from q p join q r on p.k = r.k+1$$),
    ('unionagg', $$select k, sum(v) from (select k, x v from a union all select k, y from b) q group by k$$),
    ('wholerow', $$select a, b.id from a join b using (k)$$),
    ('wholerow2', $$select k, count(a), jsonb_agg(a order by a) from a group by k$$),
    ('wholerow3', $$select a.id, b from a left join b on a.k = b.k$$),
    ('wholerow4', $$select a, b from a full join b on a.k = b.k and a.x = b.y$$),
    ('wholerow5', $$select a.id, to_jsonb(q) j, (q) is distinct from null as found from a left join (select k, count(*) n from b group by k) q on q.k = a.k$$),
    ('wholerow6', $$select b.t, count(a), count(b) n from a left join b on a.x < b.y group by b.t$$),
    ('rowname1', $$select to_jsonb(q) j from (select k, x from a where x > 1) q$$),
    ('rowname2', $$select a.id, to_jsonb(q) j from a left join (select k, count(*) n from b group by k) q(key, number) on q.key = a.k$$),
    ('rowname3', $$select a.id, q is null as missing, (select jsonb_agg(r order by r) from (select y from b where b.k = a.k) r) j from a left join (select k from b where y > 5) q on q.k = a.id$$),
    ('rowname4', $$select b.id, jsonb_agg(q order by q) from b join (select k, s from a) q on q.k = b.k group by b.id$$),
    ('rowname5', $$select to_jsonb(l) j from a, lateral (select b.k, max(y) m from b where b.k = a.k group by b.k) l$$),
    ('rowname6', $$with q as (select k, max(x) m from a group by k) select p.k, to_jsonb(p) j, to_jsonb(r) l from q p join q r on p.k = r.k + 1$$),
    ('subsub', $$select * from a where k in (select k from b where y > (select avg(z) from c where c.k=b.k))$$),
    ('q20', $$select * from a where exists (select 1 from b where b.k=a.k and not exists (select 1 from c where c.id=b.id))$$),
    ('bigint_', $$select a.id from a join (select id::bigint i8 from b) q on q.i8 = a.id$$),
    ('aggin', $$select * from a where k in (select k from b group by k having sum(y) > 12)$$),
    ('joinleftgroup', $$select a.s, count(*), sum(q.n) from a left join (select k, count(*) n from b group by k) q on q.k = a.k group by a.s$$),
    ('leftnoeq', $$select a.id, b.id bid from a left join b on a.x < b.y$$),
    ('leftnoeq2', $$select a.id, b.t, c.z from a left join b on a.k <> b.k and b.y > 10 left join c on c.k = b.k where a.x > 3$$),
    ('leftnoeq3', $$select p.id, q.x from a p left join a q on p.x < q.x$$),
    ('leftnoeq4', $$select a.k, count(q.n), sum(q.n) from a left join (select k, count(*) n from b group by k) q on q.n < a.k group by a.k$$),
    ('leftnoeq5', $$select a.id, q.y, q.z from a left join (b join c on b.id=c.id) as q(i1,k1,y,t,i2,j,z,k2) on q.y > a.x or q.z is null$$),
    ('lefttrue', $$select a.id, b.id bid from a left join b on true where a.x > 15$$),
    ('lefttrue2', $$select q.n, b.id from (select count(*) n from a where x > 18) q left join b on b.y > 18$$),
    ('unequal1', $$select * from a where exists (select 1 from b where b.y > a.x)$$),
    ('unequal2', $$select * from a where not exists (select 1 from b where b.y > a.x and b.k <> a.k)$$),
    ('unequal3', $$select a.id, (select count(*) from b where b.y < a.x) n, (select max(y) from b where b.k is not distinct from a.k) m from a$$),
    ('unequal4', $$select a.id, l.y from a left join lateral (select y from b where b.y >= a.x order by y, id, t limit 2) l on true$$),
    ('unequal5', $$select a.id, l.n, l.k from a, lateral (select b.k, count(*) n from b join c on b.id = c.id where c.z > a.x or b.t = a.s group by b.k) l$$),
    ('unequal6', $$select k, sum(x) from a where x > all (select y from b where b.t <> a.s) group by k$$),
    ('unequal7', $$select a.id, x in (select y from b where b.k < a.k) as found from a where k not in (select k from c where c.id > a.id)$$),
    ('unequal8', $$select * from a where exists (select 1 from b where a.x > 10)$$),
    ('aggsub', $$select k, sum((select count(*) from b where b.k = a.k)) from a group by k$$),
    ('orexists', $$select * from a where x > 15 or exists (select 1 from b where b.k=a.k)$$),
    ('distinctgroup', $$select distinct n from (select k, count(*) n from a group by k) q$$),
    ('left4', $$select a.id, b.y, c.z from a left join (b join c on b.id=c.id) on b.k = a.k and c.z > 1$$),
    ('left5', $$select a.id, b.y, c.z from a left join (b left join c on b.id=c.id) on b.k = a.k$$),
    ('left6', $$select a.id, b.y, c.z, a2.x from (a join c on a.id=c.id) left join (b cross join a a2) on b.k = a.k and a2.id = c.k$$),
    ('full4', $$select a.k, x, y, z from (a full join b on a.k = b.k and a.x=b.y) left join c on c.id=a.id$$),
    ('fullg', $$select coalesce(p.k, q.k) k, p.n, q.m from (select k, count(*) n from a group by k) p full join (select k, sum(y) m from b group by k) q on p.k=q.k$$);
SELECT name, e.strategy, e.changes, e.detail FROM queries q, medallion.explain_refresh(q.query) e WHERE e.step = 'Query' ORDER BY number;
SELECT count(medallion.create_materialized_view('v_' || name, query, NULL)) = (SELECT count(*) FROM queries) AS all_made FROM queries;

CREATE TABLE recomputed (name text, reason text);
CREATE FUNCTION run_rounds(rounds int) RETURNS TABLE (round int, name text, differs bigint, strategy text, reason text) LANGUAGE plpgsql AS $$
DECLARE
    q record;
    r record;
BEGIN
    FOR round IN 1..rounds LOOP
        PERFORM churn();
        FOR q IN SELECT * FROM queries ORDER BY number LOOP
            -- not each view at each round, so that several rounds come at once
            CONTINUE WHEN random() < 0.4 AND round < rounds;
            SELECT * INTO r FROM medallion.refresh(('v_' || q.name)::regclass);
            IF r.strategy = 'full' THEN
                INSERT INTO recomputed VALUES (q.name, r.reason);
            END IF;
            differs := differences('v_' || q.name, q.query);
            IF differs <> 0 THEN
                name := q.name; strategy := r.strategy; reason := r.reason;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT setseed(0.5);
DO $$ BEGIN FOR i IN 1..6 LOOP PERFORM churn(); END LOOP; END $$;
SELECT count(medallion.refresh(('v_' || name)::regclass, full_refresh => true)) > 0 AS begun FROM queries;
DELETE FROM recomputed;
SELECT * FROM run_rounds(6);
SELECT DISTINCT name, reason FROM recomputed ORDER BY 1;
SELECT q.name, v.* FROM queries q, medallion.verify(('v_' || q.name)::regclass) v;

DROP SCHEMA view_changes CASCADE;
SELECT count(*) FROM medallion.view WHERE relid::text LIKE 'view_changes%';
