#!/usr/bin/env bash
# Very many streaming tables on one ingest worker.
#
#   test/bench/many_streams.sh
#
# Tables of a topic each, all on one worker and one real broker. Prints how long
# a worker that starts takes until it reads all of them; what it costs when
# nothing comes: CPU of its main thread and of the library's threads, of the
# supervisor, and private memory; how long records of the other tables take to a
# row that queries see, from their producer (see latency.sh) and from the broker's log,
# without and with one table that is sent very many; and, when each table is
# sent a record each second, how many transactions that takes. The broker, which compiles
# itself while it works, has a warm-up of that before.
#
# Environment: MD_BENCH_TABLES (1000), MD_BENCH_SECONDS (20) for each
# measurement, MD_BENCH_COLD_RATE (100 records a second for the cold tables
# together), MD_BENCH_HOT_RATE (50000 a second; 0 is as fast as it goes),
# MD_BENCH_PARTS ("idle cold hot shared"), MD_BENCH_PROFILE (1: system calls
# of an idle worker, counted by strace), MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/many_streams.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

tables=${MD_BENCH_TABLES:-1000}
seconds=${MD_BENCH_SECONDS:-20}

# Records with the time of their sending, to the topics many_1 to many_$1.
send_to_many() {
    kafka_tool gen "$MD_KAFKA_BOOTSTRAP" many "$2" --kind stamp --linger 0 --topics "$1" "${@:3}" >/dev/null
}

# Wait until all tables have read their topics; $1 is what is missing of it.
wait_until() {
    until [ "$(query "SELECT count(*) FROM medallion.checkpoint WHERE $1")" -eq "$tables" ]; do sleep 0.1; done
}

# Restart the worker, with a record in each topic, and wait for all of them.
run_start() {
    local started first=$((SECONDS))
    send_to_many "$tables" "$tables" --first 1000000000
    wait_until 'next_offset >= 1'
    echo "all tables have their first record $((SECONDS - first)) s after it was sent"
    query "SELECT pg_terminate_backend($(ingest_worker_pid), 10000)" >/dev/null
    started=$(now_ms)
    send_to_many "$tables" "$tables" --first 1000000000
    wait_until 'next_offset >= 2'
    printf 'start: all %d tables are read %s s after their worker was ended\n' "$tables" "$(calculate "($(now_ms) - $started) / 1000")"
}

# What a worker costs that has nothing to do.
run_idle() {
    local worker supervisor main all other ms
    worker=$(ingest_worker_pid)
    supervisor=$(query "SELECT pid FROM medallion.workers WHERE kind = 'supervisor' AND database = current_database()")
    sleep 10
    main=$(main_thread_cpu_ms "$worker") all=$(process_cpu_ms "$worker") other=$(process_cpu_ms "$supervisor")
    sleep "$seconds"
    ms=$(($(process_cpu_ms "$worker") - all)) main=$(($(main_thread_cpu_ms "$worker") - main))
    printf 'idle: %s %% of a core (main thread %s %%, library %s %%), supervisor %s %%; RssAnon %s MiB\n' \
        "$(calculate "$ms / 10 / $seconds")" "$(calculate "$main / 10 / $seconds")" "$(calculate "($ms - $main) / 10 / $seconds")" \
        "$(calculate "($(process_cpu_ms "$supervisor") - $other) / 10 / $seconds")" "$(private_mib "$worker")"
    [ "${MD_BENCH_PROFILE:-0}" = 1 ] || return 0
    timeout -s INT "$seconds" strace -f -c -p "$worker" 2>&1 | head -n 20 || true
}

# Latency of the rows from number $1 on of all tables but the hot one.
cold_latency() {
    query "SELECT medallion.wait_until_caught_up(table_name, '60 s') FROM medallion.streaming_tables" >/dev/null
    printf 'from the producer: p50 %s ms, p90 %s, p99 %s, max %s; from the log: p50 %s, p90 %s, p99 %s, max %s\n' \
        $(cold_latency_from "$1" 'sent_us') $(cold_latency_from "$1" '(extract(epoch FROM kafka_timestamp) * 1000000)::bigint')
}

