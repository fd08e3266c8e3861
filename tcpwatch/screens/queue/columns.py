"""Columns of the tables of queue members."""

from __future__ import annotations

from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.model.columns.socket_values import show_endpoint
from tcpwatch.model.listeners.queue_detail import QueueMembers
from tcpwatch.model.states import State
from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn


@dataclass(frozen=True, slots=True)
class QueueMember:
    """One connection in a queue."""

    cookie: int
    remote: tuple[str, int]
    age_s: float
    arrival_seen: bool
    unread: int
    """Bytes received and not read; the client's FIN counts as one."""
    client_closed: bool
    retransmits: int
    timer_s: float | None
    """Time until its timer expires."""


def queue_members(queue: QueueMembers) -> list[QueueMember]:
    """Return a record for each member, in the same order."""
    rows = queue.rows
    columns = (
        rows.cookie.tolist(),
        BY_KEY["remote"].values(rows),
        queue.age_s.tolist(),
        queue.arrival_seen.tolist(),
        BY_KEY["recv_queue"].values(rows),
        (rows.state == State.CLOSE_WAIT).tolist(),
        BY_KEY["retransmits"].values(rows),
        BY_KEY["timer_s"].values(rows),
    )
    return [QueueMember(*values) for values in zip(*columns, strict=True)]


def _age(one: QueueMember, look: CellContext, unless_seen: str) -> Line:
    return ((("" if one.arrival_seen else unless_seen) + units.duration(one.age_s), look.colours.plain),)


def _remote(one: QueueMember, look: CellContext) -> Line:
    return ((show_endpoint(one.remote, look.exact), look.colours.plain),)


def _unread(one: QueueMember, look: CellContext) -> Line:
    return ((units.size(one.unread, look.exact), look.colours.plain if one.unread else look.colours.dim),)


def _gave_up(one: QueueMember, look: CellContext) -> Line:
    return (("gave up" if one.client_closed else "", look.colours.warning),)


def _retries(one: QueueMember, look: CellContext) -> Line:
    return ((f"{one.retransmits}", look.colours.plain if one.retransmits else look.colours.dim),)


def _timer(one: QueueMember, look: CellContext) -> Line:
    return ((units.duration(one.timer_s), look.colours.dim if one.timer_s is None else look.colours.plain),)


_WAITS: RecordColumn[QueueMember] = RecordColumn(
    "age", "Waits", "Time waiting for accept(); ≥: it was waiting when tcpwatch started",
    lambda one, look: _age(one, look, "≥"), lambda one: one.age_s, 9, 2, 0, True)  # fmt: skip
_AGE: RecordColumn[QueueMember] = RecordColumn(
    "age", "Age", "Time since its SYN arrived; ~: estimated from retries and timer, as it is older than tcpwatch",
    lambda one, look: _age(one, look, "~"), lambda one: one.age_s, 9, 2, 0, True)  # fmt: skip
_CLIENT: RecordColumn[QueueMember] = RecordColumn(
    "remote", "Client", "Address and port of the client", _remote, lambda one: one.remote, 21, 26, 0
)

ACCEPT_COLUMNS = (
    _WAITS,
    _CLIENT,
    RecordColumn("unread", "Unread", "Bytes received and not read; the client's FIN counts as one", _unread,
                 lambda one: one.unread, 7, 3, 1, True),
    RecordColumn("gave_up", "", "The client has closed already (CLOSE_WAIT without a process)",
                 _gave_up, lambda one: one.client_closed, 7, 0, 2),
)  # fmt: skip
SYN_COLUMNS = (
    _AGE,
    _CLIENT,
    RecordColumn("repeats", "Retries", "SYN+ACKs retransmitted", _retries, lambda one: one.retransmits, 7, 0, 1,
                 True),
    RecordColumn("timer", "Next in", "Time until the SYN+ACK is retransmitted, or the connection given up", _timer,
                 lambda one: one.timer_s, 8, 0, 2, True),
)  # fmt: skip
