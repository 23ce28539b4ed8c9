#!/usr/bin/env python3
"""Write hash_key_vectors.jsonl, from the producer in hash_key.py.

One JSON object per line: "sql" is an argument list for Postgres, "values" are
the same values as pairs of type and value for producers in other languages,
"encoding" is the bytes in hexadecimal, "hash_key" a string (it has 64 bits)
and "hash_key_uuid" the two keys. Postgres has no part in making the file.
"""

import json
import pathlib
import sys

import hash_key

ALPHABET = "the quick brown fox jumps over the lazy dog 0123456789 THE QUICK BROWN FOX"

DAY_US = 86400 * 10**6


def day_number(year, month, day):
    """Day since 1970-01-01 of the Gregorian calendar, in years beyond Python's too."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month - 3) % 12) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def scalar_cases():
    yield "NULL::text", [("text", None)]
    yield "NULL", [("text", None)]
    yield "true", [("boolean", True)]
    yield "false", [("boolean", False)]
    yield "'00112233-4455-6677-8899-aabbccddeeff'::uuid", [("uuid", "00112233-4455-6677-8899-aabbccddeeff")]
    yield "'10.1.2.3'::inet", [("inet", "10.1.2.3/32")]
    yield "'10.1.2.3/8'::inet", [("inet", "10.1.2.3/8")]
    yield "'10.0.0.0/8'::cidr", [("inet", "10.0.0.0/8")]
    yield "'2001:db8::1/64'::inet", [("inet", "2001:db8::1/64")]
    yield "'08:00:2b:01:02:03'::macaddr", [("macaddr", "08:00:2b:01:02:03")]
    yield "'08:00:2b:01:02:03:04:05'::macaddr8", [("macaddr", "08:00:2b:01:02:03:04:05")]
    for bits in ("", "1", "10000000", "101010101"):
        yield f"B'{bits}'::varbit", [("bit", bits)]
    yield "B'101'::bit(5)", [("bit", "10100")]


def number_cases():
    for value in (0, 1, -1, 127, 128, 32767, -32768, 2**31 - 1, -(2**31)):
        yield f"({value})::int", [("integer", value)]
    for value in (0, 1, -1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)):
        yield f"({value})::bigint", [("integer", value)]
    yield "1::smallint", [("integer", 1)]
    for text in (
        "1.0", "1.00", "100", "0", "0.000", "-0.1", "0.1", "12.340", "-12345.678", "1e20", "1e-20", "123e100",
        "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
        "10000000000000000000", "99999999999999999999.5", "0.1000000000000000055511151231257827",
        "1e18", "1e19", "NaN", "Infinity", "-Infinity",
    ):
        yield f"'{text}'::numeric", [("numeric", text)]
    for text in (
        "0", "-0", "1", "-1", "0.1", "0.5", "-2.25", "0.30000000000000004", "1e15", "1e22", "1e23", "1e300",
        "123456789.123456", "9007199254740992", "9007199254740993", "9223372036854775807", "-9223372036854775808",
        "1152921504606846976", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "1e-7",
        "4503599627370495.5", "NaN", "Infinity", "-Infinity",
    ):
        yield f"'{text}'::float8", [("float8", text)]
    for text in ("0", "-0", "1", "0.5", "0.1", "16777217", "3.4028235e38", "1e-45", "NaN", "-Infinity"):
        yield f"'{text}'::float4", [("float4", text)]


def string_cases():
    for n in range(71):
        text = ALPHABET[:n]
        yield quoted(text), [("text", text)]
        data = bytes((i * 37 + 11) % 256 for i in range(n))
        yield f"'\\x{data.hex()}'::bytea", [("bytea", data.hex())]
    for n in (127, 128, 129, 239, 240, 241, 511, 512, 513, 1024, 1025, 5000):
        yield f"repeat('abc', {n})", [("text", "abc" * n)]
    for text in ("é", "e\u0301", "ß", "中文", "日本語テキスト", "🦆", "a\tb\nc", "it's", "  two  ", "Ω≈ç√∫"):
        yield quoted(text) + "::text", [("text", text)]
    yield "'ab   '::char(5)", [("text", "ab")]
    yield "'ab   '::varchar(5)", [("text", "ab   ")]
    yield "'ab'::name", [("text", "ab")]


def time_cases():
    for text in ("1970-01-01", "1969-12-31", "2000-01-01", "2024-02-29", "0001-01-01", "9999-12-31"):
        yield f"date '{text}'", [("date", text)]
        yield f"timestamp '{text} 12:34:56.789012'", [("timestamp", f"{text}T12:34:56.789012")]
        yield f"timestamptz '{text} 12:34:56.789012+00'", [("timestamptz", f"{text}T12:34:56.789012+00:00")]
    for text in ("infinity", "-infinity"):
        for kind in hash_key.DATE_LIKE:
            yield f"{kind} '{text}'", [(kind, text)]
    yield "timestamp '2024-02-29'", [("timestamp", "2024-02-29")]
    yield "timestamptz '2024-07-01 12:00:00+02'", [("timestamptz", "2024-07-01T12:00:00+02:00")]
    yield "date '4713-01-01 BC'", [("date", [day_number(-4712, 1, 1), 0])]
    yield "date '5874897-12-31'", [("date", [day_number(5874897, 12, 31), 0])]
    yield "timestamp '294276-12-31 23:59:59.999999'", [("timestamp", [day_number(294276, 12, 31), DAY_US - 1])]
    for text, value in (("00:00", 0), ("24:00", DAY_US), ("12:34:56.789012", 45296789012)):
        yield f"time '{text}'", [("time", value)]
    yield "'12:00+02'::timetz", [("timetz", [DAY_US // 2, 7200])]
    yield "'12:00:00.5-03:30'::timetz", [("timetz", [DAY_US // 2 + 500000, -12600])]
    for text, value in (
        ("1 month", [1, 0, 0]), ("30 days", [0, 30, 0]), ("720 hours", [0, 0, 30 * DAY_US]),
        ("-1 day", [0, -1, 0]), ("-1 microsecond", [0, 0, -1]), ("0", [0, 0, 0]), ("178000000 years", [2136000000, 0, 0]),
    ):
        yield f"interval '{text}'", [("interval", value)]


def document_cases():
    for text in (
        "null", "true", "1", "1.0", "\"a\"", "[]", "{}", "[1]", "[[1], 2.50, null, \"x\"]", "1e400",
        "{\"b\": 1, \"a\": 2}", "{\"aa\": 1, \"b\": {\"c\": [1, {\"d\": false}]}, \"\": \"é\"}", "{\"a\": 1, \"a\": 2}",
        "{\"é\": 1, \"zz\": 2, \"zzz\": 3, \"y\": 4}",
    ):
        yield quoted(text) + "::jsonb", [("jsonb", text)]


def nested_cases():
    one, two, missing = ("integer", 1), ("integer", 2), ("integer", None)
    yield "ARRAY[1, 2]", [("array", {"dimensions": [[2, 1]], "elements": [one, two]})]
    yield "ARRAY[1, NULL, 2]::bigint[]", [("array", {"dimensions": [[3, 1]], "elements": [one, missing, two]})]
    yield "'{}'::text[]", [("array", {"dimensions": [], "elements": []})]
    yield "'[0:1]={1,2}'::int[]", [("array", {"dimensions": [[2, 0]], "elements": [one, two]})]
    yield "ARRAY[[1, 2], [2, 1]]", [("array", {"dimensions": [[2, 1], [2, 1]], "elements": [one, two, two, one]})]
    yield "ROW(1, 'a', NULL)", [("row", [one, ("text", "a"), ("text", None)])]
    yield "ROW(ROW(1), ARRAY['a'])", [
        ("row", [("row", [one]), ("array", {"dimensions": [[1, 1]], "elements": [("text", "a")]})])
    ]
    yield "int4range(1, 2)", [("range", [one, two, "[)"])]
    yield "numrange(1.0, 2.00, '[]')", [("range", [one, two, "[]"])]
    yield "numrange(NULL, 2, '()')", [("range", [None, two, "()"])]
    yield "numrange(NULL, NULL)", [("range", [None, None, "()"])]
    yield "'empty'::int8range", [("range", "empty")]
    yield "'{[1,2)}'::int4multirange", [("multirange", [[one, two, "[)"]])]
    yield "'{}'::int4multirange", [("multirange", [])]


def tuple_cases():
    a, b, none = ("text", "a"), ("text", "b"), ("text", None)
    yield "'a', 'b'", [a, b]
    yield "'b', 'a'", [b, a]
    yield "'ab'", [("text", "ab")]
    yield "'ab', ''", [("text", "ab"), ("text", "")]
    yield "'', 'ab'", [("text", ""), ("text", "ab")]
    yield "'a-', 'b'", [("text", "a-"), b]
    yield "'a', '-b'", [a, ("text", "-b")]
    yield "'a', NULL", [a, none]
    yield "NULL, 'a'", [none, a]
    yield "NULL, NULL", [none, none]
    yield "'1', 1", [("text", "1"), ("integer", 1)]
    yield "'DE', 4711, date '2024-02-29'", [("text", "DE"), ("integer", 4711), ("date", "2024-02-29")]
    yield "VARIADIC ARRAY['a', 'b']", [a, b]
    yield "VARIADIC '{}'::text[]", []
    yield "VARIADIC ARRAY['a', NULL]", [a, none]
    yield ", ".join(str(i) for i in range(100)), [("integer", i) for i in range(100)]


def vectors():
    for cases in (
        scalar_cases, number_cases, string_cases, time_cases, document_cases, nested_cases, tuple_cases,
    ):
        for sql, values in cases():
            encoding = hash_key.encode(values)
            yield {
                "sql": sql,
                "values": values,
                "encoding": encoding.hex(),
                "hash_key": str(hash_key.key_of_bytes(encoding)),
                "hash_key_uuid": str(hash_key.uuid_of_bytes(encoding)),
            }


def main():
    path = pathlib.Path(__file__).with_name("hash_key_vectors.jsonl")
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for vector in vectors():
            file.write(json.dumps(vector, ensure_ascii=False) + "\n")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
