"""Verdicts where no queue is full: which share of the half-open connections decides, and the reason that is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpwatch.model.finding import Severity
from tcpwatch.model.rules.half_open.calm import HalfOpenFigures, calm_verdict
from tcpwatch.model.rules.half_open.verdict_kinds import VerdictKind
from tests.support.views import make_view, sock

NEAR = "the queue is nearly full"
ROOM = "the queue has room"


def shape(count: int, repeated: int = 0, late: int = 0, stray: int = 0, near: bool = False) -> HalfOpenFigures:
    return HalfOpenFigures(count, repeated, late, 12.0, stray, near)


SHARES = {
    "fewer than half have no listener": (shape(10, stray=4), VerdictKind.QUIET),
    "half have no listener": (shape(10, stray=5), VerdictKind.QUIET),
    "more than half have no listener": (shape(10, stray=6), VerdictKind.UNKNOWN),
    "half are repeated": (shape(10, repeated=5), VerdictKind.QUIET),
    "more than half are repeated": (shape(10, repeated=6), VerdictKind.SLOW_CLIENTS),
    "half are late": (shape(10, late=5), VerdictKind.QUIET),
    "more than half are late": (shape(10, late=6), VerdictKind.DEFERRED),
    "together half": (shape(10, repeated=2, late=3), VerdictKind.QUIET),
    "together more than half, mostly late": (shape(10, repeated=2, late=4), VerdictKind.DEFERRED),
    "together more than half, as many late as repeated": (shape(10, repeated=3, late=3), VerdictKind.SLOW_CLIENTS),
    "one, repeated": (shape(1, repeated=1), VerdictKind.SLOW_CLIENTS),
    "nothing": (shape(0), VerdictKind.QUIET),
}


@pytest.mark.parametrize("name", SHARES)
def test_which_share_decides(name: str) -> None:
    one, kind = SHARES[name]
    assert calm_verdict(one, make_view()).kind is kind


@pytest.mark.parametrize(("near", "severity", "words"), [(True, Severity.WARNING, NEAR), (False, None, ROOM)])
def test_room_in_the_queue(near: bool, severity: Severity | None, words: str) -> None:
    said = calm_verdict(shape(10, repeated=9, near=near), make_view())
    assert said.severity is severity
    assert words in said.why


@pytest.mark.parametrize("setting", [None, 0, 1, 2, 3])
def test_why_nothing_is_half_open(setting: int | None) -> None:
    view = make_view()
    sysctls = {} if setting is None else {"tcp_syncookies": setting}
    said = calm_verdict(shape(0), replace(view, sample=replace(view.sample, sysctls=sysctls)))
    assert ("tcp_syncookies is 2" in said.why) == (setting == 2)
    assert said.headline == "no half-open connections"


def test_of_one_listener() -> None:
    socks = [sock("SYN_RCVD", "10.0.0.1:80", f"192.0.2.9:{at + 1}", retransmits=1, age_s=9) for at in range(3)]
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=100), *socks)
    (listener,) = view.listeners
    one = HalfOpenFigures.of_one(listener, view.half_open, near=False)
    assert one == replace(HalfOpenFigures.of_all(view, near=False), listener=listener)
    assert (one.count, one.retransmitted, one.deferred, one.subject) == (3, 3, 0, listener.key)
    unknown = HalfOpenFigures.of_one(listener, None, near=True)
    assert (unknown.deferred, unknown.oldest_s, unknown.oldest, unknown.without_listener) == (0, None, "", 0)
    unlimited = replace(listener, syn_queue=replace(listener.syn_queue, depth=None))
    assert HalfOpenFigures.of_one(unlimited, None, near=False).count == 0
