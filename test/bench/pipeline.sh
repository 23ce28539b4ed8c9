#!/usr/bin/env bash
# The whole pipeline from a real broker: bronze, silver and gold, from an empty
# database to verify() without a difference; then at a steady rate.
#
#   test/bench/pipeline.sh
#
#     bronze  typed columns and the raw payload (as text), of JSON records of about 207 bytes
#     silver  DISTINCT ON (event_id), filtered, with hash keys
#     gold    counts and sums by hour and type
#
# In each round: the three are created at once over a topic that is full, all at
# an interval of 1 s, and the clock runs until gold holds all; then COPY BINARY loads
# the bronze rows into a table like bronze, and Spark with Delta does the same work, if
# it is there (spark.sh). CPU is that of the server's processes but for sessions, which
# are the bench's own: our workers, the WAL writer, the checkpointer. Memory is what the
# same have beside shared memory, at its peak, together.
# Then records come at a steady rate, and gold is looked at 20 times a second: latency
# is from when a record is given to the producer until gold counts it.
#
# Environment: MD_BENCH_RECORDS (2000000), MD_BENCH_ROUNDS (3), MD_BENCH_RATE
# (1000 records a second; 0 leaves this part out), MD_BENCH_SECONDS (30), MD_BENCH_PAYLOAD (text: the
# type of the payload), MD_BENCH_SHARED_BUFFERS (2GB), MD_BENCH_SPARK (1: get Spark
# if it is not there; 0: leave it out).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/pipeline.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh
. test/bench/spark.sh

records=${MD_BENCH_RECORDS:-2000000}
rounds=${MD_BENCH_ROUNDS:-3}
rate=${MD_BENCH_RATE:-1000}
seconds=${MD_BENCH_SECONDS:-30}
payload=${MD_BENCH_PAYLOAD:-text}

server_pid() { head -n 1 "$(query 'SHOW data_directory')/postmaster.pid"; }

# The server's processes that are no sessions.
server_processes() {
    ps --ppid "$postmaster" -o pid=,args= | awk '!/\[local\]/ { print $1 }'
}

# "pid milliseconds" of CPU of each.
server_cpu() {
    local pid
    for pid in $(server_processes); do
        echo "$pid $(process_cpu_ms "$pid" 2>/dev/null || echo 0)"
    done
}

# CPU milliseconds since server_cpu gave $1.
server_cpu_ms_since() {
    server_cpu | awk -v before="$1" '
        BEGIN { n = split(before, field); for (i = 1; i < n; i += 2) start[field[i]] = field[i + 1] }
        { sum += $2 - start[$1] }
        END { print sum + 0 }'
}

# Until the file $1 appears, keep the most private memory of all processes in $2.
watch_server_mib() {
    local pid mib sum peak=0
    while [ ! -e "$1" ]; do
        sum=0
        for pid in $(server_processes); do
            mib=$(private_mib "$pid" 2>/dev/null) || continue
            sum=$((sum + ${mib:-0}))
        done
        [ $sum -le $peak ] || peak=$sum
        echo $peak >"$2"
        sleep 0.2
    done
}

# Wait until the query $1 gives true.
wait_until() { until [ "$(query "$1")" = t ]; do sleep 0.1; done; }

# How many rows silver is to have, in `expected`; counted apart from the rounds.
count_expected() {
    query "SELECT medallion.create_streaming_table('counted', 'kafka', 'events', 'json', 'event_id uuid, event_type text, amount numeric')" >/dev/null
    query "SELECT medallion.wait_until_caught_up('counted', '600 s')" >/dev/null
    expected=$(query "SELECT count(DISTINCT event_id) FROM counted WHERE amount > 0 AND event_type <> 'signup'")
    query 'DROP TABLE counted'
}

