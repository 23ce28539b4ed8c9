#!/usr/bin/env bash
# Run one pgTAP file in a new database of its own (prove --exec).
set -euo pipefail

database=pgtap_$(basename "$1" .sql)
psql -Xqd postgres -c "CREATE DATABASE \"$database\""
psql -Xqd "$database" -c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION pg_medallion'
psql -XqAtd "$database" -v ON_ERROR_STOP=1 -f "$1"
