#!/usr/bin/env bash
# Refresh of views after a change of 1 %, against REFRESH MATERIALIZED VIEW of
# the same query and against a merge that is written by hand.
#
#   test/bench/refresh.sh [CASE]...
#
# CASE is hour, user, distinct, join, dimension or dedup; without one, all.
# A streaming table takes in the rows from Apache Kafka. In each round 1 %
# more rows arrive (for "dimension", 10 rows of 100,000 are updated), then all
# three kinds of result are brought up to date, in turns as to which is first.
# Two kinds of rounds: "newest" rows have times after all others, "late" rows
# are spread over all times, and in "dedup" have keys that are there. Every
# case ends with a check that the three results hold the same rows.
#
# Rounds of each kind come in two series. "between checkpoints" is how refreshes
# run as a rule: a checkpoint comes every some minutes, a refresh every minute or
# second. "after a checkpoint", each round begins with one: the first change of a
# page then writes the whole page to WAL, which a merge of rows that lie everywhere
# pays and REFRESH, which writes a new file, does not. The goals of a ratio are
# meant between checkpoints; the other series shows the worst.
#
# The merge by hand knows where the new rows lie (a range of row addresses,
# and offsets), which is the best that a hand could do. All three results have the
# unique index over their key, by which readers look rows up, so REFRESH rebuilds
# it (REFRESH ... CONCURRENTLY asks for one, too). With MD_BENCH_THEIR_INDEX=no
# the result of REFRESH has none.
#
# Environment: MD_BENCH_ROWS (10000000), MD_BENCH_ROUNDS (3, of each series),
# MD_BENCH_SERIES ("between after"), MD_BENCH_THEIR_INDEX (yes), MD_BENCH_SHARED_BUFFERS (2GB).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/../lib/bootstrap.sh" bench/refresh.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/measure.sh

rows=${MD_BENCH_ROWS:-10000000}
rounds=${MD_BENCH_ROUNDS:-3}
series=${MD_BENCH_SERIES:-between after}
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(hour user distinct join dimension dedup)
part=$((rows / 100))
step_ms=$((30 * 86400 * 1000 / rows))     # all rows lie within 30 days
[ $step_ms -gt 0 ] || step_ms=1
produced=0

# --- the cases: a query, the key of its result, further tables that a merge by
# hand keeps, and that merge, in which NEW are the rows e that came ---

declare -A query_of key_of hand_tables hand_merge

query_of[hour]="SELECT date_trunc('hour', ts) AS hour, event_type, channel, count(*) AS events, sum(amount) AS amount,
        min(amount) AS least, max(amount) AS most
    FROM events GROUP BY 1, 2, 3"
key_of[hour]="hour, event_type, channel"
hand_merge[hour]="INSERT INTO hand AS h
    SELECT date_trunc('hour', ts), event_type, channel, count(*), sum(amount), min(amount), max(amount)
      FROM events e WHERE NEW GROUP BY 1, 2, 3
    ON CONFLICT (hour, event_type, channel) DO UPDATE SET events = h.events + excluded.events,
        amount = h.amount + excluded.amount, least = least(h.least, excluded.least), most = greatest(h.most, excluded.most)"

query_of[user]="SELECT user_id, ts::date AS day, count(*) AS events, sum(amount) AS amount FROM events GROUP BY 1, 2"
key_of[user]="user_id, day"
hand_merge[user]="INSERT INTO hand AS h SELECT user_id, ts::date, count(*), sum(amount) FROM events e WHERE NEW GROUP BY 1, 2
    ON CONFLICT (user_id, day) DO UPDATE SET events = h.events + excluded.events, amount = h.amount + excluded.amount"

query_of[distinct]="SELECT ts::date AS day, event_type, count(DISTINCT user_id) AS users FROM events GROUP BY 1, 2"
key_of[distinct]="day, event_type"
hand_tables[distinct]="CREATE TABLE hand_users AS SELECT DISTINCT ts::date AS day, event_type, user_id FROM events;
    CREATE UNIQUE INDEX ON hand_users (day, event_type, user_id)"
hand_merge[distinct]="WITH gained AS (
        INSERT INTO hand_users SELECT DISTINCT ts::date, event_type, user_id FROM events e WHERE NEW
        ON CONFLICT DO NOTHING RETURNING day, event_type)
    INSERT INTO hand AS h SELECT day, event_type, count(*) FROM gained GROUP BY 1, 2
    ON CONFLICT (day, event_type) DO UPDATE SET users = h.users + excluded.users"

