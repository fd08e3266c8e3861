"""Throughput from sample to sample, against a plain dictionary; and what limits a flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.tcp_info import TcpInfoDump
from tcpwatch.model.sockets import join
from tcpwatch.model.sockets.throughput import SendLimit, Throughput
from tcpwatch.sample import TcpInfoTable, sort_tcp_info
from tests.support.kernel.infos import INFO_BYTES, make_infos
from tests.support.views import NOW, make_rows, make_sample, sock

COOKIES = np.arange(1, 9, dtype=np.uint64)
MS = 1000
S = 1_000_000


def over(
    seconds: float, before: Mapping[str, int], last: Mapping[str, int], info_bytes: int = INFO_BYTES
) -> Throughput:
    """Of one flow, with cookie 1."""
    return Throughput(make_infos({1: last}, 1000 + seconds, info_bytes), make_infos({1: before}, 1000, info_bytes))


def one(values: NDArray[np.float64]) -> float:
    (value,) = values.tolist()
    return float(value)


ONE = COOKIES[:1]

# Rates --------------------------------------------------------------------------------------------


def test_figures_of_one_flow() -> None:
    before = {"bytes_received": 1_000, "bytes_acked": 500, "total_retrans": 3, "rtt": 9}
    last = {"bytes_received": 2_000, "bytes_acked": 2**40, "total_retrans": 13, "rtt": 23_456}
    it = over(2.5, before, last)
    assert one(it.rx_bytes_per_s(ONE)) == 400
    assert one(it.tx_bytes_per_s(ONE)) == (2**40 - 500) / 2.5
    assert one(it.retransmits_per_s(ONE)) == 4
    assert (one(it.retransmits(ONE)), one(it.rtt_us(ONE))) == (13, 23_456)


FIGURES = (Throughput.rx_bytes_per_s, Throughput.tx_bytes_per_s, Throughput.retransmits_per_s)


def test_one_dump_gives_no_rate() -> None:
    it = Throughput().after(make_infos({1: {"rtt": 7, "total_retrans": 1}}))
    assert all(math.isnan(one(figure(it, ONE))) for figure in FIGURES)
    assert (one(it.rtt_us(ONE)), one(it.retransmits(ONE)), it.send_limits(ONE).tolist()) == (7, 1, [SendLimit.UNKNOWN])


def test_nothing_is_known_of_nothing() -> None:
    for it in (Throughput(), Throughput().after(make_infos({})), Throughput(make_infos({}), make_infos({}))):
        for figure in (*FIGURES, Throughput.rtt_us, Throughput.retransmits):
            assert np.isnan(figure(it, COOKIES)).all()
            assert figure(it, COOKIES[:0]).tolist() == []
        assert it.send_limits(COOKIES).tolist() == [SendLimit.UNKNOWN] * len(COOKIES)


def test_a_round_trip_that_was_not_measured_is_not_0() -> None:
    assert math.isnan(one(over(1, {}, {"rtt": 0}).rtt_us(ONE)))


def test_a_counter_that_was_set_back_gives_no_rate() -> None:
    assert math.isnan(one(over(1, {"bytes_acked": 9}, {"bytes_acked": 8}).tx_bytes_per_s(ONE)))


def test_fields_that_an_old_kernel_lacks_are_unknown() -> None:
    """As the struct grew: 104 bytes up to Linux 3.14, bytes_acked and its like in 4.1, the stop-watches in 4.10."""
    fields: dict[str, Any] = dict(uapi.TCP_INFO.fields or {})
    before, last = {"busy_time": 1}, {"busy_time": S, "bytes_acked": 9, "bytes_received": 9, "rtt": 5}
    known = []
    for info_bytes in (
        fields[f"tcpi_{name}"][1] for name in ("pacing_rate", "bytes_received", "segs_out", "delivered")
    ):
        it = over(1, before, last, info_bytes)
        figures = (it.rtt_us(ONE), it.tx_bytes_per_s(ONE), it.rx_bytes_per_s(ONE))
        known.append((*(not math.isnan(one(figure)) for figure in figures), it.send_limits(ONE).tolist() != [0]))
    assert known == [(True, False, False, False), (True, True, False, False), (True, True, True, False), (True,) * 4]


# What limits a flow -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grown", "limit"),
    [
        ({}, None),  # silent: nothing was sent, and there was nothing to be sent
        ({"bytes_received": S}, None),
        ({"bytes_acked": 1}, "application"),
        ({"bytes_acked": S, "busy_time": 100 * MS}, "application"),
        ({"bytes_acked": S, "busy_time": S}, "network"),
        ({"busy_time": S}, "network"),
        ({"busy_time": S, "flags": 1}, "network"),  # all that it had to send is lost
        ({"bytes_acked": S, "busy_time": S, "flags": 1, "total_retrans": 1}, "network"),
        ({"bytes_acked": S, "busy_time": S, "flags": 1}, "application"),  # it waited for the ACK of its last data
        ({"bytes_acked": S, "busy_time": S, "flags": 6}, "network"),  # the other bits are about fast open
        ({"bytes_acked": S, "busy_time": S, "rwnd_limited": 900 * MS}, "receiver"),
        ({"bytes_acked": S, "busy_time": S, "rwnd_limited": 900 * MS, "flags": 1}, "receiver"),
        ({"bytes_acked": 0, "busy_time": S, "rwnd_limited": S}, "receiver"),  # a window of zero
        ({"bytes_acked": S, "busy_time": S, "sndbuf_limited": 600 * MS, "rwnd_limited": 300 * MS}, "send buffer"),
        ({"bytes_acked": S, "busy_time": S, "sndbuf_limited": 300 * MS, "rwnd_limited": 200 * MS}, "network"),
        ({"bytes_acked": S, "busy_time": 300 * MS, "rwnd_limited": 300 * MS}, "application"),
        ({"bytes_acked": S, "busy_time": S + 10 * MS}, "network"),  # jiffies: more than the time that passed
    ],
)
def test_what_it_did_for_the_longest_time(grown: dict[str, int], limit: str | None) -> None:
    begin = {"bytes_acked": 7 * S, "busy_time": 9 * S, "rwnd_limited": 4 * S, "sndbuf_limited": 3 * S}
    last = {name: begin.get(name, 0) + grown.get(name, 0) for name in begin.keys() | grown.keys()}
    (found,) = over(1, begin, last).send_limits(ONE).tolist()
    assert SendLimit(found).word == limit


def test_every_limit_has_a_word() -> None:
    assert [limit.word for limit in SendLimit] == [None, "application", "receiver", "send buffer", "network"]


ESTABLISHED, SYN_SENT, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, LAST_ACK = 1, 2, 4, 5, 8, 9


@pytest.mark.parametrize(
    ("states", "acked", "received", "expected"),
    [
        ((SYN_SENT, ESTABLISHED), (0, 1), (0, 0), (0.0, 0.0)),
        ((SYN_SENT, ESTABLISHED), (0, 7), (0, 3), (6.0, 3.0)),
        ((ESTABLISHED, ESTABLISHED), (1, 7), (0, 3), (6.0, 3.0)),
        ((SYN_SENT, FIN_WAIT_2), (0, 8), (0, 3), (6.0, 3.0)),
        ((FIN_WAIT_1, FIN_WAIT_2), (7, 8), (3, 3), (0.0, 0.0)),
        ((FIN_WAIT_2, FIN_WAIT_2), (8, 8), (3, 5), (0.0, 2.0)),
        ((ESTABLISHED, CLOSE_WAIT), (7, 7), (3, 4), (0.0, 0.0)),
        ((CLOSE_WAIT, LAST_ACK), (7, 7), (4, 4), (0.0, 0.0)),
    ],
)
def test_syn_and_fin_are_not_data(
    states: tuple[int, int], acked: tuple[int, int], received: tuple[int, int], expected: tuple[float, float]
) -> None:
    begin, last = (
        {"state": state, "bytes_acked": sent, "bytes_received": got}
        for state, sent, got in zip(states, acked, received, strict=True)
    )
    found = over(1, begin, last)
    assert (one(found.tx_bytes_per_s(ONE)), one(found.rx_bytes_per_s(ONE))) == expected


# From sample to sample ----------------------------------------------------------------------------

NUMBERS = st.integers(0, 5)
FLOW = st.fixed_dictionaries(dict.fromkeys(("bytes_acked", "bytes_received", "total_retrans", "rtt"), NUMBERS))
ASKED = st.none() | st.dictionaries(st.integers(1, 8), FLOW)
Infos = Mapping[int, Mapping[str, int]]


class Plain:
    """The same with dictionaries."""

    def __init__(self) -> None:
        self.last: tuple[float, Infos] = (0.0, {})
        self.before: tuple[float, Infos] = (0.0, {})

    def after(self, when: float, known: Infos | None) -> None:
        if known is not None:
            self.before, self.last = self.last, (when, known)

    def latest(self, name: str, cookie: int) -> float:
        return self.last[1].get(cookie, {}).get(name, math.nan)

    def per_s(self, name: str, cookie: int) -> float:
        (then, before), (now, last) = self.before, self.last
        if cookie not in before or cookie not in last:
            return math.nan
        grown = last[cookie][name] - before[cookie][name]
        return grown / (now - then) if grown >= 0 else math.nan


@given(st.lists(ASKED, max_size=6), st.permutations(range(1, 10)))
def test_the_same_as_with_dictionaries(samples: list[Infos | None], asked: list[int]) -> None:
    """Whichever flows come and go, in samples that may not have asked; whatever rows are drawn."""
    it, plain = Throughput(), Plain()
    cookies = np.array(asked, np.uint64)
    for second, known in enumerate(samples):
        it = it.after(None if known is None else make_infos(known, 1000.0 + second))
        plain.after(1000.0 + second, known)
        pairs: tuple[tuple[Callable[[NDArray[np.uint64]], NDArray[np.float64]], Callable[[int], float]], ...] = (
            (it.rx_bytes_per_s, lambda c: plain.per_s("bytes_received", c)),
            (it.tx_bytes_per_s, lambda c: plain.per_s("bytes_acked", c)),
            (it.retransmits_per_s, lambda c: plain.per_s("total_retrans", c)),
            (it.retransmits, lambda c: plain.latest("total_retrans", c)),
            (it.rtt_us, lambda c: plain.latest("rtt", c) or math.nan),
        )
        for figure, expected in pairs:
            np.testing.assert_array_equal(figure(cookies), [expected(cookie) for cookie in asked])


def test_rows_carry_it_from_sample_to_sample() -> None:
    rows = [
        make_rows([sock("ESTAB", "10.0.0.1:1", cookie=1), sock("ESTAB", "10.0.0.1:2", cookie=2)], time=NOW + at)
        for at in range(4)
    ]
    known = [{1: {"bytes_acked": 100 * at}, 2: {"bytes_acked": 5}} for at in range(4)]
    infos = [make_infos(known[0]), make_infos(known[1], 1001.0), None, make_infos(known[3], 1003.0)]
    joined, found = None, []
    for one_rows, one_infos in zip(rows, infos, strict=True):
        sample = make_sample(one_rows, tcp_info_table=one_infos)
        joined = join.join(joined, sample) if joined else join.first(sample)
        found.append(joined.rows.throughput.tx_bytes_per_s(joined.rows.cookie).tolist())
    np.testing.assert_array_equal(found, [[math.nan] * 2, [100, 0], [100, 0], [100, 0]])
    assert joined
    (last,) = joined.rows.take(np.array([1])).throughput.tx_bytes_per_s(COOKIES[1:2]).tolist()
    assert last == 0


def test_a_flow_that_ended_keeps_its_last_figures_as_a_closed_row() -> None:
    alive = make_rows([sock("ESTAB", "10.0.0.1:1", cookie=1)])
    joined = join.first(make_sample(alive, tcp_info_table=make_infos({1: {"bytes_acked": 0}})))
    joined = join.join(joined, make_sample(alive, tcp_info_table=make_infos({1: {"bytes_acked": 50}}, 1001.0)))
    ended = join.join(joined, make_sample(make_rows([]), tcp_info_table=make_infos({})))
    assert one(ended.closed.throughput.tx_bytes_per_s(ended.closed.cookie)) == 50
    assert np.isnan(ended.rows.throughput.tx_bytes_per_s(COOKIES)).all()


# In order -----------------------------------------------------------------------------------------


def kernel_dump(rows: list[tuple[int, int, int]]) -> TcpInfoDump:
    """Cookie, state and bytes_acked of each."""
    figures = np.zeros(len(rows), uapi.FLOW_INFO)
    for row, (cookie, state, acked) in zip(figures, rows, strict=True):
        row["idiag_cookie"], row["tcpi_state"], row["tcpi_bytes_acked"] = cookie, state, acked
    return TcpInfoDump(figures, np.arange(len(rows), dtype=np.float64), 280)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 2**64 - 1]), st.sampled_from([1, 4, 10]), NUMBERS), max_size=12))
def test_each_flow_once_the_later_one_counts_and_listeners_are_none(rows: list[tuple[int, int, int]]) -> None:
    infos: TcpInfoTable = sort_tcp_info(kernel_dump(rows))
    expected = {cookie: (acked, float(at)) for at, (cookie, state, acked) in enumerate(rows) if state != 10}
    acked, when = infos.table["tcpi_bytes_acked"].tolist(), infos.received_monotonic_s.tolist()
    found = zip(infos.cookie.tolist(), zip(acked, when, strict=True), strict=True)
    assert list(found) == sorted(expected.items())
    assert not any(array.flags.writeable for array in (infos.cookie, infos.table, infos.received_monotonic_s))
