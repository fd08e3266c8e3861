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


def _age(member: QueueMember, look: CellContext, unless_seen: str) -> Line:
    return ((("" if member.arrival_seen else unless_seen) + units.duration(member.age_s), look.colours.plain),)


def _remote(member: QueueMember, look: CellContext) -> Line:
    return ((show_endpoint(member.remote, look.exact), look.colours.plain),)


def _unread(member: QueueMember, look: CellContext) -> Line:
    return ((units.size(member.unread, look.exact), look.colours.plain if member.unread else look.colours.dim),)


def _closed(member: QueueMember, look: CellContext) -> Line:
    return (("client closed" if member.client_closed else "", look.colours.warning),)


def _retries(member: QueueMember, look: CellContext) -> Line:
    return ((f"{member.retransmits}", look.colours.plain if member.retransmits else look.colours.dim),)


def _timer(member: QueueMember, look: CellContext) -> Line:
    return ((units.duration(member.timer_s), look.colours.dim if member.timer_s is None else look.colours.plain),)


_WAITS: RecordColumn[QueueMember] = RecordColumn(
    "age", "Waits", "Time waiting for accept(); ≥: it was waiting when tcpwatch started",
    lambda member, look: _age(member, look, "≥"), lambda member: member.age_s, 9, 2, 0, True)  # fmt: skip
_AGE: RecordColumn[QueueMember] = RecordColumn(
    "age", "Age", "Time since its SYN arrived; ~: estimated from retries and timer, as it is older than tcpwatch",
    lambda member, look: _age(member, look, "~"), lambda member: member.age_s, 9, 2, 0, True)  # fmt: skip
_CLIENT: RecordColumn[QueueMember] = RecordColumn(
    "remote", "Client", "Address and port of the client", _remote, lambda member: member.remote, 21, 26, 0
)

ACCEPT_COLUMNS = (
    _WAITS,
    _CLIENT,
    RecordColumn("unread", "Unread", "Bytes received and not read; the client's FIN counts as one", _unread,
                 lambda member: member.unread, 7, 3, 1, True),
    RecordColumn("gave_up", "", "The client has closed already (CLOSE_WAIT without a process)",
                 _closed, lambda member: member.client_closed, 13, 0, 2),
)  # fmt: skip
SYN_COLUMNS = (
    _AGE,
    _CLIENT,
    RecordColumn("repeats", "Retries", "SYN+ACKs retransmitted", _retries, lambda member: member.retransmits, 7, 0, 1,
                 True),
    RecordColumn("timer", "Next in", "Time until the SYN+ACK is retransmitted, or the connection dropped", _timer,
                 lambda member: member.timer_s, 8, 0, 2, True),
)  # fmt: skip