query_of[join]="SELECT date_trunc('hour', e.ts) AS hour, u.category, t.family, count(*) AS events, sum(e.amount) AS amount
    FROM events e JOIN users u USING (user_id) JOIN types t USING (event_type) GROUP BY 1, 2, 3"
key_of[join]="hour, category, family"
hand_merge[join]="INSERT INTO hand AS h
    SELECT date_trunc('hour', e.ts), u.category, t.family, count(*), sum(e.amount)
      FROM events e JOIN users u USING (user_id) JOIN types t USING (event_type) WHERE NEW GROUP BY 1, 2, 3
    ON CONFLICT (hour, category, family) DO UPDATE SET events = h.events + excluded.events, amount = h.amount + excluded.amount"

# An index of the fact table by user leads from the changed users to their events.
query_of[dimension]=${query_of[join]}
key_of[dimension]=${key_of[join]}

query_of[dedup]="SELECT DISTINCT ON (event_id) event_id, user_id, event_type, amount, ts
    FROM events ORDER BY event_id, ts DESC"
key_of[dedup]="event_id"
hand_merge[dedup]="INSERT INTO hand AS h
    SELECT DISTINCT ON (event_id) event_id, user_id, event_type, amount, ts FROM events e WHERE NEW ORDER BY event_id, ts DESC
    ON CONFLICT (event_id) DO UPDATE SET user_id = excluded.user_id, event_type = excluded.event_type,
        amount = excluded.amount, ts = excluded.ts WHERE excluded.ts > h.ts"

# --- changes ---

# Produce $1 records with the given options and wait until they are rows.
# new_rows is then the condition by which a hand finds them.
add_rows() {
    local n=$1
    shift
    new_rows=$(query "SELECT format('e.ctid >= ''(%s,0)'' AND (%s)', greatest(pg_relation_size('events') / 8192 - 1, 0),
                          string_agg(format('kafka_partition = %s AND kafka_offset >= %s', kafka_partition, next_offset), ' OR '))
                      FROM medallion.stream_partitions WHERE table_name = 'events'::regclass")
    kafka_tool gen "$bootstrap" events "$n" --codec lz4 "$@" >/dev/null
    produced=$((produced + n))
    query "SELECT medallion.wait_until_caught_up('events', '600 s')" >/dev/null
    [ "$(query 'SELECT count(*) FROM events')" -eq $produced ] || { echo "events does not hold $produced rows" >&2; exit 1; }
}

# The change of round $3 of kind $2 in case $1.
make_change() {
    case $1/$2 in
        dimension/*) query "UPDATE users SET category = 'moved ' || $3 WHERE user_id IN (SELECT 10000 + ($3 * 977 + i * 7919) % 90000 FROM generate_series(1, 10) i)" ;;
        */newest) add_rows "$part" --first "$produced" --step $step_ms ;;
        # the keys of the first rows, at other times
        dedup/late) add_rows "$part" --first 0 --step $((step_ms * (80 + $3))) ;;
        */late) add_rows "$part" --first 0 --step $((step_ms * 100)) --seed $(($3 + 1)) ;;
    esac
}

# --- what is measured ---

# Milliseconds that the command $1 takes on its own connection.
timed() {
    local start
    start=$(now_ms)
    query "$1" >/dev/null || return 1
    echo $(($(now_ms) - start))
}

# What was measured before, above all a REFRESH, leaves gigabytes that the system has yet
# to write to disk: they are written first, so that each pays for its own.
refresh_one() {
    sync
    case $2 in
        ours) ours_ms=$(timed "SELECT medallion.refresh('ours')") ;;
        theirs) theirs_ms=$(timed 'REFRESH MATERIALIZED VIEW theirs') ;;
        hand) [ -z "${hand_merge[$1]-}" ] || hand_ms=$(timed "${hand_merge[$1]//NEW/$new_rows}") ;;
    esac
}

