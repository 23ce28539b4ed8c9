"""Aggregates and GROUP BY in random queries."""

from sql_tree import Alt, Items, Opt, Tagged
import values


class Aggregates:
    """Part of Grammar."""

    SUM_KIND = {"float": "float", "rough": "approx", "span": "span"}

    def aggregate(self, scope):
        """An aggregate and the kind of its value."""
        node, kind = self.aggregate_call(scope)
        if self.chance(0.15) and "::text" not in str(node)[-8:]:
            node = [node, Opt([" FILTER (WHERE ", self.predicate(scope, 1), ")"])]
        return node, kind

    def sum_argument(self, scope, weights):
        """What a sum or an average is of, and what it gives."""
        if self.columns_of(scope, "span") and self.chance(0.3):
            weights = [("span", 1)]
        kind = self.weighted(weights)
        return self.expression(scope, kind, 1, self.chance(0.08)), self.SUM_KIND.get(kind, "num")

    def aggregate_call(self, scope):
        number = self.leaf(scope, "int")
        pick = self.weighted([("count", 16), ("count_column", 8), ("count_distinct", 8), ("sum", 18), ("avg", 8),
                              ("min_max", 14), ("bool", 4), ("spread", 5), ("array", 4), ("string", 4), ("json", 3),
                              ("ordered_set", 4), ("distinct", 3), ("bits", 2), ("own", 3), ("two", 1), ("range", 2)])
        column, kind = self.column(scope)
        if pick == "count":
            return "count(*)", "int"
        row = self.row(scope)
        if pick == "count_column" and row and self.chance(0.2):
            return f"count({row})", "int"
        if pick == "count_column":
            return f"count({column})", "int"
        if pick == "count_distinct" and self.chance(0.1):
            return f"count(DISTINCT ({column}, {number}))", "int"
        if pick == "count_distinct":
            return f"count(DISTINCT {column})", "int"
        if pick == "sum":
            argument, kind = self.sum_argument(scope, [("int", 60), ("num", 25), ("float", 10), ("rough", 5)])
            return ["sum(", argument, ")"], kind
        if pick == "avg":
            argument, kind = self.sum_argument(scope, [("int", 50), ("num", 30), ("float", 15), ("rough", 5)])
            return ["avg(", argument, ")"], kind
        if pick == "min_max":
            kind = kind if kind not in ("bool", "json", "comp", "range") + values.UNORDERED else "int"
            return [self.rng.choice(["min(", "max("]), self.expression(scope, kind, 1), ")"], kind
        if pick == "bool":
            return [self.rng.choice(["bool_and(", "bool_or(", "every("]), self.predicate(scope, 1), ")"], "bool"
        if pick == "spread":
            function = self.rng.choice(["stddev", "stddev_pop", "variance", "var_pop"])
            kind = self.weighted([("int", 50), ("num", 30), ("float", 20)])
            return [f"{function}({self.leaf(scope, kind)})"], "approx" if kind == "float" else "num"
        if pick == "array":
            return self.rng.choice([f"array_agg({number}::int ORDER BY {number})", f"array_agg(DISTINCT {number}::int)"]), "ints"
        if pick == "string":
            text = self.leaf(scope, "text")
            return f"string_agg({self.rng.choice(['', 'DISTINCT '])}{text}, ',' ORDER BY {text})", "text"
        if pick == "json" and row and self.chance(0.4):
            return f"jsonb_agg({row} ORDER BY {row})", "json"
        if pick == "json" and kind not in values.ALIKE:
            return f"jsonb_agg({column} ORDER BY {column})", "json"
        if pick == "ordered_set":
            return self.rng.choice([(f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})", "float"),
                                    (f"percentile_disc(0.3) WITHIN GROUP (ORDER BY {number})", "int"),
                                    (f"rank(2) WITHIN GROUP (ORDER BY {number})", "int"),
                                    (f"mode() WITHIN GROUP (ORDER BY {number})", "int")])
        if pick == "distinct":
            return self.rng.choice([(f"sum(DISTINCT {number})", "num"), (f"avg(DISTINCT {number})", "num")])
        if pick == "bits":
            return self.rng.choice([(f"bit_or({number})", "int"), (f"bit_and({number})", "int"), (f"bit_xor({number})", "int")])
        if pick == "two":
            x, y = self.leaf(scope, "float"), self.leaf(scope, "float")
            function = self.rng.choice(["corr", "covar_pop", "regr_count", "regr_slope", "regr_avgx"])
            return f"{function}({x}, {y})", "approx" if function != "regr_count" else "int"
        if pick == "range" and self.columns_of(scope, "range"):
            return f"range_agg({self.rng.choice(self.columns_of(scope, 'range'))})::text", "text"
        return f"alternating_sum({number}::int ORDER BY {number})", "int"

    def over_aggregate(self, scope):
        """An expression over aggregates: (node, kind)."""
        node, kind = self.aggregate(scope)
        if self.chance(0.75):
            return node, kind
        if kind in ("int", "num"):
            return self.rng.choice([(Alt(["coalesce(", node, ", 0)"], node), kind),
                                    (Alt(["(", node, " + count(*))"], node), kind),
                                    (Alt(["(", node, " + ", self.scalar_subquery([], "int"), ")"], node), kind),
                                    (Alt(["CASE WHEN count(*) > 1 THEN ", node, " END"], node), kind)])
        return node, kind

    def group_keys(self, scope):
        """Keys of GROUP BY: [(node, kind, tag)]."""
        keys = []
        for _ in range(self.weighted([(0, 12), (1, 50), (2, 30), (3, 8)])):
            ref, kind = self.column(scope)
            node = ref
            if self.chance(0.15):
                made = {"int": ([f"({ref} % 2)"], "int"), "text": ([f"lower({ref})"], "text"),
                        "ts": ([f"date_trunc('day', {ref})"], "ts"), "num": ([f"({ref} > 1)"], "bool")}.get(kind)
                node, kind = made or (node, kind)
            elif self.chance(0.01):
                node, kind = self.scalar_subquery(scope, "int"), "int"
            if node not in [n for n, _, _ in keys]:
                keys.append((node, kind, self.alias("_")))
        return keys

    def query_group(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        keys = self.group_keys(scope)
        items, kinds = [], []
        for node, kind, tag in keys:
            if self.chance(0.92):
                items.append(Tagged(tag, [node, f" AS c{len(items) + 1}"]))
                kinds.append(kind)

        def show(node, kind):
            items.append(Tagged(self.alias("_"), [node, f" AS c{len(items) + 1}"]))
            kinds.append(kind)

        for _ in range(self.weighted([(1, 45), (2, 35), (3, 20)])):
            show(*self.over_aggregate(scope))
        group_by = self.group_by(keys)
        if keys and self.chance(0.06):
            show(self.over_groups(keys), "int")
        if "(" in str(group_by[:2]) and self.chance(0.3):
            told = keys if self.chance(0.5) else self.rng.sample(keys, self.rng.randint(1, len(keys)))
            show(["GROUPING(", Items(", ", [Tagged(tag, node) for node, _, tag in told]), ")"], "int")
        if self.chance(0.02):
            number = self.leaf(scope, "int")
            show(self.rng.choice([f"unnest(array_agg({number}::int ORDER BY {number}))", "generate_series(1, count(*)::int)"]), "int")
        if not keys and self.chance(0.1):
            self.uses_time = True
            show("now()", "ts")
        return ["SELECT ", Opt("DISTINCT ") if self.chance(0.04) else "", Items(", ", items), " FROM ", from_node, where, group_by,
                self.having(scope, keys)], self.named(kinds)

    def group_by(self, keys):
        if not keys:
            return ""
        plain = Items(", ", [Tagged(tag, node) for node, _, tag in keys])
        if self.chance(0.82):
            return [" GROUP BY ", plain]
        pick = self.rng.randrange(6)
        if pick == 0:
            return [" GROUP BY ", Alt(["ROLLUP (", plain, ")"], plain)]
        if pick == 1:
            return [" GROUP BY ", Alt(["CUBE (", plain, ")"], plain)]
        if pick == 2 and len(keys) > 1:
            first = Tagged(keys[0][2], keys[0][0])
            return [" GROUP BY ", Alt([first, ", ROLLUP (", plain, ")"], plain)]
        if pick == 3:
            return [" GROUP BY ", Alt([self.rng.choice(["", "DISTINCT "]), "ROLLUP (", plain, "), CUBE (", plain, ")"], plain)]
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
            own = [("".join(node), kind) for node, kind, _ in keys if isinstance(node, (str, list)) and "SELECT" not in str(node)]
            condition = self.subquery_predicate(own) if own else "true"
        elif pick == 2:
            node, _ = self.aggregate(scope)
            condition = [node, " IS NOT NULL"]
        else:
            condition = [self.rng.choice(["count(*) > 1", "count(*) < 4", "count(*) % 2 = 0"])]
        return Opt([" HAVING ", condition])

    def query_by_key(self, depth):
        """GROUP BY of a primary key, which determines the other columns of its table."""
        keyed = [r for r in self.relations if r.key]
        if not keyed:
            return self.query_group(depth)
        relation = self.rng.choice(keyed)
        alias = self.alias()
        node, scope = f"{relation.name} {alias}", self.scope_of(alias, relation.columns)
        own = [c for c in scope if not c[0].startswith("(")]
        if self.chance(0.6):
            right, right_scope = self.relation(0, 60)
            node, scope = self.join(node, scope, right, right_scope, 3)
        shown = self.rng.sample(own, min(len(own), self.rng.randint(1, 3)))
        calls = [self.over_aggregate(scope) for _ in range(self.rng.randint(1, 2))]
        return ["SELECT ", self.select_list([ref for ref, _ in shown] + [n for n, _ in calls]), " FROM ", node, self.where(scope),
                f" GROUP BY {alias}.{relation.key}"], self.named([k for _, k in shown] + [k for _, k in calls])
