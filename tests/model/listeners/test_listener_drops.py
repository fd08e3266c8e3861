"""Drops of listeners and the counters that name their reasons, on invented samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.listeners.listener_drops import ListenerDropAnalysis, ListenerDrops
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.rules.queues.listener_drops import listener_drops
from tcpwatch.sample import Sample
from tests.sentences.recorder import note
from tests.support.polls import first_poll
from tests.support.views import make_rows, make_sample, make_view, sock

MD5, AO = "TCPMD5NotFound", "TCPAOBad"
Step = tuple[dict[int, int], dict[str, int]]
"""Cookie → drops of the listener, counter → value."""

CASES: dict[str, tuple[list[Step], list[ListenerDrops]]] = {
    "nothing": ([({1: 5}, {MD5: 5}), ({1: 5}, {MD5: 5})], []),
    "a counter names the reason": (
        [({1: 5}, {MD5: 5}), ({1: 9}, {MD5: 9}), ({1: 10}, {MD5: 10})], [ListenerDrops(1, MD5, 5, 2, 5)],
    ),
    "it rises more, at other sockets": ([({1: 0}, {MD5: 0}), ({1: 4}, {MD5: 9})], [ListenerDrops(1, MD5, 4, 1, 9)]),
    "it rises less: other reasons too": ([({1: 0}, {MD5: 0}), ({1: 4}, {MD5: 1})], [ListenerDrops(1, "", 3, 1, 0)]),
    "it rises a moment later": (
        [({1: 0}, {MD5: 0}), ({1: 4}, {MD5: 3}), ({1: 8}, {MD5: 8})], [ListenerDrops(1, MD5, 4, 1, 5)],
    ),
    "enough for two listeners": (
        [({1: 0, 2: 0}, {AO: 0}), ({1: 4, 2: 1}, {AO: 5})],
        [ListenerDrops(1, AO, 4, 1, 5), ListenerDrops(2, AO, 1, 1, 5)],
    ),
    "not enough for two listeners": ([({1: 0, 2: 0}, {AO: 0}), ({1: 4, 2: 2}, {AO: 5})], []),
    "no counter": ([({1: 0}, {}), ({1: 4}, {})], [ListenerDrops(1, "", 4, 1, 0)]),
    "repeated SYNs": ([({1: 0}, {"TCPSynRetrans": 7}), ({1: 4}, {"TCPSynRetrans": 11})], []),
    "more than repeated SYNs": (
        [({1: 0}, {"TCPSynRetrans": 7}), ({1: 4}, {"TCPSynRetrans": 8})], [ListenerDrops(1, "", 3, 1, 0)],
    ),
    "repeated SYNs, counted a moment later": (
        [({1: 0}, {"TCPSynRetrans": 0}), ({1: 30}, {"TCPSynRetrans": 29}), ({1: 61}, {"TCPSynRetrans": 59})], [],
    ),
    "last ACKs for a full queue": ([({1: 0}, {"ListenDrops": 0}), ({1: 4}, {"ListenDrops": 2})], []),
    "the listener has a full queue": ([({3: 0}, {MD5: 0}), ({3: 4}, {MD5: 4})], []),
    "a counter that wraps": ([({1: 0xFFFFFFFE}, {MD5: 0}), ({1: 2}, {MD5: 4})], [ListenerDrops(1, MD5, 4, 1, 4)]),
    "a listener that has closed": ([({1: 0}, {MD5: 0}), ({1: 4}, {MD5: 4}), ({}, {MD5: 4})], []),
    "long ago": ([({1: 0}, {MD5: 0}), ({1: 4}, {MD5: 4}), *[({1: 4}, {MD5: 4})] * 3], []),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), CASES.values(), ids=CASES)
def test_reasons(steps: list[Step], expected: list[ListenerDrops]) -> None:
    assert analysed(steps, window_s=3) == expected


def analysed(steps: list[Step], window_s: float) -> list[ListenerDrops]:
    analysis, previous = ListenerDropAnalysis(window_s), None
    found: tuple[ListenerDrops, ...] = ()
    for number, (drops, counters) in enumerate(steps):
        sample = replace(sample_of(drops, counters), monotonic=1000.0 + number)
        poll = first_poll(sample, previous=previous, elapsed_s=1.0 if previous else None)
        listeners = QueueAnalysis(DEFAULT.syn_queue_share).step(poll).listeners
        found = analysis.step(poll, listeners, DEFAULT.syn_queue_share)
        previous = sample
    return sorted(found, key=lambda one: one.cookie)


def sample_of(drops: Mapping[int, int], counters: Mapping[str, int]) -> Sample:
    rows = make_rows([
        sock("LISTEN", f"0.0.0.0:{80 + cookie}", send_queue=8, recv_queue=9 * (cookie == 3), cookie=cookie)
        for cookie in (1, 2, 3)
    ])  # fmt: skip
    return make_sample(rows, drops=dict(drops), counters=dict(counters))


@pytest.mark.parametrize(
    ("drops", "words"),
    [
        ([ListenerDrops(1, MD5, 2, 1, 2)], "nginx[7], 2 segments dropped within 30 s, TCPMD5NotFound rose by 2"),
        ([ListenerDrops(1, MD5, 1, 1, 2)], ""),
        ([ListenerDrops(1, "", 9, 1, 0)], ""),
        (
            [ListenerDrops(1, "", 9, 2, 0)],
            "nginx[7], 9 segments dropped within 30 s, for a reason that no counter names",
        ),
        (
            [ListenerDrops(1, "", 9, 2, 0), ListenerDrops(1, AO, 12, 2, 12)],
            "nginx[7], 12 segments dropped within 30 s, TCPAOBad rose by 12",
        ),
        ([ListenerDrops(99, MD5, 9, 2, 9)], ""),
    ],
)
def test_findings(drops: list[ListenerDrops], words: str) -> None:
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=8, process="nginx", pid=7), listener_drops=tuple(drops))
    found = [candidate.finding for candidate in listener_drops(view, DEFAULT)]
    assert [one.headline for one in found] == [words] * bool(words)
    for one in found:
        assert one.why.endswith(".")
        assert all(advice.endswith(".") for advice in one.advice)


def test_advice_about_tcp_ao() -> None:
    (step,) = analysed([({1: 0}, {AO: 0}), ({1: 4}, {AO: 4})], window_s=3)
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=8), listener_drops=(step,))
    (finding,) = [candidate.finding for candidate in listener_drops(view, DEFAULT)]
    note([finding])
    assert finding.headline == "4 segments dropped within 30 s, TCPAOBad rose by 4"
    assert finding.why.endswith("TCP-AO: no key, another key, or no signature (RFC 5925).")
