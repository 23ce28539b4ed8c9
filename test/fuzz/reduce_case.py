"""Makes a failing case small, and prints it as SQL."""

import time

from sql_tree import variants


def reduce_case(case, failure, fails, seconds=90):
    """The smallest case found that still fails the same way. fails(case): Failure or None."""
    reducer = Reducer(failure.signature(), fails, seconds)
    return reducer.reduce(case, failure)


class Reducer:
    def __init__(self, signature, fails, seconds):
        self.signature, self.fails = signature, fails
        self.deadline = time.monotonic() + seconds
        self.failure = None

    def accepts(self, case):
        if time.monotonic() > self.deadline:
            return False
        failure = self.fails(case)
        if failure is not None and failure.signature() == self.signature:
            self.failure = failure
            return True
        return False

    def reduce(self, case, failure):
        self.failure = failure
        case = self.keep_views(case)
        size = None
        while size != measure(case) and time.monotonic() < self.deadline:
            size = measure(case)
            case = self.shrink_list(case, "steps", case.steps, 0)
            case = self.shrink_list(case, "views", case.views, 1)
            case = self.shrink_rows(case)
            case = self.shrink_queries(case)
            case = self.shrink_list(case, "initial", case.initial, 0)
            case = self.shrink_list(case, "setup", case.setup, 0)
        return case, self.failure

    def keep_views(self, case):
        """Only the failing view and what it reads."""
        if self.failure.view == "-":
            return case
        needed = case.sources_of(self.failure.view, True)
        smaller = case.replaced(views=[v for v in case.views if v.name in needed],
                                steps=[s for s in case.steps if s.view is None or s.view in needed])
        return smaller if self.accepts(smaller) else case

    def shrink_list(self, case, name, elements, least):
        """Leave out elements, in ever smaller chunks."""
        size = max(len(elements) // 2, 1)
        while True:
            start = 0
            while start < len(elements) and len(elements) > least:
                smaller = elements[:start] + elements[start + size:]
                candidate = case.replaced(**{name: smaller})
                if len(smaller) >= least and self.accepts(candidate):
                    case, elements = candidate, smaller
                else:
                    start += size
            if size == 1:
                return case
            size //= 2

    def shrink_rows(self, case):
        for name in ("initial", "steps"):
            for i, step in enumerate(getattr(case, name)):
                if step.rows and len(step.rows) > 1:
                    case = self.shrink_step(case, name, i)
        return case

    def shrink_step(self, case, name, i):
        size = max(len(getattr(case, name)[i].rows) // 2, 1)
        while True:
            start = 0
            while start < len(getattr(case, name)[i].rows) and len(getattr(case, name)[i].rows) > 1:
                steps = list(getattr(case, name))
                rows = steps[i].rows[:start] + steps[i].rows[start + size:]
                steps[i] = steps[i].with_parts(rows=rows)
                candidate = case.replaced(**{name: steps})
                if rows and self.accepts(candidate):
                    case = candidate
                else:
                    start += size
            if size == 1:
                return case
            size //= 2

    def shrink_queries(self, case):
        for i in range(len(case.views)):
            case = self.shrink_query(case, lambda c, i=i: c.views[i].node, lambda c, node, i=i: c.replaced(
                views=with_element(c.views, i, c.views[i].with_node(node))))
        for i, step in enumerate(case.steps):
            if step.new is not None:
                case = self.shrink_query(case, lambda c, i=i: c.steps[i].new.node, lambda c, node, i=i: c.replaced(
                    steps=with_element(c.steps, i, c.steps[i].with_parts(new=c.steps[i].new.with_node(node)))))
        return case

    def shrink_query(self, case, get, put):
        """Make a query smaller that get(case) finds, and put(case, node) replaces."""
        progress = True
        while progress and time.monotonic() < self.deadline:
            progress = False
            for node in variants(get(case)):
                candidate = put(case, node)
                if self.accepts(candidate):
                    case, progress = candidate, True
                    break
        return case


def with_element(elements, i, element):
    return elements[:i] + [element] + elements[i + 1:]


def measure(case):
    return sum(len(s.sql()) + 1 for s in case.initial + case.steps) + sum(len(v.sql()) for v in case.views) + \
        sum(len(s.new.sql()) for s in case.steps if s.new is not None) + len(case.setup)


def script(case, failure, prelude):
    """The case as SQL for psql, to be run in an empty database with the extension."""
    lines = [f"-- seed {case.seed}: {failure.kind}, view {failure.view}"]
    lines += ["-- " + line for line in failure.detail.splitlines()]
    lines += ["CREATE SCHEMA fuzz; SET search_path = fuzz, public;"]
    if any("make_stream" in s for s in case.setup):
        lines.append(prelude.rstrip())
    lines += [s + ";" for s in case.setup] + [s.sql() + ";" for s in case.initial]
    for view in case.views:
        lines += create_lines(view)
    for step in case.steps:
        lines += step_lines(step)
    view = next((v for v in case.views if v.name == failure.view), None)
    if view:
        lines += [f"SELECT * FROM medallion.verify('{view.name}');",
                  f"TABLE {view.name} EXCEPT ALL ({view.sql()});", f"({view.sql()}) EXCEPT ALL TABLE {view.name};"]
    return "\n".join(lines) + "\n"


def create_lines(view):
    if view.plain:
        return [f"CREATE VIEW {view.name} AS {view.sql()};"]
    mode = "incremental" if getattr(view, "incremental", True) else "auto"
    return [f"SELECT medallion.create_materialized_view('{view.name}', $q$", f"  {view.sql()}", f"$q$, NULL, '{mode}');"]


def redefine_lines(step):
    # as it was run at last
    new = getattr(step, "given", step.new)
    if new.plain:
        return [f"CREATE OR REPLACE VIEW {new.name} AS {new.sql()};"]
    alter = [f"SELECT medallion.alter_materialized_view('{new.name}', $q$", f"  {new.sql()}", "$q$);"]
    inner = [change.sql() + ";" for change in step.inner]
    if step.how == "undone":
        return ["BEGIN;"] + inner + alter + ["ROLLBACK;"]
    if step.how == "plain":
        return alter
    return [f"-- in another session, {step.how} at debug point {step.point}:"] + alter + \
        (inner + ["-- the other session goes on"] if inner else [])


def step_lines(step):
    refresh = f"SELECT strategy, reason FROM medallion.refresh('{step.view}')"
    if step.kind == "sql":
        other = "" if step.session == "main" else f"-- in another session ({step.session}):\n"
        return [other + step.sql() + ";"]
    if step.kind == "refresh":
        return [refresh + ";"]
    if step.kind == "columns":
        return [step.sql() + ";", "-- then all that have lost their query are given it again"]
    if step.kind == "part":
        return [refresh.replace("')", f"', only_where => $q${step.head}$q$)") + ";"]
    if step.kind == "redefine":
        return redefine_lines(step)
    if step.kind == "outdated":
        return ["BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class;", "-- in another session:"] + \
            [inner.sql() + ";" for inner in step.inner] + [refresh + "; COMMIT;"]
    if step.kind == "full":
        return [refresh.replace("')", "', full_refresh => true)") + ";"]
    if step.kind == "hold":
        return [f"-- in another session, held at debug point {step.point}: {refresh};"] + \
            [inner.sql() + ";" for inner in step.inner] + ["-- the other session goes on"]
    if step.kind == "race":
        return [f"-- in another session, while these views are refreshed: {step.view}", step.head + ";"]
    return [f"-- {step.kind} at debug point {step.point}: {refresh};"]
