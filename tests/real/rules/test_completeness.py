"""`data-incomplete` and remarks on the real kernel: late polls, lost events, sources that cannot read all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

import pytest

from tcpwatch import units
from tcpwatch.kernel.netlink import destroy_event_reader
from tcpwatch.model.finding import Finding
from tcpwatch.model.rules.completeness import rules_lack_data
from tcpwatch.model.rules.engine import LISTED
from tcpwatch.model.rules.remarks import missing_data
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample
from tcpwatch.sources.live import LiveSource, open_source
from tcpwatch.sources.psutil import PsutilSource
from tests import lab
from tests.sentences.recorder import note


def incomplete(view: View) -> list[Finding]:
    return [one for one in view.findings if one.rule == "data-incomplete"]


def test_polls_that_take_longer_than_the_interval(namespace: lab.Namespace) -> None:
    with closing(Monitor(LiveSource(), interval_s=1e-9, budget=1e6)) as monitor:
        before = time.monotonic()
        for _ in range(2):
            view = monitor.step()
        took = time.monotonic() - before
        (finding,) = incomplete(view)
        assert finding.headline.startswith("a poll takes ")
        step = finding.evidence["step"].value
        assert isinstance(step, float)
        assert 1e-9 < step < took
        monitor.interval_s = 1e6
        for _ in range(6):
            view = monitor.step()
        assert not incomplete(view), "with a longer interval"


def test_events_that_come_faster_than_they_are_read(namespace: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer overflows while the thread is held up, as on a host without a free processor."""
    with ExitStack() as stack:
        oracle = stack.enter_context(closing(destroy_event_reader.DestroyEventReader()))
        monkeypatch.setattr(destroy_event_reader, "BUFFER", 4096)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        monitor = stack.enter_context(closing(Monitor(source := open_source("sock_diag", events=True))))
        pairs = [(socket.create_connection(listener.getsockname()), listener.accept()[0]) for _ in range(60)]
        assert not incomplete(monitor.step())
        assert isinstance(source, LiveSource) and source._events
        with source._events._lock:
            for each in chain.from_iterable(pairs):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.close()
            count = 0

            def all_are_sent() -> bool:
                nonlocal count
                count += oracle.read()
                return count == 2 * len(pairs)

            lab.wait_until(all_are_sent, "the events of all sockets")
        seen = lost = 0
        take = source.sample

        def counted(watched: Iterable[int]) -> Sample:
            nonlocal seen
            sample = take(watched)  # the View does not hold the events
            assert sample.destroyed is not None
            seen += len(sample.destroyed.table)
            return sample

        monkeypatch.setattr(source, "sample", counted)

        def all_are_counted() -> bool:
            nonlocal lost
            view = monitor.step()
            now = view.trace.destroy_events_lost_in_step
            assert not now or incomplete(view)[0].headline == f"{units.plural(now, 'destroy event')} lost"
            lost += now
            return seen + lost == 2 * len(pairs)

        lab.wait_until(all_are_counted, "the events of all sockets")
    assert lost


def test_a_source_that_cannot_read_all(namespace: lab.Namespace) -> None:
    with closing(Monitor(PsutilSource())) as monitor:
        (finding,) = incomplete(monitor.step())
    assert finding.headline.startswith("no queues, timers, tcp_info or cookies; rules without all their data: ")
    assert ", accept-queue-full, " in finding.headline


def test_rules_that_lack_data(namespace: lab.Namespace) -> None:
    with closing(source := LiveSource()):
        finding = rules_lack_data(missing_data(source.sample()))
    note([finding])
    assert finding.evidence["rules_without_data"].value == "tcp-memory, orphans"
    assert not Path("/proc/sys/net/ipv4/tcp_mem").exists()
    assert not Path("/proc/sys/net/ipv4/tcp_max_orphans").exists()


@pytest.mark.parametrize("listeners", [LISTED, LISTED + 1])
def test_more_findings_of_a_rule_than_are_listed(listeners: int, namespace: lab.Namespace) -> None:
    with ExitStack() as stack, closing(Monitor(LiveSource())) as monitor:
        for _ in range(listeners):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            stack.enter_context(socket.create_connection(server.getsockname()))
        for _ in range(2):
            found = [one for one in monitor.step().findings if one.rule == "accept-queue-full"]
        assert len(found) == listeners
        words = f"more than {LISTED} findings of this rule: only the first {LISTED} are listed"
        assert [one.subject.kind for one in found if one.headline == words] == ["tcpwatch"] * (listeners - LISTED)
