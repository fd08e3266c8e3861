"""The parts of the flow screen: strip, moments, states, incidents, graphs and blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tcpwatch.model.lifecycle.history import History, StatePeriod
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.screens.flow.graphs import graph, graph_blocks
from tcpwatch.screens.flow.states import incident_blocks, states_block
from tcpwatch.screens.flow.strip import distribute_cells, strip_lines
from tcpwatch.screens.shared.moments import clock, duration_text, origin_text
from tcpwatch.screens.shared.state_marks import STATE_FILLS, STATE_LETTERS
from tcpwatch.widgets.blocks import Block, in_columns
from tcpwatch.widgets.lines import Line, cells_of
from tcpwatch.widgets.palette import Palette, palette
from tests.support.flow_cases import BY_PEER, INCIDENTS, NAN, POLLED, RESET, TRACED, moment, state_periods, wave
from tests.support.shots import make_app
from tests.support.views import NOW

pytestmark = pytest.mark.usefixtures("utc")


@pytest.fixture(scope="module")
def colours() -> Palette:
    return palette(make_app())


def _texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


# The strip ---------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=1, max_size=12), st.integers(0, 300), st.integers(1, 3)
)  # fmt: skip
def test_cells_sum_to_the_width_and_every_duration_is_visible(durations: list[float], width: int, least: int) -> None:
    cells = distribute_cells(durations, width, least)
    assert len(cells) == len(durations)
    assert sum(cells) == width
    assert min(cells) >= min(least, width // len(durations))
    for long, long_cells in zip(durations, cells, strict=True):
        for short, short_cells in zip(durations, cells, strict=True):
            assert long <= short or long_cells >= short_cells - 1  # rounding may give a cell to the shorter one


def test_long_durations_keep_their_proportion() -> None:
    assert distribute_cells([0.002, 300, 0.1, 100], 84, 2) == [2, 60, 2, 20]
    assert distribute_cells([5, 5], 10) == [5, 5]
    assert distribute_cells([0, 0, 0], 7) == [3, 2, 2]
    assert distribute_cells([1, 1, 1], 2) == [1, 1, 0]
    assert distribute_cells([], 10) == []


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8), st.integers(22, 200))
def test_order_is_kept_and_the_strip_fills_the_width(durations: list[float], width: int) -> None:
    begins = [sum(durations[:at]) for at in range(len(durations) + 1)]
    states = STATE_ORDER[: len(durations)]
    marks = [moment(sum(durations) - begin) for begin in begins]
    periods = state_periods(*zip(states, marks[:-1], strict=True), end=marks[-1])
    strip, times = strip_lines(periods, NOW, width, palette(make_app()))
    text = "".join(piece for piece, _ in strip)
    assert [letter for letter in text if letter in STATE_LETTERS.values()] == [STATE_LETTERS[state] for state in states]
    assert cells_of(strip) == width - 2
    assert cells_of(times) <= width


@pytest.mark.parametrize(
    ("history", "lines"),
    [
        (POLLED, ["   ┊R┊E━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━▸",
                  "   22:13:00.0         20 s       now 22:13:20.0"]),
        (TRACED, ["   │S│E━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━│1│2│T▸",
                  "   22:12:16.500     1 m 04 s     now 22:13:20.0"]),
        (RESET, ["   …R│E━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━│",
                 "                  at least 28 s    22:13:18.000"]),
        (BY_PEER, ["   …E━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┊C┊L│",
                   "                at least 3 m 16 s  22:13:15.750"]),
    ],
    ids=["polled", "traced", "reset", "by peer"],
)  # fmt: skip
def test_edges_show_how_a_moment_is_known(history: History, lines: list[str], colours: Palette) -> None:
    assert _texts(strip_lines(history.periods, NOW, 49, colours)) == lines


def test_no_strip_without_periods_or_room(colours: Palette) -> None:
    assert strip_lines((), NOW, 80, colours) == []
    assert strip_lines(TRACED.periods, NOW, 8, colours) == []


def test_each_state_has_a_letter_and_a_fill_of_one_cell() -> None:
    assert len(set(STATE_LETTERS.values())) == len(STATE_LETTERS) == len(STATE_FILLS) == len(State)
    assert {cell_len(mark) for mark in (*STATE_LETTERS.values(), *STATE_FILLS.values())} == {1}


# Moments -----------------------------------------------------------------------------------------


def test_clock_times_are_truncated() -> None:
    assert clock(NOW + 0.999) == "22:13:20.9"
    assert clock(NOW + 0.9999, fine=True) == "22:13:20.999"
    assert clock(NOW + 0.042, fine=True) == "22:13:20.042"  # 0.0419999 as a float


@pytest.mark.parametrize(
    ("period", "first", "text"),
    [
        (StatePeriod(State.SYN_RCVD, moment(5), moment(4.9)), True, "unknown"),
        (StatePeriod(State.SYN_RCVD, moment(5), moment(4.9)), False, "100 ms"),  # after SYN_SENT: both ends at once
        (StatePeriod(State.SYN_RCVD, moment(5, Origin.POLL), moment(4.9)), True, "0.1 s"),
        (StatePeriod(State.ESTABLISHED, moment(5), moment(5), began_earlier=True), True, "unknown"),
        (StatePeriod(State.ESTABLISHED, moment(5), None, began_earlier=True), True, "at least 5 s"),
        (StatePeriod(State.ESTABLISHED, moment(5, Origin.POLL, NAN), moment(3)), True, "at least 2 s"),
        (StatePeriod(State.ESTABLISHED, moment(5), moment(3, Origin.POLL, NAN)), True, "at most 2 s"),
        (StatePeriod(State.ESTABLISHED, moment(5), moment(3, Origin.EVENT)), True, "2.000 s"),
        (StatePeriod(State.ESTABLISHED, moment(5), None), True, "5 s"),
        (StatePeriod(State.ESTABLISHED, moment(-5), None), True, "0 s"),
    ],
)  # fmt: skip
def test_how_long_a_state_lasted(period: StatePeriod, first: bool, text: str) -> None:
    assert duration_text(period, NOW, first) == text


def test_how_a_moment_is_known() -> None:
    assert origin_text(moment(1, Origin.POLL, 0.25)) == "polled ±0.2 s"
    assert origin_text(moment(1, Origin.POLL, 60)) == "polled ±1 m 00 s"
    assert origin_text(moment(1, Origin.POLL, NAN)) == "polled"
    assert origin_text(moment(1, Origin.EVENT)) == "destroy event"
    assert origin_text(moment(1)) == "trace"


# States and incidents ----------------------------------------------------------------------------


def test_states_in_a_narrow_column_and_in_a_narrower_one(colours: Palette) -> None:
    block = states_block(BY_PEER, NOW, "needs root")
    assert _texts(block.lines(50, colours))[1:3] == [
        "   E ESTABLISHED 22:10:00.0    ≥ 3 m 08 s  polled",
        "   C CLOSE_WAIT  22:13:08.0           7 s  ±1.0 s",
    ]
    assert _texts(block.lines(30, colours))[1:3] == ["   E ESTABLISHED ≥ 3 m 08 s", "     22:10:00.0 polled"]


@pytest.mark.parametrize("width", [30, 48, 50, 60, 80, 99])
@pytest.mark.parametrize("history", [POLLED, TRACED, RESET, BY_PEER], ids=["polled", "traced", "reset", "by peer"])
def test_no_line_is_too_wide(history: History, width: int, colours: Palette) -> None:
    graphs = FlowGraph(NOW, 1.0, *[tuple(float(10**9 * at) for at in range(99))] * 6)
    for block in (
        states_block(history, NOW, "needs root"),
        *incident_blocks(replace(history, incidents=INCIDENTS), TraceStats(drop_reasons={17: "A_LONG_REASON_" * 4})),
        *graph_blocks(graphs, State.ESTABLISHED, live=True, exact=True),
    ):
        assert max(cells_of(line) for line in block.lines(width, colours)) <= width


def test_incidents_are_counted_and_the_last_ones_listed(colours: Palette) -> None:
    (block,) = incident_blocks(History((), INCIDENTS * 3), TraceStats())
    lines = _texts(block.lines(80, colours))
    assert lines[1] == "   6 retransmissions, 3 segments dropped"
    assert lines[2] == "   The last 6 of 9:"
    assert lines[-1] == "   22:13:16.500  dropped         reason 17"
    assert len(lines) == 9
    assert len(block.plain()) == 8
    assert incident_blocks(History(), TraceStats()) == []


# Graphs ------------------------------------------------------------------------------------------


def test_a_graph_distinguishes_unknown_zero_and_small_values() -> None:
    assert graph([NAN, 0, 0.1, 50, 100], 6, 2) == ["     █", "  ▁▁██"]
    assert graph([NAN, 0.0], 2, 1) == [" ▁"]
    assert graph([1, 3, 2, 0], 2, 1) == ["█▅"]  # two values a cell: the larger one


def test_only_known_values_are_drawn() -> None:
    unknown = (NAN, NAN)
    graphs = FlowGraph(NOW, 2.0, unknown, (0.0, 2048.0), unknown, (10.0, 10.0), unknown, (5.0, NAN))
    blocks = graph_blocks(graphs, State.ESTABLISHED, live=True)
    assert [(block.title, block.head, list(block.plain())) for block in blocks] == [
        ("Throughput", "over 4 s", ["tx: max 2,048 B/s, now 2,048 B/s, min 0 B/s"]),
        ("Congestion window", "over 4 s", ["window: now 10"]),
        ("Queues", "over 4 s", ["send: max 5 B, now –, min 5 B"]),
    ]
    ended = graph_blocks(graphs, State.ESTABLISHED, live=False)
    assert list(ended[-1].plain()) == ["send: last 5 B"]
    assert graph_blocks(FlowGraph(NOW, 1.0), State.ESTABLISHED, live=True) == []


def test_graphs_are_of_equal_width_with_figures_aligned(colours: Palette) -> None:
    for block in graph_blocks(wave(), State.ESTABLISHED, live=True):
        assert {cells_of(line) for line in block.lines(60, colours)[1:]} == {59}


# Blocks ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(20, 400))
def test_blocks_stay_whole_and_in_order(heights: list[int], width: int) -> None:
    colours = palette(make_app())

    def block(at: int, height: int) -> Block:
        return Block(f"b{at}", lambda width, colours: [((f"b{at}", colours.plain),)] * height, lambda: ())

    lines = in_columns([block(*one) for one in enumerate(heights)], width, colours)
    texts = [text for line in lines for text, _ in line]
    assert [sum(text == f"b{at}" for text in texts) for at in range(len(heights))] == [h + 1 for h in heights]
    assert all(cells_of(line) <= width for line in lines)
