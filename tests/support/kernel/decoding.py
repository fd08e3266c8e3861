"""Decode netlink buffers in tests: compare with netlink.decode, and look for reads and writes outside the buffer."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import decode_sockets, uapi
from tests.support.kernel import netlink

GUARD = 0xAB
ABSENT = 0xFEDCBA98  # a sequence number of none of the messages
ROOT = Path(__file__).parents[3]


def decoded(data: bytes, drops: bool = True) -> tuple[list[netlink.Row], bool]:
    """Decode with tcpwatch, like netlink.decode; check that nothing is written outside the given rows."""
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
    """The same rows as the reference's in whatever order, or MessageError for invalid bytes."""
    data += netlink.padding(data)
    try:
        rows, interrupted = netlink.decode(data)
    except netlink.Bad:
        with pytest.raises(decode_sockets.MessageError):
            decoded(data)
    else:
        assert decoded(data) == (sorted(rows), interrupted)


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
