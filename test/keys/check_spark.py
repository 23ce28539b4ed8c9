#!/usr/bin/env python3
"""Check that Spark still computes the hashes in spark_vectors.jsonl.

Needs pyspark and Java. Prints differences and exits with 1 if there are any.
"""

import json
import pathlib
import sys

import make_spark_vectors


def main():
    path = pathlib.Path(__file__).with_name("spark_vectors.jsonl")
    vectors = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    results = make_spark_vectors.hashes([vector["spark"] for vector in vectors])
    wrong = 0
    for vector, result in zip(vectors, results):
        if vector["xxhash64"] != result:
            wrong += 1
            print(f"xxhash64({vector['spark']}): expected {vector['xxhash64']}, got {result}")
    return 1 if wrong or len(results) != len(vectors) or not vectors else 0


if __name__ == "__main__":
    sys.exit(main())
