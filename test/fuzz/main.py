"""The command behind test/fuzz_refresh."""

import argparse
import glob
import multiprocessing
import os
import random
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TREE, "test/lib"))

from case import CaseMaker                                  # pylint: disable=wrong-import-position
from postgres_wire import Connection, ConnectionLost, PgError
from reduce_case import reduce_case, script
from run_case import Runner, Statistics

QUERIES_PER_ROUND = 12
SLOW_SHARE = 0.002          # of views whose refresh takes too long although their query does not; likewise
LEFT_OUT_SHARE = 0.03       # of views whose query fails or takes too long later on; with more, the run has failed


def prelude():
    """make_stream(), ingest() and the like, as the SQL tests have them."""
    with open(os.path.join(TREE, "sql/include/simulate_ingest.sql"), encoding="utf-8") as file:
        statements = file.read()
    return re.sub(r"(?m)^(\\.*|SET .*|CREATE SCHEMA .*)$", "", statements)


def debug_points():
    """The points of refreshes and of redefinitions, as the sources have them."""
    names = set()
    for path in glob.glob(os.path.join(TREE, "src", "*.c")):
        with open(path, encoding="utf-8") as file:
            names |= set(re.findall(r'MD_DEBUG_POINT\("((?:refresh|redefine)-[a-z-]+)"\)', file.read()))
    names = sorted(names - {"refresh-committed"})
    return {kind: [name for name in names if name.startswith(kind)] for kind in ("refresh", "redefine")}


def arguments():
    parser = argparse.ArgumentParser(prog="test/fuzz_refresh", description="Random queries, refreshed and compared.")
    parser.add_argument("--queries", type=int, default=2000, help="how many queries (default 2000)")
    parser.add_argument("--hours", type=float, help="go on for so long instead")
    parser.add_argument("--seed", type=int, help="of the first round; the others follow (default: random)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="rounds at a time (default: one per core)")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many (default 5)")
    parser.add_argument("--crash-share", type=float, default=0.05, help="share of rounds that crash the server")
    parser.add_argument("--only-streams", action="store_true", help="no ordinary tables, so nothing but new rows")
    parser.add_argument("--no-reduce", action="store_true", help="print failing cases as they are")
    parser.add_argument("--output", help="directory for failing cases; standard output otherwise")
    return parser.parse_args()


def make_database(name):
    connection = Connection("postgres")
    connection.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    connection.query(f"CREATE DATABASE {name}")
    # six joins of tables without statistics look dear enough to be compiled
    connection.query(f"ALTER DATABASE {name} SET jit = off")
    connection.close()
    connection = Connection(name)
    connection.query("CREATE EXTENSION pg_medallion")
    connection.close()


def drop_database(name):
    connection = Connection("postgres")
    connection.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    connection.close()


class Worker:
    """Runs rounds in a database of its own."""

    def __init__(self, number, options):
        self.database = f"fuzz_{number}"
        self.options = options
        self.points = debug_points()
        make_database(self.database)

    def fresh_runner(self):
        return Runner(self.database, prelude())

    def make_case(self, seed, with_crash):
        return CaseMaker(seed, self.points, QUERIES_PER_ROUND, with_crash, self.options.only_streams).make()

    def run_round(self, seed, with_crash):
        """(Failure or None, printed case or None, statistics); ConnectionLost if the server went away."""
        runner = self.fresh_runner()
        case = self.make_case(seed, with_crash)
        try:
            failure = runner.run(case)
            text = None
            if failure is not None:
                text = self.report(case, failure)
            return failure, text, runner.statistics
        finally:
            runner.close()

    def report(self, case, failure):
        if not self.options.no_reduce:
            runner = self.fresh_runner()
            try:
                case, failure = reduce_case(case, failure, runner.run)
            except ConnectionLost:
                pass
            finally:
                runner.close()
        return script(case, failure, prelude())


def work(number, options, seeds, results, stop):
    try:
        worker = Worker(number, options)
        while not stop.is_set():
            seed = seeds.get()
            if seed is None:
                break
            try:
                failure, text, statistics = worker.run_round(seed, False)
                results.put((seed, failure and (failure.kind, failure.view, failure.detail), text, statistics))
            except ConnectionLost as error:
                results.put((seed, ("lost", "-", str(error)), None, None))
                wait_for_server()
    except KeyboardInterrupt:
        pass
    except Exception as error:      # pylint: disable=broad-except
        results.put((None, ("fuzzer", "-", f"{type(error).__name__}: {error}"), None, None))
        raise
    finally:
        results.put(None)


def wait_for_server():
    for _ in range(600):
        try:
            Connection("postgres").close()
            return
        except (ConnectionLost, PgError):
            time.sleep(0.1)


