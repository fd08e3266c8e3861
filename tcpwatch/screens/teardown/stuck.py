"""The table of what is stuck on the path: connect()s without answer, and windows that are closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcpwatch.model.analyses.stalls import Closed, Stuck, Unread
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.ports import figure, words
from tcpwatch.screens.teardown.table import Column, Table
from tcpwatch.units import text

STUCK = "stuck"
"""Name of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """Sockets that are stuck in one way, toward one peer or in one process."""

    what: str
    who: str
    count: int
    how_long: str
    bytes: int | None
    filter: str
    detail: str


def stuck_table(view: View) -> Table[Row]:
    """What gets no answer, then what is not taken, then what is not read."""
    path = view.path
    columns: Sequence[Column[Row]] = (
        Column("", 15, lambda one, look: words(one.what, look), right=False),
        Column("", 0, lambda one, look: words(one.who, look), right=False, named=True),
        Column("sockets", 7, lambda one, look: figure(one.count, look), rank=1),
        Column("how long", 10, lambda one, look: words(one.how_long, look), rank=2),
        Column("bytes", 9, lambda one, look: words(text.size(one.bytes, look.exact), look), rank=3),
    )
    return Table(
        STUCK,
        "Stuck on the path",
        [*map(_stuck, path.stuck), *map(_closed, path.closed), *map(_unread, path.unread)],
        lambda width: columns,
        identity=lambda one: (one.what, one.who),
        filter=lambda one: one.filter,
        detail=lambda one, exact: f"{one.who}: {one.detail}",
        empty="Nothing: peers answer and take what they are sent.",
    )


def _stuck(one: Stuck) -> Row:
    times = f"{one.repeats} repeat{'s' * (one.repeats != 1)}"
    detail = "connect() gets no answer; the peer, or the path to it, is dead"
    return Row("no answer", one.remote, one.count, times, None, f"state:syn-sent {_to(one.remote)}", detail)


def _closed(one: Closed) -> Row:
    detail = "the peer's window is closed; it does not read what it was sent"
    where = _to(one.remote) if one.port_told else f"raddr:{one.remote}"
    return Row("window closed", one.remote, one.count, text.duration(one.longest_s), one.unsent, where, detail)


def _unread(one: Unread) -> Row:
    detail = "this process does not read; our window to its peers is closed"
    pid = one.owner.processes[0].pid
    return Row("does not read", one.process, one.count, text.UNKNOWN, one.unread, f"pid:{pid}", detail)


def _to(remote: str) -> str:
    host, _, port = remote.rpartition(":")
    return f"raddr:{host.strip('[]')} rport:{port}"
