"""The rules `connect-stuck`, `peer-silent` and `zero-window`: subjects, headlines, filters, and what is merged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpwatch.arrays.address_words import ANY4
from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.analyses.silent_peers import SilentPeer, SilentPeers
from tcpwatch.model.analyses.stalls import Stalls, UnreadProgram
from tcpwatch.model.analyses.unanswered_connects import Unanswered, UnansweredConnects
from tcpwatch.model.analyses.zero_windows import ZeroWindowGroup, ZeroWindows
from tcpwatch.model.finding import Finding, Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.rules import stalls, unanswered
from tcpwatch.model.rules.registry import RuleFunction
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.programs import Program
from tcpwatch.model.view import View
from tests.support.views import Sock, make_rows, make_view, sock

SERVER, SERVER_V6, NETWORK = Endpoint("192.0.2.1", 443), Endpoint("2001:db8::1", 80), Endpoint("10.6.1.0/24")


def view_of(path: Stalls) -> View:
    return make_view(stalls=path)


def findings(rule: RuleFunction, path: Stalls) -> list[Finding]:
    return [candidate.finding for candidate in rule(view_of(path), DEFAULT)]


def said(rule: RuleFunction, path: Stalls) -> list[tuple[str, str]]:
    return [(str(one.subject), one.headline) for one in findings(rule, path)]


def stuck(*destinations: UnansweredConnects, total: int | None = None, attempts: int = 0) -> Stalls:
    return Stalls(unanswered=Unanswered(destinations, 99, len(destinations) if total is None else total, attempts))


def app(*pids: int) -> Program:
    socks = [sock("ESTAB", "10.0.0.1:80", "192.0.2.1:1", process="app", pid=pid, uid=33, user="www") for pid in pids]
    return Program(tuple(owner.processes[0] for owner in make_rows(socks).owners))


# connect-stuck


def test_stuck_from_five_attempts_on() -> None:
    path = stuck(UnansweredConnects(SERVER, 5, 3), UnansweredConnects(SERVER_V6, 4, 9), total=1)
    assert said(unanswered.connect_stuck, path) == [
        ("destination 192.0.2.1:443", "5 connection attempts unanswered, up to 3 SYN retries")
    ]


@pytest.mark.parametrize(
    ("connects", "headline"),
    [
        (UnansweredConnects(SERVER, 8, 1), "8 connection attempts unanswered, up to 1 SYN retry"),
        (UnansweredConnects(SERVER, 0, 0, 20), "20 connection attempts given up without an answer within 30 s"),
        (
            UnansweredConnects(SERVER, 2, 3, 4),
            "6 connection attempts unanswered, up to 3 SYN retries; 4 of them given up within 30 s",
        ),
        (
            UnansweredConnects(NETWORK, 60, 4, addresses=60, examples=("10.6.1.1", "10.6.1.2")),
            "60 connection attempts to 60 addresses (10.6.1.1, 10.6.1.2 and 58 more) unanswered, up to 4 SYN retries",
        ),
    ],
)
def test_headlines_of_unanswered_attempts(connects: UnansweredConnects, headline: str) -> None:
    assert [text for _, text in said(unanswered.connect_stuck, stuck(connects))] == [headline]


def test_the_advice_fits_the_callers() -> None:
    """Nothing is said of two minutes to callers that give up after one second."""
    for connects, minutes in ((UnansweredConnects(SERVER, 5, 2), True), (UnansweredConnects(SERVER, 0, 0, 9), False)):
        (finding,) = findings(unanswered.connect_stuck, stuck(connects))
        assert ("two minutes" in " ".join(finding.advice)) == minutes


def test_many_stuck_destinations_are_one_finding() -> None:
    destinations = [UnansweredConnects(Endpoint(f"192.0.2.{at}", 443), 5, 2) for at in range(1, 21)]
    assert len(said(unanswered.connect_stuck, stuck(*destinations[:5]))) == 5
    assert said(unanswered.connect_stuck, stuck(*destinations, total=47, attempts=250)) == [
        (
            "host web-1",
            "250 connection attempts to 47 destinations unanswered: 192.0.2.1:443, 192.0.2.2:443, 192.0.2.3:443 and 44 "
            "more",
        )
    ]


# peer-silent


def silent(*peers: SilentPeer, total: int | None = None) -> Stalls:
    return Stalls(silent=SilentPeers(peers, len(peers) if total is None else total, sum(peer.count for peer in peers)))


@pytest.mark.parametrize(
    ("count", "severity"), [(3, Severity.WARNING), (19, Severity.WARNING), (20, Severity.CRITICAL)]
)
def test_a_silent_peer(count: int, severity: Severity) -> None:
    path = silent(SilentPeer(Endpoint("192.0.2.1"), count, 42.0, 9_000))
    (finding,) = findings(unanswered.peer_silent, path)
    assert finding.severity == severity
    assert finding.headline == f"{count} connections without an answer, nothing received for 42 s"


def test_attempts_to_a_silent_peer_are_its_finding() -> None:
    (finding,) = findings(unanswered.peer_silent, silent(SilentPeer(Endpoint("192.0.2.1"), 3, 12.0, 1, attempts=6)))
    assert finding.headline.endswith("nothing received for 12 s, 6 connection attempts unanswered")


def test_a_silent_network() -> None:
    peer = SilentPeer(NETWORK, 7, 11.0, 1, addresses=6, examples=("10.6.1.1", "10.6.1.2", "10.6.1.3"))
    ((subject, headline),) = said(unanswered.peer_silent, silent(peer))
    assert subject == "destination 10.6.1.0/24"
    assert headline.startswith("7 connections to 6 addresses (10.6.1.1, 10.6.1.2, 10.6.1.3 and 3 more) without")


def test_many_silent_peers_are_one_finding() -> None:
    peers = [SilentPeer(Endpoint(f"192.0.2.{at}"), 3, 12.0, 1) for at in range(1, 7)]
    assert len(said(unanswered.peer_silent, silent(*peers[:5]))) == 5
    (finding,) = findings(unanswered.peer_silent, silent(*peers))
    assert (str(finding.subject), finding.severity) == ("host web-1", Severity.WARNING)
    assert finding.headline == "18 connections to 6 peers without an answer: 192.0.2.1, 192.0.2.2, 192.0.2.3 and 3 more"
    (cut,) = findings(unanswered.peer_silent, silent(*peers, total=90))
    assert "90 peers" in cut.headline
    assert cut.filter.startswith("timer:")


# zero-window


def group(subject: ListenerKey | Program | Endpoint | None, peers: int, *examples: str) -> ZeroWindowGroup:
    return ZeroWindowGroup(subject, 30, 20.0, 1_000, peers, examples)


@pytest.mark.parametrize(
    ("found", "subject", "headline"),
    [
        (
            group(ListenerKey(8000, *ANY4), 30, "127.0.1.1", "127.0.1.2"),
            "listener *:8000",
            "30 connections to 30 clients blocked by their receive windows, longest 20 s, 1,000 B unsent; 127.0.1.1, "
            "127.0.1.2 and 28 more",
        ),
        (
            group(ListenerKey(8000, *ANY4), 1, "127.0.1.1"),
            "listener *:8000",
            "30 connections to 1 client blocked by the peer's receive window, longest 20 s, 1,000 B unsent; 127.0.1.1",
        ),
        (
            group(SERVER, 1, "192.0.2.1:443"),
            "destination 192.0.2.1:443",
            "30 connections blocked by the peer's receive window, longest 20 s, 1,000 B unsent",
        ),
        (
            group(app(7), 4, "192.0.2.1:443"),
            "process app[7]",
            "30 connections to 4 destinations blocked by their receive windows, longest 20 s, 1,000 B unsent; "
            "192.0.2.1:443 and 3 more",
        ),
        (group(None, 9, "192.0.2.1:443"), "host web-1", None),
    ],
)
def test_zero_windows_of_peers(found: ZeroWindowGroup, subject: str, headline: str | None) -> None:
    ((name, text),) = said(stalls.zero_window, Stalls(zero_window=ZeroWindows((), 1, (found,))))
    assert name == subject
    assert headline in (None, text)


def test_programs_that_do_not_read() -> None:
    unread = (
        UnreadProgram(app(7), 2, 400_000, 1, ("::1",)),
        UnreadProgram(app(8, 9, 10), 30, 40_000, 30, ("::1", "::2")),
    )
    assert said(stalls.zero_window, Stalls(unread=unread)) == [
        ("process app[7]", "app is not reading 2 connections (391 kB queued, zero window) from ::1"),
        (
            "program app of www",
            "3 processes are not reading 30 connections (40,000 B queued, zero window) from ::1, ::2 and 28 more",
        ),
    ]


# Filters


def one(state: str, local: str, remote: str, timer: str = "", **facts: object) -> Sock:
    return sock(state, local, remote, timer=timer, **facts)  # type: ignore[arg-type]


SELECTED: dict[str, tuple[RuleFunction, Stalls, Sock]] = {
    "connect-stuck": (
        unanswered.connect_stuck, stuck(UnansweredConnects(SERVER_V6, 9, 3)),
        one("SYN_SENT", "[::1]:4000", "[2001:db8::1]:80"),
    ),
    "a network that does not answer": (
        unanswered.connect_stuck, stuck(UnansweredConnects(NETWORK, 9, 3, addresses=9)),
        one("SYN_SENT", "10.0.0.1:4000", "10.6.1.200:80"),
    ),
    "a silent peer": (
        unanswered.peer_silent, silent(SilentPeer(Endpoint("2001:db8::1"), 3, 10, 1)),
        one("ESTAB", "[::1]:80", "[2001:db8::1]:4000"),
    ),
    "many silent peers": (
        unanswered.peer_silent, silent(*(SilentPeer(Endpoint(f"192.0.2.{at}"), 3, 10, 1) for at in range(9))),
        one("ESTAB", "10.0.0.1:80", "192.0.2.8:4000"),
    ),
    "a destination's zero window": (
        stalls.zero_window, Stalls(zero_window=ZeroWindows((), 1, (group(SERVER, 1),))),
        one("ESTAB", "10.0.0.1:4000", "192.0.2.1:443", "persist"),
    ),
    "zero windows of clients": (
        stalls.zero_window, Stalls(zero_window=ZeroWindows((), 1, (group(ListenerKey(80, *ANY4), 1),))),
        one("ESTAB", "10.0.0.1:80", "192.0.2.1:443", "persist"),
    ),
    "zero windows of a process's destinations": (
        stalls.zero_window, Stalls(zero_window=ZeroWindows((), 1, (group(app(7), 9),))),
        one("ESTAB", "10.0.0.1:80", "192.0.2.1:443", "persist", process="app", pid=7),
    ),
    "processes that do not read": (
        stalls.zero_window, Stalls(unread=(UnreadProgram(app(5, 6, 7), 1, 1),)),
        one("ESTAB", "10.0.0.1:80", "192.0.2.1:443", process="app", pid=7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SELECTED)
def test_the_filter_selects_the_affected_sockets(name: str) -> None:
    rule, path, concerned = SELECTED[name]
    other = sock("ESTAB", "10.9.9.9:9", "198.51.100.9:9", process="other", pid=9)
    idle = replace(concerned, timer="keepalive") if concerned.timer else other
    (finding,) = findings(rule, path)
    mask = Filter.parse(finding.filter).mask(make_rows([concerned, other, replace(idle, cookie=9)]))
    assert mask.tolist() == [True, False, False]
