"""Random queries of the part of SQL that refreshes are to be incremental for.

A query has one answer: aggregates that collect rows, windows, DISTINCT ON and
LIMIT are ordered by all that they show, so that rows which tie are equal. Those
few that are not are told by Grammar.loose.
Relations and scopes are lists of columns with a type of values.py that
decides where a column may stand. 'int' and 'big' mix. 'approx' is a float that depends on the order of its
terms: it is shown, and nothing is computed from it.

Grammar(rng, relations).query(depth) gives a tree of sql_tree.py and the
columns c1, c2, ... that it shows.
"""

from aggregates import Aggregates
from expressions import Expressions, INTEGERS
from joins import Joins
from sql_tree import Alt, Items, Opt, Tagged
from windows import Windows
import values


class Relation:
    def __init__(self, name, columns, size, kind, key=None):
        self.name, self.columns, self.size, self.kind = name, columns, size, kind
        self.key = key          # column of the primary key


class Grammar(Expressions, Joins, Aggregates, Windows):
    def __init__(self, rng, relations):
        self.rng = rng
        self.relations = relations
        self.counter = 0
        self.uses_time = False
        self.loose = False      # are there rows that tie where it matters?
        self.used = set()
        self.whole = set()      # aliases whose rows may be shown as a whole

    def query(self, depth=2):
        """A query and its columns [(name, kind)]."""
        kind = self.weighted([("plain", 26), ("group", 29), ("distinct", 6), ("distinct_on", 7), ("window", 8),
                              ("first", 4), ("set", 10), ("limit", 9), ("by_key", 1.5), ("with", 6 if depth > 0 else 0)])
        return getattr(self, "query_" + kind)(depth)

    def query_of_kinds(self, depth, kinds):
        """A query that shows columns of these kinds."""
        kinds = ["float" if k == "approx" else k for k in kinds]
        makers = [(self.query_plain, 55)]
        if not set(kinds) & {"raw", "hashed"}:
            makers += [(self.query_distinct, 20), (self.query_top_kinds, 10)]
        if set(kinds) <= {"int", "big", "text", "num", "date"}:
            makers.append((self.query_grouped_kinds, 40))
        return self.weighted(makers)(depth, list(kinds))

    def query_filtered(self, node, columns):
        """Some rows of another query."""
        name = self.alias("q")
        scope = self.scope_of(name, columns)
        if not scope:
            return node, columns
        return ["SELECT * FROM (", node, f") {name} WHERE ", self.predicate(scope, 1)], columns

    def shown_kinds(self, scope, least=1):
        """What to show: mostly what is there."""
        kinds = [self.column(scope)[1] if self.chance(0.8) else self.some_kind()
                 for _ in range(self.weighted([(1, 15), (2, 35), (3, 35), (4, 15)]))]
        return kinds if len(kinds) >= least else kinds + ["int"]

    def sortable_kinds(self, scope):
        return [k for k in self.shown_kinds(scope) if k not in values.UNORDERED] or ["int"]

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
        unordered = [c for c in scope if c[1] in values.UNORDERED]
        if kinds is None and unordered and self.chance(0.3):
            kinds = self.shown_kinds(scope) + [self.rng.choice(unordered)[1]]
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

    # -- sets

    def query_set(self, depth):
        kinds = [self.weighted([("int", 50), ("text", 30), ("num", 15), ("date", 5)])
                 for _ in range(self.weighted([(1, 35), (2, 45), (3, 20)]))]
        node, columns = self.branch(depth, kinds)
        for _ in range(self.weighted([(1, 75), (2, 25)])):
            other, _ = self.branch(depth, kinds)
            operator = self.weighted([("UNION ALL", 40), ("UNION", 15), ("INTERSECT", 10), ("INTERSECT ALL", 8),
                                      ("EXCEPT", 14), ("EXCEPT ALL", 13)])
            sides = [node, other] if self.chance(0.8) else [other, node]
            node = Alt(["(", sides[0], f") {operator} (", sides[1], ")"], node, other)
        return node, columns

    def branch(self, depth, kinds):
        make = self.weighted([(self.query_plain, 57), (self.query_distinct, 15), (self.query_grouped_kinds, 25),
                              (self.query_top_kinds, 3)])
        return make(depth - 1, list(kinds))

    def query_top_kinds(self, depth, kinds):
        node, columns = self.query_plain(depth, kinds)
        if "unnest(" in str(node):
            return node, columns
        return [node, " ORDER BY ", self.order([c for c, _ in columns]), f" LIMIT {self.rng.randint(1, 4)}"], columns

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

    # -- WITH

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
                                         f"{name} {right}", self.scope_of(right, columns), 3)
            kinds = self.shown_kinds(scope)
            main = ["SELECT ", self.select_list([self.expression(scope, k, 1) for k in kinds]), " FROM ", from_node,
                    self.where(scope)]
            shown = self.named(kinds)
        else:
            main, shown = self.query(0)
        self.relations = outer
        return Alt(["WITH ", Items(", ", parts), " ", main], node), shown
