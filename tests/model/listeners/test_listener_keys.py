"""Keys of listeners: text, filter, and which local ends belong to them."""

from __future__ import annotations

import numpy as np
import pytest

from tcpwatch.model.listeners.listener_keys import ListenerKeys
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import State
from tests.support.views import Sock, make_rows, make_sample, sock

SERVED = {
    "any IPv4": ("0.0.0.0:80", {"10.0.0.1:80": True, "10.0.0.1:81": False, "[2001:db8::1]:80": False}),
    "any address": ("[::]:80", {"10.0.0.1:80": True, "[2001:db8::1]:80": True, "[::1]:81": False}),
    "any IPv4, for IPv4-mapped ends": ("0.0.0.0:80", {"mapped 10.0.0.1:80": True}),
    "any IPv6 alone": ("v6only [::]:80", {"10.0.0.1:80": False, "mapped 10.0.0.1:80": False, "[2001:db8::1]:80": True}),
    "one interface": ("eth0 10.0.0.1:80", {"10.0.0.1:80": False, "eth0 10.0.0.1:80": True}),
    "one IPv4": ("10.0.0.1:80", {"10.0.0.1:80": True, "10.0.0.2:80": False, "[2001:db8::1]:80": False}),
    "one IPv6": ("[2001:db8::1]:80", {"[2001:db8::1]:80": True, "[2001:db8::2]:80": False, "10.0.0.1:80": False}),
}


def spelled(state: str, spec: str) -> Sock:
    """`10.0.0.1:80`, with `mapped`, `v6only` or an interface before it."""
    word, _, end = spec.rpartition(" ")
    interface = word if word.startswith("eth") else ""
    return sock(state, end, mapped=word == "mapped", v6only=word == "v6only", interface=interface)


def served(*socks: Sock) -> list[bool]:
    """Return for each socket that is not in LISTEN whether its local end belongs to a listener."""
    sample = make_sample(make_rows(socks))
    others = np.array([at for at, one in enumerate(socks) if one.state is not State.LISTEN], np.intp)
    return (ListenerKeys.of(sample).lookup(sample, others) >= 0).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("listener", "ends"), SERVED.values(), ids=SERVED)
def test_the_address_decides(listener: str, ends: dict[str, bool]) -> None:
    found = served(spelled("LISTEN", listener), *(spelled("ESTAB", end) for end in ends))
    assert dict(zip(ends, found, strict=True)) == ends


def test_several_listeners_on_a_port() -> None:
    ends = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    opened = [sock("ESTAB", end, "192.0.2.1:9") for end in ends]
    assert served(*(sock("LISTEN", end) for end in ends[:2]), *opened) == [True, True, False]


def test_the_most_specific_of_several_listeners_accepts() -> None:
    """The address decides first, then the interface, then the family (inet_lookup_listener in the kernel)."""
    listeners = ("[::]:80", "0.0.0.0:80", "eth0 0.0.0.0:80", "10.0.0.1:80", "eth0 10.0.0.1:80")
    ends = ("eth0 10.0.0.1:80", "eth1 10.0.0.1:80", "eth0 10.0.0.2:80", "eth1 10.0.0.2:80", "[2001:db8::1]:80")
    specs = [*(spelled("LISTEN", spec) for spec in listeners), *(spelled("ESTAB", end) for end in ends)]
    sample = make_sample(make_rows(specs))
    keys = ListenerKeys.of(sample)
    key_of_listener = keys.key.tolist()
    accepted_by = keys.lookup(sample, np.arange(len(listeners), len(specs))).tolist()
    assert [listeners[key_of_listener.index(key)] for key in accepted_by] == [
        "eth0 10.0.0.1:80", "10.0.0.1:80", "eth0 0.0.0.0:80", "0.0.0.0:80", "[::]:80",
    ]  # fmt: skip


def test_no_listener() -> None:
    assert served(sock("ESTAB", "10.0.0.1:80", "192.0.2.1:9")) == [False]
    assert served() == []


@pytest.mark.parametrize(
    ("spec", "endpoint", "local_filter"),
    [
        ("0.0.0.0:80", "*:80", "lport:80"),
        ("[::]:80", "*:80", "lport:80"),
        ("v6only [::]:80", "[::]:80", "lport:80"),
        ("10.0.0.1:80", "10.0.0.1:80", "lport:80 laddr:10.0.0.1"),
        ("mapped 10.0.0.1:80", "10.0.0.1:80", "lport:80 laddr:10.0.0.1"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80", "lport:80 laddr:2001:db8::1"),
    ],
)
def test_text_and_filter_of_a_key(spec: str, endpoint: str, local_filter: str) -> None:
    (key,) = ListenerKeys.of(make_sample(make_rows([spelled("LISTEN", spec)]))).keys
    assert (key.endpoint, key.local_filter) == (endpoint, local_filter)


SIBLINGS = {
    "two interfaces and none": (
        ["eth0 0.0.0.0:80", "eth1 0.0.0.0:80", "0.0.0.0:80"],
        ["eth0 10.0.0.1:80", "eth1 10.0.0.1:80", "10.0.0.1:80", "eth2 10.0.0.1:80"],
        ["*%eth0:80", "*%eth1:80", "*:80", "*:80"],
    ),
    "an address, an interface": (
        ["10.0.0.1:80", "eth0 0.0.0.0:80"], ["10.0.0.1:80", "eth0 10.0.0.1:80"], ["10.0.0.1:80", "*%eth0:80"],
    ),
    "an address on an interface": (
        ["eth0 10.0.0.1:80", "eth0 0.0.0.0:80"], ["eth0 10.0.0.1:80", "eth0 10.0.0.2:80"],
        ["10.0.0.1%eth0:80", "*%eth0:80"],
    ),
    "scopes of a link-local address": (
        ["eth0 [fe80::1]:80", "eth1 [fe80::1]:80"], ["eth0 [fe80::1]:80", "eth1 [fe80::1]:80"],
        ["[fe80::1]%eth0:80", "[fe80::1]%eth1:80"],
    ),
    "both families": (
        ["0.0.0.0:80", "v6only [::]:80"], ["10.0.0.1:80", "mapped 10.0.0.1:80", "[2001:db8::1]:80"],
        ["*:80", "*:80", "[::]:80"],
    ),
    "a wildcard beside an address": (
        ["0.0.0.0:80", "10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.2:80"], ["10.0.0.1:80", "*:80"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("listening", "ends", "expected"), SIBLINGS.values(), ids=SIBLINGS)
def test_listeners_of_one_port_are_distinct(listening: list[str], ends: list[str], expected: list[str]) -> None:
    """The lookup and the filter of each key agree on the sockets that belong to it."""
    rows = make_rows([*(spelled("LISTEN", one) for one in listening), *(spelled("ESTAB", end) for end in ends)])
    sample = make_sample(rows)
    keys = ListenerKeys.of(sample)
    where = np.arange(len(listening), len(rows))
    found = keys.lookup(sample, where)
    assert [keys.keys[at].endpoint for at in found] == expected
    assert len(keys.keys) == len(listening)
    for at, key in enumerate(keys.keys):
        assert Filter.parse(key.local_filter).mask(rows)[where].tolist() == (found == at).tolist(), key.local_filter


def test_an_interface_without_a_name() -> None:
    rows = make_rows([spelled("LISTEN", "eth0 0.0.0.0:80")])
    (key,) = ListenerKeys.of(make_sample(rows, interfaces={})).keys
    assert (key.endpoint, key.local_filter) == ("*%1:80", "lport:80 if:1")
    assert Filter.parse(key.local_filter).mask(rows).all()
