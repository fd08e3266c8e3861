"""The filter against a slow reference that makes the text of every row and looks into it."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpwatch import units
from tcpwatch.arrays.digits import numbers_with
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_PERMISSION
from tcpwatch.model.query.address_match import AddressPiece, ipv4_contain, ipv6_contain
from tcpwatch.model.query.filter import ALIASES, EXAMPLES, HELP, TERM_PARSERS, Filter
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import FACTS, State
from tests.support.views import Sock, make_rows, sock

ROWS = make_rows([
    sock("LISTEN", "[::]:443", process="nginx", pid=12, command="nginx: master -g 'x y'", user="root", role="listener"),
    sock("ESTABLISHED", "10.0.0.1:443", "10.0.0.25:40001", process="nginx", pid=13, also=[(14, "nginx-child")],
         uid=33, user="www-data", role="server", inode=4711),
    sock("TIME_WAIT", "10.0.0.1:443", "110.0.0.2:40002"),
    sock("SYN_RCVD", "[2001:db8::1]:22", "[2001:db8:0:1::25]:40003", role="server", interface="eth0"),
    sock("SYN_SENT", "10.0.0.1:50000", "192.0.2.7:443", process="[@click=app.quit]x[/]", pid=99, role="client",
         uid=1000, user=None),
    sock("FIN_WAIT_2", "[::1]:1000", "[::1]:2000", process="Ünï", pid=7),
    sock("ESTAB", "10.0.0.1:8080", "10.0.1.9:50001", mapped=True, owner_code=UNKNOWN_PERMISSION, cookie=0xFFFF0001),
])  # fmt: skip


def passing(filter_text: str, rows: Rows = ROWS) -> list[int]:
    """Indices of the rows that pass."""
    mask = Filter.parse(filter_text).mask(rows)
    assert mask.dtype == np.bool_ and mask.shape == (len(rows),)
    return list(np.flatnonzero(mask).tolist())


@pytest.mark.parametrize(("filter_text", "expected"), [
    ("", [0, 1, 2, 3, 4, 5, 6]),
    ("   ", [0, 1, 2, 3, 4, 5, 6]),
    ("state:tw,syn-recv", [2, 3]),
    ("state:est", [1, 6]),
    ("state:已建立", [1, 6]),
    ("state:SYNC_SENT", [4]),
    ("state:half-open", [3]),
    ("state:teardown", [2, 5]),
    ("state:tear,open", [1, 2, 5, 6]),
    ("state:handshake", [0, 3, 4]),
    ("-state:open !state:teardown", [0, 3, 4]),
    ("port:443", [0, 1, 2, 4]),
    (":443", [0, 1, 2, 4]),
    ("port:https", [0, 1, 2, 4]),
    ("lport:443", [0, 1, 2]),
    ("sport:443", [0, 1, 2]),
    ("rport:443", [4]),
    ("lport:1000-10000", [5, 6]),
    ("rport:40001,40003", [1, 3]),
    ("addr:10.0.", [1, 2, 4, 6]),
    ("raddr:10.0.", [1, 6]),
    ("raddr:10.0.0.0/16", [1, 6]),
    ("raddr:::ffff:10.0.0.0/112", [1, 6]),
    ("raddr:10.0.0.2", []),
    ("raddr:10.0.0.25", [1]),
    ("addr:2001:db8::/32", [3]),
    ("raddr:2001:DB8:0:1::/64", [3]),
    ("raddr:2001:db8::/64", []),
    ("laddr:2001:db8::", [3]),
    ("laddr:2001:0db8::1", [3]),
    ("addr:[::1]", [5]),
    ("laddr:*", [0]),
    ("laddr:::", [0]),
    ("addr:fe80::/10,192.0.2.0/24", [4]),
    ("pid:13", [1]),
    ("pid:14", [1]),
    ("process:NGIN", [0, 1]),
    ("process:child", [1]),
    ("process:ünï", [5]),
    ("user:www-data", [1]),
    ("user:33", [1]),
    ("user:1000", [4]),
    ("role:server", [1, 3]),
    ("role:cl", [4]),
    ("inode:4711", [1]),
    ("cookie:0xffff0001", [6]),
    ("cookie:1,2", [0, 1]),
    ("nginx", [0, 1]),
    ("nginx[13]", [1]),
    ("-nginx :443", [2, 4]),
    ('"x y"', [0]),
    ("'x y'", [0]),
    ("master", [0]),
    ("eth", [3]),
    ("www-", [1]),
    ("time-wait", [2]),
    ("timed_wait", [2]),
    ("同步", [3, 4]),
    ("4000", [1, 2, 3]),
    ("1000", [4, 5]),
    ("https", [0, 1, 2, 4]),
    ("0.0.2", [1, 2]),
    ("10.0.0.25:4", [1]),
    ("[2001:db8::1]:22", [3]),
    ("]:22", [3]),
    ("db8:0:1::2", [3]),
    ("::1", [3, 5]),
    ("[@click=app.quit]", [4]),
    ('"state:tw"', []),
    ('":200"', [5]),
    ('":5000"', [4, 6]),
    ('"1:100"', []),
    ('"1:44"', [1, 2]),
    ('"1]:100"', [5]),
    ("ending:live", [0, 1, 2, 3, 4, 5, 6]),
    ("ending:reset", []),
])  # fmt: skip
def test_terms(filter_text: str, expected: list[int]) -> None:
    assert passing(filter_text) == expected


@pytest.mark.parametrize("filter_text", ["inode:4294967295", "cookie:18446744073709551615", "port:65535", "pid:0"])
def test_the_largest_and_the_smallest_numbers(filter_text: str) -> None:
    assert passing(filter_text) == []


@pytest.mark.parametrize(("filter_text", "said"), [
    ("state:foo", "state:established"),
    ("state:fin", "fin-wait-1 or fin-wait-2"),
    ("state:", "Type state:established"),
    ("sate:tw", "did you mean state:"),
    ("port:65536", "65535"),
    ("port:20-10", "not a range"),
    ("port:nosuchservice", "port:https"),
    ("addr:foo", "addr:10.0.0.1"),
    ("addr:10.0.0.0/40", "10.0.0.0/8"),
    ("pid:x", "pid:1234"),
    ("inode:-1", "inode:4711"),
    ("timer:x", "type timer:on"),
    ("inode:4294967296", "inode:4711"),
    ("cookie:18446744073709551616", "cookie:4711"),
    ("role:boss", "role:client"),
    ("ending:foo", "type ending:closed, reset,"),
    ("ending:-", "ending:closed"),
    ('"open', "quote"),
    ('""', "quotes"),
    ("-", "-state:listen"),
])  # fmt: skip
def test_an_error_is_one_line_that_says_what_to_type(filter_text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Filter.parse(filter_text)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) <= 110


def test_terms_of_timers() -> None:
    timers = ("", "on", "keepalive", "timewait", "persist")
    rows = make_rows([sock("ESTAB", "10.0.0.1:1", "10.0.0.2:2", timer=timer) for timer in timers])
    for number, word in enumerate(("none", "on", "keep", "timewait", "PERSIST")):
        assert passing(f"timer:{word}", rows) == [number]
    assert passing("timer:on,persist", rows) == [1, 4]


def test_every_example_and_alias_is_understood() -> None:
    for example_text in EXAMPLES.values():
        Filter.parse(example_text)
    assert EXAMPLES.keys() == TERM_PARSERS.keys()
    assert set(ALIASES.values()) <= TERM_PARSERS.keys()
    assert all(left and right for left, right in HELP)


def test_every_spelling_of_every_state_is_understood() -> None:
    for state, facts in FACTS.items():
        rows = make_rows([sock(state, "10.0.0.1:1")])
        for name in (state.name, facts.kernel, facts.ss, facts.zh, *facts.spellings):
            assert passing(f'state:"{name}"', rows) == [0]
            assert passing(f'"{name}"', rows) == [0]


@pytest.mark.parametrize(("typed", "counted"), [
    ("st", "st"), ("sta", ""), ("state", ""), ("state:tw", "state:tw"), ("nginx -por", "nginx"), ("prom", "prom"),
    ('"a por', None), ('"a" por', '"a"'),
])  # fmt: skip
def test_a_word_that_may_become_a_key_does_not_count_while_typing(typed: str, counted: str | None) -> None:
    if counted is None:
        with pytest.raises(ValueError, match="quote"):
            Filter.parse_partial(typed)
    else:
        assert Filter.parse_partial(typed).text == counted


def test_filters_are_equal_when_their_texts_are() -> None:
    assert Filter.parse("state:tw ") == Filter.parse("state:tw")
    assert Filter.parse("") == Filter()


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused_with_a_value_error(filter_text: str) -> None:
    try:
        parsed = Filter.parse(filter_text)
    except ValueError:
        return
    assert parsed.mask(ROWS).shape == (len(ROWS),)


# Addresses as text, against inet_ntop

ipv4 = st.one_of(
    st.integers(0, 2**32 - 1), st.lists(st.sampled_from([0, 1, 10, 12, 25, 255]), min_size=4, max_size=4).map(
        lambda octets: int.from_bytes(bytes(octets), "big"))
)  # fmt: skip
hextet = st.one_of(st.sampled_from([0, 0, 0, 1, 0xA, 0x10, 0xFFFF, 0x2001]), st.integers(0, 0xFFFF))
ipv6 = st.lists(hextet, min_size=8, max_size=8)


def written(hextets: list[int]) -> str:
    return socket.inet_ntop(socket.AF_INET6, b"".join(h.to_bytes(2, "big") for h in hextets))


@st.composite
def piece_of(draw: st.DrawFn, full: str) -> str:
    """Mostly a piece of this text, sometimes with one character changed."""
    start = draw(st.integers(0, len(full) - 1))
    piece = full[start : draw(st.integers(start + 1, len(full)))]
    if draw(st.booleans()):
        return piece
    at = draw(st.integers(0, len(piece) - 1))
    return piece[:at] + draw(st.sampled_from("012af.:")) + piece[at + 1 :]


def found_in(full: str, term: AddressPiece) -> bool:
    if term.start and term.end:
        return full == term.text
    if term.start or term.end:
        return full.startswith(term.text) if term.start else full.endswith(term.text)
    return term.text in full


@given(st.lists(ipv4, min_size=1, max_size=5), st.data(), st.booleans(), st.booleans())
def test_ipv4_text(addresses: list[int], data: st.DataObject, start: bool, end: bool) -> None:
    texts = [str(ipaddress.IPv4Address(a)) for a in addresses]
    term = AddressPiece(data.draw(piece_of(texts[0])), start, end)
    assert ipv4_contain(np.array(addresses, np.uint32), term).tolist() == [found_in(t, term) for t in texts]


@given(st.lists(ipv6, min_size=1, max_size=5), st.data(), st.booleans(), st.booleans())
def test_ipv6_text(addresses: list[list[int]], data: st.DataObject, start: bool, end: bool) -> None:
    addresses = [a for a in addresses if a[:6] != [0, 0, 0, 0, 0, 0xFFFF]] or [[0] * 8]
    texts = [written(a) for a in addresses]
    term = AddressPiece(data.draw(piece_of(texts[0])), start, end)
    assert ipv6_contain(np.array(addresses, ">u2"), term).tolist() == [found_in(t, term) for t in texts]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_pieces_of_an_ipv4_compatible_address(start: bool, end: bool) -> None:
    addresses = [[0] * 6 + [0xC000, 0x0201], [0] * 6 + [0x0102, 0x0304]]
    texts = [written(a) for a in addresses]
    assert texts == ["::192.0.2.1", "::1.2.3.4"]
    pieces = [":", "::", ":::", "::1", ":1", "1", "2.1", "::192.0.2.1", ":192.0.2.1", "192.0.2.1", "::2.1", ":4", ".4"]
    for piece in pieces:
        term = AddressPiece(piece, start, end)
        assert ipv6_contain(np.array(addresses, ">u2"), term).tolist() == [found_in(t, term) for t in texts], term


@pytest.mark.parametrize("part", range(16))
def test_every_way_to_shorten_an_ipv6_address(part: int) -> None:
    addresses = [[0 if zeros >> i & 1 else 0x2B + i for i in range(8)] for zeros in range(256)]
    # Those with `::` at the same place go together, as they are compared at once.
    addresses.sort(key=lambda address: (written(address).find("::"), written(address).count(":")))
    addresses = addresses[16 * part : 16 * part + 16]
    texts, hextets = [written(a) for a in addresses], np.array(addresses, ">u2")
    pieces = {
        piece
        for full in texts
        for start in range(len(full))
        for piece in (full[start : start + 5], full[: start + 1], full[start:])
    }
    for piece in sorted(pieces):
        assert ipv6_contain(hextets, AddressPiece(piece)).tolist() == [piece in t for t in texts], piece
    for full in texts:
        assert ipv6_contain(hextets, AddressPiece(full, True, True)).tolist() == [full == t for t in texts]


@given(st.sampled_from([(256, 10), (65536, 10), (65536, 16)]), st.data(), st.booleans(), st.booleans())
def test_text_of_numbers(table: tuple[int, int], data: st.DataObject, start: bool, end: bool) -> None:
    size, base = table
    piece = data.draw(st.text("0123459af", max_size=5))
    found = numbers_with(piece, size, base, start, end)
    for number in data.draw(st.lists(st.integers(0, size - 1), min_size=20)):
        full = f"{number:x}" if base == 16 else str(number)
        assert found_in(full, AddressPiece(piece, start, end)) == (found is not None and bool(found[number])), number


# The text search, against all that a row shows

v4_hosts = ipv4.map(lambda a: str(ipaddress.IPv4Address(a)))
v6_hosts = ipv6.map(lambda a: f"[{written(a)}]")
ports = st.integers(0, 65535)


@st.composite
def socks(draw: st.DrawFn) -> Sock:
    hosts = draw(st.sampled_from([v4_hosts, v6_hosts]))
    return sock(
        draw(st.sampled_from(State)),
        f"{draw(hosts)}:{draw(ports)}",
        f"{draw(hosts)}:{draw(ports)}",
        process=draw(st.sampled_from(["nginx", "a b", "Postgres"])),
        pid=draw(st.integers(1, 3)),
        command=draw(st.sampled_from(["", "x -y"])),
        uid=7,
        interface=draw(st.sampled_from(["", "eth0"])),
    )


def shown(row: Sock) -> list[str]:
    """Each text that the row shows, lower case."""
    facts = FACTS[row.state]
    names = [row.state.name, facts.kernel, facts.ss, facts.zh, *facts.spellings]
    texts = [n.replace("_", "").replace("-", "") for n in names] + [f"{row.process}[{row.pid}]", row.command]
    texts += [row.user or str(row.uid), row.interface]
    for host, port in (row.local, row.remote):
        raw = ipaddress.ip_address(host)
        family = uapi.AF_INET if raw.version == 4 else uapi.AF_INET6
        address = units.address(raw.packed.ljust(16, b"\0"), family)
        texts += [address, *([str(port), units.endpoint(address, port)] if port else [])]
    return [t.lower() for t in texts]


@given(st.lists(socks(), min_size=1, max_size=4), st.data())
@example([sock("ESTAB", "10.0.0.1:80", "10.0.0.2:4000", process="x")], None)
def test_text_search(rows: list[Sock], data: st.DataObject | None) -> None:
    full = rows[0].local if data is None else data.draw(st.sampled_from(shown(rows[0])))
    wanted = "0.1:8" if data is None or not full else data.draw(piece_of(str(full)))
    if not wanted.strip() or '"' in wanted or text_names_a_service(wanted):
        return
    # A state is found whatever stands between the words of its name: fin-wait-2, "fin wait 2".
    squeezed = wanted.replace("-", "").replace(" ", "")
    named = [
        squeezed != "" and any(squeezed in t for t in shown(row)[: 4 + len(FACTS[row.state].spellings)]) for row in rows
    ]
    expected = [found or any(wanted in t for t in shown(row)) for row, found in zip(rows, named, strict=True)]
    mask = Filter.parse(f'"{wanted}"').mask(make_rows(rows))
    assert mask.tolist() == expected


def text_names_a_service(wanted: str) -> bool:
    """Then a port passes too whose number does not contain it."""
    try:
        return bool(socket.getservbyname(wanted, "tcp"))
    except OSError:
        return False
