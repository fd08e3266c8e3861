"""NewTransitions: the transitions that a View has and the previous View had not, with their connections."""

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
from tcpwatch.model.sockets.rows import COLUMNS, Rows
from tcpwatch.model.states import State
from tcpwatch.model.view import View

_FIELDS = ("time", "slack", "cookie", "old", "new", "origin", "kind", "reason")
_COLUMNS = ("local_address", "local_port", "remote_address", "remote_port", "process", "pid")
_SMALL = (State.TIME_WAIT, State.LISTEN, State.CLOSED)
"""States whose end is not the end of a full socket of a connection."""


@dataclass(frozen=True, slots=True, eq=False)
class NewTransitions:
    """New transitions in the order of time."""

    transitions: NDArray[np.void]
    """transitions.TRANSITION"""
    flow: NDArray[np.intp]
    """For each transition the index of its connection in `flows`."""
    flows: Rows
    ending: NDArray[np.uint8]
    """Ending of each transition; NOT_ENDED if the connection does not end with it, or has no record."""
    missed: int
    """Transitions that are new but not kept any more."""

    def __len__(self) -> int:
        return len(self.transitions)

    def rows(self, begin: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Yield (time, slack in s, cookie, old, new, origin, kind, reason, ending) and the columns of the connection.

        These are local address and port, remote address and port, process, pid. None if unknown.
        """
        transitions = self.transitions[begin:end]
        distinct, place = np.unique(self.flow[begin:end], return_inverse=True)
        flows = self.flows.take(distinct)
        unknown = (flows.table["idiag_family"] == 0).tolist()
        columns = [BY_KEY[key].values(flows) for key in _COLUMNS]
        shown = [(None,) * len(row) if blank else row for blank, *row in zip(unknown, *columns, strict=True)]
        fields = [transitions[name].tolist() for name in _FIELDS]
        for *facts, ending, at in zip(*fields, self.ending[begin:end].tolist(), place.tolist(), strict=True):
            yield (*facts, ending if ending != NOT_ENDED else None, *shown[at])


def _is_end(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Return which transitions are the end of a full socket."""
    ended = (rows["new"] == State.CLOSED) | ((rows["new"] == 0) & ~np.isin(rows["old"], _SMALL))
    is_end: NDArray[np.bool_] = ended & (rows["kind"] == TransitionKind.STATE)
    return is_end


def new_transitions(view: View, known: int, wanted: Filter | None = None) -> NewTransitions:
    """Return the transitions of `view.archive` after the first `known` ones that match the filter.

    The filter sees a connection in the new state, or in the old one if its socket vanished.
    """
    rows, missed = _fresh(view.archive, known)
    cookies, flow = np.unique(rows["cookie"], return_inverse=True)
    flows, ending_of_flow = _flows(view, cookies)
    ending = np.where(_is_end(rows), ending_of_flow[flow], np.uint8(NOT_ENDED))
    if wanted is not None:
        state = np.where(rows["new"] != 0, rows["new"], rows["old"])
        kept = wanted.mask(replace(flows.take(flow), state=state, ending=ending))
        rows, flow, ending = rows[kept], flow[kept], ending[kept]
    return NewTransitions(rows, flow, flows, ending, missed)


def _fresh(archive: Archive, known: int) -> tuple[NDArray[np.void], int]:
    """Return the rows after the first `known` ones, sorted by time, and how many of them are not kept any more."""
    left, parts = archive.transitions_total - known, []
    for chunk in reversed(archive.transitions):
        if left <= 0:
            break
        parts.append(chunk[max(0, len(chunk) - left) :])
        left -= len(parts[-1])
    rows = np.concatenate(parts[::-1]) if parts else np.empty(0, TRANSITION)
    return rows[np.argsort(rows["time"], kind="stable")], max(left, 0)


def _flows(view: View, cookies: NDArray[np.uint64]) -> tuple[Rows, NDArray[np.uint8]]:
    """Return a row per ascending cookie, and its ending if it has a record.

    The row is the present one, or else that of the previous poll, or else that of the record. Its family is 0 if there
    is none of them. Rows in TIME_WAIT get the owner of the record.
    """
    records = view.archive.last_records(cookies)
    blank = np.zeros(1, RECORD)
    blank["owner"] = UNKNOWN_NO_PROCESS
    recorded_rows = rows_from_records(view.archive, view.rows, records, blank)
    live, left = find_sorted(view.rows.cookie, cookies), find_sorted(view.closed.cookie, cookies)
    recorded = find_sorted(records["cookie"], cookies)
    joined = _joined([view.rows.take(live[live >= 0]), view.closed.take(left[left >= 0]), recorded_rows])
    first_left = np.count_nonzero(live >= 0)
    first_recorded = first_left + np.count_nonzero(left >= 0)
    at_record = first_recorded + np.where(recorded >= 0, recorded, len(records))
    at_left = np.where(left >= 0, first_left + _ranks(left), at_record)
    flows = joined.take(np.where(live >= 0, _ranks(live), at_left))
    ending = np.full(len(cookies), NOT_ENDED, np.uint8)
    ending[recorded >= 0] = records["ending"][recorded[recorded >= 0]]
    return with_recorded_owners(flows, view.archive, records), ending


def _ranks(place: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many places that are not NOT_FOUND stand before each one."""
    return np.cumsum(place >= 0) - 1


def _joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, with one list of owners."""
    owners: list[Owner] = []
    codes = []
    for part in parts:
        code = part.owner.copy()
        named = np.unique(code[code >= 0])
        code[part.owner >= 0] = len(owners) + np.searchsorted(named, code[part.owner >= 0])
        owners += [part.owners[at] for at in named.tolist()]
        codes.append(code)
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return replace(parts[0], **{**columns, "owner": np.concatenate(codes), "owners": owners})
