"""Addresses as numbers, compared with the standard library."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from tcpwatch.arrays import address_words as words

ADDRESSES = (
    "192.0.2.1", "127.0.0.1", "0.0.0.0", "::", "::1", "::2", "::ffff:192.0.2.1", "::ffff:127.1.2.3", "::ffff:126.0.0.1",
    "::fffe:c000:201", "1::ffff:c000:201", "2001:db8::1",
)  # fmt: skip
IPS = [ipaddress.ip_address(text) for text in ADDRESSES]
IS_V4 = np.array([ip.version == 4 for ip in IPS])
RAW = np.frombuffer(b"".join(ip.packed.ljust(16, b"\0") for ip in IPS), np.uint8).reshape(-1, 16)


def _as_ipv4(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ip if isinstance(ip, ipaddress.IPv4Address) else ip.ipv4_mapped


def _numbers(halves: words.Halves) -> list[int]:
    return [high << 64 | low for high, low in halves.tolist()]


def test_halves() -> None:
    assert _numbers(words.address_halves(RAW[~IS_V4])) == [int(ip) for ip in IPS if ip.version == 6]


def test_ipv4_becomes_mapped() -> None:
    expected = [int(ip) if ip.version == 6 else 0xFFFF << 32 | int(ip) for ip in IPS]
    assert _numbers(words.mapped_halves(RAW, IS_V4)) == expected
    assert words.are_mapped(words.mapped_halves(RAW, IS_V4)).tolist() == [_as_ipv4(ip) is not None for ip in IPS]


def test_ipv4_numbers_include_mapped_addresses() -> None:
    numbers, valid = words.ipv4_numbers(RAW, IS_V4)
    assert valid.tolist() == [_as_ipv4(ip) is not None for ip in IPS]
    assert numbers[valid].tolist() == [int(v4) for ip in IPS if (v4 := _as_ipv4(ip)) is not None]
    numbers, valid = words.ipv4_numbers(RAW[IS_V4], IS_V4[IS_V4])
    assert valid.all()
    assert numbers.tolist() == [int(ip) for ip in IPS if ip.version == 4]


def test_loopback() -> None:
    expected = [(_as_ipv4(ip) or ip).is_loopback for ip in IPS]
    assert words.are_loopback(words.mapped_halves(RAW, IS_V4)).tolist() == expected


def test_hashes_differ_by_address_and_seed() -> None:
    halves = words.mapped_halves(RAW, IS_V4)
    distinct = len(set(_numbers(halves)))
    assert len(set(words.hash_addresses(halves).tolist())) == distinct
    both = [*words.hash_addresses(halves).tolist(), *words.hash_addresses(halves, np.uint64(80)).tolist()]
    assert len(set(both)) == 2 * distinct


@pytest.mark.parametrize("rows", [0, 3])
def test_first_words_are_a_view_of_a_column(rows: int) -> None:
    table = np.zeros(rows, [("before", "u1"), ("address", "u1", 16)])
    table["address"] = RAW[:rows]
    assert words.first_words(table, "address").tolist() == [int(ip) for ip in IPS[:rows]]
