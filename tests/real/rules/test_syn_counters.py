"""Counters of the whole host are attributed to a listener only if no other one can have caused them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.finding import Finding
from tcpwatch.model.rules.queues.syn_flood import syn_flood
from tcpwatch.model.rules.queues.syn_queue import syn_queue_full
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab

FLOODED, HONEST, OPENED = 400, 9, 30
BACKLOG, SHORT = 64, 8


@pytest.fixture
def monitor(namespace: lab.Namespace) -> Iterator[Monitor]:
    namespace.sysctl("net.ipv4.tcp_syncookies", 1)
    with closing(Monitor(LiveSource())) as it:
        yield it


def found(view: View) -> dict[tuple[str, str], Finding]:
    candidates = [*syn_queue_full(view, DEFAULT), *syn_flood(view, DEFAULT)]
    return {(one.finding.rule, str(one.finding.subject)): one.finding for one in candidates}


def flooded_view(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor, *, other: int) -> tuple[View, str, str]:
    """Flood one listener; let `other` honest clients of a second one stay half-open, and open connections to a third.

    Return the View after the flood, and the first two listeners' endpoints.
    """
    with ExitStack() as stack:
        flooded, short, busy = (
            stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=backlog))
            for backlog in (BACKLOG, SHORT, 4000)
        )
        ends = [f"{lab.LOCAL[4]}:{one.getsockname()[1]}" for one in (flooded, short)]
        for _ in range(other):
            peer.half_open(short.getsockname()[1])
        peer.flood(flooded.getsockname()[1], FLOODED)
        monitor.step()
        before = namespace.counters()
        for _ in range(OPENED):
            peer.open(busy.getsockname()[1])
        peer.flood(flooded.getsockname()[1], FLOODED)
        view = monitor.step()
        after = namespace.counters()
    assert after["SyncookiesSent"] - before["SyncookiesSent"] == FLOODED
    assert after["PassiveOpens"] - before["PassiveOpens"] == OPENED
    return view, ends[0], ends[1]


def test_the_only_full_queue_gets_the_cookies(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    view, flooded, _ = flooded_view(namespace, peer, monitor, other=2)
    findings = found(view)
    assert set(findings) == {("syn-queue-full", f"listener {flooded}"), ("syn-flood", f"listener {flooded}")}
    flood = findings["syn-flood", f"listener {flooded}"]
    # The queue was full at both polls, so that each SYN of the second flood was answered with a cookie. The connections
    # that were opened to another listener meanwhile are not counted.
    assert view.elapsed_s is not None
    arrivals = flood.evidence["arrivals"].value
    assert isinstance(arrivals, float)
    assert arrivals * view.elapsed_s == pytest.approx(FLOODED, rel=0.05)
    assert view.syn_arrivals_per_s is not None
    assert view.syn_arrivals_per_s * view.elapsed_s == pytest.approx(FLOODED + OPENED, rel=0.05)


def test_two_full_queues_share_no_cookies(namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor) -> None:
    view, flooded, short = flooded_view(namespace, peer, monitor, other=HONEST)
    findings = found(view)
    honest = findings["syn-queue-full", f"listener {short}"]
    assert ("syn-flood", f"listener {short}") not in findings
    assert honest.headline.startswith(f"{HONEST} of {SHORT} half-open; this host answers ")
    for name in ("cookies_for_full_queue", "dropped_for_full_queue"):
        assert not honest.evidence[name].value
    assert honest.evidence["host_cookies_for_full_queue"].value
    queue = findings["syn-queue-full", f"listener {flooded}"]
    assert queue.evidence["cookies_for_full_queue"].value is None
    # Fresh SYN+ACKs of the flood are not yet retransmitted: that the flood is at this listener is not yet proved.
    assert ("syn-flood", "host " + view.sample.host) in findings or ("syn-flood", f"listener {flooded}") in findings


def test_dropped_syns_are_those_of_the_listener_whose_drops_rise(
    namespace: lab.Namespace, peer: lab.Peer, monitor: Monitor
) -> None:
    namespace.sysctl("net.ipv4.tcp_syncookies", 0)
    with ExitStack() as stack:
        full, other = (stack.enter_context(socket.create_server((lab.LOCAL[4], 0), backlog=SHORT)) for _ in range(2))
        for one in (full, other):
            for _ in range(HONEST):
                peer.half_open(one.getsockname()[1])
        monitor.step()
        for _ in range(5):
            peer.knock(full.getsockname()[1])
        lab.wait_until(lambda: namespace.counters()["TCPReqQFullDrop"] >= 5, "five dropped SYNs")
        findings = found(monitor.step())
        dropped = {
            subject: finding.evidence["dropped_for_full_queue"].value
            for (rule, subject), finding in findings.items()
            if rule == "syn-queue-full"
        }
        port, other_port = (f"listener {lab.LOCAL[4]}:{one.getsockname()[1]}" for one in (full, other))
        assert dropped[port]
        assert dropped[other_port] == 0
