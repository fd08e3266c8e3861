"""What a View tells that no View before it told: rows of its past, with the flows that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import find_sorted
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, Owner
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.closed_rows import rows_from_records, with_recorded_owners
from tcpwatch.model.lifecycle.ending import NOT_ENDED
from tcpwatch.model.lifecycle.transitions import TRANSITION, TransitionKind
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import State
from tcpwatch.model.view import View

_COLUMNS = ("local_address", "local_port", "remote_address", "remote_port", "process", "pid")
_SMALL = (State.TIME_WAIT, State.LISTEN, State.CLOSED)
"""States whose end is no flow's."""


@dataclass(frozen=True, slots=True, eq=False)
class NewTransitions:
    """New rows, in the order of time."""

    transitions: NDArray[np.void]
    """transitions.TRANSITION"""
    flow: NDArray[np.intp]
    """Of each row, its flow's place in `flows`."""
    flows: Rows
    ending: NDArray[np.uint8]
    """Of each row, model.ending.Ending; ALIVE where the flow does not end with it, or no record of its end is there."""
    missed: int
    """Rows that came and went since."""

    def __len__(self) -> int:
        return len(self.transitions)

    def rows(self, begin: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Of each: (time, slack in s, cookie, old, new, origin, what, reason, ending), then those of its flow.

        Those are local address and port, remote address and port, process, pid. None for what is not known.
        """
        told = self.transitions[begin:end]
        distinct, place = np.unique(self.flow[begin:end], return_inverse=True)
        flows = self.flows.take(distinct)
        unknown = (flows.table["idiag_family"] == 0).tolist()
        columns = [BY_KEY[key].values(flows) for key in _COLUMNS]
        about = [(None,) * len(columns) if none else row for none, *row in zip(unknown, *columns, strict=True)]
        fields = [told[name].tolist() for name in ("time", "slack", "cookie", "old", "new", "origin", "kind", "reason")]
        for *facts, over, at in zip(*fields, self.ending[begin:end].tolist(), place.tolist(), strict=True):
            yield (*facts, over if over != NOT_ENDED else None, *about[at])


def _ends(told: NDArray[np.void]) -> NDArray[np.bool_]:
    """The full socket ended with this."""
    over = (told["new"] == State.CLOSED) | ((told["new"] == 0) & ~np.isin(told["old"], _SMALL))
    ends: NDArray[np.bool_] = over & (told["kind"] == TransitionKind.STATE)
    return ends


def new_transitions(view: View, known: int, wanted: Filter | None = None) -> NewTransitions:
    """The rows of view.past.transitions that came after the first `known` ones, those that pass the filter.

    A flow's row has the state that it came into, or that it left where it has gone.
    """
    told, missed = _fresh(view.archive, known)
    cookies, flow = np.unique(told["cookie"], return_inverse=True)
    flows, ending_of = _flows(view, cookies)
    ending = np.where(_ends(told), ending_of[flow], np.uint8(NOT_ENDED))
    if wanted is not None:
        state = np.where(told["new"] != 0, told["new"], told["old"])
        kept = wanted.mask(replace(flows.take(flow), state=state, ending=ending))
        told, flow, ending = told[kept], flow[kept], ending[kept]
    return NewTransitions(told, flow, flows, ending, missed)


def _fresh(past: Archive, known: int) -> tuple[NDArray[np.void], int]:
    """The last rows, sorted by time; and how many of them are not kept any more."""
    left, parts = past.transitions_total - known, []
    for chunk in reversed(past.transitions):
        if left <= 0:
            break
        parts.append(chunk[max(0, len(chunk) - left) :])
        left -= len(parts[-1])
    rows = np.concatenate(parts[::-1]) if parts else np.empty(0, TRANSITION)
    return rows[np.argsort(rows["time"], kind="stable")], max(left, 0)


def _flows(view: View, cookies: NDArray[np.uint64]) -> tuple[Rows, NDArray[np.uint8]]:
    """The flow of each of these ascending cookies, and how it ended, where that is recorded.

    As it is in the table, else as it was when it left, else as its record has it; without a family where nothing knows
    it. TIME_WAIT has no owner: the record of its full socket tells whose it was.
    """
    records = view.archive.last_records(cookies)
    blank = np.zeros(1, RECORD)
    blank["owner"] = UNKNOWN_NO_PROCESS
    last = rows_from_records(view.archive, view.rows, records, blank)
    live, left = find_sorted(view.rows.cookie, cookies), find_sorted(view.closed.cookie, cookies)
    recorded = find_sorted(records["cookie"], cookies)
    joined = _joined([view.rows.take(live[live >= 0]), view.closed.take(left[left >= 0]), last])
    of_live, of_left = _counted(live), _counted(left)
    begin_left = np.count_nonzero(live >= 0)
    begin_last = begin_left + np.count_nonzero(left >= 0)
    of_record = np.where(recorded >= 0, recorded, len(records)) + begin_last
    flows = joined.take(np.where(live >= 0, of_live, np.where(left >= 0, of_left + begin_left, of_record)))
    ending = np.full(len(cookies), NOT_ENDED, np.uint8)
    ending[recorded >= 0] = records["ending"][recorded[recorded >= 0]]
    return with_recorded_owners(flows, view.archive, records), ending


def _counted(place: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of each that has a place, how many before it have one."""
    return np.cumsum(place >= 0) - 1


def _joined(parts: Sequence[Rows]) -> Rows:
    """These rows one after the other, with one list of owners."""
    owners: list[Owner] = []
    codes = []
    for part in parts:
        code = part.owner.copy()
        named = np.unique(code[code >= 0])
        code[part.owner >= 0] = len(owners) + np.searchsorted(named, code[part.owner >= 0])
        owners += [part.owners[at] for at in named.tolist()]
        codes.append(code)
    first = parts[0]
    names = ("table", "cookie", "state", "first_seen", "since", "begin_seen", "role", "closer", "mark")
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(first, owner=np.concatenate(codes), owners=owners, **columns)
