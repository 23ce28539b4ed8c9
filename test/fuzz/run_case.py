"""Runs a case against a server, and judges it.

After each refresh the view must equal its query, by a comparison of our own
and by medallion.verify(). A view created with refresh_mode incremental must
never be refused later, but for what the documents name: a source that was
truncated, rewritten, redefined or whose partitions changed needs one recompute.

A view whose query itself fails, or takes too long as tables grow, is left out
from then on, as is one whose refresh takes too long. Such views are counted, and
a run fails that has many of them: how long something takes depends on the
machine, and a single one tells nothing.
"""

import collections
import decimal
import json
import re
import select
import time

from postgres_wire import Connection, ConnectionLost, PgError, literal

from case import PLANNER

SCHEMA = "fuzz"
WAIT_SECONDS = 60
QUERY_SECONDS = 2           # a query that takes longer is left out, and counted
REFRESH_SECONDS = 20        # a refresh or verify() that takes longer, with statistics of the tables, is slow
TIMEOUT = "57014"
ABORTED = "25P02"           # the transaction around it has failed before

# Errors of a query itself, not of its refresh.
QUERY_ERRORS = ("21000", "22003", "22012", "22P02", "2201W", TIMEOUT)

LOCK_TIMEOUT = "55P03"
OUTDATED = "40001"          # the snapshot of a transaction is older than a change

UNKNOWN = "cannot tell what"     # a source was when it was last read

# Of a new query: a column that others use would go, or have another type; or one would move.
COLUMN_ERRORS = ("2BP01", "42P16")
# A condition, or a cast, that a column does not fit as it is now.
MISFITS = ("22007", "22023", "22P02", "42703", "42704", "42725", "42804", "42846", "42883")


class Failure(Exception):
    def __init__(self, kind, view, detail):
        self.kind, self.view, self.detail = kind, view, detail
        super().__init__(f"{kind}: {view}: {detail}")

    def signature(self):
        """What must stay the same while the case is reduced."""
        error = re.search(r"\b[0-9A-Z]{5}: [^\":]*", self.detail) if self.kind in ("error", "create") else None
        return self.kind, error.group(0)[:60] if error else ""


class Statistics:
    def __init__(self):
        self.plans = collections.Counter()      # views by strategy of their plan
        self.runs = collections.Counter()       # refreshes by what they did
        self.recomputed = collections.Counter()  # reasons of views with an incremental plan
        self.full_reasons = collections.Counter()
        self.refused = collections.Counter()    # once, and rightly
        self.redefined = collections.Counter()  # new queries of views, by what became of them
        self.invalid = collections.Counter()    # queries that are none
        self.left_out = collections.Counter()   # views no longer compared, by what their query does
        self.compared = 0
        self.late = 0                           # late rows of streaming tables, rolled back ones too
        self.retried = 0                        # refreshes and verify()s that needed statistics to end in time
        self.slow = 0                           # and those that took too long even so

    def add(self, other):
        for name, value in vars(other).items():
            if isinstance(value, collections.Counter):
                getattr(self, name).update(value)
        self.compared += other.compared
        self.late += other.late
        self.retried += other.retried
        self.slow += other.slow


