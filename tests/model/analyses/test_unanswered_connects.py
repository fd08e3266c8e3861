"""Connection attempts without an answer: those that wait, those given up, and failures spread over a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.model.analyses.unanswered_connects import (
    EXAMPLES,
    TOP,
    ConnectLimits,
    Unanswered,
    UnansweredConnectAnalysis,
)
from tcpwatch.model.lifecycle.archive import RECORD
from tcpwatch.model.lifecycle.tracker import NOTHING_HAPPENED, LifecycleStep
from tcpwatch.model.sockets.remote_ends import RemoteEnds
from tcpwatch.model.states import Role
from tcpwatch.sample import Sample
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, make_table, sock

NONE = np.empty(0, np.uint64)
DEAD = "192.0.2.1:443"


def sample(second: float, *socks: Sock, **facts: object) -> Sample:
    numbered = [one if one.cookie else replace(one, cookie=100 + at) for at, one in enumerate(socks)]
    return make_sample(make_rows(numbered, time=NOW + second), monotonic=second, **facts)


def syn(remote: str, retransmits: int) -> Sock:
    local = "[2001:db8::9]:40000" if "[" in remote else "10.0.0.1:40000"
    return sock("SYN_SENT", local, remote, retransmits=retransmits, process="app", pid=7)


def closed(
    remote: str,
    count: int,
    *,
    waited_s: float = 1.0,
    end: float = 1.0,
    received: int = 0,
    retransmits: int = 0,
    left_ms: int | None = None,
    info_bytes: int = uapi.TCP_INFO.itemsize,
) -> NDArray[np.void]:
    """Return records of `count` connections that ended at second `end`; `left_ms` of the timer in the last poll."""
    records = np.zeros(count, RECORD)
    timer = {} if left_ms is None else {"timer": "on", "timer_s": left_ms / 1000}
    local = "[2001:db8::9]:40000" if "[" in remote else "10.0.0.1:40000"
    records["row"] = make_table([sock("SYN_SENT", local, remote, **timer)] * count)  # type: ignore[arg-type]
    records["role"], records["seen"] = Role.CLIENT, left_ms is not None
    records["end"], records["begin"], records["info_bytes"] = NOW + end, NOW + end - waited_s, info_bytes
    info = records["info"]
    info["tcpi_segs_in"], info["tcpi_segs_out"], info["tcpi_total_retrans"] = received, 1 + retransmits, retransmits
    return records


def step_of(records: Sequence[NDArray[np.void]] = ()) -> LifecycleStep:
    return replace(NOTHING_HAPPENED, ended=np.concatenate([np.empty(0, RECORD), *records]))


def follow(
    *seconds: tuple[Sequence[Sock], Sequence[NDArray[np.void]]],
    limits: ConnectLimits | None = None,
    silent: NDArray[np.uint64] = NONE,
) -> list[Unanswered]:
    """Each step has the sockets of its poll, and the records of the connections that ended before it."""
    analysis = UnansweredConnectAnalysis(limits or ConnectLimits())
    samples = [sample(at, *socks) for at, (socks, _) in enumerate(seconds)]
    steps = zip(polls(*samples), seconds, strict=True)
    return [analysis.step(poll, step_of(records), silent) for poll, (_, records) in steps]


def found(unanswered: Unanswered) -> list[tuple[str, int, int, int]]:
    return [(str(it.remote), it.count, it.retransmits, it.given_up) for it in unanswered.destinations]


def test_syns_that_nobody_answers() -> None:
    dead = [syn(DEAD, retransmits) for retransmits in (0, 1, 2, 3, 5)]
    others = [syn("192.0.2.1:80", 2), syn("[2001:db8::1]:443", 2), syn("[2001:db8::1]:443", 4)]
    (one,) = follow(([*dead, *others], ()))
    assert found(one) == [(DEAD, 3, 5, 0), ("[2001:db8::1]:443", 2, 4, 0), ("192.0.2.1:80", 1, 2, 0)]
    assert (one.stuck, one.stuck_attempts) == (0, 0)


def test_attempts_that_were_given_up() -> None:
    first, second, third = follow(((), ()), ((), [closed(DEAD, 4)]), ([syn(DEAD, 2)], [closed(DEAD, 2, end=2)]))
    assert (first.destinations, found(second)) == ((), [(DEAD, 0, 0, 4)])
    assert found(third) == [(DEAD, 1, 2, 6)]
    assert (third.stuck, third.stuck_attempts, third.destinations[0].longest_s) == (1, 7, 1.0)


def test_given_up_attempts_are_forgotten_after_the_window() -> None:
    limits = ConnectLimits(window_s=2)
    results = follow(((), ()), ((), [closed(DEAD, 5)]), ((), ()), ((), ()), limits=limits)
    assert [found(one) for one in results] == [[], [(DEAD, 0, 0, 5)], [(DEAD, 0, 0, 5)], []]


def test_what_is_no_unanswered_attempt() -> None:
    """Refused, closed too early (another attempt succeeded), without a tcp_info, or by an older kernel's tcp_info."""
    for records in (
        closed(DEAD, 9, received=1),
        closed(DEAD, 9, waited_s=0.09),
        closed(DEAD, 9, info_bytes=0),
        closed(DEAD, 9, info_bytes=uapi.TCP_INFO.fields["tcpi_segs_in"][1]),  # type: ignore[index]
    ):
        assert found(follow(((), ()), ((), [records]))[-1]) == []


