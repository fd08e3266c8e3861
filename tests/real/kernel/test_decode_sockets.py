"""The decoder of socket dumps on a real dump, whole and damaged."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from tests import lab
from tests.support.kernel import netlink
from tests.support.kernel.decoding import MUTATIONS, check, mutated, run_guarded


@pytest.fixture(scope="module")
def real(namespace: lab.Namespace, peer: lab.Peer) -> bytes:
    """One dump with sockets of all lengths, IPv4 and IPv6."""
    names = ("LISTEN", "SYN_RCVD", "ESTABLISHED", "TIME_WAIT", "CLOSE_WAIT")
    with ExitStack() as stack:
        for name, family in lab.CASES:
            if name in names:
                stack.enter_context(lab.produce(peer, name, family))
        return netlink.real_dump(1 << netlink.INFO - 1 | 1 << netlink.SKMEMINFO - 1)


def test_a_real_dump_is_decoded_like_the_reference(real: bytes) -> None:
    check(real)
    assert len(netlink.decode(real)[0]) >= 16


@given(mutations=MUTATIONS)
def test_a_damaged_dump_gives_rows_or_an_error(real: bytes, mutations: list[tuple[str, float, int]]) -> None:
    check(mutated(real, mutations))


def test_nothing_is_read_outside_the_buffer(real: bytes) -> None:
    rng = np.random.default_rng(7)
    whole = list(buffers_of(real))
    lengths = (0, 3, 4, 15, 16, 17, 40, 87, 88, 89, 92, 96, 1000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFF)
    damaged = []
    for _ in range(2000):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 4)):
            at = 4 * int(rng.integers(len(data) // 4))
            kind, size = (("=I", 0xFFFFFFFF), ("=H", 0xFFFF))[rng.integers(2)]
            struct.pack_into(kind, data, at, lengths[rng.integers(len(lengths))] & size)
        damaged.append(bytes(data[: 4 * int(rng.integers(1, len(data) // 4 + 1))]))
    done = run_guarded([*whole, *damaged])
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def buffers_of(real: bytes) -> list[bytes]:
    """Single messages and short chains of a real dump."""
    single = [netlink.message(kind, payload, flags=flags) for kind, flags, payload in netlink.split(real)]
    return [*single, *(a + b for a, b in pairwise(single))]
