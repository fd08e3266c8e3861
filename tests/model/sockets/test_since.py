"""For how long a condition has held: by our own samples, or by tcp_info where it held at the first one."""

from __future__ import annotations

import numpy as np

from tcpwatch.model.sockets.since import Since
from tcpwatch.sample import Sample
from tests.support.views import NOW, make_rows, make_sample, sock


def sample(second: float, count: int, info: dict[int, dict[str, int]] | None = None) -> Sample:
    rows = make_rows([sock("ESTAB", "10.0.0.1:80", cookie=at + 1) for at in range(count)], time=NOW + second)
    return make_sample(rows, watched_tcp_info=info or {})


def test_tcp_info_is_asked_for_once_256_sockets_at_a_time() -> None:
    since, all_rows = Since("last_ack_recv"), np.arange(600)
    asked = [since.wanted_tcp_info]
    for second in range(5):
        since.step(sample(second, 600), all_rows)
        asked.append(since.wanted_tcp_info)
    assert asked == [
        frozenset(), frozenset(range(1, 257)), frozenset(range(257, 513)), frozenset(range(513, 601)), frozenset(),
        frozenset(),
    ]  # fmt: skip


def test_the_longest_age_counts_and_an_earlier_beginning_stays() -> None:
    since = Since("last_ack_recv", "last_data_recv")
    info = {1: {"last_ack_recv": 5_000, "last_data_recv": 9_000}, 2: {"last_data_sent": 70_000}}
    begins = [
        since.step(sample(0, 2), np.arange(2)),
        since.step(sample(1, 3, info), np.arange(3)),
        since.step(sample(2, 3, {1: {"last_ack_recv": 1_000}}), np.arange(3), np.full(3, NOW + 0.5)),
    ]
    assert [(begin - NOW).tolist() for begin in begins] == [[0, 0], [-8, 0, 1], [-8, 0, 0.5]]
    assert since.begin_seen.tolist() == [False, False, True]


def test_a_condition_that_comes_back_begins_anew() -> None:
    since = Since()
    for second, rows in ((0, [0, 1]), (1, [1]), (2, [0, 1])):
        begin = since.step(sample(second, 2), np.array(rows))
    assert (begin - NOW).tolist() == [2, 0]
    assert since.begin_seen.tolist() == [True, False]
