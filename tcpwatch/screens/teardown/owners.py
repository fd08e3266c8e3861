"""The tables of what does not end: CLOSE_WAIT and FIN_WAIT_2 by process, the last steps, and what is stuck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.style import Style

from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS
from tcpwatch.model.analyses.teardown import ENDING, CloseWaits, HalfClosed
from tcpwatch.model.columns.columns import untold
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.screens.shared.meters import figure_of, level
from tcpwatch.screens.teardown.ports import figure, words
from tcpwatch.screens.teardown.table import Column, Look, Table
from tcpwatch.units import text
from tcpwatch.widgets.lines import Piece

CLOSE_WAIT, HALF_CLOSED, LAST = "close_wait", "half_closed", "last"
"""Names of the tables."""
_UNTOLD = "Not told by this source."


@dataclass(frozen=True, slots=True)
class Others:
    """Sockets of one state that are nobody's, as far as is seen."""

    name: str
    filter: str
    detail: str


def _others(view: View, state: State, known: Sequence[CloseWaits] | Sequence[HalfClosed], waiting: int) -> list[Others]:
    """Those that are not accepted yet, and those whose owner is not seen."""
    told = "inode" not in untold(view.sample.source.kind)
    waiting = waiting if told else 0
    name = state.name.lower().replace("_", "-")
    found = []
    if waiting:
        why = "no process has accepted them: they wait in an accept queue"
        found.append(Others(f"{text.count(waiting)} not accepted", f"state:{name} inode:0", why))
    of_nobody = view.teardown.orphaned.get(state, 0) if told else 0
    unseen = view.counts.get(state, 0) - sum(one.count for one in known) - waiting - of_nobody
    if unseen > 0:
        pids = ",".join(str(one.owner.processes[0].pid) for one in known)
        terms = [f"state:{name}", "-inode:0" if told else "", f"-pid:{pids}" if pids else ""]
        found.append(Others(f"{text.count(unseen)} of unknown owner", " ".join(filter(None, terms)), _why(view, state)))
    return found


def _why(view: View, state: State) -> str:
    """The commonest reason why the owner of such a socket is not known."""
    codes = view.rows.owner[(view.rows.state == state) & (view.rows.owner < UNKNOWN_NO_PROCESS)]
    return WHY_UNKNOWN[-int(np.bincount(-codes).argmax())].removeprefix("unknown: ") if len(codes) else "not told"


# CLOSE_WAIT --------------------------------------------------------------------------------------


def close_wait_table(view: View) -> Table[CloseWaits | Others]:
    """One row a process, most first; then those that are no process's."""
    found, told = view.teardown.close_wait, "recv_queue" not in untold(view.sample.source.kind)
    near = view.thresholds.close_wait_descriptors_share

    def kind(count: Callable[[CloseWaits], int]) -> Callable[[CloseWaits | Others, Look], Piece]:
        return lambda one, look: figure(count(one) if isinstance(one, CloseWaits) and told else None, look)

    columns: Sequence[Column[CloseWaits | Others]] = (
        Column("", 0, lambda one, look: words(_name(one), look), right=False, named=True),
        Column("EOF read", 8, kind(lambda one: one.leaked), rank=1),
        Column("EOF unread", 10, kind(lambda one: one.stuck), rank=2),
        Column("data unread", 11, kind(lambda one: one.unread), rank=3),
        Column("oldest", 9, lambda one, look: words(_oldest(one), look), rank=5),
        Column("of fds", 6, lambda one, look: _of_descriptors(one, near, look), rank=4),
        Column("", 1, lambda one, look: ("▲" * _grows(one), look.colours.warning)),
    )
    return Table(
        CLOSE_WAIT,
        f"CLOSE_WAIT: {text.count(view.counts[State.CLOSE_WAIT])}",
        [*found, *_others(view, State.CLOSE_WAIT, found, view.teardown.close_wait_waiting)],
        lambda width: columns,
        identity=_pid,
        filter=lambda one: one.filter if isinstance(one, Others) else f"state:close-wait pid:{_pid(one)}",
        detail=lambda one, exact: _close_wait_detail(one, told, exact),
        empty="None: every process closes what its peers have closed.",
    )


def _name(one: CloseWaits | HalfClosed | Others) -> str:
    return one.name if isinstance(one, Others) else one.process


def _pid(one: CloseWaits | HalfClosed | Others) -> int | str:
    return one.filter.partition(" -pid")[0] if isinstance(one, Others) else one.owner.processes[0].pid


