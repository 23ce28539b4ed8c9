#!/usr/bin/env bash
# Ingest of raw and typed JSON records against COPY BINARY of the same rows.
#
#   test/bench/ingest.sh
#
# For each broker and format, and in each round: a streaming table takes in a
# topic from its beginning, then COPY loads the same rows, which were written
# out once in binary, into a table of the same definition. Time counts from
# resume() to the last row; COPY's from connection to commit. Prints rates,
# the median ratio, WAL bytes per row, CPU seconds per million records and
# the worker's private memory, at its peak and when idle again. From the real
# broker, what people use today reads the same topic in the same rounds: kcat
# into psql's COPY, as it comes and tuned, and a consumer in Python. On demand,
# tables of other shapes take in the same number of records: one with 8 hash
# partitions, and one that reads 100 topics by a pattern.
#
# Environment: MD_BENCH_RECORDS (2000000), MD_BENCH_ROUNDS (3),
# MD_BENCH_PARTITIONS (4), MD_BENCH_BROKERS ("kafka mock"), MD_BENCH_FORMATS
# ("raw json"), MD_BENCH_PEERS (1; 0 leaves them out), MD_BENCH_SHAPES (none; or
# "partitioned pattern"), MD_BENCH_SHARED_BUFFERS (2GB).
#
# A partition of the mock cluster holds 5 MB at most, so topics there have 64
# partitions, and as many records of the number asked for as fit.
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/ingest.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh
. test/bench/peers.sh

records=${MD_BENCH_RECORDS:-2000000}
rounds=${MD_BENCH_ROUNDS:-3}
peers=(kcat 'kcat tuned' python)
columns='event_id uuid, user_id bigint, event_type text, amount numeric, ts timestamptz'

# Set up the broker $1: its server in SQL, its topic, filled.
prepare_broker() {
    local low high sum=0
    case $1 in
        kafka)
            start_broker
            bootstrap=$MD_KAFKA_BOOTSTRAP
            kafka_tool create "$bootstrap" events "${MD_BENCH_PARTITIONS:-4}" retention.ms=-1
            kafka_tool create "$bootstrap" empty 1
            count=$records
            ;;
        mock)
            start_mock_cluster --topic events:64 --topic empty:1
            count=$records
            [ "$count" -le 1000000 ] || count=1000000
            ;;
    esac
    kafka_tool gen "$bootstrap" events "$count" --codec lz4 >"$MD_RUN/generated"
    while read -r _ low high; do
        [ "$low" -eq 0 ] || { echo "the mock cluster dropped records, ask for fewer" >&2; exit 1; }
        sum=$((sum + high))
    done < <(kafka_tool watermarks "$bootstrap" events)
    [ "$sum" -eq "$count" ] || { echo "$sum records in the topic, $count expected" >&2; exit 1; }
    case ${MD_BENCH_SHAPES-} in
        *pattern*)
            kafka_tool create "$bootstrap" many 1 --count 100
            kafka_tool gen "$bootstrap" many "$count" --codec lz4 --topics 100 >/dev/null
            ;;
    esac
    # A table over an empty topic, so that the worker is there before it has work.
    query "CREATE SERVER $1 FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap');
           SELECT medallion.create_streaming_table('empty_$1', '$1', 'empty', 'raw')" >/dev/null
}

# Create table $1 over the topic of broker $2 in format $3, paused.
create_paused() {
    local column_list=NULL
    [ "$3" != json ] || column_list="'$columns'"
    query "BEGIN;
           SELECT medallion.create_streaming_table('$1', '$2', 'events', '$3', $column_list);
           SELECT medallion.pause('$1'); COMMIT" >/dev/null
}

