"""Retransmits of the host and of its peers: the same segments, in the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.analyses.retransmits import RetransmitAnalysis, Retransmits
from tcpwatch.model.sockets.remote_ends import RemoteEnds
from tcpwatch.model.states import State
from tcpwatch.sample import Sample, TcpInfoTable
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, make_table, sock

A, B, C = "192.0.2.1:443", "192.0.2.2:443", "[2001:db8::3]:443"


def to(remote: str, cookie: int, state: str = "ESTAB") -> Sock:
    local = "[2001:db8::9]" if "[" in remote else "10.0.0.1"
    return sock(state, f"{local}:{40_000 + cookie}", remote, cookie=cookie)


SOCKS = [to(A, 1), to(A, 2), to(B, 3), to(C, 4)]


def counters(again: int, syns: int = 0, sent: int = 1_000) -> dict[str, int]:
    return {"RetransSegs": again, "TCPSynRetrans": syns, "TCPOrigDataSent": sent}


def sample(second: float, figures: dict[str, int], socks: Sequence[Sock] = SOCKS, **facts: object) -> Sample:
    return make_sample(make_rows(socks, time=NOW + second), monotonic=second, counters=figures, **facts)


def infos(second: float, retransmits: dict[int, int], states: dict[int, int] | None = None) -> TcpInfoTable:
    figures = np.zeros(len(retransmits), uapi.FLOW_INFO)
    figures["tcpi_total_retrans"] = list(retransmits.values())
    figures["tcpi_state"] = [(states or {}).get(cookie, State.ESTABLISHED) for cookie in retransmits]
    cookies = np.array(list(retransmits), np.uint64)
    return TcpInfoTable(
        cookie=cookies,
        table=figures,
        received_monotonic_s=np.full(len(cookies), second),
        info_bytes=uapi.TCP_INFO.itemsize,
    )


def traced(*retransmits: tuple[Sock, int, State]) -> TraceEvents:
    """Retransmits of these sockets: how many, and in which state."""
    events = np.zeros(sum(count for _, count, _ in retransmits), TRACE_EVENT)
    at = 0
    for one, count, state in retransmits:
        row = make_table([one])[0]
        part = events[at : at + count]
        part["kind"], part["old"], part["new"] = TraceEventKind.RETRANSMIT, state, state
        for name, field in (("src", "idiag_src"), ("dst", "idiag_dst"), ("sport", "idiag_sport")):
            part[name] = row[field]
        part["dport"], part["family"] = row["idiag_dport"], row["idiag_family"]
        at += count
    return TraceEvents(events)


def result(*samples: Sample, window_s: float = 30) -> Retransmits:
    analysis = RetransmitAnalysis(window_s)
    return [analysis.step(poll) for poll in polls(*samples)][-1]


def worst(retransmits: Retransmits) -> tuple[str, int] | None:
    peer = retransmits.worst_peer()
    return (str(peer.remote), peer.count) if peer else None


def by_tcp_info(after: dict[int, int], again: int, syns: int = 0, states: dict[int, int] | None = None) -> Retransmits:
    before = dict.fromkeys(after, 0)
    return result(
        sample(0, counters(0), tcp_info_table=infos(0, before, states)),
        sample(1, counters(again, syns, 2_000), tcp_info_table=infos(1, after)),
    )


def test_the_figures_of_the_host() -> None:
    counted = result(sample(0, counters(100, 50, 1_000)), sample(2, counters(160, 70, 3_000)))
    assert (counted.data, counted.syns, counted.segments, counted.seconds) == (40.0, 20.0, 2_000.0, 2.0)
    assert worst(counted) is None, "nothing is known of peers"


def test_the_window() -> None:
    samples = [sample(at, counters(10 * at, 0, 100 * at)) for at in range(6)]
    counted = result(*samples, window_s=3)
    assert (counted.data, counted.segments, counted.seconds) == (30.0, 300.0, 3.0)


def test_counters_that_this_kernel_lacks() -> None:
    bare = [sample(at, {"RetransSegs": at}) for at in range(2)]
    assert result(*bare).steps == ()
    old = [sample(at, {"RetransSegs": at, "TCPOrigDataSent": at}) for at in range(2)]
    assert (result(*old).data, result(*old).syns) == (1.0, 0.0)


def test_the_worst_peer_by_tcp_info() -> None:
    assert worst(by_tcp_info({1: 20, 2: 10, 3: 5}, 35)) == ("192.0.2.1", 30)
    assert worst(by_tcp_info({1: 2, 4: 9}, 11)) == ("2001:db8::3", 9)


@pytest.mark.parametrize(
    ("host", "expected"), [(35, ("192.0.2.1", 20)), (39, ("192.0.2.1", 20)), (40, None), (400, None)]
)
def test_a_peer_is_blamed_only_if_its_figures_prove_it(host: int, expected: tuple[str, int] | None) -> None:
    """20 to one, 15 to another: all that is not known of could be the other's."""
    assert worst(by_tcp_info({1: 20, 3: 15}, host)) == expected


