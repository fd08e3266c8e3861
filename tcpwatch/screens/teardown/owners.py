"""Tables of CLOSE_WAIT and FIN_WAIT_2 sockets by program, and of closing sockets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.style import Style

from tcpwatch import units
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_NOT_LOOKED
from tcpwatch.model.analyses.teardown import CLOSING_STATES, CloseWaits, HalfClosed
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.ports import count_piece, text_piece
from tcpwatch.screens.teardown.table import InlineColumn, InlineTable
from tcpwatch.widgets.charts.meter import limit_style, usage_text
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.table.record_columns import CellContext

CLOSE_WAIT, HALF_CLOSED, FINAL_STATES_TABLE = "close_wait", "half_closed", "last"
"""Names of the tables."""
_LONG_TITLES_FROM = 88
"""Smallest width of the table with long column titles."""


@dataclass(frozen=True, slots=True)
class UnownedRow:
    """Sockets of one state without a known process."""

    kind: str
    name: str
    filter: str
    detail: str


def _unowned_rows(
    view: View, state: State, programs: Sequence[CloseWaits] | Sequence[HalfClosed], unaccepted: int
) -> list[UnownedRow]:
    """Return a row for sockets that no process has accepted, and a row for those whose owner is unknown."""
    has_inodes = view.sample.capabilities.inodes
    unaccepted = unaccepted if has_inodes else 0
    state_filter = f"state:{_filter_name(state)}"
    rows = []
    if unaccepted:
        why = "waiting in an accept queue; no process has accepted them"
        rows.append(
            UnownedRow("not accepted", f"{units.count(unaccepted)} not accepted", f"{state_filter} inode:0", why)
        )
    orphans = view.teardown.orphaned.get(state, 0) if has_inodes else 0
    unknown = view.counts.get(state, 0) - sum(held.count for held in programs) - unaccepted - orphans
    if unknown > 0:
        pids = ",".join(str(pid) for held in programs for pid in held.pids)
        terms = [state_filter, "-inode:0" if has_inodes else "", f"-pid:{pids}" if pids else ""]
        reason = _why_unknown(view, state)
        name = "not looked up yet" if reason == UNKNOWN_NOT_LOOKED else "of unknown owner"
        detail = WHY_UNKNOWN[reason].removeprefix("unknown: ") if reason < UNKNOWN_NO_PROCESS else "unknown"
        text = f"{units.count(unknown)} {name}"
        rows.append(UnownedRow("unknown owner", text, " ".join(filter(None, terms)), detail))
    return rows


def _filter_name(state: State) -> str:
    return state.name.lower().replace("_", "-")


def _why_unknown(view: View, state: State) -> int:
    """Return the most frequent reason why the owner of such a socket is unknown; UNKNOWN_NO_PROCESS if none is."""
    codes = view.rows.owner[(view.rows.state == state) & (view.rows.owner < UNKNOWN_NO_PROCESS)]
    return -int(np.bincount(-codes).argmax()) if len(codes) else UNKNOWN_NO_PROCESS


# CLOSE_WAIT --------------------------------------------------------------------------------------


def close_wait_table(view: View) -> InlineTable[CloseWaits | UnownedRow]:
    """Return a row per program, the largest count first; then the rows without a known process."""
    programs, has_queues = view.teardown.close_wait, view.sample.capabilities.queues
    warning_share = view.thresholds.close_wait_descriptors_share

    def kind(
        count: Callable[[CloseWaits], int],
    ) -> Callable[[CloseWaits | UnownedRow, CellContext], Piece]:
        return lambda row, cell: count_piece(count(row) if isinstance(row, CloseWaits) and has_queues else None, cell)

    def columns(width: int) -> Sequence[InlineColumn[CloseWaits | UnownedRow]]:
        wide = width >= _LONG_TITLES_FROM
        return (
            InlineColumn("", 0, lambda row, cell: text_piece(row.name, cell), right=False, named=True),
            InlineColumn("EOF seen", 8, kind(lambda row: row.eof_seen), priority=1),
            InlineColumn("EOF pending", 11, kind(lambda row: row.eof_pending), priority=2),
            InlineColumn("data pending", 12, kind(lambda row: row.data_pending), priority=3),
            InlineColumn("oldest", 9, lambda row, cell: text_piece(_oldest(row), cell), priority=5),
            InlineColumn("% of fd limit" if wide else "fd limit", 13 if wide else 8,
                         lambda row, cell: _descriptors_share(row, warning_share, cell), priority=4),
            InlineColumn("", 1, lambda row, cell: ("▲" * _is_growing(row), cell.colours.warning)),
        )  # fmt: skip

    return InlineTable(
        CLOSE_WAIT,
        f"CLOSE_WAIT: {units.count(view.counts[State.CLOSE_WAIT])}",
        [*programs, *_unowned_rows(view, State.CLOSE_WAIT, programs, view.teardown.close_wait_unaccepted)],
        columns,
        identity=_identity,
        filter=lambda row: row.filter,
        detail=lambda row, exact: _close_wait_detail(row, has_queues, exact),
        empty="None: every process closes what its peers have closed.",
    )


def _identity(row: CloseWaits | HalfClosed | UnownedRow) -> Hashable:
    return row.kind if isinstance(row, UnownedRow) else row.key


def _oldest(row: CloseWaits | HalfClosed | UnownedRow) -> str:
    return units.UNKNOWN if isinstance(row, UnownedRow) else units.duration(row.oldest_s)


def _is_growing(row: CloseWaits | UnownedRow) -> bool:
    return isinstance(row, CloseWaits) and row.growing


def _descriptors_share(row: CloseWaits | UnownedRow, warning_share: float, cell: CellContext) -> Piece:
    if isinstance(row, UnownedRow) or not row.limit:
        return text_piece(units.UNKNOWN, cell)
    return text_piece(units.share(row.share), cell, cell.colours.warning if row.share >= warning_share else None)


def _close_wait_detail(row: CloseWaits | UnownedRow, has_queues: bool, exact: bool) -> str:
    if isinstance(row, UnownedRow):
        return f"{row.name}: {row.detail}"
    limit = f" of {units.count(row.limit, exact)} descriptors" if row.limit else ""
    growing = ", growing for five minutes" if row.growing else ""
    kinds = {"EOF seen but not closed": row.eof_seen, "EOF pending": row.eof_pending, "data pending": row.data_pending}
    largest = f", mostly {max(kinds, key=lambda kind: kinds[kind])}" if has_queues else ""
    return f"{row.name}: {units.count(row.count, exact)}{limit}{growing}{largest}"


# FIN_WAIT_2 --------------------------------------------------------------------------------------


def half_closed_table(view: View) -> InlineTable[HalfClosed | UnownedRow]:
    """Return a row per program that has shut down its side and still holds the socket."""
    programs, has_inodes = view.teardown.half_closed, view.sample.capabilities.inodes
    columns: Sequence[InlineColumn[HalfClosed | UnownedRow]] = (
        InlineColumn("", 0, lambda row, cell: text_piece(row.name, cell), right=False, named=True),
        InlineColumn("", 7, lambda row, cell: count_piece(row.count if isinstance(row, HalfClosed) else None, cell)),
        InlineColumn("oldest", 9, lambda row, cell: text_piece(_oldest(row), cell, _age_style(row, cell))),
    )
    return InlineTable(
        HALF_CLOSED,
        "FIN_WAIT_2 (process still holds socket)",
        [*programs, *_unowned_rows(view, State.FIN_WAIT_2, programs, 0)] if has_inodes else (),
        lambda width: columns,
        identity=_identity,
        filter=lambda row: row.filter,
        detail=lambda row, exact: _half_closed_detail(row, view.thresholds.half_closed_age_s, exact),
        empty="None." if has_inodes else "Unknown with this source.",
        short_title="FIN_WAIT_2 (with process)",
    )


def _age_style(row: HalfClosed | UnownedRow, cell: CellContext) -> Style | None:
    return cell.colours.warning if isinstance(row, HalfClosed) and row.old else None


def _half_closed_detail(row: HalfClosed | UnownedRow, old_s: float, exact: bool) -> str:
    if isinstance(row, UnownedRow):
        return f"{row.name}: {row.detail}"
    old = f", {units.count(row.old, exact)} for more than {units.duration(old_s)}" if row.old else ""
    return f"{row.name}: {units.count(row.count, exact)} shut down but not closed{old}"


# Closing sockets ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinalStatesRow:
    """Sockets in a closing state, with a process or without."""

    name: str
    counts: Mapping[State, int]
    filter: str
    detail: str


def final_states_table(view: View) -> InlineTable[FinalStatesRow]:
    """Return FIN_WAIT_1, FIN_WAIT_2, LAST_ACK and CLOSING with and without a process, and the orphans."""
    has_inodes, orphans = view.sample.capabilities.inodes, view.orphans
    states = "state:" + ",".join(map(_filter_name, CLOSING_STATES))
    owned = FinalStatesRow("has process", view.teardown.owned, f"{states} -inode:0", "a process still holds the socket")
    unowned = FinalStatesRow(
        "no process", view.teardown.orphaned, f"{states} inode:0", "the process has closed the socket or has ended"
    )

    def column(priority: int, state: State) -> InlineColumn[FinalStatesRow]:
        def show(row: FinalStatesRow, cell: CellContext) -> Piece:
            return count_piece(row.counts[state] if has_inodes else None, cell)

        return InlineColumn(state.name, 10, show, priority=priority)

    def limit(row: FinalStatesRow, cell: CellContext) -> Piece:
        if row is owned:
            return "", cell.colours.plain
        near = (orphans.share or 0) > view.thresholds.orphans_share
        style = cell.colours.warning if near else limit_style(orphans.value, orphans.limit, cell.colours)
        return usage_text(orphans.value, orphans.limit, cell.exact), style if orphans.value else cell.colours.dim

    columns: Sequence[InlineColumn[FinalStatesRow]] = (
        InlineColumn("", 0, lambda row, cell: text_piece(row.name, cell), right=False),
        *(column(at, state) for at, state in enumerate(CLOSING_STATES)),
        InlineColumn("orphans/limit", 15, limit, priority=9),
    )
    return InlineTable(
        FINAL_STATES_TABLE,
        "Closing",
        (owned, unowned),
        lambda width: columns,
        identity=lambda row: row.name,
        filter=lambda row: row.filter if has_inodes else states,
        detail=lambda row, exact: f"{row.name}: {row.detail}",
        empty="",
    )
