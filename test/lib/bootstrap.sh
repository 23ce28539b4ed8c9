#!/usr/bin/env bash
# Make a bare Debian or Ubuntu machine ready and run one of our commands on it.
#
#   test/lib/bootstrap.sh COMMAND [ARG...]      COMMAND: a file under test/
#
# Installs missing packages by name, copies the checkout's files to a work
# directory, makes a private copy of PostgreSQL there, and runs the command in
# the copy, as an ordinary user even when we are root. However the command
# ends, what it has started is stopped: servers are known by the pid files
# they leave under the run directory.
#
# The command sees: MD_CACHE (downloads shared by all), MD_WORK (source/ and
# pg/ of this checkout), MD_RUN (empty directory, removed after success),
# MD_SOCKET_DIR (for unix sockets, whose paths must be short), PG_CONFIG (of the private copy), MD_ASAN (set with --asan).
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd -P)
command=$1
shift

. "$checkout/test/lib/packages.sh"
. "$checkout/test/lib/stop.sh"

die() { echo "$command: $*" >&2; exit 1; }

# Run a command line as the ordinary user, in an environment that has MD_*,
# what downloads may need, and nothing else of ours.
as_user() {
    local -a switch=() environment=()
    local name
    [ "$(id -u)" -ne 0 ] || switch=(runuser -u "$run_user" --)
    for name in PROVE_FLAGS PG_TEST_TIMEOUT_DEFAULT COLUMNS LINES JAVA_HOME $(compgen -e MD_) \
        $(compgen -e | grep -iE '^(https?|no)_proxy$|^MAVEN_' || true); do
        [ -z "${!name+x}" ] || environment+=("$name=${!name}")
    done
    environment+=(HOME="$work" PATH="$PATH" TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 MD_CHECKOUT="$checkout"
        MD_CACHE="$cache" MD_WORK="$work" MD_RUN="$run" MD_SOCKET_DIR="$socket_dir" MD_ASAN="$asan" PG_CONFIG="$private_pg_config")
    "${switch[@]}" env -i "${environment[@]}" "$@"
}

# Copy the files of the checkout that belong to it (tracked, or new and not
# ignored) to $work/source. Unchanged files are not touched, so that make sees
# what changed; files that went away go away there too.
copy_source() {
    local list=$work/source.list
    cd "$checkout"
    if [ -e .git ] && command -v git >/dev/null &&
        git -c safe.directory='*' ls-files -z -co --exclude-standard >"$list.all" 2>/dev/null; then
        :
    else
        find . -type d -name .git -prune -o -type f ! -name '*.o' ! -name '*.so' ! -name '*.bc' -printf '%P\0' >"$list.all"
    fi
    : >"$list.new"
    while IFS= read -r -d '' file; do
        [ -f "$file" ] || continue
        printf '%s\0' "$file" >>"$list.new"
        cmp -s "$file" "$work/source/$file" && continue
        mkdir -p "$work/source/$(dirname "$file")"
        cp "$file" "$work/source/$file"
    done <"$list.all"
    if [ -e "$list" ]; then
        sort -zu "$list.new" | comm -z -13 - <(sort -zu "$list") | (cd "$work/source" && xargs -0 -r rm -f --)
    fi
    mv "$list.new" "$list"
    rm -f "$list.all"
    cd - >/dev/null
}

# What sanitizers have found stands in the servers' logs; false if nothing does.
print_sanitizer_findings() {
    grep -rhE -A 30 --include='*.log' --exclude-dir=data \
        'ERROR: AddressSanitizer|^[^ ]+\.[ch]:[0-9]+:[0-9]+: runtime error: ' "$run"
}

# Stop all that the command started; runs on every way out.
finish() {
    local code=$1
    trap - EXIT INT TERM HUP
    if [ -e "$run/keep" ]; then
        exit "$code"
    fi
    # Its whole process group: what it left in the background, too.
    if [ -n "$child" ]; then
        kill -TERM -- "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    stop_servers_under "$run"
    rm -rf "$socket_dir"
    # A test that restarts servers passes whatever made them stop.
    if [ -n "$asan" ] && print_sanitizer_findings >&2; then
        echo "$command: sanitizers found the above, logs: $run" >&2
        [ "$code" -ne 0 ] || code=1
    fi
    if [ "$code" -eq 0 ] || [ "$code" -ge 128 ]; then
        rm -rf "$run"
    fi
    exit "$code"
}

asan='' child='' socket_dir='' private_pg_config=''
for arg; do
    [ "$arg" != --asan ] || asan=1
done

install_packages "$command" "$@"
pg_config=$(find_pg_config) || die "no PostgreSQL 15 to 18 with its development files; set PG_CONFIG"

run_user=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
    run_user=nobody
    ! id -u postgres >/dev/null 2>&1 || run_user=postgres
    cache=${MD_CACHE:-/var/cache/pg_medallion}
else
    cache=${MD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pg_medallion}
fi
version=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9.a-z]*\).*/\1/')
work=$cache/$(basename "$checkout")-$(printf '%s' "$checkout" | cksum | cut -d' ' -f1)-pg$version${asan:+-asan}
run=$work/run-${command//[\/.]/_}
mkdir -p "$work"

# One command at a time per work directory; servers must not inherit the lock.
exec 9>"$work/lock"
if ! flock -n 9; then
    echo "$command: waiting for another command of this checkout to end"
    flock 9
fi
trap 'finish $?' EXIT
trap 'finish 130' INT
trap 'finish 143' TERM
trap 'finish 129' HUP

# What an earlier command left: it was killed, or told to keep its servers.
stop_servers_under "$run"
[ ! -e "$run/socket_dir" ] || rm -rf "$(cat "$run/socket_dir")"
rm -rf "$run"
[ "${1-}" != --stop ] || exit 0

mkdir -p "$run"
socket_dir=$(mktemp -d "${TMPDIR:-/tmp}/md.XXXXXX")
echo "$socket_dir" >"$run/socket_dir"
copy_source
# An extension that was installed since belongs into the copy, too.
[ ! "$("$pg_config" --sharedir)/extension" -nt "$work/pg/.complete" ] || rm -rf "$work/pg"
private_pg_config=$(bash "$checkout/test/lib/private_postgres.sh" "$work/pg" "$pg_config")
[ "$(id -u)" -ne 0 ] || { chown "$run_user" "$cache" && chown -R "$run_user" "$work" "$socket_dir"; }

# In the background and waited for, so that a signal is acted on at once; in a
# process group of its own, so that one kill reaches all of it.
cd "$work/source"
set -m
as_user bash "test/$command" "$@" 9>&- </dev/null &
child=$!
set +m
code=0
wait "$child" || code=$?
finish "$code"
