"""A random case: tables, views over them and over each other, and what happens.

A case is data: statements with the rows they insert, views with their query as
a tree, and steps. It runs the same way every time, can be printed as SQL, and
a reducer can take parts away from it.
"""

import copy
import random
import re

from grammar import Grammar, Relation
from sql_tree import text
import values

COLUMNS = [("v", "num"), ("t", "text"), ("f", "float"), ("b", "bool"), ("d", "date"), ("at", "ts"), ("x", "ints"),
           ("j", "json"), ("n", "big"), ("r", "rough"), ("o", "dom"), ("c", "comp"), ("m", "mood"), ("i", "ci"),
           ("s", "span"), ("g", "range"), ("l", "long"), ("w", "raw"), ("h", "hashed")]
WEIGHTS = [18, 22, 10, 8, 8, 10, 8, 5, 8, 4, 2, 5, 4, 4, 3, 3, 3, 3, 2]

# Settings with which the same query is planned in other ways.
PLANNER = ["enable_hashjoin = off", "enable_mergejoin = off", "enable_nestloop = off", "enable_hashagg = off", "enable_sort = off",
           "work_mem = '64kB'; SET medallion.refresh_work_mem = '64kB'", "enable_material = off", "enable_memoize = off", "enable_seqscan = off", "jit = on",
           "parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"]

# Types that a column can be given and that its values fit in.
OTHER_TYPES = {"int": ["bigint"], "big": ["numeric", "bigint"], "text": ["varchar", "varchar(9000)"], "num": ["numeric(60, 25)", "numeric"],
               "ints": ["bigint[]"], "date": ["date"]}

REDEFINED_SHARE = 0.04      # how often a view gets another query, beside each refresh of one

# An aggregate of the user: the order of its rows matters, and it cannot go back.
OWN_AGGREGATE = [
    "CREATE FUNCTION alternate(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($2, 0) - $1 % 1000'",
    "CREATE AGGREGATE alternating_sum(int) (sfunc = alternate, stype = int, initcond = 0)",
]


class Step:
    """
    kind: a step_...() of run_case.py. What is not needed is None. new: a view with the name of `view`, how: what happens
    while it takes its place.
    """

    def __init__(self, kind, session="main", head="", rows=None, tail="", view=None, point=None, marks=(), inner=(),
                 new=None, how=None):
        self.kind, self.session, self.head, self.rows, self.tail = kind, session, head, rows, tail
        self.view, self.point, self.marks, self.inner = view, point, tuple(marks), list(inner)
        self.new, self.how = new, how

    def with_parts(self, **parts):
        step = copy.copy(self)
        vars(step).update(parts)
        return step

    def sql(self):
        return self.head + (", ".join(self.rows) if self.rows else "") + self.tail


class Table:
    def __init__(self, name, columns, kind):
        self.name, self.columns, self.kind = name, columns, kind     # kind: stream, table, keyed, parent, child, split
        self.next_id = 100
        self.made = []          # columns that are generated

    def definition(self):
        return ", ".join(f"{c} {values.SQL_TYPES[k]}" for c, k in self.columns)


class View:
    def __init__(self, name, node, columns, uses_time, plain=False, loose=False):
        self.name, self.node, self.columns, self.uses_time, self.plain = name, node, columns, uses_time, plain
        self.loose = loose      # has it answers of which only the engine knows which one is meant?

    def sql(self):
        return text(self.node)

    def with_node(self, node):
        return View(self.name, node, self.columns, self.uses_time, self.plain, self.loose)

    def shown_as(self, names, types):
        """The same query with its first columns under these names and of these types."""
        shown = ", ".join(f"c{i}::{t} AS {n}" for i, (n, t) in enumerate(zip(names, types), 1))
        return self.with_node([f"SELECT {shown} FROM (", self.node, ") shown"])

    def reads(self, name):
        return re.search(rf"\b{name}\b", self.sql()) is not None


