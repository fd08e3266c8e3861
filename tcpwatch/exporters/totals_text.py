"""What FlowTotals say, in words that the terminal's front end and the others share."""

from __future__ import annotations

from tcpwatch.model.sockets.flow_totals import Totals
from tcpwatch.units import text

PERCENTILES = ("p50", "p90", "p99")
LIFETIME_FIGURES = (*zip(PERCENTILES, PERCENTILES, strict=True), ("shortest", "least"), ("longest", "most"))
"""Words for lifetimes, each with the figure of a Spread."""
_UNITS = (("µs", 0.001), ("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0))


def short_duration(ms: float | None) -> str:
    """A length of time in six characters at most, as exact as percentiles are: `45 µs`, `1.2 ms`, `340 ms`, `12 s`."""
    if ms is None:
        return text.UNKNOWN
    unit, length = next((one for one in _UNITS if ms < 999.5 * one[1]), _UNITS[-1])
    value = ms / length
    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "µs" else f"{value:.1f} {unit}"


def lifetime_text(totals: Totals, figure: str) -> str:
    """A percentile or an extreme of the lifetimes; `≤12 ms` where not all are exact: they were at most as long."""
    ms = getattr(totals.lifetime_ms, figure)
    return ("≤" if ms is not None and totals.exact < 1 else "") + short_duration(ms)
