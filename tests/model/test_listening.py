"""Which local ends are a listener's."""

from __future__ import annotations

import numpy as np
import pytest

from tcpwatch.model.listening import Listening
from tests.views import make_rows, sock

SERVED = {
    "any IPv4": ("0.0.0.0:80", {"10.0.0.1:80": True, "10.0.0.1:81": False, "[2001:db8::1]:80": False}),
    "any address": ("[::]:80", {"10.0.0.1:80": True, "[2001:db8::1]:80": True, "[::1]:81": False}),
    "one IPv4": ("10.0.0.1:80", {"10.0.0.1:80": True, "10.0.0.2:80": False, "[2001:db8::1]:80": False}),
    "one IPv6": ("[2001:db8::1]:80", {"[2001:db8::1]:80": True, "[2001:db8::2]:80": False, "10.0.0.1:80": False}),
}


@pytest.mark.parametrize(("listener", "ends"), SERVED.values(), ids=SERVED)
def test_the_port_alone_does_not_tell(listener: str, ends: dict[str, bool]) -> None:
    rows = make_rows([sock("LISTEN", listener), *(sock("ESTAB", end) for end in ends)])
    served = Listening.of(rows.table, rows.state).serves(rows.table, np.arange(1, len(rows)))
    assert dict(zip(ends, served.tolist(), strict=True)) == ends


def test_several_listeners_on_a_port() -> None:
    ends = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    rows = make_rows([sock("LISTEN", end) for end in ends[:2]] + [sock("ESTAB", end, "192.0.2.1:9") for end in ends])
    assert Listening.of(rows.table, rows.state).serves(rows.table, np.arange(2, 5)).tolist() == [True, True, False]


def test_nobody_listens() -> None:
    rows = make_rows([sock("ESTAB", "10.0.0.1:80", "192.0.2.1:9")])
    listening = Listening.of(rows.table, rows.state)
    assert not listening.ports.any()
    assert listening.serves(rows.table, np.arange(1)).tolist() == [False]
    assert listening.serves(rows.table, np.arange(0)).tolist() == []
