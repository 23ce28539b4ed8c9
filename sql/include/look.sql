-- Refresh all views of the table `queries`: those that did something, and those that are wrong or do something
-- again.  query_of() tells what a view is to be equal to.
CREATE FUNCTION look() RETURNS TABLE (name text, strategy text, reason text, wrong bigint, again bigint) LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    q queries;
BEGIN
    FOR q IN SELECT * FROM queries ORDER BY n LOOP
        look.name := q.name;
        SELECT r.strategy, r.reason INTO look.strategy, look.reason FROM medallion.refresh(q.name::regclass) r;
        EXECUTE format('SELECT (SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL TABLE %1$s)) d)'
                       ' + (SELECT count(*) FROM medallion.verify(%1$L))', q.name, query_of(q)) INTO wrong;
        SELECT rows_inserted + rows_updated + rows_deleted INTO again FROM medallion.refresh(q.name::regclass) r WHERE r.strategy <> 'none';
        CONTINUE WHEN look.strategy = 'none' AND wrong = 0 AND again IS NULL;
        RETURN NEXT;
    END LOOP;
END $$;
