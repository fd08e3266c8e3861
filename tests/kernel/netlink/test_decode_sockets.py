"""The decoder against a slow reference, and against bytes that no kernel would send."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import decode_sockets, uapi
from tests import lab
from tests.support import netlink

GUARD = 0xAB
ABSENT = 0xFEDCBA98  # a sequence number of none of the messages
ROOT = Path(__file__).parents[3]


def decoded(data: bytes, drops: bool = True) -> tuple[list[netlink.Row], bool]:
    """Like netlink.decode(), by tcpwatch; writes outside the given rows are detected."""
    words = np.frombuffer(data, np.uint32)
    offsets = decode_sockets.message_offsets(words, 0, len(words), ABSENT)
    for sequence in np.unique(words[2:8]).tolist():  # however many messages it finds, the answer is the same
        assert decode_sockets.message_offsets(words, 0, len(words), sequence).tolist() == offsets.tolist()
    size = len(offsets)
    room = np.frombuffer(bytearray([GUARD]) * ((size + 2) * uapi.SOCKET.itemsize), uapi.SOCKET)
    dropped = np.zeros(size, np.uint32)
    interrupted = decode_sockets.decode_sockets(words, offsets, room[1:-1], dropped if drops else None)
    assert (room[0].tobytes() + room[-1].tobytes()).count(GUARD) == 2 * uapi.SOCKET.itemsize
    table = room[1:-1]
    bodies = [row.tobytes()[: netlink.BODY.size] for row in table]
    attributes = (table[name].tolist() for name in ("cgroup_id", "shutdown", "has"))
    rows = zip(bodies, *attributes, dropped.tolist(), strict=True)
    return sorted(netlink.Row(*row) for row in rows), interrupted


def check(data: bytes) -> None:
    """The same rows as the reference's in whatever order, or MessageError where it finds nonsense."""
    data += netlink.padding(data)
    try:
        rows, interrupted = netlink.decode(data)
    except netlink.Bad:
        with pytest.raises(decode_sockets.MessageError):
            decoded(data)
    else:
        assert decoded(data) == (sorted(rows), interrupted)


# Messages as they may be --------------------------------------------------------------------------

KINDS = st.sampled_from(
    [netlink.SHUTDOWN, netlink.SKV6ONLY, netlink.CGROUP_ID, netlink.SKMEMINFO, netlink.INFO, 15, 22]
)
SIZES = st.sampled_from([0, 1, 2, 4, 7, 8, 9, 35, 36, 40, 100])
ATTRIBUTES = st.lists(st.tuples(KINDS, SIZES.flatmap(lambda n: st.binary(min_size=n, max_size=n))), max_size=4)
SOCKETS = st.builds(
    netlink.message,
    st.sampled_from([netlink.GETSOCK, netlink.BY_FAMILY]),
    st.binary(min_size=72, max_size=72),
    ATTRIBUTES,
    flags=st.sampled_from([2, 2 | netlink.DUMP_INTR, 0xFFEF]),
)


@given(st.lists(SOCKETS, max_size=12).map(b"".join))
def test_mixed_messages_are_decoded_as_the_reference_does(data: bytes) -> None:
    check(data)


@given(SOCKETS, st.integers(1, 40))
def test_runs_of_equal_length(one: bytes, count: int) -> None:
    check(one * count)


def test_equal_lengths_may_hide_different_attributes() -> None:
    bodies = [netlink.body(cookie=cookie) for cookie in range(1, 5)]
    mark, cgroup, shutdown = (15, bytes(8)), (netlink.CGROUP_ID, bytes(range(8))), (netlink.SHUTDOWN, b"\3")
    alike = [[cgroup, shutdown], [shutdown, cgroup], [mark, shutdown], [(15, bytes(16))]]
    data = b"".join(netlink.message(netlink.BY_FAMILY, *both) for both in zip(bodies, alike, strict=True))
    assert len(data) % 4 == 0
    check(data)


def test_of_two_attributes_of_a_kind_the_last_one_counts_in_each_message() -> None:
    """Their headers stand at other places in the second message, whose bytes look like the first one's."""
    twice = [(netlink.SHUTDOWN, b"\1"), (netlink.SHUTDOWN, b"\2")]
    disguised = [(15, b"...." + netlink.attribute(*twice[1]))]
    pair = [netlink.message(netlink.BY_FAMILY, netlink.body(), one) for one in (twice, disguised)]
    assert len(pair[0]) == len(pair[1])
    check(b"".join(pair))


def test_drops_are_told_where_they_are_wanted() -> None:
    memory = struct.pack("=9I", *range(100, 109))
    data = netlink.message(netlink.GETSOCK, netlink.body(state=10), [(netlink.SKMEMINFO, memory)])
    assert [row.drops for row in decoded(data)[0]] == [108]
    assert [row.drops for row in decoded(data, drops=False)[0]] == [0]


# Messages as they are, and as they must not be ------------------------------------------------------


