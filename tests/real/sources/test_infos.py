"""Samples with the tcp_info of all flows: which flows, when, and how often."""

from __future__ import annotations

from contextlib import ExitStack, closing

import numpy as np
import pytest

from tcpwatch.model.states import State
from tcpwatch.sources import live as live_source
from tcpwatch.sources.live import LiveSource
from tests import lab

FAMILIES: tuple[lab.Family, ...] = (4, 6)


def test_tcp_info_of_all_flows_on_request(peer: lab.Peer) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(lab.produce(peer, name, family)) for name in lab.STATES for family in FAMILIES]
        asking = stack.enter_context(closing(LiveSource(ask_infos=True)))
        sample = asking.sample()
        infos = sample.tcp_info_table
        assert infos
        states = dict(zip(sample.cookie.tolist(), sample.state.tolist(), strict=True))
        names = [State(states[cookie]).name for cookie in infos.cookie.tolist()]
        silent = {"LISTEN", "SYN_RCVD", "TIME_WAIT", "CLOSED"}  # and an orphan in FIN_WAIT_2, which is no full socket
        assert set(names) == {it.state for it in crowd} - silent
        assert names.count("ESTABLISHED") == np.count_nonzero(sample.state == State.ESTABLISHED)
        assert (infos.cookie[1:] > infos.cookie[:-1]).all()
        assert np.array_equal(infos.cookie, infos.table["idiag_cookie"])
        for array in (infos.cookie, infos.table, infos.received_monotonic_s):
            assert not array.flags.writeable
        later = asking.sample().tcp_info_table
        assert later
        assert later.received_monotonic_s.min() > infos.received_monotonic_s.max()


def test_tcp_info_without_request_is_in_the_first_sample_alone(namespace: lab.Namespace) -> None:
    with closing(LiveSource()) as live:
        assert [live.sample().tcp_info_table is None for _ in range(3)] == [False, True, True]


def test_later_infos_leave_earlier_ones_alone(peer: lab.Peer) -> None:
    with closing(LiveSource(ask_infos=True)) as live:
        with lab.produce(peer, "ESTABLISHED", 4):
            first = live.sample().tcp_info_table
            assert first
            before = first.table.tobytes()
        later = [live.sample().tcp_info_table for _ in range(6)]
        assert first.table.tobytes() == before
        assert not any(len(one.cookie) for one in later if one)


@pytest.mark.parametrize(
    ("dump_s", "flows", "sockets", "passed"),
    [
        (0.0005, 100, 100, 0),
        (0.012, 10_000, 10_000, 0),
        (0.035, 0, 30_000, 0),
        (0.8, 1_000, 1_000_000, 0),  # few flows among half-open connections
        (0.0, 0, 0, 0),
        (0.043, 30_000, 30_000, 1),
        (0.290, 200_000, 200_000, 4),
        (2.9, 200_000, 200_000, 4),  # the same on a slow machine
        (0.290, 100_000, 200_000, 2),
    ],
)
def test_tcp_info_of_very_many_flows_takes_turns(dump_s: float, flows: int, sockets: int, passed: int) -> None:
    """On average it adds a tenth to the time of the dumps, or 10 ms to each."""
    turns = live_source._InfoTurns()
    assert turns.due(), "the first sample has it"
    turns.took(dump_s, flows, sockets)
    assert [turns.due() for _ in range(passed + 1)] == [False] * passed + [True]