# One round of ingest into table $1; sets ingest_ms, first_ms (the part of it
# before the first batch), wal, cpu_main, cpu_library, peak, pid.
run_ingest() {
    local start wal_before main_before all_before
    pid=$(ingest_worker_pid)
    query 'CHECKPOINT'
    wal_before=$(wal_position)
    main_before=$(main_thread_cpu_ms "$pid")
    all_before=$(process_cpu_ms "$pid")
    rm -f "$MD_RUN/done"
    watch_peak_mib "$pid" "$MD_RUN/done" "$MD_RUN/peak" &
    start=$(now_ms)
    query "SELECT medallion.resume('$1')" >/dev/null
    query "SELECT medallion.wait_until_caught_up('$1', '600 s')" >/dev/null
    ingest_ms=$(($(now_ms) - start))
    touch "$MD_RUN/done"
    wait
    wal=$(($(wal_position) - wal_before))
    cpu_main=$(($(main_thread_cpu_ms "$pid") - main_before))
    cpu_library=$(($(process_cpu_ms "$pid") - all_before - cpu_main))
    peak=$(cat "$MD_RUN/peak")
    first_ms=$(($(query "SELECT (extract(epoch FROM min(stored_at)) * 1000)::bigint FROM medallion.batch WHERE relid = '$1'::regclass") - start))
    [ "$(query "SELECT count(*) FROM $1")" -eq "$count" ] || { echo "$1 does not hold $count rows" >&2; exit 1; }
}

# COPY of the rows of $1, kept in a file, into a table like it; sets copy_ms
# and copy_wal.
run_copy() {
    local start wal_before file=$MD_RUN/rows.$1
    [ -e "$file" ] || query "COPY $1 TO '$file' (FORMAT binary)"
    query "CREATE TABLE copied (LIKE $1 INCLUDING ALL)"
    query 'CHECKPOINT'
    wal_before=$(wal_position)
    start=$(now_ms)
    query "COPY copied FROM '$file' (FORMAT binary)"
    copy_ms=$(($(now_ms) - start))
    copy_wal=$(($(wal_position) - wal_before))
    query 'DROP TABLE copied'
}

# Private memory of the worker once it has had nothing to do for a while.
idle_mib() {
    local mib least=999999
    for _ in $(seq 20); do
        mib=$(private_mib "$1")
        [ "$mib" -ge $least ] || least=$mib
        sleep 1
    done
    echo $least
}

# What others need for the same, after a round of ours; adds to peer_ratios.
run_peers() {
    local peer
    [ "$1" = kafka ] && [ "${MD_BENCH_PEERS:-1}" = 1 ] || return 0
    for peer in "${peers[@]}"; do
        run_peer "$peer" "$2"
        peer_ratios[$peer]+=" $(calculate "$peer_ms / $ingest_ms" 2)"
        printf '%-5s %-4s          %s: %.2f s (%s k/s)\n' "$1" "$2" "$peer" "$(calculate "$peer_ms / 1000")" "$(calculate "$count / $peer_ms" 0)"
    done
}

# Create table $1 of the shape $4, paused.
create_shape() {
    local columns=$columns topic=events partitions='' nr=8
    [ "$3" = json ] || columns=''
    [ "$4" != pattern ] || topic='^many_'
    [ "$4" != partitioned ] || partitions='PARTITION BY HASH (kafka_offset)'
    query "BEGIN;
           CREATE TABLE $1 ($columns) $partitions WITH (medallion.server = $2, medallion.topic = '$topic', medallion.format = $3);
           $([ -z "$partitions" ] || while [ $((nr--)) -gt 0 ]; do
                 echo "CREATE TABLE ${1}_$nr PARTITION OF $1 FOR VALUES WITH (MODULUS 8, REMAINDER $nr);"
             done)
           SELECT medallion.pause('$1'); COMMIT" >/dev/null
}