def test_how_long_an_attempt_waited() -> None:
    """By its times, by its retransmits, or by the timer of the poll before: 0.7 s are left of the first second."""
    for facts, expected in (
        ({"waited_s": 0.3}, 0.3),
        ({"waited_s": 0.0, "retransmits": 1}, 1.0),
        ({"waited_s": 0.0, "left_ms": 700, "end": 0.5}, 0.8),
        ({"waited_s": 0.6, "left_ms": 1_700}, 0.6),
    ):
        result = follow(((), ()), ((), [closed(DEAD, 1, **facts)]))[-1]  # type: ignore[arg-type]
        assert round(result.destinations[0].longest_s, 3) == expected


@pytest.mark.parametrize(("received", "port", "expected"), [(0, 443, 1), (1, 443, 0), (0, 0, 0)])
def test_a_destroy_event_that_comes_after_the_poll(received: int, port: int, expected: int) -> None:
    """The poll found the attempt ended at second 1; its event was received at 1.002 s, and is read in the next step."""
    ended = closed(DEAD, 1, waited_s=0.8, info_bytes=0)
    ended["cookie"] = 7
    events = np.zeros(1, uapi.TCP_INFO)
    events["tcpi_segs_in"], events["tcpi_segs_out"] = received, 1
    table = ended["row"].copy()
    table["idiag_cookie"], table["idiag_dport"] = 7, port
    destroyed = DestroyedSockets(table, events, np.array([1.002]), uapi.TCP_INFO.itemsize)
    analysis = UnansweredConnectAnalysis(ConnectLimits())
    first, second, third = polls(sample(0), sample(1), sample(2, destroyed=destroyed))
    assert analysis.step(first, step_of(), NONE) == analysis.step(second, step_of([ended]), NONE) == Unanswered()
    unanswered = analysis.step(third, step_of(), NONE)
    assert [(it.given_up, round(it.longest_s, 3)) for it in unanswered.destinations] == [(1, 0.8)] * expected


def test_an_answer_ends_it() -> None:
    """A connection that opened, one that opened and ended, or a refusal: the destination answers."""
    before = ((), ()), ((), [closed(DEAD, 9)])
    opened = sock("ESTAB", "10.0.0.1:40001", DEAD, process="app", pid=7, cookie=5)
    for socks, records in (([opened], ()), ((), [closed(DEAD, 1, received=1, end=2)])):
        assert found(follow(*before, (socks, records))[-1]) == []
    elsewhere = sock("ESTAB", "10.0.0.1:40001", "192.0.2.1:80", process="app", pid=7, cookie=5)
    assert found(follow(*before, ([elsewhere], ()))[-1]) == [(DEAD, 0, 0, 9)]
    assert found(follow(((), ()), ((), [closed(DEAD, 9), closed(DEAD, 1, received=1)]))[-1]) == []