@pytest.fixture(scope="module")
def real(namespace: lab.Namespace, peer: lab.Peer) -> bytes:
    """One dump with sockets of all lengths, IPv4 and IPv6."""
    names = ("LISTEN", "SYN_RCVD", "ESTABLISHED", "TIME_WAIT", "CLOSE_WAIT")
    with ExitStack() as stack:
        for name, family in lab.CASES:
            if name in names:
                stack.enter_context(lab.produce(peer, name, family))
        return netlink.real_dump(1 << netlink.INFO - 1 | 1 << netlink.SKMEMINFO - 1)


def test_a_real_dump_is_decoded_as_the_reference_does(real: bytes) -> None:
    check(real)
    assert len(netlink.decode(real)[0]) >= 16


NUMBERS = st.one_of(st.integers(0, 200), st.sampled_from([0xFFFF, 0x7FFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF]))
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["u32", "u16", "cut", "grow", "drop"]), st.floats(0, 1, exclude_max=True), NUMBERS),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, mutations: list[tuple[str, float, int]]) -> bytes:
    changed = bytearray(data)
    for what, where, number in mutations:
        at = int(where * len(changed)) & ~1
        if what == "u32" and at + 4 <= len(changed):
            struct.pack_into("=I", changed, at, number)
        elif what == "u16" and at + 2 <= len(changed):
            struct.pack_into("=H", changed, at, number & 0xFFFF)
        elif what == "cut":
            del changed[at:]
        elif what == "grow":
            changed[at:at] = bytes(number & 0x7F)
        else:
            del changed[at : at + (number & 0x7F)]
    return bytes(changed)


@given(mutations=MUTATIONS)
def test_a_damaged_dump_gives_rows_or_an_error(real: bytes, mutations: list[tuple[str, float, int]]) -> None:
    check(mutated(real, mutations))


@given(mutations=MUTATIONS)
def test_a_message_with_damaged_lengths(mutations: list[tuple[str, float, int]]) -> None:
    """Small, so that every other change hits a length."""
    attributes = [(netlink.CGROUP_ID, bytes(8)), (netlink.SHUTDOWN, b"\3")]
    one = netlink.message(netlink.BY_FAMILY, netlink.body(), attributes)
    check(mutated(one * 3, mutations))


@given(st.binary(max_size=400))
@example(b"\xff\xff\xff\xff" * 30)
@example(struct.pack("=I", 16) + bytes(12))
@example(struct.pack("=IHHII", 0xFFFFFFFD, 20, 2, 1, 0) + bytes(100))
def test_any_bytes_give_rows_or_an_error(data: bytes) -> None:
    check(data)


# Reads outside the buffer ------------------------------------------------------------------------

GUARDED = """
import ctypes, mmap, sys
import numpy as np
from tcpwatch.kernel.netlink import decode_sockets as messages
from tcpwatch.kernel.netlink import uapi

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE
memory = mmap.mmap(-1, SIZE + PAGE)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(begin + SIZE), PAGE, 0) == 0
beyond = int(sys.argv[1])
for line in sys.stdin:
    data = bytes.fromhex(line)
    memory[SIZE - len(data) : SIZE] = data
    words = np.frombuffer(memory, np.uint32, len(data) // 4 + beyond, SIZE - len(data))
    words.sum()
    try:
        offsets = messages.message_offsets(words, 0, len(words), int(words[2]) if len(words) > 2 else 0)
        table, drops = np.empty(len(offsets), uapi.SOCKET), np.empty(len(offsets), np.uint32)
        messages.decode_sockets(words, offsets, table, drops)
    except messages.MessageError:
        pass
print("done")
"""


def run_guarded(buffers: list[bytes], beyond: int = 0) -> subprocess.CompletedProcess[str]:
    """Decode buffers that end where readable memory ends: a read outside kills the process."""
    lines = "".join(f"{data.hex()}\n" for data in buffers)
    command = [sys.executable, "-c", GUARDED, str(beyond)]
    return subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, check=False)


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


@pytest.mark.parametrize("length", [0, 4, 68, 71, 72])
def test_a_message_that_is_too_short_for_a_socket(length: int) -> None:
    """Alone, and before another one, whose bytes must not be taken for its own."""
    short = netlink.message(netlink.BY_FAMILY, bytes(range(length)))
    check(short)
    check(short + netlink.message(netlink.BY_FAMILY, netlink.body()))
    check(netlink.message(netlink.BY_FAMILY, netlink.body()) + short)
    assert run_guarded([short]).returncode == 0


def buffers_of(real: bytes) -> list[bytes]:
    """Single messages and short chains of a real dump."""
    single = [netlink.message(kind, payload, flags=flags) for kind, flags, payload in netlink.split(real)]
    return [*single, *(a + b for a, b in pairwise(single))]


def test_the_guard_bites() -> None:
    assert run_guarded([bytes(88)], beyond=1).returncode == -signal.SIGSEGV