create_pipeline() {
    query "CREATE SCHEMA bronze; CREATE SCHEMA silver; CREATE SCHEMA gold;
        SELECT medallion.create_streaming_table('bronze.events', 'kafka', 'events', 'json',
            'event_id uuid, user_id bigint, event_type text, amount numeric, ts timestamptz, payload $payload');
        SELECT medallion.create_materialized_view('silver.events', \$q\$
            SELECT DISTINCT ON (event_id) event_id, medallion.hash_key_uuid(user_id) AS user_key, event_type, amount, ts
              FROM bronze.events WHERE amount > 0 AND event_type <> 'signup' ORDER BY event_id, ts DESC\$q\$, '1 s');
        SELECT medallion.create_materialized_view('gold.hourly', \$q\$
            SELECT date_trunc('hour', ts) AS hour, event_type, count(*) AS events, sum(amount) AS amount
              FROM silver.events GROUP BY 1, 2\$q\$, '1 s')" >/dev/null
}

# One round; sets pipeline_ms, verify_ms, cpu, peak, copy_ms.
run_round() {
    local start cpu_before watcher view
    query 'CHECKPOINT'
    cpu_before=$(server_cpu)
    rm -f "$MD_RUN/done"
    watch_server_mib "$MD_RUN/done" "$MD_RUN/peak" &
    watcher=$!
    start=$(now_ms)
    create_pipeline
    query "SELECT medallion.wait_until_caught_up('bronze.events', '600 s')" >/dev/null
    wait_until "SELECT coalesce(sum(events), 0) = $expected FROM gold.hourly"
    pipeline_ms=$(($(now_ms) - start))
    cpu=$(server_cpu_ms_since "$cpu_before")
    touch "$MD_RUN/done"
    wait "$watcher"
    peak=$(cat "$MD_RUN/peak")
    start=$(now_ms)
    for view in silver.events gold.hourly; do
        [ "$(query "SELECT count(*) FROM medallion.verify('$view')")" -eq 0 ] || { echo "$view differs from its query" >&2; exit 1; }
    done
    verify_ms=$(($(now_ms) - start))
    [ "$(query 'SELECT count(*) FROM bronze.events')" -eq "$records" ] || { echo "bronze does not hold $records rows" >&2; exit 1; }

    [ -e "$MD_RUN/rows" ] || query "COPY bronze.events TO '$MD_RUN/rows' (FORMAT binary)"
    query 'CREATE TABLE copied (LIKE bronze.events INCLUDING ALL)'
    query 'CHECKPOINT'
    start=$(now_ms)
    query "COPY copied FROM '$MD_RUN/rows' (FORMAT binary)"
    copy_ms=$(($(now_ms) - start))
    query 'SET client_min_messages = warning; DROP TABLE copied; DROP SCHEMA bronze, silver, gold CASCADE'
}

# The number of records that gold counts, with the time, until all are there.
watch_gold() {
    while :; do
        query "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, coalesce(sum(events), 0) FROM gold_live"
        [ ! -e "$MD_RUN/done" ] || break
        sleep 0.05
    done >"$MD_RUN/seen"
}