def test_retransmitted_syns_are_not_counted() -> None:
    """Socket 3 was in SYN_SENT in the dump before, with its SYN retransmitted nine times."""
    counted = by_tcp_info({1: 5, 3: 9}, 14, 9, {3: State.SYN_SENT})
    assert (counted.data, worst(counted)) == (5.0, ("192.0.2.1", 5))


def test_retransmits_from_before_do_not_count() -> None:
    dumps = [infos(0, {1: 500, 3: 0}), infos(1, {1: 501, 3: 8})]
    samples = [sample(at, counters(9 * at, 0, 500 * at), tcp_info_table=dump) for at, dump in enumerate(dumps)]
    assert worst(result(*samples)) == ("192.0.2.2", 8)


def by_trace(events: TraceEvents, again: int, syns: int = 0, socks: Sequence[Sock] = SOCKS) -> Retransmits:
    return result(
        sample(0, counters(0), socks), sample(1, counters(again, syns, 2_000), socks[: len(SOCKS)], trace_events=events)
    )


def test_the_worst_peer_by_the_trace() -> None:
    established = State.ESTABLISHED
    events = traced((SOCKS[0], 3, established), (SOCKS[1], 4, established), (SOCKS[2], 9, State.SYN_SENT))
    assert worst(by_trace(events, 16, 9)) == ("192.0.2.1", 7)
    assert worst(by_trace(traced((SOCKS[3], 3, established)), 3)) == ("2001:db8::3", 3)


def test_retransmits_of_other_namespaces_are_not_ours() -> None:
    stranger = to("203.0.113.9:443", 77)
    events = traced((stranger, 90, State.ESTABLISHED), (SOCKS[2], 5, State.ESTABLISHED))
    assert worst(by_trace(events, 5)) == ("192.0.2.2", 5)


def test_a_socket_that_closed_since() -> None:
    closed = to("192.0.2.9:443", 9)
    assert worst(by_trace(traced((closed, 6, State.LAST_ACK)), 6, 0, [*SOCKS, closed])) == ("192.0.2.9", 6)


def test_retransmits_to_certain_addresses() -> None:
    counted = by_tcp_info({1: 20, 3: 15}, 35)
    assert counted.to(numbers(B)) == 15
    assert counted.to(numbers(A, B, C)) == 35
    assert counted.to(numbers()) == 0


def numbers(*remotes: str) -> NDArray[np.uint64]:
    return RemoteEnds.of(make_table([to(remote, 1) for remote in remotes])).address_numbers


def test_an_idle_host_looks_at_no_peer() -> None:
    quiet = replace(sample(1, counters(5, 5, 2_000)), trace_events=traced((SOCKS[0], 3, State.ESTABLISHED)))
    assert result(sample(0, counters(0)), quiet).steps[0].peers is None
