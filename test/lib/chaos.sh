# What the chaos harness needs of a shell. To be sourced after build.sh.

# Tell PostgreSQL's test modules, which make their own servers, where to; they
# must not see ours. For a subshell.
use_test_modules() {
    unset PGHOST PGPORT PGUSER PGDATABASE MD_KAFKA_BOOTSTRAP
    export TESTDIR=$MD_RUN/chaos TESTDATADIR=$MD_RUN/chaos/data TESTLOGDIR=$MD_RUN/chaos/log
    export PG_REGRESS=$PG_TEST_DIR/regress/pg_regress MD_TEST_KAFKA_JIT=1
    mkdir -p "$MD_RUN/chaos"
}

# Run it with the arguments of chaos.pl, its output as it is.
chaos() (
    use_test_modules
    perl -I "$PG_TEST_DIR/perl" -I test/perl test/lib/chaos.pl "$@"
)

# Logs of a failed run outlive the next one.
keep_chaos_logs() {
    local kept
    kept=$MD_WORK/chaos-failed-$(date +%Y%m%d-%H%M%S)
    mkdir -p "$kept"
    cp -r "$MD_RUN/chaos/log" "$kept/"
    (cd "$MD_RUN/chaos" && find . -name broker.log -exec cp --parents {} "$kept/" \;)
    echo "logs: $kept"
}
