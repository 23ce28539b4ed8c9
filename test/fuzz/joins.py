"""FROM of random queries: relations, joins, what stands to their side, and WHERE."""

from sql_tree import Alt, Items, Opt
import values


class Joins:
    """Part of Grammar."""

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
        if self.chance(0.01):
            return f"generate_series(0, 2) {alias}(i)", [(f"{alias}.i", "int")]
        relation = self.pick_relation(limit)
        only = "ONLY " if relation.kind == "table" and self.chance(0.02) else ""
        return f"{only}{relation.name} {alias}", self.scope_of(alias, relation.columns)

    def from_clause(self, depth):
        count = self.weighted([(1, 45), (2, 30), (3, 14), (4, 6), (5, 3), (6, 1.7), (8, 0.3)])
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
            node, scope = self.join(node, scope, right, right_scope, count)
        if self.chance(0.12):
            node, scope = self.lateral(node, scope)
        return node, scope

    def join(self, left, left_scope, right, right_scope, count):
        """The join of two of `count` relations; of many only such that does not multiply their rows."""
        both = left_scope + right_scope
        many = count > 4
        kind = self.weighted([("JOIN", 45), ("LEFT JOIN", 28), ("RIGHT JOIN", 8), ("FULL JOIN", 11),
                              (",", 0 if many else 5), ("CROSS JOIN", 0 if many else 1)])
        if kind == "CROSS JOIN":
            return Alt([left, " CROSS JOIN ", right], left), both
        equalities = self.correlation(left_scope, right_scope)
        if count == 2 and kind != "," and self.chance(0.25):
            joined = self.join_by_names(left, left_scope, right, right_scope, kind)
            if joined:
                return joined
        if equalities is None:
            return Alt([left, " LEFT JOIN ", right, " ON ", self.predicate(both, 0)], left), both
        conditions = [c for c in equalities if kind != "FULL JOIN" or c[1] == " = "]
        if kind == ",":
            return Alt([left, " JOIN ", right, " ON true"], left), both
        if not many and kind in ("JOIN", "LEFT JOIN") and self.chance(0.04):
            one, other = equalities[0][0], equalities[0][2]
            conditions = [[one, self.rng.choice([" <= ", " > ", " <> "]), other]]
        if self.chance(0.15):
            conditions.append(self.predicate(both if kind != "FULL JOIN" else right_scope, 0))
        return Alt([left, f" {kind} ", right, " ON ", Items(" AND ", conditions or ["true"])], left), both

    def join_by_names(self, left, left_scope, right, right_scope, kind):
        """USING or NATURAL, if there are columns of one name; some are shown by their merged name alone."""
        both = left_scope + right_scope
        right_columns = self.own_columns(right_scope)
        shared = [(c, k) for c, k in self.own_columns(left_scope) if (c, k) in right_columns and k != "raw"]
        if not shared:
            return None
        clashes = {c for c, _ in self.own_columns(left_scope)} & {c for c, _ in right_columns} - {c for c, _ in shared}
        if not clashes and self.chance(0.2):
            return Alt([left, f" NATURAL {kind} ", right], left), both + shared * 2
        names = self.rng.sample(shared, min(len(shared), self.weighted([(1, 70), (2, 30)])))
        using = ", ".join(c for c, _ in names)
        if self.chance(0.15):
            alias = self.alias("u")
            return (Alt([left, f" {kind} ", right, f" USING ({using}) AS {alias}"], left),
                    both + [(f"{alias}.{c}", k) for c, k in names] * 2)
        return Alt([left, f" {kind} ", right, f" USING ({using})"], left), both + names * 2

    @staticmethod
    def own_columns(scope):
        """Bare names of a scope's columns that only one of its relations has."""
        scope = [(ref, k) for ref, k in scope if not ref.startswith("(")]
        names = [ref.split(".")[-1] for ref, _ in scope]
        return [(ref.split(".")[-1], k) for ref, k in scope if names.count(ref.split(".")[-1]) == 1]

    # -- to the side

    def lateral(self, node, scope):
        alias = self.alias("l")
        array = self.column(scope, "ints")
        number = self.column(scope, "int")
        kind = self.rng.choice([" CROSS JOIN LATERAL ", " LEFT JOIN LATERAL "])
        on = " ON true" if kind.startswith(" LEFT") else ""
        if array and self.chance(0.5):
            if self.chance(0.3):
                return (Alt([node, kind, f"unnest({array[0]}) WITH ORDINALITY {alias}(x, n)", on], node),
                        scope + [(f"{alias}.x", "int"), (f"{alias}.n", "big")])
            return Alt([node, kind, f"unnest({array[0]}) {alias}(x)", on], node), scope + [(f"{alias}.x", "int")]
        if number and self.chance(0.4):
            return (Alt([node, kind, f"generate_series(1, least({number[0]}, 3)) {alias}(x)", on], node),
                    scope + [(f"{alias}.x", "int")])
        relation = self.pick_relation(60)
        inner = self.alias("s")
        inner_scope = self.scope_of(inner, relation.columns)
        if on and self.chance(0.2):
            on = [" ON ", self.predicate(scope + self.scope_of(alias, relation.columns), 0)]
        if self.chance(0.4):
            return self.lateral_made(node, scope, f"{relation.name} {inner}", inner_scope, (alias, kind, on))
        rows = [(ref, k) for ref, k in inner_scope if not ref.startswith("(")]
        shown = Items(", ", [c for c, _ in rows])
        order = ", ".join(c for c, k in rows if k not in values.UNORDERED)
        top = Opt([f" ORDER BY {order} LIMIT {self.rng.randint(1, 2)}"]) if "raw" not in dict(relation.columns).values() else ""
        return (Alt([node, kind, "(SELECT ", shown, f" FROM {relation.name} {inner}",
                     self.inner_where(scope, inner_scope, True), top, f") {alias}", on], node),
                scope + self.scope_of(alias, relation.columns))

    def lateral_made(self, node, scope, from_node, inner_scope, place):
        """A lateral subquery that makes something of its rows."""
        alias, kind, on = place
        on = on if isinstance(on, str) else " ON true"
        where = self.inner_where(scope, inner_scope, True)
        column, column_kind = self.column(inner_scope)
        made, kinds = self.rng.choice([
            (["SELECT count(*) AS x FROM ", from_node, where], ["int"]),
            ([f"SELECT count({column}) AS x, min({self.leaf(inner_scope, 'int')}) AS y FROM ", from_node, where,
              Opt(" HAVING count(*) > 1")], ["int", "int"]),
            ([f"SELECT DISTINCT {column} AS x FROM ", from_node, where], [column_kind]),
            ([f"SELECT {column} AS x, count(*) AS y FROM ", from_node, where, f" GROUP BY {column}"], [column_kind, "int"]),
            ([f"SELECT {column} AS x, rank() OVER (ORDER BY {column}) AS y FROM ", from_node, where], [column_kind, "int"]),
            ([f"SELECT {column} AS x FROM ", from_node, where, f" UNION SELECT {column} FROM ", from_node], [column_kind]),
        ])
        return Alt([node, kind, "(", made, f") {alias}", on], node), \
            scope + [(f"{alias}.{name}", k) for name, k in zip("xy", kinds)]

    def where(self, scope):
        conditions = [self.predicate(scope, 2, True)
                      for _ in range(self.weighted([(0, 40), (1, 40), (2, 20)]))]
        if self.chance(0.08) and self.column(scope, "ts"):
            conditions.append(self.moment_condition(scope))
        if self.chance(0.004):
            conditions.append(self.rng.choice(["false", "NULL", "true"]))
        return Opt([" WHERE ", Items(" AND ", conditions)]) if conditions else ""
