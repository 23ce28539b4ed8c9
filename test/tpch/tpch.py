"""TPC-H's 22 queries as materialized views, as TAP.

After each round of inserts, updates and deletes every view is refreshed and
must equal its query, by EXCEPT ALL both ways and by medallion.verify(). The
views are created with refresh_mode incremental where that is accepted, so
that a refresh cannot recompute in silence; the others are listed with the
reason. The environment names the server, as for psql.
"""

import collections
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../lib"))

from generate import SCHEMA, Generator, insert              # pylint: disable=wrong-import-position
from postgres_wire import Connection, PgError, literal      # pylint: disable=wrong-import-position

ROUNDS = 5
ORDERS = 1200
INCREMENTAL_GOAL = 20
# why a refresh may recompute: a subquery whose value all rows are compared with has another value
ALL_ROWS = "the value of a subquery matters to all rows"
# or too many of the first rows went
TOO_FEW = re.compile(r"fewer than \d+ of the first rows are left")


def queries():
    """{name: query}"""
    with open(os.path.join(HERE, "queries.sql"), encoding="utf-8") as file:
        parts = re.split(r"(?m)^-- (q\d+)\n", file.read())
    return dict(zip(parts[1::2], (query.strip() for query in parts[2::2])))


class Tap:
    def __init__(self):
        self.count, self.failed = 0, 0

    def report(self, passed, name, details=()):
        self.count += 1
        self.failed += not passed
        print(f"{'' if passed else 'not '}ok {self.count} - {name}")
        for line in details:
            print("#   " + str(line)[:400])


class Test:
    def __init__(self, database):
        self.database = database
        self.tap = Tap()
        self.views = {}             # name: (query, is it incremental)
        self.reasons = {}
        self.recomputed = collections.Counter()     # refreshes, by view and reason
        self.contents = {}          # name: rows, when last seen
        self.unchanged = set()      # views that no round has changed as yet
        admin = Connection("postgres")
        admin.query(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        admin.query(f"CREATE DATABASE {database}")
        admin.query(f"ALTER DATABASE {database} SET jit = off")
        admin.close()
        self.connection = Connection(database, "tpch")

    def run(self):
        generator = Generator(3)
        self.connection.query("CREATE EXTENSION pg_medallion")
        self.connection.query(SCHEMA)
        for table, rows in generator.tables(ORDERS).items():
            self.connection.query(insert(table, rows))
        self.connection.query("ANALYZE")
        for name, query in queries().items():
            self.create(name, query)
        for number in range(ROUNDS):
            for statement in generator.changes(number):
                self.connection.query(statement)
            for name in self.views:
                self.refresh(number, name)
        self.tap.report(not self.unchanged, "each view was changed by some round", sorted(self.unchanged))
        incremental = sum(is_incremental for _, is_incremental in self.views.values())
        self.tap.report(incremental >= INCREMENTAL_GOAL, f"{INCREMENTAL_GOAL} or more queries are incremental")
        # prove shows what goes to standard error
        print(f"tpch: {incremental} of {len(self.views)} queries are incremental", file=sys.stderr)
        for (name, reason), times in self.recomputed.items():
            print(f"  {name} was recomputed in {times} of {ROUNDS} rounds: {reason}", file=sys.stderr)
        for name, reason in self.reasons.items():
            print(f"  {name} is full: {reason}", file=sys.stderr)
        print(f"1..{self.tap.count}")

    def create(self, name, query):
        """A query that finds no row would prove little."""
        found = self.connection.query(f"SELECT count(*), count(d) FROM ({query}) d (c1)")[0]
        is_incremental = self.create_in_mode(name, query, "incremental")
        if not is_incremental:
            self.create_in_mode(name, query, "auto")
        self.views[name] = (query, is_incremental)
        explained = self.connection.query(f"SELECT strategy, detail FROM medallion.explain_refresh({literal(name)})")[0]
        if not is_incremental:
            self.reasons[name] = explained[1]
        self.contents[name] = self.rows(name)
        self.unchanged.add(name)
        has_rows = int(found[0]) > 0 and any(value is not None for value in self.contents[name][0])
        self.tap.report(has_rows, f"{name} is {explained[0]} and finds {found[0]} rows")

    def create_in_mode(self, name, query, mode):
        try:
            self.connection.query(f"SELECT medallion.create_materialized_view({literal(name)}, {literal(query)}, NULL,"
                                  f" {literal(mode)})")
            return True
        except PgError as error:
            if error.message != "query cannot be refreshed incrementally":
                raise
            return False

    def rows(self, name):
        return sorted(self.connection.query(f"TABLE {name}"), key=str)

    def refresh(self, number, name):
        query, is_incremental = self.views[name]
        try:
            strategy, reason = self.connection.query(
                f"SELECT strategy, reason FROM medallion.refresh({literal(name)})")[0]
            differences = self.connection.query(
                f"SELECT 'extra', * FROM (TABLE {name} EXCEPT ALL ({query})) d"
                f" UNION ALL SELECT 'missing', * FROM (({query}) EXCEPT ALL TABLE {name}) d")
            differences += self.connection.query(f"SELECT * FROM medallion.verify({literal(name)})")
        except PgError as error:
            self.tap.report(False, f"round {number + 1}, {name}", [error, error.context])
            return
        rows = self.rows(name)
        if rows != self.contents[name]:
            self.unchanged.discard(name)
            self.contents[name] = rows
        if is_incremental and strategy == "full":
            self.recomputed[name, reason] += 1
            if reason != ALL_ROWS and not TOO_FEW.fullmatch(reason):
                differences.append(f"recomputed: {reason}")
        self.tap.report(not differences, f"round {number + 1}, {name}: {strategy}", differences[:8])


def main():
    test = Test("tpch")
    test.run()
    sys.exit(1 if test.tap.failed else 0)


if __name__ == "__main__":
    main()
