"""Random queries of the part of SQL that refreshes are to be incremental for.

A query has one answer: aggregates that collect rows, windows, DISTINCT ON and
LIMIT are ordered by all that they show, so that rows which tie are equal.
Relations and scopes are lists of columns with a type of values.py that
decides where a column may stand. 'int' and 'big' mix. 'approx' is a float that depends on the order of its
terms: it is shown, and nothing is computed from it.

Grammar(rng, relations).query(depth) gives a tree of sql_tree.py and the
columns c1, c2, ... that it shows.
"""

from sql_tree import Alt, Items, Opt, Tagged
import values

INTEGERS = ("int", "big")


class Relation:
    def __init__(self, name, columns, size, kind):
        self.name, self.columns, self.size, self.kind = name, columns, size, kind


class Grammar:
    def __init__(self, rng, relations):
        self.rng = rng
        self.relations = relations
        self.counter = 0
        self.uses_time = False
        self.used = set()
        self.whole = set()      # aliases whose rows may be shown as a whole

    # -- choices

    def chance(self, probability):
        return self.rng.random() < probability

    def weighted(self, choices):
        return self.rng.choices([c for c, _ in choices], [w for _, w in choices])[0]

    def alias(self, prefix="t"):
        self.counter += 1
        return f"{prefix}{self.counter}"

    def some_kind(self):
        return self.weighted([("int", 35), ("text", 20), ("num", 12), ("float", 6), ("bool", 6), ("big", 6),
                              ("date", 5), ("ts", 3), ("ints", 3), ("json", 6)])

    def pick_relation(self, limit=150, names=None):
        pool = [r for r in self.relations if r.size <= limit and (names is None or r.name in names)]
        relation = self.rng.choice(pool or self.relations)
        self.used.add(relation.name)
        return relation

    # -- expressions

    def columns_of(self, scope, kind):
        kinds = INTEGERS if kind in INTEGERS else (kind,)
        return [ref for ref, k in scope if k in kinds]

    def column(self, scope, kind=None):
        """A column of the scope, if there is one: (reference, kind)."""
        pool = [c for c in scope if kind is None or c[1] == kind or (kind in INTEGERS and c[1] in INTEGERS)]
        return self.rng.choice(pool) if pool else None

    def leaf(self, scope, kind):
        columns = self.columns_of(scope, kind)
        return self.rng.choice(columns) if columns and self.chance(0.9) else values.constant(self.rng, kind)

    def scope_of(self, alias, columns):
        if all(k != "approx" for _, k in columns):
            self.whole.add(alias)
        return [(f"{alias}.{c}", k) for c, k in columns if k != "approx"]

    def row(self, scope):
        """The alias of something in FROM, if there is one: its row as a whole."""
        aliases = sorted({ref.split(".")[0] for ref, _ in scope if "." in ref} & self.whole)
        return self.rng.choice(aliases) if aliases else None

    def expression(self, scope, kind, depth=2, subqueries=False):
        leaf = self.leaf(scope, kind)
        if depth <= 0 or self.chance(0.65):
            return leaf
        again = lambda k: self.expression(scope, k, depth - 1)
        pick = self.rng.randrange(6)
        if subqueries and self.chance(0.25):
            return Alt(self.scalar_subquery(scope, kind), leaf)
        if pick == 0:
            return Alt(["CASE WHEN ", self.predicate(scope, 1, subqueries), " THEN ", again(kind),
                        Opt([" ELSE ", again(kind)]), " END"], leaf)
        if pick == 1:
            return Alt(["coalesce(", again(kind), ", ", values.constant(self.rng, kind), ")"], leaf)
        row = self.row(scope) if kind in ("json", "bool") and pick < 4 else None
        if row:
            return Alt(f"to_jsonb({row})" if kind == "json" else f"({row} IS DISTINCT FROM NULL)", leaf)
        made = self.operation(kind, pick, again)
        return Alt(made, leaf) if made else leaf

    def operation(self, kind, pick, again):
        if kind in INTEGERS:
            return [["(", again("int"), " + ", again("int"), ")"], ["(", again("int"), " % 3)"],
                    ["length(", again("text"), ")"], ["cardinality(", again("ints"), ")"]][pick - 2]
        if kind == "text":
            return [["upper(", again("text"), ")"], ["(", again("text"), " || ", again("text"), ")"],
                    [again("int"), "::text"], ["to_char(", again("date"), ", 'YYYY-MM')"]][pick - 2]
        if kind == "num":
            return [["(", again("num"), " + ", again("num"), ")"], ["(", again("num"), " * 2)"],
                    [again("int"), "::numeric"], ["nullif(", again("num"), ", 1)"]][pick - 2]
        if kind == "float":
            return [["(", again("float"), " * 0.5)"], ["(- ", again("float"), ")"],
                    [again("int"), "::float8"], ["nullif(", again("float"), ", 0.5)"]][pick - 2]
        if kind == "bool":
            return ["(", again("int"), " > ", again("int"), ")"]
        if kind == "date":
            return [["(", again("date"), " + 1)"], [again("ts"), "::date"], None, None][pick - 2]
        if kind == "ts":
            return ["date_trunc('day', ", again("ts"), ")"]
        if kind == "ints":
            return ["ARRAY[", again("int"), "::int, ", again("int"), "::int]"]
        if kind == "json":
            return ["jsonb_build_object('a', ", again("int"), ")"]
        return None

    def comparison(self, scope):
        kind = self.weighted([("int", 40), ("text", 20), ("num", 10), ("date", 5), ("float", 5)])
        column = self.column(scope, kind) or self.column(scope)
        kind = column[1]
        operator = self.rng.choice(["=", "=", "<>", "<", ">", ">=", "<="])
        other = self.expression(scope, kind, 1) if self.chance(0.4) else values.constant(self.rng, kind)
        return [column[0], f" {operator} ", other]

    def predicate(self, scope, depth=2, subqueries=False):
        if subqueries and self.chance(0.3):
            return self.subquery_predicate(scope)
        simple = self.comparison(scope)
        pick = self.rng.randrange(10)
        if depth <= 0 or pick < 4:
            return simple
        column, kind = self.column(scope)
        if pick == 4:
            return [column, self.rng.choice([" IS NULL", " IS NOT NULL"])]
        if pick == 5:
            return [column, self.rng.choice([" IN (", " NOT IN ("]),
                    Items(", ", [values.constant(self.rng, kind) for _ in range(self.rng.randint(1, 3))]), ")"]
        if pick == 6:
            return [column, " IS NOT DISTINCT FROM ", self.expression(scope, kind, 1)]
        other = self.predicate(scope, depth - 1, subqueries and self.chance(0.5))
        if pick == 7:
            return Alt(["NOT (", other, ")"], other, simple)
        return Alt(["(", simple, self.rng.choice([" OR ", " OR ", " AND "]), other, ")"], simple, other)

    # -- subqueries of expressions

    def correlation(self, scope, inner):
        """Equalities between an inner and the outer scope, or NULL-safe ones; None if no types agree."""
        pairs = [(i, o) for i, ik in inner for o, ok in scope
                 if ik == ok or (ik in INTEGERS and ok in INTEGERS)]
        if not pairs:
            return None
        conditions = []
        for _ in range(self.weighted([(1, 75), (2, 25)])):
            i, o = self.rng.choice(pairs)
            sides = [i, o] if self.chance(0.5) else [o, i]
            operator = " IS NOT DISTINCT FROM " if self.chance(0.05) else " = "
            conditions.append([sides[0], operator, sides[1]])
        if self.chance(0.15):
            i, o = self.rng.choice(pairs)
            conditions.append([i, self.rng.choice([" <= ", " <> "]), o])
        return conditions

    def inner_from(self, nested=True):
        """FROM of a subquery of an expression: (node, scope)."""
        if nested and self.chance(0.12):
            return self.joins(2, 0)
        relation = self.pick_relation()
        alias = self.alias("s")
        return f"{relation.name} {alias}", self.scope_of(alias, relation.columns)

    def inner_where(self, scope, inner, correlated):
        conditions = []
        if correlated:
            conditions += self.correlation(scope, inner) or []
        if self.chance(0.35):
            conditions.append(self.predicate(inner, 1, self.chance(0.15)))
        return Opt([" WHERE ", Items(" AND ", conditions)]) if conditions else ""

    def subquery_predicate(self, scope):
        from_node, inner = self.inner_from()
        pick = self.rng.randrange(10)
        column = self.column(scope)
        match = self.column(inner, column[1])
        if pick < 4 or match is None:
            return [self.rng.choice(["", "NOT "]), "EXISTS (SELECT 1 FROM ", from_node,
                    self.inner_where(scope, inner, True), ")"]
        if pick < 7:
            where = self.inner_where(scope, inner, self.chance(0.2))
            second = self.column(scope)
            second_match = self.column(inner, second[1])
            negated = self.rng.choice([" IN ", " NOT IN "])
            if second_match and self.chance(0.2):
                return [f"({column[0]}, {second[0]})", negated, f"(SELECT {match[0]}, {second_match[0]} FROM ",
                        from_node, where, ")"]
            return [column[0], negated, f"(SELECT {match[0]} FROM ", from_node, where, ")"]
        if pick == 7:
            return [column[0], self.rng.choice([" = ANY ", " >= ALL ", " < ANY "]), f"(SELECT {match[0]} FROM ",
                    from_node, self.inner_where(scope, inner, self.chance(0.3)), ")"]
        return [self.leaf(scope, "int"), self.rng.choice([" < ", " >= ", " = "]),
                self.scalar_subquery(scope, "int")]

    def scalar_subquery(self, scope, kind):
        from_node, inner = self.inner_from()
        where = self.inner_where(scope, inner, self.chance(0.7))
        argument = self.column(inner, kind)
        if kind in INTEGERS and (argument is None or self.chance(0.4)):
            shown = "count(*)"
        elif argument is None:
            return values.constant(self.rng, kind)
        elif kind in ("bool", "json", "ints") or self.chance(0.3):
            return ["(SELECT ", argument[0], " FROM ", from_node, where, f" ORDER BY {argument[0]} ",
                    self.rng.choice(["", "DESC NULLS LAST "]), "LIMIT 1)"]
        else:
            shown = f"{self.rng.choice(['min', 'max'])}({argument[0]})"
        return ["(SELECT ", shown, " FROM ", from_node, where, ")"]

    # -- FROM

    def relation(self, depth, limit):
        """One entry of FROM: (node, scope)."""
        alias = self.alias()
        if depth > 0 and self.chance(0.22):
            node, columns = self.query(depth - 1)
            if self.scope_of(alias, columns):
                return ["(", node, f") {alias}"], self.scope_of(alias, columns)
        if self.chance(0.03):
            rows = Items(", ", [f"({values.constant(self.rng, 'int')}, {values.constant(self.rng, 'text')})"
                                for _ in range(3)])
            return ["(VALUES ", rows, f") {alias}(i, t)"], [(f"{alias}.i", "int"), (f"{alias}.t", "text")]
        relation = self.pick_relation(limit)
        return f"{relation.name} {alias}", self.scope_of(alias, relation.columns)

    def from_clause(self, depth):
        count = self.weighted([(1, 45), (2, 30), (3, 14), (4, 6), (5, 3), (6, 2)])
        return self.joins(count, depth)

    def joins(self, count, depth):
        limit = {1: 400, 2: 150, 3: 60}.get(count, 25)
        node, scope = self.relation(depth, limit)
        joined = 1
        while joined < count:
            if count - joined >= 2 and self.chance(0.15):
                right, right_scope = self.joins(2, 0)
                right = ["(", right, ")"]
                joined += 2
            else:
                right, right_scope = self.relation(depth if count <= 2 else 0, limit)
                joined += 1
            node, scope = self.join(node, scope, right, right_scope, count == 2)
        if self.chance(0.12):
            node, scope = self.lateral(node, scope)
        return node, scope

    def join(self, left, left_scope, right, right_scope, alone):
        both = left_scope + right_scope
        kind = self.weighted([("JOIN", 45), ("LEFT JOIN", 28), ("RIGHT JOIN", 8), ("FULL JOIN", 11), (",", 5),
                              ("CROSS JOIN", 1)])
        if kind == "CROSS JOIN":
            return Alt([left, " CROSS JOIN ", right], left), both
        equalities = self.correlation(left_scope, right_scope)
        if alone and kind != "," and self.chance(0.25):
            shared = [(c, k) for c, k in self.own_columns(left_scope) if (c, k) in self.own_columns(right_scope)]
            if shared:
                names = self.rng.sample(shared, min(len(shared), self.weighted([(1, 70), (2, 30)])))
                using = ", ".join(c for c, _ in names)
                # some columns by their merged name alone
                return Alt([left, f" {kind} ", right, f" USING ({using})"], left), both + names * 2
        if equalities is None:
            return Alt([left, " LEFT JOIN ", right, " ON ", self.predicate(both, 0)], left), both
        conditions = [c for c in equalities if kind != "FULL JOIN" or c[1] == " = "]
        if kind == ",":
            return Alt([left, " JOIN ", right, " ON true"], left), both
        if self.chance(0.15):
            conditions.append(self.predicate(both if kind != "FULL JOIN" else right_scope, 0))
        return Alt([left, f" {kind} ", right, " ON ", Items(" AND ", conditions or ["true"])], left), both

    @staticmethod
    def own_columns(scope):
        """Bare names of a scope's columns that only one of its relations has."""
        names = [ref.split(".")[-1] for ref, _ in scope]
        return [(ref.split(".")[-1], k) for ref, k in scope if names.count(ref.split(".")[-1]) == 1]

    def lateral(self, node, scope):
        alias = self.alias("l")
        array = self.column(scope, "ints")
        number = self.column(scope, "int")
        kind = self.rng.choice([" CROSS JOIN LATERAL ", " LEFT JOIN LATERAL "])
        on = " ON true" if kind.startswith(" LEFT") else ""
        if array and self.chance(0.5):
            return Alt([node, kind, f"unnest({array[0]}) {alias}(x)", on], node), scope + [(f"{alias}.x", "int")]
        if number and self.chance(0.5):
            return (Alt([node, kind, f"generate_series(1, least({number[0]}, 3)) {alias}(x)", on], node),
                    scope + [(f"{alias}.x", "int")])
        relation = self.pick_relation(60)
        inner = self.alias("s")
        inner_scope = self.scope_of(inner, relation.columns)
        shown = Items(", ", [c for c, _ in inner_scope])
        order = ", ".join(c for c, _ in inner_scope)
        return (Alt([node, kind, "(SELECT ", shown, f" FROM {relation.name} {inner}",
                     self.inner_where(scope, inner_scope, True),
                     Opt([f" ORDER BY {order} LIMIT {self.rng.randint(1, 2)}"]), f") {alias}", on], node),
                scope + self.scope_of(alias, relation.columns))

    def where(self, scope):
        conditions = [self.predicate(scope, 2, True)
                      for _ in range(self.weighted([(0, 40), (1, 40), (2, 20)]))]
        moment = self.column(scope, "ts")
        if moment and self.chance(0.08):
            self.uses_time = True
            conditions.append([moment[0], self.rng.choice([" > ", " >= ", " > ", " <= "]),
                               f"now() - interval '{self.rng.randint(0, 12) * 100} ms'"])
        return Opt([" WHERE ", Items(" AND ", conditions)]) if conditions else ""

    # -- queries

    def query(self, depth=2):
        """A query and its columns [(name, kind)]."""
        kind = self.weighted([("plain", 26), ("group", 30), ("distinct", 6), ("distinct_on", 7), ("window", 8),
                              ("first", 4), ("set", 10), ("limit", 4), ("with", 6 if depth > 0 else 0)])
        return getattr(self, "query_" + kind)(depth)

    def shown_kinds(self, scope, least=1):
        """What to show: mostly what is there."""
        kinds = [self.column(scope)[1] if self.chance(0.8) else self.some_kind()
                 for _ in range(self.weighted([(1, 15), (2, 35), (3, 35), (4, 15)]))]
        return kinds if len(kinds) >= least else kinds + ["int"]

    def select_list(self, nodes):
        """Tagged select items c1, c2, ..."""
        return Items(", ", [Tagged(self.alias("_"), [node, f" AS c{i}"]) for i, node in enumerate(nodes, 1)])

    @staticmethod
    def named(kinds):
        return [(f"c{i}", k) for i, k in enumerate(kinds, 1)]

    def query_plain(self, depth, kinds=None):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        row = self.row(scope)
        show_row = kinds is None and row is not None and self.chance(0.06)
        kinds = kinds or self.shown_kinds(scope)
        nodes = [self.expression(scope, k, 2, True) for k in kinds]
        if show_row:
            nodes.append(f"to_jsonb({row})")
            kinds.append("json")
        arrays = self.columns_of(scope, "ints")
        if arrays and "int" in kinds and self.chance(0.1):
            nodes[kinds.index("int")] = f"unnest({self.rng.choice(arrays)})"
        return ["SELECT ", self.select_list(nodes), " FROM ", from_node, where], self.named(kinds)

    def query_distinct(self, depth, kinds=None):
        (_, *rest), columns = self.query_plain(depth, kinds)
        return ["SELECT ", Opt("DISTINCT "), *rest], columns

    def order(self, items):
        return Items(", ", [[item, self.rng.choice(["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"])]
                            for item in items], 0)

    def query_distinct_on(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        keys = [self.column(scope)[0] for _ in range(self.weighted([(1, 70), (2, 30)]))]
        kinds = self.shown_kinds(scope)
        shown = [self.leaf(scope, k) for k in kinds]
        shown[0], kinds[0] = keys[0], dict(scope)[keys[0]]
        rest = [s for s in dict.fromkeys(shown) if s not in keys and not s.lstrip("-").isdigit()]
        self.rng.shuffle(rest)
        order = [", ".join(dict.fromkeys(keys)), ", ", self.order(rest)] if rest else ", ".join(keys)
        return ["SELECT ", f"DISTINCT ON ({', '.join(keys)}) ", self.select_list(shown), " FROM ", from_node, where,
                " ORDER BY ", order], self.named(kinds)

    def query_limit(self, depth):
        node, columns = self.query_plain(depth)
        if "unnest(" in str(node):
            return node, columns
        return [node, " ORDER BY ", self.order([c for c, _ in columns]), f" LIMIT {self.rng.randint(1, 6)}",
                Opt(f" OFFSET {self.rng.randint(1, 3)}") if self.chance(0.3) else ""], columns

    def window_call(self, scope, order, may_count):
        """
        A window function over a total order, or one that needs none: (node, kind). One that tells rows apart that tie
        only if it may.
        """
        partition = self.rng.sample([c for c, _ in scope], min(len(scope), self.weighted([(0, 15), (1, 60), (2, 25)])))
        by = ["PARTITION BY ", Items(", ", partition)] if partition else ""
        ordered = [by, " ORDER BY ", order]
        pick = self.rng.randrange(8)
        column, kind = self.column(scope)
        number = self.leaf(scope, "int")
        if pick == 0 and may_count:
            return ["row_number() OVER (", ordered, ")"], "int"
        if pick in (0, 1):
            first = self.column(scope)[0]
            return [self.rng.choice(["rank", "dense_rank"]), "() OVER (", by, f" ORDER BY {first})"], "int"
        if pick == 2 and may_count and column in order_columns(order):
            return [self.rng.choice(["lag", "lead"]), f"({column}) OVER (", ordered, ")"], kind
        if pick == 3 and column in order_columns(order):
            return [self.rng.choice(["first_value", "last_value"]), f"({column}) OVER (", ordered, ")"], kind
        if pick == 4:
            return [f"count({column}) OVER (", by, ")"], "int"
        if pick == 5:
            return [f"sum({number}) OVER (", by, f" ORDER BY {column} RANGE UNBOUNDED PRECEDING)"], "int"
        if pick == 6:
            return [f"max({number}) OVER (", by, ")"], "int"
        return [f"sum({number}) OVER (", by, ")"], "int"

    def query_window(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        kinds = self.shown_kinds(scope)
        shown = [self.column(scope, k) or self.column(scope) for k in kinds]
        count = self.weighted([(1, 65), (2, 35)])
        # rows that tie in one window may differ in what another one does with them
        order = self.order(list(dict.fromkeys(ref for ref, _ in (shown if count == 1 else scope))))
        calls = [self.window_call(scope, order, i == 0) for i in range(count)]
        nodes = [ref for ref, _ in shown] + [node for node, _ in calls]
        return ["SELECT ", self.select_list(nodes), " FROM ", from_node, where], \
            self.named([k for _, k in shown] + [k for _, k in calls])

    def query_first(self, depth):
        """The row_number() = 1 idiom."""
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        kinds = self.shown_kinds(scope)
        shown = [self.column(scope, k) or self.column(scope) for k in kinds]
        partition = Items(", ", self.rng.sample([c for c, _ in scope], min(len(scope), self.weighted([(1, 70), (2, 30)]))))
        inner = [ref + f" AS c{i}" for i, (ref, _) in enumerate(shown, 1)]
        order = self.order(list(dict.fromkeys(ref for ref, _ in shown)))
        function = self.weighted([("row_number", 80), ("rank", 20)])
        condition = self.weighted([("= 1", 75), ("<= 2", 15), ("> 1", 10)])
        columns = self.named([k for _, k in shown])
        return ["SELECT ", Items(", ", [Tagged(self.alias("_"), c) for c, _ in columns]), " FROM (SELECT ",
                Items(", ", inner + [[function, "() OVER (PARTITION BY ", partition, " ORDER BY ", order, ") AS rn"]]),
                " FROM ", from_node, where, f") q WHERE rn {condition}"], columns

    def query_set(self, depth):
        kinds = [self.weighted([("int", 50), ("text", 30), ("num", 15), ("date", 5)])
                 for _ in range(self.weighted([(1, 35), (2, 45), (3, 20)]))]
        node, columns = self.branch(depth, kinds)
        for _ in range(self.weighted([(1, 75), (2, 25)])):
            other, _ = self.branch(depth, kinds)
            operator = self.weighted([("UNION ALL", 40), ("UNION", 15), ("INTERSECT", 10), ("INTERSECT ALL", 8),
                                      ("EXCEPT", 14), ("EXCEPT ALL", 13)])
            node = Alt(["(", node, f") {operator} (", other, ")"], node, other)
        return node, columns

    def branch(self, depth, kinds):
        make = self.weighted([(self.query_plain, 60), (self.query_distinct, 15), (self.query_grouped_kinds, 25)])
        return make(depth - 1, list(kinds))

    def query_grouped_kinds(self, depth, kinds):
        """GROUP BY that shows columns of the given kinds."""
        from_node, scope = self.from_clause(max(depth, 0))
        where = self.where(scope)
        keys = [self.column(scope, k) if i == 0 or self.chance(0.4) else None for i, k in enumerate(kinds)]
        nodes = []
        for key, kind in zip(keys, kinds):
            if key:
                nodes.append(key[0])
            elif kind in INTEGERS and self.chance(0.6):
                nodes.append("count(*)")
            else:
                nodes.append(f"{self.rng.choice(['min', 'max'])}({self.leaf(scope, kind)})")
        groups = [key[0] for key in keys if key]
        return ["SELECT ", self.select_list(nodes), " FROM ", from_node, where,
                " GROUP BY " + ", ".join(groups) if groups else ""], self.named(kinds)

    def query_with(self, depth):
        """CTEs, the first used twice."""
        name = self.alias("w")
        node, columns = self.query(depth - 1)
        if not self.scope_of(name, columns):
            return node, columns
        outer = self.relations
        cte = Relation(name, columns, 40, "cte")
        parts = [[f"{name} AS ", self.weighted([("", 85), ("MATERIALIZED ", 15)]), "(", node, ")"]]
        self.relations = [cte, cte] + [self.rng.choice(outer)]
        if self.chance(0.3):
            second = self.alias("w")
            other, other_columns = self.query(0)
            parts.append([f"{second} AS (", other, ")"])
            if self.scope_of(second, other_columns):
                self.relations.append(Relation(second, other_columns, 40, "cte"))
        if self.chance(0.4):
            left, right = self.alias(), self.alias()
            from_node, scope = self.join(f"{name} {left}", self.scope_of(left, columns),
                                         f"{name} {right}", self.scope_of(right, columns), False)
            kinds = self.shown_kinds(scope)
            main = ["SELECT ", self.select_list([self.expression(scope, k, 1) for k in kinds]), " FROM ", from_node,
                    self.where(scope)]
            shown = self.named(kinds)
        else:
            main, shown = self.query(0)
        self.relations = outer
        return Alt(["WITH ", Items(", ", parts), " ", main], node), shown

    # -- aggregates

    SUM_KIND = {"float": "float", "rough": "approx"}

    def aggregate(self, scope):
        """An aggregate and the kind of its value."""
        node, kind = self.aggregate_call(scope)
        if self.chance(0.15):
            node = [node, Opt([" FILTER (WHERE ", self.predicate(scope, 1), ")"])]
        return node, kind

    def aggregate_call(self, scope):
        number = self.leaf(scope, "int")
        pick = self.weighted([("count", 16), ("count_column", 8), ("count_distinct", 8), ("sum", 18), ("avg", 8),
                              ("min_max", 14), ("bool", 4), ("spread", 5), ("array", 4), ("string", 4), ("json", 3),
                              ("ordered_set", 4), ("distinct", 3), ("bits", 2), ("own", 3)])
        column, kind = self.column(scope)
        if pick == "count":
            return "count(*)", "int"
        row = self.row(scope)
        if pick == "count_column" and row and self.chance(0.2):
            return f"count({row})", "int"
        if pick == "count_column":
            return f"count({column})", "int"
        if pick == "count_distinct":
            return f"count(DISTINCT {column})", "int"
        if pick == "sum":
            kind = self.weighted([("int", 60), ("num", 25), ("float", 10), ("rough", 5)])
            return ["sum(", self.expression(scope, kind, 1), ")"], self.SUM_KIND.get(kind, "num")
        if pick == "avg":
            kind = self.weighted([("int", 50), ("num", 30), ("float", 15), ("rough", 5)])
            return ["avg(", self.expression(scope, kind, 1), ")"], self.SUM_KIND.get(kind, "num")
        if pick == "min_max":
            kind = kind if kind not in ("bool", "json") else "int"
            return [self.rng.choice(["min(", "max("]), self.expression(scope, kind, 1), ")"], kind
        if pick == "bool":
            return [self.rng.choice(["bool_and(", "bool_or(", "every("]), self.predicate(scope, 1), ")"], "bool"
        if pick == "spread":
            function = self.rng.choice(["stddev", "stddev_pop", "variance", "var_pop"])
            kind = self.weighted([("int", 50), ("num", 30), ("float", 20)])
            return [f"{function}({self.leaf(scope, kind)})"], "approx" if kind == "float" else "num"
        if pick == "array":
            return f"array_agg({number}::int ORDER BY {number})", "ints"
        if pick == "string":
            text = self.leaf(scope, "text")
            return f"string_agg({text}, ',' ORDER BY {text})", "text"
        if pick == "json" and row and self.chance(0.4):
            return f"jsonb_agg({row} ORDER BY {row})", "json"
        if pick == "json":
            return f"jsonb_agg({column} ORDER BY {column})", "json"
        if pick == "ordered_set":
            return self.rng.choice([(f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})", "float"),
                                    (f"percentile_disc(0.3) WITHIN GROUP (ORDER BY {number})", "int"),
                                    (f"mode() WITHIN GROUP (ORDER BY {number})", "int")])
        if pick == "distinct":
            return self.rng.choice([(f"sum(DISTINCT {number})", "num"), (f"avg(DISTINCT {number})", "num")])
        if pick == "bits":
            return self.rng.choice([(f"bit_or({number})", "int"), (f"bit_and({number})", "int")])
        return f"alternating_sum({number}::int ORDER BY {number})", "int"

    def over_aggregate(self, scope):
        """An expression over aggregates: (node, kind)."""
        node, kind = self.aggregate(scope)
        if self.chance(0.75):
            return node, kind
        if kind in ("int", "num"):
            return self.rng.choice([(Alt(["coalesce(", node, ", 0)"], node), kind),
                                    (Alt(["(", node, " + count(*))"], node), kind),
                                    (Alt(["CASE WHEN count(*) > 1 THEN ", node, " END"], node), kind)])
        return node, kind

    def query_group(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        keys = []
        for _ in range(self.weighted([(0, 12), (1, 50), (2, 30), (3, 8)])):
            ref, kind = self.column(scope)
            node = ref
            if self.chance(0.15):
                made = {"int": ([f"({ref} % 2)"], "int"), "text": ([f"lower({ref})"], "text"),
                        "ts": ([f"date_trunc('day', {ref})"], "ts"), "num": ([f"({ref} > 1)"], "bool")}.get(kind)
                node, kind = made or (node, kind)
            if node not in [n for n, _, _ in keys]:
                keys.append((node, kind, self.alias("_")))
        items, kinds = [], []
        for node, kind, tag in keys:
            if self.chance(0.92):
                items.append(Tagged(tag, [node, f" AS c{len(items) + 1}"]))
                kinds.append(kind)
        for _ in range(self.weighted([(1, 45), (2, 35), (3, 20)])):
            node, kind = self.over_aggregate(scope)
            items.append(Tagged(self.alias("_"), [node, f" AS c{len(items) + 1}"]))
            kinds.append(kind)
        if len(keys) > 0 and self.chance(0.04):
            order = Items(", ", [Tagged(tag, node) for node, _, tag in keys])
            items.append(Tagged(self.alias("_"), ["rank() OVER (ORDER BY count(*), ", order,
                                                  f") AS c{len(items) + 1}"]))
            kinds.append("int")
        if not keys and self.chance(0.1):
            self.uses_time = True
            items.append(Tagged(self.alias("_"), f"now() AS c{len(items) + 1}"))
            kinds.append("ts")
        return ["SELECT ", Items(", ", items), " FROM ", from_node, where, self.group_by(keys),
                self.having(scope, keys)], self.named(kinds)

    def group_by(self, keys):
        if not keys:
            return ""
        plain = Items(", ", [Tagged(tag, node) for node, _, tag in keys])
        if self.chance(0.82):
            return [" GROUP BY ", plain]
        pick = self.rng.randrange(4)
        if pick == 0:
            return [" GROUP BY ", Alt(["ROLLUP (", plain, ")"], plain)]
        if pick == 1:
            return [" GROUP BY ", Alt(["CUBE (", plain, ")"], plain)]
        sets = [["(", Items(", ", [Tagged(tag, node) for node, _, tag in keys if self.chance(0.5)], 0), ")"]
                for _ in range(self.rng.randint(1, 3))]
        return [" GROUP BY ", Alt(["GROUPING SETS ((", plain, "), ", Items(", ", sets), ")"], plain)]

    def having(self, scope, keys):
        if not self.chance(0.18):
            return ""
        pick = self.rng.randrange(5)
        if pick == 0:
            condition = ["sum(", self.leaf(scope, "int"), ") > ", self.scalar_subquery([], "int")]
        elif pick == 1 and keys:
            own = [("".join(node), kind) for node, kind, _ in keys]
            condition = self.subquery_predicate(own)
        elif pick == 2:
            node, _ = self.aggregate(scope)
            condition = [node, " IS NOT NULL"]
        else:
            condition = [self.rng.choice(["count(*) > 1", "count(*) < 4", "count(*) % 2 = 0"])]
        return Opt([" HAVING ", condition])


def order_columns(order):
    """References in an order made by Grammar.order()."""
    return [node[0] for node in order.nodes]