def _oldest(one: CloseWaits | HalfClosed | Others) -> str:
    return text.UNKNOWN if isinstance(one, Others) else text.duration(one.oldest_s)


def _grows(one: CloseWaits | Others) -> bool:
    return isinstance(one, CloseWaits) and one.growing


def _of_descriptors(one: CloseWaits | Others, near: float, look: Look) -> Piece:
    if isinstance(one, Others) or not one.limit:
        return words(text.UNKNOWN, look)
    return words(text.share(one.share), look, look.colours.warning if one.share >= near else None)


def _close_wait_detail(one: CloseWaits | Others, told: bool, exact: bool) -> str:
    if isinstance(one, Others):
        return f"{one.name}: {one.detail}"
    of = f" of {text.count(one.limit, exact)} descriptors" if one.limit else ""
    growing = ", growing for five minutes" if one.growing else ""
    kinds = {"never closed": one.leaked, "EOF not read": one.stuck, "data unread": one.unread} if told else {}
    most = max(kinds, key=lambda words: kinds[words], default="")
    return f"{one.process}: {text.count(one.count, exact)}{of}{growing}{f', {most}' if most else ''}"


# FIN_WAIT_2 --------------------------------------------------------------------------------------


def half_closed_table(view: View) -> Table[HalfClosed | Others]:
    """One row a process that has shut its side down, and keeps the socket."""
    found, told = view.teardown.half_closed, "inode" not in untold(view.sample.source.kind)
    columns: Sequence[Column[HalfClosed | Others]] = (
        Column("", 0, lambda one, look: words(_name(one), look), right=False, named=True),
        Column("", 7, lambda one, look: figure(one.count if isinstance(one, HalfClosed) else None, look)),
        Column("oldest", 9, lambda one, look: words(_oldest(one), look, _old(one, look))),
    )
    return Table(
        HALF_CLOSED,
        "FIN_WAIT_2 held",
        [*found, *_others(view, State.FIN_WAIT_2, found, 0)] if told else (),
        lambda width: columns,
        identity=_pid,
        filter=lambda one: one.filter if isinstance(one, Others) else f"state:fin-wait-2 pid:{_pid(one)}",
        detail=lambda one, exact: _half_closed_detail(one, view.thresholds.half_closed_age_s, exact),
        empty="None." if told else _UNTOLD,
    )


def _old(one: HalfClosed | Others, look: Look) -> Style | None:
    return look.colours.warning if isinstance(one, HalfClosed) and one.old else None


def _half_closed_detail(one: HalfClosed | Others, old_s: float, exact: bool) -> str:
    if isinstance(one, Others):
        return f"{one.name}: {one.detail}"
    old = f", {text.count(one.old, exact)} for more than {text.duration(old_s)}" if one.old else ""
    return f"{one.process}: {text.count(one.count, exact)} shut down and not closed{old}"


# The last steps ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """The sockets on their last steps, with an owner or without."""

    name: str
    counts: Mapping[State, int]
    filter: str
    detail: str


def last_table(view: View) -> Table[Ending]:
    """FIN_WAIT_1, FIN_WAIT_2, LAST_ACK and CLOSING, with an owner and without, and the orphans."""
    told, orphans = "inode" not in untold(view.sample.source.kind), view.orphans
    states = "state:" + ",".join(state.name.lower().replace("_", "-") for state in ENDING)
    held = Ending("with owner", view.teardown.owned, f"{states} -inode:0", "a process holds them still")
    alone = Ending("without owner", view.teardown.orphaned, f"{states} inode:0", "closed, or the process has gone")

    def count(rank: int, state: State) -> Column[Ending]:
        return Column(state.name, 10, lambda one, look: figure(one.counts[state] if told else None, look), rank=rank)

    def limit(one: Ending, look: Look) -> Piece:
        if one is held:
            return "", look.colours.plain
        near = (orphans.share or 0) > view.thresholds.orphans_share
        style = look.colours.warning if near else level(orphans.value, orphans.limit, look.colours)
        return figure_of(orphans.value, orphans.limit, look.exact), style if orphans.value else look.colours.dim

    columns: Sequence[Column[Ending]] = (
        Column("", 0, lambda one, look: words(one.name, look), right=False),
        *(count(rank, state) for rank, state in enumerate(ENDING)),
        Column("orphans/limit", 15, limit, rank=9),
    )
    return Table(
        LAST,
        "Last steps",
        (held, alone),
        lambda width: columns,
        identity=lambda one: one.name,
        filter=lambda one: one.filter if told else states,
        detail=lambda one, exact: f"{one.name}: {one.detail}",
        empty="",
    )