cold_latency_from() {
    query "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint - $2
             FROM cold WHERE n BETWEEN $1 AND $1 + 9999999" | percentiles
}

# One record now and then for each cold table; with a rate for the hot one, $2,
# under its load. Rows are numbered from $1 on.
run_cold() {
    local rate=${MD_BENCH_COLD_RATE:-100} rows before figures hot=''
    before=$(query 'SELECT count(*) FROM hot')
    if [ -n "${2-}" ]; then
        kafka_tool gen "$MD_KAFKA_BOOTSTRAP" hot 1000000000 --rate "$2" >/dev/null &
        hot=$!
        sleep 5
    fi
    send_to_many "$tables" $((rate * seconds)) --rate "$rate" --first "$1"
    [ -z "$hot" ] || { kill "$hot"; wait "$hot" 2>/dev/null || true; }
    figures=$(cold_latency "$1")
    rows=$(($(query 'SELECT count(*) FROM hot') - before))
    printf 'cold tables, %d records/s together, beside %d k/s to a hot one: %s\n' \
        "$rate" $((rows / (seconds + 5) / 1000)) "$figures"
}

# A record a second for each table: do they share commits?
run_shared() {
    local pid transactions cpu figures
    pid=$(ingest_worker_pid)
    transactions=$(query "SELECT transactions FROM medallion.workers WHERE pid = $pid")
    cpu=$(process_cpu_ms "$pid")
    send_to_many "$tables" $((tables * seconds)) --rate "$tables" --first 40000000
    figures=$(cold_latency 40000000)
    transactions=$(($(query "SELECT transactions FROM medallion.workers WHERE pid = $pid") - transactions))
    cpu=$(($(process_cpu_ms "$pid") - cpu))
    printf '%d records/s, one for each table: %d records in %d transactions (%s each), %s %% of a core; %s\n' \
        "$tables" $((tables * seconds)) "$transactions" "$(calculate "$tables * $seconds / $transactions" 1)" \
        "$(calculate "$cpu / 10 / $seconds" 0)" "$figures"
}

build_extension
start_bench_postgres 'track_commit_timestamp = on' 'max_locks_per_transaction = 256'
start_broker
kafka_tool create "$MD_KAFKA_BOOTSTRAP" many 1 --count "$tables" segment.bytes=16777216 message.timestamp.type=LogAppendTime
kafka_tool create "$MD_KAFKA_BOOTSTRAP" hot 4
# All tables of the cold topics have one parent, so that one query sees their rows.
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$MD_KAFKA_BOOTSTRAP')"
started=$(now_ms)
query "SELECT count(medallion.create_streaming_table('many_' || i, 'kafka', 'many_' || i, 'json', 'n bigint, sent_us bigint',
           options => '{\"check_topic\": false}')) FROM generate_series(1, $tables) i" >/dev/null
query "SELECT medallion.create_streaming_table('hot', 'kafka', 'hot', 'json', 'event_id uuid, user_id bigint')" >/dev/null
query "DO \$\$BEGIN EXECUTE 'CREATE VIEW cold AS ' || (SELECT string_agg('SELECT n, sent_us, kafka_timestamp, xmin FROM many_' || i, ' UNION ALL ')
           FROM generate_series(1, $tables) i); END\$\$"
printf '\n%d tables, defined in %s s; load average %s\n' "$tables" "$(calculate "($(now_ms) - $started) / 1000")" "$(cut -d' ' -f1-3 /proc/loadavg)"
run_start
send_to_many "$tables" $((tables * 15)) --rate "$tables" --first 50000000
for part in ${MD_BENCH_PARTS:-idle cold hot shared}; do
    case $part in
        idle) run_idle ;;
        cold) run_cold 10000000 ;;
        hot) run_cold 20000000 "${MD_BENCH_HOT_RATE:-50000}" ;;
        shared) run_shared ;;
        *) echo "no part is called \"$part\"" >&2; exit 2 ;;
    esac
done
