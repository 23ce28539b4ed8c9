"""Connections to PostgreSQL over a unix socket, with the standard library only.

psql would do, but a round asks thousands of short questions on several
sessions at once, needs SQLSTATEs, and must be able to leave a statement
running. Only what the tests need: trust authentication, the simple query
protocol, values as text.
"""

import os
import socket
import struct


class PgError(Exception):
    """An error that the server reported."""

    def __init__(self, fields):
        self.sqlstate = fields.get("C", "")
        self.message = fields.get("M", "")
        self.detail = fields.get("D", "")
        self.context = fields.get("W", "")
        super().__init__(": ".join(text for text in (self.sqlstate, self.message, self.detail) if text))


class ConnectionLost(Exception):
    """The server went away, or closed this connection."""


class Connection:
    def __init__(self, database, application="fuzz"):
        self.busy = False
        path = "%s/.s.PGSQL.%s" % (os.environ.get("PGHOST", "/tmp"), os.environ.get("PGPORT", "5432"))
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        parameters = {
            "user": os.environ.get("PGUSER", "postgres"),
            "database": database,
            "application_name": application,
            "client_encoding": "UTF8",
        }
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
        self.socket.sendall(struct.pack("!ii", len(body) + 8, 196608) + body)
        self.reader = self.socket.makefile("rb")
        try:
            self._read_answer()
        except PgError as error:
            if error.sqlstate in ("57P01", "57P02", "57P03"):   # shutting down or starting up
                raise ConnectionLost(str(error)) from error
            raise

    def query(self, sql):
        """Run statements; the rows of the last one that returned some, values as text or None."""
        self.send(sql)
        return self.finish()

    def send(self, sql):
        """Start statements without waiting for them."""
        body = sql.encode("utf-8") + b"\0"
        try:
            self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        self.busy = True

    def finish(self):
        """Wait for what send() started."""
        self.busy = False
        return self._read_answer()

    def close(self):
        try:
            self.reader.close()
            self.socket.close()
        except OSError:
            pass

    def _read_message(self):
        try:
            head = self.reader.read(5)
            if len(head) < 5:
                raise ConnectionLost("server closed the connection")
            kind, length = struct.unpack("!ci", head)
            return kind, self.reader.read(length - 4)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def _read_answer(self):
        """Read up to the server's next ReadyForQuery."""
        rows, failure = [], None
        while True:
            kind, body = self._read_message()
            if kind == b"T":
                rows = []
            elif kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                failure = PgError(_fields(body))
                if failure.sqlstate in ("57P01", "57P02"):
                    raise ConnectionLost(str(failure))
            elif kind == b"R" and struct.unpack("!i", body[:4])[0] != 0:
                raise RuntimeError("only trust authentication is known here")
            elif kind == b"Z":
                if failure is not None:
                    raise failure
                return rows


def _fields(body):
    return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}


def _row(body):
    values, position = [], 2
    for _ in range(struct.unpack("!h", body[:2])[0]):
        length = struct.unpack("!i", body[position:position + 4])[0]
        position += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[position:position + length].decode("utf-8"))
            position += length
    return tuple(values)


def literal(value):
    """A value as an SQL literal; None is NULL."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"
