#!/usr/bin/env bash
# Check surrogate keys against implementations that are not ours, as TAP.
#
#   PGHOST=... PGPORT=... PGUSER=... PGDATABASE=... test/keys/run.sh
#
# The server runs, the extension is created in PGDATABASE, and the user may
# create databases; psql and python3 are in the PATH. With MD_VENV, a Python
# environment that has pyspark (and Java beside it), Spark itself is asked too.
set -uo pipefail
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1

status=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

python3 check_vectors.py >"$output" || status=1
cat "$output"
tests=$(grep -cE '^(not )?ok ' "$output")
if [ "$tests" -eq 0 ]; then
    tests=1
    echo "not ok 1 - check_vectors.py runs"
fi

if [ -n "${MD_VENV:-}" ] && "$MD_VENV/bin/python" -c 'import pyspark' 2>/dev/null; then
    tests=$((tests + 1))
    name="Spark $("$MD_VENV/bin/python" -c 'import pyspark; print(pyspark.__version__)') makes its vectors again"
    if "$MD_VENV/bin/python" check_spark.py >"$output" 2>&1; then
        echo "ok $tests - $name"
    else
        status=1
        echo "not ok $tests - $name"
        sed 's/^/# /' "$output"
    fi
fi

echo "1..$tests"
exit "$status"
