#!/usr/bin/env python3
"""Check the vectors against the producer in Python and against Postgres.

Prints TAP without a plan; run.sh adds it. PGHOST, PGPORT, PGDATABASE and
PGUSER name a running server with the extension created in that database;
the user may create databases.
"""

import json
import pathlib
import random
import struct
import sys
import traceback

import hash_key
import postgres
import xxh

HERE = pathlib.Path(__file__).parent

# Whatever changes the text of values anywhere must not change a key.
STRANGE_SETTINGS = {
    "bytea_output": "escape",
    "datestyle": "german",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
}


def load(name):
    with open(HERE / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def differences(pairs):
    """Complain about pairs of (what, expected, actual) that are not equal."""
    wrong = [f"{what}: expected {expected}, got {actual}" for what, expected, actual in pairs if expected != actual]
    if wrong:
        raise AssertionError("\n".join(wrong[:10] + [f"{len(wrong)} differences"]))


def expected_key(vector):
    return [vector["encoding"], vector["hash_key"], vector["hash_key_uuid"]]


def postgres_keys(vectors, database=None, settings=None):
    statements = "".join(
        "SELECT encode(medallion.hash_key_encoding({0}), 'hex'),"
        " medallion.hash_key({0}), medallion.hash_key_uuid({0});\n".format(vector["sql"])
        for vector in vectors
    )
    rows = postgres.run(statements, database, settings)
    assert len(rows) == len(vectors), f"{len(rows)} rows for {len(vectors)} vectors"
    return rows


def check_postgres(vectors, database=None, settings=None):
    assert vectors
    rows = postgres_keys(vectors, database, settings)
    differences((vector["sql"], expected_key(vector), row) for vector, row in zip(vectors, rows))


def check_hash_functions():
    """Values published with xxHash, and by its library when that is there."""
    data = b"xxhash"
    differences([
        ("XXH64 of nothing", 0xEF46DB3751D8E999, xxh.xxh64(b"")),
        ("XXH64 of xxhash", 0x32DD38952C4BC720, xxh.xxh64(data)),
        ("XXH64 of xxhash, seed 20141025", 0xB559B98D844E0635, xxh.xxh64(data, 20141025)),
        ("XXH3 of nothing", 0x99AA06D3014798D86001C324468D497F, xxh.xxh3_128(b"")),
    ])
    try:
        import xxhash
    except ImportError:
        return
    for n in list(range(300)) + [1023, 1024, 1025, 1088, 1089, 2049, 5000]:
        data = bytes((i * i + n) % 251 for i in range(n))
        differences([
            (f"XXH64 of {n} bytes", xxhash.xxh64_intdigest(data, 42), xxh.xxh64(data, 42)),
            (f"XXH3 of {n} bytes", xxhash.xxh3_128_intdigest(data), xxh.xxh3_128(data)),
        ])


def check_producer(vectors):
    def keys(vector):
        encoding = hash_key.encode(vector["values"])
        return [encoding.hex(), str(hash_key.hash_key(vector["values"])), str(hash_key.hash_key_uuid(vector["values"]))]

    differences((vector["sql"], expected_key(vector), keys(vector)) for vector in vectors)


def check_distinct(vectors):
    """Vectors have one key exactly when they have one encoding."""
    encodings = {vector["encoding"] for vector in vectors}
    for column in ("hash_key", "hash_key_uuid"):
        keys = {vector[column] for vector in vectors}
        differences([(f"distinct values of {column}", len(encodings), len(keys))])


def random_numbers(generator):
    for _ in range(500):
        yield "float8", repr(struct.unpack("<d", generator.randbytes(8))[0]).replace("nan", "NaN")
        yield "float8", repr(round(generator.uniform(-1e6, 1e6), generator.randrange(12)))
        yield "float8", repr(float(generator.randrange(-(2**64), 2**64)))
        digits = generator.randrange(1, 40)
        sign = generator.choice(["", "-"])
        exponent = generator.randrange(-30, 30)
        yield "numeric", f"{sign}{generator.randrange(10**digits)}e{exponent}"
        yield "numeric", f"{sign}{generator.randrange(2**60, 2**64)}"
        yield "integer", str(generator.randrange(-(2**63), 2**63))


def check_random_numbers():
    """Producer and Postgres agree on numbers that nobody picked."""
    numbers = list(random_numbers(random.Random(42)))
    sql = "".join(
        f"SELECT encode(medallion.hash_key_encoding('{text}'::{'bigint' if kind == 'integer' else kind}), 'hex');\n"
        for kind, text in numbers
    )
    rows = postgres.run(sql)
    differences(
        (f"{kind} {text}", hash_key.encode([(kind, text)]).hex(), row[0]) for (kind, text), row in zip(numbers, rows)
    )
    assert len(rows) == len(numbers)


def check_spark_vectors(vectors, settings=None):
    assert vectors
    rows = postgres.run(
        "".join(f"SELECT medallion.xxhash64({vector['postgres']});\n" for vector in vectors), None, settings
    )
    differences((vector["postgres"], vector["xxhash64"], row[0]) for vector, row in zip(vectors, rows))
    assert len(rows) == len(vectors)


def has_latin1(vector):
    try:
        vector["sql"].encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def check_database(encoding, vectors):
    with postgres.TemporaryDatabase(encoding) as database:
        check_postgres(vectors, database)


def main():
    vectors = load("hash_key_vectors.jsonl")
    latin1 = [vector for vector in vectors if has_latin1(vector)]
    spark = load("spark_vectors.jsonl")
    checks = [
        ("hash functions in Python have their published values", check_hash_functions),
        (f"producer makes {len(vectors)} hash_key vectors", lambda: check_producer(vectors)),
        ("keys are distinct where encodings are", lambda: check_distinct(vectors)),
        ("Postgres makes the hash_key vectors", lambda: check_postgres(vectors)),
        ("Postgres makes them under other settings", lambda: check_postgres(vectors, settings=STRANGE_SETTINGS)),
        (f"a database in LATIN1 makes {len(latin1)} of them", lambda: check_database("LATIN1", latin1)),
        ("a database in SQL_ASCII makes them", lambda: check_database("SQL_ASCII", vectors)),
        ("producer and Postgres agree on random numbers", check_random_numbers),
        (f"Postgres makes {len(spark)} xxhash64 vectors of Spark", lambda: check_spark_vectors(spark)),
        ("Postgres makes them under other settings", lambda: check_spark_vectors(spark, STRANGE_SETTINGS)),
    ]
    failed = False
    for number, (name, check) in enumerate(checks, 1):
        try:
            check()
            print(f"ok {number} - {name}", flush=True)
        except Exception as error:
            failed = True
            print(f"not ok {number} - {name}", flush=True)
            trace = "" if isinstance(error, AssertionError) else traceback.format_exc()
            for line in f"{error}\n{trace}".splitlines():
                print(f"# {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
