"""Samples with any values, and every headless output of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np

from tcpwatch.arrays.array_pool import ArrayPool
from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.kernel.netlink import decode_sockets, uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.netlink.tcp_info import TcpInfoCollector
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEvents
from tcpwatch.model.rules.registry import all_rules
from tcpwatch.monitor import Monitor
from tcpwatch.report import check, list_json, list_text, summary_json, summary_text
from tcpwatch.report.events import EventReporter
from tcpwatch.sample import Completeness, Sample, SourceInfo, sort_by_cookie, sort_tcp_info, without_unknown_states
from tests.fuzz.messages import random_message

_COUNTERS = sorted({need for rule in all_rules() for need in rule.needs})
_VALUES = (0, 1, 100, 65_535, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1, -1)


class SampleMaker:
    """A source whose samples have the sockets of `data`, and other facts at random."""

    def __init__(self, rng: random.Random) -> None:
        self.info = SourceInfo("sock_diag", "root", why_no_trace="")
        self.data = b""
        self._rng = rng
        self._time = 1000.0
        self._counters: dict[str, int] = {}
        processes = [Process(pid, f"p{pid}", "", pid, "user", 1.0) for pid in range(1, 6)]
        self._owners = [Owner((process,)) for process in processes] + [Owner(tuple(processes))]

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """Return a sample some time after the last one."""
        rng, table, infos = self._rng, *_decoded(self.data)
        self._time += rng.choice((1.0, 1.0, 0.1, 30.0, 0.0))
        ordered, _ = without_unknown_states(sort_by_cookie(table))
        for name in rng.sample(_COUNTERS, len(_COUNTERS) // 2):
            self._counters[name] = (
                self._counters.get(name, 0) + rng.randrange(1000) if rng.random() < 0.8 else rng.choice(_VALUES)
            )
        numbers = dict(self._counters)
        owner = np.array(rng.choices(range(-4, len(self._owners)), k=len(ordered.cookie)), np.int32)
        kept: dict[str, Any] = {"counters": numbers, "sysctls": {name: rng.choice(_VALUES) for name in _COUNTERS}}
        for name in rng.sample(_COUNTERS, rng.choice((0, 0, 3))):
            del kept["sysctls"][name]
        listeners = ordered.cookie[ordered.state == 10].tolist()
        return Sample(
            time=1.7e9 + self._time,
            monotonic=self._time,
            begin_monotonic_s=self._time - 0.01,
            host="web-1",
            source=self.info,
            completeness=Completeness(interrupted=rng.random() < 0.1),
            **ordered.columns(),
            owner=owner,
            owners=self._owners,
            drops={cookie: rng.choice(_VALUES[:6]) for cookie in listeners},
            accept_queue_peaks={cookie: rng.choice(_VALUES[:6]) for cookie in listeners},
            **kept,
            holders_known=rng.random() < 0.5,
            reserved_ports=rng.choice(((), ((0, 65_535),), ((1, 9), (5, 5)))),
            descriptor_limits={pid: rng.choice(_VALUES[:8]) for pid in range(1, 4)},
            users={},
            interfaces={1: "eth0"},
            watched_tcp_info={},
            tcp_info_table=sort_tcp_info(infos) if rng.random() < 0.9 else None,
            destroyed=self._destroyed() if rng.random() < 0.9 else None,
            trace_events=self._traced(ordered.cookie.tolist()) if rng.random() < 0.9 else None,
            callers={},
        )

    def close(self) -> None:
        """Do nothing."""

    def _destroyed(self) -> DestroyedSockets:
        rng = self._rng
        count = rng.choice((0, 1, 30))
        table, infos = (
            np.zeros(count, uapi.SOCKET),
            np.frombuffer(rng.randbytes(count * uapi.TCP_INFO.itemsize), uapi.TCP_INFO),
        )
        if count:
            table = _decoded(b"".join(random_message(rng, sequence=7) for _ in range(count)))[0]
        times = np.sort(self._time - np.array([rng.random() for _ in range(count)]))
        return DestroyedSockets(
            table, infos, times, rng.choice((280, 232, 104)), rng.choice((0, 0, 5)), rng.random() < 0.1
        )

    def _traced(self, cookies: list[int]) -> TraceEvents:
        rng = self._rng
        count = rng.choice((0, 1, 50))
        events = np.frombuffer(rng.randbytes(count * TRACE_EVENT.itemsize), TRACE_EVENT).copy()
        events["time"] = np.sort(self._time - np.array([rng.random() for _ in range(count)]))
        for row in events:
            row["kind"], row["socket"] = rng.randint(1, 8), rng.randrange(30)
            row["old"], row["new"] = rng.randint(1, 11), rng.randint(1, 11)
            row["cookie"] = rng.choice([*cookies[:20], 0]) if row["kind"] == 2 else 0
            row["family"] = rng.choice((2, 10))
        return TraceEvents(events, rng.choice((0, 0, 7)), {1: "NO_SOCKET"}, {2: "TCP_CLOSE"})


class Reports:
    """A monitor, and the outputs of its Views."""

    def __init__(self, source: SampleMaker) -> None:
        self._source = source
        self._monitor = Monitor(source, thresholds=DEFAULT, memory_mib=1)
        self._events = [EventReporter(as_json=as_json) for as_json in (False, True)]

    def step(self, data: bytes) -> None:
        """Poll these sockets, and make all output."""
        self._source.data = data
        view = self._monitor.step()
        self._monitor.watched = frozenset(view.rows.cookie[:3].tolist())
        order = list_json.in_order(view.rows)
        texts = [*list_json.as_json(view, order), *list_json.as_csv(view, order), *list_text.as_text(view, order, 80)]
        texts += [summary_json.as_json(summary_json.summary(view, view.rates)), summary_text.as_text(view, view.rates)]
        texts += [check.finding_text(finding) for finding in view.findings]
        for reporter in self._events:
            lines, losses = reporter.step(view)
            texts += [*lines, *losses]
        assert all(line.isprintable() for text in texts for line in text.replace("\t", "").split("\n"))


def _decoded(data: bytes) -> tuple[Any, Any]:
    """Return the table and the tcp_info of these messages."""
    words = np.frombuffer(data, np.uint32)
    offsets = decode_sockets.message_offsets(words, 0, len(words), 7)
    table, infos = np.zeros(len(offsets), uapi.SOCKET), TcpInfoCollector(ArrayPool(uapi.FLOW_INFO), 100)
    decode_sockets.decode_sockets(words, offsets, table, infos=infos)
    return table, infos.all()
