# What our commands need of the machine, by package name. To be sourced.

# Oldest and newest PostgreSQL that the extension supports, newest first.
postgres_majors='18 17 16 15'

# Is $1 the pg_config of a PostgreSQL that extensions can be built and tested
# with: server, headers, makefiles and test programs?
pg_config_is_complete() {
    [ -x "$1" ] && [ -x "$("$1" --bindir)/postgres" ] && [ -e "$("$1" --pgxs)" ] &&
        [ -x "$(dirname "$("$1" --pgxs)")/../test/regress/pg_regress" ]
}

# Print the pg_config to use: PG_CONFIG, else the newest of the distribution's.
find_pg_config() {
    local major
    if [ -n "${PG_CONFIG-}" ]; then
        command -v "$PG_CONFIG"
        return
    fi
    for major in $postgres_majors; do
        if pg_config_is_complete "/usr/lib/postgresql/$major/bin/pg_config"; then
            echo "/usr/lib/postgresql/$major/bin/pg_config"
            return
        fi
    done
    command -v pg_config >/dev/null && pg_config_is_complete "$(command -v pg_config)" && command -v pg_config
}

package_is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
# Can the package be had? A name that others only mention is known, and is nothing to install.
package_exists() { [ -n "$(apt-cache show "$1" 2>/dev/null)" ]; }

# The first of the given packages that can be had, or none.
first_package() {
    local name
    for name; do
        if package_exists "$name"; then
            echo "$name"
            return
        fi
    done
}

java_is_recent() {
    local major
    major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${major:-0}" -ge 17 ]
}

# The major version of the PostgreSQL in use or, when there is none, the
# newest that the distribution has.
postgres_major() {
    local major pg_config
    if pg_config=$(find_pg_config); then
        "$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/'
        return
    fi
    for major in $postgres_majors; do
        if package_exists "postgresql-server-dev-$major"; then
            echo "$major"
            return
        fi
    done
}

# Print the packages that the command $1 needs; the rest are its arguments.
# A distribution's PostgreSQL comes with them unless PG_CONFIG names another.
needed_packages() {
    local command=$1 major
    shift
    if [ "$command" = majors.sh ]; then
        echo debootstrap
        return
    fi
    echo gcc libc6-dev make perl librdkafka-dev libzstd-dev libxxhash-dev
    [ -z "${PG_CONFIG-}" ] || return 0
    major=$(postgres_major)
    echo "postgresql-$major" "postgresql-server-dev-$major"
    case $command in
        run.sh | chaos)
            echo "postgresql-$major-pgtap" libipc-run-perl python3
            java_is_recent || first_package openjdk-21-jre-headless openjdk-17-jre-headless default-jre-headless
            echo maven
            ;;
        fuzz_refresh) echo python3 ;;
        bench/*)
            java_is_recent || first_package openjdk-21-jre-headless openjdk-17-jre-headless default-jre-headless
            echo maven
            [ "$command" != bench/ingest.sh ] || echo kcat python3-confluent-kafka python3-psycopg
            ;;
    esac
}

# Run as root: directly or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Install what is missing for command $1. Does nothing, not even ask for
# root, when nothing is. No cluster is made or started, and no service: the
# two files that see to it exist during the installation only.
install_packages() {
    local name log
    local -a missing=()
    command -v apt-get >/dev/null || return 0
    if [ -z "${PG_CONFIG-}" ] && ! find_pg_config >/dev/null && ! package_exists postgresql; then
        update_package_lists "$1"
    fi
    for name in $(needed_packages "$@"); do
        package_is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    echo "$1: installing ${missing[*]}"
    update_package_lists "$1"
    log=$(mktemp)
    # shellcheck disable=SC2016
    as_root bash -c '
        set -e
        drop_in=/etc/postgresql-common/createcluster.d/pg_medallion_tests.conf
        policy=/usr/sbin/policy-rc.d
        trap "rm -f $drop_in" EXIT
        mkdir -p "$(dirname $drop_in)"
        echo "create_main_cluster = false" >$drop_in
        if [ ! -e $policy ]; then
            trap "rm -f $drop_in $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >$policy
            chmod 755 $policy
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -o DPkg::Lock::Timeout=600 --no-install-recommends --no-upgrade "$@"
    ' bash "${missing[@]}" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; echo "$1: could not install packages" >&2; exit 1; }
    rm -f "$log"
}

# Once is enough.
lists_are_fresh=''
update_package_lists() {
    [ -z "$lists_are_fresh" ] || return 0
    lists_are_fresh=1
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "$1: packages are missing, and installing them needs root or sudo" >&2
        exit 1
    fi
    as_root apt-get update -qq >/dev/null || echo "$1: apt-get update failed, going on with the lists there are" >&2
}
