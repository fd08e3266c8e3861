"""Sources of half-open connections: examples as data, and random ones against a plain count."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpwatch.model.listeners.syn_sources import PREFIX_KINDS, TOP, PrefixKind, SynSource, SynSources
from tcpwatch.model.query.filter import Filter
from tests.support.views import Sock, make_view, sock


def request_from(address: str, number: int = 0) -> Sock:
    """Build a half-open connection from this address; `mapped 192.0.2.1` is IPv4-mapped IPv6."""
    host, mapped = address.removeprefix("mapped "), address.startswith("mapped ")
    local = "[2001:db8::80]:80" if ":" in host else "10.0.0.1:80"
    remote = f"[{host}]" if ":" in host else host
    return sock("SYN_RCVD", local, f"{remote}:{1024 + number}", mapped=mapped)


def sources_of(addresses: Sequence[str]) -> SynSources:
    return make_view(*(request_from(one, at) for at, one in enumerate(addresses))).half_open.sources


# Addresses, then the largest group of each kind: `prefix count`.
CROWDS = {
    "nobody": "",
    "one": "192.0.2.7 : 192.0.2.7 1 | 192.0.2.0/24 1 | 192.0.0.0/16 1 | - | -",
    "one, often": "192.0.2.7*9 : 192.0.2.7 9 | 192.0.2.0/24 9 | 192.0.0.0/16 9 | - | -",
    "one network": "192.0.2.1 192.0.2.2 192.0.2.3 : 192.0.2.1 1 | 192.0.2.0/24 3 | 192.0.0.0/16 3 | - | -",
    "neighbours": "10.1.1.1 10.1.2.1 10.2.1.1*2 : 10.2.1.1 2 | 10.2.1.0/24 2 | 10.1.0.0/16 2 | - | -",
    "the ends": "0.0.0.0 255.255.255.255*2 : 255.255.255.255 2 | 255.255.255.0/24 2 | 255.255.0.0/16 2 | - | -",
    "IPv6": "2001:db8::1*2 2001:db8:0:1::1 : 2001:db8::1 2 | - | - | 2001:db8::/64 2 | 2001:db8::/48 3",
    "the last of IPv6": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff : ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1 | - | - "
    "| ffff:ffff:ffff:ffff::/64 1 | ffff:ffff:ffff::/48 1",
    "nearly mapped": "::fffe:c000:207*2 ::1:ffff:c000:207 : ::fffe:c000:207 2 | - | - | ::/64 3 | ::/48 3",
    "mapped is IPv4": "mapped 192.0.2.7*2 192.0.2.7 : 192.0.2.7 3 | 192.0.2.0/24 3 | 192.0.0.0/16 3 | - | -",
    "both": "192.0.2.7 2001:db8::1*2 : 2001:db8::1 2 | 192.0.2.0/24 1 | 192.0.0.0/16 1 | 2001:db8::/64 2 "
    "| 2001:db8::/48 2",
}


def crowd_of(words: str) -> list[str]:
    addresses: list[str] = []
    for word in words.replace("mapped ", "mapped_").split():
        address, _, times = word.replace("mapped_", "mapped ").partition("*")
        addresses += [address] * int(times or 1)
    return addresses


@pytest.mark.parametrize("name", CROWDS)
def test_the_largest_group_of_each_kind(name: str) -> None:
    crowd, _, largest = CROWDS[name].partition(" : ")
    found = sources_of(crowd_of(crowd))
    expected = largest.split(" | ") if largest else ["-"] * len(PREFIX_KINDS)
    named = [found.largest(grouping) for grouping in PREFIX_KINDS]
    assert [f"{one.prefix} {one.count}" if one else "-" for one in named] == expected
    assert found.count == len(crowd_of(crowd))


@pytest.mark.parametrize(
    ("crowd", "distinct_share", "entropy"),
    [
        ("", 0.0, 0.0), ("192.0.2.1", 1.0, 0.0), ("192.0.2.1*4", 0.25, 0.0),
        ("192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4", 1.0, 2.0), ("192.0.2.1*3 2001:db8::1", 0.5, 0.8113),
    ],
)  # fmt: skip
def test_distinct_share_and_entropy(crowd: str, distinct_share: float, entropy: float) -> None:
    found = sources_of(crowd_of(crowd))
    assert (found.distinct_share, round(found.entropy, 4)) == (distinct_share, entropy)


def test_at_most_top_groups_and_equal_ones_in_order_of_address() -> None:
    crowd = [f"10.0.{at}.{at}" for at in range(60) for _ in range(1 + (at == 50))]
    found = sources_of(crowd)
    assert [one.prefix for one in found.top["address"]] == ["10.0.50.50", *(f"10.0.{at}.{at}" for at in range(9))]
    assert len(found.top["/24"]) == TOP
    assert found.top["/16"] == (SynSource("10.0.0.0/16", 61, 1.0),)


# Against a plain count --------------------------------------------------------------------------

_NETWORKS = {4: ("10.0.0.0", "10.0.1.0", "10.1.0.0", "192.0.2.0"), 6: ("2001:db8::", "2001:db8:0:1::", "fd00::")}


def _addresses(version: int) -> st.SearchStrategy[str]:
    """Addresses of few networks, so that prefixes occur often, or of any network."""
    near = st.tuples(st.sampled_from(_NETWORKS[version]), st.integers(0, 9)).map(
        lambda it: str(ipaddress.ip_address(it[0]) + it[1])
    )
    far = st.ip_addresses(v=4).map(str) if version == 4 else st.ip_addresses(v=6).map(_spelled)
    return near | far


def _spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"mapped {mapped}" if mapped else str(address)


CROWD = st.lists(_addresses(4) | _addresses(6) | _addresses(4).map(lambda address: f"mapped {address}"), max_size=80)


def counted(addresses: Sequence[str], grouping: PrefixKind) -> Counter[str]:
    """Count with ipaddress and Counter."""
    parsed = [ipaddress.ip_address(one.removeprefix("mapped ")) for one in addresses]
    if grouping == "address":
        return Counter(map(str, parsed))
    version, bits = (4, grouping) if grouping in ("/24", "/16") else (6, grouping)
    return Counter(str(ipaddress.ip_network(f"{one}{bits}", strict=False)) for one in parsed if one.version == version)


@given(CROWD)
def test_groups_equal_a_plain_count(addresses: list[str]) -> None:
    found = sources_of(addresses)
    for grouping in PREFIX_KINDS:
        expected, named = counted(addresses, grouping), found.top[grouping]
        assert {one.prefix: one.count for one in named}.items() <= expected.items()
        assert [one.count for one in named] == sorted(expected.values(), reverse=True)[:TOP]
        assert len({one.prefix for one in named}) == len(named)
        assert all(math.isclose(one.share, one.count / len(addresses)) for one in named)


@given(CROWD)
def test_distinct_addresses_and_entropy_equal_a_plain_count(addresses: list[str]) -> None:
    found, expected = sources_of(addresses), counted(addresses, "address")
    assert (found.count, found.distinct) == (len(addresses), len(expected))
    shares = [times / len(addresses) for times in expected.values()]
    assert found.entropy == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-6)
    assert 0 <= found.entropy <= math.log2(max(1, found.distinct)) + 1e-6


@given(CROWD)
@example(["2001:db8::", "2001:db8::1"])
def test_the_filter_selects_the_connections_of_a_group(addresses: list[str]) -> None:
    view = make_view(*(request_from(one, at) for at, one in enumerate(addresses)))
    for grouping in PREFIX_KINDS:
        for one in view.half_open.sources.top[grouping][:2]:
            assert int(Filter.parse(f"state:syn-rcvd {one.term}").mask(view.rows).sum()) == one.count


def test_each_listener_has_its_own_sources() -> None:
    """Two listeners' connections, IPv4 and IPv6 in turns, taken apart."""
    socks = [sock("LISTEN", f"[::]:{port}", send_queue=4) for port in (80, 81)]
    for at in range(12):
        peer = f"[2001:db8::{at:x}]" if at % 3 else f"192.0.2.{at}"
        local = "[2001:db8::80]" if at % 3 else "10.0.0.1"
        socks.append(sock("SYN_RCVD", f"{local}:{80 + (at % 4 == 0)}", f"{peer}:{1024 + at}"))
    found = {key.port: one.sources for key, one in make_view(*socks).half_open_by_listener.items()}
    assert found[80].count == 9
    assert {one.prefix for one in found[80].top["/24"]} == {"192.0.2.0/24"}
    assert [one.count for one in found[80].top["/24"]] == [3]
    assert {one.prefix for one in found[80].top["address"]} == {
        "192.0.2.3", "192.0.2.6", "192.0.2.9", *(f"2001:db8::{at:x}" for at in (1, 2, 5, 7, 10, 11)),
    }  # fmt: skip
