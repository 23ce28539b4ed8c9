"""Window functions in random queries, and DISTINCT ON, which are alike in that rows may tie."""

from sql_tree import Alt, Items, Opt, Tagged
import values


class Windows:
    """Part of Grammar."""

    def order(self, items):
        return Items(", ", [[item, self.rng.choice(["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"])]
                            for item in items], 0)

    def some(self, items):
        """
        Mostly all of what a total order is made of. With less, rows tie, and the query has answers of which only the
        engine knows which one is meant.
        """
        if len(items) < 2 or self.chance(0.92):
            return items
        self.loose = True
        return items[:self.rng.randrange(1, len(items))]

    def query_distinct_on(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        keys = [self.column(scope)[0] for _ in range(self.weighted([(1, 70), (2, 30)]))]
        kinds = self.sortable_kinds(scope)
        shown = [self.leaf(scope, k) for k in kinds]
        shown[0], kinds[0] = keys[0], dict(scope)[keys[0]]
        rest = [s for s in dict.fromkeys(shown) if s not in keys and s in dict(scope)]
        self.rng.shuffle(rest)
        rest = self.some(rest)
        order = [", ".join(dict.fromkeys(keys)), ", ", self.order(rest)] if rest else ", ".join(keys)
        return ["SELECT ", f"DISTINCT ON ({', '.join(keys)}) ", self.select_list(shown), " FROM ", from_node, where,
                " ORDER BY ", order], self.named(kinds)

    # -- windows

    def window_call(self, scope, order, may_count):
        """
        A window function over a total order, or one that needs none: (node, kind). One that tells rows apart that tie
        only if it may.
        """
        partition = self.rng.sample([c for c, _ in scope], min(len(scope), self.weighted([(0, 15), (1, 60), (2, 25)])))
        by = ["PARTITION BY ", Items(", ", partition)] if partition else ""
        ordered = [by, " ORDER BY ", order]
        pick = self.rng.randrange(11)
        column, kind = self.column(scope)
        number = self.leaf(scope, "int")
        if pick == 0 and may_count and partition and self.chance(0.15):
            self.loose = True
            call = self.rng.choice(["row_number()", f"lag({column})", f"first_value({column})"])
            return [call, " OVER (", by, f" ORDER BY {self.column(scope)[0]})"], kind if column in call else "int"
        if pick == 0 and may_count:
            return [self.rng.choice(["row_number()", "row_number()", "ntile(2)"]), " OVER (", ordered, ")"], "int"
        if pick in (0, 1):
            first = self.column(scope)[0]
            function, function_kind = self.weighted([(("rank", "int"), 4), (("dense_rank", "int"), 4),
                                                     (("cume_dist", "approx"), 1), (("percent_rank", "approx"), 1)])
            return [function, "() OVER (", by, f" ORDER BY {first})"], function_kind
        if pick == 2 and may_count and column in order_columns(order):
            call = self.rng.choice(["lag({})", "lead({})", "nth_value({}, 2)", "lag({}, 2)"]).format(column)
            return [call, " OVER (", ordered, ")"], kind
        if pick == 3 and column in order_columns(order):
            return [self.rng.choice(["first_value", "last_value"]), f"({column}) OVER (", ordered, ")"], kind
        if pick == 4:
            return [f"count({column}) OVER (", by, ")"], "int"
        if pick == 5:
            return [f"sum({number}) OVER (", by, f" ORDER BY {column} RANGE UNBOUNDED PRECEDING)"], "int"
        if pick == 6:
            return [f"max({number}) OVER (", by, ")"], "int"
        if pick == 7:
            return self.framed_call(scope, by, ordered, order if may_count else None)
        if pick == 8:
            return ["count(*)", Opt([" FILTER (WHERE ", self.predicate(scope, 1), ")"]), " OVER (", by, ")"], "int"
        return [f"sum({number}) OVER (", by, ")"], "int"

    def framed_call(self, scope, by, ordered, order):
        """A window aggregate with a frame of its own; by rows only over a total order."""
        number = self.leaf(scope, "int")
        counted = [ref for ref in order_columns(order) if ref in self.columns_of(scope, "int")] if order else []
        if counted and self.chance(0.4):
            frame = self.rng.choice(["1 PRECEDING AND CURRENT ROW", "CURRENT ROW AND 2 FOLLOWING",
                                     "UNBOUNDED PRECEDING AND 1 PRECEDING"])
            return [f"sum({self.rng.choice(counted)}) OVER (", ordered, f" ROWS BETWEEN {frame})"], "int"
        sorted_by = self.column(scope, "int")
        if sorted_by is None:
            return [f"min({number}) OVER (", by, ")"], "int"
        frame = self.rng.choice(["RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING", "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
                                 "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"])
        exclude = self.rng.choice(["", "", " EXCLUDE CURRENT ROW", " EXCLUDE GROUP", " EXCLUDE TIES"])
        return [f"count({number}) OVER (", by, f" ORDER BY {sorted_by[0]} {frame}{exclude})"], "int"

    def query_window(self, depth):
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        scope = [c for c in scope if c[1] not in values.UNORDERED] or scope
        kinds = self.shown_kinds(scope)
        shown = [self.column(scope, k) or self.column(scope) for k in kinds]
        count = self.weighted([(1, 65), (2, 35)])
        has_named = self.chance(0.08)
        # rows that tie in one window may differ in what another one does with them
        order = self.order(list(dict.fromkeys(ref for ref, _ in (scope if has_named or count > 1 else shown))))
        calls = [self.window_call(scope, order, i == 0) for i in range(count)]
        nodes = [ref for ref, _ in shown] + [node for node, _ in calls]
        tail = ""
        if has_named:
            nodes.append(f"count({self.column(scope)[0]}) OVER w")
            calls.append((None, "int"))
            tail = f" WINDOW w AS (PARTITION BY {self.column(scope)[0]})"
        return ["SELECT ", Opt("DISTINCT ") if self.chance(0.06) else "", self.select_list(nodes), " FROM ", from_node, where,
                tail], self.named([k for _, k in shown] + [k for _, k in calls])

    def query_first(self, depth):
        """The row_number() = 1 idiom, and its relatives."""
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        scope = [c for c in scope if c[1] not in values.UNORDERED] or scope
        kinds = self.shown_kinds(scope)
        shown = [self.column(scope, k) or self.column(scope) for k in kinds]
        partition = Items(", ", self.rng.sample([c for c, _ in scope], min(len(scope), self.weighted([(1, 70), (2, 30)]))))
        inner = [ref + f" AS c{i}" for i, (ref, _) in enumerate(shown, 1)]
        function = self.weighted([("row_number", 80), ("rank", 20), ("dense_rank", 3)])
        order = list(dict.fromkeys(ref for ref, _ in shown))
        order = self.order(self.some(order) if function == "row_number" else order)
        condition = self.weighted([("rn = 1", 60), ("rn <= 2", 15), ("rn > 1", 10), ("rn < 2", 4), ("1 = rn", 3), ("rn <= 1", 3),
                                   ("rn = 2", 3), ("rn IN (1, 2)", 2), ("rn BETWEEN 1 AND 1", 2)])
        columns = self.named([k for _, k in shown])
        more = ""
        if self.chance(0.1):
            more = Opt([" AND ", self.predicate([(f"q.{c}", k) for c, k in columns], 1, True)])
        return ["SELECT ", Items(", ", [Tagged(self.alias("_"), c) for c, _ in columns]), " FROM (SELECT ",
                Items(", ", inner + [[function, "() OVER (PARTITION BY ", partition, " ORDER BY ", order, ") AS rn"]]),
                " FROM ", from_node, where, f") q WHERE {condition}", more], columns

    def over_groups(self, keys):
        """A window over the groups of a query, whose keys are (node, kind, tag); a total order of them."""
        order = Items(", ", [Tagged(tag, node) for node, _, tag in keys])
        key = self.rng.choice(keys)
        by = [" PARTITION BY ", Tagged(key[2], key[0])] if self.chance(0.5) else ""
        pick = self.rng.randrange(6)
        if pick == 0:
            return ["rank() OVER (", by, " ORDER BY count(*), ", order, ")"]
        if pick == 1:
            return ["sum(count(*)) OVER (", by, ")"]
        if pick == 2:
            return [self.rng.choice(["row_number()", "ntile(2)", "dense_rank()"]), " OVER (", by, " ORDER BY count(*) DESC, ", order, ")"]
        if pick == 3:
            return [self.rng.choice(["lag", "lead", "first_value"]), "(count(*)) OVER (", by, " ORDER BY ", order, ")"]
        if pick == 4:
            return ["100 * count(*) / sum(count(*)) OVER (", by, ")"]
        return ["max(count(*)) OVER (", by, " ORDER BY ", order, ")"]

    def query_limit(self, depth):
        """The first rows of something, which are told by an order of all that is shown, or shown with those that tie."""
        if self.chance(0.3):
            return self.query_first_by_hidden(depth)
        make = self.weighted([(self.query_plain, 60), (self.query_group, 15), (self.query_distinct, 10), (self.query_set, 15)])
        node, columns = make(depth)
        if "unnest(" in str(node) or any(k in values.UNORDERED + ("approx",) for _, k in columns):
            return node, columns
        pick = self.rng.randrange(10)
        if pick == 0:
            return [node, " ORDER BY ", self.order([columns[0][0]]), f" FETCH FIRST {self.rng.randint(1, 4)} ROWS WITH TIES"], columns
        if pick == 1:
            return [node, " ORDER BY ", self.order([c for c, _ in columns]), f" OFFSET {self.rng.randint(0, 3)}"], columns
        if pick == 2:
            return [node, " ORDER BY ", self.order([c for c, _ in columns]),
                    self.rng.choice([" LIMIT 0", " LIMIT ALL", " LIMIT (SELECT 2)", " LIMIT 1 + 1", " LIMIT NULL OFFSET 0"])], columns
        return [node, " ORDER BY ", self.order(self.some([c for c, _ in columns])), f" LIMIT {self.rng.choice([1, 1, 2, 2, 3, 4, 6])}",
                Opt(f" OFFSET {self.rng.randint(1, 3)}") if self.chance(0.3) else ""], columns

    def query_first_by_hidden(self, depth):
        """The first rows by a column that is not shown, which rows or groups are told by before those that are."""
        from_node, scope = self.from_clause(depth)
        where = self.where(scope)
        groups = self.chance(0.4)
        kinds = [k for k in self.sortable_kinds(scope) if k != "approx"] or ["int"]
        columns = [self.column(scope, k) for k in kinds] if groups else []
        columns = [c if c and c[1] not in values.UNORDERED + ("approx",) else None for c in columns]
        if groups and not all(columns):
            groups = False
        if groups:
            shown, kinds = [c for c, _ in columns], [k for _, k in columns]
            hidden = self.rng.choice(["count(*)", f"count({shown[0]})", f"max({self.leaf(scope, 'int')})",
                                      f"sum({self.leaf(scope, 'int')})", f"count(DISTINCT {self.leaf(scope, 'int')})"])
        else:
            shown = [self.leaf(scope, k) for k in kinds]
            hidden = self.leaf(scope, self.weighted([("int", 60), ("num", 20), ("text", 20)]))
            hidden = f"coalesce({hidden}, {hidden})"        # a bare constant would be the number of a column
        ways = self.rng.choice(["", " DESC", " DESC NULLS LAST", " NULLS FIRST"])
        top = Opt(f" OFFSET {self.rng.randint(1, 3)}") if self.chance(0.3) else ""
        return ["SELECT ", self.select_list(shown), " FROM ", from_node, where,
                " GROUP BY " + ", ".join(dict.fromkeys(shown)) if groups else "",
                " ORDER BY ", hidden, ways, ", ", self.order([c for c, _ in self.named(kinds)]),
                f" LIMIT {self.rng.choice([1, 1, 2, 3, 5])}", top], self.named(kinds)


def order_columns(order):
    """References in an order made by Windows.order()."""
    return [node[0] for node in order.nodes]
