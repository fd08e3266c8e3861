"""Mutator: changes seeds at random, with numbers and words that parsers get wrong. One seed gives one sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence

_NUMBERS = [
    b"0", b"-1", b"1", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648", b"-2147483649", b"4294967295",
    b"4294967296", b"18446744073709551615", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"1e999", b"nan", b"-inf",
    b"0x", b"010", b"1_0", "²".encode(), "٣".encode(),
]  # fmt: skip
_BYTES = [
    b"", b"\0", b"\n", b"\r", b"\t", b" ", b"\x1b[31m", b"\x7f", b"\x9b", b"\xff", b"\xc3", "\u202e".encode(),
    "\u2028".encode(), "\ud800".encode("utf-8", "surrogatepass"), b"%s", b"[/]", b":", b"-", b"=", b"/", b'"', b"'",
]  # fmt: skip
_WORDS = [0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


class Mutator:
    """Makes inputs from seeds and from the words of a format."""

    def __init__(self, rng: random.Random, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> None:
        self._rng = rng
        self._seeds = list(seeds)
        self._words = [*_NUMBERS, *_BYTES, *words, *words]

    def text(self, most: int = 8192) -> bytes:
        """Return a seed with some changes, of at most `most` bytes."""
        rng = self._rng
        data = bytearray(rng.choice(self._seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 20))):
            at = rng.randrange(len(data) + 1)
            end = min(len(data), at + rng.choice((0, 1, 1, 2, 4, 8, 30, 300)))
            kind = rng.randrange(8)
            if kind <= 2:  # another word in the place of some bytes
                data[at:end] = rng.choice(self._words)
            elif kind == 3:
                data[at:end] = rng.randbytes(end - at)
            elif kind == 4:
                data[at:at] = data[at:end] * rng.choice((1, 1, 2, 50))
            elif kind == 5:
                del data[at:end]
            elif kind == 6:  # the beginning of this one and the end of another
                other = rng.choice(self._seeds)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            elif data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        return bytes(data[:most])

    def words(self, seed: bytes, changes: int, first: int = 0) -> bytes:
        """Return a binary seed with other 32-bit words at and after the word `first`."""
        rng, data = self._rng, bytearray(seed)
        last = len(data) // 4
        for _ in range(changes if last > first else 0):
            at = 4 * rng.randrange(first, last)
            kind = rng.randrange(4)
            if kind == 0:
                data[at : at + 4] = rng.choice(_WORDS).to_bytes(4, "little")
            elif kind == 1:
                data[at : at + 4] = rng.randbytes(4)
            elif kind == 2:
                data[at + rng.randrange(4)] = rng.choice((0, 1, 2, 4, 8, 16, 127, 128, 255))
            else:
                data[at] ^= 1 << rng.randrange(8)
        return bytes(data)