run_steadily() {
    local count=$((rate * seconds)) cpu_before watcher p50 p99 max
    kafka_tool create "$MD_KAFKA_BOOTSTRAP" live 4
    query "SELECT medallion.create_streaming_table('live', 'kafka', 'live', 'json', 'n bigint, sent_us bigint');
        SELECT medallion.create_materialized_view('silver_live', 'SELECT DISTINCT ON (n) n, medallion.hash_key_uuid(n) AS key, sent_us
            FROM live ORDER BY n, sent_us', '1 s');
        SELECT medallion.create_materialized_view('gold_live', 'SELECT n / 1000 AS thousand, count(*) AS events, sum(sent_us) AS sent
            FROM silver_live GROUP BY 1', '1 s')" >/dev/null
    kafka_tool gen "$MD_KAFKA_BOOTSTRAP" live "$rate" --kind stamp --rate "$rate" --first 1000000000 >/dev/null
    wait_until "SELECT coalesce(sum(events), 0) = $rate FROM gold_live"
    rm -f "$MD_RUN/done"
    cpu_before=$(server_cpu)
    watch_gold &
    watcher=$!
    kafka_tool gen "$MD_KAFKA_BOOTSTRAP" live "$count" --kind stamp --rate "$rate" >/dev/null
    wait_until "SELECT sum(events) = $((count + rate)) FROM gold_live"
    cpu=$(server_cpu_ms_since "$cpu_before")
    touch "$MD_RUN/done"
    wait "$watcher"
    # the k-th record sent is seen when gold first counts k more than before
    query 'SELECT sent_us FROM live WHERE n < 1000000000 ORDER BY 1' >"$MD_RUN/sent"
    read -r p50 _ p99 max < <(awk -v before="$rate" '
        NR == FNR { at[++samples] = $1; seen[samples] = $2 - before; next }
        { k++; while (s < samples && seen[s] < k) s++; print at[s] - $1 }' "$MD_RUN/seen" "$MD_RUN/sent" | percentiles)
    printf '%d records a second for %d s, produced to counted in gold: p50 %.0f ms, p99 %.0f ms, max %.0f ms; %s cores\n' "$rate" "$seconds" "$p50" "$p99" "$max" \
        "$(calculate "$cpu / 1000 / $seconds")"
}

build_extension
start_bench_postgres
postmaster=$(server_pid)
start_broker
kafka_tool create "$MD_KAFKA_BOOTSTRAP" events 4 retention.ms=-1
kafka_tool gen "$MD_KAFKA_BOOTSTRAP" events "$records" --codec lz4 >/dev/null
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$MD_KAFKA_BOOTSTRAP')"
count_expected
with_spark=''
if spark_is_wanted; then
    with_spark=1
    start_spark
fi
ratios=() cpus=() peaks=() spark_ratios=() spark_cpus=()
for round in $(seq "$rounds"); do
    run_round
    ratios+=("$(calculate "$copy_ms / $pipeline_ms" 3)")
    cpus+=("$(calculate "$cpu * 1000 / $records" 2)")
    peaks+=("$peak")
    printf 'round %d: bronze, silver and gold of %d records in %.2f s (verified in %.2f s), COPY BINARY of bronze %.2f s, ratio %s; %s CPU seconds per million; %d MiB\n' \
        "$round" "$records" "$(calculate "$pipeline_ms / 1000")" "$(calculate "$verify_ms / 1000")" "$(calculate "$copy_ms / 1000")" \
        "${ratios[-1]}" "${cpus[-1]}" "$peak"
    [ -n "$with_spark" ] || continue
    run_spark
    spark_ratios+=("$(calculate "$copy_ms / $spark_ms" 3)")
    spark_cpus+=("$(calculate "$spark_cpu * 1000 / $records" 2)")
    printf 'round %d: Spark and Delta %.2f s, ratio %s; %s CPU seconds per million; %d MiB\n' \
        "$round" "$(calculate "$spark_ms / 1000")" "${spark_ratios[-1]}" "${spark_cpus[-1]}" "$spark_peak"
done
printf 'median: %sx COPY BINARY, %s CPU seconds per million records, %s MiB\n' "$(printf '%s\n' "${ratios[@]}" | median)" \
    "$(printf '%s\n' "${cpus[@]}" | median)" "$(printf '%s\n' "${peaks[@]}" | median)"
if [ -n "$with_spark" ]; then
    stop_spark
    printf 'median of Spark and Delta: %sx COPY BINARY, %s CPU seconds per million records, %s MiB\n' \
        "$(printf '%s\n' "${spark_ratios[@]}" | median)" "$(printf '%s\n' "${spark_cpus[@]}" | median)" "$spark_peak"
fi
[ "$rate" -eq 0 ] || run_steadily