class Case:
    def __init__(self, seed, tables, setup, initial, views, steps):
        self.seed, self.tables, self.setup, self.initial = seed, tables, setup, initial
        self.views, self.steps = views, steps

    def replaced(self, **parts):
        return Case(self.seed, **{**{k: getattr(self, k) for k in ("tables", "setup", "initial", "views", "steps")},
                                  **parts})

    def with_view(self, new):
        """With another query of a view."""
        return self.replaced(views=[new if v.name == new.name else v for v in self.views])

    def sources_of(self, name, ever=False):
        """Names of all relations below a view, itself included; ever: by the queries that it gets later, too."""
        found, todo = set(), [name]
        while todo:
            current = todo.pop()
            found.add(current)
            queries = [v for v in self.views if v.name == current]
            if ever:
                queries += [s.new for s in self.steps if s.new is not None and s.view == current]
            todo += [o for o in [v.name for v in self.views] + [t.name for t in self.tables]
                     if o not in found and any(q.reads(o) for q in queries)]
        return found


class CaseMaker:
    """Makes the case of a seed."""

    def __init__(self, seed, points, query_count=12, with_crash=False, only_streams=False):
        self.rng = random.Random(seed)
        self.seed, self.points, self.query_count, self.with_crash = seed, points, query_count, with_crash
        self.only_streams = only_streams
        self.tables, self.setup, self.initial, self.views, self.steps = [], [], [], [], []
        self.open_tables = {}       # of the long transaction: name -> does it keep others from writing
        self.detached = set()
        self.added = {}         # table, or type: columns that came
        self.labels = ["low", "mid", "high"]
        self.relations = {}     # of views: as what others read them
        self.readable = {}      # view: relations that were there before it

    def make(self):
        self.make_tables()
        self.make_views()
        self.make_steps()
        return Case(self.seed, self.tables, self.setup, self.initial, self.views, self.steps)

    # -- tables

    def make_tables(self):
        self.setup += OWN_AGGREGATE
        if self.rng.random() < 0.15:
            self.setup += ["SET " + setting for setting in self.rng.sample(PLANNER, self.rng.randint(1, 2))]
        types = len(self.setup)
        self.make_all_tables()
        used = {kind for table in self.tables for _, kind in table.columns}
        self.setup[types:types] = [values.TYPE_SETUP[kind] for kind in sorted(used & set(values.TYPE_SETUP))]

    def make_all_tables(self):
        if self.only_streams or self.rng.random() < 0.15:
            kinds = ["stream"] * self.rng.randint(1, 3)
            for kind in kinds:
                self.make_table(kind)
            self.make_rows()
            return
        kinds = ["stream"] * self.rng.randint(0, 2)
        kinds += self.rng.choices(["table", "keyed", "split"], [60, 20, 20], k=self.rng.randint(1, 3))
        if self.rng.random() < 0.15:
            kinds += ["parent", "child"]
        for kind in kinds:
            self.make_table(kind)
        self.make_rows()

    def make_rows(self):
        for table in self.tables:
            rows = [self.row(table) for _ in range(self.rng.randint(0, 14))]
            if rows:
                self.initial.append(self.insert(table, rows))
            if table.kind == "stream" and self.rng.random() < 0.7:
                self.initial.append(self.insert_bad(table))

    def make_table(self, kind):
        rng = self.rng
        name = ("s" if kind == "stream" else "r") + str(len(self.tables))
        columns = [("k", "int")]
        for column in rng.choices(COLUMNS, WEIGHTS, k=rng.randint(1, 5)):
            if column not in columns:
                columns.append(column)
        rng.shuffle(columns)
        if kind in ("keyed", "parent"):
            columns.insert(0, ("id", "int"))
        if kind == "child":
            columns.insert(0, ("id", "int"))
        table = Table(name, columns, kind)
        definition = table.definition()
        dropped = rng.random() < 0.15
        if dropped:
            definition = f"gone int, {definition}" if rng.random() < 0.5 else f"{definition}, gone int"
        if kind == "stream":
            self.setup.append(f"SELECT make_stream('{name}', '{definition}')")
        elif kind == "split":
            self.make_split(table, definition)
        else:
            if kind in ("keyed", "parent"):
                definition = definition.replace("id int", "id int PRIMARY KEY")
            if kind == "child":
                action = rng.choice(["CASCADE", "SET NULL"])
                definition = definition.replace(
                    "id int", f"id int REFERENCES {self.tables[-1].name} ON DELETE {action} ON UPDATE CASCADE")
            if kind == "table" and rng.random() < 0.1:
                definition += ", z int GENERATED ALWAYS AS (k * 2) STORED"
                table.made.append(("z", "int"))
            self.setup.append(f"CREATE TABLE {name} ({definition})")
            if kind == "table" and rng.random() < 0.08:
                self.make_trigger(table)
        if dropped:
            self.setup.append(f"ALTER TABLE {name} DROP COLUMN gone")
        if kind != "stream" and rng.random() < 0.2:
            self.setup.append(f"CREATE INDEX ON {name} (k)")
        self.tables.append(table)

    def make_trigger(self, table):
        """Something of the user's that changes what a statement does."""
        name = table.name
        body, when = self.rng.choice([
            ("BEGIN IF NEW.k = 4 THEN RETURN NULL; END IF; NEW.k := (NEW.k + 1) % 4; RETURN NEW; END",
             "BEFORE INSERT OR UPDATE ON {0} FOR EACH ROW"),
            (f"BEGIN DELETE FROM {name} WHERE k = 2; RETURN NULL; END", "AFTER INSERT ON {0} FOR EACH STATEMENT"),
            (f"BEGIN UPDATE {name} SET k = 0 WHERE k = 1; RETURN NULL; END", "AFTER DELETE ON {0} FOR EACH ROW"),
        ])
        self.setup += [f"CREATE FUNCTION {name}_changed() RETURNS trigger LANGUAGE plpgsql AS $${body}$$",
                       f"CREATE TRIGGER changed {when.format(name)} EXECUTE FUNCTION {name}_changed()"]

    def make_split(self, table, definition):
        """A partitioned table; one partition has its columns in another order."""
        name = table.name
        reverse = ", ".join(reversed(definition.split(", ")))
        self.setup += [f"CREATE TABLE {name} ({definition}) PARTITION BY LIST (k)",
                       f"CREATE TABLE {name}_a PARTITION OF {name} FOR VALUES IN (0, 1)",
                       f"CREATE TABLE {name}_b ({reverse})",
                       f"ALTER TABLE {name} ATTACH PARTITION {name}_b FOR VALUES IN (2, 3)",
                       f"CREATE TABLE {name}_d PARTITION OF {name} DEFAULT" + (
                           " PARTITION BY RANGE (k)" if self.rng.random() < 0.2 else "")]
        if self.setup[-1].endswith("(k)"):
            self.setup += [f"CREATE TABLE {name}_e PARTITION OF {name}_d FOR VALUES FROM (4) TO (6)",
                           f"CREATE TABLE {name}_f PARTITION OF {name}_d DEFAULT"]

    # -- views

    def make_views(self):
        rng = self.rng
        relations = [Relation(t.name, t.columns + t.made, 25, t.kind, "id" if t.kind in ("keyed", "parent") else None)
                     for t in self.tables]
        for number in range(self.query_count):
            plain = number < 2 and rng.random() < 0.3
            above = [r for r in relations if r.kind == "view"]
            pool = relations
            if above and rng.random() < 0.25:
                pool = above * 2 + relations
            streams = [r for r in relations if r.kind == "stream"]
            if streams and rng.random() < 0.2:
                pool = streams
            grammar = Grammar(rng, pool)
            node, columns = grammar.query(rng.choices([0, 1, 2], [55, 32, 13])[0])
            view = View(("pv" if plain else "mv") + str(number), node, columns, grammar.uses_time, plain, grammar.loose)
            if plain and (grammar.uses_time or grammar.loose):
                continue
            self.views.append(view)
            self.readable[view.name] = list(relations)
            usable = [(c, k) for c, k in columns if k != "approx"]
            if usable and (plain or rng.random() < 0.5):
                self.relations[view.name] = Relation(view.name, columns, 60, "view")
                relations.append(self.relations[view.name])

    def new_query(self, view):
        """Another query for a view, mostly of the same columns while others read it; None: there is none."""
        rng = self.rng
        grammar = Grammar(rng, self.readable[view.name])
        pick = rng.random()
        is_read = view.plain or any(v.name != view.name and v.reads(view.name) for v in self.views)
        if pick < 0.25:
            node, columns = grammar.query_filtered(view.node, view.columns)
        elif pick < (0.9 if is_read else 0.6):
            node, columns = grammar.query_of_kinds(rng.choice([0, 0, 1]), [k for _, k in view.columns])
        else:
            node, columns = grammar.query(rng.choice([0, 1]))
        holds_old = pick < 0.25
        new = View(view.name, node, columns, grammar.uses_time or (holds_old and view.uses_time), view.plain,
                   grammar.loose or (holds_old and view.loose))
        return None if view.plain and (new.uses_time or new.loose) else new

    def redefine(self, view):
        """Steps that give a view another query."""
        rng = self.rng
        new = self.new_query(view)
        if new is None:
            return []
        how = "plain" if view.plain else rng.choices(["plain", "held", "undone", "cancelled", "killed"],
                                                     [60, 20, 8, 6, 30 if self.with_crash else 0])[0]
        if how in ("plain", "held"):
            # should it be refused, those that read columns that it lacks are no queries, and are left out
            self.views[self.views.index(view)] = new
            if view.name in self.relations:
                self.relations[view.name].columns = new.columns
        inner = self.rows_change() if how == "held" else self.plain_change() if how == "undone" else []
        return [Step("redefine", view=view.name, new=new, how=how, inner=inner,
                     point=rng.choice(self.points["redefine"] + self.points["refresh"]))]

    # -- rows and changes

    def row(self, table, session="main"):
        cells = []
        for name, kind in table.columns:
            if name == "id" and table.kind == "child":
                cells.append(self.rng.choice(["NULL"] + [str(i) for i in range(8)]))
            elif name == "id":
                table.next_id += 1
                cells.append(str(self.rng.randrange(8) if session == "main" and self.rng.random() < 0.5
                                 else table.next_id))
            elif table.kind == "stream":
                cells.append(f"{values.value(self.rng, kind)}::{values.SQL_TYPES[kind]}")
            else:
                cells.append(values.value(self.rng, kind))
        return "(" + ", ".join(cells) + ")"

    def insert(self, table, rows, session="main"):
        if table.kind == "stream":
            return Step("sql", session, f"SELECT ingest('{table.name}', {self.rng.randrange(3)}, $rows$VALUES ",
                        rows, "$rows$)")
        head = f"INSERT INTO {table.name} ({', '.join(c for c, _ in table.columns)}) VALUES "
        return Step("sql", session, head, rows, " ON CONFLICT DO NOTHING" if table.kind != "split" else "")

    def insert_bad(self, table, session="main"):
        """Records of a stream that become dead letters, to be requeued later."""
        rows = [self.row(table) for _ in range(self.rng.randint(1, 6))]
        return Step("sql", session, f"SELECT ingest_bad('{table.name}', {self.rng.randrange(3)}, $rows$VALUES ",
                    rows, "$rows$)")

    def requeue(self, table, session="main"):
        letters = self.rng.choice([1, 1, 2, 3, 5, 20])
        return Step("sql", session, f"SELECT requeue('{table.name}', {letters})")

    def stream_change(self, table, rows, session):
        """New rows, late rows, records that may become late rows; and the table moves."""
        late_only = session == "writer" and not self.open_tables.get(table.name, True)
        pick = "late" if late_only else self.rng.choices(["new", "late", "bad", "rewrite"], [55, 25, 16, 4])[0]
        if pick == "late":
            return [self.requeue(table, session)]
        if pick == "bad":
            return [self.insert_bad(table, session)]
        if pick == "rewrite" and session == "main" and table.name not in self.open_tables:
            return [Step("sql", session, f"VACUUM FULL {table.name}")]
        return [self.insert(table, rows, session)]

    def condition(self, table):
        name, kind = self.rng.choice(table.columns)
        if self.rng.random() < 0.15:
            return f"{name} IS NULL"
        if self.rng.random() < 0.12:
            # the rows that come first by an order, or last
            return f"k = (SELECT {self.rng.choice(['min', 'max'])}(k) FROM {table.name})"
        value = values.constant(self.rng, kind if kind not in ("ts", "json", "raw") else "int")
        if kind in ("ts", "json", "raw"):
            return "k = " + value
        if kind == "hashed":
            return f"{name} = {value}"
        return f"{name} {self.rng.choice(['=', '=', '=', '>', '<>'])} {value}"

    def one_row(self, table):
        """Condition of one row of those that a condition finds, perhaps one of several equal ones."""
        name = table.name
        if table.kind == "split":
            return f"(tableoid, ctid) = (SELECT tableoid, ctid FROM {name} WHERE {self.condition(table)} LIMIT 1)"
        return f"ctid = (SELECT min(ctid) FROM {name} WHERE {self.condition(table)})"

    def assignments(self, table):
        columns = [c for c in table.columns if c[0] != "id"]
        chosen = self.rng.sample(columns, min(len(columns), self.rng.choice([1, 1, 2])))
        return ", ".join(f"{c} = {values.value(self.rng, k)}" for c, k in chosen)

    def change(self, table, session="main"):
        """Steps that change a table."""
        rng, name = self.rng, table.name
        rows = [self.row(table, session) for _ in range(rng.choice([1, 1, 2, 3, 5, 9]))]
        if table.kind == "stream":
            return self.stream_change(table, rows, session)
        sql = lambda text_, marks=(): [Step("sql", session, text_, marks=marks)]
        pick = rng.choices(["insert", "delete", "delete_one", "update", "update_one", "same", "again", "all", "merge",
                            "truncate", "reload", "conflict", "move", "replica", "leaf", "attach", "key", "rewrite", "copy",
                            "from", "using", "add", "retype", "again_column", "type"],
                           [26, 12, 10, 14, 10, 3, 5, 3, 6, 2, 2, 4, 3, 2, 5, 3, 3, 1, 1, 2, 2, 1, 1, 0.5, 2])[0]
        columns = ", ".join(c for c, _ in table.columns)
        if pick == "delete":
            return sql(f"DELETE FROM {name} WHERE {self.condition(table)}")
        if pick == "delete_one":
            return sql(f"DELETE FROM {name} WHERE {self.one_row(table)}")
        if pick == "update":
            return sql(f"UPDATE {name} SET {self.assignments(table)} WHERE {self.condition(table)}")
        if pick == "update_one":
            return sql(f"UPDATE {name} SET {self.assignments(table)} WHERE {self.one_row(table)}")
        if pick == "same":
            return sql(f"UPDATE {name} SET k = k")
        if pick == "again" and table.kind == "table":
            return sql(f"INSERT INTO {name} SELECT * FROM {name} WHERE {self.condition(table)} LIMIT 3")
        if pick == "all" and rng.random() < 0.5:
            return sql(f"DELETE FROM {name}")
        if pick == "merge" and table.kind != "parent":
            return self.merge(table, rows, session)
        if pick == "truncate" and table.kind != "parent" and session == "main":
            return sql(f"TRUNCATE {name}", [name])
        if pick == "reload" and table.kind not in ("parent", "child") and session == "main":
            return [Step("sql", session, f"BEGIN; CREATE TEMP TABLE kept ON COMMIT DROP AS TABLE {name}; TRUNCATE {name};"
                         f" INSERT INTO {name} SELECT * FROM kept WHERE {self.condition(table)} IS NOT TRUE; COMMIT",
                         marks=[name])]
        if pick == "conflict" and table.kind in ("keyed", "parent"):
            return [Step("sql", session, f"INSERT INTO {name} ({columns}) VALUES ", rows[:1],
                         rng.choice([" ON CONFLICT (id) DO UPDATE SET k = excluded.k + 1",
                                     f" ON CONFLICT (id) DO UPDATE SET id = {name}.id + 1000",
                                     f" ON CONFLICT (id) DO UPDATE SET k = {name}.k + 1 WHERE {name}.k > 1"]))]
        if pick == "move":
            other = rng.choice([t for t in self.tables if t.kind in ("table", "split")] or [None])
            if other and other.name not in self.open_tables:
                if session == "writer":
                    self.open_tables[other.name] = True     # it is locked until the transaction ends
                return sql(f"WITH d AS (DELETE FROM {name} WHERE {self.condition(table)} RETURNING k)"
                           f" INSERT INTO {other.name} (k) SELECT k FROM d")
        if pick == "replica" and table.kind not in ("parent", "child"):
            return sql("BEGIN; SET LOCAL session_replication_role = replica;"
                       f" DELETE FROM {name} WHERE {self.condition(table)}; COMMIT") if session == "main" else []
        if pick == "leaf" and table.kind == "split" and name not in self.detached:
            leaf = f"{name}_{rng.choice('abd')}"
            return rng.choice([sql(f"DELETE FROM {leaf} WHERE {self.condition(table)}"),
                               sql(f"INSERT INTO {name}_b (k) VALUES (2), (3)"),
                               sql(f"UPDATE {name} SET k = (k + 1) % 4"),
                               sql(f"TRUNCATE {leaf}", [name]) if session == "main" else []])
        if pick == "attach" and table.kind == "split" and session == "main":
            return self.attach(table)
        if pick == "key" and table.kind in ("keyed", "parent"):
            return sql(f"UPDATE {name} SET id = id + 1000 WHERE {self.condition(table)}")
        if pick == "copy" and table.kind != "parent":
            return sql(f"COPY {name} (k) FROM PROGRAM 'printf \"1\\\\n3\\\\n\\\\\\\\N\\\\n\"'")
        if pick in ("from", "using") and session == "main" and self.tables[0].name not in self.open_tables:
            other = self.tables[0].name
            return sql(f"UPDATE {name} u SET k = coalesce(o.k, 0) + 1 FROM {other} o WHERE o.k = u.k" if pick == "from" else
                       f"DELETE FROM {name} u USING {other} o WHERE o.k > u.k + 1")
        if pick == "add" and session == "main" and table.kind in ("table", "keyed"):
            added = self.added.setdefault(name, [])
            if added and rng.random() < 0.4:
                old = added.pop()
                return sql(f"ALTER TABLE {name} " + rng.choice([f"DROP COLUMN IF EXISTS {old}", f"RENAME COLUMN {old} TO {old}x"]))
            column = f"added{rng.randrange(1000)}"
            added.append(column)
            return rng.choice([sql(f"ALTER TABLE {name} ADD COLUMN {column} int DEFAULT 5"),
                               sql(f"ALTER TABLE {name} ADD COLUMN {column} int DEFAULT random() * 5", [name])])
        if pick == "retype" and session == "main" and table.kind in ("table", "keyed"):
            return self.retype(table)
        if pick == "again_column" and session == "main" and table.kind in ("table", "keyed", "split") and not table.made:
            return self.again_column(table)
        if pick == "type" and session == "main":
            return self.change_type(table)
        if pick == "rewrite" and session == "main":
            return sql(f"VACUUM FULL {name}", [name]) if rng.random() < 0.5 else sql(f"ANALYZE {name}")
        return [self.insert(table, rows, session)]

    def retype(self, table):
        """Another type of a column: who shows it loses its query, and is given it again."""
        column, kind = self.rng.choice(table.columns)
        if kind not in OTHER_TYPES or column == "id":
            return []
        return [Step("columns", head=f"ALTER TABLE {table.name} ALTER COLUMN {column} TYPE {self.rng.choice(OTHER_TYPES[kind])}",
                     marks=[table.name])]

    def again_column(self, table):
        """A column goes and comes back empty: who reads it loses its query meanwhile."""
        column, kind = self.rng.choice(table.columns)
        if column in ("id", "k") or any(v.plain for v in self.views):
            return []
        return [Step("columns", head=f"ALTER TABLE {table.name} DROP COLUMN {column} CASCADE;"
                     f" ALTER TABLE {table.name} ADD COLUMN {column} {values.SQL_TYPES[kind]}", marks=[table.name])]

    def change_type(self, table):
        """A composite type with other attributes, or an enum with other labels."""
        kinds = [k for _, k in table.columns if k in ("comp", "mood")]
        if not kinds:
            return []
        if self.rng.choice(kinds) == "mood":
            number = self.rng.randrange(len(self.labels))
            old, new = self.labels[number], f"label{self.rng.randrange(1000)}"
            if self.rng.random() < 0.25:
                return [Step("sql", head=f"ALTER TYPE mood ADD VALUE IF NOT EXISTS '{new}'")]
            self.labels[number] = new
            return [Step("sql", head=f"ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'")]
        added = self.added.setdefault("pair", [])
        pick = self.rng.random()
        if added and pick < 0.3:
            return [Step("sql", head=f"ALTER TYPE pair DROP ATTRIBUTE IF EXISTS {added.pop()}")]
        if added and pick < 0.5:
            column = next(c for c, k in table.columns if k == "comp")
            return [Step("sql", head=f"UPDATE {table.name} SET {column}.{added[-1]} = {self.rng.randrange(3)} WHERE {self.condition(table)}")]
        if added and pick < 0.65:
            old, new = added[-1], f"added{self.rng.randrange(1000)}"
            added[-1] = new
            return [Step("sql", head=f"ALTER TYPE pair RENAME ATTRIBUTE {old} TO {new}")]
        if any("ROW(" in v.sql() for v in self.views):
            return []           # the text of such a query does not have the new attribute
        added.append(f"added{self.rng.randrange(1000)}")
        return [Step("sql", head=f"ALTER TYPE pair ADD ATTRIBUTE {added[-1]} int")]

    def merge(self, table, rows, session):
        columns = [c for c, _ in table.columns]
        key = "id" if "id" in columns else "k"
        assigned = next((c for c in columns if c != key), None)
        if assigned is None:
            return []
        matched = self.rng.choice([f"UPDATE SET {assigned} = s.{assigned}", "DELETE",
                                   f"AND t.k > 1 THEN DELETE WHEN MATCHED THEN UPDATE SET {assigned} = s.{assigned}",
                                   f"AND t.k = 1 THEN DO NOTHING WHEN MATCHED THEN UPDATE SET k = 1"])
        matched = matched if matched.startswith("AND") else "THEN " + matched
        typed = [self.typed_row(table, row) for row in rows[:3]]
        insert = f"INSERT ({', '.join(columns)}) VALUES ({', '.join('s.' + c for c in columns)})"
        return [Step("sql", session, f"MERGE INTO {table.name} t USING (SELECT DISTINCT ON ({key}) * FROM (VALUES ", typed,
                     f") v({', '.join(columns)}) ORDER BY {key}) s ON t.{key} = s.{key}"
                     f" WHEN MATCHED {matched}" + (f" WHEN NOT MATCHED THEN {insert}" if self.rng.random() < 0.7 else ""))]

    @staticmethod
    def typed_row(table, row):
        """A row of self.row() of an ordinary table with a type on each value."""
        cells = zip(split_row(row), table.columns)
        return "(" + ", ".join(f"({cell})::{values.SQL_TYPES[kind]}" for cell, (_, kind) in cells) + ")"

    def attach(self, table):
        name = table.name
        if name in self.detached:
            self.detached.discard(name)
            return [Step("sql", head=f"DELETE FROM {name} WHERE k IN (2, 3)"),
                    Step("sql", head=f"ALTER TABLE {name} ATTACH PARTITION {name}_b FOR VALUES IN (2, 3)", marks=[name])]
        self.detached.add(name)
        return [Step("sql", head=f"ALTER TABLE {name} DETACH PARTITION {name}_b", marks=[name]),
                Step("sql", head=f"INSERT INTO {name}_b (k) VALUES (3)")]

    # -- steps

    def free_tables(self, session="main"):
        if session == "main":
            return [t for t in self.tables if not self.open_tables.get(t.name, False)]
        return [t for t in self.tables if t.kind in ("stream", "table", "keyed")]

    def make_steps(self):
        rng = self.rng
        for round_number in range(rng.randint(2, 4)):
            self.make_changes()
            self.make_refreshes()
            if self.open_tables and rng.random() < 0.6:
                self.close_transaction()
            if rng.random() < 0.25:
                self.make_changes()
                self.make_refreshes()
        self.close_transaction()
        self.steps += [Step("refresh", view=v.name) for v in self.views if not v.plain]

    def close_transaction(self):
        if self.open_tables:
            self.steps.append(Step("sql", "writer", self.rng.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"])))
            self.open_tables = {}

    def make_changes(self):
        rng = self.rng
        if not self.open_tables and rng.random() < 0.25:
            self.open_transaction()
        for _ in range(rng.randint(1, 4)):
            tables = self.free_tables()
            if not tables:
                return
            style = rng.choices(["plain", "block", "savepoint", "undone", "prepared"], [70, 10, 8, 6, 3])[0]
            steps = self.change(rng.choice(tables))
            if any(stands_alone(s) for s in steps):
                style = "plain"
            if style == "block":
                steps = self.in_block(steps + self.plain_change(), "BEGIN", "COMMIT")
            elif style == "savepoint":
                undone = self.plain_change()
                steps = [Step("sql", head="BEGIN")] + steps + [Step("sql", head="SAVEPOINT a")] + undone + \
                    [Step("sql", head="ROLLBACK TO a")] + self.plain_change() + \
                    [Step("sql", head="RELEASE a"), Step("sql", head="COMMIT")]
            elif style == "undone":
                steps = self.in_block(steps, "BEGIN", "ROLLBACK")
            elif style == "prepared":
                steps = self.in_block(steps, "BEGIN", f"PREPARE TRANSACTION 'fuzz {self.seed}'")
                steps.append(Step("sql", head=f"COMMIT PREPARED 'fuzz {self.seed}'"))
            self.steps += steps

    @staticmethod
    def in_block(steps, begin, end):
        return [Step("sql", head=begin)] + steps + [Step("sql", head=end)]

    def plain_change(self):
        """A change without transaction control of its own."""
        tables = self.free_tables()
        steps = self.change(self.rng.choice(tables)) if tables else []
        return [] if any(stands_alone(s) for s in steps) else steps

    def open_transaction(self):
        """A second session begins to write, and commits later."""
        rng = self.rng
        tables = self.free_tables("writer")
        if not tables:
            return
        table = rng.choice(tables)
        self.steps.append(Step("sql", "writer", "BEGIN"))
        # late rows let others write meanwhile; letters are there at once, others come later
        self.open_tables[table.name] = table.kind != "stream" or rng.random() < 0.4
        for _ in range(rng.randint(1, 2)):
            self.steps += self.change(table, "writer")

    def make_refreshes(self):
        rng = self.rng
        views = [v.name for v in self.views if not v.plain and rng.random() < 0.7]
        if rng.random() < 0.5:
            rng.shuffle(views)
        for name in views:
            special = rng.random()
            if special < 0.02:
                self.steps += [Step("sql", head="BEGIN"), *self.plain_change(), Step("refresh", view=name),
                               *self.plain_change(), Step("refresh", view=name),
                               Step("sql", head=rng.choice(["COMMIT", "ROLLBACK"]))]
            elif special < 0.05:
                self.steps.append(Step("hold", view=name, point=rng.choice(self.points["refresh"]), inner=self.rows_change()))
            elif special < 0.06:
                self.steps.append(Step("cancel", view=name, point=rng.choice(self.points["refresh"])))
            elif special < 0.065:
                self.steps.append(Step("full", view=name))
            elif special < 0.09:
                self.steps.append(self.part(name))
            elif special < 0.1 and not self.open_tables:
                self.steps.append(Step("outdated", view=name, inner=self.plain_change()))
            self.steps.append(Step("refresh", view=name))
            if rng.random() < REDEFINED_SHARE:
                self.steps += self.redefine(rng.choice(self.views))
        if self.with_crash and not self.open_tables and views:
            self.steps.append(Step("crash", view=rng.choice(views), point=rng.choice(self.points["refresh"])))
        if rng.random() < 0.06 and not self.open_tables and views:
            self.make_race(views)

    def part(self, name):
        """A refresh of some rows of the result alone."""
        column, kind = self.rng.choice(next(v for v in self.views if v.name == name).columns)
        condition = f"{column} IS NOT NULL"
        # of types of Postgres: names mean what they meant to who created the view
        if kind not in values.UNORDERED + ("approx", "ci", "comp", "dom", "long", "mood") and self.rng.random() < 0.9:
            condition = f"{column} {self.rng.choice(['=', '<>', '<', '>='])} {values.constant(self.rng, kind)}"
        return Step("part", view=name, head=self.rng.choice(["", "", "NOT "]) + f"({condition})")

    def make_race(self, views):
        """Refreshes while another session writes, then once more when it is done."""
        writes = []
        for _ in range(6):
            # few rows, since the loop multiplies them
            writes += [step.with_parts(rows=step.rows[:2]) if step.rows else step for step in self.rows_change()]
        if writes:
            body = "; COMMIT; ".join(step.sql() for step in writes)
            self.steps.append(Step("race", "writer", f"DO $body$ BEGIN FOR i IN 1..5 LOOP {perform(body)}; COMMIT;"
                                   " END LOOP; END $body$", view=",".join(views),
                                   marks=[m for s in writes for m in s.marks]))
            self.steps += [Step("refresh", view=v.name) for v in self.views if v.name in views]

    def rows_change(self):
        """A change that does not wait for a reader of its table, and is one that can be told."""
        steps = self.plain_change()
        return [] if any(s.marks or re.match("ALTER|TRUNCATE|ANALYZE", s.head) for s in steps) else steps


def stands_alone(step):
    """Is it a step that no transaction can be around?"""
    return step.kind != "sql" or re.match("BEGIN|VACUUM|ALTER TYPE", step.head) is not None


def perform(body):
    return re.sub(r"SELECT (ingest|ingest_bad|requeue)\(", r"PERFORM \1(", body)


def split_row(row):
    """The cells of "(a, b, ...)"."""
    cells, depth, quoted, cell = [], 0, False, ""
    for character in row[1:-1]:
        if character == "'":
            quoted = not quoted
        elif not quoted and character in "([":
            depth += 1
        elif not quoted and character in ")]":
            depth -= 1
        if character == "," and not quoted and depth == 0:
            cells.append(cell.strip())
            cell = ""
        else:
            cell += character
    return cells + [cell.strip()]
