# Start the private servers of a run. To be sourced after build.sh. All of
# them leave a pid file under MD_RUN, by which bootstrap.sh ends them.

# Start a PostgreSQL on a unix socket only, and point libpq at it.
start_postgres() {
    local data=$MD_RUN/postgres
    export PGHOST=$MD_SOCKET_DIR PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
    initdb -D "$data" -U postgres -A trust -N --no-instructions >"$MD_RUN/initdb.log" 2>&1 ||
        { cat "$MD_RUN/initdb.log" >&2; exit 1; }
    cat >>"$data/postgresql.conf" <<END
shared_preload_libraries = 'pg_medallion'
listen_addresses = ''
unix_socket_directories = '$MD_SOCKET_DIR'
max_worker_processes = 32
max_prepared_transactions = 10
fsync = off
log_line_prefix = '%m [%p] %b %d '
END
    [ $# -eq 0 ] || printf '%s\n' "$@" >>"$data/postgresql.conf"
    pg_ctl -s -w -D "$data" -l "$MD_RUN/postgres.log" start || { tail -n 30 "$MD_RUN/postgres.log" >&2; exit 1; }
}

# Start an Apache Kafka broker for this run, and tell the tests where it is.
start_broker() {
    echo "starting Apache Kafka"
    MD_KAFKA_BOOTSTRAP=$(bash test/kafka/broker.sh start "$MD_RUN/kafka") || exit 1
    export MD_KAFKA_BOOTSTRAP
}

# Start librdkafka's mock cluster with the arguments of kafka_mock.c; sets
# `bootstrap`. Its standard input is a pipe that it holds open itself, so it
# runs until it is stopped.
start_mock_cluster() {
    local dir=$MD_RUN/mock
    mkdir -p "$dir"
    mkfifo "$dir/commands"
    (
        cd "$dir"
        exec kafka_tool mock "$@" 0<>commands >answers 2>mock.log
    ) &
    echo $! >"$dir/broker.pid"
    disown $!
    while [ ! -s "$dir/answers" ]; do
        kill -0 "$(cat "$dir/broker.pid")" 2>/dev/null || { cat "$dir/mock.log" >&2; exit 1; }
        sleep 0.02
    done
    bootstrap=$(head -n 1 "$dir/answers")
}
