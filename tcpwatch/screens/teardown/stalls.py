"""stalled_table: connections that cannot send: unanswered connect() calls and zero windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.analyses.silent_peers import SilentPeer
from tcpwatch.model.analyses.stalls import UnreadProgram
from tcpwatch.model.analyses.unanswered_connects import UnansweredConnects
from tcpwatch.model.analyses.zero_windows import ZeroWindowPeer
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
    """Return silent peers, unanswered connect() calls, zero windows of peers, and processes that do not read."""
    stalls = view.stalls
    hidden = (
        stalls.silent.all_peers - len(stalls.silent.peers)
        + stalls.unanswered.all_destinations - len(stalls.unanswered.destinations)
        + stalls.zero_window.all_peers - len(stalls.zero_window.peers)
    )  # fmt: skip
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
        f"Stalled sending ({units.count(hidden)} more)" if hidden else "Stalled sending",
        [
            *map(_silent, stalls.silent.peers),
            *map(_unanswered, stalls.unanswered.destinations),
            *map(_zero_window, stalls.zero_window.peers),
            *map(_unread, stalls.unread),
        ],
        lambda width: columns,
        identity=lambda row: (row.kind, row.peer_or_process),
        filter=lambda row: row.filter,
        detail=lambda row, exact: f"{row.peer_or_process}: {row.detail}",
        empty="None: peers answer and accept data.",
    )


def _silent(peer: SilentPeer) -> StalledRow:
    detail = "connections retransmit, and nothing comes from the peer"
    silent = units.duration(peer.silent_s)
    return StalledRow(
        "silent peer", str(peer.remote), peer.count, silent, peer.unacknowledged, peer.remote.remote_filter, detail
    )


def _unanswered(connects: UnansweredConnects) -> StalledRow:
    retries = units.plural(connects.retransmits, "retry", "retries") if connects.count else "given up"
    filter_text = f"state:syn-sent {connects.remote.remote_filter}"
    detail = "connect() gets no answer; the peer or the path to it is down"
    return StalledRow("no answer", str(connects.remote), connects.attempts, retries, None, filter_text, detail)


def _zero_window(peer: ZeroWindowPeer) -> StalledRow:
    detail = "blocked by the peer's receive window; the peer does not read the data, or too slowly"
    longest = units.duration(peer.longest_s)
    return StalledRow(
        "zero window", str(peer.remote), peer.count, longest, peer.unsent, peer.remote.remote_filter, detail
    )


def _unread(unread: UnreadProgram) -> StalledRow:
    detail = "the program does not read; its peers are blocked by a zero window"
    name = str(unread.program)
    return StalledRow(
        "not reading", name, unread.count, units.UNKNOWN, unread.unread_bytes, unread.program.filter, detail
    )
