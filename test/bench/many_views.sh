#!/usr/bin/env bash
# Many views on one refresh worker: is every interval kept, and what does it cost?
#
#   test/bench/many_views.sh
#
# Views of several kinds, the same number over each of some ordinary tables, all at
# one interval: filters, groups, distinct values, first rows of each key, joins, and
# every tenth one reads the view made before it. First nothing changes, and the CPU of
# the supervisor and the refresh worker is that of looking. Then, once a second, some of
# the tables get a few rows, so that in each interval every view has something new:
# every view must have been refreshed in every interval, by medallion.refresh_history,
# and be what its query says at the end.
#
# Environment: MD_BENCH_TABLES (50), MD_BENCH_VIEWS (500), MD_BENCH_INTERVAL (10
# seconds), MD_BENCH_SECONDS (60, of each part), MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/many_views.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

tables=${MD_BENCH_TABLES:-50}
views=${MD_BENCH_VIEWS:-500}
interval=${MD_BENCH_INTERVAL:-10}
seconds=${MD_BENCH_SECONDS:-60}

create_tables() {
    query "DO \$\$ BEGIN FOR n IN 0 .. $tables - 1 LOOP
        EXECUTE format('CREATE TABLE t%s (id bigint PRIMARY KEY, k int, v numeric, at timestamptz)', n);
        EXECUTE format('INSERT INTO t%s SELECT i, i %% 100, i, ''2026-01-01''::timestamptz + i * interval ''1 min'' FROM generate_series(1, 2000) i', n);
        END LOOP; END \$\$"
}

# View n is over table n % tables, of the kind n / tables.
create_views() {
    query "DO \$\$ DECLARE
        t text; query text;
    BEGIN FOR n IN 0 .. $views - 1 LOOP
        t := 't' || n % $tables;
        query := CASE (n / $tables) % 10
            WHEN 0 THEN format('SELECT id, k, v * 2 AS w FROM %s WHERE k < 50', t)
            WHEN 1 THEN format('SELECT k, count(*) AS n, sum(v) AS v FROM %s GROUP BY k', t)
            WHEN 2 THEN format('SELECT date_trunc(''hour'', at) AS hour, count(*) AS n, max(v) AS v FROM %s GROUP BY 1', t)
            WHEN 3 THEN format('SELECT DISTINCT ON (k) k, id, v FROM %s ORDER BY k, id DESC', t)
            WHEN 4 THEN format('SELECT k, count(DISTINCT at::date) AS days FROM %s GROUP BY k', t)
            WHEN 5 THEN format('SELECT a.id, a.v, b.n FROM %s a JOIN v%s b USING (k)', t, n - 4 * $tables)
            WHEN 6 THEN format('SELECT count(*) AS n, sum(v) AS v FROM %s', t)
            WHEN 7 THEN format('SELECT k, avg(v) AS v FROM %s GROUP BY k HAVING count(*) > 1', t)
            WHEN 8 THEN format('SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) AS n FROM %s', t)
            ELSE format('SELECT n, count(*) AS m FROM v%s GROUP BY n', n - $tables)
        END;
        PERFORM medallion.create_materialized_view('v' || n, query, '$interval s');
    END LOOP; END \$\$"
}

worker_pid() { query "SELECT min(pid) FROM medallion.workers WHERE kind = '$1' AND (database = current_database() OR database IS NULL)"; }

# Sets supervisor_ms and refresh_ms: CPU milliseconds while the command runs.
measure_cpu() {
    local supervisor refresh
    supervisor=$(worker_pid supervisor)
    refresh=$(worker_pid refresh)
    supervisor_ms=$(process_cpu_ms "$supervisor")
    refresh_ms=$(process_cpu_ms "$refresh")
    "$@"
    supervisor_ms=$(($(process_cpu_ms "$supervisor") - supervisor_ms))
    refresh_ms=$(($(process_cpu_ms "$refresh") - refresh_ms))
}

print_cpu() {
    printf '%s: supervisor %s %%, refresh worker %s %% of a core, together %s %%\n' "$1" "$(calculate "$supervisor_ms / $seconds / 10")" \
        "$(calculate "$refresh_ms / $seconds / 10")" "$(calculate "($supervisor_ms + $refresh_ms) / $seconds / 10")"
}

# Rows into a share of the tables each second, such that each table has its turn twice in an interval.
trickle() {
    local second turn=$(((interval + 1) / 2)) started_ms ahead_ms
    started_ms=$(now_ms)
    for second in $(seq 0 $((seconds - 1))); do
        query "DO \$\$ BEGIN FOR n IN 0 .. $tables - 1 LOOP
            IF n % $turn = $second % $turn THEN
                EXECUTE format('INSERT INTO t%s SELECT i, i %% 100, i, now() FROM (SELECT max(id) AS last FROM t%s) l, generate_series(l.last + 1, l.last + 10) i', n, n);
            END IF; END LOOP; END \$\$"
        ahead_ms=$((started_ms + (second + 1) * 1000 - $(now_ms)))
        [ "$ahead_ms" -le 0 ] || sleep "$(calculate "$ahead_ms / 1000" 3)"
    done
}

build_extension
start_bench_postgres "medallion.refresh_workers = 1" "max_locks_per_transaction = 1024"
create_tables
create_views
until [ "$(query "SELECT count(*) FROM medallion.materialized_views WHERE populated AND refreshed_at IS NOT NULL")" -eq "$views" ]; do sleep 1; done
sleep $((interval * 2))

measure_cpu sleep "$seconds"
print_cpu "$views views over $tables tables, nothing new"

began=$(query 'SELECT clock_timestamp()')
# until each view had its turn the intervals say nothing
measure_cpu trickle
print_cpu 'the same with new rows for every view in each interval'
sleep "$interval"
query "SELECT format('refreshes: %s; between two of one view: median %s s, longest %s s; intervals of more than a tenth too long: %s; a refresh takes %s ms (median), %s ms at most',
        count(*), round((percentile_cont(0.5) WITHIN GROUP (ORDER BY pause))::numeric, 2), round(max(pause)::numeric, 2),
        count(*) FILTER (WHERE pause > $interval * 1.1),
        round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms))::numeric, 1), round(max(ms)::numeric, 1))
    FROM (SELECT extract(epoch FROM started_at - lag(started_at) OVER (PARTITION BY view ORDER BY started_at)) AS pause,
                 extract(epoch FROM duration) * 1000 AS ms
            FROM medallion.refresh_history WHERE started_at >= '$began' AND strategy <> 'none') h"
late=$(query "SELECT count(*) FROM medallion.materialized_views v WHERE NOT EXISTS (SELECT FROM medallion.refresh_history h
    WHERE h.view = v.view AND h.started_at >= '$began' HAVING count(*) >= $seconds / $interval)")
differing=$(query "SELECT coalesce(string_agg(v.view::text, ', '), 'none') FROM medallion.materialized_views v WHERE EXISTS (SELECT FROM medallion.verify(v.view))")
echo "views refreshed less than once in an interval: $late; that differ from their query: $differing; that fail: $(query 'SELECT count(*) FROM medallion.materialized_views WHERE failures > 0')"
