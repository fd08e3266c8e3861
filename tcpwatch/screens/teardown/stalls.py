"""stalled_table: connections that cannot send: unanswered connect() calls and zero windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.analyses.stalls import UnansweredConnects, UnreadProcess, ZeroWindowPeer
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.ports import count_piece, text_piece
from tcpwatch.screens.teardown.table import InlineColumn, InlineTable

STALLED = "stalled"
"""Name of the table."""


@dataclass(frozen=True, slots=True)
class StalledRow:
    """Sockets that stall for one reason, with one peer or in one process."""

    kind: str
    peer_or_process: str
    count: int
    duration_text: str
    bytes: int | None
    filter: str
    detail: str


def stalled_table(view: View) -> InlineTable[StalledRow]:
    """Return unanswered connect() calls, then zero windows of peers, then processes that do not read."""
    stalls = view.stalls
    columns: Sequence[InlineColumn[StalledRow]] = (
        InlineColumn("", 15, lambda row, cell: text_piece(row.kind, cell), right=False),
        InlineColumn("", 0, lambda row, cell: text_piece(row.peer_or_process, cell), right=False, named=True),
        InlineColumn("sockets", 7, lambda row, cell: count_piece(row.count, cell), priority=1),
        InlineColumn("duration", 9, lambda row, cell: text_piece(row.duration_text, cell), priority=2),
        InlineColumn(
            "queued", 11, lambda row, cell: text_piece(units.byte_size(row.bytes, cell.exact), cell), priority=3
        ),
    )
    return InlineTable(
        STALLED,
        "Stalled sending",
        [*map(_unanswered, stalls.unanswered), *map(_zero_window, stalls.zero_window), *map(_unread, stalls.unread)],
        lambda width: columns,
        identity=lambda row: (row.kind, row.peer_or_process),
        filter=lambda row: row.filter,
        detail=lambda row, exact: f"{row.peer_or_process}: {row.detail}",
        empty="None: peers answer and accept data.",
    )


def _unanswered(connects: UnansweredConnects) -> StalledRow:
    retries = units.plural(connects.retransmits, "retry", "retries")
    filter_text = f"state:syn-sent {connects.remote.remote_filter}"
    detail = "connect() gets no answer; the peer or the path to it is down"
    return StalledRow("no answer", str(connects.remote), connects.count, retries, None, filter_text, detail)


def _zero_window(peer: ZeroWindowPeer) -> StalledRow:
    detail = "blocked by the peer's zero window; the peer does not read the data"
    longest = units.duration(peer.longest_s)
    return StalledRow(
        "zero window", str(peer.remote), peer.count, longest, peer.unsent, peer.remote.remote_filter, detail
    )


def _unread(owner: UnreadProcess) -> StalledRow:
    detail = "this process does not read; its peers are blocked by a zero window"
    filter_text = f"pid:{owner.owner.processes[0].pid}"
    return StalledRow("not reading", owner.process, owner.count, units.UNKNOWN, owner.unread_bytes, filter_text, detail)
