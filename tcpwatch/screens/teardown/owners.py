"""The tables of what does not end: CLOSE_WAIT and FIN_WAIT_2 by process, the last steps, and what is stuck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.style import Style

from tcpwatch import units
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS
from tcpwatch.model.analyses.teardown import CLOSING_STATES, ProcessCloseWaits, ProcessHalfClosed
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.ports import count_piece, text_piece
from tcpwatch.screens.teardown.table import InlineCellContext, InlineColumn, InlineTable
from tcpwatch.widgets.charts.meter import limit_style, usage_text
from tcpwatch.widgets.lines import Piece

CLOSE_WAIT, HALF_CLOSED, FINAL_STATES_TABLE = "close_wait", "half_closed", "last"
"""Names of the tables."""
_UNTOLD = "Not told by this source."


@dataclass(frozen=True, slots=True)
class UnownedRow:
    """Sockets of one state that are nobody's, as far as is seen."""

    kind: str
    name: str
    filter: str
    detail: str


def _others(
    view: View, state: State, known: Sequence[ProcessCloseWaits] | Sequence[ProcessHalfClosed], waiting: int
) -> list[UnownedRow]:
    """Those that are not accepted yet, and those whose owner is not seen."""
    told = view.sample.capabilities.inodes
    waiting = waiting if told else 0
    name = state.name.lower().replace("_", "-")
    found = []
    if waiting:
        why = "no process has accepted them: they wait in an accept queue"
        found.append(UnownedRow("not accepted", f"{units.count(waiting)} not accepted", f"state:{name} inode:0", why))
    of_nobody = view.teardown.orphaned.get(state, 0) if told else 0
    unseen = view.counts.get(state, 0) - sum(one.count for one in known) - waiting - of_nobody
    if unseen > 0:
        pids = ",".join(str(one.owner.processes[0].pid) for one in known)
        terms = [f"state:{name}", "-inode:0" if told else "", f"-pid:{pids}" if pids else ""]
        found.append(
            UnownedRow(
                "unknown owner",
                f"{units.count(unseen)} of unknown owner",
                " ".join(filter(None, terms)),
                _why(view, state),
            )
        )
    return found


def _why(view: View, state: State) -> str:
    """The commonest reason why the owner of such a socket is not known."""
    codes = view.rows.owner[(view.rows.state == state) & (view.rows.owner < UNKNOWN_NO_PROCESS)]
    return WHY_UNKNOWN[-int(np.bincount(-codes).argmax())].removeprefix("unknown: ") if len(codes) else "not told"


# CLOSE_WAIT --------------------------------------------------------------------------------------


def close_wait_table(view: View) -> InlineTable[ProcessCloseWaits | UnownedRow]:
    """One row a process, most first; then those that are no process's."""
    found, told = view.teardown.close_wait, view.sample.capabilities.queues
    near = view.thresholds.close_wait_descriptors_share

    def kind(
        count: Callable[[ProcessCloseWaits], int],
    ) -> Callable[[ProcessCloseWaits | UnownedRow, InlineCellContext], Piece]:
        return lambda one, look: count_piece(count(one) if isinstance(one, ProcessCloseWaits) and told else None, look)

    columns: Sequence[InlineColumn[ProcessCloseWaits | UnownedRow]] = (
        InlineColumn("", 0, lambda one, look: text_piece(_name(one), look), right=False, named=True),
        InlineColumn("EOF read", 8, kind(lambda one: one.eof_seen), priority=1),
        InlineColumn("EOF unread", 10, kind(lambda one: one.eof_pending), priority=2),
        InlineColumn("data unread", 11, kind(lambda one: one.data_pending), priority=3),
        InlineColumn("oldest", 9, lambda one, look: text_piece(_oldest(one), look), priority=5),
        InlineColumn("of fds", 6, lambda one, look: _of_descriptors(one, near, look), priority=4),
        InlineColumn("", 1, lambda one, look: ("▲" * _grows(one), look.colours.warning)),
    )
    return InlineTable(
        CLOSE_WAIT,
        f"CLOSE_WAIT: {units.count(view.counts[State.CLOSE_WAIT])}",
        [*found, *_others(view, State.CLOSE_WAIT, found, view.teardown.close_wait_unaccepted)],
        lambda width: columns,
        identity=_pid,
        filter=lambda one: one.filter if isinstance(one, UnownedRow) else f"state:close-wait pid:{_pid(one)}",
        detail=lambda one, exact: _close_wait_detail(one, told, exact),
        empty="None: every process closes what its peers have closed.",
    )


def _name(one: ProcessCloseWaits | ProcessHalfClosed | UnownedRow) -> str:
    return one.name if isinstance(one, UnownedRow) else one.process


def _pid(one: ProcessCloseWaits | ProcessHalfClosed | UnownedRow) -> int | str:
    return one.kind if isinstance(one, UnownedRow) else one.owner.processes[0].pid


def _oldest(one: ProcessCloseWaits | ProcessHalfClosed | UnownedRow) -> str:
    return units.UNKNOWN if isinstance(one, UnownedRow) else units.duration(one.oldest_s)


