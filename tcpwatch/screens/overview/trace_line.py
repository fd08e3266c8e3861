"""One line with rates of the trace: retransmitted segments, resets, and dropped segments by reason."""

from __future__ import annotations

from tcpwatch import units
from tcpwatch.model.view import View
from tcpwatch.widgets.lines import Line, Piece, cells_of
from tcpwatch.widgets.palette import Palette

MIN_WIDTH = 100
_LABEL = "   trace of all namespaces"


def trace_line(view: View, width: int, colours: Palette) -> list[Line]:
    """Return one line if there is a trace and room; the rarest drop reasons are left out if they do not fit."""
    trace = view.trace
    if not trace.on or width < MIN_WIDTH:
        return []
    pieces: list[Piece] = [(_LABEL, colours.dim)]
    for word, rate in (
        ("retransmitted", trace.retransmitted_per_s),
        ("resets sent", trace.resets_sent_per_s),
        ("received", trace.resets_received_per_s),
    ):
        pieces += [(f"  {word} ", colours.plain), (f"{units.rate(rate)}/s", colours.plain if rate else colours.dim)]
    dropped = sorted(trace.drops_per_s.items(), key=lambda item: (-item[1], item[0]))
    pieces.append(("  dropped ", colours.plain))
    if not dropped:
        pieces.append(("0/s", colours.dim))
    for at, (reason, rate) in enumerate(dropped):
        more = [(", " * bool(at) + f"{reason} ", colours.dim), (f"{units.rate(rate)}/s", colours.plain)]
        if cells_of([*pieces, *more]) > width - 1:
            break
        pieces += more
    return [tuple(pieces)]
