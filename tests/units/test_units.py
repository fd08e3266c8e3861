"""Numbers, durations and addresses for people."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch import units
from tcpwatch.units import addresses


@pytest.mark.parametrize(
    ("number", "shown", "exact"),
    [
        (None, "–", "–"),
        (0, "0", "0"),
        (8212, "8,212", "8,212"),
        (999_999, "999,999", "999,999"),
        (1_234_567, "1.23 M", "1,234,567"),
        (12_345_678, "12.3 M", "12,345,678"),
        (999_999_999, "1.00 G", "999,999,999"),
        (4_200_000_000_000, "4.20 T", "4,200,000,000,000"),
        (7 * 10**15, "7000 T", "7,000,000,000,000,000"),
        (-2_000_000, "-2.00 M", "-2,000,000"),
    ],
)
def test_count(number: float | None, shown: str, exact: str) -> None:
    assert (units.count(number), units.count(number, exact=True)) == (shown, exact)


@pytest.mark.parametrize(
    ("number", "shown", "exact"),
    [
        (None, "–", "–"),
        (512, "512", "512"),
        (99_999, "99999", "99999"),
        (100_000, "97.7 k", "100000"),
        (1 << 20, "1.00 M", "1048576"),
        ((1 << 20) - 1, "1.00 M", "1048575"),
        (3 << 40, "3.00 T", str(3 << 40)),
    ],
)
def test_size(number: float | None, shown: str, exact: str) -> None:
    assert (units.size(number), units.size(number, exact=True)) == (shown, exact)


@pytest.mark.parametrize(
    ("number", "shown", "exact"),
    [
        (None, "–", "–"),
        (512, "512 B", "512 B"),
        (46_720, "46,720 B", "46,720 B"),
        (99_999, "99,999 B", "99,999 B"),
        (100_000, "97.7 kB", "100,000 B"),
        (239 * 1024, "239 kB", "244,736 B"),
        ((1 << 20) - 1, "1 MB", "1,048,575 B"),
        (10_380_902, "9.9 MB", "10,380,902 B"),
        (3 << 50, "3072 TB", "3,377,699,720,527,872 B"),
    ],
)
def test_byte_size_and_rate(number: float | None, shown: str, exact: str) -> None:
    assert (units.byte_size(number), units.byte_size(number, exact=True)) == (shown, exact)
    assert units.byte_rate(number) == (shown if number is None else f"{shown}/s")


@pytest.mark.parametrize(
    ("number", "noun", "nouns", "shown"),
    [
        (1, "connection", None, "1 connection"),
        (0, "connection", None, "0 connections"),
        (1200, "connection", None, "1,200 connections"),
        (2, "retry", "retries", "2 retries"),
        (None, "socket", None, "– sockets"),
    ],
)
def test_plural(number: float | None, noun: str, nouns: str | None, shown: str) -> None:
    assert units.plural(number, noun, nouns) == shown


@pytest.mark.parametrize(
    ("per_second", "shown"), [(1.0, "1 SYN/s"), (0.2, "0.2 SYNs/s"), (0, "0 SYNs/s"), (740, "740 SYNs/s")]
)
def test_plural_rate(per_second: float, shown: str) -> None:
    assert units.plural_rate(per_second, "SYN") == shown


@pytest.mark.parametrize(
    ("per_second", "plain", "signed"),
    [
        (None, "–", "–"),
        (float("nan"), "–", "–"),
        (0, "0", "0"),
        (0.04, "0", "0"),
        (-0.2, "-0.2", "-0.2"),
        (0.2, "0.2", "+0.2"),
        (3.0, "3", "+3"),
        (38.4, "38", "+38"),
        (1200, "1,200", "+1,200"),
        (-1200, "-1,200", "-1,200"),
        (2.5e6, "2.50 M", "+2.50 M"),
    ],
)
def test_rate(per_second: float | None, plain: str, signed: str) -> None:
    assert (units.rate(per_second), units.rate(per_second, signed=True)) == (plain, signed)


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (None, 1, "–"),
        (1, None, "–"),
        (1, 0, "–"),
        (0, 9, "0 %"),
        (0.62, 1, "62 %"),
        (12, 1000, "1.2 %"),
        (2, 10_000, "0.02 %"),
        (3, 2, "150 %"),
    ],
)
def test_share(part: float | None, whole: float | None, shown: str) -> None:
    assert units.share(part, whole) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.2, "0.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (182, "3 m 02 s"),
        (3599.7, "1 h 00 m"),
        (7500, "2 h 05 m"),
        (86_399, "23 h 59 m"),
        (86_400, "1 d 00 h"),
        (4 * 86_400 + 3 * 3600 + 59, "4 d 03 h"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert units.duration(seconds) == shown


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_duration_is_never_shown_shorter(first: float, second: float) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

    def read(shown: str) -> float:
        words = shown.split()
        return sum(float(number) * seconds[unit] for number, unit in zip(words[::2], words[1::2], strict=True))

    short, long = sorted((first, second))
    assert read(units.duration(short)) <= read(units.duration(long))


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "–"), (0, "0 µs"), (0.045, "45 µs"), (0.9994, "999 µs"), (0.9996, "1.0 ms"), (1.24, "1.2 ms"),
        (9.94, "9.9 ms"), (9.95, "10 ms"), (340, "340 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (182_000, "182 s"),
        (999_600, "17 m"), (3.6e6, "60 m"), (6e7, "17 h"), (1e9, "278 h"),
    ],
)  # fmt: skip
def test_short_duration(ms: float | None, words: str) -> None:
    assert units.short_duration(ms) == words
    assert len(words) <= 6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 µs"), (12e-6, "12 µs"), (0.9994e-3, "999 µs"), (0.0023, "2.3 ms"), (0.0999, "99.9 ms"),
        (0.412, "412 ms"), (0.9996, "1.000 s"), (1.2345, "1.234 s"), (9.9999, "10 s"), (62, "1 m 02 s"),
    ],
)  # fmt: skip
def test_precise_duration(seconds: float, words: str) -> None:
    assert units.precise_duration(seconds) == words


@given(st.ip_addresses())
def test_addresses_are_those_of_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    shown = units.address(address.packed.ljust(16, b"\0"), family)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert ipaddress.ip_address(shown) == (mapped or address)


def test_mapped_addresses_are_shown_as_ipv4() -> None:
    assert units.address(ipaddress.ip_address("::ffff:192.0.2.1").packed, socket.AF_INET6) == "192.0.2.1"


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [("192.0.2.1", 80, "192.0.2.1:80"), ("2001:db8::1", "http", "[2001:db8::1]:http"), ("*", "*", "*:*")],
)
def test_endpoint(host: str, port: str | int, shown: str) -> None:
    assert units.endpoint(host, port) == shown


def test_a_port_without_a_name_is_a_number() -> None:
    assert units.service(80) in ("http", "80")  # 80 where there is no services(5)
    assert units.service(0) == "0"
    for port in (22, 443, 1):
        try:
            assert units.service(port) == socket.getservbyport(port, "tcp")
        except OSError:
            assert units.service(port) == str(port)


@given(st.text(max_size=30), st.integers(0, 40))
def test_shortened_keeps_both_ends(whole: str, width: int) -> None:
    short = units.shortened(whole, width)
    assert len(short) <= width
    if len(whole) <= width:
        assert short == whole
    elif width >= 3:
        left, _, right = short.partition("…") if "…" not in whole else (short[:1], "", short[-1:])
        assert whole.startswith(left)
        assert whole.endswith(right)
        assert left
        assert right


def test_names_of_ports_are_those_of_the_c_library() -> None:
    services = Path("/etc/services")
    for line in services.read_text(encoding="utf-8").splitlines() if services.exists() else ():
        words = line.partition("#")[0].split()
        for word in [word for word in words if "/" not in word] if "/tcp" in line else []:
            assert units.service_port(word) == socket.getservbyname(word, "tcp"), line
    assert units.service_port("no-such-service") is None


def test_names_of_ports_need_no_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might not answer."""
    monkeypatch.setattr(socket, "getservbyname", lambda *arguments: pytest.fail("asked"))
    monkeypatch.setattr(socket, "getservbyport", lambda *arguments: pytest.fail("asked"))
    assert (units.service(80), units.service_port("http")) in (("http", 80), ("80", None))


