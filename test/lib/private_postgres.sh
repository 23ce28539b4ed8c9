#!/usr/bin/env bash
# Make a private copy of an installed PostgreSQL, so that building, installing
# and testing the extension never touches the machine's own installation.
#
#   test/lib/private_postgres.sh DIR [PG_CONFIG]
#
# Prints the path of the copy's pg_config. PostgreSQL finds its files relative
# to its programs, so a copy with the same layout under DIR works by itself.
# Does nothing when DIR already holds a copy.
set -euo pipefail

dir=${1:?usage: private_postgres.sh DIR [PG_CONFIG]}
pg_config=$(readlink -f "$(command -v "${2:-${PG_CONFIG:-pg_config}}")")

# Debian's /usr/bin/pg_config is a wrapper; the program beside postgres knows.
bindir=$("$pg_config" --bindir)
[ -x "$bindir/pg_config" ] && pg_config=$bindir/pg_config

if [ ! -e "$dir/.complete" ]; then
    mkdir -p "$dir"
    for what in bindir pkglibdir sharedir includedir includedir-server; do
        path=$("$pg_config" "--$what")
        [ -e "$path" ] || continue
        mkdir -p "$dir/$(dirname "$path")"
        [ -e "$dir/$path" ] || cp -a "$path" "$dir/$path"
    done
    touch "$dir/.complete"
fi
echo "$dir$bindir/pg_config"
