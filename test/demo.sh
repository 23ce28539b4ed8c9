#!/usr/bin/env bash
# Watch records produced to Kafka arrive in a bronze table, flow through a
# silver view and appear in a gold view, all of it defined in SQL.
#
#   test/demo.sh [--keep | --stop]
#
# Builds the extension and starts a private PostgreSQL and librdkafka's mock
# cluster (no JVM); all is stopped at the end. --keep leaves the servers up
# and says how to reach and how to stop them; --stop ends servers that were
# kept. Ends with 0 only if every fact that it prints holds.
#
# Environment: MD_DEMO_SECONDS, how long records are produced (default 25).
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/lib/bootstrap.sh" demo.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh

keep=''
case ${1-} in
    '') ;;
    --keep) keep=1 ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' test/demo.sh && exit 2 ;;
esac

seconds=${MD_DEMO_SECONDS:-25}
orders_per_second=400
kill_at=$((seconds * 2 / 5))
started=$(date +%s%N)
samples=$MD_RUN/freshness
facts_failed=0

if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' cyan='' plain=''
fi

heading() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s%s%s\n' "$dim" "$1" "$plain"; }
elapsed_ms() { echo $((($(date +%s%N) - started) / 1000000)); }
query() { psql -XqAt -F ' ' -v ON_ERROR_STOP=1 -c "$1"; }

# Show the SQL on standard input, then run it.
run_sql() {
    local text
    text=$(cat)
    printf '%s\n' "$text" | sed "s/^/  $cyan/; s/\$/$plain/"
    printf '%s\n' "$text" | psql -Xq -v ON_ERROR_STOP=1 -P footer=off
}

# A fact that must hold: print it with the numbers, remember if it does not.
fact() {
    if [ "$2" = "$3" ]; then
        printf '  %s✓%s %s: %s\n' "$green" "$plain" "$1" "$2"
    else
        printf '  %s✗ %s: %s, expected %s%s\n' "$red" "$1" "$2" "$3" "$plain"
        facts_failed=1
    fi
}

# Wait until a query answers "t"; a server in recovery is waited for, too.
wait_for() {
    local deadline=$(($(date +%s) + 60))
    while [ "$(query "$1" 2>/dev/null || true)" != t ]; do
        if [ "$(date +%s)" -gt $deadline ]; then
            printf '%stimed out: %s%s\n' "$red" "$1" "$plain"
            query 'SELECT view, last_error FROM medallion.materialized_views WHERE last_error IS NOT NULL' || true
            query 'SELECT table_name, state, reason FROM medallion.streaming_tables' || true
            exit 1
        fi
        sleep 0.1
    done
}

# Number of records that the topic $1 holds, from Kafka itself.
produced() { kafka_tool watermarks "$bootstrap" "$1" | awk '{ n += $3 - $2 } END { print n }'; }

define_bronze() {
    heading '1  A Kafka cluster is a server, its topics are tables'
    run_sql <<END
CREATE EXTENSION pg_medallion;
CREATE SERVER kafka FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers '$bootstrap');
CREATE SCHEMA bronze; CREATE SCHEMA silver; CREATE SCHEMA gold;

CREATE TABLE bronze.orders (order_id bigint, customer text, amount numeric, placed_at timestamptz)
  WITH (medallion.server = 'kafka', medallion.topic = 'orders', medallion.format = 'json');
CREATE TABLE bronze.customers (customer text, name text, country text)
  WITH (medallion.server = 'kafka', medallion.topic = 'customers', medallion.format = 'json');
END
}

define_views() {
    heading '2  Silver cleans and makes keys, gold counts; each keeps itself fresh'
    run_sql <<'END'
CREATE MATERIALIZED VIEW silver.orders WITH (medallion.refresh_interval = '500 ms') AS
  SELECT medallion.hash_key(customer) AS customer_key, order_id, amount, placed_at, kafka_timestamp
    FROM bronze.orders WHERE amount > 0;

CREATE MATERIALIZED VIEW silver.customers WITH (medallion.refresh_interval = '2 s') AS
  SELECT DISTINCT ON (customer) medallion.hash_key(customer) AS customer_key, customer, name, country
    FROM bronze.customers ORDER BY customer, kafka_partition, kafka_offset DESC;

CREATE MATERIALIZED VIEW gold.by_minute WITH (medallion.refresh_interval = '1 s') AS
  SELECT date_trunc('minute', placed_at) AS minute, count(*) AS orders, sum(amount) AS amount,
         max(kafka_timestamp) AS newest
    FROM silver.orders GROUP BY 1;

CREATE MATERIALIZED VIEW gold.by_country WITH (medallion.refresh_interval = '2 s') AS
  SELECT c.country, count(*) AS orders, sum(o.amount) AS amount
    FROM silver.orders o JOIN silver.customers c USING (customer_key) GROUP BY c.country;
END
}

