"""Tables of ports: ephemeral ports by destination, and TIME_WAIT by destination and by port."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.style import Style

from tcpwatch import units
from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.table import InlineColumn, InlineTable
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.record_columns import CellContext

EPHEMERAL_PORTS, TIME_WAIT_DESTINATIONS, TIME_WAIT_PORTS = "ports", "to", "at"
"""Names of the tables."""
WIDE = 120
_LONG_NAMES_FROM = 84
"""Smallest width of the table of ephemeral ports with room for any IPv4 address and port."""
_INDENT = "   "


def count_piece(value: float | None, cell: CellContext, style: Style | None = None) -> Piece:
    """Return a count; dim if it is 0 or unknown."""
    shown = units.count(value, cell.exact)
    return shown, cell.colours.dim if not value else style or cell.colours.plain


def text_piece(shown: str, cell: CellContext, style: Style | None = None) -> Piece:
    """Return a name, a duration or a share; dim if it is unknown."""
    return shown, cell.colours.dim if shown == units.UNKNOWN else style or cell.colours.plain


# Ephemeral ports ---------------------------------------------------------------------------------


def ephemeral_ports_table(view: View) -> InlineTable[Destination]:
    """Return a row per destination, the fullest first."""
    destinations = view.ephemeral_ports.destinations if view.ephemeral_ports else ()
    has_v6 = any(":" in destination.remote_address for destination in destinations)
    return InlineTable(
        EPHEMERAL_PORTS,
        "Ephemeral ports",
        destinations,
        lambda width: _ports_columns(view, width, has_v6),
        identity=_identity,
        filter=destination_filter,
        detail=_ports_detail,
        empty="No connection uses a port of this range." if view.ephemeral_ports else "",
    )


def _identity(row: Destination) -> tuple[str, str, int, str]:
    return row.local_address, row.remote_address, row.remote_port, row.interface


def _ports_columns(view: View, width: int, has_v6: bool) -> Sequence[InlineColumn[Destination]]:
    has_timers = view.sample.capabilities.timers
    wide = width >= WIDE
    remote, local = (30, 24) if has_v6 and wide else (21 if width >= _LONG_NAMES_FROM else 18, 15)
    style = _level_style(view)
    columns: list[InlineColumn[Destination]] = [
        InlineColumn("", remote, lambda row, cell: text_piece(row.remote, cell), right=False, named=True),
        InlineColumn("", 0, lambda row, cell: (units.bar(row.share, cell.width), style(row, cell)), right=False),
        InlineColumn("" if wide else "used", 6, lambda row, cell: text_piece(units.share(row.share), cell)),
        InlineColumn("left", 7 if wide else 6,
                     lambda row, cell: (_left(row, cell.exact, cell.width), style(row, cell)), priority=1),
        InlineColumn("TIME_WAIT", 9, lambda row, cell: count_piece(row.time_wait, cell), priority=3),
        InlineColumn("reusable", 8, lambda row, cell: count_piece(row.reusable, cell), priority=4),
        InlineColumn("next free in" if wide else "next free", 12 if wide else 9,
                     lambda row, cell: text_piece(_next_free_in(row, has_timers), cell)),
        InlineColumn("runs out in" if wide else "runs out", 11 if wide else 9,
                     lambda row, cell: text_piece(_runs_out_in(row), cell, style(row, cell)), priority=2),
    ]  # fmt: skip
    if not wide:
        return columns
    return [
        columns[0],
        InlineColumn("from", local, lambda row, cell: text_piece(row.local_address, cell), right=False, named=True,
                     priority=6),
        columns[1],
        InlineColumn("used", 7, lambda row, cell: count_piece(row.used, cell), priority=7),
        *columns[2:],
        InlineColumn("process", 20, lambda row, cell: text_piece(row.process or units.UNKNOWN, cell), right=False,
                     named=True, priority=5),
    ]  # fmt: skip


def _level_style(view: View) -> Callable[[Destination, CellContext], Style]:
    """Return a function that gives red if no port is left, and yellow from the warning level of the rule."""

    def style(row: Destination, cell: CellContext) -> Style:
        if not row.free or row.failed:
            return cell.colours.alarm
        return cell.colours.warning if row.share >= view.thresholds.ports_share else cell.colours.plain

    return style


def _left(row: Destination, exact: bool, width: int) -> str:
    """Return `12`, or `≤12` if fewer may be left, or `≤12345` if there is no room for `≤12,345`."""
    text = f"{'' if row.exact else '≤'}{units.count(row.free, exact)}"
    return text if len(text) <= width else text.replace(",", "")


def _next_free_in(row: Destination, has_timers: bool) -> str:
    if row.next_free_s is None or not has_timers:
        return units.UNKNOWN
    if not row.next_free_s:
        return "due"  # its timer has expired; the kernel removes it within some seconds
    return units.duration(row.next_free_s) if row.next_free_s < 59.5 else f"{row.next_free_s:.0f} s"


def _runs_out_in(row: Destination) -> str:
    return units.duration(row.runs_out_in_s) if row.free else "now"


def destination_filter(row: Destination) -> str:
    """Return the filter of its connections."""
    return f"raddr:{row.remote_address} rport:{row.remote_port} laddr:{row.local_address}"


def _ports_detail(row: Destination, exact: bool) -> str:
    used, usable = units.count(row.used, exact), units.count(row.usable, exact)
    process = f", most by {row.process}" if row.process else ", no process"
    bounds = "" if row.exact else f", {units.count(row.free_least, exact)} to {units.count(row.free, exact)} left"
    device = f" on {row.interface}" if row.interface else ""
    return f"{row.local_address} → {row.remote}{device}: {used} of {usable} ports{bounds}{process}"


def range_line(ports: EphemeralPorts | None, reuse: int | None, width: int, colours: Palette) -> Line:
    """Return the ports that connect() may use, and a warning if programs call bind() before connect()."""
    if ports is None:
        return ((f"{_INDENT}ip_local_port_range is unknown.", colours.dim),)
    span = ports.range
    head = f"{span.low}–{span.high}: {units.count(span.usable)} usable"
    reserved, held = units.count(span.reserved), units.count(span.held)
    if ports.chosen_by_bind:
        head += f", {units.count(span.size - ports.occupied)} unused"
    full = f"{head}, {reserved} reserved, {held} held by bind()"
    destinations = f" · {units.plural(ports.count, 'destination')}"
    mode = f" · tcp_tw_reuse {_REUSE.get(reuse, reuse)}" if reuse is not None else ""
    warnings = ("", "") if not ports.bound_before_connect else (
        " △ programs bind() before connect(): each port serves only one destination", " △ bind() before connect()",
    )  # fmt: skip
    texts = [full + destinations + mode, full + destinations, full, f"{head} ({reserved} reserved, {held} bound)", head]
    room = width - len(_INDENT) - 1
    fitting = ((text, warning) for warning in warnings for text in texts if len(text + warning) <= room)
    text, warning = next(fitting, (head, warnings[1]))
    return ((_INDENT + text, colours.plain), (warning, colours.warning))


_REUSE = {0: "off", 1: "on", 2: "on loopback"}


# TIME_WAIT ---------------------------------------------------------------------------------------


def time_wait_destinations_table(view: View) -> InlineTable[Destination]:
    """Return TIME_WAIT sockets of the client side, by destination."""
    destinations = view.ephemeral_ports.destinations if view.ephemeral_ports else ()
    shown = sorted((row for row in destinations if _waits(row)), key=lambda row: -_waits(row))
    largest = max(map(_waits, shown), default=1)
    columns: Sequence[InlineColumn[Destination]] = (
        InlineColumn("", 32, lambda row, cell: text_piece(row.remote, cell), right=False, named=True),
        InlineColumn(
            "", 0, lambda row, cell: (units.bar(_waits(row) / largest, cell.width), cell.colours.teardown), right=False
        ),
        InlineColumn("TIME_WAIT", 9, lambda row, cell: count_piece(_waits(row), cell)),
        InlineColumn("reusable", 8, lambda row, cell: count_piece(row.reusable, cell)),
    )
    return InlineTable(
        TIME_WAIT_DESTINATIONS,
        "Client side, by destination",
        shown,
        lambda width: columns,
        identity=_identity,
        filter=lambda row: f"state:time-wait {destination_filter(row)}",
        detail=_time_wait_detail,
        empty="No TIME_WAIT socket holds an ephemeral port." if view.ephemeral_ports else "Unknown.",
    )


def _waits(row: Destination) -> int:
    return row.time_wait + row.reusable


def _time_wait_detail(row: Destination, exact: bool) -> str:
    count, reusable = units.count(_waits(row), exact), units.count(row.reusable, exact)
    return f"{row.local_address} → {row.remote}: {count} TIME_WAIT, {reusable} reusable"


def time_wait_ports_table(view: View) -> InlineTable[tuple[int, int]]:
    """Return TIME_WAIT sockets of the server side, by port."""
    counts = view.teardown.time_wait.by_port
    ports = {port for port, _ in counts}
    listeners = view.listeners_whose_key(lambda key: key.port in ports) if ports else ()
    processes = {listener.local_port: listener.process for listener in listeners if listener.process}
    largest = max((count for _, count in counts), default=1)

    def named(port: int) -> str:
        return f":{port} {processes.get(port, '')}".rstrip()

    def columns(width: int) -> Sequence[InlineColumn[tuple[int, int]]]:
        return (
            InlineColumn("", 24 if width < 50 else 32, lambda row, cell: text_piece(named(row[0]), cell), right=False),
            InlineColumn(
                "", 0, lambda row, cell: (units.bar(row[1] / largest, cell.width), cell.colours.teardown), right=False
            ),
            InlineColumn(
                "" if width < 50 else "TIME_WAIT", 7 if width < 50 else 9, lambda row, cell: count_piece(row[1], cell)
            ),
        )

    return InlineTable(
        TIME_WAIT_PORTS,
        "Server side, by port",
        counts,
        columns,
        identity=lambda row: row[0],
        filter=lambda row: f"state:time-wait lport:{row[0]}",
        detail=lambda row, exact: f"{named(row[0])}: {units.count(row[1], exact)} TIME_WAIT, memory only",
        empty="None.",
    )
