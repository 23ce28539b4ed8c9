#!/usr/bin/env bash
# Refresh of a view by hour and type after 1 % new rows, against REFRESH
# MATERIALIZED VIEW of the same query.
#
#   test/bench/refresh.sh
#
# A streaming table takes in the rows from Apache Kafka. In each round 1 % more
# rows arrive, then both kinds of view are refreshed, in turns as to which is
# first. Two kinds of rounds: "newest" rows belong to hours after all others,
# "late" rows are spread over all hours. Ends with a check that both views
# hold the same rows.
#
# Environment: MD_BENCH_ROWS (10000000), MD_BENCH_ROUNDS (3),
# MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/refresh.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

rows=${MD_BENCH_ROWS:-10000000}
rounds=${MD_BENCH_ROUNDS:-3}
part=$((rows / 100))
step_ms=$((30 * 86400 * 1000 / rows))     # all rows lie within 30 days
[ $step_ms -gt 0 ] || step_ms=1
select="SELECT date_trunc('hour', ts) AS hour, event_type, count(*) AS events, sum(amount) AS amount,
               min(amount) AS least, max(amount) AS most
          FROM events GROUP BY 1, 2"
produced=0

# Produce $1 records with the given options and wait until they are rows.
add_rows() {
    local n=$1
    shift
    kafka_tool gen "$bootstrap" events "$n" --codec lz4 "$@" >/dev/null
    produced=$((produced + n))
    query "SELECT medallion.wait_until_caught_up('events', '600 s')" >/dev/null
    [ "$(query 'SELECT count(*) FROM events')" -eq $produced ] || { echo "events does not hold $produced rows" >&2; exit 1; }
}

refresh_ours() {
    local start
    start=$(now_ms)
    query "SELECT medallion.refresh('ours')" >/dev/null
    ours_ms=$(($(now_ms) - start))
}

refresh_theirs() {
    local start
    start=$(now_ms)
    query 'REFRESH MATERIALIZED VIEW theirs'
    theirs_ms=$(($(now_ms) - start))
}

# All rounds of one kind; the options of the generator follow its name, with
# FIRST and SEED replaced.
run_rounds() {
    local kind=$1 round options ratios=()
    shift
    for round in $(seq "$rounds"); do
        options=("${@//FIRST/$produced}")
        add_rows "$part" "${options[@]//SEED/$((round + 1))}"
        query 'CHECKPOINT'
        if [ $((round % 2)) -eq 0 ]; then refresh_ours && refresh_theirs; else refresh_theirs && refresh_ours; fi
        ratios+=("$(calculate "$theirs_ms / ($ours_ms > 0 ? $ours_ms : 1)" 1)")
        printf '%-6s round %d: %s rows more: refresh() %5d ms, REFRESH MATERIALIZED VIEW %6d ms, %s times faster\n' \
            "$kind" "$round" "$part" "$ours_ms" "$theirs_ms" "${ratios[-1]}"
    done
    printf '%-6s median: %s times faster\n' "$kind" "$(printf '%s\n' "${ratios[@]}" | median)"
}

build_extension
start_bench_postgres
start_broker
bootstrap=$MD_KAFKA_BOOTSTRAP
kafka_tool create "$bootstrap" events 4 retention.ms=-1
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap');
       SELECT medallion.create_streaming_table('events', 'kafka', 'events', 'json',
           'event_type text, amount numeric, ts timestamptz')" >/dev/null
add_rows "$rows" --step $step_ms
query 'VACUUM ANALYZE events'
query "SELECT medallion.create_materialized_view('ours', \$q\$$select\$q\$, refresh_interval => NULL);
       CREATE MATERIALIZED VIEW theirs AS $select" >/dev/null
printf '\n%d rows, %d groups\n' "$rows" "$(query 'SELECT count(*) FROM theirs')"

run_rounds newest --first FIRST --step $step_ms
run_rounds late --first 0 --step $((step_ms * 100)) --seed SEED

query 'SELECT strategy, count(*), sum(rows_read) FROM medallion.refresh_history GROUP BY 1 ORDER BY 1' |
    while read -r strategy runs rows_read; do echo "refreshes by strategy $strategy: $runs, rows read: $rows_read"; done
differences=$(query "SELECT count(*) FROM ((TABLE ours EXCEPT ALL TABLE theirs) UNION ALL (TABLE theirs EXCEPT ALL TABLE ours)) AS d")
echo "rows in which the two views differ: $differences"
[ "$differences" -eq 0 ]
