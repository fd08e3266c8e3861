"""Ephemeral ports in use toward the fullest destination."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model import ports
from tcpwatch.model.states import Role
from tests.views import Sock, make_rows, sock

A, B = "192.0.2.1:443", "192.0.2.2:443"


def client(port: int, remote: str = A, local: str = "10.0.0.1", role: str = "client", state: str = "ESTAB") -> Sock:
    return sock(state, f"{local}:{port}", remote, role=role)


@pytest.mark.parametrize(
    ("socks", "fullest"),
    [
        ([], 0),
        ([client(40_000, role="server")], 0),
        ([client(9), client(40_000)], 1),
        ([client(40_000), client(40_001), client(40_000, B)], 2),
        ([client(40_000), client(40_001, A.replace("443", "80"))], 1),
        ([client(40_000), client(40_001, local="10.0.0.2")], 1),  # each local address has all ports
        ([client(port, state="TIME_WAIT") for port in range(32_768, 32_778)], 10),
        ([client(32_767), client(32_768), client(60_999), client(61_000)], 2),
        ([client(40_000, "[2001:db8::1]:443", "[::1]"), client(40_001, "[2001:db8::2]:443", "[::1]")], 1),
    ],
)
def test_the_fullest_destination(socks: list[Sock], fullest: int) -> None:
    assert ports.fullest(make_rows(socks), 32_768, 60_999) == fullest


ENDS = st.tuples(
    st.integers(100, 120),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1"]),
    st.sampled_from([80, 443]),
    st.sampled_from([Role.CLIENT, Role.SERVER]),
)


@given(st.lists(ENDS, max_size=40, unique=True), st.integers(100, 110), st.integers(110, 120))
def test_it_counts_as_a_dictionary_does(ends: list[tuple[int, str, str, int, Role]], low: int, high: int) -> None:
    counts: dict[tuple[str, str, int], int] = {}
    for port, local, remote, rport, role in ends:
        if role is Role.CLIENT and low <= port <= high:
            counts[local, remote, rport] = counts.get((local, remote, rport), 0) + 1
    socks = [client(port, f"{remote}:{rport}", local, role.word) for port, local, remote, rport, role in ends]
    assert ports.fullest(make_rows(socks), low, high) == max(counts.values(), default=0)
