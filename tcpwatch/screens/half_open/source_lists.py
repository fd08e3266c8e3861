"""Lists of sources: by address and by network, side by side, with a cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.listeners.syn_sources import TOP, PrefixKind, SynSource, SynSources
from tcpwatch.widgets.charts.bars import bar
from tcpwatch.widgets.lines import Line, fit, overlay_style, title_rule
from tcpwatch.widgets.palette import Palette

SourcePlace = tuple[PrefixKind, int]
"""A source by its grouping and rank: what the cursor is on."""

_MARK, _COUNT, _SHARE = 3, 7, 7
_NAME, _NAME6 = 16, 24
"""Cells for an IPv4 prefix, and for a usual IPv6 one."""
_LONGEST = 43
"""Cells for any prefix."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """Groupings below one another, with a title above them."""

    title: str
    groupings: tuple[PrefixKind, ...]
    heads: tuple[str, ...] = ()
    """What its title line ends with: the first that fits."""

    def head(self, width: int) -> str:
        """What fits beside the title, with its blank."""
        return next((f" {head}" for head in self.heads if head and len(self.title) + len(head) + 8 <= width), "")


_NETWORKS: Mapping[tuple[bool, bool], tuple[tuple[PrefixKind, ...], tuple[PrefixKind, ...]]] = {
    (True, False): (("/24",), ("/16",)),
    (False, True): (("/64",), ("/48",)),
    (True, True): (("/24", "/64"), ("/16", "/48")),
}
"""Whether there is IPv4, and IPv6 → the narrower networks and the wider ones."""


def source_columns(found: SynSources | None, count: int) -> list[SourceColumn]:
    """The groupings that there are, in two columns or three: IPv4's networks unless there is IPv6 alone."""
    six = bool(found and found.top["/64"])
    four = bool(found and found.top["/24"]) or not six
    narrow, wide = _NETWORKS[four, six]
    addresses = SourceColumn("Addresses", ("address",), _of_addresses(found))
    entropy = (f"address {_entropy(found)}", _entropy(found))
    if count == 2:
        return [addresses, SourceColumn("Networks", narrow + wide, entropy)]
    named = (f"Networks {' and '.join(groupings)}" for groupings in (narrow, wide))
    return [addresses, SourceColumn(next(named), narrow, entropy), SourceColumn(next(named), wide)]


def _of_addresses(found: SynSources | None) -> tuple[str, ...]:
    if found is None or not found.count:
        return ()
    distinct = f"{units.count(found.distinct)} distinct"
    return (
        f"{distinct}, {units.share(found.distinct_share)} of connections",
        f"{distinct}, {units.share(found.distinct_share)}",
        distinct,
    )


def _entropy(found: SynSources | None) -> str:
    return f"entropy {found.entropy:.1f} bits" if found and found.count else ""


def rows_per_prefix_kind(rows: int, groupings: int) -> list[int]:
    """How many of the rows each grouping of a column has."""
    each, rest = divmod(rows, groupings)
    return [min(TOP, each + (at < rest)) for at in range(groupings)]


def source_places(found: SynSources | None, column: SourceColumn, rows: int) -> list[SourcePlace | None]:
    """What each row of a column shows; None where it is empty."""
    shown: list[SourcePlace | None] = []
    for grouping, room in zip(column.groupings, rows_per_prefix_kind(rows, len(column.groupings)), strict=True):
        there = min(room, len(found.top[grouping])) if found else 0
        shown += [(grouping, rank) for rank in range(there)] + [None] * (room - there)
    return shown + [None] * (rows - len(shown))


def source_column_lines(
    found: SynSources | None,
    column: SourceColumn,
    rows: int,
    width: int,
    cursor: SourcePlace | None,
    colours: Palette,
    exact: bool,
) -> list[Line]:
    """The column's title and so many rows, in `width` cells."""
    lines = [title_rule(column.title, width, colours, column.head(width))]
    shown = [found.top[place[0]][place[1]] if found and place else None for place in source_places(found, column, rows)]
    longest = max((len(source.prefix) for source in shown if source), default=0)
    if any(source and ":" in source.prefix for source in shown):
        longest = max(longest, _NAME6)
    for place, source in zip(source_places(found, column, rows), shown, strict=True):
        if source is None:
            lines.append(())
            continue
        marked = place == cursor
        line = _row(source, longest, width, marked, colours, exact)
        lines.append(overlay_style(line, width, colours.cursor) if marked else line)
    return lines


def _row(source: SynSource, longest: int, width: int, marked: bool, colours: Palette, exact: bool) -> Line:
    figure = units.count(source.count, exact)
    count = max(_COUNT, len(figure))  # exact millions take room from the bar
    free = max(0, width - _MARK - 1 - count - _SHARE - 1)
    name = min(free, _LONGEST, max(_NAME, longest))
    return (
        (" ▸ " if marked else "   ", colours.strong),
        (fit(source.prefix, name, middle=True) + " ", colours.plain),
        (bar(source.share, free - name - 1) + " " * (free > name), colours.handshake),
        (fit(figure, count, right=True), colours.plain),
        (fit(_share(source.share), _SHARE, right=True) + " ", colours.dim),
    )


def _share(share: float) -> str:
    """In percent; one of a million is not `0.00 %`."""
    return "<.01 %" if share < 0.00005 else units.share(share)
