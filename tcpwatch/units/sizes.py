"""Sizes and rates in bytes; 1 kB is 1024 bytes."""

from __future__ import annotations

from tcpwatch.units.numbers import UNKNOWN, scaled

_PREFIXES = "kMGT"
_SCALED_FROM = 100_000


def size(number: float | None, exact: bool = False) -> str:
    """Return bytes for a narrow table cell, without the unit: `512`, `65536`, from 100,000 on `97.7 k`, `1.21 M`."""
    if number is None:
        return UNKNOWN
    if exact or abs(number) < _SCALED_FROM:
        return f"{number:.0f}"
    return scaled(number, 1024, _PREFIXES)


def byte_size(number: float | None, exact: bool = False) -> str:
    """Return bytes with their unit, for sentences: `46,720 B`, from 100,000 on `239 kB`, `9.9 MB`."""
    if number is None:
        return UNKNOWN
    if exact or abs(number) < _SCALED_FROM:
        return f"{number:,.0f} B"
    digits, prefix = scaled(number, 1024, _PREFIXES).split()
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {prefix}B"


def byte_rate(per_second: float | None, exact: bool = False) -> str:
    """Return bytes per second with their unit: `239 kB/s`, `9.9 MB/s`."""
    return UNKNOWN if per_second is None else f"{byte_size(per_second, exact)}/s"