class Runner:
    def __init__(self, database, prelude):
        self.database = database
        self.prelude = prelude          # SQL that makes make_stream() and ingest()
        self.sessions = {}
        self.statistics = Statistics()

    # -- sessions

    def session(self, name="main"):
        if name not in self.sessions:
            connection = Connection(self.database, f"fuzz {name}")
            connection.query(f"SET search_path = {SCHEMA}, public; SET lock_timeout = '20s'; SET statement_timeout = '{REFRESH_SECONDS}s';"
                             " SET client_min_messages = error; SET extra_float_digits = 1")
            self.sessions[name] = connection
        return self.sessions[name]

    def query(self, sql, session="main"):
        return self.session(session).query(sql)

    def close(self):
        for connection in self.sessions.values():
            connection.close()
        self.sessions = {}

    def reconnect(self):
        """After a crash: all sessions anew, once the server has noticed, ended and come up again."""
        try:
            while True:
                self.query(f"SELECT pg_sleep({REFRESH_SECONDS / 2})")
        except ConnectionLost:
            self.close()
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self.session()
                return
            except ConnectionLost:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # -- a case

    def run(self, case):
        """Failure or None."""
        self.case = case
        self.views = {}
        self.out = {}           # views that are left out: why
        self.marked = collections.defaultdict(set)      # view: sources with a reason to recompute
        try:
            try:
                self.set_up(case)
            except PgError as error:
                raise Failure("setup", "-", describe(error)) from error
            for step in case.steps:
                if step.view is None or step.kind in ("race", "redefine") or step.view in self.views:
                    getattr(self, "step_" + step.kind)(step)
            return None
        except Failure as failure:
            return failure
        finally:
            self.clean_up()

    def clean_up(self):
        for connection in self.sessions.values():
            if connection.busy:
                self.close()
                break
        try:
            for name in list(self.sessions):
                self.query("ROLLBACK", name)
            for (gid,) in self.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                self.query(f"ROLLBACK PREPARED {literal(gid)}")
            self.query(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        except (ConnectionLost, PgError):
            self.close()

    def set_up(self, case):
        self.query(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
        for setting in re.findall(r"([\w.]+) =", "; ".join(PLANNER)):
            self.query("RESET " + setting)
        self.query(self.prelude)
        for statement in case.setup:
            self.query(statement)
        for step in case.initial:
            self.step_sql(step)
        for view in case.views:
            self.create(view)

    def create(self, view):
        """Make a view incremental if it can be; leave out what is no query."""
        sql = view.sql()
        for name in self.case.sources_of(view.name) & set(self.out):
            self.count_left_out(self.out[name], False)
            return
        try:
            self.try_query(view)
        except PgError as error:
            self.statistics.invalid[f"{error.sqlstate} {error.message[:60]}"] += 1
            return
        if view.plain:
            self.query(f"CREATE VIEW {view.name} AS {sql}")
            return
        try:
            incremental = self.once_more_analyzed(view, lambda: self.create_in_mode(view, sql, "incremental"))
            made = incremental or self.once_more_analyzed(view, lambda: self.create_in_mode(view, sql, "auto"))
        except PgError as error:
            if self.case.sources_of(view.name) & set(self.out):
                return
            raise Failure("create", view.name, describe(error)) from error
        if not made:
            raise Failure("create", view.name, "refused in mode auto")
        self.views[view.name] = view
        view.incremental = incremental
        plan, reason = self.explain(view)
        if incremental and plan == "full":
            raise Failure("create", view.name, f"mode incremental accepted a plan that is full: {reason}")
        self.statistics.plans[plan] += 1
        if not incremental:
            self.statistics.full_reasons[re.sub(r"\d+|\b[a-z]+\.[a-z0-9]+\b", "*", reason or "?")[:90]] += 1
        self.check(view, "created")

    def try_query(self, view):
        """Run a view's query by itself; an error if it is none, or takes long."""
        return self.query_in_time(self.query_at(view))

    def query_in_time(self, sql):
        self.query(f"SET statement_timeout = '{QUERY_SECONDS}s'")
        try:
            return self.query(sql)
        finally:
            try:
                self.query(f"SET statement_timeout = '{REFRESH_SECONDS}s'")
            except PgError:
                pass            # a transaction has failed; its end takes the setting back

    def once_more_analyzed(self, view, run):
        """
        What run() gives. Where it takes too long, the query itself may, and is left out with the view; else the
        planner is told about the tables, and if it takes that long again, the view is left out as slow.
        """
        try:
            return run()
        except PgError as error:
            if error.sqlstate != TIMEOUT:
                raise
            for below in [v for v in self.case.views if v.name in self.views and v.name in self.case.sources_of(view.name)]:
                # it may be refreshed together with those that it reads
                try:
                    self.try_query(below)
                except PgError as own:
                    if own.sqlstate == TIMEOUT:
                        self.leave_out(below, own)
                    raise (own if own.sqlstate == ABORTED else error) from own
            self.analyze()
            self.statistics.retried += 1
            try:
                return run()
            except PgError as again:
                if again.sqlstate == TIMEOUT:
                    self.leave_out_slow(view)
                raise

    def analyze(self):
        """Let the planner know how large tables and results have become."""
        for table in self.case.tables:
            self.query(f"ANALYZE {table.name}")
        for name in self.views:
            self.query(f"ANALYZE {name}")

    def leave_out(self, view, error):
        """The query itself fails or takes long by now."""
        self.leave_out_because(view, f"takes longer than {QUERY_SECONDS} s" if error.sqlstate == TIMEOUT else
                               f"fails: {error.sqlstate} {error.message[:60]}")

    def leave_out_slow(self, view):
        self.statistics.slow += 1
        self.leave_out_because(view, f"is refreshed in more than {REFRESH_SECONDS} s")

    def leave_out_because(self, view, what):
        """No more of this view, and of what reads it."""
        gone = [name for name in self.views if view.name in self.case.sources_of(name)]
        for name in gone:
            self.count_left_out(what, name == view.name)
            del self.views[name]
        self.out[view.name] = what

    def count_left_out(self, what, itself):
        self.statistics.left_out[what if itself else "reads one that " + what] += 1

    def create_in_mode(self, view, sql, mode):
        try:
            self.query(f"SELECT medallion.create_materialized_view({literal(view.name)}, {literal(sql)},"
                       f" NULL, {literal(mode)})")
            return True
        except PgError as error:
            if error.sqlstate == "0A000" and error.message == "query cannot be refreshed incrementally":
                return False
            if error.sqlstate == TIMEOUT:
                raise
            raise Failure("create", view.name, describe(error)) from error

    def explain(self, view):
        try:
            rows = self.query(f"SELECT strategy, detail FROM medallion.explain_refresh({literal(view.name)})")
        except PgError as error:
            raise Failure("error", view.name, "explain_refresh: " + describe(error)) from error
        return rows[0]

    # -- steps

    def step_sql(self, step, tolerated=()):
        """A change; one that violates a constraint changes nothing, which is as good."""
        try:
            rows = self.query(step.sql(), step.session)
            if step.head.startswith("SELECT requeue("):
                self.statistics.late += int(rows[0][0])
        except PgError as error:
            if error.sqlstate in tolerated:
                return
            if error.sqlstate[:2] in ("55", "57", "XX") or "medallion" in error.context:
                raise Failure("error", "-", f"{step.sql()[:200]}: {describe(error)}") from error
            if step.session == "main" and step.head.startswith("BEGIN;"):
                self.query("ROLLBACK")
        self.mark(step.marks)

    def mark(self, tables):
        for view in self.views:
            self.marked[view] |= set(tables) & self.case.sources_of(view)

    def step_refresh(self, step):
        view = self.views[step.view]
        try:
            strategy, reason, written = self.refresh(view)
        except PgError as error:
            if error.sqlstate == ABORTED or not self.refused(view, error):
                return              # the transaction around it has failed before, or the query itself fails
            row = self.recompute(view)
            if row is None:
                return
            strategy, reason, written = row
        self.marked[view.name].clear()
        self.count(view, strategy, reason)
        self.check(view, strategy)
        if view.name in self.views and strategy != "none" and not view.uses_time:
            self.check_quiet(view)

    def recompute(self, view, attempts=5):
        """
        A full refresh; views that are refreshed together with this one may need it, too. None in a transaction
        that the refusal has ended.
        """
        while True:
            try:
                row = self.refresh(view, ", full_refresh => true")
                self.mark([view.name])
                return row
            except PgError as error:
                if error.sqlstate == ABORTED or view.name not in self.views:
                    return None
                other = re.search(r'materialized view "(\w+)" incrementally', error.message)
                if not other or other.group(1) == view.name or attempts == 0:
                    raise Failure("error", view.name, "full refresh: " + describe(error)) from error
                if self.refused(self.views[other.group(1)], error):
                    self.recompute(self.views[other.group(1)], attempts - 1)
                attempts -= 1

    def refused(self, view, error):
        """
        Has an incremental refresh failed for a reason that the documents name? False if the query itself fails;
        then the view is left out from now on, as it is if its refresh takes too long.
        """
        if error.sqlstate == TIMEOUT:
            if view.name in self.views:
                self.leave_out_slow(view)
            return False
        other = re.search(r'materialized view "(\w+)" incrementally', error.message)
        if other and other.group(1) != view.name:
            # one that is refreshed together with this one
            self.refused(self.views[other.group(1)], error)
            self.recompute(self.views[other.group(1)])
            return True
        if not other:
            try:
                self.try_query(view)
            except PgError as own:
                if own.sqlstate in (error.sqlstate, TIMEOUT):
                    self.leave_out(view, own)
                    return False
            raise Failure("error", view.name, describe(error)) from error
        if not self.marked[view.name]:
            raise Failure("refused", view.name, describe(error)) from error
        self.statistics.refused[re.sub(r"\b[a-z]+\.[a-z0-9_]+\b", "*", error.detail)[:100]] += 1
        return True

    def refresh(self, view, arguments=""):
        sql = "SELECT strategy, reason, rows_inserted + rows_updated + rows_deleted" \
              f" FROM medallion.refresh({literal(view.name)}{arguments})"
        return self.once_more_analyzed(view, lambda: self.query(sql))[0]

    def count(self, view, strategy, reason):
        self.statistics.runs[strategy] += 1
        if strategy == "full" and view.incremental:
            self.statistics.recomputed[re.sub(r"\b[a-z]+\.[a-z0-9_]+\b|\d+", "*", reason or "?")[:100]] += 1

    def step_full(self, step):
        try:
            self.recompute(self.views[step.view])
        except Failure:
            try:
                self.try_query(self.views[step.view])
            except PgError as error:
                self.leave_out(self.views[step.view], error)
                return
            raise

    def step_hold(self, step):
        """Stop a refresh at a point, change something, and let it go on."""
        view = self.views[step.view]
        if not self.hold(view, step.point, f"SELECT medallion.refresh({literal(view.name)})"):
            self.finish_other(view, ())
            return
        try:
            for change in step.inner:
                self.step_sql(change)
        finally:
            self.query("SELECT pg_advisory_unlock_all()", "holder")
        self.finish_other(view, ())
        if view.incremental and view.name in self.views:
            # others read sources as they are now; and it may have been refused
            self.check_verify_if_known(view, f"refreshed beside writes at {step.point}")

    def step_cancel(self, step):
        view = self.views[step.view]
        if not self.hold(view, step.point, f"SELECT medallion.refresh({literal(view.name)})"):
            self.finish_other(view, ())
            return
        self.cancel_other()
        self.finish_other(view, ("57014",))
        self.query("SELECT pg_advisory_unlock_all()", "holder")

    def cancel_other(self):
        self.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'fuzz other'"
                   " AND datname = current_database()", "holder")

    def hold(self, view, point, sql):
        """Let a session run a statement into a point; False, and nothing is held, if it ends before."""
        self.query(f"SELECT pg_advisory_lock(1296319556, medallion.debug_point_id({literal(point)}))", "holder")
        other = self.session("other")
        other.query(f"SET medallion.debug_points = {literal(point)}")
        other.send(sql)
        deadline = time.monotonic() + WAIT_SECONDS
        while not select.select([other.socket], [], [], 0.002)[0]:
            if self.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 1296319556"
                          " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", "holder"):
                return True
            if time.monotonic() > deadline:
                raise Failure("blocked", view.name, f"never reached {point} and never ended")
        self.query("SELECT pg_advisory_unlock_all()", "holder")
        return False

    def finish_other(self, view, expected):
        try:
            self.session("other").finish()
            self.marked[view.name].clear()
        except PgError as error:
            if error.sqlstate not in expected:
                self.refused(view, error)

    def step_crash(self, step):
        """The server loses a backend in the middle of a refresh, and recovers."""
        try:
            self.query(f"SET medallion.debug_points = {literal(step.point + '!')}", "other")
            self.query(f"SELECT medallion.refresh({literal(step.view)})", "other")
            self.query("SET medallion.debug_points = ''", "other")
        except ConnectionLost:
            self.reconnect()
        except PgError as error:
            self.refused(self.views[step.view], error)

    def step_race(self, step):
        """Refreshes while another session writes and commits."""
        writer = self.session(step.session)
        writer.send(step.head)
        self.mark(step.marks)
        for name in step.view.split(","):
            if name in self.views:
                view = self.views[name]
                try:
                    self.refresh(view)
                except PgError as error:
                    self.refused(view, error)
        try:
            writer.finish()
        except PgError as error:
            if error.sqlstate[:2] in ("40", "55", "57", "XX") or "medallion" in error.context:
                raise Failure("error", "-", f"{step.head}: {describe(error)}") from error
        self.mark(step.marks)
        self.analyze()

    def step_part(self, step):
        """Rows of the result are computed again as of the last refresh: they stay as they are, and what is kept for them."""
        view = self.views[step.view]
        try:
            written = self.refresh(view, f", only_where => {literal(step.head)}")[2]
        except PgError as error:
            # the result shows too few columns, or others than it did, or what the sources were is not known
            if error.sqlstate not in MISFITS + ("0A000",) and not self.marked[view.name] and \
                    (view.incremental or UNKNOWN not in error.message):
                self.refused(view, error)
            return
        if not view.incremental or view.loose or not self.check_verify_if_known(view, f"refreshed where {step.head}"):
            return
        if int(written or 0) > 0 and "double precision" not in self.column_types(view.name):
            raise Failure("writes", view.name, f"a refresh where {step.head} wrote {written} rows")

    def step_outdated(self, step):
        """A refresh in a transaction whose snapshot is older than changes: right, or an error."""
        view = self.views[step.view]
        self.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
        try:
            for change in step.inner:
                self.step_sql(change.with_parts(session="other"))
            self.query(f"SELECT medallion.refresh({literal(view.name)})")
        except PgError as error:
            self.query("ROLLBACK")
            if error.sqlstate != OUTDATED:
                self.refused(view, error)
            return
        self.query("COMMIT")
        if view.incremental:
            self.check_verify_if_known(view, "refreshed under an old snapshot")

    # -- new queries

    def step_columns(self, step):
        """Columns of a source change. A view that has lost its query has done so rightly, and is given it again."""
        self.step_sql(step)
        lost = {name for (name,) in self.query("SELECT relid::regclass::text FROM medallion.view WHERE definition IS NULL")}
        for view in [v for v in self.case.views if v.name in lost]:
            if view.name not in self.views:
                continue
            if self.query_fits(view):
                raise Failure("lost", view.name, f"has lost its query, which fits: {step.sql()}")
            try:
                self.alter(view)
            except PgError as error:
                if error.sqlstate not in COLUMN_ERRORS + MISFITS:
                    raise Failure("error", view.name, "given its query again: " + describe(error)) from error
                self.leave_out_because(view, f"has lost its query: {error.sqlstate}")
                continue
            self.mark([view.name])
            self.check(view, "given its query again")

    def query_fits(self, view):
        """Does the query give columns of the types that the view has?"""
        try:
            self.query(f"CREATE TEMP VIEW fitting AS {view.sql()}")
        except PgError:
            return False
        fits = self.column_types("fitting") == self.column_types(view.name)
        self.query("DROP VIEW fitting")
        return fits

    def step_redefine(self, step):
        """A view gets another query; or is refused it because of its columns, and stays as it is."""
        old, new = next((v for v in self.case.views if v.name == step.view), None), step.new
        if old is None or (not old.plain and old.name not in self.views) or \
                self.case.with_view(new).sources_of(new.name) & set(self.out):
            return
        try:
            self.query_in_time(new.sql())
        except PgError as error:
            self.statistics.invalid[f"{error.sqlstate} {error.message[:60]}"] += 1
            return
        if not self.give_query(step, old, new) and len(new.columns) >= len(old.columns):
            # as what others read
            self.give_query(step, old, new.shown_as(self.column_names(old.name), self.column_types(old.name)))

    def give_query(self, step, old, new):
        """False: its columns do not fit."""
        step.given = new
        try:
            getattr(self, "redefine_" + step.how)(step, new)
            return True
        except PgError as error:
            if error.sqlstate in COLUMN_ERRORS + MISFITS:
                what = "its columns do not fit"
            elif error.sqlstate == LOCK_TIMEOUT and (step.how == "held" or self.has_open_transaction()):
                what = "a source is locked"
            elif error.sqlstate == TIMEOUT:
                self.statistics.slow += 1
                what = "takes too long"
            else:
                raise Failure("error", new.name, f"redefined: {describe(error)}") from error
            self.statistics.redefined[f"{step.how}: {what}"] += 1
            return error.sqlstate not in COLUMN_ERRORS

    def has_open_transaction(self):
        return bool(self.query("SELECT FROM pg_stat_activity WHERE application_name = 'fuzz writer' AND xact_start IS NOT NULL"
                               " AND datname = current_database()", "holder"))

    def alter(self, view, attempts=5):
        """Give a view its query: as incremental if it can be, and with those refreshed that it reads."""
        mode = "incremental"
        self.query("SET lock_timeout = '1s'")
        try:
            while True:
                try:
                    self.query(alter_statement(view, mode))
                    view.incremental = mode == "incremental"
                    return
                except PgError as error:
                    other = re.search(r'materialized view "(\w+)" incrementally', error.message)
                    if error.sqlstate == "0A000" and error.message == "query cannot be refreshed incrementally" and \
                            mode == "incremental":
                        mode = "auto"
                    elif other and other.group(1) in self.views and other.group(1) != view.name and attempts > 0:
                        attempts -= 1
                        if self.refused(self.views[other.group(1)], error):
                            self.recompute(self.views[other.group(1)])
                    else:
                        raise
        finally:
            try:
                self.query("SET lock_timeout = '20s'")
            except PgError:
                pass            # a transaction has failed

    def alter_elsewhere(self, view):
        """Statement for another session, which is not tried again."""
        plan = self.query(f"SELECT strategy FROM medallion.explain_refresh({literal(view.sql())})")[0][0]
        view.incremental = plan != "full"
        return alter_statement(view, "incremental" if view.incremental else "auto")

    def adopt(self, new, how):
        """A view has another query."""
        # those above it may have to start anew
        self.mark([new.name])
        self.case = self.case.with_view(new)
        self.mark([new.name])
        self.statistics.redefined[how] += 1
        if new.plain:
            return
        self.views[new.name] = new
        self.marked[new.name].clear()
        plan, reason = self.explain(new)
        if new.incremental and plan == "full":
            raise Failure("create", new.name, f"redefined in mode incremental, with a plan that is full: {reason}")
        self.statistics.plans[plan] += 1

    def redefine_plain(self, step, new):
        if new.plain:
            self.query(f"CREATE OR REPLACE VIEW {new.name} AS {new.sql()}")
            self.adopt(new, "a plain view")
            return
        self.alter(new)
        self.adopt(new, "plain")
        self.check(new, "redefined")

    def redefine_held(self, step, new):
        """Others write meanwhile."""
        if self.hold(new, step.point, self.alter_elsewhere(new)):
            self.query("SET lock_timeout = '200ms'")
            try:
                for change in step.inner:
                    # sources are locked while their capture is set up
                    self.step_sql(change, (LOCK_TIMEOUT,))
            finally:
                self.query("SELECT pg_advisory_unlock_all()", "holder")
                self.query("SET lock_timeout = '20s'")
        self.finish_redefinition(new, "held")

    def finish_redefinition(self, new, how):
        try:
            self.session("other").finish()
        except PgError as error:
            other = re.search(r'materialized view "(\w+)" incrementally', error.message)
            if other and self.marked[other.group(1)]:
                self.statistics.redefined[how + ": something below needs a recompute"] += 1
                return
            raise
        self.adopt(new, how)
        if new.incremental:
            self.check_verify(new, "redefined beside writes")

    def redefine_cancelled(self, step, new):
        if not self.hold(new, step.point, self.alter_elsewhere(new)):
            self.finish_redefinition(new, "held")
            return
        self.cancel_other()
        try:
            self.session("other").finish()
        except PgError as error:
            if error.sqlstate != TIMEOUT:
                raise
        finally:
            self.query("SELECT pg_advisory_unlock_all()", "holder")
        self.statistics.redefined["cancelled"] += 1

    def redefine_killed(self, step, new):
        """The server loses the backend, and recovers."""
        try:
            self.query(f"SET medallion.debug_points = {literal(step.point + '!')}", "other")
            self.session("other").send(self.alter_elsewhere(new))
            self.finish_redefinition(new, "ended before it was killed")
            self.query("SET medallion.debug_points = ''", "other")
        except ConnectionLost:
            self.reconnect()
            self.statistics.redefined["killed"] += 1

    def redefine_undone(self, step, new):
        """In a transaction that is rolled back."""
        self.query("BEGIN")
        try:
            for change in step.inner:
                self.step_sql(change)
            self.query(alter_statement(new, "auto"))
            self.statistics.redefined["undone"] += 1
        except PgError as error:
            if error.sqlstate != ABORTED and "incrementally" not in error.message:
                raise
        finally:
            self.query("ROLLBACK")

    # -- judgement

    def query_at(self, view):
        """The view's query at the time of its last refresh."""
        if not view.uses_time or view.name not in self.views:
            return view.sql()
        moment = self.query(f"SELECT refreshed_at FROM medallion.view_state WHERE relid = {literal(view.name)}::regclass")
        return view.sql().replace("now()", f"{literal(moment[0][0])}::timestamptz")

    def check(self, view, what):
        """The view against its query, both ways, equal rows counted."""
        self.statistics.compared += 1
        if view.loose:
            self.check_verify(view, what)
            return
        try:
            shown = self.comparable_columns(view)
            rows = self.query_in_time(f"WITH q AS MATERIALIZED (SELECT {shown} FROM ({self.query_at(view)}) q),"
                                      f" v AS MATERIALIZED (SELECT {shown} FROM {view.name})"
                                      " SELECT 'extra', * FROM (TABLE v EXCEPT ALL TABLE q) a"
                                      " UNION ALL SELECT 'missing', * FROM (TABLE q EXCEPT ALL TABLE v) b")
        except PgError as error:
            if error.sqlstate in QUERY_ERRORS:
                self.leave_out(view, error)
                return
            raise Failure("error", view.name, "comparison: " + describe(error)) from error
        if rows and not equal_but_for_rounding(rows, self.column_types(view.name)):
            listed = "; ".join(str(row) for row in sorted(rows, key=str)[:6])
            raise Failure("differs", view.name, f"{what}: {len(rows)} rows differ: {listed}")
        self.check_verify(view, what)

    def comparable_columns(self, view):
        """All columns of a view as what can be compared."""
        return ", ".join(name + "::text" if kind in ("json", "xid") else name
                         for name, kind in zip(self.column_names(view.name), self.column_types(view.name)))

    def column_names(self, name):
        return [column for (column,) in self.query("SELECT attname FROM pg_catalog.pg_attribute"
                                                   f" WHERE attrelid = {literal(name)}::regclass AND attnum > 0"
                                                   " AND NOT attisdropped ORDER BY attnum")]

    def column_types(self, name):
        """As the server has them: a reduced query has fewer columns than the grammar gave it."""
        return [kind for (kind,) in self.query("SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute"
                                               f" WHERE attrelid = {literal(name)}::regclass AND attnum > 0"
                                               " AND NOT attisdropped ORDER BY attnum")]

    def check_verify(self, view, what):
        sql = f"SELECT difference, row_data FROM medallion.verify({literal(view.name)}) LIMIT 5"
        try:
            rows = self.once_more_analyzed(view, lambda: self.query(sql))
        except PgError as error:
            if view.name not in self.views or error.sqlstate == ABORTED:
                return
            raise Failure("verify", view.name, f"{what}: verify() failed: {describe(error)}") from error
        if rows:
            raise Failure("verify", view.name, f"{what}: verify() finds {rows}")

    def check_verify_if_known(self, view, what):
        """False: what a source was at the last refresh is not known, as it may be after some changes."""
        try:
            self.check_verify(view, what)
        except Failure as failure:
            if UNKNOWN not in failure.detail or not self.marked[view.name]:
                raise
            return False
        return True

    def check_quiet(self, view):
        """A second refresh has nothing to do, and writes nothing."""
        try:
            strategy, reason, written = self.refresh(view)
        except PgError as error:
            if view.incremental and view.name in self.views and error.sqlstate != ABORTED:
                raise Failure("refused", view.name, "second refresh: " + describe(error)) from error
            return
        if strategy == "none":
            return
        if int(written or 0) > 0:
            raise Failure("writes", view.name, f"a refresh with nothing new wrote {written} rows ({strategy}, {reason})")


