"""Expressions of random queries, and the subqueries in them."""

from sql_tree import Alt, Items, Opt
import values

INTEGERS = ("int", "big")


class Expressions:
    """Part of Grammar: choices, expressions, conditions, subqueries of expressions."""

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

    def named_inside(self, scope):
        """Columns whose values show names that are not in them: of attributes, of an enum's labels."""
        return self.columns_of(scope, "comp") + self.columns_of(scope, "mood")

    def column(self, scope, kind=None):
        """A column of the scope, if there is one: (reference, kind). Without a kind one that has an order, if it can be."""
        pool = [c for c in scope if kind is None or c[1] == kind or (kind in INTEGERS and c[1] in INTEGERS)]
        if kind is None:
            pool = [c for c in pool if c[1] not in values.UNORDERED or self.chance(0.05)] or pool
        return self.rng.choice(pool) if pool else None

    def leaf(self, scope, kind):
        columns = self.columns_of(scope, kind)
        return self.rng.choice(columns) if columns and self.chance(0.9) else values.constant(self.rng, kind)

    def scope_of(self, alias, columns):
        if all(k != "approx" for _, k in columns):
            self.whole.add(alias)
        fields = [(f"({alias}.{c}).a", "int") for c, k in columns if k == "comp"]
        return [(f"{alias}.{c}", k) for c, k in columns if k != "approx"] + fields

    def row(self, scope):
        """The alias of something in FROM, if there is one: its row as a whole."""
        aliases = sorted({ref.split(".")[0] for ref, _ in scope if "." in ref} & self.whole)
        aliases = [a for a in aliases if not any(ref.startswith(a + ".") and k in values.ALIKE for ref, k in scope)]
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
                        Opt([" ELSE ", self.scalar_subquery(scope, kind) if subqueries and self.chance(0.15) else again(kind)]),
                        " END"], leaf)
        if pick == 1:
            return Alt(["coalesce(", again(kind), ", ", values.constant(self.rng, kind), ")"], leaf)
        row = self.row(scope) if kind in ("json", "bool") and pick < 4 else None
        if row:
            return Alt(f"to_jsonb({row})" if kind == "json" else f"({row} IS DISTINCT FROM NULL)", leaf)
        made = self.operation(scope, kind, pick, again)
        return Alt(made, leaf) if made else leaf

    def operation(self, scope, kind, pick, again):
        if kind in INTEGERS:
            if self.columns_of(scope, "range") and self.chance(0.5):
                return ["lower(", again("range"), ")"]
            return [["(", again("int"), " + ", again("int"), ")"],
                    self.rng.choice([["(", again("int"), " % 3)"], ["greatest(", again("int"), ", ", again("int"), ")"]]),
                    ["length(", again("text"), ")"], ["cardinality(", again("ints"), ")"]][pick - 2]
        if kind == "text":
            if self.columns_of(scope, "raw") and self.chance(0.5):
                return ["(", self.rng.choice(self.columns_of(scope, "raw")), " ->> 'a')"]
            if self.named_inside(scope) and self.chance(0.5):
                return ["concat(", self.rng.choice(self.named_inside(scope)), ", '')"]
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
        return {"ts": lambda: ["date_trunc('day', ", again("ts"), ")"],
                "ints": lambda: ["ARRAY[", again("int"), "::int, ", again("int"), "::int]"],
                "json": lambda: ["to_jsonb(", self.rng.choice(self.named_inside(scope)), ")"]
                                if self.named_inside(scope) and self.chance(0.6) else
                                ["jsonb_build_object('a', ", again("int"), ")"],
                "span": lambda: ["(", again("span"), " * 2)"],
                "range": lambda: ["(", again("range"), " * '[1,3)')"],
                "comp": lambda: ["pair_of(", again("int"), "::int, ", again("text"), ")"] if self.chance(0.7) else
                                ["ROW(", again("int"), ", ", again("text"), ")::pair"]}.get(kind, lambda: None)()

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

    def moment_condition(self, scope):
        """A condition with now(), if there is a time."""
        moment = self.column(scope, "ts")
        if moment is None:
            return None
        self.uses_time = True
        return [moment[0], self.rng.choice([" > ", " >= ", " > ", " <= "]),
                f"now() - interval '{self.rng.randint(0, 12) * 100} ms'"]

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
        if self.chance(0.02):
            conditions.append(self.moment_condition(inner) or "true")
        return Opt([" WHERE ", Items(" AND ", conditions)]) if conditions else ""

    def subquery_predicate(self, scope):
        from_node, inner = self.inner_from()
        pick = self.rng.randrange(11)
        column = self.column(scope)
        match = self.column(inner, column[1])
        if pick < 4 or match is None:
            return self.exists(scope, from_node, inner)
        if pick < 7:
            where = self.inner_where(scope, inner, self.chance(0.2))
            second = self.column(scope)
            second_match = self.column(inner, second[1])
            negated = self.rng.choice([" IN ", " NOT IN "])
            if second_match and self.chance(0.2):
                return [f"({column[0]}, {second[0]})", negated, f"(SELECT {match[0]}, {second_match[0]} FROM ",
                        from_node, where, ")"]
            return [column[0], negated, self.members(match, from_node, where, inner)]
        if pick == 7:
            return [column[0], self.rng.choice([" = ANY ", " >= ALL ", " < ANY "]), f"(SELECT {match[0]} FROM ",
                    from_node, self.inner_where(scope, inner, self.chance(0.3)), ")"]
        if pick == 8:
            second = self.column(scope)
            second_match = self.column(inner, second[1])
            if second_match:
                shown = f"{match[0]}, {second_match[0]}"
                return [f"({column[0]}, {second[0]})", self.rng.choice([" = ", " <> ", " <= "]), f"(SELECT {shown} FROM ",
                        from_node, self.inner_where(scope, inner, self.chance(0.6)), f" ORDER BY {shown} LIMIT 1)"]
        return [self.leaf(scope, "int"), self.rng.choice([" < ", " >= ", " = "]),
                self.scalar_subquery(scope, "int")]

    def exists(self, scope, from_node, inner):
        """EXISTS, mostly of rows, and sometimes of something made of them."""
        where = self.inner_where(scope, inner, True)
        head, tail = self.weighted([
            (("1", ""), 82), (("count(*)", Opt(" HAVING count(*) > 1")), 5), (("1", " OFFSET 1"), 2),
            (("max({0})", ""), 1), (("{0}", " GROUP BY {0}"), 2), (("{0}", " GROUP BY {0} HAVING count(*) > 1"), 5),
            (("", " LIMIT 1"), 2), (("DISTINCT {0}", " OFFSET 1"), 1)])
        shown = self.column(inner)[0]
        tail = tail.format(shown) if isinstance(tail, str) else tail
        return [self.rng.choice(["", "NOT "]), f"EXISTS (SELECT {head.format(shown)} FROM ", from_node, where, tail, ")"]

    def members(self, match, from_node, where, inner):
        """The subquery of an IN."""
        plain = [f"(SELECT {match[0]} FROM ", from_node, where, ")"]
        pick = self.rng.randrange(24)
        if pick == 0:
            return Alt([f"(SELECT {match[0]} FROM ", from_node, where, f" GROUP BY {match[0]} HAVING count(*) > 1)"], plain)
        if pick == 1 and match[1] not in ("bool", "json", "comp", "range"):
            return Alt([f"(SELECT {self.rng.choice(['min', 'max'])}({match[0]}) FROM ", from_node, where, ")"], plain)
        if pick == 2:
            other = self.column(inner, match[1])
            return Alt([f"(SELECT {match[0]} FROM ", from_node, where,
                        self.rng.choice([" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT "]),
                        f"SELECT {other[0]} FROM ", from_node, ")"], plain)
        if pick == 3:
            return Alt([f"(SELECT {match[0]} FROM ", from_node, where,
                        f" ORDER BY {match[0]} {self.rng.choice(['', 'DESC NULLS LAST '])}LIMIT 2)"], plain)
        if pick == 4 and match[1] == "int" and self.columns_of(inner, "ints"):
            return Alt([f"(SELECT unnest({self.rng.choice(self.columns_of(inner, 'ints'))}) FROM ", from_node, where, ")"], plain)
        return plain

    def scalar_subquery(self, scope, kind):
        from_node, inner = self.inner_from()
        where = self.inner_where(scope, inner, self.chance(0.7))
        argument = self.column(inner, kind)
        number = self.column(inner, "int")
        if kind == "ints" and number and self.chance(0.6):
            return [f"ARRAY(SELECT {number[0]}::int FROM ", from_node, where, f" ORDER BY {number[0]})"]
        if kind in INTEGERS and self.chance(0.15):
            shown = self.column(inner)[0]
            return [f"(SELECT count(*) FROM (SELECT DISTINCT {shown} FROM ", from_node, where, ") q)"]
        if kind in INTEGERS and (argument is None or self.chance(0.4)):
            shown = self.rng.choice(["count(*)", "count(*)", f"count(DISTINCT {self.column(inner)[0]})"])
        elif argument is None or kind in values.UNORDERED:
            return values.constant(self.rng, kind)
        elif kind in ("bool", "json", "ints", "comp", "range") or self.chance(0.3):
            return ["(SELECT ", argument[0], " FROM ", from_node, where, f" ORDER BY {argument[0]} ",
                    self.rng.choice(["", "DESC NULLS LAST "]), self.rng.choice(["LIMIT 1)", "LIMIT 1)", "OFFSET 1 LIMIT 1)"])]
        else:
            shown = f"{self.rng.choice(['min', 'max'])}({argument[0]})"
        return ["(SELECT ", shown, " FROM ", from_node, where, ")"]
