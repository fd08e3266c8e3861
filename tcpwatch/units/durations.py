"""Durations, as coarse or as fine as what is known of them."""

from __future__ import annotations

from tcpwatch.units.numbers import UNKNOWN

_UNITS = (("µs", 0.001), ("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0))


def duration(seconds: float | None) -> str:
    """Return `0.2 s`, `12 s`, `3 m 02 s`, `2 h 05 m` or `4 d 03 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600:02} h"


def precise_duration(seconds: float) -> str:
    """Return `12 µs`, `2.3 ms`, `412 ms`, `1.234 s`, and from ten seconds on the same as duration()."""
    micros = round(seconds * 1e6)
    if micros < 1000:
        return f"{micros} µs"
    if micros < 999_500:
        return f"{micros / 1000:.1f} ms" if micros < 99_950 else f"{micros / 1000:.0f} ms"
    return f"{seconds:.3f} s" if seconds < 9.9995 else duration(seconds)


def short_duration(ms: float | None) -> str:
    """Return a duration in at most six characters, as exact as percentiles are: `45 µs`, `1.2 ms`, `340 ms`, `12 s`."""
    if ms is None:
        return UNKNOWN
    unit, length = next(((unit, length) for unit, length in _UNITS if ms < 999.5 * length), _UNITS[-1])
    value = ms / length
    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "µs" else f"{value:.1f} {unit}"
