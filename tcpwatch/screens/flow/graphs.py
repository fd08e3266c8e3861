"""Graphs of a flow's figures over the time that it was watched, each with its largest, its last and its smallest."""

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
"""Cells for the label of a graph, and for the word before a figure."""
_LEAST_CELLS = 8
"""Below this many cells the figures stand alone."""

FormatValue = Callable[[float, bool], str]
"""(value, exact) → text with its unit."""


def _rtt(value: float, exact: bool) -> str:
    return show_ms(round(value / 1000, 3), exact)


def _count(value: float, exact: bool) -> str:
    return units.count(value, exact)


def graph(values: Sequence[float], width: int, height: int) -> list[str]:
    """All values over `width` cells, 0 at the foot, the largest at the top; a line of its own for 0, blank for NaN.

    A cell for each value, the newest on the right, until there are more values than cells: then the largest of each
    cell's counts.
    """
    slots = max(len(values), width)
    most = max((value for value in values if value == value), default=0.0)
    lines = area(values, slots, width, height, most)
    known = resample(values, slots, width)
    lines[-1] = "".join(
        "▁" if value == 0 and cell == " " else cell for cell, value in zip(lines[-1], known, strict=True)
    )
    return lines


@dataclass(frozen=True, slots=True)
class _Graph:
    """One figure of a flow."""

    label: str
    values: Sequence[float]
    show: FormatValue

    def figures(self, live: bool, exact: bool) -> list[tuple[str, str]]:
        """The largest, the newest and the smallest, each with its word; the newest alone where it never changed."""
        known = [value for value in self.values if value == value]
        newest = ("now", self.values[-1]) if live else ("last", known[-1])
        most, least = ("max", max(known)), ("min", min(known))
        told = (newest,) if most[1] == least[1] == newest[1] else (most, newest, least)
        return [(word, self.show(value, exact) if value == value else units.UNKNOWN) for word, value in told]


@dataclass(frozen=True, slots=True)
class _Graphs:
    """The graphs of one block."""

    graphs: Sequence[_Graph]
    live: bool
    exact: bool
    figure: int
    """Cells for a figure: the same in all blocks, so that the graphs are of equal width."""

    def draw(self, width: int, colours: Palette) -> list[Line]:
        told = [one.figures(self.live, self.exact) for one in self.graphs]
        figure = self.figure
        cells = width - len(_INDENT) - _LABEL - _WORD - figure - 1
        if cells < _LEAST_CELLS:
            return [((_INDENT + words, colours.plain),) for line in self.plain() for words in wrapped(line, width - 4)]
        lines: list[Line] = []
        for one, figures in zip(self.graphs, told, strict=True):
            labels = [one.label, *[""] * (len(figures) - 1)]
            for label, row, (word, words) in zip(labels, graph(one.values, cells, len(figures)), figures, strict=True):
                style = colours.plain if word == "max" or word == "min" else colours.strong
                head, name = f"{_INDENT}{label:<{_LABEL}}", f"{'  ' + word:<{_WORD}}"
                lines.append(
                    ((head, colours.dim), (row, colours.open), (name, colours.dim), (f"{words:>{figure}}", style))
                )
        return lines

    def plain(self) -> list[str]:
        return [
            f"{one.label}: " + ", ".join(f"{word} {words}" for word, words in one.figures(self.live, self.exact))
            for one in self.graphs
        ]


def graph_blocks(told: FlowGraph, state: State, live: bool, exact: bool = False) -> list[Block]:
    """What the graph tells of a flow in this state, and nothing of what it does not; `live`: the flow still is."""
    receive = _Graph("receive", told.recv_queue, units.byte_size)
    rates = [_Graph("rx", told.rx_bytes_per_s, units.byte_rate), _Graph("tx", told.tx_bytes_per_s, units.byte_rate)]
    shown = [
        ("Throughput", rates),
        ("Round trip time", [_Graph("rtt", told.rtt_us, _rtt)]),
        ("Congestion window", [_Graph("window", told.cwnd, _count)]),
        ("Queues", [receive, _Graph("send", told.send_queue, units.byte_size)]),
    ]
    if state is State.LISTEN:  # its send queue is a limit, and it has no peer
        shown = [("Accept queue", [replace(receive, label="waiting", show=_count)])]
    known = [(title, [one for one in graphs if _any(one.values)]) for title, graphs in shown]
    figures = [words for _, graphs in known for one in graphs for _, words in one.figures(live, exact)]
    figure = max(map(len, figures), default=0)
    span = f"over {units.duration(len(told.rtt_us) * told.slot_s)}"
    drawn = [(title, _Graphs(graphs, live, exact, figure)) for title, graphs in known if graphs]
    return [Block(title, graphs.draw, graphs.plain, span) for title, graphs in drawn]


def _any(values: Sequence[float]) -> bool:
    return any(value == value for value in values)
