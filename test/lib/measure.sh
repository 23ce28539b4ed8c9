# What the benches measure with. To be sourced after build.sh and servers.sh.

query() { psql -XqAt -F ' ' -v ON_ERROR_STOP=1 -c "$1"; }
now_ms() { date +%s%3N; }

# Median of the numbers on standard input.
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# "p50 p90 p99 max" in ms, of the microseconds on standard input.
percentiles() {
    sort -n | awk '{ v[NR] = $1 / 1000 }
        function at(share) { i = int(NR * share); return v[i < 1 ? 1 : i] }
        END { printf "%.2f %.2f %.2f %.2f\n", at(0.5), at(0.9), at(0.99), v[NR] }'
}

# $1 with $2 decimals; the rest of the arithmetic is awk's.
calculate() { awk "BEGIN { printf \"%.${2:-2}f\", $1 }"; }

# CPU milliseconds of process $1: all threads, those that ended included.
process_cpu_ms() { cpu_ms_of "/proc/$1/stat"; }

# CPU milliseconds of its main thread alone.
main_thread_cpu_ms() { cpu_ms_of "/proc/$1/task/$1/stat"; }

cpu_ms_of() {
    # utime and stime are the 12th and 13th field after the name in brackets.
    sed 's/^.*) //' "$1" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%d", ($12 + $13) * 1000 / hz }'
}

# Memory of process $1 in MiB, without what it shares with other processes.
private_mib() { awk '/^RssAnon:/ { printf "%d", $2 / 1024 }' "/proc/$1/status"; }

# Until the file $2 appears, keep the most private memory of process $1 in
# the file $3. Meant for the background.
watch_peak_mib() {
    local peak=0 mib
    while [ ! -e "$2" ]; do
        mib=$(private_mib "$1" 2>/dev/null) || break
        [ "${mib:-0}" -le $peak ] || peak=$mib
        echo $peak >"$3"
        sleep 0.1
    done
}

# Position in the WAL, in bytes, after all that could disturb a measurement
# has been written out.
wal_position() { query "SELECT pg_current_wal_insert_lsn() - '0/0'"; }

# A server as one would set it up for this work: durable, no checkpoint and no
# autovacuum in the middle of a measurement. Arguments are lines of configuration.
start_bench_postgres() {
    start_postgres "fsync = on" "shared_buffers = '${MD_BENCH_SHARED_BUFFERS:-2GB}'" "max_wal_size = '16GB'" \
        "checkpoint_timeout = '1h'" "autovacuum = off" "TimeZone = 'UTC'" "$@"
    query 'CREATE EXTENSION pg_medallion'
}

# Pid of the worker that ingests in this database.
ingest_worker_pid() {
    local pid
    for _ in $(seq 100); do
        pid=$(query "SELECT min(pid) FROM medallion.workers WHERE kind LIKE 'ingest%' AND database = current_database()")
        if [ -n "$pid" ]; then
            echo "$pid"
            return
        fi
        sleep 0.1
    done
    echo "no ingest worker runs" >&2
    exit 1
}
