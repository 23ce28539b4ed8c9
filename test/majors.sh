#!/usr/bin/env bash
# Run our commands with other majors of PostgreSQL, each on a bare root file
# system of the distribution that carries it.
#
#   test/majors.sh [MAJOR]... [COMMAND [ARG]...]
#
# MAJOR is 15 (Debian bookworm), 16 (Ubuntu noble), 17 (Debian trixie) or 18
# (Debian forky); without one, all. COMMAND is a file under test/ and its
# arguments; without one, run.sh. So: "test/majors.sh 17 18 run.sh isolation".
#
# Needs root. A root file system is made once, by debootstrap, and kept, with
# the packages and the downloads of its runs. The command sees the checkout
# read-only, in namespaces of its own: when it ends, so do its mounts and what
# it has left running.
#
# Environment: MD_CACHE, the cache directory: its roots/ keeps the root file
# systems, and jars in it that a new root needs are copied; MD_ROOTS, another
# place for the roots. What the command itself knows (PROVE_FLAGS, MD_JOBS,
# MD_FUZZ_QUERIES, MD_CHAOS_ROUNDS ...) it is told.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd -P)
cache=${MD_CACHE:-/var/cache/pg_medallion}
roots=${MD_ROOTS:-$cache/roots}

. "$checkout/test/lib/packages.sh"

die() { echo "test/majors.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }

suite_of() {
    case $1 in
        15) echo bookworm ;;
        16) echo noble ;;
        17) echo trixie ;;
        18) echo forky ;;
    esac
}

# Make a root file system of the suite $1 in $2, with the rest as options.
# debootstrap knows the mirror; a suite that is newer than debootstrap is
# made like the others of its distribution.
bootstrap_root() {
    local suite=$1 root=$2 script=/usr/share/debootstrap/scripts/$1 log=$2.log
    shift 2
    if [ ! -e "$script" ]; then
        script=/usr/share/debootstrap/scripts/sid
        [ "$suite" != noble ] || script=/usr/share/debootstrap/scripts/gutsy
    fi
    echo "making a root file system of $suite in $root"
    rm -rf "$root.new"
    debootstrap --variant=minbase --include=git "$@" "$suite" "$root.new" '' "$script" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "could not make a root file system of $suite"; }
    mv "$root.new" "$root"
    rm -f "$log"
}

# Print the file with the keys of Ubuntu's archive; Debian releases that lack
# the package get it from one that has it.
ubuntu_keys() {
    local keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg
    if [ ! -e $keys ]; then
        make_root 17 >&2
        keys=$roots/root17$keys
        [ -e "$keys" ] || (in_root "$roots/root17" apt-get install -y --no-install-recommends ubuntu-archive-keyring >&2)
    fi
    echo "$keys"
}

# Make the root file system of the major $1 unless there is one.
make_root() {
    local root=$roots/root$1 inner keys
    [ ! -e "$root" ] || return 0
    mkdir -p "$roots"
    if [ "$1" = 16 ]; then
        keys=$(ubuntu_keys)
        bootstrap_root "$(suite_of 16)" "$root" --components=main,universe --keyring="$keys"
        # Ubuntu's suites stay as they were released, unlike Debian's, which take in minor releases
        sed -n 's/ noble / noble-updates /p' "$root/etc/apt/sources.list" >"$root/etc/apt/sources.list.d/updates.list"
    else
        bootstrap_root "$(suite_of "$1")" "$root"
    fi
    # authorities that this machine trusts beside the distribution's: downloads may need them
    [ ! -d /usr/local/share/ca-certificates ] || cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
    inner=$root/var/cache/pg_medallion
    mkdir -p "$inner"
    cp -r "$cache"/kafka-* "$cache/maven" "$inner/" 2>/dev/null || true
    chmod -R a+rwX "$inner"
}

# Run a command line in the root file system $1, in place of this process.
in_root() {
    # shellcheck disable=SC2016
    exec unshare --mount --pid --fork --kill-child bash -c '
        set -e
        checkout=$1 root=$2
        shift 2
        mkdir -p "$root/pg_medallion"
        mount --bind "$checkout" "$root/pg_medallion"
        mount -o remount,bind,ro "$root/pg_medallion"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/dev/shm"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        cp /etc/resolv.conf "$root/etc/resolv.conf"
        chroot "$root" "$@"
    ' bash "$checkout" "$@"
}

# Run the command on the major $1, in an environment like that of a login.
run_major() {
    local -a environment=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
        TERM="${TERM:-dumb}" DEBIAN_FRONTEND=noninteractive)
    local name code=0
    for name in PROVE_FLAGS MD_JOBS MD_DEMO_SECONDS \
        $(compgen -e | grep -iE '^(https?|no)_proxy$|^MD_(TEST|FUZZ|CHAOS|BENCH)_' || true); do
        [ -z "${!name+x}" ] || environment+=("$name=${!name}")
    done
    make_root "$1"
    # in the background and waited for, so that a signal is acted on at once
    in_root "$roots/root$1" env -i "${environment[@]}" "/pg_medallion/test/$2" "${@:3}" </dev/null &
    child=$!
    wait $child || code=$?
    child=''
    return $code
}

# The death of the namespaces' parent ends all that is in them.
finish() {
    trap - EXIT INT TERM HUP
    [ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true
    exit "$1"
}

majors=() summary=() failed=0 child=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        15 | 16 | 17 | 18) majors+=("$1") && shift ;;
        *) break ;;
    esac
done
[ ${#majors[@]} -gt 0 ] || majors=(15 16 17 18)
[ $# -gt 0 ] || set -- run.sh
[ -x "$checkout/test/$1" ] || die "no command is named \"$1\""
[ "$(id -u)" -eq 0 ] || die "needs root, to make root file systems and to change into them"
install_packages majors.sh

trap 'finish $?' EXIT
trap 'finish 130' INT
trap 'finish 143' TERM
trap 'finish 129' HUP

for major in "${majors[@]}"; do
    printf '\n== PostgreSQL %s on %s ==\n' "$major" "$(suite_of "$major")"
    if run_major "$major" "$@"; then
        summary+=("PostgreSQL $major: passed")
    else
        summary+=("PostgreSQL $major: FAILED") failed=1
    fi
done
printf '\n'
printf '%s\n' "${summary[@]}"
exit $failed