def alter_statement(view, mode):
    return f"SELECT medallion.alter_materialized_view({literal(view.name)}, query => {literal(view.sql())}," \
        f" refresh_mode => {literal(mode)})"


def describe(error):
    return f"{error.sqlstate}: {error.message}" + (f" DETAIL: {error.detail}" if error.detail else "") + \
        (f" CONTEXT: {error.context[:600]}" if error.context else "") + \
        (f" QUERY: {error.internal_query[:3000]}" if error.internal_query else "")


def equal_but_for_rounding(rows, types):
    """Do extra and missing rows pair up, with floats within 1e-9, and all else as equal as its type has it?"""
    if "double precision" not in types:
        return False
    extra, missing = ([[comparable(value, kind) for value, kind in zip(row[1:], types)] for row in rows if row[0] == side]
                      for side in ("extra", "missing"))
    if len(extra) != len(missing):
        return False
    for row in extra:
        match = next((m for m in missing if all(near(a, b) if kind == "double precision" else a == b
                                                for a, b, kind in zip(row, m, types))), None)
        if match is None:
            return False
        missing.remove(match)
    return True


def comparable(value, kind):
    """A value's text as something that is equal when the server says so: 1.0 and 1.00, {"a": 1} and {"a": 1.0}."""
    if kind == "numeric" and value not in (None, "NaN"):
        return decimal.Decimal(value)
    if kind == "jsonb" and value is not None:
        # a number is no boolean, and JSON's null is not NULL
        return ("jsonb", json.loads(value, parse_float=json_number, parse_int=json_number))
    return value


def json_number(text):
    return ("number", decimal.Decimal(text))


def near(a, b):
    if a is None or b is None or a == b:
        return a == b
    a, b = float(a), float(b)
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1)
