# Build and install the extension and the test tools. To be sourced, with the
# work directory's source/ as current directory.

PG_BINDIR=$("$PG_CONFIG" --bindir)
PG_TEST_DIR=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../test" && pwd)
PG_VERSION=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9.a-z]*\).*/\1/')
PATH=$PG_BINDIR:$MD_WORK/bin:$PATH
export PATH

# Build with warnings as errors and install into the private PostgreSQL.
build_extension() {
    local flags=-Werror
    [ -z "$MD_ASAN" ] || flags+=' -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined'
    echo "building the extension for PostgreSQL $PG_VERSION"
    make -s -j"$(nproc)" with_llvm=no COPT="$flags" PG_CONFIG="$PG_CONFIG" >"$MD_RUN/build.log" 2>&1 ||
        { cat "$MD_RUN/build.log" >&2; exit 1; }
    make -s with_llvm=no COPT="$flags" PG_CONFIG="$PG_CONFIG" install >>"$MD_RUN/build.log" 2>&1 ||
        { cat "$MD_RUN/build.log" >&2; exit 1; }
    build_kafka_tool
    [ -z "$MD_ASAN" ] || wrap_postgres
}

build_kafka_tool() {
    mkdir -p "$MD_WORK/bin"
    [ -n "$(find test/kafka -name "*.[ch]" -newer "$MD_WORK/bin/kafka_tool" 2>&1)" ] || return 0
    gcc -O2 -g -D_GNU_SOURCE -Wall -Wextra -Werror -o "$MD_WORK/bin/kafka_tool" test/kafka/*.c -lrdkafka
}

# The server program must have the sanitizers' runtime from its first moment;
# a wrapper in its place loads it there and in no other program. The server
# takes the wrapper's name, by which "pg_ctl restart" starts it again. Undefined
# behaviour is told in the server's log and does not stop it, even if
# UBSAN_OPTIONS says halt_on_error; bootstrap.sh looks for it there.
wrap_postgres() {
    local postgres=$PG_BINDIR/postgres
    gcc -shared -fPIC -Wl,-z,initfirst -o "$MD_WORK/bin/asan_first.so" test/lib/asan_first.c
    [ -e "$postgres.real" ] || mv "$postgres" "$postgres.real"
    cat >"$postgres.new" <<END
#!/usr/bin/env bash
export LD_PRELOAD='$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $MD_WORK/bin/asan_first.so'
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:disable_coredump=1:log_to_syslog=0
exec -a "$postgres" "$postgres.real" "\$@"
END
    chmod +x "$postgres.new"
    mv "$postgres.new" "$postgres"
}
