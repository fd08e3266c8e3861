"""The columns of the table of groups of sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache

from tcpwatch import units
from tcpwatch.model.query.groups import GroupField, SocketGroup
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.screens.shared.state_marks import state_style
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn, without_commas

_FIGURE = 6
"""Cells for `0.02 %`, so that the bars beside the shares are aligned."""
_NO_BAR_BELOW = 3


def _name(row: SocketGroup, look: CellContext) -> Line:
    """Return the name; a group without a filter has a phrase for a name, which is cut at its end."""
    name, value = row.name if look.exact else _with_service(row), row.value
    if not row.filter:
        return ((fit(name, look.width).rstrip(), look.colours.dim),)
    return ((name, state_style(value, look.colours) if isinstance(value, State) else look.colours.plain),)


def _with_service(row: SocketGroup) -> str:
    """Return the name with services instead of port numbers, like the table of sockets."""
    value = row.value
    if isinstance(value, Endpoint) and value.port is not None:
        return units.endpoint(value.address, units.service(value.port))
    if row.by is GroupField.LOCAL_PORT and isinstance(value, int):
        return units.service(value)
    return row.name


def _of_name(row: SocketGroup) -> list[str | int]:
    """Return the sort key: numbers by their value, states in the order of a connection."""
    value = row.value
    if isinstance(value, State):
        return ["", STATE_ORDER.index(value)]
    parts = re.split(r"(\d+)", row.name.casefold(), flags=re.ASCII)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _share(row: SocketGroup, look: CellContext) -> Line:
    """Return `62 % ██████▏`, without the bar if there is no room."""
    figure, length = units.share(row.share).rjust(_FIGURE), look.width - _FIGURE - 1
    if length < _NO_BAR_BELOW:
        return ((figure, look.colours.plain),)
    return ((figure + " ", look.colours.plain), (units.bar(row.share, length), look.colours.plain))


def _count(number: Callable[[SocketGroup], int]) -> Callable[[SocketGroup, CellContext], Line]:
    def draw(row: SocketGroup, look: CellContext) -> Line:
        value = number(row)
        shown = without_commas(units.count(value, look.exact), look.width)
        return ((shown, look.colours.plain if value else look.colours.dim),)

    return draw


def _size(number: Callable[[SocketGroup], float | None]) -> Callable[[SocketGroup, CellContext], Line]:
    def draw(row: SocketGroup, look: CellContext) -> Line:
        value = number(row)
        return ((units.size(value, look.exact), look.colours.plain if value else look.colours.dim),)

    return draw


def _repeated(row: SocketGroup, look: CellContext) -> Line:
    per_s = row.retransmits_per_s
    moves = per_s is not None and per_s >= 0.05
    return ((units.rate(per_s), look.colours.warning if moves else look.colours.dim),)


GroupColumns = tuple[RecordColumn[SocketGroup], ...]

SOCKETS: RecordColumn[SocketGroup] = RecordColumn(
    "sockets", "Sockets", "Number of sockets in the group", _count(lambda group: group.sockets),
    lambda row: row.sockets, 7, 6, 1, True)  # fmt: skip
ALL_COLUMNS: GroupColumns = (
    RecordColumn("name", "Group", "Value that its sockets share", _name, _of_name, 16, 54, 0),
    SOCKETS,
    RecordColumn("share", "Share", "Share of all grouped sockets", _share, lambda row: row.sockets, 6, 20, 9),
    RecordColumn("established", "Estab", "Number of them in ESTABLISHED", _count(lambda group: group.established),
                 lambda row: row.established, 7, 6, 3, True),
    RecordColumn("rx_bytes_per_s", "Rx/s", "Bytes received per second, as far as known; –: unknown",
                 _size(lambda group: group.rx_per_s), lambda row: row.rx_per_s, 6, 7, 2, True),
    RecordColumn("tx_bytes_per_s", "Tx/s", "Bytes acknowledged by the peers per second, as far as known",
                 _size(lambda group: group.tx_per_s), lambda row: row.tx_per_s, 6, 7, 2, True),
    RecordColumn("retransmits_total", "Retr/s", "Segments retransmitted per second, without SYNs, as far as known",
                 _repeated, lambda row: row.retransmits_per_s, 6, 2, 5, True),
    RecordColumn("recv_queue", "Unread", "Bytes not read by the applications (Recv-Q), without listeners",
                 _size(lambda group: group.recv_queue), lambda row: row.recv_queue, 6, 7, 4, True),
    RecordColumn("send_queue", "Unsent", "Bytes not acknowledged by the peers (Send-Q), without listeners",
                 _size(lambda group: group.send_queue), lambda row: row.send_queue, 6, 7, 4, True),
)  # fmt: skip
"""A column that sockets have too has the same key, by which a source says whether it supports it."""


def columns_for(by: GroupField, unsupported: Collection[str] = ()) -> GroupColumns:
    """Return the columns for this grouping without the `unsupported` ones; the same objects each time."""
    return _columns(by, frozenset(unsupported))


@cache
def _columns(by: GroupField, unsupported: frozenset[str]) -> GroupColumns:
    name, *others = (column for column in ALL_COLUMNS if column.key not in unsupported)
    return replace(name, title=by.value.capitalize()), *others