# Start the producers; their counts of delivered records go to files.
start_producers() {
    heading "3  $orders_per_second orders per second; 1 in 500 is broken JSON"
    kafka_tool gen "$bootstrap" customers 200 --kind customer --rate $((200 / seconds + 1)) >"$MD_RUN/customers.count" &
    kafka_tool gen "$bootstrap" orders $((orders_per_second * seconds)) --kind order --step 80 --bad-every 500 \
        --rate $orders_per_second >"$MD_RUN/orders.count" &
}

# Note the age of the newest order in gold, from when it was produced, for
# the plot: "none" before the first, "down" while there is no server.
sample_freshness() {
    local answer
    answer=$(query "SELECT coalesce(round(extract(epoch FROM clock_timestamp() - max(newest))::numeric, 2)::text, 'none')
                      FROM gold.by_minute" 2>/dev/null) || answer=down
    echo "$(elapsed_ms) $answer" >>"$samples"
}

# One line of the screen: everything but "produced" is read from SQL.
show_state() {
    local answer
    answer=$(query "SELECT t.rows, t.lag, t.dead_letters, (SELECT count(*) FROM silver.orders),
                           g.orders, coalesce(round(extract(epoch FROM v.freshness)::numeric, 1)::text, '-'),
                           coalesce(round(extract(epoch FROM clock_timestamp() - g.newest)::numeric, 1)::text, '-')
                      FROM medallion.streaming_tables t, medallion.materialized_views v,
                           (SELECT coalesce(sum(orders), 0) AS orders, max(newest) AS newest FROM gold.by_minute) g
                     WHERE t.table_name = 'bronze.orders'::regclass AND v.view = 'gold.by_minute'::regclass" 2>/dev/null || true)
    # shellcheck disable=SC2086
    set -- $answer
    if [ $# -eq 7 ]; then
        printf '  %4d s %10s %14s %6s %14s %14s %15s %8s s %11s s\n' $((SECONDS - live_from)) "$(produced orders)" "$1" "$2" "$3" "$4" "$5" "$6" "$7"
    else
        printf '  %4d s %10s %s%s%s\n' $((SECONDS - live_from)) "$(produced orders)" "$red" 'PostgreSQL is recovering' "$plain"
    fi
}

# Kill the ingest worker as a crash would; PostgreSQL then restarts all.
kill_ingest_worker() {
    local pid
    wait_for "SELECT count(*) > 0 FROM medallion.workers WHERE kind LIKE 'ingest%' AND database = current_database()"
    pid=$(query "SELECT pid FROM medallion.workers WHERE kind LIKE 'ingest%' AND database = current_database() LIMIT 1")
    kill -KILL "$pid"
    printf '  %s✗ SIGKILL to the ingest worker, process %s: PostgreSQL restarts all its processes%s\n' "$red" "$pid" "$plain"
    killed_pid=$pid
}

# Tell once that another worker has taken over.
watch_recovery() {
    local pid
    pid=$(query "SELECT pid FROM medallion.workers WHERE kind LIKE 'ingest%' AND database = current_database() LIMIT 1" 2>/dev/null || true)
    if [ -n "$pid" ] && [ "$pid" != "$killed_pid" ]; then
        printf '  %s✓ process %s goes on from the checkpoint%s\n' "$green" "$pid" "$plain"
        killed_pid=''
    fi
}

watch_live() {
    local last=-1 killed=''
    live_from=$SECONDS
    killed_pid=''
    printf '  %s%6s %10s %14s %6s %14s %14s %15s %10s %13s%s\n' "$dim" time produced bronze.orders lag 'dead letters' silver.orders gold.by_minute freshness 'newest order' "$plain"
    while [ -n "$(jobs -rp)" ] || [ -n "$killed_pid" ]; do
        sample_freshness
        if [ $((SECONDS - live_from)) -ne $last ]; then
            last=$((SECONDS - live_from))
            show_state
        fi
        if [ -z "$killed" ] && [ $last -ge $kill_at ]; then
            kill_ingest_worker
            killed=1
        fi
        [ -z "$killed_pid" ] || watch_recovery
        [ $last -lt $((seconds + 60)) ] || { echo 'the producers did not end'; exit 1; }
        sleep 0.2
    done
    wait
}

# Wait until every layer holds what was produced, by the intervals alone.
wait_for_layers() {
    wait_for "SELECT medallion.wait_until_caught_up('bronze.orders', '30 s') AND medallion.wait_until_caught_up('bronze.customers', '30 s')"
    wait_for "SELECT (SELECT count(*) FROM bronze.orders WHERE amount > 0) = (SELECT count(*) FROM silver.orders)
                 AND (SELECT count(*) FROM silver.orders) = (SELECT sum(orders) FROM gold.by_minute)
                 AND (SELECT count(*) FROM silver.orders) = (SELECT sum(orders) FROM gold.by_country)"
    sample_freshness
    show_state
}

# Draw the samples: seconds upwards, the worst of those that share a column, a
# column without one like the last before it, a cross where there was no server.
plot_freshness() {
    heading '4  Age of the newest order in gold.by_minute, in seconds since it was produced'
    awk -v width=72 -v height=6 '
        { if (NR == 1) first = $1; last = $1; at[NR] = $1; value[NR] = $2; n = NR }
        END {
            if (last == first) last = first + 1
            for (i = 1; i <= n; i++) {
                c = int((at[i] - first) * (width - 1) / (last - first))
                if (value[i] == "down") down[c] = 1
                else if (value[i] != "none") { if (!(c in v) || value[i] > v[c]) v[c] = value[i]; if (value[i] + 0 > top) top = value[i] + 0 }
            }
            top = top < 1 ? 1 : top
            for (c = 1; c < width; c++) if (!(c in v) && !(c in down) && (c - 1 in v)) v[c] = v[c - 1]
            split("▁ ▂ ▃ ▄ ▅ ▆ ▇ █", block, " ")
            for (row = height; row >= 1; row--) {
                line = sprintf("  %5.1f ┤", top * row / height)
                for (c = 0; c < width; c++) {
                    eighths = (c in v) ? int(v[c] / top * height * 8 + 0.5) - (row - 1) * 8 : 0
                    if (row == 1 && (c in v) && eighths < 1) eighths = 1
                    if (row == 1 && (c in down)) line = line "✗"
                    else if (eighths <= 0) line = line " "
                    else line = line block[eighths > 8 ? 8 : eighths]
                }
                print line
            }
            line = "        └"
            for (c = 0; c < width; c++) line = line "─"
            print line
            printf "         0 s%" (width - 7) "s%3d s   ✗ no server\n", "", (last - first) / 1000
        }' "$samples"
}

check_facts() {
    local sent sent_customers view
    sent=$(cat "$MD_RUN/orders.count")
    sent_customers=$(cat "$MD_RUN/customers.count")
    heading '5  Facts'
    fact 'orders produced = stored or kept as dead letters' \
        "$(query 'SELECT (SELECT count(*) FROM bronze.orders) + (SELECT count(*) FROM medallion.dead_letters)')" "$sent"
    fact 'of them dead letters, one per broken record' \
        "$(query 'SELECT count(*) FROM medallion.dead_letters')" $((orders_per_second * seconds / 500))
    fact 'customers produced = stored' "$(query 'SELECT count(*) FROM bronze.customers')" "$sent_customers"
    fact 'orders stored twice' \
        "$(query 'SELECT count(*) - count(DISTINCT (kafka_partition, kafka_offset)) FROM bronze.orders')" 0
    fact 'different order_id in silver = orders with an amount in bronze' \
        "$(query 'SELECT count(DISTINCT order_id) FROM silver.orders')" \
        "$(query 'SELECT count(*) FROM bronze.orders WHERE amount > 0')"
    fact 'orders counted in gold' "$(query 'SELECT sum(orders) FROM gold.by_minute')" \
        "$(query 'SELECT count(*) FROM bronze.orders WHERE amount > 0')"
    for view in silver.orders silver.customers gold.by_minute gold.by_country; do
        fact "rows in which $view differs from its query, by medallion.verify()" \
            "$(query "SELECT count(*) FROM medallion.verify('$view')")" 0
    done
}

show_results() {
    heading '6  Gold'
    run_sql <<'END'
SELECT minute, orders, amount, newest FROM gold.by_minute ORDER BY minute DESC LIMIT 5;
SELECT country, orders, amount FROM gold.by_country ORDER BY amount DESC;
SELECT view, strategy, count(*) AS refreshes, sum(rows_read) AS rows_read,
       round(avg(extract(epoch FROM duration)) * 1000, 1) AS average_ms
  FROM medallion.refresh_history GROUP BY view, strategy ORDER BY view;
END
}

build_extension
started=$(date +%s%N)
start_mock_cluster --topic orders:4 --topic customers:2
start_postgres "TimeZone = 'UTC'"
say "PostgreSQL $PG_VERSION and a mock Kafka cluster run in $(elapsed_ms) ms"
define_bronze
define_views
start_producers
watch_live
wait_for_layers
plot_freshness
check_facts
show_results
printf '\n%s after the build\n' "$(elapsed_ms | sed 's/...$/ s/')"

if [ $facts_failed -ne 0 ]; then
    printf '%ssome facts do not hold%s\n' "$red" "$plain"
    exit 1
fi
if [ -n "$keep" ]; then
    touch "$MD_RUN/keep"
    heading 'The servers stay up'
    printf '  reach them:    %s/psql -h %s -U postgres\n' "$PG_BINDIR" "$PGHOST"
    printf '  more orders:   %s/bin/kafka_tool gen %s orders 1000 --kind order --step 80 --first %d\n' \
        "$MD_WORK" "$bootstrap" $((orders_per_second * seconds))
    printf '  stop them:     %s/test/demo.sh --stop\n' "$MD_CHECKOUT"
fi
