#!/usr/bin/env bash
# How long a record takes from its producer to a row that queries see.
#
#   test/bench/latency.sh
#
# Records of about 207 bytes are sent at a steady rate, each with the time at
# which it is given to the producer (which does not wait to fill a batch), to a
# real broker. Latency is from then to the commit of the record's row, by the
# server's own clock (track_commit_timestamp). In each round: a bare consumer,
# which does nothing with its records, for comparison; a typed JSON table with
# flush_interval = 0; and one with the default. Then, how long it takes until
# the first batch of a table is stored, counted from the end of the statement
# that creates it: with a worker that reads other tables of the same server, and
# with none.
#
# The broker, which compiles itself while it works, is warmed up before for
# MD_BENCH_WARM_UP seconds (15). Run it on an idle machine: a busy one shows in the 99th percentile first, the
# bare consumer's as well.
#
# Environment: MD_BENCH_RATE (10000 records a second), MD_BENCH_SECONDS (10),
# MD_BENCH_ROUNDS (3), MD_BENCH_PARTITIONS (4), MD_BENCH_LINGER (0, the
# producer's linger.ms), MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/latency.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

rate=${MD_BENCH_RATE:-10000}
seconds=${MD_BENCH_SECONDS:-10}
rounds=${MD_BENCH_ROUNDS:-3}
count=$((rate * seconds))
topics=0

# Make a topic with $1 partitions of a name of its own; sets `topic`.
make_topic() {
    topic=latency_$((++topics))
    kafka_tool create "$MD_KAFKA_BOOTSTRAP" "$topic" "$1"
}

send() {
    kafka_tool gen "$MD_KAFKA_BOOTSTRAP" "$topic" "$1" --kind stamp --rate "$rate" \
        --linger "${MD_BENCH_LINGER:-0}" "${@:2}" >/dev/null
}

# One round of a bare consumer; sets `figures`.
run_bare() {
    local pid
    make_topic "${MD_BENCH_PARTITIONS:-4}"
    rm -f "$MD_RUN/arrivals"
    mkfifo "$MD_RUN/arrivals"
    kafka_tool arrive "$MD_KAFKA_BOOTSTRAP" "$topic" "$count" >"$MD_RUN/arrivals" &
    pid=$!
    exec 9<"$MD_RUN/arrivals"
    read -r _ <&9
    send "$count"
    figures=$(percentiles <&9)
    exec 9<&-
    wait $pid
}

# One round of a table with the options $1; sets `figures`, `commits` and `cpu`.
run_table() {
    local pid commits_before cpu_before
    make_topic "${MD_BENCH_PARTITIONS:-4}"
    query "SELECT medallion.create_streaming_table('measured', 'kafka', '$topic', 'json', 'n bigint, sent_us bigint', options => '$1')" >/dev/null
    # The first records find a stream that has just begun.
    send 100 --first 1000000000
    query "SELECT medallion.wait_until_caught_up('measured', '60 s')" >/dev/null
    pid=$(ingest_worker_pid)
    commits_before=$(commits_of "$pid")
    cpu_before=$(process_cpu_ms "$pid")
    send "$count"
    query "SELECT medallion.wait_until_caught_up('measured', '600 s')" >/dev/null
    commits=$(calculate "($(commits_of "$pid") - $commits_before) / $seconds" 0)
    cpu=$(calculate "($(process_cpu_ms "$pid") - $cpu_before) / 10 / $seconds" 0)
    [ "$(query "SELECT count(*) FROM measured WHERE n < 1000000000")" -eq "$count" ] ||
        { echo "measured does not hold $count rows" >&2; exit 1; }
    figures=$(query "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint - sent_us
                       FROM measured WHERE n < 1000000000" | percentiles)
    query 'DROP TABLE measured'
}

commits_of() { query "SELECT transactions FROM medallion.workers WHERE pid = $1"; }

show() {
    printf '%-24s round %d: p50 %7.2f ms, p90 %7.2f, p99 %7.2f, max %7.2f%s\n' "$1" "$2" $figures "${3-}"
    echo "$figures" >>"$MD_RUN/figures.${1// /_}"
}

# The medians over all rounds of what is called $1.
show_medians() {
    local file=$MD_RUN/figures.${1// /_}
    printf '%-24s median: p50 %s ms, p99 %s ms\n' "$1" "$(cut -d' ' -f1 "$file" | median)" "$(cut -d' ' -f3 "$file" | median)"
}

# Create a table over the full topic `topic`; prints the ms from then to its
# first batch.
first_batch_ms() {
    local created
    query "SELECT medallion.create_streaming_table('begun', 'kafka', '$topic', 'raw')" >/dev/null
    created=$(now_ms)
    query "SELECT medallion.wait_until_caught_up('begun', '60 s')" >/dev/null
    query "SELECT round(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint - $created FROM begun ORDER BY 1 LIMIT 1"
    query 'DROP TABLE begun'
}

wait_until_no_worker() {
    until [ "$(query "SELECT count(*) FROM medallion.workers WHERE kind = 'ingest'")" -eq 0 ]; do sleep 0.1; done
}

# How soon a new table has its first rows.
run_starts() {
    local n with=() without=()
    make_topic 1
    query "SELECT medallion.create_streaming_table('idle', 'kafka', '$topic', 'raw')" >/dev/null
    make_topic "${MD_BENCH_PARTITIONS:-4}"
    send 10000
    for n in 1 2 3 4 5 6 7; do
        # at any moment between two fetches of the idle table
        sleep "1.$((n * 137 % 1000))"
        with+=("$(first_batch_ms)")
    done
    query 'DROP TABLE idle'
    for n in 1 2 3 4 5 6 7; do
        wait_until_no_worker
        without+=("$(first_batch_ms)")
    done
    printf '\nfirst batch of a new table: with a worker that reads others after %s ms (%s), with none after %s ms (%s)\n' \
        "$(printf '%s\n' "${with[@]}" | median)" "${with[*]}" "$(printf '%s\n' "${without[@]}" | median)" "${without[*]}"
}

build_extension
start_bench_postgres 'track_commit_timestamp = on'
start_broker
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$MD_KAFKA_BOOTSTRAP')"
printf '\n%d records a second for %d s, %d partitions, linger.ms %s; load average %s\n' "$rate" "$seconds" \
    "${MD_BENCH_PARTITIONS:-4}" "${MD_BENCH_LINGER:-0}" "$(cut -d' ' -f1-3 /proc/loadavg)"
make_topic "${MD_BENCH_PARTITIONS:-4}"
send $((rate * ${MD_BENCH_WARM_UP:-15}))
for round in $(seq "$rounds"); do
    run_bare
    show 'bare consumer' "$round"
    run_table '{"flush_interval": 0}'
    show 'flush_interval = 0' "$round" "; $commits commits/s, $cpu % of a core"
    run_table '{}'
    show 'flush_interval = 100 ms' "$round" "; $commits commits/s, $cpu % of a core"
done
echo
for what in 'bare consumer' 'flush_interval = 0' 'flush_interval = 100 ms'; do
    show_medians "$what"
done
run_starts
