# What people use today to get a topic into a table. To be sourced by ingest.sh.
#
# All write the rows that the streaming table has: position, key and payload as
# text, or five fields of the payload in typed columns. None keeps what was
# read in step with what was stored but the consumer in Python.

peer_columns='kafka_partition int, kafka_offset bigint'
declare -A peer_table=(
    [raw]="$peer_columns, key text, payload text"
    [json]="$peer_columns, event_id uuid, user_id bigint, event_type text, amount numeric, ts timestamptz"
)

# The topic as lines for COPY: positions, key and payload, which has neither
# tabs nor backslashes. The rest are properties of the client.
kcat_lines() {
    kcat -C -q -e -b "$bootstrap" -t events -o beginning -f '%p\t%o\t%k\t%s\n' "$@"
}
kcat_tuned_lines() {
    kcat_lines -X fetch.wait.max.ms=100 -X fetch.message.max.bytes=4194304 -X queued.min.messages=1000000 \
        -X queued.max.messages.kbytes=262144 -X check.crcs=false
}

# kcat's lines (from the command $1) into table "peer", in format $2. Fields of JSON are
# taken out by SQL, from a table without WAL, as one would.
copy_lines() {
    case $2 in
        raw) "$1" | psql -XqAt -v ON_ERROR_STOP=1 -c 'COPY peer FROM STDIN' ;;
        json)
            "$1" | psql -XqAt -v ON_ERROR_STOP=1 -c 'COPY peer_lines FROM STDIN' -c "
                INSERT INTO peer SELECT kafka_partition, kafka_offset, (p->>'event_id')::uuid, (p->>'user_id')::bigint,
                    p->>'event_type', (p->>'amount')::numeric, (p->>'ts')::timestamptz
                  FROM (SELECT kafka_partition, kafka_offset, payload::jsonb AS p FROM peer_lines) l"
            ;;
    esac
}

# The peer $1 in format $2, once; sets peer_ms.
run_peer() {
    local start
    query "SET client_min_messages = warning; DROP TABLE IF EXISTS peer, peer_lines, peer_positions;
           CREATE TABLE peer (${peer_table[$2]});
           CREATE UNLOGGED TABLE peer_lines (${peer_table[raw]});
           CREATE TABLE peer_positions (kafka_partition int PRIMARY KEY, next_offset bigint)"
    query 'CHECKPOINT'
    start=$(now_ms)
    case $1 in
        kcat) copy_lines kcat_lines "$2" ;;
        'kcat tuned') copy_lines kcat_tuned_lines "$2" ;;
        python) /usr/bin/python3 test/bench/consumer.py "$bootstrap" events "$count" "$2" "" peer ;;
    esac
    peer_ms=$(($(now_ms) - start))
    [ "$(query 'SELECT count(*) FROM peer')" -eq "$count" ] || { echo "$1 did not store $count rows" >&2; exit 1; }
    query 'DROP TABLE peer, peer_lines, peer_positions'
}