def test_a_network_whose_addresses_do_not_answer() -> None:
    waiting = [syn(f"10.6.1.{host}:9200", 2) for host in range(1, 5)]
    other = syn("10.6.2.1:9200", 3)
    given_up = [closed("10.6.1.77:9200", 1)]
    (_, few), (_, one) = (
        follow(((), ()), ([*waiting, other], records)) for records in ((), given_up)
    )  # fmt: skip
    assert [it.addresses for it in few.destinations] == [1] * 5, "four addresses"
    assert (few.stuck, one.stuck, one.stuck_attempts) == (0, 1, 5)
    network, single = one.destinations
    assert (str(network.remote), network.attempts, network.addresses) == ("10.6.1.0/24", 5, 5)
    assert network.examples == ("10.6.1.1", "10.6.1.2", "10.6.1.3")
    assert (str(single.remote), single.addresses) == ("10.6.2.1:9200", 1)


def test_ipv6_networks() -> None:
    waiting = [syn(f"[2001:db8:1::{host}]:80", 2) for host in range(1, 6)]
    (one,) = follow((waiting, ()))
    assert [str(it.remote) for it in one.destinations] == ["2001:db8:1::/64"]
    assert len(one.destinations[0].examples) == EXAMPLES


def test_ports_of_one_address_are_no_network() -> None:
    (one,) = follow(([syn(f"10.6.1.1:{port}", 2) for port in range(1, 9)], ()))
    assert len(one.destinations) == 8


def test_a_list_that_is_cut_has_the_numbers_of_all() -> None:
    waiting = [syn(f"10.{net}.1.1:80", 2) for net in range(40) for _ in range(5)]
    (one,) = follow((waiting, ()))
    assert (len(one.destinations), one.all_destinations, one.stuck, one.stuck_attempts) == (TOP, 40, 40, 200)


def test_silent_peers_explain_their_attempts() -> None:
    dead, other = syn(DEAD, 3), syn("192.0.2.2:443", 3)
    silent = RemoteEnds.of(make_table([dead])).address_numbers
    (one,) = follow(([dead, other], ()), silent=silent)
    assert found(one) == [("192.0.2.2:443", 1, 3, 0)]


@pytest.mark.parametrize("end", ["127.0.0.1:80", "10.0.0.7:80", "[2001:db8::7]:80"])
def test_a_full_accept_queue_of_this_host_explains_attempts(end: str) -> None:
    host = end.rpartition(":")[0]
    calls = [sock("SYN_SENT", f"{host}:{port}", end, retransmits=2) for port in range(40_000, 40_005)]
    anywhere = "[::]:80" if "[" in end else "0.0.0.0:80"
    full, with_room = (sock("LISTEN", anywhere, recv_queue=depth, send_queue=4) for depth in (5, 1))
    assert found(follow(([full, *calls], ()))[-1]) == []
    assert found(follow(([with_room, *calls], ()))[-1]) == [(end, 5, 2, 0)]
    elsewhere = [syn("192.0.2.1:80", 2)] * 5
    assert found(follow(([full, *elsewhere], ()))[-1]) == [("192.0.2.1:80", 5, 2, 0)]


def test_a_full_accept_queue_of_this_host_explains_attempts_that_were_given_up() -> None:
    full = sock("LISTEN", "0.0.0.0:80", recv_queue=5, send_queue=4)
    records = closed("10.0.0.1:80", 5)  # their local address is 10.0.0.1, too
    assert found(follow(([full], ()), ([full], [records]))[-1]) == []
