"""graph_blocks: graphs of a connection while it was watched, each with its largest, newest and smallest value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tcpwatch import units
from tcpwatch.model.columns.throughput_values import show_ms
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.states import State
from tcpwatch.widgets.blocks import Block
from tcpwatch.widgets.charts.area import area
from tcpwatch.widgets.charts.bars import resample
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import wrapped

_INDENT = "   "
_LABEL = 8
_WORD = 7
"""Cells for the label of a graph, and for `max`, `now` or `min` before a figure."""
_MIN_CELLS = 8
"""Narrower graphs are not drawn: their figures are shown as text."""

FormatValue = Callable[[float, bool], str]
"""(value, exact) → text with its unit."""


def _rtt(value: float, exact: bool) -> str:
    return show_ms(round(value / 1000, 3), exact)


def graph(values: Sequence[float], width: int, height: int) -> list[str]:
    """Return `height` lines of `width` cells: a chart from 0 to the largest value; NaN is blank, 0 a thin line.

    Each value has one cell, the newest on the right. If there are more values than cells, a cell shows the largest of
    its values.
    """
    slots = max(len(values), width)
    maximum = max((value for value in values if value == value), default=0.0)
    lines = area(values, slots, width, height, maximum)
    cell_values = resample(values, slots, width)
    lines[-1] = "".join(
        "▁" if value == 0 and cell == " " else cell for cell, value in zip(lines[-1], cell_values, strict=True)
    )
    return lines


@dataclass(frozen=True, slots=True)
class _Graph:
    """One value of a connection over time."""

    label: str
    values: Sequence[float]
    show: FormatValue

    def figures(self, live: bool, exact: bool) -> list[tuple[str, str]]:
        """Return (`max`, `now` or `last`, `min`) with their values; only the newest if the value never changed."""
        known = [value for value in self.values if value == value]
        newest = ("now", self.values[-1]) if live else ("last", known[-1])
        largest, smallest = ("max", max(known)), ("min", min(known))
        figures = (newest,) if largest[1] == smallest[1] == newest[1] else (largest, newest, smallest)
        return [(word, self.show(value, exact) if value == value else units.UNKNOWN) for word, value in figures]


@dataclass(frozen=True, slots=True)
class _Graphs:
    """The graphs of one block."""

    graphs: Sequence[_Graph]
    live: bool
    exact: bool
    figure: int
    """Cells for a figure; the same in all blocks, so that all graphs have the same width."""

    def draw(self, width: int, colours: Palette) -> list[Line]:
        cells = width - len(_INDENT) - _LABEL - _WORD - self.figure - 1
        if cells < _MIN_CELLS:
            return [((_INDENT + text, colours.plain),) for line in self.plain() for text in wrapped(line, width - 4)]
        lines: list[Line] = []
        for drawn in self.graphs:
            figures = drawn.figures(self.live, self.exact)
            rows = graph(drawn.values, cells, len(figures))
            labels = [drawn.label, *[""] * (len(figures) - 1)]
            for label, row, (word, text) in zip(labels, rows, figures, strict=True):
                lines.append((
                    (f"{_INDENT}{label:<{_LABEL}}", colours.dim),
                    (row, colours.open),
                    (f"{'  ' + word:<{_WORD}}", colours.dim),
                    (f"{text:>{self.figure}}", colours.plain if word in ("max", "min") else colours.strong),
                ))  # fmt: skip
        return lines

    def plain(self) -> list[str]:
        return [
            f"{shown.label}: " + ", ".join(f"{word} {text}" for word, text in shown.figures(self.live, self.exact))
            for shown in self.graphs
        ]


def graph_blocks(history: FlowGraph, state: State, live: bool, exact: bool = False) -> list[Block]:
    """Return a block for each group of values of which any is known; `live`: the connection is not closed."""
    receive = _Graph("receive", history.recv_queue, units.byte_size)
    rates = [
        _Graph("rx", history.rx_bytes_per_s, units.byte_rate),
        _Graph("tx", history.tx_bytes_per_s, units.byte_rate),
    ]
    shown = [
        ("Throughput", rates),
        ("Round trip time", [_Graph("rtt", history.rtt_us, _rtt)]),
        ("Congestion window", [_Graph("window", history.cwnd, units.count)]),
        ("Queues", [receive, _Graph("send", history.send_queue, units.byte_size)]),
    ]
    if state is State.LISTEN:  # its send queue is the limit of the accept queue, and it has no peer
        shown = [("Accept queue", [replace(receive, label="waiting", show=units.count)])]
    known = [(title, [entry for entry in graphs if _any(entry.values)]) for title, graphs in shown]
    figures = [text for _, graphs in known for entry in graphs for _, text in entry.figures(live, exact)]
    figure = max(map(len, figures), default=0)
    span = f"over {units.duration(len(history.rtt_us) * history.slot_s)}"
    drawn = [(title, _Graphs(graphs, live, exact, figure)) for title, graphs in known if graphs]
    return [Block(title, graphs.draw, graphs.plain, span) for title, graphs in drawn]


def _any(values: Sequence[float]) -> bool:
    """Return whether any value is not NaN."""
    return any(value == value for value in values)