class Run:
    def __init__(self, options):
        self.options = options
        self.seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10 ** 9)
        self.statistics = Statistics()
        self.failures, self.lost, self.rounds = 0, [], 0
        self.started = time.monotonic()

    def print_failure(self, seed, failure, text):
        self.failures += 1
        kind, view, detail = failure
        print(f"\nseed {seed} failed: {kind}: {view}: {detail[:1500]}", flush=True)
        if text and self.options.output:
            path = os.path.join(self.options.output, f"seed_{seed}.sql")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            print(f"  see {path}", flush=True)
        elif text:
            print(text, flush=True)

    def enough(self):
        if self.failures >= self.options.failures:
            return True
        if self.options.hours:
            return time.monotonic() - self.started > self.options.hours * 3600
        return sum(self.statistics.plans.values()) >= self.options.queries

    def parallel_rounds(self):
        seeds, results = multiprocessing.Queue(), multiprocessing.Queue()
        stop = multiprocessing.Event()
        jobs = [multiprocessing.Process(target=work, args=(i, self.options, seeds, results, stop))
                for i in range(max(self.options.jobs, 1))]
        for job in jobs:
            job.start()
        next_seed, running = self.seed, len(jobs)
        for _ in range(2 * len(jobs)):
            seeds.put(next_seed)
            next_seed += 1
        while running > 0:
            result = results.get()
            if result is None:
                running -= 1
                continue
            self.take(result)
            if self.enough():
                stop.set()
                seeds.put(None)
            else:
                seeds.put(next_seed)
                next_seed += 1
        for job in jobs:
            seeds.cancel_join_thread()
            job.join()
        return next_seed

    def take(self, result):
        seed, failure, text, statistics = result
        self.rounds += 1
        if statistics:
            self.statistics.add(statistics)
        if failure and failure[0] == "lost" and seed is not None:
            self.lost.append(seed)
        elif failure:
            self.print_failure(seed, failure, text)

    def serial_rounds(self, next_seed):
        """Rounds that crash the server on purpose, and those that a crash took with it."""
        crashes = max(1, round(self.rounds * self.options.crash_share)) if self.options.crash_share > 0 else 0
        worker = Worker("alone", self.options)
        for seed, with_crash in [(s, False) for s in self.lost] + [(next_seed + i, True) for i in range(crashes)]:
            if self.failures >= self.options.failures:
                break
            try:
                failure, text, statistics = worker.run_round(seed, with_crash)
                self.take((seed, failure and (failure.kind, failure.view, failure.detail), text, statistics))
            except ConnectionLost as error:
                wait_for_server()
                case = worker.make_case(seed, with_crash)
                self.print_failure(seed, ("crash", "-", f"the server went away: {error}"),
                                   script(case, Unreduced(str(error)), prelude()))

    def leaves_out_too_many(self):
        total, left_out = (sum(c.values()) for c in (self.statistics.plans, self.statistics.left_out))
        return left_out > max(LEFT_OUT_SHARE * total, QUERIES_PER_ROUND) or \
            self.statistics.slow > max(SLOW_SHARE * total, 1)

    def print_summary(self):
        plans, total = self.statistics.plans, sum(self.statistics.plans.values())
        incremental = total - plans["full"]
        print_counter("recomputed although incremental", self.statistics.recomputed)
        print_counter("refused once, with a reason that the documents name", self.statistics.refused)
        print_counter("redefined", self.statistics.redefined)
        print_counter("only full", self.statistics.full_reasons)
        print_counter("no query", self.statistics.invalid)
        print_counter("left out later", self.statistics.left_out)
        if self.statistics.retried:
            print(f"too slow without statistics, and in time with them: {self.statistics.retried}")
        print(f"refreshes: {counter_line(self.statistics.runs)}; late rows: {self.statistics.late}")
        print(f"plans: {counter_line(plans)}; incremental {percent(incremental, total)}")
        print(f"fuzz: {total} queries in {self.rounds} rounds from seed {self.seed}, {self.statistics.compared} comparisons,"
              f" {self.failures} failures, {time.monotonic() - self.started:.0f} s", flush=True)


class Unreduced:
    kind, view = "crash", "-"

    def __init__(self, detail):
        self.detail = detail


def percent(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "-"


def counter_line(counter):
    total = sum(counter.values())
    return ", ".join(f"{name} {n} ({percent(n, total)})" for name, n in counter.most_common()) or "none"


def print_counter(title, counter):
    if counter:
        print(f"{title}:")
        for name, n in counter.most_common(12):
            print(f"  {n:6} {name}")


def main():
    options = arguments()
    run = Run(options)
    print(f"seed {run.seed}", flush=True)
    next_seed = run.parallel_rounds()
    if run.failures < options.failures:
        run.serial_rounds(next_seed)
    run.print_summary()
    for name in [f"fuzz_{i}" for i in range(max(options.jobs, 1))] + ["fuzz_alone"]:
        drop_database(name)
    if run.leaves_out_too_many():
        print(f"more than {percent(LEFT_OUT_SHARE, 1)} of the views were left out", flush=True)
        run.failures += 1
    sys.exit(1 if run.failures or not run.statistics.compared else 0)


if __name__ == "__main__":
    main()
