"""The tables of ports: ephemeral ports by destination, and TIME_WAIT by destination and by port."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.style import Style

from tcpwatch import units
from tcpwatch.model.analyses.ephemeral_ports import Destination, EphemeralPorts
from tcpwatch.model.view import View
from tcpwatch.screens.teardown.table import InlineCellContext, InlineColumn, InlineTable
from tcpwatch.widgets.charts.bars import bar
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette

EPHEMERAL_PORTS, TIME_WAIT_DESTINATIONS, TIME_WAIT_PORTS = "ports", "to", "at"
"""Names of the tables."""
WIDE = 120
_INDENT = "   "


def count_piece(value: float | None, look: InlineCellContext, style: Style | None = None) -> Piece:
    """A count; dim where it is nothing, or not known."""
    shown = units.count(value, look.exact)
    return shown, look.colours.dim if not value else style or look.colours.plain


def text_piece(shown: str, look: InlineCellContext, style: Style | None = None) -> Piece:
    """A name, a duration or a share; dim where it is not known."""
    return shown, look.colours.dim if shown == units.UNKNOWN else style or look.colours.plain


# Ephemeral ports ---------------------------------------------------------------------------------


def ephemeral_ports_table(view: View) -> InlineTable[Destination]:
    """One row a destination, the fullest first."""
    found = view.ephemeral_ports.destinations if view.ephemeral_ports else ()
    six = any(":" in one.remote_address for one in found)
    return InlineTable(
        EPHEMERAL_PORTS,
        "Ephemeral ports",
        found,
        lambda width: _ports_columns(view, width, six),
        identity=lambda one: (one.local_address, one.remote_address, one.remote_port),
        filter=destination_filter,
        detail=_ports_detail,
        empty="No connection from a port of this range." if view.ephemeral_ports else "",
    )


def _ports_columns(view: View, width: int, six: bool) -> Sequence[InlineColumn[Destination]]:
    timed = view.sample.capabilities.timers
    wide = width >= WIDE
    name, own = (30, 24) if six and wide else (22, 0) if six else (21, 15)
    style = _level(view)
    at_first: list[InlineColumn[Destination]] = [
        InlineColumn("", name, lambda one, look: text_piece(one.remote, look), right=False, named=True),
        InlineColumn("", 0, lambda one, look: (bar(one.share, look.width), style(one, look)), right=False),
        InlineColumn("" if wide else "used", 6, lambda one, look: text_piece(units.share(one.share), look)),
        InlineColumn("left", 6, lambda one, look: (units.count(one.free, look.exact), style(one, look)), priority=1),
        InlineColumn("TIME_WAIT", 9, lambda one, look: count_piece(one.time_wait, look), priority=3),
        InlineColumn("reusable" if wide else "reuse", 8 if wide else 6, lambda one, look: count_piece(one.reusable,
            look), priority=4),
        InlineColumn("free in", 7, lambda one, look: text_piece(_free_in(one, timed), look)),
        InlineColumn("exhausted in" if wide else "gone in", 12 if wide else 9,
               lambda one, look: text_piece(_exhausted_in(one), look, style(one, look)), priority=2),
    ]  # fmt: skip
    if not wide:
        return at_first
    process: InlineColumn[Destination] = InlineColumn(
        "process",
        20,
        lambda one, look: text_piece(one.process or units.UNKNOWN, look),
        right=False,
        named=True,
        priority=5,
    )
    own_address: InlineColumn[Destination] = InlineColumn(
        "from", own, lambda one, look: text_piece(one.local_address, look), right=False, named=True, priority=6
    )
    used: InlineColumn[Destination] = InlineColumn("used", 7, lambda one, look: count_piece(one.used, look), priority=7)
    return [at_first[0], own_address, at_first[1], used, *at_first[2:], process]


def _level(view: View) -> Callable[[Destination, InlineCellContext], Style]:
    """Red where no port is left, amber where the rule begins to speak."""

    def style(one: Destination, look: InlineCellContext) -> Style:
        if not one.free:
            return look.colours.alarm
        return look.colours.warning if one.share >= view.thresholds.ports_share else look.colours.plain

    return style


def _free_in(one: Destination, timed: bool) -> str:
    if one.next_free_s is None or not timed:
        return units.UNKNOWN
    if not one.next_free_s:
        return "due"  # its timer has run out; the kernel comes round to it within some seconds
    return units.duration(one.next_free_s) if one.next_free_s < 59.5 else f"{one.next_free_s:.0f} s"


def _exhausted_in(one: Destination) -> str:
    return units.duration(one.runs_out_in_s) if one.free else "now"


def destination_filter(one: Destination) -> str:
    """The filter of its connections."""
    return f"raddr:{one.remote_address} rport:{one.remote_port} laddr:{one.local_address}"


def _ports_detail(one: Destination, exact: bool) -> str:
    used, usable = units.count(one.used, exact), units.count(one.usable, exact)
    most = f", most by {one.process}" if one.process else ", held by no process"
    return f"{one.local_address} → {one.remote}: {used} of {usable} ports{most}"


def range_line(found: EphemeralPorts | None, reuse: int | None, width: int, colours: Palette) -> Line:
    """What connect() may choose from; and what programs do that makes it less."""
    if found is None:
        return ((f"{_INDENT}ip_local_port_range is not known here.", colours.dim),)
    span = found.range
    head = f"{span.low}–{span.high}: {units.count(span.usable)} usable"
    reserved, held = units.count(span.reserved), units.count(span.held)
    longest = f"{head}, {reserved} reserved, {held} held by bind()"
    many = f" · {units.count(found.count)} destination{'s' * (found.count != 1)}"
    mode = f" · tcp_tw_reuse {_REUSE.get(reuse, reuse)}" if reuse is not None else ""
    signs = ("", "") if not found.bound_before_connect else (
        " △ programs bind() before connect(): a port serves one destination only", " △ bind() before connect()",
    )  # fmt: skip
    said = [longest + many + mode, longest + many, longest, f"{head} ({reserved} reserved, {held} bound)", head]
    room = width - len(_INDENT) - 1
    fitting = ((one, sign) for sign in signs for one in said if len(one + sign) <= room)
    facts, sign = next(fitting, (head, signs[1]))
    return ((_INDENT + facts, colours.plain), (sign, colours.warning))


_REUSE = {0: "off", 1: "on", 2: "on loopback"}


# TIME_WAIT ---------------------------------------------------------------------------------------


def time_wait_destinations_table(view: View) -> InlineTable[Destination]:
    """TIME_WAIT of the client's side, by destination."""
    found = view.ephemeral_ports.destinations if view.ephemeral_ports else ()
    waiting = sorted((one for one in found if _waits(one)), key=lambda one: -_waits(one))
    most = max(map(_waits, waiting), default=1)
    columns: Sequence[InlineColumn[Destination]] = (
        InlineColumn("", 32, lambda one, look: text_piece(one.remote, look), right=False, named=True),
        InlineColumn(
            "", 0, lambda one, look: (bar(_waits(one) / most, look.width), look.colours.teardown), right=False
        ),
        InlineColumn("TIME_WAIT", 9, lambda one, look: count_piece(_waits(one), look)),
        InlineColumn("reusable", 8, lambda one, look: count_piece(one.reusable, look)),
    )
    return InlineTable(
        TIME_WAIT_DESTINATIONS,
        "Client's side, by destination",
        waiting,
        lambda width: columns,
        identity=lambda one: (one.local_address, one.remote_address, one.remote_port),
        filter=lambda one: f"state:time-wait {destination_filter(one)}",
        detail=_to_detail,
        empty="No TIME_WAIT holds an ephemeral port." if view.ephemeral_ports else "Not known here.",
    )


