"""Values of the columns of random tables.

Domains are small, so that keys collide, groups fill and empty, and equal rows
meet. Each has NULL, and the values at which sums, comparisons and equality
are peculiar: 1.0 and 1.00, an infinite sum, -0.0, 'a' beside 'A', an empty
array, a day and 24 hours, a text longer than an index entry.
"""

# type of the grammar: type of the column
SQL_TYPES = {
    "int": "int", "big": "bigint", "text": "text", "num": "numeric", "float": "float8", "bool": "bool",
    "rough": "float8",
    "date": "date", "ts": "timestamptz", "ints": "int[]", "json": "jsonb",
    "dom": "label", "comp": "pair", "mood": "mood", "ci": "text COLLATE ci", "span": "interval", "range": "int4range",
    "long": "text", "raw": "json", "hashed": "xid",
}

# what makes types that a server does not have
TYPE_SETUP = {
    "dom": "CREATE DOMAIN label AS text CHECK (length(value) < 9)",
    # made by functions, which give the same when the type has another attribute or label
    "comp": "CREATE TYPE pair AS (a int, b text);"
            " CREATE FUNCTION pair_of(int, text) RETURNS pair LANGUAGE plpgsql IMMUTABLE AS"
            " 'DECLARE made fuzz.pair; BEGIN made.a := $1; made.b := $2; RETURN made; END'",
    "mood": "CREATE TYPE mood AS ENUM ('low', 'mid', 'high');"
            " CREATE FUNCTION mood_of(int) RETURNS mood IMMUTABLE RETURN (enum_range(NULL::mood))[$1]",
    "ci": "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "long": "CREATE FUNCTION long_text(n int) RETURNS text LANGUAGE sql IMMUTABLE AS"
            " $$SELECT string_agg(md5(n || '.' || i), '') FROM generate_series(1, 120) i$$",
}

UNORDERED = ("raw", "hashed")       # types that cannot be sorted; the first cannot even be compared
ALIKE = ("ci", "span") + UNORDERED  # equal values may look different, in JSON say

_DOMAINS = {
    "int": ["0", "1", "1", "2", "2", "3", "4", "-1"],
    "big": ["0", "1", "2", "3", "5", "-2"],
    "text": ["'a'", "'a'", "'b'", "'c'", "''", "'A'"],
    "num": ["1.0", "1.00", "2.5", "-3", "0.1", "0"],
    "float": ["0.5", "1.25", "-2", "0.25", "3", "'-0'"],    # sums of these are exact
    "rough": ["0.1", "0.3", "-0.7", "1e-3"],
    "bool": ["true", "false"],
    "date": ["'2026-03-01'", "'2026-03-02'", "'2026-03-29'", "'2026-04-01'"],
    "ints": ["'{}'", "'{1}'", "'{1,2}'", "'{2,2,NULL}'", "'{3,1}'"],
    "json": ["'{}'", "'{\"a\": 1}'", "'[1, 2]'", "'null'", "'\"a\"'", "'{\"a\": 1.0}'"],
    "dom": ["'a'", "'b'", "''"],
    "comp": ["pair_of(1, 'a')", "pair_of(1, '')", "pair_of(NULL, NULL)", "pair_of(2, 'b')", "pair_of(NULL, 'a')"],
    "mood": ["mood_of(1)", "mood_of(2)", "mood_of(3)"],
    "ci": ["'a'", "'A'", "'b'", "'B'", "''"],
    "span": ["'1 day'", "'24:00'", "'2 days'", "'-1 day'", "'0'"],
    "range": ["'empty'", "'[1,3)'", "'[1,2]'", "'(,2)'", "'[2,5)'"],
    "long": ["long_text(1)", "long_text(1)", "long_text(2)", "'a'"],
    "raw": ["'{\"a\": 1}'", "'{\"a\":1}'", "'[]'", "'{\"a\": \"b\"}'"],
    "hashed": ["'1'", "'2'", "'3'"],
}
_RARE = {"num": ["'NaN'", "'Infinity'", "1e20"], "float": ["'NaN'", "'Infinity'", "'-Infinity'", "1e15"]}


def value(rng, kind):
    """One value as SQL, without its type."""
    if rng.random() < 0.15:
        return "NULL"
    if kind in _RARE and rng.random() < 0.03:
        return rng.choice(_RARE[kind])
    if kind == "ts":
        # some within the few seconds that a round takes, for filters on now()
        if rng.random() < 0.4:
            return f"now() + interval '{rng.randint(-20, 10) * 100} ms'"
        return rng.choice(["'2026-03-01 00:30+00'", "'2026-03-01 23:30+00'", "'2026-03-29 00:59+00'",
                           "'2026-03-29 01:30+00'"])
    return rng.choice(_DOMAINS[kind])


def constant(rng, kind):
    """One value as SQL that has the type by itself."""
    if kind == "ts":
        return "'2026-03-29 00:59+00'::timestamptz"
    text = rng.choice(_DOMAINS[kind])
    if kind == "ci":
        return f"({text}::{SQL_TYPES[kind]})"
    return text if kind in ("int", "bool", "long", "comp", "mood") else f"{text}::{SQL_TYPES[kind]}"
