"""A producer of medallion.hash_key() and hash_key_uuid() outside of Postgres.

Written from doc/keys.md. A key is made of (type, value) pairs:

    >>> hash_key([("text", "DE"), ("integer", 4711)])
    5624620676399671598

Values may be Python's own or the strings that the vectors file holds. Dates
and timestamps are ISO 8601 strings, "infinity", "-infinity", or a pair of the
day since 1970-01-01 and the microsecond of that day.
"""

import datetime
import ipaddress
import json
import math
import struct
import uuid
from decimal import Decimal

import xxh

USECS_PER_DAY = 86400 * 10**6
DATE_LIKE = ("date", "timestamp", "timestamptz")


def counted(data):
    return struct.pack(">I", len(data)) + data


def encode_integer(value):
    value = int(value)
    if -(2**63) <= value < 2**63:
        return b"i" + struct.pack(">q", value)
    return encode_numeric(Decimal(value))


def encode_numeric(value):
    value = Decimal(value)
    if not value.is_finite():
        return encode_bits(float(value))
    sign, digits, exponent = value.as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    number = int(stripped or "0") * (-1 if sign else 1)
    if number == 0:
        return encode_integer(0)
    if 0 <= exponent < 20 and -(2**63) <= number * 10**exponent < 2**63:
        return encode_integer(number * 10**exponent)
    return b"d" + counted(b"%de%d" % (number, exponent))


def encode_bits(value):
    if math.isnan(value):
        return b"f" + bytes.fromhex("7ff8000000000000")
    return b"f" + struct.pack(">d", value)


def encode_float8(value):
    value = float(value)
    if not math.isfinite(value):
        return encode_bits(value)
    if value == math.floor(value) and -(2.0**63) <= value < 2.0**63:
        return encode_integer(int(value))
    text = "%.14e" % value
    return encode_numeric(text) if float(text) == value else encode_bits(value)


def encode_float4(value):
    return encode_float8(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def encode_text(value):
    return b"s" + counted(value.encode("utf-8"))


def encode_bytea(value):
    return b"x" + counted(bytes.fromhex(value) if isinstance(value, str) else value)


def split_day(microseconds):
    return divmod(microseconds, USECS_PER_DAY)


def day_and_time(value, zone):
    """Day since 1970 and microsecond of an ISO 8601 date or timestamp."""
    if not isinstance(value, str):
        return value
    if value in ("infinity", "-infinity"):
        return (2**31 - 1 if value == "infinity" else -(2**31)), 0
    moment = datetime.datetime.fromisoformat(value)
    if (moment.tzinfo is not None) != zone:
        raise ValueError(f"{value}: a timestamptz has a zone, a timestamp has none")
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc if zone else None)
    return split_day((moment - epoch) // datetime.timedelta(microseconds=1))


def encode_timestamp(value):
    return b"t" + struct.pack(">iq", *day_and_time(value, False))


def encode_timestamptz(value):
    return b"z" + struct.pack(">iq", *day_and_time(value, True))


def encode_time(value):
    return b"c" + struct.pack(">q", value)


def encode_timetz(value):
    return b"C" + struct.pack(">qi", *value)


def encode_interval(value):
    months, days, microseconds = value
    more_days, microseconds = split_day(microseconds)
    return b"v" + struct.pack(">qq", months * 30 + days + more_days, microseconds)


def encode_inet(value):
    interface = ipaddress.ip_interface(value)
    return b"h" + bytes([interface.version, interface.network.prefixlen]) + interface.ip.packed


def encode_macaddr(value):
    data = bytes.fromhex(value.replace(":", ""))
    return b"m" + (data if len(data) == 8 else data[:3] + b"\xff\xfe" + data[3:])


def encode_bit(value):
    padded = value + "0" * (-len(value) % 8)
    data = bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
    return b"k" + struct.pack(">I", len(value)) + data


def encode_json_node(node):
    if node is None:
        return b"\0"
    if isinstance(node, bool):
        return b"b" + bytes([node])
    if isinstance(node, (int, Decimal)):
        return encode_numeric(node)
    if isinstance(node, str):
        return encode_text(node)
    if isinstance(node, list):
        return b"l" + struct.pack(">I", len(node)) + b"".join(map(encode_json_node, node))
    pairs = {counted(key.encode("utf-8")): encode_json_node(value) for key, value in node.items()}
    return b"o" + struct.pack(">I", len(pairs)) + b"".join(key + pairs[key] for key in sorted(pairs))


def encode_jsonb(value):
    return b"j" + encode_json_node(json.loads(value, parse_float=Decimal, parse_int=int))


def encode_array(value):
    """{"dimensions": [[length, lower bound], ...], "elements": [pair, ...]}"""
    dimensions = b"".join(struct.pack(">Ii", *dimension) for dimension in value["dimensions"])
    return b"a" + bytes([len(value["dimensions"])]) + dimensions + encode(value["elements"])


def encode_row(value):
    return b"r" + struct.pack(">I", len(value)) + encode(value)


def encode_range_body(value):
    """"empty" or [lower bound pair or null, upper bound pair or null, "[)"]"""
    if value == "empty":
        return b"\x01"
    lower, upper, bounds = value
    flags = 0x02 if lower is None else 0x08 if bounds[0] == "[" else 0
    flags |= 0x04 if upper is None else 0x10 if bounds[1] == "]" else 0
    return bytes([flags]) + encode([pair for pair in (lower, upper) if pair is not None])


def encode_range(value):
    return b"g" + encode_range_body(value)


def encode_multirange(value):
    return b"G" + struct.pack(">I", len(value)) + b"".join(map(encode_range_body, value))


ENCODERS = {
    "array": encode_array,
    "bit": encode_bit,
    "boolean": lambda value: b"b" + bytes([value]),
    "bytea": encode_bytea,
    "date": encode_timestamp,
    "float4": encode_float4,
    "float8": encode_float8,
    "inet": encode_inet,
    "integer": encode_integer,
    "interval": encode_interval,
    "jsonb": encode_jsonb,
    "macaddr": encode_macaddr,
    "multirange": encode_multirange,
    "numeric": encode_numeric,
    "range": encode_range,
    "row": encode_row,
    "text": encode_text,
    "time": encode_time,
    "timestamp": encode_timestamp,
    "timestamptz": encode_timestamptz,
    "timetz": encode_timetz,
    "uuid": lambda value: b"u" + uuid.UUID(str(value)).bytes,
}


def encode(values):
    """The bytes that are hashed."""
    return b"".join(b"\0" if value is None else ENCODERS[kind](value) for kind, value in values)


def key_of_bytes(data):
    hashed = xxh.xxh64(data)
    return hashed - 2**64 if hashed >= 2**63 else hashed


def uuid_of_bytes(data):
    hashed = xxh.xxh3_128(data)
    hashed = hashed & ~(0xF << 76) | 8 << 76
    hashed = hashed & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=hashed)


def hash_key(values):
    return key_of_bytes(encode(values))


def hash_key_uuid(values):
    return uuid_of_bytes(encode(values))
