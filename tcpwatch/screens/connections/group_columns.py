"""The columns of the table of groups: sockets taken together by what they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache

from rich.cells import cell_len

from tcpwatch import units
from tcpwatch.model.query.groups import GroupField, GroupRow, SocketGroup
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.states import STATE_ORDER, State
from tcpwatch.screens.shared.state_marks import state_style
from tcpwatch.widgets.charts.bars import bar
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.table.record_columns import CellContext, RecordColumn

_FIGURE = 6
"""Cells for `0.02 %`, so that the bars beside the shares begin in one line."""
_NO_BAR_BELOW = 3


def _name(row: GroupRow, look: CellContext) -> Line:
    """Of a name that is a sentence the beginning tells most, of others both ends."""
    name, value = row.group.name if look.exact else _with_service(row), row.group.value
    if not row.group.filter:
        return ((fit(name, look.width).rstrip(), look.colours.dim),)
    return ((name, state_style(value, look.colours) if isinstance(value, State) else look.colours.plain),)


def _with_service(row: GroupRow) -> str:
    """Ports by their services' names, as the table of sockets has them."""
    value = row.group.value
    if isinstance(value, Endpoint) and value.port is not None:
        return units.endpoint(value.address, units.service(value.port))
    if row.by is GroupField.LOCAL_PORT and isinstance(value, int):
        return units.service(value)
    return row.group.name


def _of_name(row: GroupRow) -> list[str | int]:
    """Numbers in it by their size, 9 before 10; states by the order of a connection's life."""
    value = row.group.value
    if isinstance(value, State):
        return ["", STATE_ORDER.index(value)]
    parts = re.split(r"(\d+)", row.group.name.casefold(), flags=re.ASCII)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _share(row: GroupRow, look: CellContext) -> Line:
    """`62 % ██████▏`: the bar where there is room for it."""
    figure, length = units.share(row.share).rjust(_FIGURE), look.width - _FIGURE - 1
    if length < _NO_BAR_BELOW:
        return ((figure, look.colours.plain),)
    return ((figure + " ", look.colours.plain), (bar(row.share, length), look.colours.plain))


def _count(number: Callable[[SocketGroup], int]) -> Callable[[GroupRow, CellContext], Line]:
    def draw(row: GroupRow, look: CellContext) -> Line:
        value = number(row.group)
        shown = units.count(value, look.exact)
        if cell_len(shown) > look.width:
            shown = shown.replace(",", "")
        return ((shown, look.colours.plain if value else look.colours.dim),)

    return draw


def _size(number: Callable[[SocketGroup], float | None]) -> Callable[[GroupRow, CellContext], Line]:
    def draw(row: GroupRow, look: CellContext) -> Line:
        value = number(row.group)
        return ((units.size(value, look.exact), look.colours.plain if value else look.colours.dim),)

    return draw


def _repeated(row: GroupRow, look: CellContext) -> Line:
    per_s = row.group.retransmits_per_s
    moves = per_s is not None and per_s >= 0.05
    return ((units.rate(per_s), look.colours.warning if moves else look.colours.dim),)


GroupColumns = tuple[RecordColumn[GroupRow], ...]

SOCKETS: RecordColumn[GroupRow] = RecordColumn(
    "sockets", "Sockets", "How many sockets share it", _count(lambda one: one.sockets),
    lambda row: row.group.sockets, 7, 6, 1, True)  # fmt: skip
ALL_COLUMNS: GroupColumns = (
    RecordColumn("name", "Group", "What its sockets share", _name, _of_name, 16, 54, 0),
    SOCKETS,
    RecordColumn("share", "Share", "Of the sockets that are grouped", _share, lambda row: row.group.sockets, 6, 20, 9),
    RecordColumn("established", "Estab", "Those of them that are ESTABLISHED", _count(lambda one: one.established),
                 lambda row: row.group.established, 7, 6, 3, True),
    RecordColumn("rx_bytes_per_s", "Rx/s", "Bytes received per second by those of which it is known; –: of none yet",
                 _size(lambda one: one.rx_per_s), lambda row: row.group.rx_per_s, 6, 7, 2, True),
    RecordColumn("tx_bytes_per_s", "Tx/s", "Bytes per second that the peers have acknowledged, likewise",
                 _size(lambda one: one.tx_per_s), lambda row: row.group.tx_per_s, 6, 7, 2, True),
    RecordColumn("retransmits_total", "Retr/s", "Segments repeated per second, likewise", _repeated,
                 lambda row: row.group.retransmits_per_s, 6, 2, 5, True),
    RecordColumn("recv_queue", "Unread", "Bytes that the applications have not read (Recv-Q), listeners left out",
                 _size(lambda one: one.recv_queue), lambda row: row.group.recv_queue, 6, 7, 4, True),
    RecordColumn("send_queue", "Unsent", "Bytes that the peers have not acknowledged (Send-Q), listeners left out",
                 _size(lambda one: one.send_queue), lambda row: row.group.send_queue, 6, 7, 4, True),
)  # fmt: skip
"""Those that a socket has too have its column's key, which tells whether a source can tell them."""


def columns_for(by: GroupField, untold: Collection[str] = ()) -> GroupColumns:
    """The columns of such groups; without those `untold` by the source. The same objects each time."""
    return _columns(by, frozenset(untold))


@cache
def _columns(by: GroupField, untold: frozenset[str]) -> GroupColumns:
    name, *others = (column for column in ALL_COLUMNS if column.key not in untold)
    return replace(name, title=by.value.capitalize()), *others
