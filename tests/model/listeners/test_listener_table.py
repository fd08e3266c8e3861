"""Listeners that are kept from poll to poll equal listeners made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpwatch.model.listeners.listener_table import ListenerTable
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tests.support.polls import polls
from tests.support.views import NOW, Sock, make_rows, make_sample, sock

DEPTHS = st.sampled_from((0, 0, 0, 1, 5))
PROCESSES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    ({}, {"process": "nginx", "pid": 7}, {"process": "nginx", "pid": 8})
)
LISTENING = (("0.0.0.0:80", 1), ("0.0.0.0:80", 2), ("10.0.0.1:81", 3), ("[::]:82", 4))


@st.composite
def sockets(draw: st.DrawFn) -> list[Sock]:
    """Some listeners, connections that wait, and half-open ones."""
    listeners = [
        sock("LISTEN", end, cookie=cookie, recv_queue=draw(DEPTHS), send_queue=10, **draw(PROCESSES))
        for end, cookie in LISTENING
        if draw(st.booleans())
    ]
    others = [
        sock(state, end, f"192.0.2.1:{cookie}", cookie=cookie)
        for cookie, (state, end) in enumerate((("ESTAB", "10.0.0.1:81"), ("SYN_RCVD", "10.0.0.1:80")), 10)
        if draw(st.booleans())
    ]
    return [*listeners, *others]


def in_order(listener: Listener) -> tuple[object, ...]:
    """The fullest first, then by port and address."""
    return -listener.accept_queue.share, listener.local_port, listener.local_address, listener.cookie


FACTS = st.fixed_dictionaries(
    {
        "drops": st.dictionaries(st.integers(1, 4), st.integers(0, 2)),
        "accept_queue_peaks": st.dictionaries(st.integers(1, 4), st.integers(0, 9)),
        "counters": st.fixed_dictionaries({"PassiveOpens": st.integers(0, 3)}),
        "sysctls": st.sampled_from(({}, {"somaxconn": 10}, {"tcp_syncookies": 0, "tcp_max_syn_backlog": 8})),
    }
)


@settings(max_examples=50)
@given(st.lists(st.tuples(sockets(), FACTS), min_size=2, max_size=4))
def test_kept_listeners_equal_listeners_made_anew(steps: list[tuple[list[Sock], dict[str, Any]]]) -> None:
    samples = [
        make_sample(make_rows(socks, time=NOW + at), monotonic=float(at), **facts)
        for at, (socks, facts) in enumerate(steps)
    ]
    analysis, table = QueueAnalysis(0.8), ListenerTable()
    for poll in polls(*samples):
        facts = analysis.step(poll).facts
        kept, anew = table.step(poll, facts), ListenerTable().step(poll, facts)
        assert kept == anew
        assert kept.busy() == tuple(listener for listener in anew if listener.is_busy)
        assert [one.cookie for one in kept] == [one.cookie for one in sorted(anew, key=in_order)]
        assert all(one.key.is_spelled_as(other.key) for one, other in zip(kept, anew, strict=True))


def test_unchanged_listeners_are_the_same_objects() -> None:
    socks = [sock("LISTEN", f"0.0.0.0:{port}", cookie=port, send_queue=10) for port in range(80, 90)]
    busy = [*socks[:-1], replace(socks[-1], recv_queue=3)]
    samples = [
        make_sample(make_rows(each, time=NOW + at), monotonic=float(at))
        for at, each in enumerate((socks,) * 3 + (busy,))
    ]
    analysis = QueueAnalysis(0.8)
    found = [(listeners := analysis.step(poll).listeners, tuple(listeners)) for poll in polls(*samples)]
    (_, _), (second, _), (third, before), (_, after) = found
    assert second is third
    assert {id(one) for one in after[1:]} == {id(one) for one in before[:-1]}
