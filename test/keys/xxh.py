"""XXH64 and XXH3 (128 bits, seed 0) in plain Python.

Slow, and free of any library, so that the check of the vectors does not rest
on the C code that the extension uses. Both follow the specification of the
hash, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
"""

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1

PRIME32_1, PRIME32_2, PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIME64_1 = 0x9E3779B185EBCA87
PRIME64_2 = 0xC2B2AE3D27D4EB4F
PRIME64_3 = 0x165667B19E3779F9
PRIME64_4 = 0x85EBCA77C2B2AE63
PRIME64_5 = 0x27D4EB2F165667C5
PRIME_MX1 = 0x165667919E3779F9
PRIME_MX2 = 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def read32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def read64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def rotl64(x, n):
    return ((x << n) | (x >> (64 - n))) & MASK64


def swap32(x):
    return int.from_bytes(x.to_bytes(4, "little"), "big")


def swap64(x):
    return int.from_bytes(x.to_bytes(8, "little"), "big")


def avalanche64(h):
    h = (h ^ (h >> 33)) * PRIME64_2 & MASK64
    h = (h ^ (h >> 29)) * PRIME64_3 & MASK64
    return h ^ (h >> 32)


def round64(acc, lane):
    return rotl64((acc + lane * PRIME64_2) & MASK64, 31) * PRIME64_1 & MASK64


def xxh64(data, seed=0):
    """XXH64 as an unsigned integer."""
    at, length = 0, len(data)
    if length >= 32:
        lanes = [
            (seed + PRIME64_1 + PRIME64_2) & MASK64,
            (seed + PRIME64_2) & MASK64,
            seed,
            (seed - PRIME64_1) & MASK64,
        ]
        while at + 32 <= length:
            lanes = [round64(lane, read64(data, at + 8 * i)) for i, lane in enumerate(lanes)]
            at += 32
        h = sum(rotl64(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18))) & MASK64
        for lane in lanes:
            h = ((h ^ round64(0, lane)) * PRIME64_1 + PRIME64_4) & MASK64
    else:
        h = (seed + PRIME64_5) & MASK64
    h = (h + length) & MASK64
    while at + 8 <= length:
        h = (rotl64(h ^ round64(0, read64(data, at)), 27) * PRIME64_1 + PRIME64_4) & MASK64
        at += 8
    if at + 4 <= length:
        h = (rotl64(h ^ (read32(data, at) * PRIME64_1 & MASK64), 23) * PRIME64_2 + PRIME64_3) & MASK64
        at += 4
    while at < length:
        h = rotl64(h ^ (data[at] * PRIME64_5 & MASK64), 11) * PRIME64_1 & MASK64
        at += 1
    return avalanche64(h)


def avalanche3(h):
    h = (h ^ (h >> 37)) * PRIME_MX1 & MASK64
    return h ^ (h >> 32)


def fold(a, b):
    product = a * b
    return (product & MASK64) ^ (product >> 64)


def mix16(data, at, secret_at):
    return fold(
        read64(data, at) ^ read64(SECRET, secret_at),
        read64(data, at + 8) ^ read64(SECRET, secret_at + 8),
    )


def mix32(acc, data, first, second, secret_at):
    low, high = acc
    low = (low + mix16(data, first, secret_at)) & MASK64
    low ^= (read64(data, second) + read64(data, second + 8)) & MASK64
    high = (high + mix16(data, second, secret_at + 16)) & MASK64
    high ^= (read64(data, first) + read64(data, first + 8)) & MASK64
    return low, high


def short_0(data):
    return (
        avalanche64(read64(SECRET, 64) ^ read64(SECRET, 72)),
        avalanche64(read64(SECRET, 80) ^ read64(SECRET, 88)),
    )


def short_1_to_3(data):
    n = len(data)
    low = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
    high = swap32(low)
    high = (high << 13 | high >> 19) & MASK32
    return (
        avalanche64(low ^ read32(SECRET, 0) ^ read32(SECRET, 4)),
        avalanche64(high ^ read32(SECRET, 8) ^ read32(SECRET, 12)),
    )