def test_services_with_odd_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        b"http 80/tcp www # WorldWideWeb", b"https\t443/tcp", b"80/tcp", b"odd", b"a b/tcp", b"a 1/2/tcp",
        b"big 70000/tcp", b"huge " + b"9" * 5000 + b"/tcp", b"\x1b[31mred 81/tcp", b"\xff 82/tcp", b"udp 83/udp",
        b"#x 84/tcp", b"", b"\0", b"second 80/tcp", b"x" * 500 + b" 85/tcp", b"tail 86/tcp#comment", b"wrong 87/tcpx",
        "\u202eevil 88/tcp".encode(),
    ]  # fmt: skip
    services = tmp_path / "services"
    services.write_bytes(b"\n".join(lines))
    monkeypatch.setattr(addresses, "_SERVICES", services)
    addresses._services.cache_clear()
    try:
        assert [units.service(port) for port in (80, 443, 86)] == ["http", "https", "tail"]
        assert [units.service(port) for port in (83, 84, 87)] == ["83", "84", "87"]
        assert [units.service(port) for port in (81, 88)] == ["\\x1b[31mred", "\\u202eevil"]
        assert len(units.service(85)) == 32
        assert all(units.service(port).isprintable() for port in range(100))
    finally:
        addresses._services.cache_clear()
