# Run the chaos harness. To be sourced after build.sh.

# Run a command with what PostgreSQL's test modules need to make servers.
with_test_modules() {
    # The modules make their own servers and must not see ours.
    env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u MD_KAFKA_BOOTSTRAP \
        TESTDIR="$MD_RUN/chaos" TESTDATADIR="$MD_RUN/chaos/data" TESTLOGDIR="$MD_RUN/chaos/log" \
        PG_REGRESS="$PG_TEST_DIR/regress/pg_regress" MD_TEST_KAFKA_JIT=1 "$@"
}

# Run it with the arguments of chaos.pl, its output as it is.
chaos() {
    mkdir -p "$MD_RUN/chaos"
    with_test_modules perl -I "$PG_TEST_DIR/perl" -I test/perl test/lib/chaos.pl "$@"
}

# Logs of a failed run outlive the next one.
keep_chaos_logs() {
    local kept
    kept=$MD_WORK/chaos-failed-$(date +%Y%m%d-%H%M%S)
    mkdir -p "$kept"
    cp -r "$MD_RUN/chaos/log" "$kept/" 2>/dev/null || true
    (cd "$MD_RUN/chaos" && find . -name broker.log -exec cp --parents {} "$kept/" \;) || true
    echo "logs: $kept"
}
