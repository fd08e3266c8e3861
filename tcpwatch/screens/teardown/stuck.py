"""The table of what is stuck on the path: connect()s without answer, and windows that are closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.analyses.stalls import UnansweredConnects, UnreadProcess, ZeroWindowPeer
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.ports import count_piece, text_piece
from tcpwatch.screens.teardown.table import InlineColumn, InlineTable

STUCK = "stuck"
"""Name of the table."""


@dataclass(frozen=True, slots=True)
class StuckRow:
    """Sockets that are stuck in one way, toward one peer or in one process."""

    kind: str
    peer_or_process: str
    count: int
    duration_text: str
    bytes: int | None
    filter: str
    detail: str


def stuck_table(view: View) -> InlineTable[StuckRow]:
    """What gets no answer, then what is not taken, then what is not read."""
    path = view.stalls
    columns: Sequence[InlineColumn[StuckRow]] = (
        InlineColumn("", 15, lambda one, look: text_piece(one.kind, look), right=False),
        InlineColumn("", 0, lambda one, look: text_piece(one.peer_or_process, look), right=False, named=True),
        InlineColumn("sockets", 7, lambda one, look: count_piece(one.count, look), priority=1),
        InlineColumn("how long", 10, lambda one, look: text_piece(one.duration_text, look), priority=2),
        InlineColumn("bytes", 9, lambda one, look: text_piece(units.size(one.bytes, look.exact), look), priority=3),
    )
    return InlineTable(
        STUCK,
        "Stuck on the path",
        [*map(_stuck, path.unanswered), *map(_closed, path.zero_window), *map(_unread, path.unread)],
        lambda width: columns,
        identity=lambda one: (one.kind, one.peer_or_process),
        filter=lambda one: one.filter,
        detail=lambda one, exact: f"{one.peer_or_process}: {one.detail}",
        empty="Nothing: peers answer and take what they are sent.",
    )


def _stuck(one: UnansweredConnects) -> StuckRow:
    times = f"{one.retransmits} repeat{'s' * (one.retransmits != 1)}"
    where = f"state:syn-sent {one.remote.remote_filter}"
    detail = "connect() gets no answer; the peer, or the path to it, is dead"
    return StuckRow("no answer", str(one.remote), one.count, times, None, where, detail)


def _closed(one: ZeroWindowPeer) -> StuckRow:
    detail = "the peer's window is closed; it does not read what it was sent"
    name, where = str(one.remote), one.remote.remote_filter
    return StuckRow("window closed", name, one.count, units.duration(one.longest_s), one.unsent, where, detail)


def _unread(one: UnreadProcess) -> StuckRow:
    detail = "this process does not read; our window to its peers is closed"
    pid = one.owner.processes[0].pid
    return StuckRow("does not read", one.process, one.count, units.UNKNOWN, one.unread_bytes, f"pid:{pid}", detail)
