"""Ages and retransmits of half-open connections: examples as data, and random ones against a plain count."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.listeners.half_open import AGE_EDGES_S, RETRANSMIT_CLASSES, HalfOpenSummary
from tcpwatch.sample import SourceInfo
from tests.support.views import NOW, Sock, make_rows, make_sample, make_view, sock, view_of


def request(
    retransmits: int = 0, left_s: float = 1.0, age_s: float = 0.0, begin_seen: bool = False, local: str = "10.0.0.1:80"
) -> Sock:
    """Build a half-open connection with so many retransmits of its SYN+ACK and `left_s` until the next one."""
    return sock(
        "SYN_RCVD",
        local,
        "192.0.2.9:1024",
        timer="on",
        timer_s=left_s,
        retransmits=retransmits,
        age_s=age_s,
        begin_seen=begin_seen,
    )


def half_open_of(*socks: Sock) -> HalfOpenSummary:
    return make_view(*socks).half_open


# Retransmits, seconds left of the timer, measured age, whether the arrival was seen → age.
AGES = {
    "it has just come": (request(0, 1.0), 0.0),
    "half a second old": (request(0, 0.5), 0.5),
    "the retransmit is due now": (request(0, 0.0), 1.0),
    "repeated once": (request(1, 2.0), 1.0),
    "repeated twice": (request(2, 1.5), 5.5),
    "the last second": (request(5, 1.0), 62.0),
    "with TCP_DEFER_ACCEPT the timer doubles, the count does not": (request(0, 7.5), 0.0),
    "and we have seen it for so long": (request(0, 7.5, age_s=6.0), 6.0),
    "we saw it come, and its timer says other": (request(2, 1.0, age_s=2.8, begin_seen=True), 2.8),
    "here before us, and for longer than the timer says": (request(1, 1.5, age_s=30.0), 30.0),
    "a count that no kernel reaches": (request(255, 0.0), 2.0**17 - 1),
    "the clock was set back": (request(0, 1.0, age_s=-20.0, begin_seen=True), 0.0),
    "the clock was set back, and the timer knows": (request(1, 1.0, age_s=-20.0), 2.0),
}


@pytest.mark.parametrize("name", AGES)
def test_ages(name: str) -> None:
    request_, age_s = AGES[name]
    found = half_open_of(request_)
    assert found.oldest_s == pytest.approx(age_s, abs=1e-3)
    assert found.estimated == (not request_.begin_seen)
    assert found.ages[bisect_right(AGE_EDGES_S, age_s) - 1] == 1


def test_measured_ages_without_timers() -> None:
    rows = make_rows([request(0, 0.0, age_s=0.3), request(0, 0.0, age_s=8.0)])
    sample = make_sample(rows, source=SourceInfo("psutil", "user"))
    found = view_of(rows, make_rows([]), sample=sample).half_open
    assert (found.ages, found.oldest_s) == ((1, 0, 0, 1, 0, 0, 0), 8.0)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Half-open connections, and their figures."""

    socks: tuple[Sock, ...]
    count: int
    repeated: int = 0
    late: int = 0
    stray: int = 0


LISTENER = sock("LISTEN", "0.0.0.0:80", send_queue=9)
CROWDS = {
    "nobody": Crowd((LISTENER,), 0),
    "a handshake": Crowd((LISTENER, request()), 1),
    "others are not half-open": Crowd((LISTENER, sock("SYN_SENT", "10.0.0.1:9", "192.0.2.9:80"), LISTENER), 0),
    "a call that crossed another": Crowd((LISTENER, replace(request(), inode=7), request()), 1),
    "one has retransmits": Crowd((LISTENER, request(), request(3)), 2, repeated=1),
    "held back": Crowd((LISTENER, request(0, 3.0, age_s=2.5), request(0, 3.0, age_s=1.9)), 2, late=1),
    "repeated is not held back": Crowd((LISTENER, request(1, 1.0, age_s=9.0)), 1, repeated=1),
    "the listener has closed": Crowd((LISTENER, request(local="10.0.0.1:81"), request()), 2, stray=1),
}


