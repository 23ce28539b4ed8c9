#!/usr/bin/env bash
# Run all tests, on private servers, with everything they need.
#
#   test/run.sh [--asan] [PART | TEST]...
#
# PART is regress, isolation, pgtap, keys, tap, tpch, fuzz or chaos; TEST is the name of one test
# ("001_smoke") or its file ("test/t/001_smoke.pl"). Both may be given together:
# a part runs as a whole, and of the others the tests that are named. Without
# either, all parts run. --asan builds with the address and undefined-behaviour
# sanitizers; what they find fails the run, even if no test sees it.
#
# Missing packages are installed by name (apt-get; as root or through sudo).
# The build happens in a cache directory, never in the checkout; servers
# listen on loopback or unix sockets and are stopped whatever happens.
#
# Environment: PG_CONFIG picks an installed PostgreSQL; MD_CACHE the cache
# directory; PROVE_FLAGS goes to prove; PG_TEST_TIMEOUT_DEFAULT is how many seconds
# the TAP tests wait for a fact (default 180); MD_FUZZ_QUERIES is how many random
# queries there are, from seed MD_FUZZ_SEED on, and MD_CHAOS_ROUNDS how many
# rounds of chaos for each of MD_CHAOS_SEEDS. Seeds are the same in each run, so
# that the same tree gives the same answer; test/fuzz_refresh and test/chaos
# without a seed look for new faults.
set -euo pipefail
[ -n "${MD_RUN-}" ] || exec "$(dirname "$0")/lib/bootstrap.sh" run.sh "$@"

. test/lib/build.sh
. test/lib/servers.sh
. test/lib/chaos.sh

parts=(regress isolation pgtap keys tap tpch fuzz chaos)
whole_parts=() selected_parts=() selected_files=() summary=() failed=0

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' test/run.sh; }

# Add the part that the test $1 belongs to, and the test's file.
select_test() {
    local name file
    name=$(basename "$1") && name=${name%.*}
    for file in "sql/$name.sql" "test/specs/$name.spec" "test/pgtap/$name.sql" "test/t/$name.pl"; do
        if [ -e "$file" ] && { [ "${1##*/}" = "$1" ] || [[ $1 == *"$file" ]]; }; then
            selected_files+=("$file")
            case $file in
                sql/*) selected_parts+=(regress) ;;
                test/specs/*) selected_parts+=(isolation) ;;
                test/pgtap/*) selected_parts+=(pgtap) ;;
                test/t/*) selected_parts+=(tap) ;;
            esac
            return
        fi
    done
    echo "test/run.sh: no part and no test is named \"$1\"" >&2
    exit 2
}

# The files of part $1: all that match the pattern $2, or those asked for.
part_files() {
    local file
    case " ${whole_parts[*]} " in
        *" $1 "*) compgen -G "$2" || true ;;
        *)
            # shellcheck disable=SC2254
            for file in "${selected_files[@]}"; do
                case $file in $2) echo "$file" ;; esac
            done
            ;;
    esac | sort -u
}

# Remember the outcome of part $1: passed, failed, and the runner's exit code.
# A runner that failed without a failed test counts as one.
finish_part() {
    local passed=${2:-0} bad=${3:-0}
    [ "$4" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$passed" -gt 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$bad" -eq 0 ] || failed=1
    summary+=("$1: $passed passed, $bad failed")
}

# Run pg_regress or pg_isolation_regress through make, as users do.
run_regress() {
    local part=$1 variable=$2 other=$3 pattern=$4 names log=$MD_RUN/$1.log code=0
    names=$(part_files "$part" "$pattern" | sed 's,.*/,,; s,\.[a-z]*$,,' | tr '\n' ' ')
    [ -n "$names" ] || { finish_part "$part" 0 0 1; return; }
    make -s with_llvm=no PG_CONFIG="$PG_CONFIG" installcheck "$variable=$names" "$other=" 2>&1 | tee "$log" || code=1
    [ $code -eq 0 ] || cat regression.diffs output_iso/regression.diffs 2>/dev/null || true
    # PostgreSQL 15 prints "test x ... ok", later ones print TAP.
    finish_part "$part" \
        "$(grep -cE '^test .*\.\.\. +ok|^ok [0-9]' "$log" || true)" \
        "$(grep -cE '^test .*\.\.\. +FAILED|^not ok [0-9]' "$log" || true)" $code
}

# Take over the outcome of part $1 that a subshell has left.
take_result() {
    local line bad
    { IFS= read -r line && IFS= read -r bad; } <"$MD_RUN/$1.result"
    summary+=("$line")
    [ "$bad" -eq 0 ] || failed=1
}

