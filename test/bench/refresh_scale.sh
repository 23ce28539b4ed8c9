#!/usr/bin/env bash
# What refreshes cost that should not depend on the size of things.
#
#   test/bench/refresh_scale.sh [PART]...
#
# PART is history, idle or capture; without one, all.
#   history   the same 100,000 new rows over a table of 1 million and one of 100
#             million rows: times of refresh() in turns
#   idle      refresh() of a view with nothing new, in one session: time and WAL
#   capture   a bulk INSERT into an ordinary table with a view over it, against one
#             into its like without
#
# The history of the streaming tables is made with SQL, in tables that they adopt;
# the new rows come from Apache Kafka, into both.
#
# Environment: MD_BENCH_SMALL (1000000), MD_BENCH_BIG (100000000), MD_BENCH_ROUNDS (5),
# MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/refresh_scale.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

small=${MD_BENCH_SMALL:-1000000}
big=${MD_BENCH_BIG:-100000000}
rounds=${MD_BENCH_ROUNDS:-5}
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(history idle capture)

# Milliseconds of statement $1, each of $2 times, in one session.
times_in_session() {
    { echo '\timing on'; for _ in $(seq "$2"); do echo "$1;"; done; } |
        psql -XqAt -v ON_ERROR_STOP=1 | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

# A streaming table $1 with $2 rows that lie within 30 days, and a view over it.
make_stream() {
    query "CREATE TABLE $1 (user_id bigint, ts timestamptz, kafka_partition int, kafka_offset bigint,
               kafka_timestamp timestamptz, ingested_at timestamptz);
           INSERT INTO $1 (user_id, ts)
               SELECT i % 90000, timestamptz '2025-01-01' + i * (interval '30 days' / $2) FROM generate_series(1, $2) i;
           SELECT medallion.create_streaming_table('$1', 'kafka', 'events', 'json')" >/dev/null
    query "VACUUM ANALYZE $1"
    query "SELECT medallion.create_materialized_view('by_hour_$1', \$q\$SELECT date_trunc('hour', ts) AS hour,
               user_id % 20 AS part, count(*) AS events, sum(user_id) AS sum FROM $1 GROUP BY 1, 2\$q\$,
               refresh_interval => NULL)" >/dev/null
}

run_history() {
    local round turn name times_small='' times_big='' tables=(small big) ms
    make_stream small "$small"
    make_stream big "$big"
    for round in $(seq "$rounds"); do
        kafka_tool gen "$bootstrap" events 100000 --codec lz4 --first $((round * 100000)) --step 25000 --seed "$round" >/dev/null
        for name in small big; do query "SELECT medallion.wait_until_caught_up('$name', '600 s')" >/dev/null; done
        for turn in 0 1; do
            name=${tables[(round + turn) % 2]}
            ms=$(times_in_session "SELECT medallion.refresh('by_hour_$name')" 1)
            [ "$name" = small ] && times_small+="$ms " || times_big+="$ms "
        done
    done
    ms=$(printf '%s\n' $times_small | median)
    echo "history: 100,000 rows over $small rows: $ms ms ($times_small)"
    ms="$(printf '%s\n' $times_big | median) / $ms"
    echo "history: 100,000 rows over $big rows: ${ms%% *} ms ($times_big), $(calculate "$ms") times as much"
    query "SELECT 'history: rows read ' || string_agg(DISTINCT rows_read::text, ', ') FROM medallion.refresh_history WHERE strategy = 'merge'"
    for name in small big; do
        [ "$(query "SELECT count(*) FROM medallion.verify('by_hour_$name')")" = 0 ] ||
            { echo "by_hour_$name is not what its query says" >&2; exit 1; }
    done
}

run_idle() {
    local before times
    make_stream idle "$small"
    times_in_session "SELECT medallion.refresh('by_hour_idle')" 3 >/dev/null
    before=$(wal_position)
    times=$(times_in_session "SELECT medallion.refresh('by_hour_idle')" 200)
    echo "idle: first of a session $(head -n 1 <<<"$times") ms, then median $(median <<<"$times") ms," \
        "$(($(wal_position) - before)) bytes of WAL in 200 refreshes"
}

run_capture() {
    local round turn name ms times_plain='' times_captured='' tables=(plain captured)
    for name in plain captured; do
        query "CREATE TABLE $name (id bigint, customer text, amount numeric, placed_at timestamptz)"
    done
    query "SELECT medallion.create_materialized_view('by_customer', 'SELECT customer, count(*), sum(amount) FROM captured GROUP BY 1',
               refresh_interval => NULL)" >/dev/null
    for round in $(seq "$rounds"); do
        for turn in 0 1; do
            name=${tables[(round + turn) % 2]}
            ms=$(times_in_session "INSERT INTO $name SELECT i, 'customer ' || i % 1000, i % 977 / 10.0,
                timestamptz '2025-01-01' + i * interval '1 s' FROM generate_series(1, 1000000) i" 1)
            [ "$name" = plain ] && times_plain+="$ms " || times_captured+="$ms "
        done
        query "SELECT medallion.refresh('by_customer')" >/dev/null
    done
    ms=$(printf '%s\n' $times_plain | median)
    echo "capture: INSERT of 1,000,000 rows without: $ms ms ($times_plain)"
    ms="$(printf '%s\n' $times_captured | median) / $ms"
    echo "capture: with: ${ms%% *} ms ($times_captured), $(calculate "$ms") times as much"
}

build_extension
start_bench_postgres
start_broker
bootstrap=$MD_KAFKA_BOOTSTRAP
kafka_tool create "$bootstrap" events 4 retention.ms=-1
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap')"
for part in "${parts[@]}"; do "run_$part"; done
