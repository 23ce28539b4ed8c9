#!/usr/bin/env python3
"""Write spark_vectors.jsonl with the hashes that Spark computes.

Needs pyspark and Java. One JSON object per line: "spark" is an argument list
in Spark SQL, "postgres" the same values in Postgres, "xxhash64" the result of
Spark's function of that name, as a string (it has 64 bits).
"""

import json
import pathlib
import sys

ALPHABET = "the quick brown fox jumps over the lazy dog 0123456789 THE QUICK BROWN FOX"

DECIMALS = (
    ("0", 10, 2), ("0.00", 18, 2), ("1.5", 10, 2), ("-1.5", 10, 2), ("1.50", 10, 3), ("99999999.99", 10, 2),
    ("123456789012345678", 18, 0), ("-123456789012345678", 18, 0), ("0.123456789012345678", 18, 18),
    ("1", 19, 0), ("-1", 19, 0), ("0", 19, 0), ("127", 19, 0), ("128", 19, 0), ("-128", 19, 0), ("-129", 19, 0),
    ("255", 38, 0), ("256", 38, 0), ("32767", 38, 0), ("32768", 38, 0), ("-32768", 38, 0), ("-32769", 38, 0),
    ("1.5", 20, 2), ("-1.5", 38, 10), ("12345678901234567890.123456789", 38, 9),
    ("99999999999999999999999999999999999999", 38, 0), ("-99999999999999999999999999999999999999", 38, 0),
    ("9223372036854775807", 19, 0), ("9223372036854775808", 19, 0), ("-9223372036854775809", 20, 0),
    ("0.00000000000000000000000000000000000001", 38, 38),
)


def integer_cases():
    for value in (0, 1, -1, 127, -128):
        yield f"cast({value} as tinyint)", f"({value})::smallint"
    for value in (0, 1, -1, 32767, -32768):
        yield f"cast({value} as smallint)", f"({value})::smallint"
    for value in (0, 1, -1, 42, 2**31 - 1, -(2**31)):
        yield f"cast({value} as int)", f"({value})::int"
    for value in (0, 1, -1, 42, 2**32, 2**63 - 1, -(2**63)):
        yield f"cast('{value}' as bigint)", f"'{value}'::bigint"
    for value in ("true", "false"):
        yield value, value


def float_cases():
    for spark, postgres in (("float", "float4"), ("double", "float8")):
        for text in ("0", "-0.0", "1", "-1.5", "0.1", "NaN", "Infinity", "-Infinity", "1e30", "1e-30"):
            yield f"cast('{text}' as {spark})", f"'{text}'::{postgres}"
    yield "cast('5e-324' as double)", "'5e-324'::float8"
    yield "cast('1.7976931348623157e308' as double)", "'1.7976931348623157e308'::float8"


def decimal_cases():
    for text, precision, scale in DECIMALS:
        yield f"cast('{text}' as decimal({precision},{scale}))", f"'{text}'::numeric({precision},{scale})"
    yield "cast(null as decimal(10,2))", "NULL::numeric(10,2)"


def string_cases():
    for n in range(71):
        yield f"'{ALPHABET[:n]}'", f"'{ALPHABET[:n]}'::text"
        data = bytes((i * 37 + 11) % 256 for i in range(n)).hex()
        yield f"X'{data}'", f"'\\x{data}'::bytea"
    for n in (100, 241, 1000):
        yield f"repeat('abc', {n})", f"repeat('abc', {n})"
    for text in ("é", "ß", "中文", "日本語テキスト", "🦆", "Ω≈ç√∫", "  two  "):
        yield f"'{text}'", f"'{text}'"
    # a cast to char(n) is one to string in Spark; its columns of that type hold the blanks
    yield "rpad('ab', 5, ' ')", "'ab'::char(5)"
    yield "cast('ab' as varchar(5))", "'ab'::varchar(5)"


def time_cases():
    for text in ("1970-01-01", "1969-12-31", "2000-01-01", "2024-02-29", "0001-01-01", "9999-12-31"):
        yield f"date'{text}'", f"date '{text}'"
        yield f"timestamp'{text} 12:34:56.789012Z'", f"timestamptz '{text} 12:34:56.789012+00'"
        yield f"timestamp_ntz'{text} 12:34:56.789012'", f"timestamp '{text} 12:34:56.789012'"
    yield "timestamp'1969-12-31 23:59:59.999999Z'", "timestamptz '1969-12-31 23:59:59.999999+00'"
    yield "timestamp'2024-07-01 12:00:00+02:00'", "timestamptz '2024-07-01 12:00:00+02'"
    yield "make_interval(1, 2, 0, 3, 4, 5, 6.789)", "make_interval(1, 2, 0, 3, 4, 5, 6.789)"
    yield "make_interval(0, -1, 0, 1, 0, 0, 0)", "make_interval(0, -1, 0, 1, 0, 0, 0)"


def list_cases():
    yield "'a', 1", "'a', 1"
    yield "1, 'a'", "1, 'a'"
    yield "'a', 'b'", "VARIADIC ARRAY['a', 'b']"
    yield "'ab', ''", "'ab', ''"
    yield "cast(null as string)", "NULL"
    yield "cast(null as string), 'a'", "NULL, 'a'"
    yield "'a', cast(null as int)", "'a', NULL::int"
    yield "cast(null as int), cast(null as double)", "NULL::int, NULL::float8"
    yield "array(1, 2, 3)", "ARRAY[1, 2, 3]"
    yield "array(1, null, 3)", "ARRAY[1, NULL, 3]"
    yield "cast(array() as array<int>)", "'{}'::int[]"
    yield "array(array('a'), array('b'))", "ARRAY[ARRAY['a'], ARRAY['b']]"
    yield "array(cast('1.50' as decimal(10,2)))", "ARRAY['1.50']::numeric(10,2)[]"
    yield "named_struct('x', 1, 'y', 'a', 'z', cast(null as int))", "ROW(1, 'a', NULL)"
    yield "named_struct('x', array('a', 'b'), 'y', named_struct('z', 2L))", "ROW(ARRAY['a', 'b'], ROW(2::bigint))"
    yield "'DE', 4711, cast('12.34' as decimal(12,2)), date'2024-02-29'", (
        "'DE', 4711, 12.34::numeric(12,2), date '2024-02-29'"
    )


def cases():
    for group in (integer_cases, float_cases, decimal_cases, string_cases, time_cases, list_cases):
        yield from group()


def hashes(spark_arguments):
    """What Spark says, for argument lists of xxhash64 in order."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    try:
        columns = ", ".join(f"xxhash64({arguments}) AS c{i}" for i, arguments in enumerate(spark_arguments))
        return [str(value) for value in session.sql(f"SELECT {columns}").first()]
    finally:
        session.stop()


def main():
    path = pathlib.Path(__file__).with_name("spark_vectors.jsonl")
    pairs = list(cases())
    results = hashes([spark for spark, _ in pairs])
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for (spark, postgres), result in zip(pairs, results):
            vector = {"spark": spark, "postgres": postgres, "xxhash64": result}
            file.write(json.dumps(vector, ensure_ascii=False) + "\n")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
