"""Kernel counters as rates, each at a fixed place."""

from __future__ import annotations

from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.view import View
from tcpwatch.widgets.lines import Line, Piece, fit
from tcpwatch.widgets.palette import Palette

_INDENT = "   "
_WORD, _VALUE = 10, 8
_CELLS = _WORD + 1 + _VALUE
_NAMED_FROM, _NAMED_CELLS = 120, 40


@dataclass(frozen=True, slots=True)
class Counter:
    """A kernel counter with a short label."""

    label: str
    kernel_name: str
    """Name in /proc/net/snmp or /proc/net/netstat."""
    denominator: str = ""
    """Show the counter as a share of the sum of both counters; without it as a rate."""
    limit_passed: bool = False
    """It only moves when a limit was exceeded."""

    def value(self, view: View) -> str:
        """Return `61/s`, `0.02 %`, or `–` if the kernel has no such counter."""
        rate = view.rates.get(self.kernel_name)
        if self.denominator:
            # OutSegs does not count retransmissions: the whole is the sum of both.
            return units.share(rate, (rate or 0.0) + view.rates.get(self.denominator, 0.0) or 1.0)
        return units.per_second(rate)


MAIN_COUNTERS = (
    Counter("opened", "ActiveOpens"),
    Counter("accepted", "PassiveOpens"),
    Counter("resets", "OutRsts"),
    Counter("retransm.", "RetransSegs", "OutSegs"),
    Counter("overflows", "ListenOverflows", limit_passed=True),
    Counter("drops", "ListenDrops", limit_passed=True),
    Counter("cookies", "SyncookiesSent", limit_passed=True),
    Counter("TW full", "TCPTimeWaitOverflow", limit_passed=True),
)
"""Always shown, in this order."""

MORE_COUNTERS = (
    Counter("est. reset", "EstabResets"),
    Counter("failed", "AttemptFails"),
    Counter("timeouts", "TCPTimeouts"),
    Counter("SYN retr.", "TCPSynRetrans"),
    Counter("SYN q full", "TCPReqQFullDrop", limit_passed=True),
    Counter("SYN cookie", "TCPReqQFullDoCookies", limit_passed=True),
    Counter("bad cookie", "SyncookiesFailed"),
    Counter("timed out", "TCPAbortOnTimeout"),
    Counter("no memory", "TCPAbortOnMemory", limit_passed=True),
    Counter("backlog", "TCPBacklogDrop", limit_passed=True),
    Counter("zero win.", "TCPZeroWindowDrop"),
    Counter("bad segm.", "InErrs"),
)
"""Shown if there is room."""


def grid_columns(width: int) -> tuple[int, int]:
    """Return the number of columns that fit, and the cells of each."""
    room = width - len(_INDENT) - 1
    columns = max(1, min(4, room // (_NAMED_CELLS if width >= _NAMED_FROM else _CELLS)))
    return columns, room // columns


def counter_lines(counters: tuple[Counter, ...], view: View, width: int, colours: Palette) -> list[Line]:
    """Return the counters in a grid, with the kernel's names if there is room."""
    columns, cells = grid_columns(width)
    lines: list[Line] = []
    for start in range(0, len(counters), columns):
        pieces: list[Piece] = [(_INDENT, colours.plain)]
        for counter in counters[start : start + columns]:
            pieces += _cell(counter, view, cells, width >= _NAMED_FROM, colours)
        lines.append(tuple(pieces))
    return lines


def _cell(counter: Counter, view: View, cells: int, named: bool, colours: Palette) -> Line:
    style = colours.dim
    if view.rates.get(counter.kernel_name):
        style = colours.alarm if counter.limit_passed else colours.plain
    rest = counter.kernel_name if named else ""
    return (
        (fit(counter.label, _WORD) + " ", style if counter.limit_passed else colours.plain),
        (fit(counter.value(view), _VALUE), style),
        (fit(rest, cells - _WORD - _VALUE - 1), colours.dim),
    )