# Tables of other shapes, after a round of a plain one; adds to shape_ratios.
run_shapes() {
    local shape plain_ms=$ingest_ms
    for shape in ${MD_BENCH_SHAPES-}; do
        create_shape shaped "$1" "$2" "$shape"
        run_ingest shaped
        query 'DROP TABLE shaped'
        shape_ratios[$shape]+=" $(calculate "$plain_ms / $ingest_ms" 3)"
        printf '%-5s %-4s          %s: %.2f s (%s k/s), %sx plain\n' "$1" "$2" "$shape" "$(calculate "$ingest_ms / 1000")" \
            "$(calculate "$count / $ingest_ms" 0)" "$(calculate "$plain_ms / $ingest_ms" 2)"
    done
}

# All rounds of format $2 from broker $1.
run_format() {
    local broker=$1 format=$2 table round peer shape ratios=() wals=() copy_wals=() mains=() libraries=() peaks=()
    declare -A peer_ratios=() shape_ratios=()
    table=bench_${broker}_$format
    for round in $(seq "$rounds"); do
        create_paused "$table" "$broker" "$format"
        run_ingest "$table"
        run_copy "$table"
        ratios+=("$(calculate "$copy_ms / $ingest_ms" 3)")
        wals+=("$(calculate "$wal / $count" 1)")
        copy_wals+=("$(calculate "$copy_wal / $count" 1)")
        mains+=("$(calculate "$cpu_main * 1000 / $count" 2)")
        libraries+=("$(calculate "$cpu_library * 1000 / $count" 2)")
        peaks+=("$peak")
        printf '%-5s %-4s round %d: ingest %6.2f s (%s k/s, first batch after %s s), COPY BINARY %6.2f s (%s k/s), ratio %s\n' \
            "$broker" "$format" "$round" "$(calculate "$ingest_ms / 1000")" "$(calculate "$count / $ingest_ms" 0)" "$(calculate "$first_ms / 1000")" \
            "$(calculate "$copy_ms / 1000")" "$(calculate "$count / $copy_ms" 0)" "${ratios[-1]}"
        run_peers "$broker" "$format"
        run_shapes "$broker" "$format"
        [ "$round" -eq "$rounds" ] || query "DROP TABLE $table"
    done
    local wal_median copy_wal_median
    wal_median=$(printf '%s\n' "${wals[@]}" | median)
    copy_wal_median=$(printf '%s\n' "${copy_wals[@]}" | median)
    printf '%-5s %-4s median: %sx COPY BINARY; WAL %s bytes per row, COPY %s (%sx);\n' "$broker" "$format" \
        "$(printf '%s\n' "${ratios[@]}" | median)" "$wal_median" "$copy_wal_median" "$(calculate "$wal_median / $copy_wal_median" 3)"
    printf '           CPU seconds per million: main thread %s, librdkafka %s; private memory: peak %s MiB, idle %s MiB\n' \
        "$(printf '%s\n' "${mains[@]}" | median)" "$(printf '%s\n' "${libraries[@]}" | median)" \
        "$(printf '%s\n' "${peaks[@]}" | median)" "$(idle_mib "$pid")"
    for peer in "${peers[@]}"; do
        [ -z "${peer_ratios[$peer]-}" ] || printf '           median: %s times as fast as %s\n' \
            "$(printf '%s\n' ${peer_ratios[$peer]} | median)" "$peer"
    done
    for shape in ${MD_BENCH_SHAPES-}; do
        printf '           median: %s %sx plain\n' "$shape" "$(printf '%s\n' ${shape_ratios[$shape]} | median)"
    done
    query "DROP TABLE $table"
    rm -f "$MD_RUN/rows.$table"
}

build_extension
start_bench_postgres
for broker in ${MD_BENCH_BROKERS:-kafka mock}; do
    prepare_broker "$broker"
    partitions=$(kafka_tool watermarks "$bootstrap" events | wc -l)
    printf '\n%s: %d records in %d partitions, lz4\n' "$broker" "$count" "$partitions"
    for format in ${MD_BENCH_FORMATS:-raw json}; do
        run_format "$broker" "$format"
    done
done