# All rounds of kind $2 of case $1 in series $3. $4: rounds of this kind that were before.
run_rounds() {
    local round turn kinds=(ours theirs hand) full=() hand=() line when
    [ "$3" = after ] && when='after a checkpoint' || when='between checkpoints'
    for round in $(seq $(($4 + 1)) $(($4 + rounds))); do
        make_change "$1" "$2" "$round"
        [ "$3" != after ] || query 'CHECKPOINT'
        for turn in 0 1 2; do refresh_one "$1" "${kinds[(round + turn) % 3]}"; done
        full+=("$(calculate "$theirs_ms / ($ours_ms > 0 ? $ours_ms : 1)" 1)")
        line=$(printf '%-9s %-6s round %d: refresh() %5d ms, REFRESH %6d ms (%5.1f times)' \
            "$1" "$2" "$round" "$ours_ms" "$theirs_ms" "${full[-1]}")
        if [ -n "${hand_merge[$1]-}" ]; then
            hand+=("$(calculate "$ours_ms / ($hand_ms > 0 ? $hand_ms : 1)")")
            line+=$(printf ', by hand %5d ms (ours takes %.2f of it)' "$hand_ms" "${hand[-1]}")
        fi
        echo "$line"
    done
    line="$1 $2, $when: median $(printf '%s\n' "${full[@]}" | median) times faster than REFRESH"
    [ ${#hand[@]} -eq 0 ] || line+=", $(printf '%s\n' "${hand[@]}" | median) of the time by hand"
    echo "$line"
}

# Rows in which the results $1 and $2 differ.
differences() {
    query "SELECT count(*) FROM ((TABLE $1 EXCEPT ALL TABLE $2) UNION ALL (TABLE $2 EXCEPT ALL TABLE $1)) AS d"
}

run_case() {
    local fill n kind when done
    [ "$1" != dimension ] || query 'CREATE INDEX events_of_user ON events (user_id)'
    fill=$(timed "SELECT medallion.create_materialized_view('ours', \$q\$${query_of[$1]}\$q\$, refresh_interval => NULL)")
    query "CREATE MATERIALIZED VIEW theirs AS ${query_of[$1]}; ANALYZE theirs"
    [ "${MD_BENCH_THEIR_INDEX:-yes}" = no ] || query "CREATE UNIQUE INDEX ON theirs (${key_of[$1]})"
    if [ -n "${hand_merge[$1]-}" ]; then
        query "CREATE TABLE hand AS TABLE theirs; CREATE UNIQUE INDEX ON hand (${key_of[$1]}); ${hand_tables[$1]-}"
        query 'VACUUM ANALYZE hand'
    fi
    printf '\n%s: %d rows, %d in the result; filled in %d ms; result %s, state beside it %s\n' "$1" $produced \
        "$(query 'SELECT count(*) FROM theirs')" "$fill" \
        "$(query "SELECT pg_size_pretty(pg_total_relation_size('ours'))")" \
        "$(query "SELECT pg_size_pretty(state_bytes) FROM medallion.materialized_views WHERE view = 'ours'::regclass")"
    for kind in newest late; do
        [ "$1/$kind" != dimension/late ] || continue
        done=0
        for when in $series; do
            run_rounds "$1" $kind "$when" $done
            done=$((done + rounds))
        done
    done
    query "SELECT strategy || ': ' || count(*) || ' refreshes' FROM medallion.refresh_history WHERE view = 'ours'::regclass GROUP BY strategy"
    for n in theirs ${hand_merge[$1]+hand}; do
        [ "$(differences ours "$n")" -eq 0 ] || { echo "$1: ours and $n differ" >&2; exit 1; }
    done
    query "SET client_min_messages = warning; SELECT medallion.drop_materialized_view('ours'); DROP MATERIALIZED VIEW theirs; DROP TABLE IF EXISTS hand, hand_users; DROP INDEX IF EXISTS events_of_user" >/dev/null
}

build_extension
start_bench_postgres
start_broker
bootstrap=$MD_KAFKA_BOOTSTRAP
kafka_tool create "$bootstrap" events 4 retention.ms=-1
query "CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap');
       SELECT medallion.create_streaming_table('events', 'kafka', 'events', 'json',
           'event_id uuid, user_id bigint, event_type text, channel text, amount numeric, ts timestamptz');
       CREATE TABLE users AS SELECT 10000 + i AS user_id, 'category ' || i % 20 AS category FROM generate_series(0, 99999) i;
       CREATE TABLE types AS SELECT * FROM (VALUES ('page_view', 'visit'), ('add_to_cart', 'visit'), ('purchase', 'money'),
           ('refund', 'money'), ('signup', 'account')) AS t (event_type, family);
       ALTER TABLE users ADD PRIMARY KEY (user_id); ALTER TABLE types ADD PRIMARY KEY (event_type);
       ANALYZE users, types" >/dev/null
add_rows "$rows" --step $step_ms
query 'VACUUM ANALYZE events'
for case in "${cases[@]}"; do run_case "$case"; done