# Run prove for part $1 with the rest as its arguments.
run_prove() {
    local part=$1 log=$MD_RUN/$1.log code=0 total bad
    shift
    # shellcheck disable=SC2086
    prove ${PROVE_FLAGS-} "$@" 2>&1 | tee "$log" || code=1
    total=$(sed -n 's/^Files=.*Tests=\([0-9]*\),.*/\1/p' "$log" | tail -1)
    # A file that ended badly without a failed test counts as one.
    bad=$(perl -ne '$n += $2 || $1 || 1 if /\(Wstat: (\d+).* Tests: \d+ Failed: (\d+)\)/; END { print $n // 0 }' \
        < <(sed 's/Wstat: [0-9]*/Wstat: 0/' "$log"))
    total=${total:-0}
    [ "$bad" -le "$total" ] || total=$bad
    finish_part "$part" $((total - bad)) "$bad" $code
}

run_part_regress() { run_regress regress REGRESS ISOLATION 'sql/*.sql'; }
run_part_isolation() { run_regress isolation ISOLATION REGRESS 'test/specs/*.spec'; }

run_part_pgtap() {
    local files
    mapfile -t files < <(part_files pgtap 'test/pgtap/*.sql')
    [ ${#files[@]} -gt 0 ] || { finish_part pgtap 0 0 1; return; }
    run_prove pgtap --exec 'bash test/lib/pgtap.sh' "${files[@]}"
}

run_part_keys() {
    { psql -Xqd postgres -c 'CREATE DATABASE keys' && psql -Xqd keys -c 'CREATE EXTENSION pg_medallion'; } ||
        { finish_part keys 0 1 1; return; }
    PGDATABASE=keys run_prove keys --exec bash test/keys/run.sh
}

run_part_tap() {
    local files
    mapfile -t files < <(part_files tap 'test/t/*.pl')
    [ ${#files[@]} -gt 0 ] || { finish_part tap 0 0 1; return; }
    start_broker
    mkdir -p "$MD_RUN/tap"
    (
        # The modules make their own servers and must not see ours.
        unset PGHOST PGPORT PGUSER PGDATABASE
        export TESTDIR=$MD_RUN/tap TESTDATADIR=$MD_RUN/tap/data TESTLOGDIR=$MD_RUN/tap/log
        export PG_REGRESS=$PG_TEST_DIR/regress/pg_regress
        run_prove tap -j "${MD_JOBS:-1}" -I "$PG_TEST_DIR/perl" -I test/perl "${files[@]}"
        printf '%s\n' "${summary[-1]}" "$failed" >"$MD_RUN/tap.result"
    )
    take_result tap
}

run_part_tpch() { run_prove tpch --exec 'python3 -B' test/tpch/tpch.py; }

# Random queries. Each that was compared counts as a test.
run_part_fuzz() {
    local log=$MD_RUN/fuzz.log code=0
    python3 -B test/fuzz/main.py --seed "${MD_FUZZ_SEED:-1}" --queries "${MD_FUZZ_QUERIES:-2000}" 2>&1 | tee "$log" || code=1
    finish_part fuzz "$(sed -n 's/^fuzz: \([0-9]*\) queries .*/\1/p' "$log")" \
        "$(sed -n 's/^fuzz: .* \([0-9]*\) failures.*/\1/p' "$log")" $code
}

# Chaos for some minutes, by schedules that have steps of nearly every kind.
run_part_chaos() {
    local seed seeds=()
    for seed in ${MD_CHAOS_SEEDS:-300 306 307}; do seeds+=(--seed "$seed"); done
    (
        use_test_modules
        run_prove chaos -I "$PG_TEST_DIR/perl" -I test/perl test/lib/chaos.pl :: "${seeds[@]}" --rounds "${MD_CHAOS_ROUNDS:-3}"
        printf '%s\n' "${summary[-1]}" "$failed" >"$MD_RUN/chaos.result"
    )
    take_result chaos
}

for arg; do
    case $arg in
        --asan) ;;                      # bootstrap.sh saw to it
        -h | --help) usage && exit 0 ;;
        -*) echo "test/run.sh: unknown option \"$arg\"" >&2 && usage >&2 && exit 2 ;;
        regress | isolation | pgtap | keys | tap | tpch | fuzz | chaos) whole_parts+=("$arg") ;;
        *) select_test "$arg" ;;
    esac
done
[ ${#whole_parts[@]} -gt 0 ] || [ ${#selected_files[@]} -gt 0 ] || whole_parts=("${parts[@]}")
selected_parts+=("${whole_parts[@]}")

build_extension
start_postgres
for part in "${parts[@]}"; do
    case " ${selected_parts[*]} " in *" $part "*) ;; *) continue ;; esac
    printf '\n== %s ==\n' "$part"
    "run_part_$part"
done

printf '\n== PostgreSQL %s, librdkafka %s%s ==\n' "$PG_VERSION" "$(kafka_tool version)" "${MD_ASAN:+, sanitizers}"
printf '%s\n' "${summary[@]}"
[ $failed -eq 0 ] && echo "all tests passed" || echo "SOME TESTS FAILED, logs: $MD_RUN"
exit $failed