@pytest.mark.parametrize("name", CROWDS)
def test_figures(name: str) -> None:
    crowd = CROWDS[name]
    view = make_view(*crowd.socks)
    found = view.half_open
    assert (found.count, found.retransmitted, found.deferred, view.half_open_without_listener) == (
        crowd.count, crowd.repeated, crowd.late, crowd.stray,
    )  # fmt: skip
    assert found.retransmitted_share == (crowd.repeated / crowd.count if crowd.count else 0.0)


def test_one_listener_among_two() -> None:
    first = [request(2, 1.0), request(0, 1.0)]
    second = [request(1, 0.5, local="10.0.0.1:90")] * 3
    specs = [sock("LISTEN", "0.0.0.0:80", send_queue=2), sock("LISTEN", "0.0.0.0:90", send_queue=3), *first, *second]
    view = make_view(*specs)
    by_port = {key.port: found for key, found in view.half_open_by_listener.items()}
    assert [by_port[port].by_retransmits for port in (80, 90)] == [(1, 0, 1, 0, 0, 0), (0, 3, 0, 0, 0, 0)]
    assert [by_port[port].sources.count for port in (80, 90)] == [2, 3]
    assert view.half_open.by_retransmits == (1, 3, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("limit", "half_open", "nearly_full"),
    [(5, 3, False), (5, 4, True), (1, 0, False), (1, 1, True), (0, 0, False), (0, 1, True)],
)
def test_a_listener_has_a_summary_from_four_fifths_of_its_limit_on(
    limit: int, half_open: int, nearly_full: bool
) -> None:
    """A SYN queue with the limit 0 holds one connection."""
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=limit), *[request()] * half_open)
    assert [key.port for key in view.half_open_by_listener] == [80] * nearly_full


# Against a plain count --------------------------------------------------------------------------

REQUESTS = st.lists(
    st.builds(
        request,
        retransmits=st.integers(0, 12) | st.integers(0, 255),
        left_s=st.floats(0, 200),
        age_s=st.floats(-5, 100) | st.sampled_from([float(edge) for edge in AGE_EDGES_S]),
        begin_seen=st.booleans(),
        local=st.sampled_from(["10.0.0.1:80", "10.0.0.1:81"]),
    ),
    max_size=40,
)


@given(REQUESTS)
def test_every_connection_is_in_one_class_of_age_and_one_of_retransmits(requests: list[Sock]) -> None:
    found = half_open_of(LISTENER, *requests)
    assert found.count == sum(found.ages) == sum(found.by_retransmits) == found.sources.count == len(requests)
    assert min((*found.ages, *found.by_retransmits, found.deferred, found.estimated)) >= 0
    assert len(found.ages) == len(AGE_EDGES_S)
    assert (found.oldest_s is None) == (not requests)


@given(REQUESTS)
def test_classes_of_retransmits_equal_a_plain_count(requests: list[Sock]) -> None:
    found = half_open_of(*requests)
    rungs = [min(one.retransmits, RETRANSMIT_CLASSES - 1) for one in requests]
    assert found.by_retransmits == tuple(rungs.count(rung) for rung in range(RETRANSMIT_CLASSES))
    assert found.retransmitted == sum(one.retransmits > 0 for one in requests)
    assert found.estimated == sum(not one.begin_seen for one in requests)


@given(REQUESTS)
def test_ages_equal_a_plain_count(requests: list[Sock]) -> None:
    found = half_open_of(*requests)
    ages = [age_of(one) for one in requests]
    assert found.oldest_s is None or found.oldest_s == pytest.approx(max(ages), abs=0.01)
    for at, edge in enumerate(AGE_EDGES_S):
        # An age is a float32: at an edge it may fall to either side.
        sure, perhaps = (sum(age >= edge + slack for age in ages) for slack in (0.001, -0.001))
        assert sure <= sum(found.ages[at:]) <= perhaps


def age_of(one: Sock) -> float:
    """Return the estimate of the module's docstring."""
    ours = max(0.0, NOW - (NOW - one.age_s))
    if one.begin_seen:
        return ours
    return max(ours, 2.0 ** (min(one.retransmits, 16) + 1) - 1 - round(one.timer_s * 1000) / 1000)
