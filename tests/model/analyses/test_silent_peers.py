"""Peers from which nothing comes, by the timers of their connections and by tcp_info."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.analyses.silent_peers import TOP, SilenceLimits, SilentPeerAnalysis, SilentPeers, unanswered_rows
from tcpwatch.sample import Sample, TcpInfoTable
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

PEER = "192.0.2.1"
LONG_SILENCE = MappingProxyType({"rto": 64_000_000, "backoff": 8, "last_data_sent": 1_000})
"""More than a minute."""


def busy(cookie: int, remote: str = f"{PEER}:443", retransmits: int = 3, timer: str = "on", **facts: object) -> Sock:
    local = "[2001:db8::9]:40000" if "[" in remote else "10.0.0.1:40000"
    wanted = {"process": "app", "pid": 7, "age_s": 100.0, "send_queue": 100} | facts
    return sock("ESTAB", local, remote, timer=timer, retransmits=retransmits, cookie=cookie, **wanted)  # type: ignore[arg-type]


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, **facts)


def follow(
    *seconds: list[Sock],
    heard_s: Mapping[int, float] | float = -10.0,
    limits: SilenceLimits | None = None,
    timer: Mapping[str, int] = LONG_SILENCE,
) -> list[SilentPeers]:
    """Each second has these sockets; `heard_s`: second at which something was received, of each cookie or of all.

    `timer` has the fields of tcp_info that show for how long a connection has retransmitted.
    """
    analysis, found = SilentPeerAnalysis(limits or SilenceLimits()), []
    samples = [sample(at, *socks) for at, socks in enumerate(seconds)]
    for at, poll in enumerate(polls(*samples)):
        asked = analysis.wanted_tcp_info
        ages = {cookie: at - (heard_s if isinstance(heard_s, float) else heard_s[cookie]) for cookie in asked}
        infos = {
            cookie: {"last_data_recv": round(1000 * age), "last_ack_recv": round(1000 * age) + 5_000, **timer}
            for cookie, age in ages.items()
        }
        known = replace(poll, sample=replace(poll.sample, watched_tcp_info=infos))
        table = known.sample.table
        rows = unanswered_rows(known.sample, np.arange(len(table)), table["idiag_timer"])
        found.append(analysis.step(known, rows))
    return found


def shown(silent: SilentPeers) -> list[tuple[str, int, float]]:
    return [(str(peer.remote), peer.count, peer.silent_s) for peer in silent.peers]


def test_a_peer_whose_connections_all_retransmit() -> None:
    socks = [busy(cookie) for cookie in range(1, 4)]
    first, second, third = follow(socks, socks, socks)
    assert shown(first) == [], "when something was received is not known yet"
    assert shown(second) == [(PEER, 3, 11.0)]
    assert shown(third) == [(PEER, 3, 12.0)]
    assert (second.peers[0].unacknowledged, second.all_peers, second.connections) == (300, 1, 3)
    assert len(second.addresses) == 1


def test_a_peer_owes_no_answer_before_something_was_sent() -> None:
    """Idle connections, on which nothing was received for a minute, begin to retransmit: the peer is not silent yet."""
    socks = [busy(cookie) for cookie in range(1, 4)]
    short = {"rto": 800_000, "backoff": 2, "last_data_sent": 300}  # retransmits since 0.9 s, when it is asked at 1 s
    results = follow(*[socks] * 12, heard_s=-60.0, timer=short)
    assert [shown(one) for one in results[:10]] == [[]] * 10
    assert [count for _, count, _ in shown(results[-1])] == [3]
    assert 10.9 <= results[-1].peers[0].silent_s <= 11.1


def test_too_few_or_not_long_enough() -> None:
    socks = [busy(cookie) for cookie in range(1, 4)]
    assert shown(follow(socks[:2], socks[:2])[-1]) == []
    assert shown(follow(socks, socks, heard_s=-8.9)[-1]) == []
    assert shown(follow(socks, socks, heard_s=-9.0)[-1]) == [(PEER, 3, 10.0)]


def test_one_connection_that_hears_from_the_peer_proves_that_it_is_not_silent() -> None:
    socks = [busy(cookie) for cookie in range(1, 6)]
    idle = busy(9, timer="", retransmits=0)
    heard = dict.fromkeys(range(1, 6), -30.0)
    assert shown(follow([*socks, idle], [*socks, idle], heard_s={**heard, 9: -20.0})[-1]) == [(PEER, 5, 21.0)]
    assert shown(follow([*socks, idle], [*socks, idle], heard_s={**heard, 9: 0.0})[-1]) == []
    other_peer = busy(9, "192.0.2.2:443", timer="", retransmits=0)
    assert shown(follow([*socks, other_peer], [*socks, other_peer], heard_s={**heard, 9: 0.0})[-1]) == [(PEER, 5, 31.0)]


def test_a_new_connection_is_an_answer() -> None:
    socks = [busy(cookie) for cookie in range(1, 4)]
    fresh = busy(9, timer="", retransmits=0)
    heard = {**dict.fromkeys(range(1, 4), -30.0), 9: -30.0}
    assert shown(follow(socks, [*socks, fresh], heard_s=heard)[-1]) == [], "nothing else is known of it"
    assert shown(follow(socks, [*socks, fresh], [*socks, fresh], heard_s=heard)[-1]) == [(PEER, 3, 32.0)]


def test_progress_between_two_dumps_is_an_answer() -> None:
    socks = [busy(cookie) for cookie in range(1, 4)]

    def infos(second: float, received: int) -> TcpInfoTable:
        figures = np.zeros(1, uapi.FLOW_INFO)
        figures["tcpi_bytes_received"] = received
        return TcpInfoTable(
            cookie=np.array([3], np.uint64),
            table=figures,
            received_monotonic_s=np.array([second]),
            info_bytes=uapi.TCP_INFO.itemsize,
        )

    for received, expected in ((0, 1), (5, 0)):
        analysis = SilentPeerAnalysis(SilenceLimits())
        dumps = [infos(0, 0), infos(1, received)]
        for poll in polls(*(sample(at, *socks, tcp_info_table=dump) for at, dump in enumerate(dumps))):
            wanted = analysis.wanted_tcp_info
            ages = {cookie: {"last_data_recv": 60_000, "last_ack_recv": 60_000, **LONG_SILENCE} for cookie in wanted}
            known = replace(poll, sample=replace(poll.sample, watched_tcp_info=ages))
            silent = analysis.step(known, np.arange(3))
        assert silent.all_peers == expected


def test_which_sockets_wait_for_an_answer() -> None:
    socks = [
        busy(1), busy(2, timer="keepalive"), busy(3, timer="persist"), busy(4, retransmits=0),
        busy(5, timer="timewait"),
        replace(busy(6), inode=0),
        sock("SYN_SENT", "10.0.0.1:1", "192.0.2.1:1", timer="on", retransmits=3, process="app", pid=7, cookie=7),
        sock("FIN_WAIT_1", "10.0.0.1:1", "192.0.2.1:1", timer="on", retransmits=3, process="app", pid=7, cookie=8),
    ]  # fmt: skip
    one = sample(0, *socks)
    rows = unanswered_rows(one, np.arange(len(socks)), one.table["idiag_timer"])
    assert one.cookie[rows].tolist() == [1, 2, 3, 8]
    probes = [
        busy(1, retransmits=1),
        busy(2, timer="keepalive", retransmits=1),
        busy(3, timer="persist", retransmits=1),
    ]
    once = sample(0, *probes)
    assert once.cookie[unanswered_rows(once, np.arange(3), once.table["idiag_timer"])].tolist() == [1]


def test_a_network() -> None:
    socks = [busy(at, f"10.6.1.{at}:80") for at in range(1, 7)]
    last = follow(socks, socks)[-1]
    assert shown(last) == [("10.6.1.0/24", 6, 11.0)]
    assert (last.peers[0].addresses, last.peers[0].examples) == (6, ("10.6.1.1", "10.6.1.2", "10.6.1.3"))
    assert shown(follow(socks[:4], socks[:4])[-1]) == [], "four addresses, one connection each"
    alive = busy(99, "10.6.1.99:80", timer="", retransmits=0)
    heard = {**dict.fromkeys(range(1, 7), -30.0), 99: 0.0}
    assert shown(follow([*socks, alive], [*socks, alive], heard_s=heard)[-1]) == [], "the network answers"


def test_addresses_of_a_network_that_answers_elsewhere() -> None:
    socks = [busy(10 * at + each, f"10.6.1.{at}:80") for at in range(1, 6) for each in range(3)]
    alive = busy(99, "10.6.1.99:80", timer="", retransmits=0)
    heard = {**{one.cookie: -30.0 for one in socks if one.cookie}, 99: 0.0}
    last = follow([*socks, alive], [*socks, alive], heard_s=heard)[-1]
    assert [peer for peer, *_ in shown(last)] == [f"10.6.1.{at}" for at in range(1, 6)]


def test_ipv6() -> None:
    socks = [busy(cookie, "[2001:db8::1]:443") for cookie in range(1, 4)]
    assert shown(follow(socks, socks)[-1]) == [("2001:db8::1", 3, 11.0)]


def test_ipv4_mapped_addresses_are_the_same_peer() -> None:
    socks = [busy(1), busy(2), replace(busy(3), mapped=True)]
    assert shown(follow(socks, socks)[-1]) == [(PEER, 3, 11.0)]


def test_attempts_to_a_silent_peer() -> None:
    socks = [busy(cookie) for cookie in range(1, 4)]
    calls = [sock("SYN_SENT", "10.0.0.1:9", f"{PEER}:{port}", process="app", pid=7, cookie=port) for port in (80, 81)]
    assert follow([*socks, *calls], [*socks, *calls])[-1].peers[0].attempts == 2


def test_thousands_of_connections_are_asked_in_turn() -> None:
    socks = [busy(cookie) for cookie in range(1, 601)]
    counts = [one.connections for one in follow(*[socks] * 5)]
    assert counts == [0, 256, 512, 600, 600]


def test_what_recovered_is_asked_again() -> None:
    """A connection that stopped retransmitting and begins again is not judged by what was known before."""
    broken, well = [busy(cookie) for cookie in range(1, 4)], [busy(c, retransmits=0) for c in range(1, 4)]
    results = follow(broken, broken, well, broken, broken, heard_s=-60.0)
    assert [len(one.peers) for one in results] == [0, 1, 0, 0, 1]


def test_the_list_is_cut_and_the_numbers_are_of_all() -> None:
    socks = [busy(10 * net + each, f"10.{net}.1.1:80") for net in range(1, 41) for each in range(3)]
    last = follow(socks, socks)[-1]
    assert (len(last.peers), last.all_peers, last.connections, len(last.addresses)) == (TOP, 40, 120, 40)