def short_4_to_8(data):
    n = len(data)
    keyed = (read32(data, 0) | read32(data, n - 4) << 32) ^ read64(SECRET, 16) ^ read64(SECRET, 24)
    product = keyed * (PRIME64_1 + (n << 2))
    low, high = product & MASK64, (product >> 64) & MASK64
    high = (high + (low << 1)) & MASK64
    low ^= high >> 3
    low = (low ^ (low >> 35)) * PRIME_MX2 & MASK64
    low ^= low >> 28
    return low, avalanche3(high)


def short_9_to_16(data):
    n = len(data)
    low_flip = read64(SECRET, 32) ^ read64(SECRET, 40)
    high_flip = read64(SECRET, 48) ^ read64(SECRET, 56)
    last = read64(data, n - 8)
    product = (read64(data, 0) ^ last ^ low_flip) * PRIME64_1
    low, high = product & MASK64, product >> 64
    low = (low + ((n - 1) << 54)) & MASK64
    last ^= high_flip
    high = (high + last + (last & MASK32) * (PRIME32_2 - 1)) & MASK64
    low ^= swap64(high)
    product = low * PRIME64_2
    return (
        avalanche3(product & MASK64),
        avalanche3(((product >> 64) + high * PRIME64_2) & MASK64),
    )


def finish_middle(acc, n):
    low, high = acc
    mixed = (low * PRIME64_1 + high * PRIME64_4 + n * PRIME64_2) & MASK64
    return avalanche3((low + high) & MASK64), -avalanche3(mixed) & MASK64


def middle_17_to_128(data):
    n = len(data)
    acc = (n * PRIME64_1 & MASK64, 0)
    for i in reversed(range((n - 1) // 32 + 1)):
        acc = mix32(acc, data, 16 * i, n - 16 * (i + 1), 32 * i)
    return finish_middle(acc, n)


def middle_129_to_240(data):
    n = len(data)
    acc = (n * PRIME64_1 & MASK64, 0)
    for i in range(4):
        acc = mix32(acc, data, 32 * i, 32 * i + 16, 32 * i)
    acc = tuple(avalanche3(half) for half in acc)
    for i in range(4, n // 32):
        acc = mix32(acc, data, 32 * i, 32 * i + 16, 3 + 32 * (i - 4))
    acc = mix32(acc, data, n - 16, n - 32, 136 - 17 - 16)
    return finish_middle(acc, n)


def accumulate(acc, data, at, secret_at):
    for i in range(8):
        value = read64(data, at + 8 * i)
        key = value ^ read64(SECRET, secret_at + 8 * i)
        acc[i ^ 1] = (acc[i ^ 1] + value) & MASK64
        acc[i] = (acc[i] + (key & MASK32) * (key >> 32)) & MASK64


def scramble(acc):
    for i in range(8):
        h = acc[i] ^ (acc[i] >> 47) ^ read64(SECRET, len(SECRET) - 64 + 8 * i)
        acc[i] = h * PRIME32_1 & MASK64


def merge(acc, secret_at, start):
    for i in range(4):
        start += fold(
            acc[2 * i] ^ read64(SECRET, secret_at + 16 * i),
            acc[2 * i + 1] ^ read64(SECRET, secret_at + 16 * i + 8),
        )
    return avalanche3(start & MASK64)


def long_from_241(data):
    n = len(data)
    acc = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1]
    stripes_per_block = (len(SECRET) - 64) // 8
    for stripe in range((n - 1) // 64):
        accumulate(acc, data, 64 * stripe, 8 * (stripe % stripes_per_block))
        if stripe % stripes_per_block == stripes_per_block - 1:
            scramble(acc)
    accumulate(acc, data, n - 64, len(SECRET) - 64 - 7)
    return (
        merge(acc, 11, n * PRIME64_1 & MASK64),
        merge(acc, len(SECRET) - 64 - 11, ~(n * PRIME64_2) & MASK64),
    )


def xxh3_128(data):
    """XXH3 with 128 bits and seed 0 as an unsigned integer."""
    for limit, function in (
        (0, short_0),
        (3, short_1_to_3),
        (8, short_4_to_8),
        (16, short_9_to_16),
        (128, middle_17_to_128),
        (240, middle_129_to_240),
    ):
        if len(data) <= limit:
            low, high = function(data)
            return high << 64 | low
    low, high = long_from_241(data)
    return high << 64 | low
