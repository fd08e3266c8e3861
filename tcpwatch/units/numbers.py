"""Counts, rates and shares."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "–"
"""Shown where a figure is not known: never 0, never a guess."""


def count(number: float | None, exact: bool = False) -> str:
    """Return a count: `8,212`, from a million on `1.23 M`."""
    if number is None:
        return UNKNOWN
    if exact or abs(number) < 1_000_000:
        return f"{number:,.0f}"
    return scaled(number / 1000, 1000, "MGT")


def plural(number: float | None, noun: str, nouns: str | None = None) -> str:
    """Return a count with its noun: `1 connection`, `1,200 connections`; `nouns` if its plural is not `noun` + "s"."""
    return f"{count(number)} {noun if number == 1 else nouns or f'{noun}s'}"


def listing(names: Sequence[str], total: int) -> str:
    """Return the first few of `total` names: `a, b, c and 27 more`, `a and b`."""
    rest = total - len(names)
    if rest > 0:
        return f"{', '.join(names)} and {count(rest)} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def scaled(number: float, base: int, prefixes: str) -> str:
    """Return `number`, at least `base`, in three digits with a prefix such that it is 1 or more: `1.23 M`, `98 k`."""
    value, power = number / base, 0
    while abs(value) >= base - 0.5 and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {prefixes[power]}"


def rate(per_second: float | None, signed: bool = False) -> str:
    """Return a rate without its unit: `0`, `0.2`, `38`, `1,200`; signed: `+38`, `-0.2`."""
    if per_second is None or per_second != per_second:
        return UNKNOWN
    if abs(per_second) < 0.05:
        return "0"
    digits = f"{per_second:,.1f}" if abs(per_second) < 9.95 else count(round(per_second))
    digits = digits.removesuffix(".0")
    return f"+{digits}" if signed and per_second > 0 else digits


def plural_rate(per_second: float | None, noun: str) -> str:
    """Return a rate with its noun: `1 SYN/s`, `0.2 SYNs/s`, `740 SYNs/s`."""
    shown = rate(per_second)
    return f"{shown} {noun}/s" if shown == "1" else f"{shown} {noun}s/s"


def per_second(rate_: float | None) -> str:
    """Return a rate with its unit: `61/s`."""
    return UNKNOWN if rate_ is None else f"{rate(rate_)}/s"


def share(part: float | None, whole: float | None = 1.0) -> str:
    """Return a share in percent: `62 %`, `1.2 %`, `0.02 %`."""
    if part is None or not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if percent == 0:
        return "0 %"
    digits = 0 if percent >= 9.95 else 1 if percent >= 0.995 else 2
    return f"{percent:.{digits}f} %"