def _grows(one: ProcessCloseWaits | UnownedRow) -> bool:
    return isinstance(one, ProcessCloseWaits) and one.growing


def _of_descriptors(one: ProcessCloseWaits | UnownedRow, near: float, look: InlineCellContext) -> Piece:
    if isinstance(one, UnownedRow) or not one.limit:
        return text_piece(units.UNKNOWN, look)
    return text_piece(units.share(one.share), look, look.colours.warning if one.share >= near else None)


def _close_wait_detail(one: ProcessCloseWaits | UnownedRow, told: bool, exact: bool) -> str:
    if isinstance(one, UnownedRow):
        return f"{one.name}: {one.detail}"
    of = f" of {units.count(one.limit, exact)} descriptors" if one.limit else ""
    growing = ", growing for five minutes" if one.growing else ""
    kinds = (
        {"never closed": one.eof_seen, "EOF not read": one.eof_pending, "data unread": one.data_pending} if told else {}
    )
    most = max(kinds, key=lambda words: kinds[words], default="")
    return f"{one.process}: {units.count(one.count, exact)}{of}{growing}{f', {most}' if most else ''}"


# FIN_WAIT_2 --------------------------------------------------------------------------------------


def half_closed_table(view: View) -> InlineTable[ProcessHalfClosed | UnownedRow]:
    """One row a process that has shut its side down, and keeps the socket."""
    found, told = view.teardown.half_closed, view.sample.capabilities.inodes
    columns: Sequence[InlineColumn[ProcessHalfClosed | UnownedRow]] = (
        InlineColumn("", 0, lambda one, look: text_piece(_name(one), look), right=False, named=True),
        InlineColumn(
            "", 7, lambda one, look: count_piece(one.count if isinstance(one, ProcessHalfClosed) else None, look)
        ),
        InlineColumn("oldest", 9, lambda one, look: text_piece(_oldest(one), look, _old(one, look))),
    )
    return InlineTable(
        HALF_CLOSED,
        "FIN_WAIT_2 held",
        [*found, *_others(view, State.FIN_WAIT_2, found, 0)] if told else (),
        lambda width: columns,
        identity=_pid,
        filter=lambda one: one.filter if isinstance(one, UnownedRow) else f"state:fin-wait-2 pid:{_pid(one)}",
        detail=lambda one, exact: _half_closed_detail(one, view.thresholds.half_closed_age_s, exact),
        empty="None." if told else _UNTOLD,
    )


def _old(one: ProcessHalfClosed | UnownedRow, look: InlineCellContext) -> Style | None:
    return look.colours.warning if isinstance(one, ProcessHalfClosed) and one.old else None


def _half_closed_detail(one: ProcessHalfClosed | UnownedRow, old_s: float, exact: bool) -> str:
    if isinstance(one, UnownedRow):
        return f"{one.name}: {one.detail}"
    old = f", {units.count(one.old, exact)} for more than {units.duration(old_s)}" if one.old else ""
    return f"{one.process}: {units.count(one.count, exact)} shut down and not closed{old}"


# The last steps ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinalStatesRow:
    """The sockets on their last steps, with an owner or without."""

    name: str
    counts: Mapping[State, int]
    filter: str
    detail: str


def final_states_table(view: View) -> InlineTable[FinalStatesRow]:
    """FIN_WAIT_1, FIN_WAIT_2, LAST_ACK and CLOSING, with an owner and without, and the orphans."""
    told, orphans = view.sample.capabilities.inodes, view.orphans
    states = "state:" + ",".join(state.name.lower().replace("_", "-") for state in CLOSING_STATES)
    held = FinalStatesRow("with owner", view.teardown.owned, f"{states} -inode:0", "a process holds them still")
    alone = FinalStatesRow(
        "without owner", view.teardown.orphaned, f"{states} inode:0", "closed, or the process has gone"
    )

    def count(rank: int, state: State) -> InlineColumn[FinalStatesRow]:
        return InlineColumn(
            state.name, 10, lambda one, look: count_piece(one.counts[state] if told else None, look), priority=rank
        )

    def limit(one: FinalStatesRow, look: InlineCellContext) -> Piece:
        if one is held:
            return "", look.colours.plain
        near = (orphans.share or 0) > view.thresholds.orphans_share
        style = look.colours.warning if near else limit_style(orphans.value, orphans.limit, look.colours)
        return usage_text(orphans.value, orphans.limit, look.exact), style if orphans.value else look.colours.dim

    columns: Sequence[InlineColumn[FinalStatesRow]] = (
        InlineColumn("", 0, lambda one, look: text_piece(one.name, look), right=False),
        *(count(rank, state) for rank, state in enumerate(CLOSING_STATES)),
        InlineColumn("orphans/limit", 15, limit, priority=9),
    )
    return InlineTable(
        FINAL_STATES_TABLE,
        "Last steps",
        (held, alone),
        lambda width: columns,
        identity=lambda one: one.name,
        filter=lambda one: one.filter if told else states,
        detail=lambda one, exact: f"{one.name}: {one.detail}",
        empty="",
    )
