"""Queries through psql, so that the checks need no driver."""

import os
import subprocess


def run(sql, database=None, settings=None):
    """Rows that the statements return, as lists of strings. Raises on an error."""
    environment = dict(os.environ, PGCLIENTENCODING="UTF8")
    if settings:
        environment["PGOPTIONS"] = " ".join(f"-c {name}={value}" for name, value in settings.items())
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=|"]
    command += ["--set=ON_ERROR_STOP=1", "--file=-"]
    if database:
        command.append(f"--dbname={database}")
    process = subprocess.run(command, input=sql.encode("utf-8"), env=environment, capture_output=True)
    if process.returncode != 0:
        raise RuntimeError(process.stderr.decode("utf-8", "replace").strip())
    return [line.split("|") for line in process.stdout.decode("utf-8").splitlines()]


class TemporaryDatabase:
    """A database of some encoding with the extension in it, dropped in the end."""

    def __init__(self, encoding):
        self.encoding = encoding
        self.name = f"medallion_keys_{encoding.lower()}"

    def __enter__(self):
        run(f"DROP DATABASE IF EXISTS {self.name};")
        run(
            f"CREATE DATABASE {self.name} TEMPLATE template0 ENCODING '{self.encoding}'"
            " LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C';"
        )
        run("CREATE EXTENSION pg_medallion;", database=self.name)
        return self.name

    def __exit__(self, *_):
        run(f"DROP DATABASE {self.name} WITH (FORCE);")