def _waits(one: Destination) -> int:
    return one.time_wait + one.reusable


def _to_detail(one: Destination, exact: bool) -> str:
    count, reusable = units.count(_waits(one), exact), units.count(one.reusable, exact)
    return f"{one.local_address} → {one.remote}: {count} TIME_WAIT, {reusable} of them may be used again"


def time_wait_ports_table(view: View) -> InlineTable[tuple[int, int]]:
    """TIME_WAIT of the server's side, by port."""
    found = view.teardown.time_wait.by_port
    owners = {one.local_port: one.process for one in view.listeners if one.process}
    most = max((count for _, count in found), default=1)

    def named(port: int) -> str:
        return f":{port} {owners.get(port, '')}".rstrip()

    def columns(width: int) -> Sequence[InlineColumn[tuple[int, int]]]:
        return (
            InlineColumn("", 24 if width < 50 else 32, lambda one, look: text_piece(named(one[0]), look), right=False),
            InlineColumn("", 0, lambda one, look: (bar(one[1] / most, look.width), look.colours.teardown), right=False),
            InlineColumn(
                "" if width < 50 else "TIME_WAIT", 7 if width < 50 else 9, lambda one, look: count_piece(one[1], look)
            ),
        )

    return InlineTable(
        TIME_WAIT_PORTS,
        "Server's side, by port",
        found,
        columns,
        identity=lambda one: one[0],
        filter=lambda one: f"state:time-wait lport:{one[0]}",
        detail=lambda one, exact: f"{named(one[0])}: {units.count(one[1], exact)} TIME_WAIT, memory only",
        empty="None.",
    )
