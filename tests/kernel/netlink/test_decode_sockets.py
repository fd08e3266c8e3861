"""The decoder against a slow reference, and against bytes that no kernel would send."""

from __future__ import annotations

import signal
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.kernel import netlink
from tests.support.kernel.decoding import MUTATIONS, check, decoded, mutated, run_guarded

# Messages as they may be --------------------------------------------------------------------------

KINDS = st.sampled_from(
    [netlink.SHUTDOWN, netlink.SKV6ONLY, netlink.CGROUP_ID, netlink.SKMEMINFO, netlink.INFO, 15, netlink.SOCKOPT]
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
def test_runs_of_equal_length(message: bytes, count: int) -> None:
    check(message * count)


def test_equal_lengths_may_hide_different_attributes() -> None:
    bodies = [netlink.body(cookie=cookie) for cookie in range(1, 5)]
    mark, cgroup, shutdown = (15, bytes(8)), (netlink.CGROUP_ID, bytes(range(8))), (netlink.SHUTDOWN, b"\3")
    alike = [[cgroup, shutdown], [shutdown, cgroup], [mark, shutdown], [(15, bytes(16))]]
    data = b"".join(netlink.message(netlink.BY_FAMILY, *both) for both in zip(bodies, alike, strict=True))
    assert len(data) % 4 == 0
    check(data)


def test_the_last_of_two_equal_attributes_counts_in_each_message() -> None:
    """Their headers stand at other places in the second message, whose bytes look like the first one's."""
    twice = [(netlink.SHUTDOWN, b"\1"), (netlink.SHUTDOWN, b"\2")]
    disguised = [(15, b"...." + netlink.attribute(*twice[1]))]
    pair = [netlink.message(netlink.BY_FAMILY, netlink.body(), attributes) for attributes in (twice, disguised)]
    assert len(pair[0]) == len(pair[1])
    check(b"".join(pair))


def test_drops_are_decoded_on_request() -> None:
    memory = struct.pack("=9I", *range(100, 109))
    data = netlink.message(netlink.GETSOCK, netlink.body(state=10), [(netlink.SKMEMINFO, memory)])
    assert [row.drops for row in decoded(data)[0]] == [108]
    assert [row.drops for row in decoded(data, drops=False)[0]] == [0]


# Messages as they must not be; damaged ones of the kernel's own stand in tests/real ------------------


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


@pytest.mark.parametrize("length", [0, 4, 68, 71, 72])
def test_a_message_that_is_too_short_for_a_socket(length: int) -> None:
    """Alone, and before another one, whose bytes must not be taken for its own."""
    short = netlink.message(netlink.BY_FAMILY, bytes(range(length)))
    check(short)
    check(short + netlink.message(netlink.BY_FAMILY, netlink.body()))
    check(netlink.message(netlink.BY_FAMILY, netlink.body()) + short)
    assert run_guarded([short]).returncode == 0


def test_the_guard_detects_a_read_outside() -> None:
    assert run_guarded([bytes(88)], beyond=1).returncode == -signal.SIGSEGV
