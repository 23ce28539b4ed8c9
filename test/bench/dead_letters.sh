#!/usr/bin/env bash
# How fast bad records are consumed, what they cost a neighbour, and replay.
#
#   test/bench/dead_letters.sh
#
# Topics of the same number of records are read by one ingest worker:
#
#   good       all are stored
#   malformed  all are JSON that was cut short
#   thrown     all throw in an input function (a domain's CHECK)
#   refused    all are refused by a CHECK constraint, after decoding
#   together   good and malformed ones at the same time, by two tables
#
# and then the good table is replayed: with nothing missing, with a third.
# Prints records per second, from resume() to the last one.
#
# Environment: MD_BENCH_RECORDS (300000), MD_BENCH_ROUNDS (3).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/dead_letters.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

records=${MD_BENCH_RECORDS:-300000}
rounds=${MD_BENCH_ROUNDS:-3}
declare -A rates

# Define table $1 over topic $2 with columns $3, paused.
create_paused() {
    query "BEGIN;
           SELECT medallion.create_streaming_table('$1', 'kafka', '$2', columns => '$3');
           SELECT medallion.pause('$1'); COMMIT" >/dev/null
}

# Remember under the name $1 a rate of records in $2 ms.
note_rate() {
    local rate
    rate=$(calculate "$records * 1000 / $2" 0)
    rates[$1]+="$rate "
    printf 'round %d: %-18s %7s records/s\n' "$round" "$1" "$rate"
}

# Read table $1 to its end; its rows and dead letters must be $2 and $3.
run_table() {
    local start counts
    start=$(now_ms)
    query "SELECT medallion.resume('$1')" >/dev/null
    query "SELECT medallion.wait_until_caught_up('$1', '600 s')" >/dev/null
    note_rate "$1" $(($(now_ms) - start))
    counts=$(query "SELECT rows || ' ' || dead_letters FROM medallion.streaming_tables WHERE table_name = '$1'::regclass")
    [ "$counts" = "$2 $3" ] || { echo "$1: $counts, not $2 $3" >&2; exit 1; }
}

run_together() {
    local start
    create_paused good_beside good "$columns"
    create_paused malformed_beside malformed "$columns"
    start=$(now_ms)
    query "SELECT medallion.resume('good_beside'), medallion.resume('malformed_beside')" >/dev/null
    query "SELECT medallion.wait_until_caught_up('good_beside', '600 s')" >/dev/null
    note_rate 'good, beside' $(($(now_ms) - start))
    query "SELECT medallion.wait_until_caught_up('malformed_beside', '600 s')" >/dev/null
    note_rate 'malformed, beside' $(($(now_ms) - start))
    query 'DROP TABLE good_beside, malformed_beside'
}

# Replay all of table $1; $2 records must be missing.
run_replay() {
    local start stored
    start=$(now_ms)
    stored=$(query "SELECT medallion.replay('good', 'earliest')")
    note_rate "$1" $(($(now_ms) - start))
    [ "$stored" = "$2" ] || { echo "$1: $stored records stored, not $2" >&2; exit 1; }
}

build_extension
start_postgres
start_broker
for topic in good malformed; do
    kafka_tool create "$MD_KAFKA_BOOTSTRAP" $topic 1 retention.ms=-1
done
kafka_tool gen "$MD_KAFKA_BOOTSTRAP" good "$records" >/dev/null
kafka_tool gen "$MD_KAFKA_BOOTSTRAP" malformed "$records" --bad-every 1 >/dev/null
query "CREATE EXTENSION pg_medallion;
       CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$MD_KAFKA_BOOTSTRAP');
       CREATE DOMAIN long_text AS text CHECK (length(VALUE) > 1000)"
columns='event_id uuid, user_id bigint, event_type text, amount numeric, ts timestamptz'

for round in $(seq "$rounds"); do
    create_paused good good "$columns"
    create_paused malformed malformed "$columns"
    create_paused thrown good 'event_type long_text'
    create_paused refused good "$columns, CHECK (user_id < 0)"
    run_table good "$records" 0
    run_table malformed 0 "$records"
    run_table thrown 0 "$records"
    run_table refused 0 "$records"
    run_together
    run_replay 'replay, none' 0
    query "SET medallion.allow_direct_writes = on; DELETE FROM good WHERE kafka_offset % 3 = 0"
    run_replay 'replay, a third' $(((records + 2) / 3))
    query 'DROP TABLE good, malformed, thrown, refused'
done
printf '\nmedians of %d rounds of %d records:\n' "$rounds" "$records"
for name in good malformed thrown refused 'good, beside' 'malformed, beside' 'replay, none' 'replay, a third'; do
    printf '%-18s %7s records/s\n' "$name" "$(tr ' ' '\n' <<<"${rates[$name]% }" | median)"
done
